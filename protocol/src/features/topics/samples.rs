//! Samples of every message of topics.

use super::*;
use crate::testing::{AT, MEMBER, MESH, MESSAGE, member_key, session_key};

/// Fields that are written as `null` when they have no value, because their absence means something else to older clients.
pub(crate) const NULLS: &[(&str, &str)] = &[
    ("topic_list_response", "/topics/0/description"),
    ("topic_members_response", "/members/0/lastReadAt"),
    ("topic_member_set", "/role"),
    ("notification_list_result", "/notifications/0/readAt"),
    ("topic_notification", "/notification/readAt"),
];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let topic = || "general".to_owned();
    let create = TopicCreate {
        name: "design".into(),
        description: Some("how it looks".into()),
        visibility: Some(Visibility::Private),
    };
    let history = TopicHistory {
        topic: topic(),
        limit: Some(200),
        before_id: Some(MESSAGE.into()),
        replies_to_id: Some(MESSAGE.into()),
        pinned: true,
    };
    let update = TopicUpdate {
        topic: topic(),
        description: Some("talk".into()),
        visibility: Some(Visibility::Private),
        retention_days: Some(7),
    };
    let edit = |nonce: &str, body_version: Option<i32>| TopicEdit {
        topic: topic(),
        message_id: MESSAGE.into(),
        nonce: nonce.into(),
        ciphertext: "R3LDvMOfZQ==".into(),
        body_version,
    };
    let search = TopicSearch { text: "freeze".into(), topic: Some(topic()), limit: Some(5), cursor: Some(70) };
    let list = NotificationList {
        unread: true,
        since_ms: Some(1_700_000_000_000),
        limit: Some(5),
        before_id: Some(MESSAGE.into()),
    };
    vec![
        ("", TopicCreate { name: topic(), description: None, visibility: None }.into()),
        ("full", create.into()),
        ("", TopicList {}.into()),
        ("", TopicJoin { topic: topic(), role: None }.into()),
        ("full", TopicJoin { topic: topic(), role: Some("lead".into()) }.into()),
        ("", TopicLeave { topic: topic() }.into()),
        ("", TopicMembers { topic: topic() }.into()),
        ("", TopicHistory { topic: topic(), ..TopicHistory::default() }.into()),
        ("full", history.into()),
        ("", TopicMarkRead { topic: topic() }.into()),
        ("", TopicUpdate { topic: topic(), ..TopicUpdate::default() }.into()),
        ("full", update.into()),
        ("", TopicSetMember { topic: topic(), member: "bob".into(), role: "observer".into() }.into()),
        ("", TopicRemoveMember { topic: topic(), member: "bob".into() }.into()),
        ("", edit("", None).into()),
        ("full", edit("bm9uY2U=", Some(2)).into()),
        ("", TopicDeleteMessage { topic: topic(), message_id: MESSAGE.into() }.into()),
        ("", TopicReact { topic: topic(), message_id: MESSAGE.into(), emoji: "👍".into(), remove: false }.into()),
        ("full", TopicReact { topic: topic(), message_id: MESSAGE.into(), emoji: "👍".into(), remove: true }.into()),
        ("", TopicPin { topic: topic(), message_id: MESSAGE.into(), remove: false }.into()),
        ("full", TopicPin { topic: topic(), message_id: MESSAGE.into(), remove: true }.into()),
        ("", TopicSearch { text: "freeze".into(), ..TopicSearch::default() }.into()),
        ("full", search.into()),
        ("", TopicFollow { topic: topic(), after_id: None }.into()),
        ("full", TopicFollow { topic: topic(), after_id: Some(MESSAGE.into()) }.into()),
        ("", NotificationList::default().into()),
        ("full", list.into()),
        ("", NotificationRead::default().into()),
        ("full", NotificationRead { ids: vec![MESSAGE.into()], all: true }.into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let entry = |description: Option<&str>| TopicEntry {
        id: MESH.into(),
        name: "general".into(),
        description: description.map(Into::into),
        visibility: Visibility::Public,
        member_count: 2,
        created_at: AT.into(),
        role: description.map(|_| "lead".into()),
        unread: description.map(|_| 3),
        retention_days: description.map(|_| 7),
    };
    let member = |last_read_at: Option<&str>| TopicMember {
        member_id: MEMBER.into(),
        pubkey: member_key().to_hex(),
        display_name: "Alice".into(),
        role: "lead".into(),
        joined_at: AT.into(),
        last_read_at: last_read_at.map(Into::into),
    };
    let message = |reply_to_id: Option<&str>| TopicMessage {
        id: MESSAGE.into(),
        sender_pubkey: session_key().to_hex(),
        sender_member_id: MEMBER.into(),
        sender_name: "Alice".into(),
        nonce: String::new(),
        ciphertext: "R3LDvMOfZSwg5LiW55WMIPCfkYs=".into(),
        body_version: 1,
        reply_to_id: reply_to_id.map(Into::into),
        created_at: AT.into(),
        edited_at: None,
        deleted_at: None,
        pinned_at: None,
        reactions: vec![],
        replies: 0,
    };
    let changed = || TopicMessage {
        edited_at: Some(AT.into()),
        deleted_at: Some(AT.into()),
        pinned_at: Some(AT.into()),
        reactions: vec![Reaction { emoji: "👍".into(), count: 2 }],
        replies: 1,
        ..message(Some(MESH))
    };
    let notification = |read_at: Option<&str>| Notification {
        id: MESSAGE.into(),
        notification_id: MESSAGE.into(),
        topic_id: MESH.into(),
        topic_name: "general".into(),
        sender_name: "Alice".into(),
        sender_pubkey: session_key().to_hex(),
        ciphertext: "QEJvYg==".into(),
        kind: "mention".into(),
        read_at: read_at.map(Into::into),
        created_at: AT.into(),
    };
    let now = || TopicRef { id: MESH.into(), name: "general".into(), visibility: Visibility::Public };
    let event = TopicMessageChanged {
        topic: "general".into(),
        topic_id: MESH.into(),
        change: MessageChange::Edited,
        by: MEMBER.into(),
        message: changed(),
    };
    let set = |role: Option<&str>| TopicMemberSet {
        topic: "general".into(),
        member_id: MEMBER.into(),
        role: role.map(Into::into),
    };
    let list = NotificationListResult { notifications: vec![notification(None), notification(Some(AT))], unread: 1 };
    let following = |messages: Vec<TopicMessage>| TopicFollowing {
        topic: "general".into(),
        topic_id: MESH.into(),
        recovered: true,
        messages,
    };
    let hits = || vec![TopicHit { topic: "general".into(), message: changed() }];
    let topic = TopicRef { id: MESH.into(), name: "general".into(), visibility: Visibility::Dm };
    let topic_name = || "general".to_owned();
    vec![
        ("", TopicCreated { topic, created: true }.into()),
        ("", TopicListResponse { topics: vec![entry(None), entry(Some("everything"))] }.into()),
        ("", TopicMembersResponse { topic: topic_name(), members: vec![member(None), member(Some(AT))] }.into()),
        ("", TopicHistoryResponse { topic: topic_name(), messages: vec![message(None), changed()] }.into()),
        ("", TopicUpdated { topic: now(), description: None, retention_days: None }.into()),
        ("full", TopicUpdated { topic: now(), description: Some("talk".into()), retention_days: Some(7) }.into()),
        ("", set(None).into()),
        ("full", set(Some("lead")).into()),
        ("", TopicMessageResult { message: message(None) }.into()),
        ("full", TopicMessageResult { message: changed() }.into()),
        ("", TopicSearchResult::default().into()),
        ("full", TopicSearchResult { messages: hits(), next: Some(70) }.into()),
        ("", following(vec![]).into()),
        ("full", following(vec![message(None)]).into()),
        ("", TopicPosted { topic: "general".into(), topic_id: MESH.into(), message: message(None) }.into()),
        ("", list.into()),
        ("", NotificationReadResult { marked: 2, read_at: AT.into() }.into()),
        ("", event.into()),
        ("", TopicNotification { notification: notification(None) }.into()),
    ]
}
