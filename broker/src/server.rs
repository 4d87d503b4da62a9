//! Starting and draining a broker.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_rt::Arbiter;
use actix_web::dev::Service;
use actix_web::{App, HttpServer, web};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::audit::HeadSigner;
use crate::blobs::{self, Blobs};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, ConfigError};
use crate::db::{Db, DbError, DbOptions, Exclusive, erase};
use crate::features::Features;
use crate::features::services::host::Hosts;
use crate::http::{self, AppState, auth::AuthState};
use crate::journal::Journal;
use crate::lock::DataDirLock;
use crate::memory_release::when_idle;
use crate::mesh::context::Shared;
use crate::mesh::directory::{Arbiters, Directory};
use crate::mesh::hook_statuses::HookStatusRegistry;
use crate::mesh::hosting::NoHost;
use crate::open_connections::OpenConnections;
use crate::session::SessionDeps;
use crate::session::hello::SeenHellos;
#[cfg(unix)]
use crate::unix_socket::{self, SocketFile};

/// Connections the kernel queues while the workers are busy.
const BACKLOG: i32 = 4_096;
/// First keep-alive probe of a silent connection, and the time between probes.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));
/// Unacknowledged data older than this ends a connection: a stuck peer is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(75);
/// A drain that takes longer is given up: the journal has what was acknowledged.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// How long sockets and requests may take to end once everyone was told.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// The last bytes of the last socket are with its worker; time to write them.
const FLUSH: Duration = Duration::from_millis(20);

/// Time between two looks for meshes that sleep and have something to do.
const WAKE_LOOK_MS: i64 = 5_000;
/// They are loaded so long before.
const WAKE_AHEAD_MS: i64 = 15_000;
/// Pause before a mesh is asked for again that could not be loaded: the workers start, or storage is away.
const WAKE_AGAIN: Duration = Duration::from_millis(50);

/// Time between two rounds of upkeep.
const UPKEEP_MS: i64 = 3_600_000;
/// Meshes deleted within this time are looked at again by each round: 7 days.
const ERASED_AGAIN_MS: i64 = 7 * 86_400_000;
/// The same after one that failed.
const UPKEEP_RETRY_MS: i64 = 60_000;

/// Parts that tests and embedders replace.
pub struct Deps {
    /// Time.
    pub clock: SharedClock,
    /// The lock of the data directory, when the embedder has it already: it waited for it, or it is handed on.
    pub lock: Option<DataDirLock>,
    /// Called on each thread of the broker when it has become quiet after a lot of work: the moment to give freed memory
    /// back to the system. Nothing by default: only a program knows its allocator.
    pub on_quiet: fn(),
}

