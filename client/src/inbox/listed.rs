//! Messages as lists show them to a person: what each one is, whether it is held, which question it answers, and what to do next.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::permissions;
use super::questions::{DECLINE, QUESTION, QuestionState, REPLY, states};
use super::schema::{deliveries, messages};
use super::sent::hidden;
use super::{Inbox, InboxError, MAX_LIST, Message, MessageObject, Person, Verdict};

/// Characters of an id in lists: enough for every verb that takes one.
pub const SHORT_ID: usize = 8;

/// An id as lists show it.
pub fn short_id(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Words.
    Message,
    /// Someone waits for an answer.
    Question,
    /// The answer to a question.
    Answer,
    /// There will be no answer.
    Decline,
    /// A session asks for a permission.
    PermissionRequest,
    /// Something that happened.
    Event,
}

impl Sort {
    /// Of a message with this subtype and event.
    pub fn of(subtype: Option<&str>, event: Option<&str>) -> Self {
        match (subtype, event) {
            (Some(QUESTION), _) => Self::Question,
            (Some(REPLY), _) => Self::Answer,
            (Some(DECLINE), _) => Self::Decline,
            (Some(permissions::REQUEST), _) => Self::PermissionRequest,
            (Some(permissions::ANSWER | permissions::CLOSED), _) | (_, Some(_)) => Self::Event,
            _ => Self::Message,
        }
    }

    /// The word in texts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Question => "question",
            Self::Answer => "answer",
            Self::Decline => "decline",
            Self::PermissionRequest => "permission request",
            Self::Event => "event",
        }
    }
}

/// A message in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The message.
    pub message: Message,
    /// What it is.
    pub sort: Sort,
    /// The rule for incoming messages keeps it from a session.
    pub held: bool,
    /// Where a question stands.
    pub state: Option<QuestionState>,
    /// Text of the question that this answers or declines, when it was asked from this machine.
    pub asked: Option<String>,
}

impl Listed {
    /// The command that comes next; `None` when there is nothing to do.
    pub fn next(&self) -> Option<String> {
        let id = short_id(&self.message.message_id);
        match self.sort {
            _ if self.held => Some(format!("claudemesh held release {id}")),
            Sort::Question if self.state.is_none_or(|state| state != QuestionState::Answered) => {
                Some(format!("claudemesh reply {id} \"<answer>\""))
            }
            Sort::PermissionRequest => Some("claudemesh permit".into()),
            Sort::Message | Sort::Answer | Sort::Decline => Some(format!("claudemesh reply {id} \"<text>\"")),
            Sort::Question | Sort::Event => None,
        }
    }

    /// The object for scripts.
    pub fn object(&self, mesh_slug: &str) -> ListedObject {
        ListedObject {
            message: self.message.object(mesh_slug),
            marks: Marks {
                sort: self.sort,
                held: self.held,
                state: self.state.map(|state| state.as_str().to_owned()),
                asked: self.asked.clone(),
                next: self.next(),
            },
        }
    }
}

/// A message of a list, for scripts.
#[derive(Serialize, JsonSchema)]
pub struct ListedObject {
    #[serde(flatten)]
    message: MessageObject,
    #[serde(flatten)]
    marks: Marks,
}

/// What a list says of a message beside the message.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Marks {
    /// What it is.
    #[serde(rename = "type")]
    sort: Sort,
    /// The rule for incoming messages keeps it from a session.
    held: bool,
    /// Where a question stands: `pending`, `delivered`, `answered`, `declined` or `expired`.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// Text of the question that this answers or declines.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<String>,
    /// The command that comes next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Inbox {
    /// What there is to say of messages beside them.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn listed(&mut self, list: Vec<Message>, now_ms: i64) -> Result<Vec<Listed>, InboxError> {
        let held = held_seqs(&mut self.db)?;
        let any_question = list.iter().any(|message| message.subtype.as_deref() == Some(QUESTION));
        let states: HashMap<i64, QuestionState> =
            if any_question { states(&mut self.db, now_ms)? } else { HashMap::new() };
        let mut all = Vec::with_capacity(list.len());
        for message in list {
            let sort = Sort::of(message.subtype.as_deref(), message.event.as_deref());
            let asked = match (sort, &message.reply_to_id) {
                (Sort::Answer | Sort::Decline, Some(id)) => self.text_of(id)?,
                _ => None,
            };
            let (held, state) = (held.contains(&message.seq), states.get(&message.seq).copied());
            all.push(Listed { message, sort, held, state, asked });
        }
        Ok(all)
    }
}

