//! Calls of services that the mesh hosts. Their host answers the broker, not a session; a large result is read here, in parts.

use std::collections::BTreeSet;
use std::sync::Arc;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{
    McpCall, McpCallProgress, McpCallResult, McpPartData, Raw, limits as wire,
};
use claudemesh_protocol::id::MemberId;
use serde_json::json;

use super::calls::{Call, Carrier, Line, Load, Stage, failed};
use super::metrics::METRICS;
use super::{McpRegistry, shown};
use crate::mesh::context::MeshContext;
use crate::mesh::hosting::{CallError, Command, HostCall, Report, Route};
use crate::mesh::outcome::Outcome;
use crate::quota::Quota;
use crate::refusal::Refusal;

/// Bytes of results that callers of a mesh read at one time: memory of the broker.
const MAX_HELD_BYTES: usize = 4 * wire::MAX_RESULT_BYTES;

/// A call of a service.
pub(super) struct Ask {
    pub(super) request: McpCall,
    /// The caller's own name for it.
    pub(super) name: Option<String>,
    pub(super) caller: Option<Line>,
    pub(super) member: MemberId,
    pub(super) route: Route,
}

/// A result that is larger than a frame.
#[derive(Debug)]
pub(super) struct Held {
    text: Arc<str>,
    /// Where each part ends.
    ends: Vec<usize>,
    read: BTreeSet<u32>,
}

