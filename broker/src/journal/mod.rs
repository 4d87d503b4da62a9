//! The journal: one writer that commits what many meshes hand over in one transaction (group commit).
//!
//! A mesh collects its messages for at most [`BATCH_WINDOW`] or [`BATCH_ROWS`] rows, then hands its batch over and is told when
//! it is on stable storage. While one transaction is written, further batches queue up and share the next one. The channel is
//! bounded: when storage cannot keep up, meshes refuse new messages with `busy`.
//!
//! Changes of shared things ([`MeshStore::write`], [`tx_write!`](crate::tx_write)) join the same transactions behind the
//! messages, within the budget of [`queue`]: they cost no sync of their own, and a flood of them does not slow messages.

mod batch;
pub mod queue;
#[cfg(test)]
mod shared_tests;
mod tx;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::MeshId;
use tokio::sync::{mpsc, oneshot};

use crate::audit::Head;
use crate::db::{Db, DbError};
use crate::metrics::METRICS;
pub use batch::{Batch, Part};
use queue::SharedQueue;
use tx::{Job, TypedJob};
pub use tx::{MeshStore, Never, TxBody, TxWrite, WriteError, Written};
use write::Transaction;
pub use write::write_batch;

/// Longest time a message waits for company before its batch is handed over.
pub const BATCH_WINDOW: Duration = Duration::from_millis(2);
/// Rows after which a batch is handed over at once.
pub const BATCH_ROWS: usize = 512;
/// Rows in one transaction; more would make the acknowledgements of the first ones late.
const MAX_TRANSACTION_ROWS: usize = 8_192;
/// Rows after which storage tidies up in the background, some 10 MB of them.
const TIDY_ROWS: usize = 16_384;
/// Batches, and writes of shared things, that may wait in the channels to the writer.
const QUEUE: usize = 1_024;
/// Attempts of a transaction that failed for a passing reason.
const ATTEMPTS: u32 = 3;
/// How long a transaction is repeated when storage goes away under it: a database server that restarts is back by then, and
/// no one has to be told. While storage stays away, later transactions are tried once.
const PATIENCE: Duration = Duration::from_secs(10);
/// First and longest pause between these attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

struct Entry {
    batch: Batch,
    done: oneshot::Sender<Result<(), ErrorCode>>,
}

/// Handle of the journal. Cheap to clone; the writer ends when the last handle is gone and everything is written.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<Entry>,
    shared: mpsc::Sender<Arc<dyn Job>>,
    heads: Ends,
}

/// The ends of the chains that this journal appended to.
type Ends = Arc<Mutex<HashMap<MeshId, Head>>>;

