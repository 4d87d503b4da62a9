//! What the broker asks, and the services it asks for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::runner::frame::Session;
use claudemesh_protocol::runner::limits::{MAX_BUNDLE_BYTES, MAX_RESULT_BYTES, MAX_SERVICES};
use claudemesh_protocol::runner::{
    Answer, Ask, FailCode, Failure, FromRunner, Hello, Reset, ServiceSpec, ToRunner, VERSION,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::link::{Inbound, Incoming, Link, Stream};
use crate::service::session::{Asked, Reply};
use crate::service::{Service, failure};
use crate::users::Users;
use crate::{process, secrets, stats};

/// How long a request may take when the broker says nothing.
const USUAL_TIMEOUT: Duration = Duration::from_secs(25);
const INCOMING: usize = 64;
/// Programs that the hello names when the image has them.
const PROGRAMS: [&str; 6] = ["node", "npm", "python3", "uv", "git", "bun"];
/// Bytes of a log that are sent at once.
const LOG_BYTES: usize = 32_768;

/// The runner.
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) key: SecretKey,
    pub(crate) users: Users,
    pub(crate) link: Link,
    services: Mutex<HashMap<String, Arc<Service>>>,
    boot: String,
    programs: Vec<String>,
}

/// The file of a program of the image.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs until standard input ends.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let key = secrets::key(config.key_file.as_deref()).context("the runner's key")?;
    let services = config.dir.join("services");
    std::fs::create_dir_all(&services).with_context(|| services.display().to_string())?;
    // Everyone goes through, no one sees what is beside him.
    for folder in [&config.dir, &services] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
    }
    let link = Link::start(output()?);
    let host = Arc::new(Host {
        users: Users::new(config.first_uid),
        config,
        key,
        link: link.clone(),
        services: Mutex::default(),
        boot: Session::random(&mut rand::thread_rng()).to_hex(),
        programs: PROGRAMS.into_iter().filter(|name| find_program(name).is_some()).map(str::to_owned).collect(),
    });
    let (tell, mut incoming) = mpsc::channel(INCOMING);
    let input = input()?;
    let reading = tokio::spawn(async move { link.read(input, tell).await });
    tokio::spawn(process::reap());
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let next = tokio::select! {
            next = incoming.recv() => next,
            _ = end.recv() => None,
        };
        match next {
            Some(Incoming::Attached { session }) => host.greet(session).await,
            Some(Incoming::Message(message, body)) => host.hear(&message, &body),
            Some(Incoming::Opened(stream)) => drop(tokio::spawn(host.clone().answer(stream))),
            None => break,
        }
    }
    reading.abort();
    host.end().await;
    Ok(())
}

/// Standard input: a pipe is read as one, anything else on a thread.
fn input() -> std::io::Result<Box<dyn AsyncRead + Unpin + Send>> {
    let file = std::fs::File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    Ok(match tokio::net::unix::pipe::Receiver::from_file(file) {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(tokio::io::stdin()),
    })
}

fn output() -> std::io::Result<Box<dyn AsyncWrite + Unpin + Send>> {
    let file = std::fs::File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?);
    Ok(match tokio::net::unix::pipe::Sender::from_file(file) {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(tokio::io::stdout()),
    })
}

impl Host {
    pub(crate) fn services_dir(&self) -> PathBuf {
        self.config.dir.join("services")
    }

    fn services(&self) -> MutexGuard<'_, HashMap<String, Arc<Service>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Service>> {
        let mut all: Vec<_> = self.services().values().cloned().collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    fn service(&self, id: &str) -> Result<Arc<Service>, Failure> {
        self.services()
            .get(id)
            .cloned()
            .ok_or_else(|| failure(FailCode::NotFound, format!("no service has the id {id}")))
    }

    /// Says who this is and what runs.
    async fn greet(self: &Arc<Self>, session: Session) {
        let public_key = self.key.public().to_string();
        let session = session.to_hex();
        let services = self.all();
        let hello = Hello {
            version: VERSION,
            proof: self.key.sign(Hello::proof_text(&public_key, &session).as_bytes()),
            session,
            build: env!("CARGO_PKG_VERSION").into(),
            public_key,
            boot: self.boot.clone(),
            users: self.users.separate(),
            cgroups: false,
            programs: self.programs.clone(),
            services: services.iter().map(|service| service.describe()).collect(),
        };
        self.link.message(&FromRunner::Hello(hello), Vec::new()).await;
        for service in services {
            if let Some((event, body)) = service.running() {
                service.tell(self, event, body).await;
            }
        }
    }

