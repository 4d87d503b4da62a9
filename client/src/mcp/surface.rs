//! Which tools a session offers, and which of them have a verb of the shell that does the same.
//!
//! One table: a tool that only does something or reads once is *soft-deprecated* in favour of its verb. It works as before,
//! its description names the verb, and the first call of a session says so on stderr. Tools that are not in the table are
//! kept everywhere, so a feature that comes later joins by its own definition.
//!
//! There is no second name for `send_message`: hosts show it as `mcp__claudemesh__send_message`, which speaks of the mesh
//! already, and a twin would cost every session its schema and every permission rule a line.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use rmcp::model::Tool;

use crate::config::session_dir::SessionInfo;
use crate::paths::{self, Env};

/// How many tools a session offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Surface {
    /// All tools; the soft-deprecated ones name their shell command.
    #[default]
    Full,
    /// Without the tools that are also shell commands.
    Lean,
    /// Messages arrive, no tools: the shell does the rest.
    None,
}

impl Surface {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Lean => "lean",
            Self::None => "none",
        }
    }

    /// The choice for this process, see [`Surface::resolve`].
    pub fn choose(flag: Option<Self>, env: &Env) -> Self {
        let session = SessionInfo::of_env(env).ok().flatten().and_then(|info| info.mcp_surface);
        Self::resolve(flag, session.as_deref(), env.text(paths::MCP_SURFACE))
    }

    /// What was chosen: the flag, else the launched session, else the environment, else everything. A word that is none is
    /// told and ignored: a session with too many tools is better than one that does not start.
    pub fn resolve(flag: Option<Self>, session: Option<&str>, env: Option<&str>) -> Self {
        let read = |text: &str| {
            let parsed = Self::from_str(text.trim(), true);
            if parsed.is_err() {
                tracing::warn!(surface = text, "expected full, lean or none as tool surface");
            }
            parsed.ok()
        };
        flag.or_else(|| session.and_then(read)).or_else(|| env.and_then(read)).unwrap_or_default()
    }

    /// Whether it offers a tool.
    pub fn offers(self, tool: &str) -> bool {
        match self {
            Self::Full => true,
            Self::Lean => shell_verb(tool).is_none(),
            Self::None => false,
        }
    }

    /// A tool as this surface lists it; `None` when it does not.
    pub fn list(self, mut tool: Tool) -> Option<Tool> {
        if !self.offers(&tool.name) {
            return None;
        }
        if let Some(verb) = shell_verb(&tool.name) {
            let description = tool.description.unwrap_or_default();
            tool.description = Some(format!("{description} Soft-deprecated; in a shell: `{verb}`.").into());
        }
        Some(tool)
    }

    /// What to answer to a call of a tool that exists and is not offered.
    pub fn refusal(self, tool: &str) -> String {
        let instead = shell_verb(tool).map(|verb| format!("; in a shell: {verb}")).unwrap_or_default();
        format!("{tool}: not offered in this session (surface {}){instead}", self.as_str())
    }
}

/// The soft-deprecated tools and the commands that replace them.
pub const SOFT_DEPRECATED: &[(&str, &str)] = &[
    ("send_message", "claudemesh send <to> <msg> [--mesh X] [--priority Y]"),
    ("list_peers", "claudemesh peers --json"),
    ("check_messages", "claudemesh inbox --json"),
    ("message_status", "claudemesh msg-status <id>"),
    ("set_profile", "claudemesh profile --avatar X --bio Y"),
    ("set_status", "claudemesh status set <state>"),
    ("set_summary", "claudemesh summary <text>"),
    ("set_visible", "claudemesh visible <true|false>"),
    ("join_group", "claudemesh group join @<name> [--as X]"),
    ("leave_group", "claudemesh group leave @<name>"),
    ("get_state", "claudemesh state get <key> --json"),
    ("set_state", "claudemesh state set <key> <value>"),
    ("list_state", "claudemesh state list --json"),
    ("remember", "claudemesh remember <text>"),
    ("recall", "claudemesh recall <q> --json"),
    ("forget", "claudemesh forget <id>"),
    ("schedule_reminder", "claudemesh remind <msg> --in/--at/--cron"),
    ("list_scheduled", "claudemesh remind list --json"),
    ("cancel_scheduled", "claudemesh remind cancel <id>"),
    ("mesh_info", "claudemesh info --json"),
    ("mesh_stats", "claudemesh stats --json"),
    ("mesh_clock", "claudemesh clock --json"),
    ("ping_mesh", "claudemesh ping"),
    ("claim_task", "claudemesh task claim <id>"),
    ("complete_task", "claudemesh task complete <id>"),
];

