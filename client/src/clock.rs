//! The one place of the client that reads the clock of the machine.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds now; 0 when the clock stands before 1970.
#[expect(clippy::disallowed_methods, reason = "the only reader of the wall clock")]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Now as ISO-8601 UTC with milliseconds, the form of every time we write to files.
pub fn now_iso() -> String {
    claudemesh_protocol::time::iso(now_ms())
}
