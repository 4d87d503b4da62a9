//! What the session's server tells its user about the shared folder: over the local socket, and by the tool `shared_folder`.

use claudemesh_protocol::id::PublicKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a consent holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// For this one file or list.
    Once,
    /// For that session, or that member's shell, until this session ends.
    Session,
    /// For all sessions of that member, until it is revoked.
    Always,
}

impl Scope {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Session => "session",
            Self::Always => "always",
        }
    }
}

/// What a person orders over the local socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// Show how it stands.
    Show,
    /// Allow what is asked.
    Allow {
        /// The question's five letters.
        id: String,
        /// For how long.
        scope: Scope,
    },
    /// Deny it.
    Deny {
        /// The question's five letters.
        id: String,
    },
    /// Forget what was allowed to a member.
    Revoke {
        /// Its key.
        member: PublicKey,
    },
}

/// The shared folder of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Report {
    /// Name of the session.
    pub session: String,
    /// The folder; absent when none is shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Why the folder that was named is not shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What the user has not decided yet.
    pub questions: Vec<QuestionRow>,
    /// Who may read.
    pub allowed: Vec<AllowedRow>,
    /// What was given last, the newest first.
    pub reads: Vec<ReadRow>,
}

/// A question to the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct QuestionRow {
    /// Five letters.
    pub id: String,
    /// Short name of the mesh.
    pub mesh: String,
    /// Name of who asks.
    pub name: String,
    /// Key of its member.
    pub member: String,
    /// Whether the request was sealed with that key; otherwise it is the broker's word, and the broker can read the answer.
    pub verified: bool,
    /// `read` or `list`.
    pub what: String,
    /// Below the folder.
    pub path: String,
    /// ISO time.
    pub asked_at: String,
}

/// Someone who may read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AllowedRow {
    /// Short name of the mesh.
    pub mesh: String,
    /// Name at the time of the consent.
    pub name: String,
    /// Key of the member.
    pub member: String,
    /// once, session or always.
    pub scope: String,
    /// Of once: what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// ISO time.
    pub since: String,
}

/// Something that was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReadRow {
    /// ISO time.
    pub at: String,
    /// Short name of the mesh.
    pub mesh: String,
    /// Name of who got it.
    pub name: String,
    /// `read` or `list`.
    pub what: String,
    /// Below the folder.
    pub path: String,
}
