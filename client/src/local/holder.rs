//! Serving the mesh of this machine from this process: the embedded broker on loopback and on the store's Unix socket.
//!
//! Called by [`super::takeover`] with the lock of the store in hand; never decides who serves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Instant;

use claudemesh_broker::config::Config as BrokerConfig;
use claudemesh_broker::{Broker, DataDirLock, Deps, RunningBroker, StartError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::store::{self, HolderKind, HolderNote, Store};
use super::takeover::Role;
use crate::config::{ConfigError, ConfigStore};
use crate::files;

/// Where the broker listens when the place is free.
pub(super) const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7900);
/// Any free port, when the usual one is someone else's.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The table in which our migrations are noted.
const MIGRATIONS: &str = "__diesel_schema_migrations";
/// Threads of the broker: it shares the machine with the sessions it serves.
const MAX_WORKERS: usize = 2;

/// What a process serves when it is its turn.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which store.
    pub store: Store,
    /// Whose config follows the address.
    pub config: ConfigStore,
    /// What this process is.
    pub kind: HolderKind,
    /// The address that was asked for, and no other.
    pub listen: Option<SocketAddr>,
}

/// Why a process serves no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to stop.
    Stopped,
    /// Another process claims the place.
    GaveWay,
}

/// Serves until `stop`, or until it gives way to a process that claims its place; ends in good order.
///
/// # Errors
/// Why the broker cannot be started; nothing runs then.
pub(super) async fn serve(
    plan: &Plan,
    lock: DataDirLock,
    stop: CancellationToken,
    role: &watch::Sender<Role>,
) -> Result<Ended, StartError> {
    let started = Instant::now();
    let broker = start(plan, &lock).await?;
    // The broker has its own clone: the lock is free when it is gone, not earlier and not later.
    drop(lock);
    let listening = broker.ws_url();
    let url = reachable(&listening);
    // Before the note: who reads it may send the signal at once.
    let mut claimed = ClaimSignal::new(plan);
    if let Some(token) = &broker.operator_token
        && let Err(error) = plan.store.keep_operator_token(token)
    {
        tracing::warn!(%error, "the operator's token could not be kept; `claudemesh-broker operator-token` makes another");
    }
    let outside = outside_url(broker.addr);
    if let Err(error) = plan.store.note_holder(plan.kind, &url, outside.as_deref()) {
        tracing::error!(%error, "clients without the Unix socket will not find the broker: the note cannot be written");
    }
    if outside.is_some()
        && let Err(error) = plan.store.note_listening(broker.addr)
    {
        tracing::warn!(%error, "the address for other machines is not noted");
    }
    follow(plan);
    tracing::info!(dur_ms = started.elapsed().as_millis() as u64, url, "this process serves the local mesh");
    role.send_replace(Role::Serving { url, listening });
    #[cfg(unix)]
    if plan.kind == HolderKind::Session {
        tokio::task::spawn_local(ignore_suspend(stop.clone()));
    }
    let ended = tokio::select! {
        () = stop.cancelled() => Ended::Stopped,
        () = claimed.came() => Ended::GaveWay,
    };
    if plan.kind == HolderKind::Up
        && let Err(error) = plan.store.note_end()
    {
        tracing::warn!(%error, "the note of who serves cannot be written");
    }
    broker.shutdown().await;
    tracing::info!(?ended, "this process serves the local mesh no longer");
    Ok(ended)
}

/// Asks the holder to give way to the process that claims its place.
pub(super) fn ask_to_give_way(note: &HolderNote) {
    #[cfg(unix)]
    if note.kind.gives_way()
        && let Some(pid) = i32::try_from(note.pid).ok().and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::USR1);
    }
    #[cfg(not(unix))]
    let _ = note;
}

/// The signal by which a claim is made known; it changes nothing unless there is a claim.
struct ClaimSignal {
    store: Store,
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl ClaimSignal {
    fn new(plan: &Plan) -> Self {
        Self {
            store: plan.store.clone(),
            #[cfg(unix)]
            signal: plan
                .kind
                .gives_way()
                .then(|| tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1()).ok())
                .flatten(),
        }
    }

