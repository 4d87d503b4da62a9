//! Claude Code in a terminal: `/clear` and `/compact` under a live server.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use claudemesh_testkit::host::PATIENCE;
use claudemesh_testkit::model::{Model, Turn};
use serde_json::json;

use crate::live::{NAME, Stage};

const KEY: &str = "dummy-key-for-a-loopback-stand-in";

/// A session in a tmux server of its own.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Starts `claude` as somebody would who has been through the first-run questions.
    async fn start(stage: &Stage, model: &Model) -> Result<Self> {
        let file = stage.lab.config().join(".claude.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        config["hasCompletedOnboarding"] = true.into();
        config["theme"] = "dark".into();
        config["customApiKeyResponses"] = json!({"approved": [&KEY[KEY.len() - 20..]], "rejected": []});
        let project = stage.lab.program.project().canonicalize()?.display().to_string();
        config["projects"][&project] =
            json!({"hasTrustDialogAccepted": true, "hasCompletedProjectOnboarding": true, "allowedTools": []});
        std::fs::write(&file, config.to_string())?;
        let mut claude = stage.lab.claude(&[]);
        claude
            .env("ANTHROPIC_BASE_URL", model.url())
            .env("ANTHROPIC_API_KEY", KEY)
            .env("CLAUDEMESH_DISPLAY_NAME", NAME);
        let terminal = Self { socket: stage.lab.program.home().join("t") };
        let mut command = terminal.tmux();
        command.args(["new-session", "-d", "-s", "main", "-x", "120", "-y", "45"]).arg(claude.get_program());
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
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        bail!("the screen never shows `{text}`:\n{}", self.screen()?)
    }

    async fn enter(&self, text: &str) -> Result<()> {
        anyhow::ensure!(self.tmux().args(["send-keys", "-t", "main", "-l", "--", text]).status()?.success());
        // The list of commands opens and closes in its own time.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        anyhow::ensure!(self.tmux().args(["send-keys", "-t", "main", "Enter"]).status()?.success());
        Ok(())
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
    let terminal = Terminal::start(&stage, &model).await?;
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
