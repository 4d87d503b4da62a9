//! Plays a dialogue of frames: who says what, and what it gets back.
//!
//! A dialogue is text, one step a line:
//!
//! ```text
//! D hello bob {"sessionId":"d1"}        D connects as a client of before: a plain hello without any word of what it can do
//! S session bob {"sessionId":"s1"}      S connects with a proven session key; fields of the hello may be given or taken away
//! D > {"type":"list_peers"}             D says this
//! D < {"type":"push","messageId":"$m"}  the next frame of that type that D gets has these fields
//! D asks {"type":"mesh_info"} {"peers":2}   D asks this again and again until the answer has these fields: it depends on work that no frame tells
//! D -                                   D has got no message that no step has named
//! D close                               D closes; `D closed 4001` waits until the broker has closed it
//! D pass 35                             so many seconds pass, and D shows in each of them that it is there
//! restart                               the broker is stopped and started again
//! ```
//!
//! A text that begins with `$` is a placeholder: it takes the first value that is seen in its place, and stands for it from then
//! on. `$bob.member` is the key of a member; `$name` as the `sessionPubkey` of a hello is a new session key. An expected `null` is
//! a field that is not there, expected lists have as many entries, and expected objects may have more fields.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::enrol::OwnedMesh;
use claudemesh_testkit::identity::{Member, Session, merged};
use claudemesh_testkit::peer::{PATIENCE, TestPeer};
use serde_json::{Value, json};

/// The state of a dialogue.
struct Player {
    broker: TestBroker,
    mesh: OwnedMesh,
    members: HashMap<String, Arc<Member>>,
    sessions: HashMap<String, Session>,
    peers: HashMap<String, TestPeer>,
    names: HashMap<String, Value>,
}

/// Plays a dialogue. The member `owner` owns the mesh, the others are plain members.
///
/// # Errors
/// The step that went otherwise.
pub(super) async fn play(database: Database, dialogue: &str) -> Result<()> {
    let broker = TestBroker::start(database).await?;
    let mesh = broker.mesh("team")?;
    let (members, sessions, peers, names) = Default::default();
    let mut player = Player { broker, mesh, members, sessions, peers, names };
    let steps: Vec<&str> = dialogue.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for (number, step) in steps.iter().enumerate() {
        player.step(step).await.with_context(|| format!("step {} of {}: {step}", number + 1, steps.len()))?;
    }
    Ok(())
}

