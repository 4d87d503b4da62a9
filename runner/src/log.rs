//! The last lines of a service, in memory. Values of its secrets are replaced before a line is kept.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use claudemesh_protocol::runner::limits::MAX_LOG_LINE_BYTES;
use serde::Serialize;
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Shorter values would make holes into ordinary words.
const MIN_SECRET_BYTES: usize = 4;
const HIDDEN: &str = "[secret]";
const USUAL_LINES: usize = 1_000;
const MAX_LINES: usize = 100_000;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum From {
    Install,
    Stderr,
    Stdout,
    Runner,
}

/// A line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) n: u64,
    pub(crate) at_ms: u64,
    pub(crate) from: From,
    pub(crate) line: String,
}

#[derive(Default)]
struct Inside {
    lines: VecDeque<Line>,
    count: u64,
    most: usize,
    secrets: Vec<Zeroizing<String>>,
}

/// The log of a service.
pub(crate) struct Log {
    inside: Mutex<Inside>,
    count: watch::Sender<u64>,
}

impl Log {
    pub(crate) fn new(lines: u32) -> Self {
        let log = Self { inside: Mutex::default(), count: watch::Sender::new(0) };
        log.keep(lines);
        log
    }

    /// How many lines are kept.
    pub(crate) fn keep(&self, lines: u32) {
        self.with(|inside| inside.most = if lines == 0 { USUAL_LINES } else { (lines as usize).min(MAX_LINES) });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inside) -> T) -> T {
        act(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Values that no line may show, in place of those of before: as they are, and as base64.
    pub(crate) fn hide(&self, values: &[Zeroizing<Vec<u8>>]) {
        let mut secrets = Vec::new();
        for value in values.iter().filter(|value| value.len() >= MIN_SECRET_BYTES) {
            secrets.push(Zeroizing::new(STANDARD.encode(&**value)));
            let text = String::from_utf8_lossy(value);
            // A line never holds more than one line of a file.
            secrets.extend(
                text.lines().filter(|line| line.len() >= MIN_SECRET_BYTES).map(|line| Zeroizing::new(line.to_owned())),
            );
        }
        // The longest first: one value may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        self.with(|inside| inside.secrets = secrets);
    }

    /// A text without the values of secrets.
    pub(crate) fn without_secrets(&self, text: &str) -> String {
        self.with(|inside| hidden(text, &inside.secrets))
    }

    /// Keeps a line, and gives it back as it is kept.
    pub(crate) fn add(&self, from: From, line: &str) -> String {
        let (line, count) = self.with(|inside| {
            let mut line = hidden(line, &inside.secrets);
            let end = (0..=MAX_LOG_LINE_BYTES.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
            line.truncate(end.unwrap_or(0));
            inside.count += 1;
            while inside.lines.len() >= inside.most {
                inside.lines.pop_front();
            }
            inside.lines.push_back(Line { n: inside.count, at_ms: now_ms(), from, line: line.clone() });
            (line, inside.count)
        });
        self.count.send_replace(count);
        line
    }

    /// The last lines.
    pub(crate) fn last(&self, lines: usize) -> Vec<Line> {
        self.with(|inside| inside.lines.iter().skip(inside.lines.len().saturating_sub(lines)).cloned().collect())
    }

    /// What is kept of the lines after `n`.
    pub(crate) fn after(&self, n: u64) -> Vec<Line> {
        self.with(|inside| inside.lines.iter().filter(|line| line.n > n).cloned().collect())
    }

    /// The last lines of standard error in one text, for a message.
    pub(crate) fn last_words(&self) -> String {
        let lines = self.last(20);
        let lines = lines.iter().filter(|line| line.from != From::Runner).map(|line| line.line.as_str());
        let mut text: Vec<&str> = lines.collect();
        let skip = text.len().saturating_sub(8);
        text.drain(..skip);
        text.join("\n")
    }

    pub(crate) fn count(&self) -> u64 {
        self.with(|inside| inside.count)
    }

    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

fn hidden(text: &str, secrets: &[Zeroizing<String>]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), HIDDEN);
        }
    }
    text
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time at which a line was written, for people; nothing is decided by it"
)]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_secrets_are_not() {
        let log = Log::new(2);
        log.hide(&[
            Zeroizing::new(b"s3cret\nline two".to_vec()),
            Zeroizing::new(b"s3cret-long".to_vec()),
            Zeroizing::new(b"ab".to_vec()),
        ]);
        for line in ["first", "token s3cret-long, s3cret", &format!("{} ab", STANDARD.encode("s3cret-long"))] {
            log.add(From::Stderr, line);
        }
        let lines: Vec<_> = log.last(10).into_iter().map(|line| (line.n, line.line)).collect();
        assert_eq!(lines, [(2, "token [secret], [secret]".into()), (3, "[secret] ab".into())]);
        assert_eq!((log.after(2).len(), log.count()), (1, 3));
        assert_eq!(log.add(From::Stderr, &"é".repeat(MAX_LOG_LINE_BYTES)).len(), MAX_LOG_LINE_BYTES);
    }
}
