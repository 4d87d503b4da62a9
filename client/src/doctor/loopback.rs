//! The loopback: a session of the doctor's own joins the mesh, is sent a message over every route, and each rung is looked
//! at: stored, received, handed over, seen. Real processes, the same as in a session; only the host is played by us.
//!
//! What running sessions say of their own routes stands beside it: there a host may drop what ours would show.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use claudemesh_protocol::features::messaging::{MessageStatusResult, Priority, Stage};
use claudemesh_protocol::id::PublicKey;
use serde_json::{Value, json};

use super::Check;
use crate::cli::Context;
use crate::config::MeshEntry;
use crate::error::CliError;
use crate::features::messaging::Draft;
use crate::features::one_shot;
use crate::mcp::notes::METHOD;
use crate::mcp::routes::{CHANNEL, HOOK, MONITOR, PULL, REWAKE, Report, host::SWITCH};
use crate::paths::{self, Env};
use crate::session::client::Line;
use crate::session::registry::Record;
use crate::session::{Reply, Request};

/// Name of the rows.
const NAME: &str = "loopback";
/// How long one rung may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// Pause between two looks at a receipt.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// What the model would read, should a real one ever see it.
const TEXT: &str = "claudemesh doctor tests the way into a session";
/// Name under which the doctor's session is seen in the mesh for a moment.
const WHO: &str = "claudemesh-doctor";

/// Sends the doctor's own session a message over every route of one mesh.
pub(super) fn checks(cx: &Context, entry: &MeshEntry) -> Vec<Check> {
    let mut checks = Vec::new();
    let reached = one_shot::ask(&outside(cx), entry, |connection| async move { Ok(connection.echo().await?) });
    if let Err(error) = reached {
        return vec![failed(entry, &Stop::from(error))];
    }
    // The channel on a server of its own: where it is open it is used before the others.
    match Play::start(cx, entry, "on") {
        Ok(mut play) => checks.push(row(entry, CHANNEL, play.channel(cx, entry))),
        Err(error) => return vec![failed(entry, &error)],
    }
    match Play::start(cx, entry, "off") {
        Ok(mut play) => {
            checks.push(row(entry, REWAKE, play.rewake(cx, entry)));
            checks.push(row(entry, HOOK, play.hook(cx, entry)));
            checks.push(row(entry, MONITOR, play.monitor(cx, entry)));
            checks.push(row(entry, PULL, play.pull(cx, entry)));
        }
        Err(error) => checks.push(failed(entry, &error)),
    }
    checks
}

fn failed(entry: &MeshEntry, error: &Stop) -> Check {
    Check::failure(NAME, format!("{}: {}", entry.slug, error.at), error.fix.clone())
}

fn row(entry: &MeshEntry, route: &str, result: Result<Duration, Stop>) -> Check {
    match result {
        Ok(time) => Check::ok(
            NAME,
            format!("{}: {route}: stored → received → handed over → seen, {} ms", entry.slug, time.as_millis()),
        ),
        Err(stop) => Check::failure(NAME, format!("{}: {route}: {}", entry.slug, stop.at), stop.fix),
    }
}

/// Where it stopped and what mends it.
struct Stop {
    at: String,
    fix: String,
}

impl Stop {
    fn new(at: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { at: at.into(), fix: fix.into() }
    }
}

impl From<CliError> for Stop {
    fn from(error: CliError) -> Self {
        let fix = error.hint.clone().unwrap_or_else(|| "claudemesh status".into());
        Self::new(error.message, fix)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::new(format!("a process of ours cannot be run: {error}"), "claudemesh --version")
    }
}

/// Our MCP server with the doctor as its host.
struct Play {
    child: Child,
    stdin: ChildStdin,
    frames: Receiver<Value>,
    key: PublicKey,
    program: PathBuf,
    env: Vec<(String, String)>,
    next_id: u64,
}

