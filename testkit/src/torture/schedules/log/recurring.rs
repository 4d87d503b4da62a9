//! An entry that comes every minute of a clock, and of which every minute that is missed is made up for.

use std::collections::BTreeMap;

use claudemesh_protocol::features::schedules::{ScheduleClock, ScheduleState, ScheduledEntry};
use claudemesh_protocol::time::parse_iso;

use super::super::super::clock::START;

const MINUTE_MS: i64 = 60_000;

/// What is known of one.
#[derive(Debug)]
pub(super) struct Recurring {
    clock: ScheduleClock,
    pub(super) id: String,
    /// The first list that counts: next time, and how often it was sent before.
    first: Option<(i64, u64)>,
    /// Its next time in the last list: it was sent for all minutes before.
    next: i64,
    /// IDs of its messages, by time.
    got: BTreeMap<i64, String>,
}

impl Recurring {
    pub(super) fn new(clock: ScheduleClock, id: &str) -> Self {
        Self { clock, id: id.into(), first: None, next: i64::MIN, got: BTreeMap::new() }
    }

    pub(super) fn arrived(&mut self, at: i64, message: &str, now_ms: i64) -> Result<(), String> {
        if at % MINUTE_MS != 0 || (self.clock == ScheduleClock::Wall && now_ms < at) {
            return Err(format!("{self:?} came at {now_ms} for {at}"));
        }
        match self.got.insert(at, message.to_owned()) {
            Some(before) if before != message => Err(format!("{at} of {} came as {before} and as {message}", self.id)),
            _ => Ok(()),
        }
    }

    /// Minutes that it was sent for, and whose message is not there.
    fn lost(&self) -> impl Iterator<Item = i64> {
        let from = self.first.map_or(self.next, |(from, _)| from);
        let minutes = (from..self.next).step_by(usize::try_from(MINUTE_MS).unwrap_or(usize::MAX));
        minutes.filter(|at| !self.got.contains_key(at))
    }

    pub(super) fn settled(&self) -> bool {
        self.lost().next().is_none()
    }

    pub(super) fn missing(&self) -> String {
        let lost: Vec<i64> = self.lost().take(3).collect();
        format!("of {} the minutes {lost:?}", self.clock.as_str())
    }

    pub(super) fn count(&self) -> usize {
        self.got.len()
    }

    /// Compares it with the entry of a broker: each minute was sent for, and none before its time.
    pub(super) fn judge(&mut self, row: &ScheduledEntry) -> Result<(), String> {
        let count = row.fired_count.unwrap_or_default();
        if row.state != ScheduleState::Active || row.missed_count != 0 || row.last_error.is_some() {
            return Err(format!("{self:?} is {row:?}"));
        }
        // The last one that came may not be noted yet.
        if self.got.last_key_value().is_some_and(|(at, _)| *at > row.deliver_at) {
            return Err(format!("{:?} came before its time: {row:?}", self.got.last_key_value()));
        }
        // Before the clock of the mesh is set it is that of the broker.
        if self.clock == ScheduleClock::Mesh && Some(row.deliver_at) < parse_iso(START) {
            return Ok(());
        }
        let (from, before) = *self.first.get_or_insert((row.deliver_at, count));
        let minutes = u64::try_from((row.deliver_at - from) / MINUTE_MS).map_err(|_| format!("{row:?} went back"))?;
        if row.deliver_at < self.next || count < before || count - before != minutes {
            return Err(format!("it was sent {count} times, {before} of them before {from}: {row:?}"));
        }
        self.next = row.deliver_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: i64 = 1_900_000_020_000;

    fn row(minutes: i64, count: u64) -> ScheduledEntry {
        let entry = serde_json::json!({
            "id": "e", "to": "k", "message": "", "deliverAt": FROM + minutes * MINUTE_MS, "createdAt": 0, "cron": "* * * * *",
            "firedCount": count,
        });
        serde_json::from_value(entry).unwrap()
    }

    /// One that had come seven times when the counting began.
    fn begun() -> Recurring {
        let mut one = Recurring::new(ScheduleClock::Wall, "e");
        one.judge(&row(0, 7)).unwrap();
        one
    }

    fn come(one: &mut Recurring, minute: i64, message: &str) -> Result<(), String> {
        one.arrived(FROM + minute * MINUTE_MS, message, FROM + minute * MINUTE_MS)
    }

    #[test]
    fn minutes_that_are_left_out_or_sent_twice_are_found() {
        let mut one = begun();
        come(&mut one, 0, "a").unwrap();
        come(&mut one, 0, "a").expect("it comes again until it is acknowledged");
        come(&mut one, 1, "b").unwrap();
        one.judge(&row(2, 9)).unwrap();
        assert!(one.settled());
        for (told, minutes, count) in [
            ("one is left out and not counted", 4, 10),
            ("one was counted twice", 3, 11),
            ("it went back", 1, 8),
            ("it was sent less often", 3, 6),
        ] {
            assert!(one.judge(&row(minutes, count)).is_err(), "{told}");
        }
        one.judge(&row(4, 11)).unwrap();
        come(&mut one, 3, "d").unwrap();
        assert!(!one.settled(), "the message of minute 2 is lost: {}", one.missing());
        come(&mut one, 2, "c").unwrap();
        assert!(one.settled() && one.count() == 4);
        assert!(come(&mut one, 2, "e").is_err(), "one minute with two messages");
    }

    #[test]
    fn what_comes_before_its_time_or_between_minutes_is_found() {
        let mut one = begun();
        assert!(one.arrived(FROM, "a", FROM - 1).is_err(), "too early");
        assert!(one.arrived(FROM + 1, "a", FROM + 1).is_err(), "between");
        come(&mut one, 5, "f").unwrap();
        assert!(one.judge(&row(2, 9)).is_err(), "it is not that far");
    }

    #[test]
    fn entries_that_missed_failed_or_ended_are_found() {
        for wrong in [
            ScheduledEntry { missed_count: 1, ..row(1, 8) },
            ScheduledEntry { last_error: Some("limit: full".into()), ..row(1, 8) },
            ScheduledEntry { state: ScheduleState::Done, ..row(1, 8) },
        ] {
            assert!(begun().judge(&wrong).is_err(), "{wrong:?}");
        }
    }
}
