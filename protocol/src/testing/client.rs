use super::{AT_MS, MEMBER, MESH, MESSAGE, groups, member_key, session_key, signature};
use crate::features::groups::{self as group, JoinGroup, LeaveGroup};
use crate::features::info::{self, MeshInfo};
use crate::features::messaging::{
    self, ClientAck, Echo, InboxPull, MessageStatus, Priority, ResolveTarget, Send, Stage, Trace,
};
use crate::features::moderation::{self, Ban, Disconnect, Kick, ListBans, Selection, Unban};
use crate::features::presence::{
    self, ListPeers, PeerStatus, Profile, SetProfile, SetStats, SetStatus, SetSummary, SetVisible, Stats, WriteTarget,
};
use crate::features::topics::{
    self, TopicCreate, TopicHistory, TopicJoin, TopicLeave, TopicList, TopicMarkRead, TopicMembers, Visibility,
};
use crate::message::ClientMessage;
use crate::session::{self, Attestation, Hello, PeerDescription, SessionHello};
use crate::target::TargetField;

/// One or more messages per tag a client may send; names are `<tag>` or `<tag>/<variant>`.
pub fn samples() -> Vec<(String, ClientMessage)> {
    let mut all = Vec::new();
    let mut add = |variant: &str, message: ClientMessage| {
        let name = if variant.is_empty() { message.tag().to_owned() } else { format!("{}/{variant}", message.tag()) };
        all.push((name, message));
    };
    for (variant, request) in messaging() {
        add(variant, request.into());
    }
    for (variant, request) in presence() {
        add(variant, request.into());
    }
    for (variant, request) in group() {
        add(variant, request.into());
    }
    for (variant, request) in topics() {
        add(variant, request.into());
    }
    add("", info::Request::from(MeshInfo {}).into());
    for (variant, request) in moderation() {
        add(variant, request.into());
    }
    for (variant, request) in session() {
        add(variant, request.into());
    }
    all
}

fn messaging() -> Vec<(&'static str, messaging::Request)> {
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

fn here() -> WriteTarget {
    WriteTarget::default()
}

fn there() -> WriteTarget {
    WriteTarget { target_session: Some("5f0c9f0e-3c53-4ad5-9b0a-0a3ad0f4b1c2".into()), confirm: true }
}

fn presence() -> Vec<(&'static str, presence::Request)> {
    let profile = Profile {
        avatar: Some("🦊".into()),
        title: Some("reviewer".into()),
        bio: Some("reads diffs".into()),
        capabilities: Some(vec!["rust".into(), "sql".into()]),
    };
    let stats = Stats {
        messages_in: Some(3.0),
        messages_out: Some(5.0),
        tool_calls: Some(7.0),
        uptime: Some(12.5),
        errors: Some(0.0),
    };
    vec![
        ("", SetStatus { status: PeerStatus::Working, target: here() }.into()),
        ("full", SetStatus { status: PeerStatus::Dnd, target: there() }.into()),
        ("", SetSummary { summary: "fixing the login".into(), target: here() }.into()),
        ("full", SetSummary { summary: String::new(), target: there() }.into()),
        ("", SetStats::default().into()),
        ("full", SetStats { stats: Some(stats) }.into()),
        ("", SetVisible { visible: false, target: here() }.into()),
        ("full", SetVisible { visible: true, target: there() }.into()),
        (
            "",
            SetProfile { profile: Profile { title: Some(String::new()), ..Profile::default() }, target: here() }.into(),
        ),
        ("full", SetProfile { profile, target: there() }.into()),
        ("", ListPeers {}.into()),
    ]
}

fn group() -> Vec<(&'static str, group::Request)> {
    vec![
        ("", JoinGroup { name: "frontend".into(), role: None, target: here() }.into()),
        ("full", JoinGroup { name: "@frontend/web".into(), role: Some("lead".into()), target: there() }.into()),
        ("", LeaveGroup { name: "frontend".into(), target: here() }.into()),
        ("full", LeaveGroup { name: "@frontend".into(), target: there() }.into()),
    ]
}

fn topics() -> Vec<(&'static str, topics::Request)> {
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

fn moderation() -> Vec<(&'static str, moderation::Request)> {
    let one = || Selection { target: Some("mallory".into()), ..Selection::default() };
    let stale = || Selection { stale: Some(600_000), ..Selection::default() };
    let all = || Selection { all: Some(true), ..Selection::default() };
    vec![
        ("", Disconnect { selection: one() }.into()),
        ("stale", Disconnect { selection: stale() }.into()),
        ("all", Disconnect { selection: all() }.into()),
        ("", Kick { selection: one() }.into()),
        ("stale", Kick { selection: stale() }.into()),
        ("all", Kick { selection: all() }.into()),
        ("", Ban { target: "mallory".into(), reason: None }.into()),
        ("full", Ban { target: "mallory".into(), reason: Some("spam".into()) }.into()),
        ("", Unban { target: "mallory".into() }.into()),
        ("", ListBans {}.into()),
    ]
}

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

fn session() -> Vec<(&'static str, session::Request)> {
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
