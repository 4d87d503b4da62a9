//! Reads for one recipient's backlog and for retries.

use std::collections::HashMap;

use claudemesh_protocol::features::messaging::Priority;
use claudemesh_protocol::id::{MessageId, PublicKey};

use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::remembered::Known;
use super::super::schema::deliveries;
use super::super::state::Counts;
use super::types::StoredMessage;
use super::{Repeatable, load_pending_class, newest_repeatable};
use crate::db::{DbError, MeshDb};
use crate::with_conn;

/// One priority class of a recipient's backlog: seqs after `after`, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct LaneRead {
    /// Class.
    pub priority: Priority,
    /// Exclusive lower bound.
    pub after: i64,
}

/// What waits for a recipient in the given classes, in the mesh's order, at most `limit` messages; and per class whether
/// more may be there.
///
/// # Errors
/// Storage.
pub async fn load_backlog(
    db: &MeshDb,
    recipient: &PublicKey,
    lanes: &[LaneRead],
    limit: u32,
) -> Result<(Vec<StoredMessage>, Vec<Priority>), DbError> {
    let mut rows = Vec::new();
    let mut more = Vec::new();
    for lane in lanes {
        let found = load_pending_class(db, recipient, lane.priority, lane.after, limit).await?;
        if found.len() >= limit as usize {
            more.push(lane.priority);
        }
        rows.extend(found);
    }
    rows.sort_by_key(|row| row.seq);
    more.extend(rows.iter().skip(limit as usize).map(|row| row.priority));
    rows.truncate(limit as usize);
    Ok((rows, more))
}

/// The newest messages of a mesh that a retry may repeat, oldest first, so that it is recognised after a restart, too.
///
/// # Errors
/// Storage.
pub async fn recent_repeatable(db: &MeshDb, limit: u32) -> Result<Vec<(MessageId, Known)>, DbError> {
    let rows = newest_repeatable(db, limit).await?;
    let known = |(id, seq, fingerprint): Repeatable| (id, Known { seq, fingerprint: fingerprint.map(Into::into) });
    Ok(rows.into_iter().rev().map(known).collect())
}

/// What waits for some recipients, by priority: now, next, low. Recipients without anything are left out.
///
/// # Errors
/// Storage.
pub async fn pending_counts_of(db: &MeshDb, recipients: &[PublicKey]) -> Result<HashMap<PublicKey, Counts>, DbError> {
    let keys: Vec<String> = recipients.iter().map(PublicKey::to_hex).collect();
    let rows: Vec<(String, i32, i64)> = with_conn!(db.db(), |conn| deliveries::table
        .filter(deliveries::mesh_id.eq(db.mesh().as_str()))
        .filter(deliveries::recipient_key.eq_any(&keys))
        .filter(deliveries::stage.eq(0))
        .group_by((deliveries::recipient_key, deliveries::priority))
        .select((deliveries::recipient_key, deliveries::priority, count_star()))
        .load(conn)
        .await?);
    let mut counts: HashMap<PublicKey, Counts> = HashMap::new();
    for (key, priority, count) in rows {
        let slot = PublicKey::parse(&key).zip(usize::try_from(priority).ok().filter(|priority| *priority < 3));
        if let Some((key, priority)) = slot {
            counts.entry(key).or_default()[priority] = u32::try_from(count).unwrap_or(u32::MAX);
        }
    }
    Ok(counts)
}
