//! Samples of every message of presence.

use super::{
    ListPeers, Peer, PeerStatus, PeersList, Profile, Request, Response, SetProfile, SetStats, SetStatus, SetSummary,
    SetVisible, Stats,
};
use crate::testing::{AT, MEMBER, groups, here, member_key, session_key, there};

/// Fields that are written as `null` when they have no value, because their absence means something else to older clients.
pub(crate) const NULLS: &[(&str, &str)] = &[("peers_list", "/peers/0/summary")];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
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

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let bare = Peer {
        pubkey: member_key(),
        member_pubkey: member_key(),
        member_id: None,
        member_name: None,
        display_name: "bob".into(),
        status: PeerStatus::Idle,
        summary: None,
        groups: vec![],
        member_groups: vec![],
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
        member_name: Some("Alice".into()),
        display_name: "Alice".into(),
        status: PeerStatus::Dnd,
        summary: Some("fixing the login".into()),
        groups: groups(),
        member_groups: groups(),
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
    ]
}
