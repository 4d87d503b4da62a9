//! `install` and `uninstall`: our entries in Claude Code's files, and nothing else in them.
//!
//! Both rehearse every edit before the first write, so that a file that cannot be edited stops the command while all
//! files are still as they were.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{CliError, ExitCode};
use crate::output::{Output, Style};
use crate::paths::{self, ClaudeFiles, Env};

pub mod apply;
pub mod edits;
pub mod json_edit;
pub mod json_scan;
mod receipt;

use apply::{Applied, Desk, Purpose};
use edits::Change;

/// What `install` was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct InstallOptions {
    /// Leave the hooks out.
    pub no_hooks: bool,
    /// Only print the command of the manual way.
    pub print: bool,
    /// Replace an entry `claudemesh` that starts another program.
    pub force: bool,
}

/// The program that Claude Code shall start: `claudemesh` when that is this very file, else the path of this file.
pub fn program_name(env: &Env) -> String {
    let me = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    let on_path = paths::find_program(env, "claudemesh").and_then(|path| path.canonicalize().ok());
    match me {
        Some(me) if on_path.as_ref() != Some(&me) => me.to_string_lossy().into_owned(),
        _ => edits::SERVER.to_owned(),
    }
}

/// The command that adds our MCP server without `install`.
pub fn manual_command(program: &str) -> String {
    format!("claude mcp add {} --scope user -- {} mcp", edits::SERVER, edits::quote(program))
}

/// Adds the MCP server, the permission and the hooks.
///
/// # Errors
/// Exit 10 when a file cannot be edited, exit 6 when `claudemesh` is another program's entry. Nothing was changed then.
pub fn install(env: &Env, config_dir: &Path, out: &Output, options: InstallOptions) -> Result<(), CliError> {
    let program = program_name(env);
    if options.print {
        let command = manual_command(&program);
        return out.answer(&json!({"command": command}), |_| format!("{command}\n"));
    }
    let claude = ClaudeFiles::locate(env);
    let desk = Desk { config_dir, backups: &claude.backups };
    let server = |doc: &mut json_edit::Document| edits::add_server(doc, &program, options.force);
    let settings = |doc: &mut json_edit::Document| {
        let permission = edits::add_permission(doc)?;
        let hooks = if options.no_hooks { None } else { Some(edits::add_hooks(doc, &program)?) };
        Ok((permission, hooks))
    };
    if desk.rehearse(&claude.config, server)? == Change::Foreign {
        let message =
            format!("{} has an MCP server 'claudemesh' that starts another program.", claude.config.display());
        return Err(CliError::new(ExitCode::AlreadyExists, "already_exists", message)
            .hint("Nothing was changed. Replace it with `claudemesh install --force`."));
    }
    desk.rehearse(&claude.settings, settings)?;
    let server = desk.apply(&claude.config, Purpose::Install, server)?;
    let settings = desk.apply(&claude.settings, Purpose::Install, settings)?;

    let (permission, hooks) = settings.answer;
    let answer = json!({
        "ok": true,
        "program": program,
        "mcp_server": {"path": claude.config, "result": server.answer, "backup": server.backup},
        "permission": {"path": claude.settings, "rule": edits::PERMISSION, "result": permission},
        "hooks": {"path": claude.settings, "result": hooks, "backup": settings.backup},
        "changed": server.changed || settings.changed,
    });
    out.answer(&answer, |out| {
        let row = |name: &str, change: Change, file: &Path| {
            format!(
                "{} {name:<12} {:<10} {}\n",
                out.tick(),
                word(change),
                out.paint(Style::Dim, &file.to_string_lossy())
            )
        };
        let mut text = row("MCP server", server.answer, &claude.config);
        text += &row("permission", permission, &claude.settings);
        match hooks {
            Some(change) => text += &row("hooks", change, &claude.settings),
            None => text += "- hooks        left out  (--no-hooks)\n",
        }
        if server.changed || settings.changed {
            text += "\nRestart running Claude Code sessions to load it.\n";
        }
        let joined = crate::config::ConfigStore::at(config_dir).load().is_ok_and(|config| !config.meshes.is_empty());
        text += if joined { "Next: claudemesh launch\n" } else { "Next: claudemesh join <link>, or claudemesh up\n" };
        text
    })
}

