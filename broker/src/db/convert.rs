//! Between columns and domain types where a row is not the domain type: the messages' hot path.

use claudemesh_protocol::features::messaging::{Priority, Stage};
use claudemesh_protocol::id::PublicKey;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DbError;

/// JSON text of a value.
#[expect(clippy::expect_used, reason = "stored types are structs and enums of ours")]
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("stored types have text keys and no failing serializer")
}

/// Reads JSON text; `what` names table and column.
///
/// # Errors
/// [`DbError::Corrupt`].
pub fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|error| DbError::Corrupt { what, source: Some(error.into()) })
}

/// Reads a key of 64 lower-case hex digits.
///
/// # Errors
/// [`DbError::Corrupt`].
pub fn key(what: &'static str, text: &str) -> Result<PublicKey, DbError> {
    PublicKey::parse(text).ok_or_else(|| DbError::corrupt(what))
}

/// 0 now, 1 next, 2 low: the order of urgency.
pub fn priority_number(priority: Priority) -> i32 {
    match priority {
        Priority::Now => 0,
        Priority::Next => 1,
        Priority::Low => 2,
    }
}

/// Reads a priority.
///
/// # Errors
/// [`DbError::Corrupt`].
pub fn priority(what: &'static str, number: i32) -> Result<Priority, DbError> {
    match number {
        0 => Ok(Priority::Now),
        1 => Ok(Priority::Next),
        2 => Ok(Priority::Low),
        _ => Err(DbError::corrupt(what)),
    }
}

/// Stage of a delivery that no one took in time; above every proved step, so that it is final.
pub const STAGE_EXPIRED: i32 = 9;

/// 0 stored to 4 answered.
pub fn stage_number(stage: Stage) -> i32 {
    match stage {
        Stage::Stored => 0,
        Stage::Received => 1,
        Stage::Handed => 2,
        Stage::Seen => 3,
        Stage::Answered => 4,
    }
}

/// Reads a stage; `None` is [`STAGE_EXPIRED`].
///
/// # Errors
/// [`DbError::Corrupt`].
pub fn stage(what: &'static str, number: i32) -> Result<Option<Stage>, DbError> {
    Ok(Some(match number {
        0 => Stage::Stored,
        1 => Stage::Received,
        2 => Stage::Handed,
        3 => Stage::Seen,
        4 => Stage::Answered,
        STAGE_EXPIRED => return Ok(None),
        _ => return Err(DbError::corrupt(what)),
    }))
}

/// A count from a `BigInt`, for fields that cannot be negative or huge.
pub fn count(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}
