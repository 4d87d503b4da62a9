//! Our MCP server with the doctor as its host, and the programs that Claude Code would start for it.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use claudemesh_protocol::features::messaging::{MessageStatusResult, Priority, Stage};
use claudemesh_protocol::id::PublicKey;
use serde_json::{Value, json};

use super::{LOOK_EVERY, PATIENCE, RouteFailure, TEXT, sessions};
use crate::config::MeshEntry;
use crate::context::Context;
use crate::context::connect;
use crate::features::messaging::Draft;
use crate::inbox::Inbox;
use crate::inbox::Verdict;
use crate::install::{self, Installed, edits};
use crate::paths::{self, Env};
use crate::session::notes::METHOD;
use crate::session::routes::{Report, host::SWITCH};

/// Name under which the doctor's session is seen in the mesh for a moment.
const WHO: &str = "claudemesh-doctor";
/// Variables of the user that the doctor's session keeps: where Claude Code's settings are, and our switch of a route.
const KEPT: [&str; 2] = ["CLAUDE_CONFIG_DIR", "CLAUDEMESH_INBOX_SOCKET"];

/// What Claude Code would start; where nothing is installed, this program.
pub(super) struct Programs {
    own: PathBuf,
    server: PathBuf,
    installed: Installed,
    plugin: Option<PathBuf>,
}

impl Programs {
    pub(super) fn of(cx: &Context) -> std::io::Result<Self> {
        let own = std::env::current_exe()?;
        let installed = install::installed(&cx.env);
        let on_path = paths::find_program(&cx.env, edits::SERVER);
        let plugin = installed.plugin.as_ref().and(on_path.clone());
        let server = match &installed.server {
            Some(command) if installed.server_foreign => Err(command),
            // As Claude Code finds it.
            Some(command) if command.contains('/') => Ok(Some(PathBuf::from(command))),
            Some(command) => Ok(paths::find_program(&cx.env, command)),
            None => Ok(plugin.clone()),
        };
        // A program that is not there, or not ours, has a row of its own.
        let server = server.ok().flatten().filter(|path| paths::is_executable(path)).unwrap_or_else(|| own.clone());
        Ok(Self { own, server, installed, plugin })
    }

    /// The line of the settings, run by a shell as Claude Code does; else the plug-in's program; else this one.
    fn hook(&self, word: &str) -> Command {
        if let Some(found) = self.installed.hooks.iter().find(|found| found.word == word) {
            let mut command = Command::new("sh");
            command.arg("-c").arg(found.command());
            return command;
        }
        let mut command = Command::new(self.plugin.as_ref().unwrap_or(&self.own));
        command.args(["hook", word]);
        command
    }
}

/// A running server.
pub(super) struct ProbeSession<'a> {
    pub(super) cx: &'a Context,
    pub(super) entry: &'a MeshEntry,
    programs: &'a Programs,
    child: Child,
    stdin: ChildStdin,
    frames: Receiver<Value>,
    /// Key of its session.
    pub(super) key: PublicKey,
    env: Vec<(String, String)>,
    next_id: u64,
    inbox: Inbox,
}

impl Drop for ProbeSession<'_> {
    fn drop(&mut self) {
        end(&mut self.child);
        // No one shall find the doctor's own messages in a list.
        if let Err(error) = self.inbox.forget_hidden(&self.key.to_hex()) {
            tracing::debug!(%error, "the doctor's messages stay hidden in the inbox");
        }
        // It was not asked, so it left its entry; looking at the list removes what is of the dead.
        self.cx.store.servers();
    }
}

