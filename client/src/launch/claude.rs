//! Claude Code as a program: where it is, with which arguments and environment it is started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::{CliError, ExitCode};
use crate::install::edits;
use crate::paths::{self, ClaudeFiles, Env};
use crate::session::routes::permission_mode::SKIP_PERMISSIONS;

/// Start time limit of an MCP server, milliseconds.
const MCP_TIMEOUT_MS: &str = "30000";
/// Time limit of a tool call, milliseconds: longer than the longest question to a peer.
const MCP_TOOL_TIMEOUT_MS: &str = "330000";
/// Longest tool answer.
const MAX_MCP_OUTPUT_TOKENS: &str = "50000";
/// Claude Code's switch for channels that it does not list itself.
pub const DEVELOPMENT_CHANNELS: &str = "--dangerously-load-development-channels";

/// Looks for `claude`: `CLAUDE_BIN`, `PATH`, then the places its installers use.
///
/// # Errors
/// Exit 9 when there is none, or `CLAUDE_BIN` names none.
pub fn find(env: &Env) -> Result<PathBuf, CliError> {
    let missing = |message: String| CliError::new(ExitCode::ClaudeMissing, "claude_missing", message);
    if let Some(path) = env.path("CLAUDE_BIN") {
        return if paths::is_executable(&path) {
            Ok(path)
        } else {
            Err(missing(format!("CLAUDE_BIN names {}, which is not a program.", path.display()))
                .hint("Unset CLAUDE_BIN or set it to the path of `claude`."))
        };
    }
    if let Some(path) = paths::find_program(env, "claude") {
        return Ok(path);
    }
    let home = env.home();
    let places = [
        home.join(".local/bin/claude"),
        PathBuf::from("/usr/local/bin/claude"),
        home.join(".claude/bin/claude"),
        home.join(".claude/local/claude"),
    ];
    places.into_iter().find(|path| paths::is_executable(path)).ok_or_else(|| {
        missing("Claude Code is not on the PATH.".into())
            .hint("Install it with `npm install -g @anthropic-ai/claude-code`, or set CLAUDE_BIN to its path.")
    })
}

/// Which conversation is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversation {
    /// A new one with this id.
    Fresh(String),
    /// This one again: an id, or words that Claude Code searches for.
    Resume(String),
    /// A copy of this one, under a new id.
    Fork(String),
    /// One that the user picks in Claude Code.
    Pick,
    /// The newest of this folder, with its id when we found it.
    Continue(Option<String>),
    /// What the forwarded arguments say; the id is not known.
    Forwarded,
}

impl Conversation {
    /// Claude's session id, when it is known before the start.
    pub fn session_id(&self) -> Option<&str> {
        match self {
            Self::Fresh(id) => Some(id),
            Self::Resume(id) => Some(id.as_str()).filter(|id| uuid::Uuid::parse_str(id).is_ok()),
            Self::Continue(id) => id.as_deref(),
            Self::Pick | Self::Fork(_) | Self::Forwarded => None,
        }
    }

    fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::Fresh(id) => vec!["--session-id".into(), id.into()],
            Self::Resume(id) | Self::Fork(id) => vec!["--resume".into(), id.into()],
            Self::Pick => vec!["--resume".into()],
            Self::Continue(_) => vec!["--continue".into()],
            Self::Forwarded => vec![],
        }
    }
}

/// Id of the newest conversation of a folder: the name of its newest transcript.
pub fn newest_conversation(claude: &ClaudeFiles, cwd: &Path) -> Option<String> {
    let entries = std::fs::read_dir(claude.transcripts(cwd)).ok()?;
    let transcripts = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        let id = path.file_stem()?.to_str()?.to_owned();
        let fits = path.extension().is_some_and(|end| end == "jsonl") && uuid::Uuid::parse_str(&id).is_ok();
        fits.then_some((entry.metadata().ok()?.modified().ok()?, id))
    });
    transcripts.max().map(|(_, id)| id)
}

