//! One session serves the others on its machine, and when it dies another one does.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use claudemesh_testkit::host::{Call, Host};
use claudemesh_testkit::wait;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use super::team::{options, program, session};

/// Kills of the holder in one conversation.
const ROUNDS: usize = 10;
/// Messages of one round; the holder dies while one of them is under way. All rounds together stay within what a session is
/// shown of one sender in a minute.
const MESSAGES: usize = 3;
/// Messages of the storm.
const STORM_MESSAGES: usize = 80;
/// How long an event may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The note of who serves a store.
pub(super) fn holder(store: &Path) -> Result<Value> {
    let path = store.join("holder.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Waits until a process other than `but` serves the store, and answers its note.
pub(super) async fn other_holder(store: &Path, but: u64) -> Result<Value> {
    other_holder_within(store, but, PATIENCE).await
}

async fn other_holder_within(store: &Path, but: u64, patience: Duration) -> Result<Value> {
    let other = async || Ok(holder(store).ok().filter(|note| note["pid"] != but));
    wait::until(&format!("another than process {but} serves"), patience, other).await
}

pub(super) fn send_signal(pid: u64, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

pub(super) fn pid(host: &Host) -> u64 {
    host.pid().map_or(0, u64::from)
}

pub(super) fn broker_dir(person: &CommandLine) -> PathBuf {
    person.config_dir().join("broker")
}

/// Sends and answers whether the broker acknowledged it.
pub(super) async fn tell(from: &mut Host, to: &str, text: &str) -> Result<bool> {
    let answer = from.tool("send_message", json!({"to": to, "message": text})).await?;
    // What is queued on this machine arrives later, in an order of its own.
    Ok(!answer.is_error && !answer.text.contains("queued here"))
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
            let message = sender.tool("send_message", json!({"to": to, "message": text}));
            let (sent, kill) = tokio::join!(message, kill);
            kill?;
            // The tool waits for the successor, so nothing is refused either.
            let sent = sent?;
            assert!(!sent.is_error, "{text}: {}", sent.text);
            acknowledged.push(text);
        }
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

/// Four sessions write to each other while the one that serves is killed again and again, at any moment of a takeover too. The seed of a
/// failing run is in its output.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_kills_loses_nothing_doubles_nothing_and_keeps_the_order() -> Result<()> {
    let seed = std::env::var("CLAUDEMESH_STORM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let person = program()?;
    let dir = broker_dir(&person);
    let names = ["Ann", "Bob", "Cid", "Dan"];
    // Read at the end: a session that dies between reading and writing would blur the count.
    let silent = |name: &str| {
        let mut options = options(&person, &format!("s-{name}"), name);
        options.args.extend(["--message-mode".into(), "off".into()]);
        options
    };
    let mut hosts: HashMap<&str, Host> = HashMap::new();
    for name in names {
        let mut host = Host::start(silent(name)).await?;
        // Connected, and so known to the others.
        assert!(!host.tool("list_peers", json!({})).await?.is_error);
        hosts.insert(name, host);
    }
    let mut acknowledged: Vec<(usize, usize, String)> = Vec::new();
    let mut kills = 0;
    for number in 0..STORM_MESSAGES {
        let from = rng.gen_range(0..names.len());
        let to = (from + rng.gen_range(1..names.len())) % names.len();
        let text = format!("{from} to {to}: {number:04}");
        let mut sender = hosts.remove(names[from]).context("a sender")?;
        let delay = Duration::from_millis(rng.gen_range(0..40));
        // The fault comes at any moment of the send and of the takeover before it: the time is the fault's, nothing is waited for.
        let kill = async {
            tokio::time::sleep(delay).await;
            let serving = holder(&dir).ok().and_then(|note| note["pid"].as_u64()).unwrap_or(0);
            let victim = names.iter().copied().find(|name| hosts.get(name).is_some_and(|host| pid(host) == serving));
            if victim.is_some() {
                send_signal(serving, Signal::KILL)?;
            }
            anyhow::Ok(victim)
        };
        let (sent, victim) = tokio::join!(tell(&mut sender, names[to], &text), kill);
        if sent? {
            acknowledged.push((from, to, text));
        }
        hosts.insert(names[from], sender);
        if let Some(victim) = victim? {
            kills += 1;
            hosts.remove(victim);
            hosts.insert(victim, Host::start(silent(victim)).await?);
        }
    }
    println!("{kills} kills, {} of {STORM_MESSAGES} messages acknowledged", acknowledged.len());
    assert!(kills > STORM_MESSAGES / 8, "only {kills} kills");
    for (to, name) in names.iter().enumerate() {
        let host = hosts.get_mut(name).context("a session")?;
        let mut got: Vec<String> = Vec::new();
        let expected = acknowledged.iter().filter(|(_, target, _)| *target == to).count();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = host.tool("check_messages", json!({"limit": 100})).await?;
            let messages = answer.structured["messages"].as_array().cloned().unwrap_or_default();
            got.extend(messages.iter().filter_map(|message| message["text"].as_str().map(str::to_owned)));
            if messages.is_empty() && (got.len() >= expected || Instant::now() > deadline) {
                break;
            }
        }
        for from in 0..names.len() {
            let sent = acknowledged.iter().filter(|one| (one.0, one.1) == (from, to)).map(|one| one.2.as_str());
            let start = format!("{from} to {to}: ");
            // A send that was refused or whose sender died may have arrived all the same, but once.
            let came: Vec<&str> = got.iter().map(String::as_str).filter(|text| text.starts_with(&start)).collect();
            let known: Vec<&str> = sent.collect();
            let ordered: Vec<&str> = came.iter().copied().filter(|text| known.contains(text)).collect();
            assert_eq!(ordered, known, "seed {seed}: each acknowledged message once and in order");
            let distinct: std::collections::HashSet<&str> = came.iter().copied().collect();
            assert_eq!(distinct.len(), came.len(), "seed {seed}: {came:?}");
        }
    }
    Ok(())
}

/// Ann asks Bob; answers the call under way and the question's id once it is at Bob's.
async fn question(ann: &mut Host, bob: &mut Host, text: &str) -> Result<(Call, String)> {
    let call = ann.start_tool("ask_peer", json!({"to": "Bob", "question": text})).await?;
    let note = bob.channel_with(text).await?;
    Ok((call, note.meta["message_id"].clone()))
}

fn kill_holder(person: &CommandLine, expected: &Host) -> Result<()> {
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
    kill_holder(&person, &cid)?;
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
    kill_holder(&person, &bob)?;
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
    kill_holder(&person, &ann)?;
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
        assert!(Instant::now() < deadline, "no one continued it");
    }
    assert_eq!(holder(&dir)?["pid"], serving, "still the same holder: it was never dead");
    Ok(())
}

/// Keeps a process stopped whatever continues it, until it is gone.
fn keep_stopped(victim: u64) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let stat = std::path::PathBuf::from(format!("/proc/{victim}/stat"));
        let state = || -> Option<char> {
            let stat = std::fs::read_to_string(&stat).ok()?;
            stat.rsplit_once(')')?.1.trim_start().chars().next()
        };
        while let Some(state) = state().filter(|state| *state != 'Z') {
            if state != 'T' && send_signal(victim, Signal::STOP).is_err() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_hangs_is_ended_and_another_session_serves() -> Result<()> {
    let person = program()?;
    let dir = broker_dir(&person);
    let patient = |id: &str, name: &str| options(&person, id, name).env("CLAUDEMESH_HOLDER_PATIENCE", "2");
    let mut ann = Host::start(patient("s-ann", "Ann")).await?;
    super::team::welcomed(&mut ann).await?;
    let mut bob = Host::start(patient("s-bob", "Bob")).await?;
    super::team::welcomed(&mut bob).await?;
    let serving = holder(&dir)?["pid"].as_u64().context("a process id")?;
    let (hangs, mut other) = if serving == pid(&ann) { (ann, bob) } else { (bob, ann) };
    assert!(tell(&mut other, "*", "before").await?);
    let stopper = keep_stopped(serving);
    // About 12 s until the silence is noticed; then it is continued twice before it is given up.
    let note = other_holder_within(&dir, serving, 3 * PATIENCE).await?;
    assert_eq!(note["pid"], pid(&other), "the one that waited serves");
    stopper.join().map_err(|_| anyhow::anyhow!("the stopper panicked"))?;
    // One writer: the hanging one is gone for good, and the other says why.
    drop(hangs);
    let listed = other.tool("list_peers", json!({})).await?;
    assert!(!listed.is_error, "{}", listed.text);
    let ended = other.end().await?;
    assert!(ended.stderr.contains("hangs and was ended"), "{}", ended.stderr);
    assert!(ended.stderr.contains("continuing it"), "first it was continued: {}", ended.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_a_holder_that_hangs_and_how_to_end_it() -> Result<()> {
    let person = program()?;
    let dir = broker_dir(&person);
    let ann = session(&person, "s-ann", "Ann").await?;
    let serving = pid(&ann);
    // No one else is there to look after it.
    send_signal(serving, Signal::STOP)?;
    let doctor = person.run(&["doctor", "--no-loopback", "--json"])?;
    let report: Value = serde_json::from_slice(&doctor.stdout)?;
    let rows = report["checks"].as_array().context("rows")?;
    let broker = rows.iter().find(|row| row["name"] == "broker").context("the broker's row")?;
    assert_eq!(
        (&broker["level"], &broker["fix"]),
        (&json!("failure"), &json!(format!("kill -9 {serving}"))),
        "{broker}"
    );
    send_signal(serving, Signal::KILL)?;
    let bob = session(&person, "s-bob", "Bob").await?;
    assert_eq!(holder(&dir)?["pid"], pid(&bob));
    Ok(())
}
