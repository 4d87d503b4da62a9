//! The embedded backend: one file in WAL mode.

use std::path::Path;
use std::sync::Arc;

use deadpool::managed::{self, Metrics, Object, Pool, RecycleError, RecycleResult};
use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::sqlite::SqliteConnection;
use diesel::{Connection, QueryResult, RunQueryDsl};
use diesel_async::AsyncConnection;
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{DbError, DbOptions};
use crate::open_connections::OpenConnections;

/// A SQLite connection whose calls run on tokio's blocking threads.
pub(crate) type SqliteConn = SyncConnectionWrapper<SqliteConnection, Counted>;

/// Runs calls on tokio's blocking threads and counts them. A call whose future is dropped runs to its end by itself: diesel-async's
/// own way blocks the thread until then, which tokio answers with a panic on the threads of a broker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    running: OpenConnections,
}

impl SpawnBlocking for Counted {
    fn spawn_blocking<'a, R>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'a, Result<R, Box<dyn std::error::Error + Send + Sync + 'static>>>
    where
        R: Send + 'static,
    {
        let under_way = self.running.enter();
        let done = tokio::task::spawn_blocking(move || {
            let done = task();
            drop(under_way);
            done
        });
        done.map_err(Box::from).boxed()
    }

    fn get_runtime() -> Self {
        Self::default()
    }
}

/// The journal's connection: its calls run on the thread that polls them, which is a blocking one. A whole transaction takes one
/// hop to that thread, and a body written for async connections runs there unchanged, ready at once.
pub type JournalSqlite = SyncConnectionWrapper<SqliteConnection, Inline>;

/// Runs calls where they are polled.
#[derive(Clone, Copy, Debug)]
pub struct Inline;

impl SpawnBlocking for Inline {
    fn spawn_blocking<'a, R>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'a, Result<R, Box<dyn std::error::Error + Send + Sync + 'static>>>
    where
        R: Send + 'static,
    {
        // At once rather than when polled, as a thread pool would start it: diesel-async relies on neither.
        let done = task();
        Box::pin(std::future::ready(Ok(done)))
    }

    fn get_runtime() -> Self {
        Self
    }
}

/// How long a connection waits for a lock.
const BUSY_TIMEOUT: &str = "PRAGMA busy_timeout = 5000";

/// What SQLite says of a copy of its log.
#[derive(diesel::QueryableByName)]
struct Checkpointed {
    /// 1 when something stood in the way.
    #[diesel(sql_type = diesel::sql_types::Integer)]
    busy: i32,
}

/// Bytes of one page; fixed, so that a byte quota can be told to SQLite in pages.
const PAGE_BYTES: u64 = 4_096;

/// The SQLite file, its pool and the journal's own connection.
#[derive(Clone)]
pub struct SqliteDb {
    path: Arc<str>,
    pool: Pool<Manager>,
    journal: Pool<JournalManager>,
    // SQLite admits one writer. Waiting here is fair and costs nothing; SQLite's own busy handler polls.
    writers: Arc<Mutex<()>>,
    running: Counted,
    options: DbOptions,
}

/// Makes connections; ours rather than diesel-async's, because a call whose future was dropped may still be running on
/// its blocking thread when the connection comes back, which that one answers with a panic.
pub(crate) struct Manager {
    path: Arc<str>,
    max_bytes: Option<u64>,
    running: Counted,
}

/// Makes the journal's connection.
pub(crate) struct JournalManager(Manager);

impl managed::Manager for JournalManager {
    type Type = JournalSqlite;
    type Error = DbError;

    async fn create(&self) -> Result<JournalSqlite, DbError> {
        let (path, max_bytes) = (self.0.path.clone(), self.0.max_bytes);
        tokio::task::spawn_blocking(move || connect(&path, max_bytes))
            .await
            .map_err(|error| DbError::Unavailable(error.into()))?
            .map(JournalSqlite::new)
    }

