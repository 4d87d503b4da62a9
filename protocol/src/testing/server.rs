use serde_json::json;

use super::{AT, MEMBER, MESH, MESSAGE, groups, member_key, session_key};
use crate::error::{ErrorCode, ErrorFrame};
use crate::features::info::{self, MeshInfoResult, TaskCounts};
use crate::features::messaging::{
    self, Ack, Candidate, EchoResult, InboxPullResult, MessageStatusResult, Priority, Push, RecipientReceipt,
    RecipientState, ResolveTargetResult, Stage, Trace,
};
use crate::features::moderation::{self, BanAck, BanEntry, DisconnectAck, KickAck, ListBansResult, UnbanAck};
use crate::features::presence::{
    self, LowWaiting, Peer, PeerEvent, PeerStatus, PeersList, PresenceAck, Profile, Stats, event_data,
};
use crate::features::topics::{
    self, TopicCreated, TopicEntry, TopicHistoryResponse, TopicListResponse, TopicMember, TopicMembersResponse,
    TopicMessage, TopicRef, Visibility,
};
use crate::message::ServerMessage;
use crate::session::{self, HelloAck, MemberProfile, MeshPolicy, Waiting};

/// One or more messages per tag the broker may send; names are `<tag>` or `<tag>/<variant>`.
pub fn samples() -> Vec<(String, ServerMessage)> {
    let mut all = Vec::new();
    let mut add = |variant: &str, message: ServerMessage| {
        let name = if variant.is_empty() { message.tag().to_owned() } else { format!("{}/{variant}", message.tag()) };
        all.push((name, message));
    };
    for (variant, response) in messaging() {
        add(variant, response.into());
    }
    for (variant, push) in pushes() {
        add(variant, messaging::Response::from(push).into());
    }
    for (variant, response) in presence() {
        add(variant, response.into());
    }
    for (variant, response) in topics() {
        add(variant, response.into());
    }
    for (variant, response) in info() {
        add(variant, response.into());
    }
    for (variant, response) in moderation() {
        add(variant, response.into());
    }
    for (variant, response) in session() {
        add(variant, response.into());
    }
    for (variant, frame) in errors() {
        add(variant, frame.into());
    }
    all
}

fn candidate(name: &str, online: bool) -> Candidate {
    Candidate {
        kind: if online { "session" } else { "member" }.into(),
        pubkey: if online { session_key() } else { member_key() },
        member_pubkey: member_key(),
        name: name.into(),
        online,
        cwd: online.then(|| "/home/alice/shop".into()),
    }
}

