//! Messages of topics: parts of the history, what answers a message, what came after one.

use claudemesh_protocol::id::TopicId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::schema::messages;
use super::rows::{MessageRow, messages_of};
use super::types::StoredMessage;
use crate::db::{DbError, MeshDb};
use crate::with_conn;

/// Which messages of topics are read.
#[derive(Clone, Debug)]
pub struct TopicPart {
    /// Of these topics.
    pub topics: Vec<TopicId>,
    /// Written after this time, Unix milliseconds: what is older is kept no more.
    pub since_ms: i64,
    /// Before this place in the order of the mesh.
    pub before_seq: i64,
    /// After this place.
    pub after_seq: i64,
    /// At most so many.
    pub limit: u32,
}

impl TopicPart {
    /// The newest messages of one topic.
    pub fn newest(topic: TopicId, limit: u32) -> Self {
        Self { topics: vec![topic], since_ms: i64::MIN, before_seq: i64::MAX, after_seq: -1, limit }
    }

    fn ids(&self) -> Vec<&str> {
        self.topics.iter().map(TopicId::as_str).collect()
    }
}

/// The messages of a part. A macro, because the type of the query has no short name.
macro_rules! part_of {
    ($db:expr, $part:expr) => {
        messages::table
            .filter(messages::mesh_id.eq($db.mesh().as_str()))
            .filter(messages::topic_id.eq_any($part.ids()))
            .filter(messages::seq.lt($part.before_seq))
            .filter(messages::seq.gt($part.after_seq))
            .filter(messages::created_at_ms.gt($part.since_ms))
            .limit(i64::from($part.limit))
            .select(MessageRow::as_select())
    };
}

/// Messages of a part, newest first.
///
/// # Errors
/// Storage fails.
pub async fn topic_history(db: &MeshDb, part: &TopicPart) -> Result<Vec<StoredMessage>, DbError> {
    let rows = with_conn!(db.db(), |conn| part_of!(db, part).order(messages::seq.desc()).load(conn).await?);
    messages_of(rows)
}

/// Messages of a part, oldest first.
///
/// # Errors
/// Storage fails.
pub async fn topic_after(db: &MeshDb, part: &TopicPart) -> Result<Vec<StoredMessage>, DbError> {
    let rows = with_conn!(db.db(), |conn| part_of!(db, part).order(messages::seq).load(conn).await?);
    messages_of(rows)
}

/// Messages of a part that answer one message, newest first.
///
/// # Errors
/// Storage fails.
pub async fn topic_replies(db: &MeshDb, part: &TopicPart, to: &str) -> Result<Vec<StoredMessage>, DbError> {
    let rows = with_conn!(db.db(), |conn| part_of!(db, part)
        .filter(messages::reply_to_id.eq(to))
        .order(messages::seq.desc())
        .load(conn)
        .await?);
    messages_of(rows)
}

/// Messages of a part at some places in the order of the mesh, newest first.
///
/// # Errors
/// Storage fails.
pub async fn topic_at(db: &MeshDb, part: &TopicPart, seqs: &[i64]) -> Result<Vec<StoredMessage>, DbError> {
    let rows = with_conn!(db.db(), |conn| part_of!(db, part)
        .filter(messages::seq.eq_any(seqs))
        .order(messages::seq.desc())
        .load(conn)
        .await?);
    messages_of(rows)
}
