//! Samples of the handshake.

use serde_json::json;

use super::{
    Attestation, Hello, HelloAck, MemberProfile, MeshPolicy, PeerDescription, Request, Response, SessionHello, Waiting,
};
use crate::testing::{AT, AT_MS, MEMBER, MESH, MESSAGE, groups, member_key, session_key, signature};

/// Fields that are written as `null` when they have no value, because their absence means something else to older clients.
pub(crate) const NULLS: &[(&str, &str)] = &[("hello_ack/full", "/memberProfile/roleTag")];

fn description() -> PeerDescription {
    PeerDescription {
        protocol_version: Some(2),
        capabilities: vec!["client_ack".into(), "pull".into()],
        display_name: Some("Alice".into()),
        hostname: Some("laptop".into()),
        peer_type: Some("ai".into()),
        channel: Some("claude-code".into()),
        model: Some("opus".into()),
        groups: Some(groups()),
        hook_token_hash: Some("77".repeat(32)),
    }
}

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let hello = |description, session_pubkey| Hello {
        mesh_id: MESH.into(),
        member_id: MEMBER.into(),
        pubkey: member_key().to_hex(),
        session_pubkey,
        session_id: "5f0c9f0e-3c53-4ad5-9b0a-0a3ad0f4b1c2".into(),
        pid: 4711,
        cwd: "/home/alice/shop".into(),
        timestamp: AT_MS.into(),
        signature: signature(),
        description,
    };
    let session_hello = |description| SessionHello {
        mesh_id: MESH.into(),
        parent_member_id: MEMBER.into(),
        parent_member_pubkey: member_key().to_hex(),
        session_pubkey: session_key().to_hex(),
        parent_attestation: Some(Attestation {
            session_pubkey: session_key().to_hex(),
            parent_member_pubkey: member_key().to_hex(),
            expires_at: (AT_MS + 43_200_000).into(),
            signature: signature(),
        }),
        session_id: "5f0c9f0e-3c53-4ad5-9b0a-0a3ad0f4b1c2".into(),
        pid: 4711,
        cwd: "/home/alice/shop".into(),
        timestamp: AT_MS.into(),
        signature: signature(),
        description,
    };
    vec![
        ("", hello(PeerDescription::default(), None).into()),
        ("full", hello(description(), Some(session_key().to_hex())).into()),
        ("", session_hello(PeerDescription::default()).into()),
        ("full", session_hello(description()).into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let bare = HelloAck {
        presence_id: MESSAGE.into(),
        member_display_name: "Alice".into(),
        member_name: None,
        protocol_version: None,
        broker_version: None,
        capabilities: vec![],
        member_role: None,
        reattached: None,
        waiting: None,
        member_profile: None,
        mesh_policy: None,
        restored: None,
        last_summary: None,
        last_seen_at: None,
        restored_groups: None,
        restored_stats: None,
        services: vec![],
        features: Default::default(),
    };
    let full = HelloAck {
        member_name: Some("Alice".into()),
        protocol_version: Some(2),
        broker_version: Some("0.1.0".into()),
        capabilities: crate::version::BROKER_CAPABILITIES.iter().map(|&word| word.into()).collect(),
        member_role: Some("owner".into()),
        reattached: Some(false),
        waiting: Some(Waiting { now: 1, next: 2, low: 3 }),
        member_profile: Some(MemberProfile { role_tag: None, groups: groups(), message_mode: "push".into() }),
        mesh_policy: Some(MeshPolicy::default()),
        restored: Some(true),
        last_summary: Some("fixing the login".into()),
        last_seen_at: Some(AT.into()),
        restored_groups: Some(groups()),
        features: [("state".to_owned(), json!({"version": 7}))].into(),
        restored_stats: Some(json!({"messagesIn": 3, "messagesOut": 5, "toolCalls": 7, "errors": 0})),
        ..bare.clone()
    };
    vec![("", bare.into()), ("full", full.into())]
}
