//! `mesh_mcp_deploy`, `mesh_mcp_undeploy`, `mesh_mcp_update`, `mesh_mcp_logs`, `mesh_mcp_scope`, `mesh_mcp_catalog`.

use std::collections::BTreeMap;

use claudemesh_protocol::features::services::{
    Config, McpDeploy, McpDeployProgress, McpDeployStatus, Scope, ServiceRow, Source, Status, limits,
};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::ProgressNotificationParam;
use rmcp::schemars::{self, JsonSchema};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::{tool, tool_router};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Begin, scope_words};
use crate::connection::Connection;
use crate::features::questions::text::UNTRUSTED;
use crate::mcp::server::MeshServer;
use crate::mcp::tool::{Json, MeshArg, OneLine, OneMeshArg};
use crate::session::ToolError;
use crate::session::frame::quote;
use crate::session::notes::harmless_value;

/// Parameters of `mesh_mcp_deploy`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Deploy {
    /// Its name: letters, digits, - and _.
    server_name: String,
    /// Address of a git repository, https://…; one source is needed.
    #[serde(default)]
    git_url: Option<String>,
    /// Branch or tag of the repository [default: its default branch].
    #[serde(default)]
    git_branch: Option<String>,
    /// A package of npm, with @version if wanted.
    #[serde(default)]
    npx_package: Option<String>,
    /// A package of PyPI, with ==version if wanted.
    #[serde(default)]
    uvx_package: Option<String>,
    /// A program that the host of services has.
    #[serde(default)]
    command: Option<String>,
    /// Arguments of the server.
    #[serde(default)]
    args: Option<Vec<String>>,
    /// Variables for the server; the mesh's broker can read them.
    #[serde(default)]
    env: Option<BTreeMap<String, String>>,
    /// node, python or bun [default: found out].
    #[serde(default)]
    runtime: Option<String>,
    /// MiB of memory [default: 256].
    #[serde(default)]
    memory_mb: Option<u32>,
    /// host:port that it may reach [default: nothing].
    #[serde(default)]
    network_allow: Option<Vec<String>>,
    /// Who may use it: "peer", "mesh", {"peers":[…]}, {"group":…}, {"groups":[…]} or {"role":…} [default: peer, you alone].
    #[serde(default)]
    scope: Option<Value>,
    /// What it is good for.
    #[serde(default)]
    description: Option<String>,
    #[serde(flatten)]
    mesh: OneMeshArg,
}

/// Parameters of `mesh_mcp_undeploy` and `mesh_mcp_update`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct OneService {
    /// Its name.
    server_name: String,
    #[serde(flatten)]
    mesh: OneMeshArg,
}

/// Parameters of `mesh_mcp_logs`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct LogsOf {
    /// Its name.
    server_name: String,
    /// How many of the last lines: 1 to 1000 [default: 50].
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    lines: Option<u32>,
    #[serde(flatten)]
    mesh: OneMeshArg,
}

/// Parameters of `mesh_mcp_scope`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ScopeOf {
    /// Its name.
    server_name: String,
    /// From now on: "peer", "mesh", {"peers":[…]}, {"group":…}, {"groups":[…]} or {"role":…} [default: only says who may use it].
    #[serde(default)]
    scope: Option<Value>,
    #[serde(flatten)]
    mesh: OneMeshArg,
}

