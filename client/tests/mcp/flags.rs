//! What each flag of the verbs that need a broker does, where no other test shows it. `cli/flags.rs` holds the whole list.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use claudemesh_testkit::host::Host;
use serde_json::{Value, json};

use super::local::Up;
use super::team::{Team, options, program, session, stderr, stdout, texts, until};

/// The session of this name as the mesh lists it.
fn peer(of: &CommandLine, name: &str) -> Result<Value> {
    let peers = of.json(&["peers", "--json"])?;
    peers.as_array().into_iter().flatten().find(|peer| peer["displayName"] == name).cloned().context(name.to_owned())
}

fn word(value: &Value, name: &str) -> Result<String> {
    Ok(value[name].as_str().with_context(|| format!("{name} in {value}"))?.to_owned())
}

/// Joins with a link and answers who came out.
fn joined(link: &str, args: &[&str]) -> Result<(CommandLine, Value)> {
    let person = program()?;
    let answer = person.json(&[&["join", link, "--json"], args].concat())?;
    Ok((person, answer))
}

#[tokio::test]
async fn an_invite_has_a_role_a_name_groups_an_end_and_a_place_in_the_list() -> Result<()> {
    let team = Team::start().await?;
    let invite = |args: &[&str]| -> Result<Value> { team.ann.json(&[&["invite", "--json"], args].concat()) };
    // --role: an admin may moderate, a member may not.
    let (admin, _) = joined(&word(&invite(&["--role", "admin"])?, "url")?, &["--name", "Adam"])?;
    admin.json(&["bans", "--json"])?;
    assert_eq!(team.bob.run(&["kick", "Ann"])?.status.code(), Some(7));
    // --for-name and --groups: what the invite says wins over what who joins says.
    let link = invite(&["--for-name", "Grace", "--groups", "frontend:lead,qa"])?;
    let (grace, _) = joined(&word(&link, "url")?, &["--name", "Somebody"])?;
    assert_eq!(grace.json(&["info", "--json"])?["displayName"], "Grace");
    let _session = Host::start(options(&grace, "g-1", "GraceS")).await?;
    let seen = until("the session is listed", || Ok(peer(&team.ann, "GraceS").ok())).await?;
    let groups: Vec<&str> =
        seen["groups"].as_array().into_iter().flatten().filter_map(|group| group["name"].as_str()).collect();
    assert_eq!(groups, ["frontend", "qa"], "{seen}");
    assert_eq!(seen["groups"][0]["role"], "lead");
    // --uses: as many as it says. --expires: no longer than it says.
    let twice = word(&invite(&["--uses", "2"])?, "url")?;
    joined(&twice, &["--name", "One"])?;
    joined(&twice, &["--name", "Two"])?;
    assert!(!program()?.run(&["join", &twice, "--name", "Three"])?.status.success());
    let short = invite(&["--expires", "90s"])?;
    let code = word(&short, "code")?;
    let listed = |team: &Team| -> Result<Option<Value>> {
        let list = team.ann.json(&["invite", "--list", "--json"])?;
        let list = list.as_array().or_else(|| list["invites"].as_array()).cloned().unwrap_or_default();
        Ok(list.into_iter().find(|invite| invite["code"] == code.as_str()))
    };
    assert!(listed(&team)?.is_some());
    team.broker.advance(Duration::from_secs(120));
    let late = program()?.run(&["join", &word(&short, "url")?, "--name", "Late", "--json"])?;
    assert!(stdout(&late).contains("expired"), "{}", stdout(&late));
    Ok(())
}

#[tokio::test]
async fn a_mesh_has_a_title_and_a_short_name_of_ones_own() -> Result<()> {
    let team = Team::start().await?;
    let owner = program()?;
    let broker = team.broker.url();
    owner.json(&[
        "create",
        "ops",
        "--broker",
        &broker,
        "--name",
        "Olga",
        "--display-name",
        "Operations & more",
        "--json",
    ])?;
    assert_eq!(owner.json(&["list", "--json"])?[0]["name"], "Operations & more");
    let link = word(&owner.json(&["invite", "--json"])?, "url")?;
    // --slug: another name here, the same mesh there.
    let (bert, answer) = joined(&link, &["--name", "Bert", "--slug", "work"])?;
    assert_eq!(answer["slug"], "work");
    bert.json(&["send", "Olga", "hello", "--mesh", "work", "--json"])?;
    assert_eq!(texts(&owner.json(&["inbox", "--json"])?), ["hello"]);
    assert_eq!(bert.run(&["peers", "--mesh", "ops"])?.status.code(), Some(5));
    // The short name is taken: nothing is joined under it twice.
    let second = word(&team.ann.json(&["invite", "--json"])?, "url")?;
    let taken = bert.run(&["join", &second, "--name", "Bert", "--slug", "work", "--json"])?;
    let known = bert.json(&["list", "--json"])?;
    let slugs: Vec<&str> = known.as_array().into_iter().flatten().filter_map(|mesh| mesh["slug"].as_str()).collect();
    assert_eq!(slugs.iter().filter(|slug| **slug == "work").count(), 1, "{known} {}", stdout(&taken));
    Ok(())
}

