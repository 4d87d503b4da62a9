//! Storage behind one type: [`Db`] is SQLite or PostgreSQL, chosen by the scheme of a URL.
//!
//! Stores (`features/*/store`, `audit`, [`meta`]) are the only users; they write one diesel body and
//! [`with_conn!`](crate::with_conn) or [`with_tx!`](crate::with_tx) expands it for both backends. Users' own SQL never runs
//! on these connections.

pub mod columns;
pub mod convert;
pub(crate) mod distinct_names;
pub mod erase;
mod error;
mod exclusive;
pub mod former_names;
pub mod member_groups;
pub mod members;
pub mod membership;
pub mod meshes;
pub mod meta;
pub mod migrate;
#[cfg(feature = "sqlite")]
mod plans;
#[cfg(feature = "postgres")]
mod postgres;
pub mod rights;
pub mod schema;
mod scoped;
pub mod sessions;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

pub use error::DbError;
pub use exclusive::Exclusive;
#[cfg(feature = "postgres")]
pub(crate) use postgres::{Apart, As, BoundedError, Session};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresDb, TlsFault};
pub use scoped::MeshDb;
#[cfg(feature = "sqlite")]
pub use sqlite::{JournalSqlite, SqliteDb};

/// How storage is opened.
#[derive(Clone, Debug)]
pub struct DbOptions {
    /// Connections kept for everything but the journal, which has its own.
    pub connections: usize,
    /// Longest wait for a connection, then [`DbError::Busy`].
    pub wait: Duration,
    /// Requests that may wait for a connection at once, then [`DbError::Busy`].
    pub max_waiting: usize,
    /// SQLite only: the file may grow to this many bytes, then [`DbError::Full`]. `None`: as much as the disk holds.
    pub max_bytes: Option<u64>,
}

impl Default for DbOptions {
    fn default() -> Self {
        Self { connections: 4, wait: Duration::from_secs(5), max_waiting: 256, max_bytes: None }
    }
}

/// The broker's storage. Cheap to clone.
#[derive(Clone)]
pub enum Db {
    /// One file, in this process.
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteDb),
    /// A PostgreSQL server.
    #[cfg(feature = "postgres")]
    Postgres(PostgresDb),
}

/// What a database URL means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scheme {
    Sqlite(String),
    Postgres(String),
}

impl Scheme {
    /// `sqlite:PATH`, `sqlite://PATH` or a plain path; `postgres://` or `postgresql://`. Anything else is an error, never
    /// a file that happens to be called `mysql://…`.
    fn parse(url: &str) -> Result<Self, DbError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.to_owned()));
        }
        if let Some(rest) = url.strip_prefix("sqlite:") {
            return Ok(Self::Sqlite(rest.strip_prefix("//").unwrap_or(rest).to_owned()));
        }
        match url.split_once("://") {
            Some((scheme, _)) => Err(DbError::UnknownScheme(scheme.chars().take(32).collect())),
            None if url.is_empty() => Err(DbError::UnknownScheme(String::new())),
            None => Ok(Self::Sqlite(url.to_owned())),
        }
    }
}

impl Db {
    /// Opens storage and proves that it answers. Does not migrate, see [`Db::migrate`].
    ///
    /// # Errors
    /// [`DbError::UnknownScheme`], [`DbError::NotCompiled`], [`DbError::Unavailable`].
    pub async fn open(url: &str, options: DbOptions) -> Result<Self, DbError> {
        let db = match Scheme::parse(url)? {
            #[cfg(feature = "sqlite")]
            Scheme::Sqlite(path) => Self::Sqlite(SqliteDb::open(&path, options)?),
            #[cfg(feature = "postgres")]
            Scheme::Postgres(url) => Self::Postgres(PostgresDb::open(&url, options)?),
            #[cfg(not(feature = "sqlite"))]
            Scheme::Sqlite(_) => return Err(DbError::NotCompiled("SQLite")),
            #[cfg(not(feature = "postgres"))]
            Scheme::Postgres(_) => return Err(DbError::NotCompiled("PostgreSQL")),
        };
        db.ping().await?;
        Ok(db)
    }

