//! A question that waits is told outside of Claude Code, when somebody wants that.

use anyhow::{Context, Result, ensure};
use claudemesh_testkit::host::{Host, PATIENCE};
use serde_json::json;

use super::team::{Team, options, session, welcomed};

#[tokio::test]
async fn a_question_is_announced_without_its_text() -> Result<()> {
    let team = Team::start().await?;
    let pipe = team.bob.home().join("pipe");
    ensure!(std::process::Command::new("mkfifo").arg(&pipe).status()?.success(), "mkfifo");
    let line = format!("printf '%s|%s' \"$1\" \"$2\" > '{}'", pipe.display());
    let options = options(&team.bob, "11111111-0000-4000-8000-000000000002", "BobS").env("CLAUDEMESH_NOTIFY", &line);
    let mut bob = Host::start(options).await?;
    welcomed(&mut bob).await?;
    let mut ann = session(&team.ann, "11111111-0000-4000-8000-000000000001", "AnnS").await?;
    let _call = ann.start_tool("ask_peer", json!({"to": "BobS", "question": "what is the secret?"})).await?;
    let shown = tokio::task::spawn_blocking(move || std::fs::read_to_string(pipe));
    let shown = tokio::time::timeout(PATIENCE, shown).await.context("no notification came")???;
    assert_eq!(shown, "Ann/AnnS asks in team|A question waits for BobS.");
    Ok(())
}

/// Messages, and what is not wanted is not told of.
#[tokio::test]
async fn messages_are_told_of_and_can_be_turned_off() -> Result<()> {
    let team = Team::start().await?;
    let chosen = team.bob.json(&["notify", "--about", "questions,messages", "--json"])?;
    assert_eq!(chosen["about"], json!(["questions", "messages"]));
    let pipe = team.bob.home().join("pipe");
    ensure!(std::process::Command::new("mkfifo").arg(&pipe).status()?.success(), "mkfifo");
    let line = format!("printf '%s|%s' \"$1\" \"$2\" > '{}'", pipe.display());
    let id = "11111111-0000-4000-8000-000000000002";
    let mut bob = Host::start(options(&team.bob, id, "BobS").env("CLAUDEMESH_NOTIFY", &line)).await?;
    welcomed(&mut bob).await?;
    team.ann.json(&["send", "BobS", "the secret text", "--json"])?;
    let shown = tokio::task::spawn_blocking(move || std::fs::read_to_string(pipe));
    let shown = tokio::time::timeout(PATIENCE, shown).await.context("no notification came")???;
    assert_eq!(shown, "Ann wrote in team|A message for BobS.");
    bob.end().await?;
    // The pause between two notifications is over, and messages are not wanted any more.
    let mark = team.bob.config_dir().join("run/notified");
    std::fs::remove_file(&mark)?;
    team.bob.json(&["notify", "--about", "permissions", "--json"])?;
    let mut bob = Host::start(options(&team.bob, id, "BobS").env("CLAUDEMESH_NOTIFY", "true")).await?;
    welcomed(&mut bob).await?;
    team.ann.json(&["send", "BobS", "another", "--json"])?;
    bob.channel_with("another").await?;
    ensure!(!mark.exists(), "a message was told of");
    bob.end().await?;
    Ok(())
}
