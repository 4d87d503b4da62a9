//! Samples of every message of members.

use super::{
    ListMembers, MemberChanged, MemberRow, MembersList, OwnSession, RemoveMember, RenameMember, RenameSession, Renamed,
    Request, Response, SetMemberRole, TransferMesh, Whoami, WhoamiResult,
};
use crate::testing::{AT, MEMBER, groups, here, member_key, owner_key, session_key, there};

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] = &[("members_list", "/members/0/lastSeenAt")];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let member = || "Bob".to_owned();
    vec![
        ("", Whoami {}.into()),
        ("", ListMembers {}.into()),
        ("", RenameMember { name: "Alice B".into(), member: None }.into()),
        ("full", RenameMember { name: "Bob B".into(), member: Some(member()) }.into()),
        ("", RenameSession { name: "shop".into(), target: here() }.into()),
        ("full", RenameSession { name: "shop".into(), target: there() }.into()),
        ("", SetMemberRole { member: member(), role: "admin".into() }.into()),
        ("", RemoveMember { member: member() }.into()),
        ("", TransferMesh { member: member() }.into()),
    ]
}

/// Answers.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let session = OwnSession {
        pubkey: session_key(),
        name: "shop".into(),
        address: "Alice/shop".into(),
        session_id: "5f0c9f0e-3c53-4ad5-9b0a-0a3ad0f4b1c2".into(),
        cwd: "/home/alice/shop".into(),
        hostname: Some("laptop".into()),
        groups: groups(),
        visible: true,
    };
    let shell = WhoamiResult {
        mesh: "team".into(),
        member_id: MEMBER.into(),
        pubkey: member_key(),
        name: "Alice".into(),
        role: "member".into(),
        title: None,
        groups: vec![],
        owner_pubkey: owner_key(),
        session: None,
    };
    let full = WhoamiResult { title: Some("QA".into()), groups: groups(), session: Some(session), ..shell.clone() };
    let away = MemberRow {
        member_id: MEMBER.into(),
        pubkey: member_key(),
        name: "Alice".into(),
        role: "member".into(),
        title: None,
        groups: vec![],
        joined_at: AT.into(),
        last_seen_at: None,
        online: false,
        sessions: 0,
        former_names: vec![],
        looks_like: vec![],
    };
    let here = MemberRow {
        title: Some("QA".into()),
        groups: groups(),
        last_seen_at: Some(AT.into()),
        online: true,
        sessions: 2,
        former_names: vec!["Al".into()],
        looks_like: vec!["A1ice".into()],
        ..away.clone()
    };
    let renamed = Renamed {
        kind: "session".into(),
        pubkey: session_key(),
        name: "shop".into(),
        former_name: "web".into(),
        address: "Alice/shop".into(),
        looks_like: vec![],
    };
    let member = Renamed {
        kind: "member".into(),
        pubkey: member_key(),
        name: "Alice".into(),
        former_name: "Al".into(),
        address: "Alice".into(),
        looks_like: vec!["A1ice".into()],
    };
    let removed = MemberChanged { member_id: MEMBER.into(), pubkey: member_key(), name: "Alice".into(), role: None };
    let changed = MemberChanged { role: Some("admin".into()), ..removed.clone() };
    vec![
        ("", shell.into()),
        ("full", full.into()),
        ("", MembersList { members: vec![away] }.into()),
        ("full", MembersList { members: vec![here] }.into()),
        ("", renamed.into()),
        ("full", member.into()),
        ("", removed.into()),
        ("full", changed.into()),
    ]
}
