//! A server that is reached over HTTP (MCP's "Streamable HTTP"): each message is a POST, which is answered with JSON or with a stream of
//! events; what the server says unasked comes over a GET that stays open.
//!
//! HTTP blocks here, as everywhere in this program; each exchange has a thread for as long as it takes. The threads are no part of the
//! runtime, so the end of the process does not wait for them.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::{JsonRpcMessage, ProtocolVersion};
use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::{mpsc, oneshot};

use super::sdk::{Answers, MAX_MESSAGE_BYTES};

/// How long one exchange may take: as long as the longest call.
const EXCHANGE_PATIENCE: Duration =
    Duration::from_millis(claudemesh_protocol::features::mcp_servers::limits::MAX_TIMEOUT_MS);
/// How long the goodbye may take.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(2);
/// Exchanges that run at once: the calls of a host, and a few more.
const MAX_EXCHANGES: usize = 80;
/// Time until the stream of what is said unasked is opened again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// Where a server is.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
}

/// What the threads share.
struct Shared {
    address: Address,
    /// Given by the server with its first answer.
    session: Mutex<Option<String>>,
    messages: mpsc::Sender<RxJsonRpcMessage<RoleClient>>,
    answers: Answers,
    exchanges: Arc<tokio::sync::Semaphore>,
    /// Closed when the server is given up.
    ended: tokio_util::sync::CancellationToken,
}

/// A connection to a server.
pub(super) struct HttpServer {
    shared: Arc<Shared>,
    messages: mpsc::Receiver<RxJsonRpcMessage<RoleClient>>,
}

impl HttpServer {
    /// Nothing is sent yet.
    pub(super) fn new(address: Address, answers: Answers) -> Self {
        let (sender, messages) = mpsc::channel(64);
        let shared = Shared {
            address,
            session: Mutex::default(),
            messages: sender,
            answers,
            exchanges: Arc::new(tokio::sync::Semaphore::new(MAX_EXCHANGES)),
            ended: tokio_util::sync::CancellationToken::new(),
        };
        Self { shared: Arc::new(shared), messages }
    }
}

impl Shared {
    fn session(&self) -> Option<String> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn agent(&self, limit: Duration) -> io::Result<ureq::Agent> {
        crate::http::agent(&self.address.url, limit).map_err(io::Error::other)
    }

    /// The headers of every exchange.
    fn headers(&self) -> Vec<(String, String)> {
        let mut headers = self.address.headers.clone();
        headers.extend(self.session().map(|id| ("Mcp-Session-Id".to_owned(), id)));
        headers.push(("MCP-Protocol-Version".to_owned(), ProtocolVersion::V_2025_11_25.to_string()));
        headers
    }

