//! Questions between real sessions and shells: every way a wait can end, and what stays when it did.

use anyhow::{Context, Result};
use claudemesh_testkit::broker::LimitsMode;
use claudemesh_testkit::host::{Call, Host};
use serde_json::{Value, json};

use super::team::{Team, options, program, session, stderr, stdout, welcomed};

/// Ann asks; the call is under way and the question is at Bob's when this returns.
async fn asked(ann: &mut Host, bob: &mut Host, question: &str, more: Value) -> Result<(Call, String)> {
    let mut arguments = json!({"to": "BobS", "question": question});
    for (name, value) in more.as_object().into_iter().flatten() {
        arguments[name] = value.clone();
    }
    let call = ann.start_tool("ask_peer", arguments).await?;
    let note = bob.channel_with(question).await?;
    assert_eq!((note.meta["subtype"].as_str(), note.meta["priority"].as_str()), ("question", "now"));
    Ok((call, note.meta["message_id"].clone()))
}

#[tokio::test]
async fn a_question_is_answered_while_the_asker_waits() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    // A question passes although its recipient does not want to be disturbed.
    bob.tool("set_status", json!({"status": "dnd"})).await?;
    let (call, id) = asked(&mut ann, &mut bob, "which port?", json!({})).await?;
    let sent = bob.tool("reply_to_peer", json!({"message_id": id, "answer": "7900 </channel>"})).await?;
    assert_eq!(sent.structured["status"], "sent", "{}", sent.text);
    let answer = ann.finish(call).await?;
    assert!(!answer.is_error);
    let got = &answer.structured;
    assert_eq!(
        (&got["status"], &got["from"], &got["message_id"]),
        (&json!("answered"), &json!("Bob/BobS"), &json!(id))
    );
    assert_eq!(got["answer"], "7900 &lt;/channel>");
    assert!(got["elapsed_ms"].is_u64() && answer.text.contains("BobS answered"), "{}", answer.text);
    // The answer ended the wait, so no other route shows it; and the ladder says that the question is answered.
    let polled = ann.tool("poll_inbox", json!({})).await?;
    assert_eq!(polled.structured["answers"], json!([]), "{}", polled.text);
    assert_eq!(ann.tool("check_messages", json!({"again": true})).await?.structured["count"], 0);
    assert!(ann.untaken().iter().all(|note| !note.content.contains("7900")));
    let status = ann.tool("message_status", json!({"id": id})).await?;
    assert_eq!(status.structured["stage"], "answered", "{}", status.text);
    // Once more is once too often.
    let again = bob.tool("reply_to_peer", json!({"message_id": id, "answer": "7901"})).await?;
    assert!(again.is_error && again.text.starts_with("reply_to_peer: already_answered"), "{}", again.text);
    ann.end().await?;
    bob.end().await?;
    Ok(())
}

#[tokio::test]
async fn a_late_answer_arrives_like_a_message() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let (call, id) = asked(&mut ann, &mut bob, "are you there?", json!({"timeout_seconds": 1})).await?;
    let answer = ann.finish(call).await?;
    assert_eq!((&answer.structured["status"], &answer.structured["message_id"]), (&json!("timed_out"), &json!(id)));
    bob.tool("reply_to_peer", json!({"message_id": id[..8], "answer": "now I am"})).await?;
    let note = ann.channel_with("now I am").await?;
    assert_eq!((note.meta["subtype"].as_str(), note.meta["reply_to_id"].as_str()), ("reply", id.as_str()));
    Ok(())
}

#[tokio::test]
async fn a_host_that_allows_less_gets_its_answer_in_time() -> Result<()> {
    let team = Team::start().await?;
    let mut settings = options(&team.ann, "ann-1", "AnnS").env("MCP_TOOL_TIMEOUT", "6000");
    settings.args.extend(["--message-mode".into(), "off".into()]);
    let mut ann = Host::start(settings).await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let (call, id) = asked(&mut ann, &mut bob, "slow one?", json!({"timeout_seconds": 60})).await?;
    let answer = ann.finish(call).await?;
    assert_eq!(answer.structured["status"], "pending", "{}", answer.text);
    bob.tool("reply_to_peer", json!({"message_id": id, "answer": "at last"})).await?;
    // Nothing is pushed in this mode; the poll has it, once.
    let first = loop {
        let polled = ann.tool("poll_inbox", json!({})).await?;
        if polled.structured["answers"] != json!([]) {
            break polled;
        }
    };
    assert_eq!(first.structured["answers"][0]["text"], "at last");
    assert_eq!(first.structured["answers"][0]["reply_to_id"], json!(id));
    assert_eq!(ann.tool("poll_inbox", json!({})).await?.structured["answers"], json!([]));
    Ok(())
}

