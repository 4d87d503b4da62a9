//! Calls on their way: forwarded to the host of a server, answered by it, or ended by time, by the caller or by the end of either.
//!
//! The broker keeps no argument and no result. A result that does not fit into a frame stays with its host; the caller reads it in
//! parts, each of which is asked for, so that no one is sent more than it takes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{
    McpCall, McpCallCancel, McpCallForward, McpCallProgress, McpCallResponse, McpCallResult, McpCancel, McpPart,
    McpPartData, McpPartForward, McpPartResponse, McpProgress, Raw, limits as wire,
};
use claudemesh_protocol::limits::MAX_ID_CHARS;
use claudemesh_protocol::time::iso;
use serde_json::json;

use super::hosted::{self, Held};
use super::metrics::METRICS;
use super::{McpRegistry, Server, limits, missing, shown};
use crate::mesh::context::MeshContext;
use crate::mesh::outcome::{Outcome, ReplyTo};
use crate::mesh::peers::PeerHandle;
use crate::refusal::Refusal;

/// The one timer: the earliest deadline.
const DEADLINE: &str = "deadline";

/// A connection: a peer with its socket of that time. What was asked over one socket is not answered over the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    peer: PeerHandle,
    socket_no: u64,
}

impl Line {
    pub(super) fn peer(self) -> PeerHandle {
        self.peer
    }
}

/// Who carries a call out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A session, over this connection.
    Session {
        line: Line,
        /// It knows no events but the forward.
        older: bool,
    },
    /// The host of services.
    Service,
}

/// What a call is counted for while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Load {
    /// A session that runs servers.
    Host(PeerHandle),
    /// A service.
    Service(String),
    /// A connection that calls a service.
    Caller(PeerHandle, String),
}

/// A call that was forwarded.
pub(super) struct Call {
    pub(super) server: String,
    pub(super) carrier: Carrier,
    /// The connection that asked; a member without one has none.
    pub(super) caller: Option<Line>,
    /// The caller's own name for it.
    pub(super) name: Option<String>,
    pub(super) wants_progress: bool,
    pub(super) may_read_parts: bool,
    pub(super) timeout_ms: i64,
    pub(super) deadline_mono_ms: i64,
    pub(super) stage: Stage,
}

impl Call {
    /// The session that carries it out.
    fn host(&self) -> Option<Line> {
        match self.carrier {
            Carrier::Session { line, .. } => Some(line),
            Carrier::Service => None,
        }
    }

    pub(super) fn loads(&self) -> Vec<Load> {
        match self.carrier {
            Carrier::Session { line, .. } => vec![Load::Host(line.peer)],
            Carrier::Service => {
                let caller = self.caller.map(|caller| Load::Caller(caller.peer, self.server.clone()));
                [Load::Service(self.server.clone())].into_iter().chain(caller).collect()
            }
        }
    }
}

pub(super) enum Stage {
    /// The host works on it.
    Asked(ReplyTo),
    /// The result is there, and the caller reads it.
    Reading {
        parts: u32,
        /// Those that were asked for.
        asked: BTreeSet<u32>,
        /// Who waits for which.
        waiting: BTreeMap<u32, ReplyTo>,
        read: u32,
    },
    /// The result of a service is here, and the caller reads it.
    Held(Held),
}

/// The calls of one mesh.
#[derive(Default)]
pub(super) struct Running {
    /// By the broker's name.
    pub(super) calls: HashMap<String, Call>,
    /// By the caller's.
    named: HashMap<(PeerHandle, String), String>,
    loads: HashMap<Load, usize>,
    /// Bytes of results that callers read here.
    pub(super) held_bytes: usize,
    deadlines: BTreeSet<(i64, String)>,
}

