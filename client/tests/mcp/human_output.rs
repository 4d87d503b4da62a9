//! What the verbs say to people: names, groups, times, who is there, and what was not done.

use std::process::Stdio;

use anyhow::{Context, Result};
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::host::PATIENCE;
use claudemesh_testkit::wait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::team::{Team, program, session, stderr, stdout, texts, until};

/// Names that no one could be reached by.
const BAD_NAMES: [&str; 6] = ["@all", "*", "#x", "Smith, Ann", "deadbeef", " "];

/// What a command printed that has to end by itself.
async fn ended(command: std::process::Command) -> Result<std::process::Output> {
    let mut command = tokio::process::Command::from(command);
    Ok(tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await??)
}

#[tokio::test]
async fn a_name_that_cannot_be_written_to_is_refused_where_it_is_chosen() -> Result<()> {
    let team = Team::start().await?;
    let invite = team.ann.json(&["invite", "--uses", "5", "--json"])?;
    let (url, broker) = (invite["url"].as_str().context("a link")?, team.broker.url());
    let carl = program()?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    for name in BAD_NAMES {
        let verbs: [&[&str]; 5] = [
            &["join", url, "--name", name],
            &["create", "other", "--broker", &broker, "--name", name],
            &["up", "--listen", "127.0.0.1:0", "--name", name],
            &["launch", "--join", url, "--name", name],
            &["invite", "--for-name", name],
        ];
        for verb in verbs {
            let mut command = if verb[0] == "invite" { team.ann.command(verb) } else { carl.command(verb) };
            // `launch` looks for Claude Code first.
            command.env("CLAUDE_BIN", "/bin/true").arg("--json");
            let refused = ended(command).await.with_context(|| format!("{verb:?}"))?;
            let answer: Value = serde_json::from_slice(&refused.stdout)?;
            assert_eq!(
                (refused.status.code(), &answer["error"]),
                (Some(3), &json!("invalid_name")),
                "{verb:?}: {answer}"
            );
        }
        if !name.trim().is_empty() {
            let renamed = bob.tool("register", json!({"name": name})).await?;
            assert!(renamed.is_error && renamed.text.contains("cannot be a name"), "{name}: {}", renamed.text);
        }
    }
    assert_eq!(carl.json(&["list", "--json"])?, json!([]), "nothing was joined");
    assert_eq!(carl.json(&["join", url, "--name", "  Carl ", "--json"])?["name"], "Carl", "margins are no part of it");
    Ok(())
}

#[tokio::test]
async fn groups_are_listed_left_once_and_keep_their_roles() -> Result<()> {
    let team = Team::start().await?;
    assert_eq!(team.ann.json(&["group", "list", "--json"])?, json!([]));
    assert!(stdout(&team.ann.run(&["group", "list"])?).contains("no one is in a group"));
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    team.bob.json(&["group", "join", "@frontend", "--as", "lead", "--session", "bob-1", "--json"])?;
    team.bob.json(&["group", "join", "@frontend", "--session", "bob-1", "--json"])?;
    let list = team.ann.json(&["group", "list", "--json"])?;
    assert_eq!(
        (&list[0]["mesh"], &list[0]["group"], list.as_array().map(Vec::len)),
        (&json!("team"), &json!("frontend"), Some(1))
    );
    let member = &list[0]["members"][0];
    assert_eq!((&member["name"], &member["as"], &member["online"]), (&json!("Bob/BobS"), &json!("lead"), &json!(true)));
    let shown = stdout(&team.ann.run(&["group", "list"])?);
    assert!(shown.contains("@frontend\n    Bob/BobS as lead (session, for its time)\n"), "{shown}");
    team.bob.json(&["group", "join", "@frontend", "--as=", "--session", "bob-1", "--json"])?;
    assert_eq!(team.ann.json(&["group", "list", "--json"])?[0]["members"][0]["as"], Value::Null);
    // Bob is the only one there, and gets it already.
    let both = team.ann.run(&["send", "BobS,@frontend", "hello", "--json"])?;
    let answer: Value = serde_json::from_slice(&both.stdout)?;
    assert!(answer[1]["message"].as_str().is_some_and(|text| text.contains("get the message directly")), "{answer}");
    // Twice left is once too often, for the shell and for the tool.
    team.bob.json(&["group", "leave", "@frontend", "--session", "bob-1", "--json"])?;
    let again = team.bob.run(&["group", "leave", "@frontend", "--session", "bob-1", "--json"])?;
    let answer: Value = serde_json::from_slice(&again.stdout)?;
    assert_eq!((again.status.code(), &answer["error"]), (Some(5), &json!("not_in_group")), "{answer}");
    let tool = bob.tool("leave_group", json!({"name": "frontend"})).await?;
    assert!(tool.is_error && tool.text.contains("not in that group"), "{}", tool.text);
    Ok(())
}

