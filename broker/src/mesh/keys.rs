//! The API keys of a mesh in memory: requests of programs are held to them, the feature `api_keys` changes them.

use std::collections::HashMap;

use claudemesh_protocol::call::RequestRow;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::api_keys::KeyCapability;
use claudemesh_protocol::id::MemberId;

use super::context::MeshContext;
use super::principal::Principal;
use crate::refusal::Refusal;

/// What the rate of a key is counted over, in milliseconds.
const MINUTE_MS: i64 = 60_000;
/// Requests that a key which is confined to topics may make: what they tell is of those topics alone.
const OF_TOPICS: &[&str] = &[
    "send",
    "topic_list",
    "topic_members",
    "topic_history",
    "topic_search",
    "topic_mark_read",
    "topic_edit",
    "topic_delete_message",
    "topic_react",
    "topic_pin",
    "topic_update",
    "topic_set_member",
    "topic_remove_member",
    "notification_list",
];

/// A key that lives.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyState {
    /// Id.
    pub id: String,
    /// The member that it acts for.
    pub member: MemberId,
    /// What it may do.
    pub capabilities: Vec<KeyCapability>,
    /// Names of the topics that it is confined to.
    pub scopes: Option<Vec<String>>,
    /// Unix milliseconds.
    pub expires_at_ms: Option<i64>,
    /// Last use that storage does not know of, Unix milliseconds.
    pub used_at_ms: Option<i64>,
    /// Begin of the minute that is counted, on the monotonic clock, and the requests in it.
    minute: (i64, u64),
}

/// How much of its rate a key has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRate {
    /// Requests in a minute.
    pub limit: u64,
    /// Requests that are left in this one.
    pub remaining: u64,
    /// Milliseconds until the next one.
    pub reset_ms: u64,
}

impl KeyState {
    /// A key that was not used since the mesh was loaded.
    pub fn new(id: String, member: MemberId, capabilities: Vec<KeyCapability>) -> Self {
        Self { id, member, capabilities, scopes: None, expires_at_ms: None, used_at_ms: None, minute: (i64::MIN, 0) }
    }

    /// Whether it was given a capability.
    pub fn has(&self, one: KeyCapability) -> bool {
        self.capabilities.contains(&one) || self.capabilities.contains(&KeyCapability::Admin)
    }

    /// Whether it lets its member do this.
    pub fn allows(&self, capability: Capability) -> bool {
        let of_key = KeyCapability::ALL.into_iter().filter(|one| self.has(*one));
        self.has(KeyCapability::Admin) || of_key.filter_map(capability_of).any(|one| one == capability)
    }

    /// Whether it reaches a topic.
    pub fn reaches(&self, topic: &str) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|scope| scope == topic))
    }

    /// Counts a request.
    ///
    /// # Errors
    /// `rate_limited`, with the time to wait.
    pub fn count(&mut self, limit: u64, mono_ms: i64) -> Result<KeyRate, Refusal> {
        if mono_ms.saturating_sub(self.minute.0) >= MINUTE_MS {
            self.minute = (mono_ms, 0);
        }
        let reset_ms = u64::try_from(self.minute.0 + MINUTE_MS - mono_ms).unwrap_or(0);
        if self.minute.1 >= limit {
            return Err(Refusal::limited(reset_ms));
        }
        self.minute.1 += 1;
        Ok(KeyRate { limit, remaining: limit - self.minute.1, reset_ms })
    }
}

/// What a member has to be allowed that gives a key this capability; `None` for all that it may.
pub fn capability_of(one: KeyCapability) -> Option<Capability> {
    match one {
        KeyCapability::Send => Some(Capability::CanSend),
        KeyCapability::Read => Some(Capability::CanReadShared),
        KeyCapability::StateWrite => Some(Capability::CanWriteState),
        KeyCapability::Admin => None,
    }
}

/// The keys that live, by id.
#[derive(Debug, Default)]
pub struct KeyBook(HashMap<String, KeyState>);

impl KeyBook {
    /// Adds a key.
    pub fn put(&mut self, key: KeyState) {
        self.0.insert(key.id.clone(), key);
    }

    /// A key ends.
    pub fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// All keys, in any order.
    pub fn iter(&self) -> impl Iterator<Item = &KeyState> {
        self.0.values()
    }

    /// All keys, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut KeyState> {
        self.0.values_mut()
    }

    /// A key whose time is not over.
    ///
    /// # Errors
    /// `api_key_invalid`.
    pub fn live(&self, id: &str, now_ms: i64) -> Result<&KeyState, Refusal> {
        let lives = |key: &&KeyState| key.expires_at_ms.is_none_or(|end| now_ms < end);
        self.0.get(id).filter(lives).ok_or_else(|| ErrorCode::ApiKeyInvalid.into())
    }

    /// As [`KeyBook::live`], and notes that it is used.
    ///
    /// # Errors
    /// `api_key_invalid`.
    pub fn used(&mut self, id: &str, now_ms: i64) -> Result<&mut KeyState, Refusal> {
        self.live(id, now_ms)?;
        let key = self.0.get_mut(id).ok_or(ErrorCode::ApiKeyInvalid)?;
        key.used_at_ms = Some(now_ms);
        Ok(key)
    }
}

/// Refuses a key without a capability.
///
/// # Errors
/// `api_key_missing_capability`, which names it.
pub fn require(key: &KeyState, needed: KeyCapability) -> Result<(), Refusal> {
    if key.has(needed) {
        return Ok(());
    }
    let message = format!("the API key lacks the capability {}", needed.as_str());
    Err(Refusal::new(ErrorCode::ApiKeyMissingCapability, message))
}

impl MeshContext<'_> {
    /// The key that the caller has come in with.
    pub fn key(&self) -> Option<&KeyState> {
        match self.caller().map(|caller| &caller.from) {
            Some(Principal::Key(id)) => self.core.keys.live(id, self.now_ms()).ok(),
            Some(Principal::Peer(_) | Principal::Member(_)) | None => None,
        }
    }

    /// The keys of the mesh.
    pub fn keys(&self) -> &KeyBook {
        &self.core.keys
    }

    /// The keys of the mesh, to change; storage has it already.
    pub fn keys_mut(&mut self) -> &mut KeyBook {
        &mut self.core.keys
    }

    /// Refuses a request that the caller's key is not for. What its member may not do is refused elsewhere.
    ///
    /// # Errors
    /// `api_key_invalid`, `api_key_missing_capability`, `api_key_topic_out_of_scope`.
    pub fn check_key(&self, row: &RequestRow) -> Result<(), Refusal> {
        let key = match self.caller().map(|caller| &caller.from) {
            // One that has ended since may do nothing at all.
            Some(Principal::Key(id)) => self.core.keys.live(id, self.now_ms())?,
            Some(Principal::Peer(_) | Principal::Member(_)) | None => return Ok(()),
        };
        match row.needs {
            None => require(key, KeyCapability::Read)?,
            Some(needed) if !key.allows(needed) => {
                let message = format!("the API key does not have what {} needs", needed.as_str());
                return Err(Refusal::new(ErrorCode::ApiKeyMissingCapability, message));
            }
            Some(_) => {}
        }
        if key.scopes.is_some() && !OF_TOPICS.contains(&row.tag) {
            return Err(Refusal::new(ErrorCode::ApiKeyTopicOutOfScope, "the API key is confined to topics"));
        }
        Ok(())
    }

    /// Whether the caller's key, if it has come in with one, reaches a topic.
    pub(super) fn reaches(&self, topic: &str) -> bool {
        self.key().is_none_or(|key| key.reaches(topic))
    }
}
