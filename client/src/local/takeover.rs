//! Who serves the mesh of this machine: one of the processes that use it, and when that one dies another at once.
//!
//! Each candidate has a thread that sleeps in the system until it gets the store's lock. The lock ends with its process however
//! that dies, and the system gives it to one of those who wait: never two holders, no election, no one polls. The thread then
//! runs the broker ([`super::holder`]) until the candidate is dropped.

use std::time::{Duration, Instant};

use claudemesh_broker::{DataDirLock, StartError};
use rand::Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::holder::{self, Ended, Plan};
use super::store::{HolderNote, Store};
use super::unresponsive_holder;
use crate::error::{CliError, ExitCode};

/// Bounds of the pause after a start that failed, so that many candidates do not fail in turns at full speed.
const PAUSE_MS: [u64; 5] = [250, 1_000, 5_000, 15_000, 30_000];
/// Time between two looks at whether another process serves already.
const LOOK_AGAIN: Duration = Duration::from_millis(15);
/// Time that a session leaves to a process that claims its place, before it queues up again.
const GIVE_WAY: Duration = Duration::from_millis(200);
/// How long a holder may take to say goodbye. What was acknowledged is on disk in any case.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// What this process is for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Another process serves, or this one is about to.
    Waiting,
    /// This process serves.
    Serving {
        /// WebSocket URL on this machine.
        url: String,
        /// Where it listens, maybe on all addresses.
        listening: String,
    },
    /// It was this process's turn and it could not; it tries again.
    Failed(Failure),
    /// It gave up its place.
    Left,
}

/// Why this process cannot serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub exit: ExitCode,
    /// A sentence.
    pub message: String,
}

impl Failure {
    fn of(error: &StartError) -> Self {
        let exit = match error {
            StartError::DataDir { .. } | StartError::Db(_) | StartError::Io(_) | StartError::Blobs(_) => ExitCode::Io,
            StartError::Config(_) => ExitCode::InvalidArgs,
            StartError::Locked(_) => ExitCode::AlreadyExists,
            StartError::Listen { .. } | StartError::ListenUnix { .. } => ExitCode::Network,
        };
        Self { exit, message: crate::error::sentence(&error.to_string()) }
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        match failure.exit {
            ExitCode::Network => Self::network(failure.message)
                .hint("Is something else listening there? Choose another port: claudemesh up --listen 127.0.0.1:7901"),
            ExitCode::Io => Self::io(failure.message).hint("Check the rights of the folder and the space on its disk."),
            exit => Self::new(exit, "internal", failure.message),
        }
    }
}

/// A process's place among those who may serve a store. Dropping it gives the place up; see [`Candidate::leave`].
#[derive(Debug)]
pub struct Candidate {
    store: Store,
    role: watch::Receiver<Role>,
    stop: CancellationToken,
}

impl Candidate {
    /// Queues up. Returns at once.
    ///
    /// # Errors
    /// Exit 8 when the system gives no thread.
    pub fn start(plan: Plan) -> Result<Self, CliError> {
        let (role_in, role) = watch::channel(Role::Waiting);
        let stop = CancellationToken::new();
        let (store, stopped) = (plan.store.clone(), stop.clone());
        std::thread::Builder::new()
            .name("local-broker".into())
            .spawn(move || run(&plan, &stopped, &role_in))
            .map_err(|error| CliError::internal(format!("No thread for the local broker: {error}.")))?;
        Ok(Self { store, role, stop })
    }

    /// What this process is right now.
    pub fn role(&self) -> Role {
        self.role.borrow().clone()
    }

