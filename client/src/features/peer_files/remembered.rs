//! `folders.json`: which members may read which folder for good.

use std::path::{Path, PathBuf};

use claudemesh_protocol::id::{MeshId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, ConfigStore};

/// Entries of the file.
pub const MAX_REMEMBERED: usize = 1_000;

/// The file. Missing: no one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Always 1.
    pub version: u64,
    /// In the order in which they were allowed.
    #[serde(default)]
    pub allowed: Vec<Permit>,
}

/// One member that may read one folder, with all its sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// Mesh.
    pub mesh: MeshId,
    /// Its short name at that time.
    pub slug: String,
    /// Whole key of the member: names are not unique.
    pub member: PublicKey,
    /// Name at that time.
    pub name: String,
    /// The folder, without links. Another folder is another question.
    pub folder: PathBuf,
    /// ISO time.
    pub since: String,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { version: 1, allowed: vec![] }
    }
}

impl Remembered {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`]; no one may read anything then.
    pub fn load(store: &ConfigStore) -> Result<Self, ConfigError> {
        let path = Self::path(store);
        match store.read(&path, 1 << 20)? {
            None => Ok(Self::default()),
            Some(bytes) => {
                let remembered: Self = crate::config::parse(&path, &bytes)?;
                if remembered.version > 1 {
                    return Err(ConfigError::Newer { path, version: remembered.version });
                }
                Ok(remembered)
            }
        }
    }

    /// Changes the file under the lock of the config folder. Blocking.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn change<T>(store: &ConfigStore, change: impl FnOnce(&mut Self) -> T) -> Result<T, ConfigError> {
        let _lock = store.lock()?;
        let mut remembered = Self::load(store)?;
        let given = change(&mut remembered);
        store.write_json(&Self::path(store), &remembered)?;
        Ok(given)
    }

    fn path(store: &ConfigStore) -> PathBuf {
        store.dir().join("folders.json")
    }

    /// Whether a member may read a folder.
    pub fn allows(&self, mesh: &str, member: &PublicKey, folder: &Path) -> bool {
        self.allowed.iter().any(|one| one.is_for(mesh, member, folder))
    }

    /// Allows it, once.
    pub fn add(&mut self, permit: Permit) {
        if !self.allows(permit.mesh.as_str(), &permit.member, &permit.folder) {
            self.allowed.push(permit);
            let surplus = self.allowed.len().saturating_sub(MAX_REMEMBERED);
            self.allowed.drain(..surplus);
        }
    }
}

impl Permit {
    fn is_for(&self, mesh: &str, member: &PublicKey, folder: &Path) -> bool {
        self.mesh.as_str() == mesh && self.member == *member && self.folder == folder
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::crypto::keys::SecretKey;

    use super::*;

    #[test]
    fn a_permit_is_for_one_member_one_mesh_and_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path());
        let key = |seed| SecretKey::from_seed([seed; 32]).public();
        let permit = Permit {
            mesh: "m".into(),
            slug: "team".into(),
            member: key(1),
            name: "Ann".into(),
            folder: "/a".into(),
            since: String::new(),
        };
        for _ in 0..2 {
            Remembered::change(&store, |remembered| remembered.add(permit.clone())).unwrap();
        }
        let remembered = Remembered::load(&store).unwrap();
        assert_eq!(remembered.allowed.len(), 1);
        assert!(remembered.allows("m", &key(1), Path::new("/a")));
        for (mesh, member, folder) in
            [("n", key(1), "/a"), ("m", key(2), "/a"), ("m", key(1), "/a/b"), ("m", key(1), "/")]
        {
            assert!(!remembered.allows(mesh, &member, Path::new(folder)), "{mesh} {folder}");
        }
        assert_eq!(crate::files::mode_of(&Remembered::path(&store)), Some(0o600));
        for text in ["{", r#"{"version":2}"#, r#"{"version":1,"allowed":[{"mesh":"m"}]}"#] {
            std::fs::write(Remembered::path(&store), text).unwrap();
            assert!(Remembered::load(&store).is_err(), "{text}");
        }
    }
}
