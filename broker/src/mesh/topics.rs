//! The topics of a mesh in memory: messaging routes by them, the feature `topics` changes them.

use std::collections::{BTreeMap, HashMap};

use super::context::MeshContext;
use super::peers::Peer;
use crate::refusal::Refusal;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::topics::Visibility;
use claudemesh_protocol::features::topics::limits::USUAL_RETENTION_DAYS;
use claudemesh_protocol::id::{MemberId, TopicId};

/// A day, in milliseconds.
pub const DAY_MS: i64 = 86_400_000;

/// What a subscriber may do beside reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRole {
    /// Changes the topic, its members, and messages of others.
    Lead,
    /// Writes. Any word that is none of the others has these rights.
    Member,
    /// Only reads.
    Observer,
}

impl TopicRole {
    /// The role of a word.
    pub fn of(word: &str) -> Self {
        match word {
            "lead" => Self::Lead,
            "observer" => Self::Observer,
            _ => Self::Member,
        }
    }
}

/// A topic with its subscribers.
#[derive(Clone, Debug)]
pub struct TopicState {
    /// Id.
    pub id: TopicId,
    /// Name without `#`.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Who may see it.
    pub visibility: Visibility,
    /// Who made it.
    pub created_by: MemberId,
    /// Wall ms.
    pub created_at_ms: i64,
    /// How long it keeps its messages; `None` for the usual time.
    pub retention_ms: Option<i64>,
    /// In joining order.
    pub subscribers: Vec<MemberId>,
    /// The words of the subscribers' roles; without one it is `member`.
    pub roles: HashMap<MemberId, String>,
}

impl TopicState {
    /// The word of a subscriber's role; `None` of who does not subscribe.
    pub fn word(&self, member: &MemberId) -> Option<&str> {
        let own = self.subscribers.contains(member);
        own.then(|| self.roles.get(member).map_or("member", String::as_str))
    }

    /// What a member may do. Who does not subscribe may write where it may read.
    pub fn role(&self, member: &MemberId) -> TopicRole {
        self.word(member).map_or(TopicRole::Member, TopicRole::of)
    }

    /// Adds a subscriber, or changes its role.
    pub fn put_member(&mut self, member: MemberId, word: &str) {
        if !self.subscribers.contains(&member) {
            self.subscribers.push(member.clone());
        }
        self.roles.insert(member, word.to_owned());
    }

    /// Removes a subscriber.
    pub fn remove_member(&mut self, member: &MemberId) {
        self.subscribers.retain(|one| one != member);
        self.roles.remove(member);
    }

    /// Messages up to this time are kept no more, Unix milliseconds.
    pub fn kept_since_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.retention_ms.unwrap_or(i64::from(USUAL_RETENTION_DAYS) * DAY_MS))
    }

    /// Whether a member may see, join and read it.
    pub fn visible_to(&self, member: &MemberId) -> bool {
        self.visibility == Visibility::Public || self.subscribers.contains(member)
    }
}

/// All topics, by name.
#[derive(Debug, Default)]
pub struct TopicBook {
    by_name: BTreeMap<String, TopicState>,
    names: HashMap<TopicId, String>,
}

impl TopicBook {
    /// Adds or replaces a topic.
    pub fn put(&mut self, topic: TopicState) {
        self.names.insert(topic.id.clone(), topic.name.clone());
        self.by_name.insert(topic.name.clone(), topic);
    }

    /// Forgets a topic that could not be stored.
    pub fn remove(&mut self, id: &TopicId) {
        if let Some(name) = self.names.remove(id) {
            self.by_name.remove(&name);
        }
    }

    /// By id, then by name.
    pub fn find(&self, text: &str) -> Option<&TopicState> {
        let text = text.trim().trim_start_matches('#');
        self.names.get(text).and_then(|name| self.by_name.get(name)).or_else(|| self.by_name.get(text))
    }

    /// By id, to change.
    pub fn get_mut(&mut self, id: &TopicId) -> Option<&mut TopicState> {
        self.names.get(id).and_then(|name| self.by_name.get_mut(name))
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = &TopicState> {
        self.by_name.values()
    }
}

impl MeshContext<'_> {
    /// A topic that the caller may see.
    ///
    /// # Errors
    /// As [`readable`].
    pub fn topic(&self, text: &str) -> Result<&TopicState, Refusal> {
        let found = readable(self.topics(), &self.asker()?.member, text)?;
        if self.reaches(&found.name) { Ok(found) } else { Err(ErrorCode::ApiKeyTopicOutOfScope.into()) }
    }

    /// The topics that the caller may see, by name.
    ///
    /// # Errors
    /// As [`MeshContext::asker`].
    pub fn visible_topics(&self) -> Result<Vec<&TopicState>, Refusal> {
        let own = &self.asker()?.member;
        let seen = self.topics().iter().filter(|topic| topic.visible_to(own) && self.reaches(&topic.name));
        Ok(seen.collect())
    }
}

/// A topic that a member may write to.
///
/// # Errors
/// As [`readable`]; `forbidden` for an observer.
pub fn writable<'a>(book: &'a TopicBook, sender: &Peer, text: &str) -> Result<&'a TopicState, Refusal> {
    let found = readable(book, &sender.member, text)?;
    if found.role(&sender.member) == TopicRole::Observer {
        return Err(Refusal::new(ErrorCode::Forbidden, "observers of a topic read it and do not write there"));
    }
    Ok(found)
}

/// A topic that a member may see.
///
/// # Errors
/// `topic_not_found`, also for topics that are hidden from the member: their existence is not told.
pub fn readable<'a>(book: &'a TopicBook, member: &MemberId, text: &str) -> Result<&'a TopicState, Refusal> {
    book.find(text)
        .filter(|topic| topic.visible_to(member))
        .ok_or_else(|| Refusal::new(ErrorCode::TopicNotFound, "no such topic"))
}
