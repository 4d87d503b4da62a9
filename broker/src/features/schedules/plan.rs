//! Which times of an entry are sent, and which were missed.

use claudemesh_protocol::features::schedules::Misfire;
use claudemesh_protocol::features::schedules::limits::MAX_MADE_UP;

use super::store::Row;

/// A time that is longer ago was missed. A tick of the mesh's clock is as long, and no two times of one entry are nearer.
pub(super) const LATE_MS: i64 = 60_000;
/// Missed times that are counted.
pub(super) const MAX_COUNTED: usize = 1_000;

/// Which times an entry is sent for.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub times: Vec<i64>,
    pub missed: i64,
    /// All times until this one are among them, sent or missed: the entry goes on behind it.
    pub until_ms: i64,
}

impl Plan {
    /// For one that is on time.
    pub(super) fn on_time(due_ms: i64) -> Self {
        Self { times: vec![due_ms], missed: 0, until_ms: due_ms }
    }
}

/// Whether a time was missed. Of an entry that recurs it was when the next one may have come, too: the clock of a mesh goes on by whole
/// minutes, and by several at once after a restart.
pub(super) fn is_late(row: &Row, due_ms: i64, now_ms: i64) -> bool {
    let passed_ms = now_ms - due_ms;
    passed_ms > LATE_MS || (passed_ms == LATE_MS && row.cron.is_some())
}

/// What a late entry makes up for.
pub(super) fn plan(row: &Row, due_ms: i64, now_ms: i64) -> Plan {
    let mut times = vec![due_ms];
    if let Ok(Some(cron)) = row.cron() {
        let behind = std::iter::successors(cron.next(due_ms), |at| cron.next(*at));
        times.extend(behind.take_while(|at| *at <= now_ms).take(MAX_COUNTED));
    }
    let all = times.len();
    match row.misfire() {
        Misfire::FireOnce => times.truncate(1),
        Misfire::Skip => times.clear(),
        Misfire::All => times.truncate(MAX_MADE_UP),
    }
    let missed = i64::try_from(all - times.len()).unwrap_or(i64::MAX);
    Plan { times, missed, until_ms: now_ms }
}