impl Person<'_> {
    /// What no one has seen, oldest first and at most `limit`, then what is held, however often that was looked at.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn news(&mut self, limit: i64, now_ms: i64) -> Result<Vec<Listed>, InboxError> {
        let (held, hidden) = (held_seqs(&mut self.0.db)?, hidden(&mut self.0.db)?);
        let to_others = messages::recipient_pubkey
            .is_null()
            .or(messages::recipient_pubkey.assume_not_null().ne_all(hidden.clone()));
        let mut list: Vec<Message> = messages::table
            .filter(messages::seen_at_ms.is_null())
            .filter(messages::seq.ne_all(&held))
            .filter(messages::sender_pubkey.ne_all(&hidden))
            .filter(to_others)
            .order(messages::seq)
            .limit(limit.clamp(1, MAX_LIST))
            .select(Message::as_select())
            .load(&mut self.0.db)?;
        let kept: Vec<Message> = messages::table
            .filter(messages::seq.eq_any(&held))
            .filter(messages::sender_pubkey.ne_all(&hidden))
            .order(messages::seq)
            .limit(MAX_LIST)
            .select(Message::as_select())
            .load(&mut self.0.db)?;
        list.extend(kept);
        self.0.listed(list, now_ms)
    }

    /// The newest `limit` messages, seen or not, oldest first.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn everything(&mut self, limit: i64, now_ms: i64) -> Result<Vec<Listed>, InboxError> {
        let hidden = hidden(&mut self.0.db)?;
        let to_others = messages::recipient_pubkey
            .is_null()
            .or(messages::recipient_pubkey.assume_not_null().ne_all(hidden.clone()));
        let mut list: Vec<Message> = messages::table
            .filter(messages::sender_pubkey.ne_all(&hidden))
            .filter(to_others)
            .order(messages::seq.desc())
            .limit(limit.clamp(1, MAX_LIST))
            .select(Message::as_select())
            .load(&mut self.0.db)?;
        list.reverse();
        self.0.listed(list, now_ms)
    }

    /// Messages that arrived after the one with this local number, oldest first; nothing is marked.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn after(&mut self, seq: i64, now_ms: i64) -> Result<Vec<Listed>, InboxError> {
        let hidden = hidden(&mut self.0.db)?;
        let to_others = messages::recipient_pubkey
            .is_null()
            .or(messages::recipient_pubkey.assume_not_null().ne_all(hidden.clone()));
        let list: Vec<Message> = messages::table
            .filter(messages::seq.gt(seq))
            .filter(messages::sender_pubkey.ne_all(&hidden))
            .filter(to_others)
            .order(messages::seq)
            .limit(MAX_LIST)
            .select(Message::as_select())
            .load(&mut self.0.db)?;
        self.0.listed(list, now_ms)
    }

    /// How many messages no one has seen, how many are held, and how many questions wait for an answer.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn tally(&mut self, now_ms: i64) -> Result<Tally, InboxError> {
        self.0.tally(now_ms)
    }
}

/// What waits for a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tally {
    /// Messages that no one has seen.
    pub unread: i64,
    /// Messages that the rule keeps from a session.
    pub held: i64,
    /// Questions without an answer.
    pub questions: i64,
}

impl Inbox {
    /// The newest local number; 0 of an empty inbox.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn last_seq(&mut self) -> Result<i64, InboxError> {
        Ok(messages::table.select(diesel::dsl::max(messages::seq)).first::<Option<i64>>(&mut self.db)?.unwrap_or(0))
    }

    /// As [`Person::tally`]: numbers say nothing of what peers wrote.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn tally(&mut self, now_ms: i64) -> Result<Tally, InboxError> {
        let (held, hidden) = (held_seqs(&mut self.db)?, hidden(&mut self.db)?);
        let to_others = messages::recipient_pubkey
            .is_null()
            .or(messages::recipient_pubkey.assume_not_null().ne_all(hidden.clone()));
        let unread: i64 = messages::table
            .filter(messages::seen_at_ms.is_null())
            .filter(messages::seq.ne_all(&held))
            .filter(messages::sender_pubkey.ne_all(&hidden))
            .filter(to_others)
            .count()
            .get_result(&mut self.db)?;
        let questions = self.person().questions(false, now_ms)?.len();
        let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        Ok(Tally { unread, held: count(held.len()), questions: count(questions) })
    }
}

/// Messages that are held from some session.
fn held_seqs(db: &mut SqliteConnection) -> QueryResult<Vec<i64>> {
    deliveries::table
        .filter(deliveries::shown_at_ms.is_null())
        .filter(deliveries::inbound.eq(Verdict::Hold.as_str()))
        .select(deliveries::seq)
        .distinct()
        .limit(MAX_LIST)
        .load(db)
}
