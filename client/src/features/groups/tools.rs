//! `join_group`, `leave_group`.

use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::CallToolResult;
use rmcp::schemars::{self, JsonSchema};
use rmcp::{tool, tool_router};
use serde::Deserialize;

use crate::mcp::notes::harmless_value;
use crate::mcp::server::{Answer, MeshServer};

/// Parameters of `join_group`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct GroupToJoin {
    /// Group name, with or without @; a/b is below a.
    name: String,
    /// lead, member, observer, or any other word [default: the role you have there]; empty for none.
    #[serde(default)]
    role: Option<String>,
    /// Only this mesh.
    #[serde(default)]
    mesh_slug: Option<String>,
}

/// Parameters of `leave_group`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct GroupToLeave {
    /// Group name, with or without @.
    name: String,
    /// Only this mesh.
    #[serde(default)]
    mesh_slug: Option<String>,
}

#[tool_router(router = group_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        name = "join_group",
        description = "Join a mesh group, or change your role in it; messages to @group then reach you."
    )]
    async fn join_group_tool(&self, Parameters(args): Parameters<GroupToJoin>) -> CallToolResult {
        let done = self
            .everywhere(args.mesh_slug.as_deref(), |connection| {
                let (name, role) = (args.name.clone(), args.role.clone());
                async move { connection.join_group(&name, role.as_deref(), None).await }
            })
            .await;
        let role = args.role.as_deref().map(|role| format!(" as {}", harmless_value(role))).unwrap_or_default();
        let name = harmless_value(args.name.trim_start_matches('@'));
        Self::finish("join_group", done.map(|count| Answer::text(format!("Joined @{name}{role} ({count})"))))
    }

    #[tool(name = "leave_group", description = "Leave a mesh group.")]
    async fn leave_group_tool(&self, Parameters(args): Parameters<GroupToLeave>) -> CallToolResult {
        let done = self
            .everywhere(args.mesh_slug.as_deref(), |connection| {
                let name = args.name.clone();
                async move {
                    match connection.leave_group(&name, None).await? {
                        Some(0) => {
                            Err(ErrorFrame::new(ErrorCode::NotFound, "this session is not in that group").into())
                        }
                        left => Ok(left),
                    }
                }
            })
            .await;
        let name = harmless_value(args.name.trim_start_matches('@'));
        Self::finish("leave_group", done.map(|count| Answer::text(format!("Left @{name} ({count})"))))
    }
}