impl Drop for Play {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Play {
    fn start(cx: &Context, entry: &MeshEntry, channel: &str) -> Result<Self, Stop> {
        let program = std::env::current_exe()?;
        let env = vec![
            (SWITCH.to_owned(), channel.to_owned()),
            (paths::DISPLAY_NAME.to_owned(), WHO.to_owned()),
            (paths::CONFIG_DIR.to_owned(), cx.store.dir().to_string_lossy().into_owned()),
        ];
        let mut command = clean(&program, &cx.env, &env);
        command.args(["mcp", "--mesh", &entry.slug, "--message-mode", "push"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
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
        let key = PublicKey::parse(&"0".repeat(64)).ok_or_else(|| Stop::new("no key", "claudemesh doctor"))?;
        let mut play = Self { child, stdin, frames, key, program, env, next_id: 0 };
        play.greet()?;
        Ok(play)
    }

    fn greet(&mut self) -> Result<(), Stop> {
        let client = json!({"name": "claude-code", "version": "doctor"});
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
        let answer = self.ask("initialize", hello)?;
        if answer["result"]["capabilities"]["experimental"]["claude/channel"].is_null() {
            return Err(Stop::new("the MCP server does not declare the channel", "claudemesh install --force"));
        }
        self.write(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        let welcome = self.frame(|frame| frame["method"] == METHOD && frame["params"]["meta"]["kind"] == "welcome");
        let Some(welcome) = welcome else {
            return Err(Stop::new("the session does not get into the mesh", "claudemesh status"));
        };
        let key = welcome["params"]["meta"]["self_session_pubkey"].as_str().and_then(PublicKey::parse);
        self.key = key.ok_or_else(|| Stop::new("the welcome names no key", "claudemesh doctor"))?;
        Ok(())
    }

    fn write(&mut self, frame: &Value) -> Result<(), Stop> {
        writeln!(self.stdin, "{frame}").and_then(|()| self.stdin.flush())?;
        Ok(())
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, Stop> {
        self.next_id += 1;
        let id = self.next_id;
        self.write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))?;
        let answer = self.frame(|frame| frame["id"] == id);
        answer.ok_or_else(|| Stop::new(format!("the MCP server does not answer {method}"), "claudemesh mcp"))
    }

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
    fn send(&self, cx: &Context, entry: &MeshEntry) -> Result<String, Stop> {
        let (key, draft) = (self.key, Draft::new(TEXT, Priority::Now));
        let sent = one_shot::ask(&outside(cx), entry, |connection| async move {
            Ok(connection.send_direct(&key, &draft).await?.message_id)
        });
        Ok(sent?)
    }

    /// Waits until the broker knows the step; answers how far it got instead.
    fn receipt(&self, cx: &Context, entry: &MeshEntry, id: &str, wanted: Stage) -> Result<(), Stop> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            let wish = id.to_owned();
            let status: MessageStatusResult =
                one_shot::ask(
                    &outside(cx),
                    entry,
                    |connection| async move { Ok(connection.message_status(&wish).await?) },
                )?;
            last = status.recipients.first().and_then(|recipient| recipient.stage).or(status.stage);
            if last >= Some(wanted) {
                return Ok(());
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        let got = last.map_or("stored", Stage::as_str);
        Err(Stop::new(format!("the message is {got}, not {}", wanted.as_str()), "claudemesh status"))
    }

    fn run_hook(&self, cx: &Context, word: &str) -> Result<Child, Stop> {
        let mut command = clean(&self.program, &cx.env, &self.env);
        let child = command.args(["hook", word]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(b"{}")?;
        }
        Ok(child)
    }

    fn finished_hook(&self, cx: &Context, word: &str) -> Result<String, Stop> {
        let output = self.run_hook(cx, word)?.wait_with_output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn report(&self, cx: &Context) -> Option<Report> {
        let pid = self.child.id();
        cx.store.servers().into_iter().find(|server| server.pid == pid).and_then(|server| report(&server))
    }

    fn until(&self, cx: &Context, what: &str, fits: impl Fn(&Report) -> bool) -> Result<(), Stop> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.report(cx).is_some_and(|report| fits(&report)) {
                return Ok(());
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Err(Stop::new(format!("{what}; the session's local socket does not say so"), "claudemesh install"))
    }

    fn channel(&mut self, cx: &Context, entry: &MeshEntry) -> Result<Duration, Stop> {
        let started = Instant::now();
        let id = self.send(cx, entry)?;
        let note =
            self.frame(|frame| frame["method"] == METHOD && frame["params"]["meta"]["message_id"] == id.as_str());
        if note.is_none() {
            self.receipt(cx, entry, &id, Stage::Received)?;
            return Err(Stop::new("received, but no note was written", "claudemesh inbound"));
        }
        self.receipt(cx, entry, &id, Stage::Handed)?;
        let time = started.elapsed();
        // Seen by whoever reads the notes: the model's next tool call would show it, here the pull does.
        self.ask("tools/call", json!({"name": "check_messages", "arguments": {"again": true}}))?;
        self.ask("tools/call", json!({"name": "list_peers", "arguments": {}}))?;
        self.receipt(cx, entry, &id, Stage::Seen)?;
        Ok(time)
    }

    fn rewake(&mut self, cx: &Context, entry: &MeshEntry) -> Result<Duration, Stop> {
        let waiter = self.run_hook(cx, "wait")?;
        self.until(cx, "the waiting hook does not reach the session", |report| report.waiting)?;
        let started = Instant::now();
        let id = self.send(cx, entry)?;
        let output = ended(waiter)?;
        let time = started.elapsed();
        if output.status.code() != Some(2) || !String::from_utf8_lossy(&output.stderr).contains(TEXT) {
            return Err(Stop::new("the waiting hook ended without the message", "claudemesh install"));
        }
        self.receipt(cx, entry, &id, Stage::Handed)?;
        self.finished_hook(cx, "stop")?;
        self.receipt(cx, entry, &id, Stage::Seen)?;
        Ok(time)
    }

    fn hook(&mut self, cx: &Context, entry: &MeshEntry) -> Result<Duration, Stop> {
        self.finished_hook(cx, "prompt")?;
        let started = Instant::now();
        let id = self.send(cx, entry)?;
        self.until(cx, "the message does not arrive", |report| report.unshown > 0)?;
        let context = self.finished_hook(cx, "post-tool")?;
        let time = started.elapsed();
        if !context.contains(TEXT) {
            return Err(Stop::new("the hook printed no message", "claudemesh install"));
        }
        self.receipt(cx, entry, &id, Stage::Handed)?;
        self.finished_hook(cx, "stop")?;
        self.receipt(cx, entry, &id, Stage::Seen)?;
        Ok(time)
    }

    fn monitor(&mut self, cx: &Context, entry: &MeshEntry) -> Result<Duration, Stop> {
        let mut monitor = self.run_hook(cx, "monitor")?;
        let result = self.monitor_line(cx, entry, &mut monitor);
        let _ = monitor.kill();
        let _ = monitor.wait();
        result
    }

    fn monitor_line(&self, cx: &Context, entry: &MeshEntry, monitor: &mut Child) -> Result<Duration, Stop> {
        self.until(cx, "the monitor does not reach the session", |report| report.monitor)?;
        let started = Instant::now();
        let id = self.send(cx, entry)?;
        let stdout = monitor.stdout.take().ok_or_else(|| std::io::Error::other("no pipe"))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = lines.recv_timeout(PATIENCE).unwrap_or_default();
        let time = started.elapsed();
        if !line.contains(TEXT) {
            return Err(Stop::new("the monitor printed no message", "claudemesh install"));
        }
        self.receipt(cx, entry, &id, Stage::Handed)?;
        self.finished_hook(cx, "stop")?;
        self.receipt(cx, entry, &id, Stage::Seen)?;
        Ok(time)
    }

    fn pull(&mut self, cx: &Context, entry: &MeshEntry) -> Result<Duration, Stop> {
        // A turn, so that no other route takes the message.
        self.finished_hook(cx, "prompt")?;
        let started = Instant::now();
        let id = self.send(cx, entry)?;
        self.until(cx, "the message does not arrive", |report| report.unshown > 0)?;
        let answer = self.ask("tools/call", json!({"name": "check_messages", "arguments": {}}))?;
        let time = started.elapsed();
        if !answer.to_string().contains(TEXT) {
            return Err(Stop::new("check_messages did not bring the message", "claudemesh inbox"));
        }
        self.ask("tools/call", json!({"name": "list_peers", "arguments": {}}))?;
        self.receipt(cx, entry, &id, Stage::Seen)?;
        Ok(time)
    }
}

/// The end of a process, waited for as long as a rung may take.
fn ended(mut child: Child) -> Result<std::process::Output, Stop> {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Stop::new("the waiting hook was not woken", "claudemesh install"));
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    Ok(child.wait_with_output()?)
}

/// A command of ours outside of any session that the doctor may run in.
fn clean(program: &std::path::Path, env: &Env, set: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    for name in env.names().filter(|name| name.starts_with("CLAUDE")) {
        command.env_remove(name);
    }
    command.envs(set.iter().map(|(name, value)| (name, value))).stderr(Stdio::null());
    command
}

/// The same context for requests that speak for the member, not for the session the doctor may run in.
fn outside(cx: &Context) -> Context {
    let mut cx = cx.clone();
    cx.env = Env::of(&[]);
    cx
}

fn report(server: &Record) -> Option<Report> {
    let mut line = Line::open(server, Some(Duration::from_secs(1))).ok()?;
    match line.ask(&Request::Routes).ok()? {
        Reply::Routes(report) => Some(*report),
        _ => None,
    }
}

/// What the running sessions say of their routes.
pub(super) fn sessions(cx: &Context) -> Vec<Check> {
    cx.store.servers().iter().filter_map(|server| Some(session(server, &report(server)?))).collect()
}

fn session(server: &Record, report: &Report) -> Check {
    const ROW: &str = "session";
    let host = report.host.as_deref().unwrap_or("a host that has not greeted yet");
    let mut ways = vec![];
    match (report.channel.as_str(), &report.channel_reason) {
        (state, Some(reason)) => ways.push(format!("channel {state} ({reason})")),
        (state, None) => ways.push(format!("channel {state}")),
    }
    ways.push(report.last_hook_s.map_or("no hook has fired".into(), |age| format!("last hook {age} s ago")));
    if report.waiting {
        ways.push("can be woken".into());
    }
    if report.monitor {
        ways.push("a monitor follows".into());
    }
    if report.inbox_socket == "open" {
        ways.push("inbox socket for our own sessions".into());
    }
    if report.unshown > 0 {
        ways.push(format!("{} messages wait", report.unshown));
    }
    let detail = format!("process {} of {host}, meshes {}: {}", server.pid, server.meshes.join(", "), ways.join(", "));
    let closed = matches!(report.channel.as_str(), "off" | "dead");
    if closed && report.last_hook_s.is_none() && !report.monitor {
        return Check::warning(ROW, detail, "claudemesh install");
    }
    Check::ok(ROW, detail)
}
