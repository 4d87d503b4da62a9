//! An MCP server from npm, called directly and through the mesh: equal tools, equal results.
//!
//! `cargo xtask test` installs the server and names its folder in `CLAUDEMESH_TEST_MCP_EVERYTHING`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

/// The server's end of two pipes.
struct Direct {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: u64,
}

impl Direct {
    fn start(program: &PathBuf) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("stdio").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting the server")?;
        let (input, output) = (child.stdin.take().context("piped")?, child.stdout.take().context("piped")?);
        let mut direct = Self { child, input, output: BufReader::new(output), asked: 0 };
        let hello = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "claudemesh", "version": "1"},
        });
        direct.ask("initialize", &hello)?;
        direct.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        Ok(direct)
    }

    fn say(&mut self, message: &Value) -> Result<()> {
        writeln!(self.input, "{message}")?;
        Ok(self.input.flush()?)
    }

    fn ask(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.asked += 1;
        let id = self.asked;
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))?;
        loop {
            let mut line = String::new();
            ensure!(self.output.read_line(&mut line)? > 0, "the server ended");
            let message: Value = serde_json::from_str(&line)?;
            if message["id"] == id && message["method"].is_null() {
                return Ok(message["result"].clone());
            }
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `claudemesh serve`, until it is dropped.
struct Serve(Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "needs a server from npm; `cargo xtask test` installs it and runs this"]
async fn a_server_of_others_is_the_same_directly_and_through_the_mesh() -> Result<()> {
    let folder = std::env::var("CLAUDEMESH_TEST_MCP_EVERYTHING").context("it names the server's folder")?;
    let program = PathBuf::from(folder).join("node_modules/.bin/mcp-server-everything");
    let mut direct = Direct::start(&program)?;
    let broker = TestBroker::start(Database::Sqlite).await?;
    let (ann, bob) =
        (CommandLine::new(env!("CARGO_BIN_EXE_claudemesh"))?, CommandLine::new(env!("CARGO_BIN_EXE_claudemesh"))?);
    ann.json(&["create", "team", "--broker", &broker.url(), "--name", "Ann", "--json"])?;
    let invite = ann.json(&["invite", "--json"])?;
    bob.json(&["join", invite["url"].as_str().context("a link")?, "--name", "Bob", "--json"])?;
    ann.json(&["mcp-add", "everything", "--json", "--", &program.to_string_lossy(), "stdio"])?;
    let mut child = ann.command(&["serve", "--json"]).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let _serve = Serve(child);
    let served: Value = serde_json::from_str(&lines.next().context("a line")??)?;
    assert_eq!(served["registered"], true, "{served}");

    let tools = direct.ask("tools/list", &json!({}))?["tools"].as_array().context("tools")?.clone();
    let mut through = bob.json(&["mesh-mcp", "schema", "everything", "--json"])?;
    for tool in through.as_array_mut().into_iter().flatten() {
        tool.as_object_mut().context("an object")?.shift_remove("mesh");
    }
    assert_eq!(through, json!(tools), "names, schemas, annotations and all the rest");
    let calls = [
        ("echo", json!({"message": "café \u{202e} \u{1f98a} \"quoted\"\n"})),
        ("get-sum", json!({"a": 1.5, "b": -7})),
        ("get-tiny-image", json!({})),
        ("get-annotated-message", json!({"messageType": "error", "includeImage": true})),
        ("get-structured-content", json!({"location": "Chicago"})),
        ("get-resource-links", json!({"count": 3})),
        ("get-resource-reference", json!({"resourceType": "Blob", "resourceId": 2})),
        ("trigger-long-running-operation", json!({"duration": 1, "steps": 2})),
        ("get-sum", json!({"a": "no number"})),
        ("nosuch", json!({})),
    ];
    let without_times = |value: &Value| {
        // Resources say when they were made.
        let text = value.to_string();
        let time = regex::Regex::new(r"\d+:\d+:\d+( [AP]M)?|\d{4}-\d\d-\d\dT[\d:.]+Z").map_err(anyhow::Error::from)?;
        Ok::<_, anyhow::Error>(time.replace_all(&text, "<time>").into_owned())
    };
    for (name, args) in calls {
        let expected = direct.ask("tools/call", &json!({"name": name, "arguments": args}))?;
        let output = bob.run(&["call", "everything", name, &args.to_string(), "--json"])?;
        let called: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!(without_times(&called["result"])?, without_times(&expected)?, "{name}");
        assert_eq!(
            (&called["ok"], output.status.success()),
            (&json!(expected["isError"] != true), expected["isError"] != true)
        );
    }
    Ok(())
}
