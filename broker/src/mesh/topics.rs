//! The topics of a mesh in memory: messaging routes by them, the feature `topics` changes them.

use std::collections::{BTreeMap, HashMap};

use crate::refusal::Refusal;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::topics::Visibility;
use claudemesh_protocol::id::{MemberId, TopicId};

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
    /// In joining order.
    pub subscribers: Vec<MemberId>,
}

impl TopicState {
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

/// A topic that a member may see.
///
/// # Errors
/// `topic_not_found`, also for topics that are hidden from the member: their existence is not told.
pub fn readable<'a>(book: &'a TopicBook, member: &MemberId, text: &str) -> Result<&'a TopicState, Refusal> {
    book.find(text)
        .filter(|topic| topic.visible_to(member))
        .ok_or_else(|| Refusal::new(ErrorCode::TopicNotFound, "no such topic"))
}
