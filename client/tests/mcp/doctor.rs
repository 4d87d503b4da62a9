//! The doctor's loopback: every route of a session, in order and broken.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use serde_json::Value;

use super::routes::without_channel;
use super::team::{Team, stdout};

/// Every row, in order.
const ROUTES: [&str; 9] =
    ["channel", "notice", "pull", "stop", "question", "hook", "rewake", "monitor", "inbox-socket"];

/// A row of the loopback: route, level, what was found, what mends it.
type Row = (String, String, String, String);

async fn loopback(person: &CommandLine, env: &[(&str, &str)]) -> Result<Vec<Row>> {
    let mut command = person.command(&["doctor", "--json"]);
    command.envs(env.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let rows = answer["checks"].as_array().context("rows")?.iter().filter(|row| row["name"] == "loopback");
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    rows.map(|row| {
        let detail = text(row, "detail").strip_prefix("team: ").context("a mesh")?.to_owned();
        let (route, found) = detail.split_once(": ").with_context(|| detail.clone())?;
        // Behind it stands what the route does, unless it is not used.
        let found = match found.strip_suffix(')').and_then(|found| found.rsplit_once(" (")) {
            Some((found, meaning)) if !meaning.is_empty() => found,
            _ => {
                anyhow::ensure!(found.starts_with("not used"), "{detail}");
                found
            }
        };
        Ok((route.to_owned(), text(row, "level"), found.to_owned(), text(row, "fix")))
    })
    .collect()
}

/// Installs with a program in between, which a script can break: `case` lines of a shell before the real one runs.
fn install_with(person: &CommandLine, script: &str) -> Result<()> {
    let folder = person.home().join("between");
    std::fs::create_dir_all(&folder)?;
    let between = folder.join("claudemesh");
    std::fs::write(&between, format!("#!/bin/sh\n{script}\nexec '{}' \"$@\"\n", person.binary.display()))?;
    std::fs::set_permissions(&between, std::fs::Permissions::from_mode(0o755))?;
    person.json(&["install", "--json"])?;
    for file in [".claude.json", ".claude/settings.json"].map(|name| person.home().join(name)) {
        let text = std::fs::read_to_string(&file)?;
        let real = person.binary.display().to_string();
        assert!(text.contains(&real), "{text}");
        std::fs::write(&file, text.replace(&real, &between.display().to_string()))?;
    }
    Ok(())
}

/// Which rows stop, with their places.
fn stops(rows: &[Row]) -> Vec<(&str, &str)> {
    rows.iter().filter(|row| row.1 != "ok").map(|row| (row.0.as_str(), row.2.as_str())).collect()
}

#[tokio::test]
async fn the_doctor_sends_itself_a_message_over_every_route() -> Result<()> {
    let team = Team::start().await?;
    let rows = loopback(&team.bob, &[]).await?;
    assert_eq!(stops(&rows), []);
    // Nothing of it is left: neither with the peers nor on the disk.
    let peers = team.ann.json(&["peers", "--all", "--json"])?.to_string();
    assert!(!peers.contains("claudemesh-doctor"), "{peers}");
    let servers = team.bob.config_dir().join("run/servers");
    let left: Vec<_> = std::fs::read_dir(&servers)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ROUTES);
    for (route, _, found, _) in &rows {
        let way = match route.as_str() {
            "notice" => "stored → received → told, ",
            "question" => "asked → received → put before the session → answered, ",
            _ => "stored → received → handed over → seen, ",
        };
        assert!(found.starts_with(way) && found.ends_with(" ms"), "{route}: {found}");
    }
    // Nothing of it waits for anyone afterwards.
    assert_eq!(team.bob.json(&["inbox", "--json"])?, serde_json::json!([]));
    assert_eq!(team.bob.json(&["inbox", "--questions", "--json"])?, serde_json::json!([]));
    // A running session tells how its routes stand.
    let _bob = without_channel(&team.bob, "bob-1", "BobS").await?;
    let text = stdout(&team.bob.run(&["doctor", "--no-loopback"])?);
    assert!(
        text.contains("BobS (process ") && text.contains("meshes team: channel off (CLAUDEMESH_CHANNEL=off)"),
        "{text}"
    );
    assert!(text.contains("no hook has fired") && text.contains("→ claudemesh install"), "{text}");
    assert!(!text.contains("loopback"));
    Ok(())
}

/// What Claude Code would run is what is tried: an installed program that prints nothing.
#[tokio::test]
async fn hooks_that_print_nothing_stop_their_routes_and_no_other() -> Result<()> {
    let team = Team::start().await?;
    // The plug-in's monitor is started from the PATH, with the plug-in; without it the doctor tries this program.
    let silent = "case \"$1\" in hook) exec '{}' \"$@\" > /dev/null 2>&1;; esac";
    install_with(&team.bob, &silent.replace("{}", &team.bob.binary.display().to_string()))?;
    let settings = team.bob.home().join(".claude/settings.json");
    let text = std::fs::read_to_string(&settings)?;
    std::fs::write(&settings, text.replacen('{', "{\"crossSessionInbound\": \"hold\",", 1))?;
    let rows = loopback(&team.bob, &[]).await?;
    let hold = format!("not used: crossSessionInbound is hold in {}", settings.display());
    assert_eq!(
        stops(&rows),
        [
            ("stop", "stored → received; the stop hook let the session rest"),
            ("question", "asked → received; the stop hook does not put it before the session"),
            ("hook", "stored → received; the hook printed no message"),
            ("rewake", "stored → received; the waiting hook ended without the message"),
            ("inbox-socket", hold.as_str()),
        ]
    );
    for (route, level, _, fix) in rows.iter().filter(|row| row.1 != "ok") {
        let socket = route == "inbox-socket";
        let expected = if socket { format!("$EDITOR {}", settings.display()) } else { "claudemesh install".into() };
        assert_eq!((level.as_str(), fix), (if socket { "warning" } else { "failure" }, &expected), "{route}");
    }
    assert_eq!(team.bob.json(&["inbox", "--questions", "--json"])?, serde_json::json!([]), "no question stays open");
    Ok(())
}