impl<'a> ProbeSession<'a> {
    pub(super) fn start(
        cx: &'a Context,
        entry: &'a MeshEntry,
        programs: &'a Programs,
        channel: &str,
        more: &[(&str, String)],
    ) -> Result<Self, RouteFailure> {
        let mut env = vec![
            (SWITCH.to_owned(), channel.to_owned()),
            (paths::DISPLAY_NAME.to_owned(), WHO.to_owned()),
            (paths::NO_LEASE.to_owned(), "1".to_owned()),
            (paths::CONFIG_DIR.to_owned(), cx.store.dir().to_string_lossy().into_owned()),
        ];
        env.extend(KEPT.iter().filter_map(|name| Some(((*name).to_owned(), cx.env.text(name)?.to_owned()))));
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let mut command = Command::new(&programs.server);
        command.args(["mcp", "--mesh", &entry.slug, "--message-mode", "push"]);
        clean(&mut command, &cx.env, &env);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (stdin, stdout) =
            child.stdin.take().zip(child.stdout.take()).ok_or_else(|| std::io::Error::other("no pipes"))?;
        let (sender, frames) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(frame) = serde_json::from_str::<Value>(&line) else { continue };
                if sender.send(frame).is_err() {
                    return;
                }
            }
        });
        let inbox = Inbox::open(cx.store.dir(), &entry.mesh_id)
            .map_err(|error| RouteFailure::new(error.to_string(), "claudemesh inbox --peek"))?;
        let key = PublicKey::parse(&"0".repeat(64)).ok_or_else(|| RouteFailure::new("no key", "claudemesh doctor"))?;
        let mut probe = Self { cx, entry, programs, child, stdin, frames, key, env, next_id: 0, inbox };
        probe.greet()?;
        Ok(probe)
    }

    fn greet(&mut self) -> Result<(), RouteFailure> {
        let client = json!({"name": "claude-code", "version": "doctor"});
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
        let answer = self.ask("initialize", hello)?;
        if answer["result"]["capabilities"]["experimental"]["claude/channel"].is_null() {
            return Err(RouteFailure::new("the MCP server does not declare the channel", "claudemesh install --force"));
        }
        self.write(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        let welcome = self.frame(|frame| frame["method"] == METHOD && frame["params"]["meta"]["kind"] == "welcome");
        let Some(welcome) = welcome else {
            return Err(RouteFailure::new("the session does not get into the mesh", "claudemesh status"));
        };
        let key = welcome["params"]["meta"]["self_session_pubkey"].as_str().and_then(PublicKey::parse);
        self.key = key.ok_or_else(|| RouteFailure::new("the welcome names no key", "claudemesh doctor"))?;
        let (own, now) = (self.key.to_hex(), crate::clock::now_ms());
        let failed = |error| RouteFailure::new(format!("{error}"), "claudemesh inbox --peek");
        self.inbox.hide(&own, now).map_err(failed)?;
        Ok(())
    }

    fn write(&mut self, frame: &Value) -> Result<(), RouteFailure> {
        writeln!(self.stdin, "{frame}").and_then(|()| self.stdin.flush())?;
        Ok(())
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, RouteFailure> {
        self.next_id += 1;
        let id = self.next_id;
        self.write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))?;
        let answer = self.frame(|frame| frame["id"] == id);
        answer
            .ok_or_else(|| RouteFailure::new(format!("the MCP server does not answer {method}"), "claudemesh install"))
    }

    /// Calls a tool as the model would; answers its result.
    pub(super) fn tool(&mut self, name: &str, arguments: Value) -> Result<Value, RouteFailure> {
        Ok(self.ask("tools/call", json!({"name": name, "arguments": arguments}))?["result"].take())
    }

    /// The next frame that fits; those before it are dropped.
    fn frame(&self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.frames.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Sends the session a message from outside; answers its id.
    pub(super) fn send(&self) -> Result<String, RouteFailure> {
        let (key, draft) = (self.key, Draft::new(TEXT, Priority::Now));
        let sent = connect::ask(&outside(self.cx), self.entry, |connection| async move {
            Ok(connection.send_direct(&key, &draft).await?.message_id)
        });
        Ok(sent?)
    }

    /// Waits until the broker knows the step; answers how far it got instead.
    pub(super) fn receipt(&self, id: &str, wanted: Stage) -> Result<(), RouteFailure> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            let wish = id.to_owned();
            let status: MessageStatusResult = connect::ask(&outside(self.cx), self.entry, |connection| async move {
                Ok(connection.message_status(&wish).await?)
            })?;
            last = status.recipients.first().and_then(|recipient| recipient.stage).or(status.stage);
            if last >= Some(wanted) {
                return Ok(());
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        let got = last.map_or("stored", Stage::as_str);
        Err(RouteFailure::new(format!("the message is {got}, not {}", wanted.as_str()), "claudemesh status"))
    }

    /// Looks until something is there, as long as one route may take.
    pub(super) fn find<T>(
        &mut self,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>, RouteFailure>,
    ) -> Result<Option<T>, RouteFailure> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(found) = look(self)? {
                return Ok(Some(found));
            }
            self.not_held()?;
            std::thread::park_timeout(LOOK_EVERY);
        }
        Ok(None)
    }

    /// Waits until a message is in the session's inbox and may be shown.
    pub(super) fn arrives(&mut self) -> Result<(), RouteFailure> {
        let there = |probe: &mut Self| Ok(probe.report().filter(|report| report.unshown > 0));
        let found = self.find(there)?;
        found.map(drop).ok_or_else(|| RouteFailure::new("stored; the session does not receive it", "claudemesh status"))
    }

    /// A note about this message, if one came meanwhile.
    pub(super) fn note_of(&self, id: &str) -> Option<Value> {
        let fits = |frame: &Value| frame["method"] == METHOD && frame["params"]["meta"]["message_id"] == id;
        std::iter::from_fn(|| self.frames.try_recv().ok()).find(fits)
    }

    /// The rule for what comes in may keep our own message back: that is one stop for all routes.
    fn not_held(&mut self) -> Result<(), RouteFailure> {
        let (own, failed) =
            (self.key.to_hex(), |error| RouteFailure::new(format!("{error}"), "claudemesh inbox --peek"));
        let held = self.inbox.held().map_err(failed)?;
        let held: Vec<i64> = held.iter().filter(|(reader, _)| *reader == own).map(|(_, message)| message.seq).collect();
        if held.is_empty() {
            return Ok(());
        }
        // No one should find the doctor's line among what waits for a person's word.
        self.inbox.settle_held(&held, Verdict::Refuse, crate::clock::now_ms()).map_err(failed)?;
        Err(RouteFailure::new("stored → received; the rule for incoming messages holds it", "claudemesh inbound"))
    }

    /// Starts a hook as Claude Code would.
    pub(super) fn start_hook(&self, word: &str, input: &Value) -> Result<Child, RouteFailure> {
        let mut command = self.programs.hook(word);
        clean(&mut command, &self.cx.env, &self.env);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading has not failed yet: what it printed tells.
            let _ = stdin.write_all(input.to_string().as_bytes());
        }
        Ok(child)
    }

    /// Runs a hook to its end; answers what it printed.
    pub(super) fn hook(&self, word: &str, input: &Value) -> Result<String, RouteFailure> {
        let output = ended(self.start_hook(word, input)?, word)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A verb of this program in a shell outside of any session.
    pub(super) fn verb(&self, args: &[&str]) -> Result<Child, RouteFailure> {
        let mut command = Command::new(&self.programs.own);
        clean(&mut command, &self.cx.env, &self.env);
        command.args(args).args(["--mesh", &self.entry.slug, "--json"]).env("CLAUDEMESH_NO_SESSION", "1");
        Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    pub(super) fn report(&self) -> Option<Report> {
        let pid = self.child.id();
        // A wrapper around the program is its parent.
        let ours = |server: &crate::ipc::registry::Record| server.pid == pid || server.host_pid == pid;
        self.cx.store.servers().into_iter().find(ours).and_then(|server| sessions::report(&server))
    }

    pub(super) fn until(&self, what: &str, fits: impl Fn(&Report) -> bool) -> Result<(), RouteFailure> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.report().is_some_and(|report| fits(&report)) {
                return Ok(());
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Err(RouteFailure::new(what, "claudemesh install"))
    }
}

/// The end of a process, within the patience of one route.
pub(super) fn ended(mut child: Child, what: &str) -> Result<Output, RouteFailure> {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            end(&mut child);
            return Err(RouteFailure::new(format!("`{what}` does not end"), "claudemesh install"));
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    Ok(child.wait_with_output()?)
}

/// Ends a process that no one needs any more.
pub(super) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Takes a command out of any session that the doctor may run in.
fn clean(command: &mut Command, env: &Env, set: &[(String, String)]) {
    for name in env.names().filter(|name| name.starts_with("CLAUDE")) {
        command.env_remove(name);
    }
    command.envs(set.iter().map(|(name, value)| (name, value)));
}

/// The same context for requests that speak for the member, not for the session the doctor may run in.
pub(super) fn outside(cx: &Context) -> Context {
    let mut cx = cx.clone();
    cx.env = Env::of(&[]);
    cx
}
