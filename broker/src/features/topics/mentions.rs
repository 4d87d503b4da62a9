//! Mentions: who is named in a message of a topic is told of it, and finds it in a list until it was read.

use std::collections::BTreeSet;
use std::sync::Arc;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::members::Grant;
use claudemesh_protocol::features::topics::limits::{MAX_MARKED, MAX_NOTIFICATIONS, MAX_NOTIFIED};
use claudemesh_protocol::features::topics::{
    Notification, NotificationList, NotificationListResult, NotificationRead, NotificationReadResult, TopicNotification,
};
use claudemesh_protocol::id::{MemberId, TopicId};
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::time::iso;

use super::reading::plain;
use super::store::{self, NewNotification, NotificationsPart, Wanted};
use super::{Topics, TopicsMemory};
use crate::db::DbError;
use crate::journal::Batch;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::message::NewMessage;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::allows;
use crate::refusal::{Refusal, invalid};

/// What a mention is called on the wire.
const MENTION: &str = "mention";

/// One mention of a message that is not stored yet.
struct Noted {
    member: MemberId,
    message: Arc<NewMessage>,
}

/// Mentions on their way to storage.
#[derive(Default)]
pub(super) struct Mentions {
    pending: Vec<Noted>,
    writing: Vec<Noted>,
}

impl Mentions {
    /// Notes who a message mentions: it goes to the journal with the message or before it.
    pub(super) fn note(&mut self, cx: &MeshContext<'_>, message: &Arc<NewMessage>, named: &[String]) {
        let names = if named.is_empty() {
            plain(message).map(|text| names_in(&text)).unwrap_or_default()
        } else {
            let name = |name: &String| name.trim().trim_start_matches('@').to_lowercase();
            named.iter().map(name).filter(|name| !name.is_empty()).collect()
        };
        if names.is_empty() {
            return;
        }
        let Some(topic) = message.topic_id.as_ref().and_then(|id| cx.topics().find(id.as_str())) else { return };
        let mentioned = cx.roster().members().filter(|member| {
            member.revoked_at_ms.is_none()
                && member.id != message.sender_member_id
                && names.contains(&member.display_name.to_lowercase())
                && topic.visible_to(&member.id)
                && allows(member, &message.sender_member_key, &message.sender_key, Grant::Broadcast)
        });
        let noted = |id: MemberId| Noted { member: id, message: Arc::clone(message) };
        self.pending.extend(mentioned.take(MAX_NOTIFIED).map(|member| noted(member.id.clone())));
    }

    pub(super) fn collect(&mut self, batch: &mut Batch) {
        if self.pending.is_empty() {
            return;
        }
        let row = |noted: &Noted| NewNotification {
            mesh_id: noted.message.mesh_id.to_string(),
            member_id: noted.member.to_string(),
            seq: noted.message.seq,
            message_id: noted.message.id.to_string(),
            topic_id: noted.message.topic_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            kind: MENTION.into(),
            created_at_ms: noted.message.created_at_ms,
        };
        batch.part::<NotificationsPart>().0.extend(self.pending.iter().map(row));
        self.writing.append(&mut self.pending);
    }

