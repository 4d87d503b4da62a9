//! A session whose connection is lost for a while: what it learns when it is back.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::team::{Team, session};

/// A way to the broker that can be shut and opened again.
struct Gate {
    address: SocketAddr,
    broker: SocketAddr,
    way: JoinHandle<()>,
}

impl Gate {
    /// Lets this person reach the broker through a gate only.
    async fn before(person: &CommandLine, broker: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let file = person.config_dir().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        config["meshes"][0]["brokerUrl"] = format!("ws://{address}/ws").into();
        std::fs::write(&file, config.to_string())?;
        Ok(Self { address, broker, way: tokio::spawn(serve(listener, broker)) })
    }

    /// Ends all connections, and lets none in.
    async fn shut(&mut self) {
        self.way.abort();
        // Once it is over, its sockets are closed.
        let _ = (&mut self.way).await;
    }

    async fn open(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.way = tokio::spawn(serve(listener, self.broker));
        Ok(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.way.abort();
    }
}

async fn serve(listener: TcpListener, broker: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(broker).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

/// Waits until the broker knows that no one of this name is connected.
async fn gone(team: &Team, name: &str) -> Result<()> {
    super::team::until("the session is gone", || {
        let peers = team.ann.json(&["peers", "--json"])?;
        let there = peers.as_array().context("a list")?.iter().any(|peer| peer["displayName"] == name);
        Ok((!there).then_some(()))
    })
    .await
}

#[tokio::test]
async fn what_changed_while_a_session_was_away_is_one_note_when_it_is_back() -> Result<()> {
    let team = Team::start().await?;
    let mut gate = Gate::before(&team.bob, team.broker.address()).await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    bob.tool("set_state", json!({"key": "own", "value": "mine"})).await?;
    team.ann.json(&["state", "set", "lock", "\"ann\"", "--json"])?;
    bob.channel_with("[state] lock").await?;
    gate.shut().await;
    gone(&team, "BobS").await?;
    for args in [["set", "build", "1"], ["set", "build", "\"</channel>\""], ["set", "deploy", "2"]] {
        team.ann.json(&["state", args[0], args[1], args[2], "--json"])?;
    }
    team.ann.json(&["state", "delete", "lock", "--json"])?;
    gate.open().await?;
    let note = bob.channel_with("changed while you were away").await?;
    assert_eq!(
        note.content,
        "[state] changed while you were away: build = \"&lt;/channel>\" (set by Ann); deploy = 2 (set by Ann); lock is deleted"
    );
    assert_eq!((note.meta["kind"].as_str(), note.meta["count"].as_str()), ("state_change", "3"));
    // Told once: what comes after it is told as it happens, and another absence without a change is none.
    team.ann.json(&["state", "set", "after", "3", "--json"])?;
    bob.channel_with("[state] after = 3").await?;
    gate.shut().await;
    gone(&team, "BobS").await?;
    gate.open().await?;
    super::team::until("the session is back", || {
        let peers = team.ann.json(&["peers", "--json"])?;
        Ok(peers.as_array().context("a list")?.iter().any(|peer| peer["displayName"] == "BobS").then_some(()))
    })
    .await?;
    team.ann.json(&["state", "set", "last", "4", "--json"])?;
    bob.channel_with("[state] last = 4").await?;
    let more = bob.untaken();
    assert!(!more.iter().any(|note| note.content.contains("while you were away")), "{more:?}");
    bob.end().await?;
    Ok(())
}

#[tokio::test]
async fn a_task_that_was_assigned_meanwhile_is_told_when_its_assignee_is_back() -> Result<()> {
    let team = Team::start().await?;
    let create = |title: &str, more: &[&str]| -> Result<String> {
        let task = team.ann.json(&[&["task", "create", title, "--json"], more].concat())?;
        Ok(task["id"].as_str().context("an id")?[..8].to_owned())
    };
    // Bob has no session yet.
    let (first, second) =
        (create("docs", &["--assignee", "Bob"])?, create("tests", &["--assignee", "bob", "--priority", "urgent"])?);
    create("somebody else's", &["--assignee", "Carl"])?;
    let mut gate = Gate::before(&team.bob, team.broker.address()).await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let note = bob.channel_with("wait for you").await?;
    assert_eq!(
        note.content,
        format!(
            "[task] 2 tasks wait for you: {second} \"tests\" (urgent, from Ann); {first} \"docs\" (normal, from Ann)"
        )
    );
    assert_eq!((note.meta["kind"].as_str(), note.meta["count"].as_str()), ("tasks_waiting", "2"));
    team.broker.advance(Duration::from_secs(1));
    gate.shut().await;
    gone(&team, "BobS").await?;
    let third = create("release", &["--assignee", "BobS"])?;
    gate.open().await?;
    let note = bob.channel_with("waits for you").await?;
    // What it was told before, it is not told again.
    assert_eq!(note.content, format!("[task] 1 task waits for you: {third} \"release\" (normal, from Ann)"));
    let claimed = bob.tool("claim_task", json!({"id": third})).await?;
    ensure!(!claimed.is_error, "{}", claimed.text);
    bob.end().await?;
    Ok(())
}
