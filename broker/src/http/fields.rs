//! What names and profile fields of HTTP requests must look like. Pure; errors say what was expected.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::{limits, name, target};

use crate::db::members::Role;
use crate::refusal::Refusal;

type Checked<T> = Result<T, Refusal>;

fn fail<T>(code: ErrorCode, message: impl Into<String>) -> Checked<T> {
    Err(Refusal::new(code, message))
}

/// Checks a slug: `^[a-z0-9][a-z0-9-]{1,31}$`.
///
/// # Errors
/// `invalid_name`.
pub fn slug(text: &str) -> Checked<String> {
    let bytes = text.as_bytes();
    let fine = (2..=32).contains(&bytes.len())
        && bytes[0] != b'-'
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    if fine {
        return Ok(text.into());
    }
    fail(ErrorCode::InvalidName, "expected a slug of 2 to 32 lower-case letters, digits and `-`, not starting with `-`")
}

/// Checks a text shown to people in one line, see [`name::visible`].
///
/// # Errors
/// `invalid_name`.
pub fn display_name(text: &str) -> Checked<String> {
    name::visible(text).or_else(|error| fail(ErrorCode::InvalidName, error.to_string()))
}

/// Checks a name for someone new or renamed, see [`name::chosen`]. A member that has another kind of name already keeps it.
///
/// # Errors
/// `invalid_name`.
pub fn member_name(text: &str) -> Checked<String> {
    name::chosen(text).or_else(|error| fail(ErrorCode::InvalidName, error.to_string()))
}

/// Checks a free role text; an empty one clears.
///
/// # Errors
/// `invalid_args`.
pub fn role_tag(text: &str) -> Checked<Option<String>> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    match display_name(text) {
        Ok(text) => Ok(Some(text)),
        Err(_) => fail(ErrorCode::InvalidArgs, "expected a role tag of at most 64 printable characters"),
    }
}

/// Checks a message mode: `push`, `inbox` or `off`.
///
/// # Errors
/// `invalid_args`.
pub fn message_mode(text: &str) -> Checked<String> {
    match text {
        "push" | "inbox" | "off" => Ok(text.into()),
        _ => fail(ErrorCode::InvalidArgs, "expected `push`, `inbox` or `off` as message mode"),
    }
}

/// Checks default groups: at most 64, each name once, roles short.
///
/// # Errors
/// `invalid_args`.
pub fn groups(given: &[Group]) -> Checked<Vec<Group>> {
    if given.len() > limits::MAX_GROUPS {
        return fail(ErrorCode::InvalidArgs, "expected at most 64 groups");
    }
    let mut checked: Vec<Group> = Vec::with_capacity(given.len());
    for group in given {
        let name =
            target::group_name(&group.name).map_err(|error| Refusal::new(ErrorCode::InvalidArgs, error.to_string()))?;
        let role = group.role.as_deref().map(role_tag).transpose()?.flatten();
        if !checked.iter().any(|one| one.name == name) {
            checked.push(Group { name, role });
        }
    }
    Ok(checked)
}

/// Checks the role an invite gives: `admin` or `member`.
///
/// # Errors
/// `invalid_args`.
pub fn invited_role(text: &str) -> Checked<Role> {
    match Role::parse(text) {
        Some(role @ (Role::Admin | Role::Member)) => Ok(role),
        Some(Role::Owner) | None => fail(ErrorCode::InvalidArgs, "expected the role `admin` or `member`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_follow_the_rule() {
        for good in ["ab", "0x", "team-1", &"a".repeat(32)] {
            assert_eq!(slug(good).as_deref(), Ok(good));
        }
        for bad in ["", "a", "-ab", "Ab", "a_b", "a b", "ä1", &"a".repeat(33)] {
            assert_eq!(slug(bad).unwrap_err().code, ErrorCode::InvalidName, "{bad}");
        }
    }

    #[test]
    fn names_are_trimmed_and_cannot_disguise_themselves() {
        assert_eq!(display_name("  Zoë 🦊 "), Ok("Zoë 🦊".into()));
        assert_eq!(display_name(&"ü".repeat(64)), Ok("ü".repeat(64)));
        for bad in ["", "  ", "a\nb", "a\0b", "a\u{202e}b", "Ada\u{200b}", &"x".repeat(65)] {
            assert!(display_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn members_are_not_called_like_an_audience_or_a_key() {
        assert_eq!(member_name(" Ann "), Ok("Ann".into()));
        for bad in ["@all", "*", "#x", "deadbeef", ""] {
            assert_eq!(member_name(bad).unwrap_err().code, ErrorCode::InvalidName, "{bad:?}");
        }
        assert_eq!(display_name("#1 team"), Ok("#1 team".into()), "the title of a mesh is not an address");
    }

    #[test]
    fn group_lists_lose_doubles_and_refuse_bad_names() {
        let group = |name: &str| Group { name: name.into(), role: None };
        assert_eq!(groups(&[group("@a/b"), group("a/b")]), Ok(vec![group("a/b")]));
        assert!(groups(&[group("x'; DROP")]).is_err());
        assert!(groups(&vec![group("a"); 65]).is_err());
    }
}