#[tokio::test]
async fn a_second_ban_and_the_doctor_of_who_is_banned_say_so() -> Result<()> {
    let team = Team::start().await?;
    let report = |args: &[&str]| -> Result<(Option<i32>, Value)> {
        let output = team.bob.run(args)?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let row = report["checks"].as_array().into_iter().flatten().find(|row| row["name"] == "member").cloned();
        Ok((output.status.code(), row.unwrap_or_default()))
    };
    let doctor = ["doctor", "--no-loopback", "--json"];
    let (_, row) = report(&doctor)?;
    assert_eq!((&row["level"], &row["detail"]), (&json!("ok"), &json!("team: Bob, member")));
    team.ann.json(&["ban", "Bob", "--json"])?;
    let (code, row) = report(&doctor)?;
    assert_eq!((code, &row["level"]), (Some(1), &json!("failure")), "{row}");
    assert!(row["detail"].as_str().is_some_and(|text| text.contains("you are banned")), "{row}");
    let again = team.ann.run(&["ban", "Bob"])?;
    assert_eq!(again.status.code(), Some(6), "{}", stderr(&again));
    assert!(stderr(&again).contains("`Bob` is banned already"), "{}", stderr(&again));
    Ok(())
}

#[tokio::test]
async fn receipts_name_people_and_times_are_those_of_the_machine() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let call = ann.start_tool("ask_peer", json!({"to": "BobS", "question": "which port?"})).await?;
    let id = bob.channel_with("which port?").await?.meta["message_id"].clone();
    let answered = team.bob.json(&["reply", &id, "7900", "--json"])?;
    ann.finish(call).await?;
    let answer_id = answered["answerId"].as_str().context("an id")?;
    let exact = team.bob.json(&["msg-status", answer_id, "--json"])?;
    let at = exact["recipients"][0]["stageAt"].as_str().context("a time")?;
    let in_tokyo =
        |args: &[&str]| -> Result<String> { Ok(stdout(&team.bob.command(args).env("TZ", "TKO-9").output()?)) };
    let text = in_tokyo(&["msg-status", answer_id])?;
    assert!(text.contains("→ Ann/AnnS: "), "{text}");
    let long = |word: &str| word.len() > 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.lines().next().unwrap_or_default().split([' ', ':', '"', ',']);
    assert!(!words.skip(2).any(long), "{text}");
    // The broker's clock is the test's own; nine hours later it is in Tokyo.
    let ms = claudemesh_protocol::time::parse_iso(at).context("ISO")? + 9 * 3_600_000;
    let there = claudemesh_protocol::time::iso(ms);
    let shown = format!("{} {}", &there[..10], &there[11..16]);
    // A path of the test may hold any letter.
    let in_utc = |word: &str| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('Z');
    assert!(text.contains(&shown) && !text.split_whitespace().any(in_utc), "{shown}: {text}");
    // The same form in other verbs.
    let invite = team.ann.json(&["invite", "--json"])?;
    let until = invite["expires_at"].as_str().context("a time")?;
    let list = stdout(&team.ann.command(&["invite", "--list"]).env("TZ", "UTC0").output()?);
    assert!(list.contains(&format!("until {} {}\n", &until[..10], &until[11..16])), "{until}: {list}");
    Ok(())
}

