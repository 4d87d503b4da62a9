//! Names of members and sessions: one rule for client and broker, and the address `member/session`.
//!
//! A name is what others write to, so it has to be readable, and two names that look alike must be told apart. Names are kept in
//! Unicode's composed form (NFC); characters that no one sees are refused in a name that is chosen, and left out of a name that a
//! client brings along.

use std::fmt;

use unicode_normalization::UnicodeNormalization;
use unicode_security::confusable_detection::skeleton;

use crate::limits;
use crate::target::{self, NameError as Meaning};

/// What separates a member from its session in an address.
pub const SEPARATOR: char = '/';

/// Why a text cannot be chosen as a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left without its margins.
    #[error("expected a name, got an empty text")]
    Empty,
    /// Over [`limits::MAX_NAME_CHARS`].
    #[error("expected a name of at most {} characters", limits::MAX_NAME_CHARS)]
    TooLong,
    /// It has controls, or characters that cannot be seen.
    #[error("expected a name without characters that cannot be seen")]
    Invisible,
    /// It has a comma, at which a list of recipients is split.
    #[error("expected a name without commas: a comma separates recipients")]
    Comma,
    /// It has a slash, which separates a member from its session.
    #[error("expected a name without `/`: `member/session` is the address of a session")]
    Slash,
    /// It means an audience or a key.
    #[error(transparent)]
    Meaning(#[from] Meaning),
}

/// A name that someone chooses for a member or a session, in the form in which it is kept.
///
/// # Errors
/// [`NameError`] says what is wrong with it.
pub fn chosen(text: &str) -> Result<String, NameError> {
    let name = visible(text)?;
    if name.contains(',') {
        return Err(NameError::Comma);
    }
    if name.contains(SEPARATOR) {
        return Err(NameError::Slash);
    }
    target::addressable(&name)?;
    Ok(name)
}

/// A text that is shown to people in one line, in the form in which it is kept: 1 to [`limits::MAX_NAME_CHARS`] characters that
/// can be seen. Other rules than this one are for names that are written to, see [`chosen`].
///
/// # Errors
/// [`NameError::Empty`], [`NameError::TooLong`] or [`NameError::Invisible`].
pub fn visible(text: &str) -> Result<String, NameError> {
    let name: String = text.trim().nfc().collect();
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().count() > limits::MAX_NAME_CHARS {
        return Err(NameError::TooLong);
    }
    if seen(&name).count() != name.chars().count() {
        return Err(NameError::Invisible);
    }
    Ok(name)
}

/// What is left of a name that a client brings along: composed, without what cannot be seen, cut to the bound. `None` when
/// nothing is left. A session is never refused for its name.
pub fn brought(text: &str) -> Option<String> {
    let composed: String = text.nfc().collect();
    // What stood apart may be composed now.
    let seen: String = seen(&composed).nfc().collect();
    let name: String = seen.trim().chars().take(limits::MAX_NAME_CHARS).collect();
    let name = name.trim_end().to_owned();
    (!name.is_empty()).then_some(name)
}

/// The form in which names are compared: composed, lower case, without margins.
pub fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.trim().to_ascii_lowercase();
    }
    let composed: String = text.trim().nfc().collect();
    composed.to_lowercase()
}

/// Whether two names look alike although they are not the same: `Bob` and `Вob` with a Cyrillic letter, `l` and `1`.
pub fn looks_like(one: &str, other: &str) -> bool {
    folded(one) != folded(other) && look(one) == look(other)
}

/// What two names that look alike share.
fn look(name: &str) -> String {
    let plain: String = skeleton(name).collect();
    skeleton(&plain.to_lowercase()).collect()
}

/// The characters that can be seen. Joiners and the mark of emoji count as seen within an emoji, which is one picture.
fn seen(name: &str) -> impl Iterator<Item = char> + '_ {
    let mut before = None;
    let mut rest = name.chars().peekable();
    std::iter::from_fn(move || {
        loop {
            let symbol = rest.next()?;
            let keeps = match symbol {
                '\u{fe0f}' => before.is_some_and(is_picture),
                '\u{200d}' => {
                    before.is_some_and(|before| is_picture(before) || before == '\u{fe0f}')
                        && rest.peek().copied().is_some_and(is_picture)
                }
                _ => !is_invisible(symbol),
            };
            if keeps {
                before = Some(symbol);
                return Some(symbol);
            }
        }
    })
}

/// Symbols that emoji are made of.
const fn is_picture(symbol: char) -> bool {
    matches!(symbol,
        '\u{203c}' | '\u{2049}' | '\u{2122}' | '\u{2139}' | '\u{2190}'..='\u{21ff}' | '\u{2300}'..='\u{23ff}' | '\u{24c2}'
        | '\u{25a0}'..='\u{27bf}' | '\u{2900}'..='\u{297f}' | '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')
}

