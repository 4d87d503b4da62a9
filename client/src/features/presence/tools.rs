//! `list_peers`, `set_status`, `set_summary`, `set_visible`, `set_profile`, `mesh_stats`, `ping_mesh`.

use std::collections::HashSet;

use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::presence::{Peer, PeerStatus, Profile, Stats};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::name::looks_like;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::schemars::{self, JsonSchema};
use rmcp::{tool, tool_router};
use serde::{Deserialize, Serialize};

use crate::connection::Connection;
use crate::context::connect::hostname;
use crate::features::enrolment;
use crate::features::info::Kept;
use crate::mcp::server::MeshServer;
use crate::mcp::tool::{Json, MeshArg, always_load};
use crate::session::notes::harmless_value;
use crate::session::{JoinedMesh, ToolError};

/// A peer that was last seen longer ago is told as stale.
const STALE_AFTER_MS: i64 = 30 * 60 * 1_000;

/// Parameters of `list_peers`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct ListPeers {
    /// Also members that are away, with the time they were last seen [default: false].
    #[serde(default)]
    all: Option<bool>,
    #[serde(flatten)]
    mesh: MeshArg,
}

/// Parameters of `set_summary`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct SetSummary {
    /// What you work on, in a sentence; empty clears it.
    summary: String,
    #[serde(flatten)]
    mesh: MeshArg,
}

/// Status words.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum StatusWord {
    /// Everything is delivered.
    Idle,
    /// Only urgent messages are delivered.
    Working,
    /// Do not disturb: only urgent messages.
    Dnd,
}

impl From<StatusWord> for PeerStatus {
    fn from(word: StatusWord) -> Self {
        match word {
            StatusWord::Idle => Self::Idle,
            StatusWord::Working => Self::Working,
            StatusWord::Dnd => Self::Dnd,
        }
    }
}

/// Parameters of `set_status`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct SetStatus {
    /// idle, working or dnd.
    status: StatusWord,
    #[serde(flatten)]
    mesh: MeshArg,
}

/// Parameters of `set_visible`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct SetVisible {
    /// false hides this session from lists and group messages.
    visible: bool,
    #[serde(flatten)]
    mesh: MeshArg,
}

/// Parameters of `set_profile`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct SetProfile {
    /// An emoji.
    #[serde(default)]
    avatar: Option<String>,
    /// Role in a few words.
    #[serde(default)]
    title: Option<String>,
    /// A few sentences.
    #[serde(default)]
    bio: Option<String>,
    /// What you can help with.
    #[serde(default)]
    capabilities: Option<Vec<String>>,
    #[serde(flatten)]
    mesh: MeshArg,
}

/// The peers of every mesh.
#[derive(Serialize, JsonSchema)]
struct Peers {
    /// One entry for each mesh.
    meshes: Vec<MeshPeers>,
}

/// The peers of one mesh.
#[derive(Serialize, JsonSchema)]
struct MeshPeers {
    /// The mesh.
    mesh_slug: String,
    /// connected, or not connected.
    status: &'static str,
    /// Its peers, when it is connected.
    peers: Option<Vec<PeerRow>>,
    /// Why it is not connected.
    error: Option<String>,
}

/// A peer: what one needs to know to write to it. A field without a value is absent.
#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PeerRow {
    /// What to write as recipient: member/session, or the member.
    name: String,
    /// Key to send to; one name may mean several peers.
    pubkey: String,
    /// this session, or yours: another session of the same member.
    whose: Option<&'static str>,
    /// idle, working, dnd or away.
    status: &'static str,
    /// ISO time of the last sign of life of one that is away.
    last_seen_at: Option<String>,
    /// It has been away for so long that no one should count on it.
    stale: Option<bool>,
    /// owner or admin of the mesh; plain members have none.
    role: Option<String>,
    /// What it does, in a few words.
    title: Option<String>,
    /// What it works on.
    summary: Option<String>,
    /// Groups, with : and as what it is there.
    groups: Option<Vec<String>>,
    /// Host it runs on.
    host: Option<String>,
    /// Its working directory.
    folder: Option<String>,
    /// ai, human or connector.
    kind: Option<String>,
    /// Model.
    model: Option<String>,
    /// Other members whose names look like its member's.
    looks_like: Option<Vec<String>>,
}

