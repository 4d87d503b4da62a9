//! A broker in this process, on a free port, with a clock that moves only when told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use claudemesh_broker::clock::{Clock, ManualClock};
pub use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_broker::features::services::host::settings::HostKind;
use claudemesh_broker::{Broker, Deps};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use tokio::sync::oneshot;

use crate::clock::now_ms;
use crate::enrol::OwnedMesh;
use crate::identity::{Member, Session};
use crate::peer::TestPeer;

/// Where the broker under test stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// A fresh file.
    Sqlite,
    /// A fresh schema on the server of `CLAUDEMESH_TEST_POSTGRES`.
    Postgres,
}

/// How the broker under test is set up.
pub struct Builder {
    database: Database,
    url: Option<String>,
    config: Config,
}

impl Builder {
    /// Default configuration on that database, without rate limits.
    pub fn new(database: Database) -> Self {
        Self { database, url: None, config: Config { limits: LimitsMode::Off, workers: Some(1), ..Config::default() } }
    }

    /// The same on the database of this URL.
    pub fn at(url: String) -> Self {
        Self { url: Some(url), ..Self::new(Database::Postgres) }
    }

    /// Changes the configuration.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The database or the broker cannot be started.
    pub async fn start(self) -> Result<TestBroker> {
        let data = tempfile::tempdir()?;
        let schema = match self.database {
            Database::Sqlite => None,
            Database::Postgres if self.url.is_some() => None,
            Database::Postgres => Some(Schema::create().await?),
        };
        let mut config = self.config;
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.data_dir = data.path().to_owned();
        let runners = match config.services.host {
            HostKind::Process => Some(tempfile::tempdir()?),
            HostKind::Off | HostKind::Docker => None,
        };
        if let Some(runners) = &runners {
            // Under root, services run as users of their own, who have to get to their folders.
            #[cfg(unix)]
            std::fs::set_permissions(runners.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
            config.services.folder = Some(runners.path().join("all"));
        }
        config.database_url = self.url.or_else(|| schema.as_ref().map(|schema| schema.url.clone()));
        let clock = ManualClock::at(now_ms());
        let running = Running::start(config.clone(), clock.clone()).await?;
        Ok(TestBroker { running: Some(running), clock, config, _data: data, runners, schema })
    }
}

/// A running broker; stopped on drop.
pub struct TestBroker {
    running: Option<Running>,
    /// The broker's clock.
    pub clock: Arc<ManualClock>,
    config: Config,
    _data: tempfile::TempDir,
    runners: Option<tempfile::TempDir>,
    schema: Option<Schema>,
}

struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// actix wants its own system, so the broker gets a thread of its own and the test keeps its runtime.
    async fn start(config: Config, clock: Arc<ManualClock>) -> Result<Self> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                match Broker::start(config, Deps { clock, ..Deps::default() }).await {
                    Ok(broker) => {
                        ready.send(Ok(broker.addr)).ok();
                        // An error means that the test is over, too.
                        stopped.await.ok();
                        broker.shutdown().await;
                    }
                    Err(error) => drop(ready.send(Err(anyhow!("{error}")))),
                }
            });
        });
        let address = is_ready.await.context("the broker's thread ended")?.context("starting the broker")?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the broker's thread panicked");
        }
    }
}

impl TestBroker {
    /// Default configuration on that database, without rate limits.
    ///
    /// # Errors
    /// The database or the broker cannot be started.
    pub async fn start(database: Database) -> Result<Self> {
        Builder::new(database).start().await
    }

    /// `http://host:port`
    pub fn base(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `ws://host:port/ws`
    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().expect("only stop() and restart() take it, and put it back").address
    }