#[tokio::test]
async fn the_operators_token_opens_a_broker_that_others_reach() -> Result<()> {
    let (host, guest) = (program()?, program()?);
    let port = std::net::TcpListener::bind("0.0.0.0:0")?.local_addr()?.port();
    let data = host.home().join("elsewhere");
    let folder = data.to_str().context("utf-8")?;
    let up = Up::start_plain(&host, &["--listen", &format!("0.0.0.0:{port}"), "--data-dir", folder, "--name", "Host"])?;
    // --data-dir: there and nowhere else. --name: the member of `up`.
    assert!(data.join("claudemesh.db").exists() && !host.config_dir().join("broker").exists());
    assert_eq!(host.json(&["info", "--json"])?["displayName"], "Host");
    let broker = format!("ws://127.0.0.1:{port}/ws");
    let create = |token: Option<&str>| -> Result<std::process::Output> {
        let mut args = vec!["create", "ours", "--broker", &broker, "--name", "Guest", "--json"];
        args.extend(token.into_iter().flat_map(|token| ["--operator-token", token]));
        guest.run(&args)
    };
    for bad in [None, Some("wrong")] {
        let refused = create(bad)?;
        assert!([Some(2), Some(7)].contains(&refused.status.code()), "{bad:?}: {}", stdout(&refused));
    }
    let token = std::fs::read_to_string(data.join("operator-token"))?;
    let made = create(Some(token.trim()))?;
    assert!(made.status.success(), "{}{}", stdout(&made), stderr(&made));
    assert!(!stdout(&made).contains(token.trim()) && !stderr(&made).contains(token.trim()), "it is a secret");
    up.stop()
}

#[tokio::test]
async fn presence_writes_are_for_the_session_that_is_named() -> Result<()> {
    let team = Team::start().await?;
    let _one = session(&team.bob, "bob-1", "One").await?;
    let _two = session(&team.bob, "bob-2", "Two").await?;
    let verbs: &[(&[&str], &str, Value)] = &[
        (&["status", "set", "dnd"], "status", json!("dnd")),
        (&["summary", "on it"], "summary", json!("on it")),
        (&["visible", "off"], "visible", json!(false)),
        (&["profile", "--avatar", "🦀"], "avatar", json!("🦀")),
        (&["profile", "--bio", "two\nlines"], "bio", json!("two\nlines")),
        (&["profile", "--title", "QA"], "title", json!("QA")),
        (&["profile", "--capabilities", "a,,b"], "capabilities", json!(["a", "b"])),
        (&["group", "join", "@qa", "--as", "lead"], "groups", json!([{"name": "qa", "role": "lead"}])),
        (&["group", "leave", "qa"], "groups", json!([])),
    ];
    // The member's own sessions see those that hide, too.
    let state = |name: &str, field: &str| -> Result<Value> {
        let peer = peer(&team.bob, name)?;
        Ok(if ["avatar", "bio", "title", "capabilities"].contains(&field) {
            peer["profile"][field].clone()
        } else {
            peer[field].clone()
        })
    };
    for (verb, field, value) in verbs {
        let other = state("Two", field)?;
        let done = team.bob.json(&[*verb, &["--session", "bob-1", "--json"]].concat())?;
        assert_eq!(done["sessions"].as_u64().or(done["left"].as_bool().map(u64::from)), Some(1), "{verb:?}: {done}");
        assert_eq!(state("One", field)?, *value, "{verb:?}");
        assert_eq!(state("Two", field)?, other, "{verb:?} changed the other session");
        let nobody = team.bob.run(&[*verb, &["--session", "no-such"]].concat())?;
        assert_eq!(nobody.status.code(), Some(5), "{verb:?}: {}", stderr(&nobody));
    }
    // `*` means all.
    assert_eq!(team.bob.json(&["summary", "all of us", "--session", "*", "--json"])?["sessions"], 2);
    assert_eq!(state("Two", "summary")?, "all of us");
    Ok(())
}

