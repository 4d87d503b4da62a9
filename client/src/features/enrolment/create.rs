//! Making a mesh: its keys are made here and never leave.

use claudemesh_protocol::features::enrolment::{CreateMesh, MeshCreated};

use super::address::{check_broker_url, check_slug, with_path};
use super::call::Call;
use crate::config::drafts::Keys;
use crate::config::owners::OwnerEntry;
use crate::config::{MeshEntry, broker_http};
use crate::error::CliError;

/// A mesh that was just made.
pub struct NewMesh {
    /// The broker's answer.
    pub created: MeshCreated,
    /// To keep in `owners.json`.
    pub owner: OwnerEntry,
    /// To keep in `config.json`.
    pub entry: MeshEntry,
}

/// What a new mesh is made of.
pub struct MeshWish<'a> {
    /// WebSocket URL of the broker.
    pub broker_url: &'a str,
    /// Short name.
    pub slug: &'a str,
    /// Name for people.
    pub title: Option<&'a str>,
    /// The creator's name.
    pub display_name: &'a str,
    /// Needed unless the broker listens on loopback only.
    pub operator_token: Option<&'a str>,
    /// Keys of the mesh and of its creator. With those of an earlier attempt a mesh that was made then is found again.
    pub keys: &'a Keys,
}

/// Makes a mesh. Nothing is written here; the caller keeps both entries.
///
/// # Errors
/// Exit 3 for a bad slug or URL, 6 when the slug is taken, 2 without the operator's token, 4 for the network.
pub fn create_mesh(wish: &MeshWish<'_>) -> Result<NewMesh, CliError> {
    check_slug(wish.slug)?;
    check_broker_url(wish.broker_url)?;
    let Keys { owner, member } = wish.keys;
    let broker_url = with_path(wish.broker_url);
    let base = broker_http(&broker_url);
    let body = CreateMesh {
        slug: wish.slug.to_owned(),
        name: wish.title.map(str::to_owned),
        owner_pubkey: owner.public(),
        member_pubkey: member.public(),
        display_name: wish.display_name.to_owned(),
    };
    let call = Call { base: &base, path: "/mesh", key: Some(owner), bearer: wish.operator_token };
    let created: MeshCreated = call.post(&body).map_err(|error| match error.code.as_str() {
        "unauthorized" if wish.operator_token.is_none() => {
            error.hint("This broker wants its operator's token: --operator-token, or CLAUDEMESH_OPERATOR_TOKEN.")
        }
        "unauthorized" => error.hint(
            "The operator's token is not the broker's. `claudemesh-broker operator-token` on its machine makes a new one.",
        ),
        _ => error,
    })?;
    // The address that reached it is the one that works from here; the broker may know itself by another name.
    let owner_entry = OwnerEntry::new(created.mesh_id.clone(), wish.slug, owner, &broker_url);
    let entry = MeshEntry {
        mesh_id: created.mesh_id.clone(),
        member_id: created.member_id.clone(),
        slug: wish.slug.to_owned(),
        name: created.name.clone(),
        pubkey: member.public().to_hex(),
        secret_key: member.into(),
        broker_url,
        joined_at: crate::clock::now_iso(),
        root_key: None,
        invite_version: None,
        extra: serde_json::Map::new(),
    };
    Ok(NewMesh { created, owner: owner_entry, entry })
}
