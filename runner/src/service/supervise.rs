//! Keeps a service running: start, handshake, watch, restart with a pause that grows and a budget that comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::runner::limits::{MAX_RESULT_BYTES, MAX_TOOLS_BYTES};
use claudemesh_protocol::runner::{BrokerAnswer, Change, Event, FailCode, Failure, FromRunner, RunnerAsk, Status};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::session::{Asked, Heard, Reply, Session};
use super::{Service, failure, lock};
use crate::broker::Host;
use crate::install::Program;
use crate::log::{From, Log};
use crate::process::{self, Exit, Process};
use crate::stage::{CANNOT_START, Order, Rlimits};
use crate::stats;

/// The revisions of MCP that are known; the newest is asked for.
const REVISIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Pages of a list: one that never ends is no list.
const MAX_PAGES: usize = 100;
/// Pings in a row without answer after which a server counts as crashed.
const MAX_MISSED: u32 = 3;
const MAX_BACKOFF: Duration = Duration::from_secs(30);
const USUAL_RESTARTS: u32 = 5;
/// How long the rest of what a process wrote may take to be read.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Memory that a process has as address space and does not use: stacks of threads, reserves of allocators.
const RESERVE_BYTES: u64 = 268_435_456;

/// How a process came to its end.
struct End {
    exit: Exit,
    failure: Failure,
}

/// Runs a service until it is stopped, or fails for good. `first` learns how the first start went.
pub(super) async fn run(
    host: Arc<Host>,
    service: Arc<Service>,
    program: Program,
    mut stop: watch::Receiver<u64>,
    first: oneshot::Sender<Result<(), Failure>>,
) {
    let mut first = Some(first);
    let mut crashes: VecDeque<Instant> = VecDeque::new();
    loop {
        let end = tokio::select! {
            biased;
            _ = stop.changed() => return,
            end = run_once(&host, &service, &program, &mut first) => end,
        };
        {
            let mut state = lock(&service.state);
            state.session = None;
            state.pid = None;
            state.status = Status::Restarting;
        }
        process::kill_service(&service.mark(), service.user).await;
        service.log.add(From::Runner, &end.failure.message);
        if let Some(first) = first.take() {
            service.set_status(Status::Failed);
            let _ = first.send(Err(end.failure));
            return;
        }
        let now = Instant::now();
        crashes.push_back(now);
        while crashes.front().is_some_and(|crash| now.duration_since(*crash) > host.config.budget) {
            crashes.pop_front();
        }
        let most = service.spec().limits.restarts;
        let most = if most == 0 { USUAL_RESTARTS } else { most } as usize;
        let count = crashes.len();
        let pause = (count <= most)
            .then(|| host.config.backoff.saturating_mul(u32::try_from(count).unwrap_or(1)).min(MAX_BACKOFF));
        let restarts = {
            let mut state = lock(&service.state);
            state.status = if pause.is_some() { Status::Restarting } else { Status::Crashed };
            state.restarts
        };
        let crashed = Event::Crashed {
            exit: end.exit.code,
            signal: end.exit.signal,
            message: end.failure.message,
            restarts,
            retry_in_ms: pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
        };
        service.tell(&host, crashed, Vec::new()).await;
        let Some(pause) = pause else { return };
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(pause) => {}
        }
        lock(&service.state).restarts += 1;
    }
}

