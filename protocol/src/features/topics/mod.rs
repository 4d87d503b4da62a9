//! Topics: named channels with durable history and a cursor per member.

pub mod limits;
mod posts;

use serde::{Deserialize, Serialize};

pub use posts::*;

use crate::call::Nothing;
use crate::id::{MemberId, TopicId};

/// Who may see a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Every member may list, join and read it.
    #[default]
    Public,
    /// Members see it once they belong to it.
    Private,
    /// As `private`, for two.
    Dm,
}

impl Visibility {
    /// The wire text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Dm => "dm",
        }
    }
}

/// `topic_create`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicCreate {
    /// Name without `#`.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `public` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
}

/// `topic_list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopicList {}

/// `topic_join`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicJoin {
    /// Id or name.
    pub topic: String,
    /// `member` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// `topic_leave`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicLeave {
    /// Id or name.
    pub topic: String,
}

/// `topic_members`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicMembers {
    /// Id or name.
    pub topic: String,
}

/// `topic_history`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicHistory {
    /// Id or name.
    pub topic: String,
    /// 1 to 200, default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Messages before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_id: Option<String>,
    /// Only what answers this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replies_to_id: Option<String>,
    /// Only what is pinned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
}

/// `topic_mark_read`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicMarkRead {
    /// Id or name.
    pub topic: String,
}

/// A topic in `topic_created`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopicRef {
    /// Id.
    pub id: TopicId,
    /// Name.
    pub name: String,
    /// Who may see it.
    pub visibility: Visibility,
}

/// `topic_created`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicCreated {
    /// The topic.
    pub topic: TopicRef,
    /// `false` when it existed.
    pub created: bool,
}

/// A topic in `topic_list_response`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TopicEntry {
    /// Id.
    pub id: TopicId,
    /// Name.
    pub name: String,
    /// `null` when unset.
    pub description: Option<String>,
    /// Who may see it.
    pub visibility: Visibility,
    /// Subscribers.
    pub member_count: u32,
    /// ISO time.
    pub created_at: String,
    /// What the caller is there; absent when it does not subscribe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Messages of others after the caller's read mark; absent when it does not subscribe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<u32>,
    /// Days that messages are kept; absent for the usual 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
}

/// `topic_list_response`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicListResponse {
    /// By name.
    pub topics: Vec<TopicEntry>,
}

/// A subscriber.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TopicMember {
    /// Member id.
    pub member_id: MemberId,
    /// Member key.
    pub pubkey: String,
    /// Name.
    pub display_name: String,
    /// `lead`, `member`, …
    pub role: String,
    /// ISO time.
    pub joined_at: String,
    /// ISO time, `null` before the first `topic_mark_read`.
    pub last_read_at: Option<String>,
}

/// `topic_members_response`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicMembersResponse {
    /// As asked.
    pub topic: String,
    /// In joining order.
    pub members: Vec<TopicMember>,
}

/// A message of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TopicMessage {
    /// Message id.
    pub id: String,
    /// Sender's key.
    pub sender_pubkey: String,
    /// Sender's member id.
    pub sender_member_id: MemberId,
    /// Sender's name.
    pub sender_name: String,
    /// Base64.
    pub nonce: String,
    /// Base64.
    pub ciphertext: String,
    /// 1 plain, 2 sealed with the topic key.
    pub body_version: i32,
    /// The message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    /// ISO time.
    pub created_at: String,
    /// ISO time of the last edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<String>,
    /// ISO time of its deletion; the body is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<String>,
    /// ISO time at which it was pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_at: Option<String>,
    /// By emoji.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reaction>,
    /// Messages that answer it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replies: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// `topic_history_response`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicHistoryResponse {
    /// As asked.
    pub topic: String,
    /// Newest first.
    pub messages: Vec<TopicMessage>,
}

crate::wire_feature! {
    requests {
        /// Creates a topic, or finds it.
        TopicCreate = "topic_create" => answers TopicCreated, needs CanSend, repeatable;
        /// Topics that the caller may see.
        TopicList = "topic_list" => answers TopicListResponse, needs nothing, repeatable;
        /// Subscribes the member.
        TopicJoin = "topic_join" => silent Nothing, needs nothing, repeatable;
        /// Ends the subscription.
        TopicLeave = "topic_leave" => silent Nothing, needs nothing, repeatable;
        /// Subscribers, in joining order.
        TopicMembers = "topic_members" => answers TopicMembersResponse, needs nothing, repeatable;
        /// Messages of a topic, newest first.
        TopicHistory = "topic_history" => answers TopicHistoryResponse, needs nothing, repeatable;
        /// Moves the member's cursor to now.
        TopicMarkRead = "topic_mark_read" => silent Nothing, needs nothing, repeatable;
        /// Changes what a topic is for, who sees it or how long it keeps its messages. Leads may.
        TopicUpdate = "topic_update" => answers TopicUpdated, needs CanSend, repeatable;
        /// Lets a member in, or changes its role. Leads may; it is the way into a private topic.
        TopicSetMember = "topic_set_member" => answers TopicMemberSet, needs CanSend, repeatable;
        /// Ends the subscription of a member. Leads may.
        TopicRemoveMember = "topic_remove_member" => answers TopicMemberSet, needs CanSend, repeatable;
        /// Replaces the body of an own message.
        TopicEdit = "topic_edit" => answers TopicMessageResult, needs CanSend, repeatable;
        /// Deletes the body of a message. Its author and leads may.
        TopicDeleteMessage = "topic_delete_message" => answers TopicMessageResult, needs CanSend, repeatable;
        /// Adds or takes back a reaction of the caller.
        TopicReact = "topic_react" => answers TopicMessageResult, needs CanSend, repeatable;
        /// Pins a message, or takes the pin away. Leads may.
        TopicPin = "topic_pin" => answers TopicMessageResult, needs CanSend, repeatable;
        /// Messages with all words of a text, newest first.
        TopicSearch = "topic_search" => answers TopicSearchResult, needs nothing, repeatable;
        /// Tells this connection the messages of a topic as they come.
        TopicFollow = "topic_follow" => answers TopicFollowing, needs nothing, repeatable;
        /// Mentions of the caller, newest first.
        NotificationList = "notification_list" => answers NotificationListResult, needs nothing, repeatable;
        /// Marks mentions of the caller as read.
        NotificationRead = "notification_read" => answers NotificationReadResult, needs nothing, repeatable;
    }
    answers {
        TopicCreated = "topic_created",
        TopicListResponse = "topic_list_response",
        TopicMembersResponse = "topic_members_response",
        TopicHistoryResponse = "topic_history_response",
        TopicUpdated = "topic_updated",
        TopicMemberSet = "topic_member_set",
        TopicMessageResult = "topic_message_result",
        TopicSearchResult = "topic_search_result",
        TopicFollowing = "topic_following",
        NotificationListResult = "notification_list_result",
        NotificationReadResult = "notification_read_result",
    }
    events {
        TopicMessageChanged = "topic_message_changed",
        TopicNotification = "topic_notification",
        TopicPosted = "topic_posted",
    }
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
