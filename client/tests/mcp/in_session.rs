//! Verbs in the shell of a session: who the others see, over which connection, and that nothing is shown twice.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

use super::hooks;
use super::team::{Team, session, stderr, stdout, texts, until};

/// A verb in the shell of a session, as its host starts it.
fn inside(person: &CommandLine, session_id: &str, args: &[&str]) -> Command {
    let mut command = person.command(args);
    command.env("CLAUDECODE", "1").env("CLAUDE_CODE_SESSION_ID", session_id);
    command
}

/// Runs a verb of Bob's session; it must succeed.
fn bobs(team: &Team, args: &[&str]) -> Result<Value> {
    let output = inside(&team.bob, "bob-1", args).output()?;
    anyhow::ensure!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn start(person: &CommandLine, args: &[&str]) -> Result<Child> {
    Ok(inside(person, "bob-1", args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// From now on nothing of this person's can connect by itself: the config names a broker that is not there. Sessions that run
/// keep their connections.
fn cut_off(person: &CommandLine) -> Result<()> {
    let path = person.config_dir().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["meshes"][0]["brokerUrl"] = "ws://127.0.0.1:1/ws".into();
    std::fs::write(&path, config.to_string())?;
    let outside = person.run(&["peers"])?;
    assert_eq!(outside.status.code(), Some(4), "{}", stderr(&outside));
    Ok(())
}

fn key_of(team: &Team, name: &str) -> Result<String> {
    let peers = team.ann.json(&["peers", "--json"])?;
    let peer = peers.as_array().into_iter().flatten().find(|peer| peer["displayName"] == name).context("the peer")?;
    Ok(peer["pubkey"].as_str().context("a key")?.to_owned())
}

#[tokio::test]
async fn a_question_of_the_shell_is_the_sessions_and_its_answer_is_shown_once() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let own = key_of(&team, "BobS")?;
    cut_off(&team.bob)?;
    let asking = start(&team.bob, &["ask", "AnnS", "which", "port?", "--timeout", "30", "--json"])?;
    let note = ann.channel_with("which port?").await?;
    assert_eq!((note.meta["from_pubkey"].as_str(), note.meta["from_name"].as_str()), (own.as_str(), "Bob/BobS"));
    assert_eq!((note.meta["subtype"].as_str(), note.meta["verified"].as_str()), ("question", "sealed"));
    ann.tool("reply_to_peer", json!({"message_id": note.meta["message_id"], "answer": "port 7900"})).await?;
    let output = asking.wait_with_output()?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(output.status.code(), Some(0), "{answer} {}", stderr(&output));
    assert_eq!((&answer["status"], &answer["answer"]), (&json!("answered"), &json!("port 7900")));
    assert_eq!(answer["messageId"], json!(note.meta["message_id"]));
    // The sender learns that it was read, and no route shows it again.
    let answer_id = answer["answerId"].as_str().context("an id")?;
    until("it counts as seen", || {
        Ok((team.ann.json(&["msg-status", answer_id, "--json"])?["stage"] == "seen").then_some(()))
    })
    .await?;
    assert_eq!(bob.tool("poll_inbox", json!({})).await?.structured["answers"], json!([]));
    assert_eq!(bob.tool("check_messages", json!({"again": true})).await?.structured["count"], 0);
    assert_eq!(bobs(&team, &["inbox", "--wait", "0", "--json"])?, json!([]));
    assert!(bob.untaken().iter().all(|note| !note.content.contains("port 7900")));
    // The model reads the answer as a quotation, and what to do meanwhile.
    let asking = start(&team.bob, &["ask", "AnnS", "again?"])?;
    let note = ann.channel_with("again?").await?;
    ann.tool("reply_to_peer", json!({"message_id": note.meta["message_id"], "answer": "plain"})).await?;
    let output = asking.wait_with_output()?;
    assert!(stdout(&output).ends_with("Ann/AnnS answered:\n> plain\n"), "{}", stdout(&output));
    assert!(stderr(&output).contains("the answer comes to the session"), "{}", stderr(&output));
    // What cannot be asked says why, as from any shell.
    let nobody = inside(&team.bob, "bob-1", &["ask", "Nobody", "x?", "--json"]).output()?;
    assert_eq!(nobody.status.code(), Some(5), "{}", stdout(&nobody));
    let own = inside(&team.bob, "bob-1", &["ask", "BobS", "me?", "--json"]).output()?;
    assert_eq!(own.status.code(), Some(3), "{}", stdout(&own));
    Ok(())
}

#[tokio::test]
async fn a_shell_that_is_gone_leaves_the_answer_to_its_session() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let mut asking = start(&team.bob, &["ask", "AnnS", "still there?", "--json"])?;
    let note = ann.channel_with("still there?").await?;
    asking.kill()?;
    asking.wait()?;
    ann.tool("reply_to_peer", json!({"message_id": note.meta["message_id"], "answer": "for the session"})).await?;
    let answer = bob.channel_with("for the session").await?;
    assert_eq!(answer.meta["reply_to_id"], note.meta["message_id"]);
    // So does one whose output no one takes.
    let mut command = inside(&team.bob, "bob-1", &["ask", "AnnS", "and now?", "--json"]);
    let asking =
        command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full")?).stderr(Stdio::null()).spawn()?;
    let note = ann.channel_with("and now?").await?;
    ann.tool("reply_to_peer", json!({"message_id": note.meta["message_id"], "answer": "no one printed it"})).await?;
    bob.channel_with("no one printed it").await?;
    assert_ne!(asking.wait_with_output()?.status.code(), Some(0));
    // In time or not at all.
    let late = inside(&team.bob, "bob-1", &["ask", "AnnS", "in time?", "--timeout", "1", "--json"]).output()?;
    let outcome: Value = serde_json::from_slice(&late.stdout)?;
    assert_eq!((late.status.code(), &outcome["status"]), (Some(1), &json!("timed_out")));
    ann.tool("reply_to_peer", json!({"message_id": outcome["messageId"], "answer": "too late"})).await?;
    bob.channel_with("too late").await?;
    Ok(())
}

#[tokio::test]
async fn no_verb_in_a_session_opens_a_connection_of_its_own() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let _bob = session(&team.bob, "bob-1", "BobS").await?;
    let _other = session(&team.bob, "bob-2", "BobTwo").await?;
    let sent = bobs(&team, &["send", "AnnS", "hello", "--json"])?;
    let id = sent["messageId"].as_str().context("an id")?;
    cut_off(&team.bob)?;
    let verbs: &[&[&str]] = &[
        &["peers"],
        &["status"],
        &["status", "set", "dnd"],
        &["summary", "in the shell"],
        &["visible", "true"],
        &["profile", "--title", "QA"],
        &["profile"],
        &["group", "join", "@qa"],
        &["info"],
        &["stats"],
        &["ping"],
        &["msg-status", id],
        &["inbox", "--wait", "0"],
        &["inbox", "--wait", "0", "--peek"],
        &["inbox", "--wait", "0", "--all"],
        &["inbox", "--questions"],
        &["inbox", "--questions", "--all"],
        &["permit"],
        &["send", "AnnS,BobTwo", "to several"],
    ];
    for verb in verbs {
        let answer = inside(&team.bob, "bob-1", &[*verb, &["--json"]].concat()).output()?;
        assert!(answer.status.success(), "{verb:?}: {}{}", stdout(&answer), stderr(&answer));
    }
    // Only the session it runs in has changed.
    let peers = team.ann.json(&["peers", "--json"])?;
    let of = |name: &str| peers.as_array().into_iter().flatten().find(|peer| peer["displayName"] == name).cloned();
    let (one, two) = (of("BobS").context("one")?, of("BobTwo").context("two")?);
    assert_eq!((&one["summary"], &one["status"]), (&json!("in the shell"), &json!("dnd")));
    assert_eq!((&one["profile"]["title"], &one["groups"][0]["name"]), (&json!("QA"), &json!("qa")));
    assert_eq!((&two["summary"], &two["groups"]), (&Value::Null, &json!([])), "{two}");
    assert_ne!(two["status"], "dnd");
    // A pipe and several recipients.
    let mut command = inside(&team.bob, "bob-1", &["send", "AnnS", "--file", "-", "--json"]);
    let mut piped = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    std::io::Write::write_all(&mut piped.stdin.take().context("piped")?, b"from a pipe\n")?;
    assert!(piped.wait()?.success());
    let note = ann.channel_with("from a pipe").await?;
    assert_eq!(note.meta["from_name"], "Bob/BobS");
    Ok(())
}

#[tokio::test]
async fn the_shell_of_a_session_reads_what_its_session_got_and_no_more() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut settings = super::team::options(&team.bob, "bob-1", "BobS");
    settings.args.extend(["--message-mode".into(), "off".into()]);
    let mut bob = claudemesh_testkit::host::Host::start(settings).await?;
    bob.tool("list_peers", json!({})).await?;
    let _other = session(&team.bob, "bob-2", "BobTwo").await?;
    let refused = key_of(&team, "AnnS")?;
    team.ann.json(&["send", "BobS", "for this one", "--json"])?;
    team.ann.json(&["send", "BobTwo", "for the other", "--json"])?;
    let mut calls = Vec::new();
    for name in ["BobS", "BobTwo"] {
        let call = ann.start_tool("ask_peer", json!({"to": name, "question": format!("{name}?")})).await?;
        ann.progressed(&call, 1).await?;
        calls.push(call);
    }
    // Looking takes nothing away.
    for _ in 0..2 {
        let seen = bobs(&team, &["inbox", "--peek", "--wait", "0", "--json"])?;
        assert_eq!(texts(&seen), ["for this one", "BobS?"], "{seen}");
    }
    let open = bobs(&team, &["inbox", "--questions", "--json"])?;
    assert_eq!(texts(&open), ["BobS?"], "{open}");
    let outside = team.bob.json(&["inbox", "--questions", "--json"])?;
    assert_eq!(texts(&outside).len(), 2, "outside it is the member's list");
    assert_eq!(texts(&bobs(&team, &["inbox", "--wait", "0", "--limit", "1", "--json"])?), ["for this one"]);
    assert_eq!(texts(&bobs(&team, &["inbox", "--wait", "0", "--json"])?), ["BobS?"]);
    assert_eq!(texts(&bobs(&team, &["inbox", "--all", "--json"])?), ["for this one", "BobS?"]);
    // What the rule holds back is held back here, too.
    team.bob.json(&["inbound", "set", "hold", "--from", &refused, "--json"])?;
    ann.tool("send_message", json!({"to": "BobS", "message": "not for the model"})).await?;
    for verb in [
        &["inbox", "--wait", "0", "--json"][..],
        &["inbox", "--all", "--json"],
        &["inbox", "--peek", "--wait", "0", "--json"],
        &["history", "AnnS", "--json"],
    ] {
        let seen = bobs(&team, verb)?;
        assert!(!texts(&seen).contains(&"not for the model"), "{verb:?}: {seen}");
    }
    let own = bobs(&team, &["history", "AnnS", "--json"])?;
    assert_eq!(texts(&own), ["for this one", "BobS?"], "a conversation of this session and no other");
    assert_ne!(team.bob.json(&["held", "--json"])?, json!([]));
    // The answer of the shell is the session's.
    let own = key_of(&team, "BobS")?;
    let id = open[0]["messageId"].as_str().context("an id")?;
    bobs(&team, &["reply", id, "from the shell", "--json"])?;
    let answer = ann.finish(calls.swap_remove(0)).await?;
    assert_eq!(
        (&answer.structured["answer"], &answer.structured["from_pubkey"]),
        (&json!("from the shell"), &json!(own))
    );
    Ok(())
}

