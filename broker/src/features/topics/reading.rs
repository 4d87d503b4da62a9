//! The history of topics, searches in it, and how far a member has read.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::topics::limits::{
    MAX_HITS, MAX_QUERY_CHARS, MAX_SCANNED, MIN_QUERY_CHARS, USUAL_HITS,
};
use claudemesh_protocol::features::topics::{
    Reaction, TopicHistory, TopicHistoryResponse, TopicHit, TopicMarkRead, TopicMessage, TopicSearch, TopicSearchResult,
};
use claudemesh_protocol::id::TopicId;
use claudemesh_protocol::time::iso;

use super::limits::SEARCHES_PER_MINUTE;
use super::store::Decorations;
use super::{Topics, named, store};
use crate::db::{DbError, MeshDb};
use crate::features::messaging::store::types::StoredMessage;
// Messages of topics are messages: their history is read where they are kept.
use crate::features::messaging::store::{self as messages, TopicPart};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::refusal::{Refusal, invalid};

/// History messages of one answer.
const HISTORY: std::ops::RangeInclusive<u32> = 1..=200;
const HISTORY_DEFAULT: u32 = 50;
/// Messages that a search reads at once.
const PAGE: u32 = 200;

/// A message of the history as the wire has it.
pub(super) fn shown(row: StoredMessage, found: &Decorations) -> TopicMessage {
    let id = row.id.to_string();
    let mark = found.marks.get(&id);
    let gone = mark.is_some_and(|mark| mark.deleted_at_ms.is_some());
    let reactions = found.reactions.get(&id).map(Vec::as_slice).unwrap_or_default();
    let count = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
    TopicMessage {
        sender_pubkey: row.sender_key.to_hex(),
        sender_member_id: row.sender_member_id,
        sender_name: row.sender_name,
        nonce: if gone { String::new() } else { row.nonce },
        ciphertext: if gone { String::new() } else { row.ciphertext },
        body_version: row.body_version,
        reply_to_id: row.reply_to_id,
        created_at: iso(row.created_at_ms),
        edited_at: mark.and_then(|mark| mark.edited_at_ms).map(iso),
        deleted_at: mark.and_then(|mark| mark.deleted_at_ms).map(iso),
        pinned_at: mark.and_then(|mark| mark.pinned_at_ms).map(iso),
        reactions: reactions
            .iter()
            .map(|(emoji, members)| Reaction { emoji: emoji.clone(), count: count(*members) })
            .collect(),
        replies: found.replies.get(&id).copied().map(count).unwrap_or(0),
        id,
    }
}

/// Messages with what they show beside their bodies.
pub(super) async fn decorated(db: &MeshDb, rows: Vec<StoredMessage>) -> Result<Vec<TopicMessage>, DbError> {
    let ids: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
    let found = store::decorations(db, &ids).await?;
    Ok(rows.into_iter().map(|row| shown(row, &found)).collect())
}

/// The message of a topic whose id is this one, or begins so.
///
/// # Errors
/// `not_found`, also for what the topic keeps no more; storage.
pub(super) async fn message(db: &MeshDb, part: &TopicPart, field: &str, id: &str) -> Result<StoredMessage, Refusal> {
    let found = messages::message_by_id_prefix(db, id, 1).await?.into_iter().next();
    let here = |message: &StoredMessage| {
        message.topic_id.as_ref().is_some_and(|topic| part.topics.contains(topic))
            && message.created_at_ms > part.since_ms
    };
    let missing = || Refusal::new(ErrorCode::NotFound, format!("`{field}`: no such message in this topic"));
    found.filter(here).ok_or_else(missing)
}

/// What a topic still keeps.
pub(super) fn kept(cx: &MeshContext<'_>, topic: &str, limit: u32) -> Result<TopicPart, Refusal> {
    let found = cx.topic(topic)?;
    let since_ms = found.kept_since_ms(cx.now_ms());
    Ok(TopicPart { since_ms, ..TopicPart::newest(found.id.clone(), limit) })
}

pub(super) fn history(cx: &MeshContext<'_>, query: TopicHistory) -> Result<Outcome<TopicHistoryResponse>, Refusal> {
    let limit = query.limit.unwrap_or(HISTORY_DEFAULT).clamp(*HISTORY.start(), *HISTORY.end());
    let mut part = kept(cx, &query.topic, limit)?;
    let (_, topic) = named(cx, &query.topic)?;
    let (storage, lane, name) = (cx.storage(), topic.clone(), query.topic.clone());
    let slow = async move {
        if let Some(id) = &query.before_id {
            part.before_seq = message(&storage, &part, "beforeId", id).await?.seq;
        }
        let rows = match &query.replies_to_id {
            Some(id) => {
                let all = TopicPart { before_seq: i64::MAX, ..part.clone() };
                let parent = message(&storage, &all, "repliesToId", id).await?;
                messages::topic_replies(&storage, &part, parent.id.as_str()).await?
            }
            None if query.pinned => {
                let seqs = store::pinned(&storage, &topic, *HISTORY.end()).await?;
                messages::topic_at(&storage, &part, &seqs).await?
            }
            None => messages::topic_history(&storage, &part).await?,
        };
        Ok::<_, Refusal>(decorated(&storage, rows).await?)
    };
    Ok(Topics::work(lane, slow, |_, _, messages| Ok(Outcome::Answer(TopicHistoryResponse { topic: name, messages }))))
}