impl Running {
    pub(super) fn add(&mut self, cx: &mut MeshContext<'_>, id: String, call: Call) {
        for load in call.loads() {
            *self.loads.entry(load).or_default() += 1;
        }
        if let (Some(caller), Some(name)) = (call.caller, &call.name) {
            self.named.insert((caller.peer, name.clone()), id.clone());
        }
        self.deadlines.insert((call.deadline_mono_ms, id.clone()));
        self.calls.insert(id, call);
        self.arm(cx);
    }

    /// How many calls are counted for something.
    pub(super) fn load(&self, of: &Load) -> usize {
        self.loads.get(of).copied().unwrap_or(0)
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Call> {
        let call = self.calls.remove(id)?;
        self.deadlines.remove(&(call.deadline_mono_ms, id.to_owned()));
        if let (Some(caller), Some(name)) = (call.caller, &call.name) {
            self.named.remove(&(caller.peer, name.clone()));
        }
        for load in call.loads() {
            if let Some(count) = self.loads.get_mut(&load) {
                *count -= 1;
                if *count == 0 {
                    self.loads.remove(&load);
                }
            }
        }
        if let Stage::Held(held) = &call.stage {
            self.held_bytes -= held.bytes();
        }
        Some(call)
    }

    pub(super) fn postpone(&mut self, cx: &mut MeshContext<'_>, id: &str, deadline_mono_ms: i64) {
        if let Some(call) = self.calls.get_mut(id) {
            self.deadlines.remove(&(call.deadline_mono_ms, id.to_owned()));
            call.deadline_mono_ms = deadline_mono_ms;
            self.deadlines.insert((deadline_mono_ms, id.to_owned()));
            self.arm(cx);
        }
    }

    fn arm(&self, cx: &mut MeshContext<'_>) {
        if let Some((deadline, _)) = self.deadlines.first() {
            cx.wake_at(DEADLINE, *deadline);
        }
    }

    /// Ends what has taken too long.
    pub(super) fn expire(&mut self, cx: &mut MeshContext<'_>) {
        let now = cx.mono_ms();
        while let Some((_, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now).cloned() {
            let Some(call) = self.remove(&id) else { break };
            let message = match call.stage {
                Stage::Asked(_) => {
                    format!("MCP call to \"{}\" timed out after {} ms", call.server, call.timeout_ms)
                }
                Stage::Reading { .. } | Stage::Held(_) => "the next part of the result took too long".to_owned(),
            };
            tell_host(cx, &id, &call, "it took too long");
            end(cx, call, ErrorCode::Timeout, message);
        }
        self.arm(cx);
    }

    /// A connection is gone: its calls end, and so do those that it was asked to carry out.
    pub(super) fn peer_gone(&mut self, cx: &mut MeshContext<'_>, peer: PeerHandle) {
        if self.calls.is_empty() {
            return;
        }
        let is_host = |call: &Call| call.host().is_some_and(|host| host.peer == peer);
        let of_peer = |call: &Call| is_host(call) || call.caller.is_some_and(|caller| caller.peer == peer);
        let mut ids: Vec<String> =
            self.calls.iter().filter(|(_, call)| of_peer(call)).map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        for id in ids {
            let Some(call) = self.remove(&id) else { continue };
            if is_host(&call) {
                let message =
                    format!("the session that runs the MCP server \"{}\" went away during the call", call.server);
                end(cx, call, ErrorCode::HostGone, message);
            } else {
                tell_host(cx, &id, &call, "its caller is gone");
                METRICS.calls.with_label_values(&["caller_gone"]).inc();
            }
        }
        self.arm(cx);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let carriers = self.loads.iter().filter(|(load, _)| !matches!(load, Load::Caller(..)));
        let carried = carriers.map(|(_, count)| count).sum::<usize>();
        assert_eq!((self.deadlines.len(), carried), (self.calls.len(), self.calls.len()));
        self.calls.len()
    }

    /// The call of the asking connection under its own name.
    fn own(&self, cx: &MeshContext<'_>, name: &str) -> Result<Option<String>, Refusal> {
        let peer = cx.peer()?;
        Ok(self.named.get(&(peer.handle, name.to_owned())).cloned())
    }

    /// The call, if the asking connection is the one that was asked to carry it out.
    fn of_host(&mut self, cx: &MeshContext<'_>, id: &str) -> Result<Option<&mut Call>, Refusal> {
        let line = line(cx)?;
        Ok(self.calls.get_mut(id).filter(|call| call.host() == Some(line)))
    }
}

/// The asking connection.
fn line(cx: &MeshContext<'_>) -> Result<Line, Refusal> {
    let peer = cx.peer()?;
    Ok(Line { peer: peer.handle, socket_no: peer.socket_no })
}

/// Tells the host that no one waits for a call any more.
fn tell_host(cx: &MeshContext<'_>, id: &str, call: &Call, reason: &str) {
    match call.carrier {
        Carrier::Session { line, older } => {
            let same = cx.roster().get(line.peer).is_some_and(|peer| peer.socket_no == line.socket_no);
            if same && !older {
                cx.push(line.peer, &McpCallCancel { call_id: id.to_owned(), reason: Some(reason.to_owned()) }.into());
            }
        }
        Carrier::Service => hosted::cancel(cx, id, call, reason),
    }
}

/// Ends a call that was removed without a result.
pub(super) fn end(cx: &mut MeshContext<'_>, call: Call, code: ErrorCode, message: String) {
    METRICS.calls.with_label_values(&[code.as_str()]).inc();
    match call.stage {
        Stage::Asked(to) => cx.reply(&to, &failed(code, message).into()),
        Stage::Reading { waiting, .. } => {
            for to in waiting.into_values() {
                cx.refuse(&to, Refusal::new(code, message.clone()));
            }
        }
        // Its parts are answered at once: no one waits.
        Stage::Held(_) => {}
    }
}

pub(super) fn failed(code: ErrorCode, message: impl Into<String>) -> McpCallResult {
    McpCallResult { error: Some(message.into()), code: Some(code.as_str().to_owned()), ..McpCallResult::default() }
}

/// What is wrong with a call stands in its answer: older clients read nothing else of it.
pub(super) fn call(
    memory: &mut McpRegistry,
    cx: &mut MeshContext<'_>,
    request: McpCall,
) -> Result<Outcome<McpCallResult>, Refusal> {
    match forward(memory, cx, request) {
        Ok(()) => Ok(Outcome::Silent),
        Err(refusal) => {
            METRICS.calls.with_label_values(&[refusal.code.as_str()]).inc();
            Ok(Outcome::Answer(McpCallResult {
                retry_after_ms: refusal.retry_after_ms,
                ..failed(refusal.code, refusal.message)
            }))
        }
    }
}

fn check(call: &McpCall) -> Result<(), Refusal> {
    let invalid = |message: &str| Refusal::new(ErrorCode::InvalidArgs, message);
    if let Some(args) = &call.args {
        if !args.is_object() {
            return Err(invalid("`args`: expected an object"));
        }
        if args.as_str().len() > wire::MAX_ARGS_BYTES {
            let message = format!("`args`: expected at most {} bytes", wire::MAX_ARGS_BYTES);
            return Err(Refusal::new(ErrorCode::PayloadTooLarge, message));
        }
    }
    if call.tool_name.is_empty() || call.tool_name.chars().count() > wire::MAX_TOOL_CHARS {
        return Err(invalid("`toolName`: expected 1 to 128 characters"));
    }
    if call.call.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_ID_CHARS) {
        return Err(invalid("`call`: expected 1 to 128 bytes"));
    }
    if call.call.is_none() && (call.progress || call.parts) {
        return Err(invalid("`progress` and `parts` go with `call`"));
    }
    if call.timeout_ms.is_some_and(|timeout| !(1..=wire::MAX_TIMEOUT_MS).contains(&timeout)) {
        return Err(invalid("`timeout_ms`: expected 1 to 1800000"));
    }
    Ok(())
}

/// The connection to ask, if it can be asked now.
fn host_of(memory: &McpRegistry, cx: &MeshContext<'_>, name: &str, server: &Server) -> Result<(Line, bool), Refusal> {
    let Some(peer) = server.peer(cx) else {
        let since = server.offline_since_ms(cx).map(iso).unwrap_or_default();
        let message = format!("MCP server \"{name}\" is offline: {} left at {since}", server.hosted_by);
        return Err(Refusal::new(ErrorCode::HostOffline, message));
    };
    let running = memory.calls.load(&Load::Host(peer.handle));
    if let Err(refusal) = cx.within(&limits::CALLS_PER_HOST, running, 1) {
        return Err(Refusal {
            message: format!("the host of MCP server \"{name}\" is busy: {}", refusal.message),
            ..Refusal::from(ErrorCode::Busy)
        });
    }
    Ok((Line { peer: peer.handle, socket_no: peer.socket_no }, peer.older))
}

fn forward(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, request: McpCall) -> Result<(), Refusal> {
    check(&request)?;
    let asker = cx.asker()?;
    let (member, caller_name) = (asker.member.clone(), asker.name.clone());
    // A member without a connection cannot be told of progress, and reads no parts.
    let caller = (asker.handle != PeerHandle::NONE).then_some(Line { peer: asker.handle, socket_no: asker.socket_no });
    let name = request.call.clone().filter(|_| caller.is_some());
    if let (Some(caller), Some(name)) = (caller, &name)
        && memory.calls.named.contains_key(&(caller.peer, name.clone()))
    {
        return Err(Refusal::new(ErrorCode::InvalidArgs, "`call`: a call of this name is under way"));
    }
    let viewer = cx.viewer(cx.asker()?);
    let service = cx.hosted(&request.server_name, &viewer).map(|service| service.route.clone());
    let server = memory.offered(cx, &request.server_name);
    // A service that does not run now may have a server of a session beside it, of the same member.
    if let Some(route) = service.filter(|route| route.is_ok() || server.is_none()) {
        let route = route.map_err(|why| Refusal::new(ErrorCode::ServiceDown, why))?;
        let ask = hosted::Ask { request, name, caller, member, route };
        return hosted::forward(memory, cx, ask);
    }
    let server = server.ok_or_else(|| missing(&request.server_name))?;
    let (host, older_host) = host_of(memory, cx, &request.server_name, server)?;
    cx.count_write(&limits::CALLS_PER_MINUTE, Some(&member))?;
    let Some(to) = cx.reply_to() else { return Err(ErrorCode::NoHello.into()) };
    let timeout_ms = request.timeout_ms.unwrap_or(wire::USUAL_TIMEOUT_MS);
    let id = uuid::Uuid::new_v4().to_string();
    let wants_progress = request.progress && name.is_some();
    let may_read_parts = request.parts && name.is_some();
    let event = McpCallForward {
        call_id: id.clone(),
        server_name: request.server_name.clone(),
        tool_name: request.tool_name.clone(),
        args: request.args.unwrap_or_else(|| Raw::of(&json!({}))),
        caller_name,
        timeout_ms: (!older_host).then_some(timeout_ms),
        progress: wants_progress && !older_host,
        parts: may_read_parts && !older_host,
    };
    if !cx.push(host.peer, &event.into()) {
        let message = format!("the host of MCP server \"{}\" does not take more now", request.server_name);
        return Err(Refusal::new(ErrorCode::Busy, message));
    }
    let timeout_ms = i64::try_from(timeout_ms).unwrap_or(i64::MAX);
    let call = Call {
        server: request.server_name.clone(),
        carrier: Carrier::Session { line: host, older: older_host },
        caller,
        name,
        wants_progress,
        may_read_parts,
        timeout_ms,
        deadline_mono_ms: cx.mono_ms().saturating_add(timeout_ms),
        stage: Stage::Asked(to),
    };
    memory.calls.add(cx, id, call);
    memory.called.count(cx, (member, request.server_name, shown(&request.tool_name)));
    Ok(())
}

/// What a host says of a call that it was not asked for, or that has ended, is ignored, unless it wants to know.
fn unknown(cx: &MeshContext<'_>) -> Result<Outcome<Nothing>, Refusal> {
    if cx.wants_confirmation() {
        return Err(Refusal::new(
            ErrorCode::NotFound,
            "this connection was not asked for such a call, or it has ended",
        ));
    }
    Ok(Outcome::Silent)
}

pub(super) fn respond(
    memory: &mut McpRegistry,
    cx: &mut MeshContext<'_>,
    response: McpCallResponse,
) -> Result<Outcome<Nothing>, Refusal> {
    let id = response.call_id.clone();
    let is_asked = |call: &&mut Call| matches!(call.stage, Stage::Asked(_));
    let Some(call) = memory.calls.of_host(cx, &id)?.filter(is_asked) else { return unknown(cx) };
    let may_read_parts = call.may_read_parts;
    let answer = answer_of(response, may_read_parts);
    let result = answer.code.as_deref().and_then(ErrorCode::parse).map_or("ok", ErrorCode::as_str);
    METRICS.calls.with_label_values(&[result]).inc();
    match answer.parts {
        Some(parts) => {
            let deadline = cx.mono_ms().saturating_add(wire::PART_TIMEOUT_MS as i64);
            let reading = Stage::Reading { parts, asked: BTreeSet::new(), waiting: BTreeMap::new(), read: 0 };
            if let Stage::Asked(to) = std::mem::replace(&mut call.stage, reading) {
                cx.reply(&to, &answer.into());
            }
            memory.calls.postpone(cx, &id, deadline);
        }
        None => {
            if let Some(Call { stage: Stage::Asked(to), .. }) = memory.calls.remove(&id) {
                cx.reply(&to, &answer.into());
            }
        }
    }
    Ok(Outcome::Answer(Nothing {}))
}

/// The answer for the caller; what makes no sense becomes an error.
fn answer_of(response: McpCallResponse, may_read_parts: bool) -> McpCallResult {
    let McpCallResponse { result, error, code, rpc_error, parts, bytes, .. } = response;
    if let Some(error) = error {
        let known = code.filter(|code| ErrorCode::parse(code).is_some());
        let code = known.unwrap_or_else(|| ErrorCode::ToolFailed.as_str().to_owned());
        let error = error.chars().take(wire::MAX_ERROR_CHARS).collect();
        return McpCallResult { error: Some(error), code: Some(code), rpc_error, ..McpCallResult::default() };
    }
    let Some(parts) = parts else { return McpCallResult { result, ..McpCallResult::default() } };
    let bytes = bytes.unwrap_or(0);
    if !may_read_parts || bytes > wire::MAX_RESULT_BYTES as u64 || !(1..=wire::MAX_PARTS).contains(&parts) {
        let most = if may_read_parts { wire::MAX_RESULT_BYTES } else { wire::MAX_UNDIVIDED_BYTES };
        return failed(
            ErrorCode::PayloadTooLarge,
            format!("the result has {bytes} bytes, and this caller can be given {most}"),
        );
    }
    McpCallResult { parts: Some(parts), bytes: Some(bytes), ..McpCallResult::default() }
}

pub(super) fn progress(
    memory: &mut McpRegistry,
    cx: &mut MeshContext<'_>,
    notice: McpProgress,
) -> Result<Outcome<Nothing>, Refusal> {
    let Some(call) = memory.calls.of_host(cx, &notice.call_id)? else { return unknown(cx) };
    if let (true, Some(caller), Some(name)) = (call.wants_progress, call.caller, &call.name) {
        let message = notice.message.map(|text| text.chars().take(wire::MAX_PROGRESS_CHARS).collect());
        let event = McpCallProgress { call: name.clone(), progress: notice.progress, total: notice.total, message };
        // One that does not fit is made up for by the next.
        cx.push(caller.peer, &event.into());
    }
    Ok(Outcome::Answer(Nothing {}))
}

pub(super) fn cancel(
    memory: &mut McpRegistry,
    cx: &mut MeshContext<'_>,
    request: McpCancel,
) -> Result<Outcome<Nothing>, Refusal> {
    if let Some(id) = memory.calls.own(cx, &request.call)?
        && let Some(call) = memory.calls.remove(&id)
    {
        let reason = request.reason.map(|text| text.chars().take(wire::MAX_PROGRESS_CHARS).collect::<String>());
        tell_host(cx, &id, &call, reason.as_deref().unwrap_or("its caller gave up"));
        end(cx, call, ErrorCode::Cancelled, "the caller gave up".into());
    }
    Ok(Outcome::Answer(Nothing {}))
}

pub(super) fn part(
    memory: &mut McpRegistry,
    cx: &mut MeshContext<'_>,
    request: &McpPart,
) -> Result<Outcome<McpPartData>, Refusal> {
    let missing = || Refusal::new(ErrorCode::NotFound, "there is no such part to be read");
    let id = memory.calls.own(cx, &request.call)?.ok_or_else(missing)?;
    let to = cx.reply_to().ok_or_else(missing)?;
    let call = memory.calls.calls.get_mut(&id).ok_or_else(missing)?;
    if let Stage::Held(_) = &call.stage {
        return hosted::part(memory, cx, &id, request.part).ok_or_else(missing);
    }
    let host = call.host().ok_or_else(missing)?;
    let Stage::Reading { parts, asked, waiting, .. } = &mut call.stage else { return Err(missing()) };
    if request.part >= *parts || asked.contains(&request.part) {
        return Err(missing());
    }
    if !cx.push(host.peer, &McpPartForward { call_id: id.clone(), part: request.part }.into()) {
        return Err(Refusal::new(ErrorCode::Busy, "the host does not take more now; ask again"));
    }
    asked.insert(request.part);
    waiting.insert(request.part, to);
    let deadline = cx.mono_ms().saturating_add(wire::PART_TIMEOUT_MS as i64);
    memory.calls.postpone(cx, &id, deadline);
    Ok(Outcome::Silent)
}

pub(super) fn part_response(
    memory: &mut McpRegistry,
    cx: &mut MeshContext<'_>,
    response: McpPartResponse,
) -> Result<Outcome<Nothing>, Refusal> {
    let id = response.call_id.clone();
    let Some(call) = memory.calls.of_host(cx, &id)? else { return unknown(cx) };
    let Stage::Reading { parts, waiting, read, .. } = &mut call.stage else { return unknown(cx) };
    let Some(to) = waiting.remove(&response.part) else { return unknown(cx) };
    let too_large = response.data.len() > wire::MAX_PART_BYTES;
    if response.error.is_some() || too_large {
        cx.refuse(&to, Refusal::new(ErrorCode::NotFound, "the host does not have this part any more"));
        if let Some(call) = memory.calls.remove(&id) {
            end(cx, call, ErrorCode::NotFound, "the host does not have the result any more".into());
        }
        return Ok(Outcome::Answer(Nothing {}));
    }
    *read += 1;
    let done = *read == *parts;
    cx.reply(&to, &McpPartData { part: response.part, data: response.data }.into());
    if done {
        memory.calls.remove(&id);
    } else {
        let deadline = cx.mono_ms().saturating_add(wire::PART_TIMEOUT_MS as i64);
        memory.calls.postpone(cx, &id, deadline);
    }
    Ok(Outcome::Answer(Nothing {}))
}
