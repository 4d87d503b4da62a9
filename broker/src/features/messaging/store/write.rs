//! What messaging writes in a transaction of the journal: the hot path.
//!
//! Repeating it is safe: messages and deliveries that exist are left alone, a stage only climbs. A message whose id exists under
//! another place in the order is one that its sender repeats: the first one stays, with its own deliveries.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

#[cfg(feature = "sqlite")]
use diesel::sqlite::SqliteConnection;
#[cfg(feature = "postgres")]
use diesel_async::AsyncPgConnection;
#[cfg(feature = "postgres")]
use futures_util::future::BoxFuture;

use super::types::{MessagingPart, NewDelivery, NewMessage};
use crate::db::DbError;
use crate::journal::Part;

impl Part for MessagingPart {
    fn rows(&self) -> usize {
        self.messages.len() + self.deliveries.len() + self.stages.len()
    }

    fn merge(&mut self, other: &Self) {
        self.messages.extend(other.messages.iter().cloned());
        self.deliveries.extend(other.deliveries.iter().cloned());
        self.stages.extend(other.stages.iter().cloned());
    }

    /// [`DbError::InUse`] when another broker wrote at these places in the order.
    #[cfg(feature = "sqlite")]
    fn write_sqlite(&self, conn: &mut SqliteConnection) -> Result<(), DbError> {
        sqlite::write(conn, self)
    }

    #[cfg(feature = "postgres")]
    fn write_postgres<'a>(&'a self, conn: &'a mut AsyncPgConnection) -> BoxFuture<'a, Result<(), DbError>> {
        Box::pin(postgres::write(conn, self))
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
    use diesel::prelude::*;
    use diesel::sqlite::SqliteConnection;

    use super::super::super::schema::{deliveries, messages};
    use super::super::rows::{NewDeliveryRow, NewMessageRow};
    use super::{Arc, Known, MessagingPart};
    use crate::db::{DbError, convert};

    /// Row by row: diesel keeps each statement prepared, and a step of a prepared statement is cheaper in SQLite than
    /// parsing one large statement. `OR IGNORE` rather than `ON CONFLICT DO NOTHING`, because diesel finds the prepared
    /// statement of the former by its type and would write the text of the latter anew for each row. It also ignores failed
    /// `NOT NULL` and `CHECK` constraints, which these rows cannot fail.
    pub(super) fn write(conn: &mut SqliteConnection, batch: &MessagingPart) -> Result<(), DbError> {
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
        Ok(())
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use diesel::prelude::*;
    use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text};
    use diesel_async::{AsyncPgConnection, RunQueryDsl};

    use super::super::super::schema::{deliveries, messages};
    use super::super::rows::{NewDeliveryRow, NewMessageRow, highest_stages};
    use super::{Known, MessagingPart};
    use crate::db::{DbError, convert};

    /// Rows per statement: a statement may carry 65,535 values, messages have 22 and deliveries 8.
    const MESSAGES_PER_STATEMENT: usize = 500;
    const DELIVERIES_PER_STATEMENT: usize = 2_000;

    /// Many rows a statement: here a round trip costs more than anything else.
    pub(super) async fn write(conn: &mut AsyncPgConnection, batch: &MessagingPart) -> Result<(), DbError> {
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
        Ok(())
    }

    async fn known<'a>(conn: &mut AsyncPgConnection, batch: &'a MessagingPart) -> Result<Known<'a>, DbError> {
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
    async fn stages(conn: &mut AsyncPgConnection, batch: &MessagingPart) -> QueryResult<()> {
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
}
