//! Meshes as a whole: those of this machine, and what their owners do with them.

use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::features::capabilities::{EditPermissions, PermissionsResult};
use claudemesh_protocol::features::meshes::{
    MeshDeleted, MeshSettings, MeshView, PatchMesh, PatchSettings, Rejoin, Rejoined,
};
use serde_json::json;

use super::enrolment::{Call, member_key, owner_key};
use crate::config::owners::OwnerEntry;
use crate::config::{ConfigStore, MeshEntry};
use crate::error::CliError;

pub mod cli;

/// The routes of one mesh, signed by the owner's key where it is on this machine, else by the member's.
pub struct Routes {
    base: String,
    path: String,
    key: SecretKey,
    /// The owner's key signs.
    pub by_owner: bool,
}

impl Routes {
    /// Those of a joined mesh.
    ///
    /// # Errors
    /// Exit 10 for a damaged key.
    pub fn of(store: &ConfigStore, entry: &MeshEntry) -> Result<Self, CliError> {
        let owner = store.owner(&entry.mesh_id)?;
        let key = match &owner {
            Some(owner) => owner_key(owner)?,
            None => member_key(entry)?,
        };
        let path = format!("/mesh/{}", entry.mesh_id);
        Ok(Self { base: entry.broker_http(), path, key, by_owner: owner.is_some() })
    }

    /// Those of a mesh, signed by our member.
    ///
    /// # Errors
    /// As [`Routes::of`].
    pub fn of_member(entry: &MeshEntry) -> Result<Self, CliError> {
        let path = format!("/mesh/{}", entry.mesh_id);
        Ok(Self { base: entry.broker_http(), path, key: member_key(entry)?, by_owner: false })
    }

    /// Those of a mesh whose owner's key is here, joined or not.
    ///
    /// # Errors
    /// As [`Routes::of`].
    pub fn of_owner(owner: &OwnerEntry, broker_url: &str) -> Result<Self, CliError> {
        let base = crate::config::broker_http(broker_url);
        Ok(Self { base, path: format!("/mesh/{}", owner.mesh_id), key: owner_key(owner)?, by_owner: true })
    }

    fn call<T>(&self, rest: &str, send: impl FnOnce(&Call<'_>) -> Result<T, CliError>) -> Result<T, CliError> {
        let path = format!("{}{rest}", self.path);
        send(&Call { base: &self.base, path: &path, key: Some(&self.key), bearer: None })
    }

    /// What the mesh is.
    ///
    /// # Errors
    /// Exit 4 for the network, or what the broker says. The same for all that follow.
    pub fn show(&self) -> Result<MeshView, CliError> {
        self.call("", |call| call.get())
    }

    /// Changes slug and name.
    ///
    /// # Errors
    /// As [`Routes::show`].
    pub fn rename(&self, to: &PatchMesh) -> Result<MeshView, CliError> {
        self.call("", |call| call.patch(to))
    }

    /// Archives the mesh.
    ///
    /// # Errors
    /// As [`Routes::show`].
    pub fn archive(&self) -> Result<MeshView, CliError> {
        self.call("/archive", |call| call.post(&json!({})))
    }

    /// Brings it back.
    ///
    /// # Errors
    /// As [`Routes::show`].
    pub fn restore(&self) -> Result<MeshView, CliError> {
        self.call("/restore", |call| call.post(&json!({})))
    }

    /// Deletes it for everyone.
    ///
    /// # Errors
    /// As [`Routes::show`].
    pub fn delete(&self) -> Result<MeshDeleted, CliError> {
        self.call("", |call| call.delete())
    }

    /// Makes a key the owner's member.
    ///
    /// # Errors
    /// As [`Routes::show`].
    pub fn rejoin(&self, as_member: &Rejoin) -> Result<Rejoined, CliError> {
        self.call("/rejoin", |call| call.post(as_member))
    }

    /// Changes what plain members start with; `slug` is that of the mesh on its broker.
    ///
    /// # Errors
    /// As [`Routes::show`].
    pub fn permissions(&self, slug: &str, edit: &EditPermissions) -> Result<PermissionsResult, CliError> {
        let path = format!("/cli/mesh/{slug}/permissions");
        Call { base: &self.base, path: &path, key: Some(&self.key), bearer: None }.post(edit)
    }

    /// What the mesh allows.
    ///
    /// # Errors
    /// As [`Routes::show`].
    pub fn settings(&self) -> Result<MeshSettings, CliError> {
        self.call("/settings", |call| call.get())
    }

    /// Changes what it allows.
    ///
    /// # Errors
    /// As [`Routes::show`].
    pub fn change_settings(&self, to: &PatchSettings) -> Result<MeshSettings, CliError> {
        self.call("/settings", |call| call.patch(to))
    }
}
