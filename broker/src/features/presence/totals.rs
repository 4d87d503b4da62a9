//! Counters of connections, and of members over all their sessions.

use claudemesh_protocol::features::presence::Stats;
use claudemesh_protocol::id::{MemberId, MeshId};

use super::PresenceMemory;
use crate::db::sessions::StatsDelta;
use crate::mesh::peers::PeerHandle;

/// Totals stop here, as counters of a session do: whatever clients claim, sums fit every column and stay exact as a JSON number.
const MAX_TOTAL: i64 = 1 << 53;

/// Counters of one connection.
#[derive(Debug)]
pub(super) struct Counters {
    member: MemberId,
    /// As the client said last.
    now: Stats,
    /// What of them is in the member's totals.
    counted: Stats,
}

impl PresenceMemory {
    /// Takes over what a client says of its connection.
    pub(super) fn set(&mut self, peer: PeerHandle, member: &MemberId, stats: Stats) {
        let fresh = || Counters { member: member.clone(), now: stats, counted: Stats::default() };
        self.counters.entry(peer).or_insert_with(fresh).now = stats;
    }

    /// Counters of a connection.
    pub(super) fn stats(&self, peer: PeerHandle) -> Stats {
        self.counters.get(&peer).map_or_else(Stats::default, |counters| counters.now)
    }

    /// Totals of a member over all its sessions, as `restoredStats`.
    pub(super) fn total(&self, member: &MemberId) -> Stats {
        let Some(total) = self.totals.get(member) else { return Stats::default() };
        Stats {
            messages_in: Some(total.messages_in as f64),
            messages_out: Some(total.messages_out as f64),
            tool_calls: Some(total.tool_calls as f64),
            errors: Some(total.errors as f64),
            uptime: None,
        }
    }

    /// Adds what a connection's counters gained since they were last added; never the same gain twice.
    pub(super) fn count(&mut self, peer: PeerHandle, mesh_id: &MeshId) {
        let Some(counters) = self.counters.get_mut(&peer) else { return };
        let total = self.totals.entry(counters.member.clone()).or_insert_with(|| StatsDelta {
            mesh_id: mesh_id.clone(),
            member_id: counters.member.clone(),
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
        let (now, counted) = (counters.now, counters.counted);
        let delta = StatsDelta {
            mesh_id: mesh_id.clone(),
            member_id: counters.member.clone(),
            messages_in: gain(&mut total.messages_in, now.messages_in, counted.messages_in),
            messages_out: gain(&mut total.messages_out, now.messages_out, counted.messages_out),
            tool_calls: gain(&mut total.tool_calls, now.tool_calls, counted.tool_calls),
            errors: gain(&mut total.errors, now.errors, counted.errors),
        };
        counters.counted = counters.now;
        if delta.messages_in.max(delta.messages_out).max(delta.tool_calls).max(delta.errors) > 0 {
            self.gains.push(delta);
        }
    }
}
