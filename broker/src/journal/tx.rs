//! Writes of features that join the group commit: [`tx_write!`](crate::tx_write), [`TxWrite`], [`MeshStore`].
//!
//! A write is one value: what it changes and what the audit log says of it. It runs in a savepoint of the transaction that
//! carries it, so one that is refused or collides undoes itself alone. The whole transaction may be run again (PostgreSQL's
//! serialization failures, storage that went away): a body therefore takes its data by reference and does nothing but SQL.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::MeshId;
#[cfg(feature = "postgres")]
use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::Journal;
use crate::audit::Audit;
#[cfg(feature = "sqlite")]
use crate::db::JournalSqlite;
use crate::db::{Db, DbError, MeshDb};

/// Why a write changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<R = Never> {
    /// The body refused, after a look at what is stored.
    #[error("refused")]
    Refused(R),
    /// Storage failed, or a constraint did not hold.
    #[error(transparent)]
    Db(DbError),
}

/// A refusal that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {}

impl<R> From<DbError> for WriteError<R> {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl<R> From<diesel::result::Error> for WriteError<R> {
    fn from(error: diesel::result::Error) -> Self {
        Self::Db(error.into())
    }
}

impl From<WriteError> for DbError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Db(error) => error,
            WriteError::Refused(never) => match never {},
        }
    }
}

impl WriteError<ErrorCode> {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(code) => *code,
            Self::Db(error) => error.code(),
        }
    }
}

/// What a body gives back: its value and the audit entry of its change.
pub type Written<T, R> = Result<(T, Audit), WriteError<R>>;

/// One change of shared things; see the module.
pub trait TxWrite: Send + Sync + 'static {
    /// What the caller gets after the commit.
    type Output: Send + 'static;
    /// Why the body may refuse.
    type Refusal: Send + 'static;

    /// Its share of the budget of a transaction: rows of some 4 KiB.
    fn rows(&self) -> usize {
        1
    }

    /// Runs it in an open transaction.
    #[cfg(feature = "sqlite")]
    fn sqlite<'a>(
        &'a self,
        conn: &'a mut JournalSqlite,
        mesh: &'a MeshId,
    ) -> BoxFuture<'a, Written<Self::Output, Self::Refusal>>;

    /// Runs it in an open transaction.
    #[cfg(feature = "postgres")]
    fn postgres<'a>(
        &'a self,
        conn: &'a mut AsyncPgConnection,
        mesh: &'a MeshId,
    ) -> BoxFuture<'a, Written<Self::Output, Self::Refusal>>;
}

#[cfg(feature = "sqlite")]
type SqliteBody<C, T, R> = for<'a> fn(&'a C, &'a mut JournalSqlite, &'a MeshId) -> BoxFuture<'a, Written<T, R>>;
#[cfg(feature = "postgres")]
type PostgresBody<C, T, R> = for<'a> fn(&'a C, &'a mut AsyncPgConnection, &'a MeshId) -> BoxFuture<'a, Written<T, R>>;

/// What [`tx_write!`](crate::tx_write) makes: the data and its body, expanded for both backends.
pub struct TxBody<C, T, R> {
    /// What the body uses.
    pub data: C,
    /// Share of the budget.
    pub rows: usize,
    /// On SQLite.
    #[cfg(feature = "sqlite")]
    pub sqlite: SqliteBody<C, T, R>,
    /// On PostgreSQL.
    #[cfg(feature = "postgres")]
    pub postgres: PostgresBody<C, T, R>,
}

impl<C, T, R> TxWrite for TxBody<C, T, R>
where
    C: Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
{
    type Output = T;
    type Refusal = R;

    fn rows(&self) -> usize {
        self.rows
    }

    #[cfg(feature = "sqlite")]
    fn sqlite<'a>(&'a self, conn: &'a mut JournalSqlite, mesh: &'a MeshId) -> BoxFuture<'a, Written<T, R>> {
        (self.sqlite)(&self.data, conn, mesh)
    }

    #[cfg(feature = "postgres")]
    fn postgres<'a>(&'a self, conn: &'a mut AsyncPgConnection, mesh: &'a MeshId) -> BoxFuture<'a, Written<T, R>> {
        (self.postgres)(&self.data, conn, mesh)
    }
}

/// Writes in the group commit: `tx_write!(store, (name, value), |conn, mesh| { …; Ok((output, audit)) })`.
///
/// `store` is a [`MeshStore`]; the tuple names owned variables, which the body sees as references; the body is one diesel body
/// for both backends and ends in `Ok((value, audit))` or `Err(WriteError::Refused(..))`. It may use `?` and `return`. It waits
/// for nothing but `conn`. `rows: n` before the tuple declares a write that costs more than one row of 4 KiB.
#[macro_export]
macro_rules! tx_write {
    ($store:expr, ($($data:ident),* $(,)?), |$conn:ident, $mesh:ident| $body:expr) => {
        $crate::tx_write!($store, rows: 1, ($($data),*), |$conn, $mesh| $body)
    };
    ($store:expr, rows: $rows:expr, ($($data:ident),* $(,)?), |$conn:ident, $mesh:ident| $body:expr) => {
        $store
            .write($crate::journal::TxBody {
                // First, so that the bodies are read with the types of the data known.
                data: ($($data,)*),
                rows: $rows,
                #[cfg(feature = "sqlite")]
                sqlite: |data, $conn, $mesh| {
                    let ($($data,)*) = data;
                    Box::pin(async move { $body })
                },
                #[cfg(feature = "postgres")]
                postgres: |data, $conn, $mesh| {
                    let ($($data,)*) = data;
                    Box::pin(async move { $body })
                },
            })
            .await
    };
}

