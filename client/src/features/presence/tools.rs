//! `list_peers`, `set_status`, `set_summary`, `set_visible`, `set_profile`, `mesh_stats`, `ping_mesh`.

use std::collections::HashSet;

use claudemesh_protocol::features::presence::{Peer, PeerStatus, Profile};
use claudemesh_protocol::id::PublicKey;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::CallToolResult;
use rmcp::schemars::{self, JsonSchema};
use rmcp::{tool, tool_router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connection::{Connection, ConnectionError};
use crate::context::connect::hostname;
use crate::features::enrolment;
use crate::mcp::hub::{Bound, ToolError};
use crate::mcp::notes::harmless_value;
use crate::mcp::server::{Answer, MeshServer, always_load};

/// A peer that was last seen longer ago is told as stale.
const STALE_AFTER_MS: i64 = 30 * 60 * 1_000;

/// Parameters of tools that only name a mesh.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct OneMesh {
    /// Only this mesh.
    #[serde(default)]
    pub(crate) mesh_slug: Option<String>,
}

/// Parameters of `list_peers`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct ListPeers {
    /// Also members that are away, with the time they were last seen [default: false].
    #[serde(default)]
    all: Option<bool>,
    /// Only this mesh.
    #[serde(default)]
    mesh_slug: Option<String>,
}

/// Parameters of `set_summary`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct SummaryText {
    /// What you work on, in a sentence; empty clears it.
    summary: String,
    /// Only this mesh.
    #[serde(default)]
    mesh_slug: Option<String>,
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

/// Parameters of `set_status`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct NewStatus {
    /// idle, working or dnd.
    status: StatusWord,
    /// Only this mesh.
    #[serde(default)]
    mesh_slug: Option<String>,
}

/// Parameters of `set_visible`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Visibility {
    /// false hides this session from lists and group messages.
    visible: bool,
    /// Only this mesh.
    #[serde(default)]
    mesh_slug: Option<String>,
}

/// Parameters of `set_profile`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct NewProfile {
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
    /// Only this mesh.
    #[serde(default)]
    mesh_slug: Option<String>,
}

