//! One server that we run: started, asked for its tools, followed when they change, started again when it ends.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{Raw, ToolDef, limits};
use rmcp::model::{
    CallToolRequestParams, ClientRequest, JsonObject, PaginatedRequestParams, ProgressNotificationParam, Request,
    RequestOptionalParam,
};
use rmcp::service::{Peer, PeerRequestOptions, RequestHandle, RoleClient, ServiceError};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::child::{ChildServer, LastWords};
use super::http::{Address, HttpServer};
use super::sdk::{Answer, Answers, Listener};
use crate::features::mcp_servers::kept::{HostedServer, Reach};
use crate::output::clean_lines;

/// How long a server may take to start and to answer the handshake: a package may have to be fetched first.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long the list of tools may take.
const LIST_PATIENCE: Duration = Duration::from_secs(30);
/// Pages of the list of tools.
const MAX_PAGES: usize = 64;
/// Time before a server that ended is started again, at first and at most; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that ran so long may be started again at once.
const STABLE: Duration = Duration::from_secs(60);
/// How long a call waits for a server that is being started again.
const CALL_PATIENCE: Duration = Duration::from_secs(5);

/// What a server offers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Offer {
    pub(super) description: String,
    pub(super) tools: Vec<ToolDef>,
}

/// How a server is.
#[derive(Clone)]
pub(super) enum Live {
    Starting,
    Up(Arc<Up>),
    /// Why it ended, or does not start.
    Down(String),
}

/// A server that answers.
pub(super) struct Up {
    peer: Peer<RoleClient>,
    listener: Listener,
    answers: Answers,
}

/// Why a call has no result.
#[derive(Clone, Debug)]
pub struct CallFailed {
    /// A stable code.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The server's own error object.
    pub rpc_error: Option<Raw>,
}

impl CallFailed {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), rpc_error: None }
    }
}

/// A server that we run.
pub(super) struct Hosted {
    pub(super) spec: HostedServer,
    pub(super) live: watch::Sender<Live>,
    /// What it offered last.
    pub(super) offer: watch::Sender<Option<Arc<Offer>>>,
    pub(super) stop: CancellationToken,
    ended: watch::Sender<bool>,
}

impl Hosted {
    /// Starts it and keeps it running until it is stopped.
    pub(super) fn start(spec: HostedServer) -> Arc<Self> {
        let hosted = Arc::new(Self {
            spec,
            live: watch::Sender::new(Live::Starting),
            offer: watch::Sender::new(None),
            stop: CancellationToken::new(),
            ended: watch::Sender::new(false),
        });
        let running = Arc::clone(&hosted);
        tokio::spawn(async move {
            running.supervise().await;
            running.live.send_replace(Live::Down("it was stopped".into()));
            running.ended.send_replace(true);
        });
        hosted
    }