#[tokio::test]
async fn moderation_takes_one_the_silent_or_everyone_else() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let affected =
        |args: &[&str]| -> Result<Value> { Ok(team.ann.json(&[args, &["--json"]].concat())?["affected"].clone()) };
    // No one was silent for so long.
    assert_eq!(affected(&["kick", "--stale", "30m"])?, json!([]));
    assert_eq!(affected(&["disconnect", "--stale", "30m"])?, json!([]));
    // Disconnected, a session comes back by itself.
    assert_eq!(affected(&["disconnect", "--all"])?, json!(["BobS"]));
    until("it is back", || Ok(peer(&team.ann, "BobS").ok())).await?;
    assert!(!bob.tool("list_peers", json!({})).await?.is_error);
    team.broker.advance(Duration::from_secs(5));
    assert_eq!(affected(&["disconnect", "--stale", "2s"])?, json!(["BobS"]));
    until("it is back", || Ok(peer(&team.ann, "BobS").ok())).await?;
    // Kicked, it stays away.
    team.broker.advance(Duration::from_secs(5));
    assert_eq!(affected(&["kick", "--stale", "2s"])?, json!(["BobS"]));
    until("its tools say so", || Ok(peer(&team.ann, "BobS").is_err().then_some(()))).await?;
    assert!(bob.tool("list_peers", json!({})).await?.is_error);
    let _again = session(&team.bob, "bob-2", "BobTwo").await?;
    assert_eq!(affected(&["kick", "--all"])?, json!(["BobTwo"]));
    // One selection at a time.
    assert_eq!(team.ann.run(&["kick", "Bob", "--all"])?.status.code(), Some(3));
    Ok(())
}

#[tokio::test]
async fn the_reason_of_a_ban_is_in_the_brokers_log() -> Result<()> {
    let (ann, bob) = (program()?, program()?);
    let mut up = ann.command(&["up", "--listen", "127.0.0.1:0", "--name", "Ann"]);
    up.env("CLAUDEMESH_LOG", "info").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut up = up.spawn()?;
    let mut link = None;
    for line in BufReader::new(up.stdout.take().context("piped")?).lines() {
        let line = line?;
        link = link.or_else(|| line.split_whitespace().find(|word| word.contains("/i/")).map(str::to_owned));
        if line.contains("Ctrl-C ends it") {
            break;
        }
    }
    bob.json(&["join", &link.context("a link")?, "--name", "Bob", "--json"])?;
    ann.json(&["ban", "Bob", "--reason", "left\nthe company", "--json"])?;
    rustix::process::kill_process(rustix::process::Pid::from_child(&up), rustix::process::Signal::INT)?;
    let log = String::from_utf8(up.wait_with_output()?.stderr)?;
    assert!(log.lines().any(|line| line.contains("banned") && line.contains("left\\nthe company")), "{log}");
    Ok(())
}

#[tokio::test]
async fn the_inbox_of_the_shell_counts_looks_and_waits_as_it_is_told() -> Result<()> {
    let team = Team::start().await?;
    for number in 0..3 {
        team.ann.json(&["send", "Bob", &format!("m{number}"), "--json"])?;
    }
    // --peek leaves them unread; --limit takes the oldest, of --all the newest.
    for _ in 0..2 {
        assert_eq!(texts(&team.bob.json(&["inbox", "--peek", "--json"])?), ["m0", "m1", "m2"]);
    }
    assert_eq!(texts(&team.bob.json(&["inbox", "--limit", "2", "--json"])?), ["m0", "m1"]);
    assert_eq!(texts(&team.bob.json(&["inbox", "--limit", "2", "--json"])?), ["m2"]);
    assert_eq!(texts(&team.bob.json(&["inbox", "--all", "--limit", "2", "--wait", "0", "--json"])?), ["m1", "m2"]);
    // --json with fields, --quiet without heads.
    let short = team.bob.json(&["inbox", "--all", "--limit", "1", "--wait", "0", "--json=plaintext"])?;
    assert_eq!(short, json!([{"plaintext": "m2"}]));
    let quiet = team.bob.run(&["inbox", "--wait", "0", "--quiet"])?;
    assert_eq!(stdout(&quiet), "");
    assert!(stdout(&team.bob.run(&["inbox", "--wait", "0"])?).contains("no new messages"));
    // --priority of the sender.
    for (priority, shown) in [("now", "now"), ("low", "low"), ("next", "next")] {
        team.ann.json(&["send", "Bob", priority, "--priority", priority, "--json"])?;
        let read = team.bob.json(&["inbox", "--wait", "5", "--json"])?;
        assert_eq!((texts(&read), &read[0]["priority"]), (vec![shown], &json!(shown)));
    }
    Ok(())
}

