//! The host of services: one runner for each mesh that has some, and the actor that speaks with it.

mod actor;
mod docker;
mod egress;
mod git;
mod installing;
mod link;
mod process;
pub mod settings;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::MeshId;
use claudemesh_protocol::runner::{Registries, ServiceSpec};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use self::actor::ServiceHost;
use self::settings::{HostKind, Settings};
use crate::mesh::directory::Directory;
use crate::mesh::hosting::{Command, Hosting, Report};
use crate::mesh::messages::Told;
use crate::refusal::Refusal;

/// Lines of installers that wait for their mesh; more are left out, the log has them.
const MAX_WAITING_LINES: usize = 256;
/// Users that the services of one mesh may have: twice as many as there may be services.
const USERS_OF_A_MESH: u32 = 512;
/// How long the runners may take to end with the broker.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How the runner of a mesh ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    /// It goes on.
    #[default]
    Run,
    /// The broker ends. What can go on without it does.
    Leave,
    /// The mesh has no services any more: nothing of it is to stay.
    Remove,
}

/// A runner that was started, or found at work.
struct Started {
    read: Box<dyn AsyncRead + Send + Unpin>,
    write: Box<dyn AsyncWrite + Send + Unpin>,
    /// No one has written to it before.
    fresh: bool,
    /// Ends it when dropped, if it does not go on by itself.
    keep: Option<tokio::process::Child>,
}

/// Why there is no runner, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoRunner(String);

/// What runs runners.
enum Runtime {
    Process(process::Processes),
    Docker(docker::Docker),
}

impl Runtime {
    async fn start(&self, mesh: &MeshId) -> Result<Started, NoRunner> {
        match self {
            Self::Process(processes) => processes.start(mesh).await,
            Self::Docker(docker) => docker.start(mesh).await,
        }
    }

    /// Ends the runner of a mesh and removes all of it.
    async fn remove(&self, mesh: &MeshId) {
        match self {
            Self::Process(processes) => processes.remove(mesh).await,
            Self::Docker(docker) => docker.remove(mesh).await,
        }
    }
}

/// What the actors of all meshes share.
struct Inner {
    settings: Settings,
    runtime: Runtime,
    /// Until the broker ends: each has the other.
    directory: Mutex<Option<Directory>>,
    actors: Mutex<HashMap<MeshId, Running>>,
}

impl Inner {
    fn directory(&self) -> MutexGuard<'_, Option<Directory>> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Running {
    actor: Addr<ServiceHost>,
    wish: watch::Sender<Wish>,
    ended: watch::Receiver<bool>,
}

/// The hosts of all meshes.
#[derive(Clone)]
pub struct Hosts {
    inner: Arc<Inner>,
}

impl Hosts {
    /// From the operator's settings; `None` when there is no host. `data_dir`: where processes keep their files.
    pub fn new(settings: &Settings, data_dir: &std::path::Path) -> Option<Self> {
        let runtime = match settings.host {
            HostKind::Off => return None,
            HostKind::Process => Runtime::Process(process::Processes::new(settings, data_dir)),
            HostKind::Docker => Runtime::Docker(docker::Docker::new(settings)),
        };
        if settings.host == HostKind::Process {
            tracing::warn!(
                "`services.host = \"process\"`: hosted MCP servers run as the broker's user and can read and change all that it can; \
                 for development only"
            );
        }
        let inner =
            Inner { settings: settings.clone(), runtime, directory: Mutex::default(), actors: Mutex::default() };
        Some(Self { inner: Arc::new(inner) })
    }

    /// Says where meshes are found, to tell them things.
    pub fn attach(&self, directory: Directory) {
        *self.inner.directory() = Some(directory);
    }

