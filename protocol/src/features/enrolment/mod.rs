//! Bodies of the HTTP routes that make meshes and let people in. Snake case, as the reference has them.

use serde::{Deserialize, Serialize};

use crate::features::groups::Group;
use crate::id::{InviteId, MemberId, MeshId, PublicKey};

/// What a new member gets through an invite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InvitePreset {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Free role text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_tag: Option<String>,
    /// Default groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// `push`, `inbox` or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_mode: Option<String>,
}

/// `POST /mesh`: creates a mesh. Signed by `owner_pubkey` (see [`crate::crypto::http`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateMesh {
    /// `^[a-z0-9][a-z0-9-]{1,31}$`, unique on the broker.
    pub slug: String,
    /// Shown to people; the slug when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Signs invites.
    pub owner_pubkey: PublicKey,
    /// Member key of the creator, who becomes member with role `owner`.
    pub member_pubkey: PublicKey,
    /// The creator's name.
    pub display_name: String,
}

/// Answer of `POST /mesh`, status 201.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeshCreated {
    /// Row id.
    pub mesh_id: MeshId,
    /// As asked.
    pub slug: String,
    /// Name.
    pub name: String,
    /// The creator's member id.
    pub member_id: MemberId,
    /// WebSocket URL to connect to.
    pub broker_url: String,
}

/// `POST /mesh/{id}/invites`: registers an invite that the owner signed. Signed by the owner key.
///
/// Both forms may be given; they share the uses. `v1_token` is hashed by the broker, never stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateInvite {
    /// Made by the owner, part of the v2 signature.
    pub invite_id: InviteId,
    /// Short code of the v2 link, 8 symbols of [`crate::id::CODE_ALPHABET`].
    pub code: String,
    /// `admin` or `member`.
    pub role: String,
    /// 1 to 10,000.
    pub max_uses: u32,
    /// Unix seconds.
    pub expires_at: i64,
    /// v2 signature over [`crate::crypto::signed::invite_v2`].
    pub signature_v2: String,
    /// SHA-256 (hex) of the v1 token, when a v1 link is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v1_token_hash: Option<String>,
    /// Defaults of the new member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<InvitePreset>,
}

/// Answer of `POST /mesh/{id}/invites`, and one entry of `GET /mesh/{id}/invites`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InviteView {
    /// Row id.
    pub invite_id: InviteId,
    /// Short code.
    pub code: String,
    /// Link to hand out.
    pub url: String,
    /// `admin` or `member`.
    pub role: String,
    /// Uses allowed.
    pub max_uses: u32,
    /// Uses so far.
    pub used_count: u32,
    /// ISO time.
    pub expires_at: String,
    /// ISO time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

/// Answer of `GET /mesh/{id}/invites`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InviteList {
    /// Newest first.
    pub invites: Vec<InviteView>,
}

/// `POST /join` (v1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The token of the link.
    pub invite_token: String,
    /// Its decoded payload.
    pub invite_payload: serde_json::Value,
    /// New member key, 64 hex digits.
    pub peer_pubkey: String,
    /// Name.
    pub display_name: String,
}

/// Answer of `POST /join`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// Enrolled.
    pub ok: bool,
    /// Member id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<MemberId>,
    /// That key was a member before; no use was consumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub already_member: Option<bool>,
    /// Code of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `POST /invites/{code}/claim` (v2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// x25519 key the root key is sealed to, base64url without padding.
    pub recipient_x25519_pubkey: String,
    /// The ed25519 member key that is enrolled.
    pub peer_pubkey: PublicKey,
    /// By `peer_pubkey` over [`crate::crypto::signed::claim`].
    pub signature: String,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Answer of a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claimed {
    /// base64url of `crypto_box_seal(root key)`.
    pub sealed_root_key: String,
    /// Mesh.
    pub mesh_id: MeshId,
    /// Member id.
    pub member_id: MemberId,
    /// Owner key.
    pub owner_pubkey: PublicKey,
    /// The string that was signed.
    pub canonical_v2: String,
    /// Its signature, so that the client can check it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_v2: Option<String>,
    /// Who signed it, when that was not the owner's key: a member that may invite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<PublicKey>,
    /// Slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_slug: Option<String>,
    /// WebSocket URL to connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_url: Option<String>,
    /// Role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// That key was a member before; no use was consumed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub already_member: bool,
}
