//! The checks of a hello that need no mesh: shapes, clock, signatures. In the order of the wire contract.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use claudemesh_protocol::crypto::{keys, signed};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::{MeshId, PublicKey};
use claudemesh_protocol::session::{Hello, PeerDescription, Request, SessionHello};
use claudemesh_protocol::{limits, name};
use sha2::{Digest, Sha256};

/// A hello whose signatures hold. What is left to the mesh: membership, bans, capacity, who owns the session key.
#[derive(Clone, Debug)]
pub struct VerifiedHello {
    /// Mesh.
    pub mesh: MeshId,
    /// Member key, proven.
    pub member_key: PublicKey,
    /// Member id as claimed; empty skips the comparison.
    pub member_id: String,
    /// Session key.
    pub session_key: Option<PublicKey>,
    /// Whether the session key was proven.
    pub proven: bool,
    /// The client's session id.
    pub session_id: String,
    /// Process id.
    pub pid: u64,
    /// Working directory.
    pub cwd: String,
    /// What peers see.
    pub description: PeerDescription,
    /// The timestamp that was signed.
    pub timestamp: String,
}

/// Proofs of session keys that were used within the allowed clock skew: a captured `session_hello` opens nothing.
///
/// A plain hello is not remembered: it proves no session key, and older clients may open several connections with the
/// same timestamp.
#[derive(Debug, Default)]
pub struct SeenHellos {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    proofs: HashSet<Proof>,
    order: VecDeque<(i64, Proof)>,
}

/// Half of the SHA-256 over what was signed: short, because thousands are kept.
type Proof = [u8; 16];

/// Proofs remembered at once: two minutes of 2,000 hellos a second.
const MAX_SEEN: usize = 262_144;

impl SeenHellos {
    /// Notes a proof; `false` when it was used before.
    pub fn first_time(&self, hello: &VerifiedHello, mono_ms: i64) -> bool {
        let Some(session) = hello.session_key else { return true };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Twice the skew: a proof made in the future stays valid that long.
        let ttl = 2 * limits::MAX_CLOCK_SKEW_MS + 1_000;
        while seen.order.front().is_some_and(|(at, _)| mono_ms - at > ttl) || seen.order.len() >= MAX_SEEN {
            if let Some((_, old)) = seen.order.pop_front() {
                seen.proofs.remove(&old);
            }
        }
        let digest = Sha256::digest(format!("{}|{session}|{}", hello.mesh, hello.timestamp));
        let mut proof = Proof::default();
        proof.copy_from_slice(&digest[..16]);
        if !seen.proofs.insert(proof) {
            return false;
        }
        seen.order.push_back((mono_ms, proof));
        true
    }
}

/// Verifies either hello.
///
/// # Errors
/// The code that the `error` frame and the close reason carry.
pub fn verify(request: Request, now_ms: i64) -> Result<VerifiedHello, ErrorCode> {
    match request {
        Request::Hello(hello) => verify_hello(hello, now_ms),
        Request::SessionHello(hello) => verify_session_hello(hello, now_ms),
    }
}

fn verify_hello(hello: Hello, now_ms: i64) -> Result<VerifiedHello, ErrorCode> {
    let session_key = match hello.session_pubkey.as_deref().filter(|key| !key.is_empty()) {
        Some(key) => Some(PublicKey::parse(key).ok_or(ErrorCode::BadSessionPubkey)?),
        None => None,
    };
    check_time(&hello.timestamp, now_ms)?;
    let member_key = PublicKey::parse_any_case(&hello.pubkey).ok_or(ErrorCode::Malformed)?;
    let canonical =
        signed::hello(&hello.mesh_id, hello.member_id.as_str(), &hello.pubkey, &hello.timestamp.to_string());
    check_signature(&member_key, &canonical, &hello.signature)?;
    Ok(VerifiedHello {
        mesh: hello.mesh_id,
        member_key,
        member_id: hello.member_id.to_string(),
        session_key,
        proven: false,
        session_id: hello.session_id,
        pid: hello.pid,
        cwd: hello.cwd,
        description: hello.description,
        timestamp: hello.timestamp.to_string(),
    })
}