    /// Tells the sessions of those who are mentioned, now that it is stored. After a failure the message was refused as well.
    pub(super) fn committed(&mut self, cx: &MeshContext<'_>, stored: bool) {
        for noted in std::mem::take(&mut self.writing).into_iter().filter(|_| stored) {
            let event = ServerMessage::from(TopicNotification { notification: notification_of(&noted.message) });
            for at in cx.roster().of_member(&noted.member) {
                if cx.roster().get(*at).is_some_and(|peer| !peer.older && !peer.ephemeral) {
                    cx.push(*at, &event);
                }
            }
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.writing.is_empty()
    }
}

fn notification_of(message: &NewMessage) -> Notification {
    Notification {
        id: message.id.to_string(),
        notification_id: message.id.to_string(),
        topic_id: message.topic_id.clone().unwrap_or_else(|| TopicId::from("")),
        topic_name: message.topic_name.clone().unwrap_or_default(),
        sender_name: message.sender_name.clone(),
        sender_pubkey: message.sender_key.to_hex(),
        ciphertext: message.ciphertext.clone(),
        kind: MENTION.into(),
        read_at: None,
        created_at: iso(message.created_at_ms),
    }
}

/// Names that a text mentions: `@` and up to 64 letters, digits, `_` or `-`, with nothing of the kind before or behind; at most 16.
fn names_in(text: &str) -> BTreeSet<String> {
    let of_name = |symbol: char| symbol.is_ascii_alphanumeric() || symbol == '_' || symbol == '-';
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices('@') {
        let before = text[..at].chars().next_back();
        let name: String = text[at + 1..].chars().take_while(|symbol| of_name(*symbol)).collect();
        if !before.is_some_and(of_name) && (1..=64).contains(&name.len()) && found.len() < limits::MAX_MENTIONS {
            found.insert(name.to_lowercase());
        }
    }
    found
}

pub(super) fn list(
    cx: &MeshContext<'_>,
    request: NotificationList,
) -> Result<Outcome<NotificationListResult>, Refusal> {
    let member = cx.asker()?.member.clone();
    let wanted = Wanted {
        member: member.clone(),
        unread: request.unread,
        since_ms: request.since_ms.unwrap_or(i64::MIN),
        before: request.before_id,
        limit: request.limit.unwrap_or(MAX_NOTIFICATIONS).clamp(1, MAX_NOTIFICATIONS),
    };
    let storage = cx.storage();
    let slow = async move {
        let found = store::notified(&storage, &wanted).await.map_err(|error| match error {
            DbError::NotFound => Refusal::new(ErrorCode::NotFound, "`beforeId`: no such notification"),
            error => error.into(),
        })?;
        let unread = store::unread_notified(&storage, &member).await?;
        let ids: Vec<String> = found.iter().map(|row| row.message_id.clone()).collect();
        Ok::<_, Refusal>((found, unread, store::decorations(&storage, &ids).await?))
    };
    let then = |_: &mut TopicsMemory,
                cx: &mut MeshContext<'_>,
                (found, unread, marks): (Vec<store::Notified>, i64, store::Decorations)| {
        let row = |row: store::Notified| {
            // A topic that became private since then is told of no more.
            let topic = cx.topic(&row.topic_id).ok()?;
            let gone = marks.marks.get(&row.message_id).is_some_and(|mark| mark.deleted_at_ms.is_some());
            Some(Notification {
                id: row.message_id.clone(),
                notification_id: row.message_id,
                topic_id: topic.id.clone(),
                topic_name: topic.name.clone(),
                sender_name: row.sender_name,
                sender_pubkey: row.sender_pubkey,
                ciphertext: if gone { String::new() } else { row.ciphertext },
                kind: row.kind,
                read_at: row.read_at_ms.map(iso),
                created_at: iso(row.created_at_ms),
            })
        };
        let notifications = found.into_iter().filter_map(row).collect();
        let unread = u32::try_from(unread).unwrap_or(u32::MAX);
        Ok(Outcome::Answer(NotificationListResult { notifications, unread }))
    };
    Ok(Topics::work_in(cx.own_lane::<Topics>(), slow, then))
}

pub(super) fn read(
    cx: &MeshContext<'_>,
    request: NotificationRead,
) -> Result<Outcome<NotificationReadResult>, Refusal> {
    if request.ids.is_empty() != request.all || request.ids.len() > MAX_MARKED {
        return Err(invalid("expected `ids`, 1 to 200 of them, or `all`"));
    }
    let (member, storage, now) = (cx.asker()?.member.clone(), cx.storage(), cx.now_ms());
    let ids = Some(request.ids).filter(|_| !request.all);
    let slow = async move { store::mark_notified(&storage, &member, ids, now).await };
    Ok(Topics::work_in(cx.own_lane::<Topics>(), slow, move |_, _, marked| {
        let marked = u32::try_from(marked).unwrap_or(u32::MAX);
        Ok(Outcome::Answer(NotificationReadResult { marked, read_at: iso(now) }))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_mentioned_where_nothing_of_a_word_is_around() {
        let long = format!("@{}", "a".repeat(65));
        for (text, names) in [
            ("@Bob please", vec!["bob"]),
            ("(@bob), @eve!", vec!["bob", "eve"]),
            ("mail bob@example.org", vec![]),
            ("@@bob", vec!["bob"]),
            ("@", vec![]),
            ("ü@ada", vec!["ada"]),
            (&long, vec![]),
        ] {
            assert_eq!(names_in(text).into_iter().collect::<Vec<_>>(), names, "{text}");
        }
        let many: String = (0..40).map(|number| format!("@n{number} ")).collect();
        assert_eq!(names_in(&many).len(), 16);
    }
}
