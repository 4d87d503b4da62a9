//! `deploy`, `update`, `undeploy`, `catalog`, `scope`; `logs NAME` is with the other logs.

use clap::Args;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::services::{
    Config, McpDeploy, McpDeployStatus, McpLogsResult, Scope, ServiceRow, Source, Status, limits,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Begin, scope_words};
use crate::context::Context;
use crate::context::connect::{Purpose, block_on, connect, in_mesh};
use crate::error::{CliError, ExitCode};
use crate::features::mcp_servers::cli::{parse_pair, word};
use crate::output::{Output, Style, clean_lines, one_line};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Deploy an MCP server that the mesh hosts: it runs at the broker, apart from anyone's session.
///
/// One that you have deployed under that name is replaced once the new one answers. Only you may use it until --scope or `claudemesh
/// scope` says otherwise. It reaches nothing of the network but what --network-allow names.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh deploy --name memory --npx @modelcontextprotocol/server-memory\n  \
                  claudemesh deploy --name time --uvx mcp-server-time --scope mesh\n  \
                  claudemesh deploy --name tickets --git https://git.example.org/tickets.git --branch main \
                  --env LANG=C --network-allow api.example.org:443 -- --quiet\n\n\
                  Variables of --env can be read by the broker.")]
#[command(group = clap::ArgGroup::new("source").required(true).args(["git", "npx", "uvx", "command"]))]
pub struct DeployArgs {
    /// Its name in the mesh: letters, digits, - and _.
    #[arg(long)]
    name: String,
    /// A git repository.
    #[arg(long, value_name = "URL")]
    git: Option<String>,
    /// Branch or tag of the repository [default: its default branch].
    #[arg(long, value_name = "BRANCH", conflicts_with_all = ["npx", "uvx", "command"])]
    branch: Option<String>,
    /// A package of npm.
    #[arg(long, value_name = "PACKAGE")]
    npx: Option<String>,
    /// A package of PyPI.
    #[arg(long, value_name = "PACKAGE")]
    uvx: Option<String>,
    /// A program that the host of services has.
    #[arg(long, value_name = "PROGRAM")]
    command: Option<String>,
    /// A variable for the server; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    env: Vec<(String, String)>,
    /// What it may reach of the network; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    network_allow: Vec<String>,
    /// MiB of memory [default: 256].
    #[arg(long, value_name = "MB")]
    memory: Option<u32>,
    /// node, python or bun [default: found out].
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<String>,
    /// Who may use it: peer, mesh, @group, or names with commas between them [default: peer, you alone].
    #[arg(long, value_name = "SCOPE", value_parser = parse_scope)]
    scope: Option<Scope>,
    /// What it is good for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Arguments of the server.
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    let names = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    match text {
        "peer" => Ok(Scope::Peer),
        "mesh" => Ok(Scope::Mesh),
        "" => Err("expected peer, mesh, @group, or names".into()),
        text => match text.strip_prefix('@') {
            Some(group) => Ok(Scope::Group(group.to_owned())),
            None => Ok(Scope::Peers(names(text))),
        },
    }
}

/// A service that was deployed or ended, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Deployed {
    /// Its name.
    name: String,
    /// What became of it.
    status: Status,
    /// Names of its tools.
    tools: Vec<String>,
}

impl Verb for DeployArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Deployed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Deployed>>()]
    }

    /// Exit 1 when it does not run, 3 for a bad name, 4 when the broker hosts none, 6 when another member has the name.
    fn run(self, cx: &Context) -> Ran {
        let source = match (self.git, self.npx, self.uvx, self.command) {
            (Some(url), ..) => Source::Git { url, branch: self.branch, commit: None },
            (_, Some(package), ..) => Source::Npx { package },
            (_, _, Some(package), _) => Source::Uvx { package },
            (_, _, _, Some(command)) => Source::Command { command },
            _ => return Err(CliError::invalid_args("Expected one of --git, --npx, --uvx and --command.")),
        };
        let config = Config {
            env: self.env.into_iter().collect(),
            args: self.args,
            memory_mb: self.memory,
            network_allow: self.network_allow,
            runtime: self.runtime,
            ..Config::default()
        };
        let (scope, description) = (self.scope, self.description);
        let deploy = McpDeploy { server_name: self.name, source, config: Some(config), scope, description, wait: true };
        begin(cx, Begin::Deploy(Box::new(deploy)))
    }
}

