//! What proves that a message was shown, and what becomes of messages whose server or hook dies before that.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use super::hooks::{self, context, input};
use super::routes::{receipt, routes, waiting, without_channel};
use super::team::{Team, session, stderr, until};

/// Writes a line of the host's transcript.
fn append(transcript: &Path, line: &Value) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(transcript)?;
    Ok(std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes())?)
}

/// What the model says, in the transcript: all blocks of one answer have its id.
fn said(answer: &str) -> Value {
    json!({"type": "assistant", "message": {"id": answer, "content": [{"type": "text", "text": "…"}]}})
}

#[tokio::test]
async fn of_calls_made_at_once_one_does_not_prove_what_another_brought() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = without_channel(&team.bob, "bob-1", "BobS").await?;
    let send = |text: &str| -> Result<String> {
        let sent = team.ann.json(&["send", "BobS", text, "--priority", "now", "--json"])?;
        Ok(sent["messageId"].as_str().context("an id")?.to_owned())
    };
    let arrived = || async { until("it arrived", || Ok((routes(&team.bob)?["unshown"] == 1).then_some(()))).await };
    let hook = |word: &str, told: &Value| hooks::run(&team.bob, word, told);
    let told = input("bob-1");
    hook("prompt", &told)?;
    let by_hook = send("with the first of two calls")?;
    arrived().await?;
    assert!(context(hook("post-tool", &told)?.as_ref()).contains("> with the first of two calls"));
    until("handed", || Ok((receipt(&team.ann, &by_hook)?.0 == "handed").then_some(()))).await?;
    assert_eq!(hooks::beside_the_notice(hook("post-tool", &told)?), None);
    // What the session says goes in order, so this answer comes after whatever the hook set off.
    bob.tool("ping_mesh", json!({})).await?;
    assert_eq!(receipt(&team.ann, &by_hook)?.0, "handed", "the second call was made before the first brought anything");
    // Neither does the call that reads its mail prove by its own hook that the model has read the answer.
    let by_pull = send("pulled")?;
    arrived().await?;
    assert_eq!(bob.tool("check_messages", json!({})).await?.structured["count"], 1);
    assert_eq!(hook("post-tool", &told)?, None);
    bob.tool("ping_mesh", json!({})).await?;
    assert_eq!(receipt(&team.ann, &by_pull)?, ("handed".into(), "pull".into()));
    // The end of the turn does, for both.
    assert_eq!(hook("stop", &told)?, None);
    for id in [&by_hook, &by_pull] {
        until("seen", || Ok((receipt(&team.ann, id)?.0 == "seen").then_some(()))).await?;
    }
    // So does the transcript, in the middle of a turn: another answer of the model, not the rest of the same.
    let transcript = team.bob.project().join("transcript.jsonl");
    append(&transcript, &said("msg_1"))?;
    let mut told = told;
    told["transcript_path"] = json!(transcript);
    hook("prompt", &told)?;
    let id = send("in the transcript")?;
    arrived().await?;
    let shown = hook("post-tool", &told)?;
    append(&transcript, &json!({"type": "attachment", "attachment": {"content": context(shown.as_ref())}}))?;
    append(&transcript, &said("msg_1"))?;
    assert_eq!(hooks::beside_the_notice(hook("post-tool", &told)?), None);
    bob.tool("ping_mesh", json!({})).await?;
    assert_eq!(receipt(&team.ann, &id)?.0, "handed");
    append(&transcript, &said("msg_2"))?;
    until("seen", || Ok((receipt(&team.ann, &id)? == ("seen".into(), "hook".into())).then_some(()))).await?;
    Ok(())
}

#[tokio::test]
async fn a_channel_that_swallows_is_found_out_and_nothing_is_lost() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let transcript = team.bob.project().join("transcript.jsonl");
    std::fs::write(&transcript, "{\"type\":\"user\"}\n")?;
    let mut told = input("bob-1");
    told["transcript_path"] = json!(transcript);
    hooks::run(&team.bob, "session-start", &told)?;
    let waiter = hooks::start(&team.bob, "wait", &told)?;
    waiting(&team.bob).await?;
    // This host takes the note and shows it to no one: the transcript never has it.
    team.ann.json(&["send", "BobS", "into the void", "--json"])?;
    bob.channel_with("into the void").await?;
    let woken = hooks::end(waiter).await?;
    assert_eq!(woken.status.code(), Some(2));
    assert!(stderr(&woken).contains("> into the void"), "{}", stderr(&woken));
    let state = routes(&team.bob)?;
    assert_eq!(state["channel"], "dead", "{state}");
    assert!(state["channel_reason"].as_str().is_some_and(|reason| reason.contains("transcript")), "{state}");
    Ok(())
}

