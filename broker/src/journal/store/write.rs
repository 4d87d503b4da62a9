//! The hot path: one batch, one transaction.

use std::sync::Arc;

use super::super::types::Batch;
use crate::db::{Db, DbError};

/// `broker_meta` key of the last batch whose counters were added.
const LAST_BATCH: &str = "journal.last_batch";

/// Writes a batch in one transaction and returns once it is on stable storage.
///
/// Repeating it after an error whose outcome is unknown is safe: messages and deliveries that exist are left alone, a
/// stage only climbs, counters are added once per [`Batch::id`].
///
/// # Errors
/// Nothing was kept: [`DbError::Full`], [`DbError::Busy`]. Unknown: [`DbError::Unavailable`].
pub async fn write_batch(db: &Db, batch: Arc<Batch>) -> Result<(), DbError> {
    if batch.is_empty() {
        return Ok(());
    }
    match db {
        #[cfg(feature = "sqlite")]
        Db::Sqlite(backend) => {
            let _turn = backend.writer_turn().await?;
            let mut conn = backend.journal().await?;
            // One hop to a blocking thread for the whole batch; a hop per row would cost more than the row.
            Ok(conn.spawn_blocking(move |conn| sqlite::write_all(conn, &batch)).await?)
        }
        #[cfg(feature = "postgres")]
        Db::Postgres(backend) => {
            let mut attempt = 0;
            loop {
                let mut guard = backend.journal().await?;
                backend.begin(&mut guard).await?;
                let result = postgres::write(&mut guard, &batch).await.map_err(DbError::from);
                match backend.finish(&mut guard, result).await {
                    Err(error) if error.is_transient() && attempt < 3 => attempt += 1,
                    done => return done,
                }
            }
        }
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use diesel::connection::{AnsiTransactionManager, TransactionManager};
    use diesel::prelude::*;
    use diesel::sqlite::SqliteConnection;

    use super::super::rows::{NewDeliveryRow, NewMessageRow};
    use super::LAST_BATCH;
    use crate::db::convert;
    use crate::db::schema::{broker_meta, deliveries, member_stats, members, messages, sessions};
    use crate::features::presence::store::{SessionRow, session_changes};
    use crate::journal::types::Batch;

    /// By hand rather than `immediate_transaction`: a full disk makes SQLite roll back by itself, and that one would then
    /// report its own failed rollback instead of the full disk.
    pub(super) fn write_all(conn: &mut SqliteConnection, batch: &Batch) -> QueryResult<()> {
        AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")?;
        match write(conn, batch) {
            Ok(()) => AnsiTransactionManager::commit_transaction(conn),
            Err(error) => {
                // When it fails, the pool finds the connection broken and makes another.
                let _ = AnsiTransactionManager::rollback_transaction(conn);
                Err(error)
            }
        }
    }

    /// Row by row: diesel keeps each statement prepared, and a step of a prepared statement is cheaper in SQLite than
    /// parsing one large statement.
    fn write(conn: &mut SqliteConnection, batch: &Batch) -> QueryResult<()> {
        for message in &batch.messages {
            diesel::insert_into(messages::table)
                .values(NewMessageRow::from(&**message))
                .on_conflict_do_nothing()
                .execute(conn)?;
        }
        for delivery in &batch.deliveries {
            diesel::insert_into(deliveries::table)
                .values(NewDeliveryRow::from(delivery))
                .on_conflict_do_nothing()
                .execute(conn)?;
        }
        for update in &batch.stages {
            let row = deliveries::table
                .filter(deliveries::mesh_id.eq(update.mesh_id.as_str()))
                .filter(deliveries::seq.eq(update.seq))
                .filter(deliveries::recipient_key.eq(update.recipient_key.to_hex()))
                .filter(deliveries::stage.lt(convert::stage_number(update.stage)));
            diesel::update(row)
                .set((
                    deliveries::stage.eq(convert::stage_number(update.stage)),
                    deliveries::stage_at_ms.eq(update.at_ms),
                    update.route.as_deref().map(|route| deliveries::route.eq(route)),
                ))
                .execute(conn)?;
        }
        for session in &batch.sessions {
            let row = SessionRow::from(session);
            diesel::insert_into(sessions::table)
                .values(&row)
                .on_conflict((sessions::mesh_id, sessions::session_key))
                .do_update()
                .set(session_changes!())
                .execute(conn)?;
        }
        for seen in &batch.last_seen {
            let older = members::last_seen_at_ms.is_null().or(members::last_seen_at_ms.lt(seen.at_ms));
            diesel::update(members::table.find(seen.member_id.as_str()).filter(older))
                .set(members::last_seen_at_ms.eq(seen.at_ms))
                .execute(conn)?;
        }
        if batch.stats.is_empty() || !first_time(conn, &batch.id)? {
            return Ok(());
        }
        for delta in &batch.stats {
            diesel::insert_into(member_stats::table)
                .values(crate::features::presence::store::StatsRow::from(delta))
                .on_conflict(member_stats::member_id)
                .do_update()
                .set((
                    member_stats::messages_in.eq(member_stats::messages_in + delta.messages_in),
                    member_stats::messages_out.eq(member_stats::messages_out + delta.messages_out),
                    member_stats::tool_calls.eq(member_stats::tool_calls + delta.tool_calls),
                    member_stats::errors.eq(member_stats::errors + delta.errors),
                ))
                .execute(conn)?;
        }
        Ok(())
    }

    fn first_time(conn: &mut SqliteConnection, id: &str) -> QueryResult<bool> {
        if id.is_empty() {
            return Ok(true);
        }
        let last = broker_meta::table.find(LAST_BATCH).select(broker_meta::value).first::<String>(conn).optional()?;
        if last.as_deref() == Some(id) {
            return Ok(false);
        }
        diesel::insert_into(broker_meta::table)
            .values((broker_meta::key.eq(LAST_BATCH), broker_meta::value.eq(id)))
            .on_conflict(broker_meta::key)
            .do_update()
            .set(broker_meta::value.eq(id))
            .execute(conn)?;
        Ok(true)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use diesel::prelude::*;
    use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text};
    use diesel_async::{AsyncPgConnection, RunQueryDsl};

    use super::super::rows::{NewDeliveryRow, NewMessageRow, highest_stages};
    use super::LAST_BATCH;
    use crate::db::convert;
    use crate::db::schema::{broker_meta, deliveries, member_stats, members, messages, sessions};
    use crate::features::presence::store::{SessionRow, StatsRow, session_changes};
    use crate::journal::types::Batch;

    /// Rows per statement: a statement may carry 65,535 values, messages have 22 and deliveries 8.
    const MESSAGES_PER_STATEMENT: usize = 500;
    const DELIVERIES_PER_STATEMENT: usize = 2_000;

    /// Many rows a statement: here a round trip costs more than anything else.
    pub(super) async fn write(conn: &mut AsyncPgConnection, batch: &Batch) -> QueryResult<()> {
        for chunk in batch.messages.chunks(MESSAGES_PER_STATEMENT) {
            let rows: Vec<_> = chunk.iter().map(|message| NewMessageRow::from(&**message)).collect();
            diesel::insert_into(messages::table).values(&rows).on_conflict_do_nothing().execute(conn).await?;
        }
        for chunk in batch.deliveries.chunks(DELIVERIES_PER_STATEMENT) {
            let rows: Vec<_> = chunk.iter().map(NewDeliveryRow::from).collect();
            diesel::insert_into(deliveries::table).values(&rows).on_conflict_do_nothing().execute(conn).await?;
        }
        if !batch.stages.is_empty() {
            stages(conn, batch).await?;
        }
        for session in &batch.sessions {
            let row = SessionRow::from(session);
            diesel::insert_into(sessions::table)
                .values(&row)
                .on_conflict((sessions::mesh_id, sessions::session_key))
                .do_update()
                .set(session_changes!())
                .execute(conn)
                .await?;
        }
        for seen in &batch.last_seen {
            let older = members::last_seen_at_ms.is_null().or(members::last_seen_at_ms.lt(seen.at_ms));
            diesel::update(members::table.find(seen.member_id.as_str()).filter(older))
                .set(members::last_seen_at_ms.eq(seen.at_ms))
                .execute(conn)
                .await?;
        }
        if batch.stats.is_empty() || !first_time(conn, &batch.id).await? {
            return Ok(());
        }
        for delta in &batch.stats {
            diesel::insert_into(member_stats::table)
                .values(StatsRow::from(delta))
                .on_conflict(member_stats::member_id)
                .do_update()
                .set((
                    member_stats::messages_in.eq(member_stats::messages_in + delta.messages_in),
                    member_stats::messages_out.eq(member_stats::messages_out + delta.messages_out),
                    member_stats::tool_calls.eq(member_stats::tool_calls + delta.tool_calls),
                    member_stats::errors.eq(member_stats::errors + delta.errors),
                ))
                .execute(conn)
                .await?;
        }
        Ok(())
    }

    /// All receipts in one statement. Raw SQL, because diesel's DSL has no `UPDATE … FROM UNNEST(…)`; a statement per
    /// receipt would be a round trip per receipt.
    async fn stages(conn: &mut AsyncPgConnection, batch: &Batch) -> QueryResult<()> {
        let updates = highest_stages(&batch.stages);
        diesel::sql_query(
            "UPDATE deliveries d SET stage = u.stage, stage_at_ms = u.at_ms, route = COALESCE(u.route, d.route) \
             FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::integer[], $5::bigint[], $6::text[]) \
             AS u (mesh_id, seq, recipient_key, stage, at_ms, route) \
             WHERE d.mesh_id = u.mesh_id AND d.seq = u.seq AND d.recipient_key = u.recipient_key AND d.stage < u.stage",
        )
        .bind::<Array<Text>, _>(updates.iter().map(|update| update.mesh_id.as_str()).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(updates.iter().map(|update| update.seq).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(updates.iter().map(|update| update.recipient_key.to_hex()).collect::<Vec<_>>())
        .bind::<Array<Integer>, _>(updates.iter().map(|update| convert::stage_number(update.stage)).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(updates.iter().map(|update| update.at_ms).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(updates.iter().map(|update| update.route.as_deref()).collect::<Vec<_>>())
        .execute(conn)
        .await?;
        Ok(())
    }

    async fn first_time(conn: &mut AsyncPgConnection, id: &str) -> QueryResult<bool> {
        if id.is_empty() {
            return Ok(true);
        }
        let last =
            broker_meta::table.find(LAST_BATCH).select(broker_meta::value).first::<String>(conn).await.optional()?;
        if last.as_deref() == Some(id) {
            return Ok(false);
        }
        diesel::insert_into(broker_meta::table)
            .values((broker_meta::key.eq(LAST_BATCH), broker_meta::value.eq(id)))
            .on_conflict(broker_meta::key)
            .do_update()
            .set(broker_meta::value.eq(id))
            .execute(conn)
            .await?;
        Ok(true)
    }
}
