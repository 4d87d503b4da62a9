//! Messages: `send` → `ack`, `push` → `client_ack`, receipts, pulling, resolving names, echo.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::Nothing;
use crate::features::presence::PeerStatus;
use crate::id::{MemberId, MeshId, PublicKey};
use crate::name::Address;
use crate::target::TargetField;

/// How urgent a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Always passes.
    Now,
    /// Waits while the recipient works or does not want to be disturbed.
    #[default]
    Next,
    /// Waits until it is pulled.
    Low,
}

impl Priority {
    /// All, most urgent first.
    pub const ALL: [Self; 3] = [Self::Now, Self::Next, Self::Low];

    /// The wire text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Next => "next",
            Self::Low => "low",
        }
    }
}

/// The receipt ladder. A step is claimed only when it is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// On disk (or held for recipients that acknowledged already).
    Stored,
    /// The client acknowledged.
    Received,
    /// Written into the session by a named route.
    Handed,
    /// A hook or tool call of the session shows that the model had its turn after it.
    Seen,
    /// A reply refers to it.
    Answered,
}

impl Stage {
    /// The wire text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Received => "received",
            Self::Handed => "handed",
            Self::Seen => "seen",
            Self::Answered => "answered",
        }
    }
}

/// Provenance of an exchange between agents: a reply keeps the id and adds a hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Names the exchange, at most 128 characters.
    pub id: String,
    /// 0 for the first message.
    #[serde(default)]
    pub hop: u32,
}

/// `send`: one message to a target. Answered by `ack`.
///
/// Shape: `{"type":"send","id":"1","targetSpec":"…","priority":"next","nonce":"<base64>","ciphertext":"<base64>"}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Send {
    /// Who is meant, see [`crate::target::Target`]. An array is the union, each recipient once.
    pub target_spec: TargetField,
    /// Urgency.
    pub priority: Priority,
    /// Opaque to the broker (base64 of 24 bytes, or empty).
    pub nonce: String,
    /// Opaque to the broker: a sealed body for direct targets, base64 of UTF-8 for audiences.
    pub ciphertext: String,
    /// Echoed in `ack.id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Idempotency key: a retry with the same one is the same message.
    #[serde(default, rename = "client_message_id", skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// SHA-256 (hex) over the parts of the request; a retry with another fingerprint is refused.
    #[serde(default, rename = "request_fingerprint", skip_serializing_if = "Option::is_none")]
    pub request_fingerprint: Option<String>,
    /// Names mentioned in a topic message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
    /// The message this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    /// Version of the body encoding, topics only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_version: Option<i32>,
    /// `question`, `reply`, … for the recipient's client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype: Option<String>,
    /// Loop control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// Keys (member or session) left out of an audience, because they got it directly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<PublicKey>,
    /// Shortens the 7 days that an undelivered message is kept.
    #[serde(default, rename = "expires_in_ms", skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

impl Default for TargetField {
    fn default() -> Self {
        Self::One(String::new())
    }
}

/// How a recipient is at the time of the answer. `S` as in [`Ack`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecipientState<S = String> {
    /// Display name.
    pub name: S,
    /// Name of its member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_name: Option<S>,
    /// The key it was addressed by: session key, or member key when no session is there.
    pub pubkey: PublicKey,
    /// Whether a socket is open.
    pub online: bool,
    /// `null` when away.
    pub status: Option<PeerStatus>,
    /// ISO time; `null` when online or never seen.
    pub last_seen_at: Option<S>,
    /// Messages waiting for it, this one included.
    pub waiting: u32,
    /// It is a session that has ended: the message waits for its key alone, and no other session of its member gets it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// `ack`: the answer to `send`; also the generic answer of `set_visible` and `set_profile`, whose `id` is the request id.
