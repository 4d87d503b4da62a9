//! Joining and making meshes on a bad day: anyone who dies between the broker's answer and the config, or does it twice at once.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

use super::team::{Team, program, stderr, stdout, texts};

/// A config that is longer than [`with_little_room`] lets a file be.
fn long_config(person: &CommandLine) -> Result<()> {
    std::fs::create_dir_all(person.config_dir())?;
    let config = json!({"version": 1, "meshes": [], "padding": "x".repeat(6_000)});
    std::fs::write(person.config_dir().join("config.json"), config.to_string())?;
    Ok(())
}

/// The program as on a disk on which only short files find room: the system ends anyone who writes a longer one.
fn with_little_room(person: &CommandLine, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c 0; ulimit -f 4; exec \"$0\" \"$@\""]).arg(&person.binary).args(args);
    command.env_clear().env("PATH", "/usr/bin:/bin").envs(person.environment()).current_dir(person.project());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Members of this name, here or away.
fn members(team: &Team, name: &str) -> Result<usize> {
    let peers = team.ann.json(&["peers", "--all", "--json"])?;
    Ok(peers.as_array().into_iter().flatten().filter(|peer| peer["displayName"] == name).count())
}

#[tokio::test]
async fn a_join_that_died_before_it_was_kept_is_finished_by_the_next() -> Result<()> {
    let team = Team::start().await?;
    let carl = program()?;
    long_config(&carl)?;
    // The link works once.
    let invite = team.ann.json(&["invite", "--json"])?;
    let link = invite["url"].as_str().context("a link")?;
    let died = with_little_room(&carl, &["join", link, "--name", "Carl"]).output()?;
    assert!(!died.status.success(), "{}", stdout(&died));
    assert_eq!(members(&team, "Carl")?, 1, "the broker has it: {}", stderr(&died));
    assert_eq!(carl.json(&["list", "--json"])?, json!([]), "the config has not");
    let joined = carl.json(&["join", link, "--name", "Carl", "--json"])?;
    assert_eq!((&joined["slug"], &joined["alreadyMember"]), (&json!("team"), &json!(true)));
    assert_eq!(members(&team, "Carl")?, 1);
    carl.json(&["send", "Ann", "here I am", "--json"])?;
    assert_eq!(texts(&team.ann.json(&["inbox", "--json"])?), ["here I am"]);
    assert!(!carl.config_dir().join("drafts.json").exists(), "nothing is left of it");
    Ok(())
}

#[tokio::test]
async fn a_mesh_whose_maker_died_is_found_again_and_can_invite() -> Result<()> {
    let team = Team::start().await?;
    let (broker, olga) = (team.broker.url(), program()?);
    long_config(&olga)?;
    let create = ["create", "ops", "--broker", broker.as_str(), "--name", "Olga", "--json"];
    let died = with_little_room(&olga, &create).output()?;
    assert!(!died.status.success(), "{}", stdout(&died));
    // The name is taken for everyone else, and hers.
    let taken = program()?.run(&create)?;
    assert_eq!(taken.status.code(), Some(6), "{}", stdout(&taken));
    let made = olga.json(&create)?;
    assert_eq!(made["slug"], "ops");
    let invite = olga.json(&["invite", "--json"])?;
    let link = invite["url"].as_str().context("a link")?;
    program()?.json(&["join", link, "--name", "Pete", "--json"])?;
    // Made for good: a second one of that name is another mesh, which there cannot be.
    let again = olga.run(&create)?;
    assert_eq!(again.status.code(), Some(6), "{}", stdout(&again));
    Ok(())
}

