//! What `install` and `uninstall` print with `--json`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::edits::Change;

/// What `install` did.
#[derive(Serialize, JsonSchema)]
pub(super) struct Installation {
    pub(super) ok: bool,
    /// What Claude Code starts.
    pub(super) program: String,
    pub(super) mcp_server: Servers,
    pub(super) permission: Permission,
    pub(super) hooks: Hooks,
    pub(super) status_line: Part,
    /// The plug-in, when it has server and hooks.
    pub(super) plugin: Option<String>,
    pub(super) changed: bool,
}

/// The MCP servers.
#[derive(Serialize, JsonSchema)]
pub(super) struct Servers {
    pub(super) path: PathBuf,
    pub(super) result: Option<Change>,
    pub(super) backup: Option<PathBuf>,
    pub(super) servers: Vec<Server>,
}

/// One of them.
#[derive(Serialize, JsonSchema)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) result: Change,
}

/// The permission rules.
#[derive(Serialize, JsonSchema)]
pub(super) struct Permission {
    pub(super) path: PathBuf,
    pub(super) rule: Option<String>,
    pub(super) rules: Vec<String>,
    pub(super) result: Change,
}

/// The hooks; `null` when they are left out.
#[derive(Serialize, JsonSchema)]
pub(super) struct Hooks {
    pub(super) path: PathBuf,
    pub(super) result: Option<Change>,
    pub(super) backup: Option<PathBuf>,
}

/// One thing in one file.
#[derive(Serialize, JsonSchema)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) result: Change,
}

/// What `uninstall` did.
#[derive(Serialize, JsonSchema)]
pub(super) struct Removal {
    pub(super) ok: bool,
    pub(super) mcp_server: RemovedServers,
    pub(super) permissions: RemovedPart,
    pub(super) hooks: RemovedHooks,
    pub(super) status_line: Part,
    /// The plug-in, which only Claude Code can remove.
    pub(super) plugin: Option<String>,
    pub(super) changed: bool,
}

/// The MCP servers that are gone.
#[derive(Serialize, JsonSchema)]
pub(super) struct RemovedServers {
    pub(super) path: PathBuf,
    pub(super) result: Change,
    pub(super) removed: Vec<String>,
    pub(super) backup: Option<PathBuf>,
}

/// How many of something are gone.
#[derive(Serialize, JsonSchema)]
pub(super) struct RemovedPart {
    pub(super) path: PathBuf,
    pub(super) removed: usize,
}

/// The hooks that are gone.
#[derive(Serialize, JsonSchema)]
pub(super) struct RemovedHooks {
    pub(super) path: PathBuf,
    pub(super) removed: usize,
    pub(super) backup: Option<PathBuf>,
}

/// What `install --print` says.
#[derive(Serialize, JsonSchema)]
pub(super) struct Manual {
    pub(super) command: Option<String>,
    pub(super) commands: Vec<String>,
    pub(super) settings_path: PathBuf,
    /// What goes into the settings.
    pub(super) settings: Value,
}

/// What `install --plugin-dir` wrote.
#[derive(Serialize, JsonSchema)]
pub(super) struct Plugin {
    pub(super) ok: bool,
    pub(super) path: PathBuf,
    pub(super) files: Vec<&'static str>,
    pub(super) commands: Vec<String>,
}
