//! `claudemesh hook <event>`: what Claude Code runs at the turning points of a session.
//!
//! Runs inside the user's turn, so it is quick, silent and never fails: no async runtime, no logging set-up, at most half a
//! second for the input and one second for everything else. The session's own server ([`crate::ipc`]) knows what there
//! is to say; without one the brokers are told the status and that is all. The exit code is 0 whatever happens, but for
//! `wait`: 2 is how the host is told to wake the session. `permission` waits as long as approvers may take.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use crate::config::ConfigStore;
use crate::ipc::client::Line;
use crate::ipc::protocol::HookReply;
use crate::ipc::registry::Record;
use crate::ipc::{Hook, Reply, Request};
use crate::logs::{LogFile, Source};
use crate::paths::Env;

pub mod cli;
mod host_input;
pub mod input;
mod permission;
pub mod report;
mod wake;

/// How long the session's server may take to answer.
const SERVER_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the hook and answers the exit code. `CLAUDEMESH_HOOK_DEBUG=1` tells on stderr why nothing happened.
pub fn run(env: &Env, store: &ConfigStore, event: Option<&str>) -> u8 {
    let log = Log { on: env.flag("CLAUDEMESH_HOOK_DEBUG"), file: LogFile::of(store.dir(), Source::Hooks) };
    let Some(event) = event.and_then(Event::parse) else {
        log.trouble(|| format!("unknown event {event:?}"));
        return 0;
    };
    let hook = input::read(event.as_str());
    log.say(|| format!("{hook:?}"));
    match event {
        Event::Wait => wake::wait(env, store, &hook, &log),
        Event::Monitor => wake::monitor(env, store, &log),
        Event::Permission => {
            permission::run(env, store, &hook, &log);
            0
        }
        event => {
            tell(env, store, event, &hook, &log);
            0
        }
    }
}

/// Why nothing happened, for anyone who asks.
struct Log {
    on: bool,
    file: LogFile,
}

impl Log {
    fn say(&self, text: impl FnOnce() -> String) {
        if self.on {
            let text = text();
            let _ = writeln!(std::io::stderr(), "claudemesh hook: {text}");
            self.keep(&text);
        }
    }

    /// What should not happen: kept although no one has asked for it.
    fn trouble(&self, text: impl FnOnce() -> String) {
        if self.on {
            self.say(text);
        } else {
            self.keep(&text());
        }
    }

    fn keep(&self, text: &str) {
        // A hook must not fail for its log.
        let _ = self.file.append(format!("{} {}\n", crate::clock::now_iso(), text.replace('\n', " ")).as_bytes());
    }
}

/// What the hook was called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Status only.
    Idle,
    /// Status only.
    Working,
    /// Status only.
    Dnd,
    /// A session starts, is resumed, cleared or compacted.
    SessionStart,
    /// The user has sent a prompt.
    Prompt,
    /// A tool has run.
    PostTool,
    /// The model wants to end its turn.
    Stop,
    /// The session ends.
    SessionEnd,
    /// The host asks its user whether a tool may run.
    Permission,
    /// In the background: wake the session when something comes.
    Wait,
    /// In the background: a line for each thing that comes.
    Monitor,
}

impl Event {
    const ALL: [Self; 11] = [
        Self::Idle,
        Self::Working,
        Self::Dnd,
        Self::SessionStart,
        Self::Prompt,
        Self::PostTool,
        Self::Stop,
        Self::SessionEnd,
        Self::Permission,
        Self::Wait,
        Self::Monitor,
    ];

    /// The word on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Dnd => "dnd",
            Self::SessionStart => "session-start",
            Self::Prompt => "prompt",
            Self::PostTool => "post-tool",
            Self::Stop => "stop",
            Self::SessionEnd => "session-end",
            Self::Permission => "permission",
            Self::Wait => "wait",
            Self::Monitor => "monitor",
        }
    }

    /// The event of a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }

    /// The status that the event means; `None` when it says nothing about it.
    pub fn status(self, hook: &Hook) -> Option<&'static str> {
        match self {
            Self::Working | Self::Prompt | Self::PostTool => Some("working"),
            Self::Dnd => Some("dnd"),
            // The session is compacted in the middle of a turn and goes on working.
            Self::SessionStart if hook.source.as_deref() == Some("compact") => None,
            Self::Idle | Self::SessionStart | Self::Stop | Self::SessionEnd => Some("idle"),
            Self::Permission | Self::Wait | Self::Monitor => None,
        }
    }

    /// The host's name of the event, for answers that carry context.
    const fn host_name(self) -> Option<&'static str> {
        match self {
            Self::SessionStart => Some("SessionStart"),
            Self::Prompt => Some("UserPromptSubmit"),
            Self::PostTool => Some("PostToolUse"),
            _ => None,
        }
    }
}

