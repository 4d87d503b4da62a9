//! API keys: programs that are no sessions come in with one, over HTTP. A key acts for the member that made it, with no more than its
//! rights at that time.

pub mod limits;

use serde::{Deserialize, Serialize};

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyCapability {
    /// Write to topics.
    Send,
    /// Read topics, members and shared things.
    Read,
    /// Write state, memory and tasks.
    StateWrite,
    /// Everything that its member may.
    Admin,
}

impl KeyCapability {
    /// All, in table order.
    pub const ALL: [Self; 4] = [Self::Send, Self::Read, Self::StateWrite, Self::Admin];

    /// The text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Read => "read",
            Self::StateWrite => "state_write",
            Self::Admin => "admin",
        }
    }

    /// The capability of a wire text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// `apikey_create`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApikeyCreate {
    /// What it is for, 1 to 64 characters.
    pub label: String,
    /// `send`, `read`, `state_write`, `admin`; at least one.
    pub capabilities: Vec<String>,
    /// Names of topics that it is confined to: then it reaches nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_scopes: Option<Vec<String>>,
    /// ISO time after which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Name, key or id of the member that it acts for; the caller when absent. For others it needs canManageKeys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// `apikey_list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ApikeyList {}

/// `apikey_revoke`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApikeyRevoke {
    /// Its id, the beginning of the id, or its prefix.
    pub id: String,
}

/// `apikey_created`: the only time that the secret is shown.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ApikeyCreated {
    /// Id.
    pub id: String,
    /// `cm_` and 43 characters of base64url.
    pub secret: String,
    /// What it is for.
    pub label: String,
    /// Beginning of the secret, for lists.
    pub prefix: String,
    /// What it may do.
    pub capabilities: Vec<String>,
    /// `null`: not confined.
    pub topic_scopes: Option<Vec<String>>,
    /// ISO time.
    pub created_at: String,
}

/// Never writes the secret: answers are logged where things go wrong.
impl std::fmt::Debug for ApikeyCreated {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ApikeyCreated").field("id", &self.id).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A key in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ApikeyEntry {
    /// Id.
    pub id: String,
    /// What it is for.
    pub label: String,
    /// Beginning of the secret.
    pub prefix: String,
    /// What it may do.
    pub capabilities: Vec<String>,
    /// `null`: not confined.
    pub topic_scopes: Option<Vec<String>>,
    /// ISO time.
    pub created_at: String,
    /// ISO time, to the minute; `null` before the first use.
    pub last_used_at: Option<String>,
    /// ISO time.
    pub revoked_at: Option<String>,
    /// ISO time.
    pub expires_at: Option<String>,
    /// Name of the member that it acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_name: Option<String>,
}

/// `apikey_list_response`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ApikeyListResponse {
    /// In the order of their making.
    pub keys: Vec<ApikeyEntry>,
}

/// `apikey_revoke_response`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApikeyRevokeResponse {
    /// `revoked`, `not_found`, `not_unique`.
    pub status: String,
    /// The key that was meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How many keys begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<u32>,
}

crate::wire_feature! {
    requests {
        /// Makes a key for the caller, with no more than its rights.
        ApikeyCreate = "apikey_create" => answers ApikeyCreated, needs nothing, once;
        /// Keys of the caller; with canManageKeys those of everyone.
        ApikeyList = "apikey_list" => answers ApikeyListResponse, needs nothing, repeatable;
        /// Ends a key, and every stream that it has open, at once.
        ApikeyRevoke = "apikey_revoke" => answers ApikeyRevokeResponse, needs nothing, repeatable;
    }
    answers {
        ApikeyCreated = "apikey_created",
        ApikeyListResponse = "apikey_list_response",
        ApikeyRevokeResponse = "apikey_revoke_response",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
