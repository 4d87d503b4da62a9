//! What is known of one entry.

use std::collections::BTreeMap;

use claudemesh_protocol::features::schedules::{ScheduleState, ScheduledEntry};

use super::{Act, FAR_MS};

/// Whether there is an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    /// No one knows: it has no answer, or will never have one.
    Maybe,
    No,
    Yes,
    Cancelled,
}

/// What is known of one entry.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) scheduler: usize,
    pub(super) recipient: usize,
    pub(super) id: Option<String>,
    pub(super) at: i64,
    pub(super) there: There,
    /// A change of it has no answer, or will never have one.
    pub(super) change: Option<Act>,
    /// IDs of its messages, by time.
    pub(super) got: BTreeMap<i64, String>,
}

impl Known {
    /// One that was asked for.
    pub(super) fn new(scheduler: usize, recipient: usize, at: i64) -> Self {
        Self { scheduler, recipient, id: None, at, there: There::Maybe, change: None, got: BTreeMap::new() }
    }

    pub(super) fn is_parked(&self) -> bool {
        self.there == There::Yes && self.change.is_none() && self.at >= FAR_MS
    }

    /// Its message must come, and is not there yet.
    pub(super) fn is_awaited(&self) -> bool {
        self.there == There::Yes && self.at < FAR_MS && self.got.is_empty()
    }

    pub(super) fn is_open(&self) -> bool {
        self.there == There::Maybe || self.change.is_some()
    }

    /// Compares it with the entry of a broker at rest.
    pub(super) fn judge(&self, mark: &str, row: Option<&ScheduledEntry>) -> Result<(), String> {
        let wanted = match self.there {
            There::No => None,
            There::Cancelled => Some(ScheduleState::Cancelled),
            _ if self.at >= FAR_MS => Some(ScheduleState::Active),
            _ => Some(ScheduleState::Done),
        };
        if self.is_open() || row.map(|row| row.state) != wanted {
            return Err(format!("{mark} should be {wanted:?}, as far as is known ({self:?}), and it is {row:?}"));
        }
        let Some(row) = row else { return Ok(()) };
        let sent = wanted == Some(ScheduleState::Done);
        if row.deliver_at != self.at
            || row.missed_count != 0
            || row.last_error.is_some()
            || row.last_fired_at.is_some() != sent
        {
            return Err(format!("{mark} should come at {} ({self:?}), and it is {row:?}", self.at));
        }
        if self.got.len() != usize::from(sent) {
            return Err(format!("{mark} is {:?}, and its messages are {:?}", row.state, self.got));
        }
        Ok(())
    }
}

/// Its message may have come, and the entry waits for nothing but that this is noted.
pub(in super::super) fn is_on_its_way(row: &ScheduledEntry) -> bool {
    row.state == ScheduleState::Active && row.cron.is_none() && row.deliver_at < FAR_MS
}
