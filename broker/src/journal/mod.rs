//! The journal: one writer that commits what many meshes hand over in one transaction (group commit).
//!
//! A mesh collects for at most [`BATCH_WINDOW`] or [`BATCH_ROWS`] rows, then hands its batch over and is told when it is on
//! stable storage. While one transaction is written, further batches queue up and share the next one. The channel is
//! bounded: when storage cannot keep up, meshes refuse new messages with `busy`.

pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod types;

use std::sync::Arc;
use std::time::{Duration, Instant};

use claudemesh_protocol::error::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use crate::db::{Db, DbError};
use crate::metrics::METRICS;
pub use types::Batch;

/// Longest time a message waits for company before its batch is handed over.
pub const BATCH_WINDOW: Duration = Duration::from_millis(2);
/// Rows after which a batch is handed over at once.
pub const BATCH_ROWS: usize = 512;
/// Rows in one transaction; more would make the acknowledgements of the first ones late.
const MAX_TRANSACTION_ROWS: usize = 8_192;
/// Rows after which storage tidies up in the background, some 10 MB of them.
const TIDY_ROWS: usize = 16_384;
/// Batches that may wait for the writer.
const QUEUE: usize = 1_024;
/// Attempts of a transaction that failed for a passing reason.
const ATTEMPTS: u32 = 3;
/// How long a transaction is repeated when storage goes away under it: a database server that restarts is back by then, and
/// nobody has to be told. While storage stays away, later transactions are tried once.
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
}

impl Journal {
    /// Starts the writer on the current runtime.
    pub fn start(db: Db) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, entries) = mpsc::channel(QUEUE);
        (Self { queue }, tokio::spawn(write(db, entries)))
    }

    /// Hands a batch over. Resolves when it is on stable storage, or failed as a whole.
    ///
    /// # Errors
    /// The code for whoever waits for the batch. Nothing of a failed batch was kept, unless the connection broke during
    /// the commit and storage stayed away (`unavailable`): then a retry with the same idempotency key finds out.
    pub async fn commit(&self, batch: Batch) -> Result<(), ErrorCode> {
        let (done, written) = oneshot::channel();
        self.queue.send(Entry { batch, done }).await.map_err(|_| ErrorCode::ShuttingDown)?;
        written.await.unwrap_or(Err(ErrorCode::ShuttingDown))
    }
}

async fn write(db: Db, mut entries: mpsc::Receiver<Entry>) {
    let mut patience = PATIENCE;
    let mut tidying = Tidying::default();
    while let Some(first) = entries.recv().await {
        let mut rows = first.batch.rows();
        let mut turn = vec![first];
        while rows < MAX_TRANSACTION_ROWS
            && let Ok(next) = entries.try_recv()
        {
            rows += next.batch.rows();
            turn.push(next);
        }
        let together = commit(&db, merge(&turn), patience).await;
        patience = if matches!(together, Err(code) if is_about_storage(code)) { Duration::ZERO } else { PATIENCE };
        let apart = turn.len() > 1 && matches!(together, Err(code) if !is_about_storage(code));
        for entry in turn {
            // One mesh's rows that storage refuses must not fail the others that shared the transaction.
            let result = if apart { commit(&db, entry.batch, patience).await } else { together };
            // Whoever no longer waits does not need the answer.
            let _ = entry.done.send(result);
        }
        tidying.written(&db, rows);
    }
}

/// Tidies up beside the transactions, so that none of them has to and their senders do not wait for it.
#[derive(Default)]
struct Tidying {
    rows: usize,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Tidying {
    fn written(&mut self, db: &Db, rows: usize) {
        self.rows += rows;
        if self.rows < TIDY_ROWS || self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        self.rows = 0;
        let db = db.clone();
        self.running = Some(tokio::spawn(async move {
            if let Err(error) = db.tidy().await {
                tracing::debug!(error = %error, "tidying up is put off");
            }
        }));
    }
}

/// Whether a failure concerns storage as a whole rather than something in the batch.
fn is_about_storage(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unavailable | ErrorCode::StorageFull | ErrorCode::Busy | ErrorCode::ShuttingDown)
}

#[expect(clippy::disallowed_methods, reason = "measures how long a transaction takes; decides nothing")]
async fn commit(db: &Db, mut batch: Batch, patience: Duration) -> Result<(), ErrorCode> {
    let rows = batch.rows();
    batch.id = uuid::Uuid::new_v4().to_string();
    let started = Instant::now();
    let result = write_with_retries(db, Arc::new(batch), patience).await;
    METRICS.journal_commits.inc();
    METRICS.journal_rows.observe(rows as f64);
    METRICS.journal_seconds.observe(started.elapsed().as_secs_f64());
    METRICS.db_healthy.set(i64::from(!matches!(result, Err(code) if is_about_storage(code))));
    result
}

async fn write_with_retries(db: &Db, batch: Arc<Batch>, patience: Duration) -> Result<(), ErrorCode> {
    let (mut attempt, mut pause) = (1, PAUSE.0);
    let give_up = tokio::time::Instant::now() + patience;
    loop {
        match store::write_batch(db, Arc::clone(&batch)).await {
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
                tracing::error!(error = %error, source = ?std::error::Error::source(&error), rows = batch.rows(), "journal transaction failed");
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
        merged.messages.extend(batch.messages.iter().cloned());
        merged.deliveries.extend(batch.deliveries.iter().cloned());
        merged.stages.extend(batch.stages.iter().cloned());
        merged.sessions.extend(batch.sessions.iter().cloned());
        merged.stats.extend(batch.stats.iter().cloned());
        merged.last_seen.extend(batch.last_seen.iter().cloned());
    }
    merged
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::db::DbOptions;
    use crate::db::testing::{key, mesh};

    /// Long before a transaction would have to do it, the file has what was written.
    #[tokio::test]
    async fn the_log_is_copied_into_the_file_beside_the_transactions() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidy.db");
        let db = Db::open(&format!("sqlite:{}", file.display()), DbOptions::default()).await.unwrap();
        db.migrate().await.unwrap();
        let (mesh, _) = mesh(&db, "m", key()).await;
        db.tidy().await.unwrap();
        let before = file.metadata().unwrap().len();
        let (journal, _) = Journal::start(db);
        let mut seq = 0;
        for _ in 0..=TIDY_ROWS / 1_024 {
            let messages = (0..1_024).map(|_| {
                seq += 1;
                Arc::new(testing::message(&mesh.id, seq))
            });
            journal.commit(Batch { messages: messages.collect(), ..Batch::default() }).await.unwrap();
        }
        let copied = async {
            while file.metadata().unwrap().len() < before + 1_000_000 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), copied).await.expect("the file grows");
    }
}
