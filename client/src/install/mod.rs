//! `install` and `uninstall`: our entries in Claude Code's files, and nothing else in them.
//!
//! Both rehearse every edit before the first write, so that a file that cannot be edited stops the command while all
//! files are still as they were. [`plugin`] is the other way to the same set-up, [`manual`] the third.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::config::ConfigStore;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Style};
use crate::paths::{self, ClaudeFiles, Env};

mod answer;
pub mod apply;
pub mod cli;
pub mod edits;
pub mod hooks;
pub mod json_edit;
pub mod json_scan;
pub mod look;
pub mod manual;
pub mod native;
mod place;
pub mod plugin;
mod receipt;
pub mod status_line;

use answer::{
    Hooks, Installation, Part, Permission, Removal, RemovedHooks, RemovedPart, RemovedServers, Server, Servers,
};
use apply::{Applied, EditContext, Purpose};
use cli::InstallArgs;
use edits::Change;
pub use look::{Installed, installed};

/// Where every process finds programs.
const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

impl InstallArgs {
    /// The servers to add: one for all meshes (`None`), or one for each that was named.
    pub fn servers(&self) -> impl Iterator<Item = Option<&str>> {
        let all = self.meshes.is_empty().then_some(None);
        all.into_iter().chain(self.meshes.iter().map(|slug| Some(slug.as_str())))
    }
}

/// The program that Claude Code should start: `claudemesh` when every process finds this very file under that name, else a
/// path. A `PATH` may be that of one shell; Claude Code is also started by editors and desktops, which have the one of the
/// system.
pub fn program_name(env: &Env) -> String {
    match std::env::current_exe().and_then(|path| path.canonicalize()) {
        Ok(me) => name_of(&me, env, OsStr::new(SYSTEM_PATH)),
        Err(_) => edits::SERVER.to_owned(),
    }
}

fn name_of(me: &Path, env: &Env, system_path: &OsStr) -> String {
    let is_me = |path: &PathBuf| path.canonicalize().is_ok_and(|real| real == me);
    let found_by_all = paths::find_in(system_path, edits::SERVER).is_some_and(|path| is_me(&path));
    match paths::find_program(env, edits::SERVER).filter(is_me) {
        Some(_) if found_by_all => edits::SERVER.to_owned(),
        // The place on the path, not what a link there means: an update may change that.
        Some(place) => place.to_string_lossy().into_owned(),
        None => me.to_string_lossy().into_owned(),
    }
}

/// Says where the keys are when that is not where a process of another shell looks for them.
fn warn_of_folder(env: &Env, store: &ConfigStore, claude: &ClaudeFiles, out: &Output) {
    let usual = paths::usual_config_dir(env);
    if store.dir() != usual {
        out.warn(&format!(
            "the meshes are in {0}, not in {1}. Claude Code finds them when `claudemesh launch` starts it from here, or when it \
             is started with {2}={0}; for all its sessions, that goes below `env` in {3}.",
            store.dir().display(),
            usual.display(),
            paths::CONFIG_DIR,
            claude.settings.display()
        ));
    }
}

