//! `messages` and `deliveries`: the queue, its receipts, topic history, expiry and purging.
//!
//! The journal is the only writer of both tables ([`types::MessagingPart`]). Everything here is called with ids and times as arguments.

mod backlog;
mod purge;
mod rows;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod types;
mod write;

use std::collections::HashMap;

use claudemesh_protocol::features::messaging::{Priority, Stage};
use claudemesh_protocol::id::{MessageId, PublicKey, TopicId};
use diesel::dsl::{count_star, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;

use super::schema::{deliveries, messages};
use crate::db::{DbError, MeshDb, convert};
use crate::{with_conn, with_tx};
use types::{PendingCounts, StoredDelivery, StoredMessage};

pub use backlog::{LaneRead, load_backlog, pending_counts_of, recent_repeatable};
pub use purge::{HISTORY_KEPT_MS, QUEUE_KEPT_MS, expire, purge};
use rows::{DeliveryRow, KIND_MEMBER, KIND_SESSION, MessageRow, kind_of, messages_of};

/// A literal, because a partial index is used only when the planner sees its condition.
const PENDING: &str = "deliveries.stage = 0";
/// Receipts read for one message.
const MAX_RECEIPTS: i64 = 1_000;

/// What waits for one recipient in one class of urgency, in sending order: one range of the index of queues.
///
/// # Errors
/// Storage fails.
pub async fn load_pending_class(
    db: &MeshDb,
    recipient: &PublicKey,
    priority: Priority,
    after_seq: i64,
    limit: u32,
) -> Result<Vec<StoredMessage>, DbError> {
    let recipient = recipient.to_hex();
    let rows = with_conn!(db.db(), |conn| deliveries::table
        .inner_join(
            messages::table.on(messages::mesh_id.eq(deliveries::mesh_id).and(messages::seq.eq(deliveries::seq)))
        )
        .filter(deliveries::mesh_id.eq(db.mesh().as_str()))
        .filter(deliveries::recipient_key.eq(&recipient))
        .filter(sql::<Bool>(PENDING))
        .filter(deliveries::priority.eq(convert::priority_number(priority)))
        .filter(deliveries::seq.gt(after_seq))
        .order(deliveries::seq)
        .limit(i64::from(limit))
        .select(MessageRow::as_select())
        .load(conn)
        .await?);
    messages_of(rows)
}

/// A stored message that had an idempotency key, which its id follows from: id, seq, fingerprint of the request.
type Repeatable = (MessageId, i64, Option<String>);

/// The newest messages of a mesh that a retry may repeat, newest first.
///
/// # Errors
/// Storage fails.
async fn newest_repeatable(db: &MeshDb, limit: u32) -> Result<Vec<Repeatable>, DbError> {
    let rows: Vec<(String, i64, Option<String>)> = with_conn!(db.db(), |conn| messages::table
        .filter(messages::mesh_id.eq(db.mesh().as_str()))
        .filter(messages::client_message_id.is_not_null())
        .order(messages::seq.desc())
        .limit(i64::from(limit))
        .select((messages::id, messages::seq, messages::request_fingerprint))
        .load(conn)
        .await?);
    Ok(rows.into_iter().map(|(id, seq, fingerprint)| (id.into(), seq, fingerprint)).collect())
}

/// Gives what waits for a member to one of its sessions; returns how many it took over.
///
/// A message that waits for both is kept once. Two sessions that claim at the same time get disjoint sets.
///
/// # Errors
/// Storage fails.
pub async fn claim_member(db: &MeshDb, member: &PublicKey, session: &PublicKey) -> Result<usize, DbError> {
    let (member, session) = (member.to_hex(), session.to_hex());
    // Unaudited: who takes a message over is told by its receipt.
    Ok(with_tx!(db.db(), |conn| {
        let own = diesel::alias!(deliveries as own);
        let both = own
            .filter(own.field(deliveries::mesh_id).eq(db.mesh().as_str()))
            .filter(own.field(deliveries::recipient_key).eq(&session))
            .select(own.field(deliveries::seq));
        diesel::delete(
            deliveries::table
                .filter(deliveries::mesh_id.eq(db.mesh().as_str()))
                .filter(deliveries::recipient_key.eq(&member))
                .filter(deliveries::recipient_kind.eq(KIND_MEMBER))
                .filter(sql::<Bool>(PENDING))
                .filter(deliveries::seq.eq_any(both)),
        )
        .execute(conn)
        .await?;
        diesel::update(
            deliveries::table
                .filter(deliveries::mesh_id.eq(db.mesh().as_str()))
                .filter(deliveries::recipient_key.eq(&member))
                .filter(deliveries::recipient_kind.eq(KIND_MEMBER))
                .filter(sql::<Bool>(PENDING)),
        )
        .set((deliveries::recipient_key.eq(&session), deliveries::recipient_kind.eq(KIND_SESSION)))
        .execute(conn)
        .await?
    }))
}

/// How much waits in a mesh, per recipient key.
///
/// # Errors
/// Storage fails.
pub async fn pending_counts(db: &MeshDb) -> Result<HashMap<PublicKey, PendingCounts>, DbError> {
    let rows: Vec<(String, i32, i32, i64)> = with_conn!(db.db(), |conn| deliveries::table
        .filter(deliveries::mesh_id.eq(db.mesh().as_str()))
        .filter(sql::<Bool>(PENDING))
        .group_by((deliveries::recipient_key, deliveries::recipient_kind, deliveries::priority))
        .select((deliveries::recipient_key, deliveries::recipient_kind, deliveries::priority, count_star()))
        .load(conn)
        .await?);
    let mut found = HashMap::new();
    for (recipient, kind, priority, count) in rows {
        let recipient = convert::key("deliveries.recipient_key", &recipient)?;
        let kind = kind_of(kind)?;
        let place = convert::priority("deliveries.priority", priority)? as usize;
        let entry = found.entry(recipient).or_insert(PendingCounts { kind, counts: [0; 3] });
        entry.counts[place] += convert::count(count);
    }
    Ok(found)
}

/// Messages of a mesh whose id starts with `prefix`, by id. Ids are ASCII: any other prefix finds nothing.
///
/// # Errors
/// Storage fails.
pub async fn message_by_id_prefix(db: &MeshDb, prefix: &str, limit: u32) -> Result<Vec<StoredMessage>, DbError> {
    // A range rather than LIKE: it uses the index, keeps case apart and has no wildcards to escape.
    let Some((last, head)) = prefix.as_bytes().split_last().filter(|(last, _)| **last < 0x7f && prefix.is_ascii())
    else {
        return Ok(Vec::new());
    };
    let mut end = String::from_utf8_lossy(head).into_owned();
    end.push(char::from(last + 1));
    let rows = with_conn!(db.db(), |conn| messages::table
        // As an expression, so that SQLite does not look through the whole mesh by its key instead.
        .filter(messages::mesh_id.concat("").eq(db.mesh().as_str()))
        .filter(messages::id.ge(prefix))
        .filter(messages::id.lt(&end))
        .order(messages::id)
        .limit(i64::from(limit))
        .select(MessageRow::as_select())
        .load(conn)
        .await?);
    messages_of(rows)
}

/// Places in the order of those of these messages whose delivery to a recipient is below a stage.
///
/// # Errors
/// Storage fails.
pub async fn below_stage(
    db: &MeshDb,
    ids: &[String],
    recipient: &PublicKey,
    stage: Stage,
) -> Result<Vec<i64>, DbError> {
    let recipient = recipient.to_hex();
    Ok(with_conn!(db.db(), |conn| messages::table
        .inner_join(
            deliveries::table.on(deliveries::mesh_id.eq(messages::mesh_id).and(deliveries::seq.eq(messages::seq)))
        )
        // As an expression, see `message_by_id_prefix`.
        .filter(messages::mesh_id.concat("").eq(db.mesh().as_str()))
        .filter(messages::id.eq_any(ids))
        .filter(deliveries::recipient_key.eq(&recipient))
        .filter(deliveries::stage.lt(convert::stage_number(stage)))
        .order(messages::seq)
        .select(messages::seq)
        .load(conn)
        .await?))
}

/// The receipts of one message, by recipient key, at most 1,000.
///
/// # Errors
/// Storage fails.
pub async fn deliveries_of(db: &MeshDb, seq: i64) -> Result<Vec<StoredDelivery>, DbError> {
    let rows = with_conn!(db.db(), |conn| deliveries::table
        .filter(deliveries::mesh_id.eq(db.mesh().as_str()))
        .filter(deliveries::seq.eq(seq))
        .order(deliveries::recipient_key)
        .limit(MAX_RECEIPTS)
        .select(DeliveryRow::as_select())
        .load(conn)
        .await?);
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Highest `seq` the mesh ever stored, purged messages included; 0 for none.
///
/// # Errors
/// Storage fails.
pub async fn max_seq(db: &MeshDb) -> Result<i64, DbError> {
    let stored = with_conn!(db.db(), |conn| messages::table
        .filter(messages::mesh_id.eq(db.mesh().as_str()))
        .select(diesel::dsl::max(messages::seq))
        .first::<Option<i64>>(conn)
        .await?);
    let purged = purge::purged_up_to(db.db(), db.mesh()).await?;
    Ok(stored.unwrap_or(0).max(purged))
}

/// Messages of a topic, newest first, before `before_seq` when given.
///
/// # Errors
/// Storage fails.
pub async fn topic_history(
    db: &MeshDb,
    topic: &TopicId,
    before_seq: Option<i64>,
    limit: u32,
) -> Result<Vec<StoredMessage>, DbError> {
    let rows = with_conn!(db.db(), |conn| messages::table
        .filter(messages::mesh_id.eq(db.mesh().as_str()))
        .filter(messages::topic_id.eq(topic.as_str()))
        .filter(messages::seq.lt(before_seq.unwrap_or(i64::MAX)))
        .order(messages::seq.desc())
        .limit(i64::from(limit))
        .select(MessageRow::as_select())
        .load(conn)
        .await?);
    messages_of(rows)
}
