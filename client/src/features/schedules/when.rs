//! Times as people write them.

use std::time::Duration;

use claudemesh_protocol::time::parse_iso;
use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// When something is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Unix milliseconds.
    At(i64),
    /// So long from now.
    In(Duration),
    /// Again and again.
    Cron(String),
}

impl Default for When {
    fn default() -> Self {
        Self::At(0)
    }
}

/// Name of this machine's time zone.
pub(super) fn own_zone() -> Option<String> {
    let named = std::env::var("TZ").ok().map(|name| name.trim_start_matches(':').to_owned());
    named.filter(|name| name.contains('/') || name == "UTC").or_else(|| iana_time_zone::get_timezone().ok())
}

/// Reads `14:30` (the next time that a clock here shows it), a date with a time, or a whole ISO time; Unix milliseconds.
///
/// # Errors
/// What is wrong, for clap.
pub(super) fn parse_at(text: &str) -> Result<i64, String> {
    read_at(text.trim(), crate::clock::now_ms(), crate::clock::local_offset())
}

fn read_at(text: &str, now_ms: i64, offset: UtcOffset) -> Result<i64, String> {
    if let Some(ms) = parse_iso(text) {
        return Ok(ms);
    }
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(millis(at));
    }
    let expected =
        || format!("'{text}' is not a time: expected for example 14:30, 2026-11-28T09:00 or 2026-11-28T09:00:00Z");
    if let Some(time) = clock_time(text) {
        let now = OffsetDateTime::from_unix_timestamp(now_ms.div_euclid(1_000)).map_err(|_| expected())?;
        let today = now.to_offset(offset).replace_time(time);
        let at = millis(today);
        return Ok(if at > now_ms { at } else { at + 86_400_000 });
    }
    let (date, time) = text.split_once(['T', ' ']).ok_or_else(expected)?;
    let at = PrimitiveDateTime::new(date_of(date).ok_or_else(expected)?, clock_time(time).ok_or_else(expected)?);
    Ok(millis(at.assume_offset(offset)))
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// `9:05`, `14:30`, `14:30:15`.
fn clock_time(text: &str) -> Option<Time> {
    let parts: Vec<u8> = text.split(':').map(number).collect::<Option<_>>()?;
    match parts[..] {
        [hour, minute] => Time::from_hms(hour, minute, 0).ok(),
        [hour, minute, second] => Time::from_hms(hour, minute, second).ok(),
        _ => None,
    }
}

fn date_of(text: &str) -> Option<Date> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let year: i32 = (year.len() == 4).then(|| year.parse().ok())??;
    Date::from_calendar_date(year, Month::try_from(number(month)?).ok()?, number(day)?).ok()
}

fn number(text: &str) -> Option<u8> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-28T15:00:00Z.
    const NOW: i64 = 1_795_878_000_000;

    #[test]
    fn a_clock_time_is_the_next_one_and_a_date_is_of_this_machine() {
        let berlin = UtcOffset::from_hms(1, 0, 0).unwrap();
        let at = |text: &str| claudemesh_protocol::time::iso(read_at(text, NOW, berlin).unwrap());
        assert_eq!(at("16:30"), "2026-11-28T15:30:00.000Z");
        assert_eq!(at("16:00"), "2026-11-29T15:00:00.000Z", "now is over");
        assert_eq!(at("9:05"), "2026-11-29T08:05:00.000Z");
        assert_eq!(at("16:00:01"), "2026-11-28T15:00:01.000Z");
        assert_eq!(at("2026-12-24T18:00"), "2026-12-24T17:00:00.000Z");
        assert_eq!(at("2026-12-24 18:00:30"), "2026-12-24T17:00:30.000Z");
        assert_eq!(at("2026-12-24T18:00:00+05:30"), "2026-12-24T12:30:00.000Z");
        assert_eq!(at("2026-12-24T18:00:00Z"), "2026-12-24T18:00:00.000Z");
        for bad in ["", "25:00", "12:60", "noon", "2026-13-01T10:00", "2026-02-30T10:00", "12", "1:2:3:4", "+1:30"] {
            let error = read_at(bad, NOW, berlin).unwrap_err();
            assert!(error.contains("is not a time: expected for example 14:30"), "{bad}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,30}") {
            let _ = parse_at(&text);
        }
    }
}