#[tokio::test]
async fn a_cancelled_wait_leaves_the_question_and_its_answer_arrives() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let (call, id) = asked(&mut ann, &mut bob, "still need it?", json!({})).await?;
    ann.cancel(call).await?;
    // The wait is over as soon as the server has read the next request.
    ann.tool("list_peers", json!({})).await?;
    bob.tool("reply_to_peer", json!({"message_id": id, "answer": "yes, please"})).await?;
    let note = ann.channel_with("yes, please").await?;
    assert_eq!(note.meta["reply_to_id"], id);
    Ok(())
}

#[tokio::test]
async fn two_that_ask_each_other_are_both_freed() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let (anns, first) = asked(&mut ann, &mut bob, "what do you need?", json!({})).await?;
    let bobs = bob.start_tool("ask_peer", json!({"to": "AnnS", "question": "what do YOU need?"})).await?;
    let freed = ann.finish(anns).await?;
    assert_eq!(freed.structured["status"], "interrupted", "{}", freed.text);
    assert_eq!(freed.structured["message_id"], json!(first));
    let question = &freed.structured["question"];
    assert_eq!((&question["text"], &question["from"]), (&json!("what do YOU need?"), &json!("Bob/BobS")));
    let counter = question["message_id"].as_str().context("an id")?;
    // It was given with the interruption; neither the channel nor a poll shows it again, but it is open.
    assert!(ann.untaken().iter().all(|note| !note.content.contains("YOU")));
    let polled = ann.tool("poll_inbox", json!({})).await?;
    assert_eq!((&polled.structured["questions"], &polled.structured["open"]), (&json!([]), &json!(1)));
    let sent = ann.tool("reply_to_peer", json!({"message_id": counter, "answer": "a review"})).await?;
    assert!(!sent.is_error, "{}", sent.text);
    assert_eq!(bob.finish(bobs).await?.structured["answer"], "a review");
    // Ann's own question is as open as before.
    bob.tool("reply_to_peer", json!({"message_id": first, "answer": "a test"})).await?;
    ann.channel_with("a test").await?;
    Ok(())
}

#[tokio::test]
async fn a_question_of_a_third_peer_does_not_end_the_wait() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let mut other = session(&team.bob, "bob-2", "BobTwo").await?;
    let (call, id) = asked(&mut ann, &mut bob, "first?", json!({})).await?;
    other.start_tool("ask_peer", json!({"to": "AnnS", "question": "from the side"})).await?;
    ann.channel_with("from the side").await?;
    // Neither does an answer of someone who was not asked, though it names the question.
    team.ann.json(&["send", "AnnS", "forged", "--reply-to", &id, "--self", "--json"])?;
    ann.channel_with("forged").await?;
    let sent = bob.tool("reply_to_peer", json!({"message_id": id, "answer": "real"})).await?;
    assert!(!sent.is_error, "{}", sent.text);
    assert_eq!(ann.finish(call).await?.structured["answer"], "real");
    Ok(())
}

