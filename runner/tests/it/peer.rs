//! Frames, streams and credit as the broker has them, and its answers to what services ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use claudemesh_protocol::runner::frame::{Decoder, Frame, Kind, Session};
use claudemesh_protocol::runner::window::{Receiving, Sending};
use claudemesh_protocol::runner::{
    Answer, BrokerAnswer, FailCode, FromRunner, RefusedWhy, Reset, RunnerAsk, ToRunner, VERSION,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};

use crate::harness::patiently;

/// What a service that asks for `host:port` gets: an address, or nothing.
pub(crate) type Route = Arc<dyn Fn(&str, u16) -> Option<String> + Send + Sync>;

pub(crate) struct Stream {
    frames: mpsc::UnboundedSender<Frame>,
    sending: Sending,
}

pub(crate) struct Shared {
    pub(crate) out: mpsc::UnboundedSender<Vec<u8>>,
    pub(crate) session: Mutex<Session>,
    pub(crate) streams: Mutex<HashMap<u64, Stream>>,
    pub(crate) credit: Notify,
    pub(crate) next: Mutex<u64>,
    pub(crate) said: watch::Sender<Vec<(FromRunner, Vec<u8>)>>,
    pub(crate) asked: watch::Sender<Vec<RunnerAsk>>,
    pub(crate) skipped: Mutex<u64>,
}

/// One exchange that the broker began.
pub(crate) struct Exchange {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u64,
    pub(crate) frames: mpsc::UnboundedReceiver<Frame>,
    pub(crate) receiving: Receiving,
}

impl Shared {
    pub(crate) fn send(&self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&self.session.lock().unwrap(), &mut bytes).unwrap();
        let _ = self.out.send(bytes);
    }

    pub(crate) fn attach(&self, begun: &[u8]) -> Session {
        let session = Session::random(&mut rand::thread_rng());
        let mut bytes = begun.to_vec();
        bytes.extend(std::iter::repeat_n(0, claudemesh_protocol::runner::limits::MAX_FRAME_BYTES));
        let attach = ToRunner::Attach { version: VERSION, session: session.to_hex() };
        Frame::message(&attach, Vec::new()).unwrap().encode(&Session::NONE, &mut bytes).unwrap();
        *self.session.lock().unwrap() = session;
        *self.next.lock().unwrap() = 0;
        self.out.send(bytes).unwrap();
        session
    }

    pub(crate) fn add(&self, id: u64) -> mpsc::UnboundedReceiver<Frame> {
        let (frames, queue) = mpsc::unbounded_channel();
        self.streams.lock().unwrap().insert(id, Stream { frames, sending: Sending::default() });
        queue
    }

    pub(crate) async fn take_credit(&self, id: u64, wanted: usize) -> usize {
        loop {
            let credit = self.credit.notified();
            let taken = self.streams.lock().unwrap().get_mut(&id).map_or(wanted, |stream| stream.sending.take(wanted));
            if taken > 0 || wanted == 0 {
                return taken;
            }
            patiently("credit", credit).await;
        }
    }

    pub(crate) async fn data(&self, id: u64, mut body: &[u8], last: bool) {
        while !body.is_empty() {
            let bytes = self.take_credit(id, body.len().min(65_536)).await;
            let (now, later) = body.split_at(bytes);
            body = later;
            self.send(&Frame::data(id, now.to_vec(), last && body.is_empty()));
        }
    }
}

impl Exchange {
    /// The next frame; credit is given for it.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await?;
        if matches!(frame.kind, Kind::Head | Kind::Data) {
            self.receiving.received(frame.body.len()).expect("the runner keeps to its credit");
            if let Some(credit) = self.receiving.taken(frame.body.len()) {
                self.shared.send(&Frame::credit(self.id, credit));
            }
        }
        Some(frame)
    }

    /// The whole answer; notes are left out.
    pub(crate) async fn answer(&mut self) -> (Answer, Vec<u8>) {
        patiently("an answer", async {
            let mut answer = None;
            let mut all = Vec::new();
            loop {
                let frame = self.frame().await.expect("the runner answers");
                match frame.kind {
                    Kind::Head => answer = Some(frame.head().unwrap()),
                    Kind::Data => {}
                    Kind::Reset => panic!("{:?}", frame.head::<Reset>()),
                    _ => continue,
                }
                all.extend_from_slice(&frame.body);
                if frame.last {
                    return (answer.expect("a head"), all);
                }
            }
        })
        .await
    }

    pub(crate) fn reset(&self, code: FailCode, message: &str) {
        let reset = Reset { code, message: message.into() };
        self.shared.send(&Frame::with_head(Kind::Reset, self.id, &reset, Vec::new(), true).unwrap());
    }
}

