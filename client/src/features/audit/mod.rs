//! The audit log of a mesh: reading and verifying it, and finding out when it was rewritten.

use claudemesh_protocol::crypto::{keys, signed};
use claudemesh_protocol::features::audit::{
    AuditExport, AuditHeads, AuditHeadsResult, AuditPage, AuditQuery, AuditResult, AuditVerify, AuditVerifyResult,
};
use claudemesh_protocol::id::MeshId;

use crate::config::audit_heads::SeenHead;
use crate::connection::{Connection, ConnectionError};

pub mod cli;

impl Connection {
    /// Entries, newest first.
    ///
    /// # Errors
    /// `invalid_args`, or of the transport.
    pub async fn audit_entries(&self, query: AuditQuery) -> Result<AuditResult, ConnectionError> {
        self.request(query).await
    }

    /// Lets the broker follow the whole chain.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn audit_verify(&self) -> Result<AuditVerifyResult, ConnectionError> {
        self.request(AuditVerify {}).await
    }

    /// The signed end of the chain, and the hash at a place that was seen before.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn audit_heads(&self, at: Option<i64>) -> Result<AuditHeadsResult, ConnectionError> {
        self.request(AuditHeads { at }).await
    }

    /// Whole entries behind a place, oldest first.
    ///
    /// # Errors
    /// `forbidden`, or of the transport.
    pub async fn audit_export(&self, after: i64) -> Result<AuditPage, ConnectionError> {
        self.request(AuditExport { after: Some(after), limit: None }).await
    }
}

/// Why a head does not extend the one that was seen before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// Another key signs than before.
    #[error("the broker signs with another key than before ({now} instead of {before})")]
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
        let empty = kept(&mesh, &told(&key, 0, "genesis", None));
        assert_eq!(extends(&mesh, Some(&empty), &told(&key, 3, "bb", None)), Ok(()));
    }
}
