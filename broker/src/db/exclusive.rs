//! One broker per database: two would each believe to own every mesh and hand out the same places in its order.

#[cfg(feature = "postgres")]
use std::time::Duration;

use super::{Db, DbError};

/// A broker that was killed a moment ago may still hold its connection on the server's side.
#[cfg(feature = "postgres")]
const WAIT: Duration = Duration::from_secs(10);
#[cfg(feature = "postgres")]
const AGAIN: Duration = Duration::from_millis(250);

/// Held as long as the broker lives.
pub struct Exclusive {
    /// A lock file beside the SQLite file: two data directories may name the same database.
    #[cfg(feature = "sqlite")]
    _file: Option<std::fs::File>,
    /// The advisory lock belongs to this connection.
    #[cfg(feature = "postgres")]
    _connection: Option<diesel_async::AsyncPgConnection>,
}

impl Db {
    /// Claims the database (on PostgreSQL: its schema) for this process.
    ///
    /// # Errors
    /// [`DbError::InUse`] when another broker serves from it.
    pub async fn exclusive(&self) -> Result<Exclusive, DbError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) => Ok(Exclusive {
                _file: lock_beside(backend.path())?,
                #[cfg(feature = "postgres")]
                _connection: None,
            }),
            #[cfg(feature = "postgres")]
            Self::Postgres(backend) => {
                let fail = |error: diesel::ConnectionError| DbError::Unavailable(error.into());
                let mut connection = super::postgres::connect(backend.url()).await.map_err(fail)?;
                for _ in 0..WAIT.as_millis() / AGAIN.as_millis() {
                    if try_lock(&mut connection).await? {
                        return Ok(Exclusive {
                            #[cfg(feature = "sqlite")]
                            _file: None,
                            _connection: Some(connection),
                        });
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                Err(DbError::InUse)
            }
        }
    }
}

/// Locks `<database>.lock`. A database in memory has nobody to share it with; a `file:` URI names no plain file.
#[cfg(feature = "sqlite")]
fn lock_beside(path: &str) -> Result<Option<std::fs::File>, DbError> {
    if path.contains(":memory:") || path.starts_with("file:") {
        return Ok(None);
    }
    let fail = |error: std::io::Error| DbError::Unavailable(error.into());
    // Through links, so that every name of the file has the same lock. It exists: storage was opened.
    let real = std::fs::canonicalize(path).map_err(fail)?;
    let mut name = real.into_os_string();
    name.push(".lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(name).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(DbError::InUse),
        Err(std::fs::TryLockError::Error(error)) => Err(fail(error)),
    }
}

/// The lock is per schema, so that several brokers can share one server and database.
#[cfg(feature = "postgres")]
async fn try_lock(connection: &mut diesel_async::AsyncPgConnection) -> Result<bool, DbError> {
    use diesel::sql_types::Text;
    use diesel_async::RunQueryDsl;
    // Advisory locks have no diesel expression.
    diesel::define_sql_function!(fn hashtext(text: Text) -> diesel::sql_types::Integer);
    diesel::define_sql_function!(fn pg_try_advisory_lock(class: diesel::sql_types::Integer, key: diesel::sql_types::Integer) -> diesel::sql_types::Bool);
    let schema = diesel::dsl::sql::<Text>("'claudemesh:' || current_schema()");
    Ok(diesel::select(pg_try_advisory_lock(0x0c1a_0de0, hashtext(schema))).get_result(connection).await?)
}