    async fn recycle(&self, conn: &mut JournalSqlite, _: &Metrics) -> RecycleResult<DbError> {
        type Transactions = <JournalSqlite as AsyncConnection>::TransactionManager;
        let state =
            <Transactions as diesel_async::TransactionManager<JournalSqlite>>::transaction_manager_status_mut(conn);
        match state.transaction_depth() {
            Ok(None) => Ok(()),
            _ => Err(RecycleError::message("a transaction was left open")),
        }
    }
}

impl managed::Manager for Manager {
    type Type = SqliteConn;
    type Error = DbError;

    async fn create(&self) -> Result<SqliteConn, DbError> {
        let (path, max_bytes) = (self.path.clone(), self.max_bytes);
        tokio::task::spawn_blocking(move || connect(&path, max_bytes))
            .await
            .map_err(|error| DbError::Unavailable(error.into()))?
            .map(|conn| SqliteConn::with_runtime(conn, self.running.clone()))
    }

    async fn recycle(&self, conn: &mut SqliteConn, _: &Metrics) -> RecycleResult<DbError> {
        // Waits for a call that outlived its future, then refuses the connection if a transaction was left open.
        let open = conn
            .spawn_blocking(|conn| {
                let state = AnsiTransactionManager::transaction_manager_status_mut(conn);
                QueryResult::Ok(!matches!(state.transaction_depth(), Ok(None)))
            })
            .await
            .map_err(|error| RecycleError::Backend(error.into()))?;
        if open { Err(RecycleError::message("a transaction was left open")) } else { Ok(()) }
    }
}

/// Opens one connection with our settings.
pub(super) fn connect(path: &str, max_bytes: Option<u64>) -> Result<SqliteConnection, DbError> {
    let unavailable = |error: diesel::ConnectionError| DbError::Unavailable(error.into());
    let mut conn = SqliteConnection::establish(path).map_err(unavailable)?;
    // `busy_timeout` first: switching to WAL takes a lock. FULL: an acknowledged message is on the disk, not in its cache.
    // The cache of a connection fills with whatever it writes, bodies that no one reads included: it is the largest part of
    // what a peer costs that is away or does not read. 8 MB hold the indexes of some ten thousand waiting messages.
    // The log is copied into the file in the background (`checkpoint`). Only when that falls behind by 64 MB a transaction
    // does the rest itself.
    conn.batch_execute(BUSY_TIMEOUT)?;
    conn.batch_execute(
        "PRAGMA page_size = 4096;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA wal_autocheckpoint = 16000;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA cache_size = -8000;
         PRAGMA temp_store = MEMORY;",
    )?;
    if let Some(bytes) = max_bytes {
        conn.batch_execute(&format!("PRAGMA max_page_count = {}", (bytes / PAGE_BYTES).max(1)))?;
    }
    Ok(conn)
}