/// The command that replaces a tool; `None` for tools that are kept.
pub fn shell_verb(tool: &str) -> Option<&'static str> {
    SOFT_DEPRECATED.iter().find(|(name, _)| *name == tool).map(|(_, verb)| *verb)
}

/// Says on stderr that a tool is soft-deprecated, once per tool and session.
#[derive(Default)]
pub struct Remarks {
    said: Mutex<HashSet<&'static str>>,
}

impl Remarks {
    /// A tool is called.
    pub fn called(&self, tool: &str) {
        let Some((name, verb)) = SOFT_DEPRECATED.iter().find(|(name, _)| *name == tool) else { return };
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(name) {
            // A host that closed our stderr misses nothing.
            let _ = writeln!(std::io::stderr(), "mcp__claudemesh__{name} is soft-deprecated; use: {verb}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_25_tools_of_the_trim() {
        let names: HashSet<&str> = SOFT_DEPRECATED.iter().map(|(name, _)| *name).collect();
        assert_eq!((SOFT_DEPRECATED.len(), names.len()), (25, 25));
        assert!(SOFT_DEPRECATED.iter().all(|(_, verb)| verb.starts_with("claudemesh ")));
    }

    #[test]
    fn verbs_of_the_table_exist_as_soon_as_their_tools_do() {
        let tools = crate::mcp::MeshServer::all_tools();
        let tree = crate::cli::command();
        for (name, verb) in SOFT_DEPRECATED.iter().filter(|(name, _)| tools.iter().any(|tool| tool.name == *name)) {
            let word = verb.split(' ').nth(1).unwrap();
            assert!(tree.find_subcommand(word).is_some(), "{name}: no verb `{word}`");
        }
    }

    #[test]
    fn every_tool_says_its_mesh_and_fits_with_its_hint() {
        for tool in crate::mcp::MeshServer::all_tools() {
            let name = tool.name.clone();
            let properties = tool.input_schema.get("properties").cloned().unwrap_or_default();
            assert!(properties.get("mesh_slug").is_some(), "{name} has no mesh_slug");
            let listed = Surface::Full.list(tool).unwrap().description.unwrap();
            assert!(listed.len() <= 2_048, "{name}: {}", listed.len());
            assert!(listed.to_lowercase().contains("mesh"), "{name} does not speak of the mesh: {listed}");
            assert_eq!(listed.contains("Soft-deprecated"), shell_verb(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn surfaces_offer_what_they_say() {
        assert!(Surface::Full.offers("send_message") && Surface::Full.offers("later_tool"));
        assert!(!Surface::Lean.offers("send_message") && Surface::Lean.offers("ask_peer"));
        assert!(Surface::Lean.offers("a_tool_that_comes_later"));
        assert!(!Surface::None.offers("ask_peer"));
        assert!(Surface::Lean.refusal("send_message").contains("claudemesh send"));
    }

    #[test]
    fn the_flag_beats_the_session_beats_the_environment() {
        let resolve = Surface::resolve;
        assert_eq!(resolve(Some(Surface::Full), Some("lean"), Some("none")), Surface::Full);
        assert_eq!(resolve(None, Some("lean"), Some("none")), Surface::Lean);
        assert_eq!(resolve(None, None, Some("NONE")), Surface::None);
        assert_eq!(resolve(None, Some("all"), Some("none")), Surface::None);
        assert_eq!(resolve(None, None, None), Surface::Full);
    }
}
