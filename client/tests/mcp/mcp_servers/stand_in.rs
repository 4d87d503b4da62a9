//! An MCP server for tests, written by hand, so that it answers what no SDK would: this test program, started once more.
//!
//! It speaks over standard input and output. What it does beside answering it writes into the folder that `STAND_IN_DIR` names.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Runs only when another test starts it: see [`command`].
#[test]
#[ignore = "other tests start it as a server"]
fn stand_in() -> Result<()> {
    let dir = std::env::var("STAND_IN_DIR").context("only other tests start it")?;
    Server { dir: dir.into(), more: false, out: Arc::default() }.run()
}

/// The command that starts it.
pub(crate) fn command() -> Result<Vec<String>> {
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let name = "mcp_servers::stand_in::stand_in".to_owned();
    Ok(vec![program, name, "--exact".into(), "--ignored".into(), "--nocapture".into(), "--quiet".into()])
}

/// A result with kinds of content and fields that no one knows.
pub(crate) fn odd_result() -> Value {
    json!({
        "content": [
            {"type": "text", "text": "café \u{202e} \u{1f98a}", "annotations": {"priority": 0.7, "audience": ["user"]}, "later": 1},
            {"type": "image", "data": "aGk=", "mimeType": "image/png"},
            {"type": "resource_link", "uri": "test://1", "name": "one", "size": 18_446_744_073_709_551_615_u64},
            {"type": "resource", "resource": {"uri": "test://2", "mimeType": "text/plain", "text": "two"}},
        ],
        "structuredContent": {"z": 1.5, "a": [null, {"y": 1, "b": 2}]},
        "isError": false,
        "_meta": {"test/x": {"k": "v"}},
        "somethingNew": [1, 2],
    })
}

struct Server {
    dir: PathBuf,
    /// It has one more tool by now.
    more: bool,
    out: Arc<Mutex<()>>,
}

impl Server {
    fn run(mut self) -> Result<()> {
        std::fs::write(self.dir.join("pid"), std::process::id().to_string())?;
        let starts = std::fs::read_to_string(self.dir.join("starts")).unwrap_or_default() + "x";
        std::fs::write(self.dir.join("starts"), starts)?;
        self.say("this line is no message");
        for line in std::io::stdin().lock().lines() {
            let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
            self.take(&message)?;
        }
        std::fs::write(self.dir.join("ended"), "")?;
        // The harness would print what no client expects.
        std::process::exit(0);
    }

    fn say(&self, text: &str) {
        let _one = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    fn answer(&self, id: &Value, result: &Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string());
    }

    fn take(&mut self, message: &Value) -> Result<()> {
        let (id, params) = (&message["id"], &message["params"]);
        match message["method"].as_str().unwrap_or_default() {
            "initialize" => self.answer(
                id,
                &json!({
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {"listChanged": true}},
                    "serverInfo": {"name": "stand-in", "title": "Stand-in", "version": "1"},
                }),
            ),
            "tools/list" => self.list(id, params),
            "tools/call" => self.call(id, params)?,
            "notifications/cancelled" => std::fs::write(self.dir.join("cancelled"), params["requestId"].to_string())?,
            "ping" => self.answer(id, &json!({})),
            _ => {}
        }
        Ok(())
    }

    /// Two pages.
    fn list(&self, id: &Value, params: &Value) {
        let tool = |name: &str| {
            json!({
                "name": name, "title": "T", "description": format!("does {name}"), "inputSchema": {"type": "object"},
                "annotations": {"readOnlyHint": true}, "_meta": {"test/y": 1},
            })
        };
        if params["cursor"] == "rest" {
            let more = ["die", "fail", "steps", "wait"].into_iter().chain(self.more.then_some("later"));
            return self.answer(id, &json!({"tools": more.map(tool).collect::<Vec<_>>()}));
        }
        let first = ["echo", "env", "grow", "large", "odd"].map(tool);
        self.answer(id, &json!({"tools": first, "nextCursor": "rest"}));
    }

    fn call(&mut self, id: &Value, params: &Value) -> Result<()> {
        let args = &params["arguments"];
        let text = |text: String| json!({"content": [{"type": "text", "text": text}]});
        match params["name"].as_str().unwrap_or_default() {
            "echo" => self.answer(id, &text(args.to_string())),
            "env" => {
                let names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
                self.answer(id, &json!({"content": [], "structuredContent": {"names": names}}));
            }
            "grow" => {
                self.more = true;
                self.say(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
                self.answer(id, &text("more".into()));
            }
            "large" => {
                let bytes = usize::try_from(args["bytes"].as_u64().unwrap_or(0))?;
                self.answer(id, &text("\"é\n".repeat(bytes / 4)));
            }
            "odd" => self.answer(id, &odd_result()),
            "die" => std::process::exit(3),
            "steps" => {
                let token = &params["_meta"]["progressToken"];
                for step in 1..=3 {
                    let params = json!({"progressToken": token, "progress": step, "total": 3, "message": format!("step {step}")});
                    self.say(
                        &json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).to_string(),
                    );
                }
                self.answer(id, &text("done".into()));
            }
            "wait" => std::fs::write(self.dir.join("waits"), id.to_string())?,
            name => {
                let error = json!({"code": -32602, "message": format!("no tool {name}"), "data": {"known": 9}});
                self.say(&json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string());
            }
        }
        Ok(())
    }
}

/// A file that a server wrote; `None` as long as it did not.
pub(crate) fn wrote(dir: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(dir.join(name)).ok().filter(|text| name == "ended" || !text.is_empty())
}