    /// Posts a message; answers once the server has taken it. What it answers is passed on as it comes.
    fn post(self: &Arc<Self>, body: &str, is_first: bool, taken: oneshot::Sender<io::Result<()>>) {
        let response = self.agent(EXCHANGE_PATIENCE).and_then(|agent| {
            let mut request = agent
                .post(&self.address.url)
                .header("Content-Type", "application/json")
                .header("Accept", "application/json, text/event-stream");
            for (name, value) in self.headers() {
                // The revision is agreed on with the first exchange.
                if !(is_first && name == "MCP-Protocol-Version") {
                    request = request.header(name, value);
                }
            }
            request.send(body).map_err(io::Error::other)
        });
        let response = match response {
            Ok(response) if response.status().is_success() => response,
            Ok(response) => {
                let error = io::Error::other(format!("the server answered with status {}", response.status().as_u16()));
                // A session that the server does not know any more: only a new handshake helps.
                if response.status().as_u16() == 404 && !is_first {
                    self.ended.cancel();
                }
                let _ = taken.send(Err(error));
                return;
            }
            Err(error) => {
                let _ = taken.send(Err(error));
                return;
            }
        };
        if is_first && let Some(id) = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok()) {
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
        }
        let _ = taken.send(Ok(()));
        self.pass_on(response);
    }

    /// Passes on what a response holds, until it ends.
    fn pass_on(&self, response: ureq::http::Response<ureq::Body>) {
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_stream = kind.starts_with("text/event-stream");
        let body = BufReader::new(response.into_body().into_reader());
        if is_stream {
            let mut events = Events { body, data: String::new() };
            while let Some(text) = events.next() {
                if !self.tell(&text) {
                    return;
                }
            }
        } else {
            let mut text = String::new();
            if body.take(MAX_MESSAGE_BYTES as u64 + 1).read_to_string(&mut text).is_ok() && !text.trim().is_empty() {
                self.tell(&text);
            }
        }
    }

    /// Passes a message on; `false` when no one listens any more.
    fn tell(&self, text: &str) -> bool {
        let message = match text.len() > MAX_MESSAGE_BYTES {
            true => {
                self.answers.too_long(&text.as_bytes()[..4_096], &text.as_bytes()[text.len() - 4_096..], text.len())
            }
            false => self.answers.read(text),
        };
        match message {
            Some(message) => self.messages.blocking_send(message).is_ok(),
            None => !self.messages.is_closed(),
        }
    }

    /// Listens to what the server says unasked, until it says that it does not offer that, or is given up.
    fn listen(&self) {
        while !self.ended.is_cancelled() && !self.messages.is_closed() {
            let Ok(agent) = self.agent(EXCHANGE_PATIENCE) else { return };
            let mut request = agent.get(&self.address.url).header("Accept", "text/event-stream");
            for (name, value) in self.headers() {
                request = request.header(name, value);
            }
            match request.call() {
                Ok(response) if response.status().is_success() => self.pass_on(response),
                // Most often 405: it never says anything unasked.
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "the stream of a server was lost"),
            }
            #[expect(clippy::disallowed_methods, reason = "a thread of its own, which waits for nothing else")]
            std::thread::sleep(LISTEN_AGAIN);
        }
    }

    fn goodbye(&self) {
        if self.session().is_none() {
            return;
        }
        let Ok(agent) = self.agent(GOODBYE_PATIENCE) else { return };
        let mut request = agent.delete(&self.address.url);
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        // Whether it listens or not, we are gone.
        let _ = request.call();
    }
}

/// The data of the events of a stream.
struct Events<R> {
    body: R,
    data: String,
}

impl<R: BufRead> Events<R> {
    /// The data of the next event; `None` at the end, and when one has more than any message.
    fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            let read = (&mut self.body).take(MAX_MESSAGE_BYTES as u64 + 1_024).read_line(&mut line).ok()?;
            if read == 0 || self.data.len() + line.len() > MAX_MESSAGE_BYTES + 1_024 {
                return None;
            }
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                if !self.data.is_empty() {
                    return Some(std::mem::take(&mut self.data));
                }
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
    }
}

impl Transport<RoleClient> for HttpServer {
    type Error = io::Error;

    fn send(&mut self, item: TxJsonRpcMessage<RoleClient>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.shared.answers.note(&item);
        let is_first = matches!(&item, JsonRpcMessage::Request(request)
            if matches!(request.request, rmcp::model::ClientRequest::InitializeRequest(_)));
        let is_greeting = matches!(&item, JsonRpcMessage::Notification(notification)
            if matches!(notification.notification, rmcp::model::ClientNotification::InitializedNotification(_)));
        let (body, shared) = (serde_json::to_string(&item).map_err(io::Error::other), Arc::clone(&self.shared));
        async move {
            let body = body?;
            let permit = Arc::clone(&shared.exchanges).acquire_owned().await.map_err(io::Error::other)?;
            let (taken, was_taken) = oneshot::channel();
            let posting = Arc::clone(&shared);
            std::thread::Builder::new().name("mcp-http".into()).spawn(move || {
                let _permit = permit;
                posting.post(&body, is_first, taken);
            })?;
            was_taken.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
            if is_greeting {
                let listening = Arc::clone(&shared);
                std::thread::Builder::new().name("mcp-http-listen".into()).spawn(move || listening.listen())?;
            }
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        tokio::select! {
            message = self.messages.recv() => message,
            () = self.shared.ended.cancelled() => None,
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.shared.ended.cancel();
        self.messages.close();
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new().name("mcp-http-end".into()).spawn(move || shared.goodbye())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_whatever_else_a_stream_says() {
        let text = ": hello\r\n\r\nevent: message\nid: 1\ndata: {\"a\":\ndata: 1}\n\nretry: 5\n\ndata:x\n\ndata: cut";
        let mut events = Events { body: text.as_bytes(), data: String::new() };
        let all: Vec<String> = std::iter::from_fn(|| events.next()).collect();
        assert_eq!(all, ["{\"a\":\n1}", "x"]);
    }
}