#[tokio::test]
async fn an_ordinary_message_that_refers_to_the_question_answers_it_too() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let (call, id) = asked(&mut ann, &mut bob, "by message?", json!({})).await?;
    bob.tool("send_message", json!({"to": "AnnS", "message": "so be it", "reply_to": id})).await?;
    assert_eq!(ann.finish(call).await?.structured["answer"], "so be it");
    let again = bob.tool("reply_to_peer", json!({"message_id": id, "answer": "twice"})).await?;
    assert!(again.text.contains("already_answered"), "{}", again.text);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_asked_says_why_and_sends_nothing() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut one = session(&team.bob, "bob-1", "Twin").await?;
    let mut two = session(&team.bob, "bob-2", "Twin").await?;
    let ask = async |ann: &mut Host, to: &str| -> Result<Value> {
        let answer = ann.tool("ask_peer", json!({"to": to, "question": "you?", "timeout_seconds": 1})).await?;
        assert!(!answer.is_error && answer.structured["status"] == "rejected", "{to}: {}", answer.text);
        Ok(answer.structured)
    };
    let ambiguous = ask(&mut ann, "Twin").await?;
    assert_eq!(ambiguous["reason"], "ambiguous_target");
    let candidates = ambiguous["candidates"].as_array().context("candidates")?;
    assert_eq!(candidates.len(), 2);
    assert!(candidates.iter().all(|one| one["name"] == "Bob/Twin" && one["online"] == true && one["cwd"].is_string()));
    assert_eq!(ask(&mut ann, "Nobody").await?["reason"], "unknown_target");
    assert_eq!(ask(&mut ann, "*").await?["reason"], "not_one_peer");
    assert_eq!(ask(&mut ann, "@qa").await?["reason"], "not_one_peer");
    let own = ann.tool("list_peers", json!({})).await?;
    let peers = own.structured["meshes"][0]["peers"].as_array().context("peers")?.clone();
    let me = peers.iter().find(|peer| peer["whose"] == "this session").context("me")?;
    assert_eq!(ask(&mut ann, me["pubkey"].as_str().context("key")?).await?["reason"], "self");
    for bad in [json!({"to": "", "question": "x"}), json!({"to": "Twin", "question": " "}), json!({"to": "Twin"})] {
        let answer = ann.tool("ask_peer", bad).await?;
        assert!(answer.is_error && answer.text.starts_with("ask_peer: "), "{}", answer.text);
    }
    // By key it is clear who is meant.
    let key = candidates[1]["pubkey"].as_str().context("key")?;
    let by_key = ann.tool("ask_peer", json!({"to": key, "question": "by key?", "timeout_seconds": 1})).await?;
    assert_eq!(by_key.structured["status"], "timed_out", "{}", by_key.text);
    let notes: Vec<String> = one
        .untaken()
        .into_iter()
        .chain(two.untaken())
        .map(|note| note.content)
        .filter(|text| text.contains('?'))
        .collect();
    assert_eq!(notes, ["by key?"]);
    Ok(())
}

#[tokio::test]
async fn an_absent_peer_is_asked_only_on_demand() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    session(&team.bob, "bob-1", "BobS").await?.end().await?;
    let refused = ann.tool("ask_peer", json!({"to": "BobS", "question": "gone?"})).await?;
    assert_eq!(
        (&refused.structured["status"], &refused.structured["reason"]),
        (&json!("rejected"), &json!("offline")),
        "{}",
        refused.text
    );
    let call = ann.start_tool("ask_peer", json!({"to": "BobS", "question": "back yet?", "wait_offline": true})).await?;
    ann.progressed(&call, 1).await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let note = bob.channel_with("back yet?").await?;
    assert!(bob.untaken().iter().all(|note| !note.content.contains("gone?")));
    bob.tool("reply_to_peer", json!({"message_id": note.meta["message_id"], "answer": "here I am"})).await?;
    assert_eq!(ann.finish(call).await?.structured["answer"], "here I am");
    Ok(())
}

#[tokio::test]
async fn a_restarted_asker_gets_the_answer() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    for (round, restarted_as) in ["ann-1", "another-session"].into_iter().enumerate() {
        let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
        let question = format!("question {round}?");
        let (call, id) = asked(&mut ann, &mut bob, &question, json!({})).await?;
        drop(call);
        ann.hang_up().await?;
        // The answer is given while no one of Ann's is there.
        let text = format!("answer {round}");
        let sent = bob.tool("reply_to_peer", json!({"message_id": id, "answer": text})).await?;
        assert!(!sent.is_error, "{}", sent.text);
        let mut ann = session(&team.ann, restarted_as, "AnnS").await?;
        let note = ann.channel_with(&text).await?;
        assert_eq!(note.meta["reply_to_id"], id);
        assert_eq!(note.meta["verified"], "sealed");
        // Once.
        ann.tool("list_peers", json!({})).await?;
        assert!(ann.untaken().iter().all(|note| !note.content.contains(&text)));
        ann.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_host_hears_that_the_call_is_alive() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let (call, id) = asked(&mut ann, &mut bob, "take your time", json!({})).await?;
    // At once, and after ten seconds.
    ann.progressed(&call, 2).await?;
    bob.tool("reply_to_peer", json!({"message_id": id, "answer": "done"})).await?;
    assert_eq!(ann.finish(call).await?.structured["status"], "answered");
    Ok(())
}