/// The counters of every mesh.
#[derive(Serialize, JsonSchema)]
struct AllStats {
    /// One entry for each mesh that is connected.
    meshes: Vec<MeshStats>,
    /// Meshes that are not connected, and why.
    trouble: Vec<String>,
}

/// The counters of one mesh.
#[derive(Serialize, JsonSchema)]
struct MeshStats {
    /// The mesh.
    mesh_slug: String,
    /// What it keeps.
    kept: Kept,
    /// Its peers.
    peers: Vec<PeerStats>,
}

/// The counters of one peer.
#[derive(Serialize, JsonSchema)]
struct PeerStats {
    /// Name.
    name: String,
    /// Key.
    pubkey: PublicKey,
    /// What it reported; this session's own are those of now.
    stats: Stats,
}

#[tool_router(router = presence_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        description = "List the peers of the mesh (other Claude Code sessions and people): name, status, groups, what they work on, where. Call it before sending.",
        meta = always_load(),
        annotations(read_only_hint = true)
    )]
    async fn list_peers(&self, Parameters(args): Parameters<ListPeers>) -> Result<Json<Peers>, ToolError> {
        let (host, all) = (hostname(), args.all.unwrap_or(false));
        let (mut sections, mut meshes, mut reached) = (Vec::new(), Vec::new(), 0);
        let ask = |connection: Connection| async move { connection.list_peers().await };
        for (bound, listed) in self.ask_each_mesh(args.mesh.slug(), ask).await? {
            let (mesh_slug, id) = (bound.tag.slug.clone(), bound.tag.id.chars().take(8).collect::<String>());
            match listed {
                Ok(peers) => {
                    reached += 1;
                    let (section, rows) = self.peers_of(&bound, peers, host.as_deref(), all).await;
                    sections.push(format!("## {mesh_slug} (connected, {id}){section}"));
                    meshes.push(MeshPeers { mesh_slug, status: "connected", peers: Some(rows), error: None });
                }
                Err(error) => {
                    sections.push(format!("## {mesh_slug} (not connected, {id})\n{error}"));
                    meshes.push(MeshPeers { mesh_slug, status: "not connected", peers: None, error: Some(error) });
                }
            }
        }
        let text = sections.join("\n\n");
        if reached == 0 { Err(text) } else { Ok(Json(text, Peers { meshes })) }
    }

    #[tool(description = "Tell mesh peers in one sentence what this session works on.")]
    async fn set_summary(&self, Parameters(args): Parameters<SetSummary>) -> Result<String, ToolError> {
        let summary = args.summary.as_str();
        let set = |connection: Connection| async move { connection.set_summary(summary, None).await };
        let done = self.in_each_mesh(args.mesh.slug(), set).await?;
        let words = match summary {
            "" => "Summary cleared".to_owned(),
            summary => format!("Summary: {}", harmless_value(summary)),
        };
        Ok(format!("{words} ({done})"))
    }

    #[tool(
        description = "Set this session's mesh status: idle (everything is delivered), working or dnd (only priority now)."
    )]
    async fn set_status(&self, Parameters(args): Parameters<SetStatus>) -> Result<String, ToolError> {
        let status = PeerStatus::from(args.status);
        let set = |connection: Connection| async move { connection.set_status(status, None).await };
        let done = self.in_each_mesh(args.mesh.slug(), set).await?;
        self.session.note_own_status(status);
        Ok(format!("Status: {} ({done})", status.as_str()))
    }

    #[tool(
        description = "Show or hide this session in mesh lists and group messages. Direct messages still arrive while hidden."
    )]
    async fn set_visible(&self, Parameters(args): Parameters<SetVisible>) -> Result<String, ToolError> {
        let visible = args.visible;
        let set = |connection: Connection| async move { connection.set_visible(visible, None).await };
        let done = self.in_each_mesh(args.mesh.slug(), set).await?;
        let words = if visible { "Visible now" } else { "Hidden now; direct messages still arrive" };
        Ok(format!("{words} ({done})"))
    }

    #[tool(
        description = "Tell mesh peers who you are: avatar, title, bio, capabilities. Only given fields change; empty clears one; none at all clears the profile."
    )]
    async fn set_profile(&self, Parameters(args): Parameters<SetProfile>) -> Result<String, ToolError> {
        let SetProfile { avatar, title, bio, capabilities, mesh } = args;
        let mut profile = Profile { avatar, title, bio, capabilities };
        let fields = [
            ("avatar", profile.avatar.is_some()),
            ("title", profile.title.is_some()),
            ("bio", profile.bio.is_some()),
            ("capabilities", profile.capabilities.is_some()),
        ];
        let given: Vec<&str> = fields.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let words = if given.is_empty() {
            let (text, list) = (Some(String::new()), Some(vec![]));
            profile = Profile { avatar: text.clone(), title: text.clone(), bio: text, capabilities: list };
            "Profile cleared".to_owned()
        } else {
            format!("Profile set: {}", given.join(", "))
        };
        let set = |connection: Connection| {
            let profile = profile.clone();
            async move { connection.set_profile(profile, None).await }
        };
        let done = self.in_each_mesh(mesh.slug(), set).await?;
        Ok(format!("{words} ({done})"))
    }

    #[tool(
        description = "Counters of all mesh peers (messages in and out, tool calls, uptime, errors), and how much the mesh keeps.",
        annotations(read_only_hint = true)
    )]
    async fn mesh_stats(&self, Parameters(mesh): Parameters<MeshArg>) -> Result<Json<AllStats>, ToolError> {
        let (mut sections, mut meshes, mut trouble) = (Vec::new(), Vec::new(), Vec::new());
        let ask = |connection: Connection| async move {
            Ok((connection.list_peers().await?, Kept::from(&connection.mesh_info().await?)))
        };
        for (bound, listed) in self.ask_each_mesh(mesh.slug(), ask).await? {
            let (mesh_slug, own) = (bound.tag.slug, bound.connection.identity().own_public());
            let (peers, kept) = match listed {
                Ok(found) => found,
                Err(error) => {
                    trouble.push(format!("{mesh_slug}: {error}"));
                    continue;
                }
            };
            let row = |peer: Peer| {
                // Our own numbers are fresher here than at the broker.
                let stats = if peer.pubkey == own { self.session.stats() } else { peer.stats.unwrap_or_default() };
                PeerStats { name: peer.address(), pubkey: peer.pubkey, stats }
            };
            let peers: Vec<PeerStats> = peers.into_iter().map(row).collect();
            sections.push(format!("{}\n\nKept: {kept}", stats_table(&mesh_slug, &peers)));
            meshes.push(MeshStats { mesh_slug, kept, peers });
        }
        if sections.is_empty() {
            return Err(trouble.join("; "));
        }
        Ok(Json(sections.join("\n\n"), AllStats { meshes, trouble }))
    }

    #[tool(
        description = "Measure the way to the mesh broker and back, and show what holds messages. No peer is disturbed.",
        annotations(read_only_hint = true)
    )]
    async fn ping_mesh(&self, Parameters(mesh): Parameters<MeshArg>) -> Result<String, ToolError> {
        let (mut lines, mut reached) = (Vec::new(), 0);
        let ask =
            |connection: Connection| async move { Ok((connection.echo().await?, connection.list_peers().await?)) };
        for (bound, answer) in self.ask_each_mesh(mesh.slug(), ask).await? {
            let slug = &bound.tag.slug;
            let ((echo, time), peers) = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    lines.push(format!("{slug}: {error}"));
                    continue;
                }
            };
            reached += 1;
            let own = bound.connection.identity().own_public();
            let others = peers.iter().filter(|peer| peer.online && peer.pubkey != own).count();
            let mut line = format!(
                "{slug}: connected, {:.2} ms to the broker and back, you are {}, {others} other peers online, \
                 waiting at the broker: {} now, {} next, {} low, unread here: {}",
                time.as_secs_f64() * 1_000.0,
                echo.status.as_str(),
                echo.waiting.now,
                echo.waiting.next,
                echo.waiting.low,
                self.session.waiting(&bound).await
            );
            if echo.status != PeerStatus::Idle {
                line += "; your status holds messages of priority next back";
            }
            lines.push(line);
        }
        let text = lines.join("\n");
        if reached == 0 { Err(text) } else { Ok(text) }
    }
}

