//! The database of a mesh as a SQLite file of its own.

mod guard;
mod open;
mod run;
mod tables;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::sql::{Statement as Asked, Table};
use rusqlite::ErrorCode as Code;
use tokio::sync::Semaphore;

use self::open::Guarded;
pub(super) use self::open::{files, folder};
use super::database::query_failed;
use super::limits::{BYTES_PER_MESH, BYTES_PER_VALUE};
use super::page::Page;
use super::stop::Stop;
use super::threads::{self, READERS};
use super::{Done, Wanted};
use crate::quota::Quotas;
use crate::refusal::Refusal;

/// Why a statement fails: what SQLite says, or a refusal of ours.
#[derive(Debug)]
enum Trouble {
    Sqlite(rusqlite::Error),
    Refused(Refusal),
    /// With where in a list it stands.
    At(Box<Self>, usize),
}

impl Trouble {
    /// Says which statement of a list failed.
    fn at(self, index: usize, of: usize) -> Self {
        if of > 1 { Self::At(Box::new(self), index) } else { self }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The database of one mesh. Its connections are kept while the mesh is in memory.
pub(super) struct Engine {
    file: PathBuf,
    readers: Arc<Semaphore>,
    writer: Arc<Semaphore>,
    /// Connections that no one uses just now.
    free: Mutex<Vec<Guarded>>,
}

impl Engine {
    /// The database in this file, which is made with the first change.
    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            readers: Arc::new(Semaphore::new(READERS)),
            writer: Arc::new(Semaphore::new(1)),
            free: Mutex::default(),
        }
    }

    /// A page of a query.
    ///
    /// # Errors
    /// `query_error`, `timeout`, `cancelled`, `limit`, `busy`, `internal`.
    pub(super) async fn query(
        self: Arc<Self>,
        asked: Asked,
        wanted: Wanted,
        stop: Stop,
        quotas: Quotas,
    ) -> Result<Page, Refusal> {
        let reads = Arc::clone(&self.readers);
        threads::run(&reads, move || {
            self.on(&stop, &quotas, ErrorCode::QueryError, |on| run::query(on, &asked, wanted))
        })
        .await
    }

