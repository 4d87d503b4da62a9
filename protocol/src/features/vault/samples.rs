//! Samples of every message of the vault.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{
    DELETED, EntryType, NOT_FOUND, Request, Response, STORED, VaultAck, VaultDelete, VaultEntry, VaultGet,
    VaultGetResult, VaultList, VaultListResult, VaultSecret, VaultSet,
};
use crate::testing::{AT, AT_MS, MEMBER};

/// Fields that are written as `null` when they have no value, as older clients expect them.
pub(crate) const NULLS: &[(&str, &str)] = &[
    ("vault_list_result", "/entries/0/mount_path"),
    ("vault_list_result", "/entries/0/description"),
    ("vault_get_result", "/entries/0/mount_path"),
];

fn key() -> String {
    "GITHUB_TOKEN".into()
}

/// 24 bytes, 80 bytes, and a value of 10 bytes with its tag. What is in them does not matter here.
fn sealed() -> (String, String, String) {
    (STANDARD.encode([1; 26]), STANDARD.encode([2; 24]), STANDARD.encode([3; 80]))
}

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let (ciphertext, nonce, sealed_key) = sealed();
    let set = VaultSet { key: key(), ciphertext, nonce, sealed_key, ..VaultSet::default() };
    let full = VaultSet {
        entry_type: EntryType::File,
        mount_path: Some("/run/secrets/token".into()),
        description: Some("reads the repositories".into()),
        signature: Some("ab".repeat(64)),
        signed_at_ms: Some(AT_MS),
        ..set.clone()
    };
    let list = VaultList { everyone: true, limit: Some(20), cursor: Some(format!("{MEMBER}.{}", key())) };
    vec![
        ("", set.into()),
        ("full", full.into()),
        ("", VaultList::default().into()),
        ("full", list.into()),
        ("", VaultDelete { key: key(), member_id: None }.into()),
        ("full", VaultDelete { key: key(), member_id: Some(MEMBER.into()) }.into()),
        ("", VaultGet { keys: vec![key(), "nope".into()] }.into()),
    ]
}

/// Answers.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let (ciphertext, nonce, sealed_key) = sealed();
    let ack = |action: &str| VaultAck { key: key(), action: action.into() };
    let row = VaultEntry { key: key(), updated_at: AT.into(), ..VaultEntry::default() };
    let full = VaultEntry {
        entry_type: EntryType::File,
        mount_path: Some("/run/secrets/token".into()),
        description: Some("reads the repositories".into()),
        member_id: Some(MEMBER.into()),
        by: Some("Alice".into()),
        ..row.clone()
    };
    let secret = VaultSecret { key: key(), ciphertext, nonce, sealed_key, ..VaultSecret::default() };
    let signed = VaultSecret {
        mount_path: Some("/run/secrets/token".into()),
        signature: Some("ab".repeat(64)),
        signed_at_ms: Some(AT_MS),
        ..secret.clone()
    };
    vec![
        ("", ack(STORED).into()),
        ("deleted", ack(DELETED).into()),
        ("not_found", ack(NOT_FOUND).into()),
        ("", VaultListResult { entries: vec![row], next: None }.into()),
        ("full", VaultListResult { entries: vec![full], next: Some(format!("{MEMBER}.{}", key())) }.into()),
        ("", VaultGetResult { entries: vec![secret], more: vec![] }.into()),
        ("full", VaultGetResult { entries: vec![signed], more: vec!["OTHER".into()] }.into()),
    ]
}