fn verify_session_hello(hello: SessionHello, now_ms: i64) -> Result<VerifiedHello, ErrorCode> {
    let session_key = PublicKey::parse(&hello.session_pubkey).ok_or(ErrorCode::BadSessionPubkey)?;
    let parent = PublicKey::parse(&hello.parent_member_pubkey).ok_or(ErrorCode::BadParentPubkey)?;
    let attestation = hello.parent_attestation.as_ref().ok_or(ErrorCode::AttestationMismatch)?;
    if attestation.session_pubkey != hello.session_pubkey
        || attestation.parent_member_pubkey != hello.parent_member_pubkey
    {
        return Err(ErrorCode::AttestationMismatch);
    }
    let expires = attestation.expires_at.as_f64().filter(|at| at.is_finite()).ok_or(ErrorCode::Malformed)?;
    if expires <= now_ms as f64 {
        return Err(ErrorCode::Expired);
    }
    if expires > (now_ms + limits::MAX_ATTESTATION_TTL_MS) as f64 {
        return Err(ErrorCode::TtlTooLong);
    }
    let canonical =
        signed::attestation(&hello.parent_member_pubkey, &hello.session_pubkey, &attestation.expires_at.to_string());
    check_signature(&parent, &canonical, &attestation.signature)?;
    check_time(&hello.timestamp, now_ms)?;
    let canonical = signed::session_hello(
        &hello.mesh_id,
        &hello.parent_member_pubkey,
        &hello.session_pubkey,
        &hello.timestamp.to_string(),
    );
    check_signature(&session_key, &canonical, &hello.signature)?;
    Ok(VerifiedHello {
        mesh: hello.mesh_id,
        member_key: parent,
        member_id: hello.parent_member_id,
        session_key: Some(session_key),
        proven: true,
        session_id: hello.session_id,
        pid: hello.pid,
        cwd: hello.cwd,
        description: hello.description,
        timestamp: hello.timestamp.to_string(),
    })
}

/// The time that a hello says, in whole milliseconds; `None` for a number that is no time.
#[allow(clippy::cast_possible_truncation, reason = "a cast of a float keeps to the bounds")]
pub fn timestamp_ms(request: &Request) -> Option<i64> {
    let timestamp = match request {
        Request::Hello(hello) => &hello.timestamp,
        Request::SessionHello(hello) => &hello.timestamp,
    };
    timestamp.as_f64().filter(|at| at.is_finite()).map(|at| at as i64)
}

fn check_time(timestamp: &serde_json::Number, now_ms: i64) -> Result<(), ErrorCode> {
    let at = timestamp.as_f64().filter(|at| at.is_finite()).ok_or(ErrorCode::TimestampSkew)?;
    if (now_ms as f64 - at).abs() > limits::MAX_CLOCK_SKEW_MS as f64 {
        return Err(ErrorCode::TimestampSkew);
    }
    Ok(())
}

fn check_signature(key: &PublicKey, canonical: &str, signature: &str) -> Result<(), ErrorCode> {
    keys::verify(key, canonical.as_bytes(), signature).map_err(|error| match error {
        keys::KeyError::BadSignature => ErrorCode::BadSignature,
        keys::KeyError::BadSignatureShape | keys::KeyError::BadPublic | keys::KeyError::BadSecret => {
            ErrorCode::Malformed
        }
    })
}

/// Cuts what peers see to its limits: a long name is shortened, never a reason to refuse a session.
pub fn trim(description: &mut PeerDescription) {
    fn cut(text: &mut Option<String>, limit: usize) {
        if let Some(text) = text
            && text.chars().count() > limit
        {
            *text = text.chars().take(limit).collect();
        }
    }
    for text in
        [&mut description.hostname, &mut description.peer_type, &mut description.channel, &mut description.model]
    {
        cut(text, limits::MAX_TEXT_CHARS);
    }
    // The rule for the names of members, for those that a client brings along.
    description.display_name = description.display_name.take().and_then(|name| name::brought(&name));
    description.capabilities.truncate(limits::MAX_CAPABILITIES);
    description.hook_token_hash = description
        .hook_token_hash
        .take()
        .filter(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(|hash| hash.to_ascii_lowercase());
    if let Some(groups) = &mut description.groups {
        groups.truncate(limits::MAX_GROUPS);
        groups.retain_mut(|group| match claudemesh_protocol::target::group_name(&group.name) {
            Ok(name) => {
                group.name = name;
                group.role = group.role.take().map(|role| role.chars().take(limits::MAX_NAME_CHARS).collect());
                true
            }
            Err(_) => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_session_cannot_disguise_itself() {
        let shown = |name: &str| {
            let mut description = PeerDescription { display_name: Some(name.into()), ..PeerDescription::default() };
            trim(&mut description);
            description.display_name
        };
        assert_eq!(shown(" Zoë 🦊 ").as_deref(), Some("Zoë 🦊"));
        assert_eq!(shown("al\u{200b}ice\u{202e}\n").as_deref(), Some("alice"));
        assert_eq!(shown("\u{feff}\t"), None, "then it has its member's");
        assert_eq!(shown(&"ü".repeat(100)), Some("ü".repeat(limits::MAX_NAME_CHARS)));
    }
}