    async fn came(&mut self) {
        #[cfg(unix)]
        while let Some(signal) = &mut self.signal {
            if signal.recv().await.is_none() {
                break;
            }
            if self.store.is_claimed_by_other() {
                return;
            }
        }
        std::future::pending().await
    }
}

/// Makes the folders (0700) and the database (0600) before the broker does: what it makes itself has the rights of its umask.
pub(super) fn prepare(plan: &Plan) -> std::io::Result<()> {
    files::create_private_dir(plan.config.dir())?;
    files::create_private_dir(plan.store.dir())?;
    let database = plan.store.database();
    if let Some(parent) = database.parent() {
        files::create_private_dir(parent)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, files::PRIVATE_FILE);
    options.open(database).map(drop)
}

/// `MESH_DB_PATH` was the variable of another program, too: its database is left alone.
fn refuse_foreign(database: &Path) -> Result<(), StartError> {
    use diesel::prelude::*;
    use diesel::sql_types::Text;
    /// A table's name, from the catalogue, which has no diesel table.
    #[derive(QueryableByName)]
    struct Table {
        #[diesel(sql_type = Text)]
        name: String,
    }
    let Some(path) = database.to_str().filter(|_| std::fs::metadata(database).is_ok_and(|meta| meta.len() > 0)) else {
        return Ok(());
    };
    // What cannot be read at all is the broker's to report: it says why.
    let Ok(mut connection) = SqliteConnection::establish(path) else { return Ok(()) };
    let tables =
        diesel::sql_query("SELECT name FROM sqlite_master WHERE type = 'table'").load::<Table>(&mut connection);
    let Ok(tables) = tables else { return Ok(()) };
    if tables.is_empty() || tables.iter().any(|table| table.name == MIGRATIONS) {
        return Ok(());
    }
    let message = format!("{path} holds the tables of another program; let MESH_DB_PATH name a file of its own");
    Err(StartError::Io(std::io::Error::other(message)))
}

/// Starts the broker at the first address that is free.
async fn start(plan: &Plan, lock: &DataDirLock) -> Result<RunningBroker, StartError> {
    refuse_foreign(plan.store.database())?;
    let addresses = addresses(plan);
    let mut socket = plan.store.socket();
    let mut at = 0;
    loop {
        let config = BrokerConfig {
            listen: addresses[at],
            listen_unix: socket.clone(),
            data_dir: plan.store.dir().to_path_buf(),
            database_url: Some(format!("sqlite:{}", plan.store.database().display())),
            public_url: outside(addresses[at]).map(|address| format!("http://{address}")),
            workers: Some(std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS)),
            ..BrokerConfig::default()
        };
        let deps = Deps { lock: Some(lock.clone()), ..Deps::default() };
        match Broker::start(config, deps).await {
            Err(StartError::Listen { .. }) if at + 1 < addresses.len() => at += 1,
            Err(StartError::ListenUnix { path, error }) => {
                // Some file systems have no sockets; TCP serves as well.
                tracing::warn!(path = %path.display(), %error, "no Unix socket for the local mesh");
                socket = None;
            }
            other => return other,
        }
    }
}

/// The asked address only; else where clients expect the broker, the usual port, and any.
fn addresses(plan: &Plan) -> Vec<SocketAddr> {
    if let Some(asked) = plan.listen {
        return vec![asked];
    }
    let before = plan.store.last_holder().and_then(|note| {
        let address = note.address()?;
        address.ip().is_loopback().then_some(address)
    });
    let mut addresses: Vec<SocketAddr> = before.into_iter().chain([USUAL, ANY]).collect();
    addresses.dedup();
    addresses
}

/// Tells the config where the broker is now: other clients and hooks read it there.
fn follow(plan: &Plan) {
    let Some(note) = plan.store.holder() else { return };
    let followed = plan.config.update(|config| {
        for entry in &mut config.meshes {
            if store::is_local(entry) && Store::of_entry(entry).is_some_and(|store| store == plan.store) {
                store::follow(entry, &note);
            }
        }
        Ok::<_, ConfigError>(())
    });
    if let Err(error) = followed {
        tracing::warn!(%error, "the config does not say where the local broker is");
    }
}

