//! Memory: what a mesh remembers, found again by words.

use serde::{Deserialize, Serialize};

use crate::features::messaging::Ack;

pub mod limits;

/// `remember`: stores one text for everyone in the mesh.
///
/// Shape: `{"type":"remember","content":"Deploys run on Fridays","tags":["ops"]}`. The same text with the same tags of the same
/// member is one memory: the answer to a repetition names the first one.
/// Errors: `limit` with `bound`, `rate_limited`, `forbidden`, `invalid_args`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remember {
    /// 1 to [`limits::MAX_CONTENT_BYTES`]; lines and tabs, no other control characters.
    pub content: String,
    /// At most [`limits::MAX_TAGS`], each of at most [`limits::MAX_TAG_CHARS`].
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Which memories are meant; every condition that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Has all of these tags, whatever their case and accents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Was stored by a member of this name, key or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Stored at this time or later, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Stored before this time, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

/// `recall`: memories that have all words of a query in their text or tags, the best first.
///
/// A query is words; `deploy*` stands for every word that begins so, `"blue green"` for words beside each other, `-word` for
/// what must not be there. Words are compared without case and accents and by their English or Russian stem; scripts that are
/// written without spaces are found by any part.
/// Errors: `invalid_args` for a query or a cursor that cannot be, `forbidden`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// At most [`limits::MAX_QUERY_BYTES`] and [`limits::MAX_QUERY_WORDS`]. An empty one finds nothing.
    pub query: String,
    /// Which memories are searched.
    #[serde(flatten)]
    pub only: Conditions,
    /// 1 to [`limits::MAX_PAGE`]; [`limits::USUAL_PAGE`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `list_memories`: memories without a query, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListMemories {
    /// Which memories are listed.
    #[serde(flatten)]
    pub only: Conditions,
    /// 1 to [`limits::MAX_PAGE`]; [`limits::USUAL_PAGE`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `forget`: deletes one memory, its words in the index and the space on disk where it was.
///
/// Answered by `ack`; of an id that is not there with `code` `not_found`, as older clients take an `error` for the answer to
/// something else.
/// Errors: `ambiguous_prefix`; `forbidden` when another member stored it and the caller may not moderate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forget {
    /// Its id, or at least the first [`limits::MIN_ID_CHARS`] characters of it.
    #[serde(rename = "memoryId")]
    pub memory_id: String,
}

/// `memory_stored`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStored {
    /// Its id.
    pub id: String,
    /// The same: one client of before waits for this name and would store it again without it.
    #[serde(default)]
    pub memory_id: String,
    /// The member had stored the same before; this is the id of that one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// One memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Its id.
    pub id: String,
    /// The text.
    pub content: String,
    /// As they were given.
    pub tags: Vec<String>,
    /// Name of the member at that time.
    pub remembered_by: String,
    /// ISO time.
    pub remembered_at: String,
    /// Id of the member.
    #[serde(default)]
    pub member_id: String,
    /// Of `recall`: the part of the text where the words are, with `**` around them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snippet: Option<String>,
}

/// `memory_results`: of `recall` the best first, of `list_memories` the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryResults {
    /// The memories of this page.
    pub memories: Vec<Memory>,
    /// There is more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// When nothing was found: the words of the query that no memory of the mesh has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
}

crate::wire_feature! {
    requests {
        /// Stores one text with tags for everyone in the mesh.
        Remember = "remember" => answers MemoryStored, needs CanWriteState, repeatable;
        /// Memories that have all words of a query, the best first, in pages.
        Recall = "recall" => answers MemoryResults, needs CanReadShared, repeatable;
        /// Memories without a query, the newest first, in pages.
        ListMemories = "list_memories" => answers MemoryResults, needs CanReadShared, repeatable;
        /// Deletes one memory for good; one of another member only for those who may moderate.
        Forget = "forget" => answers Ack, needs CanWriteState, repeatable;
    }
    answers {
        MemoryStored = "memory_stored",
        MemoryResults = "memory_results",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
