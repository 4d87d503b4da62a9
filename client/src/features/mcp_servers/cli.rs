//! `mcp-add`, `mcp-remove`, `mcp-list`, `serve`; `call` and `mesh-mcp` are in `cli/call.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{McpServer, is_server_name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hosting;
use super::kept::{HostedServer, Reach};
use super::serve::{self, Served};
use crate::config::MeshEntry;
use crate::context::Context;
use crate::context::connect::{ask, block_on};
use crate::error::{CliError, ExitCode};
use crate::features::messaging::cli::follow::stop_signal;
use crate::ipc::client::Line;
use crate::ipc::protocol::{Reply, Request};
use crate::output::{Output, Style, clean_lines, one_line};
use crate::paths;
use crate::session::notes::harmless_value;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Audience, Effect, Ran, Shape, Verb, done};

pub mod call;

/// How long a session may take to start a server and to register it.
const HOST_PATIENCE: Duration = Duration::from_secs(100);
/// How long `claudemesh serve` may take for the same.
const SERVE_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Offer an MCP server of this machine to the mesh: everyone in it can call its tools.
///
/// In the shell of a session the session runs it, until it ends. Elsewhere `claudemesh serve` does, now and whenever it is started.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh mcp-add everything -- npx -y @modelcontextprotocol/server-everything\n  \
                  claudemesh mcp-add notes --env NOTES_DIR=/srv/notes --persistent -- notes-server --stdio\n  \
                  claudemesh mcp-add search --url http://127.0.0.1:3000/mcp --header 'Authorization=Bearer …'\n\n\
                  The server gets PATH, HOME and the like, and what --env gives; nothing else of the environment."
)]
pub struct McpAddArgs {
    /// Its name in the mesh: letters, digits, - and _.
    name: String,
    /// Address of a server that speaks Streamable HTTP, in place of a command.
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    url: Option<String>,
    /// What it is good for [default: the name that the server gives itself].
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Keep its name in the mesh while it does not run.
    #[arg(long)]
    persistent: bool,
    /// A variable for the server; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair, conflicts_with = "url")]
    env: Vec<(String, String)>,
    /// A header of each request to the address; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair, requires = "url")]
    header: Vec<(String, String)>,
    /// Leave it to `claudemesh serve`, also in the shell of a session.
    #[arg(long)]
    serve: bool,
    /// The command and its arguments.
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "url")]
    command: Vec<String>,
}

/// A server that was added, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Added {
    /// Its name.
    name: String,
    /// `session` or `serve`: who runs it.
    hosted_by: String,
    /// It is registered in the mesh now.
    registered: bool,
    /// Number of its tools, once it is registered.
    tools: Option<u32>,
    /// Its name is kept while it does not run.
    persistent: bool,
}

pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

impl Verb for McpAddArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Added>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Added>>()]
    }

    /// Exit 3 for a bad name or address, 6 when another member has the name, 1 when the server does not run.
    fn run(self, cx: &Context) -> Ran {
        let leave = self.serve;
        check_name(&self.name)?;
        let entry = cx.mesh_entry()?;
        let server = self.into_server(cx, &entry)?;
        let added = match own_session(cx, &entry).filter(|_| !leave) {
            Some(mut line) => in_session(&mut line, &entry, server)?,
            None => left_to_serve(cx, &entry, server)?,
        };
        cx.out
            .answer(&InMesh::new(&entry.slug, &added), |out| {
                let name = word(&added.name, out);
                let tools = added.tools.map(|tools| format!(" with {tools} tools")).unwrap_or_default();
                let place = one_line(&entry.slug).into_owned();
                match (added.registered, added.hosted_by.as_str()) {
                    (true, "session") => {
                        format!("{} {name} is offered in {place}{tools}; this session runs it\n", out.tick())
                    }
                    (true, _) => {
                        format!("{} {name} is offered in {place}{tools}; `claudemesh serve` runs it\n", out.tick())
                    }
                    (false, _) => format!("{} {name} is noted for {place}; `claudemesh serve` runs it\n", out.tick()),
                }
            })
            .map(done)
    }
}

