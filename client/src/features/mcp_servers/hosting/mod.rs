//! The servers that this process runs for one mesh: registered at the broker each time it welcomes us, and called from there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{
    McpCallForward, McpCallResponse, McpPartForward, McpPartResponse, McpProgress, McpRegister, McpRegisterAck,
    McpUnregister, Raw, limits,
};
use rmcp::model::ProgressNotificationParam;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::results::Results;
pub use self::server::CallFailed;
use self::server::{Hosted, Live};
use super::asked::AskedCalls;
use super::kept::HostedServer;
use crate::connection::{Connection, ConnectionError, State};

mod child;
mod http;
mod results;
mod sdk;
mod server;

/// Time between two notices of the progress of one call.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How long the first start and the registration may take, as seen by who waits for them.
const ADD_PATIENCE: Duration = Duration::from_secs(90);

/// Why a server is not run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It does not start.
    #[error("the MCP server does not run: {0}")]
    Start(String),
    /// The broker does not take it.
    #[error(transparent)]
    Register(ConnectionError),
    /// This process runs one of that name for the mesh.
    #[error("this session runs an MCP server called {0} for the mesh already")]
    Known(String),
    /// Neither came in time.
    #[error("the MCP server was not registered in time")]
    Late,
}

/// What came of the last registration of a server.
pub type Registered = watch::Receiver<Option<Result<McpRegisterAck, ConnectionError>>>;

/// A server with what came of its registration.
struct Entry {
    hosted: Arc<Hosted>,
    registered: Registered,
}

#[derive(Default)]
struct Inner {
    servers: Mutex<HashMap<String, Entry>>,
    /// Calls under way, by the broker's id.
    running: Mutex<HashMap<String, CancellationToken>>,
    results: Mutex<Results>,
    connection: watch::Sender<Option<Connection>>,
    asked: AskedCalls,
}