/// Everything that decides how `claude` is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Skip all permission prompts.
    pub skip_permissions: bool,
    /// `--system-prompt`
    pub system_prompt: Option<String>,
    /// Which conversation.
    pub conversation: Conversation,
    /// The program for our MCP server, when Claude Code does not have it from `install` or the plug-in.
    pub server_program: Option<String>,
    /// Permission and hooks for this session, when Claude Code has none of ours.
    pub settings: Option<serde_json::Value>,
    /// Name under which the session opts in to our channel; `None` when its version knows no channels.
    pub channel: Option<String>,
    /// Arguments for `claude` from the user.
    pub forwarded: Vec<OsString>,
    /// Our variables for the child.
    pub variables: Vec<(&'static str, OsString)>,
}

impl Start {
    /// Arguments for `claude`, in an order in which no list argument can swallow what follows.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![];
        if let Some(program) = &self.server_program {
            let mut entry = edits::server_entry(program, None);
            entry["env"] = self
                .variables
                .iter()
                .filter(|(name, _)| name.starts_with("CLAUDEMESH_"))
                .map(|(name, value)| ((*name).to_owned(), value.to_string_lossy().into_owned().into()))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let config = json!({"mcpServers": {edits::SERVER: entry}});
            arguments.extend(["--mcp-config".into(), config.to_string().into()]);
        }
        if let Some(settings) = &self.settings {
            arguments.extend(["--settings".into(), settings.to_string().into()]);
        }
        if let Some(channel) = &self.channel {
            arguments.extend([DEVELOPMENT_CHANNELS.into(), channel.into()]);
        }
        if self.skip_permissions {
            arguments.push(SKIP_PERMISSIONS.into());
        }
        if let Some(text) = &self.system_prompt {
            arguments.extend(["--system-prompt".into(), text.into()]);
        }
        arguments.extend(self.conversation.arguments());
        arguments.extend(without_ours(&self.forwarded));
        arguments
    }

    /// Changes to the environment: variables to set, and names to remove. Variables of a Claude Code session that we may
    /// run in must not reach the new one, which would take itself for a part of the old.
    pub fn environment(&self, env: &Env) -> (Vec<(&'static str, OsString)>, Vec<String>) {
        let mut set = self.variables.clone();
        let defaults = [
            ("MCP_TIMEOUT", MCP_TIMEOUT_MS),
            ("MCP_TOOL_TIMEOUT", MCP_TOOL_TIMEOUT_MS),
            ("MAX_MCP_OUTPUT_TOKENS", MAX_MCP_OUTPUT_TOKENS),
        ];
        set.extend(
            defaults.into_iter().filter(|(name, _)| !env.is_set(name)).map(|(name, value)| (name, value.into())),
        );
        let stale = |name: &&str| {
            name.starts_with("CLAUDE_CODE_MESSAGING_")
                || matches!(
                    *name,
                    "CLAUDECODE"
                        | "CLAUDE_PID"
                        | "CLAUDE_CODE_ENTRYPOINT"
                        | "CLAUDE_CODE_SESSION_ID"
                        | "CLAUDE_CODE_SESSION_ATTENDED"
                        | "CLAUDE_CODE_CHILD_SESSION"
                        | "CLAUDE_CODE_CHILD_NOTES_DIR"
                        | "CLAUDE_CODE_LAUNCHED_BY_SESSION_IDS"
                )
                || (matches!(
                    *name,
                    paths::ROLE | paths::SESSION_ID | paths::DISPLAY_NAME | paths::SESSION_DIR | paths::MCP_SURFACE
                ) && !set.iter().any(|(ours, _)| ours == name))
        };
        let remove = env.names().filter(stale).map(str::to_owned).collect();
        (set, remove)
    }
}

