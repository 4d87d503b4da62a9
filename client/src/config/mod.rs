//! The config folder: `config.json` with the joined meshes, and the secrets beside it.
//!
//! Layout of `CLAUDEMESH_CONFIG_DIR` (default `~/.claudemesh`, 0700; every file 0600):
//!
//! - `config.json`: joined meshes with member keys, defaults for names and groups. See [`Config`].
//! - `left.json`: meshes that were left, with their keys. See [`left`].
//! - `drafts.json`: keys of what was asked for and is not here yet. See [`drafts`].
//! - `owners.json`: keys of meshes made on this machine. See [`owners`].
//! - `hook-token`: proves that a status hook runs as this user. See [`hook_token`].
//! - `sessions/<mesh id>/<session id>.json`: session keys. See [`session_keys`].
//! - `run/`: folders of launched sessions. See [`session_dir`].
//! - `invite-<slug>.txt`: the link a mesh was joined with. `last-used.json`: choices of the last launch.
//!
//! Writes are read-modify-write under `config.lock`, atomic, and keep every key that this version does not know.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use claudemesh_protocol::crypto::keys::{KeyError, SecretKey};
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::id::{MemberId, MeshId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{CliError, ExitCode};
use crate::files::{self, FileLock};
use crate::paths::{self, Env};

pub mod audit_heads;
pub mod drafts;
pub mod hook_token;
pub mod known_names;
pub mod last_used;
pub mod left;
pub mod owners;
pub mod project_file;
pub mod session_dir;
pub mod session_keys;

/// Set in the entry of a mesh whose broker last said that it is archived.
const ARCHIVED: &str = "archived";
/// Largest config file that is read: some thousand meshes; more is a mistake.
const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;
/// How long a writer waits for another one. A write takes milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A config file that cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The system refused.
    #[error("{} cannot be {action}: {error}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// `read`, `written`, `locked`.
        action: &'static str,
        /// Why.
        error: io::Error,
    },
    /// Not JSON, or JSON of another shape.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column when it is not JSON.
        reason: String,
    },
    /// Written by a later version.
    #[error("{} has version {version}, this claudemesh knows version 1", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let message = crate::error::sentence(&error.to_string());
        match error {
            ConfigError::Io { error, .. } if error.kind() == std::io::ErrorKind::StorageFull => {
                Self::io(message).hint("The disk is full. Make room and run it again: nothing was lost.")
            }
            ConfigError::Io { path, .. } => {
                Self::io(message).hint(format!("Check owner and rights of {}.", path.display()))
            }
            ConfigError::Damaged { path, .. } => Self::new(ExitCode::Io, "broken_config", message).hint(format!(
                "Nothing was changed. Fix the file by hand, or move it away (mv {0} {0}.broken) and join again.",
                path.display()
            )),
            ConfigError::Newer { .. } => {
                Self::new(ExitCode::Io, "newer_config", message).hint("Update claudemesh; nothing was changed.")
            }
        }
    }
}

/// A secret as it stands in a file: kept as it was written, checked when it is used, wiped on drop, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredSecret(String);

impl StoredSecret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The ed25519 key that the text holds.
    ///
    /// # Errors
    /// [`KeyError::BadSecret`] when it is not 128 hex digits of a key pair.
    pub fn key(&self) -> Result<SecretKey, KeyError> {
        SecretKey::parse(&self.0)
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&SecretKey> for StoredSecret {
    fn from(key: &SecretKey) -> Self {
        Self(key.to_hex().to_string())
    }
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("StoredSecret(…)")
    }
}

impl Drop for StoredSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// How messages reach the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MessageMode {
    /// Each message is shown at once.
    #[default]
    Push,
    /// Only the number of waiting messages is shown, until the session asks for them.
    Inbox,
    /// The session is shown nothing, not even events of the mesh.
    Off,
}

impl MessageMode {
    /// The word of the wire and the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Inbox => "inbox",
            Self::Off => "off",
        }
    }
}

/// One joined mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshEntry {
    /// Row id of the mesh: its identity.
    pub mesh_id: MeshId,
    /// Row id of our member.
    pub member_id: MemberId,
    /// Local handle, unique in this file.
    pub slug: String,
    /// Shown name; the slug at join.
    #[serde(default)]
    pub name: String,
    /// Member key, 64 hex digits.
    pub pubkey: String,
    /// Member secret, 128 hex digits.
    pub secret_key: StoredSecret,
    /// `ws://` or `wss://` URL.
    pub broker_url: String,
    /// ISO time.
    #[serde(default)]
    pub joined_at: String,
    /// Mesh root key (base64url) of an invite that carried one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_key: Option<StoredSecret>,
    /// 1 or 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite_version: Option<u64>,
    /// Keys that this version does not know; written back as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl MeshEntry {
    /// Whether its broker last said that it is archived.
    pub fn is_archived(&self) -> bool {
        self.extra.get(ARCHIVED) == Some(&Value::Bool(true))
    }

    /// The broker's HTTP address without a slash at the end: `ws://h:1/ws` → `http://h:1`.
    pub fn broker_http(&self) -> String {
        broker_http(&self.broker_url)
    }
}

