//! Target specifications of `send`: who is meant.

use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::id::PublicKey;
use crate::limits;
use crate::name::is_invisible;

/// The `targetSpec` field: one text or an array of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TargetField {
    /// One recipient or audience.
    One(String),
    /// The union of several, each recipient once.
    Many(Vec<String>),
}

impl TargetField {
    /// The parts.
    pub fn parts(&self) -> &[String] {
        match self {
            Self::One(part) => std::slice::from_ref(part),
            Self::Many(parts) => parts,
        }
    }

    /// Characters in all parts, for the size limit.
    pub fn chars(&self) -> usize {
        self.parts().iter().map(String::len).sum()
    }
}

/// By hand, because the derived one of an untagged enum keeps a copy of what it reads, for each message.
impl<'de> Deserialize<'de> for TargetField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = TargetField;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a target or an array of targets")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TargetField, E> {
                Ok(TargetField::One(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<TargetField, E> {
                Ok(TargetField::One(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<TargetField, A::Error> {
                let mut all = Vec::new();
                while let Some(part) = parts.next_element()? {
                    all.push(part);
                }
                Ok(TargetField::Many(all))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

impl From<&str> for TargetField {
    fn from(text: &str) -> Self {
        Self::One(text.into())
    }
}

impl From<String> for TargetField {
    fn from(text: String) -> Self {
        Self::One(text)
    }
}

/// One parsed target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// 64 lower-case hex digits: a member key or a session key.
    Key(PublicKey),
    /// `*` or `@all`: every visible peer.
    Everyone,
    /// `@name`, possibly with levels: that group and everything below it.
    Group(String),
    /// `#id` or `#name`: the subscribers of a topic.
    Topic(String),
    /// Anything else: a name of a member or a session, `member/session`, or a key prefix of at least 8 hex digits.
    Name(String),
}

/// Why a target text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing was named.
    #[error("expected a name, key, @group, #topic or *, got an empty target")]
    Empty,
    /// Over [`limits::MAX_TARGET_CHARS`].
    #[error("expected a target of at most 256 characters")]
    TooLong,
    /// A group name breaks the rule of [`group_name`].
    #[error("expected a group name of letters, digits, `-`, `_`, `.` and `/`, at most 64 characters")]
    BadGroup,
}

impl Target {
    /// Reads one target text.
    ///
    /// # Errors
    /// It is empty, too long or a malformed group.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.is_empty() || text == "@" || text == "#" {
            return Err(TargetError::Empty);
        }
        if text.len() > limits::MAX_TARGET_CHARS {
            return Err(TargetError::TooLong);
        }
        if text == "*" || text == "@all" {
            return Ok(Self::Everyone);
        }
        if let Some(name) = text.strip_prefix('@') {
            return Ok(Self::Group(group_name(name)?));
        }
        if let Some(name) = text.strip_prefix('#') {
            return Ok(Self::Topic(name.into()));
        }
        Ok(PublicKey::parse(text).map_or_else(|| Self::Name(text.into()), Self::Key))
    }

    /// Whether a body for it is sealed to one key (direct) rather than readable by its audience.
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Key(_) | Self::Name(_))
    }
}

/// Checks a group name: levels of letters and digits of any script, `-`, `_` and `.`, separated by `/`. Answers it in the form in
/// which it is kept.
///
/// # Errors
/// [`TargetError::BadGroup`].
pub fn group_name(text: &str) -> Result<String, TargetError> {
    let name: String = text.trim().trim_start_matches('@').trim().nfc().collect();
    let fine = !name.is_empty()
        && name.chars().count() <= limits::MAX_GROUP_CHARS
        && name.split('/').all(|level| !level.is_empty())
        && name.chars().all(|symbol| is_word(symbol) || "-_./".contains(symbol));
    if fine { Ok(name) } else { Err(TargetError::BadGroup) }
}

/// Letters, digits and the marks that some scripts put on letters.
fn is_word(symbol: char) -> bool {
    (symbol.is_alphanumeric() || is_combining_mark(symbol)) && !is_invisible(symbol)
}

/// Why a name cannot be given to someone: no one could be reached by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// [`Target::parse`] reads it as an audience.
    #[error("expected a name that means one peer: `*` and what begins with `@` or `#` mean many")]
    Audience,
    /// It reads as a key or as the beginning of one.
    #[error("expected a name that does not look like a key: at least the first 8 digits of 0-9 and a-f mean one")]
    Key,
}

/// Digits from which on a text is taken for the beginning of a key.
pub const MIN_KEY_PREFIX: usize = 8;

/// Checks that a message to this name means the one who is called so.
///
/// # Errors
/// [`NameError`].
pub fn addressable(name: &str) -> Result<(), NameError> {
    let name = name.trim();
    if name == "*" || name.starts_with(['@', '#']) {
        return Err(NameError::Audience);
    }
    if name.len() >= MIN_KEY_PREFIX && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NameError::Key);
    }
    Ok(())
}

/// Whether a member of group `member` belongs to the audience `@audience`: the group itself or anything below it.
pub fn group_covers(audience: &str, member: &str) -> bool {
    member.strip_prefix(audience).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_told_apart() {
        let key = "ab".repeat(32);
        assert_eq!(Target::parse(&key), Ok(Target::Key(PublicKey::parse(&key).unwrap())));
        assert_eq!(Target::parse("*"), Ok(Target::Everyone));
        assert_eq!(Target::parse("@all"), Ok(Target::Everyone));
        assert_eq!(Target::parse("@a/b"), Ok(Target::Group("a/b".into())));
        assert_eq!(Target::parse("#general"), Ok(Target::Topic("general".into())));
        assert_eq!(Target::parse("Alice B"), Ok(Target::Name("Alice B".into())));
        assert_eq!(Target::parse(&"AB".repeat(32)), Ok(Target::Name("AB".repeat(32))));
        assert_eq!(Target::parse(" "), Err(TargetError::Empty));
        assert_eq!(Target::parse("@a//b"), Err(TargetError::BadGroup));
        assert_eq!(Target::parse("@x'; DROP"), Err(TargetError::BadGroup));
    }

    #[test]
    fn a_checked_group_name_stays_as_it_is() {
        assert_eq!(group_name(" @ a-b ").as_deref(), Ok("a-b"));
        assert_eq!(group_name("a/b_c.d").as_deref(), Ok("a/b_c.d"));
        assert_eq!(group_name("e\u{301}quipe").as_deref(), Ok("équipe"));
        for bad in ["a b", "bad name", "x;y", "", "@", "a:b", "a,b", "\u{3164}", "a\u{200b}", "a//b", "/a"] {
            assert_eq!(group_name(bad), Err(TargetError::BadGroup), "{bad:?}");
        }
    }

    #[test]
    fn a_name_that_means_somebody_else_is_none() {
        for bad in ["*", "@all", " @qa", "#general", "@", "deadbeef", "DEADBEEF01", "20241121", &"ab".repeat(32)] {
            assert!(addressable(bad).is_err(), "{bad}");
        }
        for good in ["Ann", "a*", "a@b", "c#", "face", "decade7", "deadbeefs", "Smith, Ann", "2024-11-21"] {
            assert_eq!(addressable(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_group_covers_its_subtree_only() {
        assert!(group_covers("a", "a"));
        assert!(group_covers("a", "a/b/c"));
        assert!(!group_covers("a", "ab"));
        assert!(!group_covers("a/b", "a"));
    }

    proptest::proptest! {
        #[test]
        fn target_parse_never_panics(text in ".{0,300}") {
            let _ = Target::parse(&text);
        }
    }
}