impl Default for Deps {
    fn default() -> Self {
        Self { clock: SystemClock::shared(), lock: None, on_quiet: || () }
    }
}

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error("cannot use the data directory `{path}`: {error}")]
    DataDir {
        /// As configured.
        path: std::path::PathBuf,
        /// From the system.
        error: std::io::Error,
    },
    /// Another broker uses the data directory.
    #[error("another broker is using the data directory `{0}`")]
    Locked(std::path::PathBuf),
    /// Storage.
    #[error("cannot open the database: {0}")]
    Db(#[from] DbError),
    /// The store of files.
    #[error(transparent)]
    Blobs(#[from] blobs::OpenError),
    /// The address.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// From the system.
        error: std::io::Error,
    },
    /// The Unix socket.
    #[error("cannot listen on `{path}`: {error}")]
    ListenUnix {
        /// As configured.
        path: std::path::PathBuf,
        /// From the system.
        error: std::io::Error,
    },
    /// Anything else of the system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Starts brokers.
pub struct Broker;

/// A broker that serves. Dropping it does not stop it; call [`RunningBroker::shutdown`].
pub struct RunningBroker {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where `/metrics` answers anyone, when that was asked for.
    pub metrics_addr: Option<SocketAddr>,
    /// The operator token, on the very first start only: it is stored hashed.
    pub operator_token: Option<String>,
    db: Db,
    directory: Directory,
    hosts: Option<Hosts>,
    server: actix_web::dev::ServerHandle,
    journal: tokio::task::JoinHandle<()>,
    upkeep: tokio::task::JoinHandle<()>,
    waker: tokio::task::JoinHandle<()>,
    traffic: OpenConnections,
    #[cfg(unix)]
    _socket_file: Option<SocketFile>,
    quiet: tokio::task::JoinHandle<()>,
    _exclusive: Exclusive,
    _lock: Option<DataDirLock>,
}

impl Broker {
    /// Opens storage, migrates, listens and serves. Must run inside an actix system.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: Config, deps: Deps) -> Result<RunningBroker, StartError> {
        config.validate()?;
        let lock = prepare_data_dir(&config, deps.lock)?;
        // Before storage is opened: an address that is taken costs nothing, and clients that come now wait in the backlog.
        let listener = listen(config.listen)?;
        let addr = listener.local_addr()?;
        let metrics_listener = config.metrics_listen.map(listen).transpose()?;
        let metrics_addr = metrics_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        #[cfg(unix)]
        let (unix_listener, socket_file) = match &config.listen_unix {
            Some(path) => {
                let fail = |error| StartError::ListenUnix { path: path.clone(), error };
                let (listener, file) = unix_socket::listen(path).map_err(fail)?;
                (Some(listener), Some(file))
            }
            None => (None, None),
        };
        let options = DbOptions { max_bytes: config.database_max_bytes, ..DbOptions::default() };
        let db = Db::open(&config.database_url(), options).await?;
        let exclusive = db.exclusive().await?;
        let applied = db.migrate().await?;
        if !applied.is_empty() {
            tracing::info!(backend = db.backend(), count = applied.len(), "database migrated");
        }
        exclusive.sign().await?;
        let keys = |error| StartError::DataDir { path: config.data_dir.clone(), error };
        let audit = Arc::new(HeadSigner::open(&config.data_dir).map_err(keys)?);
        let config = Config { listen: addr, ..config };
        let blobs = Arc::new(Blobs::open(&config)?);
        let operator_token = http::auth::first_operator_token(&db).await?;
        let workers = config.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let arbiters = Arbiters::default();
        let (journal, writer) = Journal::start(db.clone());
        let limits = config.effective_limits();
        let hosts = Hosts::new(&config.services, &config.data_dir);
        let shared = Shared {
            clock: deps.clock.clone(),
            db: db.clone(),
            journal: journal.clone(),
            audit: audit.clone(),
            limits: limits.clone(),
            connections: config.connections.clone(),
            hooks: Arc::new(HookStatusRegistry::default()),
            blobs: blobs.clone(),
            hosting: match &hosts {
                Some(hosts) => Arc::new(hosts.clone()),
                None => Arc::new(NoHost),
            },
        };
        let directory = Directory::new(shared, arbiters.clone());
        if let Some(hosts) = &hosts {
            hosts.attach(directory.clone());
        }
        let sessions = Arc::new(SessionDeps {
            directory: directory.clone(),
            clock: deps.clock.clone(),
            limits,
            pending: AtomicUsize::new(0),
            next_socket: AtomicUsize::new(1),
            seen_hellos: SeenHellos::default(),
            traffic: OpenConnections::default(),
        });
        let traffic = sessions.traffic.clone();
        let quiet = tokio::spawn(when_idle(deps.on_quiet));
        let erase_wanted = Arc::<tokio::sync::Notify>::default();
        let upkeep = tokio::spawn(upkeep(db.clone(), blobs.clone(), deps.clock.clone(), erase_wanted.clone()));
        let (running_db, waker_db, waker_clock) = (db.clone(), db.clone(), deps.clock.clone());
        let state = http::state(AppState {
            db,
            journal,
            audit,
            metrics_addr,
            erase: erase_wanted.clone(),
            started_mono_ms: deps.clock.mono_ms(),
            clock: deps.clock,
            directory: directory.clone(),
            config,
            blobs,
            sessions,
            auth: AuthState::default(),
            hook_rates: Mutex::default(),
        });
        let requests = traffic.clone();
        let server = HttpServer::new(move || {
            let requests = requests.clone();
            // Meshes run on the workers' own threads: half of the frames of two workers never change threads.
            arbiters.add(Arbiter::current());
            actix_rt::spawn(when_idle(deps.on_quiet));
            App::new()
                .app_data(state.clone())
                .app_data(web::PayloadConfig::new(claudemesh_protocol::limits::MAX_HTTP_BODY_BYTES))
                .wrap_fn(move |request, service| {
                    let under_way = requests.enter();
                    let misplaced = http::is_misplaced(&request, metrics_addr);
                    let answer = (!misplaced).then(|| service.call(request));
                    async move {
                        let answer = match answer {
                            Some(answer) => answer.await,
                            None => Err(actix_web::error::ErrorNotFound("only /metrics and /health are here")),
                        };
                        if let Ok(answer) = &answer {
                            http::log_fault(answer);
                        }
                        drop(under_way);
                        answer
                    }
                })
                .configure(http::configure)
        })
        .workers(workers)
        .backlog(u32::try_from(BACKLOG).unwrap_or(1_024))
        .max_connections(1_000_000)
        .on_connect(|socket, extensions| {
            if let Some(stream) = socket.downcast_ref::<actix_web::rt::net::TcpStream>() {
                tune(stream);
            }
            #[cfg(unix)]
            if socket.is::<actix_web::rt::net::UnixStream>() {
                extensions.insert(unix_socket::OverUnixSocket);
            }
            #[cfg(not(unix))]
            let _ = extensions;
        })
        .disable_signals()
        .listen(listener)?;
        let server = match metrics_listener {
            Some(listener) => server.listen(listener)?,
            None => server,
        };
        #[cfg(unix)]
        let server = match unix_listener {
            Some(listener) => server.listen_uds(listener)?,
            None => server,
        };
        let server = server.run();
        let handle = server.handle();
        actix_rt::spawn(server);
        let waker = tokio::spawn(wake_sleeping(waker_db, waker_clock, directory.clone()));
        tracing::info!(address = %addr, workers, "broker started");
        Ok(RunningBroker {
            addr,
            metrics_addr,
            operator_token,
            db: running_db,
            directory,
            hosts,
            server: handle,
            journal: writer,
            upkeep,
            waker,
            traffic,
            #[cfg(unix)]
            _socket_file: socket_file,
            quiet,
            _exclusive: exclusive,
            _lock: lock,
        })
    }
}

