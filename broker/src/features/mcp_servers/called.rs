//! How often each member called each tool, for the audit log: one entry per member, tool and minute, with the names and nothing
//! of what was said.

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::id::MemberId;
use futures_util::future::join_all;
use serde_json::json;

use super::{McpRegistry, McpServers};
use crate::audit::{self, By};
use crate::hash::FastMap;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Lane, Outcome};
use crate::refusal::Refusal;

/// One entry covers this time.
const PERIOD_MS: i64 = 60_000;
/// Different calls that are counted before the time is over: names of tools are the caller's to choose.
const MAX_COUNTED: usize = 1_000;

/// Who calls, which server, which tool.
type Called = (MemberId, String, String);

/// Calls since the last entries.
#[derive(Debug, Default)]
pub(super) struct Calls {
    counts: FastMap<Called, u64>,
    /// Monotonic and wall time of the first one.
    since: (i64, i64),
}

impl Calls {
    /// One more call.
    pub(super) fn count(&mut self, cx: &MeshContext<'_>, called: Called) {
        if self.counts.is_empty() {
            self.since = (cx.mono_ms(), cx.now_ms());
        }
        *self.counts.entry(called).or_default() += 1;
    }

    fn is_due(&self, cx: &MeshContext<'_>) -> bool {
        let over = cx.mono_ms() - self.since.0 >= PERIOD_MS;
        !self.counts.is_empty() && (over || cx.roster().is_empty() || self.counts.len() >= MAX_COUNTED)
    }
}

/// Writes the entries when the time is over, and at once when no one is here or the mesh stops.
pub(super) fn tick(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, stops: bool) {
    let calls = &mut memory.called;
    if calls.counts.is_empty() || !(stops || calls.is_due(cx)) {
        return;
    }
    let since_ms = calls.since.1;
    let counts: Vec<(Called, u64)> = std::mem::take(&mut calls.counts).into_iter().collect();
    let (storage, now) = (cx.storage(), cx.now_ms());
    let slow = async move {
        let entries = counts.iter().map(|((member, server, tool), count)| {
            let payload = json!({"server": server, "tool": tool, "count": count, "since": since_ms});
            audit::append(&storage, By::member(member, now).entry("mcp_called", payload))
        });
        let failed = join_all(entries).await.into_iter().filter_map(Result::err).last();
        failed.map_or(Ok(()), |error| Err(Refusal::from(error)))
    };
    let work = McpServers::work_or_failure(Lane::of::<McpServers>("called"), slow, |_, cx, done| {
        // What may have been written is not written again: a count too low by a minute is better than one too high.
        if let Err(error) = done {
            tracing::warn!(mesh.id = %cx.mesh_id(), %error, "calls of a minute may be missing in the audit log");
        }
        Ok(Outcome::<Nothing>::Silent)
    });
    if let Outcome::Work(work) = work {
        cx.spawn(work);
    }
}
