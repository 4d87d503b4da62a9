//! The hot path: one batch, one transaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::types::{Batch, NewDelivery, NewMessage};
use crate::db::{Db, DbError};

/// `broker_meta` key of the last batch whose counters were added.
const LAST_BATCH: &str = "journal.last_batch";

/// Writes a batch in one transaction and returns once it is on stable storage.
///
/// Repeating it after an error whose outcome is unknown is safe: messages and deliveries that exist are left alone, a
/// stage only climbs, counters are added once per [`Batch::id`]. A message whose id exists under another place in the order is
/// one that its sender repeats: the first one stays, with its own deliveries.
///
/// # Errors
/// Nothing was kept: [`DbError::Full`], [`DbError::Busy`]; [`DbError::InUse`] when somebody else wrote at these places in the
/// order. Unknown: [`DbError::Unavailable`].
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
            conn.spawn_blocking(move |conn| Ok(sqlite::write_all(conn, &batch))).await?
        }
        #[cfg(feature = "postgres")]
        Db::Postgres(backend) => {
            let mut attempt = 0;
            loop {
                let mut guard = backend.journal().await?;
                backend.begin(&mut guard).await?;
                let result = postgres::write(&mut guard, &batch).await;
                match backend.finish(&mut guard, result).await {
                    Err(error) if error.is_transient() && attempt < 3 => attempt += 1,
                    done => return done,
                }
            }
        }
    }
}

/// Messages of a batch that exist already, elsewhere in the order: their deliveries are there, too.
#[derive(Default)]
struct Known<'a> {
    places: HashSet<(&'a str, i64)>,
}

impl<'a> Known<'a> {
    /// `found` has mesh, place and id of the rows at the places of these messages.
    ///
    /// # Errors
    /// Another message is at one of them.
    fn among(messages: &'a [Arc<NewMessage>], found: &[(String, i64, String)]) -> Result<Self, DbError> {
        let found: HashMap<(&str, i64), &str> =
            found.iter().map(|(mesh, seq, id)| ((mesh.as_str(), *seq), id.as_str())).collect();
        let mut places = HashSet::new();
        for message in messages {
            let place = (message.mesh_id.as_str(), message.seq);
            match found.get(&place) {
                Some(id) if *id == message.id.as_str() => {}
                // Dropping ours without a word would lose what is about to be promised.
                Some(_) => return Err(DbError::InUse),
                None => drop(places.insert(place)),
            }
        }
        Ok(Self { places })
    }

    fn has(&self, delivery: &NewDelivery) -> bool {
        !self.places.is_empty() && self.places.contains(&(delivery.mesh_id.as_str(), delivery.seq))
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use diesel::connection::{AnsiTransactionManager, TransactionManager};
    use diesel::prelude::*;
    use diesel::sqlite::SqliteConnection;

    use super::super::rows::{NewDeliveryRow, NewMessageRow};
    use super::{Arc, Known, LAST_BATCH};
    use crate::db::DbError;
    use crate::db::convert;
    use crate::db::schema::{broker_meta, deliveries, member_stats, members, messages, sessions};
    use crate::db::sessions::{SessionRow, session_changes};
    use crate::journal::types::Batch;

    /// By hand rather than `immediate_transaction`: a full disk makes SQLite roll back by itself, and that one would then
    /// report its own failed rollback instead of the full disk.
    pub(super) fn write_all(conn: &mut SqliteConnection, batch: &Batch) -> Result<(), DbError> {
        AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")?;
        match write(conn, batch) {
            Ok(()) => Ok(AnsiTransactionManager::commit_transaction(conn)?),
            Err(error) => {
                // When it fails, the pool finds the connection broken and makes another.
                let _ = AnsiTransactionManager::rollback_transaction(conn);
                Err(error)
            }
        }
    }

    /// Row by row: diesel keeps each statement prepared, and a step of a prepared statement is cheaper in SQLite than
    /// parsing one large statement. `OR IGNORE` rather than `ON CONFLICT DO NOTHING`, because diesel finds the prepared
    /// statement of the former by its type and would write the text of the latter anew for each row; of what it ignores
    /// beyond that, rows of ours have nothing.
    fn write(conn: &mut SqliteConnection, batch: &Batch) -> Result<(), DbError> {
        let mut refused = Vec::new();
        for message in &batch.messages {
            let row = NewMessageRow::from(&**message);
            let inserted = diesel::insert_or_ignore_into(messages::table).values(row).execute(conn)?;
            if inserted == 0 {
                refused.push(Arc::clone(message));
            }
        }
        let mut found = Vec::new();
        for message in &refused {
            let place = messages::table.find((message.mesh_id.as_str(), message.seq));
            found.extend(place.select((messages::mesh_id, messages::seq, messages::id)).first(conn).optional()?);
        }
        let known = Known::among(&refused, &found)?;
        for delivery in batch.deliveries.iter().filter(|delivery| !known.has(delivery)) {
            diesel::insert_or_ignore_into(deliveries::table).values(NewDeliveryRow::from(delivery)).execute(conn)?;
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
                .values(crate::db::sessions::StatsRow::from(delta))
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
    use super::{Known, LAST_BATCH};
    use crate::db::DbError;
    use crate::db::convert;
    use crate::db::schema::{broker_meta, deliveries, member_stats, members, messages, sessions};
    use crate::db::sessions::{SessionRow, StatsRow, session_changes};
    use crate::journal::types::Batch;

    /// Rows per statement: a statement may carry 65,535 values, messages have 22 and deliveries 8.
    const MESSAGES_PER_STATEMENT: usize = 500;
    const DELIVERIES_PER_STATEMENT: usize = 2_000;

    /// Many rows a statement: here a round trip costs more than anything else.
    pub(super) async fn write(conn: &mut AsyncPgConnection, batch: &Batch) -> Result<(), DbError> {
        let mut inserted = 0;
        for chunk in batch.messages.chunks(MESSAGES_PER_STATEMENT) {
            let rows: Vec<_> = chunk.iter().map(|message| NewMessageRow::from(&**message)).collect();
            let insert = diesel::insert_into(messages::table).values(&rows).on_conflict_do_nothing();
            inserted += insert.execute(conn).await?;
        }
        let known = if inserted == batch.messages.len() { Known::default() } else { known(conn, batch).await? };
        let deliveries: Vec<_> = batch.deliveries.iter().filter(|delivery| !known.has(delivery)).collect();
        for chunk in deliveries.chunks(DELIVERIES_PER_STATEMENT) {
            let rows: Vec<_> = chunk.iter().map(|delivery| NewDeliveryRow::from(*delivery)).collect();
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

    async fn known<'a>(conn: &mut AsyncPgConnection, batch: &'a Batch) -> Result<Known<'a>, DbError> {
        let mut found = Vec::new();
        for chunk in batch.messages.chunks(MESSAGES_PER_STATEMENT) {
            let meshes: Vec<_> = chunk.iter().map(|message| message.mesh_id.as_str()).collect();
            let seqs: Vec<_> = chunk.iter().map(|message| message.seq).collect();
            // Also finds places of other meshes in the batch, which are asked for anyway.
            let rows = messages::table
                .filter(messages::mesh_id.eq_any(meshes).and(messages::seq.eq_any(seqs)))
                .select((messages::mesh_id, messages::seq, messages::id));
            found.extend(rows.load::<(String, i64, String)>(conn).await?);
        }
        Known::among(&batch.messages, &found)
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