#[tool_router(router = presence_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        name = "list_peers",
        description = "List the peers of the mesh (other Claude Code sessions and people): name, status, groups, what they work on, where. Call it before sending.",
        meta = always_load(),
        annotations(read_only_hint = true)
    )]
    async fn list_peers_tool(&self, Parameters(args): Parameters<ListPeers>) -> CallToolResult {
        let result = self.peers(args.mesh_slug.as_deref(), args.all.unwrap_or(false)).await;
        Self::finish("list_peers", result)
    }

    #[tool(name = "set_summary", description = "Tell mesh peers in one sentence what this session works on.")]
    async fn set_summary_tool(&self, Parameters(args): Parameters<SummaryText>) -> CallToolResult {
        let text = args.summary.clone();
        let done = self
            .everywhere(args.mesh_slug.as_deref(), |connection| {
                let summary = args.summary.clone();
                async move { connection.set_summary(&summary, None).await }
            })
            .await;
        let words =
            if text.is_empty() { "Summary cleared".into() } else { format!("Summary: {}", harmless_value(&text)) };
        Self::finish("set_summary", done.map(|count| Answer::text(format!("{words} ({count})"))))
    }

    #[tool(
        name = "set_status",
        description = "Set this session's mesh status: idle (everything is delivered), working or dnd (only priority now)."
    )]
    async fn set_status_tool(&self, Parameters(args): Parameters<NewStatus>) -> CallToolResult {
        let status = match args.status {
            StatusWord::Idle => PeerStatus::Idle,
            StatusWord::Working => PeerStatus::Working,
            StatusWord::Dnd => PeerStatus::Dnd,
        };
        let set = |connection: Connection| async move { connection.set_status(status, None).await };
        let done = self.everywhere(args.mesh_slug.as_deref(), set).await;
        if done.is_ok() {
            self.hub.note_own_status(status);
        }
        Self::finish("set_status", done.map(|count| Answer::text(format!("Status: {} ({count})", status.as_str()))))
    }

    #[tool(
        name = "set_visible",
        description = "Show or hide this session in mesh lists and group messages. Direct messages still arrive while hidden."
    )]
    async fn set_visible_tool(&self, Parameters(args): Parameters<Visibility>) -> CallToolResult {
        let visible = args.visible;
        let set = |connection: Connection| async move { connection.set_visible(visible, None).await };
        let done = self.everywhere(args.mesh_slug.as_deref(), set).await;
        let words = if visible { "Visible now" } else { "Hidden now; direct messages still arrive" };
        Self::finish("set_visible", done.map(|count| Answer::text(format!("{words} ({count})"))))
    }

    #[tool(
        name = "set_profile",
        description = "Tell mesh peers who you are: avatar, title, bio, capabilities. Only given fields change; empty clears one; none at all clears the profile."
    )]
    async fn set_profile_tool(&self, Parameters(args): Parameters<NewProfile>) -> CallToolResult {
        let mut profile =
            Profile { avatar: args.avatar, title: args.title, bio: args.bio, capabilities: args.capabilities };
        let fields = [
            ("avatar", profile.avatar.is_some()),
            ("title", profile.title.is_some()),
            ("bio", profile.bio.is_some()),
            ("capabilities", profile.capabilities.is_some()),
        ];
        let set: Vec<&str> = fields.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let words = if set.is_empty() {
            profile = Profile {
                avatar: Some(String::new()),
                title: Some(String::new()),
                bio: Some(String::new()),
                capabilities: Some(vec![]),
            };
            "Profile cleared".to_owned()
        } else {
            format!("Profile set: {}", set.join(", "))
        };
        let done = self
            .everywhere(args.mesh_slug.as_deref(), |connection| {
                let profile = profile.clone();
                async move { connection.set_profile(profile, None).await }
            })
            .await;
        Self::finish("set_profile", done.map(|count| Answer::text(format!("{words} ({count})"))))
    }

    #[tool(
        name = "mesh_stats",
        description = "Counters of all mesh peers: messages in and out, tool calls, uptime, errors.",
        annotations(read_only_hint = true)
    )]
    async fn mesh_stats(&self, Parameters(args): Parameters<OneMesh>) -> CallToolResult {
        let result = self.stats_table(args.mesh_slug.as_deref()).await;
        Self::finish("mesh_stats", result)
    }

    #[tool(
        name = "ping_mesh",
        description = "Measure the way to the mesh broker and back, and show what holds messages. No peer is disturbed.",
        annotations(read_only_hint = true)
    )]
    async fn ping_mesh(&self, Parameters(args): Parameters<OneMesh>) -> CallToolResult {
        let result = self.ping(args.mesh_slug.as_deref()).await;
        Self::finish("ping_mesh", result)
    }
}

