//! When a cron expression comes: five fields as in POSIX, with names, steps and `@daily` and the like, in a time zone.
//!
//! The times are found by the crate `cron`, which reads another language: a field of seconds before the five, Sunday is 1, and a
//! day has to fit both fields of days. What is written here is read by our own parser, checked, and given to it as plain lists of
//! numbers; an expression that restricts both fields of days becomes two schedules, of which the earlier time counts. The crate
//! counts on a calendar without changes of the clock; those of the zone are put in afterwards: a time that does not exist comes at
//! the first minute that does, and one that exists twice comes at the first of them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::OnceLock;

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};
pub use chrono_tz::Tz;
use claudemesh_protocol::features::schedules::limits::{MAX_CRON_CHARS, MAX_ZONE_CHARS};

/// Why an expression is refused: what people read after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCron(pub String);

impl fmt::Display for BadCron {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

fn bad<T>(reason: impl Into<String>) -> Result<T, BadCron> {
    Err(BadCron(reason.into()))
}

/// One of the five fields.
struct Field {
    name: &'static str,
    range: RangeInclusive<u32>,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const MINUTE: Field = Field { name: "minute", range: 0..=59, names: &[] };
const HOUR: Field = Field { name: "hour", range: 0..=23, names: &[] };
const DAY_OF_MONTH: Field = Field { name: "day of month", range: 1..=31, names: &[] };
const MONTH: Field = Field { name: "month", range: 1..=12, names: MONTHS };
/// 7 is Sunday, too.
const DAY_OF_WEEK: Field = Field { name: "day of week", range: 0..=7, names: DAYS };

/// Words for whole expressions.
const WORDS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The values of a field, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Values {
    bits: u64,
    /// It is written `*`: any value will do.
    any: bool,
}

impl Field {
    fn fail<T>(&self, text: &str, reason: &str) -> Result<T, BadCron> {
        bad(format!("{}: `{text}`: {reason}", self.name))
    }

    fn expected(&self) -> String {
        let names = match self.names {
            [first, .., last] => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        format!("expected {} to {}{names}", self.range.start(), self.range.end())
    }

    fn values(&self, text: &str) -> Result<Values, BadCron> {
        let mut values = Values { bits: 0, any: matches!(text, "*" | "*/1") };
        for part in text.split(',') {
            values.bits |= self.part(part)?;
        }
        Ok(values)
    }

    /// `*`, `5`, `mon`, `1-5`, `*/15`, `10-40/5`, `5/15` (from 5 to the end).
    fn part(&self, text: &str) -> Result<u64, BadCron> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (text, None),
        };
        let step = match step.map(whole) {
            None => None,
            Some(Some(0)) => return self.fail(text, "a step of 0 never comes to an end"),
            Some(Some(step)) => Some(step),
            Some(None) => return self.fail(text, "expected a whole number as the step"),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (*self.range.start(), self.end()),
            Some((first, last)) => {
                let (first, last) = (self.value(text, first)?, self.value(text, last)?);
                // The week may be left through its end: `fri-sun`.
                let last = if self.range == DAY_OF_WEEK.range && last == 0 && first > 0 { 7 } else { last };
                if first > last {
                    return self.fail(text, "the range is reversed");
                }
                (first, last)
            }
            None => {
                let only = self.value(text, range)?;
                (only, if step.is_some() { self.end().max(only) } else { only })
            }
        };
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        Ok((first..=last).step_by(step).fold(0, |bits, value| bits | 1 << value))
    }

    /// What `*` ends with.
    fn end(&self) -> u32 {
        if self.range == DAY_OF_WEEK.range { 6 } else { *self.range.end() }
    }

    fn value(&self, part: &str, text: &str) -> Result<u32, BadCron> {
        let lower = text.to_ascii_lowercase();
        let named = self.names.iter().position(|name| *name == lower);
        let first = if self.range == MONTH.range { 1 } else { 0 };
        let value = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + first).or_else(|| whole(text));
        match value.filter(|value| self.range.contains(value)) {
            Some(value) => Ok(value),
            None => self.fail(part, &self.expected()),
        }
    }
}

