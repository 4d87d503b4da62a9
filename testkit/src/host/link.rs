//! The pipe to the server: frames out; frames in, each held against the rules and handed to the one that waits for it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, watch};

use super::notes::ChannelNote;
use super::rules::State;

/// One line of stdout.
const MAX_LINE: usize = 4 << 20;

pub(super) struct Link {
    pub(super) stdin: tokio::sync::Mutex<Option<ChildStdin>>,
    pub(super) state: Mutex<State>,
    pub(super) notes: mpsc::UnboundedSender<ChannelNote>,
    pub(super) decisions: mpsc::UnboundedSender<(String, String)>,
    /// How many signs of life each call gave.
    pub(super) heard: watch::Sender<HashMap<u64, usize>>,
    pub(super) cwd: PathBuf,
}

impl Link {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn write(&self, frame: &Value) -> Result<()> {
        self.write_line(&frame.to_string()).await
    }

    pub(super) async fn write_line(&self, line: &str) -> Result<()> {
        let mut stdin = self.stdin.lock().await;
        let stdin = stdin.as_mut().context("stdin is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    pub(super) async fn read(self: Arc<Self>, mut stdout: impl tokio::io::AsyncBufRead + Unpin) {
        let mut line = Vec::new();
        loop {
            line.clear();
            match stdout.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            if line.pop() != Some(b'\n') {
                self.state().breach(format!("the last line has no end: {}", String::from_utf8_lossy(&line)));
                break;
            }
            if line.len() > MAX_LINE {
                self.state().breach(format!("a line of {} bytes", line.len()));
            }
            match serde_json::from_slice::<Value>(&line) {
                Ok(frame) if frame.is_object() => self.frame(frame).await,
                _ => self.state().breach(format!("not one JSON object per line: {}", String::from_utf8_lossy(&line))),
            }
        }
        // Anyone who still waits learns that nothing will come.
        self.state().pending.clear();
    }

    async fn frame(&self, frame: Value) {
        if frame["jsonrpc"] != "2.0" {
            self.state().breach(format!("no JSON-RPC 2.0 frame: {frame}"));
        }
        match (frame.get("method").and_then(Value::as_str), frame.get("id")) {
            (None, Some(_)) => {
                let waiting = self.state().answered(&frame);
                if let Some(waiting) = waiting {
                    // Who asked may have lost its patience.
                    drop(waiting.send(frame));
                }
            }
            (Some(method), id) => {
                if !self.state().greeted {
                    self.state().breach(format!("`{method}` before notifications/initialized is lost"));
                }
                match id.cloned() {
                    Some(id) => self.answer(method, id).await,
                    None => self.notified(method, &frame["params"]),
                }
            }
            (None, None) => self.state().breach(format!("neither request nor answer: {frame}")),
        }
    }

    async fn answer(&self, method: &str, id: Value) {
        let result = match method {
            "ping" => Some(json!({})),
            "roots/list" => Some(json!({"roots": [{"uri": format!("file://{}", self.cwd.display())}]})),
            "elicitation/create" => Some(json!({"action": "cancel"})),
            _ => None,
        };
        let frame = match result {
            Some(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            None => json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}}),
        };
        // A server that has ended meanwhile needs no answer.
        self.write(&frame).await.ok();
    }

    fn notified(&self, method: &str, params: &Value) {
        let mut state = self.state();
        match method {
            "notifications/claude/channel" => {
                if let Some(note) = state.noted(params) {
                    self.notes.send(note).ok();
                }
            }
            "notifications/claude/channel/permission" => {
                if let Some(decision) = state.decided(params) {
                    self.decisions.send(decision).ok();
                }
            }
            "notifications/progress" => {
                if let Some(id) = state.progressed(params) {
                    self.heard.send_modify(|heard| *heard.entry(id).or_default() += 1);
                }
            }
            "notifications/tools/list_changed" => state.lists_changed += 1,
            "notifications/prompts/list_changed" | "notifications/resources/list_changed" => {}
            "notifications/resources/updated" | "notifications/message" => {}
            "notifications/cancelled" => {}
            other => state.breach(format!("the host does not know `{other}`")),
        }
    }
}
