//! Why storage failed, without SQL, paths or addresses in the text: those stay in `source()` for the log.

use claudemesh_protocol::error::ErrorCode;
use diesel::result::{DatabaseErrorKind, Error as Diesel};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failure of storage.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The URL names no backend of ours.
    #[error("expected a database URL `sqlite:FILE`, `postgres://…` or a file path, got scheme `{0}`")]
    UnknownScheme(String),
    /// The backend was left out of this build.
    #[error("this build has no support for {0}")]
    NotCompiled(&'static str),
    /// The URL names a backend, but cannot be used.
    #[error("the database URL's `{option}`: expected {expected}")]
    BadUrl {
        /// The part of it.
        option: &'static str,
        /// What belongs there.
        expected: &'static str,
        /// Why, when known.
        #[source]
        source: Option<Source>,
    },
    /// No connection that is as safe as the URL asks for.
    #[cfg(feature = "postgres")]
    #[error("there is no safe connection to storage: {0}")]
    Tls(super::postgres::TlsFault, #[source] Source),
    /// No connection, or it broke.
    #[error("storage cannot be reached")]
    Unavailable(#[source] Source),
    /// Too many wait for a connection or a lock.
    #[error("storage is busy")]
    Busy,
    /// Another broker serves from this database.
    #[error("another broker serves from this database")]
    InUse,
    /// Disk or quota full; nothing of the transaction was kept.
    #[error("storage is full")]
    Full(#[source] Diesel),
    /// A unique key is taken.
    #[error("it exists already")]
    Conflict(#[source] Diesel),
    /// Two transactions crossed; the same one may pass when repeated.
    #[error("storage was changed by someone else at the same time")]
    Crossed(#[source] Diesel),
    /// PostgreSQL stores no NUL in texts.
    #[error("expected text without NUL characters")]
    BadText(#[source] Diesel),
    /// The row is not there.
    #[error("no such row")]
    NotFound,
    /// The transaction that carried a write failed, with this code.
    #[error("it was not written: {}", .0.doc())]
    NotWritten(ErrorCode),
    /// A step of a transaction panicked; nothing of it was kept.
    #[error("storage failed")]
    Panicked(#[source] Source),
    /// A stored value cannot be read back.
    #[error("stored {what} cannot be read")]
    Corrupt {
        /// Table and column.
        what: &'static str,
        /// Why, when known.
        #[source]
        source: Option<Source>,
    },
    /// The schema was made by a newer broker.
    #[error("the database has the schema version {0}, which this broker does not know; use the newer broker")]
    TooNew(String),
    /// A migration failed and was rolled back.
    #[error("the database schema cannot be brought up to date")]
    Migration(#[source] Source),
    /// Anything else.
    #[error("storage failed")]
    Query(#[source] Diesel),
}

impl DbError {
    /// The stable code peers see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) | Self::Crossed(_) => ErrorCode::Unavailable,
            #[cfg(feature = "postgres")]
            Self::Tls(..) => ErrorCode::Unavailable,
            Self::Busy | Self::InUse => ErrorCode::Busy,
            Self::Full(_) => ErrorCode::StorageFull,
            Self::Conflict(_) => ErrorCode::AlreadyExists,
            Self::BadText(_) => ErrorCode::InvalidArgs,
            Self::NotFound => ErrorCode::NotFound,
            Self::NotWritten(code) => *code,
            Self::UnknownScheme(_)
            | Self::BadUrl { .. }
            | Self::NotCompiled(_)
            | Self::Corrupt { .. }
            | Self::Panicked(_)
            | Self::TooNew(_)
            | Self::Migration(_)
            | Self::Query(_) => ErrorCode::Internal,
        }
    }

    /// Whether repeating the same transaction at once may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Crossed(_))
    }

    /// Whether the failure concerns storage or the transaction as a whole rather than one write in it.
    pub fn is_about_storage(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Busy | Self::InUse | Self::Full(_) | Self::Crossed(_) => true,
            #[cfg(feature = "postgres")]
            Self::Tls(..) => true,
            Self::UnknownScheme(_)
            | Self::NotCompiled(_)
            | Self::BadUrl { .. }
            | Self::Conflict(_)
            | Self::BadText(_)
            | Self::NotFound
            | Self::NotWritten(_)
            | Self::Panicked(_)
            | Self::Corrupt { .. }
            | Self::TooNew(_)
            | Self::Migration(_)
            | Self::Query(_) => false,
        }
    }

    /// For a URL whose part has a value that is none.
    #[cfg(feature = "postgres")]
    pub(crate) fn bad_option(option: &'static str, expected: &'static str) -> Self {
        Self::BadUrl { option, expected, source: None }
    }

    /// For a URL with a part that someone else could not read.
    #[cfg(feature = "postgres")]
    pub(crate) fn bad_url(option: &'static str, expected: &'static str, source: impl Into<Source>) -> Self {
        Self::BadUrl { option, expected, source: Some(source.into()) }
    }

    /// For values that this broker cannot have written.
    pub(crate) fn corrupt(what: &'static str) -> Self {
        Self::Corrupt { what, source: None }
    }
}

impl From<Diesel> for DbError {
    fn from(error: Diesel) -> Self {
        let Diesel::DatabaseError(kind, info) = &error else {
            return match error {
                Diesel::NotFound => Self::NotFound,
                Diesel::DeserializationError(source) => Self::Corrupt { what: "a value", source: Some(source) },
                Diesel::RollbackErrorOnCommit { commit_error, .. } => Self::from(*commit_error),
                Diesel::BrokenTransactionManager => Self::Unavailable(error.into()),
                other => Self::Query(other),
            };
        };
        // Neither driver hands out its own code through diesel, so the fixed English texts of SQLite's `sqlite3_errstr`
        // and of the system's ENOSPC are compared. PostgreSQL translates its own texts but not the part looked at here
        // once `lc_messages` is C, which our connections set.
        let text = info.message();
        let has = |part: &str| text.contains(part);
        match kind {
            DatabaseErrorKind::UniqueViolation => Self::Conflict(error),
            DatabaseErrorKind::SerializationFailure => Self::Crossed(error),
            DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection => {
                Self::Unavailable(error.into())
            }
            DatabaseErrorKind::ReadOnlyTransaction => Self::Unavailable(error.into()),
            _ if has("database or disk is full") || has("No space left on device") || has("Disk quota exceeded") => {
                Self::Full(error)
            }
            _ if has("deadlock detected") => Self::Crossed(error),
            _ if has("database is locked") || has("lock timeout") || has("statement timeout") => Self::Busy,
            _ if has("invalid byte sequence") => Self::BadText(error),
            _ if has("disk I/O error") || has("unable to open database") || has("readonly database") => {
                Self::Unavailable(error.into())
            }
            _ if has("terminating connection") || has("shutting down") || has("starting up") => {
                Self::Unavailable(error.into())
            }
            _ => Self::Query(error),
        }
    }
}
