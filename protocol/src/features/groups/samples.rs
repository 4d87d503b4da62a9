//! Samples of every message of groups.

use super::{GroupMember, GroupRow, GroupsList, JoinGroup, LeaveGroup, ListGroups, Request, Response};
use crate::testing::{here, member_key, session_key, there};

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] = &[];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let join = |name: &str| JoinGroup { name: name.into(), role: None, as_member: false, target: here() };
    let leave = |name: &str| LeaveGroup { name: name.into(), as_member: false, target: here() };
    vec![
        ("", join("frontend").into()),
        ("full", JoinGroup { role: Some("lead".into()), target: there(), ..join("@frontend/web") }.into()),
        ("member", JoinGroup { as_member: true, ..join("frontend") }.into()),
        ("", leave("frontend").into()),
        ("full", LeaveGroup { target: there(), ..leave("@frontend") }.into()),
        ("member", LeaveGroup { as_member: true, ..leave("frontend") }.into()),
        ("", ListGroups {}.into()),
    ]
}

/// Answers; joining and leaving are confirmed by `done`.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let session = GroupMember {
        kind: "session".into(),
        name: "Alice/shop".into(),
        member_name: "Alice".into(),
        pubkey: session_key(),
        member_pubkey: member_key(),
        role: Some("lead".into()),
        online: true,
        waits: false,
    };
    let member = GroupMember {
        kind: "member".into(),
        name: "Alice".into(),
        pubkey: member_key(),
        role: None,
        online: false,
        waits: true,
        ..session.clone()
    };
    let row = GroupRow { name: "frontend".into(), members: vec![member, session] };
    vec![("", GroupsList::default().into()), ("full", GroupsList { groups: vec![row] }.into())]
}