impl MeshServer {
    /// The peers of one mesh as lines and as rows, with those that are away when `all` of them are wanted.
    async fn peers_of(
        &self,
        bound: &JoinedMesh,
        peers: Vec<Peer>,
        host: Option<&str>,
        all: bool,
    ) -> (String, Vec<PeerRow>) {
        let own = bound.connection.identity().own_public();
        let mut section = String::new();
        for peer in &peers {
            section += &format!("\n{}", peer_line(peer, host, (own, bound.connection.identity().member.public())));
        }
        if peers.iter().all(|peer| peer.pubkey == own) {
            section += "\nNobody else is here.";
        }
        let away = if all { self.away(bound, &peers).await } else { Ok(vec![]) };
        let names: Vec<&str> = peers.iter().filter_map(|peer| peer.member_name.as_deref()).collect();
        let member = bound.connection.identity().member.public();
        let mut rows: Vec<PeerRow> = peers.iter().map(|peer| peer_row(peer, (own, member), &names)).collect();
        match away {
            Ok(away) => {
                section.extend(away.iter().map(away_line));
                rows.extend(away);
            }
            Err(error) => section += &format!("\n(who is away is not known: {error})"),
        }
        (section, rows)
    }

    /// Members without a connection.
    async fn away(&self, bound: &JoinedMesh, peers: &[Peer]) -> Result<Vec<PeerRow>, ToolError> {
        let entry = self.session.entry(bound)?;
        let listed = tokio::task::spawn_blocking(move || enrolment::members(&entry)).await;
        let members = listed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let there: HashSet<PublicKey> = peers.iter().map(|peer| peer.member_pubkey).collect();
        let now = crate::clock::now_ms();
        let away = members.into_iter().filter(|member| !there.contains(&member.pubkey)).map(|member| PeerRow {
            name: harmless_value(&member.display_name),
            pubkey: member.pubkey.to_hex(),
            status: "away",
            stale: is_stale(false, member.last_seen_at.as_deref(), now).then_some(true),
            last_seen_at: member.last_seen_at,
            title: member.role_tag.map(|title| harmless_value(&title)),
            ..PeerRow::default()
        });
        Ok(away.collect())
    }
}