pub(super) fn mark_read(cx: &MeshContext<'_>, request: &TopicMarkRead) -> Result<Outcome<Nothing>, Refusal> {
    let (own, topic) = named(cx, &request.topic)?;
    let (storage, now, lane) = (cx.storage(), cx.now_ms(), topic.clone());
    let slow = async move {
        let upto = messages::max_seq(&storage).await?;
        store::mark_read(&storage, &topic, &own, upto, now).await
    };
    Ok(Topics::work(lane, slow, |_, _, _| Ok(Outcome::Answer(Nothing {}))))
}

/// The text of a body that the broker can read.
pub(super) fn plain(message: &StoredMessage) -> Option<String> {
    // Clients of all versions write a nonce there, too; it has no meaning.
    if message.body_version != 1 {
        return None;
    }
    String::from_utf8(STANDARD.decode(&message.ciphertext).ok()?).ok()
}

/// Whether every word of a search is in a message.
fn has_all(words: &[String], message: &StoredMessage) -> bool {
    plain(message).is_some_and(|text| {
        let text = text.to_lowercase();
        words.iter().all(|word| text.contains(word))
    })
}

pub(super) fn search(cx: &mut MeshContext<'_>, query: &TopicSearch) -> Result<Outcome<TopicSearchResult>, Refusal> {
    let chars = query.text.trim().chars().count();
    if !(MIN_QUERY_CHARS..=MAX_QUERY_CHARS).contains(&chars) {
        return Err(invalid("`text`: expected 2 to 256 characters"));
    }
    let words: Vec<String> = query.text.to_lowercase().split_whitespace().map(str::to_owned).collect();
    let limit = query.limit.unwrap_or(USUAL_HITS).clamp(1, MAX_HITS) as usize;
    let before_seq = query.cursor.map_or(i64::MAX, |seq| i64::try_from(seq).unwrap_or(i64::MAX));
    let (own, now) = (cx.asker()?.member.clone(), cx.now_ms());
    let topics: HashMap<TopicId, (String, i64)> = match &query.topic {
        Some(topic) => vec![cx.topic(topic)?],
        None => cx.visible_topics()?,
    }
    .into_iter()
    .map(|topic| (topic.id.clone(), (topic.name.clone(), topic.kept_since_ms(now))))
    .collect();
    cx.count_write(&SEARCHES_PER_MINUTE, Some(&own))?;
    let (storage, lane) = (cx.storage(), cx.own_lane::<Topics>());
    let slow = async move {
        let part = TopicPart {
            topics: topics.keys().cloned().collect(),
            since_ms: topics.values().map(|(_, since)| *since).min().unwrap_or(0),
            before_seq,
            after_seq: -1,
            limit: PAGE,
        };
        let (rows, next) = scan(&storage, part, limit, |message| {
            let since = message.topic_id.as_ref().and_then(|topic| topics.get(topic)).map(|(_, since)| *since);
            since.is_some_and(|since| message.created_at_ms > since) && has_all(&words, message)
        })
        .await?;
        let name = |row: &StoredMessage| {
            let topic = row.topic_id.as_ref().and_then(|topic| topics.get(topic));
            topic.map(|(name, _)| name.clone()).unwrap_or_default()
        };
        let names: Vec<String> = rows.iter().map(name).collect();
        let found = decorated(&storage, rows).await?.into_iter().zip(names);
        // What was deleted is found by no word.
        let found = found.filter(|(message, _)| message.deleted_at.is_none());
        let messages = found.map(|(message, topic)| TopicHit { topic, message }).collect();
        Ok::<_, DbError>(TopicSearchResult { messages, next })
    };
    Ok(Topics::work_in(lane, slow, |_, _, found| Ok(Outcome::Answer(found))))
}

/// Looks through messages, newest first, until there are enough hits or enough was looked at; then says where to go on.
async fn scan(
    db: &MeshDb,
    mut part: TopicPart,
    limit: usize,
    fits: impl Fn(&StoredMessage) -> bool,
) -> Result<(Vec<StoredMessage>, Option<u64>), DbError> {
    let (mut hits, mut scanned) = (Vec::new(), 0);
    while scanned < MAX_SCANNED {
        let rows = messages::topic_history(db, &part).await?;
        let whole = rows.len() == part.limit as usize;
        for row in rows {
            scanned += 1;
            part.before_seq = row.seq;
            if fits(&row) {
                hits.push(row);
            }
            if hits.len() == limit {
                return Ok((hits, u64::try_from(part.before_seq).ok()));
            }
        }
        if !whole {
            return Ok((hits, None));
        }
    }
    Ok((hits, u64::try_from(part.before_seq).ok()))
}