/// What `mesh_mcp_catalog` found.
#[derive(Serialize, JsonSchema)]
struct Catalog {
    /// The services of each mesh, by name.
    services: Vec<Row>,
    /// Meshes that could not be asked, and why.
    trouble: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Row {
    /// The mesh.
    mesh_slug: String,
    #[serde(flatten)]
    service: OneLine<ServiceRow>,
}

fn scope_of(value: Option<Value>) -> Result<Option<Scope>, ToolError> {
    // Hosts write a structured argument as text now and then.
    let read = |value: Value| match &value {
        Value::String(text) if text.trim_start().starts_with('{') => match serde_json::from_str(text) {
            Ok(value) => Scope::read(&value),
            Err(_) => Scope::read(&value),
        },
        value => Scope::read(value),
    };
    value.filter(|value| !value.is_null()).map(read).transpose()
}

impl Deploy {
    fn source(&self) -> Result<Source, ToolError> {
        let git = self.git_url.clone().map(|url| Source::Git { url, branch: self.git_branch.clone(), commit: None });
        let npx = self.npx_package.clone().map(|package| Source::Npx { package });
        let uvx = self.uvx_package.clone().map(|package| Source::Uvx { package });
        let command = self.command.clone().map(|command| Source::Command { command });
        let mut given = [git, npx, uvx, command].into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(source), None) => Ok(source),
            _ => Err("give one of git_url, npx_package, uvx_package and command".into()),
        }
    }

    fn into_deploy(self) -> Result<McpDeploy, ToolError> {
        let source = self.source()?;
        let config = Config {
            env: self.env.unwrap_or_default(),
            args: self.args.unwrap_or_default(),
            memory_mb: self.memory_mb,
            network_allow: self.network_allow.unwrap_or_default(),
            runtime: self.runtime,
            ..Config::default()
        };
        let scope = scope_of(self.scope)?;
        let (server_name, description) = (self.server_name, self.description);
        Ok(McpDeploy { server_name, source, config: Some(config), scope, description, wait: true })
    }
}

#[tool_router(router = service_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        description = "Deploy an MCP server that the mesh hosts in its own container, apart from this session: from git, npm, PyPI or a program of the host. Waits until it runs or has failed. Only you may use it until its scope says otherwise; it reaches no network but network_allow.",
        annotations(destructive_hint = true, open_world_hint = true)
    )]
    async fn mesh_mcp_deploy(
        &self,
        Parameters(args): Parameters<Deploy>,
        context: RequestContext<RoleServer>,
    ) -> Result<String, ToolError> {
        let mesh = args.mesh.slug().map(str::to_owned);
        let begin = Begin::Deploy(Box::new(args.into_deploy()?));
        self.begin_service(mesh.as_deref(), begin, context).await
    }

    #[tool(
        description = "Fetch the source of a hosted MCP server of the mesh again and replace it. The version that runs goes on until the new one answers.",
        annotations(destructive_hint = true, open_world_hint = true)
    )]
    async fn mesh_mcp_update(
        &self,
        Parameters(args): Parameters<OneService>,
        context: RequestContext<RoleServer>,
    ) -> Result<String, ToolError> {
        let mesh = args.mesh.slug().map(str::to_owned);
        self.begin_service(mesh.as_deref(), Begin::Update(args.server_name), context).await
    }

    #[tool(
        description = "End a hosted MCP server of the mesh and remove all of it.",
        annotations(destructive_hint = true, idempotent_hint = true)
    )]
    async fn mesh_mcp_undeploy(&self, Parameters(args): Parameters<OneService>) -> Result<String, ToolError> {
        let name = args.server_name.as_str();
        let end = |connection: Connection| async move { connection.undeploy(name).await };
        let (bound, _) = self.in_one_mesh(args.mesh.slug(), end).await?;
        Ok(format!("Undeployed {} ({})", harmless_value(name), bound.tag.slug))
    }

    #[tool(
        description = "Show the last lines that a hosted MCP server of the mesh and its installer have written.",
        annotations(read_only_hint = true)
    )]
    async fn mesh_mcp_logs(&self, Parameters(args): Parameters<LogsOf>) -> Result<String, ToolError> {
        let (name, lines) = (args.server_name.as_str(), args.lines.unwrap_or(limits::USUAL_LOG_LINES));
        let ask = |connection: Connection| async move { connection.service_logs(name, lines, None).await };
        let (_, found) = self.in_one_mesh(args.mesh.slug(), ask).await?;
        let shown = harmless_value(name);
        if found.lines.is_empty() {
            return Ok(format!("{shown} has written nothing"));
        }
        let text = quote(&found.lines.join("\n"));
        Ok(format!("{} lines of {shown}. {UNTRUSTED}\n{}", found.lines.len(), text.trim_end()))
    }

    #[tool(
        description = "Say who may use a hosted MCP server of the mesh, or with scope change it.",
        annotations(destructive_hint = false, idempotent_hint = true)
    )]
    async fn mesh_mcp_scope(&self, Parameters(args): Parameters<ScopeOf>) -> Result<String, ToolError> {
        let name = args.server_name.as_str();
        let scope = scope_of(args.scope)?;
        let changes = scope.is_some();
        let ask = |connection: Connection| async move { connection.service_scope(name, scope).await };
        let (bound, found) = self.in_one_mesh(args.mesh.slug(), ask).await?;
        let shown = harmless_value(name);
        if found.deployed_by == "unknown" {
            return Err(format!("there is no hosted MCP server {shown} in {} for you", bound.tag.slug));
        }
        let words = Scope::read(&found.scope).map_or_else(|_| found.scope.to_string(), |scope| scope_words(&scope));
        let verb = if changes { "is now for" } else { "is for" };
        Ok(format!("{shown} {verb} {}; deployed by {}", harmless_value(&words), harmless_value(&found.deployed_by)))
    }

    #[tool(
        description = "List the MCP servers that the mesh hosts and you may use: status, tools, scope. mesh_mcp_schema shows their tools, mesh_tool_call calls them.",
        annotations(read_only_hint = true)
    )]
    async fn mesh_mcp_catalog(&self, Parameters(mesh): Parameters<MeshArg>) -> Result<Json<Catalog>, ToolError> {
        let (mut services, mut trouble, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        let ask = |connection: Connection| async move { connection.services().await };
        for (bound, listed) in self.ask_each_mesh(mesh.slug(), ask).await? {
            let mesh_slug = bound.tag.slug;
            match listed {
                Ok(rows) => {
                    lines.push(format!("## {mesh_slug} ({} hosted MCP servers)", rows.len()));
                    lines.extend(rows.iter().map(line));
                    let row = |service| Row { mesh_slug: mesh_slug.clone(), service: OneLine(service) };
                    services.extend(rows.into_iter().map(row));
                }
                Err(error) => trouble.push(format!("{mesh_slug}: {error}")),
            }
        }
        if lines.is_empty() {
            return Err(trouble.join("; "));
        }
        lines.extend(trouble.iter().map(|trouble| format!("Not asked: {trouble}")));
        Ok(Json(lines.join("\n"), Catalog { services, trouble }))
    }
}

