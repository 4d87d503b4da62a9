//! `claudemesh hook <event>`: tells the brokers what a Claude Code session is doing.
//!
//! Runs inside the user's turn, so it is quick, silent and never fails: no async runtime, no logging set-up, at most half a
//! second for the input and one second for all brokers together, exit code 0 whatever happens.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::session_dir::SessionInfo;
use crate::config::{ConfigStore, broker_http};
use crate::install::json_scan;
use crate::paths::Env;

/// Longest input that is looked at. The fields we need stand at its start.
const MAX_INPUT_BYTES: usize = 256 * 1024;
/// How long to wait for the input.
const INPUT_PATIENCE: Duration = Duration::from_millis(500);
/// How long one broker may take.
const BROKER_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the hook. Never fails; `CLAUDEMESH_HOOK_DEBUG=1` tells on stderr why nothing happened.
pub fn run(env: &Env, store: &ConfigStore, event: Option<&str>) {
    let debug = env.flag("CLAUDEMESH_HOOK_DEBUG");
    let say = |text: &dyn Fn() -> String| {
        if debug {
            let _ = writeln!(std::io::stderr(), "claudemesh hook: {}", text());
        }
    };
    let Some(event) = event.and_then(Event::parse) else {
        return say(&|| format!("unknown event {event:?}"));
    };
    let input = HookInput::read();
    say(&|| format!("{event:?} {input:?}"));
    let Some(status) = event.status(&input) else { return say(&|| "no change of status".into()) };
    let token = match store.hook_token() {
        Ok(Some(token)) => token,
        Ok(None) => return say(&|| "no hook token: no session has run with this config".into()),
        Err(error) => return say(&|| error.to_string()),
    };
    let brokers = match brokers(env, store) {
        Ok(brokers) => brokers,
        Err(error) => return say(&|| error.clone()),
    };
    let report = report(env, &input, status).to_string();
    let (sender, receiver) = mpsc::channel();
    let deadline = Instant::now() + BROKER_PATIENCE;
    for broker in &brokers {
        let (sender, broker, report) = (sender.clone(), broker.clone(), report.clone());
        let bearer = format!("Bearer {}", token.expose());
        std::thread::spawn(move || {
            let result = post(&broker, &bearer, &report);
            let _ = sender.send((broker, result));
        });
    }
    drop(sender);
    // A name look-up cannot be interrupted; its thread ends with the process.
    while let Ok((broker, result)) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        say(&|| format!("{broker}: {}", result.as_ref().unwrap_or_else(|error| error)));
    }
}

/// What the hook was called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Idle,
    Working,
    Dnd,
    SessionStart,
    Prompt,
    PostTool,
    Stop,
    SessionEnd,
}

impl Event {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "idle" => Self::Idle,
            "working" => Self::Working,
            "dnd" => Self::Dnd,
            "session-start" => Self::SessionStart,
            "prompt" => Self::Prompt,
            "post-tool" => Self::PostTool,
            "stop" => Self::Stop,
            "session-end" => Self::SessionEnd,
            _ => return None,
        })
    }

    /// The status to report; `None` when the event says nothing about it.
    fn status(self, input: &HookInput) -> Option<&'static str> {
        match self {
            Self::Working | Self::Prompt | Self::PostTool => Some("working"),
            Self::Dnd => Some("dnd"),
            // The session is compacted in the middle of a turn and goes on working.
            Self::SessionStart if input.source.as_deref() == Some("compact") => None,
            Self::Idle | Self::SessionStart | Self::Stop | Self::SessionEnd => Some("idle"),
        }
    }
}

/// The fields of the hook's input that we use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct HookInput {
    session_id: Option<String>,
    cwd: Option<String>,
    source: Option<String>,
}

