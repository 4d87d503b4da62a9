//! `known-names.json`: the names of peers and groups that were seen last, offered by the completions of the shell.
//!
//! Shape: `{"<mesh id>":{"peers":["Bob"],"groups":["frontend"]}}`. A cache: a file that cannot be read counts as empty, and what
//! cannot be written is only missing from the completions.

use std::collections::{BTreeMap, BTreeSet};

use claudemesh_protocol::id::MeshId;
use serde::{Deserialize, Serialize};

use super::ConfigStore;

const FILE: &str = "known-names.json";
/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Names kept of one mesh and kind.
const MAX_NAMES: usize = 2_000;

/// Names in one mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownNames {
    /// Display names of sessions and members.
    pub peers: BTreeSet<String>,
    /// Groups, without `@`.
    pub groups: BTreeSet<String>,
}

impl ConfigStore {
    /// The names of each mesh, by its id.
    pub fn known_names(&self) -> BTreeMap<String, KnownNames> {
        let bytes = crate::files::read_limited(&self.dir().join(FILE), MAX_BYTES).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Replaces the names of one mesh.
    pub fn remember_names(
        &self,
        mesh: &MeshId,
        peers: impl IntoIterator<Item = String>,
        groups: impl IntoIterator<Item = String>,
    ) {
        let named = |names: &mut dyn Iterator<Item = String>| names.take(MAX_NAMES).collect();
        let now = KnownNames { peers: named(&mut peers.into_iter()), groups: named(&mut groups.into_iter()) };
        let mut all = self.known_names();
        if all.get(mesh.as_str()) == Some(&now) {
            return;
        }
        all.insert(mesh.to_string(), now);
        if let Err(error) = self.write_json(&self.dir().join(FILE), &all) {
            tracing::debug!(%error, "names for completions are not kept");
        }
    }
}
