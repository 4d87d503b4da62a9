//! `drafts.json`: keys of memberships and meshes that were asked for and are not in the config yet.
//!
//! A broker keeps what it was told as soon as it answers. Anyone who dies then, or finds the disk full, would have used an invite up
//! for a key that no one has, or taken a name for a mesh that no one can invite to. So the keys are on the disk before anything is
//! asked, and the next attempt at the same thing uses them again: to the broker it is the same person. Two attempts at once are
//! one person, too.

use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::id::{MeshId, PublicKey};
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};

use super::{ConfigError, ConfigStore, StoredSecret};

/// Drafts that are kept; the oldest go. Attempts that were refused leave theirs behind.
const MAX_DRAFTS: usize = 32;
/// Longer than any invite that was claimed and never finished is of use.
const KEEP_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// Keys for something new.
#[derive(Debug)]
pub struct Keys {
    /// Of the mesh, when one is made.
    pub owner: SecretKey,
    /// Of the member.
    pub member: SecretKey,
}

impl Keys {
    /// Kept nowhere.
    pub fn random() -> Self {
        Self { owner: SecretKey::random(&mut OsRng), member: SecretKey::random(&mut OsRng) }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Draft {
    purpose: String,
    owner_key: StoredSecret,
    member_key: StoredSecret,
    at_ms: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct DraftsFile {
    version: u64,
    drafts: Vec<Draft>,
}

impl ConfigStore {
    /// The keys for a purpose: those of an earlier attempt, else new ones. They are on the disk when this returns.
    ///
    /// # Errors
    /// [`ConfigError`]: nothing may be asked for then.
    pub fn draft(&self, purpose: &str) -> Result<Keys, ConfigError> {
        let _lock = self.lock()?;
        self.draft_locked(purpose)
    }

    /// The key for a membership: that of the config, where another attempt may have put it a moment ago, else as
    /// [`ConfigStore::draft`].
    ///
    /// # Errors
    /// As there.
    pub fn draft_of_member(&self, purpose: &str, mesh: Option<&MeshId>) -> Result<SecretKey, ConfigError> {
        let _lock = self.lock()?;
        let config = self.load()?;
        let known = mesh.and_then(|mesh| config.by_id(mesh)).and_then(|entry| entry.secret_key.key().ok());
        match known {
            Some(key) => Ok(key),
            None => Ok(self.draft_locked(purpose)?.member),
        }
    }

    fn draft_locked(&self, purpose: &str) -> Result<Keys, ConfigError> {
        let mut file = self.drafts()?;
        let now = crate::clock::now_ms();
        let known = file.drafts.iter().find(|draft| draft.purpose == purpose);
        if let Some(draft) = known
            && let (Ok(owner), Ok(member)) = (draft.owner_key.key(), draft.member_key.key())
        {
            return Ok(Keys { owner, member });
        }
        let keys = Keys::random();
        file.version = 1;
        file.drafts.retain(|draft| draft.purpose != purpose && now.saturating_sub(draft.at_ms) < KEEP_MS);
        let surplus = (file.drafts.len() + 1).saturating_sub(MAX_DRAFTS);
        file.drafts.drain(..surplus);
        file.drafts.push(Draft {
            purpose: purpose.to_owned(),
            owner_key: (&keys.owner).into(),
            member_key: (&keys.member).into(),
            at_ms: now,
        });
        self.write_json(&self.drafts_path(), &file)?;
        Ok(keys)
    }

    /// What these keys were for is in the config now.
    ///
    /// # Errors
    /// [`ConfigError`]; the draft stays then, which does no harm.
    pub fn settle_draft(&self, member: &PublicKey) -> Result<(), ConfigError> {
        let _lock = self.lock()?;
        let mut file = self.drafts()?;
        let before = file.drafts.len();
        file.drafts.retain(|draft| draft.member_key.key().is_ok_and(|key| key.public() != *member));
        if file.drafts.len() == before {
            return Ok(());
        }
        if file.drafts.is_empty() {
            let path = self.drafts_path();
            return std::fs::remove_file(&path).map_err(|error| ConfigError::Io { path, action: "removed", error });
        }
        self.write_json(&self.drafts_path(), &file)
    }

    fn drafts_path(&self) -> std::path::PathBuf {
        self.dir.join("drafts.json")
    }

    /// A damaged file is begun anew: it holds nothing that is in use.
    fn drafts(&self) -> Result<DraftsFile, ConfigError> {
        let bytes = self.read(&self.drafts_path(), super::MAX_CONFIG_BYTES)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_purpose_gets_the_same_keys_until_it_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path());
        let first = store.draft("join a").unwrap();
        assert_eq!(crate::files::mode_of(&store.drafts_path()), Some(0o600));
        let again = ConfigStore::at(dir.path()).draft("join a").unwrap();
        assert_eq!((again.member.public(), again.owner.public()), (first.member.public(), first.owner.public()));
        let other = store.draft("join b").unwrap();
        assert_ne!(other.member.public(), first.member.public());
        store.settle_draft(&first.member.public()).unwrap();
        assert_ne!(store.draft("join a").unwrap().member.public(), first.member.public());
        assert_eq!(store.draft("join b").unwrap().member.public(), other.member.public());
        // Many attempts at what is refused do not pile up, and a damaged file stands in no one's way.
        for number in 0..100 {
            store.draft(&format!("join {number}")).unwrap();
        }
        assert_eq!(store.drafts().unwrap().drafts.len(), MAX_DRAFTS);
        std::fs::write(store.drafts_path(), "{").unwrap();
        let last = store.draft("join z").unwrap();
        store.settle_draft(&last.member.public()).unwrap();
        assert!(!store.drafts_path().exists());
    }
}
