//! One exchange with the broker.

use std::sync::Arc;

use claudemesh_protocol::runner::frame::{Frame, Kind};
use claudemesh_protocol::runner::limits::MAX_DATA_BYTES;
use claudemesh_protocol::runner::{FailCode, Note, Reset};
use serde::Serialize;
use tokio::sync::{Notify, mpsc};

use super::Link;

/// What comes on a stream.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// Its head, and the beginning of its body.
    Head { head: Vec<u8>, body: Vec<u8>, last: bool },
    /// More of its body.
    Data { body: Vec<u8>, last: bool },
    /// It is over.
    Reset(Reset),
}

/// The stream is over before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker has ended the stream")]
pub(crate) struct Over;

/// A stream. Dropping it before its end resets it.
pub(crate) struct Stream {
    pub(crate) reader: StreamReader,
    pub(crate) writer: StreamWriter,
}

/// The half that reads.
pub(crate) struct StreamReader {
    ends: Arc<Ends>,
    queue: mpsc::UnboundedReceiver<Inbound>,
}

/// The half that writes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StreamWriter {
    ends: Arc<Ends>,
    changed: Arc<Notify>,
}

/// Shared by both halves: when both are gone and the stream is not over, it is reset.
struct Ends {
    link: Link,
    attachment: u64,
    id: u64,
}

impl Drop for Ends {
    fn drop(&mut self) {
        let mut table = self.link.table();
        if table.attachment != self.attachment || table.streams.remove(&self.id).is_none() {
            return;
        }
        drop(table);
        let reset = Reset { code: FailCode::Cancelled, message: String::new() };
        if let Ok(frame) = Frame::with_head(Kind::Reset, self.id, &reset, Vec::new(), true) {
            self.link.later(self.attachment, frame);
        }
    }
}

impl Stream {
    pub(super) fn new(
        link: Link,
        attachment: u64,
        id: u64,
        queue: mpsc::UnboundedReceiver<Inbound>,
        changed: Arc<Notify>,
    ) -> Self {
        let ends = Arc::new(Ends { link, attachment, id });
        Self { reader: StreamReader { ends: ends.clone(), queue }, writer: StreamWriter { ends, changed } }
    }

    pub(crate) fn id(&self) -> u64 {
        self.writer.ends.id
    }

    /// The head and the whole body of what the other side sends, of at most `most` bytes.
    ///
    /// # Errors
    /// The stream was reset, or the body is longer.
    pub(crate) async fn whole(&mut self, most: usize) -> Result<(Vec<u8>, Vec<u8>), Reset> {
        let (head, mut all, mut done) = match self.reader.next().await {
            Some(Inbound::Head { head, body, last }) => (head, body, last),
            Some(Inbound::Reset(reset)) => return Err(reset),
            Some(Inbound::Data { .. }) | None => {
                return Err(Reset { code: FailCode::Protocol, message: "expected a head".into() });
            }
        };
        while !done {
            match self.reader.next().await {
                Some(Inbound::Data { body, last }) => {
                    all.extend_from_slice(&body);
                    done = last;
                }
                Some(Inbound::Reset(reset)) => return Err(reset),
                Some(Inbound::Head { .. }) | None => {
                    return Err(Reset { code: FailCode::Protocol, message: "expected more of a body".into() });
                }
            }
            if all.len() > most {
                return Err(Reset { code: FailCode::TooLarge, message: format!("expected at most {most} bytes") });
            }
        }
        Ok((head, all))
    }
}

impl StreamReader {
    /// What comes next; `None` when nothing will. What was given back before counts as taken.
    pub(crate) async fn next(&mut self) -> Option<Inbound> {
        let next = self.queue.recv().await?;
        if let Inbound::Head { body, .. } | Inbound::Data { body, .. } = &next {
            self.taken(body.len());
        }
        Some(next)
    }

    fn taken(&self, bytes: usize) {
        let ends = &self.ends;
        let credit = {
            let mut table = ends.link.table();
            if table.attachment != ends.attachment {
                return;
            }
            table.streams.get_mut(&ends.id).and_then(|entry| entry.receiving.taken(bytes))
        };
        if let Some(credit) = credit {
            let _ = ends.link.0.urgent.send((ends.attachment, Frame::credit(ends.id, credit)));
        }
    }
}

impl StreamWriter {
    /// Begins: the head, and as much of the body as there is credit for; the rest follows.
    ///
    /// # Errors
    /// The broker has ended the stream.
    pub(crate) async fn head(&self, head: &impl Serialize, body: &[u8], last: bool) -> Result<(), Over> {
        let first = &body[..self.take(body.len().min(MAX_DATA_BYTES))?];
        let rest = &body[first.len()..];
        let last_now = last && rest.is_empty();
        let frame = Frame::with_head(Kind::Head, self.ends.id, head, first.to_vec(), last_now).map_err(|_| Over)?;
        self.send(frame).await?;
        if rest.is_empty() { Ok(()) } else { self.data(rest, last).await }
    }

    /// Sends more of the body, as fast as the broker takes it.
    ///
    /// # Errors
    /// The broker has ended the stream.
    pub(crate) async fn data(&self, mut body: &[u8], last: bool) -> Result<(), Over> {
        if body.is_empty() {
            return if last { self.send(Frame::data(self.ends.id, Vec::new(), true)).await } else { Ok(()) };
        }
        while !body.is_empty() {
            let changed = self.changed.notified();
            let bytes = self.take(body.len().min(MAX_DATA_BYTES))?;
            if bytes == 0 {
                changed.await;
                continue;
            }
            let (now, later) = body.split_at(bytes);
            body = later;
            self.send(Frame::data(self.ends.id, now.to_vec(), last && body.is_empty())).await?;
        }
        Ok(())
    }

    /// Sends something about the exchange.
    pub(crate) async fn note(&self, note: &Note, body: Vec<u8>) {
        if let Ok(frame) = Frame::with_head(Kind::Note, self.ends.id, note, body, false) {
            let _ = self.send(frame).await;
        }
    }

    /// Ends the stream at once.
    pub(crate) fn reset(&self, code: FailCode, message: &str) {
        let mut table = self.ends.link.table();
        if table.attachment != self.ends.attachment || table.streams.remove(&self.ends.id).is_none() {
            return;
        }
        drop(table);
        let reset = Reset { code, message: message.to_owned() };
        if let Ok(frame) = Frame::with_head(Kind::Reset, self.ends.id, &reset, Vec::new(), true) {
            self.ends.link.later(self.ends.attachment, frame);
        }
    }

    fn take(&self, wanted: usize) -> Result<usize, Over> {
        let mut table = self.ends.link.table();
        if table.attachment != self.ends.attachment {
            return Err(Over);
        }
        let entry = table.streams.get_mut(&self.ends.id).filter(|entry| !entry.sent_last).ok_or(Over)?;
        Ok(entry.sending.take(wanted))
    }

    async fn send(&self, frame: Frame) -> Result<(), Over> {
        if frame.last {
            let mut table = self.ends.link.table();
            if table.attachment != self.ends.attachment {
                return Err(Over);
            }
            let entry = table.streams.get_mut(&self.ends.id).filter(|entry| !entry.sent_last).ok_or(Over)?;
            entry.sent_last = true;
            if entry.got_last {
                table.streams.remove(&self.ends.id);
            }
        }
        self.ends.link.send(self.ends.attachment, frame).await;
        Ok(())
    }
}