pub(crate) async fn read(shared: Arc<Shared>, mut stdout: tokio::process::ChildStdout, session: Session, route: Route) {
    let mut decoder = Decoder::of(session);
    let mut now = session;
    let mut piece = vec![0; 65_536];
    loop {
        let bytes = stdout.read(&mut piece).await.unwrap_or(0);
        if bytes == 0 {
            // Whoever waits sees that nothing will come.
            shared.streams.lock().unwrap().clear();
            return;
        }
        let current = *shared.session.lock().unwrap();
        if current != now {
            // A broker that is started again has a reader of its own.
            now = current;
            decoder = Decoder::of(current);
        }
        decoder.push(&piece[..bytes]);
        while let Some((frame, _)) = decoder.next_frame() {
            take(&shared, frame, &route);
        }
        *shared.skipped.lock().unwrap() = decoder.skipped();
    }
}

fn take(shared: &Arc<Shared>, frame: Frame, route: &Route) {
    if frame.kind == Kind::Message {
        let message = frame.head().unwrap();
        return shared.said.send_modify(|said| said.push((message, frame.body)));
    }
    let mut streams = shared.streams.lock().unwrap();
    if let Some(stream) = streams.get_mut(&frame.stream) {
        if let Some(granted) = frame.granted() {
            stream.sending.granted(granted).expect("the runner grants what it took");
            shared.credit.notify_waiters();
        } else {
            let _ = stream.frames.send(frame);
        }
        return;
    }
    drop(streams);
    if frame.kind == Kind::Head && frame.stream % 2 == 1 {
        let id = frame.stream;
        let ask: RunnerAsk = frame.head().unwrap();
        shared.asked.send_modify(|asked| asked.push(ask.clone()));
        let frames = shared.add(id);
        let exchange = Exchange { shared: shared.clone(), id, frames, receiving: Receiving::default() };
        tokio::spawn(answer(exchange, ask, frame, route.clone()));
    }
}

async fn answer(exchange: Exchange, ask: RunnerAsk, head: Frame, route: Route) {
    let shared = exchange.shared.clone();
    let id = exchange.id;
    let say = |answer: &BrokerAnswer, body: &[u8], last: bool| {
        shared.send(&Frame::with_head(Kind::Head, id, answer, body.to_vec(), last).unwrap());
    };
    match ask {
        RunnerAsk::Egress { host, port, .. } => {
            let Some(target) = route(&host, port) else {
                let message = format!("no rule allows {host}:{port}");
                return say(&BrokerAnswer::Refused { why: RefusedWhy::NotAllowed, message }, b"", true);
            };
            match TcpStream::connect(&target).await {
                Ok(socket) => {
                    say(&BrokerAnswer::Opened, b"", false);
                    carry(exchange, socket, head).await;
                }
                Err(error) => {
                    say(&BrokerAnswer::Refused { why: RefusedWhy::Unreachable, message: error.to_string() }, b"", true)
                }
            }
        }
        RunnerAsk::Request { method, .. } if method == "sampling/createMessage" => {
            say(&BrokerAnswer::Result, b"{\"n\":1.10}", true)
        }
        // Left unanswered: a test cancels it.
        RunnerAsk::Request { method, .. } if method == "elicitation/create" => {
            let mut exchange = exchange;
            while exchange.frame().await.is_some_and(|frame| frame.kind != Kind::Reset) {}
            shared.asked.send_modify(|asked| asked.push(RunnerAsk::Unknown));
        }
        RunnerAsk::Request { .. } | RunnerAsk::Unknown => say(&BrokerAnswer::Unknown, b"", true),
    }
}

async fn carry(mut exchange: Exchange, mut socket: TcpStream, head: Frame) {
    exchange.receiving.received(head.body.len()).unwrap();
    let _ = exchange.receiving.taken(head.body.len());
    let (mut from_host, mut to_host) = socket.split();
    to_host.write_all(&head.body).await.unwrap();
    let (shared, id) = (exchange.shared.clone(), exchange.id);
    let out = async {
        while let Some(frame) = exchange.frame().await {
            if frame.kind == Kind::Reset || to_host.write_all(&frame.body).await.is_err() {
                return;
            }
            if frame.last {
                let _ = to_host.shutdown().await;
                return;
            }
        }
    };
    let back = async {
        let mut piece = vec![0; 32_768];
        loop {
            match from_host.read(&mut piece).await {
                Ok(bytes) if bytes > 0 => shared.data(id, &piece[..bytes], false).await,
                _ => return shared.send(&Frame::data(id, Vec::new(), true)),
            }
        }
    };
    tokio::join!(out, back);
}
