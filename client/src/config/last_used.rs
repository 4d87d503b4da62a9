//! `last-used.json`: what was chosen at the last launch, offered again by the wizard.

use claudemesh_protocol::features::groups::Group;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ConfigError, ConfigStore, MessageMode};

/// Choices of a launch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LastUsed {
    /// Mesh.
    pub mesh_slug: String,
    /// Name.
    pub display_name: String,
    /// Role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// How messages arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_mode: Option<MessageMode>,
    /// ISO time.
    pub timestamp: String,
    /// Keys that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ConfigStore {
    /// The last choices; none when the file is missing or unreadable, because they are only a convenience.
    pub fn last_used(&self) -> LastUsed {
        let path = self.dir.join("last-used.json");
        let bytes = self.read(&path, 64 * 1024).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Remembers choices.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn remember_last_used(&self, choices: &LastUsed) -> Result<(), ConfigError> {
        let _lock = self.lock()?;
        self.write_json(&self.dir.join("last-used.json"), choices)
    }
}