/// One mesh's storage with the right to write: what store functions take that change something.
#[derive(Clone)]
pub struct MeshStore {
    db: MeshDb,
    journal: Journal,
}

impl MeshStore {
    /// The part of `db` that belongs to `mesh`.
    pub fn new(db: Db, mesh: MeshId, journal: Journal) -> Self {
        Self { db: MeshDb::new(db, mesh), journal }
    }

    /// Runs a write in the next transactions of the journal and returns once it is on stable storage.
    ///
    /// # Errors
    /// Nothing was changed; after [`DbError::Unavailable`] and while storage stays away, it may have been.
    pub async fn write<W: TxWrite>(&self, write: W) -> Result<W::Output, WriteError<W::Refusal>> {
        self.journal.write(self.db.mesh().clone(), write).await
    }
}

impl Deref for MeshStore {
    type Target = MeshDb;

    fn deref(&self) -> &MeshDb {
        &self.db
    }
}

/// A write under way, without its type.
pub(super) trait Job: Send + Sync {
    fn mesh(&self) -> &MeshId;
    fn rows(&self) -> usize;
    /// Runs the body and remembers its value; `Err(None)` when the body failed by itself and only its savepoint is undone.
    #[cfg(feature = "sqlite")]
    fn sqlite<'a>(&'a self, conn: &'a mut JournalSqlite) -> BoxFuture<'a, Result<Audit, Option<DbError>>>;
    #[cfg(feature = "postgres")]
    fn postgres<'a>(&'a self, conn: &'a mut AsyncPgConnection) -> BoxFuture<'a, Result<Audit, Option<DbError>>>;
    /// The body did not end, or its audit entry could not be written: only its savepoint is undone.
    fn failed(&self, error: DbError);
    /// The transaction is on disk, or none of it is.
    fn finish(&self, result: Result<(), ErrorCode>);
}

type Answer<W> = Result<<W as TxWrite>::Output, WriteError<<W as TxWrite>::Refusal>>;

pub(super) struct TypedJob<W: TxWrite> {
    mesh: MeshId,
    write: W,
    /// Of the last run: the one that was committed.
    outcome: Mutex<Option<Answer<W>>>,
    done: Mutex<Option<oneshot::Sender<Answer<W>>>>,
}

impl<W: TxWrite> TypedJob<W> {
    pub(super) fn new(mesh: MeshId, write: W) -> (Self, oneshot::Receiver<Answer<W>>) {
        let (done, answer) = oneshot::channel();
        (Self { mesh, write, outcome: Mutex::new(None), done: Mutex::new(Some(done)) }, answer)
    }

    fn ran(&self, result: Written<W::Output, W::Refusal>) -> Result<Audit, Option<DbError>> {
        let (outcome, verdict) = match result {
            Ok((value, audit)) => (Ok(value), Ok(audit)),
            Err(WriteError::Db(error)) if error.is_about_storage() => return Err(Some(error)),
            Err(error) => (Err(error), Err(None)),
        };
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        verdict
    }
}

impl<W: TxWrite> Job for TypedJob<W> {
    fn mesh(&self) -> &MeshId {
        &self.mesh
    }

    fn rows(&self) -> usize {
        self.write.rows()
    }

    #[cfg(feature = "sqlite")]
    fn sqlite<'a>(&'a self, conn: &'a mut JournalSqlite) -> BoxFuture<'a, Result<Audit, Option<DbError>>> {
        Box::pin(async move { self.ran(self.write.sqlite(conn, &self.mesh).await) })
    }

    #[cfg(feature = "postgres")]
    fn postgres<'a>(&'a self, conn: &'a mut AsyncPgConnection) -> BoxFuture<'a, Result<Audit, Option<DbError>>> {
        Box::pin(async move { self.ran(self.write.postgres(conn, &self.mesh).await) })
    }

    fn failed(&self, error: DbError) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(Err(error.into()));
    }

    fn finish(&self, result: Result<(), ErrorCode>) {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        let answer = match result {
            Ok(()) => outcome.unwrap_or_else(|| Err(DbError::NotWritten(ErrorCode::Internal).into())),
            Err(code) => Err(DbError::NotWritten(code).into()),
        };
        if let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A caller that no longer waits does not need the answer.
            let _ = done.send(answer);
        }
    }
}
