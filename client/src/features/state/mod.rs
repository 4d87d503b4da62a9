//! Shared state: one JSON value per key.

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
