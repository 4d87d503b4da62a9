//! `mesh_info`.

use claudemesh_protocol::features::info::MeshInfoResult;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::{tool, tool_router};

use super::clock_words;
use crate::connection::Connection;
use crate::mcp::server::MeshServer;
use crate::mcp::tool::{Json, MeshArg};
use crate::session::ToolError;
use crate::session::notes::harmless_value;

#[tool_router(router = info_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        description = "One look at a mesh: peers, groups, topics, what it keeps (shared state, memories, contexts, tasks, streams, skills, schedules), its clock, your name and groups.",
        annotations(read_only_hint = true)
    )]
    async fn mesh_info(&self, Parameters(mesh): Parameters<MeshArg>) -> Result<Json<MeshInfoResult>, ToolError> {
        let ask = |connection: Connection| async move { connection.mesh_info().await };
        let (bound, info) = self.in_one_mesh(mesh.slug(), ask).await?;
        Ok(Json(overview_text(&info, &bound.tag.slug), info))
    }
}

/// Names of one kind in the text: the structure has more, and the lists all.
const MAX_NAMES: usize = 50;

fn overview_text(info: &MeshInfoResult, slug: &str) -> String {
    let list = |names: &[String]| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.iter().map(|name| harmless_value(name)).collect::<Vec<_>>().join(", ")
        }
    };
    let of = |count: u32, names: &[String]| {
        let shown = &names[..names.len().min(MAX_NAMES)];
        let more = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", list(shown))
    };
    format!(
        "Mesh: {slug} ({})\nPeers: {} of {} members\nGroups: {}\nTopics: {}\nState keys: {}\nMemories: {}\nContexts: {}\nSkills: {}\n\
         Your vault: {}\nMCP servers: {}\nFiles: {}\nTasks: {} open, {} claimed, {} done\nScheduled: {}\nStreams: {}\nClock: {}\nTables: {}\nYour name: {}\nYour groups: {}",
        info.mesh,
        info.peers,
        info.members,
        list(&info.groups),
        list(&info.topics),
        of(info.state_count, &info.state_keys),
        info.memory_count,
        info.context_count,
        info.skill_count,
        info.vault_count,
        info.mcp_server_count,
        info.file_count,
        info.tasks.open,
        info.tasks.claimed,
        info.tasks.done,
        info.schedules,
        of(info.stream_count, &info.streams),
        clock_words(info.clock.as_ref()),
        list(&info.tables),
        harmless_value(&info.your_name),
        list(&info.your_groups.iter().map(|group| format!("@{}", group.name)).collect::<Vec<_>>())
    )
}
