//! `left.json`: meshes that were left, with their member keys, so that leaving by mistake loses nothing.
//!
//! Shape: `{"version":1,"meshes":[{"leftAt","mesh":{…as in config.json…}}]}`, oldest first.

use claudemesh_protocol::id::MeshId;
use serde::{Deserialize, Serialize};

use super::{ConfigError, ConfigStore, MeshEntry};

/// Meshes that are kept; the oldest go.
const MAX_LEFT: usize = 64;

/// A mesh that was left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftMesh {
    /// ISO time.
    pub left_at: String,
    /// As it was in the config.
    pub mesh: MeshEntry,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct LeftFile {
    version: u64,
    meshes: Vec<LeftMesh>,
}

impl ConfigStore {
    /// Meshes that were left, oldest first.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn left_meshes(&self) -> Result<Vec<LeftMesh>, ConfigError> {
        Ok(self.left_file()?.meshes)
    }

    /// Takes a mesh out of the config and keeps its keys aside; answers it and how many stay joined. `None` when no mesh has
    /// this slug.
    ///
    /// # Errors
    /// [`ConfigError`]; the mesh stays joined then.
    pub fn leave_mesh(&self, slug: &str) -> Result<Option<(MeshEntry, usize)>, ConfigError> {
        let _lock = self.lock()?;
        let mut config = self.load()?;
        let Some(at) = config.meshes.iter().position(|mesh| mesh.slug == slug) else { return Ok(None) };
        let mesh = config.meshes.remove(at);
        if config.default_mesh.as_deref() == Some(slug) {
            config.default_mesh = None;
        }
        // The keys first: what is in both files is joined, what is in neither is lost.
        let mut file = self.left_file()?;
        file.version = 1;
        file.meshes.retain(|left| left.mesh.mesh_id != mesh.mesh_id);
        file.meshes.push(LeftMesh { left_at: crate::clock::now_iso(), mesh: mesh.clone() });
        let surplus = file.meshes.len().saturating_sub(MAX_LEFT);
        file.meshes.drain(..surplus);
        self.write_json(&self.left_path(), &file)?;
        self.write_json(&self.config_path(), &config)?;
        Ok(Some((mesh, config.meshes.len())))
    }

    /// Forgets the keys of a mesh that was left.
    ///
    /// # Errors
    /// [`ConfigError`]; the file is as before then.
    pub fn forget_left(&self, mesh: &MeshId) -> Result<(), ConfigError> {
        let _lock = self.lock()?;
        let mut file = self.left_file()?;
        let before = file.meshes.len();
        file.meshes.retain(|left| left.mesh.mesh_id != *mesh);
        if file.meshes.len() == before {
            return Ok(());
        }
        self.write_json(&self.left_path(), &file)
    }

    fn left_path(&self) -> std::path::PathBuf {
        self.dir.join("left.json")
    }

    fn left_file(&self) -> Result<LeftFile, ConfigError> {
        let path = self.left_path();
        match self.read(&path, super::MAX_CONFIG_BYTES)? {
            None => Ok(LeftFile::default()),
            Some(bytes) => super::parse(&path, &bytes),
        }
    }
}