    /// Stops it, and returns when its process has ended.
    pub(super) async fn stopped(&self) {
        self.stop.cancel();
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    async fn supervise(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            // It ends by itself when it is stopped, with the process of the server.
            let why = self.run().await;
            if self.stop.is_cancelled() {
                return;
            }
            tracing::warn!(server = self.spec.name, why, "an MCP server has ended and is started again");
            self.live.send_replace(Live::Down(why));
            if began.elapsed() >= STABLE {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Runs it once, until it ends; says why.
    async fn run(&self) -> String {
        let (answers, listener, last_words) = (Answers::default(), Listener::new(), LastWords::default());
        let serving = async {
            match &self.spec.reach {
                Reach::Stdio { command, args, env, cwd } => {
                    let child = ChildServer::start(
                        command,
                        args,
                        env.clone(),
                        cwd.as_deref(),
                        answers.clone(),
                        last_words.clone(),
                    );
                    let child = child.map_err(|error| format!("{} does not start: {error}", clean_lines(command)))?;
                    rmcp::service::serve_client(listener.clone(), child).await.map_err(|error| error.to_string())
                }
                Reach::Http { url, headers } => {
                    let headers = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                    let server = HttpServer::new(Address { url: url.clone(), headers }, answers.clone());
                    rmcp::service::serve_client(listener.clone(), server).await.map_err(|error| error.to_string())
                }
            }
        };
        let served = tokio::select! {
            // What was started so far ends with the future.
            () = self.stop.cancelled() => return String::new(),
            served = tokio::time::timeout(START_PATIENCE, serving) => served,
        };
        let service = match served {
            Ok(Ok(service)) => service,
            Ok(Err(error)) => return self.why(error, &last_words).await,
            Err(_) => return self.why("it does not answer the handshake".into(), &last_words).await,
        };
        let up = Arc::new(Up { peer: service.peer().clone(), listener: listener.clone(), answers });
        let mut changes = listener.tools_changed.subscribe();
        let quit = service.cancellation_token();
        let mut ending = tokio::spawn(service.waiting());
        let ended = loop {
            changes.borrow_and_update();
            let listing = self.read_offer(&up);
            let listed = tokio::select! {
                listed = listing => listed,
                _ = &mut ending => break "it ended".to_owned(),
                () = self.stop.cancelled() => break String::new(),
            };
            match listed {
                Ok(offer) => {
                    self.offer.send_if_modified(|before| {
                        let changed = before.as_deref() != Some(&offer);
                        if changed {
                            *before = Some(Arc::new(offer));
                        }
                        changed
                    });
                    self.live.send_if_modified(|live| {
                        let changed = !matches!(live, Live::Up(_));
                        if changed {
                            *live = Live::Up(Arc::clone(&up));
                        }
                        changed
                    });
                }
                // Of a server that was asked before, the tools of before go on.
                Err(error) if matches!(*self.live.borrow(), Live::Up(_)) => {
                    tracing::warn!(
                        server = self.spec.name,
                        error,
                        "the tools of an MCP server could not be read again"
                    );
                }
                Err(error) => {
                    quit.cancel();
                    let _ = ending.await;
                    return self.why(error, &last_words).await;
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break "it ended".to_owned() },
                _ = &mut ending => break "it ended".to_owned(),
                () = self.stop.cancelled() => break String::new(),
            }
        };
        if !ending.is_finished() {
            quit.cancel();
            let _ = ending.await;
        }
        self.why(ended, &last_words).await
    }

    /// Why it ended, with what it wrote last.
    async fn why(&self, what: String, last_words: &LastWords) -> String {
        if self.stop.is_cancelled() || matches!(self.spec.reach, Reach::Http { .. }) {
            return what;
        }
        let words = last_words.text().await;
        let words = clean_lines(words.trim());
        if words.is_empty() { what } else { format!("{what}; it wrote: {words}") }
    }

    async fn read_offer(&self, up: &Up) -> Result<Offer, String> {
        let tools = tokio::time::timeout(LIST_PATIENCE, up.tools());
        let tools = tools.await.unwrap_or_else(|_| Err("it does not answer `tools/list`".into()))?;
        let said = || {
            let info = up.peer.peer_info()?;
            let server = info.server_info.as_ref()?;
            Some(server.title.clone().unwrap_or_else(|| server.name.clone()))
        };
        let description = self.spec.description.clone().or_else(said).unwrap_or_default();
        Ok(Offer { description: cut(&description), tools })
    }

    async fn up(&self, patience: Duration) -> Result<Arc<Up>, CallFailed> {
        let mut live = self.live.subscribe();
        let waited = tokio::time::timeout(patience, live.wait_for(|live| matches!(live, Live::Up(_)))).await;
        match waited.ok().and_then(Result::ok).as_deref() {
            Some(Live::Up(up)) => Ok(Arc::clone(up)),
            _ => {
                let message = "the MCP server has ended and is being started again";
                Err(CallFailed::new(ErrorCode::Unavailable, message))
            }
        }
    }

    /// Calls a tool; `told` hears of its progress, and `unwanted` gives it up.
    pub(super) async fn call(
        &self,
        tool: &str,
        args: &Raw,
        timeout: Duration,
        unwanted: &CancellationToken,
        told: impl FnMut(ProgressNotificationParam),
    ) -> Result<Raw, CallFailed> {
        let up = self.up(timeout.min(CALL_PATIENCE)).await?;
        up.call(tool, args, timeout, unwanted, told).await
    }
}

/// How waiting for an answer ended.
enum Ended {
    Answered,
    Lost(String),
    TimedOut,
    Unwanted,
}

impl Up {
    async fn send(&self, request: ClientRequest) -> Result<RequestHandle<RoleClient>, ServiceError> {
        self.peer.send_request_with_option(request, PeerRequestOptions::no_options()).await
    }

    async fn tools(&self) -> Result<Vec<ToolDef>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            tools: Vec<ToolDef>,
            #[serde(default)]
            next_cursor: Option<String>,
        }
        let (mut all, mut cursor) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor);
            let request = ClientRequest::ListToolsRequest(RequestOptionalParam::with_param(params));
            let handle = self.send(request).await.map_err(|error| error.to_string())?;
            let id = handle.id.clone();
            let answered = handle.rx.await;
            match (self.answers.take(&id), answered) {
                (Some(Answer::Result(raw)), _) => {
                    let page: Page = serde_json::from_str(raw.as_str())
                        .map_err(|error| format!("its list of tools cannot be read: {error}"))?;
                    all.extend(page.tools);
                    cursor = page.next_cursor;
                }
                (Some(Answer::Error(raw)), _) => return Err(format!("it has no list of tools: {}", said_in(&raw))),
                (Some(Answer::TooLarge(bytes)), _) => return Err(format!("its list of tools has {bytes} bytes")),
                (None, _) => return Err("it ended".into()),
            }
            if cursor.is_none() {
                break;
            }
        }
        Ok(all)
    }

    async fn call(
        &self,
        tool: &str,
        args: &Raw,
        timeout: Duration,
        unwanted: &CancellationToken,
        mut told: impl FnMut(ProgressNotificationParam),
    ) -> Result<Raw, CallFailed> {
        let arguments: JsonObject = serde_json::from_str(args.as_str()).map_err(|error| {
            CallFailed::new(ErrorCode::InvalidArgs, format!("the arguments are no object: {error}"))
        })?;
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let request = ClientRequest::CallToolRequest(Request::new(params));
        let lost = |error: String| CallFailed::new(ErrorCode::Unavailable, format!("the MCP server was lost: {error}"));
        let mut handle = self.send(request).await.map_err(|error| lost(error.to_string()))?;
        let (id, token) = (handle.id.clone(), handle.progress_token.clone());
        let mut progress = self.listener.follow(token.clone());
        let mut time = std::pin::pin!(tokio::time::sleep(timeout));
        let ended = loop {
            tokio::select! {
                biased;
                Some(notice) = progress.recv() => told(notice),
                answered = &mut handle.rx => break match answered {
                    Ok(Ok(_) | Err(ServiceError::McpError(_))) => Ended::Answered,
                    Ok(Err(error)) => Ended::Lost(error.to_string()),
                    Err(_) => Ended::Lost("it ended".into()),
                },
                () = unwanted.cancelled() => break Ended::Unwanted,
                () = &mut time => break Ended::TimedOut,
            }
        };
        self.listener.forget(&token);
        let answer = self.answers.take(&id);
        match (ended, answer) {
            (Ended::Unwanted, _) => {
                // It may not listen.
                let _ = handle.cancel(Some("its caller gave up".into())).await;
                Err(CallFailed::new(ErrorCode::Cancelled, "the caller gave up"))
            }
            (Ended::TimedOut, _) => {
                let _ = handle.cancel(Some("it took too long".into())).await;
                Err(CallFailed::new(ErrorCode::Timeout, format!("the tool took more than {} ms", timeout.as_millis())))
            }
            (_, Some(Answer::Result(raw))) if raw.as_str().len() <= limits::MAX_RESULT_BYTES => Ok(raw),
            (_, Some(Answer::Result(raw))) => Err(too_large(raw.as_str().len())),
            (_, Some(Answer::TooLarge(bytes))) => Err(too_large(bytes)),
            (_, Some(Answer::Error(raw))) => Err(CallFailed {
                rpc_error: Some(raw.clone()),
                ..CallFailed::new(ErrorCode::ToolFailed, said_in(&raw))
            }),
            (Ended::Lost(error), None) => Err(lost(error)),
            (Ended::Answered, None) => Err(lost("its answer cannot be read".into())),
        }
    }
}

fn too_large(bytes: usize) -> CallFailed {
    let message = format!("the result has {bytes} bytes; at most {} are passed on", limits::MAX_RESULT_BYTES);
    CallFailed::new(ErrorCode::PayloadTooLarge, message)
}

/// What an error object says.
fn said_in(raw: &Raw) -> String {
    match &raw.value()["message"] {
        Value::String(text) => text.clone(),
        _ => "the MCP server answered with an error".into(),
    }
}

/// As much of a description as is registered.
fn cut(text: &str) -> String {
    let text = clean_lines(text);
    let mut end = text.len().min(limits::MAX_DESCRIPTION_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
