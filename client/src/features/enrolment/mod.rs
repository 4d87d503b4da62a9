//! Making meshes, inviting, joining: signed HTTP requests to a broker, and the checks of what comes back.
//!
//! Blocking, without a runtime: one request and a few file writes.

use claudemesh_protocol::crypto::invite::InviteError;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::features::members::{MemberList, MemberView};

use crate::config::MeshEntry;
use crate::config::owners::OwnerEntry;
use crate::error::{CliError, ExitCode};

mod address;
mod call;
pub mod cli;
mod create;
mod invite;
mod join;
mod name;
mod unusable;

pub use address::{broker_ws, check_slug, is_exposed};
pub(crate) use call::Call;
pub use create::{MeshWish, NewMesh, create_mesh};
pub use invite::{InviteWish, Inviter, NewInvite, create_invite, list_invites, revoke_invite};
pub use join::{JoinedMesh, join};
pub use name::{Named, chosen_name};

/// Where `up` serves when nothing else is said.
pub const DEFAULT_BROKER: &str = "ws://127.0.0.1:7900/ws";

impl From<InviteError> for CliError {
    fn from(error: InviteError) -> Self {
        let message = crate::error::sentence(&error.to_string());
        let exit = if matches!(error, InviteError::BadSignature) { ExitCode::Auth } else { ExitCode::InvalidArgs };
        Self::new(exit, error.code().as_str(), message)
            .hint("Copy the whole link again, or ask the person who invited you for a new one.")
    }
}

/// The members of a mesh, in joining order; signed by our member.
///
/// # Errors
/// Exit 4 for the network, or what the broker says.
pub fn members(entry: &MeshEntry) -> Result<Vec<MemberView>, CliError> {
    let key = member_key(entry)?;
    let path = format!("/mesh/{}/members", entry.mesh_id);
    let list: MemberList = Call { base: &entry.broker_http(), path: &path, key: Some(&key), bearer: None }.get()?;
    Ok(list.members)
}

/// The key of an owner.
///
/// # Errors
/// Exit 10 when it is damaged.
pub fn owner_key(owner: &OwnerEntry) -> Result<SecretKey, CliError> {
    owner.secret_key.key().map_err(|error| {
        CliError::new(
            ExitCode::Io,
            "broken_config",
            format!("The owner key of {} cannot be used: {error}.", owner.slug),
        )
        .hint("Restore owners.json of the config folder from a copy.")
    })
}

/// The key of a member.
///
/// # Errors
/// Exit 10 when it is damaged.
pub fn member_key(entry: &MeshEntry) -> Result<SecretKey, CliError> {
    entry.secret_key.key().map_err(|error| {
        CliError::new(
            ExitCode::Io,
            "broken_config",
            format!("The member key of {} cannot be used: {error}.", entry.slug),
        )
        .hint("Leave the mesh and join it again.")
    })
}
