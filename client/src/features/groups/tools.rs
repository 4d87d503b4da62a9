//! `join_group`, `leave_group`.

use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::groups::GroupChanged;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::schemars::{self, JsonSchema};
use rmcp::{tool, tool_router};
use serde::Deserialize;

use super::Who;
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
    /// As what: lead, member, observer, or any other word [default: what you are there]; empty for none.
    #[serde(default, rename = "as", alias = "role")]
    part: Option<String>,
    /// true: your user as a member, for good and for all its sessions; messages wait while it is away [default: this session].
    #[serde(default)]
    as_member: Option<bool>,
    #[serde(flatten)]
    mesh: MeshArg,
}

/// Parameters of `leave_group`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct LeaveGroup {
    /// Group name, with or without @.
    name: String,
    /// true: your user as a member, not only this session [default: false].
    #[serde(default)]
    as_member: Option<bool>,
    #[serde(flatten)]
    mesh: MeshArg,
}

fn who(as_member: Option<bool>) -> Who {
    if as_member == Some(true) { Who::Member } else { Who::Session(None) }
}

#[tool_router(router = group_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(description = "Join a mesh group, or change your role in it; messages to @group then reach you.")]
    async fn join_group(&self, Parameters(args): Parameters<JoinGroup>) -> Result<String, ToolError> {
        let (name, part) = (args.name.as_str(), args.part.as_deref());
        let who = who(args.as_member);
        let who = &who;
        let join = |connection: Connection| async move { connection.join_group(name, part, who).await };
        let done = self.in_each_mesh(args.mesh.slug(), join).await?;
        let part = part.map(|part| format!(" as {}", harmless_value(part))).unwrap_or_default();
        let kind = if *who == Who::Member { ", the member with all its sessions" } else { "" };
        Ok(format!("Joined @{}{part}{kind} ({done})", harmless_value(name.trim_start_matches('@'))))
    }

    #[tool(description = "Leave a mesh group.")]
    async fn leave_group(&self, Parameters(args): Parameters<LeaveGroup>) -> Result<String, ToolError> {
        let name = args.name.as_str();
        let who = who(args.as_member);
        let who = &who;
        let leave = |connection: Connection| async move {
            match connection.leave_group(name, who).await? {
                Some(changed) if changed == GroupChanged::default() => {
                    Err(ErrorFrame::new(ErrorCode::NotFound, "this session is not in that group").into())
                }
                left => Ok(left),
            }
        };
        let done = self.in_each_mesh(args.mesh.slug(), leave).await?;
        Ok(format!("Left @{} ({done})", harmless_value(name.trim_start_matches('@'))))
    }
}
