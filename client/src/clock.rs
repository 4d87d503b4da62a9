//! The one place of the client that reads the clock of the machine, and the one form in which people read times.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, UtcOffset};

/// Where the machine is, once it was asked.
static LOCAL_OFFSET: OnceLock<UtcOffset> = OnceLock::new();

/// Unix milliseconds now; 0 when the clock stands before 1970.
#[expect(clippy::disallowed_methods, reason = "the only reader of the wall clock")]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Now as ISO-8601 UTC with milliseconds, the form of every time we write to files.
pub fn now_iso() -> String {
    claudemesh_protocol::time::iso(now_ms())
}

/// Asks the system for its time zone. Only a process with one thread gets an answer, so `main` asks before it does anything
/// else.
pub fn ask_local_offset() {
    if let Ok(offset) = UtcOffset::current_local_offset() {
        let _ = LOCAL_OFFSET.set(offset);
    }
}

/// Where the machine is: UTC when that is not known.
pub fn local_offset() -> UtcOffset {
    LOCAL_OFFSET.get().copied().unwrap_or(UtcOffset::UTC)
}

/// An ISO time as people read it in every verb: `2026-11-21 20:03`, the time of this machine; with `UTC` behind it when the
/// machine's own is not known. What is no time stays as it is, made harmless.
pub fn shown(iso: &str) -> Cow<'_, str> {
    at_offset(iso, LOCAL_OFFSET.get().copied())
}

fn at_offset(iso: &str, offset: Option<UtcOffset>) -> Cow<'_, str> {
    let moment = claudemesh_protocol::time::parse_iso(iso)
        .and_then(|ms| OffsetDateTime::from_unix_timestamp(ms.div_euclid(1_000)).ok())
        .and_then(|moment| moment.checked_to_offset(offset.unwrap_or(UtcOffset::UTC)));
    let Some(at) = moment else { return crate::output::clean(iso) };
    let zone = if offset.is_none() { " UTC" } else { "" };
    Cow::Owned(format!(
        "{:04}-{:02}-{:02} {:02}:{:02}{zone}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_machine() {
        let iso = "2026-11-21T20:03:59.999Z";
        let tokyo = UtcOffset::from_hms(9, 0, 0).unwrap();
        assert_eq!(at_offset(iso, Some(tokyo)), "2026-11-22 05:03");
        assert_eq!(at_offset(iso, Some(UtcOffset::UTC)), "2026-11-21 20:03");
        assert_eq!(at_offset(iso, None), "2026-11-21 20:03 UTC");
        assert_eq!(at_offset("soon\u{1b}", None), "soon␛");
        assert_eq!(at_offset("9999-12-31T23:59:59.000Z", Some(tokyo)), "9999-12-31T23:59:59.000Z");
    }
}
