//! The real Claude Code against a scripted model, without a network: it lists peers and sends a message that arrives.
//!
//! `cargo xtask test` installs the pinned versions, names the program in `CLAUDEMESH_TEST_CLAUDE` and runs this in a
//! network namespace that has loopback only.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::cli::{self, CommandLine};
use claudemesh_testkit::enrol;
use claudemesh_testkit::model::{Model, Turn};
use serde_json::json;

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn the_scripted_model_lists_peers_and_its_message_arrives() -> Result<()> {
    let claude = std::env::var("CLAUDEMESH_TEST_CLAUDE").context("CLAUDEMESH_TEST_CLAUDE names the program")?;
    let broker = TestBroker::start(Database::Sqlite).await?;
    let program = CommandLine::new(env!("CARGO_BIN_EXE_claudemesh"))?;
    program.json(&["create", "team", "--broker", &broker.url(), "--name", "agent", "--json"])?;
    let invite = program.json(&["invite", "--json"])?;
    let code = invite["code"].as_str().context("the invite has a code")?;
    let key = claudemesh_protocol::crypto::keys::SecretKey::random(&mut rand::thread_rng());
    let watcher = std::sync::Arc::new(enrol::claim(&broker.base(), code, key, "watcher")?);
    let mut watcher = broker.join(&watcher).await?;

    let model = Model::start(vec![
        Turn::tool("mcp__claudemesh__list_peers", json!({})),
        Turn::tool("mcp__claudemesh__send_message", json!({"to": "watcher", "message": "hello from Claude Code"})),
        Turn::text("All done."),
    ])
    .await?;

    let servers = json!({"mcpServers": {"claudemesh": {
        "type": "stdio", "command": program.binary, "args": ["mcp"],
        "env": program.environment().into_iter().collect::<std::collections::HashMap<_, _>>(),
    }}});
    let servers_file = program.home().join("mcp.json");
    std::fs::write(&servers_file, servers.to_string())?;
    let config = program.home().join("claude");
    std::fs::create_dir_all(&config)?;

    let mut command = std::process::Command::new(claude);
    cli::clean(&mut command);
    command.args([
        "-p",
        "say hi",
        "--output-format",
        "json",
        "--allowedTools",
        "mcp__claudemesh",
        "--strict-mcp-config",
    ]);
    command.arg("--mcp-config").arg(&servers_file).current_dir(program.project());
    command.env("HOME", program.home()).env("CLAUDE_CONFIG_DIR", &config);
    command.env("ANTHROPIC_BASE_URL", model.url()).env("ANTHROPIC_API_KEY", "dummy-key-for-a-loopback-stand-in");
    for switch in [
        "DISABLE_AUTOUPDATER",
        "DISABLE_TELEMETRY",
        "DISABLE_ERROR_REPORTING",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    ] {
        command.env(switch, "1");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let session = tokio::process::Command::from(command).kill_on_drop(true).spawn().context("starting claude")?;
    let output = tokio::time::timeout(Duration::from_secs(120), session.wait_with_output())
        .await
        .context("claude did not end within two minutes")??;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {stdout}{stderr}", output.status);
    assert!(stdout.contains("All done."), "{stdout}");

    // What the tools said went back to the model.
    let requests = model.requests();
    let last = requests.iter().rev().find(|body| body["messages"].to_string().contains("hello from Claude Code"));
    let messages = last.context("the model saw its own call")?["messages"].to_string();
    assert!(messages.contains("watcher"), "list_peers did not name the peer: {messages}");
    assert!(!messages.contains("\"is_error\":true"), "a tool failed: {messages}");
    assert_eq!(model.unused(), 0, "the script was not played to its end");
    assert_eq!(watcher.text().await?, "hello from Claude Code");
    Ok(())
}