async fn run_once(
    host: &Arc<Host>,
    service: &Arc<Service>,
    program: &Program,
    first: &mut Option<oneshot::Sender<Result<(), Failure>>>,
) -> End {
    let ended = |failure| End { exit: Exit::default(), failure };
    let process = match launch(host, service, program).await {
        Ok(process) => process,
        Err(failure) => return ended(failure),
    };
    let Process { pid, stdin, stdout, stderr, mut exit } = process;
    lock(&service.state).pid = Some(pid);
    let (read, all_read) = oneshot::channel();
    tokio::spawn(follow_stderr(stderr, service.log.clone(), read));
    let (session, heard) = Session::start(stdin, stdout, service.log.clone());
    tokio::spawn(listen(host.clone(), Arc::downgrade(service), session.clone(), heard));
    let timeout = service.spec().start_timeout_ms;
    let timeout = Duration::from_millis(if timeout == 0 { 30_000 } else { timeout });
    let started = tokio::select! {
        exit = &mut exit => {
            let _ = tokio::time::timeout(LAST_WORDS, all_read).await;
            return early(exit.unwrap_or_default(), &service.log);
        }
        started = tokio::time::timeout(timeout, handshake(&session, service)) => started,
    };
    let body = match started {
        Ok(Ok(body)) => body,
        Ok(Err(failure)) if failure.code == FailCode::Restarting => {
            let exit = tokio::time::timeout(LAST_WORDS, exit).await.ok().and_then(Result::ok).unwrap_or_default();
            return early(exit, &service.log);
        }
        Ok(Err(failure)) => return ended(failure),
        Err(_) => {
            let message = format!(
                "the server did not answer `initialize` within {} s\n{}",
                timeout.as_secs_f32(),
                service.log.last_words()
            );
            return ended(failure(FailCode::HandshakeFailed, message.trim_end()));
        }
    };
    let restarts = {
        let mut state = lock(&service.state);
        state.status = Status::Running;
        state.session = Some(session.clone());
        state.running.clone_from(&body);
        state.restarts
    };
    service.tell(host, Event::Running { pid, restarts }, body).await;
    if let Some(first) = first.take() {
        let _ = first.send(Ok(()));
    }
    tokio::select! {
        exit = &mut exit => {
            let exit = exit.unwrap_or_default();
            let _ = tokio::time::timeout(LAST_WORDS, all_read).await;
            End { exit, failure: failure(FailCode::Restarting, with_last_words(&exit.text(), &service.log)) }
        }
        failure = watch_over(host, service, &session) => ended(failure),
    }
}

fn with_last_words(message: &str, log: &Log) -> String {
    format!("{message}\n{}", log.last_words()).trim_end().to_owned()
}

/// It ended before it was there.
fn early(exit: Exit, log: &Log) -> End {
    let code = if exit.code == Some(CANNOT_START) { FailCode::StartFailed } else { FailCode::HandshakeFailed };
    End { exit, failure: failure(code, with_last_words(&format!("{} before it answered", exit.text()), log)) }
}

async fn launch(host: &Host, service: &Service, program: &Program) -> Result<Process, Failure> {
    if !process::kill_service(&service.mark(), service.user).await {
        return Err(failure(FailCode::Internal, "some processes of the service cannot be ended"));
    }
    let env = service.prepare(host)?;
    let spec = service.spec();
    let mut args = program.args.clone();
    args.extend(spec.args);
    let limits = &spec.limits;
    let order = Order {
        program: program.program.clone(),
        args,
        env,
        dir: program.dir.clone(),
        rlimits: Rlimits {
            data_bytes: if limits.memory_bytes == 0 { 0 } else { limits.memory_bytes.saturating_add(RESERVE_BYTES) },
            // Counted for the user: without one of its own everything of ours would count.
            processes: if service.user.is_some() { u64::from(limits.processes) } else { 0 },
            open_files: if limits.open_files == 0 { 1_024 } else { u64::from(limits.open_files) },
            file_bytes: limits.disk_bytes,
        },
    };
    let started = process::start(&order, service.user).await;
    started.map_err(|error| failure(FailCode::StartFailed, format!("the process cannot be started: {error}")))
}

/// Reads lines of standard error into the log. A line that never ends is cut into pieces.
pub(crate) async fn follow_stderr(mut stderr: pipe::Receiver, log: Arc<Log>, read: oneshot::Sender<()>) {
    follow(&mut stderr, |line| drop(log.add(From::Stderr, line))).await;
    let _ = read.send(());
}

/// Gives each line of a pipe to `take`.
pub(crate) async fn follow(pipe: &mut pipe::Receiver, mut take: impl FnMut(&str)) {
    const MOST: usize = 65_536;
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let bytes = pipe.read_buf(&mut buffer).await.unwrap_or(0);
        let mut at = 0;
        while let Some(end) = memchr::memchr(b'\n', &buffer[at..]) {
            take(String::from_utf8_lossy(&buffer[at..at + end]).trim_end_matches('\r'));
            at += end + 1;
        }
        buffer.drain(..at);
        if !buffer.is_empty() && (bytes == 0 || buffer.len() >= MOST) {
            take(&String::from_utf8_lossy(&buffer));
            buffer.clear();
        }
        if bytes == 0 {
            return;
        }
    }
}