/// The servers of the session that a hook runs for.
fn servers(env: &Env, store: &ConfigStore, hook: &Hook) -> Vec<Record> {
    let id = hook.session_id.as_deref().or_else(|| env.text("CLAUDE_CODE_SESSION_ID"));
    store.servers_of(id, env)
}

fn tell(env: &Env, store: &ConfigStore, event: Event, hook: &Hook, log: &Log) {
    let mut lines = vec![];
    let mut all = HookReply::default();
    for server in servers(env, store, hook) {
        match ask(&server, hook) {
            Ok((line, reply)) => {
                log.say(|| format!("server {}: {reply:?}", server.pid));
                join(&mut all.context, reply.context);
                join(&mut all.block, reply.block);
                join(&mut all.notify, reply.notify);
                join(&mut all.notice, reply.notice);
                lines.push(line);
            }
            Err(error) => log.trouble(|| format!("the server of the session, process {}: {error}", server.pid)),
        }
    }
    if lines.is_empty() {
        let Some(status) = event.status(hook) else { return log.say(|| "no change of status".into()) };
        for word in report::status(env, store, hook, status) {
            log.say(|| word);
        }
        return;
    }
    let Some(answer) = answer(event, &all) else { return };
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{answer}").and_then(|()| out.flush()).is_ok() {
        for mut line in lines {
            // Not told: the server gives the messages to another route, so at worst they are shown again.
            let _ = line.send(&Request::Printed);
        }
    }
}

fn ask(server: &Record, hook: &Hook) -> std::io::Result<(Line, HookReply)> {
    let mut line = Line::open(server, Some(SERVER_PATIENCE))?;
    match line.ask(&Request::Hook(hook.clone()))? {
        Reply::Hook(reply) => Ok((line, reply)),
        other => Err(std::io::Error::other(format!("unexpected {other:?}"))),
    }
}

fn join(all: &mut Option<String>, more: Option<String>) {
    match (all.as_mut(), more) {
        (Some(all), Some(more)) => {
            all.push_str("\n\n");
            all.push_str(&more);
        }
        (None, more) => *all = more,
        (Some(_), None) => {}
    }
}

/// The JSON that the host understands; `None` when there is nothing to say.
fn answer(event: Event, reply: &HookReply) -> Option<String> {
    let mut answer = serde_json::Map::new();
    if let (Some(reason), Event::Stop) = (&reply.block, event) {
        answer.insert("decision".into(), "block".into());
        answer.insert("reason".into(), reason.as_str().into());
    }
    if let (Some(context), Some(name)) = (&reply.context, event.host_name()) {
        let specific = json!({"hookEventName": name, "additionalContext": context});
        answer.insert("hookSpecificOutput".into(), specific);
    }
    if let Some(notice) = &reply.notice {
        answer.insert("systemMessage".into(), crate::output::clean(notice).into());
    }
    if let Some(notify) = &reply.notify {
        // OSC 9 asks the terminal for a desktop notification; terminals that do not know it show nothing.
        let text: String = crate::output::clean(notify).chars().filter(|symbol| *symbol != ';').take(120).collect();
        answer.insert("terminalSequence".into(), format!("\u{1b}]9;{text}\u{7}").into());
    }
    if answer.is_empty() { None } else { Some(serde_json::Value::Object(answer).to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_its_status() {
        let hook = Hook::default();
        let status = |word: &str| Event::parse(word).and_then(|event| event.status(&hook));
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
        let compact = Hook { source: Some("compact".into()), ..Hook::default() };
        assert_eq!(Event::SessionStart.status(&compact), None);
    }

    #[test]
    fn answers_are_what_the_host_understands() {
        let reply = HookReply { context: Some("c".into()), block: Some("b".into()), ..HookReply::default() };
        let value = |event, reply: &HookReply| -> serde_json::Value {
            serde_json::from_str(&answer(event, reply).unwrap()).unwrap()
        };
        assert_eq!(value(Event::Stop, &reply), json!({"decision": "block", "reason": "b"}));
        let context = json!({"hookSpecificOutput": {"hookEventName": "PostToolUse", "additionalContext": "c"}});
        assert_eq!(value(Event::PostTool, &reply), context);
        assert_eq!(answer(Event::SessionEnd, &reply), None);
        let told = HookReply { notice: Some("n".into()), ..HookReply::default() };
        assert_eq!(value(Event::PostTool, &told), json!({"systemMessage": "n"}));
        let notify = HookReply { notify: Some("a\u{7};b".into()), ..HookReply::default() };
        assert_eq!(value(Event::Stop, &notify)["terminalSequence"], "\u{1b}]9;a␇b\u{7}");
    }
}
