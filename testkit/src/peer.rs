//! A websocket peer for tests: speaks JSON, keeps what it did not ask for, and refuses what it does not know.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::frame::Head;
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::message::ServerMessage;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::clock::now_ms;
use crate::identity::{Member, Session, merged};

/// How long a frame that must come may take. Only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct TestPeer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    kept: VecDeque<Value>,
    requests: u64,
    /// Answer to the hello; `null` before.
    pub hello_ack: Value,
    /// The key that direct messages to it are sealed for.
    pub key: Option<SecretKey>,
    /// The key of the member behind a session: messages to the member are sealed for it.
    pub member_key: Option<SecretKey>,
    /// Whether messages are acknowledged as they are taken.
    pub acknowledge: bool,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Close code, 1006 when the connection broke without one.
    pub code: u16,
    /// Reason text.
    pub reason: String,
}

impl TestPeer {
    /// Connects without a hello.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn connect(url: &str) -> Result<Self> {
        let (socket, _) =
            tokio_tungstenite::connect_async(url).await.with_context(|| format!("connecting to {url}"))?;
        Ok(Self {
            socket,
            kept: VecDeque::new(),
            requests: 0,
            hello_ack: Value::Null,
            key: None,
            member_key: None,
            acknowledge: true,
        })
    }

    /// Connects as a member with `hello`.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses.
    pub async fn member(url: &str, member: &Member) -> Result<Self> {
        Self::hello(url, member.hello(&format!("control-{}", member.name), json!({})), member.key.clone()).await
    }

    /// Connects as a session with `session_hello`.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses.
    pub async fn session(url: &str, session: &Session) -> Result<Self> {
        Self::session_at(url, session, now_ms()).await
    }

    /// As [`Self::session`], signed at that time (Unix ms).
    ///
    /// # Errors
    /// The broker cannot be reached or refuses.
    pub async fn session_at(url: &str, session: &Session, now_ms: i64) -> Result<Self> {
        let mut peer = Self::hello(url, session.hello_at(now_ms, json!({})), session.key.clone()).await?;
        peer.member_key = Some(session.member.key.clone());
        Ok(peer)
    }

    /// Connects with a hello that was made before.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses; the message has the broker's frame.
    pub async fn hello(url: &str, hello: Value, key: SecretKey) -> Result<Self> {
        let mut peer = Self::connect(url).await?;
        peer.key = Some(key);
        peer.send(&hello).await?;
        let answer = peer.next().await?;
        if answer["type"] != "hello_ack" {
            bail!("instead of hello_ack: {answer}");
        }
        peer.hello_ack = answer;
        Ok(peer)
    }

    /// Hex of the public key.
    pub fn pubkey(&self) -> String {
        self.key.as_ref().map(|key| key.public().to_hex()).unwrap_or_default()
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn send(&mut self, frame: &Value) -> Result<()> {
        self.send_text(&frame.to_string()).await
    }

    /// Sends any text.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn send_text(&mut self, text: &str) -> Result<()> {
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<()> {
        Ok(self.socket.send(Message::binary(bytes)).await?)
    }

    /// The next frame: a kept one, else from the socket.
    ///
    /// # Errors
    /// None comes, the connection closes, or the frame is none that the protocol crate knows.
    pub async fn next(&mut self) -> Result<Value> {
        match self.kept.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Result<Value> {
        match tokio::time::timeout(PATIENCE, self.receive()).await {
            Ok(frame) => frame?.map_err(|closed| anyhow!("the connection closed: {closed:?}")),
            Err(_) => bail!("no frame in {PATIENCE:?}"),
        }
    }

    async fn receive(&mut self) -> Result<Result<Value, Closed>> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Ok(strict(text.as_str())?)),
                Some(Ok(Message::Close(frame))) => {
                    let closed =
                        frame.map(|frame| Closed { code: frame.code.into(), reason: frame.reason.to_string() });
                    return Ok(Err(closed.unwrap_or(Closed { code: 1005, reason: String::new() })));
                }
                Some(Ok(Message::Binary(_))) => bail!("the broker sent a binary message"),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(Err(Closed { code: 1006, reason: String::new() })),
            }
        }
    }

    /// The first frame (kept or new) for which `wanted` is true; the others are kept in order.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        if let Some(index) = self.kept.iter().position(&wanted) {
            return self.kept.remove(index).context("the position was just found");
        }
        loop {
            let frame = self.read().await.with_context(|| {
                let kept: Vec<String> =
                    self.kept.iter().map(|frame| frame.to_string().chars().take(200).collect()).collect();
                format!("waiting for {what}; kept meanwhile: {}", kept.join(", "))
            })?;
            if wanted(&frame) {
                return Ok(frame);
            }
            self.kept.push_back(frame);
        }
    }

    /// The frames that came and were not asked for yet, in order.
    pub fn kept(&self) -> impl Iterator<Item = &Value> {
        self.kept.iter()
    }

    /// The next frame of that type.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn expect(&mut self, kind: &str) -> Result<Value> {
        self.find(kind, |frame| frame["type"] == kind).await
    }

    /// Asks with a `_reqId` and waits for the answer with the same, whatever its type.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn ask(&mut self, frame: Value) -> Result<Value> {
        self.requests += 1;
        let id = format!("q{}", self.requests);
        self.send(&merged(frame, json!({ "_reqId": id }))).await?;
        self.find(&format!("the answer to {id}"), |frame| frame["_reqId"] == id.as_str()).await
    }

    /// As [`Self::ask`], and the answer must be of that type.
    ///
    /// # Errors
    /// As [`Self::next`], or another answer.
    pub async fn call(&mut self, frame: Value, answer: &str) -> Result<Value> {
        let kind = frame["type"].clone();
        let found = self.ask(frame).await?;
        if found["type"] != answer {
            bail!("{kind} was answered with {found}");
        }
        Ok(found)
    }

    /// Asks for something that must fail; returns its code.
    ///
    /// # Errors
    /// As [`Self::next`], or it was not refused.
    pub async fn refused(&mut self, frame: Value) -> Result<String> {
        let found = self.ask(frame).await?;
        if found["type"] != "error" {
            bail!("not refused: {found}");
        }
        Ok(found["code"].as_str().unwrap_or_default().to_owned())
    }

    /// Sends a text, sealed when the target is a key, and waits for the `ack`. `extra` is merged into the frame.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn say(&mut self, target: &str, text: &str, extra: Value) -> Result<Value> {
        let frame = self.message_frame(target, text, extra)?;
        let id = frame["id"].clone();
        self.send(&frame).await?;
        self.find("the ack", |frame| matches!(frame["type"].as_str(), Some("ack" | "error")) && frame["id"] == id).await
    }

    /// The `send` frame of [`Self::say`], not sent.
    ///
    /// # Errors
    /// The key of the recipient is none, or this peer has none.
    pub fn message_frame(&mut self, target: &str, text: &str, extra: Value) -> Result<Value> {
        self.requests += 1;
        let mut random = rand::thread_rng();
        let body = match PublicKey::parse(target) {
            Some(key) => {
                let own = self.key.as_ref().context("a peer without a key cannot seal")?;
                envelope::seal_direct(text, &key, own, &mut random)?
            }
            None => envelope::encode_public(text, &mut random),
        };
        let frame = json!({
            "type": "send", "id": format!("s{}", self.requests), "targetSpec": target, "priority": "next",
            "nonce": body.nonce, "ciphertext": body.ciphertext,
        });
        Ok(merged(frame, extra))
    }

    /// The next message (events of the broker are dropped), acknowledged unless [`Self::acknowledge`] is off.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn message(&mut self) -> Result<Value> {
        let push = self.find("a message", |frame| frame["type"] == "push" && frame["event"].is_null()).await?;
        if self.acknowledge {
            self.send(&json!({"type": "client_ack", "brokerMessageId": push["messageId"]})).await?;
        }
        Ok(push)
    }

    /// The text of the next message, opened with our key when it is sealed.
    ///
    /// # Errors
    /// As [`Self::next`], or it cannot be opened.
    pub async fn text(&mut self) -> Result<String> {
        let push = self.message().await?;
        self.open(&push)
    }

    /// The text of a push.
    ///
    /// # Errors
    /// It cannot be opened with this peer's key and is no plain text either.
    pub fn open(&self, push: &Value) -> Result<String> {
        let (nonce, body) =
            (push["nonce"].as_str().unwrap_or_default(), push["ciphertext"].as_str().unwrap_or_default());
        let sender = PublicKey::parse(push["senderPubkey"].as_str().unwrap_or_default());
        for key in [&self.key, &self.member_key].into_iter().flatten() {
            if let Some(sender) = &sender
                && let Ok(text) = envelope::open_direct(nonce, body, sender, key)
            {
                return Ok(text);
            }
        }
        envelope::decode_public(body).with_context(|| format!("opening {push}"))
    }

    /// The data of the next event of that name.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn event(&mut self, name: &str) -> Result<Value> {
        let push = self.find(name, |frame| frame["type"] == "push" && frame["event"] == name).await?;
        Ok(push["eventData"].clone())
    }

    /// Everything the broker has for this peer up to now, without waiting for anything else: an `echo` goes through
    /// the same queues and comes last.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn settle(&mut self) -> Result<()> {
        self.call(json!({"type": "echo"}), "echo_result").await.map(drop)
    }

    /// Frames of that type that came and were not taken.
    pub fn kept_of(&self, kind: &str) -> Vec<Value> {
        self.kept.iter().filter(|frame| frame["type"] == kind).cloned().collect()
    }

    /// Messages (no events) that came and were not taken yet.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn waiting_messages(&mut self) -> Result<Vec<Value>> {
        self.settle().await?;
        Ok(self.kept.iter().filter(|frame| frame["type"] == "push" && frame["event"].is_null()).cloned().collect())
    }

    /// Waits for the end of the connection.
    ///
    /// # Errors
    /// It stays open.
    pub async fn closed(&mut self) -> Result<Closed> {
        tokio::time::timeout(PATIENCE, async {
            loop {
                match self.receive().await? {
                    Ok(frame) => self.kept.push_back(frame),
                    Err(closed) => return Ok(closed),
                }
            }
        })
        .await
        .context("the connection stays open")?
    }

    /// Closes the connection and waits until the broker has seen it.
    ///
    /// # Errors
    /// The broker does not answer the close.
    pub async fn close(mut self) -> Result<()> {
        self.socket.close(None).await?;
        tokio::time::timeout(PATIENCE, async { while let Some(Ok(_)) = self.socket.next().await {} })
            .await
            .context("the broker did not answer the close")
    }
}

/// Reads a frame as a client of ours would: it must be one that the protocol crate knows.
fn strict(text: &str) -> Result<Value> {
    let head = Head::read(text).with_context(|| format!("no JSON object: {text}"))?;
    ServerMessage::read(&head, text).with_context(|| format!("a frame we do not know: {text}"))?;
    Ok(serde_json::from_str(text)?)
}