/// A number that is written in digits alone.
fn whole(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn list(bits: u64) -> String {
    (0..64).filter(|value| bits >> value & 1 == 1).map(|value: u32| value.to_string()).collect::<Vec<_>>().join(",")
}

/// An expression in a time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    /// One, or two of which either counts.
    schedules: Vec<cron::Schedule>,
    zone: Tz,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it; also one that never comes, such as the 30th of February.
    pub fn parse(text: &str, zone: Tz) -> Result<Self, BadCron> {
        if text.len() > MAX_CRON_CHARS || text.chars().any(|symbol| symbol.is_control() && symbol != '\t') {
            return bad(format!("expected at most {MAX_CRON_CHARS} characters in one line"));
        }
        let text = text.trim();
        let text = match WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            Some((_, fields)) => fields,
            None if text.starts_with('@') => {
                let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
                return bad(format!("expected five fields or one of {}", words.join(" ")));
            }
            None => text,
        };
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, week] = fields.as_slice() else {
            return bad(format!(
                "expected five fields (minute, hour, day of month, month, day of week), got {}",
                fields.len()
            ));
        };
        let (minute, hour) = (MINUTE.values(minute)?, HOUR.values(hour)?);
        let (day, month) = (DAY_OF_MONTH.values(day)?, MONTH.values(month)?);
        let mut week = DAY_OF_WEEK.values(week)?;
        week.bits = (week.bits | week.bits >> 7) & 0x7f;
        if week.any && !comes(day.bits, month.bits) {
            return bad("none of these months has such a day");
        }
        let schedule = |days: Option<Values>, weekdays: Option<Values>| {
            let days = days.map_or("*".to_owned(), |days| list(days.bits));
            // There Sunday is 1.
            let weekdays = weekdays.map_or("*".to_owned(), |weekdays| list(weekdays.bits << 1));
            let text = format!("0 {} {} {days} {} {weekdays}", list(minute.bits), list(hour.bits), list(month.bits));
            cron::Schedule::from_str(&text).map_err(|error| BadCron(error.to_string()))
        };
        let mut schedules = Vec::with_capacity(2);
        match (day.any, week.any) {
            (true, true) => schedules.push(schedule(None, None)?),
            (false, true) => schedules.push(schedule(Some(day), None)?),
            (true, false) => schedules.push(schedule(None, Some(week))?),
            // Either: two schedules, unless no month has such a day.
            (false, false) => {
                if comes(day.bits, month.bits) {
                    schedules.push(schedule(Some(day), None)?);
                }
                schedules.push(schedule(None, Some(week))?);
            }
        }
        Ok(Self { schedules, zone })
    }

    /// The first time after `after_ms`, in Unix milliseconds. `None`: the expression never comes again before the year 2100.
    pub fn next(&self, after_ms: i64) -> Option<i64> {
        let after = DateTime::<Utc>::from_timestamp_millis(after_ms)?;
        // Whole seconds: a time falls on a minute.
        let mut local = after.with_timezone(&self.zone).naive_local().with_nanosecond(0)?;
        loop {
            local = self.next_local(local)?;
            let at = self.instant(local)?.timestamp_millis();
            // In an hour that comes twice, the first one may be over.
            if at > after_ms {
                return Some(at);
            }
        }
    }

    /// The first times after one.
    pub fn upcoming(&self, after_ms: i64, count: usize) -> Vec<i64> {
        std::iter::successors(self.next(after_ms), |at| self.next(*at)).take(count).collect()
    }

    /// On a calendar without changes of the clock.
    fn next_local(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let after = Utc.from_utc_datetime(&after);
        let first = |schedule: &cron::Schedule| schedule.after(&after).next();
        self.schedules.iter().filter_map(first).min().map(|at| at.naive_utc())
    }

    fn instant(&self, local: NaiveDateTime) -> Option<DateTime<Tz>> {
        let mut local = local;
        // Clocks were moved by a day at most.
        for _ in 0..=24 * 60 {
            match self.zone.from_local_datetime(&local) {
                MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => return Some(at),
                MappedLocalTime::None => local = local.checked_add_signed(TimeDelta::minutes(1))?,
            }
        }
        None
    }
}

/// Whether one of the months has one of the days; the 29th of February counts.
fn comes(days: u64, months: u64) -> bool {
    const LAST_DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let first = days.trailing_zeros();
    (1_u32..).zip(LAST_DAYS).any(|(month, last)| months >> month & 1 == 1 && first <= last)
}

/// A time zone by its IANA name.
pub fn zone(name: &str) -> Option<Tz> {
    if name.len() <= MAX_ZONE_CHARS { name.parse().ok() } else { None }
}

/// The time zone of this machine: what `TZ` names, else what the system is set to, else UTC.
pub fn own_zone() -> Tz {
    static ZONE: OnceLock<Tz> = OnceLock::new();
    *ZONE.get_or_init(|| {
        let named = std::env::var("TZ").ok().and_then(|name| zone(name.trim_start_matches(':')));
        named.or_else(|| iana_time_zone::get_timezone().ok().and_then(|name| zone(&name))).unwrap_or(Tz::UTC)
    })
}

#[cfg(test)]
#[path = "cron_tests.rs"]
mod tests;
