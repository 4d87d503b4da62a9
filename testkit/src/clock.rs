//! The one place of the test kit that reads the OS clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "the test kit's clock: signatures need the real time")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