#[tokio::test]
async fn a_question_of_the_shell_waits_for_who_is_away() -> Result<()> {
    let team = Team::start().await?;
    let away = team.ann.run(&["ask", "Bob", "there?", "--timeout", "5"])?;
    assert_eq!(away.status.code(), Some(5), "{}", stderr(&away));
    let mut asking = team.ann.command(&["ask", "Bob", "there?", "--wait-offline", "--timeout", "60", "--json"]);
    let asking = asking.stdout(Stdio::piped()).spawn()?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let note = bob.channel_with("there?").await?;
    bob.tool("reply_to_peer", json!({"message_id": note.meta["message_id"], "answer": "now"})).await?;
    let answer: Value = serde_json::from_slice(&asking.wait_with_output()?.stdout)?;
    assert_eq!(answer["answer"], "now", "{answer}");
    Ok(())
}

#[tokio::test]
async fn what_is_held_is_released_or_dropped_at_once() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    team.bob.json(&["inbound", "set", "hold", "--json"])?;
    let held = async |count: usize| {
        until("they are held", || {
            let list = team.bob.json(&["held", "--json"])?;
            Ok((list.as_array().map(Vec::len) == Some(count)).then_some(()))
        })
        .await
    };
    for text in ["drop one", "drop two"] {
        team.ann.json(&["send", "BobS", text, "--priority", "now", "--json"])?;
    }
    held(2).await?;
    team.bob.json(&["held", "drop", "--all", "--json"])?;
    held(0).await?;
    for text in ["let one", "let two"] {
        team.ann.json(&["send", "BobS", text, "--priority", "now", "--json"])?;
    }
    held(2).await?;
    team.bob.json(&["held", "release", "--all", "--json"])?;
    bob.channel_with("let one").await?;
    bob.channel_with("let two").await?;
    assert!(bob.untaken().iter().all(|note| !note.content.contains("drop")));
    Ok(())
}

#[tokio::test]
async fn a_file_goes_to_several_and_the_answer_refers_to_its_question() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let mut two = session(&team.bob, "bob-2", "BobTwo").await?;
    let path = team.ann.home().join("note.txt");
    std::fs::write(&path, "from a file")?;
    let file = path.to_str().context("utf-8")?;
    let sent = team.ann.json(&["send", "--to", "BobS", "--to", "BobTwo", "--file", file, "--json"])?;
    assert_eq!(sent.as_array().map(Vec::len), Some(2), "{sent}");
    let note = bob.channel_with("from a file").await?;
    two.channel_with("from a file").await?;
    // --reply-to with the beginning of an id.
    let reader = session(&team.ann, "ann-1", "AnnS").await;
    let mut ann = reader?;
    let id = note.meta["message_id"].clone();
    team.bob.json(&["inbox", "--all", "--wait", "0", "--json"])?;
    team.bob.json(&["send", "AnnS", "got it", "--reply-to", &id[..10], "--json"])?;
    assert_eq!(ann.channel_with("got it").await?.meta["reply_to_id"], id);
    Ok(())
}

#[tokio::test]
async fn a_launch_joins_first() -> Result<()> {
    let team = Team::start().await?;
    let carl = program()?;
    let bin = carl.home().join("bin");
    std::fs::create_dir_all(&bin)?;
    let claude = bin.join("claude");
    std::fs::write(&claude, "#!/bin/sh\necho started > \"$HOME/started\"\n")?;
    std::fs::set_permissions(&claude, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let link = word(&team.ann.json(&["invite", "--json"])?, "url")?;
    let mut launch = carl.command(&["launch", "--join", &link, "--name", "Carl", "--quiet"]);
    launch.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let ran = launch.output()?;
    assert!(ran.status.success(), "{}{}", stdout(&ran), stderr(&ran));
    assert!(carl.home().join("started").exists());
    assert_eq!(carl.json(&["info", "--json"])?["displayName"], "Carl");
    assert_eq!(carl.json(&["list", "--json"])?[0]["slug"], "team");
    Ok(())
}