/// Removes what `install` added, from this and earlier versions.
///
/// # Errors
/// Exit 10 when a file cannot be edited. Files that were not edited yet are as they were.
pub fn uninstall(env: &Env, config_dir: &Path, out: &Output) -> Result<(), CliError> {
    let program = program_name(env);
    let claude = ClaudeFiles::locate(env);
    let desk = Desk { config_dir, backups: &claude.backups };
    // What starts this very file is ours, whatever it is called.
    let server = |doc: &mut json_edit::Document| {
        doc.receipt.programs.insert(program.clone());
        Ok(edits::remove_servers(doc))
    };
    let settings = |doc: &mut json_edit::Document| {
        doc.receipt.programs.insert(program.clone());
        Ok((edits::remove_permissions(doc), edits::remove_hooks(doc)))
    };
    desk.rehearse(&claude.config, server)?;
    desk.rehearse(&claude.settings, settings)?;
    let server: Applied<Change> = desk.apply(&claude.config, Purpose::Uninstall, server)?;
    let settings = desk.apply(&claude.settings, Purpose::Uninstall, settings)?;
    let (rules, hooks) = settings.answer;
    let answer = json!({
        "ok": true,
        "mcp_server": {"path": claude.config, "result": server.answer, "backup": server.backup},
        "permissions": {"path": claude.settings, "removed": rules},
        "hooks": {"path": claude.settings, "removed": hooks, "backup": settings.backup},
        "changed": server.changed || settings.changed,
    });
    out.answer(&answer, |out| {
        let row = |name: &str, what: String, file: &Path| {
            format!("{} {name:<12} {what:<10} {}\n", out.tick(), out.paint(Style::Dim, &file.to_string_lossy()))
        };
        let removed = |count: usize| if count == 0 { "absent".to_owned() } else { format!("{count} removed") };
        let mut text = row("MCP server", word(server.answer).into(), &claude.config);
        text += &row("permissions", removed(rules), &claude.settings);
        text += &row("hooks", removed(hooks), &claude.settings);
        if server.answer == Change::Foreign {
            text += "\nThe MCP server 'claudemesh' starts another program and was left alone.\n";
        }
        if server.changed || settings.changed {
            text += "\nKeys and joined meshes stay in the config folder.\n";
        }
        text
    })
}

/// What of `install` is in place, for the doctor and the bare command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Installed {
    /// The program of `mcpServers.claudemesh`.
    pub server: Option<String>,
    /// That entry starts another program than ours.
    pub server_foreign: bool,
    /// Events with a hook of ours, with the command.
    pub hooks: Vec<(String, String)>,
    /// The permission rule is there.
    pub permission: bool,
    /// Files that cannot be read as JSON, with the reason.
    pub broken: Vec<(PathBuf, String)>,
}

/// Looks at Claude Code's files without changing them.
pub fn installed(env: &Env) -> Installed {
    let claude = ClaudeFiles::locate(env);
    let program = program_name(env);
    let mut found = Installed::default();
    let mut open = |path: &Path| -> Option<json_edit::Document> {
        let text = match crate::files::read_limited(path, 256 * 1024 * 1024) {
            Ok(None) => return None,
            Ok(Some(bytes)) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let doc = text.and_then(|text| json_edit::Document::open(text, None).map_err(|error| error.to_string()));
        let mut doc = doc.map_err(|reason| found.broken.push((path.to_path_buf(), reason))).ok()?;
        doc.receipt.programs.insert(program.clone());
        Some(doc)
    };
    let (config, settings) = (open(&claude.config), open(&claude.settings));
    if let Some(doc) = config
        && let Some(span) = doc.find(&["mcpServers", edits::SERVER])
    {
        let entry: Value = doc.value(&span);
        found.server_foreign = !edits::is_our_server(&doc, &entry);
        found.server = Some(entry["command"].as_str().unwrap_or_default().to_owned());
    }
    if let Some(doc) = settings {
        found.hooks = edits::installed_hooks(&doc);
        found.permission = doc
            .find(&["permissions", "allow"])
            .is_some_and(|list| doc.items(&list).iter().any(|item| doc.value(item) == edits::PERMISSION));
    }
    found
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Updated => "updated",
        Change::Unchanged => "unchanged",
        Change::Removed => "removed",
        Change::Absent => "absent",
        Change::Foreign => "kept",
    }
}