impl Held {
    fn new(text: Arc<str>) -> Self {
        let (mut ends, mut at) = (Vec::new(), 0);
        while at < text.len() {
            at = text.floor_char_boundary(at + wire::MAX_PART_BYTES);
            ends.push(at);
        }
        Self { text, ends, read: BTreeSet::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// A part, the first time.
    fn part(&mut self, part: u32) -> Option<String> {
        let at = part as usize;
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.read.insert(part).then(|| self.text[start..end].to_owned())
    }

    fn is_read(&self) -> bool {
        self.read.len() == self.ends.len()
    }
}

pub(super) fn forward(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, ask: Ask) -> Result<(), Refusal> {
    let Ask { request, name, caller, member, route } = ask;
    let server = request.server_name.clone();
    let timeout_ms = request.timeout_ms.unwrap_or(route.timeout_ms);
    let wants_progress = request.progress && name.is_some();
    let may_read_parts = request.parts && name.is_some();
    let Some(to) = cx.reply_to() else { return Err(ErrorCode::NoHello.into()) };
    let call_id = uuid::Uuid::new_v4().to_string();
    let call = Call {
        server: server.clone(),
        carrier: Carrier::Service,
        caller,
        name,
        wants_progress,
        may_read_parts,
        timeout_ms: i64::try_from(timeout_ms).unwrap_or(i64::MAX),
        // The host counts the time itself, and says so; this is for one that says nothing any more.
        deadline_mono_ms: cx.mono_ms().saturating_add(i64::try_from(timeout_ms).unwrap_or(i64::MAX)),
        stage: Stage::Asked(to),
    };
    let busy = |quota: &'static Quota, load: &Load| {
        let fits = cx.within(quota, memory.calls.load(load), 1);
        fits.map_err(|refusal| Refusal {
            message: format!("MCP server \"{server}\" is busy: {}", refusal.message),
            ..Refusal::from(ErrorCode::Busy)
        })
    };
    for load in call.loads() {
        match &load {
            Load::Service(_) => busy(&super::limits::CALLS_PER_SERVICE, &load)?,
            Load::Caller(..) => busy(&super::limits::CALLS_PER_CALLER, &load)?,
            Load::Host(_) => {}
        }
    }
    cx.count_write(&super::limits::CALLS_PER_MINUTE, Some(&member))?;
    let host_call = HostCall {
        call_id: call_id.clone(),
        instance: route.instance,
        tool: request.tool_name.clone(),
        args: request.args.unwrap_or_else(|| Raw::of(&json!({}))),
        timeout_ms,
        progress: wants_progress,
    };
    cx.hosting().tell(cx.mesh_id(), Command::Call(host_call))?;
    memory.calls.add(cx, call_id, call);
    memory.called.count(cx, (member, server, shown(&request.tool_name)));
    Ok(())
}

/// Tells the host that no one waits for a call any more.
pub(super) fn cancel(cx: &MeshContext<'_>, id: &str, call: &Call, reason: &str) {
    if matches!(call.stage, Stage::Asked(_)) {
        let cancel = Command::Cancel { call_id: id.to_owned(), reason: reason.to_owned() };
        if let Err(error) = cx.hosting().tell(cx.mesh_id(), cancel) {
            tracing::debug!(mesh.id = %cx.mesh_id(), error = %error, "a call could not be cancelled");
        }
    }
}

/// The host tells of a call.
pub(super) fn take(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, report: &Report) {
    match report {
        Report::Answered { call_id, answer } => answered(memory, cx, call_id, answer),
        Report::Progress { call_id, progress, total, message } => {
            let Some(call) = memory.calls.calls.get(call_id).filter(|call| call.wants_progress) else { return };
            let (Some(caller), Some(name)) = (call.caller, &call.name) else { return };
            let message = message.as_ref().map(|text| text.chars().take(wire::MAX_PROGRESS_CHARS).collect());
            let event = McpCallProgress { call: name.clone(), progress: *progress, total: *total, message };
            // One that does not fit is made up for by the next.
            cx.push(caller.peer(), &event.into());
        }
        _ => {}
    }
}

fn answered(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, id: &str, answer: &Result<Arc<str>, CallError>) {
    let Some(call) = memory.calls.calls.get_mut(id).filter(|call| matches!(call.stage, Stage::Asked(_))) else {
        return;
    };
    let text = match answer {
        Ok(text) => text,
        Err(error) => return give(memory, cx, id, refused(error)),
    };
    let most = if call.may_read_parts { wire::MAX_WHOLE_BYTES } else { wire::MAX_UNDIVIDED_BYTES };
    if text.len() <= most {
        return give(memory, cx, id, whole(text));
    }
    let readable = call.may_read_parts && text.len() <= wire::MAX_RESULT_BYTES;
    if !readable {
        let most = if call.may_read_parts { wire::MAX_RESULT_BYTES } else { most };
        let message = format!("the result has {} bytes, and this caller can be given {most}", text.len());
        return give(memory, cx, id, failed(ErrorCode::PayloadTooLarge, message));
    }
    if memory.calls.held_bytes + text.len() > MAX_HELD_BYTES {
        return give(memory, cx, id, failed(ErrorCode::Busy, "too many large results are being read in this mesh"));
    }
    let held = Held::new(Arc::clone(text));
    let answer = McpCallResult {
        parts: u32::try_from(held.ends.len()).ok(),
        bytes: Some(text.len() as u64),
        ..McpCallResult::default()
    };
    memory.calls.held_bytes += held.bytes();
    if let Stage::Asked(to) = std::mem::replace(&mut call.stage, Stage::Held(held)) {
        METRICS.calls.with_label_values(&["ok"]).inc();
        cx.reply(&to, &answer.into());
    }
    let deadline = cx.mono_ms().saturating_add(wire::PART_TIMEOUT_MS as i64);
    memory.calls.postpone(cx, id, deadline);
}

fn whole(text: &Arc<str>) -> McpCallResult {
    match Raw::parse(text.to_string()) {
        Ok(result) => McpCallResult { result: Some(result), ..McpCallResult::default() },
        Err(_) => failed(ErrorCode::ToolFailed, "the MCP server answered with something that is not JSON"),
    }
}

fn refused(error: &CallError) -> McpCallResult {
    let message: String = error.message.chars().take(wire::MAX_ERROR_CHARS).collect();
    McpCallResult { rpc_error: error.rpc_error.clone(), ..failed(error.code, message) }
}

/// Ends a call with its answer.
fn give(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, id: &str, answer: McpCallResult) {
    if let Some(Call { stage: Stage::Asked(to), .. }) = memory.calls.remove(id) {
        METRICS.calls.with_label_values(&[answer.code.as_deref().unwrap_or("ok")]).inc();
        cx.reply(&to, &answer.into());
    }
}

/// A part of a result that is here; `None`: there is no such part, or it was read.
pub(super) fn part(
    memory: &mut McpRegistry,
    cx: &mut MeshContext<'_>,
    id: &str,
    part: u32,
) -> Option<Outcome<McpPartData>> {
    let Stage::Held(held) = &mut memory.calls.calls.get_mut(id)?.stage else { return None };
    let data = held.part(part)?;
    if held.is_read() {
        memory.calls.remove(id);
    } else {
        let deadline = cx.mono_ms().saturating_add(wire::PART_TIMEOUT_MS as i64);
        memory.calls.postpone(cx, id, deadline);
    }
    Some(Outcome::Answer(McpPartData { part, data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_cut_between_its_characters_and_each_part_is_given_once() {
        let text: Arc<str> = "é".repeat(wire::MAX_PART_BYTES).into();
        let mut held = Held::new(Arc::clone(&text));
        let count = held.ends.len() as u32;
        assert!(count >= 2);
        let mut whole = String::new();
        for part in 0..count {
            assert!(!held.is_read());
            let piece = held.part(part).unwrap();
            assert!(piece.len() <= wire::MAX_PART_BYTES);
            whole.push_str(&piece);
            assert_eq!(held.part(part), None, "once");
        }
        assert!(held.is_read() && *whole == *text);
        assert_eq!(held.part(count), None);
    }
}
