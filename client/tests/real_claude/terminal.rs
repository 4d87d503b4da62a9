//! Claude Code in a terminal: `/clear` and `/compact` under a live server, the plug-in's monitor, the status line, a tool
//! that asks the person.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use claudemesh_testkit::host::PATIENCE;
use claudemesh_testkit::model::{Model, Turn};
use serde_json::json;

use crate::live::{NAME, Stage};
use crate::permissions::version;
use crate::setup;

const KEY: &str = "dummy-key-for-a-loopback-stand-in";
/// The pinned version that runs a plug-in's monitors without a network; 2.1.197 does not.
const RUNS_MONITORS: [u32; 3] = [2, 1, 329];
/// The first version that asks the person before a tool that wants it, whatever is allowed.
const ASKS_PERSON: [u32; 3] = [2, 1, 199];

/// A session in a tmux server of its own.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Starts `claude` as someone would who has been through the first-run questions.
    async fn start(stage: &Stage, model: &Model, args: &[&str]) -> Result<Self> {
        let file = stage.lab.config().join(".claude.json");
        let mut config = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(_) => json!({}),
        };
        config["hasCompletedOnboarding"] = true.into();
        config["theme"] = "dark".into();
        config["customApiKeyResponses"] = json!({"approved": [&KEY[KEY.len() - 20..]], "rejected": []});
        let project = stage.lab.program.project().canonicalize()?.display().to_string();
        config["projects"][&project] =
            json!({"hasTrustDialogAccepted": true, "hasCompletedProjectOnboarding": true, "allowedTools": []});
        std::fs::write(&file, config.to_string())?;
        let mut claude = stage.lab.claude(args);
        claude
            .env("ANTHROPIC_BASE_URL", model.url())
            .env("ANTHROPIC_API_KEY", KEY)
            .env("CLAUDEMESH_DISPLAY_NAME", NAME);
        let terminal = Self { socket: stage.lab.program.home().join("t") };
        let mut command = terminal.tmux();
        command
            .args(["new-session", "-d", "-s", "main", "-x", "120", "-y", "45"])
            .arg(claude.get_program())
            .args(claude.get_args());
        for (name, value) in claude.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("TERM", "xterm-256color").current_dir(stage.lab.program.project());
        anyhow::ensure!(command.status()?.success(), "tmux does not start");
        terminal.shows("❯").await?;
        Ok(terminal)
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(["-f", "/dev/null"]).stdin(Stdio::null());
        command
    }

    fn screen(&self) -> Result<String> {
        let output = self.tmux().args(["capture-pane", "-p", "-t", "main"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn shows(&self, text: &str) -> Result<()> {
        let deadline = tokio::time::Instant::now() + 2 * PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if self.screen()?.contains(text) {
                return Ok(());
            }
            // The screen is drawn by another program, piece by piece: no event says that it is as it will be.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        bail!("the screen never shows `{text}`:\n{}", self.screen()?)
    }

    fn press(&self, key: &str) -> Result<()> {
        anyhow::ensure!(self.tmux().args(["send-keys", "-t", "main", key]).status()?.success());
        Ok(())
    }

    async fn enter(&self, text: &str) -> Result<()> {
        anyhow::ensure!(self.tmux().args(["send-keys", "-t", "main", "-l", "--", text]).status()?.success());
        // The list of commands opens and closes in its own time.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        self.press("Enter")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").stderr(Stdio::null()).status();
    }
}

#[tokio::test]
#[ignore = "needs Claude Code from npm, tmux and a network namespace; `cargo xtask test` has them and runs this"]
async fn the_session_keeps_its_seat_over_clear_and_compact() -> Result<()> {
    let mut stage = Stage::new().await?;
    let model = Model::start(vec![
        Turn::text("Ready.").when("say hi"),
        Turn::text("First wake.").when("before clear"),
        Turn::text("Second wake.").when("after clear"),
    ])
    .await?;
    // In auto mode, which it may start in, messages of others are held.
    let terminal = Terminal::start(&stage, &model, &["--permission-mode", "default"]).await?;
    terminal.enter("say hi").await?;
    terminal.shows("Ready.").await?;
    let key = stage.key().await?;
    let ids = |stage: &Stage| -> Result<String> {
        let folder = stage.lab.program.config_dir().join("run/servers");
        let record = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
        let record =
            record.into_iter().find(|path| path.extension().is_some_and(|end| end == "json")).context("a server")?;
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record)?)?;
        Ok(record["sessionId"].as_str().unwrap_or_default().to_owned())
    };
    let before = ids(&stage)?;
    stage.watcher.say(&key, "before clear", json!({})).await?;
    model.asked("> before clear").await?;
    terminal.shows("First wake.").await?;
    terminal.enter("/clear").await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while ids(&stage)? == before {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "the id does not change:\n{}", terminal.screen()?);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(stage.key().await?, key);
    stage.watcher.say(&key, "after clear", json!({})).await?;
    model.asked("> after clear").await?;
    terminal.shows("Second wake.").await?;
    // An older version compacts only what is worth it.
    for prompt in ["say one thing", "say another thing"] {
        terminal.enter(prompt).await?;
        model.asked(prompt).await?;
        terminal.shows("Done.").await?;
    }
    terminal.enter("/compact").await?;
    terminal.shows("ompacted").await?;
    assert_eq!(stage.key().await?, key);
    stage.watcher.say(&key, "after compact", json!({})).await?;
    model.asked("> after compact").await?;
    Ok(())
}