    /// Follows the role.
    pub fn watch(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Waits, blocking this thread, until this process or another one serves; answers the URL on this machine.
    ///
    /// # Errors
    /// Why this process cannot; exit 4 when no one serves in time.
    pub fn served(&self, patience: Duration) -> Result<String, CliError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.role() {
                Role::Serving { url, .. } => return Ok(url),
                Role::Failed(failure) => return Err(failure.into()),
                Role::Waiting => {
                    // The broker of this process answers a moment before it has its role.
                    if let Some(note) = answering(&self.store).filter(|note| note.pid != std::process::id()) {
                        return Ok(note.url);
                    }
                }
                Role::Left => return Err(CliError::internal("The local broker was given up.")),
            }
            if Instant::now() >= deadline {
                let holder = self.store.holder();
                let message = match &holder {
                    Some(note) => {
                        format!("{} (process {}) does not serve the local mesh.", note.kind.as_str(), note.pid)
                    }
                    None => "No one serves the local mesh.".into(),
                };
                return Err(CliError::network(crate::error::sentence(&message)).hint("Run `claudemesh doctor`."));
            }
            // Another process tells no one when it is ready.
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// Gives the place up and, when this process serves, waits until the broker has ended in good order.
    pub async fn leave(mut self) {
        let serving = matches!(self.role(), Role::Serving { .. });
        self.stop.cancel();
        if serving {
            let ended = self.role.wait_for(|role| !matches!(role, Role::Serving { .. }));
            let _ = tokio::time::timeout(LEAVE_PATIENCE, ended).await;
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The process that serves the store and answers; `None` when no one does.
pub(super) fn answering(store: &Store) -> Option<HolderNote> {
    let note = store.holder()?;
    #[cfg(unix)]
    if let Some(path) = store.socket()
        && path.exists()
    {
        return unresponsive_holder::connect(&path).is_ok().then_some(note);
    }
    std::net::TcpStream::connect_timeout(&note.address()?, Duration::from_secs(1)).is_ok().then_some(note)
}

fn run(plan: &Plan, stop: &CancellationToken, role: &watch::Sender<Role>) {
    // Most candidates never serve: the runtime is made when it is this one's turn.
    let mut system = None;
    let mut failures = 0;
    while !stop.is_cancelled() {
        let turn = holder::prepare(plan).and_then(|()| DataDirLock::wait(plan.store.dir()));
        let system = system.get_or_insert_with(actix_rt::System::new);
        let result = match turn {
            Ok(_) if stop.is_cancelled() => break,
            Ok(lock) if plan.kind.gives_way() && plan.store.is_claimed_by_other() => {
                drop(lock);
                Ok(Ended::GaveWay)
            }
            Ok(lock) => system.block_on(holder::serve(plan, lock, stop.clone(), role)),
            Err(error) => Err(StartError::DataDir { path: plan.store.dir().into(), error }),
        };
        let error = match result {
            Ok(Ended::Stopped) => break,
            Ok(Ended::GaveWay) => {
                role.send_replace(Role::Waiting);
                pause(system, stop, GIVE_WAY);
                continue;
            }
            Err(error) => error,
        };
        // Anyone who runs a command is told by its answer; a session has only its log.
        if plan.kind == super::store::HolderKind::Session {
            tracing::error!(%error, "this process cannot serve the local mesh");
        } else {
            tracing::debug!(%error, "this process cannot serve the local mesh");
        }
        role.send_replace(Role::Failed(Failure::of(&error)));
        let bound = PAUSE_MS[failures.min(PAUSE_MS.len() - 1)];
        failures += 1;
        // The lock is free meanwhile: another process may have more luck.
        pause(system, stop, Duration::from_millis(rand::thread_rng().gen_range(bound / 4..=bound)));
        // Not `Failed` while it waits for its next turn: another one may serve.
        role.send_if_modified(|role| {
            let taken = DataDirLock::try_take(plan.store.dir()).is_ok_and(|lock| lock.is_none());
            if taken {
                *role = Role::Waiting;
            }
            taken
        });
    }
    role.send_replace(Role::Left);
}

fn pause(system: &actix_rt::SystemRunner, stop: &CancellationToken, time: Duration) {
    system.block_on(async {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = stop.cancelled() => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::store::HolderKind;
    use super::*;

    #[test]
    fn the_broker_of_this_process_counts_once_the_process_knows_its_role() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let noted = format!("ws://{}/ws", listener.local_addr().unwrap());
        store.note_holder(HolderKind::Up, &noted, None).unwrap();
        assert!(answering(&store).is_some(), "it answers already");
        let (role_in, role) = watch::channel(Role::Waiting);
        let candidate = Candidate { store, role, stop: CancellationToken::new() };
        assert!(candidate.served(Duration::ZERO).is_err());
        role_in.send_replace(Role::Serving { url: "ws://own/ws".into(), listening: "ws://own/ws".into() });
        assert_eq!(candidate.served(Duration::ZERO).unwrap(), "ws://own/ws");
    }
}