/// `initialize` and the list of tools. Gives the body of [`Event::Running`].
async fn handshake(session: &Session, service: &Service) -> Result<Vec<u8>, Failure> {
    let client = service.spec().client;
    let params = json!({
        "protocolVersion": client.revision.as_deref().unwrap_or(REVISIONS[0]),
        "capabilities": client.capabilities,
        "clientInfo": {"name": client.name, "version": client.version},
    });
    let no = |message: String| failure(FailCode::HandshakeFailed, message);
    let initialized = match ask(session, "initialize", params.to_string().as_bytes()).await? {
        Reply::Result(result) => result,
        Reply::Error(error) => return Err(no(format!("the server refuses `initialize`: {}", text(&error)))),
    };
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Initialized {
        protocol_version: String,
        #[serde(default)]
        capabilities: serde_json::Map<String, serde_json::Value>,
    }
    let read: Initialized = serde_json::from_slice(&initialized)
        .map_err(|error| no(format!("the answer to `initialize` is not what MCP says: {error}")))?;
    if !REVISIONS.contains(&read.protocol_version.as_str()) {
        return Err(no(format!("the server wants revision {} of MCP, which is not known", read.protocol_version)));
    }
    session.notify("notifications/initialized", b"");
    let tools = if read.capabilities.contains_key("tools") { tools(session).await? } else { b"[]".to_vec() };
    Ok([b"{\"initialize\":", &initialized[..], b",\"tools\":", &tools, b"}"].concat())
}

async fn ask(session: &Session, method: &str, params: &[u8]) -> Result<Reply, Failure> {
    // What asks has a deadline of its own around all of it.
    session.request(method, params, Duration::from_secs(600), Asked::default()).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(500)]).into_owned()
}

/// All pages of the list of tools, as an array.
async fn tools(session: &Session) -> Result<Vec<u8>, Failure> {
    #[derive(serde::Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        tools: Vec<&'a RawValue>,
        #[serde(default, rename = "nextCursor")]
        next: Option<String>,
    }
    let mut all = b"[".to_vec();
    let mut cursor: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let params = cursor.map_or_else(String::new, |cursor| json!({"cursor": cursor}).to_string());
        let page = match ask(session, "tools/list", params.as_bytes()).await? {
            Reply::Result(page) => page,
            Reply::Error(error) => {
                return Err(failure(
                    FailCode::HandshakeFailed,
                    format!("the server refuses `tools/list`: {}", text(&error)),
                ));
            }
        };
        let page: Page<'_> = serde_json::from_slice(&page).map_err(|error| {
            failure(FailCode::HandshakeFailed, format!("the list of tools is not what MCP says: {error}"))
        })?;
        for tool in page.tools {
            if all.len() > 1 {
                all.push(b',');
            }
            all.extend_from_slice(tool.get().as_bytes());
        }
        if all.len() > MAX_TOOLS_BYTES {
            return Err(failure(
                FailCode::TooLarge,
                format!("the tools of the server take more than {MAX_TOOLS_BYTES} bytes"),
            ));
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    all.push(b']');
    Ok(all)
}

/// Asks the server from time to time whether it is there, and looks at its folder. Ends with what is wrong.
async fn watch_over(host: &Host, service: &Service, session: &Session) -> Failure {
    let mut missed = 0;
    let most = service.spec().limits.disk_bytes;
    loop {
        tokio::time::sleep(host.config.ping).await;
        if most > 0 {
            let dir = service.dir.clone();
            let used = tokio::task::spawn_blocking(move || stats::folder_bytes(&dir)).await.unwrap_or(0);
            if used > most {
                return failure(FailCode::Limit, format!("its folder has {used} bytes, of {most} that it may have"));
            }
        }
        let before = session.heard();
        let answered = session.request("ping", b"", host.config.ping_timeout, Asked::default()).await;
        // Also an error is an answer, and a server that works on something else is there.
        missed = if answered.is_ok() || session.heard() > before { 0 } else { missed + 1 };
        if missed >= MAX_MISSED {
            return failure(FailCode::Timeout, "the server no longer answers `ping`");
        }
    }
}