    fn hear(&self, message: &ToRunner, body: &[u8]) {
        if let ToRunner::Notify { id, method } = message
            && let Ok(session) = self.service(id).and_then(|service| service.session())
        {
            session.notify(method, body);
        }
    }

    /// Answers what is asked on a stream.
    async fn answer(self: Arc<Self>, mut stream: Stream) {
        let (head, body) = match stream.reader.next().await {
            Some(Inbound::Head { head, body, last }) => (head, Some((body, last))),
            _ => return,
        };
        let ask: Ask = match serde_json::from_slice(&head) {
            Ok(ask) => ask,
            Err(error) => return stream.writer.reset(FailCode::Invalid, &format!("the head cannot be read: {error}")),
        };
        let (body, last) = body.unwrap_or_default();
        let most = if matches!(ask, Ask::Install { .. }) { MAX_BUNDLE_BYTES as usize } else { MAX_RESULT_BYTES };
        let body = match rest_of(&mut stream, body, last, most).await {
            Ok(body) => body,
            Err(reset) => return stream.writer.reset(reset.code, &reset.message),
        };
        match ask {
            Ask::Request { id, method, progress, timeout_ms } => {
                self.request(stream, &id, &method, &body, progress, timeout_ms).await;
            }
            Ask::Logs { id, lines, follow } => match self.service(&id) {
                Ok(service) => logs(stream, &service, lines as usize, follow).await,
                Err(failure) => end(stream, &Answer::Failed(failure)).await,
            },
            Ask::Install { spec } => {
                let id = spec.id.clone();
                let done = tokio::select! {
                    done = self.install(*spec, body) => done,
                    // Whoever asked no longer wants it.
                    () = given_up(&mut stream) => {
                        if let Ok(service) = self.service(&id) {
                            service.give_way();
                            let _ = self.remove(&id).await;
                        }
                        return;
                    }
                };
                end(stream, &answer_of(done)).await;
            }
            // These go on when the stream is reset: half of a stop is worse than a whole one.
            Ask::Start { id, spec } => end(stream, &answer_of(self.start(&id, spec.map(|spec| *spec)).await)).await,
            Ask::Stop { id, grace_ms } => {
                let stopped = match self.service(&id) {
                    Ok(service) => service.stop(&self, Duration::from_millis(grace_ms), None).await,
                    Err(failure) => Err(failure),
                };
                end(stream, &answer_of(stopped)).await;
            }
            Ask::Remove { id } => end(stream, &answer_of(self.remove(&id).await)).await,
            Ask::Stats { id } => {
                let services = match id.map(|id| self.service(&id)).transpose() {
                    Ok(one) => one.map_or_else(|| self.all(), |one| vec![one]),
                    Err(failure) => return end(stream, &Answer::Failed(failure)).await,
                };
                let numbers =
                    tokio::task::spawn_blocking(move || services.iter().map(|service| stats::of(service)).collect())
                        .await;
                end(stream, &Answer::Stats { services: numbers.unwrap_or_default() }).await;
            }
            Ask::Unknown => {
                end(stream, &Answer::Failed(failure(FailCode::Unsupported, "this runner does not know that"))).await
            }
        }
    }

    async fn install(self: &Arc<Self>, spec: ServiceSpec, bundle: Vec<u8>) -> Result<(), Failure> {
        spec.check().map_err(|error| failure(FailCode::Invalid, error.to_string()))?;
        let id = spec.id.clone();
        if self.services().contains_key(&id) {
            return Err(failure(FailCode::Exists, format!("a service has the id {id} already")));
        }
        if self.services().len() >= MAX_SERVICES {
            return Err(failure(FailCode::Limit, format!("expected at most {MAX_SERVICES} services")));
        }
        let service = Arc::new(Service::new(self, spec).await?);
        self.services().insert(id, service.clone());
        service.install(self, bundle).await
    }

    async fn start(self: &Arc<Self>, id: &str, spec: Option<ServiceSpec>) -> Result<(), Failure> {
        let service = self.service(id)?;
        if let Some(spec) = &spec {
            spec.check().map_err(|error| failure(FailCode::Invalid, error.to_string()))?;
            if spec.id != id {
                return Err(failure(FailCode::Invalid, "spec.id: expected the id of the service"));
            }
        }
        service.start(self, spec).await
    }