fn stats_table(slug: &str, peers: &[PeerStats]) -> String {
    let mut table =
        format!("## {slug}\n| peer | in | out | tool calls | uptime (min) | errors |\n|---|---|---|---|---|---|");
    for PeerStats { name, stats, .. } in peers {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
        table += &format!(
            "\n| {} | {} | {} | {} | {} | {} |",
            harmless_value(name).replace('|', "/"),
            number(stats.messages_in),
            number(stats.messages_out),
            number(stats.tool_calls),
            number(stats.uptime.map(|seconds| seconds / 60.0)),
            number(stats.errors)
        );
    }
    table
}

fn peer_line(peer: &Peer, host: Option<&str>, (own, member): (PublicKey, PublicKey)) -> String {
    let mut line = String::from("- ");
    let profile = peer.profile.clone().unwrap_or_default();
    if let Some(avatar) = profile.avatar {
        line += &format!("{} ", harmless_value(&avatar));
    }
    line += &format!("**{}**", harmless_value(&peer.address()));
    if let Some(title) = profile.title {
        line += &format!(" ({})", harmless_value(&title));
    }
    line += &format!(" [{}]", if peer.online { peer.status.as_str() } else { "away" });
    if peer.pubkey == own {
        line += " [this session]";
    } else if peer.member_pubkey == member {
        line += " [yours]";
    }
    if let (Some(theirs), Some(ours)) = (peer.hostname.as_deref(), host) {
        line += if theirs == ours { " [local]" } else { " [remote]" };
    }
    if peer.visible == Some(false) {
        line += " [hidden]";
    }
    let groups: Vec<String> = peer
        .groups
        .iter()
        .map(|group| match &group.role {
            Some(role) => format!("@{}:{}", harmless_value(&group.name), harmless_value(role)),
            None => format!("@{}", harmless_value(&group.name)),
        })
        .collect();
    if !groups.is_empty() {
        line += &format!(" [{}]", groups.join(", "));
    }
    let kinds: Vec<String> = [("type", &peer.peer_type), ("channel", &peer.channel), ("model", &peer.model)]
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}:{}", harmless_value(value))))
        .collect();
    if !kinds.is_empty() {
        line += &format!(" {{{}}}", kinds.join(", "));
    }
    let host = peer.hostname.as_deref().map(|host| format!("{host}:")).unwrap_or_default();
    line += &format!(" ({}) {}", peer.pubkey.short(), harmless_value(&format!("{host}{}", peer.cwd)));
    if let Some(summary) = peer.summary.as_deref().filter(|summary| !summary.is_empty()) {
        line += &format!(" \"{}\"", harmless_value(summary));
    }
    line
}