    /// The broker's wall time.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Moves the broker's time.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Makes a mesh. Blocks; the broker has its own threads.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn mesh(&self, slug: &str) -> Result<OwnedMesh> {
        OwnedMesh::create(&self.base(), slug)
    }

    /// Lets that much time pass while this peer shows that it is alive, as pings do.
    ///
    /// # Errors
    /// The peer's connection closed.
    pub async fn pass(&self, time: Duration, alive: &mut TestPeer) -> Result<()> {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(Duration::from_secs(30));
            self.advance(step);
            alive.settle().await?;
            left -= step;
        }
        Ok(())
    }

    /// Connects a session, signed with the broker's time.
    ///
    /// # Errors
    /// The broker refuses.
    pub async fn connect(&self, session: &Session) -> Result<TestPeer> {
        TestPeer::session_at(&self.url(), session, self.now_ms()).await
    }

    /// Connects a new session of that member.
    ///
    /// # Errors
    /// The broker refuses.
    pub async fn join(&self, member: &Arc<Member>) -> Result<TestPeer> {
        self.connect(&member.session(&format!("session-of-{}", member.name))).await
    }

    /// Where its files lie.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.config.data_dir
    }

    /// Where hosted services lie, when they are processes.
    pub fn runners_dir(&self) -> Option<std::path::PathBuf> {
        self.runners.as_ref().map(|folder| folder.path().join("all"))
    }

    /// Stops it as SIGTERM does.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.stop();
        }
    }

    /// Stops it and starts it again on the same data (at another port), with the same clock.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop();
        self.running = Some(Running::start(self.config.clone(), self.clock.clone()).await?);
        Ok(())
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.stop();
        drop(self.schema.take());
    }
}

/// A schema of its own, dropped at the end.
struct Schema {
    server: String,
    name: String,
    url: String,
}

impl Schema {
    async fn create() -> Result<Self> {
        let server = std::env::var("CLAUDEMESH_TEST_POSTGRES").context("CLAUDEMESH_TEST_POSTGRES names the server")?;
        let name = format!("it_{}", claudemesh_protocol::id::random_id(&mut rand::thread_rng()).to_lowercase());
        let mut admin = AsyncPgConnection::establish(&server).await?;
        admin.batch_execute(&format!("CREATE SCHEMA {name}")).await?;
        let separator = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{separator}options=-csearch_path%3D{name}");
        Ok(Self { server, name, url })
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // Drop may run inside the test's runtime, where nothing can be waited for; another thread can.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut admin = AsyncPgConnection::establish(&server).await?;
                anyhow::Ok(admin.batch_execute(&format!("DROP SCHEMA {name} CASCADE")).await?)
            })
        });
        if let Ok(Err(error)) = dropped.join() {
            eprintln!("the schema {} stays: {error:#}", self.name);
        }
    }
}

/// Whether PostgreSQL tests can run; says so when they cannot, and panics with `CI=true`.
pub fn postgres_available() -> bool {
    let there = std::env::var("CLAUDEMESH_TEST_POSTGRES").is_ok_and(|url| !url.is_empty());
    assert!(there || !crate::tools::strict(), "CLAUDEMESH_TEST_POSTGRES must name a PostgreSQL server in CI");
    if !there {
        eprintln!("PostgreSQL half not run: CLAUDEMESH_TEST_POSTGRES is not set");
    }
    there
}

/// Defines tests that run on both databases: `broker_suite! { async fn name(broker: TestBroker) -> Result<()> { … } }`.
#[macro_export]
macro_rules! broker_suite {
    ($($(#[$doc:meta])* async fn $name:ident($broker:ident: $database:ty) -> $result:ty $body:block)*) => {
        $($(#[$doc])* async fn $name($broker: $database) -> $result $body)*
        mod sqlite {
            $(#[tokio::test]
            async fn $name() -> ::anyhow::Result<()> {
                super::$name($crate::broker::Database::Sqlite).await
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() -> ::anyhow::Result<()> {
                if !$crate::broker::postgres_available() {
                    return Ok(());
                }
                super::$name($crate::broker::Database::Postgres).await
            })*
        }
    };
}
