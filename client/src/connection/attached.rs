//! A connection over the socket of a session instead of one of its own: see [`crate::ipc::attach`].

use std::sync::Arc;

use claudemesh_protocol::features::messaging::ClientAck;
use claudemesh_protocol::frame::Head;
use claudemesh_protocol::message::{Failure, ServerMessage};
use claudemesh_protocol::session::HelloAck;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::driver::{Outgoing, Shared, State, ack_frame};
use super::{Closed, Connection, ConnectionError, Identity, MAX_OUTGOING};
use crate::ipc::protocol::{MAX_LINE_BYTES, Reply, Request};

impl Connection {
    /// A connection that is ready at once and lives as long as the socket. Mail stays with the session's server, which passes on
    /// the events that are listened to.
    pub(crate) fn attached(
        identity: Identity,
        ack: HelloAck,
        reader: BufReader<OwnedReadHalf>,
        writer: OwnedWriteHalf,
    ) -> Self {
        let (wanted, tags) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(identity, Some(wanted)));
        shared.state.send_replace(State::Ready(Arc::new(ack)));
        let (outgoing, frames) = mpsc::channel(MAX_OUTGOING);
        let (acks, ack_items) = mpsc::unbounded_channel();
        tokio::spawn(run(Arc::clone(&shared), tags, frames, ack_items, reader, writer));
        Self { shared, outgoing, acks, mail: None, attached: true, sent: None }
    }
}

async fn run(
    shared: Arc<Shared>,
    mut tags: mpsc::UnboundedReceiver<&'static str>,
    mut frames: mpsc::Receiver<Outgoing>,
    mut acks: mpsc::UnboundedReceiver<ClientAck>,
    mut reader: BufReader<OwnedReadHalf>,
    mut writer: OwnedWriteHalf,
) {
    // Reading a line is not safe to give up half-way, so it has a task of its own.
    let (lines, mut replies) = mpsc::channel::<Vec<u8>>(16);
    let reading = tokio::spawn(async move {
        loop {
            let mut line = Vec::new();
            let read = (&mut reader).take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line).await;
            if !matches!(read, Ok(1..)) || line.last() != Some(&b'\n') || lines.send(line).await.is_err() {
                return;
            }
        }
    });
    let lost = |reason: String| Closed::Failed(Box::new(ConnectionError::Lost(reason)));
    let closed = loop {
        let request = tokio::select! {
            // What was said before the end is sent before the end, and anyone who listens before it asks hears of what follows.
            biased;
            Some(tag) = tags.recv() => Request::Listen { tag: tag.to_owned() },
            outgoing = frames.recv() => match outgoing {
                Some(outgoing) => Request::Frame { frame: outgoing.frame },
                None => break Closed::ByUs,
            },
            Some(ack) = acks.recv() => Request::Frame { frame: ack_frame(ack) },
            line = replies.recv() => match line {
                Some(line) => {
                    receive(&shared, &line);
                    continue;
                }
                None => break lost("the session's server is gone".into()),
            },
            () = shared.stop.cancelled() => break Closed::ByUs,
        };
        let Ok(mut line) = serde_json::to_vec(&request) else { continue };
        line.push(b'\n');
        if let Err(error) = writer.write_all(&line).await {
            break lost(error.to_string());
        }
    };
    reading.abort();
    shared.state.send_replace(State::Closed(closed.clone()));
    shared.events.close();
    shared.pending.fail_all(&ConnectionError::Closed(closed));
}

fn receive(shared: &Shared, line: &[u8]) {
    match serde_json::from_slice::<Reply>(line) {
        Ok(Reply::Frame { frame }) => complete(shared, &frame),
        Ok(Reply::Event { frame }) => publish(shared, &frame),
        Ok(Reply::Missed { tag, count: Some(count) }) => shared.events.lagged(&tag, count),
        Ok(Reply::Missed { tag, count: None }) => shared.events.away(&tag),
        Ok(Reply::Silent { tag }) => shared.events.end(&tag),
        // Frames are answered with frames: what was refused is a wish to listen, by an older server.
        Ok(Reply::Error { code, message }) => {
            tracing::debug!(code, message, "the session's server passes no events on");
            shared.events.close();
        }
        other => tracing::debug!(?other, "not an answer to a frame"),
    }
}

fn publish(shared: &Shared, frame: &str) {
    let Ok(head) = Head::read(frame) else { return };
    match ServerMessage::read(&head, frame) {
        Ok(event) if event.is_event() => shared.events.publish(event),
        Ok(other) => tracing::debug!(msg.type = other.tag(), "not an event"),
        Err(error) => tracing::debug!(%error, "an event that is not understood"),
    }
}

fn complete(shared: &Shared, frame: &str) {
    let Ok(head) = Head::read(frame) else { return };
    let Some(id) = head.req_id.as_deref() else { return };
    let answer = match ServerMessage::read(&head, frame) {
        Ok(ServerMessage::Failure(Failure::Error(error))) => Err(error.into()),
        Ok(message) => Ok(message),
        Err(error) => Err(ConnectionError::Unexpected { expected: "a known answer", got: error.to_string() }),
    };
    shared.pending.complete(id, answer);
}
