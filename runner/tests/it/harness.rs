//! The broker's end of the pipes: the real program, real frames, real connections to wherever a test lets a service go.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use claudemesh_protocol::runner::frame::{Decoder, Frame, Kind, Session};
use claudemesh_protocol::runner::window::{Receiving, Sending};
use claudemesh_protocol::runner::{
    Answer, Ask, BrokerAnswer, Event, FailCode, Failure, FromRunner, Hello, RefusedWhy, Reset, RunnerAsk, ServiceSpec,
    Source, ToRunner, VERSION,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc, watch};

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a service that asks for `host:port` gets: an address, or nothing.
pub(crate) type Route = Arc<dyn Fn(&str, u16) -> Option<String> + Send + Sync>;

struct Stream {
    frames: mpsc::UnboundedSender<Frame>,
    sending: Sending,
}

struct Shared {
    out: mpsc::UnboundedSender<Vec<u8>>,
    session: Mutex<Session>,
    streams: Mutex<HashMap<u64, Stream>>,
    credit: Notify,
    next: Mutex<u64>,
    said: watch::Sender<Vec<(FromRunner, Vec<u8>)>>,
    asked: watch::Sender<Vec<RunnerAsk>>,
    skipped: Mutex<u64>,
}

/// A running runner.
pub(crate) struct Runner {
    shared: Arc<Shared>,
    child: Child,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) hello: Hello,
}

/// One exchange that the broker began.
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    pub(crate) id: u64,
    frames: mpsc::UnboundedReceiver<Frame>,
    receiving: Receiving,
}

/// Users of its own for each runner: without a container around it, it would end the processes of another one's services.
fn first_uid() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    100_000 + std::process::id() % 30_000 * 100 + COUNT.fetch_add(10, Ordering::Relaxed) % 100
}

pub(crate) async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// The test's server, where every user can read it.
pub(crate) const SERVER: &str = include_str!("server.py");

pub(crate) fn python(id: &str) -> ServiceSpec {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("server.py"), SERVER).unwrap();
        for (path, mode) in [(folder.path().to_owned(), 0o755), (folder.path().join("server.py"), 0o644)] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        folder
    });
    let mut spec = ServiceSpec::new(id, id, "mesh", Source::Command { command: "python3".into() });
    spec.args = vec![FOLDER.path().join("server.py").to_string_lossy().into_owned()];
    spec
}

impl Runner {
    pub(crate) async fn start() -> Self {
        Self::with(&[], Arc::new(|_, _| None)).await
    }