/// A server that writes no notes, offers no tools and shows the wrong token.
#[tokio::test]
async fn a_server_that_keeps_to_nothing_stops_the_other_routes() -> Result<()> {
    let team = Team::start().await?;
    let broken = "case \"$1\" in mcp) export CLAUDEMESH_CHANNEL=off CLAUDEMESH_MCP_SURFACE=none CLAUDE_CODE_MESSAGING_TOKEN=x;; esac";
    install_with(&team.bob, broken)?;
    let rows = loopback(&team.bob, &[]).await?;
    assert_eq!(
        stops(&rows),
        [
            ("channel", "stored → received; no note was written: CLAUDEMESH_CHANNEL=off"),
            ("notice", "stored → received; the tool's answer does not say that something waits"),
            ("pull", "stored → received; check_messages did not bring it"),
            ("question", "asked → shown; reply_to_peer does not answer it"),
            (
                "inbox-socket",
                "stored → received; what was posted breaks the form: the first line does not show the token"
            ),
        ]
    );
    assert!(rows.iter().filter(|row| row.1 != "ok").all(|row| row.1 == "failure" && !row.3.is_empty()), "{rows:#?}");
    Ok(())
}

#[tokio::test]
async fn a_monitor_of_the_plug_in_that_prints_nothing_and_a_switched_off_socket_are_told() -> Result<()> {
    let team = Team::start().await?;
    install_with(
        &team.bob,
        &format!("case \"$2\" in monitor) exec '{}' \"$@\" > /dev/null;; esac", team.bob.binary.display()),
    )?;
    std::fs::remove_file(team.bob.home().join(".claude.json"))?;
    std::fs::write(
        team.bob.home().join(".claude/settings.json"),
        "{\"enabledPlugins\": {\"claudemesh@claudemesh\": true}}",
    )?;
    let path = format!("{}:{}", team.bob.home().join("between").display(), std::env::var("PATH")?);
    let rows = loopback(&team.bob, &[("PATH", &path), ("CLAUDEMESH_INBOX_SOCKET", "off")]).await?;
    assert_eq!(
        stops(&rows),
        [
            ("monitor", "stored → received; the monitor printed no message"),
            ("inbox-socket", "not used: CLAUDEMESH_INBOX_SOCKET=off"),
        ]
    );
    assert_eq!(rows.last().map(|row| row.3.as_str()), Some("unset CLAUDEMESH_INBOX_SOCKET"));
    Ok(())
}

/// The rule for what comes in stands before every route, so it stops them all, and nothing of the doctor's stays held.
#[tokio::test]
async fn a_rule_that_holds_everything_stops_every_route() -> Result<()> {
    let team = Team::start().await?;
    let own = team.bob.json(&["list", "--json"])?[0]["pubkey"].as_str().context("a key")?.to_owned();
    team.bob.json(&["inbound", "set", "hold", "--from", &own[..16], "--json"])?;
    let rows = loopback(&team.bob, &[]).await?;
    assert_eq!(rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ROUTES);
    for (route, level, found, fix) in &rows {
        assert_eq!(
            (level.as_str(), found.as_str(), fix.as_str()),
            ("failure", "stored → received; the rule for incoming messages holds it", "claudemesh inbound"),
            "{route}"
        );
    }
    assert_eq!(team.bob.json(&["held", "--json"])?, serde_json::json!([]));
    Ok(())
}

/// A broker that takes a connection and says nothing keeps the doctor waiting; what it knows already is on the screen.
#[tokio::test]
async fn rows_are_printed_as_they_come() -> Result<()> {
    let team = Team::start().await?;
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let path = team.bob.config_dir().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let mut second = config["meshes"][0].clone();
    second["slug"] = "silent".into();
    second["meshId"] = "another".into();
    second["brokerUrl"] = format!("ws://{}/ws", silent.local_addr()?).into();
    config["meshes"].as_array_mut().context("meshes")?.push(second);
    std::fs::write(&path, config.to_string())?;
    let mut command = team.bob.command(&["doctor", "--no-loopback"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn()?;
    let mut rows = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().context("piped")?));
    let mut next = |begin: &str| -> Result<String> {
        loop {
            let row = rows.next().with_context(|| format!("no row {begin}"))??;
            if row.contains(begin) {
                return Ok(row);
            }
        }
    };
    next("config ")?;
    next("broker       team (")?;
    assert!(child.try_wait()?.is_none(), "it still waits for the silent broker");
    next("broker       silent (")?;
    assert_eq!(child.wait()?.code(), Some(1));
    drop(silent);
    let answer: Value = serde_json::from_str(&stdout(&team.bob.run(&["doctor", "--no-loopback", "--json"])?))?;
    assert!(answer["checks"].as_array().is_some_and(|rows| rows.len() > 3), "{answer}");
    Ok(())
}