impl RunningBroker {
    /// WebSocket URL of this broker.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.addr)
    }

    /// Live meshes, for tests and embedders.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Drains: refuses new hellos, writes everything pending, closes every socket with 1001, stops.
    pub async fn shutdown(self) {
        tracing::info!("draining");
        if tokio::time::timeout(DRAIN_DEADLINE, self.directory.drain()).await.is_err() {
            tracing::warn!("the drain took too long and was given up");
        }
        if let Some(hosts) = &self.hosts {
            hosts.shutdown().await;
        }
        // The server's own graceful stop looks once a second; an idle broker would seem to hang.
        if tokio::time::timeout(CLOSE_DEADLINE, self.traffic.ended()).await.is_err() {
            tracing::warn!(open = self.traffic.open(), "sockets did not close in time");
        }
        tokio::time::sleep(FLUSH).await;
        self.server.stop(false).await;
        for task in [self.upkeep, self.waker, self.quiet] {
            task.abort();
            // Gone when this returns; the error only says that it was aborted.
            let _ = task.await;
        }
        drop(self.directory);
        if tokio::time::timeout(DRAIN_DEADLINE, self.journal).await.is_err() {
            tracing::warn!("the journal did not end in time");
        }
        // What they had asked of storage may still run: the lock is for the next broker when nothing writes any more.
        if tokio::time::timeout(DRAIN_DEADLINE, self.db.quiet()).await.is_err() {
            tracing::warn!("storage did not end in time");
        }
        tracing::info!("stopped");
    }
}

/// Loads meshes in which something is due although no one is there.
async fn wake_sleeping(db: Db, clock: SharedClock, directory: Directory) {
    loop {
        let mut again = false;
        match Features::due(&db, clock.now_ms().saturating_add(WAKE_AHEAD_MS)).await {
            Ok(meshes) => {
                for mesh in meshes {
                    again |= directory.get(&mesh).await.is_err_and(|refusal| refusal.code.retryable());
                }
            }
            Err(error) => tracing::warn!(error = %error, "it could not be read which meshes have something to do"),
        }
        if again {
            tokio::time::sleep(WAKE_AGAIN).await;
            continue;
        }
        clock.sleep_until(clock.mono_ms() + WAKE_LOOK_MS).await;
    }
}

/// Once an hour, and when a mesh was deleted: ends what expired, deletes what no one will ask for again.
async fn upkeep(db: Db, blobs: Arc<Blobs>, clock: SharedClock, erase_wanted: Arc<tokio::sync::Notify>) {
    // The first round looks at every deleted mesh: the broker may have been stopped in the middle of one long ago.
    let mut since_ms = 0;
    loop {
        let now = clock.believed_ms();
        let erased = match erase::erase_since(&db, since_ms).await {
            Ok(0) => true,
            Ok(removed) => {
                tracing::info!(removed, "rows of deleted meshes removed");
                true
            }
            Err(error) => {
                tracing::warn!(error = %error, "rows of deleted meshes could not be removed");
                false
            }
        };
        if !(Features::upkeep(&db, now).await && erased) {
            clock.sleep_until(clock.mono_ms() + UPKEEP_RETRY_MS).await;
            continue;
        }
        // Behind the rows: bytes of a mesh that was just deleted belong to no one now.
        Features::sweep(&db, &blobs).await;
        since_ms = now - ERASED_AGAIN_MS;
        tokio::select! {
            () = clock.sleep_until(clock.mono_ms() + UPKEEP_MS) => {}
            () = erase_wanted.notified() => {}
        }
    }
}

fn prepare_data_dir(config: &Config, held: Option<DataDirLock>) -> Result<Option<DataDirLock>, StartError> {
    if let Some(lock) = held {
        debug_assert_eq!(lock.dir(), config.data_dir);
        return Ok(Some(lock));
    }
    let uses_dir = config.database_url().starts_with("sqlite:") || config.database_url.is_none();
    if !uses_dir {
        return Ok(None);
    }
    // Two brokers on one SQLite file would each believe to own every mesh.
    match DataDirLock::try_take(&config.data_dir) {
        Ok(Some(lock)) => Ok(Some(lock)),
        Ok(None) => Err(StartError::Locked(config.data_dir.clone())),
        Err(error) => Err(StartError::DataDir { path: config.data_dir.clone(), error }),
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error| StartError::Listen { address, error })
}

/// A stuck peer must be gone in 75 s even when its session's own timers cannot run. Failing to set these costs time only.
fn tune(stream: &actix_web::rt::net::TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE.0).with_interval(KEEPALIVE.1);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// Raises the soft limit of open files to the hard one.
///
/// # Errors
/// The system refused.
#[cfg(unix)]
#[expect(unsafe_code, reason = "two plain system calls on a struct of ours; no safe wrapper is among the dependencies")]
pub fn raise_open_file_limit() -> std::io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that outlives the calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}
