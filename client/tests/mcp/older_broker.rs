//! Our client against a broker that tells no capabilities and is silent about what it does not know. A stand-in plays what
//! such a broker says, from `older_broker.json`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use claudemesh_testkit::broker::{Builder, Database};
use claudemesh_testkit::host::PATIENCE;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::team::{Team, program, session, stderr, stdout};

const SCRIPT: &str = include_str!("older_broker.json");
/// Verbs that wait for an answer that never comes take five seconds.
const AT_ONCE: Duration = Duration::from_secs(4);

struct StandIn {
    url: String,
    heard: Arc<Mutex<Vec<Value>>>,
    /// A note of each frame, for those who wait for one.
    news: tokio::sync::watch::Receiver<usize>,
    /// Ends every connection that is open.
    end: tokio::sync::broadcast::Sender<()>,
}

impl StandIn {
    fn start(script: Value) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("ws://{}/ws", listener.local_addr()?);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (noted, news) = tokio::sync::watch::channel(0);
        let (end, _) = tokio::sync::broadcast::channel(1);
        let (notes, ends) = (Arc::clone(&heard), end.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (script, notes, noted) = (script.clone(), Arc::clone(&notes), noted.clone());
                    let mut end = ends.subscribe();
                    tokio::spawn(async move {
                        tokio::select! {
                            _ = play(stream, script, notes, noted) => {}
                            _ = end.recv() => {}
                        }
                    });
                }
            });
        });
        Ok(Self { url, heard, news, end })
    }

    /// The frames of this type, once there are so many.
    async fn hears(&mut self, tag: &str, count: usize) -> Result<Vec<Value>> {
        let heard = Arc::clone(&self.heard);
        let of_type = |frame: &&Value| frame["type"] == tag;
        let there = self.news.wait_for(|_| heard.lock().unwrap().iter().filter(of_type).count() >= count);
        tokio::time::timeout(PATIENCE, there).await.with_context(|| format!("{count} of `{tag}`"))??;
        Ok(self.heard(tag))
    }

    /// All connections are lost, as when a broker restarts.
    fn restart(&self) {
        let _ = self.end.send(());
    }

    fn heard(&self, tag: &str) -> Vec<Value> {
        self.heard.lock().unwrap().iter().filter(|frame| frame["type"] == tag).cloned().collect()
    }
}

async fn play(
    stream: tokio::net::TcpStream,
    script: Value,
    heard: Arc<Mutex<Vec<Value>>>,
    noted: tokio::sync::watch::Sender<usize>,
) -> Option<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        heard.lock().unwrap().push(frame.clone());
        noted.send_modify(|count| *count += 1);
        let tag = frame["type"].as_str().unwrap_or_default();
        // Silence about everything that is not in the script.
        let Some(mut answer) = script.get(tag).cloned() else { continue };
        for name in ["_reqId", "id"] {
            if let Some(id) = frame.get(name) {
                answer[name] = id.clone();
            }
        }
        socket.send(Message::text(answer.to_string())).await.ok()?;
        let pushes = if tag == "hello" { script["after_hello"].as_array() } else { None };
        for push in pushes.into_iter().flatten() {
            socket.send(Message::text(push.to_string())).await.ok()?;
        }
    }
    Some(())
}

/// What it does not know is said within a moment, and what it cannot confirm is no success.
#[tokio::test]
async fn what_it_does_not_know_is_said_and_what_changes_nothing_is_no_success() -> Result<()> {
    let (stand_in, team) = person().await?;
    let started = Instant::now();
    let bans = team.ann.run(&["bans", "--json"])?;
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    let told: Value = serde_json::from_slice(&bans.stdout)?;
    assert_eq!((bans.status.code(), &told["error"]), (Some(4), &json!("not_supported")), "{told}");
    assert!(told["message"].as_str().is_some_and(|text| text.contains("older kind")), "{told}");
    for args in [
        &["status", "set", "dnd", "--json"][..],
        &["group", "join", "@qa", "--json"],
        &["summary", "x", "--json"],
        &["whoami", "--json"],
        &["members", "--json"],
        &["rename", "member", "Anna", "--json"],
    ] {
        let ran = team.ann.run(args)?;
        let told: Value = serde_json::from_slice(&ran.stdout)?;
        assert_eq!((ran.status.code(), &told["error"]), (Some(4), &json!("not_supported")), "{args:?}: {told}");
    }
    assert_eq!(stand_in.heard("list_bans").len(), 1);
    Ok(())
}

