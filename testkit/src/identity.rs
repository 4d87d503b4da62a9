//! Members and sessions with real keys, and the hellos they say.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::crypto::signed;
use claudemesh_protocol::id::{MemberId, MeshId};
use claudemesh_protocol::version;
use serde_json::{Value, json};

use crate::clock::now_ms;

/// One enrolled member of a mesh.
#[derive(Clone, Debug)]
pub struct Member {
    /// Mesh it belongs to.
    pub mesh: MeshId,
    /// Row id.
    pub id: MemberId,
    /// Its key pair.
    pub key: SecretKey,
    /// Display name.
    pub name: String,
    /// When it said hello last.
    pub last_hello: LastHello,
}

impl Member {
    /// Hex of the public key.
    pub fn pubkey(&self) -> String {
        self.key.public().to_hex()
    }

    /// A signed `hello` for one connection. Further fields are merged from `extra` (an object).
    pub fn hello(&self, session_id: &str, extra: Value) -> Value {
        self.hello_at(now_ms(), session_id, extra)
    }

    /// As [`Self::hello`], signed at that time (Unix ms).
    pub fn hello_at(&self, timestamp: i64, session_id: &str, extra: Value) -> Value {
        let timestamp = self.last_hello.next(timestamp);
        let canonical = signed::hello(&self.mesh, self.id.as_str(), &self.pubkey(), &timestamp.to_string());
        let hello = json!({
            "type": "hello", "protocolVersion": version::PROTOCOL_VERSION, "capabilities": [version::CAP_CLIENT_ACK],
            "meshId": self.mesh, "memberId": self.id, "pubkey": self.pubkey(), "sessionId": session_id,
            "displayName": self.name, "pid": std::process::id(), "cwd": "/tmp/test", "timestamp": timestamp,
            "signature": self.key.sign(canonical.as_bytes()),
        });
        merged(hello, extra)
    }

    /// A new session of this member with its own key.
    pub fn session(self: &Arc<Self>, session_id: &str) -> Session {
        let key = SecretKey::random(&mut rand::thread_rng());
        Session { member: Arc::clone(self), key, id: session_id.to_owned(), last_hello: LastHello::default() }
    }
}

/// One launched session: its key is attested by the member.
#[derive(Clone, Debug)]
pub struct Session {
    /// Whose it is.
    pub member: Arc<Member>,
    /// Its key pair.
    pub key: SecretKey,
    /// The client's session id.
    pub id: String,
    /// When it said hello last.
    pub last_hello: LastHello,
}

impl Session {
    /// Hex of the public key: the address of direct messages.
    pub fn pubkey(&self) -> String {
        self.key.public().to_hex()
    }

    /// A signed `session_hello`. Further fields are merged from `extra` (an object).
    pub fn hello(&self, extra: Value) -> Value {
        self.hello_at(now_ms(), extra)
    }

    /// As [`Self::hello`], signed at that time (Unix ms).
    pub fn hello_at(&self, timestamp: i64, extra: Value) -> Value {
        let timestamp = self.last_hello.next(timestamp);
        let expires = timestamp + 3_600_000;
        let (parent, own) = (self.member.pubkey(), self.pubkey());
        let attested = signed::attestation(&parent, &own, &expires.to_string());
        let canonical = signed::session_hello(&self.member.mesh, &parent, &own, &timestamp.to_string());
        let hello = json!({
            "type": "session_hello", "protocolVersion": version::PROTOCOL_VERSION,
            "capabilities": [version::CAP_CLIENT_ACK], "meshId": self.member.mesh, "parentMemberId": self.member.id,
            "parentMemberPubkey": parent, "sessionPubkey": own, "sessionId": self.id, "pid": std::process::id(),
            "cwd": "/tmp/test", "timestamp": timestamp, "signature": self.key.sign(canonical.as_bytes()),
            "displayName": self.member.name,
            "parentAttestation": {
                "sessionPubkey": own, "parentMemberPubkey": parent, "expiresAt": expires,
                "signature": self.member.key.sign(attested.as_bytes()),
            },
        });
        merged(hello, extra)
    }
}

/// The time of the last hello of one identity. Under a clock that stands still its next hello would be word for word
/// the one before, and the broker rightly takes that for a captured one.
#[derive(Clone, Debug, Default)]
pub struct LastHello(Arc<AtomicI64>);

impl LastHello {
    /// The given time, or the millisecond after the last one when that is not past yet.
    fn next(&self, timestamp: i64) -> i64 {
        let last = self.0.load(Ordering::Relaxed);
        let next = if (0..1000).contains(&(last - timestamp)) { last + 1 } else { timestamp };
        self.0.store(next, Ordering::Relaxed);
        next
    }
}

/// `base` with the fields of `extra` over it; a `null` removes the field.
pub fn merged(mut base: Value, extra: Value) -> Value {
    if let (Value::Object(into), Value::Object(from)) = (&mut base, extra) {
        for (name, value) in from {
            if value.is_null() {
                into.remove(&name);
            } else {
                into.insert(name, value);
            }
        }
    }
    base
}
