//! What names, invites and profile fields of HTTP requests must look like. Pure; errors say what was expected.

use claudemesh_protocol::crypto::{keys, signed};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::enrolment::{CreateInvite, InvitePreset};
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::id::{CODE_ALPHABET, MeshId, PublicKey};
use claudemesh_protocol::{limits, target};

use super::store::Invite;
use crate::db::members::Role;
use crate::refusal::Refusal;
use crate::session::hello::is_reordering;

type Checked<T> = Result<T, Refusal>;

/// Uses of one invite.
pub const MAX_USES: u32 = 10_000;
/// An invite may expire at most this far ahead, in milliseconds. A little more than clients offer: clocks differ.
pub const MAX_INVITE_TTL_MS: i64 = claudemesh_protocol::limits::MAX_INVITE_DAYS as i64 * 86_400_000 + 3_600_000;
/// Invites of one mesh that can still be used.
pub const MAX_USABLE_INVITES: u32 = 1_000;
/// Symbols of an invite code.
const CODE_CHARS: usize = 8;

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

/// Trims and checks a name shown to people: 1 to 64 characters, no controls.
///
/// # Errors
/// `invalid_name`.
pub fn display_name(text: &str) -> Checked<String> {
    let name = text.trim();
    let fine = !name.is_empty()
        && name.chars().count() <= limits::MAX_NAME_CHARS
        && !name.chars().any(|symbol| symbol.is_control() || is_reordering(symbol));
    if fine { Ok(name.into()) } else { fail(ErrorCode::InvalidName, "expected a name of 1 to 64 printable characters") }
}

/// As [`display_name`], for somebody new or renamed: the name has to mean that member. Who has such a name already keeps it.
///
/// # Errors
/// `invalid_name`.
pub fn member_name(text: &str) -> Checked<String> {
    let name = display_name(text)?;
    match target::addressable(&name) {
        Ok(()) => Ok(name),
        Err(error) => fail(ErrorCode::InvalidName, error.to_string()),
    }
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

fn preset(given: InvitePreset) -> Checked<InvitePreset> {
    Ok(InvitePreset {
        display_name: given.display_name.as_deref().map(member_name).transpose()?,
        role_tag: given.role_tag.as_deref().map(role_tag).transpose()?.flatten(),
        groups: groups(&given.groups)?,
        message_mode: given.message_mode.as_deref().map(message_mode).transpose()?,
    })
}

/// Checks an invite that the owner of a mesh wants to register, its signature included.
///
/// # Errors
/// `invalid_args` or `bad_signature`.
pub fn invite(mesh: &MeshId, owner: &PublicKey, given: CreateInvite, now_ms: i64) -> Checked<Invite> {
    let id = given.invite_id.as_str();
    if !(8..=64).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return fail(ErrorCode::InvalidArgs, "expected an invite id of 8 to 64 letters, digits and `-`");
    }
    if given.code.len() != CODE_CHARS || !given.code.bytes().all(|byte| CODE_ALPHABET.contains(&byte)) {
        return fail(ErrorCode::InvalidArgs, "expected a code of 8 symbols of A-Z (without I and O) and 2-9");
    }
    let max_uses = i32::try_from(given.max_uses).ok().filter(|uses| *uses >= 1 && given.max_uses <= MAX_USES);
    let Some(max_uses) = max_uses else {
        return fail(ErrorCode::InvalidArgs, "expected 1 to 10000 uses");
    };
    let expires_at_ms = given.expires_at.saturating_mul(1_000);
    if expires_at_ms <= now_ms || expires_at_ms > now_ms.saturating_add(MAX_INVITE_TTL_MS) {
        return fail(ErrorCode::InvalidArgs, "expected an expiry (Unix seconds) between now and 366 days from now");
    }
    if let Some(hash) = &given.v1_token_hash
        && PublicKey::parse(hash).is_none()
    {
        return fail(ErrorCode::InvalidArgs, "expected `v1_token_hash` of 64 lower-case hex digits");
    }
    let role = invited_role(&given.role)?;
    let canonical = signed::invite_v2(mesh, &given.invite_id, given.expires_at, role.as_str(), owner);
    if keys::verify(owner, canonical.as_bytes(), &given.signature_v2).is_err() {
        return fail(ErrorCode::BadSignature, "`signature_v2` is not the owner's over this invite");
    }
    Ok(Invite {
        id: given.invite_id,
        mesh_id: mesh.clone(),
        version: 2,
        code: Some(given.code),
        token_hash: given.v1_token_hash,
        role,
        max_uses,
        used_count: 0,
        expires_at_ms,
        created_at_ms: now_ms,
        created_by_key: *owner,
        revoked_at_ms: None,
        canonical,
        signature: given.signature_v2,
        preset: given.preset.map(preset).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::crypto::keys::SecretKey;
    use claudemesh_protocol::id::InviteId;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

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
        assert_eq!(display_name("#1 team"), Ok("#1 team".into()), "the title of a mesh is no address");
    }

    #[test]
    fn group_lists_lose_doubles_and_refuse_bad_names() {
        let group = |name: &str| Group { name: name.into(), role: None };
        assert_eq!(groups(&[group("@a/b"), group("a/b")]), Ok(vec![group("a/b")]));
        assert!(groups(&[group("x'; DROP")]).is_err());
        assert!(groups(&vec![group("a"); 65]).is_err());
    }

    fn request(owner: &SecretKey, mesh: &MeshId) -> CreateInvite {
        let invite_id = InviteId::from("invite-0001");
        let expires_at = NOW / 1_000 + 60;
        let canonical = signed::invite_v2(mesh, &invite_id, expires_at, "member", &owner.public());
        CreateInvite {
            invite_id,
            code: "ABCDEF23".into(),
            role: "member".into(),
            max_uses: 1,
            expires_at,
            signature_v2: owner.sign(canonical.as_bytes()),
            v1_token_hash: None,
            preset: None,
        }
    }

    #[test]
    fn an_invite_must_be_the_one_that_was_signed() {
        let (owner, mesh) = (SecretKey::from_seed([1; 32]), MeshId::from("m"));
        let good = request(&owner, &mesh);
        assert!(invite(&mesh, &owner.public(), good.clone(), NOW).is_ok());
        let code = |given: CreateInvite| invite(&mesh, &owner.public(), given, NOW).unwrap_err().code;
        assert_eq!(code(CreateInvite { role: "admin".into(), ..good.clone() }), ErrorCode::BadSignature);
        assert_eq!(code(CreateInvite { expires_at: good.expires_at + 1, ..good.clone() }), ErrorCode::BadSignature);
        assert_eq!(code(CreateInvite { role: "owner".into(), ..good.clone() }), ErrorCode::InvalidArgs);
        assert_eq!(code(CreateInvite { code: "abcdef23".into(), ..good.clone() }), ErrorCode::InvalidArgs);
        assert_eq!(code(CreateInvite { code: "ABCDEFO1".into(), ..good.clone() }), ErrorCode::InvalidArgs);
        assert_eq!(code(CreateInvite { max_uses: 0, ..good.clone() }), ErrorCode::InvalidArgs);
        assert_eq!(code(CreateInvite { max_uses: 10_001, ..good.clone() }), ErrorCode::InvalidArgs);
        assert_eq!(code(CreateInvite { expires_at: NOW / 1_000, ..good.clone() }), ErrorCode::InvalidArgs);
        assert_eq!(code(CreateInvite { expires_at: i64::MAX, ..good.clone() }), ErrorCode::InvalidArgs);
        assert_eq!(code(CreateInvite { v1_token_hash: Some("x".into()), ..good }), ErrorCode::InvalidArgs);
    }
}
