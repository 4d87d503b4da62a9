//! `peers`, `status`, `summary`, `visible`, `profile`, `ping`.

use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::presence::{Peer, PeerStatus, Profile, Stats};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::name::looks_like;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::shown;
use crate::config::MeshEntry;
use crate::connection::{Connection, ConnectionError};
use crate::context::Context;
use crate::context::connect::{SHELL_SESSION, ask, target_session};
use crate::context::several::{Troubles, each};
use crate::error::{CliError, ExitCode};
use crate::features::enrolment;
use crate::features::info::Kept;
use crate::local;
use crate::output::{Output, Style, clean, counted};

use self::args::{PeersArgs, ProfileArgs, StatusAction, StatusArgs, SummaryArgs, VisibleArgs};
use crate::verb::json_fields;

pub mod args;

/// What a listed peer has beside the fields of the wire.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PeerPlace {
    name: String,
    /// What one writes to reach it: `member/session`, or the member's name.
    address: String,
    mesh: String,
    /// It is a session of our own member.
    is_self: bool,
    /// It is the session that this runs in.
    this_session: bool,
    /// Other members whose names look like its member's.
    looks_like: Vec<String>,
}

/// A connected peer, for scripts.
#[derive(Serialize, JsonSchema)]
struct HerePeer {
    #[serde(flatten)]
    peer: Peer,
    #[serde(flatten)]
    place: PeerPlace,
}

/// A member without a connection, as a peer that is away.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct AwayMember {
    pubkey: PublicKey,
    member_pubkey: PublicKey,
    display_name: String,
    status: Option<PeerStatus>,
    summary: Option<String>,
    groups: Vec<Group>,
    role: String,
    online: bool,
    last_seen_at: Option<String>,
    #[serde(flatten)]
    place: PeerPlace,
}

/// A row of `peers`.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum PeerRow {
    Here(Box<HerePeer>),
    Away(Box<AwayMember>),
}

/// What one peer counted, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Counted {
    mesh: String,
    name: String,
    pubkey: PublicKey,
    /// `null` of a peer that reports nothing.
    stats: Option<Stats>,
}

/// The way to one broker and back, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Pinged {
    mesh: String,
    ws_status: &'static str,
    peers_online: usize,
    round_trip_ms: f64,
    /// `null` when the broker does not tell its clock.
    broker_time: Option<String>,
    push_buffer: u32,
}

/// Whether a mesh can be reached, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Reached {
    mesh: String,
    ok: bool,
    broker_url: String,
    /// Your name there; absent when it is not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// First 16 digits of your key.
    pubkey: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_ms: Option<f64>,
    /// No one but this command serves the mesh: others do not reach it when the command has ended.
    served_by_this_command: bool,
    /// Code of what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// All of `status`, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Connections {
    version: &'static str,
    config: String,
    ok: bool,
    meshes: Vec<Reached>,
}

/// What `status set` wrote.
#[derive(Serialize, Deserialize, JsonSchema)]
struct StatusSet {
    status: &'static str,
}

/// What `summary` wrote.
#[derive(Serialize, Deserialize, JsonSchema)]
struct SummarySet {
    summary: String,
}

/// What `visible` wrote.
#[derive(Serialize, Deserialize, JsonSchema)]
struct VisibleSet {
    visible: bool,
}

/// The profile of one session of this member.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct OwnProfile {
    mesh: String,
    name: String,
    session_id: String,
    profile: Option<Profile>,
}

/// How many sessions a write changed.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Sessions {
    sessions: u32,
}

/// A write and how many sessions it changed.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Written<T> {
    #[serde(flatten)]
    change: T,
    #[serde(flatten)]
    sessions: Sessions,
}

/// The fields of what [`write`] prints.
pub(crate) fn written<T: Deserialize<'static>>() -> Vec<&'static str> {
    json_fields::joined([json_fields::of::<T>(), json_fields::of::<Sessions>()])
}

impl From<args::PeerStatus> for PeerStatus {
    fn from(status: args::PeerStatus) -> Self {
        match status {
            args::PeerStatus::Idle => Self::Idle,
            args::PeerStatus::Working => Self::Working,
            args::PeerStatus::Dnd => Self::Dnd,
        }
    }
}

