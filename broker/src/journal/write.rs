//! The hot path: one transaction with the rows of many meshes and the shared things that go along.

use std::sync::{Arc, PoisonError};

use super::batch::Batch;
use super::tx::Job;
use crate::audit::Heads;
use crate::db::{Db, DbError};

/// `broker_meta` key of the last batch that may be written once only.
const LAST_BATCH: &str = "journal.last_batch";

/// What one transaction writes.
#[derive(Clone, Default)]
pub(super) struct Transaction {
    pub batch: Arc<Batch>,
    pub writes: Vec<Arc<dyn Job>>,
    /// Where the audit chains end after it: of the last run, which is the one that was committed.
    pub ends: super::Ends,
}

impl Transaction {
    fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.writes.is_empty()
    }

    fn end_at(&self, heads: Heads) {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = heads.into_ends();
    }

    /// Whether a run of it has to find out if an earlier one was committed.
    fn once(&self) -> bool {
        !self.batch.id.is_empty() && (self.batch.once() || !self.writes.is_empty())
    }
}

/// Writes a batch in one transaction and returns once it is on stable storage.
///
/// Repeating it after an error whose outcome is unknown is safe: rows that exist are left alone, and what counts only once is
/// written once per [`Batch::id`].
///
/// # Errors
/// Nothing was kept: [`DbError::Full`], [`DbError::Busy`]; [`DbError::InUse`] when another broker wrote at these places in the
/// order. Unknown: [`DbError::Unavailable`].
pub async fn write_batch(db: &Db, batch: Arc<Batch>) -> Result<(), DbError> {
    run(db, &Transaction { batch, ..Transaction::default() }).await
}

/// Runs a transaction. When an earlier run of the same one was committed after all, nothing is written and the outcomes of that
/// run, which the writes still hold, are what happened.
pub(super) async fn run(db: &Db, transaction: &Transaction) -> Result<(), DbError> {
    if transaction.is_empty() {
        return Ok(());
    }
    match db {
        #[cfg(feature = "sqlite")]
        Db::Sqlite(backend) => {
            let turn = backend.writer_turn().await?;
            let mut conn = backend.journal().await?;
            let transaction = transaction.clone();
            // One hop to a blocking thread for the whole transaction; a hop per row would cost more than the row.
            let done = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                sqlite::run(&mut conn, &transaction)
            });
            done.await.map_err(|error| DbError::Panicked(error.into()))?
        }
        #[cfg(feature = "postgres")]
        Db::Postgres(backend) => {
            let mut attempt = 0;
            loop {
                let mut guard = backend.journal().await?;
                backend.begin(&mut guard).await?;
                let result = postgres::write(&mut guard, transaction).await;
                match backend.finish(&mut guard, result).await {
                    Err(error) if error.is_transient() && attempt < 3 => attempt += 1,
                    done => return done,
                }
            }
        }
    }
}

