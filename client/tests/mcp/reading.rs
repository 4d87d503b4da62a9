//! Reading at the shell: what messages are, both halves of conversations, and messages as they come.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

use super::json;
use super::team::{Team, session, stdout, texts, until};

fn id(message: &Value) -> Result<&str> {
    message["messageId"].as_str().context("an id")
}

#[tokio::test]
async fn lists_say_what_a_message_is_and_what_comes_next() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    for question in ["which port?", "who wrote it?"] {
        let asked = ann.run(&["ask", "Bob", question, "--wait-offline", "--timeout", "1", "--json"])?;
        ensure!(asked.status.code() == Some(1), "{}", stdout(&asked));
    }
    ann.json(&["send", "Bob", "hello", "--json"])?;
    let shown = stdout(&bob.run(&["inbox", "--peek"])?);
    let list = bob.json(&["inbox", "--peek", "--json"])?;
    json::fits("inbox", &list)?;
    let kinds: Vec<&Value> = list.as_array().into_iter().flatten().map(|row| &row["type"]).collect();
    assert_eq!(kinds, [&json!("question"), &json!("question"), &json!("message")]);
    let (port, author) = (id(&list[0])?, id(&list[1])?);
    assert_eq!(list[0]["next"], format!("claudemesh reply {} \"<answer>\"", &port[..8]));
    ensure!(shown.contains("question, waits for your answer"), "{shown}");
    ensure!(shown.contains(&format!("→ claudemesh reply {} \"<answer>\"", &port[..8])), "{shown}");
    // IDs have one length in every text.
    let questions = stdout(&bob.run(&["inbox", "--questions"])?);
    ensure!(questions.contains(&port[..8]) && !questions.contains(&port[..9]), "{questions}");

    bob.json(&["reply", port, "7900", "--json"])?;
    bob.json(&["reply", author, "--decline", "ask Cid", "--json"])?;
    let shown = stdout(&ann.run(&["inbox", "--peek"])?);
    let list = ann.json(&["inbox", "--json"])?;
    let row = |kind: &str| {
        list.as_array().into_iter().flatten().find(|row| row["type"] == kind).cloned().context(kind.to_owned())
    };
    let (answer, decline) = (row("answer")?, row("decline")?);
    assert_eq!((&answer["asked"], &answer["replyToId"]), (&json!("which port?"), &json!(port)));
    assert_eq!((&decline["asked"], &decline["plaintext"]), (&json!("who wrote it?"), &json!("ask Cid")));
    ensure!(shown.contains(&format!("answer to \"which port?\" ({})", &port[..8])), "{shown}");
    ensure!(shown.contains("declined \"who wrote it?\""), "{shown}");
    let state = bob.json(&["inbox", "--all", "--json"])?;
    assert_eq!((&state[0]["state"], &state[1]["state"]), (&json!("answered"), &json!("declined")));
    Ok(())
}

#[tokio::test]
async fn what_is_held_is_marked_and_stays_unread_until_it_is_released() -> Result<()> {
    let team = Team::start().await?;
    let _session = session(&team.bob, "bob-1", "BobS").await?;
    team.bob.json(&["inbound", "set", "hold", "--json"])?;
    team.ann.json(&["send", "BobS", "let me in", "--json"])?;
    let held = until("it is held", || {
        let held = team.bob.json(&["held", "--json"])?;
        Ok((held != json!([])).then_some(held))
    })
    .await?;
    let short = &id(&held[0])?[..8];
    ensure!(stdout(&team.bob.run(&["held"])?).starts_with(&format!("{short}  Ann")), "one length of ids");
    for _ in 0..2 {
        let list = team.bob.json(&["inbox", "--json"])?;
        assert_eq!(texts(&list), ["let me in"], "being listed releases nothing and marks nothing");
        assert_eq!((&list[0]["held"], &list[0]["seen"]), (&json!(true), &json!(false)));
        assert_eq!(list[0]["next"], format!("claudemesh held release {short}"));
    }
    let shown = stdout(&team.bob.run(&["inbox"])?);
    ensure!(shown.starts_with("team: 0 new messages, 1 held\n") && shown.contains("held direct"), "{shown}");
    team.bob.json(&["held", "drop", short, "--json"])?;
    let list = team.bob.json(&["inbox", "--json"])?;
    assert_eq!((texts(&list), &list[0]["held"]), (vec!["let me in"], &json!(false)));
    assert_eq!(team.bob.json(&["inbox", "--json"])?, json!([]));
    Ok(())
}