/// The servers that this process runs for one mesh. A cheap handle.
#[derive(Clone, Default)]
pub struct Hosting(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section is one operation, so what is poisoned is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hosting {
    /// Registers over this connection from now on.
    pub fn use_connection(&self, connection: Connection) {
        self.0.connection.send_replace(Some(connection));
    }

    /// What the session offers without a program behind it.
    pub fn asked(&self) -> &AskedCalls {
        &self.0.asked
    }

    /// Whether a server of this name is run here.
    pub fn runs(&self, name: &str) -> bool {
        lock(&self.0.servers).contains_key(name)
    }

    /// Names of the servers that are run here.
    pub fn names(&self) -> Vec<String> {
        lock(&self.0.servers).keys().cloned().collect()
    }

    /// What comes of the registrations of a server.
    pub fn registered(&self, name: &str) -> Option<Registered> {
        lock(&self.0.servers).get(name).map(|entry| entry.registered.clone())
    }

    /// Runs a server from now on; `false` when one of that name is run already.
    pub fn start(&self, spec: HostedServer) -> bool {
        let mut servers = lock(&self.0.servers);
        if servers.contains_key(&spec.name) {
            return false;
        }
        let name = spec.name.clone();
        let hosted = Hosted::start(spec);
        let (told, registered) = watch::channel(None);
        tokio::spawn(announce(Arc::clone(&hosted), self.0.connection.subscribe(), told));
        servers.insert(name, Entry { hosted, registered });
        true
    }

    /// As [`Hosting::start`]; returns once it is registered. One that does not run or is not taken is stopped.
    ///
    /// # Errors
    /// [`HostError`]
    pub async fn add(&self, spec: HostedServer) -> Result<McpRegisterAck, HostError> {
        let name = spec.name.clone();
        if !self.start(spec) {
            return Err(HostError::Known(name));
        }
        let added = self.added(&name).await;
        if added.is_err() {
            self.stop(&name).await;
        }
        added
    }

    async fn added(&self, name: &str) -> Result<McpRegisterAck, HostError> {
        let (mut registered, mut live) = {
            let servers = lock(&self.0.servers);
            let entry = servers.get(name).ok_or(HostError::Late)?;
            (entry.registered.clone(), entry.hosted.live.subscribe())
        };
        let waiting = async {
            tokio::select! {
                told = registered.wait_for(Option::is_some) => match told.ok().and_then(|told| told.clone()) {
                    Some(Ok(ack)) => Ok(ack),
                    Some(Err(error)) => Err(HostError::Register(error)),
                    None => Err(HostError::Late),
                },
                down = live.wait_for(|live| matches!(live, Live::Down(_))) => match down.as_deref() {
                    Ok(Live::Down(why)) => Err(HostError::Start(why.clone())),
                    _ => Err(HostError::Late),
                },
            }
        };
        tokio::time::timeout(ADD_PATIENCE, waiting).await.unwrap_or(Err(HostError::Late))
    }

    /// Stops a server, which the mesh then takes for one whose host is away. `false` when none of that name is run here.
    pub async fn stop(&self, name: &str) -> bool {
        let entry = lock(&self.0.servers).remove(name);
        match entry {
            Some(entry) => {
                entry.hosted.stopped().await;
                true
            }
            None => false,
        }
    }

    /// Stops all servers: this process ends.
    pub async fn close(&self) {
        let servers: Vec<Entry> = lock(&self.0.servers).drain().map(|(_, entry)| entry).collect();
        futures_util::future::join_all(servers.iter().map(|entry| entry.hosted.stopped())).await;
    }

    /// A call has come. Gives it back when no server of that name is run here.
    pub fn forwarded(&self, connection: &Connection, forward: McpCallForward) -> Option<McpCallForward> {
        let hosted = match lock(&self.0.servers).get(&forward.server_name) {
            Some(entry) => Arc::clone(&entry.hosted),
            None => return Some(forward),
        };
        let (inner, connection, unwanted) = (Arc::clone(&self.0), connection.clone(), CancellationToken::new());
        lock(&inner.running).insert(forward.call_id.clone(), unwanted.clone());
        tokio::spawn(async move {
            let ended = carry_out(&hosted, &connection, &forward, &unwanted).await;
            lock(&inner.running).remove(&forward.call_id);
            // No one waits for it any more.
            if !unwanted.is_cancelled() {
                let (id, may_be_read) = (forward.call_id.clone(), forward.parts);
                let response = response(&inner, forward.call_id, may_be_read, ended);
                if let Err(error) = respond(&connection, response).await {
                    lock(&inner.results).forget(&id);
                    tracing::warn!(%error, "the answer to a call of an MCP server was not sent");
                }
            }
        });
        None
    }

    /// No one waits for a call any more.
    pub fn cancelled(&self, call_id: &str) {
        if let Some(unwanted) = lock(&self.0.running).remove(call_id) {
            unwanted.cancel();
        }
        lock(&self.0.results).forget(call_id);
        self.0.asked.forget(call_id);
    }

    /// A part of a large result is wanted.
    pub fn part(&self, connection: &Connection, wanted: McpPartForward) {
        let data = lock(&self.0.results).part(&wanted.call_id, wanted.part);
        let error = data.is_none().then(|| "the result is not held any more".to_owned());
        let response =
            McpPartResponse { call_id: wanted.call_id, part: wanted.part, data: data.unwrap_or_default(), error };
        let connection = connection.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.write(response).await {
                tracing::debug!(%error, "a part of a result was not sent");
            }
        });
    }

    /// The connection was lost: what was asked over it has ended.
    pub fn away(&self) {
        for (_, unwanted) in lock(&self.0.running).drain() {
            unwanted.cancel();
        }
        lock(&self.0.results).clear();
        self.0.asked.away();
    }
}

