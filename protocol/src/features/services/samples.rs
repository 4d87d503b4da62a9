//! Samples of every message of services.

use serde_json::json;

use super::{
    Config, McpCatalog, McpCatalogResult, McpDeploy, McpDeployProgress, McpDeployStatus, McpLogs, McpLogsResult,
    McpScope, McpScopeResult, McpUndeploy, McpUpdate, Request, Response, Scope, ServiceRow, Source, Status,
};
use crate::features::mcp_servers::ToolDef;
use crate::testing::{AT, MEMBER};

/// Fields that are written as `null` when they have no value, as older clients expect them.
pub(crate) const NULLS: &[(&str, &str)] = &[("mcp_catalog_result", "/services/0/runtime")];

fn name() -> String {
    "tickets".into()
}

fn git() -> Source {
    Source::Git { url: "https://git.example.org/tickets.git".into(), branch: None, commit: None }
}

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let deploy =
        McpDeploy { server_name: name(), source: git(), config: None, scope: None, description: None, wait: false };
    let config = Config {
        env: [("LANG".to_owned(), "C".to_owned())].into(),
        args: vec!["--quiet".into()],
        memory_mb: Some(128),
        cpus: Some(0.5),
        network_allow: vec!["api.example.org:443".into()],
        runtime: Some("node".into()),
        timeout_ms: Some(60_000),
        install_scripts: true,
    };
    let full_git = Source::Git {
        url: "https://git.example.org/tickets.git".into(),
        branch: Some("main".into()),
        commit: Some("5e".repeat(20)),
    };
    let full = McpDeploy {
        source: full_git,
        config: Some(config),
        scope: Some(Scope::Mesh),
        description: Some("Tickets of the team".into()),
        wait: true,
        ..deploy.clone()
    };
    let from = |source: Source| McpDeploy { source, ..deploy.clone() }.into();
    let scoped = |scope: Scope| McpScope { server_name: name(), scope: Some(scope) }.into();
    vec![
        ("", deploy.clone().into()),
        ("full", full.into()),
        ("zip", from(Source::Zip { file_id: "f".into() })),
        ("npx", from(Source::Npx { package: "@modelcontextprotocol/server-memory".into() })),
        ("uvx", from(Source::Uvx { package: "mcp-server-time".into() })),
        ("command", from(Source::Command { command: "tickets-mcp".into() })),
        ("", McpUndeploy { server_name: name() }.into()),
        ("", McpUpdate { server_name: name(), wait: false }.into()),
        ("full", McpUpdate { server_name: name(), wait: true }.into()),
        ("", McpLogs { server_name: name(), ..McpLogs::default() }.into()),
        ("full", McpLogs { server_name: name(), lines: Some(200), after: Some(41) }.into()),
        ("", McpScope { server_name: name(), scope: None }.into()),
        ("mesh", scoped(Scope::Mesh)),
        ("peers", scoped(Scope::Peers(vec!["Bob".into()]))),
        ("group", scoped(Scope::Group("frontend".into()))),
        ("groups", scoped(Scope::Groups(vec!["frontend".into(), "backend".into()]))),
        ("role", scoped(Scope::Role("lead".into()))),
        ("", McpCatalog::default().into()),
        ("full", McpCatalog { cursor: Some(name()) }.into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let status = McpDeployStatus { server_name: name(), ..McpDeployStatus::default() };
    let tool = ToolDef {
        name: "open".into(),
        description: Some("Opens a ticket".into()),
        input_schema: Some(json!({"type": "object"})),
        ..ToolDef::default()
    };
    let running = McpDeployStatus { status: Status::Running, tools: Some(vec![tool]), ..status.clone() };
    let failed = McpDeployStatus {
        status: Status::Failed,
        error: Some("the server ended before it answered".into()),
        code: Some("deploy_failed".into()),
        ..status.clone()
    };
    let row = ServiceRow {
        name: name(),
        kind: "mcp".into(),
        description: "Tickets of the team".into(),
        status: Status::Running,
        tool_count: 1,
        deployed_by: "Alice".into(),
        scope: Scope::Mesh,
        source_type: "git".into(),
        runtime: None,
        created_at: AT.into(),
        ..ServiceRow::default()
    };
    let full = ServiceRow {
        status: Status::Failed,
        scope: Scope::Group("frontend".into()),
        runtime: Some("node".into()),
        updated_at: Some(AT.into()),
        member_id: Some(MEMBER.into()),
        error: Some("it ended before it answered".into()),
        ..row.clone()
    };
    let logs = McpLogsResult { server_name: name(), lines: vec!["ready".into()], last: None };
    let progress = McpDeployProgress { server_name: name(), status: Status::Installing, line: None };
    let scope =
        |scope: serde_json::Value, by: &str| McpScopeResult { server_name: name(), scope, deployed_by: by.into() };
    vec![
        ("", status.into()),
        ("running", running.into()),
        ("failed", failed.into()),
        ("", logs.clone().into()),
        ("full", McpLogsResult { last: Some(42), ..logs }.into()),
        ("", scope(json!("mesh"), "Alice").into()),
        ("unknown", scope(json!({"type": "peer"}), "unknown").into()),
        ("", McpCatalogResult { services: vec![row], next: None }.into()),
        ("full", McpCatalogResult { services: vec![full], next: Some(name()) }.into()),
        ("", progress.clone().into()),
        ("full", McpDeployProgress { line: Some("added 41 packages".into()), ..progress }.into()),
    ]
}
