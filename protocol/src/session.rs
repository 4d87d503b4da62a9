//! The handshake: `hello`, `session_hello`, `hello_ack`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::features::groups::Group;
use crate::id::{MemberId, MeshId, PresenceId};

/// Fields that both hellos share and that describe the peer to others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerDescription {
    /// Wire version of the client; absent for old clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<u32>,
    /// Capability words, see [`crate::version`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Overrides the member's name for this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Host the session runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `ai`, `human`, `connector`, or any other word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// What kind of client: `claude-code`, `cli`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Model name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Initial groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// SHA-256 (hex) of the hook token; hooks that present the token may set this session's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_token_hash: Option<String>,
}

impl PeerDescription {
    /// Whether the client announced a capability.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|word| word == capability)
    }
}

/// `hello`: a connection vouched for by the member key alone.
///
/// Signed: `<meshId>|<memberId>|<pubkey>|<timestamp>` by the member key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Row id of the mesh.
    pub mesh_id: MeshId,
    /// Row id of the member.
    pub member_id: MemberId,
    /// Member key, 64 hex digits.
    pub pubkey: String,
    /// Unproven session key, 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_pubkey: Option<String>,
    /// The client's session id.
    pub session_id: String,
    /// Process id, matched by status hooks.
    pub pid: u64,
    /// Working directory, shown to peers and matched by status hooks.
    pub cwd: String,
    /// Unix milliseconds, as the number was written.
    pub timestamp: serde_json::Number,
    /// Detached signature, 128 hex digits.
    pub signature: String,
    /// What peers see.
    #[serde(flatten)]
    pub description: PeerDescription,
}

/// `session_hello`: a connection of one launched session, its key proven and attested by the member.
///
/// Signed: `claudemesh-session-hello|<meshId>|<parentMemberPubkey>|<sessionPubkey>|<timestamp>` by the session key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionHello {
    /// Row id of the mesh.
    pub mesh_id: MeshId,
    /// Row id of the member; an empty text skips the comparison.
    pub parent_member_id: String,
    /// Member key, 64 lower-case hex digits.
    pub parent_member_pubkey: String,
    /// Session key, 64 lower-case hex digits.
    pub session_pubkey: String,
    /// The member's word for the session key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_attestation: Option<Attestation>,
    /// The client's session id.
    pub session_id: String,
    /// Process id, matched by status hooks.
    pub pid: u64,
    /// Working directory.
    pub cwd: String,
    /// Unix milliseconds.
    pub timestamp: serde_json::Number,
    /// Detached signature by the session key.
    pub signature: String,
    /// What peers see.
    #[serde(flatten)]
    pub description: PeerDescription,
}

/// The member's signature over a session key:
/// `claudemesh-session-attest|<parentMemberPubkey>|<sessionPubkey>|<expiresAt>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// The attested key.
    pub session_pubkey: String,
    /// The attesting key.
    pub parent_member_pubkey: String,
    /// Unix milliseconds.
    pub expires_at: serde_json::Number,
    /// By the member key.
    pub signature: String,
}

/// Whether members may edit their own fields.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SelfEditable {
    /// `displayName`
    pub display_name: bool,
    /// `roleTag`
    pub role_tag: bool,
    /// `groups`
    pub groups: bool,
    /// `messageMode`
    pub message_mode: bool,
}

impl Default for SelfEditable {
    fn default() -> Self {
        Self { display_name: true, role_tag: true, groups: true, message_mode: true }
    }
}

/// Policy of a mesh as clients see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshPolicy {
    /// Fields members may edit themselves.
    pub self_editable: SelfEditable,
}

/// Member defaults in `hello_ack`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberProfile {
    /// Free role text, `null` when unset.
    pub role_tag: Option<String>,
    /// Default groups.
    pub groups: Vec<Group>,
    /// `push`, `inbox` or `off`.
    pub message_mode: String,
}

/// How many messages wait for this session, by priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// `now`
    pub now: u32,
    /// `next`
    pub next: u32,
    /// `low`
    pub low: u32,
}

/// `hello_ack`: the answer to either hello. Always sent before the first push.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloAck {
    /// Id of the connection record.
    pub presence_id: PresenceId,
    /// The effective name of this session.
    pub member_display_name: String,
    /// Name of the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_name: Option<String>,
    /// Wire version of the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<u32>,
    /// Version of the broker's program, such as `0.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_version: Option<String>,
    /// What the broker can do, see [`crate::version::BROKER_CAPABILITIES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Role of the member: `owner`, `admin` or `member`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_role: Option<String>,
    /// Whether an earlier record of this session was taken over silently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reattached: Option<bool>,
    /// Queue depth at attach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Member defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_profile: Option<MemberProfile>,
    /// Mesh policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_policy: Option<MeshPolicy>,
    /// `true` when stored presence was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
    /// With `restored`: the last summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_summary: Option<String>,
    /// With `restored`: ISO time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<String>,
    /// With `restored`: stored groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_groups: Option<Vec<Group>>,
    /// With `restored`: totals of the member over all sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_stats: Option<Value>,
    /// Running services visible to the peer.
    #[serde(default)]
    pub services: Vec<Value>,
    /// What single features tell at the start, by the feature's name, for example `{"state":{"version":7}}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, Value>,
}

crate::wire_feature! {
    requests {
        /// First frame of a connection that the member key vouches for.
        Hello = "hello" => answers HelloAck, needs nothing, once;
        /// First frame of a connection whose session key is proven and attested by the member.
        SessionHello = "session_hello" => answers HelloAck, needs nothing, once;
    }
    answers {
        HelloAck = "hello_ack",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
