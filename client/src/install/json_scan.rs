//! Finds values in JSON text by their byte positions, without changing or re-writing anything.
//!
//! Strict RFC 8259 (an UTF-8 byte order mark at the start is skipped). Works level by level and without recursion, so
//! that neither a huge nor a deeply nested file of someone else can hurt.

use std::fmt;
use std::ops::Range;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

/// Byte range of a value in the text.
pub type Span = Range<usize>;

/// Text that is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at line {line}, column {column}")]
pub struct JsonError {
    reason: &'static str,
    line: usize,
    column: usize,
}

/// One member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Unescaped name.
    pub key: String,
    /// From the opening quote of the name to the end of the value.
    pub span: Span,
    /// The value.
    pub value: Span,
}

/// What kind of value starts at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// Number, `true`, `false`, `null`.
    Other,
}

/// The span of the document's value.
///
/// # Errors
/// The whole text is checked; the first fault is told with its place.
pub fn root(text: &str) -> Result<Span, JsonError> {
    let scan = Scan { text, bytes: text.as_bytes() };
    let start = scan.space(if text.starts_with('\u{feff}') { 3 } else { 0 });
    let end = scan.value(start)?;
    let rest = scan.space(end);
    if rest == text.len() { Ok(start..end) } else { Err(scan.fault(rest, "unexpected text after the value")) }
}

/// The kind of a value of checked text.
pub fn kind(text: &str, value: &Span) -> Kind {
    match text.as_bytes().get(value.start) {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        _ => Kind::Other,
    }
}

/// Members of an object in text order.
///
/// # Errors
/// [`JsonError`] when the text was not checked before.
pub fn members(text: &str, object: &Span) -> Result<Vec<Member>, JsonError> {
    let mut found = vec![];
    walk_members(text, object.start, |member| found.push(member))?;
    Ok(found)
}

/// Members of an object that may be cut off: those that are complete before the text ends or goes wrong.
pub fn members_of_prefix(text: &str) -> Vec<Member> {
    let mut found = vec![];
    let start = Scan { text, bytes: text.as_bytes() }.space(0);
    let _ = walk_members(text, start, |member| found.push(member));
    // A number has no end of its own: one that reaches the end of the text may be the first half of another.
    if text.ends_with(|last: char| last.is_ascii_digit()) {
        found.pop_if(|last| last.value.end == text.len());
    }
    found
}

fn walk_members(text: &str, start: usize, mut found: impl FnMut(Member)) -> Result<(), JsonError> {
    let scan = Scan { text, bytes: text.as_bytes() };
    scan.expect(start, b'{')?;
    let mut at = scan.space(start + 1);
    if scan.at(at) == Some(b'}') {
        return Ok(());
    }
    loop {
        let key_end = scan.string(at)?;
        let Name(key) = serde_json::from_str(&text[at..key_end]).map_err(|_| scan.fault(at, "bad name"))?;
        let value_start = scan.colon(key_end)?;
        let value_end = scan.value(value_start)?;
        found(Member { key, span: at..value_end, value: value_start..value_end });
        match scan.comma_or(value_end, b'}')? {
            Some(next) => at = next,
            None => return Ok(()),
        }
    }
}

/// A name with half of a surrogate pair in it shown as U+FFFD: JSON allows it, a `String` cannot hold it, and the members
/// beside it must be found.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde_json refuses such a name as text, but not as bytes.
        deserializer.deserialize_bytes(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a name")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Name, E> {
        Ok(Name(String::from_utf8_lossy(bytes).into_owned()))
    }
}

/// Items of an array in text order.
///
/// # Errors
/// [`JsonError`] when the text was not checked before.
pub fn items(text: &str, array: &Span) -> Result<Vec<Span>, JsonError> {
    let scan = Scan { text, bytes: text.as_bytes() };
    scan.expect(array.start, b'[')?;
    let mut found = vec![];
    let mut at = scan.space(array.start + 1);
    if scan.at(at) == Some(b']') {
        return Ok(found);
    }
    loop {
        let end = scan.value(at)?;
        found.push(at..end);
        match scan.comma_or(end, b']')? {
            Some(next) => at = next,
            None => return Ok(found),
        }
    }
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
}

