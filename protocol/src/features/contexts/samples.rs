//! Samples of every message of contexts.

use super::{
    Context, ContextEntry, ContextList, ContextResults, ContextShared, GetContext, ListContexts, Request, Response,
    ShareContext,
};
use crate::testing::{AT, MESSAGE};

/// No field is written as `null`.
pub(crate) const NULLS: &[(&str, &str)] = &[];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let share = ShareContext { summary: "Refactoring the login".into(), ..ShareContext::default() };
    let full = ShareContext {
        files_read: vec!["src/auth.ts".into()],
        key_findings: vec!["tokens live 15 minutes".into()],
        tags: vec!["auth".into()],
        ..share.clone()
    };
    let get = GetContext { query: "login tokens".into(), ..GetContext::default() };
    let cursor = || Some("20".to_owned());
    vec![
        ("", share.into()),
        ("full", full.into()),
        ("", get.clone().into()),
        ("full", GetContext { limit: Some(5), cursor: cursor(), ..get }.into()),
        ("", ListContexts::default().into()),
        ("full", ListContexts { limit: Some(5), cursor: cursor() }.into()),
    ]
}

/// Answers.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let context = Context {
        peer_name: "Alice".into(),
        summary: "Refactoring the login".into(),
        files_read: vec!["src/auth.ts".into()],
        key_findings: vec!["tokens live 15 minutes".into()],
        tags: vec!["auth".into()],
        updated_at: AT.into(),
        id: MESSAGE.into(),
        session_name: "Alice at home".into(),
        gone: false,
        snippet: None,
    };
    let hit = Context { gone: true, snippet: Some("Refactoring the **login**".into()), ..context.clone() };
    let entry = ContextEntry {
        peer_name: "Alice".into(),
        summary: "Refactoring the login".into(),
        tags: vec!["auth".into()],
        updated_at: AT.into(),
        id: MESSAGE.into(),
        session_name: "Alice at home".into(),
        gone: false,
    };
    let nothing = ContextResults { unmatched: vec!["logout".into()], ..ContextResults::default() };
    let gone = ContextEntry { gone: true, ..entry.clone() };
    vec![
        ("", ContextShared { id: MESSAGE.into() }.into()),
        ("", ContextResults { contexts: vec![context], ..ContextResults::default() }.into()),
        ("full", ContextResults { contexts: vec![hit], next: Some("1".into()), unmatched: vec![] }.into()),
        ("nothing", nothing.into()),
        ("", ContextList { contexts: vec![entry], next: None }.into()),
        ("full", ContextList { contexts: vec![gone], next: Some("1".into()) }.into()),
    ]
}
