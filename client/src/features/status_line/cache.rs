//! `peer-cache.json` in the config folder: who was there when someone looked last.
//!
//! Shape: `{"<slug>":{"total":5,"online":3,"updatedAt":"<ISO>","you":"Ann"}}`. A cache: a file that cannot be read counts
//! as empty, and several sessions may write it, each its own mesh under a lock.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::ConfigStore;
use crate::files::{self, FileLock};
use crate::inbox::Tally;

/// A cache of thousands of meshes is no cache of ours.
const MAX_BYTES: u64 = 1024 * 1024;
/// How long a writer waits for another; a lost update comes again soon.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of one mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Entry {
    /// Peers in the list.
    pub total: usize,
    /// Those whose socket is open.
    pub online: usize,
    /// ISO time.
    pub updated_at: String,
    /// The name of the session that looked.
    pub you: String,
    /// What waits for the person.
    #[serde(flatten)]
    pub waits: Tally,
}

impl Entry {
    /// When, in Unix milliseconds.
    pub fn updated_ms(&self) -> Option<i64> {
        claudemesh_protocol::time::parse_iso(&self.updated_at)
    }
}

/// All meshes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeerCache {
    /// By slug.
    pub meshes: BTreeMap<String, Entry>,
}

impl PeerCache {
    /// Reads it.
    pub fn read(store: &ConfigStore) -> Self {
        let bytes = files::read_limited(&store.dir().join("peer-cache.json"), MAX_BYTES).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

/// Writes down who is there in one mesh, and forgets meshes that are no longer joined.
///
/// # Errors
/// What the system says; another writer that takes longer than a second.
pub fn record(
    store: &ConfigStore,
    slug: &str,
    (online, total): (usize, usize),
    you: &str,
    waits: Tally,
) -> std::io::Result<()> {
    files::create_private_dir(store.dir())?;
    let _lock = FileLock::take(&store.dir().join("peer-cache.lock"), PATIENCE)?;
    let mut cache = PeerCache::read(store);
    if let Ok(config) = store.load() {
        cache.meshes.retain(|slug, _| config.by_slug(slug).is_some());
    }
    let entry = Entry { total, online, updated_at: crate::clock::now_iso(), you: you.to_owned(), waits };
    cache.meshes.insert(slug.to_owned(), entry);
    files::write_private(&store.dir().join("peer-cache.json"), &serde_json::to_vec_pretty(&cache)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_do_not_lose_each_other_and_damage_is_an_empty_cache() {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path());
        std::fs::write(dir.path().join("peer-cache.json"), "{broken").unwrap();
        // A config that cannot be read forgets nothing.
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    record(store, &format!("mesh-{number}"), (number, 9), "Ann", Tally::default()).unwrap();
                });
            }
        });
        let cache = PeerCache::read(&store);
        assert_eq!(cache.meshes.len(), 8);
        assert_eq!((cache.meshes["mesh-3"].online, cache.meshes["mesh-3"].total), (3, 9));
        assert!(cache.meshes["mesh-3"].updated_ms().is_some());
        assert_eq!(files::mode_of(&dir.path().join("peer-cache.json")), Some(0o600));
        std::fs::remove_file(dir.path().join("config.json")).unwrap();
        record(&store, "other", (1, 1), "Bob", Tally { unread: 2, ..Tally::default() }).unwrap();
        assert_eq!(PeerCache::read(&store).meshes["other"].waits.unread, 2);
        assert_eq!(PeerCache::read(&store).meshes.into_keys().collect::<Vec<_>>(), ["other"], "none is joined");
    }
}
