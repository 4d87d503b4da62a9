//! What happens to the messages of a topic: edits, deletions, reactions, pins.

use std::collections::HashMap;

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::features::topics::limits::MAX_EMOJI_PER_MESSAGE;
use claudemesh_protocol::id::{MemberId, TopicId};
use diesel::dsl::{count_star, exists, not};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::super::limits::REACTIONS_PER_MESSAGE;
use super::super::schema::{notifications, topic_marks, topic_reactions};
use crate::audit::{Audit, By};
use crate::db::{Db, DbError, MeshDb};
use crate::features::messaging::schema::messages;
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;
use crate::{tx_write, with_conn, with_tx};

/// The body of a message that was deleted, for those who had not got it yet: base64 of `(deleted)`.
const DELETED_BODY: &str = "KGRlbGV0ZWQp";

/// What is done to a message.
#[derive(Clone, Debug)]
pub enum Act {
    /// Another body, by its author alone.
    Edit {
        /// Base64.
        nonce: String,
        /// Base64.
        ciphertext: String,
        /// Version of the encoding.
        body_version: i32,
    },
    /// The body goes, by its author or a lead.
    Delete,
    /// A reaction comes or goes.
    React {
        /// The emoji.
        emoji: String,
        /// It goes.
        remove: bool,
    },
    /// Pinned, or not.
    Pin {
        /// Not any more.
        remove: bool,
    },
}

/// A change of one message.
#[derive(Clone, Debug)]
pub struct Change {
    /// Topic.
    pub topic: TopicId,
    /// Place of the message in the order of the mesh.
    pub seq: i64,
    /// What is done.
    pub act: Act,
    /// Who does it.
    pub member: MemberId,
    /// It leads the topic.
    pub leads: bool,
    /// Unix milliseconds.
    pub now_ms: i64,
    /// What may be kept.
    pub quotas: Quotas,
}

/// Why nothing is changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// No such message in the topic.
    NotFound,
    /// Someone else wrote it.
    NotAuthor,
    /// Its body is gone.
    Deleted,
    /// It shows as many different reactions as it can.
    Emoji,
    /// A bound is hit.
    Limit(Bound),
}

