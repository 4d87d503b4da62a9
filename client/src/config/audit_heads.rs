//! `audit-heads.json`: the last signed head of every mesh's audit log that was seen from here. A log that is later rewritten or
//! cut does not extend it.
//!
//! Shape: `{"version":1,"heads":[{"meshId","key","seq","hash","at"}]}`.

use claudemesh_protocol::crypto::{keys, signed};
use claudemesh_protocol::features::audit::AuditHeadsResult;
use claudemesh_protocol::id::{MeshId, PublicKey};
use claudemesh_protocol::session::HelloAck;
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

/// Why a head does not extend the one that was seen before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// Another key signs than before.
    #[error("the broker signs with another key than before ({now}, it was {before})")]
    OtherKey {
        /// Short form of the key first seen.
        before: String,
        /// Short form of the key now.
        now: String,
    },
    /// The signature does not verify.
    #[error("the signature of the broker does not fit the head that it shows")]
    Signature,
    /// The log is shorter.
    #[error("the log ends at entry {now}, and entry {before} was seen: its end was cut off")]
    Cut {
        /// Place that was seen.
        before: i64,
        /// Place of the end now.
        now: i64,
    },
    /// Another entry is at the place.
    #[error("entry {at} is not the one that was seen: the log was written anew")]
    Rewritten {
        /// The place.
        at: i64,
    },
}

/// Checks that what a broker tells extends what was seen before. Of a first head only the signature can be checked.
///
/// # Errors
/// What does not fit.
pub fn extends(mesh: &MeshId, seen: Option<&SeenHead>, told: &AuditHeadsResult) -> Result<(), HeadFault> {
    if let Some(seen) = seen
        && seen.key != told.key
    {
        return Err(HeadFault::OtherKey { before: seen.key.short(), now: told.key.short() });
    }
    let text = signed::audit_head(mesh, told.head.seq, &told.head.hash, told.head.at);
    keys::verify(&told.key, text.as_bytes(), &told.head.signature).map_err(|_| HeadFault::Signature)?;
    let Some(seen) = seen else { return Ok(()) };
    if told.head.seq < seen.seq {
        return Err(HeadFault::Cut { before: seen.seq, now: told.head.seq });
    }
    let same = told.head.seq == seen.seq && told.head.hash == seen.hash;
    // Before the first entry there is nothing to compare.
    if same || seen.seq == 0 || (told.head.seq > seen.seq && told.hash_at.as_deref() == Some(&seen.hash)) {
        return Ok(());
    }
    Err(HeadFault::Rewritten { at: seen.seq })
}

/// What is kept of a head.
pub fn kept(mesh: &MeshId, told: &AuditHeadsResult) -> SeenHead {
    SeenHead {
        mesh_id: mesh.clone(),
        key: told.key,
        seq: told.head.seq,
        hash: told.head.hash.clone(),
        at: told.head.at,
        extra: serde_json::Map::new(),
    }
}

/// What a welcome tells of the log; `None` from a broker that keeps none.
pub fn told(ack: &HelloAck) -> Option<AuditHeadsResult> {
    serde_json::from_value(ack.features.get("audit")?.clone()).ok()
}

/// How a head compares with the one that was seen before, as far as that can be said without asking the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Glance {
    /// It is the same, or the first.
    Extends,
    /// The log is longer: whether what was seen is still in it has to be asked.
    Longer,
    /// It does not.
    Fault(HeadFault),
}

/// Compares what a welcome tells with what was seen before.
pub fn glance(mesh: &MeshId, seen: Option<&SeenHead>, told: &AuditHeadsResult) -> Glance {
    let before = seen.filter(|seen| seen.seq > 0 && told.head.seq > seen.seq);
    let assumed = AuditHeadsResult { hash_at: before.map(|seen| seen.hash.clone()), ..told.clone() };
    match extends(mesh, seen, &assumed) {
        Err(fault) => Glance::Fault(fault),
        Ok(()) if before.is_some() => Glance::Longer,
        Ok(()) => Glance::Extends,
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::crypto::keys::SecretKey;
    use claudemesh_protocol::features::audit::SignedHead;

    use super::*;

    fn told(key: &SecretKey, seq: i64, hash: &str, hash_at: Option<&str>) -> AuditHeadsResult {
        let mesh: MeshId = "m".into();
        let signature = key.sign(signed::audit_head(&mesh, seq, hash, 5).as_bytes());
        let head = SignedHead { seq, hash: hash.into(), at: 5, signature };
        AuditHeadsResult { key: key.public(), head, hash_at: hash_at.map(str::to_owned) }
    }

    #[test]
    fn a_later_head_extends_an_earlier_one_or_the_reason_is_told() {
        let (mesh, key, other): (MeshId, _, _) =
            ("m".into(), SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let first = told(&key, 7, "aa", None);
        assert_eq!(extends(&mesh, None, &first), Ok(()));
        let seen = kept(&mesh, &first);
        let check = |now: &AuditHeadsResult| extends(&mesh, Some(&seen), now);
        assert_eq!(check(&first), Ok(()));
        assert_eq!(check(&told(&key, 9, "bb", Some("aa"))), Ok(()));
        assert_eq!(check(&told(&key, 6, "aa", None)), Err(HeadFault::Cut { before: 7, now: 6 }));
        for rewritten in [told(&key, 7, "bb", Some("bb")), told(&key, 9, "bb", Some("cc")), told(&key, 9, "bb", None)] {
            assert_eq!(check(&rewritten), Err(HeadFault::Rewritten { at: 7 }));
        }
        let before = key.public().short();
        let now = other.public().short();
        assert_eq!(check(&told(&other, 7, "aa", None)), Err(HeadFault::OtherKey { before, now }));
        let mut forged = told(&key, 9, "bb", Some("aa"));
        forged.head.seq = 10;
        assert_eq!(check(&forged), Err(HeadFault::Signature));
        assert_eq!(extends(&"other".into(), None, &first), Err(HeadFault::Signature), "of another mesh");
        // At a glance: what needs no question is said at once.
        let first_seen = glance(&mesh, None, &first);
        assert_eq!((first_seen, glance(&mesh, Some(&seen), &first)), (Glance::Extends, Glance::Extends));
        assert_eq!(glance(&mesh, Some(&seen), &told(&key, 9, "bb", None)), Glance::Longer);
        let cut = Glance::Fault(HeadFault::Cut { before: 7, now: 6 });
        assert_eq!(glance(&mesh, Some(&seen), &told(&key, 6, "aa", None)), cut);
        let other_entry = Glance::Fault(HeadFault::Rewritten { at: 7 });
        assert_eq!(glance(&mesh, Some(&seen), &told(&key, 7, "bb", None)), other_entry);
        let empty = kept(&mesh, &told(&key, 0, "genesis", None));
        assert_eq!(extends(&mesh, Some(&empty), &told(&key, 3, "bb", None)), Ok(()));
    }
}
