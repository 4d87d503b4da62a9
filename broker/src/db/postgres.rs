//! The server backend: PostgreSQL through pooled connections.

use std::sync::Arc;

use diesel_async::pooled_connection::deadpool::{Object, Pool, PoolError};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection, TransactionManager};

use super::{DbError, DbOptions};

/// PostgreSQL, its pool and the journal's own connection.
#[derive(Clone)]
pub struct PostgresDb {
    url: Arc<str>,
    pool: Pool<AsyncPgConnection>,
    journal: Pool<AsyncPgConnection>,
    options: DbOptions,
}

type Manager = <AsyncPgConnection as AsyncConnection>::TransactionManager;

/// Opens one connection with our settings.
pub(super) async fn connect(url: &str) -> diesel::ConnectionResult<AsyncPgConnection> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    // A statement that hangs must not hold a connection for ever. Errors are recognised by their English text; only a
    // superuser may ask for it, so a refusal is no reason to fail.
    conn.batch_execute("SET statement_timeout = '30s'; SET lock_timeout = '10s'; SET TIME ZONE 'UTC'")
        .await
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    let _ = conn.batch_execute("SET lc_messages = 'C'").await;
    Ok(conn)
}

impl PostgresDb {
    pub(super) fn open(url: &str, options: DbOptions) -> Result<Self, DbError> {
        let pool = |size| {
            let mut config = ManagerConfig::default();
            config.custom_setup = Box::new(|url| {
                let url = url.to_owned();
                Box::pin(async move { connect(&url).await })
            });
            // A round trip per checkout would double the latency of small queries; a dead connection shows on first use.
            config.recycling_method = RecyclingMethod::Fast;
            Pool::builder(AsyncDieselConnectionManager::<AsyncPgConnection>::new_with_config(url, config))
                .max_size(size)
                .build()
                .map_err(|error| DbError::Unavailable(error.into()))
        };
        Ok(Self { url: url.into(), pool: pool(options.connections.max(1))?, journal: pool(1)?, options })
    }

    /// A connection; the wait is timed and limited.
    pub(crate) async fn get(&self) -> Result<Object<AsyncPgConnection>, DbError> {
        self.take(&self.pool).await
    }

    /// The journal's connection: never behind other work.
    pub(crate) async fn journal(&self) -> Result<Object<AsyncPgConnection>, DbError> {
        self.take(&self.journal).await
    }

    async fn take(&self, pool: &Pool<AsyncPgConnection>) -> Result<Object<AsyncPgConnection>, DbError> {
        if pool.status().waiting >= self.options.max_waiting {
            return Err(DbError::Busy);
        }
        match tokio::time::timeout(self.options.wait, pool.get()).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(PoolError::Backend(error))) => Err(DbError::Unavailable(error.into())),
            Ok(Err(error)) => Err(DbError::Unavailable(error.into())),
            Err(_) => Err(DbError::Busy),
        }
    }

    pub(crate) async fn begin(&self, conn: &mut AsyncPgConnection) -> Result<(), DbError> {
        Ok(Manager::begin_transaction(conn).await?)
    }

    /// Commits an `Ok`, rolls back an `Err`.
    pub(crate) async fn finish<T>(
        &self,
        conn: &mut AsyncPgConnection,
        result: Result<T, DbError>,
    ) -> Result<T, DbError> {
        match result {
            Ok(value) => {
                Manager::commit_transaction(conn).await?;
                Ok(value)
            }
            Err(error) => {
                // A failed rollback marks the connection broken; the pool then throws it away.
                let _ = Manager::rollback_transaction(conn).await;
                Err(error)
            }
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}
