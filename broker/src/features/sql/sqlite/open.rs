//! Opening the file of a mesh: bounded, durable, and with all doors shut.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claudemesh_protocol::features::sql::limits::{MAX_PARAMS, MAX_SQL_BYTES};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::guard::{Guard, Mode};
use crate::features::sql::limits::{BYTES_PER_MESH, BYTES_PER_VALUE, MEMORY_PER_REQUEST};
use crate::features::sql::stop::{Reason, Stop};
use crate::quota::Quotas;

/// Bytes of a page of the file: SQLite's own choice.
const PAGE_BYTES: u64 = 4_096;
/// Instructions between two looks whether a statement is to end: some ten microseconds.
const LOOK_EVERY: i32 = 1_000;
/// Bytes of a pattern of LIKE and GLOB: a longer one over a long text could not be interrupted for seconds.
const PATTERN_BYTES: i32 = 500;
/// Triggers that cause each other.
const TRIGGER_DEPTH: i32 = 50;
/// How long a connection waits for another one of the same mesh, of a mesh that was just stopped for example.
const BUSY: Duration = Duration::from_secs(2);

/// A connection to the database of one mesh, with its switches.
pub(super) struct Guarded {
    /// SQLite's.
    pub connection: Connection,
    /// Whose statements are compiled.
    pub guard: Guard,
    /// The request that runs; the progress handler looks at it.
    running: Arc<Mutex<Running>>,
}

#[derive(Default)]
struct Running {
    stop: Option<Stop>,
    memory_at_most: i64,
}

/// Where the files of a broker's meshes are: beside its own database.
pub(in crate::features::sql) fn folder(database: &str) -> PathBuf {
    let path = Path::new(database);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-sql"))
}

/// The file of one mesh and those that SQLite keeps beside it.
pub(in crate::features::sql) fn files(file: &Path) -> [PathBuf; 4] {
    ["", "-wal", "-shm", "-journal"].map(|end| {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    })
}

impl Guarded {
    /// Opens the file; it is made when `create` says so.
    ///
    /// # Errors
    /// Of SQLite; `CannotOpen` when there is no file and none is to be made.
    pub(super) fn open(file: &Path, create: bool, quotas: &Quotas) -> rusqlite::Result<Self> {
        // No URI: what a name means must not depend on what is in it.
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
        let connection = Connection::open_with_flags(file, flags)?;
        for (option, on) in [
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
            // A name in double quotes that is no column is a mistake, as on PostgreSQL.
            (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
            (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        ] {
            connection.set_db_config(option, on)?;
        }
        for (limit, value) in [
            (Limit::SQLITE_LIMIT_SQL_LENGTH, at_most(MAX_SQL_BYTES as u64)),
            (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, at_most(MAX_PARAMS as u64)),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES),
            (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, TRIGGER_DEPTH),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            connection.set_limit(limit, value)?;
        }
        connection.busy_timeout(BUSY)?;
        // What is sorted stays in memory, of which there is a bound; so no file is written but the mesh's own.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -2048;
             PRAGMA mmap_size = 0;
             PRAGMA cell_size_check = ON;
             PRAGMA journal_size_limit = 16777216;",
        )?;
        let running = Arc::<Mutex<Running>>::default();
        let looked_at = Arc::clone(&running);
        connection.progress_handler(LOOK_EVERY, Some(move || look(&looked_at)))?;
        let guard = Guard::watch(&connection)?;
        let guarded = Self { connection, guard, running };
        guarded.bound(quotas)?;
        Ok(guarded)
    }

    /// Sets what the operator bounds, which may change while the connection lives.
    fn bound(&self, quotas: &Quotas) -> rusqlite::Result<()> {
        self.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, at_most(quotas.value(&BYTES_PER_VALUE)))?;
        let pages = (quotas.value(&BYTES_PER_MESH) / PAGE_BYTES).clamp(1, u64::from(u32::MAX) - 1);
        // SQLite answers with what is in force: never less than the file has.
        self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    }

    /// Runs a request on it.
    ///
    /// # Errors
    /// Of SQLite, when the bounds cannot be set.
    pub(super) fn with<T>(
        &mut self,
        stop: &Stop,
        quotas: &Quotas,
        run: impl FnOnce(&Self) -> T,
    ) -> rusqlite::Result<T> {
        // The request before may have left its own.
        self.guard.set(Mode::Own);
        self.bound(quotas)?;
        let more = i64::try_from(quotas.value(&MEMORY_PER_REQUEST)).unwrap_or(i64::MAX);
        *self.now() = Running { stop: Some(stop.clone()), memory_at_most: memory_used().saturating_add(more) };
        let done = run(self);
        self.guard.set(Mode::Own);
        *self.now() = Running::default();
        Ok(done)
    }

    fn now(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the file, its log left out.
    ///
    /// # Errors
    /// Of SQLite.
    pub(super) fn size(&self) -> rusqlite::Result<u64> {
        let pages: i64 = self.connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        Ok(pages.unsigned_abs().saturating_mul(PAGE_BYTES))
    }
}

/// `true` ends the statement.
fn look(running: &Mutex<Running>) -> bool {
    let running = running.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(stop) = &running.stop else { return false };
    if memory_used() > running.memory_at_most {
        stop.end(Reason::Memory);
    }
    stop.reason().is_some()
}

/// Bytes of memory that this process holds. SQLite is built without counting its own, which would cost every message; what a sort
/// takes shows here. Other systems than Linux have no quick way to ask, and no such bound.
#[cfg(target_os = "linux")]
fn memory_used() -> i64 {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::LazyLock;

    /// Bytes of a page of memory, for all that matters here; where pages are larger the bound is as well.
    const MEMORY_PAGE: i64 = 4_096;
    static HELD: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/statm").ok());
    let mut text = [0; 128];
    let Some(read) = HELD.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()) else { return 0 };
    // All pages, then those in memory.
    let pages = std::str::from_utf8(&text[..read]).ok().and_then(|text| text.split(' ').nth(1)?.parse::<i64>().ok());
    pages.unwrap_or(0).saturating_mul(MEMORY_PAGE)
}

#[cfg(not(target_os = "linux"))]
fn memory_used() -> i64 {
    0
}

fn at_most(bytes: u64) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