///
/// Texts are `String` for anyone who reads it; the broker writes it from borrowed ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack<S = String> {
    /// `send.id`, else `""`.
    pub id: S,
    /// Id of the message (of the first one, when this is a retry).
    pub message_id: S,
    /// On stable storage, or acknowledged by every recipient.
    pub queued: bool,
    /// With `queued:false`: text that starts with the code, as older clients classify it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<S>,
    /// With `error`: the stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<S>,
    /// With a limit: milliseconds to wait.
    #[serde(default, rename = "retry_after_ms", skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// This was a retry of a message that had been accepted before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// Lowest proved step over the recipients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Recipients with an open socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<u32>,
    /// Recipients it waits for in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
    /// The first [`MAX_ACK_RECIPIENTS`] recipients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<RecipientState<S>>,
    /// With `ambiguous_target`: what the target may mean.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

impl<S: Serialize> Ack<S> {
    /// Writes the frame, which has about so many bytes.
    pub fn write(&self, bytes: usize, req_id: Option<&str>) -> String {
        crate::frame::write_about(bytes, "ack", self, req_id)
    }
}

/// Recipients described in one `ack`: enough for a direct message, bounded for a broadcast.
pub const MAX_ACK_RECIPIENTS: usize = 8;

/// `push`: a message or an event for this session. Texts as in [`Ack`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Push<S = String> {
    /// Id to acknowledge; a UUID for broker events.
    pub message_id: S,
    /// Row id of the mesh.
    pub mesh_id: S,
    /// Key to answer to: the sender's session key, else its member key; `system`; `webhook:<name>`.
    pub sender_pubkey: S,
    /// The sender's member key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_pubkey: Option<S>,
    /// The sender's member id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_id: Option<MemberId>,
    /// The sender's display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<S>,
    /// Name of the sender's member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_name: Option<S>,
    /// Host of the sender's session, as far as it is known and the session is not hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_hostname: Option<S>,
    /// Its working directory, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_cwd: Option<S>,
    /// What the sender wrote as target, so that the reader knows direct from broadcast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_spec: Option<S>,
    /// Name of the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<S>,
    /// The message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<S>,
    /// Urgency.
    pub priority: Priority,
    /// Empty for broker events.
    pub nonce: S,
    /// Empty for broker events.
    pub ciphertext: S,
    /// ISO time of acceptance by the broker.
    pub created_at: S,
    /// The sender's idempotency key.
    #[serde(default, rename = "client_message_id", skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<S>,
    /// The sender's fingerprint.
    #[serde(default, rename = "request_fingerprint", skip_serializing_if = "Option::is_none")]
    pub request_fingerprint: Option<S>,
    /// `question`, `reply`, `reminder`, `system`, `webhook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype: Option<S>,
    /// Loop control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// Name of a broker event or webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<S>,
    /// Its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_data: Option<Value>,
}

impl<S: Serialize> Push<S> {
    /// Writes the frame, which has about so many bytes.
    pub fn write(&self, bytes: usize) -> String {
        crate::frame::write_about(bytes, "push", self, None)
    }
}

/// `client_ack`: this client has the message (or knows more about it). No answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientAck {
    /// The sender's idempotency key; only together with no other id (older clients).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// `push.messageId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_message_id: Option<String>,
    /// Several `push.messageId` at once, at most [`crate::limits::MAX_ACK_IDS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub message_ids: Vec<String>,
    /// Step reached; `received` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// With `handed` and above: the route, e.g. `channel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// `message_status`: what became of a message. Senders and recipients only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatus {
    /// Id, or a prefix of at least 8 characters.
    pub message_id: String,
}

