//! What invites must look like. Pure; errors say what was expected.

use claudemesh_protocol::crypto::{keys, signed};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::enrolment::{CreateInvite, InvitePreset};
use claudemesh_protocol::id::{CODE_ALPHABET, MeshId, PublicKey};

use super::store::Invite;
use crate::http::fields::{groups, invited_role, member_name, message_mode, role_tag};
use crate::refusal::Refusal;

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

fn preset(given: InvitePreset) -> Checked<InvitePreset> {
    Ok(InvitePreset {
        display_name: given.display_name.as_deref().map(member_name).transpose()?,
        role_tag: given.role_tag.as_deref().map(role_tag).transpose()?.flatten(),
        groups: groups(&given.groups)?,
        message_mode: given.message_mode.as_deref().map(message_mode).transpose()?,
    })
}

/// Checks an invite that `signer` wants to register, its signature included: the owner's key, or the key of a member.
///
/// # Errors
/// `invalid_args` or `bad_signature`.
pub fn invite(
    mesh: &MeshId,
    owner: &PublicKey,
    signer: &PublicKey,
    given: CreateInvite,
    now_ms: i64,
) -> Checked<Invite> {
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
    if given.v1_token_hash.is_some() && signer != owner {
        return fail(
            ErrorCode::InvalidArgs,
            "a link of version 1 is signed by the owner's key: leave out `v1_token_hash`",
        );
    }
    let role = invited_role(&given.role)?;
    let canonical = signed::invite_v2(mesh, &given.invite_id, given.expires_at, role.as_str(), owner);
    if keys::verify(signer, canonical.as_bytes(), &given.signature_v2).is_err() {
        return fail(ErrorCode::BadSignature, "`signature_v2` is not by the signer of this request over this invite");
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
        created_by_key: *signer,
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
        assert!(invite(&mesh, &owner.public(), &owner.public(), good.clone(), NOW).is_ok());
        let code = |given: CreateInvite| invite(&mesh, &owner.public(), &owner.public(), given, NOW).unwrap_err().code;
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