impl From<Refused> for WriteError<Refused> {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// What happened to a message since it was written.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = topic_marks, primary_key(mesh_id, message_id), treat_none_as_null = true)]
pub struct Mark {
    /// Mesh.
    pub mesh_id: String,
    /// Message.
    pub message_id: String,
    /// Topic.
    pub topic_id: String,
    /// Place of the message in the order of the mesh.
    pub seq: i64,
    /// Unix milliseconds.
    pub edited_at_ms: Option<i64>,
    /// Unix milliseconds.
    pub deleted_at_ms: Option<i64>,
    /// Unix milliseconds.
    pub pinned_at_ms: Option<i64>,
}

/// Changes one message; `false` when it was so before.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn change(store: &MeshStore, change: Change) -> Result<bool, WriteError<Refused>> {
    let rows = match &change.act {
        Act::Edit { ciphertext, .. } => 1 + ciphertext.len() / 4_096,
        Act::Delete | Act::React { .. } | Act::Pin { .. } => 1,
    };
    tx_write!(store, rows: rows, (change), |conn, mesh| {
        let place = messages::table.find((mesh.as_str(), change.seq));
        let of_topic = place.filter(messages::topic_id.eq(change.topic.as_str()));
        let found: Option<(String, String)> =
            of_topic.select((messages::id, messages::sender_member_id)).first(conn).await.optional()?;
        let (id, author) = found.ok_or(Refused::NotFound)?;
        let place_of_mark = topic_marks::table.find((mesh.as_str(), &id));
        let stored: Option<Mark> = place_of_mark.select(Mark::as_select()).first(conn).await.optional()?;
        let before = stored.unwrap_or_else(|| Mark {
            mesh_id: mesh.to_string(),
            message_id: id.clone(),
            topic_id: change.topic.to_string(),
            seq: change.seq,
            ..Mark::default()
        });
        let own = author == change.member.as_str();
        let by = By::member(&change.member, change.now_ms);
        let payload = json!({"topic": change.topic, "message": id, "author": author});
        if before.deleted_at_ms.is_some() && !matches!(change.act, Act::Delete) {
            return Err(Refused::Deleted.into());
        }
        let (after, event) = match &change.act {
            Act::Edit { nonce, ciphertext, body_version } => {
                if !own {
                    return Err(Refused::NotAuthor.into());
                }
                let body = (
                    messages::nonce.eq(nonce),
                    messages::ciphertext.eq(ciphertext),
                    messages::body_version.eq(*body_version),
                );
                diesel::update(place).set(body).execute(conn).await?;
                (Mark { edited_at_ms: Some(change.now_ms), ..before.clone() }, "topic_message_edited")
            }
            Act::Delete if before.deleted_at_ms.is_some() => (before.clone(), "topic_message_deleted"),
            Act::Delete => {
                if !own && !change.leads {
                    return Err(Refused::NotAuthor.into());
                }
                let body = (messages::nonce.eq(""), messages::ciphertext.eq(DELETED_BODY), messages::body_version.eq(1));
                diesel::update(place).set(body).execute(conn).await?;
                let reactions = topic_reactions::table
                    .filter(topic_reactions::mesh_id.eq(mesh.as_str()))
                    .filter(topic_reactions::message_id.eq(&id));
                diesel::delete(reactions).execute(conn).await?;
                let gone = Mark { deleted_at_ms: Some(change.now_ms), pinned_at_ms: None, ..before.clone() };
                (gone, "topic_message_deleted")
            }
            Act::Pin { remove: true } => (Mark { pinned_at_ms: None, ..before.clone() }, "topic_message_unpinned"),
            Act::Pin { remove: false } => {
                let since = before.pinned_at_ms.unwrap_or(change.now_ms);
                (Mark { pinned_at_ms: Some(since), ..before.clone() }, "topic_message_pinned")
            }
            Act::React { emoji, remove } => {
                let own = topic_reactions::table.find((mesh.as_str(), &id, emoji, change.member.as_str()));
                let nothing = Audit::Unaudited("a reaction changes nothing of consequence");
                if *remove {
                    return Ok((diesel::delete(own).execute(conn).await? == 1, nothing));
                }
                let there = topic_reactions::table
                    .filter(topic_reactions::mesh_id.eq(mesh.as_str()))
                    .filter(topic_reactions::message_id.eq(&id));
                let kinds: Vec<(String, i64)> = there
                    .group_by(topic_reactions::emoji)
                    .select((topic_reactions::emoji, count_star()))
                    .load(conn)
                    .await?;
                if kinds.len() >= MAX_EMOJI_PER_MESSAGE && kinds.iter().all(|(kind, _)| kind != emoji) {
                    return Err(Refused::Emoji.into());
                }
                let all: i64 = kinds.iter().map(|(_, count)| count).sum();
                change.quotas.growth(&REACTIONS_PER_MESSAGE, all, all + 1).map_err(Refused::Limit)?;
                let row = (
                    topic_reactions::mesh_id.eq(mesh.as_str()),
                    topic_reactions::message_id.eq(&id),
                    topic_reactions::emoji.eq(emoji),
                    topic_reactions::member_id.eq(change.member.as_str()),
                    topic_reactions::seq.eq(change.seq),
                    topic_reactions::reacted_at_ms.eq(change.now_ms),
                );
                let insert = diesel::insert_into(topic_reactions::table).values(row).on_conflict_do_nothing();
                return Ok((insert.execute(conn).await? == 1, nothing));
            }
        };
        let changed = after != before;
        if changed {
            diesel::insert_into(topic_marks::table)
                .values(after.clone())
                .on_conflict((topic_marks::mesh_id, topic_marks::message_id))
                .do_update()
                .set(after)
                .execute(conn)
                .await?;
        }
        Ok((changed, Audit::when(changed, || by.entry(event, payload))))
    })
}

