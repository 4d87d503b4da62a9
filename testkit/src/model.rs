//! A scripted Messages API on loopback, so that the real Claude Code can be driven offline.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// One answer of the model.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    text: Option<String>,
    tools: Vec<(String, Value)>,
    when: Option<String>,
}

impl Turn {
    /// Says something and ends the turn.
    pub fn text(text: &str) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// Calls a tool.
    pub fn tool(name: &str, input: Value) -> Self {
        Self { tools: vec![(name.into(), input)], ..Self::default() }
    }

    /// Used only for a request whose messages hold that text, and before turns without a condition.
    #[must_use]
    pub fn when(mut self, text: &str) -> Self {
        self.when = Some(text.into());
        self
    }
}

/// A running model. Stops when dropped.
pub struct Model {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    turns: Mutex<Vec<Turn>>,
    requests: Mutex<Vec<Value>>,
    ids: AtomicU64,
    came: tokio::sync::Notify,
}

impl Model {
    /// Listens on a free port; each request that carries tools takes the next turn, then it says `Done.`.
    ///
    /// # Errors
    /// No port.
    pub async fn start(turns: Vec<Turn>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { turns: Mutex::new(turns), ..Shared::default() });
        let serving = shared.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                // A client that hangs up in the middle is no matter.
                tokio::spawn(async move { shared.connection(stream).await.ok() });
            }
        });
        Ok(Self { address, shared, server })
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bodies of all requests to `/v1/messages`, in order.
    pub fn requests(&self) -> Vec<Value> {
        lock(&self.shared.requests).clone()
    }

    /// Adds a turn to the end of the script.
    pub fn then(&self, turn: Turn) {
        lock(&self.shared.turns).push(turn);
    }

    /// The first request whose messages hold that text, once it has come.
    ///
    /// # Errors
    /// None comes.
    pub async fn asked(&self, text: &str) -> Result<Value> {
        let deadline = tokio::time::Instant::now() + crate::host::PATIENCE;
        loop {
            let found = self.requests().into_iter().find(|body| body["messages"].to_string().contains(text));
            if let Some(found) = found {
                return Ok(found);
            }
            if tokio::time::timeout_at(deadline, self.shared.came.notified()).await.is_err() {
                anyhow::bail!("the model was never asked about `{text}`");
            }
        }
    }

    /// Turns that were not used.
    pub fn unused(&self) -> usize {
        lock(&self.shared.turns).len()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    async fn connection(&self, stream: TcpStream) -> Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        loop {
            let mut line = String::new();
            if read.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let mut words = line.split_whitespace();
            let (method, path) =
                (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
            let mut length = 0;
            loop {
                let mut header = String::new();
                read.read_line(&mut header).await?;
                let header = header.trim().to_ascii_lowercase();
                if header.is_empty() {
                    break;
                }
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().context("content-length")?;
                }
            }
            let mut body = vec![0; length];
            read.read_exact(&mut body).await?;
            let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let path = path.split('?').next().unwrap_or_default();
            match (method.as_str(), path) {
                ("POST", "/v1/messages") => {
                    let stream = body["stream"] == true;
                    let message = self.message(&body);
                    lock(&self.requests).push(body);
                    // A permit is kept when no one waits right now.
                    self.came.notify_one();
                    if stream {
                        write.write_all(self.events(&message).as_bytes()).await?;
                        return Ok(write.shutdown().await?);
                    }
                    respond(&mut write, &method, 200, &message).await?;
                }
                ("POST", "/v1/messages/count_tokens") => {
                    respond(&mut write, &method, 200, &json!({"input_tokens": 100})).await?;
                }
                ("GET", "/v1/models") => {
                    respond(&mut write, &method, 200, &json!({"data": [], "has_more": false})).await?;
                }
                ("GET" | "HEAD", "/") => respond(&mut write, &method, 200, &json!({"model": "scripted"})).await?,
                _ => {
                    let error = json!({"type": "error", "error": {"type": "not_found_error", "message": path}});
                    respond(&mut write, &method, 404, &error).await?;
                }
            }
        }
    }

    fn id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn pick(&self, body: &Value) -> Turn {
        if body["tools"].as_array().is_none_or(Vec::is_empty) {
            return Turn::text("ok"); // titles and summaries never use up the script
        }
        let messages = body["messages"].to_string();
        let mut turns = lock(&self.turns);
        let fits = |turn: &Turn| turn.when.as_ref().is_some_and(|text| messages.contains(text.as_str()));
        let index = turns.iter().position(fits).or_else(|| turns.iter().position(|turn| turn.when.is_none()));
        index.map_or_else(|| Turn::text("Done."), |index| turns.remove(index))
    }

    fn message(&self, body: &Value) -> Value {
        let turn = self.pick(body);
        let mut content: Vec<Value> = turn.text.iter().map(|text| json!({"type": "text", "text": text})).collect();
        for (name, input) in &turn.tools {
            let id = format!("toolu_model_{:04}", self.id());
            content.push(json!({"type": "tool_use", "id": id, "name": name, "input": input}));
        }
        let stop = if turn.tools.is_empty() { "end_turn" } else { "tool_use" };
        json!({
            "id": format!("msg_model_{:04}", self.id()), "type": "message", "role": "assistant", "model": body["model"],
            "content": content, "stop_reason": stop, "stop_sequence": null,
            "usage": {"input_tokens": 100, "output_tokens": 20, "cache_creation_input_tokens": 0,
                      "cache_read_input_tokens": 0, "service_tier": "standard"},
        })
    }

    /// The message as server-sent events, with the HTTP head.
    fn events(&self, message: &Value) -> String {
        let mut text = String::from(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n\
             connection: close\r\n\r\n",
        );
        let mut event = |kind: &str, data: Value| {
            text.push_str(&format!(
                "event: {kind}\ndata: {}\n\n",
                crate::identity::merged(json!({"type": kind}), data)
            ));
        };
        let mut start = message.clone();
        (start["content"], start["stop_reason"]) = (json!([]), Value::Null);
        event("message_start", json!({"message": start}));
        event("ping", json!({}));
        for (index, block) in message["content"].as_array().into_iter().flatten().enumerate() {
            let (empty, delta) = if block["type"] == "text" {
                (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": block["text"]}))
            } else {
                let mut empty = block.clone();
                empty["input"] = json!({});
                (empty, json!({"type": "input_json_delta", "partial_json": block["input"].to_string()}))
            };
            event("content_block_start", json!({"index": index, "content_block": empty}));
            event("content_block_delta", json!({"index": index, "delta": delta}));
            event("content_block_stop", json!({"index": index}));
        }
        let stop = json!({"delta": {"stop_reason": message["stop_reason"], "stop_sequence": null},
                          "usage": {"output_tokens": 20}});
        event("message_delta", stop);
        event("message_stop", json!({}));
        text
    }
}

async fn respond(write: &mut (impl AsyncWriteExt + Unpin), method: &str, status: u16, body: &Value) -> Result<()> {
    let body = body.to_string();
    let reason = if status == 200 { "OK" } else { "Not Found" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let body = if method == "HEAD" { "" } else { body.as_str() };
    Ok(write.write_all(format!("{head}{body}").as_bytes()).await?)
}
