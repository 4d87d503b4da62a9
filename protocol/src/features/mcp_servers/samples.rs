//! Samples of every message of MCP servers.

use serde_json::json;

use super::{
    McpCall, McpCallCancel, McpCallForward, McpCallProgress, McpCallResponse, McpCallResult, McpCancel, McpList,
    McpListResult, McpPart, McpPartData, McpPartForward, McpPartResponse, McpProgress, McpRegister, McpRegisterAck,
    McpSchema, McpSchemaResult, McpServer, McpTool, McpUnregister, Raw, Request, Response, ToolDef,
};
use crate::testing::{AT, MEMBER};

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] = &[];

const CALL_ID: &str = "3f0c9a52-0f0e-4b53-9f2f-0f7f6f1d2c11";

fn server() -> String {
    "calc".into()
}

fn args() -> Raw {
    Raw::of(&json!({"x": 1}))
}

fn result() -> Raw {
    Raw::of(&json!({"content": [{"type": "text", "text": "3"}]}))
}

fn rpc_error() -> Raw {
    Raw::of(&json!({"code": -32602, "message": "no such tool"}))
}

fn tool() -> ToolDef {
    ToolDef {
        name: "add".into(),
        description: Some("Adds".into()),
        input_schema: Some(json!({"type": "object"})),
        ..ToolDef::default()
    }
}

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let call_id = || CALL_ID.to_owned();
    let more = json!({"annotations": {"readOnlyHint": true}});
    let bare =
        ToolDef { name: "now".into(), more: serde_json::from_value(more).unwrap_or_default(), ..ToolDef::default() };
    let register =
        McpRegister { server_name: server(), description: "Sums".into(), tools: vec![tool()], persistent: false };
    let call = McpCall { server_name: server(), tool_name: "add".into(), args: Some(args()), ..McpCall::default() };
    let full =
        McpCall { call: Some("c1".into()), timeout_ms: Some(60_000), progress: true, parts: true, ..call.clone() };
    let answer = McpCallResponse { call_id: call_id(), ..McpCallResponse::default() };
    let failed = McpCallResponse {
        error: Some("no such tool".into()),
        code: Some("tool_failed".into()),
        rpc_error: Some(rpc_error()),
        ..answer.clone()
    };
    let progress = McpProgress { call_id: call_id(), progress: 1.5, ..McpProgress::default() };
    vec![
        ("", register.clone().into()),
        ("full", McpRegister { tools: vec![tool(), bare], persistent: true, ..register }.into()),
        ("", McpUnregister { server_name: server() }.into()),
        ("", McpList::default().into()),
        ("full", McpList { cursor: Some(server()) }.into()),
        ("", McpSchema { server_name: server(), tool_name: None }.into()),
        ("full", McpSchema { server_name: server(), tool_name: Some("add".into()) }.into()),
        ("", call.into()),
        ("full", full.into()),
        ("", McpCallResponse { result: Some(result()), ..answer.clone() }.into()),
        ("failed", failed.into()),
        ("parts", McpCallResponse { parts: Some(4), bytes: Some(2_000_000), ..answer }.into()),
        ("", progress.clone().into()),
        ("full", McpProgress { total: Some(3.0), message: Some("half".into()), ..progress }.into()),
        ("", McpCancel { call: "c1".into(), reason: None }.into()),
        ("full", McpCancel { call: "c1".into(), reason: Some("not needed".into()) }.into()),
        ("", McpPart { call: "c1".into(), part: 2 }.into()),
        ("", McpPartResponse { call_id: call_id(), part: 2, data: "{\"content\":".into(), error: None }.into()),
        (
            "failed",
            McpPartResponse { call_id: call_id(), error: Some("gone".into()), ..McpPartResponse::default() }.into(),
        ),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let call_id = || CALL_ID.to_owned();
    let row = McpServer {
        name: server(),
        description: "Sums".into(),
        hosted_by: "Alice".into(),
        tools: vec![McpTool { name: "add".into(), description: "Adds".into() }],
        online: true,
        ..McpServer::default()
    };
    let away = McpServer {
        online: false,
        offline_since: Some(AT.into()),
        persistent: true,
        member_id: Some(MEMBER.into()),
        ..row.clone()
    };
    let failed = McpCallResult {
        error: Some("no such tool".into()),
        code: Some("tool_failed".into()),
        rpc_error: Some(rpc_error()),
        ..McpCallResult::default()
    };
    let limited = McpCallResult {
        error: Some("too many calls".into()),
        code: Some("rate_limited".into()),
        retry_after_ms: Some(500),
        ..McpCallResult::default()
    };
    let forward = McpCallForward {
        call_id: call_id(),
        server_name: server(),
        tool_name: "add".into(),
        args: args(),
        caller_name: "Bob".into(),
        timeout_ms: None,
        progress: false,
        parts: false,
    };
    let progress = McpCallProgress { call: "c1".into(), progress: 1.0, ..McpCallProgress::default() };
    let registered = McpRegisterAck { server_name: server(), tool_count: 1, persistent: false };
    vec![
        ("", registered.clone().into()),
        ("full", McpRegisterAck { persistent: true, ..registered }.into()),
        ("", McpListResult { servers: vec![row], next: None }.into()),
        ("full", McpListResult { servers: vec![away], next: Some(server()) }.into()),
        ("", McpSchemaResult { server_name: server(), tools: vec![tool()] }.into()),
        ("", McpCallResult { result: Some(result()), ..McpCallResult::default() }.into()),
        ("failed", failed.into()),
        ("limited", limited.into()),
        ("parts", McpCallResult { parts: Some(4), bytes: Some(2_000_000), ..McpCallResult::default() }.into()),
        ("", McpPartData { part: 2, data: "{\"content\":".into() }.into()),
        ("", forward.clone().into()),
        ("full", McpCallForward { timeout_ms: Some(60_000), progress: true, parts: true, ..forward }.into()),
        ("", McpCallCancel { call_id: call_id(), reason: None }.into()),
        ("full", McpCallCancel { call_id: call_id(), reason: Some("not needed".into()) }.into()),
        ("", progress.clone().into()),
        ("full", McpCallProgress { total: Some(3.0), message: Some("half".into()), ..progress }.into()),
        ("", McpPartForward { call_id: call_id(), part: 2 }.into()),
    ]
}