/// What messages show beside their bodies, by their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decorations {
    /// Edits, deletions, pins.
    pub marks: HashMap<String, Mark>,
    /// Reactions by emoji: how many members.
    pub reactions: HashMap<String, Vec<(String, i64)>>,
    /// How many messages answer each.
    pub replies: HashMap<String, i64>,
}

/// What these messages of a mesh show beside their bodies.
///
/// # Errors
/// Storage fails.
pub async fn decorations(db: &MeshDb, ids: &[String]) -> Result<Decorations, DbError> {
    if ids.is_empty() {
        return Ok(Decorations::default());
    }
    let mesh = db.mesh().as_str();
    let (marks, reactions, replies): (Vec<Mark>, Vec<(String, String, i64)>, Vec<(Option<String>, i64)>) =
        with_conn!(db.db(), |conn| {
            let marks = topic_marks::table
                .filter(topic_marks::mesh_id.eq(mesh))
                .filter(topic_marks::message_id.eq_any(ids))
                .select(Mark::as_select())
                .load(conn)
                .await?;
            let reactions = topic_reactions::table
                .filter(topic_reactions::mesh_id.eq(mesh))
                .filter(topic_reactions::message_id.eq_any(ids))
                .group_by((topic_reactions::message_id, topic_reactions::emoji))
                .order((topic_reactions::message_id, topic_reactions::emoji))
                .select((topic_reactions::message_id, topic_reactions::emoji, count_star()))
                .load(conn)
                .await?;
            let replies = messages::table
                .filter(messages::mesh_id.eq(mesh))
                .filter(messages::reply_to_id.eq_any(ids))
                .filter(messages::topic_id.is_not_null())
                .group_by(messages::reply_to_id)
                .select((messages::reply_to_id, count_star()))
                .load(conn)
                .await?;
            (marks, reactions, replies)
        });
    let mut found = Decorations {
        marks: marks.into_iter().map(|mark| (mark.message_id.clone(), mark)).collect(),
        replies: replies.into_iter().filter_map(|(id, count)| Some((id?, count))).collect(),
        ..Decorations::default()
    };
    for (id, emoji, count) in reactions {
        found.reactions.entry(id).or_default().push((emoji, count));
    }
    Ok(found)
}

/// Places of the pinned messages of a topic, newest first.
///
/// # Errors
/// Storage fails.
pub async fn pinned(db: &MeshDb, topic: &TopicId, limit: u32) -> Result<Vec<i64>, DbError> {
    Ok(with_conn!(db.db(), |conn| topic_marks::table
        .filter(topic_marks::mesh_id.eq(db.mesh().as_str()))
        .filter(topic_marks::topic_id.eq(topic.as_str()))
        .filter(topic_marks::pinned_at_ms.is_not_null())
        .order(topic_marks::seq.desc())
        .limit(i64::from(limit))
        .select(topic_marks::seq)
        .load(conn)
        .await?))
}

/// Removes marks, reactions and mentions whose message was purged; returns how many.
///
/// # Errors
/// Storage fails; what was done stays done.
pub async fn clean(db: &Db) -> Result<usize, DbError> {
    macro_rules! orphans {
        ($table:ident) => {
            $table::table.filter(not(exists(
                messages::table.filter(messages::mesh_id.eq($table::mesh_id)).filter(messages::seq.eq($table::seq)),
            )))
        };
    }
    // Unaudited: upkeep, by rules that are no secret.
    let marks = with_tx!(db, |conn| diesel::delete(orphans!(topic_marks)).execute(conn).await?);
    // Unaudited: as above.
    let reactions = with_tx!(db, |conn| diesel::delete(orphans!(topic_reactions)).execute(conn).await?);
    // Unaudited: as above.
    let mentions = with_tx!(db, |conn| diesel::delete(orphans!(notifications)).execute(conn).await?);
    Ok(marks + reactions + mentions)
}
