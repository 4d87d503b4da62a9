//! The verbs of the wire, as scripts and people use them.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::team::{Team, program, session, stderr, stdout, texts};

#[tokio::test]
async fn a_message_waits_is_read_once_and_its_receipt_follows() -> Result<()> {
    let team = Team::start().await?;
    let sent = team.ann.json(&["send", "Bob", "the tests are green", "--json"])?;
    assert_eq!(
        (&sent["ok"], &sent["status"], &sent["recipientOnline"]),
        (&json!(true), &json!("stored"), &json!(false))
    );
    let id = sent["messageId"].as_str().context("an id")?;
    let waiting = team.ann.json(&["msg-status", id, "--json"])?;
    assert_eq!(waiting["delivered"], false);
    let started = Instant::now();
    let read = team.bob.json(&["inbox", "--wait", "20", "--json"])?;
    assert!(started.elapsed().as_secs() < 10, "it does not wait when something is there");
    assert_eq!(texts(&read), ["the tests are green"]);
    assert_eq!((&read[0]["senderName"], &read[0]["kind"]), (&json!("Ann"), &json!("direct")));
    assert_eq!(team.bob.json(&["inbox", "--wait", "0", "--json"])?, json!([]));
    assert_eq!(texts(&team.bob.json(&["inbox", "--wait", "0", "--all", "--json"])?), ["the tests are green"]);
    let status = team.ann.json(&["msg-status", &id[..8], "--json"])?;
    assert_eq!((&status["delivered"], &status["stage"]), (&json!(true), &json!("seen")));
    Ok(())
}

#[tokio::test]
async fn several_targets_reach_each_recipient_once() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    bob.tool("join_group", json!({"name": "qa"})).await?;
    let sent = team.ann.json(&["send", "BobS,@qa,*,BobS,Nobody", "--json", "once"]);
    assert!(sent.is_err(), "one of them is unknown, so the exit code says so");
    let output =
        team.ann.run(&["send", "--to", "BobS", "--to", "@qa", "--to", "*", "--to", "@empty", "twice?", "--json"])?;
    let answer: Value = serde_json::from_str(&stdout(&output))?;
    let ok: Vec<bool> = answer.as_array().into_iter().flatten().map(|one| one["ok"] == true).collect();
    // No one but Bob is in @qa and *: he got it directly, so the audiences are empty for this message.
    assert!(ok[0] && !ok[3], "{answer:#}");
    team.ann.json(&["send", "BobS", "end", "--json"])?;
    let mut seen = Vec::new();
    loop {
        let note = bob.channel().await?;
        if ["direct", "broadcast"].contains(&note.meta["kind"].as_str()) {
            seen.push(note.content);
        }
        if seen.last().is_some_and(|text| text == "end") {
            break;
        }
    }
    assert_eq!(seen, ["once", "twice?", "end"]);
    Ok(())
}

#[tokio::test]
async fn long_texts_come_from_files_and_standard_input() -> Result<()> {
    let team = Team::start().await?;
    let long = "line\n".repeat(50_000);
    let path = team.ann.home().join("long.txt");
    std::fs::write(&path, &long)?;
    team.ann.json(&["send", "Bob", "--file", path.to_str().context("utf-8")?, "--json"])?;
    let mut command = team.ann.command(&["send", "Bob", "--file", "-", "--json"]);
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("piped")?, b"from a pipe\n")?;
    assert!(child.wait()?.success());
    let read = team.bob.json(&["inbox", "--json"])?;
    assert_eq!(texts(&read), [long.trim_end_matches('\n'), "from a pipe"]);
    // A text that looks like an option is not sent to the name in the option.
    let wrong = team.ann.run(&["send", "Bob", "-test"])?;
    assert_eq!(wrong.status.code(), Some(3));
    assert!(stderr(&wrong).contains("send <to> -- -test"), "{}", stderr(&wrong));
    team.ann.json(&["send", "--json", "Bob", "--", "-test"])?;
    assert_eq!(texts(&team.bob.json(&["inbox", "--json"])?), ["-test"]);
    // One dash means the same as --file -.
    let mut command = team.ann.command(&["send", "Bob", "-"]);
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("piped")?, b"hello\n")?;
    assert!(child.wait()?.success());
    assert_eq!(texts(&team.bob.json(&["inbox", "--json"])?), ["hello"]);
    let missing = team.ann.run(&["send", "Bob", "--file", "/nowhere/at/all"])?;
    assert_eq!(missing.status.code(), Some(10));
    std::fs::write(&path, vec![b'x'; 3 << 20])?;
    let huge = team.ann.run(&["send", "Bob", "--file", path.to_str().context("utf-8")?])?;
    assert!(huge.status.success(), "what is too long for a message travels as a file: {}", stderr(&huge));
    assert_eq!(team.bob.json(&["file", "list", "--json"])?.as_array().map(Vec::len), Some(1));
    std::fs::write(&path, [0xff, 0xfe])?;
    assert_eq!(team.ann.run(&["send", "Bob", "--file", path.to_str().context("utf-8")?])?.status.code(), Some(3));
    Ok(())
}

