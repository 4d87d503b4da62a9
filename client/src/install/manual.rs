//! `install --print`: the same set-up as commands and JSON that can be used as they are.

use serde_json::{Value, json};

use super::answer::Manual;
use super::cli::InstallArgs;
use super::{edits, hooks, status_line};
use crate::error::CliError;
use crate::output::Output;
use crate::paths::ClaudeFiles;

/// The command that adds one MCP server of ours.
pub fn add_command(program: &str, mesh: Option<&str>) -> String {
    let words: Vec<String> = edits::server_args(mesh).into_iter().map(edits::quote).collect();
    format!("claude mcp add {} --scope user -- {} {}", edits::server_name(mesh), edits::quote(program), words.join(" "))
}

/// What belongs into `settings.json`.
pub fn settings(program: &str, options: &InstallArgs) -> Value {
    let rules: Vec<String> = options.servers().map(|mesh| edits::permission_rule(&edits::server_name(mesh))).collect();
    let mut settings = json!({"permissions": {"allow": rules}});
    if !options.no_hooks {
        settings["hooks"] = hooks::all(program, options.permission_relay);
    }
    if options.status_line {
        settings["statusLine"] = json!({"type": "command", "command": status_line::command(program, None)});
    }
    settings
}

/// Prints it. `{command, commands, settings_path, settings}` as JSON.
///
/// # Errors
/// Exit 10 when stdout cannot be written.
pub fn print(program: &str, claude: &ClaudeFiles, out: &Output, options: &InstallArgs) -> Result<(), CliError> {
    let commands: Vec<String> = options.servers().map(|mesh| add_command(program, mesh)).collect();
    let settings = settings(program, options);
    let (command, settings_path) = (commands.first().cloned(), claude.settings.clone());
    let answer = Manual { command, commands, settings_path, settings };
    out.answer(&answer, |_| {
        let settings = serde_json::to_string_pretty(&answer.settings).unwrap_or_default();
        format!(
            "# 1. The MCP server. In a shell:\n{}\n\n# 2. Permission and hooks. Into {}, beside what is there:\n{settings}\n",
            answer.commands.join("\n"),
            claude.settings.display(),
        )
    })
}
