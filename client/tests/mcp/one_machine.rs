//! Sessions on one machine with nothing configured: which mesh they use, where it lies, and how the verbs fit in.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use claudemesh_testkit::host::{Host, Options};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::local::Up;
use super::takeover::{broker_dir, holder, other_holder, pid, send_signal, tell};
use super::team::{Team, options, program, session, stderr, texts, welcomed};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(0, |meta| meta.permissions().mode() & 0o777)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_with_nothing_configured_talk() -> Result<()> {
    let person = program()?;
    let (mut ann, mut bob) = tokio::try_join!(session(&person, "s-ann", "Ann"), session(&person, "s-bob", "Bob"))?;
    assert!(tell(&mut ann, "Bob", "are you there?").await?);
    let question = bob.channel_with("are you there?").await?;
    let answer = json!({"to": question.meta["from_pubkey"], "message": "yes", "reply_to": question.meta["message_id"]});
    assert!(!bob.tool("send_message", answer).await?.is_error);
    ann.channel_with("yes").await?;

    let dir = broker_dir(&person);
    assert!([pid(&ann), pid(&bob)].map(Value::from).contains(&holder(&dir)?["pid"]));
    let modes = [mode(&person.config_dir()), mode(&dir), mode(&dir.join("broker.sock")), mode(&dir.join("mesh.json"))];
    assert_eq!(modes, [0o700, 0o700, 0o600, 0o600]);
    assert_eq!(mode(&dir.join("claudemesh.db")), 0o600);
    // The shell is another client of the same mesh, and the holder's end is no end for the other.
    person.json(&["send", "Bob", "from the shell", "--json"])?;
    bob.channel_with("from the shell").await?;
    let (holds, mut other) = if holder(&dir)?["pid"] == pid(&ann) { (ann, bob) } else { (bob, ann) };
    let before = pid(&holds);
    assert!(holds.end().await?.status.success());
    other_holder(&dir, before).await?;
    let peers = other.tool("list_peers", json!({})).await?;
    assert!(!peers.is_error, "{}", peers.text);
    assert!(other.end().await?.status.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mesh_db_path_is_one_store_for_several_config_folders() -> Result<()> {
    let (ann, bob) = (program()?, program()?);
    let shared = tempfile::tempdir()?;
    let database = shared.path().join("team/mesh.db");
    let here = |person: &CommandLine, id: &str, name: &str| -> Options {
        options(person, id, name).env("MESH_DB_PATH", database.display().to_string())
    };
    let mut first = Host::start(here(&ann, "s-ann", "Ann")).await?;
    welcomed(&mut first).await?;
    let mut second = Host::start(here(&bob, "s-bob", "Bob")).await?;
    welcomed(&mut second).await?;
    assert!(tell(&mut first, "Bob", "one store").await?);
    second.channel_with("one store").await?;
    assert_eq!((mode(&database), mode(&shared.path().join("team/mesh.db.mesh"))), (0o600, 0o700));
    assert!(!broker_dir(&ann).exists() && !broker_dir(&bob).exists());
    // A shell of the same config folder needs no variable: the config knows where the mesh is. Another folder does.
    ann.json(&["send", "Bob", "from the shell", "--json"])?;
    second.channel_with("from the shell").await?;
    let other = program()?;
    let mut third = session(&other, "s-else", "Else").await?;
    assert!(!tell(&mut third, "Bob", "no one here").await?);
    assert!(broker_dir(&other).join("claudemesh.db").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_used_is_told_by_the_tools_and_mended_without_a_restart() -> Result<()> {
    let person = program()?;
    let blocked = person.home().join("blocked");
    std::fs::write(&blocked, "a file where a folder should be")?;
    let database = blocked.join("mesh.db").display().to_string();
    let mut ann = Host::start(options(&person, "s-ann", "Ann").env("MESH_DB_PATH", database)).await?;
    let answer = ann.tool("list_peers", json!({})).await?;
    assert!(answer.is_error && answer.text.contains("blocked"), "{}", answer.text);
    std::fs::remove_file(&blocked)?;
    let answer = ann.tool("list_peers", json!({})).await?;
    assert!(!answer.is_error, "{}", answer.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_is_started_when_a_mesh_is_joined_unless_it_is_asked_for() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "s-ann", "Ann").await?;
    assert!(!broker_dir(&team.ann).exists());
    assert!(!ann.tool("list_peers", json!({})).await?.is_error);
    let mut asked = Host::start(options(&team.ann, "s-two", "Two").env("CLAUDEMESH_LOCAL", "1")).await?;
    let (one, two) = (asked.channel_with("Connected to mesh").await?, asked.channel_with("Connected to mesh").await?);
    let mut slugs = [one.meta["mesh_slug"].clone(), two.meta["mesh_slug"].clone()];
    slugs.sort();
    assert_eq!(slugs, ["local", "team"]);
    // Switched off: no mesh, no broker, and the tools say so.
    let alone = program()?;
    let mut off = Host::start(options(&alone, "s-off", "Off").env("CLAUDEMESH_LOCAL", "0")).await?;
    let answer = off.tool("list_peers", json!({})).await?;
    assert!(answer.is_error && answer.text.contains("no mesh is joined"), "{}", answer.text);
    assert!(!broker_dir(&alone).exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_that_made_itself_steps_back_when_another_is_joined() -> Result<()> {
    let team = Team::start().await?;
    let person = program()?;
    session(&person, "s-one", "One").await?.end().await?;
    let link = team.ann.json(&["invite", "--json"])?;
    person.json(&["join", link["url"].as_str().context("a link")?, "--name", "Eve", "--json"])?;
    // No `--mesh` needed, neither here nor in a session.
    person.json(&["send", "Ann", "hello", "--json"])?;
    assert_eq!(texts(&team.ann.json(&["inbox", "--json"])?), ["hello"]);
    let mut again = Host::start(options(&person, "s-two", "Two")).await?;
    let welcome = again.channel_with("Connected to mesh").await?;
    assert_eq!(welcome.meta["mesh_slug"], "team");
    assert!(!again.tool("send_message", json!({"to": "Ann", "message": "again"})).await?.is_error);
    // Named, it is there as before.
    person.json(&["peers", "--mesh", "local", "--json"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_serves_while_it_runs_and_what_it_sent_waits() -> Result<()> {
    let person = program()?;
    let bob = session(&person, "s-bob", "Bob").await?;
    bob.end().await?;
    let sent = person.json(&["send", "Bob", "while you were away", "--json"])?;
    assert_eq!(sent["ok"], true, "{sent}");
    let mut bob = session(&person, "s-bob", "Bob").await?;
    bob.channel_with("while you were away").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_taken_meanwhile_is_left_to_its_owner() -> Result<()> {
    let person = program()?;
    let dir = broker_dir(&person);
    let ann = session(&person, "s-ann", "Ann").await?;
    let before = holder(&dir)?["url"].as_str().context("a URL")?.to_owned();
    ann.end().await?;
    let address = before.trim_start_matches("ws://").trim_end_matches("/ws").to_owned();
    let _taken = std::net::TcpListener::bind(&address).with_context(|| address.clone())?;
    let mut ann = session(&person, "s-ann", "Ann").await?;
    let now = holder(&dir)?["url"].as_str().context("a URL")?.to_owned();
    assert_ne!(now, before);
    let list = person.json(&["list", "--json"])?;
    assert_eq!(list[0]["brokerUrl"], now.as_str());
    assert!(!ann.tool("list_peers", json!({})).await?.is_error);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn up_stands_by_while_a_session_serves_and_takes_the_place_with_an_address() -> Result<()> {
    let person = program()?;
    let dir = broker_dir(&person);
    let mut ann = session(&person, "s-ann", "Ann").await?;
    let standing = Up::start_plain(&person, &[])?;
    assert!(standing.text.contains("takes over when that ends"), "{}", standing.text);
    assert_eq!(holder(&dir)?["pid"], pid(&ann));
    // Killed: `up` is next. The session that starts again finds it serving.
    send_signal(pid(&ann), Signal::KILL)?;
    let note = other_holder(&dir, pid(&ann)).await?;
    assert_eq!((&note["kind"], &note["pid"]), (&json!("up"), &json!(standing.pid())));
    drop(ann);
    let second = person.run(&["up"])?;
    assert_eq!(second.status.code(), Some(6), "{}", stderr(&second));
    ann = session(&person, "s-ann", "Ann").await?;
    standing.stop()?;
    other_holder(&dir, note["pid"].as_u64().context("a process id")?).await?;
    // With an address of its own it does not wait for the session to end.
    let mut bob = session(&person, "s-bob", "Bob").await?;
    let asked = Up::start(&person, &[])?;
    assert_eq!(holder(&dir)?["pid"], asked.pid());
    assert!(tell(&mut ann, "Bob", "through up").await?);
    bob.channel_with("through up").await?;
    asked.stop()?;
    assert!(tell(&mut ann, "Bob", "and without it").await?);
    bob.channel_with("and without it").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_one_that_listened_for_other_machines_dies_people_are_told() -> Result<()> {
    let person = program()?;
    let dir = broker_dir(&person);
    let up = Up::start(&person, &[])?;
    // As on a machine with another address than loopback, which a test may not have.
    let mut note = holder(&dir)?;
    note["outsideUrl"] = "ws://10.1.2.3:7900/ws".into();
    std::fs::write(dir.join("holder.json"), note.to_string())?;
    let ann = session(&person, "s-ann", "Ann").await?;
    send_signal(u64::from(up.pid()), Signal::KILL)?;
    let next = other_holder(&dir, u64::from(up.pid())).await?;
    assert_eq!(next["pid"], pid(&ann));
    assert!(next["url"].as_str().is_some_and(|url| url.starts_with("ws://127.0.0.1:")), "{next}: this machine only");
    let fix = "claudemesh up --listen 10.1.2.3:7900";
    super::team::until("the config follows", || {
        Ok((person.json(&["list", "--json"])?[0]["lostOutsideUrl"] == "ws://10.1.2.3:7900/ws").then_some(()))
    })
    .await?;
    let listed = person.run(&["list"])?;
    assert!(super::team::stdout(&listed).contains(fix), "{}", super::team::stdout(&listed));
    let report: Value = serde_json::from_slice(&person.run(&["doctor", "--no-loopback", "--json"])?.stdout)?;
    let row = report["checks"].as_array().into_iter().flatten().find(|row| row["name"] == "listening").cloned();
    assert_eq!(row.context("a row")?["fix"], fix);
    // Anyone who listens again mends it; one that ends in good order leaves nothing to say.
    drop(up);
    let again = Up::start(&person, &[])?;
    assert_eq!(person.json(&["list", "--json"])?[0]["lostOutsideUrl"], Value::Null);
    again.stop()?;
    assert_eq!(person.json(&["list", "--json"])?[0]["lostOutsideUrl"], Value::Null);
    Ok(())
}
