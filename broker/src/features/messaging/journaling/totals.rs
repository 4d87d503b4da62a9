//! Counters of members over all their sessions.

use claudemesh_protocol::features::presence::Stats;
use claudemesh_protocol::id::MemberId;

use super::super::state::MessagingMemory;
use crate::db::sessions::StatsDelta;
use crate::mesh::context::MeshContext;
use crate::mesh::peers::PeerRef;

/// Totals of a member over all its sessions, as `restoredStats`.
pub fn totals(memory: &MessagingMemory, member: &MemberId) -> Stats {
    let Some(total) = memory.totals.get(member) else { return Stats::default() };
    Stats {
        messages_in: Some(total.messages_in as f64),
        messages_out: Some(total.messages_out as f64),
        tool_calls: Some(total.tool_calls as f64),
        errors: Some(total.errors as f64),
        uptime: None,
    }
}

/// Totals stop here, as counters of a session do: whatever clients claim, sums fit every column and stay exact as a JSON number.
const MAX_TOTAL: i64 = 1 << 53;

/// Adds what a session's counters gained since they were last added; never the same gain twice.
pub fn count_stats(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerRef) {
    let mesh_id = cx.core.id.clone();
    let Some(peer) = cx.core.roster.get_mut(at) else { return };
    let total = memory.totals.entry(peer.member.clone()).or_insert_with(|| StatsDelta {
        mesh_id: mesh_id.clone(),
        member_id: peer.member.clone(),
        messages_in: 0,
        messages_out: 0,
        tool_calls: 0,
        errors: 0,
    });
    let gain = |total: &mut i64, now: Option<f64>, counted: Option<f64>| {
        let (now, counted) = (now.unwrap_or(0.0), counted.unwrap_or(0.0));
        // Counters that went back belong to a restarted client and count from zero.
        let gained = if now >= counted { now - counted } else { now };
        let gained = (gained.clamp(0.0, MAX_TOTAL as f64) as i64).min((MAX_TOTAL - *total).max(0));
        *total += gained;
        gained
    };
    let (now, counted) = (peer.stats, peer.counted);
    let delta = StatsDelta {
        mesh_id,
        member_id: peer.member.clone(),
        messages_in: gain(&mut total.messages_in, now.messages_in, counted.messages_in),
        messages_out: gain(&mut total.messages_out, now.messages_out, counted.messages_out),
        tool_calls: gain(&mut total.tool_calls, now.tool_calls, counted.tool_calls),
        errors: gain(&mut total.errors, now.errors, counted.errors),
    };
    peer.counted = peer.stats;
    if delta.messages_in.max(delta.messages_out).max(delta.tool_calls).max(delta.errors) > 0 {
        memory.stats.push(delta);
    }
}