#[tokio::test]
async fn two_joins_at_once_are_one_member() -> Result<()> {
    let team = Team::start().await?;
    let carl = program()?;
    let invite = team.ann.json(&["invite", "--uses", "5", "--json"])?;
    let link = invite["url"].as_str().context("a link")?;
    let start = || {
        let mut command = carl.command(&["join", link, "--name", "Carl", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let running = [start()?, start()?, start()?];
    let mut keys = vec![];
    for child in running {
        let output = child.wait_with_output()?;
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        keys.push(answer["pubkey"].clone());
    }
    keys.dedup();
    assert_eq!((keys.len(), members(&team, "Carl")?), (1, 1), "{keys:?}");
    assert_eq!(carl.json(&["list", "--json"])?.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn odd_names_are_taken_as_they_are_or_refused_with_a_word() -> Result<()> {
    let team = Team::start().await?;
    let invite = team.ann.json(&["invite", "--uses", "20", "--json"])?;
    let link = invite["url"].as_str().context("a link")?;
    for name in ["-dash", "a b", "🦀 crab", "O'Brien \"x\" $HOME `id`", "ü".repeat(64).as_str()] {
        let person = program()?;
        person.json(&["join", link, &format!("--name={name}"), "--json"])?;
        assert_eq!(person.json(&["info", "--json"])?["displayName"], name);
        team.ann.json(&["send", &format!("--to={name}"), "hello", "--json"])?;
        assert_eq!(texts(&person.json(&["inbox", "--json"])?), ["hello"], "{name}");
    }
    for name in ["", "   ", "a\nb", "\u{1b}[31mred", "x".repeat(65).as_str()] {
        let refused = program()?.run(&["join", link, &format!("--name={name}"), "--json"])?;
        assert_eq!(refused.status.code(), Some(3), "{name:?}: {}", stdout(&refused));
    }
    for slug in ["../../etc", "-x", "A", "a b", "🦀", "x"] {
        let refused = program()?.run(&["join", link, "--name", "Slug", &format!("--slug={slug}"), "--json"])?;
        assert_eq!(refused.status.code(), Some(3), "{slug:?}: {}", stdout(&refused));
    }
    assert_eq!(members(&team, "Slug")?, 0, "nothing is asked for under a short name that cannot be kept");
    // What a shell user types first, and the word that helps.
    let dash = program()?.run(&["join", link, "--name", "-dash"])?;
    assert!(stderr(&dash).contains("--name=-x"), "{}", stderr(&dash));
    Ok(())
}

/// Both links of a new invite: that of today and that of older clients.
fn links(team: &Team, args: &[&str]) -> Result<(String, [String; 2])> {
    let invite = team.ann.json(&[&["invite", "--json"], args].concat())?;
    let text = |name: &str| invite[name].as_str().map(str::to_owned).with_context(|| name.to_owned());
    Ok((text("code")?, [text("url")?, text("v1_url")?]))
}

#[tokio::test]
async fn an_invite_that_lets_nobody_in_says_why_in_one_word() -> Result<()> {
    let team = Team::start().await?;
    let (code, revoked) = links(&team, &[])?;
    team.ann.json(&["invite", "--revoke", &code, "--json"])?;
    let (_, used_up) = links(&team, &[])?;
    program()?.json(&["join", &used_up[0], "--name", "First", "--json"])?;
    let (_, expired) = links(&team, &["--expires", "90s"])?;
    let (_, again) = links(&team, &["--uses", "5"])?;
    team.ann.json(&["ban", "Bob", "--json"])?;
    let unknown = [format!("{}/i/NXPE2345", team.broker.base()), String::new()];
    let refused = |link: &str, word: &str| -> Result<()> {
        let late = program()?.run(&["join", link, "--name", "Late", "--json"])?;
        let answer: Value = serde_json::from_slice(&late.stdout)?;
        assert_eq!((late.status.code(), &answer["error"]), (Some(2), &json!(word)), "{link}: {answer}");
        let hint = answer["hint"].as_str().unwrap_or_default();
        assert!(hint.contains("who invited you") && !hint.contains("claudemesh invite"), "{hint}");
        Ok(())
    };
    team.broker.advance(std::time::Duration::from_secs(120));
    for (links, word) in [
        (&revoked, "invite_revoked"),
        (&used_up, "invite_used_up"),
        (&expired, "invite_expired"),
        (&unknown, "invite_unknown"),
    ] {
        // The clock of older links is the client's own, which has not moved.
        let of_before = word != "invite_expired";
        for link in links.iter().take(if of_before { 2 } else { 1 }).filter(|link| !link.is_empty()) {
            refused(link, word)?;
        }
    }
    // A member of before comes in all the same, and one that is banned is told that it is.
    let banned = team.bob.run(&["join", &again[0], "--name", "Bob", "--json"])?;
    assert_eq!(serde_json::from_slice::<Value>(&banned.stdout)?["error"], "revoked", "{}", stdout(&banned));
    Ok(())
}

#[tokio::test]
async fn links_are_read_as_people_copy_them() -> Result<()> {
    let team = Team::start().await?;
    let (_, [link, _]) = links(&team, &["--uses", "5"])?;
    let bare = link.strip_prefix("http://").context("a plain link")?;
    program()?.json(&["join", bare, "--name", "Carl", "--json"])?;
    program()?.json(&["join", &format!("<{link}>"), "--name", "Dora", "--json"])?;
    // A word that is no link: what it was taken for, not an address that no one has typed.
    let word = program()?
        .command(&["join", "garbage", "--name", "Eve"])
        .env("CLAUDEMESH_BROKER_URL", "ws://127.0.0.1:1/ws")
        .output()?;
    assert!(
        stderr(&word).contains("'garbage' was read as an invite code") && stderr(&word).contains("whole link"),
        "{}",
        stderr(&word)
    );
    Ok(())
}