/// Controls, spaces that are not the plain one, and what Unicode calls default-ignorable: characters that leave no mark, or change
/// the direction of others.
pub fn is_invisible(symbol: char) -> bool {
    symbol.is_control()
        || matches!(symbol,
            '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{1680}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}'
            | '\u{2800}' | '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// How a session is written wherever people and models read it: `member/session`, or the member alone when the session has no
/// name of its own. What is written like this can be written to.
#[derive(Clone, Copy, Debug)]
pub struct Address<'a> {
    /// Name of the member; empty when a broker does not tell it.
    pub member: &'a str,
    /// Name of the session.
    pub session: &'a str,
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.member.is_empty() || folded(self.member) == folded(self.session) {
            return out.write_str(self.session);
        }
        if self.session.is_empty() {
            return out.write_str(self.member);
        }
        write!(out, "{}{SEPARATOR}{}", self.member, self.session)
    }
}

/// Every way to read a text as `member/session`. Older members may have a slash in their names.
pub fn splits(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = text.match_indices(SEPARATOR).map(|(at, _)| (text[..at].trim(), text[at + 1..].trim()));
    parts.filter(|(member, session)| !member.is_empty() && !session.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_name_can_be_read_and_written_to() {
        for good in ["Ann", " Ann ", "a b", "O'Brien", "ü", "-x", "decade7", "Zoë 🦊", "❤️", "👩‍🚀", "日本", "علی"]
        {
            assert_eq!(chosen(good).as_deref(), Ok(good.trim()), "{good}");
        }
        let long = "x".repeat(65);
        for (bad, why) in [
            ("", NameError::Empty),
            (" ", NameError::Empty),
            (long.as_str(), NameError::TooLong),
            ("\u{3164}", NameError::Invisible),
            ("a\u{200b}", NameError::Invisible),
            ("a\u{200d}b", NameError::Invisible),
            ("a\u{fe0f}", NameError::Invisible),
            ("a\u{202e}b", NameError::Invisible),
            ("a\u{a0}b", NameError::Invisible),
            ("a\nb", NameError::Invisible),
            ("\u{2800}", NameError::Invisible),
            ("\u{e0041}a", NameError::Invisible),
            ("a,b", NameError::Comma),
            ("Bob/api", NameError::Slash),
            ("*", NameError::Meaning(Meaning::Audience)),
            ("@qa", NameError::Meaning(Meaning::Audience)),
            ("deadbeef", NameError::Meaning(Meaning::Key)),
        ] {
            assert_eq!(chosen(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn composed_and_decomposed_are_one_name() {
        assert_eq!(chosen("Jose\u{301}").as_deref(), Ok("José"));
        assert_eq!(brought("Jose\u{301}").as_deref(), Some("José"));
        assert_eq!(folded(" JOSE\u{301} "), folded("josé"));
        assert!(!looks_like("Jose\u{301}", "José"), "they are the same");
    }

    #[test]
    fn a_brought_name_loses_what_cannot_be_seen() {
        assert_eq!(brought("al\u{200b}ice\u{202e}\n").as_deref(), Some("alice"));
        assert_eq!(brought("\u{feff}\t\u{3164}"), None);
        assert_eq!(brought(&"ü".repeat(100)), Some("ü".repeat(limits::MAX_NAME_CHARS)));
    }

    #[test]
    fn names_that_look_alike_are_told() {
        for (one, other) in [("Bob", "Воb"), ("Al", "AI"), ("vm1", "vml"), ("O0", "OO"), ("scope", "ѕсоре")] {
            assert!(looks_like(one, other), "{one} {other}");
        }
        for (one, other) in [("Bob", "bob"), ("Ann", "Anna"), ("api", "web")] {
            assert!(!looks_like(one, other), "{one} {other}");
        }
    }

    #[test]
    fn an_address_names_member_and_session() {
        let address = |member, session| Address { member, session }.to_string();
        assert_eq!(address("Bob", "api"), "Bob/api");
        assert_eq!(address("Bob", "bob"), "bob");
        assert_eq!(address("", "api"), "api");
        assert_eq!(address("Bob", ""), "Bob");
        assert_eq!(splits("a/b/c").collect::<Vec<_>>(), [("a", "b/c"), ("a/b", "c")]);
        assert_eq!(splits("a / b").collect::<Vec<_>>(), [("a", "b")]);
        assert_eq!(splits("/a").count() + splits("a/").count() + splits("a").count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn what_is_kept_is_kept_as_it_is(text in "\\PC{0,40}|.{0,40}") {
            if let Ok(name) = chosen(&text) {
                proptest::prop_assert_eq!(chosen(&name), Ok(name.clone()));
                proptest::prop_assert_eq!(brought(&name), Some(name));
            }
            if let Some(name) = brought(&text) {
                proptest::prop_assert_eq!(brought(&name), Some(name));
            }
        }
    }
}
