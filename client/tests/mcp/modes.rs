//! Floods, long texts, and sessions that do not want to be disturbed.

use anyhow::{Context, Result};
use claudemesh_testkit::host::Host;
use serde_json::{Value, json};

use super::hooks::{self, context, input};
use super::routes::{bob_peers, routes, waiting, without_channel};
use super::team::{Team, options, session, stderr, stdout, until};

#[tokio::test]
async fn a_loud_sender_and_a_backlog_are_told_as_numbers() -> Result<()> {
    let team = Team::start().await?;
    let bob = session(&team.bob, "bob-1", "BobS").await?;
    let key = bob_peers(&team, "BobS")?[0]["pubkey"].as_str().context("a key")?.to_owned();
    bob.end().await?;
    let mut recipients = vec![];
    for number in 0..45 {
        recipients.push(team.ann.json(&["send", &key, &format!("text {number}"), "--json"])?);
    }
    team.ann.json(&["send", &key, "urgent", "--priority", "now", "--json"])?;
    // More than forty wait: only what is urgent is written out, the rest is a number.
    let mut bob = Host::start(options(&team.bob, "bob-1", "BobS")).await?;
    let note = bob.channel_with("mesh messages wait").await?;
    assert_eq!(note.meta["kind"], "digest");
    let shown: Vec<String> = bob.untaken().into_iter().map(|note| note.content).collect();
    assert!(shown.iter().all(|text| !text.starts_with("text ")), "{shown:?}");
    if !shown.iter().any(|text| text == "urgent") {
        // It was sent last, so the number may be told before it is here.
        bob.channel_with("urgent").await?;
    }
    let mut read = 0;
    while read < 45 {
        let pulled = bob.tool("check_messages", json!({})).await?;
        let count = pulled.structured["count"].as_u64().unwrap_or(0);
        anyhow::ensure!(count > 0, "{read} of 45: {}", pulled.text);
        read += count;
    }
    // One sender has thirty a minute, the urgent one among them; what is more waits, and others are not touched by it.
    for number in 0..32 {
        team.ann.json(&["send", "BobS", &format!("loud {number}"), "--json"])?;
    }
    bob.channel_with("loud 28").await?;
    until("the rest waits", || Ok((routes(&team.bob)?["unshown"] == 3).then_some(()))).await?;
    team.bob.json(&["send", "BobS", "from someone else", "--self", "--json"])?;
    bob.channel_with("from someone else").await?;
    assert!(bob.untaken().iter().all(|note| !note.content.starts_with("loud 29")));
    // Let through and still waiting when the user turns permission prompts off: that is decided again.
    let mut told = input("bob-1");
    told["permission_mode"] = "bypassPermissions".into();
    let shown = hooks::run(&team.bob, "prompt", &told)?.context("the user is told what is held")?;
    assert!(shown["systemMessage"].as_str().is_some_and(|text| text.contains("3 in team")), "{shown}");
    assert_eq!(shown.as_object().map(serde_json::Map::len), Some(1), "the model is told nothing: {shown}");
    assert_eq!(team.bob.json(&["held", "--json"])?.as_array().map(Vec::len), Some(3));
    Ok(())
}

#[tokio::test]
async fn in_mode_inbox_hooks_say_how_much_waits_and_nothing_wakes() -> Result<()> {
    let team = Team::start().await?;
    let mut options = options(&team.bob, "bob-1", "BobS").env("CLAUDEMESH_CHANNEL", "off");
    options.args.extend(["--message-mode".into(), "inbox".into()]);
    let mut bob = Host::start(options).await?;
    bob.tool("ping_mesh", json!({})).await?;
    let waiter = hooks::start(&team.bob, "wait", &input("bob-1"))?;
    waiting(&team.bob).await?;
    team.ann.json(&["send", "BobS", "not now", "--json"])?;
    until("it arrived", || Ok((routes(&team.bob)?["unshown"] == 1).then_some(()))).await?;
    let answer = hooks::run(&team.bob, "prompt", &input("bob-1"))?;
    let text = context(answer.as_ref());
    assert!(text.contains("1 mesh messages wait in team") && !text.contains("not now"), "{text}");
    assert_eq!(hooks::run(&team.bob, "post-tool", &input("bob-1"))?, None, "told once");
    assert_eq!(routes(&team.bob)?["waiting"], true, "the waiting hook was not used");
    drop(hooks::end_now(waiter)?);
    Ok(())
}

#[tokio::test]
async fn the_inbox_of_a_session_is_read_in_its_shell() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = without_channel(&team.bob, "bob-1", "BobS").await?;
    let _other = without_channel(&team.bob, "bob-2", "BobTwo").await?;
    team.ann.json(&["send", "BobS", "for one session", "--json"])?;
    team.ann.json(&["send", "BobTwo", "for the other", "--json"])?;
    team.ann.json(&["send", "BobS", "not urgent", "--priority", "low", "--json"])?;
    let inside = |args: &[&str]| -> Result<Value> {
        let output = team.bob.command(args).env("CLAUDECODE", "1").env("CLAUDE_CODE_SESSION_ID", "bob-1").output()?;
        assert!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let read = inside(&["inbox", "--json"])?;
    assert_eq!(super::team::texts(&read), ["for one session", "not urgent"], "{read}");
    assert_eq!(inside(&["inbox", "--wait", "0", "--json"])?, json!([]));
    // What the shell of the session has read, no other route brings again.
    assert_eq!(bob.tool("check_messages", json!({})).await?.structured["count"], 0);
    Ok(())
}

#[tokio::test]
async fn a_long_text_is_shown_by_its_beginning_and_lies_whole_in_a_private_file() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let long = "0123456789 line of a long text\n".repeat(3_000);
    let file = team.ann.project().join("long.txt");
    std::fs::write(&file, &long)?;
    let path = file.display().to_string();
    team.ann.json(&["send", "BobS", "--file", &path, "--json"])?;
    let note = bob.channel_with("0123456789").await?;
    assert!(note.content.chars().count() < 5_000);
    let whole = std::path::PathBuf::from(&note.meta["whole_file"]);
    assert_eq!(std::fs::read_to_string(&whole)?, long.trim_end_matches('\n'));
    assert_eq!(std::fs::metadata(&whole)?.permissions().mode() & 0o777, 0o600);
    let again = bob.tool("check_messages", json!({"again": true})).await?;
    let shown = &again.structured["messages"][0];
    assert_eq!(shown["whole_file"].as_str(), whole.to_str(), "{again:?}");
    assert!(shown["text"].as_str().is_some_and(|text| text.chars().count() < 5_000));
    // In the text form nothing that a peer writes stands at the start of a line.
    assert!(again.text.lines().filter(|line| line.contains("line of a long text")).all(|line| line.starts_with("> ")));
    Ok(())
}

#[tokio::test]
async fn who_does_not_want_to_be_disturbed_gets_what_is_urgent_and_no_events() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    bob.tool("set_status", json!({"status": "dnd"})).await?;
    // Someone comes, and writes once without and once with urgency.
    let ann = session(&team.ann, "ann-1", "AnnS").await?;
    team.ann.json(&["send", "BobS", "in your own time", "--json"])?;
    team.ann.json(&["send", "BobS", "the building burns", "--priority", "now", "--json"])?;
    // Taken one by one: neither the arrival of Ann nor anything else comes before.
    assert_eq!(bob.channel().await?.content, "the building burns");
    bob.tool("set_status", json!({"status": "idle"})).await?;
    assert_eq!(bob.channel().await?.content, "in your own time");
    ann.end().await?;
    Ok(())
}
