//! `permissions.json`: who may decide for this user's sessions, per mesh. Missing file: no one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use claudemesh_protocol::id::{MeshId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, ConfigStore};

/// Approvers of one mesh.
pub const MAX_APPROVERS: usize = 16;
/// How long a question is open when no one says otherwise.
pub const DEFAULT_EXPIRES: Duration = Duration::from_secs(120);
/// Shortest time: a person has to read it.
pub const MIN_EXPIRES: Duration = Duration::from_secs(10);
/// Longest time: the host ends the hook after 600 s.
pub const MAX_EXPIRES: Duration = Duration::from_secs(540);

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Always 1.
    pub version: u64,
    /// By row id of the mesh.
    #[serde(default)]
    pub meshes: BTreeMap<MeshId, MeshRules>,
}

/// Who may decide in one mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshRules {
    /// Whole member keys: names are not unique, and a beginning of a key can be made to fit.
    pub approvers: Vec<PublicKey>,
    /// Approvals that a call needs.
    #[serde(default = "one")]
    pub quorum: u32,
    /// Seconds that a question is open.
    #[serde(default = "default_expires_s")]
    pub expires_s: u64,
}

fn one() -> u32 {
    1
}

fn default_expires_s() -> u64 {
    DEFAULT_EXPIRES.as_secs()
}

impl Default for Rules {
    fn default() -> Self {
        Self { version: 1, meshes: BTreeMap::new() }
    }
}

impl Default for MeshRules {
    fn default() -> Self {
        Self { approvers: vec![], quorum: 1, expires_s: default_expires_s() }
    }
}

impl Rules {
    /// Reads the file; without one no one decides.
    ///
    /// # Errors
    /// [`ConfigError`]; no one decides then either.
    pub fn load(store: &ConfigStore) -> Result<Self, ConfigError> {
        let path = Self::path(store);
        match store.read(&path, 1 << 20)? {
            None => Ok(Self::default()),
            Some(bytes) => {
                let rules: Self = crate::config::parse(&path, &bytes)?;
                if rules.version > 1 {
                    return Err(ConfigError::Newer { path, version: rules.version });
                }
                Ok(rules)
            }
        }
    }

    /// Writes the file, 0600.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn save(&self, store: &ConfigStore) -> Result<(), ConfigError> {
        store.write_json(&Self::path(store), self)
    }

    fn path(store: &ConfigStore) -> PathBuf {
        store.dir().join("permissions.json")
    }

    /// The rules of a mesh, when a question can be decided under them at all.
    pub fn of(&self, mesh: &str) -> Option<&MeshRules> {
        self.meshes
            .iter()
            .find(|(id, _)| id.as_str() == mesh)
            .map(|(_, rules)| rules)
            .filter(|rules| rules.can_decide())
    }

    /// Whether anyone may decide anything.
    pub fn is_on(&self) -> bool {
        self.meshes.values().any(MeshRules::can_decide)
    }
}

impl MeshRules {
    /// Whether there are as many approvers as approvals are needed.
    pub fn can_decide(&self) -> bool {
        let count = self.approvers.len();
        self.quorum >= 1 && count <= MAX_APPROVERS && usize::try_from(self.quorum).is_ok_and(|quorum| quorum <= count)
    }

    /// How long a question is open, within the bounds whatever the file says.
    pub fn expires(&self) -> Duration {
        Duration::from_secs(self.expires_s).clamp(MIN_EXPIRES, MAX_EXPIRES)
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::crypto::keys::SecretKey;

    use super::*;

    #[test]
    fn nobody_decides_until_enough_people_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path());
        assert!(!Rules::load(&store).unwrap().is_on());
        let key = |seed| SecretKey::from_seed([seed; 32]).public();
        let mut rules = Rules::default();
        let mesh = MeshRules { approvers: vec![key(1)], quorum: 2, ..MeshRules::default() };
        rules.meshes.insert("m".into(), mesh);
        assert!(!rules.is_on() && rules.of("m").is_none());
        rules.meshes.get_mut("m").unwrap().approvers.push(key(2));
        assert!(rules.is_on() && rules.of("m").is_some() && rules.of("other").is_none());
        rules.save(&store).unwrap();
        assert_eq!(Rules::load(&store).unwrap(), rules);
        assert_eq!(crate::files::mode_of(&Rules::path(&store)), Some(0o600));
        for (text, what) in [
            ("{", "cut off"),
            (r#"{"version":2}"#, "newer"),
            (r#"{"version":1,"meshes":{"m":{"approvers":["aabb"]}}}"#, "a beginning of a key"),
        ] {
            std::fs::write(Rules::path(&store), text).unwrap();
            assert!(Rules::load(&store).is_err(), "{what}");
        }
    }

    #[test]
    fn the_time_has_bounds_and_no_quorum_is_no_rule() {
        let rules = |expires_s, quorum| MeshRules {
            approvers: vec![SecretKey::from_seed([1; 32]).public()],
            quorum,
            expires_s,
        };
        assert_eq!(rules(0, 1).expires(), MIN_EXPIRES);
        assert_eq!(rules(u64::MAX, 1).expires(), MAX_EXPIRES);
        assert!(rules(1, 1).can_decide() && !rules(1, 0).can_decide());
    }
}
