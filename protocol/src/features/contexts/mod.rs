//! Contexts: what each session is working on and has found out, for the others to look up.

use serde::{Deserialize, Serialize};

pub mod limits;

/// What the key of the `state_change` of a context begins with; the name of the member follows. No such key is stored.
pub const STATE_KEY_PREFIX: &str = "_context:";

/// `share_context`: stores what this session knows, in place of what it shared before. Others get a `state_change` with the key
/// [`STATE_KEY_PREFIX`] and the member's name, and the summary as value.
///
/// A verb at the shell of a session writes the context of that session; any other verb that of the member's shell.
/// Errors: `limit` with `bound`, `rate_limited`, `forbidden`, `invalid_args`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareContext {
    /// What it is about: 1 to [`limits::MAX_SUMMARY_BYTES`].
    pub summary: String,
    /// Files that were read.
    #[serde(default)]
    pub files_read: Vec<String>,
    /// What was found out.
    #[serde(default)]
    pub key_findings: Vec<String>,
    /// Words to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// `get_context`: contexts that have all words of a query in summary, files, findings or tags, the best first; with an empty query
/// all, the newest first. The words are those of `recall`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetContext {
    /// At most [`limits::MAX_QUERY_BYTES`] and [`limits::MAX_QUERY_WORDS`].
    pub query: String,
    /// 1 to [`limits::MAX_PAGE`]; [`limits::USUAL_PAGE`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `list_contexts`: all contexts without files and findings, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListContexts {
    /// 1 to [`limits::MAX_PAGE`]; as many when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `context_shared`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextShared {
    /// Its id; the same as long as the session shares.
    pub id: String,
}

/// A row of `context_results`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Context {
    /// Name of the member.
    pub peer_name: String,
    /// What it is about.
    pub summary: String,
    /// Files that were read.
    pub files_read: Vec<String>,
    /// What was found out.
    pub key_findings: Vec<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// ISO time.
    pub updated_at: String,
    /// Its id.
    #[serde(default)]
    pub id: String,
    /// Name of the session.
    #[serde(default)]
    pub session_name: String,
    /// The session is gone; its context stays for 30 days.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// The part where the words of the query are, with `**` around them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snippet: Option<String>,
}

/// `context_results`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContextResults {
    /// The contexts of this page.
    pub contexts: Vec<Context>,
    /// There is more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// When nothing was found: the words of the query that no context of the mesh has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
}

/// A row of `context_list`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ContextEntry {
    /// Name of the member.
    pub peer_name: String,
    /// What it is about.
    pub summary: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// ISO time.
    pub updated_at: String,
    /// Its id.
    #[serde(default)]
    pub id: String,
    /// Name of the session.
    #[serde(default)]
    pub session_name: String,
    /// The session is gone; its context stays for 30 days.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

/// `context_list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContextList {
    /// The newest first.
    pub contexts: Vec<ContextEntry>,
    /// There is more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

crate::wire_feature! {
    requests {
        /// Stores what this session knows, in place of what it shared before, and tells the others its summary.
        ShareContext = "share_context" => answers ContextShared, needs CanWriteState, repeatable;
        /// Contexts that have all words of a query, the best first, in pages.
        GetContext = "get_context" => answers ContextResults, needs CanReadShared, repeatable;
        /// All contexts without files and findings, the newest first, in pages.
        ListContexts = "list_contexts" => answers ContextList, needs CanReadShared, repeatable;
    }
    answers {
        ContextShared = "context_shared",
        ContextResults = "context_results",
        ContextList = "context_list",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
