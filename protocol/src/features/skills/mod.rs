//! Skills: instructions that members share, with their versions and signatures.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::PublicKey;

pub mod limits;
pub mod signing;

pub use signing::{SignatureState, SkillText};

/// `action` of a skill that was stored.
pub const SHARED: &str = "shared";
/// `action` of a skill that was removed.
pub const REMOVED: &str = "removed";
/// `action` when there is no such skill.
pub const NOT_FOUND: &str = "not_found";

/// `share_skill`: stores a skill, or a new version of it; the former texts are kept.
///
/// Shape: `{"type":"share_skill","name":"deploy","description":"…","instructions":"…","tags":["ops"],"manifest":{…}}`. The same text of the
/// same author is no new version.
/// Errors: `invalid_name`, `invalid_args`, `bad_signature`, `forbidden` when another member has shared it and the caller may not
/// moderate, `limit` with `bound`, `rate_limited`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShareSkill {
    /// 1 to [`crate::limits::MAX_NAME_CHARS`] characters that can be seen, without margins.
    pub name: String,
    /// What it is good for; at most [`limits::MAX_DESCRIPTION_BYTES`].
    pub description: String,
    /// The text; lines and tabs, no other control characters.
    pub instructions: String,
    /// At most [`limits::MAX_TAGS`], each of at most [`limits::MAX_TAG_CHARS`].
    #[serde(default)]
    pub tags: Vec<String>,
    /// An object; its usual fields are `when_to_use`, `allowed_tools`, `model`, `context`, `agent`, `user_invocable`,
    /// `argument_hint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Value>,
    /// Of the member's key over the text, see [`signing`]; 128 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// When it was signed, in Unix milliseconds by the client's clock. Goes with `signature`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at_ms: Option<i64>,
}

/// `get_skill`: a skill with its text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetSkill {
    /// Its name.
    pub name: String,
    /// A former version; the newest one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// `list_skills`: skills by name, without their texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListSkills {
    /// Words that name, description or tags have, all of them; `deploy*`, `"two words"` and `-word` as for `recall`. At most 100
    /// skills are found by words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Only with all of these tags, whatever their case and accents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// 1 to [`limits::MAX_PAGE`], which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `remove_skill`: deletes a skill with all its versions.
///
/// Errors: `forbidden` when another member has shared it and the caller may not moderate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoveSkill {
    /// Its name.
    pub name: String,
}

/// `skill_ack`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SkillAck {
    /// Its name.
    pub name: String,
    /// [`SHARED`], [`REMOVED`] or [`NOT_FOUND`].
    pub action: String,
    /// Of `share_skill`: the version that has this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Of `share_skill`: the newest version has this text already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
}

/// A version of a skill, without its text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SkillVersion {
    /// Its number.
    pub version: u32,
    /// Name of its author at that time.
    pub author: String,
    /// ISO time.
    pub at: String,
    /// Bytes of text, description, tags and manifest.
    pub bytes: u64,
}

/// A skill with its text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Skill {
    /// Its name.
    pub name: String,
    /// What it is good for.
    pub description: String,
    /// The text.
    pub instructions: String,
    /// As they were given.
    pub tags: Vec<String>,
    /// Name of the author of this version at that time.
    pub author: String,
    /// As it was given.
    pub manifest: Option<Value>,
    /// When the skill was shared first; ISO time.
    pub created_at: String,
    /// When this version was shared; ISO time.
    #[serde(default)]
    pub updated_at: String,
    /// The version that this is, counted from 1.
    #[serde(default)]
    pub version: u32,
    /// The newest version.
    #[serde(default)]
    pub latest: u32,
    /// Id of the author.
    #[serde(default)]
    pub member_id: String,
    /// Id of the member that shared the skill first: it and those who may moderate change and remove it.
    #[serde(default)]
    pub owner_id: String,
    /// Key that the author had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author_key: Option<PublicKey>,
    /// As it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// As it was given, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at_ms: Option<i64>,
    /// The versions that are kept, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<SkillVersion>,
}

/// `skill_data`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SkillData {
    /// `null`: there is no such skill, or no such version of it.
    pub skill: Option<Skill>,
}

/// A row of `skill_list`: the newest version without its text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SkillEntry {
    /// Its name.
    pub name: String,
    /// What it is good for.
    pub description: String,
    /// As they were given.
    pub tags: Vec<String>,
    /// Name of the author of the newest version at that time.
    pub author: String,
    /// When the skill was shared first; ISO time.
    pub created_at: String,
    /// When the newest version was shared; ISO time.
    #[serde(default)]
    pub updated_at: String,
    /// The newest version.
    #[serde(default)]
    pub version: u32,
    /// Id of the author.
    #[serde(default)]
    pub member_id: String,
}

/// `skill_list`: by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SkillList {
    /// The rows of this page.
    pub skills: Vec<SkillEntry>,
    /// There is more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `skills_changed`: a skill was shared or removed, told to everyone who may read them. Without a name it stands for several changes.
/// Not sent to clients that say nothing of themselves in their hello.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SkillsChanged {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// [`SHARED`] or [`REMOVED`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The version that was shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Name of the member that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

crate::wire_feature! {
    requests {
        /// Stores a skill, or a new version of it; one of another member only for those who may moderate.
        ShareSkill = "share_skill" => answers SkillAck, needs CanWriteState, repeatable;
        /// A skill with its text, or a former version of it.
        GetSkill = "get_skill" => answers SkillData, needs CanReadShared, repeatable;
        /// Skills by name, all or those that have all words of a query, in pages.
        ListSkills = "list_skills" => answers SkillList, needs CanReadShared, repeatable;
        /// Deletes a skill with all its versions; one of another member only for those who may moderate.
        RemoveSkill = "remove_skill" => answers SkillAck, needs CanWriteState, repeatable;
    }
    answers {
        SkillAck = "skill_ack",
        SkillData = "skill_data",
        SkillList = "skill_list",
    }
    events {
        SkillsChanged = "skills_changed",
    }
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