impl MeshServer {
    /// Runs a write in every mesh, or in the named one. Answers where it was done, in words.
    ///
    /// # Errors
    /// When it was done nowhere: why.
    pub(crate) async fn everywhere<F>(
        &self,
        slug: Option<&str>,
        write: impl Fn(Connection) -> F,
    ) -> Result<String, ToolError>
    where
        F: Future<Output = Result<Option<u32>, ConnectionError>>,
    {
        let mut done = Vec::new();
        let mut failed = Vec::new();
        for bound in self.hub.select(slug).await? {
            let result = match self.hub.connected(&bound).await {
                Ok(connection) => write(connection).await.map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            match result {
                Ok(_) => done.push(bound.tag.slug),
                Err(error) => failed.push(format!("{}: {error}", bound.tag.slug)),
            }
        }
        if done.is_empty() {
            return Err(failed.join("; "));
        }
        let mut words = done.join(", ");
        if !failed.is_empty() {
            words += &format!("; not in {}", failed.join("; "));
        }
        Ok(words)
    }

    async fn peers(&self, slug: Option<&str>, all: bool) -> Result<Answer, ToolError> {
        let host = hostname();
        let mut sections = Vec::new();
        let mut data = Vec::new();
        let mut reached = 0;
        for bound in self.hub.select(slug).await? {
            let id: String = bound.tag.id.chars().take(8).collect();
            let listed = match self.hub.connected(&bound).await {
                Ok(connection) => connection.list_peers().await.map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            match listed {
                Ok(peers) => {
                    reached += 1;
                    let own = bound.connection.identity().own_public();
                    let mut section = format!("## {} (connected, {id})", bound.tag.slug);
                    for peer in &peers {
                        section += &format!("\n{}", peer_line(peer, host.as_deref(), peer.pubkey == own));
                    }
                    if peers.iter().all(|peer| peer.pubkey == own) {
                        section += "\nNobody else is here.";
                    }
                    let mut list: Vec<Value> = peers.iter().map(|peer| peer_data(peer, peer.pubkey == own)).collect();
                    let away = if all { self.away(&bound, &peers).await } else { Ok(vec![]) };
                    match away {
                        Ok(away) => {
                            section.extend(away.iter().map(away_line));
                            list.extend(away);
                        }
                        Err(error) => section += &format!("\n(who is away is not known: {error})"),
                    }
                    sections.push(section);
                    data.push(json!({"mesh_slug": bound.tag.slug, "status": "connected", "peers": list}));
                }
                Err(error) => {
                    sections.push(format!("## {} (not connected, {id})\n{error}", bound.tag.slug));
                    data.push(json!({"mesh_slug": bound.tag.slug, "status": "not connected", "error": error}));
                }
            }
        }
        let text = sections.join("\n\n");
        if reached == 0 { Err(text) } else { Ok(Answer::data(text, json!({"meshes": data}))) }
    }

    /// Members without a connection.
    async fn away(&self, bound: &Bound, peers: &[Peer]) -> Result<Vec<Value>, ToolError> {
        let entry = self.hub.entry(bound)?;
        let listed = tokio::task::spawn_blocking(move || enrolment::members(&entry)).await;
        let members = listed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let there: HashSet<PublicKey> = peers.iter().map(|peer| peer.member_pubkey).collect();
        let now = crate::clock::now_ms();
        let away = members.into_iter().filter(|member| !there.contains(&member.pubkey)).map(|member| {
            json!({
                "pubkey": member.pubkey, "memberPubkey": member.pubkey, "online": false, "status": null,
                "displayName": harmless_value(&member.display_name), "last_seen_at": member.last_seen_at,
                "stale": is_stale(false, member.last_seen_at.as_deref(), now),
            })
        });
        Ok(away.collect())
    }

    async fn stats_table(&self, slug: Option<&str>) -> Result<Answer, ToolError> {
        let mut sections = Vec::new();
        let mut data = Vec::new();
        let mut trouble = Vec::new();
        for bound in self.hub.select(slug).await? {
            let listed = match self.hub.connected(&bound).await {
                Ok(connection) => connection.list_peers().await.map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            let peers = match listed {
                Ok(peers) => peers,
                Err(error) => {
                    trouble.push(format!("{}: {error}", bound.tag.slug));
                    continue;
                }
            };
            let mut table = format!(
                "## {}\n| peer | in | out | tool calls | uptime (min) | errors |\n|---|---|---|---|---|---|",
                bound.tag.slug
            );
            let own = bound.connection.identity().own_public();
            let mut rows = Vec::new();
            for peer in &peers {
                // Our own numbers are fresher here than at the broker.
                let stats = if peer.pubkey == own { self.hub.stats() } else { peer.stats.unwrap_or_default() };
                let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
                table += &format!(
                    "\n| {} | {} | {} | {} | {} | {} |",
                    harmless_value(&peer.display_name).replace('|', "/"),
                    number(stats.messages_in),
                    number(stats.messages_out),
                    number(stats.tool_calls),
                    number(stats.uptime.map(|seconds| seconds / 60.0)),
                    number(stats.errors)
                );
                rows.push(json!({"name": peer.display_name, "pubkey": peer.pubkey, "stats": stats}));
            }
            sections.push(table);
            data.push(json!({"mesh_slug": bound.tag.slug, "peers": rows}));
        }
        if sections.is_empty() {
            return Err(trouble.join("; "));
        }
        Ok(Answer::data(sections.join("\n\n"), json!({"meshes": data, "trouble": trouble})))
    }

    async fn ping(&self, slug: Option<&str>) -> Result<Answer, ToolError> {
        let mut lines = Vec::new();
        let mut reached = 0;
        for bound in self.hub.select(slug).await? {
            let slug = &bound.tag.slug;
            let connection = match self.hub.connected(&bound).await {
                Ok(connection) => connection,
                Err(error) => {
                    lines.push(format!("{slug}: {error}"));
                    continue;
                }
            };
            let (echo, peers) = (connection.echo().await, connection.list_peers().await);
            let own = connection.identity().own_public();
            let unread = self.hub.waiting(&bound).await;
            match (echo, peers) {
                (Ok((echo, time)), Ok(peers)) => {
                    reached += 1;
                    let others = peers.iter().filter(|peer| peer.online && peer.pubkey != own).count();
                    let mut line = format!(
                        "{slug}: connected, {:.2} ms to the broker and back, you are {}, {others} other peers online, \
                         waiting at the broker: {} now, {} next, {} low, unread here: {}",
                        time.as_secs_f64() * 1_000.0,
                        echo.status.as_str(),
                        echo.waiting.now,
                        echo.waiting.next,
                        echo.waiting.low,
                        unread
                    );
                    if echo.status != PeerStatus::Idle {
                        line += "; your status holds messages of priority next back";
                    }
                    lines.push(line);
                }
                (Err(error), _) | (_, Err(error)) => lines.push(format!("{slug}: {error}")),
            }
        }
        let text = lines.join("\n");
        if reached == 0 { Err(text) } else { Ok(Answer::text(text)) }
    }
}

fn peer_line(peer: &Peer, host: Option<&str>, is_self: bool) -> String {
    let mut line = String::from("- ");
    let profile = peer.profile.clone().unwrap_or_default();
    if let Some(avatar) = profile.avatar {
        line += &format!("{} ", harmless_value(&avatar));
    }
    line += &format!("**{}**", harmless_value(&peer.display_name));
    if let Some(title) = profile.title {
        line += &format!(" ({})", harmless_value(&title));
    }
    line += &format!(" [{}]", if peer.online { peer.status.as_str() } else { "away" });
    if is_self {
        line += " [you]";
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
    line += &format!(" ({}) {}", peer.pubkey.short(), harmless_value(&peer.cwd));
    if let Some(summary) = peer.summary.as_deref().filter(|summary| !summary.is_empty()) {
        line += &format!(" \"{}\"", harmless_value(summary));
    }
    line
}

fn away_line(member: &Value) -> String {
    let word = |name: &str| member[name].as_str().unwrap_or_default();
    let seen = member["last_seen_at"].as_str().map_or_else(|| "never seen".to_owned(), |at| format!("last seen {at}"));
    let stale = if member["stale"] == true { " [stale]" } else { "" };
    let key: String = word("pubkey").chars().take(12).collect();
    format!("\n- **{}** [away]{stale} ({key}) {seen}", word("displayName"))
}

/// Whether nobody should count on a peer: it is away, and not since a moment ago.
pub(crate) fn is_stale(online: bool, last_seen_at: Option<&str>, now_ms: i64) -> bool {
    let last_seen_ms = last_seen_at.and_then(claudemesh_protocol::time::parse_iso);
    !online && last_seen_ms.is_none_or(|at| now_ms.saturating_sub(at) > STALE_AFTER_MS)
}

/// A peer as data: the wire's fields, texts made harmless.
fn peer_data(peer: &Peer, is_self: bool) -> Value {
    fn soften(value: &mut Value) {
        match value {
            Value::String(text) => *text = harmless_value(text),
            Value::Array(list) => list.iter_mut().for_each(soften),
            Value::Object(map) => map.values_mut().for_each(soften),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(peer).unwrap_or_default();
    soften(&mut value);
    value["isSelf"] = is_self.into();
    value["last_seen_at"] = value["lastSeenAt"].clone();
    value["stale"] = is_stale(peer.online, peer.last_seen_at.as_deref(), crate::clock::now_ms()).into();
    value
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
