//! MCP servers that sessions of the mesh run: registered under a name, listed, called by anyone who may use tools.
//!
//! A call goes from the caller to the broker, from there to the host of the server as `mcp_call_forward`, and back as
//! `mcp_call_response`. What concerns a running call has two names for it: the caller's own (`call`), and the broker's (`callId`), which
//! the host knows.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::call::Nothing;
use crate::id::MemberId;

pub mod limits;
mod raw;

pub use raw::Raw;

/// Events of the registry, as `push` of the subtype `system`.
pub mod event {
    /// A server was registered, or its tools have changed.
    pub const REGISTERED: &str = "mcp_registered";
    /// A server is no more.
    pub const UNREGISTERED: &str = "mcp_unregistered";
    /// A server that was offline is back.
    pub const RESTORED: &str = "mcp_restored";
    /// The host of a persistent server has left. Not told to clients that say nothing of themselves in their hello.
    pub const OFFLINE: &str = "mcp_offline";
}

/// A tool, as MCP defines it. Fields that are not named here are kept and passed on (`title`, `annotations`, `outputSchema`, `_meta` …).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ToolDef {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// Whatever else MCP says of it.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// `mcp_register`: a member's own server of that name is replaced, with its host. Errors: `invalid_name`, `already_exists` (another
/// member has that name), `invalid_args`, `limit` with `bound`, `rate_limited`, `forbidden`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpRegister {
    /// A letter or digit, then letters, digits, `-` and `_`; at most [`limits::MAX_NAME_CHARS`].
    pub server_name: String,
    /// What it is good for; at most [`limits::MAX_DESCRIPTION_BYTES`].
    pub description: String,
    /// Its tools; at most [`limits::MAX_TOOLS`] and [`limits::MAX_TOOLS_BYTES`].
    pub tools: Vec<ToolDef>,
    /// Keep it when this session ends, offline until it or another session of the member hosts it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub persistent: bool,
}

/// `mcp_unregister`. Errors: `not_found`, `forbidden`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpUnregister {
    /// Its name.
    pub server_name: String,
}

/// `mcp_list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpList {
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `mcp_schema`: the tools of a server with all that is known of them. Errors: `not_found`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpSchema {
    /// Its name.
    pub server_name: String,
    /// Only this tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
}

/// `mcp_call`: what goes wrong with the call stands in `mcp_call_result`, with a code.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpCall {
    /// The server.
    pub server_name: String,
    /// The tool.
    pub tool_name: String,
    /// An object; at most [`limits::MAX_ARGS_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Raw>,
    /// The caller's own name for this call, to cancel it, to be told of its progress and to read a large result. Another one for
    /// each running call of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// How long it may take; [`limits::USUAL_TIMEOUT_MS`] when absent, at most [`limits::MAX_TIMEOUT_MS`].
    #[serde(default, rename = "timeout_ms", skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// With `call`: tell of its progress.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub progress: bool,
    /// With `call`: a result that does not fit into a frame is read in parts, with `mcp_part`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parts: bool,
}

/// `mcp_call_response`: the answer of the host. It counts only from the connection that was asked; whatever else is ignored.
/// Errors, with `confirm`: `not_found`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpCallResponse {
    /// As in `mcp_call_forward`.
    pub call_id: String,
    /// What the tool answers, as the server gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Raw>,
    /// Why there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `error`: a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// With `error`: the error object that an MCP server answered, as it gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_error: Option<Raw>,
    /// The result has so many parts, which the host sends when it is asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u32>,
    /// With `parts`: bytes of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// `mcp_progress`: how far a call is, from its host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpProgress {
    /// As in `mcp_call_forward`.
    pub call_id: String,
    /// Grows with each notice.
    pub progress: f64,
    /// What it grows to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `mcp_cancel`: a call that has ended, or that no one knows, stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpCancel {
    /// The caller's name for it.
    pub call: String,
    /// Why, for the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `mcp_part`: reads a part of a large result. Each part is read once. Errors: `not_found`, `host_gone`, `timeout`, `busy`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpPart {
    /// The caller's name for the call.
    pub call: String,
    /// Counted from 0.
    pub part: u32,
}

/// `mcp_part_response`: a part of a large result, from the host. It counts only from the connection that was asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpPartResponse {
    /// As in `mcp_part_forward`.
    pub call_id: String,
    /// As in `mcp_part_forward`.
    pub part: u32,
    /// A piece of the result's JSON text; at most [`limits::MAX_PART_BYTES`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Why there is no such part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `mcp_register_ack`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct McpRegisterAck {
    /// Its name.
    pub server_name: String,
    /// Number of its tools.
    pub tool_count: u32,
    /// It is kept when its session ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub persistent: bool,
}

/// A tool in `mcp_list_result`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct McpTool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
}

/// A row of `mcp_list_result`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct McpServer {
    /// Its name.
    pub name: String,
    /// What it is good for.
    pub description: String,
    /// Name of the session that runs it, or did last.
    pub hosted_by: String,
    /// Its tools.
    pub tools: Vec<McpTool>,
    /// It can be called now.
    pub online: bool,
    /// ISO time; when it is offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_since: Option<String>,
    /// It is kept when its session ends.
    #[serde(default)]
    pub persistent: bool,
    /// The member that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<MemberId>,
}

