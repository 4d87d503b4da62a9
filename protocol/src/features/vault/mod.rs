//! The vault: secrets of a member, which its client seals before they leave the machine. The broker keeps them and cannot read them.

use serde::{Deserialize, Serialize};

use crate::id::MemberId;

pub mod limits;
pub mod sealing;

pub use sealing::{SealState, Sealed};

/// `action` of an entry that was stored.
pub const STORED: &str = "stored";
/// `action` of an entry that was deleted.
pub const DELETED: &str = "deleted";
/// `action` when there is no such entry.
pub const NOT_FOUND: &str = "not_found";

/// What becomes of a value where it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EntryType {
    /// The value of an environment variable.
    #[default]
    Env,
    /// The content of a file.
    File,
}

impl EntryType {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Env, Self::File];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
        }
    }
}

/// `vault_set`: stores a sealed value under a name, in place of what the member has under it.
///
/// Shape: `{"type":"vault_set","key":"GITHUB_TOKEN","ciphertext":"…","nonce":"…","sealed_key":"…","entry_type":"env"}`; how it is sealed:
/// [`sealing`].
/// Errors: `invalid_args`, `invalid_name`, `not_encrypted` for what has not the form of a sealed value, `payload_too_large`,
/// `bad_signature`, `limit` with `bound`, `rate_limited`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VaultSet {
    /// Its name: 1 to [`limits::MAX_KEY_CHARS`] of `A-Z a-z 0-9 _ . -`.
    pub key: String,
    /// The sealed value; base64 of at most [`limits::MAX_SEALED_BYTES`].
    pub ciphertext: String,
    /// Base64 of 24 bytes.
    pub nonce: String,
    /// The key of the value, sealed for the member; base64 of 80 bytes.
    pub sealed_key: String,
    /// What it is for.
    pub entry_type: EntryType,
    /// Path at which a service finds a file; at most [`limits::MAX_MOUNT_BYTES`], without `..`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// What it is, for people; at most [`limits::MAX_DESCRIPTION_CHARS`]. The broker can read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of the member's key over the entry, see [`sealing`]; 128 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// When it was signed, in Unix milliseconds by the client's clock. Goes with `signature`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at_ms: Option<i64>,
}

/// `vault_list`: names of the caller's member, without values.
///
/// Errors: `invalid_args`; `forbidden` with `everyone` and without `canManageVault`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VaultList {
    /// Those of all members.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everyone: bool,
    /// 1 to [`limits::MAX_PAGE`], which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `vault_delete`: deletes an entry for good.
///
/// Errors: `forbidden` for an entry of another member without `canManageVault`, `rate_limited`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VaultDelete {
    /// Its name.
    pub key: String,
    /// Whose it is; the caller's member when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<MemberId>,
}

/// `vault_get`: sealed values of the caller's member. Names that it has nothing under are left out.
///
/// Errors: `invalid_args` for more than [`limits::MAX_KEYS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VaultGet {
    /// Names.
    pub keys: Vec<String>,
}

/// `vault_ack`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VaultAck {
    /// Its name.
    pub key: String,
    /// [`STORED`], [`DELETED`] or [`NOT_FOUND`].
    pub action: String,
}

/// A row of `vault_list_result`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VaultEntry {
    /// Its name.
    pub key: String,
    /// What it is for.
    pub entry_type: EntryType,
    /// As it was given.
    pub mount_path: Option<String>,
    /// As it was given.
    pub description: Option<String>,
    /// ISO time.
    pub updated_at: String,
    /// With `everyone`: whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// With `everyone`: the name of that member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// `vault_list_result`: by name; with `everyone` by member, then by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VaultListResult {
    /// The rows of this page.
    pub entries: Vec<VaultEntry>,
    /// There is more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A sealed value, as its client stored it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VaultSecret {
    /// Its name.
    pub key: String,
    /// As it was given.
    pub ciphertext: String,
    /// As it was given.
    pub nonce: String,
    /// As it was given.
    pub sealed_key: String,
    /// What it is for.
    pub entry_type: EntryType,
    /// As it was given.
    pub mount_path: Option<String>,
    /// As it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// As it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at_ms: Option<i64>,
}

/// `vault_get_result`: in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VaultGetResult {
    /// The entries that are there.
    pub entries: Vec<VaultSecret>,
    /// Names that are there and did not fit: ask for these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
}

crate::wire_feature! {
    requests {
        /// Stores a sealed value of the own member, in place of the one before.
        VaultSet = "vault_set" => answers VaultAck, needs nothing, repeatable;
        /// Names of the own member, or of all for those who manage the vault; never a value.
        VaultList = "vault_list" => answers VaultListResult, needs nothing, repeatable;
        /// Deletes an entry; one of another member only for those who manage the vault.
        VaultDelete = "vault_delete" => answers VaultAck, needs nothing, repeatable;
        /// Sealed values of the own member.
        VaultGet = "vault_get" => answers VaultGetResult, needs nothing, repeatable;
    }
    answers {
        VaultAck = "vault_ack",
        VaultListResult = "vault_list_result",
        VaultGetResult = "vault_get_result",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
