//! Who is there and how they are: status, summary, profile, visibility, statistics, the peer list.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{Nothing, Sessions};
use crate::features::groups::Group;
use crate::id::{MemberId, PublicKey};
use crate::name::Address;

/// Whether a session can be interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PeerStatus {
    /// Waiting for its human: everything is delivered.
    #[default]
    Idle,
    /// In a turn: only `now` is delivered.
    Working,
    /// Do not disturb: only `now` is delivered, and only the peer itself ends it.
    Dnd,
}

impl PeerStatus {
    /// The wire text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Dnd => "dnd",
        }
    }
}

/// Which of the caller's sessions a write is for. Without `targetSession` it is this connection.
///
/// Clients of the reference system never send the field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WriteTarget {
    /// A `sessionId` of the same member, or `*` for all its sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_session: Option<String>,
}

/// `set_status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetStatus {
    /// The new status.
    pub status: PeerStatus,
    /// Which session.
    #[serde(flatten)]
    pub target: WriteTarget,
}

/// `set_summary`: what the session works on, in a sentence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetSummary {
    /// At most [`crate::limits::MAX_SUMMARY_CHARS`].
    pub summary: String,
    /// Which session.
    #[serde(flatten)]
    pub target: WriteTarget,
}

/// `set_stats`: replaces the session's counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetStats {
    /// `{messagesIn, messagesOut, toolCalls, uptime, errors}`, each optional.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
}

/// Counters of one session since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// Messages received.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain_number")]
    pub messages_in: Option<f64>,
    /// Messages sent.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain_number")]
    pub messages_out: Option<f64>,
    /// Tool calls.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain_number")]
    pub tool_calls: Option<f64>,
    /// Seconds since the session started.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain_number")]
    pub uptime: Option<f64>,
    /// Failed tool calls.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain_number")]
    pub errors: Option<f64>,
}

/// Whole numbers without a fraction: other clients count in integers and read `3.0` as something else.
fn plain_number<S: serde::Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    /// Up to here every whole `f64` is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        #[allow(clippy::cast_possible_truncation, reason = "whole and in range")]
        Some(number) if number.fract() == 0.0 && number.abs() <= EXACT => serializer.serialize_i64(*number as i64),
        Some(number) => serializer.serialize_f64(*number),
        None => serializer.serialize_none(),
    }
}

/// `set_visible`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetVisible {
    /// `false` hides the session from lists and audiences.
    pub visible: bool,
    /// Which session.
    #[serde(flatten)]
    pub target: WriteTarget,
}

/// `set_profile`: merges the given fields; an empty text or list clears one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetProfile {
    /// The fields.
    #[serde(flatten)]
    pub profile: Profile,
    /// Which session.
    #[serde(flatten)]
    pub target: WriteTarget,
}

/// What a peer says about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Profile {
    /// A symbol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// Role in the team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// A few sentences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bio: Option<String>,
    /// What it can help with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
}

impl Profile {
    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over the fields that are given; an empty value clears.
    pub fn merge(&mut self, given: Self) {
        let text = |slot: &mut Option<String>, value: Option<String>| {
            if let Some(value) = value {
                *slot = (!value.is_empty()).then_some(value);
            }
        };
        text(&mut self.avatar, given.avatar);
        text(&mut self.title, given.title);
        text(&mut self.bio, given.bio);
        if let Some(value) = given.capabilities {
            self.capabilities = (!value.is_empty()).then_some(value);
        }
    }
}

/// `list_peers`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListPeers {}

