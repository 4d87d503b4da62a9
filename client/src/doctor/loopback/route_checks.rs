//! One message over one route each, with the place where it stops.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use claudemesh_protocol::features::messaging::Stage;
use serde_json::{Value, json};

use super::probe_session::{ProbeSession, end, ended};
use super::{PATIENCE, RouteFailure, TEXT};

/// How long it took, or where it stopped.
pub(super) type RouteResult = Result<Duration, RouteFailure>;

const INSTALL: &str = "claudemesh install";
/// More often than this no stop hook of ours keeps a session from stopping.
const MAX_BLOCKS: usize = 4;

impl ProbeSession<'_> {
    /// A note on the MCP server's output.
    pub(super) fn channel(&mut self) -> RouteResult {
        let started = Instant::now();
        let id = self.send()?;
        if self.find(|probe| Ok(probe.note_of(&id)))?.is_none() {
            self.receipt(&id, Stage::Received)?;
            let reason = self.report().and_then(|report| report.channel_reason).unwrap_or_default();
            return Err(RouteFailure::new(format!("stored → received; no note was written: {reason}"), INSTALL));
        }
        self.receipt(&id, Stage::Handed)?;
        let time = started.elapsed();
        // No transcript of the host shows that it was read; the pull, which brings it again, stands for that.
        self.tool("check_messages", json!({"again": true}))?;
        self.tool("list_peers", json!({}))?;
        self.receipt(&id, Stage::Seen)?;
        Ok(time)
    }

    /// The line on a tool's answer where nothing else brings messages.
    pub(super) fn notice(&mut self) -> RouteResult {
        let started = Instant::now();
        self.send()?;
        self.arrives()?;
        let answer = self.tool("list_peers", json!({}))?.to_string();
        let time = started.elapsed();
        // Read, so that the next route begins with an empty inbox.
        self.tool("check_messages", json!({}))?;
        if !answer.contains("check_messages reads") {
            return Err(RouteFailure::new(
                "stored → received; the tool's answer does not say that something waits",
                INSTALL,
            ));
        }
        Ok(time)
    }

    /// `check_messages`.
    pub(super) fn pull(&mut self) -> RouteResult {
        let started = Instant::now();
        let id = self.send()?;
        self.arrives()?;
        let answer = self.tool("check_messages", json!({}))?;
        let time = started.elapsed();
        if !answer.to_string().contains(TEXT) {
            return Err(RouteFailure::new("stored → received; check_messages did not bring it", INSTALL));
        }
        self.tool("list_peers", json!({}))?;
        self.receipt(&id, Stage::Seen)?;
        Ok(time)
    }

    /// The reason not to stop, where nothing can wake the session.
    pub(super) fn stop(&mut self) -> RouteResult {
        // In a turn no other route takes the message.
        self.hook("prompt", &json!({}))?;
        let started = Instant::now();
        let id = self.send()?;
        self.arrives()?;
        let answer = self.blocked()?;
        let time = started.elapsed();
        if !answer.contains(TEXT) {
            return Err(RouteFailure::new("stored → received; the stop hook let the session rest", INSTALL));
        }
        self.receipt(&id, Stage::Handed)?;
        self.hook("stop", &json!({"stop_hook_active": true}))?;
        self.receipt(&id, Stage::Seen)?;
        Ok(time)
    }

    /// What the stop hook says against the end of the turn.
    fn blocked(&self) -> Result<String, RouteFailure> {
        let printed = self.hook("stop", &json!({}))?;
        let answer: Value = serde_json::from_str(&printed).unwrap_or_default();
        let blocks = answer["decision"] == "block";
        Ok(answer["reason"].as_str().filter(|_| blocks).unwrap_or_default().to_owned())
    }

    /// A question: asked in a shell, put before the session by the stop hook, answered, and back with who asked.
    pub(super) fn question(&mut self) -> RouteResult {
        let started = Instant::now();
        let key = self.key.to_hex();
        let patience = (PATIENCE.as_secs() * 2).to_string();
        let mut asker = self.verb(&["ask", &key, TEXT, "--timeout", &patience])?;
        let result = self.answered(&mut asker);
        if result.is_err() {
            end(&mut asker);
            // It would stay open for a day, and no one is there to answer it.
            let _ = self.reply();
            return result.map(|()| started.elapsed());
        }
        let output = ended(asker, "claudemesh ask")?;
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if told["status"] != "answered" {
            return Err(RouteFailure::new(
                "asked → shown → answered; the answer does not come back",
                "claudemesh status",
            ));
        }
        Ok(started.elapsed())
    }

    fn answered(&mut self, asker: &mut Child) -> Result<(), RouteFailure> {
        self.arrives().map_err(|stop| match asker.try_wait() {
            Ok(Some(_)) => {
                RouteFailure::new("`claudemesh ask` ended before the question was asked", "claudemesh status")
            }
            _ => stop,
        })?;
        if !self.blocked()?.contains(TEXT) {
            return Err(RouteFailure::new(
                "asked → received; the stop hook does not put it before the session",
                INSTALL,
            ));
        }
        if !self.reply()? {
            return Err(RouteFailure::new("asked → shown; reply_to_peer does not answer it", "claudemesh status"));
        }
        Ok(())
    }

    /// Answers the doctor's own question; `false` when that is refused.
    fn reply(&mut self) -> Result<bool, RouteFailure> {
        let open = self.tool("poll_inbox", json!({"again": true}))?;
        let question = &open["structuredContent"]["questions"][0]["message_id"];
        let answer = self.tool("reply_to_peer", json!({"message_id": question, "answer": TEXT}))?;
        // The turn that the stop hook kept alive ends.
        self.hook("stop", &json!({"stop_hook_active": true}))?;
        Ok(question.is_string() && answer["isError"] != true)
    }

    /// Context of the hook after a tool call.
    pub(super) fn context(&mut self) -> RouteResult {
        self.hook("prompt", &json!({}))?;
        let started = Instant::now();
        let id = self.send()?;
        self.arrives()?;
        let context = self.hook("post-tool", &json!({}))?;
        let time = started.elapsed();
        if !context.contains(TEXT) {
            // Read, so that the next route begins with an empty inbox.
            self.tool("check_messages", json!({}))?;
            self.hook("stop", &json!({}))?;
            return Err(RouteFailure::new("stored → received; the hook printed no message", INSTALL));
        }
        self.receipt(&id, Stage::Handed)?;
        self.hook("stop", &json!({}))?;
        self.receipt(&id, Stage::Seen)?;
        Ok(time)
    }

    /// Ends the turn that a route which stopped half-way has left behind.
    fn rest(&self) -> Result<(), RouteFailure> {
        for _ in 0..MAX_BLOCKS {
            if self.blocked()?.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The hook that waits beside the idle session.
    pub(super) fn rewake(&mut self) -> RouteResult {
        self.rest()?;
        let mut waiter = self.start_hook("wait", &json!({}))?;
        let result = self.woken(&mut waiter);
        end(&mut waiter);
        // The turn that it was woken for is over, and the session at rest for the next route.
        let handed = result.and_then(|(id, time)| self.receipt(&id, Stage::Handed).map(|()| (id, time)));
        self.hook("stop", &json!({}))?;
        let (id, time) = handed?;
        self.receipt(&id, Stage::Seen)?;
        Ok(time)
    }

    fn woken(&mut self, waiter: &mut Child) -> Result<(String, Duration), RouteFailure> {
        self.until("the waiting hook does not reach the session", |report| report.waiting)?;
        let started = Instant::now();
        let id = self.send()?;
        let status = self.find(|_| Ok(waiter.try_wait()?))?;
        let time = started.elapsed();
        let mut text = String::new();
        if let (Some(_), Some(mut stderr)) = (status, waiter.stderr.take()) {
            stderr.read_to_string(&mut text)?;
        }
        match status {
            None => Err(RouteFailure::new("stored → received; the waiting hook was not woken", INSTALL)),
            Some(status) if status.code() == Some(2) && text.contains(TEXT) => Ok((id, time)),
            Some(_) => Err(RouteFailure::new("stored → received; the waiting hook ended without the message", INSTALL)),
        }
    }

    /// A line of the plug-in's monitor.
    pub(super) fn monitor(&mut self) -> RouteResult {
        self.rest()?;
        let mut monitor = self.start_hook("monitor", &json!({}))?;
        let result = self.monitor_line(&mut monitor);
        end(&mut monitor);
        result
    }

    fn monitor_line(&mut self, monitor: &mut Child) -> RouteResult {
        self.until("the monitor does not reach the session", |report| report.monitor)?;
        let started = Instant::now();
        let id = self.send()?;
        let stdout = monitor.stdout.take().ok_or_else(|| std::io::Error::other("no pipe"))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = self.find(|_| Ok(lines.try_recv().ok()))?.unwrap_or_default();
        let time = started.elapsed();
        if !line.contains(TEXT) {
            return Err(RouteFailure::new("stored → received; the monitor printed no message", INSTALL));
        }
        self.receipt(&id, Stage::Handed)?;
        self.hook("stop", &json!({}))?;
        self.receipt(&id, Stage::Seen)?;
        Ok(time)
    }

    /// The session's own inbox socket, with us as the host that listens.
    #[cfg(unix)]
    pub(super) fn inbox_socket(&mut self, listener: &super::inbox_socket::Listener) -> RouteResult {
        let transcript = listener.transcript();
        self.hook("session-start", &json!({"transcript_path": transcript}))?;
        let started = Instant::now();
        let id = self.send()?;
        let post = match self.find(|_| Ok(listener.post()))? {
            Some(Ok(post)) => post,
            Some(Err(reason)) => {
                return Err(RouteFailure::new(
                    format!("stored → received; what was posted breaks the form: {reason}"),
                    INSTALL,
                ));
            }
            None => return Err(RouteFailure::new("stored → received; nothing was posted", INSTALL)),
        };
        let time = started.elapsed();
        if post.id != id || !post.text.contains(TEXT) {
            return Err(RouteFailure::new("stored → received; something else was posted", INSTALL));
        }
        self.receipt(&id, Stage::Handed)?;
        // As the host would write it down, and what the model says to it.
        let lines = [
            json!({"type": "user", "message": {"content": post.text}}),
            json!({"type": "assistant", "message": {"id": "doctor"}}),
        ];
        std::fs::write(transcript, lines.map(|line| format!("{line}\n")).concat())?;
        self.receipt(&id, Stage::Seen)?;
        Ok(time)
    }
}
