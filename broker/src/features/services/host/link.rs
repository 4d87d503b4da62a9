//! The broker's end of the wire to a runner: streams over one pair of pipes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_protocol::crypto::keys;
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::runner::frame::{Decoder, Frame, Kind, Session};
use claudemesh_protocol::runner::limits::{MAX_DATA_BYTES, MAX_FRAME_BYTES, MAX_RESULT_BYTES, MAX_STREAMS};
use claudemesh_protocol::runner::window::{Receiving, Sending};
use claudemesh_protocol::runner::{
    Answer, Ask, Event, FailCode, Failure, FromRunner, Hello, Note, Reset, RunnerAsk, ToRunner, VERSION,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// Frames that wait to be written before those who write wait, too.
const OUT_QUEUE: usize = 64;
/// Messages of the runner that wait to be looked at.
const IN_QUEUE: usize = 64;
/// Bytes of answers of one runner that are gathered at one time: memory of the broker.
const MAX_GATHERED_BYTES: usize = 4 * MAX_RESULT_BYTES;
/// Bytes that are read at once.
const READ_BYTES: usize = 65_536;

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The pipes.
    #[error("the runner ended: {0}")]
    Io(#[from] std::io::Error),
    /// The runner ended before it said anything.
    #[error("the runner ended before it said hello")]
    Ended,
    /// Another version of the wire.
    #[error("the runner speaks version {0} of the wire, and this broker {VERSION}")]
    Version(u32),
    /// It does not prove its key.
    #[error("the runner does not prove its key")]
    Proof,
}

/// What comes of a runner by itself.
pub(super) enum Incoming {
    /// Something happened to a service, with the body of the message.
    Event(String, Event, Vec<u8>),
    /// It opens a stream.
    Asked(RunnerAsk, Exchange, Frame),
}

struct Shared {
    session: Session,
    out: mpsc::Sender<Vec<u8>>,
    streams: Mutex<HashMap<u64, mpsc::UnboundedSender<Frame>>>,
    next: AtomicU64,
    gathered: AtomicUsize,
}

impl Shared {
    fn streams(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<Frame>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn encode(&self, frame: &Frame) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let wrong = |error| failure(FailCode::TooLarge, format!("{error}"));
        frame.encode(&self.session, &mut bytes).map_err(wrong)?;
        Ok(bytes)
    }
}

/// A link to a runner. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

fn failure(code: FailCode, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into() }
}

fn gone() -> Failure {
    failure(FailCode::Restarting, "the runner went away")
}

