//! What travels between the asking session and the approvers: sealed direct messages with a JSON body.
//!
//! The broker sees none of it. Bodies come from other people's clients: every field is checked when it is read.

use claudemesh_protocol::crypto::keys::{self, SecretKey};
use claudemesh_protocol::crypto::signed::{self, PermissionWord};
use claudemesh_protocol::id::{MeshId, PublicKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::preview::MAX_PREVIEW_CHARS;
use crate::inbox::Message;

/// Letters of a request id: what hosts use, without the letter that looks like a one.
const LETTERS: &[u8; 25] = b"abcdefghijkmnopqrstuvwxyz";
/// Letters of an id.
const ID_CHARS: usize = 5;
/// Longest tool name.
pub const MAX_TOOL_CHARS: usize = 200;
/// Longest reason.
pub const MAX_REASON_CHARS: usize = 300;

/// What an approver decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Behavior {
    /// The call may run.
    Allow,
    /// It must not.
    Deny,
}

impl Behavior {
    /// The word of the wire, of the host and of the signature.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// The body of a message with subtype `permission_request`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Five letters.
    pub id: String,
    /// Row id of the mesh.
    pub mesh_id: MeshId,
    /// Key of the asking session; the message must come from it.
    pub session: PublicKey,
    /// Name of the tool.
    pub tool: String,
    /// What the tool is asked to do: cleaned, secrets masked, bounded.
    pub preview: String,
    /// SHA-256 of tool and input.
    pub digest: String,
    /// Unix ms, by the asking clock.
    pub expires_at_ms: i64,
    /// How long it is open.
    pub ttl_ms: i64,
    /// Approvals it needs.
    pub quorum: u32,
    /// Approvers that were asked.
    pub of: u32,
}

impl Request {
    /// Reads the request in a message: sealed, well-formed, and from the session that it names.
    pub fn of(message: &Message) -> Option<Self> {
        let request: Self = body(message, super::REQUEST)?;
        let fine = is_id(&request.id)
            && request.session.to_hex() == message.sender_pubkey
            && is_digest(&request.digest)
            && request.tool.chars().count() <= MAX_TOOL_CHARS
            && request.preview.chars().count() <= MAX_PREVIEW_CHARS
            && request.ttl_ms > 0;
        fine.then_some(request)
    }

    /// Whether it is over by both clocks that this machine knows: the asker's word, and the time of arrival.
    pub fn is_over(&self, message: &Message, now_ms: i64) -> bool {
        now_ms > self.expires_at_ms && now_ms > message.received_at_ms.saturating_add(self.ttl_ms)
    }
}

/// The body of a message with subtype `permission_answer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Id of the request.
    pub id: String,
    /// The decision.
    pub behavior: Behavior,
    /// Member key of the approver.
    pub member: PublicKey,
    /// Unix ms, by the approver's clock.
    pub signed_at_ms: i64,
    /// 128 hex digits over [`signed::permission`].
    pub signature: String,
    /// In the approver's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Answer {
    /// Signs an answer with the member's key.
    pub fn sign(request: &Request, behavior: Behavior, reason: Option<&str>, key: &SecretKey, now_ms: i64) -> Self {
        let text = signed::permission(&PermissionWord {
            mesh: &request.mesh_id,
            request: &request.id,
            session: &request.session,
            digest: &request.digest,
            behavior: behavior.as_str(),
            expires_at_ms: request.expires_at_ms,
            signed_at_ms: now_ms,
        });
        Self {
            id: request.id.clone(),
            behavior,
            member: key.public(),
            signed_at_ms: now_ms,
            signature: key.sign(text.as_bytes()),
            reason: reason.map(|reason| reason.chars().take(MAX_REASON_CHARS).collect()),
        }
    }

    /// Reads the answer in a message; `None` when it is not sealed or not well-formed.
    pub fn of(message: &Message) -> Option<Self> {
        let answer: Self = body(message, super::ANSWER)?;
        (is_id(&answer.id) && answer.signature.len() == 128).then_some(answer)
    }

    /// Whether the signature is the member's own over these fields.
    pub fn proves(&self, word: &PermissionWord<'_>) -> bool {
        let word = PermissionWord { behavior: self.behavior.as_str(), signed_at_ms: self.signed_at_ms, ..*word };
        keys::verify(&self.member, signed::permission(&word).as_bytes(), &self.signature).is_ok()
    }
}

/// The body of a message with subtype `permission_closed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClosedNote {
    /// Id of the request.
    pub id: String,
    /// `allowed`, `denied`, `expired`, `withdrawn`.
    pub outcome: String,
}

impl ClosedNote {
    /// Reads the note in a message.
    pub fn of(message: &Message) -> Option<Self> {
        body(message, super::CLOSED).filter(|note: &Self| is_id(&note.id))
    }
}

/// Only what was sealed to us is looked at: everything else is the broker's word or anyone's.
fn body<T: serde::de::DeserializeOwned>(message: &Message, subtype: &str) -> Option<T> {
    if message.subtype.as_deref() != Some(subtype) || message.kind != "direct" {
        return None;
    }
    serde_json::from_str(message.body.as_deref()?).ok()
}

/// A fresh id.
pub fn new_id(rng: &mut impl rand::Rng) -> String {
    (0..ID_CHARS).map(|_| char::from(LETTERS[rng.gen_range(0..LETTERS.len())])).collect()
}

/// Whether a text is an id, exactly.
pub fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS && text.bytes().all(|byte| LETTERS.contains(&byte))
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

/// SHA-256 over the tool's name, a zero byte and its input with sorted keys, in hex.
pub fn digest(tool: &str, input: &Value) -> String {
    let mut hash = Sha256::new();
    hash.update(tool.as_bytes());
    hash.update([0]);
    hash.update(canonical(input).as_bytes());
    hex::encode(hash.finalize())
}

/// JSON without spaces whose keys are sorted at every level: the same text for the same value.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            let parts =
                pairs.into_iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)));
            format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_digest_is_of_the_value_and_not_of_its_spelling() {
        let one: Value = serde_json::from_str(r#"{"b": [1, {"d": 1, "c": 2}], "a": "x"}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"a":"x","b":[1,{"c":2,"d":1}]}"#).unwrap();
        assert_eq!(canonical(&one), r#"{"a":"x","b":[1,{"c":2,"d":1}]}"#);
        assert_eq!(digest("Bash", &one), digest("Bash", &other));
        assert_ne!(digest("Bash", &one), digest("Bas", &one));
        assert_ne!(digest("Bash", &json!({"command": "ls"})), digest("Bash", &json!({"command": "ls "})));
        // The value of the test vectors.
        let known = digest("Bash", &json!({"command": "make deploy"}));
        assert_eq!(known, hex::encode(Sha256::digest(b"Bash\0{\"command\":\"make deploy\"}")));
    }

    #[test]
    fn ids_have_five_letters_and_no_l() {
        let mut rng = rand::thread_rng();
        for _ in 0..1_000 {
            let id = new_id(&mut rng);
            assert!(is_id(&id) && !id.contains('l'), "{id}");
        }
        for bad in ["", "abcd", "abcdef", "abcdl", "ABCDE", "abcd1", "abcd\u{e9}"] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
