//! The tools in the model's hands.

use anyhow::{Context, Result};
use claudemesh_testkit::model::{Model, Turn};
use serde_json::json;

use crate::lab::Lab;

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn the_scripted_model_lists_peers_and_its_message_arrives() -> Result<()> {
    let lab = Lab::new()?;
    let (_broker, mut watcher) = lab.team().await?;
    let model = Model::start(vec![
        Turn::tool("mcp__claudemesh__list_peers", json!({})),
        Turn::tool("mcp__claudemesh__send_message", json!({"to": "watcher", "message": "hello from Claude Code"})),
        Turn::text("All done."),
    ])
    .await?;
    let servers = json!({"mcpServers": {"claudemesh": {
        "type": "stdio", "command": lab.program.binary, "args": ["mcp"],
        "env": lab.program.environment().into_iter().collect::<std::collections::HashMap<_, _>>(),
    }}});
    let file = lab.program.home().join("mcp.json");
    std::fs::write(&file, servers.to_string())?;
    let mut command = lab.prompt(&model, &["--allowedTools", "mcp__claudemesh", "--strict-mcp-config"]);
    command.arg("--mcp-config").arg(&file);
    let printed = lab.good(command).await?;
    assert!(printed.contains("All done."), "{printed}");

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
