//! Samples of every message of state.

use serde_json::{Value, json};

use super::{
    DeleteState, GetState, ListState, Request, Response, SetState, StateChange, StateEntry, StateList, StateMissed,
    StateResult,
};
use crate::testing::AT;

/// Fields that are written as `null` when they have no value, because their absence means something else to older clients.
pub(crate) const NULLS: &[(&str, &str)] = &[
    ("set_state/null", "/value"),
    ("state_result", "/value"),
    ("state_list/since", "/entries/0/value"),
    ("state_change/deleted", "/value"),
];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let key = || "build".to_owned();
    let set = |value: Value| SetState { key: key(), value, expected_version: None, ttl_s: None };
    let full = SetState { expected_version: Some(3), ttl_s: Some(3_600), ..set(json!({"status": ["green", 7]})) };
    let list = ListState {
        prefix: Some("deploy/".into()),
        limit: Some(100),
        cursor: Some("deploy/eu".into()),
        since: Some(41),
    };
    vec![
        ("", set(json!("green")).into()),
        ("null", set(Value::Null).into()),
        ("full", full.into()),
        ("", GetState { key: key() }.into()),
        ("", ListState::default().into()),
        ("full", list.into()),
        ("", DeleteState { key: key(), expected_version: None }.into()),
        ("full", DeleteState { key: key(), expected_version: Some(4) }.into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let missing = StateResult { key: "build".into(), ..StateResult::default() };
    let found = StateResult {
        value: json!({"status": "green"}),
        updated_by: "Alice".into(),
        updated_at: AT.into(),
        version: 4,
        expires_at: Some(AT.into()),
        ..missing.clone()
    };
    let entry = StateEntry {
        key: "build".into(),
        value: json!("green"),
        updated_by: "Alice".into(),
        updated_at: AT.into(),
        version: 4,
        revision: 42,
        deleted: false,
        expires_at: None,
    };
    let gone = StateEntry { value: Value::Null, deleted: true, ..entry.clone() };
    let list = StateList { entries: vec![entry], revision: 42, ..StateList::default() };
    let since = StateList { entries: vec![gone], incomplete: true, ..list.clone() };
    let full = StateList { next: Some("build".into()), ..list.clone() };
    let change = StateChange {
        key: "build".into(),
        value: json!("green"),
        updated_by: "Alice".into(),
        version: 4,
        revision: 42,
        deleted: false,
    };
    let deleted = StateChange { value: Value::Null, deleted: true, ..change.clone() };
    vec![
        ("", missing.into()),
        ("full", found.into()),
        ("", list.into()),
        ("since", since.into()),
        ("full", full.into()),
        ("", change.into()),
        ("deleted", deleted.into()),
        ("", StateMissed { revision: 42 }.into()),
    ]
}
