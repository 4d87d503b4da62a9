//! One line of a hook, monitor or verb, on the server's side: requests in, replies out.

use std::sync::Arc;

use claudemesh_protocol::error::ErrorCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::protocol::{MAX_LINE_BYTES, Reply, Request};
use crate::session::routes::PRINT_PATIENCE;

/// One line of a hook, monitor or verb.
pub(super) struct LineConnection {
    /// What it says.
    pub(super) reader: LineReader,
    /// What it is told.
    pub(super) writer: LineWriter,
}

/// The half that hears.
pub(super) struct LineReader(BufReader<OwnedReadHalf>);

/// The half that speaks: one line at a time, no matter who has it.
#[derive(Clone)]
pub(super) struct LineWriter(Arc<tokio::sync::Mutex<OwnedWriteHalf>>);

impl LineReader {
    /// The next request; `None` when the other end is gone. Not safe to give up half-way and begin again.
    pub(super) async fn receive(&mut self) -> Option<Result<Request, String>> {
        let mut line = Vec::new();
        let limit = MAX_LINE_BYTES as u64 + 1;
        (&mut self.0).take(limit).read_until(b'\n', &mut line).await.ok()?;
        if line.last() != Some(&b'\n') {
            return None;
        }
        Some(serde_json::from_slice(&line).map_err(|error| error.to_string()))
    }
}

impl LineWriter {
    /// Answers whether the other end is still there. Given up half-way, nothing more can be said on this line.
    pub(super) async fn send(&self, reply: &Reply) -> bool {
        let Ok(mut line) = serde_json::to_vec(reply) else { return false };
        line.push(b'\n');
        self.0.lock().await.write_all(&line).await.is_ok()
    }
}

impl LineConnection {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: LineReader(BufReader::new(reader)),
            writer: LineWriter(Arc::new(tokio::sync::Mutex::new(writer))),
        }
    }

    pub(super) async fn receive(&mut self) -> Option<Result<Request, String>> {
        self.reader.receive().await
    }

    pub(super) async fn send(&mut self, reply: &Reply) -> bool {
        self.writer.send(reply).await
    }

    pub(super) async fn refuse(&mut self, code: ErrorCode, message: impl Into<String>) -> bool {
        self.send(&Reply::Error { code: code.as_str().into(), message: message.into() }).await
    }

    /// Whether the other end says within the patience that it has printed.
    pub(super) async fn printed(&mut self) -> bool {
        matches!(tokio::time::timeout(PRINT_PATIENCE, self.receive()).await, Ok(Some(Ok(Request::Printed))))
    }
}