/// One peer of `peers_list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Key to send to: session key, else member key.
    pub pubkey: PublicKey,
    /// Member key.
    pub member_pubkey: PublicKey,
    /// Member id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<MemberId>,
    /// Name of the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_name: Option<String>,
    /// Effective name.
    pub display_name: String,
    /// Status.
    pub status: PeerStatus,
    /// `null` when never set.
    pub summary: Option<String>,
    /// Groups with roles: the session's own and its member's.
    pub groups: Vec<Group>,
    /// Those of them that the member is in, with all its sessions and while it is away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_groups: Vec<Group>,
    /// The client's session id.
    pub session_id: String,
    /// ISO time.
    pub connected_at: String,
    /// Working directory.
    pub cwd: String,
    /// `control-plane`, `session` or `service`.
    #[serde(default = "session")]
    pub peer_role: String,
    /// `owner`, `admin` or `member`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// `false` while the socket is closed and the lease runs.
    #[serde(default = "yes")]
    pub online: bool,
    /// ISO time of the last frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<String>,
    /// Whether this is the asking connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_self: Option<bool>,
    /// Messages waiting for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
    /// Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `ai`, `human`, `connector`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// Kind of client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Counters, as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
    /// Visibility.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<bool>,
    /// Only when not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

impl Peer {
    /// What one writes to reach it: `member/session`, or the member's name when the session has none of its own.
    pub fn address(&self) -> String {
        Address { member: self.member_name.as_deref().unwrap_or_default(), session: &self.display_name }.to_string()
    }
}

fn yes() -> bool {
    true
}

fn session() -> String {
    "session".into()
}

/// `peers_list`: oldest connection first, the caller included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeersList {
    /// The peers.
    #[serde(deserialize_with = "peers")]
    pub peers: Vec<Peer>,
}

/// Old brokers name one key for each peer and leave the member out; that key is the member then.
fn peers<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Peer>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Lenient(serde_json::Map<String, Value>);

    let mut list = Vec::new();
    for Lenient(mut peer) in Vec::<Lenient>::deserialize(deserializer)? {
        if !peer.contains_key("memberPubkey")
            && let Some(key) = peer.get("pubkey").cloned()
        {
            peer.insert("memberPubkey".into(), key);
        }
        list.push(serde_json::from_value(Value::Object(peer)).map_err(serde::de::Error::custom)?);
    }
    Ok(list)
}

/// Body of `POST /hook/set-status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookSetStatus {
    /// Working directory of the hook.
    pub cwd: String,
    /// The new status.
    pub status: PeerStatus,
    /// Process id of the session, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u64>,
    /// Session id of the host; matched first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
}

/// Answer of `POST /hook/set-status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HookSetStatusResult {
    /// Understood.
    pub ok: bool,
    /// A presence that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_id: Option<String>,
    /// How many presences changed (one session may be in several meshes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// No session matches yet; kept for 10 s.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Data of the events `peer_joined`, `peer_left`, `peer_returned`, `peer_visible`, `peer_hidden`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerEvent {
    /// Display name.
    pub name: String,
    /// Name of the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_name: Option<String>,
    /// Key to send to.
    pub pubkey: PublicKey,
    /// Joins and returns only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// Returns only, ISO time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<String>,
    /// Returns only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

/// Data of the event `low_waiting`: how many `low` messages can be pulled, told when the peer becomes idle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LowWaiting {
    /// How many.
    pub count: u32,
}

/// An event as the wire pushes it: name and JSON data.
#[expect(clippy::expect_used, reason = "no value of these structs fails")]
pub fn event_data<T: Serialize>(data: &T) -> Value {
    serde_json::to_value(data).expect("event structs serialise: string keys, no failing impl")
}

crate::wire_feature! {
    requests {
        /// `idle`, `working` or `dnd`; becoming idle releases what was held.
        SetStatus = "set_status" => silent Sessions, needs nothing, repeatable;
        /// What the session works on.
        SetSummary = "set_summary" => silent Sessions, needs nothing, repeatable;
        /// Replaces the session's counters.
        SetStats = "set_stats" => silent Nothing, needs nothing, repeatable;
        /// Hides the session from lists and audiences, or shows it. Without `confirm` it is answered by an `ack` with the request's id.
        SetVisible = "set_visible" => silent Sessions, needs nothing, repeatable;
        /// Merges avatar, title, bio and capabilities; an empty value clears. Answered as `set_visible`.
        SetProfile = "set_profile" => silent Sessions, needs nothing, repeatable;
        /// Who is there, oldest connection first.
        ListPeers = "list_peers" => answers PeersList, needs nothing, repeatable;
    }
    answers {
        PeersList = "peers_list",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