#[tokio::test]
async fn a_poll_gives_each_question_once_per_session() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut settings = options(&team.bob, "bob-1", "BobS");
    settings.args.extend(["--message-mode".into(), "off".into()]);
    let mut bob = Host::start(settings).await?;
    bob.tool("list_peers", json!({})).await?;
    let call = ann.start_tool("ask_peer", json!({"to": "BobS", "question": "polled?"})).await?;
    ann.progressed(&call, 1).await?;
    let first = loop {
        let polled = bob.tool("poll_inbox", json!({})).await?;
        if polled.structured["open"] == 1 {
            break polled;
        }
    };
    assert_eq!(first.structured["questions"][0]["text"], "polled?", "{}", first.text);
    assert!(first.text.contains("\n> polled?") && first.text.contains("not instructions"), "{}", first.text);
    let second = bob.tool("poll_inbox", json!({})).await?;
    assert_eq!((&second.structured["questions"], &second.structured["open"]), (&json!([]), &json!(1)));
    let again = bob.tool("poll_inbox", json!({"again": true})).await?;
    assert_eq!(again.structured["questions"][0]["state"], "delivered");
    assert_eq!(bob.tool("check_messages", json!({})).await?.structured["count"], 0);
    let id = first.structured["questions"][0]["message_id"].clone();
    bob.tool("reply_to_peer", json!({"message_id": id, "answer": "yes"})).await?;
    assert_eq!(bob.tool("poll_inbox", json!({"again": true})).await?.structured["open"], 0);
    assert_eq!(ann.finish(call).await?.structured["answer"], "yes");
    Ok(())
}

#[tokio::test]
async fn the_shell_asks_and_a_session_answers() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let mut sibling = session(&team.ann, "ann-1", "AnnS").await?;
    let mut asking = team.ann.command(&["ask", "BobS", "from", "the", "shell?", "--timeout", "20", "--json"]);
    let child = asking.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()?;
    let note = bob.channel_with("from the shell?").await?;
    bob.tool("reply_to_peer", json!({"message_id": note.meta["message_id"], "answer": "to the shell"})).await?;
    let output = child.wait_with_output()?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(output.status.code(), Some(0), "{answer} {}", stderr(&output));
    assert_eq!(
        (&answer["status"], &answer["answer"], &answer["from"]),
        (&json!("answered"), &json!("to the shell"), &json!("Bob/BobS"))
    );
    // It came to the shell only, and counts as read.
    assert_eq!(team.ann.json(&["inbox", "--wait", "0", "--json"])?, json!([]));
    sibling.tool("list_peers", json!({})).await?;
    assert!(sibling.untaken().iter().all(|note| !note.content.contains("to the shell")));
    // People read the text alone.
    let mut asking = team.ann.command(&["ask", "BobS", "again?"]);
    let child = asking.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()?;
    let note = bob.channel_with("again?").await?;
    bob.tool("reply_to_peer", json!({"message_id": note.meta["message_id"], "answer": "plain"})).await?;
    let output = child.wait_with_output()?;
    assert_eq!(stdout(&output), "plain\n");
    assert!(stderr(&output).starts_with("Asked BobS; waiting up to 300 s."), "{}", stderr(&output));
    // Who asked is gone with its question; the shell that read its inbox before left nothing behind.
    let peers = team.bob.json(&["peers", "--all", "--json"])?.to_string();
    assert_eq!(peers.matches(r#""channel":"cli""#).count(), 0, "{peers}");
    Ok(())
}

#[tokio::test]
async fn the_shell_waits_in_vain_and_reads_the_answer_later() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let output = team.ann.run(&["ask", "BobS", "in time?", "--timeout", "1", "--json"])?;
    let outcome: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((output.status.code(), &outcome["status"]), (Some(1), &json!("timed_out")), "{}", stderr(&output));
    let note = bob.channel_with("in time?").await?;
    assert_eq!(outcome["messageId"], json!(note.meta["message_id"]));
    bob.tool("reply_to_peer", json!({"message_id": note.meta["message_id"], "answer": "too late"})).await?;
    let inbox = team.ann.json(&["inbox", "--wait", "10", "--json"])?;
    assert_eq!((&inbox[0]["plaintext"], &inbox[0]["subtype"]), (&json!("too late"), &json!("reply")));
    assert_eq!(inbox.as_array().map(Vec::len), Some(1), "{inbox:#}");
    let nobody = team.ann.run(&["ask", "Nobody", "x?", "--json"])?;
    assert_eq!(nobody.status.code(), Some(5), "{}", stdout(&nobody));
    let away = team.bob.run(&["ask", "Ann", "x?", "--json"])?;
    let refused: Value = serde_json::from_slice(&away.stdout)?;
    assert_eq!((away.status.code(), &refused["error"]), (Some(5), &json!("offline")));
    Ok(())
}