    /// Ends with the broker: processes end, containers go on.
    pub async fn shutdown(&self) {
        let running: Vec<Running> = {
            let mut actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
            actors.drain().map(|(_, running)| running).collect()
        };
        for running in &running {
            let _ = running.wish.send(Wish::Leave);
        }
        let ended = async {
            for mut running in running {
                let _ = running.ended.wait_for(|ended| *ended).await;
            }
        };
        if tokio::time::timeout(SHUTDOWN, ended).await.is_err() {
            tracing::warn!("runners of services did not end in time");
        }
        self.inner.directory().take();
    }
}

impl Hosting for Hosts {
    fn ready(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn tell(&self, mesh: &MeshId, command: Command) -> Result<(), Refusal> {
        let mut actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
        let command = match actors.get(mesh) {
            Some(running) => match running.actor.try_send(command) {
                Ok(()) => return Ok(()),
                Err(actix::dev::SendError::Full(_)) => {
                    return Err(Refusal::new(ErrorCode::Busy, "the host of services takes no more now"));
                }
                // Its mesh had no services any more.
                Err(actix::dev::SendError::Closed(command)) => command,
            },
            None => command,
        };
        if command.is_about_nothing() {
            return Err(ErrorCode::ServiceDown.into());
        }
        let (wish, wishes) = watch::channel(Wish::Run);
        let (end, ended) = watch::channel(false);
        let host = ServiceHost::new(mesh.clone(), Arc::clone(&self.inner), wishes, wish.clone(), end);
        let actor = host.start();
        let sent = actor.try_send(command);
        actors.insert(mesh.clone(), Running { actor, wish, ended });
        sent.map_err(|_| ErrorCode::Busy.into())
    }

    fn complete(&self, spec: &mut ServiceSpec) {
        let settings = &self.inner.settings;
        spec.registries = Registries {
            npm: settings.npm_registry.clone(),
            pypi: settings.pypi_index.clone(),
            ..Registries::default()
        };
        spec.limits.processes = settings.processes_per_service;
        spec.limits.disk_bytes = u64::from(settings.disk_mb_per_service) << 20;
    }
}

impl Command {
    /// Whether a host that is not there has nothing to do for it.
    fn is_about_nothing(&self) -> bool {
        match self {
            Self::Keep(_) | Self::Start(_) | Self::Remove(_) => false,
            Self::Stop(_) | Self::Call(_) | Self::Cancel { .. } | Self::Logs { .. } => true,
        }
    }
}

/// Tells a mesh what becomes of its services, in order.
#[derive(Clone)]
struct Reporter {
    queue: mpsc::UnboundedSender<Report>,
    lines: Arc<AtomicUsize>,
}

impl Reporter {
    fn new(mesh: MeshId, inner: Arc<Inner>) -> Self {
        let (queue, mut waiting) = mpsc::unbounded_channel::<Report>();
        let lines = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Some(report) = waiting.recv().await {
                if matches!(report, Report::Installing { .. }) {
                    told.fetch_sub(1, Ordering::Relaxed);
                }
                let Some(directory) = inner.directory().clone() else { continue };
                let found = directory.get(&mesh).await;
                let Ok(actor) = found else { continue };
                if actor.send(Told(report)).await.is_err() {
                    tracing::debug!(mesh.id = %mesh, "a mesh ended before it was told of a service");
                }
            }
        });
        Self { queue, lines }
    }

    /// Tells it, sooner or later. Calls that run and versions that are there bound how much waits.
    fn tell(&self, report: Report) {
        if matches!(report, Report::Installing { .. })
            && self.lines.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING_LINES
        {
            self.lines.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        // It ends with the broker only.
        let _ = self.queue.send(report);
    }
}

/// The first of the users of a mesh's services: the kernel counts processes by user, over all containers.
fn first_user(mesh: &MeshId) -> u32 {
    let digest = Sha256::digest(mesh.as_str());
    100_000 + u32::from(u16::from_be_bytes([digest[0], digest[1]])) * USERS_OF_A_MESH
}

/// The folder of a mesh, by a name that is none of a path.
fn folder_of(root: &std::path::Path, mesh: &MeshId) -> PathBuf {
    root.join(hex::encode(mesh.as_str()))
}
