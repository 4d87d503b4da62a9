//! `hook permission`: waits for what approvers in the mesh decide about a tool call, and tells the host.
//!
//! The session's servers ask; this process only waits. When it is ended, because the user has decided or the host does not
//! want to wait any more, its lines close and the servers withdraw the question. Nothing printed means: the host's own
//! dialog decides.

use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Log, servers};
use crate::config::ConfigStore;
use crate::ipc::client::Line;
use crate::ipc::protocol::HookReply;
use crate::ipc::registry::Record;
use crate::ipc::{Hook, Reply, Request};
use crate::paths::Env;

/// A little less than the host waits for this hook.
const PATIENCE: Duration = Duration::from_secs(590);

pub(super) fn run(env: &Env, store: &ConfigStore, hook: &Hook, log: &Log) {
    // Cut off or none: what cannot be told whole cannot be allowed.
    if hook.tool_input.is_none() || hook.tool_name.is_none() {
        return log.say(|| "no whole tool input: the host's dialog decides".into());
    }
    let (sender, replies) = mpsc::channel::<std::io::Result<HookReply>>();
    for server in servers(env, store, hook) {
        let (sender, hook) = (sender.clone(), hook.clone());
        std::thread::spawn(move || {
            let _ = sender.send(ask(&server, hook));
        });
    }
    drop(sender);
    let deadline = Instant::now() + PATIENCE;
    let mut notices = vec![];
    // The first server that has a decision has the last word; the others withdraw when this process ends.
    while let Ok(reply) = replies.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        log.say(|| format!("{reply:?}"));
        let Ok(reply) = reply else { continue };
        if let Some(permission) = reply.permission {
            let mut decision = json!({"behavior": permission.behavior});
            if let Some(message) = permission.message {
                decision["message"] = message.into();
            }
            return print(&json!({"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}}));
        }
        notices.extend(reply.notice);
    }
    if !notices.is_empty() {
        print(&json!({"systemMessage": notices.join("\n")}));
    }
}

fn ask(server: &Record, hook: Hook) -> std::io::Result<HookReply> {
    let mut line = Line::open(server, Some(PATIENCE))?;
    match line.ask(&Request::Hook(hook))? {
        Reply::Hook(reply) => Ok(reply),
        other => Err(std::io::Error::other(format!("unexpected {other:?}"))),
    }
}

fn print(answer: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    // A host that is gone has decided.
    let _ = writeln!(out, "{answer}").and_then(|()| out.flush());
}