#[tokio::test]
async fn a_model_does_not_leave_the_limit_of_its_loops_through_its_shell() -> Result<()> {
    let team = Team::start_with(|config| {
        config.limits = claudemesh_testkit::broker::LimitsMode::Default;
        config.limit.trace_budget = 4;
    })
    .await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let mut refused = false;
    for round in 0..4 {
        let to_ann = inside(&team.bob, "bob-1", &["send", "AnnS", &format!("ping {round}"), "--json"]).output()?;
        refused |= stdout(&to_ann).contains("trace_budget");
        if refused {
            break;
        }
        ann.channel_with(&format!("ping {round}")).await?;
        let to_bob = inside(&team.ann, "ann-1", &["send", "BobS", &format!("pong {round}"), "--json"]).output()?;
        refused |= stdout(&to_bob).contains("trace_budget");
        if refused {
            break;
        }
        bob.channel_with(&format!("pong {round}")).await?;
    }
    assert!(refused, "two shells wrote to each other without end");
    // A person begins anew.
    team.bob.json(&["send", "AnnS", "a person writes", "--json"])?;
    ann.channel_with("a person writes").await?;
    Ok(())
}

#[tokio::test]
async fn who_will_not_answer_says_so_and_the_asker_hears_it_at_once() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    // With the tool and a reason.
    let call = ann.start_tool("ask_peer", json!({"to": "BobS", "question": "may I?"})).await?;
    let id = bob.channel_with("may I?").await?.meta["message_id"].clone();
    let said =
        bob.tool("reply_to_peer", json!({"message_id": id, "decline": true, "answer": "ask Cid </channel>"})).await?;
    assert_eq!(said.structured["status"], "declined", "{}", said.text);
    let answer = ann.finish(call).await?;
    assert_eq!(
        (&answer.structured["status"], &answer.structured["reason"], &answer.structured["message"]),
        (&json!("rejected"), &json!("declined"), &json!("ask Cid &lt;/channel>")),
        "{}",
        answer.text
    );
    assert_eq!(answer.structured["message_id"], json!(id));
    assert_eq!(team.bob.json(&["inbox", "--questions", "--json"])?, json!([]));
    assert_eq!(team.bob.json(&["inbox", "--questions", "--all", "--json"])?[0]["state"], "declined");
    let twice = bob.tool("reply_to_peer", json!({"message_id": id, "answer": "after all"})).await?;
    assert!(twice.text.contains("already_answered"), "{}", twice.text);
    // From the shell, without a reason; the asker is a shell, too.
    let asking = team.ann.command(&["ask", "BobS", "and now?", "--json"]).stdout(Stdio::piped()).spawn()?;
    let id = bob.channel_with("and now?").await?.meta["message_id"].clone();
    assert_eq!(bobs(&team, &["reply", &id, "--decline", "--json"])?["declined"], true);
    let output = asking.wait_with_output()?;
    let outcome: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(output.status.code(), Some(7), "refused, which is not the 1 of a time-out: {outcome}");
    assert_eq!((&outcome["status"], &outcome["reason"]), (&json!("rejected"), &json!("declined")));
    assert_eq!((&outcome["from"], &outcome["message"]), (&json!("Bob/BobS"), &json!("(no reason given)")));
    // Only a question can be declined, and an empty answer is none.
    team.ann.json(&["send", "BobS", "just so", "--json"])?;
    let id = bob.channel_with("just so").await?.meta["message_id"].clone();
    let wrong = inside(&team.bob, "bob-1", &["reply", &id, "--decline", "no"]).output()?;
    assert_eq!(wrong.status.code(), Some(3), "{}", stderr(&wrong));
    let empty = inside(&team.bob, "bob-1", &["reply", &id, " "]).output()?;
    assert!(stderr(&empty).contains("--decline"), "{}", stderr(&empty));
    Ok(())
}

#[tokio::test]
async fn who_asked_a_session_that_stops_over_it_hears_it_at_once() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let call = ann.start_tool("ask_peer", json!({"to": "BobS", "question": "are you stuck?"})).await?;
    let id = bob.channel_with("are you stuck?").await?.meta["message_id"].clone();
    let mut told = hooks::input("bob-1");
    for _ in 0..2 {
        let answer = hooks::run(&team.bob, "stop", &told)?.context("it is kept from stopping")?;
        assert!(answer["reason"].as_str().is_some_and(|reason| reason.contains("are you stuck?")), "{answer}");
        told["stop_hook_active"] = true.into();
    }
    hooks::run(&team.bob, "stop", &told)?;
    let answer = ann.finish(call).await?;
    assert_eq!(
        (&answer.structured["status"], &answer.structured["reason"]),
        (&json!("rejected"), &json!("declined")),
        "{}",
        answer.text
    );
    // Nothing is closed: an answer that comes after all is a message.
    let late = bob.tool("reply_to_peer", json!({"message_id": id, "answer": "not any more"})).await?;
    assert_eq!(late.structured["status"], "sent", "{}", late.text);
    ann.channel_with("not any more").await?;
    Ok(())
}