impl McpAddArgs {
    fn into_server(self, cx: &Context, entry: &MeshEntry) -> Result<HostedServer, CliError> {
        let pairs = |pairs: Vec<(String, String)>| pairs.into_iter().collect::<BTreeMap<_, _>>();
        let reach = match self.url {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
                Reach::Http { url, headers: pairs(self.header) }
            }
            Some(url) => {
                let url = one_line(&url).into_owned();
                return Err(CliError::invalid_args(format!(
                    "{url} is not the address of a server: expected http:// or https://."
                )));
            }
            None => {
                let mut words = self.command.into_iter();
                let command = words.next().ok_or_else(|| CliError::invalid_args("Expected a command behind `--`."))?;
                let cwd = Some(paths::project_dir(&cx.env));
                Reach::Stdio { command, args: words.collect(), env: pairs(self.env), cwd }
            }
        };
        Ok(HostedServer {
            name: self.name,
            mesh_id: entry.mesh_id.clone(),
            description: self.description,
            reach,
            persistent: self.persistent,
            session: None,
        })
    }
}

fn check_name(name: &str) -> Result<(), CliError> {
    if is_server_name(name) {
        return Ok(());
    }
    let message = format!(
        "{} is no name of an MCP server: expected 1 to 64 letters, digits, hyphens and underscores, starting with a letter or digit.",
        one_line(name)
    );
    Err(CliError::new(ExitCode::InvalidArgs, ErrorCode::InvalidName.as_str(), message))
}

/// A line to the session that this shell is in, if it is in the mesh.
fn own_session(cx: &Context, entry: &MeshEntry) -> Option<Line> {
    let servers = cx.store.own_servers(&cx.env);
    let server = servers.iter().find(|server| server.meshes.contains(&entry.slug))?;
    Line::open(server, Some(HOST_PATIENCE)).ok()
}

fn in_session(line: &mut Line, entry: &MeshEntry, server: HostedServer) -> Result<Added, CliError> {
    let (name, persistent) = (server.name.clone(), server.persistent);
    let request = Request::HostServer { mesh_id: entry.mesh_id.to_string(), server: Box::new(server) };
    match line.ask(&request) {
        Ok(Reply::Hosted { tools }) => {
            Ok(Added { name, hosted_by: "session".into(), registered: true, tools: Some(tools), persistent })
        }
        Ok(Reply::Error { code, message }) => {
            let exit = ErrorCode::parse(&code).map_or(ExitCode::Cancelled, ExitCode::of);
            Err(CliError::new(exit, code, crate::error::sentence(&clean_lines(&message))))
        }
        Ok(_) => Err(CliError::internal("The session's server answered something else.")),
        Err(error) => Err(CliError::network(format!("The session's server does not answer: {error}."))
            .hint("`--serve` leaves the server to `claudemesh serve`.")),
    }
}

fn left_to_serve(cx: &Context, entry: &MeshEntry, server: HostedServer) -> Result<Added, CliError> {
    let (name, persistent) = (server.name.clone(), server.persistent);
    cx.store.keep_server(server)?;
    let added = Added { name, hosted_by: "serve".into(), registered: false, tools: None, persistent };
    if !serve::is_running(&cx.store) {
        cx.out.remark("`claudemesh serve` does not run on this machine; the server is offered once it does.");
        return Ok(added);
    }
    let tools = ask(cx, entry, |connection| async move {
        let deadline = tokio::time::Instant::now() + SERVE_PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let servers = connection.mcp_servers().await?;
            if let Some(found) = servers.into_iter().find(|found| found.name == added.name && found.online) {
                let tools = u32::try_from(found.tools.len()).unwrap_or(u32::MAX);
                return Ok(Added { registered: true, tools: Some(tools), ..added });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(added)
    })?;
    if !tools.registered {
        cx.out.warn("The server is not offered yet; what `claudemesh serve` prints says why.");
    }
    Ok(tools)
}

/// Remove an MCP server of yours from the mesh.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh mcp-remove everything")]
pub struct McpRemoveArgs {
    /// Its name.
    name: String,
}

/// A server that was removed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Removed {
    /// Its name.
    name: String,
    /// Always true.
    removed: bool,
}

