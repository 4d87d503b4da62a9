//! What can be known of the host before it says anything: whether it will show channel notes, and whether it asks its user
//! before tools run.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Channel;
use super::permission_mode::{self, Expected};
use crate::ipc::registry::ancestors;
use crate::paths::{ClaudeFiles, Env};

/// Overrides what is found out: `on` or `off`.
pub const SWITCH: &str = "CLAUDEMESH_CHANNEL";
/// Variables with which the host never learns that channels are allowed.
const QUIET: [&str; 2] = ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_TELEMETRY"];
/// Flags that opt in to channels.
const FLAGS: [&str; 2] = ["--channels", "--dangerously-load-development-channels"];

/// Largest settings file that is read.
const MAX_SETTINGS: u64 = 2 << 20;

/// The mode in which the session was started: by its command line, else by its settings. Hooks say so only with the first
/// prompt, and messages may come before.
pub fn expected_mode(env: &Env, project: &Path) -> Option<Expected> {
    let claude = ancestors().into_iter().filter_map(command_line).find(|words| is_claude(words));
    permission_mode::expected(env, project, &claude.unwrap_or_default())
}

/// Claude Code's settings that hold in a project: of the user, the administrator, the project. Those that are not there
/// are left out; `Err` says why one cannot be read.
pub fn settings(env: &Env, project: &Path) -> impl Iterator<Item = (PathBuf, Result<Value, String>)> + use<> {
    let user = ClaudeFiles::locate(env).settings;
    let managed = PathBuf::from("/etc/claude-code/managed-settings.json");
    let project = ["settings.json", "settings.local.json"].map(|name| project.join(".claude").join(name));
    [user, managed].into_iter().chain(project).filter_map(|file| {
        let read = match crate::files::read_limited(&file, MAX_SETTINGS) {
            Ok(None) => return None,
            Ok(Some(bytes)) => serde_json::from_slice::<Value>(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Some((file, read))
    })
}

/// What the host's name, environment and command line say about channels.
pub fn channel(env: &Env, client: &str, host_pid: u32) -> Channel {
    decide(env, client, command_line(host_pid).as_deref())
}

fn decide(env: &Env, client: &str, command_line: Option<&[String]>) -> Channel {
    match env.text(SWITCH) {
        Some("on") => return Channel::Unproven,
        Some("off") => return Channel::Off(format!("{SWITCH}=off")),
        _ => {}
    }
    if client != "claude-code" {
        return Channel::Off(format!("{} has no channels", crate::output::clean(client)));
    }
    if let Some(name) = QUIET.iter().find(|name| env.flag(name)) {
        return Channel::Off(format!("{name} is set, so Claude Code cannot learn that channels are allowed"));
    }
    // Only Claude Code's own command line says something; started through a wrapper, nothing is known.
    let Some(words) = command_line.filter(|words| is_claude(words)) else { return Channel::Unproven };
    let opted_in =
        words.iter().any(|word| FLAGS.iter().any(|flag| word == flag || word.starts_with(&format!("{flag}="))));
    if opted_in {
        Channel::Unproven
    } else {
        Channel::Off("Claude Code was started without a channel flag; `claudemesh launch` passes it".into())
    }
}

fn is_claude(words: &[String]) -> bool {
    let base = |word: &String| word.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let is = |name: &str| name == "claude" || name == "claude.exe";
    match words {
        [program, ..] if is(&base(program)) => true,
        [program, script, ..] if base(program) == "node" => script.contains("claude-code") || is(&base(script)),
        _ => false,
    }
}

/// The words of a process's command line, where the system tells them.
pub(crate) fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proof_closes_the_channel() {
        let line = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let none = Env::of(&[]);
        let state =
            |env: &Env, client: &str, words: Option<&str>| decide(env, client, words.map(line).as_deref()).word();
        assert_eq!(state(&none, "claude-code", None), "unproven");
        assert_eq!(state(&none, "claude-code", Some("/bin/bash wrapper")), "unproven");
        assert_eq!(state(&none, "claude-code", Some("/usr/bin/claude --model x")), "off");
        assert_eq!(state(&none, "claude-code", Some("node /x/@anthropic-ai/claude-code/cli.js")), "off");
        let flag = "claude --dangerously-load-development-channels server:claudemesh";
        assert_eq!(state(&none, "claude-code", Some(flag)), "unproven");
        assert_eq!(state(&none, "claude-code", Some("claude --channels=plugin:a@b")), "unproven");
        assert_eq!(state(&Env::of(&[("DISABLE_TELEMETRY", "1")]), "claude-code", Some(flag)), "off");
        assert_eq!(state(&none, "codex-mcp-client", None), "off");
        assert_eq!(state(&Env::of(&[(SWITCH, "on")]), "codex", None), "unproven");
        assert_eq!(state(&Env::of(&[(SWITCH, "off")]), "claude-code", Some(flag)), "off");
    }

    #[test]
    fn our_own_command_line_can_be_read() {
        assert!(command_line(std::process::id()).is_some_and(|words| !words.is_empty()));
    }
}