/// Runs `peers`.
///
/// # Errors
/// Of the connection.
fn peers(cx: &Context, args: &PeersArgs) -> Result<ExitCode, CliError> {
    let (lists, exit) = each(cx, |entry| {
        let (peers, own) = ask(cx, entry, |connection| async move {
            Ok((connection.list_peers().await?, connection.identity().own_public()))
        })?;
        remember_names(cx, entry, &peers);
        let names: Vec<&str> = peers.iter().filter_map(|peer| peer.member_name.as_deref()).collect();
        let row = |peer: &Peer| peer_json(peer, entry, peer.session_id != SHELL_SESSION && peer.pubkey == own, &names);
        // Who is away is asked for with --all, in every form of the answer.
        let there = peers.iter().filter(|peer| args.all || peer.online);
        let mut list: Vec<Value> = there.map(row).collect();
        if args.all {
            list.extend(away(entry, &peers)?);
        }
        Ok(list)
    })?;
    let rows: Vec<&Value> = lists.iter().flat_map(|(_, list)| list).collect();
    cx.out.answer(&rows, |out| {
        lists.iter().map(|(entry, peers)| peers_text(&entry.slug, peers, args.all, out)).collect()
    })?;
    Ok(exit)
}

/// Runs `stats`: per mesh what it keeps, for people, and the counters that each peer reported.
///
/// # Errors
/// Of the connection.
fn stats(cx: &Context) -> Result<ExitCode, CliError> {
    let (meshes, exit) = each(cx, |entry| {
        let look = |connection: Connection| async move {
            Ok((connection.list_peers().await?, Kept::from(&connection.mesh_info().await?)))
        };
        let (peers, kept) = ask(cx, entry, look)?;
        remember_names(cx, entry, &peers);
        let counted = |peer: Peer| Counted {
            mesh: entry.slug.clone(),
            name: peer.display_name,
            pubkey: peer.pubkey,
            stats: peer.stats,
        };
        let list: Vec<Counted> = peers.into_iter().filter(|peer| peer.online).map(counted).collect();
        Ok((kept, list))
    })?;
    let rows: Vec<&Counted> = meshes.iter().flat_map(|(_, (_, list))| list).collect();
    cx.out.answer(&rows, |out| {
        meshes.iter().map(|(entry, (kept, list))| stats_text(&entry.slug, kept, list, out)).collect()
    })?;
    Ok(exit)
}

fn stats_text(slug: &str, kept: &Kept, peers: &[Counted], out: &Output) -> String {
    let head = format!("{} ({})", clean(slug), peers.len());
    let mut text = format!("{}  {}\n", out.paint(Style::Bold, &head), out.paint(Style::Dim, &kept.to_string()));
    for peer in peers {
        let number = |pick: fn(&Stats) -> Option<f64>| {
            peer.stats.as_ref().and_then(pick).map_or_else(|| "-".into(), |value| format!("{value:.0}"))
        };
        text += &format!(
            "  {}: {} in, {} out, {} tool calls, {} errors\n",
            clean(&peer.name),
            number(|stats| stats.messages_in),
            number(|stats| stats.messages_out),
            number(|stats| stats.tool_calls),
            number(|stats| stats.errors)
        );
    }
    text
}

/// A peer for scripts: the wire's fields, plus how to write to it, its mesh and whose it is.
fn peer_json(peer: &Peer, entry: &MeshEntry, this_session: bool, names: &[&str]) -> Value {
    let member = peer.member_name.as_deref().unwrap_or_default();
    let mut looks_like: Vec<String> =
        names.iter().filter(|other| looks_like(member, other)).map(|&other| other.to_owned()).collect();
    looks_like.sort_unstable();
    looks_like.dedup();
    let place = PeerPlace {
        name: peer.display_name.clone(),
        address: peer.address(),
        mesh: entry.slug.clone(),
        is_self: peer.member_pubkey.to_hex() == entry.pubkey,
        this_session,
        looks_like,
    };
    let row = PeerRow::Here(Box::new(HerePeer { peer: peer.clone(), place }));
    serde_json::to_value(row).unwrap_or_default()
}

