//! Samples of every message of the audit log.

use serde_json::json;

use super::{
    AuditEntry, AuditExport, AuditHeads, AuditHeadsResult, AuditPage, AuditQuery, AuditResult, AuditRow, AuditVerify,
    AuditVerifyResult, Request, Response, SignedHead,
};
use crate::testing::{AT, MEMBER, member_key, signature};

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] =
    &[("audit_result", "/entries/1/actor"), ("audit_page/last", "/entries/0/actor")];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let full =
        AuditQuery { limit: Some(2), offset: Some(1), event_type: Some("member_banned".into()), before: Some(40) };
    vec![
        ("", AuditQuery::default().into()),
        ("full", full.into()),
        ("", AuditVerify {}.into()),
        ("", AuditHeads::default().into()),
        ("at", AuditHeads { at: Some(7) }.into()),
        ("", AuditExport::default().into()),
        ("full", AuditExport { after: Some(200), limit: Some(100) }.into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let hash = || "ab".repeat(32);
    let row = |id, actor: Option<&str>| AuditRow {
        id,
        event_type: "member_banned".into(),
        actor: actor.map(Into::into),
        payload: json!({"member": MEMBER}),
        hash: hash(),
        created_at: AT.into(),
    };
    let entry = |actor: Option<&str>| AuditEntry {
        seq: 1,
        prev_hash: "genesis".into(),
        hash: hash(),
        event_type: "mesh_created".into(),
        actor: actor.map(Into::into),
        payload: r#"{"slug":"kitchen"}"#.into(),
        created_at_ms: 1_775_642_000_000,
    };
    let heads = |hash_at: Option<String>| AuditHeadsResult {
        key: member_key(),
        head: SignedHead { seq: 9, hash: hash(), at: 1_775_642_000_000, signature: signature() },
        hash_at,
    };
    vec![
        ("", AuditResult { entries: vec![row(2, Some("Alice")), row(1, None)], total: 2 }.into()),
        ("", AuditVerifyResult { valid: true, entries: 9, broken_at: None }.into()),
        ("broken", AuditVerifyResult { valid: false, entries: 4, broken_at: Some(5) }.into()),
        ("", heads(None).into()),
        ("at", heads(Some(hash())).into()),
        ("", AuditPage { entries: vec![entry(Some(MEMBER))], next: Some(1) }.into()),
        ("last", AuditPage { entries: vec![entry(None)], next: None }.into()),
    ]
}
