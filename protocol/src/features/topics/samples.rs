//! Samples of every message of topics.

use super::{
    Request, Response, TopicCreate, TopicCreated, TopicEntry, TopicHistory, TopicHistoryResponse, TopicJoin,
    TopicLeave, TopicList, TopicListResponse, TopicMarkRead, TopicMember, TopicMembers, TopicMembersResponse,
    TopicMessage, TopicRef, Visibility,
};
use crate::testing::{AT, MEMBER, MESH, MESSAGE, member_key, session_key};

/// Fields that are written as `null` when they have no value, because their absence means something else to older clients.
pub(crate) const NULLS: &[(&str, &str)] =
    &[("topic_list_response", "/topics/0/description"), ("topic_members_response", "/members/0/lastReadAt")];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let topic = || "general".to_owned();
    let create = TopicCreate {
        name: "design".into(),
        description: Some("how it looks".into()),
        visibility: Some(Visibility::Private),
    };
    vec![
        ("", TopicCreate { name: topic(), description: None, visibility: None }.into()),
        ("full", create.into()),
        ("", TopicList {}.into()),
        ("", TopicJoin { topic: topic(), role: None }.into()),
        ("full", TopicJoin { topic: topic(), role: Some("lead".into()) }.into()),
        ("", TopicLeave { topic: topic() }.into()),
        ("", TopicMembers { topic: topic() }.into()),
        ("", TopicHistory { topic: topic(), limit: None, before_id: None }.into()),
        ("full", TopicHistory { topic: topic(), limit: Some(200), before_id: Some(MESSAGE.into()) }.into()),
        ("", TopicMarkRead { topic: topic() }.into()),
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
    };
    let topic = TopicRef { id: MESH.into(), name: "general".into(), visibility: Visibility::Dm };
    let topic_name = || "general".to_owned();
    vec![
        ("", TopicCreated { topic, created: true }.into()),
        ("", TopicListResponse { topics: vec![entry(None), entry(Some("everything"))] }.into()),
        ("", TopicMembersResponse { topic: topic_name(), members: vec![member(None), member(Some(AT))] }.into()),
        ("", TopicHistoryResponse { topic: topic_name(), messages: vec![message(None), message(Some(MESH))] }.into()),
    ]
}
