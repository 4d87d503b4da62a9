//! Results that are too large for a frame, until their callers have read them.

use std::collections::HashMap;

use claudemesh_protocol::features::mcp_servers::{Raw, limits};

/// Bytes of all results that wait. More at once are refused.
const MAX_HELD_BYTES: usize = 256 << 20;

/// A result in parts.
struct Held {
    text: Raw,
    /// Where each part ends.
    ends: Vec<usize>,
    left: usize,
}

/// The results that wait.
#[derive(Default)]
pub(super) struct Results {
    held: HashMap<String, Held>,
    bytes: usize,
}

impl Results {
    /// Holds a result; answers the number of its parts, `None` when too much waits already.
    pub(super) fn hold(&mut self, call_id: String, text: Raw) -> Option<u32> {
        let bytes = text.as_str().len();
        if self.bytes + bytes > MAX_HELD_BYTES {
            return None;
        }
        let ends = ends_of(text.as_str());
        let parts = u32::try_from(ends.len()).ok()?;
        self.bytes += bytes;
        self.held.insert(call_id, Held { left: ends.len(), text, ends });
        Some(parts)
    }

    /// A part. With the last one the result is let go.
    pub(super) fn part(&mut self, call_id: &str, part: u32) -> Option<String> {
        let held = self.held.get_mut(call_id)?;
        let at = usize::try_from(part).ok()?;
        let end = *held.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| held.ends[before]);
        let data = held.text.as_str()[start..end].to_owned();
        held.left -= 1;
        if held.left == 0 {
            self.forget(call_id);
        }
        Some(data)
    }

    /// No one reads it on.
    pub(super) fn forget(&mut self, call_id: &str) {
        if let Some(held) = self.held.remove(call_id) {
            self.bytes -= held.text.as_str().len();
        }
    }

    /// The connection was lost: the broker knows of none of them.
    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.bytes = 0;
    }
}

/// Where the parts of a text end: between two characters.
fn ends_of(text: &str) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let mut end = (at + limits::MAX_PART_BYTES).min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        ends.push(end);
        at = end;
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_put_together_again() {
        let text = format!("\"{}\"", "é".repeat(limits::MAX_PART_BYTES));
        let mut results = Results::default();
        let parts = results.hold("c".into(), Raw::parse(text.clone()).unwrap()).unwrap();
        let read: Vec<String> = (0..parts).map(|part| results.part("c", part).unwrap()).collect();
        assert!(read.iter().all(|part| part.len() <= limits::MAX_PART_BYTES));
        assert_eq!((parts, read.concat() == text, results.bytes), (3, true, 0));
        assert_eq!((results.part("c", 0), results.part("none", 0)), (None, None));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut results = Results::default();
        let text = Raw::parse(format!("\"{}\"", "x".repeat(MAX_HELD_BYTES / 2 - 2))).unwrap();
        for id in ["a", "b"] {
            assert!(results.hold(id.into(), text.clone()).is_some());
        }
        let small = || Raw::parse("1".into()).unwrap();
        assert_eq!(results.hold("c".into(), small()), None);
        results.forget("a");
        assert_eq!(results.hold("c".into(), small()), Some(1));
        results.clear();
        assert_eq!(results.bytes, 0);
    }
}
