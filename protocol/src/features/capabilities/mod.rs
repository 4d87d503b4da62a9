//! Who may do what: capabilities of single members, and what plain members start with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::id::{MemberId, PublicKey};

/// `get_permissions`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetPermissions {
    /// Id, key, name, or at least the first 8 digits of a key. Absent: all members that the caller may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// `set_permissions`: of one member, or what plain members start with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SetPermissions {
    /// As in [`GetPermissions`]. Absent with `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// What plain members start with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// What changes.
    pub permissions: Changes,
}

/// What changes: `true` allows, `false` denies, `null` goes back to what the role has.
pub type Changes = BTreeMap<Capability, Option<bool>>;

/// Capabilities with a word of their own.
pub type Overrides = BTreeMap<Capability, bool>;

/// Body of `POST /cli/mesh/{slug}/permissions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EditPermissions {
    /// Absent with `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<MemberId>,
    /// What plain members start with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// What changes.
    pub permissions: Changes,
}

/// One member and what it may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemberPermissions {
    /// Id.
    pub member_id: MemberId,
    /// Key.
    pub pubkey: PublicKey,
    /// Name.
    pub display_name: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
    /// The owner may do everything, always.
    pub is_owner: bool,
    /// Every capability and whether the member has it.
    pub permissions: Overrides,
    /// What was allowed or denied to this member alone.
    pub overrides: Overrides,
}

/// `permissions_result`, and the answer of the HTTP routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PermissionsResult {
    /// Slug of the mesh.
    pub mesh: String,
    /// What plain members start with, where it differs from what the role has.
    pub defaults: Overrides,
    /// In joining order.
    pub members: Vec<MemberPermissions>,
}

crate::wire_feature! {
    requests {
        /// Who may do what. Without `canManagePermissions` a member sees itself alone.
        GetPermissions = "get_permissions" => answers PermissionsResult, needs nothing, repeatable;
        /// Owner or admin: allows, denies or resets capabilities. No one gives what they do not have.
        SetPermissions = "set_permissions" => answers PermissionsResult, needs CanManagePermissions, repeatable;
    }
    answers {
        PermissionsResult = "permissions_result",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