#[tokio::test]
async fn a_session_asks_and_the_shell_answers_once() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let (call, id) = asked(&mut ann, &mut bob, "who is at the keyboard?", json!({})).await?;
    let open = team.bob.json(&["inbox", "--questions", "--json"])?;
    assert_eq!((&open[0]["messageId"], &open[0]["state"]), (&json!(id), &json!("delivered")), "{open:#}");
    let listed = team.bob.run(&["inbox", "--questions"])?;
    assert!(
        stdout(&listed).contains("who is at the keyboard?") && stdout(&listed).contains(&id[..8]),
        "{}",
        stdout(&listed)
    );
    let sent = team.bob.json(&["reply", &id[..8], "a", "human", "--json"])?;
    assert_eq!((&sent["to"], &sent["online"]), (&json!("Ann/AnnS"), &json!(1)), "{sent:#}");
    assert_eq!(ann.finish(call).await?.structured["answer"], "a human");
    assert_eq!(team.bob.json(&["inbox", "--questions", "--json"])?, json!([]));
    assert_eq!(team.bob.json(&["inbox", "--questions", "--all", "--json"])?[0]["state"], "answered");
    let again = team.bob.run(&["reply", &id, "me too", "--json"])?;
    let refused: Value = serde_json::from_slice(&again.stdout)?;
    assert_eq!((again.status.code(), &refused["error"]), (Some(6), &json!("already_answered")));
    let session = bob.tool("reply_to_peer", json!({"message_id": id, "answer": "me three"})).await?;
    assert!(session.is_error && session.text.contains("already_answered"), "{}", session.text);
    let unknown = team.bob.run(&["reply", "00000000000000000000000000000000", "x"])?;
    assert_eq!(unknown.status.code(), Some(5), "{}", stderr(&unknown));
    Ok(())
}

#[tokio::test]
async fn a_question_that_only_the_broker_has_is_answered_from_the_shell() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let call =
        ann.start_tool("ask_peer", json!({"to": "Bob", "question": "no one home?", "wait_offline": true})).await?;
    ann.progressed(&call, 1).await?;
    let open = team.bob.json(&["inbox", "--questions", "--json"])?;
    assert_eq!((&open[0]["plaintext"], &open[0]["state"]), (&json!("no one home?"), &json!("pending")));
    team.bob.json(&["reply", open[0]["messageId"].as_str().context("id")?, "I am", "--json"])?;
    assert_eq!(ann.finish(call).await?.structured["answer"], "I am");
    Ok(())
}

