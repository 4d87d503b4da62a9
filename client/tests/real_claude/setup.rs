//! The three ways to set claudemesh up, as Claude Code itself takes them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use claudemesh_testkit::model::{Model, Turn};
use serde_json::{Value, json};

use crate::lab::Lab;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}

pub(crate) fn plugin() -> String {
    repository().join("deploy/plugin").display().to_string()
}

/// The hooks of a run with one tool call, each as often as it has to be.
fn assert_hooks_fired(lab: &Lab) {
    let calls = lab.calls();
    let count = |line: &str| calls.iter().filter(|call| *call == line).count();
    for (line, times) in [
        ("hook session-start", 1),
        ("hook prompt", 1),
        ("hook post-tool", 1),
        ("hook stop", 1),
        ("hook session-end", 1),
        // Armed at the start and again after the turn.
        ("hook wait", 2),
        ("mcp", 1),
    ] {
        assert_eq!(count(line), times, "claudemesh {line}: {calls:#?}");
    }
}

/// Lets the model call one tool and end; answers what the tool said to it.
async fn one_turn(lab: &Lab, tool: &str, args: &[&str]) -> Result<String> {
    let model = Model::start(vec![Turn::tool(tool, json!({})), Turn::text("All done.")]).await?;
    let mut command = lab.prompt(&model, args);
    command.arg("--allowedTools").arg(tool);
    let printed = lab.good(command).await?;
    assert!(printed.contains("All done."), "{printed}");
    let last = model.requests().into_iter().rev().find(|body| body["messages"].to_string().contains("tool_result"));
    let messages = last.context("the model got the tool's answer")?["messages"].to_string();
    assert!(!messages.contains("\"is_error\":true"), "a tool failed: {messages}");
    Ok(messages)
}