impl Link {
    /// Attaches to a runner over its pipes. `fresh`: no one has written to it before.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(super) async fn open(
        mut read: impl AsyncRead + Unpin + Send + 'static,
        mut write: impl AsyncWrite + Unpin + Send + 'static,
        fresh: bool,
    ) -> Result<(Self, Hello, mpsc::Receiver<Incoming>), LinkError> {
        let session = Session::random(&mut rand::rngs::OsRng);
        if !fresh {
            write.write_all(&vec![0; MAX_FRAME_BYTES]).await?;
        }
        let attach = ToRunner::Attach { version: VERSION, session: session.to_hex() };
        let mut bytes = Vec::new();
        let frame = Frame::message(&attach, Vec::new()).map_err(std::io::Error::other)?;
        frame.encode(&Session::NONE, &mut bytes).map_err(std::io::Error::other)?;
        write.write_all(&bytes).await?;
        write.flush().await?;
        let mut decoder = Decoder::of(session);
        let hello = loop {
            if let Some((frame, _)) = decoder.next_frame() {
                if let (Kind::Message, Ok(FromRunner::Hello(hello))) = (frame.kind, frame.head()) {
                    break hello;
                }
                continue;
            }
            let mut piece = vec![0; READ_BYTES];
            match read.read(&mut piece).await? {
                0 => return Err(LinkError::Ended),
                bytes => decoder.push(&piece[..bytes]),
            }
        };
        check(&hello, &session)?;
        let (out, queue) = mpsc::channel(OUT_QUEUE);
        let shared = Arc::new(Shared {
            session,
            out,
            streams: Mutex::default(),
            next: AtomicU64::new(2),
            gathered: AtomicUsize::new(0),
        });
        let (tell, incoming) = mpsc::channel(IN_QUEUE);
        tokio::spawn(writing(write, queue));
        tokio::spawn(reading(read, decoder, Arc::downgrade(&shared), tell));
        Ok((Self { shared }, hello, incoming))
    }

    /// Asks for something, and gives the answer with all of its body. Dropping the future ends the stream.
    ///
    /// # Errors
    /// What the runner says, or `Restarting` when it went away.
    pub(super) async fn ask(&self, ask: &Ask, body: &[u8], watch: Watch<'_>) -> Result<(Answer, Vec<u8>), Failure> {
        let number = self.shared.next.fetch_add(2, Ordering::Relaxed);
        let mut exchange = Exchange::new(&self.shared, number)?;
        let mut sent = exchange.sending.take(body.len().min(MAX_DATA_BYTES));
        let last = sent == body.len();
        let head = Frame::with_head(Kind::Head, number, ask, body[..sent].to_vec(), last);
        exchange.send(&head.map_err(|error| failure(FailCode::TooLarge, error.to_string()))?).await?;
        let Watch { mut cancelled, progress } = watch;
        let mut gathered = Gathered { shared: Arc::clone(&self.shared), bytes: Vec::new(), counted: 0 };
        let mut answer = None;
        loop {
            while sent < body.len() && exchange.sending.available() > 0 {
                let take = exchange.sending.take((body.len() - sent).min(MAX_DATA_BYTES));
                let piece = body[sent..sent + take].to_vec();
                sent += take;
                exchange.send(&Frame::data(number, piece, sent == body.len())).await?;
            }
            let frame = tokio::select! {
                frame = exchange.frames.recv() => frame.ok_or_else(gone)?,
                reason = wait(&mut cancelled) => {
                    exchange.reset(FailCode::Cancelled, reason).await;
                    return Err(failure(FailCode::Cancelled, "the caller gave up"));
                }
            };
            match frame.kind {
                Kind::Credit => exchange.granted(&frame)?,
                Kind::Note => {
                    if let (Some(tell), Ok(Note::Progress)) = (progress, frame.head()) {
                        tell(&frame.body);
                    }
                    continue;
                }
                Kind::Reset => {
                    exchange.over = true;
                    let reset: Reset = frame.head().unwrap_or_default();
                    return Err(failure(reset.code, reset.message));
                }
                Kind::Head => answer = Some(frame.head::<Answer>().unwrap_or(Answer::Unknown)),
                Kind::Data | Kind::Message => {}
            }
            if matches!(frame.kind, Kind::Head | Kind::Data) {
                gathered.add(&frame.body)?;
                exchange.took(frame.body.len()).await?;
            }
            if frame.last
                && let Some(answer) = answer.take()
            {
                exchange.over = sent == body.len();
                return Ok((answer, std::mem::take(&mut gathered.bytes)));
            }
        }
    }
}

/// What is looked at while an answer is waited for.
#[derive(Default)]
pub(super) struct Watch<'a> {
    /// The caller gives up, for this reason.
    pub(super) cancelled: Option<oneshot::Receiver<String>>,
    /// Gets the parameters of each notice of progress.
    pub(super) progress: Option<&'a (dyn Fn(&[u8]) + Sync)>,
}

/// The reason of a cancellation, once there is one.
async fn wait(cancelled: &mut Option<oneshot::Receiver<String>>) -> String {
    loop {
        match cancelled.as_mut() {
            Some(receiver) => match receiver.await {
                Ok(reason) => return reason,
                Err(_) => *cancelled = None,
            },
            None => std::future::pending().await,
        }
    }
}

/// Bytes of an answer that count for the runner's bound until they are handed on.
struct Gathered {
    shared: Arc<Shared>,
    bytes: Vec<u8>,
    counted: usize,
}