/// A session that is suspended (Ctrl-Z) must not take the mesh of all others with it: this process has no terminal to give
/// back, so it goes on.
#[cfg(unix)]
async fn ignore_suspend(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut suspend) = signal(SignalKind::from_raw(libc::SIGTSTP)) else { return };
    loop {
        tokio::select! {
            _ = suspend.recv() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The address for this machine itself when the broker listens on all of them.
fn reachable(listening: &str) -> String {
    listening.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
}

/// WebSocket URL for other machines; `None` on loopback.
fn outside_url(address: SocketAddr) -> Option<String> {
    outside(address).map(|address| format!("ws://{address}/ws"))
}

/// How other machines reach a broker that listens for them. `None` on loopback and for a port that is not known yet: links
/// are made from the request then.
fn outside(listen: SocketAddr) -> Option<SocketAddr> {
    if listen.ip().is_loopback() || listen.port() == 0 {
        return None;
    }
    let address = if listen.ip().is_unspecified() { outside_address()? } else { listen.ip() };
    Some(SocketAddr::new(address, listen.port()))
}

/// The address that this machine would use towards others; in a network that leads nowhere else, the one it has there.
fn outside_address() -> Option<IpAddr> {
    routed_address().or_else(|| {
        let interfaces = if_addrs::get_if_addrs().inspect_err(|error| tracing::warn!(%error, "no list of interfaces"));
        first_outside(interfaces.ok()?.iter().map(if_addrs::Interface::ip))
    })
}

/// Towards an address that no one has (RFC 5737). Connecting a datagram socket sends nothing.
fn routed_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// One that others can use as it is: link-local ones mean nothing without an interface. IPv4 first, because it can be dictated.
fn first_outside(addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    addresses.filter(usable).min_by_key(IpAddr::is_ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_for_this_machine_only() {
        assert_eq!(outside_url("127.0.0.1:7900".parse().unwrap()), None);
        assert_eq!(outside_url("10.1.2.3:7900".parse().unwrap()).as_deref(), Some("ws://10.1.2.3:7900/ws"));
        assert_eq!(reachable("ws://0.0.0.0:7900/ws"), "ws://127.0.0.1:7900/ws");
        assert_eq!(reachable("ws://127.0.0.1:7900/ws"), "ws://127.0.0.1:7900/ws");
    }

    #[test]
    fn a_link_carries_an_address_that_works_from_elsewhere() {
        let first = |addresses: &[&str]| first_outside(addresses.iter().map(|text| text.parse().unwrap()));
        assert_eq!(first(&["127.0.0.1", "::1"]), None);
        assert_eq!(first(&["169.254.7.7", "fe80::1"]), None);
        assert_eq!(first(&["127.0.0.1", "fd00::5", "fe80::1", "10.77.0.1"]), "10.77.0.1".parse().ok());
        assert_eq!(first(&["::1", "fd00::5"]), "fd00::5".parse().ok());
    }

    #[test]
    fn a_database_of_another_program_is_left_alone() {
        use diesel::connection::SimpleConnection;
        use diesel::{Connection, SqliteConnection};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.db");
        assert!(refuse_foreign(&path).is_ok(), "none yet");
        std::fs::write(&path, "").unwrap();
        assert!(refuse_foreign(&path).is_ok(), "empty");
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        connection.batch_execute("CREATE TABLE messages (id INTEGER)").unwrap();
        assert!(refuse_foreign(&path).unwrap_err().to_string().contains("another program"));
        connection.batch_execute("CREATE TABLE __diesel_schema_migrations (version TEXT)").unwrap();
        assert!(refuse_foreign(&path).is_ok(), "ours");
    }

    #[test]
    fn a_successor_tries_the_last_address_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let mut plan =
            Plan { store: store.clone(), config: ConfigStore::at(dir.path()), kind: HolderKind::Session, listen: None };
        assert_eq!(addresses(&plan), [USUAL, ANY]);
        store.note_holder(HolderKind::Up, "ws://127.0.0.1:7901/ws", None).unwrap();
        assert_eq!(addresses(&plan), ["127.0.0.1:7901".parse().unwrap(), USUAL, ANY]);
        store.note_holder(HolderKind::Up, "ws://10.0.0.1:7901/ws", None).unwrap();
        assert_eq!(addresses(&plan), [USUAL, ANY], "only who was told to listens for other machines");
        plan.listen = Some(ANY);
        assert_eq!(addresses(&plan), [ANY]);
    }
}
