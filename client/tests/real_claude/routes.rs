//! Messages and questions reach the real Claude Code where channels are off, in both versions.

use anyhow::{Context, Result};
use claudemesh_testkit::host::PATIENCE;
use claudemesh_testkit::model::Turn;
use claudemesh_testkit::wait;
use serde_json::json;

use crate::live::{self, Live, Stage};

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn a_message_wakes_an_idle_session_which_answers() -> Result<()> {
    let mut stage = Stage::new().await?;
    let model = live::model(vec![
        Turn::tool("mcp__claudemesh__send_message", json!({"to": "watcher", "message": "I am awake"}))
            .when("wake up now"),
        Turn::text("Back to rest."),
        Turn::tool("mcp__claudemesh__send_message", json!({"to": "watcher", "message": "again"})).when("and once more"),
        Turn::text("Back to rest again."),
    ])
    .await?;
    let mut session = Live::start(&stage, &model, &[]).await?;
    let key = stage.key().await?;
    for (text, answer) in [("wake up now", "I am awake"), ("and once more", "again")] {
        let sent = std::time::Instant::now();
        let ack = stage.watcher.say(&key, text, json!({})).await?;
        model.asked(text).await?;
        println!("from the send to the model: {} ms", sent.elapsed().as_millis());
        assert_eq!(stage.watcher.text().await?, answer);
        session.result().await?;
        // The end of the turn proves it at the latest; its hook and the acknowledgement may come a moment after the result.
        let request = json!({"type": "message_status", "messageId": ack["messageId"]});
        let seen = async || {
            let status = stage.watcher.ask(request.clone()).await?;
            let recipient = &status["recipients"][0];
            assert_eq!(recipient["route"], "rewake");
            Ok((recipient["stage"] == "seen").then_some(()))
        };
        wait::until("the message is seen", PATIENCE, seen).await?;
    }
    let body = model.asked("wake up now").await?["messages"].to_string();
    assert!(body.contains("> wake up now") && body.contains("from \\\"watcher\\\""), "{body}");
    session.end().await?;
    stage.quiet().await
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn a_working_session_is_interrupted_at_its_next_tool_call() -> Result<()> {
    let mut stage = Stage::new().await?;
    let model = live::model(vec![]).await?;
    let mut session = Live::start(&stage, &model, &["--allowedTools", "Bash"]).await?;
    let key = stage.key().await?;
    // The tool itself brings the message about: it is there before the call's hook fires.
    let flag = stage.lab.program.project().join("go");
    let command = format!("touch '{}'; while [ -e '{}' ]; do sleep 0.05; done", flag.display(), flag.display());
    model.then(Turn::tool("Bash", json!({"command": command, "description": "wait"})).when("work on it"));
    model.then(Turn::text("Interrupted.").when("drop everything"));
    session.say("work on it").await?;
    let running = wait::until("the tool runs", PATIENCE, async || Ok(flag.exists().then_some(()))).await;
    running.with_context(|| format!("{:?}", model.requests().last()))?;
    stage.watcher.say(&key, "drop everything", json!({"priority": "now"})).await?;
    // Only when it is in the session's inbox may the tool end.
    stage.arrived(1).await?;
    std::fs::remove_file(&flag)?;
    let body = model.asked("drop everything").await?["messages"].to_string();
    assert!(body.contains("> drop everything"), "{body}");
    let result = session.result().await?;
    assert_eq!(result["result"], "Interrupted.");
    session.end().await
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn the_stop_hook_makes_it_answer_a_question() -> Result<()> {
    let mut stage = Stage::new().await?;
    let model = live::model(vec![]).await?;
    let mut session = Live::start(&stage, &model, &[]).await?;
    let key = stage.key().await?;
    model.then(Turn::text("I would rather rest.").when("what is six times seven"));
    let ack =
        stage.watcher.say(&key, "what is six times seven", json!({"subtype": "question", "priority": "now"})).await?;
    let id = ack["messageId"].as_str().context("an id")?;
    let answer = json!({"message_id": id, "answer": "42"});
    model.then(Turn::tool("mcp__claudemesh__reply_to_peer", answer).when("Stop hook feedback:\\n"));
    assert_eq!(stage.watcher.text().await?, "42");
    session.result().await?;
    session.end().await
}

/// Where no hooks are installed, the inbox socket wakes the session with what its own user wrote, and with nothing else.
#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn without_hooks_the_inbox_socket_brings_what_the_user_wrote() -> Result<()> {
    let mut stage = Stage::new().await?;
    let settings = stage.lab.config().join("settings.json");
    let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&settings)?)?;
    value.as_object_mut().context("settings")?.remove("hooks");
    std::fs::write(&settings, value.to_string())?;
    let model = live::model(vec![Turn::text("Read.").when("from my own shell")]).await?;
    let mut session = Live::start(&stage, &model, &[]).await?;
    let key = stage.key().await?;
    if !stage.inbox_socket()? {
        println!("this version has no inbox socket");
        return session.end().await;
    }
    stage.watcher.say(&key, "from a stranger", json!({})).await?;
    stage.arrived(1).await?;
    stage.lab.program.json(&["send", &key, "from my own shell", "--self", "--json"])?;
    let body = model.asked("> from my own shell").await?["messages"].to_string();
    assert!(!body.contains("from a stranger"), "the host would vouch for it: {body}");
    session.result().await?;
    session.end().await
}
