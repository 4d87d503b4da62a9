//! The broker's end of the pipes: the real program, real frames, real connections to wherever a test lets a service go.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use claudemesh_protocol::runner::frame::{Frame, Kind, Session};
use claudemesh_protocol::runner::window::Receiving;
use claudemesh_protocol::runner::{
    Answer, Ask, Event, FailCode, Failure, FromRunner, Hello, RunnerAsk, ServiceSpec, Source, ToRunner, VERSION,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc, watch};

pub(crate) use crate::peer::Route;
use crate::peer::{Exchange, Shared, read};

const PROGRAM: &str = env!("CARGO_BIN_EXE_claudemesh-runner");
/// A container as `docs/runner.md` has it; its folder is the test's.
const DOCKER: &str = "docker run -i --rm --network none --read-only --cap-drop ALL --cap-add SETUID --cap-add SETGID --cap-add CHOWN \
    --cap-add KILL --cap-add DAC_OVERRIDE --cap-add FOWNER --security-opt no-new-privileges --pids-limit 512 --memory 1g \
    -e CLAUDEMESH_RUNNER_DIR -e CLAUDEMESH_RUNNER_FIRST_UID -e CLAUDEMESH_RUNNER_BACKOFF_MS -e RUNNERS_OWN";

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running runner.
pub(crate) struct Runner {
    shared: Arc<Shared>,
    child: Child,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) hello: Hello,
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
        Self::under(&[], Some(PROGRAM), env, route).await
    }

    /// As in its container: the first process, with loopback and no other network, and with no more rights than it needs there.
    /// `None` where the tests may not make such a place. `CLAUDEMESH_TEST_RUNNER_IMAGE` names an image to run in a container instead, with
    /// the program that is in it.
    pub(crate) async fn contained(route: Route) -> Option<Self> {
        if let Ok(image) = std::env::var("CLAUDEMESH_TEST_RUNNER_IMAGE") {
            let folder = std::env::temp_dir();
            let shared = format!("{0}:{0}", folder.display());
            let mut under: Vec<&str> = DOCKER.split_whitespace().collect();
            under.extend(["-v", &shared, &image]);
            return Some(Self::under(&under, None, &[], route).await);
        }
        const INSIDE: &str = "ip link set lo up && exec setpriv --inh-caps=-all --no-new-privs \
            --bounding-set=-all,+setuid,+setgid,+chown,+kill,+dac_override,+fowner \"$0\"";
        let place = ["unshare", "--pid", "--fork", "--net", "--mount-proc", "--kill-child", "sh", "-c"];
        let works = std::process::Command::new(place[0]).args(&place[1..]).args([INSIDE, "true"]).output();
        if !works.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let mut under = place.to_vec();
        under.push(INSIDE);
        Some(Self::under(&under, Some(PROGRAM), &[], route).await)
    }

    async fn under(under: &[&str], program: Option<&str>, env: &[(&str, &str)], route: Route) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Services have users of their own, and go through.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let mut words = under.iter().copied().chain(program);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
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
