//! The database of a mesh as a schema and a role of its own on the broker's PostgreSQL server.
//!
//! Statements run on connections under that role, which has no rights but in its schema. There is no way from it to the broker's
//! user: nothing switches roles, the connection is the role's own from its first byte.

mod role;
mod run;
mod tables;
#[cfg(test)]
mod tests;
mod values;
mod words;

use std::sync::Arc;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::sql::{Statement as Asked, Table};
use tokio::sync::{OnceCell, Semaphore};
use tokio_postgres::error::SqlState;

pub(super) use self::role::remove;
use super::database::{Recorder, query_failed};
use super::page::Page;
use super::stop::Stop;
use super::{Done, Wanted};
use crate::db::{Apart, PostgresDb, Session};
use crate::quota::Quotas;
use crate::refusal::Refusal;

/// Statements of one mesh that read at once. Beside them one writes.
const READERS: usize = 2;

/// The database of one mesh.
pub(super) struct Engine {
    apart: Arc<Apart>,
    /// Of the role and the schema.
    name: String,
    /// Role and schema are there.
    prepared: OnceCell<()>,
    readers: Arc<Semaphore>,
    writer: Arc<Semaphore>,
}

/// Why a statement fails.
#[derive(Debug)]
enum Trouble {
    Driver(tokio_postgres::Error),
    Refused(Refusal),
    /// With where in a list it stands.
    At(Box<Self>, usize),
}

impl Trouble {
    fn at(self, index: usize, of: usize) -> Self {
        if of > 1 { Self::At(Box::new(self), index) } else { self }
    }

    /// Whether the connection is as good as before once its transaction was undone.
    fn leaves_connection(&self) -> bool {
        match self {
            // What the server said. Without it the protocol went another way than the driver thought.
            Self::Driver(error) => error.as_db_error().is_some(),
            Self::Refused(_) => true,
            Self::At(trouble, _) => trouble.leaves_connection(),
        }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Engine {
    /// The database of this name, which is made with the first request.
    pub(super) fn new(db: &PostgresDb, name: String) -> Self {
        Self {
            apart: Arc::clone(db.apart()),
            name,
            prepared: OnceCell::new(),
            readers: Arc::new(Semaphore::new(READERS)),
            writer: Arc::new(Semaphore::new(1)),
        }
    }

    /// A page of a query.
    ///
    /// # Errors
    /// `query_error`, `timeout`, `cancelled`, `limit`, `sql_unavailable`, `unavailable`.
    pub(super) async fn query(
        &self,
        asked: &Asked,
        wanted: Wanted,
        stop: &Stop,
        quotas: &Quotas,
    ) -> Result<Page, Refusal> {
        let _turn = self.readers.acquire().await;
        self.on(stop, quotas, ErrorCode::QueryError, async |session| run::query(session, asked, wanted).await).await
    }

    /// Runs statements in one transaction; see [`run::execute`].
    ///
    /// # Errors
    /// As [`Engine::query`], with `execute_error`.
    pub(super) async fn execute(
        &self,
        list: &[Asked],
        wanted: Wanted,
        stop: &Stop,
        quotas: &Quotas,
        recorder: &Recorder,
    ) -> Result<Done, Refusal> {
        let _turn = self.writer.acquire().await;
        let work = async |session: &mut Session| run::execute(session, list, wanted, stop, quotas, recorder).await;
        self.on(stop, quotas, ErrorCode::ExecuteError, work).await
    }

    /// Tables and views behind a name, by name, as many as an answer holds; and whether there are more.
    ///
    /// # Errors
    /// As [`Engine::query`].
    pub(super) async fn schema(
        &self,
        after: &str,
        stop: &Stop,
        quotas: &Quotas,
    ) -> Result<(Vec<Table>, bool), Refusal> {
        let _turn = self.readers.acquire().await;
        self.on(stop, quotas, ErrorCode::QueryError, async |session| tables::read(session, after).await).await
    }

    /// Names of tables and views, and the bytes that they take.
    ///
    /// # Errors
    /// `unavailable`.
    pub(super) async fn overview(&self) -> Result<(Vec<String>, u64), Refusal> {
        let own = self.apart.own().await?;
        tables::overview(&own, &self.name).await.map_err(role::failed)
    }

    async fn on<T>(
        &self,
        stop: &Stop,
        quotas: &Quotas,
        code: ErrorCode,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Trouble>,
    ) -> Result<T, Refusal> {
        let _place = self.apart.place().await?;
        self.prepared.get_or_try_init(|| role::prepare(&self.apart, &self.name)).await?;
        let mut session = match self.apart.kept(&self.name) {
            Some(kept) => kept,
            None => role::connect(&self.apart, &self.name, quotas).await?,
        };
        let mut watch = Watch { apart: &self.apart, pid: session.pid, runs: true };
        let done = tokio::select! {
            done = work(&mut session) => done,
            () = stop.ended() => {
                // The guard ends the connection on the server.
                return Err(stop.refusal(quotas));
            }
        };
        let fine = done.as_ref().err().is_none_or(Trouble::leaves_connection);
        // Whatever the statements left in the connection is gone: locks, settings, temporary tables.
        if fine && clean(&session).await.is_ok() {
            watch.runs = false;
            self.apart.keep(session);
            return done.map_err(|trouble| refusal(trouble, false, code));
        }
        let too_large = session.was_too_large();
        done.map_err(|trouble| refusal(trouble, too_large, code))
    }
}

/// Undoes the transaction, if it was not committed, and everything else that the connection remembers.
async fn clean(session: &Session) -> Result<(), tokio_postgres::Error> {
    // Two texts, sent together: the second must stand alone.
    let (undo, discard) = (session.client.batch_execute("ROLLBACK"), session.client.batch_execute("DISCARD ALL"));
    tokio::try_join!(undo, discard).map(drop)
}

/// Ends what runs on the server when no one waits for it.
struct Watch<'a> {
    apart: &'a Arc<Apart>,
    pid: i32,
    runs: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.runs {
            let (apart, pid) = (Arc::clone(self.apart), self.pid);
            tokio::spawn(async move { apart.end(pid).await });
        }
    }
}

fn refusal(trouble: Trouble, too_large: bool, code: ErrorCode) -> Refusal {
    let error = match trouble {
        Trouble::Refused(refusal) => return refusal,
        Trouble::At(trouble, index) => {
            let refusal = refusal(*trouble, too_large, code);
            if refusal.fault.is_some() {
                return refusal;
            }
            return Refusal { message: format!("statement {}: {}", index + 1, refusal.message), ..refusal };
        }
        Trouble::Driver(error) => error,
    };
    if too_large {
        let message = "a row is too large for an answer; select less of it, for example with substr()";
        return Refusal::new(ErrorCode::Limit, message);
    }
    let Some(said) = error.as_db_error() else {
        // The driver's own: a statement that speaks another protocol, or a connection that ended.
        return crate::db::DbError::Unavailable(error.into()).into();
    };
    match *said.code() {
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => {
            ErrorCode::Unavailable.into()
        }
        SqlState::DISK_FULL => ErrorCode::StorageFull.into(),
        SqlState::OUT_OF_MEMORY | SqlState::TOO_MANY_CONNECTIONS => ErrorCode::Busy.into(),
        SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => Refusal::new(ErrorCode::Timeout, said.message()),
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => {
            Refusal::new(ErrorCode::Busy, said.message())
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => {
            query_failed(code, "the statement changes something; it needs mesh_execute")
        }
        _ => {
            let hint = said.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            query_failed(code, &format!("{}{hint}", said.message()))
        }
    }
}
