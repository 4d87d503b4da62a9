//! Rows of the inbox and their words.

use claudemesh_protocol::name::Address;
use diesel::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attachments::{Attachment, split};
use super::schema::{deliveries, messages};

/// How a message was addressed, the `kind` of notes and lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// To one key; the body was sealed.
    Direct,
    /// To a group or everyone.
    Broadcast,
    /// To a topic.
    Channel,
    /// The broker does not say.
    Unknown,
}

impl Kind {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Broadcast => "broadcast",
            Self::Channel => "channel",
            Self::Unknown => "unknown",
        }
    }
}

/// Whose message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipientKind {
    /// One session's.
    Session,
    /// The member's: any session may show it.
    Member,
    /// One of an audience's.
    Audience,
}

impl RecipientKind {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Member => "member",
            Self::Audience => "audience",
        }
    }
}

/// The columns that a message brings and keeps, told once for both rows.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// A message to store.
        #[derive(Clone, Debug, PartialEq, Eq, Insertable)]
        #[diesel(table_name = messages)]
        pub struct NewMessage {
            $($(#[$doc])* pub $name: $type,)*
            /// Key the body was sealed to, when it was sealed.
            pub recipient_pubkey: Option<String>,
        }

        /// A stored message. Its JSON form is for the local socket only; lists have [`Message::to_json`].
        #[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
        #[diesel(table_name = messages, check_for_backend(diesel::sqlite::Sqlite))]
        pub struct Message {
            /// Local order of arrival.
            pub seq: i64,
            $($(#[$doc])* pub $name: $type,)*
            /// Unix ms when a human or a model had it before it.
            pub seen_at_ms: Option<i64>,
        }
    };
}

rows! {
    /// `push.messageId`
    message_id: String,
    /// The sender's idempotency key.
    client_message_id: Option<String>,
    /// Key to answer to.
    sender_pubkey: String,
    /// Member key, or the only known key.
    sender_member: String,
    /// Name of the session at the time of sending.
    sender_name: Option<String>,
    /// Name of its member at the time of the delivery.
    sender_member_name: Option<String>,
    /// Host that the session runs on.
    sender_hostname: Option<String>,
    /// Its working directory.
    sender_cwd: Option<String>,
    /// What the sender addressed.
    target_spec: Option<String>,
    /// A word of [`Kind`].
    kind: String,
    /// A word of [`RecipientKind`].
    recipient_kind: String,
    /// Topic name.
    topic: Option<String>,
    /// Id of the message it answers.
    reply_to_id: Option<String>,
    /// `now`, `next` or `low`.
    priority: String,
    /// `question`, `reply`, `reminder`, `webhook` …
    subtype: Option<String>,
    /// Name of an event.
    event: Option<String>,
    /// Its JSON.
    event_data: Option<String>,
    /// Exchange it belongs to.
    trace_id: Option<String>,
    /// Its place there.
    trace_hop: i32,
    /// Text; `None` when it cannot be opened.
    body: Option<String>,
    /// ISO time of acceptance by the broker.
    created_at: String,
    /// Unix ms.
    received_at_ms: i64,
}

impl Message {
    /// What one writes to reach the sender: `member/session`, or the member's name; without any `peer-<first 8 of its key>`. As
    /// the peer wrote it: clean it before showing.
    pub fn from_name(&self) -> String {
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        match (text(&self.sender_member_name), text(&self.sender_name)) {
            (Some(member), session) => {
                Address { member: &member, session: session.as_deref().unwrap_or_default() }.to_string()
            }
            (None, Some(session)) => session,
            (None, None) => format!("peer-{}", self.sender_pubkey.chars().take(8).collect::<String>()),
        }
    }

    /// Where the sending session runs: `host:folder`, or one of them.
    pub fn place(&self) -> Option<String> {
        match (self.sender_hostname.as_deref(), self.sender_cwd.as_deref()) {
            (Some(host), Some(folder)) => Some(format!("{host}:{folder}")),
            (host, folder) => host.or(folder).map(str::to_owned),
        }
    }

    /// The text to show: the body, the event, or what is wrong. Never ciphertext.
    pub fn text(&self) -> String {
        if let Some(text) = crate::features::permissions::text::shown(self) {
            return text;
        }
        match (&self.body, &self.event) {
            (Some(body), _) => crate::features::files::attach::shown(body),
            (None, Some(event)) => format!("{event} {}", self.event_data.as_deref().unwrap_or("{}")),
            (None, None) => {
                format!("(a sealed message from {} that the keys of this member cannot open)", self.from_name())
            }
        }
    }

    /// Files that came with it.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.body.as_deref().map(|body| split(body).1).unwrap_or_default()
    }

    /// The object of `inbox --json` and of `check_messages`.
    pub fn to_json(&self, mesh_slug: &str) -> Value {
        serde_json::to_value(self.object(mesh_slug)).unwrap_or_default()
    }

    /// The same as a struct.
    pub fn object(&self, mesh_slug: &str) -> MessageObject {
        MessageObject {
            message_id: self.message_id.clone(),
            mesh: mesh_slug.to_owned(),
            sender_pubkey: self.sender_pubkey.clone(),
            sender_member_pubkey: self.sender_member.clone(),
            from: self.from_name(),
            sender_name: self.sender_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| self.from_name()),
            sender_member_name: self.sender_member_name.clone(),
            sender_hostname: self.sender_hostname.clone(),
            sender_cwd: self.sender_cwd.clone(),
            target_spec: self.target_spec.clone(),
            kind: self.kind.clone(),
            priority: self.priority.clone(),
            created_at: self.created_at.clone(),
            received_at: claudemesh_protocol::time::iso(self.received_at_ms),
            plaintext: self.body.as_deref().map(|body| split(body).0.to_owned()),
            attachments: self.attachments(),
            seen: self.seen_at_ms.is_some(),
            topic: self.topic.clone(),
            reply_to_id: self.reply_to_id.clone(),
            subtype: self.subtype.clone(),
            event: self.event.clone(),
            event_data: self.event_data.as_deref().and_then(|data| serde_json::from_str(data).ok()),
        }
    }
}

/// A message for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageObject {
    message_id: String,
    mesh: String,
    sender_pubkey: String,
    sender_member_pubkey: String,
    /// What one writes to reach the sender.
    from: String,
    sender_name: String,
    sender_member_name: Option<String>,
    sender_hostname: Option<String>,
    sender_cwd: Option<String>,
    target_spec: Option<String>,
    kind: String,
    priority: String,
    created_at: String,
    received_at: String,
    /// `null` when it cannot be opened.
    plaintext: Option<String>,
    /// Files that came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Attachment>,
    seen: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_data: Option<Value>,
}

#[derive(Insertable)]
#[diesel(table_name = deliveries)]
pub(super) struct NewDelivery<'a> {
    pub(super) reader: &'a str,
    pub(super) seq: i64,
    pub(super) received_at_ms: i64,
    pub(super) stage: &'a str,
}
