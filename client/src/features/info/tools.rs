//! `mesh_info`.

use claudemesh_protocol::features::info::MeshInfoResult;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::CallToolResult;
use rmcp::{tool, tool_router};

use crate::features::presence::tools::OneMesh;
use crate::mcp::hub::ToolError;
use crate::mcp::notes::harmless_value;
use crate::mcp::server::{Answer, MeshServer};

#[tool_router(router = info_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        name = "mesh_info",
        description = "One look at a mesh: peers, groups, topics, shared state, your name and groups.",
        annotations(read_only_hint = true)
    )]
    async fn mesh_info_tool(&self, Parameters(args): Parameters<OneMesh>) -> CallToolResult {
        let result = self.overview(args.mesh_slug.as_deref()).await;
        Self::finish("mesh_info", result)
    }
}

impl MeshServer {
    async fn overview(&self, slug: Option<&str>) -> Result<Answer, ToolError> {
        let bound = self.hub.select_one(slug).await?;
        let connection = self.hub.connected(&bound).await?;
        let info = connection.mesh_info().await.map_err(|error| error.to_string())?;
        let data = serde_json::to_value(&info).unwrap_or_default();
        Ok(Answer::data(overview_text(&info, &bound.tag.slug), data))
    }
}

fn overview_text(info: &MeshInfoResult, slug: &str) -> String {
    let list = |names: &[String]| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.iter().map(|name| harmless_value(name)).collect::<Vec<_>>().join(", ")
        }
    };
    format!(
        "Mesh: {slug} ({})\nPeers: {} of {} members\nGroups: {}\nTopics: {}\nState keys: {}\nMemories: {}\nFiles: {}\n\
         Tasks: {} open, {} claimed, {} done\nStreams: {}\nTables: {}\nYour name: {}\nYour groups: {}",
        info.mesh,
        info.peers,
        info.members,
        list(&info.groups),
        list(&info.topics),
        list(&info.state_keys),
        info.memory_count,
        info.file_count,
        info.tasks.open,
        info.tasks.claimed,
        info.tasks.done,
        list(&info.streams),
        list(&info.tables),
        harmless_value(&info.your_name),
        list(&info.your_groups.iter().map(|group| format!("@{}", group.name)).collect::<Vec<_>>())
    )
}