/// `- tickets (running, git, node): what it is good for · 3 tools · for everyone in the mesh · by Ann`
fn line(row: &ServiceRow) -> String {
    let runtime = row.runtime.as_deref().map(|runtime| format!(", {runtime}")).unwrap_or_default();
    let error = row.error.as_deref().map(|error| format!(" · {error}")).unwrap_or_default();
    harmless_value(&format!(
        "- {} ({}, {}{runtime}): {} · {} tools · for {} · by {}{error}",
        row.name,
        row.status.as_str(),
        row.source_type,
        row.description,
        row.tool_count,
        scope_words(&row.scope),
        row.deployed_by
    ))
}

/// How a deploy ended.
fn ended(last: McpDeployStatus) -> Result<String, ToolError> {
    let name = harmless_value(&last.server_name);
    if last.status != Status::Running || last.error.is_some() {
        let why = last.error.unwrap_or_else(|| format!("it is {}", last.status.as_str()));
        return Err(format!("{name} does not run: {}. mesh_mcp_logs shows more.", harmless_value(&why)));
    }
    let tools = last.tools.unwrap_or_default();
    let names: Vec<String> = tools.iter().map(|tool| harmless_value(&tool.name)).collect();
    Ok(format!("{name} runs with {} tools: {}. mesh_tool_call calls them.", names.len(), names.join(", ")))
}

impl MeshServer {
    async fn begin_service(
        &self,
        mesh: Option<&str>,
        begin: Begin,
        context: RequestContext<RoleServer>,
    ) -> Result<String, ToolError> {
        let bound = self.session.select_one(mesh).await?;
        let connection = self.session.connected(&bound).await?;
        let (peer, token) = (context.peer.clone(), context.meta.get_progress_token());
        let mut count = 0.0;
        let told = |notice: McpDeployProgress| {
            let Some(token) = token.clone() else { return };
            count += 1.0;
            let mut param = ProgressNotificationParam::new(token, count);
            let line = notice.line.unwrap_or_else(|| notice.status.as_str().to_owned());
            param.message = Some(harmless_value(&line));
            let peer = peer.clone();
            tokio::spawn(async move {
                // A host that is gone learns of the service from the catalog.
                let _ = peer.notify_progress(param).await;
            });
        };
        let last = connection.begin_service(begin, told).await.map_err(|error| error.to_string())?;
        ended(last)
    }
}
