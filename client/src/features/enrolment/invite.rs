//! Invites: signed by the owner's key or by a member that may invite, registered with the broker, listed, revoked.

use std::time::Duration;

use claudemesh_protocol::crypto::invite::{self, InviteV1};
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::crypto::{http as signed_http, signed};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::enrolment::{CreateInvite, InviteList, InvitePreset, InviteView};
use claudemesh_protocol::id::{InviteId, MeshId, PublicKey, random_code};
use rand::rngs::OsRng;

use super::address::keep_secure;
use super::call::Call;
use super::{member_key, owner_key};
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
    /// `…/join/<token>`; only the owner's key can sign one.
    pub v1_url: Option<String>,
}

/// Who signs invites of a mesh: its owner's key, or a member with the capability `canInvite`.
pub struct Inviter {
    mesh_id: MeshId,
    slug: String,
    owner: PublicKey,
    key: SecretKey,
}

impl Inviter {
    /// The owner of a mesh.
    ///
    /// # Errors
    /// Exit 10 for a damaged key.
    pub fn owner(owner: &OwnerEntry) -> Result<Self, CliError> {
        let key = owner_key(owner)?;
        Ok(Self { mesh_id: owner.mesh_id.clone(), slug: owner.slug.clone(), owner: key.public(), key })
    }

    /// The member of this machine in a mesh that `owner` owns.
    ///
    /// # Errors
    /// Exit 10 for a damaged key.
    pub fn member(entry: &MeshEntry, owner: PublicKey) -> Result<Self, CliError> {
        let key = member_key(entry)?;
        Ok(Self { mesh_id: entry.mesh_id.clone(), slug: entry.slug.clone(), owner, key })
    }

    fn is_owner(&self) -> bool {
        self.key.public() == self.owner
    }

    fn call<'a>(&'a self, base: &'a str, path: &'a str) -> Call<'a> {
        Call { base, path, key: Some(&self.key), bearer: None }
    }

    fn path(&self) -> String {
        format!("/mesh/{}/invites", self.mesh_id)
    }

    /// The link for older clients, when this key can sign one.
    fn token(&self, entry: &MeshEntry, role: &str, expires_at: i64) -> Option<String> {
        let v1 = InviteV1 {
            v: 1,
            mesh_id: self.mesh_id.clone(),
            mesh_slug: self.slug.clone(),
            broker_url: outside_url(entry).to_owned(),
            expires_at,
            mesh_root_key: invite::root_key_text(&self.mesh_id),
            role: role.to_owned(),
            owner_pubkey: self.key.public(),
            signature: String::new(),
        };
        self.is_owner().then(|| v1.signed(&self.key).token())
    }
}

/// Signs an invite and registers it.
///
/// # Errors
/// Exit 4 for the network, or what the broker says: 7 for a member that may not invite, or that invites an admin.
pub fn create_invite(inviter: &Inviter, entry: &MeshEntry, wish: &InviteWish<'_>) -> Result<NewInvite, CliError> {
    let lifetime = i64::try_from(wish.lifetime.as_secs()).unwrap_or(i64::MAX);
    let mut expires_at = (crate::clock::now_ms() / 1_000).saturating_add(lifetime);
    let mut attempts = 0;
    loop {
        match register_invite(inviter, entry, wish, expires_at) {
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
    inviter: &Inviter,
    entry: &MeshEntry,
    wish: &InviteWish<'_>,
    expires_at: i64,
) -> Result<NewInvite, CliError> {
    let invite_id = InviteId::random(&mut OsRng);
    let text = signed::invite_v2(&inviter.mesh_id, &invite_id, expires_at, wish.role, &inviter.owner);
    let token = inviter.token(entry, wish.role, expires_at);
    let body = CreateInvite {
        invite_id,
        code: random_code(&mut OsRng),
        role: wish.role.to_owned(),
        max_uses: wish.uses,
        expires_at,
        signature_v2: inviter.key.sign(text.as_bytes()),
        v1_token_hash: token.as_ref().map(|token| signed_http::sha256_hex(token.as_bytes())),
        preset: wish.preset.clone(),
    };
    let base = entry.broker_http();
    let mut view: InviteView = inviter.call(&base, &inviter.path()).post(&body)?;
    view.url = match view.url.as_str() {
        "" => format!("{base}/i/{}", view.code),
        url => keep_secure(&base, url),
    };
    let v1_url = token.map(|token| format!("{}/join/{token}", broker_http(outside_url(entry))));
    Ok(NewInvite { view, v1_url })
}

/// The invites of a mesh, newest first.
///
/// # Errors
/// As [`create_invite`].
pub fn list_invites(inviter: &Inviter, entry: &MeshEntry) -> Result<Vec<InviteView>, CliError> {
    let list: InviteList = inviter.call(&entry.broker_http(), &inviter.path()).get()?;
    Ok(list.invites)
}

/// Revokes an invite by its code or id; answers it.
///
/// # Errors
/// Exit 5 when there is none; otherwise as [`create_invite`].
pub fn revoke_invite(inviter: &Inviter, entry: &MeshEntry, wanted: &str) -> Result<InviteView, CliError> {
    let invites = list_invites(inviter, entry)?;
    let found = invites
        .into_iter()
        .find(|invite| invite.code.eq_ignore_ascii_case(wanted) || invite.invite_id.as_str() == wanted)
        .ok_or_else(|| CliError::not_found("The mesh has no such invite.").hint("`claudemesh invite --list`"))?;
    let path = format!("{}/{}/revoke", inviter.path(), found.invite_id);
    let _: serde_json::Value = inviter.call(&entry.broker_http(), &path).post(&serde_json::json!({}))?;
    Ok(found)
}
