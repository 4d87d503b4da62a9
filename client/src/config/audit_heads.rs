//! `audit-heads.json`: the last signed head of every mesh's audit log that was seen from here. A log that is later rewritten or
//! cut does not extend it.
//!
//! Shape: `{"version":1,"heads":[{"meshId","key","seq","hash","at"}]}`.

use claudemesh_protocol::id::{MeshId, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ConfigError, ConfigStore};

/// A head that was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenHead {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The broker's audit key, as it was first seen.
    pub key: PublicKey,
    /// Place of the last entry.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
    /// When the broker signed it, Unix milliseconds.
    pub at: i64,
    /// Keys that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct HeadsFile {
    version: u64,
    heads: Vec<SeenHead>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl ConfigStore {
    /// The last head of a mesh that was seen.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn seen_head(&self, mesh: &MeshId) -> Result<Option<SeenHead>, ConfigError> {
        Ok(self.heads_file()?.heads.into_iter().find(|head| head.mesh_id == *mesh))
    }

    /// Keeps a head, unless a later one of the mesh is kept already.
    ///
    /// # Errors
    /// [`ConfigError`]; the file is as before then.
    pub fn keep_head(&self, head: SeenHead) -> Result<(), ConfigError> {
        let _lock = self.lock()?;
        let mut file = self.heads_file()?;
        if file.heads.iter().any(|old| old.mesh_id == head.mesh_id && old.seq > head.seq) {
            return Ok(());
        }
        file.heads.retain(|old| old.mesh_id != head.mesh_id);
        file.heads.push(head);
        self.write_json(&self.heads_path(), &file)
    }

    /// `audit-heads.json` in the config folder.
    pub fn heads_path(&self) -> std::path::PathBuf {
        self.dir.join("audit-heads.json")
    }

    fn heads_file(&self) -> Result<HeadsFile, ConfigError> {
        let path = self.heads_path();
        match self.read(&path, super::MAX_CONFIG_BYTES)? {
            None => Ok(HeadsFile { version: 1, heads: vec![], extra: Map::new() }),
            Some(bytes) => {
                let file: HeadsFile = super::parse(&path, &bytes)?;
                if file.version > 1 {
                    return Err(ConfigError::Newer { path, version: file.version });
                }
                Ok(file)
            }
        }
    }
}
