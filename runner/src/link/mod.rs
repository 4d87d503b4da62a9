//! The connection with the broker: frames in and out, streams, credit.
//!
//! One task reads and never waits for a stream: what comes for one is put into its queue, which the window bounds. One task writes. Whoever
//! sends waits for room in its queue, so a broker that does not read stops what produces.

mod stream;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claudemesh_protocol::runner::frame::{Decoder, Frame, Kind, Session};
use claudemesh_protocol::runner::limits::MAX_STREAMS;
use claudemesh_protocol::runner::window::{Receiving, Sending};
use claudemesh_protocol::runner::{FailCode, FromRunner, Reset, RunnerAsk, ToRunner, VERSION};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

pub(crate) use stream::{Inbound, Stream, StreamReader, StreamWriter};

/// Frames that wait to be written; each is at most 64 KiB, but for messages.
const OUT_FRAMES: usize = 64;
/// Bytes that are written at once.
const WRITE_BYTES: usize = 262_144;
const READ_BYTES: usize = 65_536;

struct Entry {
    inbound: mpsc::UnboundedSender<Inbound>,
    receiving: Receiving,
    sending: Sending,
    /// The sender may go on, or has to give up.
    changed: Arc<Notify>,
    sent_last: bool,
    got_last: bool,
}

#[derive(Default)]
struct Table {
    streams: HashMap<u64, Entry>,
    session: Option<Session>,
    /// Grows with each attachment; frames of an earlier one are not written.
    attachment: u64,
    next: u64,
}

struct Shared {
    table: Mutex<Table>,
    out: mpsc::Sender<(u64, Frame)>,
    /// What the reading task sends, which must not wait.
    urgent: mpsc::UnboundedSender<(u64, Frame)>,
    dropped: AtomicU64,
}

/// The connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link(Arc<Shared>);

/// What the broker sends.
pub(crate) enum Incoming {
    /// A broker is there; streams of before are gone.
    Attached { session: Session },
    /// A message and its body.
    Message(ToRunner, Vec<u8>),
    /// A stream that it opened: head and body follow on it.
    Opened(Stream),
}

impl Link {
    /// Starts writing to `output`; frames of `input` come by [`Link::read`].
    pub(crate) fn start(output: impl AsyncWrite + Unpin + Send + 'static) -> Self {
        let (out, queue) = mpsc::channel(OUT_FRAMES);
        let (urgent, urgent_queue) = mpsc::unbounded_channel();
        let link = Self(Arc::new(Shared { table: Mutex::default(), out, urgent, dropped: AtomicU64::new(0) }));
        tokio::spawn(write(link.clone(), output, queue, urgent_queue));
        link
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message; without a broker it is lost, and the next hello says what is.
    pub(crate) async fn message(&self, message: &FromRunner, body: Vec<u8>) {
        let attachment = self.table().attachment;
        match Frame::message(message, body) {
            Ok(frame) => self.send(attachment, frame).await,
            Err(error) => eprintln!("claudemesh-runner: a message is left out: {error}"),
        }
    }

    async fn send(&self, attachment: u64, frame: Frame) {
        // It fails only when the process ends.
        let _ = self.0.out.send((attachment, frame)).await;
    }

    /// Sends behind what was sent before, without waiting: a reset must not overtake the head that opens its stream.
    fn later(&self, attachment: u64, frame: Frame) {
        let Err(mpsc::error::TrySendError::Full(full)) = self.0.out.try_send((attachment, frame)) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let out = self.0.out.clone();
            runtime.spawn(async move { out.send(full).await });
        }
    }

    /// Opens a stream; `None` without a broker, or with too many of them.
    pub(crate) async fn open(&self, ask: &RunnerAsk, body: &[u8], last: bool) -> Option<Stream> {
        let stream = {
            let mut table = self.table();
            table.session?;
            if table.streams.len() >= MAX_STREAMS {
                return None;
            }
            // Odd numbers are ours.
            let id = table.next * 2 + 1;
            table.next += 1;
            self.add(&mut table, id)
        };
        stream.writer.head(ask, body, last).await.ok()?;
        Some(stream)
    }

    fn add(&self, table: &mut Table, id: u64) -> Stream {
        let (inbound, queue) = mpsc::unbounded_channel();
        let entry = Entry {
            inbound,
            receiving: Receiving::default(),
            sending: Sending::default(),
            changed: Arc::default(),
            sent_last: false,
            got_last: false,
        };
        let changed = entry.changed.clone();
        table.streams.insert(id, entry);
        Stream::new(self.clone(), table.attachment, id, queue, changed)
    }

    /// Reads until the input ends. Never waits for anything but the input and the taker of `incoming`.
    pub(crate) async fn read(
        &self,
        mut input: impl AsyncRead + Unpin,
        incoming: mpsc::Sender<Incoming>,
    ) -> std::io::Result<()> {
        let mut decoder = Decoder::attachable();
        let mut piece = vec![0; READ_BYTES];
        loop {
            let bytes = input.read(&mut piece).await?;
            if bytes == 0 {
                return Ok(());
            }
            decoder.push(&piece[..bytes]);
            while let Some((frame, marked)) = decoder.next_frame() {
                let taken = if marked { self.take(frame) } else { self.attach(&frame, &mut decoder) };
                if let Some(taken) = taken
                    && incoming.send(taken).await.is_err()
                {
                    return Ok(());
                }
            }
        }
    }

