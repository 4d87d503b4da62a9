//! Samples of every message of messaging.

use serde_json::json;

use super::{
    Ack, ClientAck, Echo, EchoResult, InboxPull, InboxPullResult, MessageStatus, MessageStatusResult, Priority, Push,
    RecipientReceipt, RecipientState, Request, ResolveTarget, ResolveTargetResult, Response, Send, Stage, Trace,
};
use crate::features::presence::{LowWaiting, PeerEvent, PeerStatus, event_data};
use crate::session::Waiting;
use crate::target::TargetField;
use crate::testing::{AT, MEMBER, MESH, MESSAGE, candidate, groups, member_key, session_key};

/// Fields that are written as `null` when they have no value, because their absence means something else to older clients.
pub(crate) const NULLS: &[(&str, &str)] = &[
    ("message_status_result", "/deliveredAt"),
    ("ack/full", "/recipients/0/lastSeenAt"),
    ("ack/full", "/recipients/1/status"),
];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let send = Send {
        target_spec: session_key().to_hex().into(),
        priority: Priority::Next,
        nonce: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX".into(),
        ciphertext: "q83vEjRWeJCrze8SNFZ4kA==".into(),
        ..Send::default()
    };
    let everything = Send {
        target_spec: TargetField::Many(vec!["alice".into(), "@frontend".into(), "#general".into()]),
        priority: Priority::Now,
        nonce: String::new(),
        ciphertext: "R3LDvMOfZSwg5LiW55WMIPCfkYs=".into(),
        id: Some("42".into()),
        client_message_id: Some("01JH5V8R0Z3Q9K7M2N4P6S8T1W".into()),
        request_fingerprint: Some("0f".repeat(32)),
        mentions: vec!["bob".into()],
        reply_to_id: Some(MESSAGE.into()),
        body_version: Some(1),
        subtype: Some("reply".into()),
        trace: Some(Trace { id: "t-1".into(), hop: 2 }),
        exclude: vec![member_key()],
        expires_in_ms: Some(3_600_000),
    };
    let batch = ClientAck {
        client_message_id: None,
        broker_message_id: None,
        message_ids: vec![MESSAGE.into(), MESH.into()],
        stage: Some(Stage::Handed),
        route: Some("channel".into()),
    };
    vec![
        ("", send.into()),
        ("full", everything.into()),
        ("", ClientAck { broker_message_id: Some(MESSAGE.into()), ..ClientAck::default() }.into()),
        ("by client id", ClientAck { client_message_id: Some("c-1".into()), ..ClientAck::default() }.into()),
        ("full", batch.into()),
        ("", MessageStatus { message_id: MESSAGE.into() }.into()),
        ("", InboxPull::default().into()),
        ("full", InboxPull { limit: Some(20) }.into()),
        ("", ResolveTarget { target: "alice".into() }.into()),
        ("", Echo::default().into()),
        ("full", Echo { payload: Some("ping".into()) }.into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let accepted = Ack { id: "42".into(), message_id: MESSAGE.into(), queued: true, ..Ack::default() };
    let recipients = vec![
        RecipientState {
            name: "api".into(),
            member_name: Some("alice".into()),
            pubkey: session_key(),
            online: true,
            status: Some(PeerStatus::Working),
            last_seen_at: None,
            waiting: 1,
            ended: false,
        },
        RecipientState {
            name: "bob".into(),
            member_name: None,
            pubkey: member_key(),
            online: false,
            status: None,
            last_seen_at: Some(AT.into()),
            waiting: 3,
            ended: true,
        },
    ];
    let described = Ack {
        duplicate: true,
        stage: Some(Stage::Stored),
        online: Some(1),
        waiting: Some(1),
        recipients,
        ..accepted.clone()
    };
    let refused = Ack {
        id: "42".into(),
        error: Some("ambiguous_target: `al` may mean 2 recipients".into()),
        code: Some("ambiguous_target".into()),
        candidates: vec![candidate("alice", true), candidate("alan", false)],
        ..Ack::default()
    };
    let limited = Ack {
        id: "42".into(),
        error: Some("rate_limited: at most 600 messages a minute".into()),
        code: Some("rate_limited".into()),
        retry_after_ms: Some(1_500),
        ..Ack::default()
    };
    let receipts = vec![
        RecipientReceipt {
            name: "api".into(),
            member_name: Some("alice".into()),
            hostname: Some("laptop".into()),
            cwd: Some("/home/alice/api".into()),
            pubkey: session_key().to_hex(),
            status: "delivered".into(),
            stage: Some(Stage::Handed),
            stage_at: Some(AT.into()),
            route: Some("channel".into()),
        },
        RecipientReceipt {
            name: "bob".into(),
            member_name: None,
            hostname: None,
            cwd: None,
            pubkey: member_key().to_hex(),
            status: "disconnected".into(),
            stage: None,
            stage_at: None,
            route: None,
        },
    ];
    let waiting = MessageStatusResult {
        message_id: MESSAGE.into(),
        target_spec: "@frontend".into(),
        delivered: false,
        delivered_at: None,
        stage: None,
        recipients: vec![],
    };
    let delivered = MessageStatusResult {
        delivered: true,
        delivered_at: Some(AT.into()),
        stage: Some(Stage::Received),
        recipients: receipts,
        ..waiting.clone()
    };
    let echo = EchoResult {
        payload: None,
        broker_time: AT.into(),
        mesh: MESH.into(),
        status: PeerStatus::Idle,
        waiting: Waiting { now: 0, next: 1, low: 2 },
    };
    let mut all: Vec<(&'static str, Response)> = vec![
        ("", accepted.into()),
        ("full", described.into()),
        ("refused", refused.into()),
        ("limited", limited.into()),
        ("", waiting.into()),
        ("full", delivered.into()),
        ("", InboxPullResult { pushed: 2, remaining: 0 }.into()),
        ("", ResolveTargetResult { resolved: candidate("alice", true) }.into()),
        ("away", ResolveTargetResult { resolved: candidate("alan", false) }.into()),
        ("", echo.clone().into()),
        ("full", EchoResult { payload: Some("ping".into()), ..echo }.into()),
    ];
    all.extend(pushes().into_iter().map(|(name, push)| (name, push.into())));
    all
}

fn pushes() -> Vec<(&'static str, Push)> {
    let message = Push {
        message_id: MESSAGE.into(),
        mesh_id: MESH.into(),
        sender_pubkey: session_key().to_hex(),
        priority: Priority::Next,
        nonce: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX".into(),
        ciphertext: "q83vEjRWeJCrze8SNFZ4kA==".into(),
        created_at: AT.into(),
        ..Push::default()
    };
    let full = Push {
        sender_member_pubkey: Some(member_key().to_hex()),
        sender_member_id: Some(MEMBER.into()),
        sender_name: Some("shop".into()),
        sender_member_name: Some("Alice".into()),
        sender_hostname: Some("laptop".into()),
        sender_cwd: Some("/home/alice/shop".into()),
        target_spec: Some("#general".into()),
        topic: Some("general".into()),
        reply_to_id: Some(MESH.into()),
        client_message_id: Some("01JH5V8R0Z3Q9K7M2N4P6S8T1W".into()),
        request_fingerprint: Some("0f".repeat(32)),
        subtype: Some("reply".into()),
        trace: Some(Trace { id: "t-1".into(), hop: 2 }),
        ..message.clone()
    };
    let event = |name: &str, data| Push {
        message_id: "0b0f3c1e-56c8-4f8a-8a43-97a0f6f0a001".into(),
        mesh_id: MESH.into(),
        sender_pubkey: "system".into(),
        priority: Priority::Low,
        created_at: AT.into(),
        subtype: Some("system".into()),
        event: Some(name.into()),
        event_data: Some(data),
        ..Push::default()
    };
    let peer = PeerEvent {
        name: "Alice".into(),
        member_name: None,
        pubkey: session_key(),
        groups: None,
        last_seen_at: None,
        summary: None,
    };
    let joined = PeerEvent { groups: Some(groups()), member_name: Some("Alice".into()), ..peer.clone() };
    let returned =
        PeerEvent { last_seen_at: Some(AT.into()), summary: Some("fixing the login".into()), ..joined.clone() };
    vec![
        ("", message),
        ("full", full),
        ("peer_joined", event("peer_joined", event_data(&joined))),
        ("peer_returned", event("peer_returned", event_data(&returned))),
        ("peer_left", event("peer_left", event_data(&peer))),
        ("peer_visible", event("peer_visible", event_data(&peer))),
        ("peer_hidden", event("peer_hidden", event_data(&peer))),
        ("low_waiting", event("low_waiting", event_data(&LowWaiting { count: 3 }))),
        ("profile_updated", event("profile_updated", json!({"roleTag": "reviewer", "messageMode": "inbox"}))),
    ]
}