/// Takes what the server says by itself, until it ends.
async fn listen(
    host: Arc<Host>,
    service: std::sync::Weak<Service>,
    session: Arc<Session>,
    mut heard: mpsc::Receiver<Heard>,
) {
    while let Some(said) = heard.recv().await {
        let Some(service) = service.upgrade() else { return };
        match said {
            Heard::Cancelled { id } => session.cancel(&id),
            Heard::Request { id, method, .. } if method == "ping" => {
                session.answer(&id, &Reply::Result(b"{}"[..].into())).await
            }
            Heard::Request { id, method, params } => {
                tokio::spawn(ask_broker(host.clone(), service.id.clone(), session.clone(), id, method, params));
            }
            Heard::Notification { method, params } => {
                let list = match method.as_str() {
                    "notifications/tools/list_changed" => Some(Change::Tools),
                    "notifications/resources/list_changed" => Some(Change::Resources),
                    "notifications/prompts/list_changed" => Some(Change::Prompts),
                    _ => None,
                };
                match list {
                    Some(Change::Tools) => drop(tokio::spawn(read_tools_again(host.clone(), service, session.clone()))),
                    Some(list) => service.tell(&host, Event::ListChanged { list }, Vec::new()).await,
                    None => {
                        host.link.message(&FromRunner::Notification { id: service.id.clone(), method }, params).await
                    }
                }
            }
        }
    }
}

async fn read_tools_again(host: Arc<Host>, service: Arc<Service>, session: Arc<Session>) {
    match tokio::time::timeout(Duration::from_secs(30), tools(&session)).await {
        Ok(Ok(tools)) => {
            let body = [b"{\"tools\":", &tools[..], b"}"].concat();
            {
                let mut state = lock(&service.state);
                // It is `{"initialize":…,"tools":[…]}`, and ours.
                let initialize = super::message::field(&state.running, "initialize");
                if let Some(initialize) = initialize {
                    state.running = [b"{\"initialize\":", initialize.as_bytes(), b",\"tools\":", &tools, b"}"].concat();
                }
            }
            service.tell(&host, Event::ListChanged { list: Change::Tools }, body).await;
        }
        Ok(Err(failure)) => drop(service.log.add(From::Runner, &failure.message)),
        Err(_) => {
            drop(service.log.add(From::Runner, "the server did not answer `tools/list` after its list had changed"))
        }
    }
}

fn error(code: i32, message: &str) -> Reply {
    Reply::Error(json!({"code": code, "message": message}).to_string().into())
}

/// Passes a request of the server on to the broker, and its answer back.
async fn ask_broker(
    host: Arc<Host>,
    service: String,
    session: Arc<Session>,
    id: String,
    method: String,
    params: Vec<u8>,
) {
    let Some(cancelled) = session.ask(&id) else {
        return session.answer(&id, &error(-32603, "too many requests to the client are open")).await;
    };
    let ask = RunnerAsk::Request { id: service, method, during: session.streams() };
    let Some(mut stream) = host.link.open(&ask, &params, true).await else {
        return session.answer(&id, &error(-32603, "no client can be asked now")).await;
    };
    let answer = tokio::select! {
        answer = stream.whole(MAX_RESULT_BYTES) => answer,
        // Dropping the stream resets it; who cancels wants no answer.
        _ = cancelled => return,
        () = session.ended() => return,
    };
    let reply = match answer {
        Ok((head, body)) => match serde_json::from_slice(&head) {
            Ok(BrokerAnswer::Result) => Reply::Result(body.into()),
            Ok(BrokerAnswer::Error) => Reply::Error(body.into()),
            Ok(BrokerAnswer::Failed(failure)) => error(-32603, &failure.message),
            _ => error(-32601, "the client does not know this method"),
        },
        Err(reset) => error(-32603, &reset.message),
    };
    session.answer(&id, &reply).await;
}