impl Gathered {
    fn add(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let of_all = self.shared.gathered.fetch_add(piece.len(), Ordering::Relaxed) + piece.len();
        self.counted += piece.len();
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > MAX_RESULT_BYTES {
            return Err(failure(FailCode::TooLarge, "the result is larger than 50 MB"));
        }
        if of_all > MAX_GATHERED_BYTES {
            return Err(failure(FailCode::Limit, "too many large results are under way"));
        }
        Ok(())
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.shared.gathered.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// One stream.
pub(super) struct Exchange {
    shared: Arc<Shared>,
    pub(super) number: u64,
    pub(super) frames: mpsc::UnboundedReceiver<Frame>,
    pub(super) sending: Sending,
    receiving: Receiving,
    /// Both sides have said their last.
    pub(super) over: bool,
}

impl Exchange {
    fn new(shared: &Arc<Shared>, number: u64) -> Result<Self, Failure> {
        let (tell, frames) = mpsc::unbounded_channel();
        let mut streams = shared.streams();
        if streams.len() >= MAX_STREAMS {
            return Err(failure(FailCode::Limit, "too many streams are open"));
        }
        streams.insert(number, tell);
        drop(streams);
        let shared = Arc::clone(shared);
        Ok(Self { shared, number, frames, sending: Sending::default(), receiving: Receiving::default(), over: false })
    }

    /// Writes a frame.
    pub(super) async fn send(&self, frame: &Frame) -> Result<(), Failure> {
        let bytes = self.shared.encode(frame)?;
        self.shared.out.send(bytes).await.map_err(|_| gone())
    }

    /// Writes frames of it from elsewhere.
    pub(super) fn sender(&self) -> Sender {
        Sender { shared: Arc::clone(&self.shared), number: self.number }
    }

    /// Lets the other side send more, once it is worth a frame.
    pub(super) async fn took(&mut self, bytes: usize) -> Result<(), Failure> {
        let broken = |_| failure(FailCode::Protocol, "more bytes came than there was credit for");
        self.receiving.received(bytes).map_err(broken)?;
        match self.receiving.taken(bytes) {
            Some(credit) => self.send(&Frame::credit(self.number, credit)).await,
            None => Ok(()),
        }
    }

    /// The other side takes more.
    pub(super) fn granted(&mut self, frame: &Frame) -> Result<(), Failure> {
        let broken = || failure(FailCode::Protocol, "credit for more than was sent");
        self.sending.granted(frame.granted().ok_or_else(broken)?).map_err(|_| broken())
    }

    /// Ends it before its time.
    pub(super) async fn reset(&mut self, code: FailCode, message: String) {
        self.over = true;
        if let Ok(frame) = Frame::with_head(Kind::Reset, self.number, &Reset { code, message }, Vec::new(), true) {
            // When the runner is gone the stream is, too.
            let _ = self.send(&frame).await;
        }
    }
}

/// Writes frames of one stream.
pub(super) struct Sender {
    shared: Arc<Shared>,
    pub(super) number: u64,
}

impl Sender {
    /// Writes a frame.
    pub(super) async fn send(&self, frame: &Frame) -> Result<(), Failure> {
        let bytes = self.shared.encode(frame)?;
        self.shared.out.send(bytes).await.map_err(|_| gone())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.streams().remove(&self.number);
        if self.over {
            return;
        }
        let reset = Reset { code: FailCode::Cancelled, message: "no one waits for it".into() };
        let frame = Frame::with_head(Kind::Reset, self.number, &reset, Vec::new(), true);
        if let (Ok(frame), Ok(runtime)) = (frame, tokio::runtime::Handle::try_current())
            && let Ok(bytes) = self.shared.encode(&frame)
        {
            let out = self.shared.out.clone();
            runtime.spawn(async move { out.send(bytes).await });
        }
    }
}

fn check(hello: &Hello, session: &Session) -> Result<(), LinkError> {
    if hello.version != VERSION {
        return Err(LinkError::Version(hello.version));
    }
    let text = Hello::proof_text(&hello.public_key, &session.to_hex());
    let key = PublicKey::parse(&hello.public_key).ok_or(LinkError::Proof)?;
    keys::verify(&key, text.as_bytes(), &hello.proof).map_err(|_| LinkError::Proof)
}

async fn writing(mut write: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        if write.write_all(&bytes).await.is_err() {
            return;
        }
        if queue.is_empty() && write.flush().await.is_err() {
            return;
        }
    }
}

/// Hands frames to their streams until the pipe ends; then no stream goes on.
async fn reading(
    mut read: impl AsyncRead + Unpin,
    mut decoder: Decoder,
    shared: std::sync::Weak<Shared>,
    tell: mpsc::Sender<Incoming>,
) {
    let mut piece = vec![0; READ_BYTES];
    'pipe: loop {
        while let Some((frame, _)) = decoder.next_frame() {
            let Some(shared) = shared.upgrade() else { return };
            if let Some(incoming) = sort(&shared, frame)
                && tell.send(incoming).await.is_err()
            {
                break 'pipe;
            }
        }
        match read.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(bytes) => decoder.push(&piece[..bytes]),
        }
    }
    if let Some(shared) = shared.upgrade() {
        shared.streams().clear();
    }
}

fn sort(shared: &Arc<Shared>, frame: Frame) -> Option<Incoming> {
    if frame.kind == Kind::Message {
        return match frame.head() {
            Ok(FromRunner::Event { id, event }) => Some(Incoming::Event(id, event, frame.body)),
            _ => None,
        };
    }
    let known = shared.streams().get(&frame.stream).cloned();
    if let Some(stream) = known {
        // Its reader may have ended meanwhile.
        let _ = stream.send(frame);
        return None;
    }
    let opens = frame.kind == Kind::Head && frame.stream % 2 == 1;
    let ask = frame.head().ok().filter(|_| opens)?;
    let exchange = Exchange::new(shared, frame.stream).ok()?;
    Some(Incoming::Asked(ask, exchange, frame))
}