/// Adds MCP server, permission, hooks and, when asked for, the status line. What an earlier install chose beyond that
/// stays and follows a moved program.
///
/// # Errors
/// Exit 5 for a mesh that is not joined, exit 10 when a file cannot be edited, exit 6 when an entry of our name is another program's. Nothing was changed then.
pub fn install(env: &Env, store: &ConfigStore, out: &Output, options: &InstallArgs) -> Result<(), CliError> {
    let config = store.load();
    for slug in &options.meshes {
        store.load()?.choose(Some(slug))?;
    }
    let program = program_name(env);
    let claude = ClaudeFiles::locate(env);
    warn_of_folder(env, store, &claude, out);
    if options.print {
        return manual::print(&program, &claude, out, options);
    }
    if let Some(dir) = &options.plugin_dir {
        plugin::write(dir, &program, out)?;
        place::warn_of_cache(out);
        return Ok(());
    }
    let context = EditContext { config_dir: store.dir(), backups: &claude.backups };
    // What the plug-in brings is left out: two of each hook would run otherwise.
    let plugin = installed(env).plugin.filter(|_| !options.force);
    let servers: Vec<Option<&str>> = options.servers().filter(|mesh| mesh.is_some() || plugin.is_none()).collect();
    let mut ruled: Vec<String> = servers.iter().map(|mesh| edits::server_name(*mesh)).collect();
    ruled.extend(plugin.iter().map(|_| plugin::SERVER.to_owned()));
    let server = |doc: &mut json_edit::Document| {
        let mut changes = vec![];
        for mesh in servers.iter().copied() {
            changes.push((edits::server_name(mesh), edits::add_server(doc, &program, mesh, options.force)?));
        }
        edits::move_mesh_servers(doc, &program);
        Ok(changes)
    };
    let settings = |doc: &mut json_edit::Document| {
        let mut permission = Change::Unchanged;
        for name in &ruled {
            if edits::add_permission(doc, name)? == Change::Added {
                permission = Change::Added;
            }
        }
        let hooks = if options.no_hooks || plugin.is_some() {
            None
        } else {
            Some(hooks::add_hooks(doc, &program, options.permission_relay)?)
        };
        Ok((permission, hooks, status_line::add(doc, &program, !options.status_line)?))
    };
    let rehearsed = context.rehearse(&claude.config, server)?;
    if let Some((name, _)) = rehearsed.iter().find(|(_, change)| *change == Change::Foreign) {
        let message = format!("{} has an MCP server '{name}' that starts another program.", claude.config.display());
        return Err(CliError::new(ExitCode::AlreadyExists, "already_exists", message)
            .hint("Nothing was changed. Replace it with `claudemesh install --force`."));
    }
    if context.rehearse(&claude.settings, settings)?.2 == Change::Foreign {
        let message = format!("`statusLine` in {} is not a command.", claude.settings.display());
        return Err(CliError::new(ExitCode::AlreadyExists, "already_exists", message)
            .hint("Nothing was changed. Install without --status-line, or remove that key."));
    }
    let server = context.apply(&claude.config, Purpose::Install, server)?;
    let settings = context.apply(&claude.settings, Purpose::Install, settings)?;

    let (permission, hooks, status_line) = settings.answer;
    let part = |(name, change): &(String, Change)| Server { name: name.clone(), result: *change };
    let rules: Vec<String> = ruled.iter().map(|name| edits::permission_rule(name)).collect();
    let file = || claude.settings.clone();
    let answer = Installation {
        ok: true,
        program: program.clone(),
        mcp_server: Servers {
            path: claude.config.clone(),
            result: server.answer.first().map(|(_, change)| *change),
            backup: server.backup.clone(),
            servers: server.answer.iter().map(part).collect(),
        },
        permission: Permission { path: file(), rule: rules.first().cloned(), rules, result: permission },
        hooks: Hooks { path: file(), result: hooks, backup: settings.backup.clone() },
        status_line: Part { path: file(), result: status_line },
        plugin: plugin.clone(),
        changed: server.changed || settings.changed,
    };
    place::warn_of_cache(out);
    let both = !options.meshes.is_empty() && installed(env).server.is_some();
    out.answer(&answer, |out| {
        let row = |name: &str, change: Change, file: &Path| {
            format!(
                "{} {name:<12} {:<10} {}\n",
                out.tick(),
                word(change),
                out.paint(Style::Dim, &file.to_string_lossy())
            )
        };
        let mut text = String::new();
        for (name, change) in &server.answer {
            let title = name.strip_prefix("claudemesh-").map_or("MCP server", |_| name.as_str());
            text += &row(title, *change, &claude.config);
        }
        text += &row("permission", permission, &claude.settings);
        match hooks {
            Some(change) => text += &row("hooks", change, &claude.settings),
            None if plugin.is_some() => text += "- hooks, MCP server: the plug-in has them\n",
            None => text += "- hooks        left out  (--no-hooks)\n",
        }
        if status_line != Change::Absent {
            text += &row("status line", status_line, &claude.settings);
        }
        if both {
            text += "\nThe MCP server 'claudemesh' serves all meshes, these too: remove one kind\n(claude mcp remove claudemesh --scope user).\n";
        }
        if server.changed || settings.changed {
            text += "\nRestart running Claude Code sessions to load it.\n";
        }
        let joined = config.is_ok_and(|config| !config.meshes.is_empty());
        text += if joined { "Next: claudemesh launch\n" } else { "Next: claudemesh launch. To work with other people: claudemesh join <link>, or claudemesh up\n" };
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
    let plugin = installed(env).plugin;
    let context = EditContext { config_dir, backups: &claude.backups };
    // What starts this very file is ours, whatever it is called.
    let server = |doc: &mut json_edit::Document| {
        doc.receipt.programs.insert(program.clone());
        Ok(edits::remove_servers(doc))
    };
    let (_, names) = context.rehearse(&claude.config, server)?;
    let settings = |doc: &mut json_edit::Document| {
        doc.receipt.programs.insert(program.clone());
        Ok((edits::remove_permissions(doc, &names), hooks::remove_hooks(doc), status_line::remove(doc)))
    };
    context.rehearse(&claude.settings, settings)?;
    let server: Applied<(Change, Vec<String>)> = context.apply(&claude.config, Purpose::Uninstall, server)?;
    let settings = context.apply(&claude.settings, Purpose::Uninstall, settings)?;
    let (rules, hooks, status_line) = settings.answer;
    let (result, names) = server.answer;
    let (path, file) = (claude.config.clone(), || claude.settings.clone());
    let answer = Removal {
        ok: true,
        mcp_server: RemovedServers { path, result, removed: names, backup: server.backup.clone() },
        permissions: RemovedPart { path: file(), removed: rules },
        hooks: RemovedHooks { path: file(), removed: hooks, backup: settings.backup.clone() },
        status_line: Part { path: file(), result: status_line },
        plugin: plugin.clone(),
        changed: server.changed || settings.changed,
    };
    out.answer(&answer, |out| {
        let row = |name: &str, what: String, file: &Path| {
            format!("{} {name:<12} {what:<10} {}\n", out.tick(), out.paint(Style::Dim, &file.to_string_lossy()))
        };
        let removed = |count: usize| if count == 0 { "absent".to_owned() } else { format!("{count} removed") };
        let mut text = row("MCP server", word(result).into(), &claude.config);
        text += &row("permissions", removed(rules), &claude.settings);
        text += &row("hooks", removed(hooks), &claude.settings);
        if status_line == Change::Removed {
            text += &row("status line", "removed".into(), &claude.settings);
        }
        if result == Change::Foreign {
            text += "\nThe MCP server 'claudemesh' starts another program and was left alone.\n";
        }
        if let Some(plugin) = &plugin {
            text += &format!("\nThe plug-in is Claude Code's to remove: claude plugin uninstall {plugin}\n");
        }
        if server.changed || settings.changed {
            text += "\nKeys and joined meshes stay in the config folder.\n";
        }
        text
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_name_is_for_what_every_process_finds() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("claudemesh");
        std::fs::write(&place, "").unwrap();
        std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (me, here) = (place.canonicalize().unwrap(), dir.path().to_str().unwrap());
        let on_path = Env::of(&[("PATH", here)]);
        assert_eq!(name_of(&me, &on_path, OsStr::new(here)), "claudemesh");
        assert_eq!(name_of(&me, &on_path, OsStr::new("/nowhere")), place.to_str().unwrap());
        assert_eq!(name_of(&me, &Env::of(&[("PATH", "/nowhere")]), OsStr::new(here)), me.to_str().unwrap());
        assert_eq!(name_of(Path::new("/other"), &on_path, OsStr::new(here)), "/other", "another of that name");
    }
}
