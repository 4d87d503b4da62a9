//! Invites: signed by the owner's key, registered with the broker, listed, revoked.

use std::time::Duration;

use claudemesh_protocol::crypto::invite::{self, InviteV1};
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::crypto::{http as signed_http, signed};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::enrolment::{CreateInvite, InviteList, InvitePreset, InviteView};
use claudemesh_protocol::id::{InviteId, random_code};
use rand::rngs::OsRng;

use super::address::keep_secure;
use super::call::Call;
use super::owner_key;
use crate::config::owners::OwnerEntry;
use crate::config::{MeshEntry, broker_http};
use crate::error::CliError;
use crate::local::store::outside_url;

/// Invites that one second may see before it is told to the user.
const MAX_INVITE_ATTEMPTS: u32 = 20;

/// What an invite allows.
pub struct InviteWish<'a> {
    /// `member` or `admin`.
    pub role: &'a str,
    /// 1 to 10,000.
    pub uses: u32,
    /// How long it works.
    pub lifetime: Duration,
    /// Defaults of the new member.
    pub preset: Option<InvitePreset>,
}

/// A new invite and its link for older clients.
pub struct NewInvite {
    /// As the broker registered it.
    pub view: InviteView,
    /// `…/join/<token>`
    pub v1_url: String,
}

/// Signs an invite with the owner's key and registers it.
///
/// # Errors
/// Exit 10 for a damaged owner key, 4 for the network, or what the broker says.
pub fn create_invite(owner: &OwnerEntry, entry: &MeshEntry, wish: &InviteWish<'_>) -> Result<NewInvite, CliError> {
    let key = owner_key(owner)?;
    let lifetime = i64::try_from(wish.lifetime.as_secs()).unwrap_or(i64::MAX);
    let mut expires_at = (crate::clock::now_ms() / 1_000).saturating_add(lifetime);
    let mut attempts = 0;
    loop {
        match register_invite(owner, &key, entry, wish, expires_at) {
            // A v1 token holds nothing random: two invites of the same second are one token. A second later they are two.
            Err(error) if error.code == ErrorCode::AlreadyExists.as_str() && attempts < MAX_INVITE_ATTEMPTS => {
                expires_at = expires_at.saturating_add(1);
                attempts += 1;
            }
            other => return other,
        }
    }
}

fn register_invite(
    owner: &OwnerEntry,
    key: &SecretKey,
    entry: &MeshEntry,
    wish: &InviteWish<'_>,
    expires_at: i64,
) -> Result<NewInvite, CliError> {
    let invite_id = InviteId::random(&mut OsRng);
    let text = signed::invite_v2(&owner.mesh_id, &invite_id, expires_at, wish.role, &key.public());
    let v1 = InviteV1 {
        v: 1,
        mesh_id: owner.mesh_id.clone(),
        mesh_slug: owner.slug.clone(),
        broker_url: outside_url(entry).to_owned(),
        expires_at,
        mesh_root_key: invite::root_key_text(&owner.mesh_id),
        role: wish.role.to_owned(),
        owner_pubkey: key.public(),
        signature: String::new(),
    };
    let token = v1.signed(key).token();
    let body = CreateInvite {
        invite_id,
        code: random_code(&mut OsRng),
        role: wish.role.to_owned(),
        max_uses: wish.uses,
        expires_at,
        signature_v2: key.sign(text.as_bytes()),
        v1_token_hash: Some(signed_http::sha256_hex(token.as_bytes())),
        preset: wish.preset.clone(),
    };
    let base = entry.broker_http();
    let path = format!("/mesh/{}/invites", owner.mesh_id);
    let mut view: InviteView = Call { base: &base, path: &path, key: Some(key), bearer: None }.post(&body)?;
    view.url = match view.url.as_str() {
        "" => format!("{base}/i/{}", view.code),
        url => keep_secure(&base, url),
    };
    Ok(NewInvite { view, v1_url: format!("{}/join/{token}", broker_http(outside_url(entry))) })
}

/// The invites of a mesh, newest first.
///
/// # Errors
/// As [`create_invite`].
pub fn list_invites(owner: &OwnerEntry, entry: &MeshEntry) -> Result<Vec<InviteView>, CliError> {
    let key = owner_key(owner)?;
    let path = format!("/mesh/{}/invites", owner.mesh_id);
    let list: InviteList = Call { base: &entry.broker_http(), path: &path, key: Some(&key), bearer: None }.get()?;
    Ok(list.invites)
}

/// Revokes an invite by its code or id; answers it.
///
/// # Errors
/// Exit 5 when there is none; otherwise as [`create_invite`].
pub fn revoke_invite(owner: &OwnerEntry, entry: &MeshEntry, wanted: &str) -> Result<InviteView, CliError> {
    let key = owner_key(owner)?;
    let invites = list_invites(owner, entry)?;
    let found = invites
        .into_iter()
        .find(|invite| invite.code.eq_ignore_ascii_case(wanted) || invite.invite_id.as_str() == wanted)
        .ok_or_else(|| CliError::not_found("The mesh has no such invite.").hint("`claudemesh invite --list`"))?;
    let path = format!("/mesh/{}/invites/{}/revoke", owner.mesh_id, found.invite_id);
    let _: serde_json::Value =
        Call { base: &entry.broker_http(), path: &path, key: Some(&key), bearer: None }.post(&serde_json::json!({}))?;
    Ok(found)
}