#[tokio::test]
async fn a_channel_that_works_is_proved_by_the_transcript() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let transcript = team.bob.project().join("transcript.jsonl");
    std::fs::write(&transcript, "")?;
    let mut told = input("bob-1");
    told["transcript_path"] = json!(transcript);
    hooks::run(&team.bob, "session-start", &told)?;
    let sent = team.ann.json(&["send", "BobS", "through the channel", "--json"])?;
    let note = bob.channel_with("through the channel").await?;
    let id = sent["messageId"].as_str().context("an id")?.to_owned();
    append(&transcript, &json!({"type": "user", "message": note.meta["message_id"]}))?;
    until("proven", || Ok((routes(&team.bob)?["channel"] == "proven").then_some(()))).await?;
    assert_eq!(receipt(&team.ann, &id)?.0, "handed", "the model has not answered yet");
    append(&transcript, &said("msg_1"))?;
    until("seen", || Ok((receipt(&team.ann, &id)? == ("seen".into(), "channel".into())).then_some(()))).await?;
    Ok(())
}

#[tokio::test]
async fn a_waiting_hook_that_is_killed_loses_nothing() -> Result<()> {
    let team = Team::start().await?;
    let bob = without_channel(&team.bob, "bob-1", "BobS").await?;
    let mut waiter = hooks::start(&team.bob, "wait", &input("bob-1"))?;
    waiting(&team.bob).await?;
    waiter.kill()?;
    waiter.wait()?;
    team.ann.json(&["send", "BobS", "still here", "--json"])?;
    let second = hooks::start(&team.bob, "wait", &input("bob-1"))?;
    let woken = hooks::end(second).await?;
    assert_eq!(woken.status.code(), Some(2));
    assert!(stderr(&woken).contains("> still here"));
    // A newer one replaces the one before, which ends without waking anyone.
    let third = hooks::start(&team.bob, "wait", &input("bob-1"))?;
    waiting(&team.bob).await?;
    let fourth = hooks::start(&team.bob, "wait", &input("bob-1"))?;
    assert_eq!(hooks::end(third).await?.status.code(), Some(0));
    // The session ends: so does its waiting hook.
    bob.end().await?;
    rustix::process::kill_process(Pid::from_child(&fourth), Signal::TERM)?;
    hooks::end(fourth).await?;
    Ok(())
}

/// Taken out of the inbox, given to a hook, and then the server dies: no one has said that it was shown.
#[tokio::test]
async fn a_server_that_is_killed_between_taking_and_showing_loses_nothing() -> Result<()> {
    use std::io::{BufRead, BufReader, Write};
    let team = Team::start().await?;
    let bob = without_channel(&team.bob, "bob-1", "BobS").await?;
    let server = claudemesh::config::ConfigStore::at(team.bob.config_dir()).servers().pop().context("a server")?;
    // A hook that takes the text and never says that it has printed it.
    let mut mute = BufReader::new(std::os::unix::net::UnixStream::connect(&server.socket)?);
    mute.get_mut().write_all(b"{\"op\":\"wait\",\"event\":\"wait\",\"session_id\":\"bob-1\"}\n")?;
    waiting(&team.bob).await?;
    team.ann.json(&["send", "BobS", "do not lose me", "--json"])?;
    let mut line = String::new();
    mute.read_line(&mut line)?;
    assert!(line.contains("do not lose me"), "{line}");
    super::takeover::send_signal(super::takeover::pid(&bob), rustix::process::Signal::KILL)?;
    drop(bob);
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    assert_eq!(bob.channel_with("do not lose me").await?.meta["kind"], "direct");
    // Once: what is settled stays settled.
    assert_eq!(bob.tool("check_messages", json!({})).await?.structured["count"], 0);
    bob.end().await?;
    Ok(())
}