/// Sends the answer to a call.
///
/// # Errors
/// Of the transport. A call that no one waits for any more is no error.
pub(super) async fn respond(connection: &Connection, response: McpCallResponse) -> Result<(), ConnectionError> {
    match connection.write(response).await {
        Ok(None | Some(Nothing {})) => Ok(()),
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a server from the list of the mesh.
///
/// # Errors
/// What the broker says, or of the transport.
pub(super) async fn unregister(connection: &Connection, name: &str) -> Result<(), ConnectionError> {
    connection.write(McpUnregister { server_name: name.to_owned() }).await.map(drop)
}

async fn carry_out(
    hosted: &Hosted,
    connection: &Connection,
    forward: &McpCallForward,
    unwanted: &CancellationToken,
) -> Result<Raw, CallFailed> {
    let timeout = Duration::from_millis(forward.timeout_ms.unwrap_or(limits::USUAL_TIMEOUT_MS));
    let mut told_at: Option<Instant> = None;
    let told = |notice: ProgressNotificationParam| {
        if !forward.progress || told_at.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        told_at = Some(Instant::now());
        let notice = McpProgress {
            call_id: forward.call_id.clone(),
            progress: notice.progress,
            total: notice.total,
            message: notice.message,
        };
        // One that does not fit is made up for by the next.
        let _ = connection.tell(notice);
    };
    hosted.call(&forward.tool_name, &forward.args, timeout, unwanted, told).await
}

/// The answer for the broker: the result in one frame, or held here and read in parts.
fn response(inner: &Inner, call_id: String, may_be_read: bool, ended: Result<Raw, CallFailed>) -> McpCallResponse {
    let failed = |call_id: String, failed: CallFailed| McpCallResponse {
        call_id,
        error: Some(failed.message),
        code: Some(failed.code.as_str().to_owned()),
        rpc_error: failed.rpc_error.filter(|raw| raw.as_str().len() <= limits::MAX_WHOLE_BYTES),
        ..McpCallResponse::default()
    };
    let result = match ended {
        Ok(result) => result,
        Err(error) => return failed(call_id, error),
    };
    let bytes = result.as_str().len();
    let whole = if may_be_read { limits::MAX_WHOLE_BYTES } else { limits::MAX_UNDIVIDED_BYTES };
    if bytes <= whole {
        return McpCallResponse { call_id, result: Some(result), ..McpCallResponse::default() };
    }
    if !may_be_read {
        let message = format!("the result has {bytes} bytes, and this caller can be given {whole}");
        return failed(call_id, CallFailed::new(ErrorCode::PayloadTooLarge, message));
    }
    match lock(&inner.results).hold(call_id.clone(), result) {
        Some(parts) => {
            let bytes = Some(bytes as u64);
            McpCallResponse { call_id, parts: Some(parts), bytes, ..McpCallResponse::default() }
        }
        None => failed(call_id, CallFailed::new(ErrorCode::Busy, "too many large results wait to be read")),
    }
}

/// Registers a server each time it has other tools, and each time the broker welcomes us.
async fn announce(
    hosted: Arc<Hosted>,
    mut connections: watch::Receiver<Option<Connection>>,
    told: watch::Sender<Option<Result<McpRegisterAck, ConnectionError>>>,
) {
    let mut offers = hosted.offer.subscribe();
    loop {
        let connection = connections.borrow_and_update().clone();
        let offer = offers.borrow_and_update().clone();
        let mut state = connection.as_ref().map(Connection::watch);
        let ready = state.as_mut().is_some_and(|state| matches!(*state.borrow_and_update(), State::Ready(_)));
        if let (true, Some(connection), Some(offer)) = (ready, &connection, offer) {
            let register = McpRegister {
                server_name: hosted.spec.name.clone(),
                description: offer.description.clone(),
                tools: offer.tools.clone(),
                persistent: hosted.spec.persistent,
            };
            let done = tokio::select! {
                () = hosted.stop.cancelled() => return,
                done = connection.request(register) => done,
            };
            if let Err(error) = &done {
                tracing::warn!(server = hosted.spec.name, %error, "an MCP server is not registered");
            }
            let about_us = matches!(&done, Ok(_) | Err(ConnectionError::Refused(_)));
            if about_us {
                told.send_replace(Some(done));
            }
        }
        let changed = async {
            match &mut state {
                Some(state) => state.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = hosted.stop.cancelled() => return,
            changed = connections.changed() => if changed.is_err() { return },
            changed = offers.changed() => if changed.is_err() { return },
            // It is closed for good; another one may follow.
            open = changed => if !open && connections.changed().await.is_err() { return },
        }
    }
}
