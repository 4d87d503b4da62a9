//! Reads for one recipient's backlog and for retries.

use std::collections::BTreeMap;

use claudemesh_protocol::features::messaging::Priority;
use claudemesh_protocol::id::{MemberId, MessageId, PublicKey};

use super::super::recent_messages::DedupEntry;
use super::types::{RecipientKind, StoredMessage};
use super::{Repeatable, load_copies_class, load_queue_class, newest_repeatable, taken_by_member};
use crate::db::{DbError, MeshDb};
use crate::mesh::outbox::{AllOwed, Owed};

/// One priority class of a recipient's backlog: seqs after `after`, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct BacklogCursor {
    /// Class.
    pub priority: Priority,
    /// Exclusive lower bound.
    pub after: i64,
}

/// The queues that one peer reads.
#[derive(Clone, Debug)]
pub struct Queues {
    /// Its own key.
    pub own: PublicKey,
    /// Key of its member: what waits for the member.
    pub member: PublicKey,
    /// The member.
    pub member_id: MemberId,
    /// Sessions of the member that are gone: what waits for them as copies of messages to the member.
    pub left: Vec<PublicKey>,
}

/// A message that waits, and the deliveries that end when it is acknowledged.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The message.
    pub message: StoredMessage,
    /// Of those that were read.
    pub owed: AllOwed,
}

/// What waits for a peer in the given classes, in the mesh's order, at most `limit` messages; and per class whether more may be
/// there.
///
/// # Errors
/// Storage.
pub async fn load_backlog(
    db: &MeshDb,
    queues: &Queues,
    lanes: &[BacklogCursor],
    limit: u32,
) -> Result<(Vec<Waiting>, Vec<Priority>), DbError> {
    let mut rows = Vec::new();
    let mut more = Vec::new();
    for lane in lanes {
        let (found, cut) = load_class(db, queues, *lane, limit).await?;
        if cut {
            more.push(lane.priority);
        }
        rows.extend(found);
    }
    rows.sort_by_key(|row| row.message.seq);
    more.extend(rows.iter().skip(limit as usize).map(|row| row.message.priority));
    rows.truncate(limit as usize);
    Ok((rows, more))
}

/// One class over all queues of a peer; and whether more may be there.
async fn load_class(
    db: &MeshDb,
    queues: &Queues,
    lane: BacklogCursor,
    limit: u32,
) -> Result<(Vec<Waiting>, bool), DbError> {
    let mut found: BTreeMap<i64, Waiting> = BTreeMap::new();
    // No queue is read beyond the end of another that has more, or the order would be lost.
    let mut upto = i64::MAX;
    let add = |found: &mut BTreeMap<i64, Waiting>, message: StoredMessage, owed: Owed| {
        let waiting = found.entry(message.seq).or_insert_with(|| Waiting { message, owed: AllOwed::new() });
        waiting.owed.push(owed);
    };
    let mut keys = vec![queues.own];
    keys.extend((queues.member != queues.own).then_some(queues.member));
    for key in keys {
        let rows = load_queue_class(db, &key, lane.priority, lane.after, limit).await?;
        upto = upto.min(end_of(&rows, limit));
        for (message, kind) in rows {
            let copy = kind == RecipientKind::Member && key != queues.member;
            add(&mut found, message, Owed { key, copy });
        }
    }
    if !queues.left.is_empty() {
        let rows = load_copies_class(db, &queues.left, lane.priority, lane.after, limit).await?;
        upto = upto.min(end_of(&rows, limit));
        let seqs: Vec<i64> = rows.iter().map(|(message, _)| message.seq).collect();
        let had = taken_by_member(db, &queues.member_id, &seqs).await?;
        for (message, key) in rows.into_iter().filter(|(message, _)| !had.contains(&message.seq)) {
            add(&mut found, message, Owed { key, copy: true });
        }
    }
    Ok((found.into_values().filter(|row| row.message.seq <= upto).collect(), upto < i64::MAX))
}

/// Where the reading of a queue ended, when it may have more.
fn end_of<T>(rows: &[(StoredMessage, T)], limit: u32) -> i64 {
    rows.last().filter(|_| rows.len() >= limit as usize).map_or(i64::MAX, |(last, _)| last.seq)
}

/// The newest messages of a mesh that a retry may repeat, oldest first, so that it is recognised after a restart, too.
///
/// # Errors
/// Storage.
pub async fn recent_repeatable(db: &MeshDb, limit: u32) -> Result<Vec<(MessageId, DedupEntry)>, DbError> {
    let rows = newest_repeatable(db, limit).await?;
    let known = |(id, seq, fingerprint): Repeatable| (id, DedupEntry { seq, fingerprint: fingerprint.map(Into::into) });
    Ok(rows.into_iter().rev().map(known).collect())
}