fn begin(cx: &Context, begin: Begin) -> Ran {
    let entry = cx.mesh_entry()?;
    let last: McpDeployStatus = block_on(async {
        let connection = connect(cx, &entry, Purpose::Watch).await?;
        let told = |notice: claudemesh_protocol::features::services::McpDeployProgress| {
            let line = notice.line.unwrap_or_else(|| notice.status.as_str().to_owned());
            cx.out.remark(&one_line(&line));
        };
        let last = connection.begin_service(begin, told).await;
        connection.close().await;
        Ok(last?)
    })?;
    if last.status != Status::Running || last.error.is_some() {
        let code = last.code.unwrap_or_else(|| ErrorCode::DeployFailed.as_str().to_owned());
        let why = last.error.unwrap_or_else(|| format!("it is {}", last.status.as_str()));
        let exit = ErrorCode::parse(&code).map_or(ExitCode::Cancelled, ExitCode::of);
        let hint = format!("`claudemesh logs {}` shows what it has said.", one_line(&last.server_name));
        return Err(CliError::new(exit, code, crate::error::sentence(&clean_lines(&why))).hint(hint));
    }
    let tools = last.tools.unwrap_or_default().into_iter().map(|tool| tool.name).collect();
    let deployed = Deployed { name: last.server_name, status: last.status, tools };
    cx.out
        .answer(&InMesh::new(&entry.slug, &deployed), |out| {
            let names: Vec<String> = deployed.tools.iter().map(|tool| word(tool, out)).collect();
            let name = word(&deployed.name, out);
            format!(
                "{} {name} runs in {} with {} tools: {}\n",
                out.tick(),
                one_line(&entry.slug),
                names.len(),
                names.join(", ")
            )
        })
        .map(done)
}

/// Fetch the source of a hosted MCP server again and replace it.
///
/// The version that runs goes on until the new one answers.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh update tickets")]
pub struct UpdateArgs {
    /// Its name.
    name: String,
}

impl Verb for UpdateArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Deployed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Deployed>>()]
    }

    /// Exit 5 when there is no such service, 7 when it belongs to another member.
    fn run(self, cx: &Context) -> Ran {
        begin(cx, Begin::Update(self.name))
    }
}

/// End a hosted MCP server and remove all of it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh undeploy tickets")]
pub struct UndeployArgs {
    /// Its name.
    name: String,
}

impl Verb for UndeployArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Deployed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Deployed>>()]
    }

    /// Exit 5 when there is no such service, 7 when it belongs to another member.
    fn run(self, cx: &Context) -> Ran {
        let name = self.name.clone();
        let (mesh, ended) = in_mesh(cx, |connection| async move { connection.undeploy(&name).await })?;
        let ended = Deployed { name: self.name, status: ended.status, tools: Vec::new() };
        let text = |out: &Output| format!("{} {} is no more\n", out.tick(), word(&ended.name, out));
        cx.out.answer(&InMesh::new(&mesh, &ended), text).map(done)
    }
}

/// List the MCP servers that the mesh hosts and you may use.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh catalog\n  claudemesh catalog --json=name,status,scope")]
pub struct CatalogArgs {}

impl Verb for CatalogArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ServiceRow>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<ServiceRow>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let (mesh, rows) = in_mesh(cx, |connection| async move { connection.services().await })?;
        cx.out
            .answer(&InMesh::all(&mesh, &rows), |out| {
                if rows.is_empty() {
                    return "the mesh hosts no MCP servers for you; `claudemesh deploy` deploys one\n".into();
                }
                rows.iter().map(|row| described(row, out)).collect()
            })
            .map(done)
    }
}

/// `tickets  running · git, node · 3 tools · for everyone in the mesh · by Ann` and what it is good for
fn described(row: &ServiceRow, out: &Output) -> String {
    let runtime = row.runtime.as_deref().map(|runtime| format!(", {}", word(runtime, out))).unwrap_or_default();
    let facts = format!(
        "{} · {}{runtime} · {} tools · for {} · by {}",
        row.status.as_str(),
        word(&row.source_type, out),
        row.tool_count,
        word(&scope_words(&row.scope), out),
        word(&row.deployed_by, out)
    );
    let about = word(&row.description, out);
    let error = row.error.as_deref().map(|error| format!("    {}\n", word(error, out))).unwrap_or_default();
    let name = word(&row.name, out);
    format!("{}  {}\n    {about}\n{error}", out.paint(Style::Cyan, &name), out.paint(Style::Dim, &facts))
}