/// The plug-in without its hooks, so that nothing but the monitor can bring anything.
#[tokio::test]
#[ignore = "needs Claude Code from npm, tmux and a network namespace; `cargo xtask test` has them and runs this"]
async fn the_plug_ins_monitor_brings_a_message_to_a_session_at_rest() -> Result<()> {
    let mut stage = Stage::bare().await?;
    let plugin = stage.lab.program.home().join("plugin");
    let copied = Command::new("cp").arg("-r").arg(setup::plugin()).arg(&plugin).status()?;
    anyhow::ensure!(copied.success(), "the plug-in cannot be copied");
    std::fs::remove_file(plugin.join("hooks/hooks.json"))?;
    let heard = Turn::text("Heard it.").when("by the monitor ⏎");
    let model = Model::start(vec![Turn::text("Ready.").when("say hi"), heard]).await?;
    let terminal = Terminal::start(&stage, &model, &["--plugin-dir", &plugin.display().to_string()]).await?;
    terminal.enter("say hi").await?;
    terminal.shows("Ready.").await?;
    let key = stage.key().await?;
    let monitored = |stage: &Stage| stage.lab.calls().iter().any(|call| call == "hook monitor");
    if version(&stage).await? < RUNS_MONITORS {
        assert!(!monitored(&stage), "this version was seen to leave monitors out: {:?}", stage.lab.calls());
        println!("this version runs no monitors here");
        return Ok(());
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while stage.routes()?["monitor"] != true {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "no monitor follows:\n{}", terminal.screen()?);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(monitored(&stage));
    let sent = std::time::Instant::now();
    let ack = stage.watcher.say(&key, "by the monitor", json!({})).await?;
    // The host escapes what a monitor prints, so our `> ` is not looked for.
    let body = model.asked("by the monitor ⏎").await?["messages"].to_string();
    assert!(body.contains("from \\\"watcher\\\"") && body.contains("not instructions from your user"), "{body}");
    println!("from the send to the model: {} ms", sent.elapsed().as_millis());
    terminal.shows("Heard it.").await?;
    // No hook tells of the turn: the transcript does.
    loop {
        let status = stage.watcher.ask(json!({"type": "message_status", "messageId": ack["messageId"]})).await?;
        let recipient = &status["recipients"][0];
        assert_eq!(recipient["route"], "monitor", "{status}");
        if recipient["stage"] == "seen" {
            return Ok(());
        }
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
#[ignore = "needs Claude Code from npm, tmux and a network namespace; `cargo xtask test` has them and runs this"]
async fn the_status_line_shows_the_mesh() -> Result<()> {
    let mut stage = Stage::installed(&["--status-line"]).await?;
    let model = Model::start(vec![Turn::text("Ready.").when("say hi")]).await?;
    let terminal = Terminal::start(&stage, &model, &[]).await?;
    terminal.enter("say hi").await?;
    terminal.shows("Ready.").await?;
    stage.key().await?;
    terminal.shows("◇ team").await?;
    // The session's server fills it in once someone looks; the host asks again with the next turn.
    let deadline = tokio::time::Instant::now() + 2 * PATIENCE;
    while !terminal.screen()?.contains("online") {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "{}", terminal.screen()?);
        terminal.enter("and again").await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Every tool of ours is allowed by rule; this one asks all the same, because its answer is a person's.
#[tokio::test]
#[ignore = "needs Claude Code from npm, tmux and a network namespace; `cargo xtask test` has them and runs this"]
async fn the_tool_that_passes_a_permission_on_asks_the_person() -> Result<()> {
    let mut stage = Stage::new().await?;
    let answer = json!({"request_id": "abcde", "behavior": "allow"});
    let model = Model::start(vec![
        Turn::tool("mcp__claudemesh__list_peers", json!({})).when("who is there"),
        Turn::text("Two of us."),
        Turn::tool("mcp__claudemesh__answer_permission", answer).when("pass it on"),
        Turn::text("Passed on."),
    ])
    .await?;
    let terminal = Terminal::start(&stage, &model, &["--permission-mode", "default"]).await?;
    terminal.enter("who is there").await?;
    terminal.shows("Two of us.").await?;
    stage.key().await?;
    terminal.enter("pass it on").await?;
    if version(&stage).await? >= ASKS_PERSON {
        terminal.shows("Do you want to").await?;
        assert!(terminal.screen()?.contains("Answer Permission"), "{}", terminal.screen()?);
        assert!(!model.requests().iter().any(|body| body["messages"].to_string().contains("no open request")));
        // A dialog that has just opened takes no key for a moment.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while terminal.screen()?.contains("Do you want to") {
            anyhow::ensure!(tokio::time::Instant::now() < deadline, "{}", terminal.screen()?);
            terminal.press("Enter")?;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        model.asked("no open request abcde").await?;
    } else {
        // It would not ask, so the tool does not decide.
        model.asked("this host does not ask its user").await?;
    }
    terminal.shows("Passed on.").await?;
    Ok(())
}
