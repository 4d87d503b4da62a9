//! Samples of every message of API keys.

use super::*;
use crate::testing::AT;

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] = &[
    ("apikey_created", "/topicScopes"),
    ("apikey_list_response", "/keys/0/topicScopes"),
    ("apikey_list_response", "/keys/0/lastUsedAt"),
    ("apikey_list_response", "/keys/0/revokedAt"),
    ("apikey_list_response", "/keys/0/expiresAt"),
];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let create = ApikeyCreate { label: "ci".into(), capabilities: vec!["send".into()], ..ApikeyCreate::default() };
    let full = ApikeyCreate {
        topic_scopes: Some(vec!["general".into()]),
        expires_at: Some(AT.into()),
        member: Some("bob".into()),
        ..create.clone()
    };
    vec![
        ("", create.into()),
        ("full", full.into()),
        ("", ApikeyList {}.into()),
        ("", ApikeyRevoke { id: "0123456789abcdef".into() }.into()),
    ]
}

/// Answers.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let created = |scopes: Option<&str>| ApikeyCreated {
        id: "0123456789abcdef0123456789abcdef".into(),
        secret: "cm_0000000000000000000000000000000000000000000".into(),
        label: "ci".into(),
        prefix: "cm_00000000".into(),
        capabilities: vec!["send".into(), "read".into()],
        topic_scopes: scopes.map(|scope| vec![scope.into()]),
        created_at: AT.into(),
    };
    let entry = |all: bool| ApikeyEntry {
        id: "0123456789abcdef0123456789abcdef".into(),
        label: "ci".into(),
        prefix: "cm_00000000".into(),
        capabilities: vec!["send".into(), "read".into()],
        topic_scopes: all.then(|| vec!["general".into()]),
        created_at: AT.into(),
        last_used_at: all.then(|| AT.into()),
        revoked_at: all.then(|| AT.into()),
        expires_at: all.then(|| AT.into()),
        member_name: all.then(|| "Alice".into()),
    };
    let revoked = ApikeyRevokeResponse { status: "revoked".into(), id: Some("0123456789abcdef".into()), matches: None };
    let several = ApikeyRevokeResponse { status: "not_unique".into(), id: None, matches: Some(2) };
    vec![
        ("", created(None).into()),
        ("full", created(Some("general")).into()),
        ("", ApikeyListResponse { keys: vec![entry(false), entry(true)] }.into()),
        ("", ApikeyRevokeResponse { status: "not_found".into(), ..ApikeyRevokeResponse::default() }.into()),
        ("full", revoked.into()),
        ("several", several.into()),
    ]
}