    /// A frame without session counts only when it begins one.
    fn attach(&self, frame: &Frame, decoder: &mut Decoder) -> Option<Incoming> {
        let ToRunner::Attach { version, session } = frame.head().ok()? else { return None };
        let session = (frame.kind == Kind::Message).then(|| Session::parse(&session)).flatten()?;
        if version != VERSION {
            eprintln!("claudemesh-runner: the broker speaks version {version}, this runner {VERSION}");
        }
        decoder.attached(session);
        let mut table = self.table();
        table.session = Some(session);
        table.attachment += 1;
        table.next = 0;
        for (_, entry) in table.streams.drain() {
            let gone = Reset { code: FailCode::Cancelled, message: "another broker has attached".into() };
            let _ = entry.inbound.send(Inbound::Reset(gone));
            entry.changed.notify_one();
        }
        Some(Incoming::Attached { session })
    }

    fn take(&self, frame: Frame) -> Option<Incoming> {
        if frame.kind == Kind::Message {
            return match frame.head() {
                Ok(ToRunner::Ping { n }) => {
                    self.urgent(Frame::message(&FromRunner::Pong { n }, Vec::new()).ok()?);
                    None
                }
                Ok(message) => Some(Incoming::Message(message, frame.body)),
                Err(_) => None,
            };
        }
        let mut table = self.table();
        if let Some(entry) = table.streams.get_mut(&frame.stream) {
            let id = frame.stream;
            let kept = entry.take(frame);
            let over = entry.sent_last && entry.got_last;
            match kept {
                Ok(()) if !over => {}
                Ok(()) => drop(table.streams.remove(&id)),
                Err(reset) => {
                    if let Some(entry) = table.streams.remove(&id) {
                        let _ = entry.inbound.send(Inbound::Reset(reset.clone()));
                        entry.changed.notify_one();
                    }
                    drop(table);
                    self.urgent(Frame::with_head(Kind::Reset, id, &reset, Vec::new(), true).ok()?);
                }
            }
            return None;
        }
        // What still comes for a stream that is over is nothing.
        if frame.kind != Kind::Head || frame.stream == 0 || !frame.stream.is_multiple_of(2) {
            return None;
        }
        if table.streams.len() >= MAX_STREAMS {
            let full = Reset { code: FailCode::Limit, message: "too many streams are open".into() };
            drop(table);
            self.urgent(Frame::with_head(Kind::Reset, frame.stream, &full, Vec::new(), true).ok()?);
            return None;
        }
        let id = frame.stream;
        let stream = self.add(&mut table, id);
        let entry = table.streams.get_mut(&id)?;
        entry.take(frame).ok()?;
        Some(Incoming::Opened(stream))
    }

    fn urgent(&self, frame: Frame) {
        let attachment = self.table().attachment;
        let _ = self.0.urgent.send((attachment, frame));
    }
}

impl Entry {
    /// Puts a frame into the queue of its stream.
    ///
    /// # Errors
    /// It breaks a rule; the stream is to be reset.
    fn take(&mut self, frame: Frame) -> Result<(), Reset> {
        let protocol = || Reset { code: FailCode::Protocol, message: "the stream has no credit for that".into() };
        let taken = match frame.kind {
            Kind::Credit => {
                let granted = frame.granted().ok_or_else(protocol)?;
                self.sending.granted(granted).map_err(|_| protocol())?;
                self.changed.notify_one();
                return Ok(());
            }
            Kind::Head | Kind::Data => {
                if self.got_last {
                    return Err(protocol());
                }
                self.receiving.received(frame.body.len()).map_err(|_| protocol())?;
                self.got_last = frame.last;
                match frame.kind {
                    Kind::Head => Inbound::Head { head: frame.head, body: frame.body, last: frame.last },
                    _ => Inbound::Data { body: frame.body, last: frame.last },
                }
            }
            Kind::Reset => {
                self.got_last = true;
                self.sent_last = true;
                self.changed.notify_one();
                Inbound::Reset(frame.head().unwrap_or_default())
            }
            // Nothing that the broker notes is known.
            Kind::Note | Kind::Message => return Ok(()),
        };
        let _ = self.inbound.send(taken);
        Ok(())
    }
}

/// Writes frames until the process ends; what belongs to an earlier attachment is left out.
async fn write(
    link: Link,
    mut output: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<(u64, Frame)>,
    mut urgent: mpsc::UnboundedReceiver<(u64, Frame)>,
) {
    let mut bytes = Vec::new();
    loop {
        let first = tokio::select! {
            biased;
            frame = urgent.recv() => frame,
            frame = queue.recv() => frame,
        };
        let Some(first) = first else { return };
        let mut next = Some(first);
        while let Some((attachment, frame)) = next {
            let session = {
                let table = link.table();
                table.session.filter(|_| table.attachment == attachment)
            };
            match session.map(|session| frame.encode(&session, &mut bytes)) {
                Some(Ok(())) => {}
                _ => drop(link.0.dropped.fetch_add(1, Ordering::Relaxed)),
            }
            next = if bytes.len() < WRITE_BYTES { urgent.try_recv().or_else(|_| queue.try_recv()).ok() } else { None };
        }
        if output.write_all(&bytes).await.is_err() || output.flush().await.is_err() {
            // The input ends too, and with it the process.
            return;
        }
        bytes.clear();
    }
}
