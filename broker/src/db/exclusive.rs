//! One broker per database: two would each believe to own every mesh and hand out the same places in its order.

#[cfg(feature = "postgres")]
use std::time::Duration;

use super::{Db, DbError};

/// A broker that was killed a moment ago may still hold its connection on the server's side.
#[cfg(feature = "postgres")]
const WAIT: Duration = Duration::from_secs(10);
#[cfg(feature = "postgres")]
const AGAIN: Duration = Duration::from_millis(250);
/// `broker_meta` key of the broker that had the lock last.
#[cfg(feature = "postgres")]
const HOLDER: &str = "exclusive.holder";

/// Held as long as the broker lives.
pub struct Exclusive {
    /// A lock file beside the SQLite file: two data directories may name the same database.
    #[cfg(feature = "sqlite")]
    _file: Option<std::fs::File>,
    /// The journal's connection holds the advisory lock: without the lock there is no connection to write with.
    #[cfg(feature = "postgres")]
    fenced: Option<super::PostgresDb>,
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
                fenced: None,
            }),
            #[cfg(feature = "postgres")]
            Self::Postgres(backend) => {
                let mut waited = Duration::ZERO;
                loop {
                    match backend.fence().await {
                        Ok(()) => break,
                        Err(DbError::InUse) if waited < WAIT => {
                            waited += AGAIN;
                            tokio::time::sleep(AGAIN).await;
                        }
                        Err(error) => {
                            backend.unfence();
                            return Err(error);
                        }
                    }
                }
                Ok(Exclusive {
                    #[cfg(feature = "sqlite")]
                    _file: None,
                    fenced: Some(backend.clone()),
                })
            }
        }
    }
}

impl Exclusive {
    /// Signs the database, once its schema is up to date: should the lock be lost for a while, the signature tells whether
    /// another broker has written since, whose messages this one does not know of.
    ///
    /// # Errors
    /// Storage.
    pub async fn sign(&self) -> Result<(), DbError> {
        #[cfg(feature = "postgres")]
        if let Some(backend) = &self.fenced {
            let holder = uuid::Uuid::new_v4().to_string();
            super::meta::set(&Db::Postgres(backend.clone()), HOLDER, &holder).await?;
            backend.signed(holder);
        }
        Ok(())
    }
}

#[cfg(feature = "postgres")]
impl Drop for Exclusive {
    fn drop(&mut self) {
        if let Some(backend) = &self.fenced {
            backend.unfence();
        }
    }
}

/// Locks `<database>.lock`. A database in memory has no one to share it with; a `file:` URI names no plain file.
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

/// Takes the lock for this connection and checks that no one else had it since we signed. The lock is per schema, so that
/// several brokers can share one server and database.
#[cfg(feature = "postgres")]
pub(super) async fn lock(
    connection: &mut diesel_async::AsyncPgConnection,
    holder: Option<&str>,
) -> Result<(), DbError> {
    use diesel::prelude::*;
    use diesel::sql_types::{Integer, Text};
    use diesel_async::RunQueryDsl;

    use super::schema::broker_meta;
    // Advisory locks have no diesel expression.
    diesel::define_sql_function!(fn hashtext(text: Text) -> Integer);
    diesel::define_sql_function!(fn pg_try_advisory_lock(class: Integer, key: Integer) -> diesel::sql_types::Bool);
    let schema = diesel::dsl::sql::<Text>("'claudemesh:' || current_schema()");
    let locked: bool =
        diesel::select(pg_try_advisory_lock(0x0c1a_0de0, hashtext(schema))).get_result(connection).await?;
    if !locked {
        return Err(DbError::InUse);
    }
    let Some(holder) = holder else { return Ok(()) };
    let signed = broker_meta::table.find(HOLDER).select(broker_meta::value).first::<String>(connection).await?;
    if signed == holder { Ok(()) } else { Err(DbError::InUse) }
}
