//! `join_group`, `leave_group`.

use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::schemars::{self, JsonSchema};
use rmcp::{tool, tool_router};
use serde::Deserialize;

use crate::connection::Connection;
use crate::mcp::server::MeshServer;
use crate::mcp::tool::MeshArg;
use crate::session::ToolError;
use crate::session::notes::harmless_value;

/// Parameters of `join_group`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct JoinGroup {
    /// Group name, with or without @; a/b is below a.
    name: String,
    /// lead, member, observer, or any other word [default: the role you have there]; empty for none.
    #[serde(default)]
    role: Option<String>,
    #[serde(flatten)]
    mesh: MeshArg,
}

/// Parameters of `leave_group`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct LeaveGroup {
    /// Group name, with or without @.
    name: String,
    #[serde(flatten)]
    mesh: MeshArg,
}

#[tool_router(router = group_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(description = "Join a mesh group, or change your role in it; messages to @group then reach you.")]
    async fn join_group(&self, Parameters(args): Parameters<JoinGroup>) -> Result<String, ToolError> {
        let (name, role) = (args.name.as_str(), args.role.as_deref());
        let join = |connection: Connection| async move { connection.join_group(name, role, None).await };
        let done = self.in_each_mesh(args.mesh.slug(), join).await?;
        let role = role.map(|role| format!(" as {}", harmless_value(role))).unwrap_or_default();
        Ok(format!("Joined @{}{role} ({done})", harmless_value(name.trim_start_matches('@'))))
    }

    #[tool(description = "Leave a mesh group.")]
    async fn leave_group(&self, Parameters(args): Parameters<LeaveGroup>) -> Result<String, ToolError> {
        let name = args.name.as_str();
        let leave = |connection: Connection| async move {
            match connection.leave_group(name, None).await? {
                Some(0) => Err(ErrorFrame::new(ErrorCode::NotFound, "this session is not in that group").into()),
                left => Ok(left),
            }
        };
        let done = self.in_each_mesh(args.mesh.slug(), leave).await?;
        Ok(format!("Left @{} ({done})", harmless_value(name.trim_start_matches('@'))))
    }
}