impl SqliteDb {
    /// Prepares the pools; the parent folder of `path` is made when it is missing. No connection is opened yet.
    pub(super) fn open(path: &str, options: DbOptions) -> Result<Self, DbError> {
        if let Some(parent) = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|error| DbError::Unavailable(error.into()))?;
        }
        let path: Arc<str> = path.into();
        let running = Counted::default();
        let manager = || Manager { path: path.clone(), max_bytes: options.max_bytes, running: running.clone() };
        let fail = |error: managed::BuildError| DbError::Unavailable(error.into());
        Ok(Self {
            pool: Pool::builder(manager()).max_size(options.connections.max(1)).build().map_err(fail)?,
            journal: Pool::builder(JournalManager(manager())).max_size(1).build().map_err(fail)?,
            writers: Arc::new(Mutex::new(())),
            path: path.clone(),
            running,
            options,
        })
    }

    /// Waits until no call runs, those included that no one waits for any more.
    pub(super) async fn quiet(&self) {
        self.running.running.ended().await;
    }

    /// A connection; the wait is timed and limited.
    pub(crate) async fn get(&self) -> Result<Object<Manager>, DbError> {
        self.take(&self.pool).await
    }

    /// The journal's connection: never behind readers.
    pub(crate) async fn journal(&self) -> Result<Object<JournalManager>, DbError> {
        self.take(&self.journal).await
    }

    async fn take<M: managed::Manager<Error = DbError>>(&self, pool: &Pool<M>) -> Result<Object<M>, DbError> {
        if pool.status().waiting >= self.options.max_waiting {
            return Err(DbError::Busy);
        }
        match tokio::time::timeout(self.options.wait, pool.get()).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(managed::PoolError::Backend(error))) => Err(error),
            Ok(Err(error)) => Err(DbError::Unavailable(error.into())),
            Err(_) => Err(DbError::Busy),
        }
    }

    /// Copies what the log has so far into the file. Others read and write meanwhile.
    pub(crate) async fn checkpoint(&self) -> Result<(), DbError> {
        let mut conn = self.get().await?;
        Ok(conn.spawn_blocking(|conn| conn.batch_execute("PRAGMA wal_checkpoint(PASSIVE)")).await?)
    }

    /// Copies the log into the file and cuts it to nothing, unless a reader needs it.
    pub(crate) async fn empty_log(&self) -> Result<bool, DbError> {
        // Most of it beside the writers, so that they wait for the rest only.
        self.checkpoint().await?;
        let _turn = self.writer_turn().await?;
        let mut conn = self.get().await?;
        let emptied = conn.spawn_blocking(|conn| {
            conn.batch_execute("PRAGMA busy_timeout = 20")?;
            // By hand: the answer of a pragma is no table that diesel knows.
            let done = diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)").get_result::<Checkpointed>(conn);
            conn.batch_execute(BUSY_TIMEOUT)?;
            done
        });
        Ok(emptied.await?.busy == 0)
    }

    /// Waits until no other transaction of this process writes.
    pub(crate) async fn writer_turn(&self) -> Result<OwnedMutexGuard<()>, DbError> {
        let turn = tokio::time::timeout(self.options.wait, self.writers.clone().lock_owned()).await;
        turn.map_err(|_| DbError::Busy)
    }

    pub(crate) async fn begin(&self, conn: &mut SqliteConn) -> Result<(), DbError> {
        let begin =
            |conn: &mut SqliteConnection| AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE");
        Ok(conn.spawn_blocking(begin).await?)
    }

    /// Commits an `Ok`, rolls back an `Err`.
    pub(crate) async fn finish<T>(&self, conn: &mut SqliteConn, result: Result<T, DbError>) -> Result<T, DbError> {
        type Manager = <SqliteConn as AsyncConnection>::TransactionManager;
        match result {
            Ok(value) => {
                <Manager as diesel_async::TransactionManager<SqliteConn>>::commit_transaction(conn).await?;
                Ok(value)
            }
            Err(error) => {
                // A failed rollback leaves the transaction open; the pool then throws the connection away.
                let _ = <Manager as diesel_async::TransactionManager<SqliteConn>>::rollback_transaction(conn).await;
                Err(error)
            }
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    use crate::db::{Db, testing};

    /// The runtime of these tests has one thread, as each thread of a broker has.
    #[tokio::test]
    async fn a_call_that_is_given_up_ends_by_itself_and_can_be_waited_for() {
        testing::on_sqlite(async |db: Db| {
            let Db::Sqlite(backend) = &db else { unreachable!("a file") };
            let (begun_in, begun) = mpsc::channel();
            let (go_on, wait) = mpsc::channel::<()>();
            let mut conn = backend.get().await.unwrap();
            let mut call = conn.spawn_blocking(move |_| {
                begun_in.send(()).expect("the test waits");
                Ok(wait.recv().is_ok())
            });
            let mut looking = Context::from_waker(Waker::noop());
            assert!(call.as_mut().poll(&mut looking).is_pending());
            begun.recv().unwrap();
            drop(call);
            drop(conn);
            let mut quiet = Box::pin(db.quiet());
            assert!(quiet.as_mut().poll(&mut looking).is_pending(), "it still runs");
            go_on.send(()).unwrap();
            quiet.await;
            db.ping().await.expect("the connection is as good as before");
        })
        .await;
    }
}