impl Player {
    async fn step(&mut self, step: &str) -> Result<()> {
        if step == "restart" {
            self.peers.clear();
            return self.broker.restart().await;
        }
        let (who, rest) = step.split_once(' ').context("expected: who, what")?;
        let (what, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match what {
            "hello" | "session" => {
                let (member, fields) = rest.split_once(' ').context("expected: member, fields")?;
                self.connect(who, what, member, serde_json::from_str(fields)?).await
            }
            ">" => {
                let frame = self.filled(&serde_json::from_str(rest)?)?;
                self.peer(who)?.send(&frame).await
            }
            "<" => self.expect(who, &serde_json::from_str(rest)?).await,
            "asks" => {
                let mut both = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
                let request = self.filled(&both.next().context("expected: request, answer")??)?;
                self.ask(who, &request, &both.next().context("expected: request, answer")??).await
            }
            "-" => {
                let waiting = self.peer(who)?.waiting_messages().await?;
                ensure!(waiting.is_empty(), "it got {waiting:?}");
                Ok(())
            }
            "close" => self.peers.remove(who).context("it is not connected")?.close().await,
            "closed" => {
                let closed = self.peers.remove(who).context("it is not connected")?.closed().await?;
                ensure!(closed.code.to_string() == rest, "{closed:?}");
                Ok(())
            }
            "pass" => {
                let peer = self.peers.get_mut(who).context("it is not connected")?;
                for _ in 0..rest.parse()? {
                    self.broker.pass(Duration::from_secs(1), peer).await?;
                }
                Ok(())
            }
            _ => bail!("no such step"),
        }
    }

    fn peer(&mut self, who: &str) -> Result<&mut TestPeer> {
        self.peers.get_mut(who).context("it is not connected")
    }

    fn member(&mut self, name: &str) -> Result<Arc<Member>> {
        if name == "owner" {
            return Ok(Arc::clone(&self.mesh.creator));
        }
        if !self.members.contains_key(name) {
            self.members.insert(name.into(), self.mesh.member(name)?);
        }
        self.members.get(name).cloned().context("it was just made")
    }

    async fn connect(&mut self, who: &str, how: &str, member: &str, fields: Value) -> Result<()> {
        let (member, now) = (self.member(member)?, self.broker.now_ms());
        if let Some(name) = fields["sessionPubkey"].as_str().filter(|name| !self.names.contains_key(*name)) {
            let key = SecretKey::random(&mut rand::thread_rng()).public().to_hex();
            self.names.insert(name.into(), key.into());
        }
        let fields = self.filled(&fields)?;
        let session_id = fields["sessionId"].as_str().context("a hello has a sessionId")?.to_owned();
        let (hello, key) = if how == "hello" {
            let hello = member.hello_at(now, &session_id, json!({"protocolVersion": null, "capabilities": null}));
            (merged(hello, fields), member.key.clone())
        } else {
            let session = self.sessions.entry(who.into()).or_insert_with(|| member.session(&session_id));
            self.names.insert(format!("${who}.session"), session.pubkey().into());
            (session.hello_at(now, fields), session.key.clone())
        };
        let peer = TestPeer::hello(&self.broker.url(), hello, key).await?;
        self.peers.insert(who.into(), peer);
        Ok(())
    }

    async fn expect(&mut self, who: &str, expected: &Value) -> Result<()> {
        let kind = expected["type"].as_str().context("an expected frame has a type")?.to_owned();
        let event = expected["event"].clone();
        let peer = self.peers.get_mut(who).context("it is not connected")?;
        let frame = match kind.as_str() {
            "hello_ack" => peer.hello_ack.clone(),
            _ => peer.find(&kind, |frame| frame["type"] == kind.as_str() && frame["event"] == event).await?,
        };
        self.compare(expected, &frame, "").with_context(|| format!("it got {frame}"))
    }

    async fn ask(&mut self, who: &str, request: &Value, expected: &Value) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = self.peer(who)?.ask(request.clone()).await?;
            match self.compare(expected, &answer, "") {
                Err(_) if tokio::time::Instant::now() < deadline => {}
                compared => return compared.with_context(|| format!("it got {answer}")),
            }
        }
    }

    fn compare(&mut self, expected: &Value, got: &Value, place: &str) -> Result<()> {
        match (expected, got) {
            (Value::String(text), _) if text.starts_with('$') => {
                if text.ends_with(".member") {
                    let known = self.filled(expected)?;
                    ensure!(known == *got, "{place}: not {text}, {known}");
                    return Ok(());
                }
                let known = self.names.entry(text.clone()).or_insert_with(|| got.clone());
                ensure!(known == got, "{place}: {text} is {known}");
            }
            (Value::Object(fields), _) => {
                for (name, value) in fields {
                    self.compare(value, &got[name], &format!("{place}.{name}"))?;
                }
            }
            (Value::Array(entries), Value::Array(found)) if entries.len() == found.len() => {
                for (number, (entry, found)) in entries.iter().zip(found).enumerate() {
                    self.compare(entry, found, &format!("{place}[{number}]"))?;
                }
            }
            _ => ensure!(expected == got, "{place}: expected {expected}, got {got}"),
        }
        Ok(())
    }

    /// A frame with the values of its placeholders.
    fn filled(&mut self, frame: &Value) -> Result<Value> {
        Ok(match frame {
            Value::String(text) if text.starts_with('$') => match text[1..].split_once(".member") {
                Some((name, "")) => self.member(name)?.pubkey().into(),
                _ => self.names.get(text).with_context(|| format!("{text} was not seen yet"))?.clone(),
            },
            Value::Object(fields) => {
                let mut filled = serde_json::Map::new();
                for (name, value) in fields {
                    filled.insert(name.clone(), self.filled(value)?);
                }
                Value::Object(filled)
            }
            Value::Array(entries) => entries.iter().map(|entry| self.filled(entry)).collect::<Result<_>>()?,
            other => other.clone(),
        })
    }
}