/// The user's arguments without the two flags that are ours to decide (`--skip-permissions` asks for the second).
fn without_ours(forwarded: &[OsString]) -> Vec<OsString> {
    let mut kept = vec![];
    let mut words = forwarded.iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == DEVELOPMENT_CHANNELS {
            words.next();
        } else if text != SKIP_PERMISSIONS && !text.starts_with(&format!("{DEVELOPMENT_CHANNELS}=")) {
            kept.push(word.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start {
            skip_permissions: false,
            system_prompt: None,
            conversation: Conversation::Fresh("id".into()),
            server_program: None,
            settings: None,
            channel: Some("server:claudemesh".into()),
            forwarded: vec![],
            variables: vec![("CLAUDEMESH_CONFIG_DIR", "/c".into())],
        }
    }

    fn line(start: &Start) -> String {
        start.arguments().iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn arguments_come_in_their_order() {
        assert_eq!(line(&start()), "--dangerously-load-development-channels server:claudemesh --session-id id");
        let full = Start {
            skip_permissions: true,
            system_prompt: Some("be brief".into()),
            conversation: Conversation::Resume("old".into()),
            server_program: Some("/x/claudemesh".into()),
            settings: Some(json!({"hooks": {}})),
            forwarded: ["--model", "opus", DEVELOPMENT_CHANNELS, "server:mine", SKIP_PERMISSIONS, "hi"]
                .map(OsString::from)
                .into(),
            ..start()
        };
        insta::assert_snapshot!(line(&full), @r#"--mcp-config {"mcpServers":{"claudemesh":{"type":"stdio","command":"/x/claudemesh","args":["mcp"],"env":{"CLAUDEMESH_CONFIG_DIR":"/c"}}}} --settings {"hooks":{}} --dangerously-load-development-channels server:claudemesh --dangerously-skip-permissions --system-prompt be brief --resume old --model opus hi"#);
        assert!(line(&Start { conversation: Conversation::Continue(None), ..start() }).ends_with("--continue"));
        assert_eq!(line(&Start { channel: None, ..start() }), "--session-id id", "a version without channels");
    }

    #[test]
    fn environment_keeps_the_users_limits_and_drops_the_outer_session() {
        let env = Env::of(&[
            ("MCP_TIMEOUT", "1"),
            ("CLAUDECODE", "1"),
            ("CLAUDE_CODE_MESSAGING_TOKEN", "t"),
            ("CLAUDE_CODE_SESSION_ID", "outer"),
            ("CLAUDEMESH_ROLE", "outer"),
            ("CLAUDE_CODE_USE_X", "kept"),
        ]);
        let (set, mut remove) = start().environment(&env);
        remove.sort();
        assert_eq!(remove, ["CLAUDECODE", "CLAUDEMESH_ROLE", "CLAUDE_CODE_MESSAGING_TOKEN", "CLAUDE_CODE_SESSION_ID"]);
        let names: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["CLAUDEMESH_CONFIG_DIR", "MCP_TOOL_TIMEOUT", "MAX_MCP_OUTPUT_TOKENS"]);
    }

    #[test]
    fn claude_is_found_by_variable_path_and_place() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(".local/bin");
        std::fs::create_dir_all(&place).unwrap();
        let program = place.join("claude");
        std::fs::write(&program, "").unwrap();
        let home = dir.path().to_str().unwrap();
        let none = find(&Env::of(&[("HOME", home), ("PATH", "/nowhere")])).unwrap_err();
        assert_eq!(none.exit, ExitCode::ClaudeMissing, "not executable");
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find(&Env::of(&[("HOME", home), ("PATH", "/nowhere")])).unwrap(), program);
        assert_eq!(find(&Env::of(&[("PATH", place.to_str().unwrap())])).unwrap(), program);
        assert_eq!(find(&Env::of(&[("CLAUDE_BIN", program.to_str().unwrap())])).unwrap(), program);
        assert_eq!(find(&Env::of(&[("CLAUDE_BIN", "/none")])).unwrap_err().exit, ExitCode::ClaudeMissing);
    }

    #[test]
    fn the_newest_transcript_is_the_one_to_continue() {
        let dir = tempfile::tempdir().unwrap();
        let claude = ClaudeFiles::locate(&Env::of(&[("CLAUDE_CONFIG_DIR", dir.path().to_str().unwrap())]));
        let cwd = Path::new("/home/a.b");
        assert_eq!(newest_conversation(&claude, cwd), None);
        let folder = claude.transcripts(cwd);
        std::fs::create_dir_all(&folder).unwrap();
        let (old, new) = ("11111111-1111-4111-8111-111111111111", "00000000-0000-4000-8000-000000000000");
        for (id, age_s) in [(old, 100), (new, 10)] {
            let file = std::fs::File::create(folder.join(format!("{id}.jsonl"))).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 - age_s)).unwrap();
        }
        std::fs::write(folder.join("notes.jsonl"), "").unwrap();
        assert_eq!(newest_conversation(&claude, cwd).as_deref(), Some(new));
    }
}