impl Verb for McpRemoveArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Removed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Removed>>()]
    }

    /// Exit 5 when there is no such server, 7 when it belongs to another member.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let mut found = cx.store.forget_server(&entry.mesh_id, &self.name)?;
        if let Some(mut line) = own_session(cx, &entry) {
            let request = Request::StopServer { mesh_id: entry.mesh_id.to_string(), name: self.name.clone() };
            found |= matches!(line.ask(&request), Ok(Reply::Stopped { found: true }));
        }
        let name = self.name.clone();
        let gone = ask(cx, &entry, |connection| async move { Ok(hosting::unregister(&connection, &name).await) })?;
        match gone {
            Ok(()) => {}
            // It was only noted here.
            Err(error) if found && error.code() == Some(ErrorCode::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
        let removed = Removed { name: self.name, removed: true };
        cx.out
            .answer(&InMesh::new(&entry.slug, &removed), |out| {
                format!("{} removed {}\n", out.tick(), word(&removed.name, out))
            })
            .map(done)
    }
}

/// List the MCP servers that the sessions of the mesh offer.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh mcp-list\n  claudemesh mcp-list --json=name,online,hostedBy")]
pub struct McpListArgs {}

impl Verb for McpListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<McpServer>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<McpServer>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let servers = ask(cx, &entry, |connection| async move { Ok(connection.mcp_servers().await?) })?;
        cx.out
            .answer(&InMesh::all(&entry.slug, &servers), |out| {
                if servers.is_empty() {
                    return "there are no MCP servers; `claudemesh mcp-add <name> -- <command>` offers one\n".into();
                }
                servers.iter().map(|server| described(server, out)).collect()
            })
            .map(done)
    }
}

/// `everything  by Ann · online · 13 tools: add, echo …` and what it is good for
fn described(server: &McpServer, out: &Output) -> String {
    let state = match &server.offline_since {
        None => "online".to_owned(),
        Some(since) => format!("offline since {}", crate::clock::shown(since)),
    };
    let kept = if server.persistent { " · kept" } else { "" };
    let names: Vec<String> = server.tools.iter().take(12).map(|tool| word(&tool.name, out)).collect();
    let more = if server.tools.len() > names.len() { " …" } else { "" };
    let facts = format!(
        "by {} · {state}{kept} · {} tools: {}{more}",
        word(&server.hosted_by, out),
        server.tools.len(),
        names.join(", ")
    );
    let about = word(&server.description, out);
    let about = if about.is_empty() { String::new() } else { format!("    {about}\n") };
    format!("{}  {}\n{about}", out.paint(Style::Cyan, &word(&server.name, out)), out.paint(Style::Dim, &facts))
}

/// Run the MCP servers that `mcp-add` left to it, until Ctrl-C.
///
/// It follows the list: a server that is added or removed meanwhile comes or goes at once. One that ends is started again.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh serve\n  claudemesh serve --mesh team")]
pub struct ServeArgs {}

impl Verb for ServeArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        crate::verb::json_fields::of::<Served>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::lines::<Served>()]
    }

    /// Exit 6 when it runs already with this folder.
    fn run(self, cx: &Context) -> Ran {
        if let Some(slug) = &cx.mesh {
            cx.store.load()?.choose(Some(slug))?;
        }
        crate::telemetry::start(&cx.env, cx.store.dir());
        block_on(async {
            let stop = stop_signal()?;
            cx.out.remark("Serving; Ctrl-C ends it.");
            serve::serve(cx, stop, |served| {
                let text = cx.out.render_line(served, |out| {
                    let (name, mesh) = (word(&served.name, out), one_line(&served.mesh).into_owned());
                    match (&served.error, served.tools) {
                        (Some(error), _) => format!("{name} is not offered in {mesh}: {}\n", one_line(error)),
                        (None, tools) => {
                            format!("{} {name} is offered in {mesh} with {} tools\n", out.tick(), tools.unwrap_or(0))
                        }
                    }
                })?;
                cx.out.write(&text)
            })
            .await
        })
        .map(done)
    }
}

/// What a peer wrote, within a line.
pub(crate) fn word(text: &str, out: &Output) -> String {
    if out.is_for_model() { harmless_value(text) } else { one_line(text).into_owned() }
}
