//! Sessions on one machine with nothing configured: one of them serves, and when it dies another one does.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use claudemesh_testkit::cli::CommandLine;
use claudemesh_testkit::host::{Call, Host, Options};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use super::local::Up;
use super::team::{options, program, session, stderr, texts, welcomed};

/// Kills of the holder in one conversation.
const ROUNDS: usize = 10;
/// Messages of one round; the holder dies while one of them is under way. All rounds together stay within what a session is
/// shown of one sender in a minute.
const MESSAGES: usize = 3;
/// How long an event may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The note of who serves a store.
pub(super) fn holder(store: &Path) -> Result<Value> {
    let path = store.join("holder.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Waits until a process other than `but` serves the store, and answers its note.
async fn other_holder(store: &Path, but: u64) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // A file tells nobody that it changed; the yield lets the other tasks of the test run.
        match holder(store) {
            Ok(note) if note["pid"] != but => return Ok(note),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    bail!("process {but} still serves")
}

pub(super) fn send_signal(pid: u64, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

fn pid(host: &Host) -> u64 {
    host.pid().map_or(0, u64::from)
}

fn broker_dir(person: &CommandLine) -> std::path::PathBuf {
    person.config_dir().join("broker")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(0, |meta| meta.permissions().mode() & 0o777)
}

/// Sends and answers whether the broker acknowledged it.
async fn tell(from: &mut Host, to: &str, text: &str) -> Result<bool> {
    Ok(!from.tool("send_message", json!({"to": to, "message": text})).await?.is_error)
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

/// Three sessions. In each round one that does not serve writes to another one, and the one that serves is killed in the
/// middle; then it starts again as the same session.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_killed_in_mid_conversation_loses_nothing() -> Result<()> {
    let person = program()?;
    let dir = broker_dir(&person);
    let names = ["Ann", "Bob", "Cid"];
    let mut hosts: HashMap<&str, Host> = HashMap::new();
    for name in names {
        hosts.insert(name, session(&person, &format!("s-{name}"), name).await?);
    }
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        let serving = holder(&dir)?["pid"].as_u64().context("a process id")?;
        let holds = *names.iter().find(|name| pid(&hosts[*name]) == serving).context("a session serves")?;
        let others: Vec<&str> = names.into_iter().filter(|name| *name != holds).collect();
        let (from, to) = if round % 2 == 0 { (others[0], others[1]) } else { (others[1], others[0]) };
        let mut sender = hosts.remove(from).context("a sender")?;
        let mut acknowledged = Vec::new();
        let mut killed_at = None;
        for number in 0..MESSAGES {
            let text = format!("round {round} message {number}");
            let kill = async {
                if number == MESSAGES / 2 {
                    send_signal(serving, Signal::KILL)?;
                    killed_at = Some(Instant::now());
                }
                anyhow::Ok(())
            };
            let (sent, kill) = tokio::join!(tell(&mut sender, to, &text), kill);
            kill?;
            if sent? {
                acknowledged.push(text);
            }
        }
        // The tool waits for the successor, so nothing is refused either.
        assert_eq!(acknowledged.len(), MESSAGES, "round {round}: {acknowledged:?}");
        let receiver = hosts.get_mut(to).context("a receiver")?;
        let mut arrived = Vec::new();
        while arrived.len() < MESSAGES {
            let note = receiver.channel().await.with_context(|| format!("round {round}, so far {arrived:?}"))?;
            if note.content.starts_with("round") {
                arrived.push(note.content);
            }
            if arrived.len() == MESSAGES / 2 + 1 {
                let at = killed_at.take();
                slowest = slowest.max(at.map_or(Duration::ZERO, |at| at.elapsed()));
            }
        }
        assert_eq!(arrived, acknowledged, "round {round}: each once and in order");
        hosts.insert(from, sender);
        hosts.remove(holds);
        hosts.insert(holds, session(&person, &format!("s-{holds}"), holds).await?);
        // What was under way came once: nothing is left of this round.
        for name in names {
            let rest = hosts.get_mut(name).context("a session")?.untaken();
            let rest: Vec<_> = rest.iter().filter(|note| note.content.starts_with("round")).collect();
            assert!(rest.is_empty(), "round {round}, {name}: {rest:?}");
        }
    }
    println!("slowest message across a killed holder: {} ms", slowest.as_millis());
    Ok(())
}

/// Ann asks Bob; answers the call under way and the question's id once it is at Bob's.
async fn question(ann: &mut Host, bob: &mut Host, text: &str) -> Result<(Call, String)> {
    let call = ann.start_tool("ask_peer", json!({"to": "Bob", "question": text})).await?;
    let note = bob.channel_with(text).await?;
    Ok((call, note.meta["message_id"].clone()))
}

async fn kill_holder(person: &CommandLine, expected: &Host) -> Result<()> {
    let serving = holder(&broker_dir(person))?["pid"].as_u64().context("a process id")?;
    assert_eq!(serving, pid(expected), "the first session serves");
    send_signal(serving, Signal::KILL)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_although_the_holder_died_meanwhile() -> Result<()> {
    let person = program()?;
    let cid = session(&person, "s-cid", "Cid").await?;
    let mut ann = session(&person, "s-ann", "Ann").await?;
    let mut bob = session(&person, "s-bob", "Bob").await?;
    let (call, id) = question(&mut ann, &mut bob, "which port?").await?;
    kill_holder(&person, &cid).await?;
    let reply = bob.tool("reply_to_peer", json!({"message_id": id, "answer": "7900"})).await?;
    assert!(!reply.is_error, "{}", reply.text);
    let answer = ann.finish(call).await?;
    assert_eq!(answer.structured["status"], "answered", "{}", answer.text);
    assert_eq!(answer.structured["answer"], "7900");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_a_holder_that_died_is_answered_when_its_session_is_back() -> Result<()> {
    let person = program()?;
    let mut bob = session(&person, "s-bob", "Bob").await?;
    let mut ann = session(&person, "s-ann", "Ann").await?;
    let (call, id) = question(&mut ann, &mut bob, "still there?").await?;
    kill_holder(&person, &bob).await?;
    drop(bob);
    let mut bob = session(&person, "s-bob", "Bob").await?;
    let pending = bob.tool("poll_inbox", json!({})).await?;
    assert!(pending.text.contains("still there?"), "{}", pending.text);
    let reply = bob.tool("reply_to_peer", json!({"message_id": id, "answer": "again"})).await?;
    assert!(!reply.is_error, "{}", reply.text);
    assert_eq!(ann.finish(call).await?.structured["answer"], "again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asker_that_served_and_died_gets_its_answer_when_it_is_back() -> Result<()> {
    let person = program()?;
    let mut ann = session(&person, "s-ann", "Ann").await?;
    let mut bob = session(&person, "s-bob", "Bob").await?;
    let (_, id) = question(&mut ann, &mut bob, "are you sure?").await?;
    kill_holder(&person, &ann).await?;
    drop(ann);
    let reply = bob.tool("reply_to_peer", json!({"message_id": id, "answer": "quite sure"})).await?;
    assert!(!reply.is_error, "{}", reply.text);
    let mut ann = session(&person, "s-ann", "Ann").await?;
    let note = ann.channel_with("quite sure").await?;
    assert_eq!(note.meta["reply_to_id"], id);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_start_at_once_have_one_holder_and_one_mesh() -> Result<()> {
    let person = program()?;
    let names: Vec<String> = (0..6).map(|number| format!("s{number}")).collect();
    let starts = names.iter().map(|name| session(&person, name, name));
    let started = futures_util::future::try_join_all(starts).await?;
    let mut hosts: Vec<(&String, Host)> = names.iter().zip(started).collect();
    let meshes = person.json(&["list", "--json"])?;
    assert_eq!(meshes.as_array().map(Vec::len), Some(1), "{meshes}");
    let peers = person.json(&["peers", "--json"])?;
    let seen: Vec<&str> =
        peers.as_array().into_iter().flatten().filter_map(|peer| peer["displayName"].as_str()).collect();
    assert!(names.iter().all(|name| seen.contains(&name.as_str())), "{peers}");
    // One is killed; all others come over to one successor.
    let dir = broker_dir(&person);
    let first = holder(&dir)?["pid"].as_u64().context("a process id")?;
    hosts.retain(|(_, host)| pid(host) != first);
    assert_eq!(hosts.len(), names.len() - 1, "the dropped one was killed");
    other_holder(&dir, first).await?;
    let ((name, last), rest) = hosts.split_last_mut().context("sessions")?;
    for (from, host) in rest {
        let answer = host.tool("send_message", json!({"to": name, "message": format!("from {from}")})).await?;
        assert!(!answer.is_error, "{from} to {name}: {}", answer.text);
        last.channel_with(&format!("from {from}")).await?;
    }
    // To everyone, right after a kill: those who have not come over yet must not be left out.
    let second = holder(&dir)?["pid"].as_u64().context("a process id")?;
    send_signal(second, Signal::KILL)?;
    hosts.retain(|(_, host)| pid(host) != second);
    let ((_, first), rest) = hosts.split_first_mut().context("sessions")?;
    let answer = first.tool("send_message", json!({"to": "*", "message": "to everyone"})).await?;
    assert!(!answer.is_error, "{}", answer.text);
    for (_, host) in rest {
        host.channel_with("to everyone").await?;
    }
    let mut served = 0;
    for (_, host) in hosts {
        let ended = host.end().await?;
        served += ended.stderr.matches("this process serves the local mesh dur_ms").count();
    }
    // Those who are still there when a holder ends in good order may take over for a moment; never two at once.
    assert!((1..names.len()).contains(&served), "{served}");
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
    assert!(!tell(&mut third, "Bob", "nobody here").await?);
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
    let team = super::team::Team::start().await?;
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
    let team = super::team::Team::start().await?;
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
async fn a_stopped_holder_is_continued() -> Result<()> {
    let person = program()?;
    let mut ann = session(&person, "s-ann", "Ann").await?;
    let mut bob = session(&person, "s-bob", "Bob").await?;
    let dir = broker_dir(&person);
    let serving = holder(&dir)?["pid"].as_u64().context("a process id")?;
    // What a terminal sends on Ctrl-Z does not stop a session's server at all.
    send_signal(serving, Signal::TSTP)?;
    let other = if serving == pid(&ann) { &mut bob } else { &mut ann };
    assert!(!other.tool("list_peers", json!({})).await?.is_error);
    send_signal(serving, Signal::STOP)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Each waits for its answer for a few seconds; the connection notices the silence meanwhile.
        if !other.tool("list_peers", json!({})).await?.is_error {
            break;
        }
        assert!(Instant::now() < deadline, "nobody continued it");
    }
    assert_eq!(holder(&dir)?["pid"], serving, "still the same holder: it was never dead");
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
