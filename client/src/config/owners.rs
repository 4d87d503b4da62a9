//! `owners.json`: the owner keys of meshes that were made on this machine.
//!
//! Shape: `{"version":1,"owners":[{"meshId","slug","pubkey","secretKey","brokerUrl","createdAt"}]}`. A broker never sees a
//! secret of it; who loses the file can no longer invite to these meshes.

use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::id::MeshId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ConfigError, ConfigStore, StoredSecret};

/// One owner key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerEntry {
    /// The mesh.
    pub mesh_id: MeshId,
    /// Its slug when it was made.
    pub slug: String,
    /// Owner key, 64 hex digits.
    pub pubkey: String,
    /// Owner secret, 128 hex digits.
    pub secret_key: StoredSecret,
    /// The broker that has the mesh.
    pub broker_url: String,
    /// ISO time.
    pub created_at: String,
    /// Keys that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl OwnerEntry {
    /// An entry for a new mesh, made now.
    pub fn new(mesh_id: MeshId, slug: &str, key: &SecretKey, broker_url: &str) -> Self {
        Self {
            mesh_id,
            slug: slug.into(),
            pubkey: key.public().to_string(),
            secret_key: key.into(),
            broker_url: broker_url.into(),
            created_at: crate::clock::now_iso(),
            extra: Map::new(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OwnersFile {
    version: u64,
    owners: Vec<OwnerEntry>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl ConfigStore {
    /// The owner key of a mesh, when this machine made it.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn owner(&self, mesh_id: &MeshId) -> Result<Option<OwnerEntry>, ConfigError> {
        Ok(self.owners_file()?.owners.into_iter().find(|entry| entry.mesh_id == *mesh_id))
    }

    /// All owner keys.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn owners(&self) -> Result<Vec<OwnerEntry>, ConfigError> {
        Ok(self.owners_file()?.owners)
    }

    /// Adds an owner key or replaces the one of the same mesh.
    ///
    /// # Errors
    /// [`ConfigError`]; the file is as before then.
    pub fn put_owner(&self, entry: OwnerEntry) -> Result<(), ConfigError> {
        let _lock = self.lock()?;
        let mut file = self.owners_file()?;
        file.owners.retain(|old| old.mesh_id != entry.mesh_id);
        file.owners.push(entry);
        self.write_json(&self.owners_path(), &file)
    }

    /// Forgets an owner key: its mesh was deleted.
    ///
    /// # Errors
    /// [`ConfigError`]; the file is as before then.
    pub fn remove_owner(&self, mesh_id: &MeshId) -> Result<(), ConfigError> {
        let _lock = self.lock()?;
        let mut file = self.owners_file()?;
        let before = file.owners.len();
        file.owners.retain(|entry| entry.mesh_id != *mesh_id);
        if file.owners.len() == before {
            return Ok(());
        }
        self.write_json(&self.owners_path(), &file)
    }

    /// `owners.json` in the config folder.
    pub fn owners_path(&self) -> std::path::PathBuf {
        self.dir.join("owners.json")
    }

    fn owners_file(&self) -> Result<OwnersFile, ConfigError> {
        let path = self.owners_path();
        match self.read(&path, super::MAX_CONFIG_BYTES)? {
            None => Ok(OwnersFile { version: 1, owners: vec![], extra: Map::new() }),
            Some(bytes) => {
                let file: OwnersFile = super::parse(&path, &bytes)?;
                if file.version > 1 {
                    return Err(ConfigError::Newer { path, version: file.version });
                }
                Ok(file)
            }
        }
    }
}
