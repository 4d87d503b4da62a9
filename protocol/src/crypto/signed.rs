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
