//! Groups: free routing labels with optional roles; `/` makes levels.

use serde::{Deserialize, Serialize};

use crate::features::presence::WriteTarget;
use crate::id::PublicKey;

/// Membership in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group {
    /// Name without `@`.
    pub name: String,
    /// As what: `lead`, `member`, `observer`, or any other word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// `join_group`: adds the session, or with `asMember` the member, to a group, or changes as what it is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinGroup {
    /// Name, with or without `@`.
    pub name: String,
    /// As what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The member itself: kept until it leaves, for all its sessions, and messages to the group wait for it while it is away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_member: bool,
    /// Which session.
    #[serde(flatten)]
    pub target: WriteTarget,
}

/// `leave_group`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaveGroup {
    /// Name, with or without `@`.
    pub name: String,
    /// The member itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_member: bool,
    /// Which session.
    #[serde(flatten)]
    pub target: WriteTarget,
}

/// What joining or leaving changed, as the body of `done`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupChanged {
    /// Changed sessions.
    #[serde(default)]
    pub sessions: u32,
    /// The member itself was added, changed or removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub member: bool,
}

crate::done_body!(GroupChanged);

/// `list_groups`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListGroups {}

/// Who is in a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupMember {
    /// `member`: in it for good, with all its sessions. `session`: for as long as the session lasts.
    pub kind: String,
    /// What one writes to reach it: the member's name, or `member/session`.
    pub name: String,
    /// Name of the member.
    pub member_name: String,
    /// Key of the session, or of the member.
    pub pubkey: PublicKey,
    /// Key of the member.
    pub member_pubkey: PublicKey,
    /// As what it is in the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The session, or any session of the member, is connected.
    pub online: bool,
    /// Messages to the group wait for it while it is away.
    pub waits: bool,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Name without `@`.
    pub name: String,
    /// Members before sessions, each in the order of their names.
    pub members: Vec<GroupMember>,
}

/// `groups_list`: by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupsList {
    /// The groups in which anyone is.
    pub groups: Vec<GroupRow>,
}

crate::wire_feature! {
    requests {
        /// Adds the session, or with `asMember` the member, to a group. With `confirm` an absent role keeps the earlier one and an empty role clears it.
        JoinGroup = "join_group" => silent GroupChanged, needs nothing, repeatable;
        /// Removes the session, or with `asMember` the member, from a group.
        LeaveGroup = "leave_group" => silent GroupChanged, needs nothing, repeatable;
        /// The groups, with the members and sessions that are in them.
        ListGroups = "list_groups" => answers GroupsList, needs nothing, repeatable;
    }
    answers {
        GroupsList = "groups_list",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