impl Journal {
    /// Starts the writer on the current runtime.
    pub fn start(db: Db) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, entries) = mpsc::channel(QUEUE);
        let (shared, jobs) = mpsc::channel(QUEUE);
        let heads = Ends::default();
        (Self { queue, shared, heads: heads.clone() }, tokio::spawn(write(db, entries, jobs, heads)))
    }

    /// The end of a mesh's audit chain, when something was appended to it since the start: what is on stable storage.
    pub fn audit_head(&self, mesh: &MeshId) -> Option<Head> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).get(mesh).cloned()
    }

    /// Hands a batch over. Resolves when it is on stable storage, or failed as a whole.
    ///
    /// # Errors
    /// The code for the senders that wait for the batch. Nothing of a failed batch was kept, unless the connection broke during
    /// the commit and storage stayed away (`unavailable`): then a retry with the same idempotency key finds out.
    pub async fn commit(&self, batch: Batch) -> Result<(), ErrorCode> {
        let (done, written) = oneshot::channel();
        self.queue.send(Entry { batch, done }).await.map_err(|_| ErrorCode::ShuttingDown)?;
        written.await.unwrap_or(Err(ErrorCode::ShuttingDown))
    }

    /// Writes a change of shared things with its audit entry. Resolves when both are on stable storage, or neither. It runs
    /// once: a run whose outcome is unknown is looked up by the id of its transaction before it is repeated.
    ///
    /// # Errors
    /// [`WriteError::Refused`] and constraints: this write alone was undone. [`DbError::NotWritten`]: the transaction failed;
    /// with `unavailable` storage went away during the commit and stayed away, so the change may be there. A request that is
    /// asked again must then find its own change (a version, an id of its own).
    pub async fn write<W: TxWrite>(&self, mesh: MeshId, write: W) -> Result<W::Output, WriteError<W::Refusal>> {
        let (job, answer) = TypedJob::new(mesh, write);
        let gone = || WriteError::from(DbError::NotWritten(ErrorCode::ShuttingDown));
        self.shared.send(Arc::new(job)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn write(db: Db, mut entries: mpsc::Receiver<Entry>, mut jobs: mpsc::Receiver<Arc<dyn Job>>, heads: Ends) {
    let mut patience = PATIENCE;
    let mut checkpointing = Checkpointing::default();
    let mut waiting = SharedQueue::default();
    loop {
        let mut turn = Vec::new();
        if waiting.is_empty() {
            tokio::select! {
                biased;
                Some(entry) = entries.recv() => turn.push(entry),
                Some(job) = jobs.recv() => wait(&mut waiting, job),
                else => break,
            }
        }
        let mut rows: usize = turn.iter().map(|entry: &Entry| entry.batch.rows()).sum();
        while rows < MAX_TRANSACTION_ROWS
            && let Ok(next) = entries.try_recv()
        {
            rows += next.batch.rows();
            turn.push(next);
        }
        while !waiting.is_full()
            && let Ok(job) = jobs.try_recv()
        {
            wait(&mut waiting, job);
        }
        let writes = waiting.take();
        rows += writes.iter().map(|job| job.rows()).sum::<usize>();
        let together = commit(&db, merge(&turn), &writes, patience, &heads).await;
        patience = if matches!(together, Err(code) if is_about_storage(code)) { Duration::ZERO } else { PATIENCE };
        let apart = turn.len() + writes.len() > 1 && matches!(together, Err(code) if !is_about_storage(code));
        for entry in turn {
            // One mesh's rows that storage refuses must not fail the others that shared the transaction.
            let result = if apart { commit(&db, entry.batch, &[], patience, &heads).await } else { together };
            // A mesh that no longer waits does not need the answer.
            let _ = entry.done.send(result);
        }
        for job in writes {
            let one = std::slice::from_ref(&job);
            job.finish(if apart { commit(&db, Batch::default(), one, patience, &heads).await } else { together });
        }
        checkpointing.written(&db, rows);
    }
}

fn wait(waiting: &mut SharedQueue, job: Arc<dyn Job>) {
    if let Err(job) = waiting.push(job) {
        job.finish(Err(ErrorCode::Busy));
    }
}

/// Tidies up beside the transactions, so that none of them has to and their senders do not wait for it.
#[derive(Default)]
struct Checkpointing {
    rows: usize,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Checkpointing {
    fn written(&mut self, db: &Db, rows: usize) {
        self.rows += rows;
        if self.rows < TIDY_ROWS || self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        self.rows = 0;
        let db = db.clone();
        self.running = Some(tokio::spawn(async move {
            if let Err(error) = db.checkpoint().await {
                tracing::debug!(error = %error, "the checkpoint is put off");
            }
        }));
    }
}

/// Whether a failure concerns storage as a whole rather than something in the batch.
fn is_about_storage(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unavailable | ErrorCode::StorageFull | ErrorCode::Busy | ErrorCode::ShuttingDown)
}

#[expect(clippy::disallowed_methods, reason = "measures how long a transaction takes; decides nothing")]
async fn commit(
    db: &Db,
    mut batch: Batch,
    writes: &[Arc<dyn Job>],
    patience: Duration,
    heads: &Ends,
) -> Result<(), ErrorCode> {
    batch.id = uuid::Uuid::new_v4().to_string();
    let rows = batch.rows() + writes.len();
    let transaction = Transaction { batch: Arc::new(batch), writes: writes.to_vec(), ends: Ends::default() };
    let started = Instant::now();
    let result = write_with_retries(db, &transaction, rows, patience).await;
    if result.is_ok() {
        let mut ends = transaction.ends.lock().unwrap_or_else(PoisonError::into_inner);
        heads.lock().unwrap_or_else(PoisonError::into_inner).extend(ends.drain());
    }
    METRICS.journal_commits.inc();
    METRICS.journal_rows.observe(rows as f64);
    METRICS.journal_seconds.observe(started.elapsed().as_secs_f64());
    METRICS.db_healthy.set(i64::from(!matches!(result, Err(code) if is_about_storage(code))));
    result
}

async fn write_with_retries(
    db: &Db,
    transaction: &Transaction,
    rows: usize,
    patience: Duration,
) -> Result<(), ErrorCode> {
    let (mut attempt, mut pause) = (1, PAUSE.0);
    let give_up = tokio::time::Instant::now() + patience;
    loop {
        match write::run(db, transaction).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt < ATTEMPTS && passing(&error) => {
                tracing::warn!(error = %error, attempt, "journal transaction failed, trying again");
                attempt += 1;
            }
            // The outcome may be unknown, but the batch is the same: repeating it finds out.
            Err(error) if gone(&error) && tokio::time::Instant::now() + pause < give_up => {
                tracing::warn!(error = %error, "storage went away under a journal transaction, trying again");
                METRICS.db_healthy.set(0);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(error) => {
                tracing::error!(error = %error, source = ?std::error::Error::source(&error), rows, "journal transaction failed");
                return Err(error.code());
            }
        }
    }
}

fn passing(error: &DbError) -> bool {
    error.is_transient() || matches!(error, DbError::Busy)
}

/// The connection broke, or there is none; on PostgreSQL the lock may still be with the one that broke.
fn gone(error: &DbError) -> bool {
    matches!(error, DbError::Unavailable(_) | DbError::InUse)
}

fn merge(entries: &[Entry]) -> Batch {
    let mut merged = Batch::default();
    for Entry { batch, .. } in entries {
        merged.merge(batch);
    }
    merged
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::db::DbOptions;
    use crate::db::testing::{key, mesh};
    use crate::features::messaging::store::testing::message;
    use crate::features::messaging::store::types::MessagingPart;

    /// Long before a transaction would have to do it, the file has what was written.
    #[tokio::test]
    async fn the_log_is_copied_into_the_file_beside_the_transactions() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("checkpoint.db");
        let db = Db::open(&format!("sqlite:{}", file.display()), DbOptions::default()).await.unwrap();
        db.migrate().await.unwrap();
        let (mesh, _) = mesh(&db, "m", key()).await;
        db.checkpoint().await.unwrap();
        let before = file.metadata().unwrap().len();
        let (journal, _) = Journal::start(db);
        let mut seq = 0;
        for _ in 0..=TIDY_ROWS / 1_024 {
            let messages = (0..1_024).map(|_| {
                seq += 1;
                Arc::new(message(&mesh.id, seq))
            });
            let part = MessagingPart { messages: messages.collect(), ..MessagingPart::default() };
            journal.commit(Batch::of(part)).await.unwrap();
        }
        let copied = async {
            while file.metadata().unwrap().len() < before + 1_000_000 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), copied).await.expect("the file grows");
    }
}