/// Members without a connection, as peers that are away.
fn away(entry: &MeshEntry, peers: &[Peer]) -> Result<Vec<Value>, CliError> {
    let members = enrolment::members(entry)?;
    let there = |key: &claudemesh_protocol::id::PublicKey| peers.iter().any(|peer| peer.member_pubkey == *key);
    let away = members.into_iter().filter(|member| !there(&member.pubkey)).map(|member| AwayMember {
        pubkey: member.pubkey,
        member_pubkey: member.pubkey,
        display_name: member.display_name.clone(),
        status: None,
        summary: None,
        groups: member.groups,
        role: member.permission,
        online: false,
        last_seen_at: member.last_seen_at,
        place: PeerPlace {
            name: member.display_name.clone(),
            address: member.display_name,
            this_session: false,
            looks_like: vec![],
            mesh: entry.slug.clone(),
            is_self: member.pubkey.to_hex() == entry.pubkey,
        },
    });
    let row = |member| serde_json::to_value(PeerRow::Away(Box::new(member))).unwrap_or_default();
    Ok(away.map(row).collect())
}

/// Who is connected; with `all` also who is away, for a moment or for days.
fn peers_text(slug: &str, peers: &[Value], all: bool, out: &Output) -> String {
    let keys: Vec<&str> = peers.iter().filter_map(|peer| peer["pubkey"].as_str()).collect();
    let length = unique_prefix(&keys);
    let shown: Vec<&Value> = peers.iter().filter(|peer| all || is_online(peer)).collect();
    let header = format!("{} ({})", clean(slug), shown.len());
    let mut text = format!("{}\n", out.paint(Style::Bold, &header));
    for peer in &shown {
        text += &peer_text(peer, length, out);
    }
    if shown.is_empty() {
        text += "  no one is connected; `claudemesh peers --all` also lists members that are away\n";
    }
    text
}

fn is_online(peer: &Value) -> bool {
    peer["online"].as_bool().unwrap_or(true)
}

/// Digits of a key that tell all listed keys apart: at least 12, so that the printed prefix resolves.
fn unique_prefix(keys: &[&str]) -> usize {
    let apart = |length: usize| {
        let mut heads: Vec<&str> = keys.iter().map(|key| key.get(..length).unwrap_or(key)).collect();
        heads.sort_unstable();
        heads.windows(2).all(|pair| pair[0] != pair[1])
    };
    (12..64).find(|length| apart(*length)).unwrap_or(64)
}

fn peer_text(peer: &Value, length: usize, out: &Output) -> String {
    let word = |name: &str| peer[name].as_str().filter(|text| !text.is_empty());
    let online = is_online(peer);
    let (style, status) = match word("status") {
        _ if !online => (Style::Dim, "away"),
        Some("idle") => (Style::Green, "idle"),
        Some("working") => (Style::Yellow, "working"),
        Some("dnd") => (Style::Red, "dnd"),
        _ => (Style::Dim, "?"),
    };
    let name = clean(word("address").or(word("displayName")).unwrap_or("?")).into_owned();
    let dot = if online { "●" } else { "○" };
    let mut line = format!("  {} {} {status}", out.paint(style, dot), out.paint(Style::Bold, &name));
    if peer["thisSession"].as_bool() == Some(true) {
        line.push_str(" (this session)");
    } else if peer["isSelf"].as_bool() == Some(true) {
        line.push_str(" (yours)");
    }
    let role = word("role").filter(|role| *role != "member");
    line.extend(role.map(|role| format!(" {}", clean(role))));
    line.extend(peer["profile"]["title"].as_str().map(|title| format!(" \"{}\"", clean(title))));
    let alike: Vec<_> =
        peer["looksLike"].as_array().into_iter().flatten().filter_map(Value::as_str).map(clean).collect();
    if !alike.is_empty() {
        let note = format!(" (its name looks like {})", alike.join(", "));
        line += &out.paint(Style::Yellow, &note);
    }
    if peer["visible"].as_bool() == Some(false) {
        line.push_str(" [hidden]");
    }
    let groups: Vec<String> = peer["groups"].as_array().into_iter().flatten().map(group_text).collect();
    if !groups.is_empty() {
        line += &format!(" [{}]", groups.join(", "));
    }
    let kind: Vec<String> = ["peerType", "channel", "model"]
        .iter()
        .filter_map(|name| word(name).map(|text| clean(text).into_owned()))
        .collect();
    if !kind.is_empty() {
        line += &format!(" ({})", kind.join(", "));
    }
    if let Some(waiting) = peer["waiting"].as_u64().filter(|waiting| *waiting > 0) {
        line += &format!(", {waiting} message{} waiting", if waiting == 1 { "" } else { "s" });
    }
    let key: String = word("pubkey").unwrap_or_default().chars().take(length).collect();
    let mut second = vec![clean(&key).into_owned()];
    let place = match (word("hostname"), word("cwd")) {
        (Some(host), Some(folder)) => Some(format!("{host}:{folder}")),
        (host, folder) => host.or(folder).map(str::to_owned),
    };
    second.extend(place.map(|place| clean(&place).into_owned()));
    if !online {
        second.extend(word("lastSeenAt").map(|at| format!("last seen {}", shown(at))));
    }
    line += &format!("\n    {}", out.paint(Style::Dim, &second.join("  ")));
    if let Some(summary) = word("summary") {
        line += &format!("\n    {}", clean(summary));
    }
    line + "\n"
}