#[tokio::test]
async fn who_is_away_is_listed_with_all_only_and_what_waits_is_named() -> Result<()> {
    let team = Team::start().await?;
    let bob = session(&team.bob, "bob-1", "BobS").await?;
    team.bob.json(&["status", "set", "dnd", "--json"])?;
    let sent = stdout(&team.ann.run(&["send", "BobS", "later"])?);
    assert!(sent.contains("1 online, waits for 1 (dnd)"), "{sent}");
    let seen = stdout(&team.ann.run(&["peers"])?);
    assert!(seen.contains("BobS dnd"), "{seen}");
    // Killed: it is in its grace now.
    drop(bob);
    until("it is away", || {
        let peers = team.ann.json(&["peers", "--json"])?;
        Ok((peers == json!([])).then_some(()))
    })
    .await?;
    let seen = stdout(&team.ann.run(&["peers"])?);
    assert!(!seen.contains("BobS") && seen.contains("no one is connected"), "{seen}");
    let seen = stdout(&team.ann.run(&["peers", "--all"])?);
    assert!(seen.contains("BobS away") && seen.contains("Ann away (yours)"), "{seen}");
    Ok(())
}

#[tokio::test]
async fn rows_of_several_meshes_are_rows_and_failures_are_none() -> Result<()> {
    let team = Team::start().await?;
    let other = TestBroker::start(Database::Sqlite).await?;
    team.bob.json(&["create", "other", "--broker", &other.url(), "--name", "Bob", "--json"])?;
    let _ann = session(&team.ann, "ann-1", "AnnS").await?;
    let picked = team.bob.json(&["peers", "--json=displayName"])?;
    assert_eq!(picked, json!([{"displayName": "AnnS"}]), "one list, however many meshes there are");
    let placed = team.bob.json(&["ping", "--json=mesh"])?;
    assert_eq!(placed, json!([{"mesh": "team"}, {"mesh": "other"}]));
    let away = team.ann.json(&["peers", "--all", "--json=name,mesh,online"])?;
    assert!(away.as_array().is_some_and(|rows| rows.iter().all(|row| row["mesh"] == "team")), "{away}");
    team.ann.json(&["send", "Bob", "from the living", "--json"])?;
    drop(other);
    let read = team.bob.run(&["inbox", "--wait", "0", "--json"])?;
    let list: Value = serde_json::from_slice(&read.stdout)?;
    assert_eq!((read.status.code(), texts(&list)), (Some(4), vec!["from the living"]));
    assert_eq!(list.as_array().map(Vec::len), Some(1), "a reader of messages finds messages: {list}");
    assert!(stderr(&read).contains("other: "), "{}", stderr(&read));
    let questions = team.bob.run(&["inbox", "--questions", "--all", "--json"])?;
    assert_eq!((questions.status.code(), stdout(&questions).trim()), (Some(4), "[]"), "{}", stderr(&questions));
    Ok(())
}

#[tokio::test]
async fn up_says_who_has_the_usual_port() -> Result<()> {
    let person = program()?;
    // Another test may have it for a moment; anyone who keeps it for longer is as good as this process.
    let bind = async || Ok(std::net::TcpListener::bind("127.0.0.1:7900").ok());
    let _taken = wait::until("the port is free", PATIENCE / 2, bind).await.ok();
    let mut up = tokio::process::Command::from(person.command(&["up"]));
    let mut up = up.kill_on_drop(true).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(up.stderr.take().context("piped")?).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await??.context("a line")?;
    up.kill().await?;
    assert!(
        line.starts_with("Port 7900 is taken by ") && line.contains("so this mesh is at ws://127.0.0.1:"),
        "{line}"
    );
    assert!(!cfg!(target_os = "linux") || line.contains("(process "), "{line}");
    Ok(())
}