/// Such a broker knows sessions by their own names only: `member/session` is no name there, and a member's key tells its sessions
/// apart from those of others.
#[tokio::test]
async fn sessions_have_their_own_names_and_the_key_of_their_member() -> Result<()> {
    let (_stand_in, team) = person().await?;
    let peers = quickly(&team, &["peers", "--json"])?;
    let names: Vec<(&Value, &Value)> =
        peers.as_array().into_iter().flatten().map(|peer| (&peer["address"], &peer["memberPubkey"])).collect();
    let (sid, member) = (json!("1".repeat(64)), json!("4".repeat(64)));
    // Without the key of a member a session stands for itself.
    assert_eq!(names, [(&json!("Sid"), &sid), (&json!("Two"), &member), (&json!("Two"), &member)], "{peers}");
    let unknown = team.ann.run(&["send", "Sid/api", "hi"])?;
    assert_eq!(unknown.status.code(), Some(5), "{}", stderr(&unknown));
    let two = team.ann.run(&["send", "Two", "hi", "--json"])?;
    let two: Value = serde_json::from_slice(&two.stdout)?;
    let folders: Vec<&Value> = two["candidates"].as_array().into_iter().flatten().map(|one| &one["cwd"]).collect();
    assert_eq!(folders, ["/w", "/v"], "candidates of one member are told by their folders: {two}");
    Ok(())
}

/// After its restart such a broker has forgotten the groups of a session, and its `session_hello` takes none.
#[tokio::test]
async fn a_session_is_back_in_its_groups_after_the_broker_restarted() -> Result<()> {
    let mut script: Value = serde_json::from_str(SCRIPT)?;
    script["session_hello"] = script["hello"].clone();
    script["after_hello"] = json!([]);
    let (mut stand_in, team) = person_with(script).await?;
    let path = team.ann.config_dir().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["groups"] = json!([{"name": "qa", "role": "lead"}, {"name": "dev"}]);
    std::fs::write(&path, config.to_string())?;
    let session = session(&team.ann, "ann-1", "AnnS").await?;
    assert_eq!(stand_in.heard("join_group"), Vec::<Value>::new(), "the first hello brings them");
    stand_in.restart();
    let joined = stand_in.hears("join_group", 2).await?;
    let joined: Vec<(&Value, &Value)> = joined.iter().map(|join| (&join["name"], &join["role"])).collect();
    assert_eq!(joined, [(&json!("qa"), &json!("lead")), (&json!("dev"), &Value::Null)]);
    session.end().await?;
    Ok(())
}

/// A claim that succeeds does not mean that the broker lets the member in: the hello decides, and `join` says so.
#[tokio::test]
async fn a_join_whose_hello_is_refused_is_no_success() -> Result<()> {
    let refusal = json!({"type": "error", "code": "unauthorized", "message": "no such member"});
    let stand_in = StandIn::start(json!({"session_hello": refusal, "hello": refusal}))?;
    let outside = stand_in.url.trim_end_matches("/ws").replacen("ws", "http", 1);
    let broker = Builder::new(Database::Sqlite).config(|config| config.public_url = Some(outside)).start().await?;
    let code = broker.mesh("team")?.invite("member", 1)?.code;
    let person = program()?;
    let joined = person.run(&["join", &format!("{}/i/{code}", broker.base()), "--name", "Rita", "--json"])?;
    let told: Value = serde_json::from_slice(&joined.stdout)?;
    assert_eq!(
        (joined.status.code(), &told["error"], &told["slug"]),
        (Some(2), &json!("unauthorized"), &json!("team"))
    );
    assert!(told["message"].as_str().is_some_and(|text| text.contains("The invite was taken")), "{told}");
    assert!(told["hint"].as_str().is_some_and(|hint| hint.contains("claudemesh leave team")), "{told}");
    assert_eq!(person.json(&["list", "--json"])?[0]["slug"], "team", "the key is kept: the broker has it as a member");
    Ok(())
}

/// Each verb of one shell comes back under the same session id, so that such a broker lists one session and not twenty.
#[tokio::test]
async fn verbs_of_one_shell_are_one_session() -> Result<()> {
    let (stand_in, team) = person().await?;
    for _ in 0..3 {
        quickly(&team, &["peers", "--json"])?;
    }
    let hellos = stand_in.heard("hello");
    let ids: std::collections::HashSet<&str> = hellos.iter().filter_map(|hello| hello["sessionId"].as_str()).collect();
    assert_eq!((hellos.len(), ids.len()), (3, 1), "{ids:?}");
    Ok(())
}

/// A person whose mesh is served by the stand-in.
async fn person() -> Result<(StandIn, Team)> {
    person_with(serde_json::from_str(SCRIPT)?).await
}

