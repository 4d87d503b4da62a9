//! `claudemesh mcp` under the MCP client of the official TypeScript SDK.
//!
//! `cargo xtask test` installs the SDK and names its folder in `CLAUDEMESH_TEST_SDK`.

use std::process::Stdio;

use anyhow::{Context, Result};
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::cli::{self, CommandLine};
use claudemesh_testkit::enrol;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

async fn step(lines: &mut Lines<BufReader<ChildStdout>>, name: &str) -> Result<Value> {
    let line = tokio::time::timeout(claudemesh_testkit::host::PATIENCE, lines.next_line())
        .await
        .with_context(|| format!("waiting for step `{name}`"))??
        .with_context(|| format!("the client ended before step `{name}`"))?;
    let step: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    assert_eq!(step["step"], name, "{line}");
    Ok(step)
}

#[tokio::test]
#[ignore = "needs the SDK from npm; `cargo xtask test` installs it and runs this"]
async fn the_typescript_client_lists_sends_and_is_interrupted() -> Result<()> {
    let sdk = std::env::var("CLAUDEMESH_TEST_SDK").context("CLAUDEMESH_TEST_SDK names the SDK's folder")?;
    let broker = TestBroker::start(Database::Sqlite).await?;
    let program = CommandLine::new(env!("CARGO_BIN_EXE_claudemesh"))?;
    program.json(&["create", "team", "--broker", &broker.url(), "--name", "agent", "--json"])?;
    let invite = program.json(&["invite", "--json"])?;
    let code = invite["code"].as_str().context("the invite has a code")?;
    let key = claudemesh_protocol::crypto::keys::SecretKey::random(&mut rand::thread_rng());
    let watcher = std::sync::Arc::new(enrol::claim(&broker.base(), code, key, "watcher")?);
    let mut watcher = broker.join(&watcher).await?;

    let mut command = std::process::Command::new("node");
    cli::clean(&mut command);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/client.mjs");
    command.arg(script).arg(sdk).arg(&program.binary).arg("watcher").envs(program.environment());
    // It takes every notification, and its name is not one of those that are known to.
    command.env("CLAUDEMESH_CHANNEL", "on");
    command.current_dir(program.project()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut client = tokio::process::Command::from(command).kill_on_drop(true).spawn().context("starting node")?;
    let mut lines = BufReader::new(client.stdout.take().context("stdout was piped")?).lines();

    let ready = step(&mut lines, "ready").await?;
    assert!(ready["capabilities"]["experimental"]["claude/channel"].is_object(), "{ready}");
    let names: Vec<&str> =
        ready["tools"].as_array().into_iter().flatten().filter_map(|tool| tool["name"].as_str()).collect();
    for tool in ["list_peers", "send_message", "check_messages"] {
        assert!(names.contains(&tool), "{names:?}");
    }
    let peers = step(&mut lines, "peers").await?;
    assert!(peers.to_string().contains("watcher"), "{peers}");
    let sent = step(&mut lines, "sent").await?;
    assert_ne!(sent["result"]["isError"], true, "{sent}");
    let push = watcher.message().await?;
    assert_eq!(watcher.open(&push)?, "hello from the SDK");

    let sender = push["senderPubkey"].as_str().context("a push names its sender")?.to_owned();
    let ack = watcher.say(&sender, "an answer in mid-turn", json!({"priority": "now"})).await?;
    assert_eq!(ack["queued"], true, "{ack}");
    let note = step(&mut lines, "channel").await?;
    assert!(note["params"]["content"].as_str().is_some_and(|text| text.contains("an answer in mid-turn")), "{note}");
    let meta = note["params"]["meta"].as_object().context("a channel message has meta")?;
    assert!(meta.values().all(Value::is_string), "{note}");
    step(&mut lines, "closed").await?;
    assert!(client.wait().await?.success());
    Ok(())
}
