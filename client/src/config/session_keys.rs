//! Session keys, one per mesh and Claude session, so that a resumed session can read what was queued for it.
//!
//! `sessions/<mesh id>/<session id>.json`: `{"version":1,"meshSlug","sessionId","publicKey","secretKey","createdAt"}`.

use std::path::PathBuf;

use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::id::MeshId;
use serde::{Deserialize, Serialize};

use super::{ConfigError, ConfigStore, StoredSecret, file_name_of};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionKeyFile {
    version: u64,
    mesh_slug: String,
    session_id: String,
    public_key: String,
    secret_key: StoredSecret,
    created_at: String,
}

impl ConfigStore {
    /// The key of a session in a mesh; makes one on first use. Two processes that ask at once get the same.
    ///
    /// # Errors
    /// [`ConfigError`]; a damaged file is an error, not a reason for a new key, because mail may wait for the old one.
    pub fn session_key(&self, mesh_id: &MeshId, mesh_slug: &str, session_id: &str) -> Result<SecretKey, ConfigError> {
        let path = self.session_key_path(mesh_id, session_id);
        if let Some(key) = self.stored_session_key(&path)? {
            return Ok(key);
        }
        let _lock = self.lock()?;
        if let Some(key) = self.stored_session_key(&path)? {
            return Ok(key);
        }
        let key = SecretKey::random(&mut rand::rngs::OsRng);
        self.write_session_key(&path, mesh_slug, session_id, &key)?;
        Ok(key)
    }

    /// The key of a session in a mesh, when it has one.
    ///
    /// # Errors
    /// As [`ConfigStore::session_key`].
    pub fn known_session_key(&self, mesh_id: &MeshId, session_id: &str) -> Result<Option<SecretKey>, ConfigError> {
        self.stored_session_key(&self.session_key_path(mesh_id, session_id))
    }

    /// Keeps a key for a session that has none yet: the same seat under another id.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn keep_session_key(
        &self,
        mesh_id: &MeshId,
        mesh_slug: &str,
        session_id: &str,
        key: &SecretKey,
    ) -> Result<(), ConfigError> {
        let path = self.session_key_path(mesh_id, session_id);
        let _lock = self.lock()?;
        match self.stored_session_key(&path)? {
            Some(_) => Ok(()),
            None => self.write_session_key(&path, mesh_slug, session_id, key),
        }
    }

    fn write_session_key(
        &self,
        path: &std::path::Path,
        mesh_slug: &str,
        session_id: &str,
        key: &SecretKey,
    ) -> Result<(), ConfigError> {
        let file = SessionKeyFile {
            version: 1,
            mesh_slug: mesh_slug.into(),
            session_id: session_id.into(),
            public_key: key.public().to_string(),
            secret_key: key.into(),
            created_at: crate::clock::now_iso(),
        };
        if let Some(folder) = path.parent() {
            self.create_dir(folder)?;
        }
        self.write_json(path, &file)
    }

    /// Forgets the key of a session that ended for good. A missing file is fine.
    ///
    /// # Errors
    /// [`ConfigError::Io`]
    pub fn forget_session_key(&self, mesh_id: &MeshId, session_id: &str) -> Result<(), ConfigError> {
        let path = self.session_key_path(mesh_id, session_id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ConfigError::Io { path, action: "removed", error })
            }
            _ => Ok(()),
        }
    }

    /// Folder with the keys of the sessions in one mesh.
    pub fn session_keys_dir(&self, mesh_id: &MeshId) -> PathBuf {
        self.dir.join("sessions").join(file_name_of(mesh_id.as_str()))
    }

    fn session_key_path(&self, mesh_id: &MeshId, session_id: &str) -> PathBuf {
        self.dir
            .join("sessions")
            .join(file_name_of(mesh_id.as_str()))
            .join(format!("{}.json", file_name_of(session_id)))
    }

    fn stored_session_key(&self, path: &std::path::Path) -> Result<Option<SecretKey>, ConfigError> {
        let Some(bytes) = self.read(path, 64 * 1024)? else { return Ok(None) };
        let file: SessionKeyFile = super::parse(path, &bytes)?;
        let key = file.secret_key.key();
        key.map(Some).map_err(|error| ConfigError::Damaged { path: path.to_path_buf(), reason: error.to_string() })
    }
}