/// The HTTP address of a broker given its WebSocket URL, without a slash at the end.
pub fn broker_http(broker_url: &str) -> String {
    let (scheme, rest) = match broker_url.split_once("://") {
        Some(("wss" | "https", rest)) => ("https", rest),
        Some((_, rest)) => ("http", rest),
        None => ("http", broker_url),
    };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest).trim_end_matches('/');
    format!("{scheme}://{}", rest.strip_suffix("/ws").unwrap_or(rest))
}

/// `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Always 1.
    #[serde(default = "version_1")]
    pub version: u64,
    /// Joined meshes.
    pub meshes: Vec<MeshEntry>,
    /// Default display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Default role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Groups that sessions join after the hello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// How messages reach sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_mode: Option<MessageMode>,
    /// Slug of the mesh that a command is about when it needs one and none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mesh: Option<String>,
    /// How a person is told that a question waits, see [`crate::features::notify`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<String>,
    /// What it tells of; everything when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_about: Option<Vec<String>>,
    /// Keys that this version does not know; written back as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn version_1() -> u64 {
    1
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: 1,
            meshes: vec![],
            display_name: None,
            role: None,
            groups: None,
            message_mode: None,
            default_mesh: None,
            notify: None,
            notify_about: None,
            extra: Map::new(),
        }
    }
}

impl Config {
    /// The joined mesh with this slug.
    pub fn by_slug(&self, slug: &str) -> Option<&MeshEntry> {
        self.meshes.iter().find(|mesh| mesh.slug == slug)
    }

    /// The joined mesh with this id.
    pub fn by_id(&self, mesh_id: &MeshId) -> Option<&MeshEntry> {
        self.meshes.iter().find(|mesh| mesh.mesh_id == *mesh_id)
    }

    /// Adds a mesh or replaces the entry of the same mesh id (a re-join). The slug gets a suffix (`team-2`) when another
    /// mesh has it already: the id is the identity, the slug only a local handle. Answers the slug it got.
    pub fn put_mesh(&mut self, mut entry: MeshEntry) -> String {
        if let Some(old) = self.meshes.iter_mut().find(|mesh| mesh.mesh_id == entry.mesh_id) {
            entry.slug.clone_from(&old.slug);
            let extra = std::mem::take(&mut old.extra);
            entry.extra.extend(extra);
            *old = entry;
            return old.slug.clone();
        }
        let wished = entry.slug.clone();
        let mut number = 2;
        while self.by_slug(&entry.slug).is_some() {
            entry.slug = format!("{wished}-{number}");
            number += 1;
        }
        let slug = entry.slug.clone();
        self.meshes.push(entry);
        slug
    }

    /// The joined mesh of this slug.
    ///
    /// # Errors
    /// `unknown_mesh` (5), also when none is joined.
    pub fn choose_joined(&self, slug: &str) -> Result<&MeshEntry, CliError> {
        self.by_slug(slug).ok_or_else(|| {
            let joined = if self.meshes.is_empty() { "none".into() } else { self.slugs().join(", ") };
            let message = format!("No joined mesh is called '{}'.", crate::output::clean(slug));
            CliError::new(ExitCode::NotFound, "unknown_mesh", message)
                .hint(format!("Joined: {joined}."))
                .field("joined", self.slugs())
        })
    }

    /// The mesh that `claudemesh use` chose, while it is joined.
    pub fn default_entry(&self) -> Option<&MeshEntry> {
        self.default_mesh.as_deref().and_then(|slug| self.by_slug(slug))
    }

    /// Slugs in file order, for messages.
    pub fn slugs(&self) -> Vec<&str> {
        self.meshes.iter().map(|mesh| mesh.slug.as_str()).collect()
    }

    /// The mesh a command is about: the wished one, else the only one, else the default.
    ///
    /// # Errors
    /// `no_meshes` (5) when none is joined, `unknown_mesh` (5) when the slug is not, `which_mesh` (3) when there are several.
    pub fn choose(&self, wished: Option<&str>) -> Result<&MeshEntry, CliError> {
        let joined = self.slugs().join(", ");
        match (wished.or(self.default_entry().map(|mesh| mesh.slug.as_str())), self.meshes.as_slice()) {
            (_, []) => Err(CliError::new(ExitCode::NotFound, "no_meshes", "No mesh is joined.")
                .hint("Join one with `claudemesh join <link>`, or start a local one with `claudemesh up`.")),
            (Some(slug), _) => self.by_slug(slug).ok_or_else(|| {
                let message = format!("No joined mesh is called '{}'.", crate::output::clean(slug));
                CliError::new(ExitCode::NotFound, "unknown_mesh", message)
                    .hint(format!("Joined: {joined}."))
                    .field("joined", self.slugs())
            }),
            (None, [only]) => Ok(only),
            (None, _) => Err(CliError::new(ExitCode::InvalidArgs, "which_mesh", "Several meshes are joined.")
                .hint(format!(
                    "Choose one with --mesh <slug>: {joined}. `claudemesh use <slug>` makes one the default."
                ))
                .field("joined", self.slugs())),
        }
    }
}

