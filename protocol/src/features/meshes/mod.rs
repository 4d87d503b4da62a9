//! Bodies of the HTTP routes about a mesh itself: what it is, its name, its settings, its end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::capabilities::Overrides;
use crate::id::{MemberId, MeshId, PublicKey};
use crate::session::SelfEditable;

/// Answer of `GET|PATCH /mesh/{id}` and `POST /mesh/{id}/archive|restore`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshView {
    /// Always `true`.
    pub ok: bool,
    /// Row id.
    pub mesh_id: MeshId,
    /// Unique on the broker.
    pub slug: String,
    /// Name shown to people.
    pub name: String,
    /// ISO time.
    pub created_at: String,
    /// ISO time; an archived mesh accepts nothing until it is restored.
    pub archived_at: Option<String>,
    /// `owner`, `admin` or `member`: the role of the caller.
    pub role: String,
    /// Members that are not banned.
    pub members: u32,
}

/// `PATCH /mesh/{id}`: changes the given fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PatchMesh {
    /// `^[a-z0-9][a-z0-9-]{1,31}$`, unique on the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// Name shown to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Answer of `DELETE /mesh/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeshDeleted {
    /// Always `true`.
    pub ok: bool,
    /// The slug, which is free again.
    pub deleted: String,
}

/// `POST /mesh/{id}/rejoin`: the holder of the owner's key becomes a member again. Signed by the owner key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejoin {
    /// Member key, new or of before.
    pub member_pubkey: PublicKey,
    /// Name; a member of before keeps its own.
    pub display_name: String,
}

/// Answer of `POST /mesh/{id}/rejoin`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejoined {
    /// Always `true`.
    pub ok: bool,
    /// Row id.
    pub mesh_id: MeshId,
    /// Slug of the mesh.
    pub slug: String,
    /// Name of the mesh.
    pub name: String,
    /// Member id.
    pub member_id: MemberId,
    /// Name of the member.
    pub display_name: String,
    /// That key was a member before.
    pub already_member: bool,
    /// Members that had the role `owner` and are plain members now: their keys belong to the same person, or are lost.
    pub former: Vec<MemberId>,
}

/// Changes of [`SelfEditable`]; an absent field stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PatchSelfEditable {
    /// `displayName`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<bool>,
    /// `roleTag`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_tag: Option<bool>,
    /// `groups`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<bool>,
    /// `messageMode`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_mode: Option<bool>,
}

impl PatchSelfEditable {
    /// The policy after the change.
    #[must_use]
    pub fn applied(self, to: SelfEditable) -> SelfEditable {
        SelfEditable {
            display_name: self.display_name.unwrap_or(to.display_name),
            role_tag: self.role_tag.unwrap_or(to.role_tag),
            groups: self.groups.unwrap_or(to.groups),
            message_mode: self.message_mode.unwrap_or(to.message_mode),
        }
    }
}

/// `PATCH /mesh/{id}/settings`: changes the given parts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PatchSettings {
    /// Fields that members may edit themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_editable: Option<PatchSelfEditable>,
    /// Limits of this mesh by name, at most what the operator allows; `null` goes back to the operator's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Option<u64>>,
}

/// One limit of a mesh.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitSetting {
    /// Stable name.
    pub name: String,
    /// What it bounds.
    pub doc: String,
    /// The value in force; 0 means that there is no limit.
    pub value: u64,
    /// What the operator allows at most; 0 means that there is no limit.
    pub operator: u64,
    /// What the mesh has set itself.
    pub own: Option<u64>,
}

/// Answer of `GET|PATCH /mesh/{id}/settings`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshSettings {
    /// Always `true`.
    pub ok: bool,
    /// Fields that members may edit themselves.
    pub self_editable: SelfEditable,
    /// What plain members start with, where it differs from their role.
    pub defaults: Overrides,
    /// Every limit that a mesh can lower.
    pub limits: Vec<LimitSetting>,
}