async fn person_with(script: Value) -> Result<(StandIn, Team)> {
    let (stand_in, team) = (StandIn::start(script)?, Team::start().await?);
    let path = team.ann.config_dir().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["meshes"][0]["brokerUrl"] = stand_in.url.clone().into();
    std::fs::write(&path, config.to_string())?;
    Ok((stand_in, team))
}

fn quickly(team: &Team, args: &[&str]) -> Result<Value> {
    let started = Instant::now();
    let output = team.ann.run(args)?;
    assert!(started.elapsed() < AT_ONCE, "{args:?} took {:?}", started.elapsed());
    anyhow::ensure!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[tokio::test]
async fn names_are_found_in_the_list_of_peers() -> Result<()> {
    let (stand_in, team) = person().await?;
    let sent = quickly(&team, &["send", "sid", "hi", "--json"])?;
    assert_eq!((&sent["ok"], &sent["name"]), (&json!(true), &json!("Sid")));
    let frames = stand_in.heard("send");
    assert_eq!(frames[0]["targetSpec"], "1".repeat(64));
    assert_eq!(quickly(&team, &["send", "11111111", "hi", "--json"])?["name"], "Sid");
    let nobody = team.ann.run(&["send", "Nobody", "hi"])?;
    assert_eq!(nobody.status.code(), Some(5), "{}", stderr(&nobody));
    let two = team.ann.run(&["send", "Two", "hi", "--json"])?;
    let two: Value = serde_json::from_slice(&two.stdout)?;
    assert_eq!((&two["error"], two["candidates"].as_array().map(Vec::len)), (&json!("ambiguous_target"), Some(2)));
    assert_eq!(stand_in.heard("resolve_target"), Vec::<Value>::new());
    Ok(())
}

#[tokio::test]
async fn messages_are_taken_in_at_once_acknowledged_in_a_form_that_it_reads_and_have_names() -> Result<()> {
    let (stand_in, team) = person().await?;
    let read = quickly(&team, &["inbox", "--wait", "0", "--json"])?;
    let shown: Vec<(&Value, &Value)> =
        read.as_array().context("a list")?.iter().map(|one| (&one["plaintext"], &one["senderName"])).collect();
    assert_eq!(shown, [(&json!("hello all"), &json!("Sid")), (&json!("second"), &json!("Sid"))]);
    let acks = stand_in.heard("client_ack");
    let expected = ["pFDy0001aaaabbbbcccc", "pFDy0002aaaabbbbcccc"];
    let acks: Vec<Value> = acks.iter().map(|ack| json!([ack["brokerMessageId"], ack["messageIds"]])).collect();
    assert_eq!(acks, expected.map(|id| json!([id, null])));
    assert_eq!(stand_in.heard("inbox_pull"), Vec::<Value>::new());
    Ok(())
}

#[tokio::test]
async fn lists_and_looks_are_read_in_their_older_shape() -> Result<()> {
    let (stand_in, team) = person().await?;
    let peers = quickly(&team, &["peers", "--json"])?;
    assert_eq!(peers.as_array().map(Vec::len), Some(3), "{peers}");
    assert_eq!((&peers[0]["displayName"], &peers[0]["groups"][0]["role"]), (&json!("Sid"), &json!("lead")));
    quickly(&team, &["info", "--json"])?;
    let ping = quickly(&team, &["ping", "--json"])?;
    assert_eq!((&ping[0]["peers_online"], &ping[0]["broker_time"]), (&json!(3), &Value::Null));
    assert_eq!(stand_in.heard("echo"), Vec::<Value>::new());
    Ok(())
}

/// Two versions: what a broker of another release says is told with what to do, and one that tells none is left alone.
#[tokio::test]
async fn a_broker_of_another_release_is_told_and_works() -> Result<()> {
    for (version, told) in [
        (Some("99.1.0"), Some("Update claudemesh on this machine")),
        (Some("0.0.9"), Some("Ask the person who runs the broker")),
        (Some(env!("CARGO_PKG_VERSION")), None),
        (None, None),
    ] {
        let mut script: Value = serde_json::from_str(SCRIPT)?;
        if let Some(version) = version {
            script["hello"]["brokerVersion"] = version.into();
        }
        let (_stand_in, team) = person_with(script).await?;
        let info = team.ann.run(&["info"])?;
        assert!(info.status.success(), "{}", stderr(&info));
        let hint = stderr(&info).contains("what only one of them knows does not work");
        assert_eq!(
            (hint, told.is_none_or(|told| stderr(&info).contains(told))),
            (told.is_some(), true),
            "{}",
            stderr(&info)
        );
    }
    Ok(())
}