impl HookInput {
    fn read() -> Self {
        if std::io::stdin().is_terminal() {
            return Self::default();
        }
        let (sender, receiver) = mpsc::sync_channel::<Vec<u8>>(4);
        std::thread::spawn(move || {
            let mut stdin = std::io::stdin().lock();
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = stdin.read(&mut chunk) {
                if sender.send(chunk[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + INPUT_PATIENCE;
        let mut bytes = vec![];
        while bytes.len() < MAX_INPUT_BYTES {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(_) => break,
            }
            // The writer may keep the pipe open: a complete document needs no end of file.
            if bytes.trim_ascii_end().ends_with(b"}")
                && std::str::from_utf8(&bytes).is_ok_and(|text| json_scan::root(text).is_ok())
            {
                break;
            }
        }
        bytes.truncate(MAX_INPUT_BYTES);
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Reads what is complete; the input may be cut off in a long field.
    fn parse(text: &str) -> Self {
        let mut input = Self::default();
        for member in json_scan::members_of_prefix(text) {
            let slot = match member.key.as_str() {
                "session_id" => &mut input.session_id,
                "cwd" => &mut input.cwd,
                "source" => &mut input.source,
                _ => continue,
            };
            *slot = serde_json::from_str(&text[member.value]).ok().filter(|value: &String| !value.is_empty());
        }
        input
    }
}

/// `{cwd, status, pid, session_id?}`
fn report(env: &Env, input: &HookInput, status: &str) -> Value {
    let cwd = input.cwd.clone().map(PathBuf::from).unwrap_or_else(|| crate::paths::project_dir(env));
    // Newer versions tell the pid of the session; else our parent is it, or a shell that it started.
    let pid = env.text("CLAUDE_PID").and_then(|pid| pid.parse().ok()).unwrap_or_else(parent_pid);
    let session_id = input.session_id.as_deref().or_else(|| env.text("CLAUDE_CODE_SESSION_ID"));
    let mut report = json!({"cwd": cwd.to_string_lossy(), "status": status, "pid": pid});
    if let Some(session_id) = session_id {
        report["session_id"] = session_id.into();
    }
    report
}

fn parent_pid() -> u32 {
    #[cfg(unix)]
    return std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    return std::process::id();
}

/// HTTP addresses of the brokers to tell, each once: the session's mesh when launched for one, else all joined meshes.
fn brokers(env: &Env, store: &ConfigStore) -> Result<Vec<String>, String> {
    let config = store.load().map_err(|error| error.to_string())?;
    let session = SessionInfo::of_env(env).ok().flatten();
    let slug = session.and_then(|info| info.mesh_slug).filter(|slug| config.by_slug(slug).is_some());
    let meshes = config.meshes.iter().filter(|mesh| slug.as_ref().is_none_or(|slug| mesh.slug == *slug));
    let mut brokers: Vec<String> = meshes.map(|mesh| broker_http(&mesh.broker_url)).collect();
    brokers.sort();
    brokers.dedup();
    Ok(brokers)
}

fn post(broker: &str, bearer: &str, report: &str) -> Result<String, String> {
    let agent = crate::http::agent(broker, BROKER_PATIENCE);
    let request = agent.post(format!("{broker}/hook/set-status"));
    let request = request.header("authorization", bearer).header("content-type", "application/json");
    let mut response = request.send(report).map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
    Ok(format!("{status} {}", crate::output::clean(&body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_read_as_far_as_it_is_complete() {
        let full = r#"{"session_id":"s-1","transcript_path":"/t","cwd":"/w","source":"compact"}"#;
        let input = HookInput::parse(full);
        assert_eq!((input.session_id.as_deref(), input.cwd.as_deref()), (Some("s-1"), Some("/w")));
        assert_eq!(Event::SessionStart.status(&input), None);
        let cut = HookInput::parse(r#"{"session_id":"s-1","cwd":"/w","tool_response":"long lon"#);
        assert_eq!(cut.session_id.as_deref(), Some("s-1"));
        for text in ["", "[]", "nonsense", r#"{"session_id":7}"#] {
            assert_eq!(HookInput::parse(text), HookInput::default(), "{text}");
        }
    }

    #[test]
    fn every_event_has_its_status() {
        let input = HookInput::default();
        let status = |word: &str| Event::parse(word).and_then(|event| event.status(&input));
        for (word, expected) in [
            ("idle", "idle"),
            ("working", "working"),
            ("dnd", "dnd"),
            ("session-start", "idle"),
            ("prompt", "working"),
            ("post-tool", "working"),
            ("stop", "idle"),
            ("session-end", "idle"),
        ] {
            assert_eq!(status(word), Some(expected), "{word}");
        }
        assert_eq!(status("other"), None);
    }

    #[test]
    fn report_falls_back_to_the_environment() {
        let env = Env::of(&[("CLAUDE_PID", "42"), ("CLAUDE_CODE_SESSION_ID", "env-id"), ("CLAUDE_PROJECT_DIR", "/p")]);
        let value = report(&env, &HookInput::default(), "idle");
        assert_eq!(value, json!({"cwd": "/p", "status": "idle", "pid": 42, "session_id": "env-id"}));
        let input = HookInput::parse(r#"{"session_id":"s","cwd":"/w"}"#);
        assert_eq!(report(&env, &input, "idle")["session_id"], "s");
    }
}