fn messaging() -> Vec<(&'static str, messaging::Response)> {
    let accepted = Ack { id: "42".into(), message_id: MESSAGE.into(), queued: true, ..Ack::default() };
    let recipients = vec![
        RecipientState {
            name: "alice".into(),
            pubkey: session_key(),
            online: true,
            status: Some(PeerStatus::Working),
            last_seen_at: None,
            waiting: 1,
        },
        RecipientState {
            name: "bob".into(),
            pubkey: member_key(),
            online: false,
            status: None,
            last_seen_at: Some(AT.into()),
            waiting: 3,
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
            name: "alice".into(),
            pubkey: session_key().to_hex(),
            status: "delivered".into(),
            stage: Some(Stage::Handed),
            stage_at: Some(AT.into()),
            route: Some("channel".into()),
        },
        RecipientReceipt {
            name: "bob".into(),
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
    vec![
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
    ]
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
        sender_name: Some("Alice".into()),
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
    let peer =
        PeerEvent { name: "Alice".into(), pubkey: session_key(), groups: None, last_seen_at: None, summary: None };
    let joined = PeerEvent { groups: Some(groups()), ..peer.clone() };
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

fn presence() -> Vec<(&'static str, presence::Response)> {
    let bare = Peer {
        pubkey: member_key(),
        member_pubkey: member_key(),
        member_id: None,
        display_name: "bob".into(),
        status: PeerStatus::Idle,
        summary: None,
        groups: vec![],
        session_id: "s-1".into(),
        connected_at: AT.into(),
        cwd: "/srv".into(),
        peer_role: "control-plane".into(),
        role: None,
        online: true,
        last_seen_at: None,
        is_self: None,
        waiting: None,
        hostname: None,
        peer_type: None,
        channel: None,
        model: None,
        stats: None,
        visible: None,
        profile: None,
    };
    let full = Peer {
        pubkey: session_key(),
        member_id: Some(MEMBER.into()),
        display_name: "Alice".into(),
        status: PeerStatus::Dnd,
        summary: Some("fixing the login".into()),
        groups: groups(),
        peer_role: "session".into(),
        role: Some("owner".into()),
        online: false,
        last_seen_at: Some(AT.into()),
        is_self: Some(true),
        waiting: Some(2),
        hostname: Some("laptop".into()),
        peer_type: Some("ai".into()),
        channel: Some("claude-code".into()),
        model: Some("opus".into()),
        stats: Some(Stats { messages_in: Some(3.0), uptime: Some(12.5), ..Stats::default() }),
        visible: Some(true),
        profile: Some(Profile { title: Some("reviewer".into()), ..Profile::default() }),
        ..bare.clone()
    };
    vec![
        ("", PeersList { peers: vec![bare] }.into()),
        ("full", PeersList { peers: vec![full] }.into()),
        ("empty", PeersList { peers: vec![] }.into()),
        ("", PresenceAck { sessions: 2 }.into()),
    ]
}

fn topics() -> Vec<(&'static str, topics::Response)> {
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

fn info() -> Vec<(&'static str, info::Response)> {
    let result = MeshInfoResult {
        mesh: MESH.into(),
        slug: Some("kitchen".into()),
        peers: 2,
        groups: vec!["@frontend".into()],
        state_keys: vec![],
        memory_count: 0,
        file_count: 0,
        tasks: TaskCounts::default(),
        streams: vec![],
        tables: vec![],
        collections: vec![],
        topics: vec!["general".into()],
        members: 3,
        your_name: "Alice".into(),
        your_groups: vec![crate::features::groups::Group { name: "frontend".into(), role: None }],
    };
    vec![("", result.into())]
}

fn moderation() -> Vec<(&'static str, moderation::Response)> {
    let names = || vec!["mallory".to_owned()];
    let ban = BanEntry { name: "mallory".into(), pubkey: member_key(), revoked_at: AT.into() };
    vec![
        ("", DisconnectAck { kicked: names(), affected: names() }.into()),
        ("", KickAck { kicked: names(), affected: names(), skipped_control_plane: None }.into()),
        ("full", KickAck { kicked: vec![], affected: vec![], skipped_control_plane: Some(names()) }.into()),
        ("", BanAck { banned: "mallory".into() }.into()),
        ("", UnbanAck { unbanned: "mallory".into() }.into()),
        ("", ListBansResult { bans: vec![ban] }.into()),
    ]
}

fn session() -> Vec<(&'static str, session::Response)> {
    let bare = HelloAck {
        presence_id: MESSAGE.into(),
        member_display_name: "Alice".into(),
        protocol_version: None,
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
    };
    let full = HelloAck {
        protocol_version: Some(2),
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
        restored_stats: Some(json!({"messagesIn": 3, "messagesOut": 5, "toolCalls": 7, "errors": 0})),
        ..bare.clone()
    };
    vec![("", bare.into()), ("full", full.into())]
}

fn errors() -> Vec<(&'static str, ErrorFrame)> {
    let bare = ErrorFrame::new(ErrorCode::InvalidArgs, "`set_status`: expected `idle`, `working` or `dnd`");
    let full = ErrorFrame {
        id: Some("42".into()),
        retry_after_ms: Some(1_500),
        candidates: vec![candidate("alice", true)],
        ..ErrorFrame::new(ErrorCode::AmbiguousTarget, "`al` may mean several recipients")
    };
    vec![("", bare), ("full", full)]
}