/// `mcp_list_result`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpListResult {
    /// By name.
    pub servers: Vec<McpServer>,
    /// There are more: ask with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `mcp_schema_result`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct McpSchemaResult {
    /// As asked.
    pub server_name: String,
    /// Its tools, or the one that was asked for.
    pub tools: Vec<ToolDef>,
}

/// `mcp_call_result`: a result, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpCallResult {
    /// What the tool answered, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Raw>,
    /// Why there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `error`: `not_found`, `host_offline`, `host_gone`, `timeout`, `busy`, `cancelled`, `payload_too_large`, `rate_limited`,
    /// `invalid_args`, `tool_failed`, or a code of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// With `rate_limited`: milliseconds after which the same call may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// With `tool_failed`: the error object that the MCP server answered, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_error: Option<Raw>,
    /// The result has so many parts, to be read with `mcp_part`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u32>,
    /// With `parts`: bytes of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// `mcp_part_data`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpPartData {
    /// As asked.
    pub part: u32,
    /// A piece of the result's JSON text.
    pub data: String,
}

/// `mcp_call_forward`: a call for the host. It is answered with `mcp_call_response`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpCallForward {
    /// The broker's name for the call.
    pub call_id: String,
    /// The server.
    pub server_name: String,
    /// The tool.
    pub tool_name: String,
    /// An object.
    pub args: Raw,
    /// Name of the session that calls.
    pub caller_name: String,
    /// After this the answer comes too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The caller wants to hear of the progress.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub progress: bool,
    /// The caller can read a large result in parts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parts: bool,
}

/// `mcp_call_cancel`: no one waits for this call any more. Not sent to hosts that say nothing of themselves in their hello.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpCallCancel {
    /// The broker's name for the call.
    pub call_id: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `mcp_call_progress`: how far a call is, for its caller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpCallProgress {
    /// The caller's name for it.
    pub call: String,
    /// Grows with each notice.
    pub progress: f64,
    /// What it grows to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `mcp_part_forward`: the caller wants a part of a large result. It is answered with `mcp_part_response`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpPartForward {
    /// The broker's name for the call.
    pub call_id: String,
    /// Counted from 0.
    pub part: u32,
}

/// Whether a text can be the name of a server: it becomes a part of the names of tools, so it has letters, digits, `-` and `_` only.
pub fn is_server_name(text: &str) -> bool {
    text.len() <= limits::MAX_NAME_CHARS
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|symbol| symbol.is_ascii_alphanumeric() || matches!(symbol, '-' | '_'))
}

crate::wire_feature! {
    requests {
        /// Registers an MCP server that this session runs.
        McpRegister = "mcp_register" => answers McpRegisterAck, needs CanDeployMcp, repeatable;
        /// Removes a registered server.
        McpUnregister = "mcp_unregister" => silent Nothing, needs nothing, once;
        /// All servers that sessions run, with the names of their tools.
        McpList = "mcp_list" => answers McpListResult, needs CanUseTools, repeatable;
        /// The tools of a server with their schemas.
        McpSchema = "mcp_schema" => answers McpSchemaResult, needs CanUseTools, repeatable;
        /// Calls a tool of a server.
        McpCall = "mcp_call" => answers McpCallResult, needs CanUseTools, once;
        /// Answers a call, from the host of the server.
        McpCallResponse = "mcp_call_response" => silent Nothing, needs nothing, once;
        /// Tells how far a call is, from the host of the server.
        McpProgress = "mcp_progress" => silent Nothing, needs nothing, once;
        /// Gives up a call of this connection.
        McpCancel = "mcp_cancel" => silent Nothing, needs nothing, repeatable;
        /// Reads a part of a result that is larger than a frame.
        McpPart = "mcp_part" => answers McpPartData, needs CanUseTools, once;
        /// Sends a part of a result, from the host of the server.
        McpPartResponse = "mcp_part_response" => silent Nothing, needs nothing, once;
    }
    answers {
        McpRegisterAck = "mcp_register_ack",
        McpListResult = "mcp_list_result",
        McpSchemaResult = "mcp_schema_result",
        McpCallResult = "mcp_call_result",
        McpPartData = "mcp_part_data",
    }
    events {
        McpCallForward = "mcp_call_forward",
        McpCallCancel = "mcp_call_cancel",
        McpCallProgress = "mcp_call_progress",
        McpPartForward = "mcp_part_forward",
    }
}

#[cfg(feature = "testing")]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_servers_can_stand_in_names_of_tools() {
        for name in ["a", "7zip", "My-server_2", &"x".repeat(64)] {
            assert!(is_server_name(name), "{name}");
        }
        for name in ["", "-a", "_a", "a b", "a.b", "a/b", "é", "a\n", &"x".repeat(65)] {
            assert!(!is_server_name(name), "{name:?}");
        }
    }

    #[test]
    fn what_mcp_says_of_a_tool_is_kept() {
        let tool = json!({
            "name": "add", "title": "Add", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}, "_meta": {"x": 1},
        });
        let read: ToolDef = serde_json::from_value(tool.clone()).unwrap();
        assert_eq!((read.more.len(), serde_json::to_value(read).unwrap()), (3, tool));
    }
}