fn away_line(row: &PeerRow) -> String {
    let seen = row.last_seen_at.as_ref().map_or_else(|| "never seen".to_owned(), |at| format!("last seen {at}"));
    let stale = if row.stale == Some(true) { " [stale]" } else { "" };
    let key: String = row.pubkey.chars().take(12).collect();
    format!("\n- **{}** [away]{stale} ({key}) {seen}", row.name)
}

/// Whether no one should count on a peer: it is away, and not since a moment ago.
pub(crate) fn is_stale(online: bool, last_seen_at: Option<&str>, now_ms: i64) -> bool {
    let last_seen_ms = last_seen_at.and_then(claudemesh_protocol::time::parse_iso);
    !online && last_seen_ms.is_none_or(|at| now_ms.saturating_sub(at) > STALE_AFTER_MS)
}

fn peer_row(peer: &Peer, (own, member): (PublicKey, PublicKey), names: &[&str]) -> PeerRow {
    let text = |text: &str| Some(harmless_value(text)).filter(|text| !text.is_empty());
    let some = |value: &Option<String>| value.as_deref().and_then(text);
    let group = |group: &Group| match &group.role {
        Some(role) => format!("@{}:{}", harmless_value(&group.name), harmless_value(role)),
        None => format!("@{}", harmless_value(&group.name)),
    };
    let called = peer.member_name.as_deref().unwrap_or_default();
    let mut alike: Vec<String> =
        names.iter().filter(|other| looks_like(called, other)).map(|other| harmless_value(other)).collect();
    alike.sort_unstable();
    alike.dedup();
    let stale = is_stale(peer.online, peer.last_seen_at.as_deref(), crate::clock::now_ms());
    PeerRow {
        name: harmless_value(&peer.address()),
        pubkey: peer.pubkey.to_hex(),
        whose: match () {
            () if peer.pubkey == own => Some("this session"),
            () if peer.member_pubkey == member => Some("yours"),
            () => None,
        },
        status: if peer.online { peer.status.as_str() } else { "away" },
        last_seen_at: peer.last_seen_at.clone().filter(|_| !peer.online),
        stale: stale.then_some(true),
        role: peer.role.clone().filter(|role| role != "member"),
        title: peer.profile.as_ref().and_then(|profile| some(&profile.title)),
        summary: some(&peer.summary),
        groups: Some(peer.groups.iter().map(group).collect()).filter(|groups: &Vec<String>| !groups.is_empty()),
        host: some(&peer.hostname),
        folder: text(&peer.cwd),
        kind: some(&peer.peer_type),
        model: some(&peer.model),
        looks_like: Some(alike).filter(|alike| !alike.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_is_away_for_more_than_half_an_hour() {
        let now = claudemesh_protocol::time::parse_iso("2026-01-01T12:00:00.000Z").unwrap();
        let stale = |online, seen: Option<&str>| is_stale(online, seen, now);
        assert!(!stale(false, Some("2026-01-01T11:30:00.000Z")));
        assert!(stale(false, Some("2026-01-01T11:29:59.000Z")));
        assert!(stale(false, None) && stale(false, Some("nonsense")));
        // Who is connected is there, whatever the clocks say.
        assert!(!stale(true, Some("2020-01-01T00:00:00.000Z")) && !stale(true, None));
    }
}