#[tokio::test]
async fn an_inbox_with_nothing_new_waits_for_nothing() -> Result<()> {
    let team = Team::start().await?;
    team.bob.json(&["inbox", "--json"])?;
    let mut times: Vec<_> = (0..5)
        .map(|_| {
            let started = Instant::now();
            team.bob.json(&["inbox", "--json"]).map(|_| started.elapsed())
        })
        .collect::<Result<_>>()?;
    times.sort();
    // A debug build on a busy machine; the fixed second of before would show.
    ensure!(times[0].as_millis() < 700, "{times:?}");
    Ok(())
}

#[tokio::test]
async fn the_messages_of_the_doctor_are_in_no_list() -> Result<()> {
    let team = Team::start().await?;
    let checked = team.bob.run(&["doctor", "--json"])?;
    ensure!(stdout(&checked).contains("loopback"), "{}", stdout(&checked));
    for list in [&["inbox", "--all", "--json"][..], &["sent", "--json"], &["inbox", "--questions", "--all", "--json"]] {
        assert_eq!(team.bob.json(list)?, json!([]), "{list:?}");
    }
    assert_eq!(stdout(&team.bob.run(&["export"])?), "");
    Ok(())
}

#[tokio::test]
async fn both_halves_of_a_conversation_are_paged_and_exported() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    for number in 0..3 {
        ann.json(&["send", "Bob", &format!("from Ann {number}"), "--json"])?;
        bob.json(&["inbox", "--json"])?;
        bob.json(&["send", "Ann", &format!("from Bob {number}"), "--json"])?;
        ann.json(&["inbox", "--json"])?;
    }
    bob.json(&["topic", "create", "plans", "--json"])?;
    bob.json(&["topic", "join", "plans", "--json"])?;
    ann.json(&["topic", "post", "plans", "freeze", "--json"])?;
    let all = ann.json(&["history", "Bob", "--json"])?;
    json::fits("history", &all)?;
    let expected: Vec<String> =
        (0..3).flat_map(|number| [format!("from Ann {number}"), format!("from Bob {number}")]).collect();
    assert_eq!(texts(&all), expected);
    assert_eq!((&all[0]["direction"], &all[1]["direction"]), (&json!("out"), &json!("in")));
    // Page by page, nothing twice and nothing left out, by a whole id and by its beginning.
    let newest = ann.json(&["history", "bob", "--limit", "2", "--json"])?;
    assert_eq!(texts(&newest), expected[4..]);
    let older = ann.json(&["history", "Bob", "--limit", "2", "--before", id(&newest[0])?, "--json"])?;
    assert_eq!(texts(&older), expected[2..4]);
    let oldest = ann.json(&["history", "Bob", "--limit", "9", "--before", &id(&older[0])?[..8], "--json"])?;
    assert_eq!(texts(&oldest), expected[..2]);
    assert_eq!(texts(&ann.json(&["history", "#plans", "--json"])?), ["freeze"]);
    assert_eq!(ann.run(&["history", "Nobody"])?.status.code(), Some(5));

    let sent = ann.json(&["sent", "--limit", "2", "--json"])?;
    json::fits("sent", &sent)?;
    assert_eq!(texts(&sent), ["from Ann 2", "freeze"]);
    assert_eq!((&sent[0]["peer"], &sent[1]["peer"]), (&json!("Bob"), &json!("#plans")));
    let before = ann.json(&["sent", "--before", id(&sent[0])?, "--json"])?;
    assert_eq!(texts(&before), ["from Ann 0", "from Ann 1"]);
    ensure!(stdout(&ann.run(&["sent"])?).contains("to Bob"));

    let lines = stdout(&ann.run(&["export", "--with", "Bob"])?);
    let rows: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for row in &rows {
        json::fits("export", row)?;
    }
    assert_eq!(texts(&Value::Array(rows)), expected);
    assert_eq!(stdout(&ann.run(&["export"])?).lines().count(), 7);
    let path = ann.home().join("bob.md");
    let saved = ann.json(&["export", "--format", "markdown", "--out", path.to_str().context("utf-8")?, "--json"])?;
    json::fits("export --out", &saved)?;
    let text = std::fs::read_to_string(&path)?;
    ensure!(text.starts_with("# team\n\n**You** to Bob, ") && text.contains("**Bob** to you, "), "{text}");
    ensure!(text.contains("> from Bob 2\n"), "{text}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    Ok(())
}