fn group_text(group: &Value) -> String {
    let name = clean(group["name"].as_str().unwrap_or("?")).into_owned();
    match group["role"].as_str() {
        Some(role) => format!("@{name}:{}", clean(role)),
        None => format!("@{name}"),
    }
}

/// Runs `status` and `status set`.
///
/// # Errors
/// Of the connection; `status` without `set` answers exit 1 when a mesh cannot be reached.
fn status(cx: &Context, args: &StatusArgs) -> Result<ExitCode, CliError> {
    match &args.action {
        Some(StatusAction::Set { status, session }) => {
            let word = status.as_str();
            let status = PeerStatus::from(*status);
            let session = target_session(cx, session.session.as_deref());
            write(cx, StatusSet { status: word }, &format!("status {word}"), |connection| {
                let session = session.clone();
                async move { connection.set_status(status, Some(&session)).await }
            })
        }
        None => connections(cx),
    }
}

/// Tests the connection of every mesh.
fn connections(cx: &Context) -> Result<ExitCode, CliError> {
    let config = cx.store.load()?;
    let entries = if config.meshes.is_empty() { vec![] } else { cx.mesh_entries()? };
    let mut rows = Vec::new();
    for entry in entries {
        let tested = ask(cx, &entry, |connection| async move {
            let ack = connection.hello_ack()?;
            Ok((ack.member_display_name.clone(), connection.echo().await.ok().map(|(_, time)| time)))
        });
        let mut row = Reached {
            mesh: entry.slug.clone(),
            ok: tested.is_ok(),
            broker_url: entry.broker_url.clone(),
            name: None,
            pubkey: entry.pubkey.chars().take(16).collect(),
            round_trip_ms: None,
            served_by_this_command: local::is_local(&entry) && local::serves_now(),
            error: None,
            message: None,
        };
        match tested {
            Ok((name, time)) => {
                (row.name, row.round_trip_ms) = (Some(name), time.map(|time| time.as_secs_f64() * 1_000.0));
            }
            Err(error) => (row.error, row.message) = (Some(error.code), Some(error.message)),
        }
        rows.push(row);
    }
    let fine = rows.iter().all(|row| row.ok);
    let config = cx.store.config_path().to_string_lossy().into_owned();
    let value = Connections { version: env!("CARGO_PKG_VERSION"), config, ok: fine, meshes: rows };
    cx.out.answer(&value, |out| {
        let mut text = format!("claudemesh {}\nconfig {}\n", value.version, value.config);
        if value.meshes.is_empty() {
            text += "No mesh is joined.\n";
        }
        for row in &value.meshes {
            let field = |text: &Option<String>| clean(text.as_deref().unwrap_or_default()).into_owned();
            let (mark, rest) = if row.ok {
                let time = row.round_trip_ms.map(|ms| format!(", {ms:.1} ms")).unwrap_or_default();
                let alone = if row.served_by_this_command { ", served by this command only" } else { "" };
                (out.tick(), format!("connected as {}{time}{alone}", field(&row.name)))
            } else {
                (out.paint(Style::Red, "✗"), field(&row.message))
            };
            let (mesh, url) = (clean(&row.mesh), clean(&row.broker_url));
            text += &format!("{mark} {mesh} ({url}): {rest}  key {}\n", clean(&row.pubkey));
        }
        text
    })?;
    Ok(if fine { ExitCode::Success } else { ExitCode::Cancelled })
}

