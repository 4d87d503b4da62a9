//! The audit log: a hash chain per mesh of every change of consequence.
//!
//! An entry is written by the journal in the savepoint of the change it tells of ([`Audit`] is half of what a write gives back),
//! so there is no change without its entry and no entry without its change. What is hashed, and how, is in
//! `claudemesh_protocol::crypto::audit`; how to verify a chain is in docs/audit.md.
//!
//! An entry names things; it never holds a body, a value of the vault or a key.

mod chain;
mod read;
pub mod schema;
mod signer;
#[cfg(test)]
mod tests;

use claudemesh_protocol::crypto::audit::Entry;
use claudemesh_protocol::id::MemberId;
use serde_json::Value;

pub(crate) use chain::Heads;
pub use read::{AuditEntry, Filter, Head, MAX_PAGE, Verdict, count, hash_at, head, page, query, verify, verify_on};
pub use signer::{HeadSigner, SignedHead};

use crate::db::DbError;
use crate::journal::MeshStore;
use crate::tx_write;

/// What a change says of itself in the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// `member_banned`, `state_set`, …: lower-case words joined with `_`.
    pub event: &'static str,
    /// Member who did it; `None` for the mesh itself.
    pub actor: Option<MemberId>,
    /// What it did it to: names and ids, no content.
    pub payload: Value,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// The second half of what a write gives back.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Audit {
    /// The change is of consequence.
    Entry(AuditRecord),
    /// It is not, or there was none; the reason is for the reader of the code.
    Unaudited(&'static str),
}

impl Audit {
    /// An entry.
    pub fn entry(event: &'static str, actor: Option<&MemberId>, payload: Value, at_ms: i64) -> Self {
        Self::Entry(AuditRecord { event, actor: actor.cloned(), payload, at_ms })
    }

    /// The entry when something was changed.
    pub fn when(changed: bool, entry: impl FnOnce() -> Self) -> Self {
        if changed { entry() } else { Self::Unaudited("nothing was changed") }
    }
}

/// Who changes something, and when: what an entry needs beside its event.
#[derive(Clone, Debug, PartialEq)]
pub struct By {
    /// Member; `None` for the mesh itself and for the owner's key without a member row.
    pub member: Option<MemberId>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

impl By {
    /// A member.
    pub fn member(member: &MemberId, at_ms: i64) -> Self {
        Self { member: Some(member.clone()), at_ms }
    }

    /// The broker, or someone who is no member.
    pub fn nobody(at_ms: i64) -> Self {
        Self { member: None, at_ms }
    }

    /// An entry by this one.
    pub fn entry(&self, event: &'static str, payload: Value) -> Audit {
        Audit::entry(event, self.member.as_ref(), payload, self.at_ms)
    }
}

/// Appends an entry that tells of no change of its own.
///
/// # Errors
/// Storage fails.
pub async fn append(store: &MeshStore, entry: Audit) -> Result<(), DbError> {
    Ok(tx_write!(store, (entry), |_conn, _mesh| Ok(((), entry.clone())))?)
}

/// The hashed fields of an entry as they are stored.
fn hashed<'a>(mesh: &'a str, event: &'a str, actor: Option<&'a str>, payload: &'a str, at_ms: i64) -> Entry<'a> {
    Entry { mesh, event, actor, payload, at_ms }
}
