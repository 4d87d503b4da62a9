//! What of `install` and of the plug-in is in place, for `launch`, the doctor and the bare command. Changes nothing.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{edits, hooks, json_edit::Document, program_name, status_line};
use crate::paths::{ClaudeFiles, Env};

/// Larger files are not Claude Code's.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Installed {
    /// The program of `mcpServers.claudemesh`.
    pub server: Option<String>,
    /// That entry starts another program than ours.
    pub server_foreign: bool,
    /// Entries that serve one mesh: name and slug.
    pub mesh_servers: Vec<(String, String)>,
    /// Our hooks.
    pub hooks: Vec<hooks::Found>,
    /// Permission rules that our servers need and that are not there.
    pub missing_rules: Vec<String>,
    /// Our status line.
    pub status_line: Option<status_line::Ours>,
    /// The plug-in, `claudemesh@<marketplace>`, when it is installed and not switched off.
    pub plugin: Option<String>,
    /// `disableAllHooks` or `allowManagedHooksOnly`, and the file that says so.
    pub hooks_off: Option<(&'static str, PathBuf)>,
    /// A switch in a settings file that turns channels off, and the file.
    pub channels_off: Option<(&'static str, PathBuf)>,
    /// Files that cannot be read as JSON, with the reason.
    pub broken: Vec<(PathBuf, String)>,
}

impl Installed {
    /// Whether Claude Code starts an MCP server of ours by itself.
    pub fn has_server(&self) -> bool {
        self.server.is_some() && !self.server_foreign || !self.mesh_servers.is_empty() || self.plugin.is_some()
    }

    /// Whether Claude Code calls hooks of ours by itself.
    pub fn has_hooks(&self) -> bool {
        !self.hooks.is_empty() || self.plugin.is_some()
    }
}

/// Looks at Claude Code's files.
pub fn installed(env: &Env) -> Installed {
    let claude = ClaudeFiles::locate(env);
    let program = program_name(env);
    let mut found = Installed::default();
    let open = |path: &Path| -> Result<Option<Document>, String> {
        let Some(bytes) = crate::files::read_limited(path, MAX_BYTES).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
        let mut doc = Document::open(text, None).map_err(|error| error.to_string())?;
        doc.receipt.programs.insert(program.clone());
        Ok(Some(doc))
    };
    let mut read = |path: &Path| {
        open(path).unwrap_or_else(|reason| {
            found.broken.push((path.to_path_buf(), reason));
            None
        })
    };
    let (config, settings) = (read(&claude.config), read(&claude.settings));
    if let Some(doc) = config {
        if let Some(span) = doc.find(&["mcpServers", edits::SERVER]) {
            let entry: Value = doc.value(&span);
            found.server_foreign = !edits::is_our_server(&doc, &entry);
            found.server = Some(entry["command"].as_str().unwrap_or_default().to_owned());
        }
        found.mesh_servers = edits::mesh_servers(&doc);
    }
    // The files of project and administrator are read for their switches only; one that cannot be read decides nothing here.
    let project = crate::paths::project_dir(env).join(".claude");
    let others = [project.join("settings.json"), project.join("settings.local.json")];
    let managed = managed_settings();
    let paths = [claude.settings.as_path(), &others[0], &others[1]].into_iter().chain(managed);
    for path in paths {
        let Ok(Some(doc)) = open(path) else { continue };
        let is = |keys: &[&str], wanted: Value| doc.find(keys).is_some_and(|span| doc.value(&span) == wanted);
        let off = if is(&["disableAllHooks"], true.into()) {
            Some("disableAllHooks")
        } else {
            Some("allowManagedHooksOnly").filter(|key| Some(path) == managed && is(&[key], true.into()))
        };
        found.hooks_off = found.hooks_off.take().or(off.map(|switch| (switch, path.to_path_buf())));
        let variable = crate::launch::CHANNEL_SWITCHES
            .into_iter()
            .find(|name| doc.find(&["env", name]).is_some_and(|span| switched_on(&doc.value(&span))));
        let off = variable
            .or(Some("channelsEnabled: false")
                .filter(|_| Some(path) == managed && is(&["channelsEnabled"], false.into())));
        found.channels_off = found.channels_off.take().or(off.map(|switch| (switch, path.to_path_buf())));
    }
    let mut needed: Vec<String> = found.mesh_servers.iter().map(|(name, _)| edits::permission_rule(name)).collect();
    let mut allowed = vec![];
    if let Some(doc) = settings {
        found.hooks = hooks::installed_hooks(&doc);
        if let Some(list) = doc.find(&["permissions", "allow"]) {
            allowed.extend(doc.items(&list).iter().map(|item| doc.value(item)));
        }
        found.status_line = status_line::installed(&doc);
        found.plugin = doc.find(&["enabledPlugins"]).and_then(|plugins| {
            let ours = |member: &super::json_scan::Member| {
                member.key.strip_prefix(edits::SERVER).is_some_and(|rest| rest.starts_with('@'))
                    && doc.value(&member.value) == true
            };
            doc.members(&plugins).into_iter().find(ours).map(|member| member.key)
        });
    }
    if found.plugin.is_some() {
        needed.push(edits::permission_rule(super::plugin::SERVER));
    }
    if found.server.is_some() || needed.is_empty() {
        needed.insert(0, edits::PERMISSION.to_owned());
    }
    found.missing_rules = needed.into_iter().filter(|rule| !allowed.contains(&Value::from(rule.as_str()))).collect();
    found
}

/// Whether Claude Code takes the value of a variable for on.
fn switched_on(value: &Value) -> bool {
    !matches!(value.as_str().unwrap_or_default().to_ascii_lowercase().as_str(), "" | "0" | "false" | "no" | "off")
}

/// Where an administrator's settings are.
fn managed_settings() -> Option<&'static Path> {
    if cfg!(target_os = "macos") {
        Some(Path::new("/Library/Application Support/ClaudeCode/managed-settings.json"))
    } else if cfg!(target_os = "linux") {
        Some(Path::new("/etc/claude-code/managed-settings.json"))
    } else {
        None
    }
}
