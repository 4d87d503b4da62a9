//! Shared state: one JSON value per key, with a version that a writer can name.

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod limits;

/// `set_state`: stores one value and tells everyone else.
///
/// Shape: `{"type":"set_state","key":"build","value":<any JSON>}`. `value` must be there; `null` is a value.
/// Errors: `conflict` with `current` (`{value, version}`), `limit` with `bound`, `rate_limited`, `forbidden`, `invalid_args`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetState {
    /// At most [`limits::MAX_KEY_BYTES`]; no control characters.
    pub key: String,
    /// At most [`limits::MAX_VALUE_BYTES`] as compact JSON.
    pub value: Value,
    /// Write only if the key has this version now; 0: only if there is no such key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
    /// Seconds after which the key is deleted; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// `get_state`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetState {
    /// The key.
    pub key: String,
}

/// `list_state`: keys in order, a page at a time; or what changed since a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListState {
    /// Only keys that begin so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// 1 to [`limits::MAX_PAGE`]; as many when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only what changed after this revision of the mesh, deleted keys included, in the order of the changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// `delete_state`
///
/// Errors: `not_found`, `conflict` with `current` (`{value, version}`), `rate_limited`, `forbidden`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteState {
    /// The key.
    pub key: String,
    /// Delete only if the key has this version now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
}

/// Confirms a write: the key's version now, and the mesh's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateWritten {
    /// Grows by one with each write of the key, deletion included.
    pub version: u64,
    /// Grows by one with each write in the mesh.
    pub revision: u64,
}

/// `state_result`: one key. Of a missing key `value` is `null`, both texts are empty and `version` is 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StateResult {
    /// As asked.
    pub key: String,
    /// The value.
    pub value: Value,
    /// Name of the member's session that wrote it.
    pub updated_by: String,
    /// ISO time.
    pub updated_at: String,
    /// 0 when there is no such key.
    #[serde(default)]
    pub version: u64,
    /// ISO time at which it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A row of `state_list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StateEntry {
    /// The key.
    pub key: String,
    /// The value; `null` of a deleted key.
    pub value: Value,
    /// Name of the member's session that wrote or deleted it.
    pub updated_by: String,
    /// ISO time.
    pub updated_at: String,
    /// The key's version.
    #[serde(default)]
    pub version: u64,
    /// Revision of the mesh at that write.
    #[serde(default)]
    pub revision: u64,
    /// Only with `since`: the key is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// ISO time at which it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// `state_list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateList {
    /// By key; with `since` by revision.
    pub entries: Vec<StateEntry>,
    /// There is more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Revision of the mesh that the page shows at least.
    #[serde(default)]
    pub revision: u64,
    /// With `since`: deletions of before are forgotten, so the whole list has to be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

/// `state_change`: a key was written or deleted. Sent to everyone but the connection that wrote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StateChange {
    /// The key.
    pub key: String,
    /// The new value; `null` of a deleted key.
    pub value: Value,
    /// Name of the member's session that wrote it.
    pub updated_by: String,
    /// The key's version.
    #[serde(default)]
    pub version: u64,
    /// Revision of the mesh at that write.
    #[serde(default)]
    pub revision: u64,
    /// The key is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// `state_missed`: not every `state_change` up to this revision reached this connection, because there were too many for it.
/// `list_state` with `since` tells what is there now. Not sent to clients that say nothing of themselves in their hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateMissed {
    /// Revision of the mesh that was told last.
    pub revision: u64,
}

/// What `hello_ack` says of state, under `features.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateGreeting {
    /// Revision of the mesh now; `list_state since` tells what changed after an earlier one.
    pub revision: u64,
}

crate::done_body!(StateWritten);

crate::wire_feature! {
    requests {
        /// Stores one value of any JSON and tells everyone else.
        SetState = "set_state" => silent StateWritten, needs CanWriteState, once;
        /// One value, its writer and its version.
        GetState = "get_state" => answers StateResult, needs CanReadShared, repeatable;
        /// Keys with their values in pages, or what changed since a revision.
        ListState = "list_state" => answers StateList, needs CanReadShared, repeatable;
        /// Deletes one key and tells everyone else.
        DeleteState = "delete_state" => silent StateWritten, needs CanWriteState, once;
    }
    answers {
        StateResult = "state_result",
        StateList = "state_list",
    }
    events {
        StateChange = "state_change",
        StateMissed = "state_missed",
    }
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