/// A verb that prints as things happen.
struct Following {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(person: &CommandLine, args: &[&str]) -> Result<Self> {
        let mut child = person.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        Ok(Self { child, lines })
    }

    fn next(&mut self) -> Result<Value> {
        Ok(serde_json::from_str(&self.lines.next().context("a line")??)?)
    }

    /// The next line of this kind; those of others are left out.
    fn find(&mut self, what: &str) -> Result<Value> {
        loop {
            let line = self.next()?;
            json::fits("watch", &line)?;
            if line["what"] == what {
                return Ok(line);
            }
        }
    }

    /// Ctrl-C; it must end well.
    fn end(mut self) -> Result<()> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::INT)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

#[tokio::test]
async fn following_prints_each_message_once_and_marks_it() -> Result<()> {
    let team = Team::start().await?;
    team.ann.json(&["send", "Bob", "before", "--json"])?;
    let mut following = Following::start(&team.bob, &["inbox", "--follow", "--json"])?;
    let first = following.next()?;
    json::fits("inbox --follow", &first)?;
    assert_eq!(first["plaintext"], "before");
    for number in 0..3 {
        team.ann.json(&["send", "Bob", &format!("number {number}"), "--priority", "low", "--json"])?;
        assert_eq!(following.next()?["plaintext"], format!("number {number}"));
    }
    following.end()?;
    assert_eq!(team.bob.json(&["inbox", "--json"])?, json!([]), "what was printed is read");
    // A reader that goes away ends it, and what it did not take is still there.
    let mut cut = Following::start(&team.bob, &["inbox", "--follow", "--json"])?;
    team.ann.json(&["send", "Bob", "seen", "--json"])?;
    assert_eq!(cut.next()?["plaintext"], "seen");
    drop(cut.lines);
    team.ann.json(&["send", "Bob", "not seen", "--json"])?;
    let status = cut.child.wait()?;
    ensure!(status.success(), "{status}");
    assert_eq!(texts(&team.bob.json(&["inbox", "--json"])?), ["not seen"]);
    Ok(())
}

#[tokio::test]
async fn watching_shows_messages_and_events_and_marks_nothing() -> Result<()> {
    let team = Team::start().await?;
    let mut watching = Following::start(&team.bob, &["watch", "--json"])?;
    // It is there as soon as others see it.
    until("it watches", || Ok((team.ann.json(&["peers", "--json"])? != json!([])).then_some(()))).await?;
    let _ann = session(&team.ann, "ann-1", "AnnS").await?;
    let joined = watching.find("peer_joined")?;
    assert_eq!((&joined["mesh"], &joined["data"]["name"]), (&json!("team"), &json!("AnnS")));
    team.ann.json(&["send", "Bob", "hello", "--json"])?;
    let message = watching.find("message")?;
    assert_eq!((&message["message"]["plaintext"], &message["message"]["type"]), (&json!("hello"), &json!("message")));
    team.ann.json(&["state", "set", "build", "green", "--json"])?;
    assert_eq!(watching.find("state_change")?["data"]["key"], "build");
    watching.end()?;
    assert_eq!(texts(&team.bob.json(&["inbox", "--json"])?), ["hello"], "a look marks nothing");
    Ok(())
}
