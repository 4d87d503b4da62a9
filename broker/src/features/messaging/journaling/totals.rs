//! Counters of members over all their sessions.

use claudemesh_protocol::features::presence::Stats;
use claudemesh_protocol::id::MemberId;

use super::super::state::MessagingMemory;
use crate::features::presence::store::StatsDelta;
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

/// Adds what a session's counters gained since they were last added; never the same gain twice.
pub fn count_stats(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerRef) {
    let mesh_id = cx.core.id.clone();
    let Some(peer) = cx.core.roster.get_mut(at) else { return };
    let gain = |now: Option<f64>, counted: Option<f64>| {
        let (now, counted) = (now.unwrap_or(0.0), counted.unwrap_or(0.0));
        // Counters that went back belong to a restarted client and count from zero.
        let gained = if now >= counted { now - counted } else { now };
        gained.clamp(0.0, 1e15) as i64
    };
    let delta = StatsDelta {
        mesh_id: mesh_id.clone(),
        member_id: peer.member.clone(),
        messages_in: gain(peer.stats.messages_in, peer.counted.messages_in),
        messages_out: gain(peer.stats.messages_out, peer.counted.messages_out),
        tool_calls: gain(peer.stats.tool_calls, peer.counted.tool_calls),
        errors: gain(peer.stats.errors, peer.counted.errors),
    };
    peer.counted = peer.stats;
    if delta.messages_in + delta.messages_out + delta.tool_calls + delta.errors == 0 {
        return;
    }
    let total = memory.totals.entry(delta.member_id.clone()).or_insert_with(|| StatsDelta {
        mesh_id,
        member_id: delta.member_id.clone(),
        messages_in: 0,
        messages_out: 0,
        tool_calls: 0,
        errors: 0,
    });
    total.messages_in += delta.messages_in;
    total.messages_out += delta.messages_out;
    total.tool_calls += delta.tool_calls;
    total.errors += delta.errors;
    memory.stats.push(delta);
}
