//! Shared state: one JSON value per key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use claudemesh_protocol::features::state::{ListState, StateEntry, StateGreeting};
use claudemesh_protocol::session::HelloAck;
use serde_json::Value;

use crate::connection::{Connection, ConnectionError};
use crate::session::notes::harmless;

pub mod cli;
pub mod notes;
pub mod tools;

/// A list that was read to its end.
#[derive(Debug, Default)]
pub struct Listed {
    /// By key; with `since` by revision.
    pub entries: Vec<StateEntry>,
    /// Revision that the list shows at least.
    pub revision: u64,
    /// With `since`: older deletions are forgotten.
    pub incomplete: bool,
    /// There are more keys than were asked for.
    pub more: bool,
}

impl Connection {
    /// Keys with this beginning, in order, or what changed after a revision. Stops once `most` rows were read.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn list_state(
        &self,
        prefix: Option<&str>,
        since: Option<u64>,
        most: usize,
    ) -> Result<Listed, ConnectionError> {
        let mut listed = Listed::default();
        let mut cursor = None;
        loop {
            let prefix = prefix.map(str::to_owned);
            let page = self.request(ListState { prefix, limit: None, cursor, since }).await?;
            // The first page is the oldest: what changes while the others are read has a later revision.
            if listed.revision == 0 {
                listed.revision = page.revision;
            }
            listed.incomplete |= page.incomplete;
            listed.entries.extend(page.entries);
            listed.more = listed.entries.len() > most || (listed.entries.len() == most && page.next.is_some());
            listed.entries.truncate(most);
            if listed.more || page.next.is_none() {
                return Ok(listed);
            }
            cursor = page.next;
        }
    }
}

/// The revision of the mesh that a broker greets with; `None` when it knows no state.
pub fn greeted(ack: &HelloAck) -> Option<u64> {
    let greeting = serde_json::from_value::<StateGreeting>(ack.features.get("state")?.clone());
    greeting.ok().map(|greeting| greeting.revision)
}

/// How far this session knows the state of one mesh: everything up to a revision was told to it, or it was not here before.
#[derive(Clone, Debug)]
pub struct Seen(Arc<AtomicU64>);

impl Default for Seen {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(Self::NOTHING)))
    }
}

impl Seen {
    /// Before the first welcome.
    const NOTHING: u64 = u64::MAX;

    /// The broker's first welcome: what was before is no news.
    fn begin(&self, revision: u64) {
        let _ = self.0.compare_exchange(Self::NOTHING, revision, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// It was told of this revision.
    fn told(&self, revision: u64) {
        if self.revision().is_some_and(|seen| seen < revision) {
            self.0.store(revision, Ordering::Relaxed);
        }
    }

    /// The revision up to which everything was told; `None` before the first welcome.
    fn revision(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|revision| *revision != Self::NOTHING)
    }

    /// Moves to the revision of a broker that welcomes again; answers the one of before, if something is new. Storage that was put
    /// back to an older state begins anew.
    fn move_to(&self, now: u64) -> Option<u64> {
        let before = self.revision()?;
        self.0.store(now, Ordering::Relaxed);
        (before < now).then_some(before)
    }
}

/// A value as compact JSON for a model: harmless, and of a long one the beginning with its length.
pub fn shown(value: &Value, most_chars: usize) -> String {
    let text = harmless(&value.to_string());
    match text.chars().count() {
        chars if chars > most_chars => {
            let beginning: String = text.chars().take(most_chars).collect();
            format!("{beginning}… ({chars} characters)")
        }
        _ => text,
    }
}
