//! The canonical strings that are signed. Text, joined with `|`, no trailing newline.

use crate::id::{InviteId, MeshId, PublicKey};

/// What the member signs in `hello`. `timestamp` is the decimal rendering of the JSON number.
pub fn hello(mesh: &MeshId, member_id: &str, pubkey: &str, timestamp: &str) -> String {
    format!("{mesh}|{member_id}|{pubkey}|{timestamp}")
}

/// What the member signs for a session key. `expires_at` in Unix milliseconds.
pub fn attestation(parent: &str, session: &str, expires_at: &str) -> String {
    format!("claudemesh-session-attest|{parent}|{session}|{expires_at}")
}

/// What the session signs in `session_hello`.
pub fn session_hello(mesh: &MeshId, parent: &str, session: &str, timestamp: &str) -> String {
    format!("claudemesh-session-hello|{mesh}|{parent}|{session}|{timestamp}")
}

/// What the owner signs for a v2 invite. `expires_at` in Unix seconds.
pub fn invite_v2(mesh: &MeshId, invite: &InviteId, expires_at: i64, role: &str, owner: &PublicKey) -> String {
    format!("v=2|{mesh}|{invite}|{expires_at}|{role}|{owner}")
}

/// What a new member signs when it claims a v2 invite: binds its key and the recipient key to the code.
pub fn claim(code: &str, peer: &PublicKey, recipient_x25519: &str) -> String {
    format!("claudemesh-claim|{code}|{peer}|{recipient_x25519}")
}

/// What a member or owner signs for an HTTP request, see [`crate::crypto::http`].
pub fn http(method: &str, path_and_query: &str, timestamp_ms: i64, body_sha256_hex: &str) -> String {
    format!("claudemesh-http|{method}|{path_and_query}|{timestamp_ms}|{body_sha256_hex}")
}

/// What an approver's member key signs to answer a permission request of another member's session. It binds the answer to
/// one call (`digest`, SHA-256 in hex), one asking session, one mesh and one time; times in Unix milliseconds.
pub fn permission(word: &PermissionWord<'_>) -> String {
    let PermissionWord { mesh, request, session, digest, behavior, expires_at_ms, signed_at_ms } = word;
    format!("claudemesh-permission|{mesh}|{request}|{session}|{digest}|{behavior}|{expires_at_ms}|{signed_at_ms}")
}

/// The fields of [`permission`].
#[derive(Clone, Copy, Debug)]
pub struct PermissionWord<'a> {
    /// Row id of the mesh.
    pub mesh: &'a MeshId,
    /// Five letters.
    pub request: &'a str,
    /// Key of the session that asks.
    pub session: &'a PublicKey,
    /// SHA-256 of the call, in hex.
    pub digest: &'a str,
    /// `allow` or `deny`.
    pub behavior: &'a str,
    /// When the request ends.
    pub expires_at_ms: i64,
    /// When the approver decided, by its clock.
    pub signed_at_ms: i64,
}

/// What a member signs for one record of its permission log: SHA-256 of the record without its signature, in hex.
pub fn audit(record_sha256_hex: &str) -> String {
    format!("claudemesh-audit|{record_sha256_hex}")
}

/// What a member signs for a skill that it shares: the digest of [`crate::features::skills::SkillText::digest`], Unix milliseconds.
pub fn skill(mesh: &MeshId, digest: &str, signed_at_ms: i64) -> String {
    format!("claudemesh-skill|{mesh}|{digest}|{signed_at_ms}")
}

/// What a member signs for an entry of its vault: the digest of [`crate::features::vault::sealing`], Unix milliseconds.
pub fn vault(mesh: &MeshId, digest: &str, signed_at_ms: i64) -> String {
    format!("claudemesh-vault|{mesh}|{digest}|{signed_at_ms}")
}

/// What a member signs for a file that it shares: the digest of its label, see [`crate::crypto::file::label::Label`].
pub fn file(mesh: &MeshId, digest: &str) -> String {
    format!("claudemesh-file|{mesh}|{digest}")
}

/// What a broker signs for the end of a mesh's audit chain: place and hash of its last entry, Unix milliseconds.
pub fn audit_head(mesh: &MeshId, seq: i64, hash: &str, at_ms: i64) -> String {
    format!("audit-head|{mesh}|{seq}|{hash}|{at_ms}")
}
