//! The Claude Code plug-in, made from the same tables as `install`: manifest, MCP server, hooks, monitor, skill, README.
//!
//! `deploy/plugin` in the repository is [`files`] with the program name `claudemesh`; a test keeps the two equal. A program
//! without the repository writes it with `claudemesh install --plugin-dir DIR`.

use std::path::Path;

use serde_json::{Value, json};

use super::answer::Plugin;
use super::{edits, hooks};
use crate::cli::skill;
use crate::error::CliError;
use crate::files;
use crate::output::Output;

/// Name of the plug-in and of its marketplace.
pub const NAME: &str = "claudemesh";
/// Our MCP server as Claude Code calls it when it comes from the plug-in: `mcp__<this>__<tool>`.
pub const SERVER: &str = "plugin_claudemesh_claudemesh";
/// Where the plug-in is, seen from the root of the repository.
pub const FOLDER: &str = "deploy/plugin";

/// One file: path inside the plug-in and text.
pub type PluginFile = (&'static str, String);

/// Every file of the plug-in for a program.
pub fn files(program: &str) -> Vec<PluginFile> {
    vec![
        (".claude-plugin/plugin.json", text(&manifest(program))),
        ("hooks/hooks.json", text(&hooks_file(program))),
        ("monitors/monitors.json", text(&monitors(program))),
        ("skills/claudemesh/SKILL.md", skill::text()),
        ("README.md", readme()),
    ]
}

/// The marketplace that offers the plug-in from a folder below it.
pub fn marketplace(source: &str) -> String {
    text(&json!({
        "name": NAME,
        "owner": {"name": "The claudemesh authors"},
        "metadata": {"description": "claudemesh: Claude Code sessions that work as one team"},
        "plugins": [{
            "name": NAME,
            "source": source,
            "description": DESCRIPTION,
            "version": env!("CARGO_PKG_VERSION"),
            "category": "productivity",
            "tags": ["agents", "messaging", "mcp"],
        }],
    }))
}

const DESCRIPTION: &str = "Messages, questions and presence between Claude Code sessions, end-to-end encrypted";

fn manifest(program: &str) -> Value {
    json!({
        "name": NAME,
        "displayName": "claudemesh",
        "version": env!("CARGO_PKG_VERSION"),
        "description": DESCRIPTION,
        "author": {"name": "The claudemesh authors"},
        "license": "MIT OR Apache-2.0",
        "keywords": ["agents", "messaging", "mesh", "mcp", "channels"],
        "mcpServers": {edits::SERVER: edits::server_entry(program, None)},
        "channels": [{"server": edits::SERVER}],
    })
}

fn hooks_file(program: &str) -> Value {
    json!({
        "description": "Tells the mesh what the session is doing, and the session which messages wait for it",
        "hooks": hooks::all(program, false),
    })
}

fn monitors(program: &str) -> Value {
    json!([{
        "name": "mesh-messages",
        "command": format!("{} hook monitor", edits::quote(program)),
        "description": "messages that peers sent to this session",
    }])
}

fn readme() -> String {
    format!(
        "# claudemesh for Claude Code\n\n\
         This plug-in lets a Claude Code session work in a mesh with other sessions and people: it sees who is there, sends\n\
         and receives messages while it works, asks questions and answers them. Direct messages are end-to-end encrypted.\n\n\
         It needs the program `claudemesh` on the PATH (`cargo install --path client` in the repository). Then:\n\n\
         ```sh\n\
         claudemesh up                    # a mesh on this machine; or: claudemesh join <link>\n\
         claude plugin marketplace add <this repository>\n\
         claude plugin install {NAME}@{NAME}\n\
         claudemesh install               # with the plug-in: only the permission, so that its tools need no question\n\
         ```\n\n\
         | Part | What it does |\n|---|---|\n\
         | MCP server `claudemesh` | the tools, and messages as channel notes |\n\
         | hooks | status of the session, messages and questions at turn boundaries, waking an idle session |\n\
         | monitor | messages as notifications, where hooks do not reach |\n\
         | skill | when to use the tools, and every command of the program |\n\n\
         Use either the plug-in or `claudemesh install` for the hooks, not both: each would run twice. `claudemesh doctor` tells.\n\
         Remove it with `claude plugin uninstall {NAME}@{NAME}`.\n\n\
         These files are generated from the program (`cargo xtask docs`); edit the tables in `client/src/install` instead.\n"
    )
}

fn text(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// Writes the plug-in into a folder, with a marketplace file, so that
/// `claude plugin marketplace add DIR` and `claude --plugin-dir DIR` both work.
///
/// # Errors
/// Exit 10 when a file cannot be written.
pub fn write(dir: &Path, program: &str, out: &Output) -> Result<(), CliError> {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let mut written = files(program);
    written.push((".claude-plugin/marketplace.json", marketplace("./")));
    for (inside, text) in &written {
        let path = dir.join(inside);
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let done =
            folder.and_then(|()| files::write_atomic(&path, text.as_bytes(), 0o644, |_| Ok::<_, std::io::Error>(())));
        done.map_err(|error| CliError::io(format!("{} cannot be written: {error}.", path.display())))?;
    }
    let commands = [
        format!("claude plugin marketplace add {}", edits::quote(&dir.to_string_lossy())),
        format!("claude plugin install {NAME}@{NAME}"),
    ];
    let names: Vec<&'static str> = written.iter().map(|(inside, _)| *inside).collect();
    let answer = Plugin { ok: true, path: dir, files: names, commands: commands.to_vec() };
    out.answer(&answer, |out| {
        let dir = answer.path.display();
        format!("{} {} files in {dir}\n\n{}\n", out.tick(), answer.files.len(), answer.commands.join("\n"))
    })
}
