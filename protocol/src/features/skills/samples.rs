//! Samples of every message of skills.

use serde_json::json;

use super::{
    GetSkill, ListSkills, REMOVED, RemoveSkill, Request, Response, SHARED, ShareSkill, Skill, SkillAck, SkillData,
    SkillEntry, SkillList, SkillVersion, SkillsChanged,
};
use crate::testing::{AT, AT_MS, MEMBER, member_key, signature};

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] = &[("skill_data/none", "/skill"), ("skill_data", "/skill/manifest")];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let name = || "deploy".to_owned();
    let share = ShareSkill {
        name: name(),
        description: "How we deploy".into(),
        instructions: "Run the script.".into(),
        ..ShareSkill::default()
    };
    let full = ShareSkill {
        tags: vec!["ops".into()],
        manifest: Some(json!({"when_to_use": "before a release", "allowed_tools": ["Bash"]})),
        signature: Some(signature()),
        signed_at_ms: Some(AT_MS),
        ..share.clone()
    };
    let list = ListSkills {
        query: Some("deploy* -staging".into()),
        tags: vec!["ops".into()],
        limit: Some(20),
        cursor: Some("build".into()),
    };
    vec![
        ("", share.into()),
        ("full", full.into()),
        ("", GetSkill { name: name(), version: None }.into()),
        ("full", GetSkill { name: name(), version: Some(2) }.into()),
        ("", ListSkills::default().into()),
        ("full", list.into()),
        ("", RemoveSkill { name: name() }.into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let name = || "deploy".to_owned();
    let shared = SkillAck { name: name(), action: SHARED.into(), version: Some(3), unchanged: false };
    let removed = SkillAck { name: name(), action: REMOVED.into(), ..SkillAck::default() };
    let skill = Skill {
        name: name(),
        description: "How we deploy".into(),
        instructions: "Run the script.".into(),
        tags: vec!["ops".into()],
        author: "Alice".into(),
        manifest: None,
        created_at: AT.into(),
        updated_at: AT.into(),
        version: 3,
        latest: 3,
        member_id: MEMBER.into(),
        owner_id: MEMBER.into(),
        ..Skill::default()
    };
    let full = Skill {
        manifest: Some(json!({"when_to_use": "before a release"})),
        author_key: Some(member_key()),
        signature: Some(signature()),
        signed_at_ms: Some(AT_MS),
        versions: vec![SkillVersion { version: 3, author: "Alice".into(), at: AT.into(), bytes: 40 }],
        ..skill.clone()
    };
    let row = SkillEntry {
        name: name(),
        description: "How we deploy".into(),
        tags: vec!["ops".into()],
        author: "Alice".into(),
        created_at: AT.into(),
        updated_at: AT.into(),
        version: 3,
        member_id: MEMBER.into(),
    };
    let change =
        SkillsChanged { name: Some(name()), action: Some(SHARED.into()), version: Some(3), by: Some("Alice".into()) };
    vec![
        ("", shared.clone().into()),
        ("again", SkillAck { unchanged: true, ..shared }.into()),
        ("removed", removed.into()),
        ("", SkillData { skill: Some(skill) }.into()),
        ("full", SkillData { skill: Some(full) }.into()),
        ("none", SkillData::default().into()),
        ("", SkillList { skills: vec![row.clone()], next: None }.into()),
        ("full", SkillList { skills: vec![row], next: Some("deploy".into()) }.into()),
        ("", SkillsChanged::default().into()),
        ("full", change.into()),
    ]
}
