//! `claudemesh serve`: runs the MCP servers of this machine for its meshes, without a session. It follows the list as it changes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{McpCallCancel, McpCallForward, McpPartForward};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::asked::failed;
use super::hosting::{self, Hosting, Registered};
use super::kept::HostedServer;
use crate::config::{ConfigStore, MeshEntry};
use crate::connection::{Connection, Heard};
use crate::context::Context;
use crate::context::connect::{Purpose, connect};
use crate::error::{CliError, ExitCode};
use crate::files::FileLock;
use crate::output::one_line;

/// Time between two looks at the list.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time until a mesh that cannot be reached is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What became of a server, for scripts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// The mesh.
    pub mesh: String,
    /// It is registered.
    pub registered: bool,
    /// Number of its tools.
    pub tools: Option<u32>,
    /// Why it is not.
    pub error: Option<String>,
}

/// The lock that the one process of this folder holds while it serves.
fn lock_path(store: &ConfigStore) -> PathBuf {
    store.dir().join("mcp-serve.lock")
}

/// Whether `claudemesh serve` runs with this folder.
pub fn is_running(store: &ConfigStore) -> bool {
    FileLock::take(&lock_path(store), Duration::ZERO).is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
}

/// Serves until `stopped`; `tell` hears what becomes of each server.
///
/// # Errors
/// Exit 6 when it runs already with this folder, 10 when the list cannot be read.
pub async fn serve(
    cx: &Context,
    stopped: impl Future<Output = Result<(), CliError>>,
    mut tell: impl FnMut(&Served) -> Result<(), CliError>,
) -> Result<(), CliError> {
    crate::files::create_private_dir(cx.store.dir())
        .map_err(|error| CliError::io(format!("{} cannot be made: {error}.", cx.store.dir().display())))?;
    let _lock = FileLock::take(&lock_path(&cx.store), Duration::ZERO).map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => {
            CliError::new(ExitCode::AlreadyExists, "serving", "`claudemesh serve` runs already with this folder.")
        }
        _ => CliError::io(format!("{} cannot be locked: {error}.", lock_path(&cx.store).display())),
    })?;
    let (news, mut heard) = mpsc::unbounded_channel();
    let mut serving = Serving { cx, meshes: HashMap::new(), seen: None, news };
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut stopped = std::pin::pin!(stopped);
    let ended = loop {
        tokio::select! {
            ended = &mut stopped => break ended,
            _ = look.tick() => if let Err(error) = serving.follow().await { break Err(error) },
            Some(served) = heard.recv() => if let Err(error) = tell(&served) { break Err(error) },
        }
    };
    serving.close().await;
    ended
}

/// One mesh that servers are run for.
struct Mesh {
    connection: Connection,
    hosting: Hosting,
    running: BTreeMap<String, HostedServer>,
}

struct Serving<'a> {
    cx: &'a Context,
    meshes: HashMap<String, Mesh>,
    /// When the list was written that was read last, and when it is read again anyway.
    seen: Option<(Option<SystemTime>, Option<tokio::time::Instant>)>,
    news: mpsc::UnboundedSender<Served>,
}