    /// `env`: settings; the usual pauses are too long for a test.
    pub(crate) async fn with(env: &[(&str, &str)], route: Route) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Services have users of their own, and go through.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_claudemesh-runner"));
        command
            .env("CLAUDEMESH_RUNNER_DIR", folder.path().join("run"))
            // Programs of a home folder are out of reach for other users.
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CLAUDEMESH_RUNNER_BACKOFF_MS", "50")
            .env("CLAUDEMESH_RUNNER_FIRST_UID", first_uid().to_string())
            .env("RUNNERS_OWN", "not for services")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (out, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            while let Some(bytes) = queue.recv().await {
                // No bytes at all: the broker closes its end.
                if bytes.is_empty() || stdin.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        let shared = Arc::new(Shared {
            out,
            session: Mutex::new(Session::NONE),
            streams: Mutex::default(),
            credit: Notify::new(),
            next: Mutex::new(0),
            said: watch::Sender::new(Vec::new()),
            asked: watch::Sender::new(Vec::new()),
            skipped: Mutex::new(0),
        });
        let session = shared.attach(b"");
        tokio::spawn(read(shared.clone(), stdout, session, route));
        let mut runner = Self { shared, child, folder, hello: Hello::default() };
        runner.hello = runner.next_hello(0).await;
        runner
    }

    async fn next_hello(&self, after: usize) -> Hello {
        let found = self
            .said(|said| {
                said[after..].iter().find_map(|(said, _)| match said {
                    FromRunner::Hello(hello) => Some(hello.clone()),
                    _ => None,
                })
            })
            .await;
        assert_eq!((found.version, found.session.as_str()), (VERSION, self.session().to_hex().as_str()));
        found
    }

    fn session(&self) -> Session {
        *self.shared.session.lock().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub(crate) fn dir(&self, id: &str) -> PathBuf {
        self.folder.path().join("run/services").join(id)
    }

    /// Everything that the runner said and what it was asked for, as text.
    pub(crate) fn transcript(&self) -> String {
        let said = self.shared.said.borrow();
        said.iter().map(|(message, body)| format!("{message:?} {}\n", String::from_utf8_lossy(body))).collect()
    }

    pub(crate) fn said_so_far(&self) -> usize {
        self.shared.said.borrow().len()
    }

    /// Waits until `find` finds something in what the runner said.
    pub(crate) async fn said<T>(&self, find: impl Fn(&[(FromRunner, Vec<u8>)]) -> Option<T>) -> T {
        let mut said = self.shared.said.subscribe();
        patiently("a message of the runner", async {
            loop {
                if let Some(found) = find(&said.borrow_and_update()) {
                    return found;
                }
                said.changed().await.expect("the runner has ended");
            }
        })
        .await
    }

    /// Waits for an event of a service.
    pub(crate) async fn event<T>(&self, service: &str, find: impl Fn(&Event, &[u8]) -> Option<T>) -> T {
        self.said(|said| {
            said.iter().find_map(|(said, body)| match said {
                FromRunner::Event { id, event } if id == service => find(event, body),
                _ => None,
            })
        })
        .await
    }

    /// Waits until a service has asked for something.
    pub(crate) async fn asked<T>(&self, find: impl Fn(&RunnerAsk) -> Option<T>) -> T {
        let mut asked = self.shared.asked.subscribe();
        patiently("a question of the runner", async {
            loop {
                if let Some(found) = asked.borrow_and_update().iter().find_map(&find) {
                    return found;
                }
                asked.changed().await.expect("the runner has ended");
            }
        })
        .await
    }

    /// Writes bytes that are no frame.
    pub(crate) fn garbage(&self, bytes: &[u8]) {
        self.shared.out.send(bytes.to_vec()).unwrap();
    }

    /// Attaches anew, as a broker that has been started again.
    pub(crate) async fn attach_again(&mut self, begun: &[u8]) -> Hello {
        let before = self.said_so_far();
        self.shared.streams.lock().unwrap().clear();
        self.shared.attach(begun);
        self.hello = self.next_hello(before).await;
        self.hello.clone()
    }

    pub(crate) fn tell(&self, message: &ToRunner, body: &[u8]) {
        self.shared.send(&Frame::message(message, body.to_vec()).unwrap());
    }

    pub(crate) async fn begin(&self, ask: &Ask, body: &[u8]) -> Exchange {
        let id = {
            let mut next = self.shared.next.lock().unwrap();
            *next += 2;
            *next
        };
        let frames = self.shared.add(id);
        let first = body.len().min(65_536);
        self.shared.take_credit(id, first).await;
        self.shared.send(&Frame::with_head(Kind::Head, id, ask, body[..first].to_vec(), body.len() == first).unwrap());
        if body.len() > first {
            self.shared.data(id, &body[first..], true).await;
        }
        Exchange { shared: self.shared.clone(), id, frames, receiving: Receiving::default() }
    }

    pub(crate) async fn ask(&self, ask: Ask, body: &[u8]) -> (Answer, Vec<u8>) {
        let mut exchange = self.begin(&ask, body).await;
        exchange.answer().await
    }

    pub(crate) async fn done(&self, ask: Ask, body: &[u8]) -> Result<(), Failure> {
        match self.ask(ask, body).await.0 {
            Answer::Done => Ok(()),
            Answer::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn install(&self, spec: &ServiceSpec, bundle: &[u8]) -> Result<(), Failure> {
        self.done(Ask::Install { spec: Box::new(spec.clone()) }, bundle).await
    }

    pub(crate) async fn start_service(&self, id: &str) -> Result<(), Failure> {
        self.done(Ask::Start { id: id.into(), spec: None }, b"").await
    }

    /// Installs and starts.
    pub(crate) async fn run(&self, spec: &ServiceSpec) {
        self.install(spec, b"").await.unwrap();
        self.start_service(&spec.id).await.unwrap();
    }

    pub(crate) fn call_ask(id: &str, progress: bool) -> Ask {
        Ask::Request { id: id.into(), method: "tools/call".into(), progress, timeout_ms: 50_000 }
    }

    pub(crate) fn params(tool: &str, args: &Value) -> Vec<u8> {
        json!({"name": tool, "arguments": args}).to_string().into_bytes()
    }

    /// Calls a tool of the test's server, and reads the JSON in its text.
    pub(crate) async fn call(&self, id: &str, tool: &str, args: Value) -> Value {
        let (answer, body) = self.ask(Self::call_ask(id, false), &Self::params(tool, &args)).await;
        assert_eq!(answer, Answer::Result, "{}", String::from_utf8_lossy(&body));
        let result: Value = serde_json::from_slice(&body).unwrap();
        let text = result["content"][0]["text"].as_str().unwrap();
        serde_json::from_str(text).unwrap_or_else(|_| json!(text))
    }

    pub(crate) async fn fails(&self, ask: Ask, body: &[u8]) -> FailCode {
        match self.ask(ask, body).await.0 {
            Answer::Failed(failure) => failure.code,
            other => panic!("{other:?}"),
        }
    }

    /// Lines of a log.
    pub(crate) async fn log(&self, id: &str) -> Vec<String> {
        let (answer, body) = self.ask(Ask::Logs { id: id.into(), lines: 1_000, follow: false }, b"").await;
        assert_eq!(answer, Answer::Logs);
        let lines = String::from_utf8(body).unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["line"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until the log has a line with `text` in it.
    pub(crate) async fn logged(&self, id: &str, text: &str) {
        let mut exchange = self.begin(&Ask::Logs { id: id.into(), lines: 1_000, follow: true }, b"").await;
        patiently(text, async {
            let mut all = Vec::new();
            let has = |all: &[u8]| {
                let mut lines =
                    all.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
                lines.any(|line| line["line"].as_str().is_some_and(|line| line.contains(text)))
            };
            while !has(&all) {
                let frame = exchange.frame().await.expect("a log that is followed does not end");
                all.extend_from_slice(&frame.body);
            }
        })
        .await;
        exchange.reset(FailCode::Cancelled, "");
    }

    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        patiently("the end of the runner", self.child.wait()).await.unwrap()
    }
}

impl Shared {
    fn send(&self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&self.session.lock().unwrap(), &mut bytes).unwrap();
        let _ = self.out.send(bytes);
    }

    fn attach(&self, begun: &[u8]) -> Session {
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

    fn add(&self, id: u64) -> mpsc::UnboundedReceiver<Frame> {
        let (frames, queue) = mpsc::unbounded_channel();
        self.streams.lock().unwrap().insert(id, Stream { frames, sending: Sending::default() });
        queue
    }

    async fn take_credit(&self, id: u64, wanted: usize) -> usize {
        loop {
            let credit = self.credit.notified();
            let taken = self.streams.lock().unwrap().get_mut(&id).map_or(wanted, |stream| stream.sending.take(wanted));
            if taken > 0 || wanted == 0 {
                return taken;
            }
            patiently("credit", credit).await;
        }
    }

    async fn data(&self, id: u64, mut body: &[u8], last: bool) {
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

async fn read(shared: Arc<Shared>, mut stdout: tokio::process::ChildStdout, session: Session, route: Route) {
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
