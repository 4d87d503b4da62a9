//! Members: who one is, names, roles, removal; and the bodies of the HTTP routes about members and grants.
//!
//! Three words that are kept apart: a *role* is what a member is in the mesh (`owner`, `admin`, `member`), a *title* is free text
//! about what it does, and in a group it is there *as* something.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::features::groups::Group;
use crate::features::presence::WriteTarget;
use crate::id::{MemberId, PublicKey};

/// What a sender may do to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// See presence.
    Read,
    /// Direct messages.
    Dm,
    /// Audiences.
    Broadcast,
    /// Read shared state.
    StateRead,
    /// Write shared state.
    StateWrite,
    /// Read shared files.
    FileRead,
}

impl Grant {
    /// What a sender without an entry may do.
    pub const DEFAULT: [Self; 4] = [Self::Read, Self::Dm, Self::Broadcast, Self::StateRead];
}

/// Per sender key (member or session): what it may do. An empty list blocks.
pub type Grants = BTreeMap<PublicKey, Vec<Grant>>;

/// `POST /mesh/{id}/grants`: changes the caller's grants. `null` removes an entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateGrants {
    /// Changes per sender key.
    pub grants: BTreeMap<PublicKey, Option<Vec<Grant>>>,
}

/// Answer of `GET|POST /mesh/{id}/grants`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantsView {
    /// Always `true`.
    pub ok: bool,
    /// The merged map.
    pub grants: Grants,
}

/// One member of `GET /mesh/{id}/members`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberView {
    /// Member id.
    pub id: MemberId,
    /// Member key.
    pub pubkey: PublicKey,
    /// Name.
    pub display_name: String,
    /// Free role text.
    pub role_tag: Option<String>,
    /// Default groups.
    pub groups: Vec<Group>,
    /// `push`, `inbox` or `off`.
    pub message_mode: String,
    /// `owner`, `admin` or `member`.
    pub permission: String,
    /// ISO time.
    pub joined_at: String,
    /// ISO time.
    pub last_seen_at: Option<String>,
    /// A session is connected.
    pub online: bool,
    /// Connected sessions.
    pub session_count: u32,
}

/// Answer of `GET /mesh/{id}/members`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberList {
    /// Always `true`.
    pub ok: bool,
    /// In joining order.
    pub members: Vec<MemberView>,
}

/// `PATCH /mesh/{id}/member/{memberId}`: changes the given fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PatchMember {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Free role text, empty clears.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_tag: Option<String>,
    /// Default groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// `push`, `inbox` or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_mode: Option<String>,
    /// `admin` or `member`; owners only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
}

/// Answer of a member patch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberPatched {
    /// Always `true`.
    pub ok: bool,
    /// The member after the change.
    pub member: MemberView,
    /// What changed.
    pub changes: PatchMember,
}

/// `whoami`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whoami {}

/// The session that asks, in `whoami_result`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OwnSession {
    /// Key to send to.
    pub pubkey: PublicKey,
    /// Its name.
    pub name: String,
    /// What others write to reach it: `member/session`.
    pub address: String,
    /// The client's session id.
    pub session_id: String,
    /// Working directory.
    pub cwd: String,
    /// Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Groups that it is in itself.
    pub groups: Vec<Group>,
    /// Whether lists and audiences include it.
    pub visible: bool,
}

/// `whoami_result`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhoamiResult {
    /// Slug of the mesh.
    pub mesh: String,
    /// Row id.
    pub member_id: MemberId,
    /// Member key.
    pub pubkey: PublicKey,
    /// Name of the member.
    pub name: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
    /// Free text about what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Groups that the member is in.
    pub groups: Vec<Group>,
    /// The key that owns the mesh and signs its invites.
    pub owner_pubkey: PublicKey,
    /// The session; absent for a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<OwnSession>,
}

/// `list_members`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMembers {}

/// One member of `members_list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct MemberRow {
    /// Row id.
    pub member_id: MemberId,
    /// Member key.
    pub pubkey: PublicKey,
    /// Name.
    pub name: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
    /// Free text about what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Groups that it is in as a member.
    pub groups: Vec<Group>,
    /// ISO time.
    pub joined_at: String,
    /// ISO time; `null` when it never came.
    pub last_seen_at: Option<String>,
    /// A session is connected.
    pub online: bool,
    /// Connected sessions, hidden ones left out.
    pub sessions: u32,
    /// Names of the last day, which still mean it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_names: Vec<String>,
    /// Other members whose names look like this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks_like: Vec<String>,
}

/// `members_list`: in joining order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MembersList {
    /// The members.
    pub members: Vec<MemberRow>,
}

/// `rename_member`: another name for the caller's own member, or for another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameMember {
    /// The new name, see [`crate::name::chosen`].
    pub name: String,
    /// Name, key or id of another member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// `rename_session`: another name for a session of the caller's member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameSession {
    /// The new name, see [`crate::name::chosen`].
    pub name: String,
    /// Which session; `*` is refused.
    #[serde(flatten)]
    pub target: WriteTarget,
}

/// `renamed`, and the data of the events `member_renamed` and `session_renamed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Renamed {
    /// `member` or `session`.
    pub kind: String,
    /// Its key.
    pub pubkey: PublicKey,
    /// The name it has now.
    pub name: String,
    /// The name it had, which still finds it for 24 hours.
    pub former_name: String,
    /// What one writes to reach it now.
    pub address: String,
    /// Other members whose names look like the new one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks_like: Vec<String>,
}

/// `set_member_role`: for the owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetMemberRole {
    /// Name, key or id of a member.
    pub member: String,
    /// `admin` or `member`.
    pub role: String,
}

/// `remove_member`: ends a membership. Its key may join again with an invite, unlike after a ban.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveMember {
    /// Name, key or id of a member; the caller's own member leaves the mesh.
    pub member: String,
}

/// `transfer_mesh`: makes another member the owner. Its member key signs invites from then on, and those of before end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferMesh {
    /// Name, key or id of a member.
    pub member: String,
}

/// `member_changed`, and the data of the events `member_role_changed`, `member_removed` and `mesh_transferred`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberChanged {
    /// Row id.
    pub member_id: MemberId,
    /// Member key.
    pub pubkey: PublicKey,
    /// Name.
    pub name: String,
    /// The role it has now; absent when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

crate::wire_feature! {
    requests {
        /// Which member and session asks.
        Whoami = "whoami" => answers WhoamiResult, needs nothing, repeatable;
        /// The members with their roles, titles and groups.
        ListMembers = "list_members" => answers MembersList, needs nothing, repeatable;
        /// Another name for the own member; for another one `canManageMembers` is needed. The old name still finds it for 24 hours.
        RenameMember = "rename_member" => answers Renamed, needs nothing, once;
        /// Another name for a session of the own member. The old name still finds it for 24 hours.
        RenameSession = "rename_session" => answers Renamed, needs nothing, once;
        /// Makes a member an admin, or an admin a member; for the owner.
        SetMemberRole = "set_member_role" => answers MemberChanged, needs CanManageMembers, once;
        /// Ends a membership; without `canManageMembers` only the own.
        RemoveMember = "remove_member" => answers MemberChanged, needs nothing, once;
        /// Makes another member the owner; for the owner.
        TransferMesh = "transfer_mesh" => answers MemberChanged, needs CanDeleteMesh, once;
    }
    answers {
        WhoamiResult = "whoami_result",
        MembersList = "members_list",
        Renamed = "renamed",
        MemberChanged = "member_changed",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
