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
mod topic;
pub mod types;
mod write;

use std::collections::{HashMap, HashSet};

use claudemesh_protocol::features::messaging::{Priority, Stage};
use claudemesh_protocol::id::{MemberId, MessageId, PublicKey};
use diesel::dsl::{count_star, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;

use super::schema::{deliveries, messages};
use crate::db::{DbError, MeshDb, convert};
use crate::with_conn;
use types::{PendingCounts, RecipientKind, StoredDelivery, StoredMessage};

pub use backlog::{BacklogCursor, Queues, Waiting, load_backlog, recent_repeatable};
pub use purge::{HISTORY_KEPT_MS, QUEUE_KEPT_MS, expire, purge};
use rows::{DeliveryRow, KIND_MEMBER, MessageRow, kind_of, messages_of};
pub use topic::{TopicPart, topic_after, topic_at, topic_history, topic_replies};

/// A literal, because a partial index is used only when the planner sees its condition.
const PENDING: &str = "deliveries.stage = 0";
/// Receipts read for one message.
const MAX_RECEIPTS: i64 = 1_000;

/// What waits for one recipient in one class of urgency, in sending order, and what the deliveries are addressed to: one range
/// of the index of queues.
///
/// # Errors
/// Storage fails.
pub async fn load_queue_class(
    db: &MeshDb,
    recipient: &PublicKey,
    priority: Priority,
    after_seq: i64,
    limit: u32,
) -> Result<Vec<(StoredMessage, RecipientKind)>, DbError> {
    let recipient = recipient.to_hex();
    let rows: Vec<(MessageRow, i32)> = with_conn!(db.db(), |conn| deliveries::table
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
        .select((MessageRow::as_select(), deliveries::recipient_kind))
        .load(conn)
        .await?);
    rows.into_iter().map(|(row, kind)| Ok((row.try_into()?, kind_of(kind)?))).collect()
}

/// Copies of messages to a member that wait for some of its sessions, in one class of urgency, in sending order, each with the
/// session's key.
///
/// # Errors
/// Storage fails.
pub async fn load_copies_class(
    db: &MeshDb,
    sessions: &[PublicKey],
    priority: Priority,
    after_seq: i64,
    limit: u32,
) -> Result<Vec<(StoredMessage, PublicKey)>, DbError> {
    let sessions: Vec<String> = sessions.iter().map(PublicKey::to_hex).collect();
    let rows: Vec<(MessageRow, String)> = with_conn!(db.db(), |conn| deliveries::table
        .inner_join(
            messages::table.on(messages::mesh_id.eq(deliveries::mesh_id).and(messages::seq.eq(deliveries::seq)))
        )
        .filter(deliveries::mesh_id.eq(db.mesh().as_str()))
        .filter(deliveries::recipient_key.eq_any(&sessions))
        .filter(deliveries::recipient_kind.eq(KIND_MEMBER))
        .filter(sql::<Bool>(PENDING))
        .filter(deliveries::priority.eq(convert::priority_number(priority)))
        .filter(deliveries::seq.gt(after_seq))
        .order((deliveries::seq, deliveries::recipient_key))
        .limit(i64::from(limit))
        .select((MessageRow::as_select(), deliveries::recipient_key))
        .load(conn)
        .await?);
    let read =
        |(row, key): (MessageRow, String)| Ok((row.try_into()?, convert::key("deliveries.recipient_key", &key)?));
    rows.into_iter().map(read).collect()
}

/// Those of these messages to a member that one of its sessions has.
///
/// # Errors
/// Storage fails.
pub async fn taken_by_member(db: &MeshDb, member: &MemberId, seqs: &[i64]) -> Result<Vec<i64>, DbError> {
    Ok(with_conn!(db.db(), |conn| deliveries::table
        .filter(deliveries::mesh_id.eq(db.mesh().as_str()))
        .filter(deliveries::seq.eq_any(seqs))
        .filter(deliveries::member_id.eq(member.as_str()))
        .filter(deliveries::recipient_kind.eq(KIND_MEMBER))
        .filter(deliveries::stage.gt(0))
        .select(deliveries::seq)
        .load(conn)
        .await?))
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

/// What waits of sessions' copies of messages to their members: member, session key, counts by urgency. Also has the members'
/// own queues, under their keys.
///
/// # Errors
/// Storage fails.
pub async fn pending_copies(db: &MeshDb) -> Result<Vec<(MemberId, PublicKey, [u32; 3])>, DbError> {
    let rows: Vec<(String, String, i32, i64)> = with_conn!(db.db(), |conn| deliveries::table
        .filter(deliveries::mesh_id.eq(db.mesh().as_str()))
        .filter(deliveries::recipient_kind.eq(KIND_MEMBER))
        .filter(sql::<Bool>(PENDING))
        .group_by((deliveries::member_id, deliveries::recipient_key, deliveries::priority))
        .select((deliveries::member_id, deliveries::recipient_key, deliveries::priority, count_star()))
        .load(conn)
        .await?);
    let mut found: HashMap<(String, PublicKey), [u32; 3]> = HashMap::new();
    for (member, key, priority, count) in rows {
        let key = convert::key("deliveries.recipient_key", &key)?;
        let place = convert::priority("deliveries.priority", priority)? as usize;
        found.entry((member, key)).or_default()[place] += convert::count(count);
    }
    Ok(found.into_iter().map(|((member, key), counts)| (member.into(), key, counts)).collect())
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

/// Those of these messages whose delivery to a session, or to its member, is below a stage: place in the order, recipient key.
///
/// A session's own delivery is the one that is meant. Where it has none, it took over what was for its member.
///
/// # Errors
/// Storage fails.
pub async fn below_stage(
    db: &MeshDb,
    ids: &[String],
    recipient: (&PublicKey, &MemberId),
    stage: Stage,
) -> Result<Vec<(i64, PublicKey)>, DbError> {
    let (key, member) = (recipient.0.to_hex(), recipient.1.as_str());
    let of_member = deliveries::member_id.eq(member).and(deliveries::recipient_kind.eq(KIND_MEMBER));
    let rows: Vec<(i64, String, i32)> = with_conn!(db.db(), |conn| messages::table
        .inner_join(
            deliveries::table.on(deliveries::mesh_id.eq(messages::mesh_id).and(deliveries::seq.eq(messages::seq)))
        )
        // As an expression, see `message_by_id_prefix`.
        .filter(messages::mesh_id.concat("").eq(db.mesh().as_str()))
        .filter(messages::id.eq_any(ids))
        .filter(deliveries::recipient_key.eq(&key).or(of_member))
        .order((messages::seq, deliveries::recipient_key))
        .select((messages::seq, deliveries::recipient_key, deliveries::stage))
        .load(conn)
        .await?);
    let own: HashSet<i64> = rows.iter().filter(|(_, one, _)| *one == key).map(|(seq, ..)| *seq).collect();
    rows.into_iter()
        .filter(|(seq, one, _)| *one == key || !own.contains(seq))
        .filter(|(_, _, reached)| *reached < convert::stage_number(stage))
        .map(|(seq, one, _)| Ok((seq, convert::key("deliveries.recipient_key", &one)?)))
        .collect()
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