/// Runs `summary`.
///
/// # Errors
/// Of the connection; exit 5 when no session of the member is connected.
fn summary(cx: &Context, args: &SummaryArgs) -> Result<ExitCode, CliError> {
    let session = target_session(cx, args.session.session.as_deref());
    let text = args.text.clone();
    let words = if text.is_empty() { "summary cleared".into() } else { format!("summary: {}", clean(&text)) };
    write(cx, SummarySet { summary: text.clone() }, &words, |connection| {
        let (text, session) = (text.clone(), session.clone());
        async move { connection.set_summary(&text, Some(&session)).await }
    })
}

/// Runs `visible`.
///
/// # Errors
/// As [`summary`].
fn visible(cx: &Context, args: &VisibleArgs) -> Result<ExitCode, CliError> {
    let session = target_session(cx, args.session.session.as_deref());
    let visible = args.visible;
    let words = if visible { "visible" } else { "hidden; direct messages still arrive" };
    write(cx, VisibleSet { visible }, words, |connection| {
        let session = session.clone();
        async move { connection.set_visible(visible, Some(&session)).await }
    })
}

/// Runs `profile`.
///
/// # Errors
/// As [`summary`].
fn profile(cx: &Context, args: &ProfileArgs) -> Result<ExitCode, CliError> {
    if args.is_show() {
        return show_profile(cx);
    }
    let session = target_session(cx, args.session.session.as_deref());
    let capabilities = args.capabilities.clone().map(|list| list.into_iter().filter(|word| !word.is_empty()).collect());
    let profile =
        Profile { avatar: args.avatar.clone(), title: args.title.clone(), bio: args.bio.clone(), capabilities };
    write(cx, profile.clone(), "profile updated", |connection| {
        let (profile, session) = (profile.clone(), session.clone());
        async move { connection.set_profile(profile, Some(&session)).await }
    })?;
    Ok(ExitCode::Success)
}

/// Exit 5 when there is no session whose profile it could be, as for the commands that change one.
fn show_profile(cx: &Context) -> Result<ExitCode, CliError> {
    let entry = cx.mesh_entry()?;
    let peers = ask(cx, &entry, |connection| async move { Ok(connection.list_peers().await?) })?;
    let own: Vec<OwnProfile> = peers
        .into_iter()
        .filter(|peer| peer.member_pubkey.to_hex() == entry.pubkey)
        .map(|peer| OwnProfile {
            mesh: entry.slug.clone(),
            name: peer.display_name,
            session_id: peer.session_id,
            profile: peer.profile,
        })
        .collect();
    cx.out.answer(&own, |out| {
        if own.is_empty() {
            return "No session of yours is connected; `claudemesh launch` starts one.\n".into();
        }
        let mut text = String::new();
        for session in &own {
            text += &format!("{}\n", out.paint(Style::Bold, &clean(&session.name)));
            let Some(profile) = &session.profile else { continue };
            for (label, value) in [("avatar", &profile.avatar), ("title", &profile.title), ("bio", &profile.bio)] {
                text.extend(value.as_ref().map(|value| format!("  {label:<13}{}\n", clean(value))));
            }
            if let Some(list) = &profile.capabilities {
                let words: Vec<_> = list.iter().map(|word| clean(word)).collect();
                text += &format!("  {:<13}{}\n", "abilities", words.join(", "));
            }
        }
        text
    })?;
    Ok(if own.is_empty() { ExitCode::NotFound } else { ExitCode::Success })
}