impl Serving<'_> {
    /// Starts and stops what the list says.
    async fn follow(&mut self) -> Result<(), CliError> {
        let written = std::fs::metadata(self.cx.store.mcp_servers_path()).and_then(|file| file.modified()).ok();
        let due = |again: Option<tokio::time::Instant>| again.is_some_and(|at| at <= tokio::time::Instant::now());
        if self.seen.is_some_and(|(seen, again)| seen == written && !due(again)) {
            return Ok(());
        }
        let (config, listed) = (self.cx.store.load()?, self.cx.store.hosted_servers()?);
        let wanted = |entry: &MeshEntry| {
            let of_mesh = listed.iter().filter(|server| server.session.is_none() && server.mesh_id == entry.mesh_id);
            of_mesh.map(|server| (server.name.clone(), server.clone())).collect::<BTreeMap<_, _>>()
        };
        let mut again = None;
        let named = self.cx.mesh.as_deref();
        for entry in config.meshes.iter().filter(|entry| named.is_none_or(|named| named == entry.slug)) {
            if !self.follow_mesh(entry, wanted(entry)).await {
                again = Some(tokio::time::Instant::now() + AGAIN_AFTER);
            }
        }
        self.seen = Some((written, again));
        Ok(())
    }

    /// `false` when the mesh cannot be reached now.
    async fn follow_mesh(&mut self, entry: &MeshEntry, wanted: BTreeMap<String, HostedServer>) -> bool {
        let id = entry.mesh_id.to_string();
        if !wanted.is_empty() && !self.meshes.contains_key(&id) {
            match connect(self.cx, entry, Purpose::Watch).await {
                Ok(connection) => {
                    let hosting = Hosting::default();
                    listen(&connection, &hosting);
                    hosting.use_connection(connection.clone());
                    self.meshes.insert(id.clone(), Mesh { connection, hosting, running: BTreeMap::new() });
                }
                Err(error) => {
                    self.cx.out.warn(&format!("{}: {}", one_line(&entry.slug), error.message));
                    return false;
                }
            }
        }
        let Some(mesh) = self.meshes.get_mut(&id) else { return true };
        let outdated = |(name, server): &(&String, &HostedServer)| wanted.get(*name) != Some(*server);
        let outdated: Vec<String> = mesh.running.iter().filter(outdated).map(|(name, _)| name.clone()).collect();
        for name in outdated {
            mesh.hosting.stop(&name).await;
            mesh.running.remove(&name);
        }
        for (name, server) in wanted {
            if mesh.running.contains_key(&name) {
                continue;
            }
            mesh.hosting.start(server.clone());
            if let Some(registered) = mesh.hosting.registered(&name) {
                tell_of(self.news.clone(), registered, name.clone(), entry.slug.clone());
            }
            mesh.running.insert(name, server);
        }
        true
    }

    async fn close(self) {
        let closing = self.meshes.into_values().map(|mesh| async move {
            mesh.hosting.close().await;
            mesh.connection.close().await;
        });
        futures_util::future::join_all(closing).await;
    }
}

/// Tells each time a server is registered, or is not.
fn tell_of(news: mpsc::UnboundedSender<Served>, mut registered: Registered, name: String, mesh: String) {
    tokio::spawn(async move {
        while registered.changed().await.is_ok() {
            let Some(told) = registered.borrow_and_update().clone() else { continue };
            let (tools, error) = match told {
                Ok(ack) => (Some(ack.tool_count), None),
                Err(error) => (None, Some(error.to_string())),
            };
            let served = Served { name: name.clone(), mesh: mesh.clone(), registered: error.is_none(), tools, error };
            if news.send(served).is_err() {
                return;
            }
        }
    });
}

/// Hands what comes over a connection to the servers.
fn listen(connection: &Connection, hosting: &Hosting) {
    let (mut calls, mut cancels, mut parts) = (
        connection.events::<McpCallForward>(),
        connection.events::<McpCallCancel>(),
        connection.events::<McpPartForward>(),
    );
    let (connection, hosting) = (connection.clone(), hosting.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                heard = calls.next() => match heard {
                    Some(Heard::Event(forward)) => {
                        if let Some(forward) = hosting.forwarded(&connection, forward) {
                            let why = "no program of this name runs here".to_owned();
                            let response = failed(forward.call_id, ErrorCode::NotFound, why);
                            // No one waits any more, or the connection is gone.
                            let _ = hosting::respond(&connection, response).await;
                        }
                    }
                    Some(Heard::Away) => hosting.away(),
                    Some(Heard::Lagged(missed)) => tracing::warn!(missed, "calls of MCP servers were lost"),
                    None => return,
                },
                Some(heard) = cancels.next() => if let Heard::Event(cancel) = heard {
                    hosting.cancelled(&cancel.call_id);
                },
                Some(heard) = parts.next() => if let Heard::Event(wanted) = heard {
                    hosting.part(&connection, wanted);
                },
            }
        }
    });
}