impl Scan<'_> {
    fn at(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn fault(&self, at: usize, reason: &'static str) -> JsonError {
        let at = at.min(self.text.len());
        let before = &self.bytes[..at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = at - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |found| found + 1) + 1;
        let reason = if at == self.text.len() { "unexpected end" } else { reason };
        JsonError { reason, line, column }
    }

    fn space(&self, mut at: usize) -> usize {
        while matches!(self.at(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        at
    }

    fn expect(&self, at: usize, byte: u8) -> Result<(), JsonError> {
        if self.at(at) == Some(byte) { Ok(()) } else { Err(self.fault(at, "unexpected character")) }
    }

    /// Position of the value after `"name" :`.
    fn colon(&self, at: usize) -> Result<usize, JsonError> {
        let at = self.space(at);
        if self.at(at) == Some(b':') { Ok(self.space(at + 1)) } else { Err(self.fault(at, "expected ':'")) }
    }

    /// Position of the next child after a comma, `None` at the closing bracket.
    fn comma_or(&self, at: usize, close: u8) -> Result<Option<usize>, JsonError> {
        let at = self.space(at);
        match self.at(at) {
            Some(b',') => Ok(Some(self.space(at + 1))),
            Some(byte) if byte == close => Ok(None),
            _ => Err(self.fault(at, "expected ',' or a closing bracket")),
        }
    }

    /// End of the value that starts at `at`. A stack of bracket bytes instead of recursion.
    fn value(&self, mut at: usize) -> Result<usize, JsonError> {
        let mut open: Vec<u8> = vec![];
        loop {
            // Here a value starts.
            match self.at(at) {
                Some(bracket @ (b'{' | b'[')) => {
                    let close = if bracket == b'{' { b'}' } else { b']' };
                    at = self.space(at + 1);
                    if self.at(at) == Some(close) {
                        at += 1;
                    } else {
                        open.push(close);
                        if close == b'}' {
                            at = self.colon(self.string(at)?)?;
                        }
                        continue;
                    }
                }
                Some(b'"') => at = self.string(at)?,
                Some(b't') => at = self.word(at, "true")?,
                Some(b'f') => at = self.word(at, "false")?,
                Some(b'n') => at = self.word(at, "null")?,
                Some(b'-' | b'0'..=b'9') => at = self.number(at)?,
                _ => return Err(self.fault(at, "expected a value")),
            }
            // Here a value has ended: close as many brackets as the text does.
            loop {
                let Some(close) = open.last().copied() else { return Ok(at) };
                match self.comma_or(at, close)? {
                    None => {
                        at = self.space(at) + 1;
                        open.pop();
                    }
                    Some(next) => {
                        at = if close == b'}' { self.colon(self.string(next)?)? } else { next };
                        break;
                    }
                }
            }
        }
    }

    fn word(&self, at: usize, word: &str) -> Result<usize, JsonError> {
        if self.bytes[at..].starts_with(word.as_bytes()) {
            Ok(at + word.len())
        } else {
            Err(self.fault(at, "expected a value"))
        }
    }

    fn string(&self, at: usize) -> Result<usize, JsonError> {
        if self.at(at) != Some(b'"') {
            return Err(self.fault(at, "expected a string"));
        }
        let mut at = at + 1;
        loop {
            match self.at(at) {
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') => match self.at(at + 1) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
                    Some(b'u') => {
                        let digits = self.bytes.get(at + 2..at + 6).unwrap_or_default();
                        if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                            return Err(self.fault(at, "bad escape"));
                        }
                        at += 6;
                    }
                    _ => return Err(self.fault(at + 1, "bad escape")),
                },
                Some(0..=0x1f) => return Err(self.fault(at, "control character in a string")),
                Some(_) => at += 1,
                None => return Err(self.fault(at, "unexpected end")),
            }
        }
    }

    fn number(&self, mut at: usize) -> Result<usize, JsonError> {
        if self.at(at) == Some(b'-') {
            at += 1;
        }
        match self.at(at) {
            Some(b'0') => at += 1,
            Some(b'1'..=b'9') => at = self.digits(at)?,
            _ => return Err(self.fault(at, "bad number")),
        }
        if self.at(at) == Some(b'.') {
            at = self.digits(at + 1)?;
        }
        if matches!(self.at(at), Some(b'e' | b'E')) {
            at += 1;
            if matches!(self.at(at), Some(b'+' | b'-')) {
                at += 1;
            }
            at = self.digits(at)?;
        }
        Ok(at)
    }

    fn digits(&self, start: usize) -> Result<usize, JsonError> {
        let mut at = start;
        while matches!(self.at(at), Some(b'0'..=b'9')) {
            at += 1;
        }
        if at > start { Ok(at) } else { Err(self.fault(at, "bad number")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_beside_a_name_with_half_a_surrogate_pair_are_found() {
        let text = r#"{"a\ud800b":1,"\ud83d\ude00":2,"é\n":3}"#;
        let span = root(text).unwrap();
        let names: Vec<String> = members(text, &span).unwrap().into_iter().map(|member| member.key).collect();
        assert_eq!(names, ["a\u{fffd}\u{fffd}\u{fffd}b", "😀", "é\n"]);
    }

    #[test]
    fn root_accepts_json_and_nothing_else() {
        for good in ["{}", " [1, 2] ", "\u{feff}{\"a\":1}", "\"\\u00e9\"", "-0.5e+3", "null", "[[],{},[{}]]"] {
            root(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "01",
            "1.",
            "\"a",
            "\"\\x\"",
            "tru",
            "[1 2]",
            "{} {}",
            "// c\n{}",
            "{\"a\":1,}",
            "\"\u{1}\"",
            "[}",
            "+1",
            "'a'",
        ] {
            assert!(root(bad).is_err(), "{bad}");
            assert!(serde_json::from_str::<serde_json::Value>(bad).is_err(), "{bad}: the other parser agrees");
        }
    }

    #[test]
    fn faults_have_a_place() {
        assert_eq!(root("{\n  \"a\": x\n}").unwrap_err().to_string(), "expected a value at line 2, column 8");
        assert_eq!(root("{\n  \"a\": 1").unwrap_err().to_string(), "unexpected end at line 2, column 9");
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(root(&deep).unwrap(), 0..2_000_000);
    }

    #[test]
    fn a_cut_off_object_gives_its_first_members() {
        let text = r#" {"session_id":"s","cwd":"/a","tool_response":[{"text":"half of"#;
        let found = members_of_prefix(text);
        assert_eq!(found.iter().map(|member| member.key.as_str()).collect::<Vec<_>>(), ["session_id", "cwd"]);
        assert_eq!(&text[found[1].value.clone()], "\"/a\"");
        let names = |text| members_of_prefix(text).into_iter().map(|member| member.key).collect::<Vec<_>>();
        assert_eq!(names(r#"{"a":1,"pid":47"#), ["a"], "half of a number is none");
        assert_eq!(names(r#"{"a":1,"pid":47 "#), ["a", "pid"]);
        assert_eq!(names(r#"{"a":1,"b":"x7""#), ["a", "b"]);
    }

    proptest::proptest! {
        #[test]
        fn root_never_panics(text in "[\\[\\]{}:,\"\\\\a-z0-9 .eE+-]{0,60}|.{0,40}") {
            let ours = root(&text).is_ok();
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            // serde_json refuses lone surrogates and has a depth limit; nothing else may differ.
            proptest::prop_assert!(ours == theirs || text.contains("\\u") || text.starts_with('\u{feff}'), "{}", text);
        }
    }
}