    /// Brings the schema up to date, one process at a time. Returns the versions that were applied.
    ///
    /// # Errors
    /// [`DbError::TooNew`] when the database was written by a newer broker; [`DbError::Migration`].
    pub async fn migrate(&self) -> Result<Vec<String>, DbError> {
        migrate::up(self).await
    }

    /// Lets storage tidy up what transactions left, beside the one that writes: SQLite copies its log into the file.
    ///
    /// # Errors
    /// Storage fails; nothing is lost, it is done later.
    pub async fn checkpoint(&self) -> Result<(), DbError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) => backend.checkpoint().await,
            // The server does so by itself.
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Waits until storage has ended what it was asked, by futures that were dropped as well. A caller that gives up its lock calls
    /// it first.
    pub async fn quiet(&self) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) => backend.quiet().await,
            // What the server still does is its own; its lock ends with the connection.
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => {}
        }
    }

    /// Takes what was deleted out of what storage keeps beside its file: SQLite empties its log. `false` when someone reads just
    /// now; no one is made to wait for it.
    ///
    /// # Errors
    /// Storage fails; it can be tried again.
    pub async fn scrub(&self) -> Result<bool, DbError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(backend) => backend.empty_log().await,
            // The server keeps its log for its own recovery, and says how long.
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Ok(true),
        }
    }

    /// One round trip, for readiness; and whether messages can be written.
    ///
    /// # Errors
    /// [`DbError::Busy`], [`DbError::Unavailable`], or [`DbError::InUse`] when another broker took the database meanwhile.
    pub async fn ping(&self) -> Result<(), DbError> {
        use diesel_async::SimpleAsyncConnection;
        crate::with_conn!(self, |conn| conn.batch_execute("SELECT 1").await?);
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Self::Postgres(backend) => backend.check_fence().await,
        }
    }

    /// For logs: the kind of database, without its address.
    pub fn backend(&self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "sqlite",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "postgresql",
        }
    }
}

/// Runs one diesel body on a connection of either backend: `with_conn!(db, |conn| query.load(conn).await?)`.
///
/// The body is expanded once per backend inside the calling async function, which must return a `Result` whose error is
/// made from [`DbError`](crate::db::DbError). For reads; everything that writes goes through `with_tx!`.
#[macro_export]
macro_rules! with_conn {
    ($db:expr, |$conn:ident| $body:expr) => {
        match $db {
            #[cfg(feature = "sqlite")]
            $crate::db::Db::Sqlite(backend) => {
                let mut guard = backend.get().await?;
                let $conn = &mut *guard;
                $body
            }
            #[cfg(feature = "postgres")]
            $crate::db::Db::Postgres(backend) => {
                let mut guard = backend.get().await?;
                let $conn = &mut *guard;
                $body
            }
        }
    };
}

/// Runs one diesel body in a transaction of either backend and yields its value after the commit.
///
/// SQLite begins `IMMEDIATE` behind a queue of writers, so two writers neither deadlock nor spin; PostgreSQL repeats the
/// body up to three times after a serialization failure or deadlock, so it must not move what it captures. The body uses
/// `?` (which rolls back) but not `return`. Dropping the future rolls back.
#[macro_export]
macro_rules! with_tx {
    ($db:expr, |$conn:ident| $body:expr) => {
        match $db {
            #[cfg(feature = "sqlite")]
            $crate::db::Db::Sqlite(backend) => {
                let _turn = backend.writer_turn().await?;
                let mut guard = backend.get().await?;
                backend.begin(&mut guard).await?;
                let result: Result<_, $crate::db::DbError> = async {
                    let $conn = &mut *guard;
                    Ok($body)
                }
                .await;
                backend.finish(&mut guard, result).await?
            }
            #[cfg(feature = "postgres")]
            $crate::db::Db::Postgres(backend) => {
                let mut attempt = 0;
                loop {
                    let mut guard = backend.get().await?;
                    backend.begin(&mut guard).await?;
                    let result: Result<_, $crate::db::DbError> = async {
                        let $conn = &mut *guard;
                        Ok($body)
                    }
                    .await;
                    match backend.finish(&mut guard, result).await {
                        Err(error) if error.is_transient() && attempt < 3 => attempt += 1,
                        done => break done?,
                    }
                }
            }
        }
    };
}
