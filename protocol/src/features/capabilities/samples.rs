//! Samples of every message of capabilities.

use super::{GetPermissions, MemberPermissions, Overrides, PermissionsResult, Request, Response, SetPermissions};
use crate::capability::Capability;
use crate::testing::{MEMBER, member_key};

/// Fields that are written as `null` when they have no value: a reset is one.
pub(crate) const NULLS: &[(&str, &str)] = &[("set_permissions", "/permissions/canSchedule")];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let member = || Some("Alice".to_owned());
    let permissions =
        [(Capability::CanInvite, Some(true)), (Capability::CanSend, Some(false)), (Capability::CanSchedule, None)];
    let default =
        SetPermissions { member: None, default: true, permissions: [(Capability::CanRunSql, Some(false))].into() };
    vec![
        ("", GetPermissions { member: None }.into()),
        ("one", GetPermissions { member: member() }.into()),
        ("", SetPermissions { member: member(), default: false, permissions: permissions.into() }.into()),
        ("default", default.into()),
    ]
}

/// An answer.
pub(crate) fn result() -> PermissionsResult {
    let overrides = Overrides::from([(Capability::CanInvite, true), (Capability::CanSend, false)]);
    PermissionsResult {
        mesh: "kitchen".into(),
        defaults: [(Capability::CanRunSql, false)].into(),
        members: vec![MemberPermissions {
            member_id: MEMBER.into(),
            pubkey: member_key(),
            display_name: "Alice".into(),
            role: "member".into(),
            is_owner: false,
            permissions: overrides.clone(),
            overrides,
        }],
    }
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    vec![("", result().into())]
}
