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
    assert_eq!(shown, "AnnS asks in team|A question waits for BobS.");
    Ok(())
}