    async fn remove(&self, id: &str) -> Result<(), Failure> {
        let service = self.service(id)?;
        service.remove(self).await?;
        self.services().remove(id);
        Ok(())
    }

    async fn request(&self, stream: Stream, id: &str, method: &str, params: &[u8], progress: bool, timeout_ms: u64) {
        let session = match self.service(id).and_then(|service| service.session()) {
            Ok(session) => session,
            Err(failure) => return end(stream, &Answer::Failed(failure)).await,
        };
        if method == "initialize" || method.starts_with("notifications/") {
            return end(stream, &Answer::Failed(failure(FailCode::Invalid, "that is not for the broker to send")))
                .await;
        }
        let timeout = if timeout_ms == 0 { USUAL_TIMEOUT } else { Duration::from_millis(timeout_ms) };
        let asked = Asked { progress: progress.then(|| stream.writer.clone()), stream: Some(stream.id()) };
        let mut stream = stream;
        let reply = tokio::select! {
            biased;
            reply = session.request(method, params, timeout, asked) => reply,
            // Dropping the request cancels it at the server.
            () = given_up(&mut stream) => return,
        };
        let sent = match &reply {
            Ok(Reply::Result(text)) if text.len() <= MAX_RESULT_BYTES => {
                stream.writer.head(&Answer::Result, text, true).await
            }
            Ok(Reply::Error(text)) if text.len() <= MAX_RESULT_BYTES => {
                stream.writer.head(&Answer::Error, text, true).await
            }
            Ok(_) => {
                let large = failure(FailCode::TooLarge, format!("the result is larger than {MAX_RESULT_BYTES} bytes"));
                stream.writer.head(&Answer::Failed(large), b"", true).await
            }
            Err(failure) => stream.writer.head(&Answer::Failed(failure.clone()), b"", true).await,
        };
        // A broker that no longer wants it has said so.
        let _ = sent;
    }

    /// Ends everything.
    async fn end(self: &Arc<Self>) {
        let mut ends = tokio::task::JoinSet::new();
        for service in self.all() {
            let host = self.clone();
            ends.spawn(async move { service.remove(&host).await });
        }
        while let Some(ended) = ends.join_next().await {
            if let Ok(Err(failure)) = ended {
                eprintln!("claudemesh-runner: {failure}");
            }
        }
    }
}

fn answer_of(done: Result<(), Failure>) -> Answer {
    done.map_or_else(Answer::Failed, |()| Answer::Done)
}

async fn end(stream: Stream, answer: &Answer) {
    let _ = stream.writer.head(answer, b"", true).await;
}

/// The whole body of a request whose beginning is there.
async fn rest_of(stream: &mut Stream, mut body: Vec<u8>, mut last: bool, most: usize) -> Result<Vec<u8>, Reset> {
    while !last {
        match stream.reader.next().await {
            Some(Inbound::Data { body: more, last: is_last }) => {
                body.extend_from_slice(&more);
                last = is_last;
            }
            Some(Inbound::Reset(reset)) => return Err(reset),
            Some(Inbound::Head { .. }) | None => {
                return Err(Reset { code: FailCode::Protocol, message: "expected more of a body".into() });
            }
        }
        if body.len() > most {
            return Err(Reset { code: FailCode::TooLarge, message: format!("expected at most {most} bytes") });
        }
    }
    Ok(body)
}

/// Waits until the broker has ended a stream of which it has sent everything.
async fn given_up(stream: &mut Stream) {
    while let Some(inbound) = stream.reader.next().await {
        if matches!(inbound, Inbound::Reset(_)) {
            return;
        }
    }
}

async fn logs(mut stream: Stream, service: &Service, lines: usize, follow: bool) {
    let mut count = service.log.follow();
    count.mark_unchanged();
    let mut now = service.log.last(lines);
    let mut seen = service.log.count();
    if stream.writer.head(&Answer::Logs, b"", false).await.is_err() {
        return;
    }
    loop {
        let mut text = Vec::new();
        for line in &now {
            seen = seen.max(line.n);
            serde_json::to_writer(&mut text, line).unwrap_or_default();
            text.push(b'\n');
            if text.len() >= LOG_BYTES && stream.writer.data(&std::mem::take(&mut text), false).await.is_err() {
                return;
            }
        }
        if stream.writer.data(&text, !follow).await.is_err() || !follow {
            return;
        }
        tokio::select! {
            changed = count.changed() => if changed.is_err() { return },
            () = given_up(&mut stream) => return,
        }
        now = service.log.after(seen);
    }
}
