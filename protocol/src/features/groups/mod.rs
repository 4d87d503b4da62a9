//! Groups: free routing labels with optional roles; `/` makes levels.

use serde::{Deserialize, Serialize};

use crate::call::Sessions;
use crate::features::presence::WriteTarget;

/// Membership in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group {
    /// Name without `@`.
    pub name: String,
    /// `lead`, `member`, `observer`, or any other word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// `join_group`: adds the session to a group, or changes its role there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinGroup {
    /// Name, with or without `@`.
    pub name: String,
    /// Role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Which session.
    #[serde(flatten)]
    pub target: WriteTarget,
}

/// `leave_group`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaveGroup {
    /// Name, with or without `@`.
    pub name: String,
    /// Which session.
    #[serde(flatten)]
    pub target: WriteTarget,
}

crate::wire_feature! {
    requests {
        /// Adds the session to a group, or changes its role there. With `confirm` an absent role keeps the earlier one and an empty role clears it.
        JoinGroup = "join_group" => silent Sessions, needs nothing, repeatable;
        /// Removes the session from a group.
        LeaveGroup = "leave_group" => silent Sessions, needs nothing, repeatable;
    }
    answers {}
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