/// `claudemesh <args>` as a user of this Claude Code would call it.
fn ours(lab: &Lab, args: &[&str]) -> Command {
    let mut command = lab.program.command(args);
    command.env("CLAUDE_CONFIG_DIR", lab.config());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let claude = lab.claude(&[]);
    let path = claude.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value);
    command.env("PATH", path.unwrap_or_default());
    command
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn plugin_and_marketplace_pass_the_strict_validation() -> Result<()> {
    let lab = Lab::new()?;
    for path in [plugin(), repository().display().to_string()] {
        let said = lab.good(lab.claude(&["plugin", "validate", "--strict", &path])).await?;
        assert!(said.contains("Validation passed"), "{said}");
    }
    // What the program writes for itself is as good.
    let own = lab.program.home().join("plug in").display().to_string();
    lab.good(ours(&lab, &["install", "--plugin-dir", &own])).await?;
    lab.good(lab.claude(&["plugin", "validate", "--strict", &own])).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn the_plugin_is_installed_from_a_folder_works_and_goes() -> Result<()> {
    let lab = Lab::new()?;
    let (_broker, _watcher) = lab.team().await?;
    let root = repository().display().to_string();
    lab.good(lab.claude(&["plugin", "marketplace", "add", &root])).await?;
    lab.good(lab.claude(&["plugin", "install", "claudemesh@claudemesh"])).await?;
    let listed = lab.good(lab.claude(&["mcp", "list"])).await?;
    let row = listed.lines().find(|line| line.contains("plugin:claudemesh:claudemesh")).context(listed.clone())?;
    assert!(row.contains("Connected"), "{row}");
    // Beside it, install adds the permission only.
    let answer = lab.json(ours(&lab, &["install", "--json"])).await?;
    assert_eq!((&answer["plugin"], &answer["hooks"]["result"]), (&json!("claudemesh@claudemesh"), &Value::Null));

    std::fs::remove_file(lab.program.home().join("calls"))?;
    let said = one_turn(&lab, "mcp__plugin_claudemesh_claudemesh__list_peers", &[]).await?;
    assert!(said.contains("watcher"), "{said}");
    assert_hooks_fired(&lab);

    lab.good(lab.claude(&["plugin", "uninstall", "claudemesh@claudemesh"])).await?;
    let listed = lab.good(lab.claude(&["mcp", "list"])).await?;
    assert!(!listed.contains("plugin:claudemesh"), "{listed}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn the_plugin_is_loaded_for_one_session_with_its_skill() -> Result<()> {
    let lab = Lab::new()?;
    let (_broker, _watcher) = lab.team().await?;
    let model = Model::start(vec![
        Turn::tool("mcp__plugin_claudemesh_claudemesh__list_peers", json!({})),
        Turn::text("All done."),
    ])
    .await?;
    let args = ["--plugin-dir", &plugin(), "--allowedTools", "mcp__plugin_claudemesh_claudemesh__list_peers"];
    lab.good(lab.prompt(&model, &args)).await?;
    assert_hooks_fired(&lab);
    let first =
        model.requests().into_iter().find(|body| body["tools"].as_array().is_some_and(|tools| !tools.is_empty()));
    let first = first.context("a request with tools")?.to_string();
    assert!(first.contains("claudemesh:claudemesh"), "the skill is offered: {first}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn a_direct_install_works_and_goes() -> Result<()> {
    let lab = Lab::new()?;
    let (_broker, _watcher) = lab.team().await?;
    // Install names the program itself; the wrapper that counts is called by its short name.
    lab.good(ours(&lab, &["install", "--mesh", "team"])).await?;
    lab.good(ours(&lab, &["uninstall"])).await?;
    lab.good(ours(&lab, &["install"])).await?;
    for name in [".claude.json", "settings.json"] {
        let path = lab.config().join(name);
        let text = std::fs::read_to_string(&path)?.replace(env!("CARGO_BIN_EXE_claudemesh"), "claudemesh");
        std::fs::write(&path, text)?;
    }
    let listed = lab.good(lab.claude(&["mcp", "list"])).await?;
    let row = listed.lines().find(|line| line.starts_with("claudemesh:")).context(listed.clone())?;
    assert!(row.contains("Connected"), "{row}");

    std::fs::remove_file(lab.program.home().join("calls"))?;
    let said = one_turn(&lab, "mcp__claudemesh__list_peers", &[]).await?;
    assert!(said.contains("watcher"), "{said}");
    assert_hooks_fired(&lab);

    lab.good(ours(&lab, &["uninstall"])).await?;
    let listed = lab.good(lab.claude(&["mcp", "list"])).await?;
    assert!(!listed.contains("claudemesh"), "{listed}");
    assert!(!lab.config().join("settings.json").exists(), "it was not there before");
    Ok(())
}

/// The manual way: the printed command and the printed settings, used as they are.
#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn the_printed_way_works() -> Result<()> {
    let lab = Lab::new()?;
    let (_broker, _watcher) = lab.team().await?;
    let printed = lab.json(ours(&lab, &["install", "--print", "--json"])).await?;
    let text = printed.to_string().replace(env!("CARGO_BIN_EXE_claudemesh"), "claudemesh");
    let printed: Value = serde_json::from_str(&text)?;
    let words: Vec<&str> = printed["command"].as_str().context("a command")?.split(' ').collect();
    assert_eq!(words[0], "claude");
    lab.good(lab.claude(&words[1..])).await?;
    std::fs::write(lab.config().join("settings.json"), printed["settings"].to_string())?;
    let said = one_turn(&lab, "mcp__claudemesh__list_peers", &[]).await?;
    assert!(said.contains("watcher"), "{said}");
    assert_hooks_fired(&lab);
    // And uninstall knows it again.
    lab.good(ours(&lab, &["uninstall"])).await?;
    assert_eq!(std::fs::read_to_string(lab.config().join("settings.json"))?.trim(), "{}");
    Ok(())
}

/// Nothing is installed: the launch brings server, permission and hooks for this session alone.
#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn a_launch_gives_a_bare_session_everything() -> Result<()> {
    let lab = Lab::new()?;
    let (_broker, _watcher) = lab.team().await?;
    let tool = Turn::tool("mcp__claudemesh__list_peers", json!({}));
    let model = Model::start(vec![tool, Turn::text("All done.")]).await?;
    let pattern = lab.prompt(&model, &[]);
    let mut command = ours(&lab, &["launch", "team", "--quiet", "--name", "Ann", "--", "-p", "say hi"]);
    command.envs(pattern.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("CLAUDE_BIN", pattern.get_program());
    command.args(["--output-format", "stream-json", "--verbose", "--include-hook-events"]);
    let printed = lab.good(command).await?;
    let last = model.requests().into_iter().rev().find(|body| body["messages"].to_string().contains("tool_result"));
    let messages = last.context("the model got the tool's answer")?["messages"].to_string();
    assert!(messages.contains("watcher") && !messages.contains("\"is_error\":true"), "{messages}");
    for event in ["SessionStart", "UserPromptSubmit", "PostToolUse", "Stop"] {
        assert!(printed.contains(&format!("\"hook_event\":\"{event}\"")), "{event}: {printed}");
    }
    for name in [".claude.json", "settings.json"] {
        let text = std::fs::read_to_string(lab.config().join(name)).unwrap_or_default();
        assert!(!text.contains("claudemesh\":") && !text.contains("hook stop"), "{name}: {text}");
    }
    Ok(())
}
