//! The audit log: a hash chain of every change of consequence, with heads that the broker signs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{MemberId, PublicKey};

/// `audit_query`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditQuery {
    /// 1 to 200, default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Entries to skip, at most 10,000; `before` has no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
    /// One kind of event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Only entries before this one: the last `id` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
}

/// An entry in `audit_result`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AuditRow {
    /// Place in the chain, from 1.
    pub id: i64,
    /// What happened.
    pub event_type: String,
    /// Name of the member who did it; `null` for the mesh itself.
    pub actor: Option<String>,
    /// What it was done to.
    pub payload: Value,
    /// 64 hex digits.
    pub hash: String,
    /// ISO time.
    pub created_at: String,
}

/// `audit_result`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditResult {
    /// Newest first.
    pub entries: Vec<AuditRow>,
    /// Entries that the caller may see and the filter takes.
    pub total: i64,
}

/// `audit_verify`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditVerify {}

/// `audit_verify_result`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditVerifyResult {
    /// Whether the chain is whole.
    pub valid: bool,
    /// Entries that are right, from the first one.
    pub entries: i64,
    /// The first place that is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_at: Option<i64>,
}

/// `audit_heads`: the end of the chain, and what is at one place of it now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditHeads {
    /// The place of a head that was seen before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
}

/// A head with the broker's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// Place of the last entry; 0 for an empty chain.
    pub seq: i64,
    /// Its hash; `genesis` for an empty chain.
    pub hash: String,
    /// When it was signed, Unix milliseconds.
    pub at: i64,
    /// Over `audit-head|mesh|seq|hash|time`, 128 hex digits.
    pub signature: String,
}

/// `audit_heads_result`; also what `hello_ack.features.audit` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditHeadsResult {
    /// The broker's audit key.
    pub key: PublicKey,
    /// The end of the chain.
    pub head: SignedHead,
    /// Hash of the entry at the place asked for; absent when there is none or none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_at: Option<String>,
}

/// `audit_export`: whole entries, oldest first, for someone who verifies the chain themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditExport {
    /// Only entries behind this place; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// 1 to 200, default 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// An entry with all that its hash is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Place in the chain, from 1.
    pub seq: i64,
    /// Hash of the entry before.
    pub prev_hash: String,
    /// 64 hex digits.
    pub hash: String,
    /// What happened.
    pub event_type: String,
    /// Member who did it.
    pub actor: Option<MemberId>,
    /// Canonical JSON, as it was hashed.
    pub payload: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// `audit_page`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditPage {
    /// Oldest first.
    pub entries: Vec<AuditEntry>,
    /// `after` of the next page; absent when this was the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

crate::wire_feature! {
    requests {
        /// Entries, newest first: all of them for owner and admins, for other members what they did themselves.
        AuditQuery = "audit_query" => answers AuditResult, needs nothing, repeatable;
        /// Follows the whole chain.
        AuditVerify = "audit_verify" => answers AuditVerifyResult, needs nothing, repeatable;
        /// The signed end of the chain.
        AuditHeads = "audit_heads" => answers AuditHeadsResult, needs nothing, repeatable;
        /// Owner or admin: whole entries, oldest first.
        AuditExport = "audit_export" => answers AuditPage, needs nothing, repeatable;
    }
    answers {
        AuditResult = "audit_result",
        AuditVerifyResult = "audit_verify_result",
        AuditHeadsResult = "audit_heads_result",
        AuditPage = "audit_page",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