#[tokio::test]
async fn two_machines_cannot_ask_each_other_for_ever() -> Result<()> {
    let team = Team::start_with(|config| {
        config.limits = LimitsMode::Default;
        config.limit.trace_budget = 4;
    })
    .await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    // Question and answer, and the question back with its answer, are one exchange.
    for round in 0..2 {
        let (asker, other, name) = if round == 0 { (&mut ann, &mut bob, "BobS") } else { (&mut bob, &mut ann, "AnnS") };
        let question = format!("round {round}?");
        let call = asker.start_tool("ask_peer", json!({"to": name, "question": question})).await?;
        let id = other.channel_with(&question).await?.meta["message_id"].clone();
        let sent = other.tool("reply_to_peer", json!({"message_id": id, "answer": "and you?"})).await?;
        assert!(!sent.is_error, "{}", sent.text);
        assert_eq!(asker.finish(call).await?.structured["status"], "answered");
    }
    let refused = ann.tool("ask_peer", json!({"to": "BobS", "question": "and on?"})).await?;
    assert_eq!(
        (&refused.structured["status"], &refused.structured["reason"]),
        (&json!("rejected"), &json!("trace_budget")),
        "{}",
        refused.text
    );
    assert!(refused.structured["retry_after_ms"].is_u64());
    Ok(())
}

#[tokio::test]
async fn without_a_mesh_a_question_says_what_to_do() -> Result<()> {
    let carl = program()?;
    // Switched off, the mesh of this machine does not step in.
    let mut host = Host::start(options(&carl, "carl-1", "CarlS").env("CLAUDEMESH_LOCAL", "0")).await?;
    for (tool, arguments) in [
        ("ask_peer", json!({"to": "Bob", "question": "x?"})),
        ("reply_to_peer", json!({"message_id": "abcdefgh", "answer": "x"})),
        ("poll_inbox", json!({})),
    ] {
        let answer = host.tool(tool, arguments).await?;
        assert!(answer.is_error && answer.text.contains("claudemesh join"), "{}", answer.text);
    }
    Ok(())
}

#[tokio::test]
async fn members_that_are_away_are_listed_with_their_age() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = Host::start(options(&team.ann, "ann-1", "AnnS")).await?;
    welcomed(&mut ann).await?;
    let listed = ann.tool("list_peers", json!({"all": true})).await?;
    let peers = listed.structured["meshes"][0]["peers"].as_array().context("peers")?.clone();
    let bob = peers.iter().find(|peer| peer["name"] == "Bob").context("Bob is a member")?;
    // At his shell he was seen a moment ago.
    assert_eq!(
        (&bob["status"], &bob["stale"], bob["lastSeenAt"].is_string()),
        (&json!("away"), &Value::Null, true),
        "{bob}"
    );
    let me = peers.iter().find(|peer| peer["whose"] == "this session").context("me")?;
    assert!(me["stale"].is_null() && me["last_seen_at"].is_null(), "only of those who are away: {me}");
    assert!(listed.text.contains("**Bob** [away]") && !listed.text.contains("[stale]"), "{}", listed.text);
    assert!(!ann.tool("list_peers", json!({})).await?.text.contains("Bob"));
    Ok(())
}

#[tokio::test]
async fn a_session_is_registered_already_and_can_be_renamed() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let first = bob.tool("register", json!({})).await?;
    assert_eq!((&first.structured["name"], &first.structured["session_id"]), (&json!("BobS"), &json!("bob-1")));
    bob.tool("join_group", json!({"name": "qa"})).await?;
    let renamed = bob.tool("register", json!({"name": "Reviewer"})).await?;
    assert_eq!(renamed.structured["name"], "Reviewer", "{}", renamed.text);
    assert_eq!(renamed.structured["meshes"], first.structured["meshes"], "the keys stay");
    let again = bob.tool("register", json!({"name": "Reviewer"})).await?;
    assert_eq!(again.structured, renamed.structured);
    let peers = ann.tool("list_peers", json!({})).await?;
    assert!(peers.text.contains("**Bob/Reviewer**") && !peers.text.contains("BobS"), "{}", peers.text);
    assert!(peers.text.contains("@qa"), "groups stay: {}", peers.text);
    let call = ann.start_tool("ask_peer", json!({"to": "Reviewer", "question": "by the new name?"})).await?;
    let note = bob.channel_with("by the new name?").await?;
    bob.tool("reply_to_peer", json!({"message_id": note.meta["message_id"], "answer": "yes"})).await?;
    assert_eq!(ann.finish(call).await?.structured["from"], "Bob/Reviewer");
    Ok(())
}