/// Whether a write is kept, now that its entry was appended or not: without its entry it is undone alone.
///
/// # Errors
/// Storage failed as a whole.
fn appended_with(job: &dyn Job, appended: Result<(), DbError>) -> Result<bool, DbError> {
    match appended {
        Ok(()) => Ok(true),
        Err(error) if error.is_about_storage() => Err(error),
        Err(error) => {
            job.failed(error);
            Ok(false)
        }
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;

    use diesel::connection::{AnsiTransactionManager, TransactionManager};
    use diesel::prelude::*;
    use diesel::sqlite::SqliteConnection;
    use futures_util::FutureExt;

    use super::{LAST_BATCH, Transaction, appended_with};
    use crate::audit::Heads;
    use crate::db::schema::broker_meta;
    use crate::db::{DbError, JournalSqlite};

    /// By hand rather than `immediate_transaction`: a full disk makes SQLite roll back by itself, and that one would then
    /// report its own failed rollback instead of the full disk.
    pub(super) fn run(conn: &mut JournalSqlite, transaction: &Transaction) -> Result<(), DbError> {
        let (batch, once) = (Arc::clone(&transaction.batch), transaction.once());
        let begun = inline(conn, move |conn| {
            AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")?;
            if once && !first_time(conn, &batch.id)? {
                return Ok(false);
            }
            batch.write_sqlite(conn).map(|()| true)
        });
        let result = match begun {
            Ok(true) => writes(conn, transaction),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        inline(conn, move |conn| match result {
            Ok(()) => Ok(AnsiTransactionManager::commit_transaction(conn)?),
            Err(error) => {
                // When it fails, the pool finds the connection broken and makes another.
                let _ = AnsiTransactionManager::rollback_transaction(conn);
                Err(error)
            }
        })
    }

    /// Runs a step on this thread with the connection itself.
    fn inline<T: Send + 'static>(
        conn: &mut JournalSqlite,
        step: impl FnOnce(&mut SqliteConnection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let done = conn.spawn_blocking(|conn| Ok(step(conn))).now_or_never();
        done.unwrap_or_else(|| Err(diesel::result::Error::BrokenTransactionManager))?
    }

    fn writes(conn: &mut JournalSqlite, transaction: &Transaction) -> Result<(), DbError> {
        let mut heads = Heads::default();
        for job in &transaction.writes {
            inline(conn, |conn| Ok(AnsiTransactionManager::begin_transaction(conn)?))?;
            let ran = AssertUnwindSafe(job.sqlite(conn)).catch_unwind().now_or_never();
            let kept = match ran {
                Some(Ok(Ok(audit))) => {
                    let appended = heads.append_sqlite(conn, job.mesh(), &audit).now_or_never();
                    appended_with(&**job, appended.unwrap_or_else(|| Err(DbError::corrupt("audit_log"))))?
                }
                Some(Ok(Err(Some(fatal)))) => return Err(fatal),
                Some(Ok(Err(None))) => false,
                Some(Err(_)) | None => {
                    job.failed(DbError::Panicked("a write panicked, or waited for something else".into()));
                    false
                }
            };
            inline(conn, move |conn| {
                let ended = if kept {
                    AnsiTransactionManager::commit_transaction(conn)
                } else {
                    AnsiTransactionManager::rollback_transaction(conn)
                };
                Ok(ended?)
            })?;
        }
        transaction.end_at(heads);
        Ok(())
    }

    /// Notes the batch; `false` when it was noted before. The upsert changes nothing then.
    fn first_time(conn: &mut SqliteConnection, id: &str) -> QueryResult<bool> {
        use diesel::query_dsl::methods::FilterDsl;
        let noted = diesel::insert_into(broker_meta::table)
            .values((broker_meta::key.eq(LAST_BATCH), broker_meta::value.eq(id)))
            .on_conflict(broker_meta::key)
            .do_update()
            .set(broker_meta::value.eq(id))
            .filter(broker_meta::value.ne(id))
            .execute(conn)?;
        Ok(noted == 1)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::panic::AssertUnwindSafe;

    use diesel::prelude::*;
    use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, TransactionManager};
    use futures_util::FutureExt;

    use super::{LAST_BATCH, Transaction, appended_with};
    use crate::audit::Heads;
    use crate::db::DbError;
    use crate::db::schema::broker_meta;

    type Savepoints = <AsyncPgConnection as AsyncConnection>::TransactionManager;

    pub(super) async fn write(conn: &mut AsyncPgConnection, transaction: &Transaction) -> Result<(), DbError> {
        if transaction.once() && !first_time(conn, &transaction.batch.id).await? {
            return Ok(());
        }
        transaction.batch.write_postgres(conn).await?;
        let mut heads = Heads::default();
        for job in &transaction.writes {
            Savepoints::begin_transaction(conn).await?;
            let kept = match AssertUnwindSafe(job.postgres(conn)).catch_unwind().await {
                Ok(Ok(audit)) => appended_with(&**job, heads.append_postgres(conn, job.mesh(), &audit).await)?,
                Ok(Err(Some(fatal))) => return Err(fatal),
                Ok(Err(None)) => false,
                Err(_) => {
                    job.failed(DbError::Panicked("a write panicked".into()));
                    false
                }
            };
            if kept {
                Savepoints::commit_transaction(conn).await?;
            } else {
                Savepoints::rollback_transaction(conn).await?;
            }
        }
        transaction.end_at(heads);
        Ok(())
    }

    async fn first_time(conn: &mut AsyncPgConnection, id: &str) -> QueryResult<bool> {
        use diesel::query_dsl::methods::FilterDsl;
        let noted = diesel::insert_into(broker_meta::table)
            .values((broker_meta::key.eq(LAST_BATCH), broker_meta::value.eq(id)))
            .on_conflict(broker_meta::key)
            .do_update()
            .set(broker_meta::value.eq(id))
            .filter(broker_meta::value.ne(id))
            .execute(conn)
            .await?;
        Ok(noted == 1)
    }
}
