//! What happens to the messages and members of a topic: edits, deletions, reactions, pins, roles, searches, mentions.

use serde::{Deserialize, Serialize};

use super::{TopicMessage, TopicRef, Visibility};
use crate::id::{MemberId, TopicId};

/// `topic_update`: fields that are absent stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopicUpdate {
    /// Id or name.
    pub topic: String,
    /// What it is for; an empty text takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who may see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// Days that messages are kept, 1 to 365; 0 for the usual 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
}

/// `topic_updated`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TopicUpdated {
    /// The topic as it is now.
    pub topic: TopicRef,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Days that messages are kept; absent for the usual 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
}

/// `topic_set_member`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicSetMember {
    /// Id or name.
    pub topic: String,
    /// Name, key or id of the member.
    pub member: String,
    /// `lead`, `observer`, or any other word, which has the rights of `member`.
    pub role: String,
}

/// `topic_remove_member`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicRemoveMember {
    /// Id or name.
    pub topic: String,
    /// Name, key or id of the member.
    pub member: String,
}

/// `topic_member_set`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicMemberSet {
    /// As asked.
    pub topic: String,
    /// The member.
    pub member_id: MemberId,
    /// `null` when it subscribes no more.
    pub role: Option<String>,
}

/// `topic_edit`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicEdit {
    /// Id or name.
    pub topic: String,
    /// The message.
    pub message_id: String,
    /// Base64, as in `send`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// Base64, as in `send`.
    pub ciphertext: String,
    /// 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_version: Option<i32>,
}

/// `topic_delete_message`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicDeleteMessage {
    /// Id or name.
    pub topic: String,
    /// The message.
    pub message_id: String,
}

/// `topic_react`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicReact {
    /// Id or name.
    pub topic: String,
    /// The message.
    pub message_id: String,
    /// An emoji, or a short word.
    pub emoji: String,
    /// Takes the reaction back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
}

/// `topic_pin`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicPin {
    /// Id or name.
    pub topic: String,
    /// The message.
    pub message_id: String,
    /// Takes the pin away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
}

/// One kind of reaction to a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reaction {
    /// The emoji.
    pub emoji: String,
    /// Members that reacted so.
    pub count: u32,
}

/// `topic_message_result`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopicMessageResult {
    /// The message as it is now.
    pub message: TopicMessage,
}

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MessageChange {
    /// It has another body.
    Edited,
    /// Its body is gone.
    Deleted,
    /// A reaction came or went.
    Reacted,
    /// It was pinned.
    Pinned,
    /// The pin was taken away.
    Unpinned,
}

/// `topic_message_changed`: told to every subscriber that is connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicMessageChanged {
    /// Name of the topic.
    pub topic: String,
    /// Its id.
    pub topic_id: TopicId,
    /// What happened.
    pub change: MessageChange,
    /// Member that did it.
    pub by: MemberId,
    /// The message as it is now.
    pub message: TopicMessage,
}

/// `topic_search`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopicSearch {
    /// 2 to 256 characters; every word has to be in a message, in any case.
    pub text: String,
    /// Id or name; all topics that the caller may see when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// 1 to 50, default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

/// A message that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopicHit {
    /// Name of its topic.
    pub topic: String,
    /// The message.
    pub message: TopicMessage,
}

/// `topic_search_result`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopicSearchResult {
    /// Newest first.
    pub messages: Vec<TopicHit>,
    /// Older messages were not looked at: the cursor that goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// `notification_list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NotificationList {
    /// Only those that are not read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
    /// Only those after this time, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// 1 to 50, default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only those before this one, by its id.
    #[serde(default, rename = "beforeId", skip_serializing_if = "Option::is_none")]
    pub before_id: Option<String>,
}

/// One mention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Id of the message.
    pub id: String,
    /// Id of the notification: that of its message, since a member has at most one for each.
    pub notification_id: String,
    /// Topic.
    pub topic_id: TopicId,
    /// Its name.
    pub topic_name: String,
    /// Sender's name.
    pub sender_name: String,
    /// Sender's key.
    pub sender_pubkey: String,
    /// Body of the message; empty when it was deleted.
    pub ciphertext: String,
    /// `mention`.
    pub kind: String,
    /// ISO time; `null` before it was read.
    pub read_at: Option<String>,
    /// ISO time.
    pub created_at: String,
}

/// `notification_list_result`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NotificationListResult {
    /// Newest first.
    pub notifications: Vec<Notification>,
    /// All that are not read.
    pub unread: u32,
}

/// `notification_read`: those of `ids`, or all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NotificationRead {
    /// At most 200.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// All of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// `notification_read_result`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NotificationReadResult {
    /// How many were marked.
    pub marked: u32,
    /// ISO time.
    pub read_at: String,
}

/// `topic_notification`: told to every session of the member that a message mentions, once the message is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicNotification {
    /// The mention.
    pub notification: Notification,
}

/// `topic_follow`: messages of a topic are told to this connection as they are stored, until it ends. The cursor does not move, and
/// nothing waits for who follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopicFollow {
    /// Id or name.
    pub topic: String,
    /// What came after this message is in the answer.
    #[serde(default, rename = "afterId", skip_serializing_if = "Option::is_none")]
    pub after_id: Option<String>,
}

/// `topic_following`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicFollowing {
    /// As asked.
    pub topic: String,
    /// Its id.
    pub topic_id: TopicId,
    /// Nothing is missing between `afterId` and what follows: `false` when it is unknown, or too much came since.
    pub recovered: bool,
    /// What came after `afterId`, oldest first.
    pub messages: Vec<TopicMessage>,
}

/// `topic_posted`: told to a connection that follows the topic, once the message is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicPosted {
    /// Name of the topic.
    pub topic: String,
    /// Its id.
    pub topic_id: TopicId,
    /// The message.
    pub message: TopicMessage,
}