/// The config folder.
#[derive(Clone, Debug)]
pub struct ConfigStore {
    dir: PathBuf,
}

impl ConfigStore {
    /// The folder given with `--config-dir`, else `CLAUDEMESH_CONFIG_DIR`, else `~/.claudemesh`. Creates nothing.
    pub fn locate(env: &Env, explicit: Option<&Path>) -> Self {
        Self { dir: paths::config_dir(env, explicit) }
    }

    /// This folder.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `config.json` in it.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// Reads the config; a missing file is an empty config.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let path = self.config_path();
        let Some(bytes) = self.read(&path, MAX_CONFIG_BYTES)? else { return Ok(Config::default()) };
        let bytes = Zeroizing::new(bytes);
        let value: Value = parse(&path, &bytes)?;
        let damaged = |reason: &str| ConfigError::Damaged { path: path.clone(), reason: reason.into() };
        let Value::Object(map) = &value else { return Err(damaged("it is not JSON object")) };
        // Taking it for empty would wipe the keys with the next write.
        if !map.get("meshes").is_some_and(Value::is_array) {
            return Err(damaged("it has no list `meshes`"));
        }
        if let Some(version) = map.get("version").and_then(Value::as_u64).filter(|version| *version > 1) {
            return Err(ConfigError::Newer { path, version });
        }
        serde_json::from_value(value).map_err(|error| damaged(&error.to_string()))
    }

    /// Changes the config under the lock: reads, calls `edit`, writes when it answers `Ok`.
    ///
    /// # Errors
    /// [`ConfigError`] or what `edit` says; then nothing was written.
    pub fn update<T, E: From<ConfigError>>(&self, edit: impl FnOnce(&mut Config) -> Result<T, E>) -> Result<T, E> {
        let _lock = self.lock()?;
        let mut config = self.load()?;
        let before = config.clone();
        let answer = edit(&mut config)?;
        if config != before || !self.config_path().exists() {
            self.write_json(&self.config_path(), &config)?;
        }
        Ok(answer)
    }

    /// Notes whether a mesh is archived, as its broker says.
    ///
    /// # Errors
    /// The config is damaged or cannot be written.
    pub fn set_archived(&self, mesh: &MeshId, archived: bool) -> Result<(), ConfigError> {
        self.update(|config| {
            if let Some(entry) = config.meshes.iter_mut().find(|entry| entry.mesh_id == *mesh) {
                if archived {
                    entry.extra.insert(ARCHIVED.to_owned(), Value::Bool(true));
                } else {
                    entry.extra.remove(ARCHIVED);
                }
            }
            Ok(())
        })
    }

    /// Keeps the link that a mesh was joined with.
    ///
    /// # Errors
    /// [`ConfigError::Io`]
    pub fn save_invite(&self, slug: &str, link: &str) -> Result<PathBuf, ConfigError> {
        self.create_dir(&self.dir)?;
        let path = self.invite_path(slug);
        self.write(&path, format!("{link}\n").as_bytes())?;
        Ok(path)
    }

    /// Where the link of a joined mesh is kept.
    pub fn invite_path(&self, slug: &str) -> PathBuf {
        self.dir.join(format!("invite-{}.txt", file_name_of(slug)))
    }

    /// The lock that every writer of this folder holds while it reads and writes.
    ///
    /// # Errors
    /// [`ConfigError::Io`], `TimedOut` after ten seconds.
    pub fn lock(&self) -> Result<FileLock, ConfigError> {
        self.create_dir(&self.dir)?;
        let path = self.dir.join("config.lock");
        FileLock::take(&path, LOCK_PATIENCE).map_err(|error| ConfigError::Io { path, action: "locked", error })
    }

    fn create_dir(&self, dir: &Path) -> Result<(), ConfigError> {
        files::create_private_dir(dir).map_err(|error| ConfigError::Io {
            path: dir.to_path_buf(),
            action: "created",
            error,
        })
    }

    pub(crate) fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ConfigError> {
        files::read_limited(path, limit).map_err(|error| ConfigError::Io {
            path: path.to_path_buf(),
            action: "read",
            error,
        })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
        files::write_private(path, bytes).map_err(|error| ConfigError::Io {
            path: path.to_path_buf(),
            action: "written",
            error,
        })
    }

    pub(crate) fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), ConfigError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| ConfigError::Damaged { path: path.to_path_buf(), reason: error.to_string() })?;
        let text = Zeroizing::new(text + "\n");
        self.write(path, text.as_bytes())
    }
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, ConfigError> {
    serde_json::from_slice(files::without_mark(bytes))
        .map_err(|error| ConfigError::Damaged { path: path.to_path_buf(), reason: format!("{error}") })
}

/// A text as one safe file name: letters, digits, `-`, `_` and inner dots stay, a longer or stranger text becomes a hash.
pub(crate) fn file_name_of(text: &str) -> String {
    let safe = !text.is_empty()
        && text.len() <= 100
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if safe {
        text.to_owned()
    } else {
        use sha2::{Digest, Sha256};
        format!("x-{}", hex::encode(&Sha256::digest(text)[..16]))
    }
}

#[cfg(test)]
mod tests;
