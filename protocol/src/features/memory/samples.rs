//! Samples of every message of memory.

use super::{
    Conditions, Forget, ListMemories, Memory, MemoryResults, MemoryStored, Recall, Remember, Request, Response,
};
use crate::testing::{AT, AT_MS, MEMBER, MESSAGE};

/// No field is written as `null`.
pub(crate) const NULLS: &[(&str, &str)] = &[];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let content = || "Deploys run on Fridays at noon".to_owned();
    let only = Conditions {
        tags: vec!["ops".into()],
        author: Some("Alice".into()),
        since_ms: Some(AT_MS),
        until_ms: Some(AT_MS + 86_400_000),
    };
    let query = || "\"on fridays\" deploy* -saturday".to_owned();
    let recall = Recall { query: query(), only: only.clone(), limit: Some(5), cursor: Some("5".into()) };
    let list = ListMemories { only, limit: Some(5), cursor: Some(format!("{AT_MS}.{MESSAGE}")) };
    vec![
        ("", Remember { content: content(), tags: vec![] }.into()),
        ("full", Remember { content: content(), tags: vec!["ops".into(), "calendar".into()] }.into()),
        ("", Recall { query: query(), ..Recall::default() }.into()),
        ("full", recall.into()),
        ("", ListMemories::default().into()),
        ("full", list.into()),
        ("", Forget { memory_id: MESSAGE.into() }.into()),
    ]
}

/// Answers.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let stored = MemoryStored { id: MESSAGE.into(), memory_id: MESSAGE.into(), duplicate: false };
    let memory = Memory {
        id: MESSAGE.into(),
        content: "Deploys run on Fridays at noon".into(),
        tags: vec!["ops".into()],
        remembered_by: "Alice".into(),
        remembered_at: AT.into(),
        member_id: MEMBER.into(),
        snippet: None,
    };
    let hit = Memory { snippet: Some("**Deploys** run on Fridays at noon".into()), ..memory.clone() };
    let nothing = MemoryResults { unmatched: vec!["saturday".into()], ..MemoryResults::default() };
    vec![
        ("", stored.clone().into()),
        ("again", MemoryStored { duplicate: true, ..stored }.into()),
        ("", MemoryResults { memories: vec![memory], ..MemoryResults::default() }.into()),
        ("full", MemoryResults { memories: vec![hit], next: Some("1".into()), unmatched: vec![] }.into()),
        ("nothing", nothing.into()),
    ]
}
