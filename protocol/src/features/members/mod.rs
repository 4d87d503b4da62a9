//! Bodies of the HTTP routes about members and grants.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::features::groups::Group;
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