/// One recipient in `message_status_result`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecipientReceipt {
    /// Display name.
    pub name: String,
    /// Name of its member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_name: Option<String>,
    /// Host of the session, when it is one and is not hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its working directory, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Session key, or member key while no session took it.
    pub pubkey: String,
    /// `delivered`, `held` (there, but not acknowledged yet), `disconnected`.
    pub status: String,
    /// Step of the ladder; absent once expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// ISO time of that step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_at: Option<String>,
    /// Route of `handed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// `message_status_result`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct MessageStatusResult {
    /// Full id.
    pub message_id: String,
    /// The sender's target text.
    pub target_spec: String,
    /// Every recipient acknowledged.
    pub delivered: bool,
    /// ISO time of the last acknowledgement, `null` before.
    pub delivered_at: Option<String>,
    /// Lowest step over the recipients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// At most 1,000.
    pub recipients: Vec<RecipientReceipt>,
}

/// `inbox_pull`: push what waits although its priority or my status holds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InboxPull {
    /// At most this many (default and ceiling 256).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `inbox_pull_result`: follows the pushes it announces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InboxPullResult {
    /// Pushed now.
    pub pushed: u32,
    /// Still waiting.
    pub remaining: u32,
}

/// `resolve_target`: who a name, key or prefix means, so that the body can be sealed to the right key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolveTarget {
    /// Name, key or prefix.
    pub target: String,
}

/// What a target text may mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// `session` or `member`.
    pub kind: String,
    /// Key to seal to and to send to.
    pub pubkey: PublicKey,
    /// Key of the member behind it.
    pub member_pubkey: PublicKey,
    /// Display name.
    pub name: String,
    /// Whether a socket is open.
    pub online: bool,
    /// Working directory, to tell sessions of one name apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Name of the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_name: Option<String>,
    /// Host of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// ISO time; absent when it is online or never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<String>,
}

impl Candidate {
    /// What one writes to reach it: the member's name, or `member/session`.
    pub fn address(&self) -> String {
        address(self.member_name.as_deref(), &self.name)
    }
}

impl<S: AsRef<str>> RecipientState<S> {
    /// As [`Candidate::address`].
    pub fn address(&self) -> String {
        address(self.member_name.as_ref().map(AsRef::as_ref), self.name.as_ref())
    }
}

impl RecipientReceipt {
    /// As [`Candidate::address`].
    pub fn address(&self) -> String {
        address(self.member_name.as_deref(), &self.name)
    }
}

fn address(member: Option<&str>, session: &str) -> String {
    Address { member: member.unwrap_or_default(), session }.to_string()
}

/// `resolve_target_result`: exactly one meaning (several are an `ambiguous_target` error).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolveTargetResult {
    /// The meaning.
    pub resolved: Candidate,
}

/// `echo`: measures the way to the broker and back without bothering a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Echo {
    /// Returned as it is, at most 128 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// `echo_result`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EchoResult {
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Broker time, ISO.
    pub broker_time: String,
    /// Row id of the mesh.
    pub mesh: MeshId,
    /// The caller's own status, which may hold messages back.
    pub status: PeerStatus,
    /// Messages waiting for the caller.
    pub waiting: crate::session::Waiting,
}

crate::wire_feature! {
    requests {
        /// One message to a key, a name, a group, a topic, everyone, or several of them.
        Send = "send" => answers Ack, needs CanSend, once;
        /// The client has these messages, or knows more about them; until then they come again.
        ClientAck = "client_ack" => silent Nothing, needs nothing, repeatable;
        /// What became of a message; senders and recipients only.
        MessageStatus = "message_status" => answers MessageStatusResult, needs nothing, repeatable;
        /// Push waiting messages, also those that their priority or my status holds back.
        InboxPull = "inbox_pull" => answers InboxPullResult, needs nothing, repeatable;
        /// Who a name, key or prefix means.
        ResolveTarget = "resolve_target" => answers ResolveTargetResult, needs nothing, repeatable;
        /// The way to the broker and back, without bothering a peer.
        Echo = "echo" => answers EchoResult, needs nothing, repeatable;
    }
    answers {
        Ack = "ack",
        MessageStatusResult = "message_status_result",
        InboxPullResult = "inbox_pull_result",
        ResolveTargetResult = "resolve_target_result",
        EchoResult = "echo_result",
    }
    events {
        Push = "push",
    }
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