    /// Runs statements in one transaction; see [`run::execute`].
    ///
    /// # Errors
    /// As [`Engine::query`], with `execute_error`.
    pub(super) async fn execute(
        self: Arc<Self>,
        list: Vec<Asked>,
        wanted: Wanted,
        stop: Stop,
        quotas: Quotas,
        record: impl FnOnce(&Done) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<Done, Refusal> {
        let writes = Arc::clone(&self.writer);
        threads::run(&writes, move || {
            self.on(&stop, &quotas, ErrorCode::ExecuteError, |on| {
                run::execute(on, &list, wanted, &stop, &quotas, record)
            })
        })
        .await
    }

    /// Tables and views behind a name, by name, as many as an answer holds; and whether there are more.
    ///
    /// # Errors
    /// As [`Engine::query`].
    pub(super) async fn schema(
        self: Arc<Self>,
        after: String,
        stop: Stop,
        quotas: Quotas,
    ) -> Result<(Vec<Table>, bool), Refusal> {
        let reads = Arc::clone(&self.readers);
        threads::run(&reads, move || self.on(&stop, &quotas, ErrorCode::QueryError, |on| Ok(tables::read(on, &after)?)))
            .await
    }

    /// Names of tables and views, and the bytes of the file. Nothing is made when there is no file.
    ///
    /// # Errors
    /// As [`Engine::query`].
    pub(super) async fn overview(self: Arc<Self>, quotas: Quotas) -> Result<(Vec<String>, u64), Refusal> {
        if !self.file.exists() {
            return Ok((vec![], 0));
        }
        let (reads, stop) = (Arc::clone(&self.readers), Stop::default());
        threads::run(&reads, move || {
            self.on(&stop, &quotas, ErrorCode::QueryError, |on| Ok((tables::names(on)?, on.size()?)))
        })
        .await
    }

    fn on<T>(
        &self,
        stop: &Stop,
        quotas: &Quotas,
        failed: ErrorCode,
        run: impl FnOnce(&Guarded) -> Result<T, Trouble>,
    ) -> Result<T, Refusal> {
        if stop.reason().is_some() {
            return Err(stop.refusal(quotas));
        }
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let opened = match kept {
            Some(kept) => Ok(kept),
            None => self.open(quotas),
        };
        let mut on = opened.map_err(|error| self.refusal(Trouble::Sqlite(error), None, stop, quotas, failed))?;
        let done = on.with(stop, quotas, run).unwrap_or_else(|error| Err(error.into()));
        let done = done.map_err(|trouble| self.refusal(trouble, Some(&on), stop, quotas, failed));
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(on);
        done
    }

    fn open(&self, quotas: &Quotas) -> rusqlite::Result<Guarded> {
        if let Some(folder) = self.file.parent() {
            // An error shows when the file is opened.
            let _ = make_folder(folder);
        }
        Guarded::open(&self.file, true, quotas)
    }

    fn refusal(
        &self,
        trouble: Trouble,
        on: Option<&Guarded>,
        stop: &Stop,
        quotas: &Quotas,
        failed: ErrorCode,
    ) -> Refusal {
        let error = match trouble {
            Trouble::Refused(refusal) => return refusal,
            Trouble::At(trouble, index) => {
                let refusal = self.refusal(*trouble, on, stop, quotas, failed);
                // A fault of the broker has its incident as message.
                if refusal.fault.is_some() {
                    return refusal;
                }
                return Refusal { message: format!("statement {}: {}", index + 1, refusal.message), ..refusal };
            }
            Trouble::Sqlite(error) => error,
        };
        let refused = on.and_then(|on| on.guard.refused());
        match error.sqlite_error_code() {
            Some(Code::OperationInterrupted) => stop.refusal(quotas),
            Some(Code::AuthorizationForStatementDenied) => {
                let what = refused.unwrap_or_else(|| "this".into());
                Refusal::new(failed, format!("not allowed in a database of a mesh: {what}"))
            }
            Some(Code::DiskFull) if self.disk_is_full() => ErrorCode::StorageFull.into(),
            Some(Code::DiskFull) => {
                let used = on.and_then(|on| on.size().ok()).unwrap_or_default();
                let bound = quotas.bound(&BYTES_PER_MESH, used);
                let message = format!("`{}` is {}, and this needs more", bound.name, bound.limit);
                Refusal { message, ..bound.into() }
            }
            Some(Code::TooBig) => {
                let bound = quotas.bound(&BYTES_PER_VALUE, quotas.value(&BYTES_PER_VALUE));
                let message =
                    format!("a value or row is larger than {} bytes, or the statement is too long", bound.limit);
                Refusal { message, ..bound.into() }
            }
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => ErrorCode::Busy.into(),
            Some(
                Code::SystemIoFailure
                | Code::DatabaseCorrupt
                | Code::CannotOpen
                | Code::PermissionDenied
                | Code::ReadOnly
                | Code::FileLockingProtocolFailed
                | Code::NotADatabase
                | Code::InternalMalfunction
                | Code::OutOfMemory,
            ) => Refusal::fault(ErrorCode::Internal, error),
            _ => query_failed(failed, &error.to_string()),
        }
    }

    /// SQLite says the same when the file may not grow and when the disk is full.
    fn disk_is_full(&self) -> bool {
        let probe = self.file.with_extension("probe");
        let written = std::fs::write(&probe, vec![1; 65_536]);
        // Nothing is left of it.
        let _ = std::fs::remove_file(&probe);
        written.is_err()
    }
}

/// The mesh leaves memory. SQLite copies its log into the file when it closes it, for which the mesh's thread has no time.
impl Drop for Engine {
    fn drop(&mut self) {
        let free = std::mem::take(&mut *self.free.lock().unwrap_or_else(PoisonError::into_inner));
        if !free.is_empty() {
            // Without a thread they are closed here.
            let _ = std::thread::Builder::new().name("mesh sql".into()).spawn(move || drop(free));
        }
    }
}

/// For this user only, as the data folder.
fn make_folder(path: &Path) -> std::io::Result<()> {
    let mut folder = std::fs::DirBuilder::new();
    folder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
    folder.create(path)
}