/// One write of presence in every mesh the call is about, and its answer.
///
/// # Errors
/// Of the connection; exit 5 when the member has no such session in any mesh, `unchanged` when those that there are changed
/// in none.
pub(crate) fn write<T: Serialize, F>(
    cx: &Context,
    change: T,
    words: &str,
    request: impl Fn(Connection) -> F,
) -> Result<ExitCode, CliError>
where
    F: Future<Output = Result<Option<u32>, ConnectionError>>,
{
    let mut changed = 0;
    let (mut silent, mut missing, mut present) = (None, None, false);
    let entries = cx.mesh_entries()?;
    let mut troubles = Troubles::of(entries.len());
    for entry in entries {
        let written = ask(cx, &entry, |connection| async {
            let of_session = connection.is_session();
            Ok((request(connection).await?, of_session))
        });
        match written {
            Ok((Some(count), _)) => (present, changed) = (true, changed + count),
            // An older broker confirms nothing. The session's own connection has changed the session all the same.
            Ok((None, true)) => (present, changed) = (true, changed + 1),
            Ok((None, false)) => silent = Some(entry.slug.clone()),
            // The session may be in another of the meshes.
            Err(error) if error.exit == ExitCode::NotFound => missing = Some(error),
            Err(error) => {
                troubles.sift::<()>(&entry, Err(error))?;
            }
        }
    }
    let exit = troubles.tell(cx)?;
    if changed == 0 {
        if let Some(slug) = silent {
            let message = format!(
                "The broker of {} is of an older kind: a shell cannot change a session there, so nothing has changed.",
                clean(&slug)
            );
            return Err(CliError::new(ExitCode::Network, "not_supported", message)
                .hint("Run the command in the shell of the session, or let the session do it with its own tool."));
        }
        return Err(match missing {
            Some(error) if !present => error,
            _ => CliError::new(ExitCode::NotFound, "unchanged", "Nothing has changed."),
        }
        .hint("Start a session with `claudemesh launch`; the shell itself has no presence to change."));
    }
    cx.out.answer(&Written { change, sessions: Sessions { sessions: changed } }, |out| {
        let plural = if changed == 1 { "" } else { "s" };
        format!("{} {words} ({changed} session{plural})\n", out.tick())
    })?;
    Ok(exit)
}

/// Keeps the names for the completions of the shell.
pub(crate) fn remember_names(cx: &Context, entry: &MeshEntry, peers: &[Peer]) {
    let groups = peers.iter().flat_map(|peer| peer.groups.iter().map(|group| group.name.clone()));
    cx.store.remember_names(&entry.mesh_id, peers.iter().map(|peer| peer.display_name.clone()), groups);
}

/// Runs `ping`.
///
/// # Errors
/// Of the connection.
fn ping(cx: &Context) -> Result<ExitCode, CliError> {
    let (pinged, exit) = each(cx, |entry| {
        let (echo, time, peers) = ask(cx, entry, |connection| async move {
            let (echo, time) = connection.echo().await?;
            let peers = connection.list_peers().await?;
            Ok((echo, time, peers.iter().filter(|peer| peer.online).count()))
        })?;
        Ok(Pinged {
            mesh: entry.slug.clone(),
            ws_status: "open",
            peers_online: peers,
            round_trip_ms: time.as_secs_f64() * 1_000.0,
            broker_time: Some(echo.broker_time).filter(|time| !time.is_empty()),
            push_buffer: echo.waiting.now + echo.waiting.next + echo.waiting.low,
        })
    })?;
    let rows: Vec<&Pinged> = pinged.iter().map(|(_, row)| row).collect();
    cx.out.answer(&rows, |out| {
        let line = |row: &&Pinged| {
            format!(
                "{} {}: {:.2} ms, {} online, {} waiting\n",
                out.tick(),
                clean(&row.mesh),
                row.round_trip_ms,
                counted(row.peers_online, "peer"),
                counted(row.push_buffer as usize, "message"),
            )
        };
        rows.iter().map(line).collect()
    })?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::unique_prefix;

    #[test]
    fn the_printed_prefix_tells_all_peers_apart() {
        let one = format!("{}{}", "a".repeat(20), "0".repeat(44));
        let two = format!("{}{}", "a".repeat(20), "1".repeat(44));
        assert_eq!(unique_prefix(&[&one, &two]), 21);
        assert_eq!(unique_prefix(&[&one]), 12);
        assert_eq!(unique_prefix(&[]), 12);
    }
}
