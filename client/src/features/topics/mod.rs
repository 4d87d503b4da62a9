//! Topics: named channels with a history. Writing there is sending to `#name`.

use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::features::topics::{TopicHistory, TopicMessage};

use crate::connection::{Connection, ConnectionError};
use crate::session::notes::harmless;

pub mod cli;
pub mod tools;

/// Most messages of one history.
pub const MAX_HISTORY: u32 = 200;
/// Messages of a history, unless another number is asked for.
pub const USUAL_HISTORY: u32 = 50;
/// Characters of one text where a model reads the history; a message can be as long as a file.
const MAX_TEXT_CHARS: usize = 4_000;

/// A message of a history.
pub struct Entry {
    /// As the broker keeps it.
    pub message: TopicMessage,
    /// Its text; `None` when it is sealed or damaged.
    pub text: Option<String>,
}

impl Connection {
    /// Messages of a topic, oldest first: the newest `limit`, or those right before a message.
    ///
    /// # Errors
    /// `topic_not_found`, `not_found` for the message, or of the transport.
    pub async fn topic_history(
        &self,
        topic: &str,
        limit: u32,
        before: Option<&str>,
    ) -> Result<Vec<Entry>, ConnectionError> {
        let (topic, before_id) = (topic.to_owned(), before.map(str::to_owned));
        let newest_first = self
            .request(TopicHistory { topic, limit: Some(limit), before_id, ..TopicHistory::default() })
            .await?
            .messages;
        Ok(newest_first.into_iter().rev().map(Entry::of).collect())
    }
}

impl Entry {
    /// A message with its text.
    fn of(message: TopicMessage) -> Self {
        let text = match message.body_version {
            _ if message.deleted_at.is_some() => None,
            1 => envelope::decode_public(&message.ciphertext).ok(),
            _ => None,
        };
        Self { message, text }
    }

    /// The text to show; of a long one the beginning, with its length.
    fn shown(&self) -> (String, Option<usize>) {
        if self.message.deleted_at.is_some() {
            return ("(deleted)".to_owned(), None);
        }
        let Some(text) = &self.text else { return ("(a text that this client cannot open)".to_owned(), None) };
        let text = harmless(text);
        match text.chars().count() {
            chars if chars > MAX_TEXT_CHARS => (text.chars().take(MAX_TEXT_CHARS).chain(['…']).collect(), Some(chars)),
            _ => (text, None),
        }
    }
}

/// The newest entries that `budget` characters hold, at least one, for places where hosts cut what is longer.
fn newest_that_fit(mut entries: Vec<Entry>, budget: usize) -> Vec<Entry> {
    let mut length = 0;
    let fitting = entries.iter().rev().take_while(|entry| {
        let fits = length < budget;
        length += entry.shown().0.chars().count();
        fits
    });
    let first = entries.len() - fitting.count();
    entries.split_off(first)
}

/// A topic's name as people write it.
fn hashed(topic: &str) -> String {
    format!("#{}", topic.trim_start_matches('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: Option<String>) -> Entry {
        let message = serde_json::from_value(serde_json::json!({
            "id": "m", "senderPubkey": "", "senderMemberId": "", "senderName": "", "nonce": "", "ciphertext": "",
            "bodyVersion": 1, "createdAt": ""
        }));
        Entry { message: message.unwrap(), text }
    }

    #[test]
    fn the_newest_fit_and_long_texts_are_beginnings() {
        let entries = || (0..5).map(|number| entry(Some(number.to_string().repeat(100)))).collect::<Vec<_>>();
        let starts = |list: &[Entry]| list.iter().map(|one| one.shown().0[..1].to_owned()).collect::<String>();
        assert_eq!(starts(&newest_that_fit(entries(), 250)), "234");
        assert_eq!(starts(&newest_that_fit(entries(), 0)), "");
        assert_eq!(starts(&newest_that_fit(entries(), 1)), "4");
        assert_eq!(starts(&newest_that_fit(entries(), 100_000)), "01234");
        let (text, chars) = entry(Some("é".repeat(MAX_TEXT_CHARS + 1))).shown();
        assert_eq!((text.chars().count(), chars), (MAX_TEXT_CHARS + 1, Some(MAX_TEXT_CHARS + 1)));
        assert_eq!(entry(Some("<system>".to_owned())).shown(), ("&lt;system>".to_owned(), None));
        assert!(entry(None).shown().0.contains("cannot open"));
    }
}
