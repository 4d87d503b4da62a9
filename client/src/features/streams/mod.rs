//! Streams: logs of JSON entries that are kept and pushed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claudemesh_protocol::features::streams::{Edge, Position};
use claudemesh_protocol::time::parse_iso;

pub mod cli;
pub mod notes;
pub mod tail;
pub mod tools;

/// A place in a stream, as people and models write it: `now`, `start`, an offset, or a time such as `2026-04-08T09:53:03Z`.
///
/// # Errors
/// What was expected.
pub fn parse_place(text: &str) -> Result<Position, String> {
    match text.trim() {
        "now" => Ok(Position::Word(Edge::Now)),
        "start" => Ok(Position::Word(Edge::Start)),
        text => {
            let offset = || text.parse().ok().map(Position::Offset);
            let time = || parse_iso(text).map(|time| Position::Time { time });
            let expected = "expected now, start, an offset, or a time such as 2026-04-08T09:53:03Z";
            offset().or_else(time).ok_or_else(|| expected.to_owned())
        }
    }
}

/// A stream that a session is subscribed to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscription {
    /// Offset of the entry that comes next.
    pub next: u64,
    /// Notes of this minute.
    pub shown: u32,
    /// When this minute began, in Unix milliseconds.
    pub minute_ms: i64,
}

/// The streams of one mesh that a session is subscribed to, so that it is again after a lost connection.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions(Arc<Mutex<BTreeMap<String, Subscription>>>);

impl Subscriptions {
    /// All of them.
    pub fn all(&self) -> MutexGuard<'_, BTreeMap<String, Subscription>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_words_offsets_and_times() {
        assert_eq!(parse_place(" now"), Ok(Position::NOW));
        assert_eq!(parse_place("start"), Ok(Position::START));
        assert_eq!(parse_place("41"), Ok(Position::Offset(41)));
        assert_eq!(parse_place("2026-04-08T09:53:03Z"), Ok(Position::Time { time: 1_775_641_983_000 }));
        for bad in ["", "-1", "end", "1.5"] {
            assert!(parse_place(bad).unwrap_err().starts_with("expected now"), "{bad}");
        }
    }
}