/// Say who may use a hosted MCP server, or change it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh scope tickets\n  claudemesh scope tickets --all\n  \
                  claudemesh scope tickets --groups dev,ops\n  claudemesh scope tickets --peers Ann,Bob")]
#[command(group = clap::ArgGroup::new("for_whom").args(["all", "peer", "peers", "group", "groups", "role"]))]
pub struct ScopeArgs {
    /// Its name.
    name: String,
    /// Everyone in the mesh.
    #[arg(long)]
    all: bool,
    /// Its member alone.
    #[arg(long)]
    peer: bool,
    /// These members, by name or id.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    peers: Vec<String>,
    /// Those in this group.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Those in one of these groups.
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    groups: Vec<String>,
    /// Those with this role in a group.
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
}

/// Who may use a service, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Scoped {
    /// Its name.
    name: String,
    /// Who may use it.
    scope: Scope,
    /// Name of the session that deployed it.
    deployed_by: String,
}

impl ScopeArgs {
    fn wanted(&self) -> Option<Scope> {
        let plain = |text: &String| text.strip_prefix('@').unwrap_or(text).to_owned();
        match self {
            Self { all: true, .. } => Some(Scope::Mesh),
            Self { peer: true, .. } => Some(Scope::Peer),
            Self { group: Some(group), .. } => Some(Scope::Group(plain(group))),
            Self { role: Some(role), .. } => Some(Scope::Role(role.clone())),
            Self { peers, .. } if !peers.is_empty() => Some(Scope::Peers(peers.clone())),
            Self { groups, .. } if !groups.is_empty() => Some(Scope::Groups(groups.iter().map(plain).collect())),
            _ => None,
        }
    }
}

impl Verb for ScopeArgs {
    fn effect(&self) -> Effect {
        if self.wanted().is_some() { Effect::Changes } else { Effect::Reads }
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Scoped>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Scoped>>()]
    }

    /// Exit 5 when there is no such service, 7 when it belongs to another member or the scope is wider than one may give.
    fn run(self, cx: &Context) -> Ran {
        let (name, wanted) = (self.name.clone(), self.wanted());
        let (mesh, found) = in_mesh(cx, |connection| async move { connection.service_scope(&name, wanted).await })?;
        if found.deployed_by == "unknown" {
            let message = format!("There is no hosted MCP server {} for you.", one_line(&self.name));
            return Err(CliError::new(ExitCode::of(ErrorCode::NotFound), ErrorCode::NotFound.as_str(), message));
        }
        let scope = Scope::read(&found.scope).map_err(|error| CliError::internal(format!("The broker {error}.")))?;
        let scoped = Scoped { name: self.name, scope, deployed_by: found.deployed_by };
        let text = |out: &Output| {
            let (name, words) = (word(&scoped.name, out), word(&scope_words(&scoped.scope), out));
            format!("{name} is for {words}; deployed by {}\n", word(&scoped.deployed_by, out))
        };
        cx.out.answer(&InMesh::new(&mesh, &scoped), text).map(done)
    }
}

/// The log of a service, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct ServiceLog {
    /// Its name.
    service: String,
    /// Oldest first.
    lines: Vec<String>,
}

/// Shows the log of a hosted MCP server.
///
/// # Errors
/// Exit 5 when there is no such service.
pub(crate) fn logs(cx: &Context, name: &str, lines: usize) -> Result<(), CliError> {
    let most = limits::MAX_LOG_LINES;
    let lines = u32::try_from(lines).unwrap_or(most).clamp(1, most);
    let asked = name.to_owned();
    let (mesh, found): (String, McpLogsResult) =
        in_mesh(cx, |connection| async move { connection.service_logs(&asked, lines, None).await })?;
    let log = ServiceLog { service: found.server_name, lines: found.lines };
    cx.out.answer(&InMesh::new(&mesh, &log), |out| {
        if log.lines.is_empty() {
            return "nothing is logged\n".into();
        }
        format!("{}{}", out.preamble(), out.block(&log.lines.join("\n")))
    })
}
