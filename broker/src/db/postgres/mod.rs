//! The server backend: PostgreSQL through pooled connections, in plain or over TLS.
//!
//! The journal has a connection of its own. Once [`PostgresDb::fence`] was called it also holds the lock of the schema: anyone who
//! loses the lock (the server restarted, the connection broke) cannot write messages before it has it again.

mod apart;
mod bounded;
mod server;
mod tls;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, Timeouts};
use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};

use super::{DbError, DbOptions, exclusive};
pub(crate) use apart::{Apart, As, Session};
pub(crate) use server::BoundedError;
pub(super) use server::Server;
pub use tls::TlsFault;

/// Longest wait for a new connection: a host that swallows packets must not hold everyone up.
const CONNECT: Duration = Duration::from_secs(5);

/// PostgreSQL, its pool and the journal's own connection.
#[derive(Clone)]
pub struct PostgresDb {
    server: Server,
    pool: Pool<Connections>,
    journal: Pool<Connections>,
    fence: Arc<RwLock<Fence>>,
    apart: Arc<Apart>,
    options: DbOptions,
}

type Transactions = <AsyncPgConnection as AsyncConnection>::TransactionManager;

/// What a connection of the journal needs before it may write.
#[derive(Clone, Default)]
enum Fence {
    /// Nothing: no broker serves from here.
    #[default]
    Open,
    /// The lock of the schema.
    Locked,
    /// The lock, and that no one signed since.
    Signed(Arc<str>),
}

/// Makes the connections of a pool and says which of them still work.
pub(crate) struct Connections {
    server: Server,
    fence: Option<Arc<RwLock<Fence>>>,
}

impl Manager for Connections {
    type Type = AsyncPgConnection;
    type Error = DbError;

    async fn create(&self) -> Result<AsyncPgConnection, DbError> {
        let connecting = tokio::time::timeout(CONNECT, self.server.connect());
        let mut conn = connecting.await.unwrap_or_else(|error| Err(DbError::Unavailable(error.into())))?;
        let fence = self.fence.as_ref().map(|fence| fence.read().unwrap_or_else(PoisonError::into_inner).clone());
        match fence.unwrap_or_default() {
            Fence::Open => {}
            Fence::Locked => exclusive::lock(&mut conn, None).await?,
            Fence::Signed(holder) => exclusive::lock(&mut conn, Some(&holder)).await?,
        }
        Ok(conn)
    }

    /// A round trip per checkout would double the latency of small queries; a dead connection shows when its socket closes,
    /// or on first use.
    async fn recycle(&self, conn: &mut AsyncPgConnection, _: &Metrics) -> RecycleResult<DbError> {
        if std::thread::panicking() || conn.is_broken() {
            return Err(RecycleError::message("the connection is broken"));
        }
        Ok(())
    }
}

impl PostgresDb {
    pub(super) fn open(url: &str, options: DbOptions) -> Result<Self, DbError> {
        let server = Server::parse(url)?;
        let fence = Arc::<RwLock<Fence>>::default();
        let pool = |size, fence| {
            Pool::builder(Connections { server: server.clone(), fence })
                .max_size(size)
                .build()
                .map_err(|error| DbError::Unavailable(error.into()))
        };
        let (work, journal) = (pool(options.connections.max(1), None)?, pool(1, Some(Arc::clone(&fence)))?);
        let apart = Arc::new(Apart::new(server.clone()));
        Ok(Self { server, pool: work, journal, fence, apart, options })
    }

    /// A connection; the wait is timed and limited.
    pub(crate) async fn get(&self) -> Result<Object<Connections>, DbError> {
        self.take(&self.pool).await
    }

    /// The journal's connection: never behind other work.
    pub(crate) async fn journal(&self) -> Result<Object<Connections>, DbError> {
        self.take(&self.journal).await
    }

    async fn take(&self, pool: &Pool<Connections>) -> Result<Object<Connections>, DbError> {
        if pool.status().waiting >= self.options.max_waiting {
            return Err(DbError::Busy);
        }
        match tokio::time::timeout(self.options.wait, pool.get()).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(error)) => Err(DbError::Unavailable(error.into())),
            Err(_) => Err(DbError::Busy),
        }
    }

    /// From now on the journal's connection holds the lock of the schema.
    ///
    /// # Errors
    /// [`DbError::InUse`] when another broker has it.
    pub(super) async fn fence(&self) -> Result<(), DbError> {
        self.set_fence(Fence::Locked);
        // A connection that was made before has no lock.
        self.journal.retain(|_, _| false);
        self.journal().await.map(drop)
    }

    /// A new connection of the journal also checks this signature.
    pub(super) fn signed(&self, holder: String) {
        self.set_fence(Fence::Signed(holder.into()));
    }

    /// Gives the lock up: the connection that holds it ends, at once or when it is not used any more.
    pub(super) fn unfence(&self) {
        self.set_fence(Fence::Open);
        self.journal.retain(|_, _| false);
    }

    fn set_fence(&self, fence: Fence) {
        *self.fence.write().unwrap_or_else(PoisonError::into_inner) = fence;
    }

    /// Whether the journal could write, unless it is just doing so.
    pub(super) async fn check_fence(&self) -> Result<(), DbError> {
        let now = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };
        match self.journal.timeout_get(&now).await {
            Ok(_) | Err(PoolError::Timeout(_)) => Ok(()),
            Err(PoolError::Backend(error)) => Err(error),
            Err(error) => Err(DbError::Unavailable(error.into())),
        }
    }

    pub(crate) async fn begin(&self, conn: &mut AsyncPgConnection) -> Result<(), DbError> {
        Ok(Transactions::begin_transaction(conn).await?)
    }

    /// Commits an `Ok`, rolls back an `Err`.
    pub(crate) async fn finish<T>(
        &self,
        conn: &mut AsyncPgConnection,
        result: Result<T, DbError>,
    ) -> Result<T, DbError> {
        match result {
            Ok(value) => {
                Transactions::commit_transaction(conn).await?;
                Ok(value)
            }
            Err(error) => {
                // A failed rollback marks the connection broken; the pool then throws it away.
                let _ = Transactions::rollback_transaction(conn).await;
                Err(error)
            }
        }
    }

    /// The same database under another user.
    #[cfg(test)]
    pub(crate) fn under(&self, user: &str, password: &str) -> Self {
        let server = self.server.under(user, password);
        Self { apart: Arc::new(Apart::new(server.clone())), server, ..self.clone() }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }
}