/// The host reports a hook whose pipe breaks as failed.
#[tokio::test]
async fn a_hook_reads_long_input_to_its_end() -> Result<()> {
    let team = Team::start().await?;
    let mut command = team.bob.command(&["hook", "post-tool"]);
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn()?;
    let mut input = child.stdin.take().context("piped")?;
    let text = json!({"session_id": "s", "tool_response": "x".repeat(2 << 20)}).to_string();
    std::io::Write::write_all(&mut input, text.as_bytes())?;
    drop(input);
    assert!(child.wait()?.success());
    Ok(())
}

#[tokio::test]
async fn addresses_and_links_are_taken_as_people_paste_them() -> Result<()> {
    let team = Team::start().await?;
    let (carl, dora) = (program()?, program()?);
    let url = team.broker.url();
    let bare = url.strip_suffix("/ws").context("the usual path")?;
    carl.json(&["create", "other", "--broker", bare, "--name", "Carl", "--json"])?;
    carl.json(&["peers", "--json"])?;
    let invite = carl.json(&["invite", "--json"])?;
    let link = format!("\u{200b}{}\u{feff} ", invite["url"].as_str().context("a link")?);
    assert_eq!(dora.json(&["join", &link, "--name", "Dora", "--json"])?["slug"], "other");
    let long = carl.run(&["invite", "--expires", "3650d"])?;
    assert_eq!(long.status.code(), Some(3));
    assert!(stderr(&long).contains("at most 366 days"), "{}", stderr(&long));
    carl.json(&["invite", "--expires", "366d", "--json"])?;
    Ok(())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_folder_that_takes_nothing_can_be_read_and_the_doctor_says_so() -> Result<()> {
    let carl = program()?;
    let nothing = carl.run(&["inbox"])?;
    assert!(stderr(&nothing).contains(&carl.config_dir().display().to_string()), "{}", stderr(&nothing));
    let mut command = carl.command(&["inbound"]);
    // No one can write there, not even the one who may everything.
    let shown = command.env("CLAUDEMESH_CONFIG_DIR", "/proc/self").output()?;
    assert!(shown.status.success(), "{}", stderr(&shown));
    let mut command = carl.command(&["doctor", "--no-loopback", "--json"]);
    let doctor = command.env("CLAUDEMESH_CONFIG_DIR", "/proc/self").output()?;
    let doctor: Value = serde_json::from_slice(&doctor.stdout)?;
    let row = doctor["checks"].as_array().into_iter().flatten().find(|row| row["name"] == "config-folder");
    assert_eq!(row.context("a row")?["level"], "failure");
    Ok(())
}

/// Whatever a person and a session leave in the config folder, only they can read it: keys, messages, sockets, logs.
#[cfg(unix)]
#[tokio::test]
async fn everything_in_the_config_folder_is_private() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let team = Team::start().await?;
    let bob = session(&team.bob, "bob-1", "BobS").await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    // Long enough for a file of its own.
    team.bob.json(&["send", "AnnS", &"long ".repeat(2_000), "--json"])?;
    ann.channel_with("long ").await?;
    team.ann.json(&["inbox", "--json"])?;
    let mut names = Vec::new();
    let mut folders = vec![team.ann.config_dir(), team.bob.config_dir()];
    while let Some(folder) = folders.pop() {
        let mode = std::fs::metadata(&folder)?.permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", folder.display());
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            // A file may go while we look: temporary ones are renamed.
            let Ok(metadata) = entry.metadata() else { continue };
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    for wanted in ["config.json", "hook-token", ".txt", ".db", ".sock"] {
        assert!(names.iter().any(|name| name.ends_with(wanted)), "{wanted}: {names:?}");
    }
    ann.end().await?;
    bob.end().await?;
    Ok(())
}

#[tokio::test]
async fn presence_writes_reach_the_running_session() -> Result<()> {
    let team = Team::start().await?;
    for verb in [&["status", "set", "dnd"][..], &["summary", "x"], &["visible", "false"]] {
        let nobody = team.bob.run(verb)?;
        assert_eq!(nobody.status.code(), Some(5), "{verb:?}: {}", stderr(&nobody));
    }
    let _bob = session(&team.bob, "bob-1", "BobS").await?;
    let set = team.bob.json(&["status", "set", "dnd", "--json"])?;
    assert_eq!((&set["status"], &set["sessions"]), (&json!("dnd"), &json!(1)));
    assert_eq!(team.bob.json(&["summary", "busy with tests", "--session", "bob-1", "--json"])?["sessions"], 1);
    let join = ["group", "join", "@qa", "--as", "lead", "--session", "*", "--json"];
    assert_eq!(team.bob.json(&join)?["group"], "qa");
    team.bob.json(&["profile", "--title", "QA", "--capabilities", "review,tests", "--json"])?;
    let peers = team.ann.json(&["peers", "--json"])?;
    let bob = &peers[0];
    assert_eq!((&bob["status"], &bob["summary"]), (&json!("dnd"), &json!("busy with tests")));
    assert_eq!(bob["groups"], json!([{"name": "qa", "role": "lead"}]));
    assert_eq!(bob["profile"]["title"], "QA");
    let shown = team.bob.run(&["profile"])?;
    assert!(stdout(&shown).contains("review, tests"), "{}", stdout(&shown));
    // Not disturbed: the message waits, and the sender reads why.
    let held = team.ann.run(&["send", "BobS", "later"])?;
    assert!(stdout(&held).contains("dnd"), "{}", stdout(&held));
    assert_eq!(team.bob.json(&["group", "leave", "@qa", "--session", "*", "--json"])?["left"], true);
    assert_eq!(team.bob.json(&["visible", "false", "--json"])?["visible"], false);
    assert_eq!(team.ann.json(&["peers", "--json"])?, json!([]));
    let other = team.bob.run(&["status", "set", "idle", "--session", "no-such-session"])?;
    assert_eq!(other.status.code(), Some(5));
    Ok(())
}

#[tokio::test]
async fn hooks_set_the_status_of_their_session_only() -> Result<()> {
    let team = Team::start().await?;
    let _one = session(&team.bob, "bob-1", "BobOne").await?;
    let _two = session(&team.bob, "bob-2", "BobTwo").await?;
    let hook = |word: &str, session_id: &str| -> Result<()> {
        let mut command = team.bob.command(&["hook", word]);
        let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn()?;
        let input = json!({"session_id": session_id, "cwd": team.bob.project()}).to_string();
        std::io::Write::write_all(&mut child.stdin.take().context("piped")?, input.as_bytes())?;
        let output = child.wait_with_output()?;
        assert!(output.status.success() && output.stdout.is_empty());
        Ok(())
    };
    let statuses = || -> Result<Vec<(String, String)>> {
        let peers = team.ann.json(&["peers", "--json"])?;
        let word = |peer: &Value, name: &str| peer[name].as_str().unwrap_or_default().to_owned();
        let list = peers.as_array().cloned().unwrap_or_default();
        Ok(list.iter().map(|peer| (word(peer, "displayName"), word(peer, "status"))).collect())
    };
    let pair =
        |one: &str, two: &str| vec![("BobOne".to_owned(), one.to_owned()), ("BobTwo".to_owned(), two.to_owned())];
    hook("prompt", "bob-2")?;
    assert_eq!(statuses()?, pair("idle", "working"));
    hook("stop", "bob-2")?;
    hook("working", "bob-1")?;
    assert_eq!(statuses()?, pair("working", "idle"));
    Ok(())
}

#[tokio::test]
async fn peers_text_cannot_paint_the_terminal() -> Result<()> {
    let team = Team::start().await?;
    let _bob = session(&team.bob, "bob-1", "Bob\u{1b}[31m\u{202e}S").await?;
    let peers = team.ann.run(&["peers"])?;
    assert!(!peers.stdout.contains(&0x1b) && stdout(&peers).contains("Bob"), "{}", stdout(&peers));
    team.ann.json(&["send", "Bob", "a\u{1b}]0;title\u{7}b\nsecond", "--json"])?;
    let read = team.bob.run(&["inbox"])?;
    assert!(!read.stdout.contains(&0x1b) && !read.stdout.contains(&7), "{}", stdout(&read));
    assert!(stdout(&read).contains("second"));
    Ok(())
}

#[tokio::test]
async fn joining_twice_keeps_one_member_and_old_links_work() -> Result<()> {
    let team = Team::start().await?;
    let invite = team.ann.json(&["invite", "--uses", "5", "--json"])?;
    let (url, old) = (invite["url"].as_str().context("link")?, invite["v1_url"].as_str().context("old link")?);
    let carl = program()?;
    let first = carl.json(&["join", url, "--name", "Carl", "--json"])?;
    let second = carl.json(&["join", url, "--name", "Carl", "--json"])?;
    assert_eq!(first["pubkey"], second["pubkey"]);
    assert_eq!(second["alreadyMember"], true);
    let third = carl.json(&["join", old, "--name", "Carl", "--json"])?;
    assert_eq!((&third["pubkey"], &third["alreadyMember"]), (&first["pubkey"], &json!(true)));
    // Another link of the same mesh: still the same member.
    let another = team.ann.json(&["invite", "--json"])?;
    let fourth = carl.json(&["join", another["url"].as_str().context("link")?, "--name", "Carl", "--json"])?;
    assert_eq!((&fourth["pubkey"], &fourth["alreadyMember"]), (&first["pubkey"], &json!(true)));
    assert_eq!(carl.json(&["list", "--json"])?.as_array().map(Vec::len), Some(1));
    let dora = program()?;
    let dora_joined = dora.json(&["join", old, "--name", "Dora", "--json"])?;
    assert_eq!((&dora_joined["slug"], &dora_joined["alreadyMember"]), (&json!("team"), &json!(false)));
    // Another mesh of the same name gets a name of its own here.
    let other = claudemesh_testkit::broker::TestBroker::start(claudemesh_testkit::broker::Database::Sqlite).await?;
    let eve = program()?;
    eve.json(&["create", "team", "--broker", &other.url(), "--name", "Eve", "--json"])?;
    let theirs = eve.json(&["invite", "--json"])?;
    let joined = carl.json(&["join", theirs["url"].as_str().context("link")?, "--name", "Carl", "--json"])?;
    assert_eq!(joined["slug"], "team-2");
    // Only one of the two meshes knows Ann; both know Carl.
    assert_eq!(carl.run(&["send", "Ann", "x"])?.status.code(), Some(0));
    let ambiguous = carl.run(&["send", "Carl", "x"])?;
    assert_eq!(ambiguous.status.code(), Some(3), "{}", stderr(&ambiguous));
    assert!(stderr(&ambiguous).contains("team-2"));
    carl.json(&["send", "Ann", "x", "--mesh", "team", "--json"])?;
    Ok(())
}

#[tokio::test]
async fn bad_links_and_used_up_invites_say_so() -> Result<()> {
    let team = Team::start().await?;
    let carl = program()?;
    for link in ["nonsense link", "ftp://x/i/ABCDEFGH", "http://127.0.0.1:1/join/!!!", "ic://join/abcd"] {
        let output = carl.run(&["join", link])?;
        assert_eq!(output.status.code(), Some(3), "{link}: {}", stderr(&output));
        assert!(stderr(&output).contains("Hint: "), "{link}");
    }
    let unknown = carl.run(&["join", &format!("{}/i/ABCDEFGH", team.broker.base())])?;
    assert_eq!(unknown.status.code(), Some(2), "{}", stderr(&unknown));
    let dead = carl.run(&["join", "http://127.0.0.1:1/i/ABCDEFGH"])?;
    assert_eq!(dead.status.code(), Some(4), "{}", stderr(&dead));
    let invite = team.ann.json(&["invite", "--json"])?;
    let url = invite["url"].as_str().context("link")?;
    carl.json(&["join", url, "--name", "Carl", "--json"])?;
    let late = program()?.run(&["join", url, "--name", "Late"])?;
    assert!(!late.status.success() && stderr(&late).contains("Hint: "), "{}", stderr(&late));
    let second = team.ann.json(&["invite", "--json"])?;
    team.ann.json(&["invite", "--revoke", second["code"].as_str().context("code")?, "--json"])?;
    let revoked = program()?.run(&["join", second["url"].as_str().context("link")?, "--json"])?;
    let answer: Value = serde_json::from_str(&stdout(&revoked))?;
    assert!(answer["error"].as_str().is_some_and(|code| code.contains("revoked")), "{answer}");
    let not_owner = team.bob.run(&["invite"])?;
    assert_eq!(not_owner.status.code(), Some(7), "{}", stderr(&not_owner));
    Ok(())
}

#[tokio::test]
async fn moderation_follows_roles() -> Result<()> {
    let team = Team::start().await?;
    let _bob = session(&team.bob, "bob-1", "BobS").await?;
    let refused = team.bob.run(&["ban", "Ann", "--json"])?;
    assert_eq!(refused.status.code(), Some(7), "{}", stdout(&refused));
    assert_eq!(team.ann.json(&["bans", "--json"])?, json!([]));
    team.ann.json(&["ban", "Bob", "--reason", "test", "--json"])?;
    assert_eq!(team.ann.json(&["bans", "--json"])?[0]["name"], "Bob");
    let banned = team.bob.run(&["peers"])?;
    assert_eq!(banned.status.code(), Some(7), "{}", stderr(&banned));
    team.ann.json(&["unban", "Bob", "--json"])?;
    team.bob.json(&["peers", "--json"])?;
    Ok(())
}

#[tokio::test]
async fn info_ping_and_status_tell_about_the_mesh() -> Result<()> {
    let team = Team::start().await?;
    let info = team.bob.json(&["info", "--json"])?;
    assert_eq!((&info["slug"], &info["displayName"], &info["members"]), (&json!("team"), &json!("Bob"), &json!(2)));
    let ping = team.bob.json(&["ping", "--json"])?;
    assert!(ping[0]["round_trip_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{ping}");
    assert!(team.bob.run(&["status"])?.status.success());
    let all = team.ann.json(&["peers", "--all", "--json"])?;
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all:#}");
    let Team { broker, bob, .. } = team;
    drop(broker);
    let down = bob.run(&["status"])?;
    assert_eq!(down.status.code(), Some(1));
    let peers = bob.run(&["peers", "--json"])?;
    assert_eq!(peers.status.code(), Some(4), "{}", stdout(&peers));
    let inbox = bob.run(&["inbox"])?;
    assert_eq!(inbox.status.code(), Some(4), "{}", stderr(&inbox));
    Ok(())
}

#[tokio::test]
async fn ids_and_json_errors_have_their_shapes() -> Result<()> {
    let team = Team::start().await?;
    let bad = team.ann.run(&["msg-status", "x!", "--json"])?;
    let answer: Value = serde_json::from_str(&stdout(&bad))?;
    assert_eq!(
        (bad.status.code(), &answer["error"], &answer["field"]),
        (Some(3), &json!("invalid_argument"), &json!("id"))
    );
    let missing = team.ann.run(&["msg-status", "abcdefgh12", "--json"])?;
    let answer: Value = serde_json::from_str(&stdout(&missing))?;
    assert_eq!(
        (missing.status.code(), &answer["error"], &answer["isPrefix"]),
        (Some(5), &json!("not_found"), &json!(true))
    );
    let own = team.ann.run(&["send", "Ann", "me?"])?;
    assert_eq!(own.status.code(), Some(3), "{}", stderr(&own));
    team.ann.json(&["send", "Ann", "note to self", "--self", "--json"])?;
    assert_eq!(texts(&team.ann.json(&["inbox", "--json"])?), ["note to self"]);
    Ok(())
}

#[tokio::test]
async fn many_inboxes_at_once_print_each_message_once() -> Result<()> {
    let team = Team::start().await?;
    for number in 0..20 {
        team.ann.json(&["send", "Bob", &format!("m{number}"), "--json"])?;
    }
    let runs: Vec<_> = (0..3)
        .map(|_| {
            let mut command = team.bob.command(&["inbox", "--wait", "0", "--json"]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()
        })
        .collect::<std::io::Result<_>>()?;
    let mut all = Vec::new();
    for run in runs {
        let output = run.wait_with_output()?;
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        let list: Value = serde_json::from_slice(&output.stdout)?;
        all.extend(texts(&list).into_iter().map(str::to_owned));
    }
    all.extend(texts(&team.bob.json(&["inbox", "--json"])?).into_iter().map(str::to_owned));
    assert_eq!(all.len(), 20, "{all:?}");
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 20);
    Ok(())
}

#[tokio::test]
async fn a_mesh_that_is_not_reached_is_not_said_to_be_empty() -> Result<()> {
    let team = Team::start().await?;
    let other = claudemesh_testkit::broker::TestBroker::start(claudemesh_testkit::broker::Database::Sqlite).await?;
    team.bob.json(&["create", "dead", "--broker", &other.url(), "--name", "Bob", "--json"])?;
    assert_eq!(team.bob.run(&["inbox", "--wait", "0"])?.status.code(), Some(0));
    drop(other);
    for wait in ["0", "1"] {
        team.ann.json(&["send", "Bob", "from the living", "--json"])?;
        let read = team.bob.run(&["inbox", "--wait", wait])?;
        assert_eq!(read.status.code(), Some(4), "{}", stderr(&read));
        let text = stdout(&read);
        assert!(text.contains("from the living"), "{text}");
        assert!(text.contains("dead: not reached; nothing new is here from before\n"), "{text}");
    }
    let read = team.bob.run(&["inbox", "--wait", "0", "--json"])?;
    assert_eq!(read.status.code(), Some(4));
    let list: Value = serde_json::from_str(&stdout(&read))?;
    assert_eq!(list, json!([]), "a mesh that was not reached is no message");
    let questions = team.bob.run(&["inbox", "--questions"])?;
    assert_eq!(questions.status.code(), Some(4));
    assert!(stdout(&questions).contains("team: no open questions\ndead: not reached;"), "{}", stdout(&questions));
    Ok(())
}

#[tokio::test]
async fn one_look_into_the_inbox_shows_all_large_messages() -> Result<()> {
    let team = Team::start().await?;
    let path = team.ann.home().join("large.txt");
    for bytes in [400_000, 400_000, 400_000, 400_000, 1_000_000, 1_000_000] {
        std::fs::write(&path, "x".repeat(bytes))?;
        team.ann.json(&["send", "Bob", "--file", path.to_str().context("utf-8")?, "--json"])?;
    }
    let read = team.bob.json(&["inbox", "--wait", "0", "--json"])?;
    let lengths: Vec<usize> = texts(&read).iter().map(|text| text.len()).collect();
    assert_eq!(lengths, [400_000, 400_000, 400_000, 400_000, 1_000_000, 1_000_000]);
    Ok(())
}

#[tokio::test]
async fn who_joins_again_reads_the_name_that_the_mesh_has() -> Result<()> {
    let team = Team::start().await?;
    let invite = team.ann.json(&["invite", "--json"])?;
    let url = invite["url"].as_str().context("a link")?;
    let again = team.bob.run(&["join", url, "--name", "Dora"])?;
    let text = stdout(&again);
    assert!(text.contains("  name    Bob\n") && text.contains("`claudemesh rename member Dora`"), "{text}");
    assert_eq!(team.bob.json(&["join", url, "--name", "Dora", "--json"])?["name"], "Bob");
    // The invite has a name for its guest.
    let invite = team.ann.json(&["invite", "--for-name", "Zoe", "--json"])?;
    let joined = program()?.json(&["join", invite["url"].as_str().context("a link")?, "--name", "Eve", "--json"])?;
    assert_eq!(joined["name"], "Zoe");
    Ok(())
}

#[tokio::test]
async fn who_is_away_cannot_be_kicked_and_a_message_is_replied_to() -> Result<()> {
    let team = Team::start().await?;
    for verb in ["kick", "disconnect"] {
        let nobody = team.ann.run(&[verb, "Bob"])?;
        assert_eq!(nobody.status.code(), Some(5), "{}", stdout(&nobody));
        assert!(stderr(&nobody).contains("Bob is not connected"), "{}", stderr(&nobody));
        assert_eq!(team.ann.json(&[verb, "--all", "--json"])?["affected"], json!([]));
    }
    let sent = team.bob.json(&["send", "Ann", "not a question", "--json"])?;
    let reply = team.ann.run(&["reply", sent["messageId"].as_str().context("an id")?, "I see"])?;
    assert!(stdout(&reply).contains("replied to Bob"), "{}{}", stdout(&reply), stderr(&reply));
    Ok(())
}

#[tokio::test]
async fn hints_of_the_shell_speak_of_the_shell() -> Result<()> {
    let team = Team::start().await?;
    let unknown = program()?.run(&["join", &format!("{}/i/NXPE2345", team.broker.base())])?;
    let text = stderr(&unknown);
    assert_eq!(unknown.status.code(), Some(2), "{text}");
    assert!(text.contains("unknown to its broker") && text.contains("who invited you"), "{text}");
    let away = stderr(&team.ann.run(&["ask", "Bob", "there?"])?);
    assert!(away.contains("--wait-offline") && !away.contains("wait_offline"), "{away}");
    Ok(())
}

#[tokio::test]
async fn an_unknown_field_is_told_before_a_message_is_shown() -> Result<()> {
    let team = Team::start().await?;
    let _bob = session(&team.bob, "bob-1", "BobS").await?;
    for verb in [&["inbox", "--json=nosuch"][..], &["peers", "--json=nosuch"], &["info", "--json=nosuch"]] {
        let unknown = team.ann.run(verb)?;
        let answer: Value = serde_json::from_str(&stdout(&unknown))?;
        assert_eq!((unknown.status.code(), &answer["error"]), (Some(3), &json!("unknown_field")), "{verb:?} {answer}");
        let known: Vec<&str> = answer["known"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert!(known.len() > 5 && known.iter().all(|name| answer["hint"].to_string().contains(name)), "{answer}");
    }
    // Every field that there is can be named.
    team.bob.json(&["send", "Ann", "once", "--json"])?;
    assert_eq!(team.ann.run(&["inbox", "--json=plaintext,nosuch"])?.status.code(), Some(3));
    let rows = [
        ("inbox", team.ann.json(&["inbox", "--json"])?),
        ("peers", team.ann.json(&["peers", "--json"])?),
        ("peers", team.ann.json(&["peers", "--all", "--json"])?),
        ("list", team.ann.json(&["list", "--json"])?),
    ];
    for (verb, rows) in rows {
        for name in rows.as_array().into_iter().flatten().filter_map(Value::as_object).flat_map(|row| row.keys()) {
            team.ann.json(&[verb, &format!("--json={name}")])?;
        }
    }
    Ok(())
}

/// A broker that has ended, an archived mesh and a healthy one: what the healthy one has is shown, and the others are named.
#[tokio::test]
async fn a_mesh_that_does_not_answer_hides_no_other() -> Result<()> {
    let team = Team::start().await?;
    let mut live = session(&team.ann, "ann-1", "AnnS").await?;
    live.tool("join_group", json!({"name": "qa"})).await?;
    team.bob.json(&["topic", "create", "plans", "--json"])?;
    let other = claudemesh_testkit::broker::TestBroker::start(claudemesh_testkit::broker::Database::Sqlite).await?;
    for slug in ["dead", "garden"] {
        let url = if slug == "dead" { other.url() } else { team.broker.url() };
        team.bob.json(&["create", slug, "--broker", &url, "--name", "Bob", "--json"])?;
    }
    team.bob.json(&["mesh", "archive", "garden", "--yes", "--json"])?;
    drop(other);
    let cases: [(&[&str], &str); 9] = [
        (&["peers"], "AnnS"),
        (&["peers", "--all"], "AnnS"),
        (&["members"], "team (2)"),
        (&["group", "list"], "@qa"),
        (&["topic", "list"], "plans"),
        (&["stats"], "AnnS"),
        (&["whoami"], "team: Bob"),
        (&["ping"], "team: "),
        (&["top", "--once"], "AnnS"),
    ];
    for (args, shown) in cases {
        let started = Instant::now();
        let output = team.bob.run(args)?;
        let (text, warnings) = (stdout(&output), stderr(&output));
        assert_eq!(output.status.code(), Some(4), "{args:?}: {warnings}");
        assert!(text.contains(shown), "{args:?}: {text}");
        let of = |slug: &str| warnings.lines().filter(|line| line.contains(&format!("Warning: {slug}: "))).count();
        assert_eq!((of("dead"), of("garden"), of("team")), (1, 1, 0), "{args:?}: {warnings}");
        assert!(warnings.contains("`claudemesh mesh restore garden`"), "{args:?}: {warnings}");
        assert!(started.elapsed().as_secs() < 10, "{args:?} took {:?}", started.elapsed());
    }
    let listed = team.bob.run(&["peers", "--json"])?;
    let rows: Value = serde_json::from_str(&stdout(&listed))?;
    assert_eq!((listed.status.code(), &rows[0]["displayName"]), (Some(4), &json!("AnnS")), "{rows:#}");
    // What is written in all meshes is written where it can be.
    let joined = team.bob.run(&["group", "join", "@frontend"])?;
    assert_eq!(joined.status.code(), Some(4), "{}", stderr(&joined));
    assert!(stdout(&joined).contains("joined @frontend"), "{}", stdout(&joined));
    // Who is meant may be in the mesh that cannot be asked; the error says what is known.
    let sent = team.bob.run(&["send", "AnnS", "hi"])?;
    assert_eq!(sent.status.code(), Some(3), "{}", stderr(&sent));
    assert!(stderr(&sent).contains("team knows AnnS, and dead cannot be asked"), "{}", stderr(&sent));
    // Nothing that answers: an error that names its mesh.
    let alone = team.bob.run(&["peers", "--mesh", "garden"])?;
    assert!(stderr(&alone).contains("`claudemesh mesh restore garden`"), "{}", stderr(&alone));
    let list = team.bob.json(&["list", "--json=slug,archived"])?;
    assert_eq!(
        list,
        json!([
            {"slug": "team", "archived": false}, {"slug": "dead", "archived": false}, {"slug": "garden", "archived": true}
        ])
    );
    assert!(stdout(&team.bob.run(&["list"])?).contains("garden  owner  archived\n"));
    team.bob.json(&["mesh", "restore", "garden", "--json"])?;
    assert_eq!(team.bob.json(&["list", "--json=archived"])?[2], json!({"archived": false}));
    drop(live);
    Ok(())
}

/// `watch` shows the meshes that are there, and says at once which ones are not.
#[tokio::test]
async fn watching_goes_on_without_a_mesh_that_is_archived() -> Result<()> {
    let team = Team::start().await?;
    team.bob.json(&["create", "garden", "--broker", &team.broker.url(), "--name", "Bob", "--json"])?;
    team.bob.json(&["mesh", "archive", "garden", "--yes", "--json"])?;
    let alone = Instant::now();
    let refused = team.bob.run(&["watch", "--mesh", "garden"])?;
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    assert!(alone.elapsed().as_secs() < 15, "nothing is waited for that was refused");
    let mut command = team.bob.command(&["watch", "--json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()?;
    let mut warning = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stderr.take().context("piped")?), &mut warning)?;
    assert!(warning.starts_with("Warning: garden: ") && warning.contains("mesh restore garden"), "{warning}");
    team.ann.json(&["send", "Bob", "still here", "--json"])?;
    let mut seen = std::io::BufReader::new(child.stdout.take().context("piped")?);
    let mut text = String::new();
    while !text.contains("still here") {
        text.clear();
        let read = std::io::BufRead::read_line(&mut seen, &mut text)?;
        assert!(read > 0, "watch has ended");
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}
