//! What [`Cron`] finds, compared with an oracle that looks at every minute and knows neither the crate nor our parser's lists.

use std::collections::BTreeSet;

use chrono::{Datelike, Timelike};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::*;

const MINUTE_MS: i64 = 60_000;
/// Zones with all kinds of changes: none, north, south, half an hour, quarters, changes at midnight, two in a year, a day that was left out.
const ZONES: [Tz; 12] = [
    Tz::UTC,
    Tz::Europe__Berlin,
    Tz::America__New_York,
    Tz::Australia__Sydney,
    Tz::Australia__Lord_Howe,
    Tz::Asia__Kathmandu,
    Tz::America__Havana,
    Tz::Africa__Cairo,
    Tz::Africa__Casablanca,
    Tz::Pacific__Apia,
    Tz::America__St_Johns,
    Tz::Pacific__Chatham,
];

fn at(text: &str) -> i64 {
    claudemesh_protocol::time::parse_iso(text).unwrap()
}

fn shown(ms: &[i64]) -> Vec<String> {
    ms.iter().map(|ms| claudemesh_protocol::time::iso(*ms)).collect()
}

fn refused(text: &str) -> String {
    Cron::parse(text, Tz::UTC).unwrap_err().0
}

/// The fields as sets of values, read by other means than the parser's.
struct Oracle {
    fields: Vec<BTreeSet<u32>>,
    any_day: bool,
    any_weekday: bool,
    zone: Tz,
}

impl Oracle {
    fn new(expression: &str, zone: Tz) -> Self {
        let fields: Vec<&str> = expression.split(' ').collect();
        let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
        let mut sets = Vec::new();
        for (text, (low, high)) in fields.iter().zip(bounds) {
            let mut set = BTreeSet::new();
            for part in text.split(',') {
                let (range, step) = part.split_once('/').map_or((part, 1), |(range, step)| (range, step.parse().unwrap()));
                let number = |text: &str| -> u32 {
                    let names = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
                    let months =
                        ["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
                    let find = |list: &[&str]| list.iter().position(|name| *name == text).map(|at| at as u32);
                    text.parse().ok().or(find(&names)).or(find(&months)).unwrap()
                };
                let (first, last) = match range.split_once('-') {
                    _ if range == "*" => (low, high),
                    Some((first, last)) => (number(first), number(last)),
                    None if step > 1 || part.contains('/') => (number(range), high),
                    None => (number(range), number(range)),
                };
                let mut value = first;
                while value <= last {
                    set.insert(if high == 6 { value % 7 } else { value });
                    value += step;
                }
            }
            sets.push(set);
        }
        let any = |text: &str| text == "*" || text == "*/1";
        Self { fields: sets, any_day: any(fields[2]), any_weekday: any(fields[4]), zone }
    }

    fn fits(&self, local: NaiveDateTime) -> bool {
        let day = self.fields[2].contains(&local.day());
        let weekday = self.fields[4].contains(&local.weekday().num_days_from_sunday());
        let days = match (self.any_day, self.any_weekday) {
            (true, true) => true,
            (true, false) => weekday,
            (false, true) => day,
            (false, false) => day || weekday,
        };
        days && self.fields[0].contains(&local.minute())
            && self.fields[1].contains(&local.hour())
            && self.fields[3].contains(&local.month())
    }

    /// Walks from minute to minute.
    fn times(&self, from_ms: i64, to_ms: i64) -> Vec<i64> {
        let local = |ms: i64| {
            DateTime::<Utc>::from_timestamp_millis(ms).unwrap().with_timezone(&self.zone).naive_local()
        };
        let mut found = Vec::new();
        // The latest local time that was seen before. Clocks that go back stay below it until they have caught up.
        let mut seen = local(from_ms - 48 * 60 * MINUTE_MS);
        let mut ms = from_ms - 48 * 60 * MINUTE_MS;
        while ms < to_ms {
            ms += MINUTE_MS;
            let now = local(ms);
            let mut fires = false;
            // Everything since: one minute, those that were left out, or none.
            while seen < now {
                seen += TimeDelta::minutes(1);
                fires |= self.fits(seen);
            }
            if fires && ms > from_ms {
                found.push(ms);
            }
        }
        found
    }
}

fn one_field(rng: &mut StdRng, low: u32, high: u32, names: &[&str]) -> String {
    let value = |rng: &mut StdRng| rng.gen_range(low..=high);
    let part = |rng: &mut StdRng| match rng.gen_range(0..7) {
        0 => "*".to_owned(),
        1 => format!("*/{}", rng.gen_range(1..=(high - low + 3))),
        2 if !names.is_empty() => (*names.choose(rng).unwrap()).to_owned(),
        3 => format!("{}/{}", value(rng), rng.gen_range(1..=high)),
        4 | 5 => {
            let (first, last) = (value(rng), value(rng));
            let range = format!("{}-{}", first.min(last), first.max(last));
            if rng.gen_bool(0.3) { format!("{range}/{}", rng.gen_range(1..=9)) } else { range }
        }
        _ => value(rng).to_string(),
    };
    let parts = if rng.gen_bool(0.25) { rng.gen_range(2..5) } else { 1 };
    (0..parts).map(|_| part(rng)).collect::<Vec<_>>().join(",")
}

fn expression(rng: &mut StdRng) -> String {
    let mut fields = [
        one_field(rng, 0, 59, &[]),
        one_field(rng, 0, 23, &[]),
        one_field(rng, 1, 31, &[]),
        one_field(rng, 1, 12, MONTHS),
        one_field(rng, 0, 6, DAYS),
    ];
    // Many expressions leave the days alone.
    for (at, chance) in [(2, 0.5), (3, 0.6), (4, 0.5)] {
        if rng.gen_bool(chance) {
            fields[at] = "*".into();
        }
    }
    fields.join(" ")
}

/// Compares so many random expressions over so many days, each in another zone and from another time on.
fn compare(seed: u64, expressions: usize, days: i64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut compared = 0;
    for number in 0..expressions {
        let (text, zone) = (expression(&mut rng), ZONES[number % ZONES.len()]);
        // 2005 to 2037: with the day that Apia left out, and with what the zones are said to do.
        let from = rng.gen_range(1_104_537_600..2_114_380_800_i64) * 1_000 / MINUTE_MS * MINUTE_MS
            + rng.gen_range(0..MINUTE_MS);
        let to = from + days * 86_400_000;
        let oracle = Oracle::new(&text, zone).times(from / MINUTE_MS * MINUTE_MS, to);
        let oracle: Vec<i64> = oracle.into_iter().filter(|ms| *ms > from && *ms <= to).collect();
        let found = match Cron::parse(&text, zone) {
            Ok(cron) => {
                let all = std::iter::successors(cron.next(from), |at| cron.next(*at));
                all.take_while(|ms| *ms <= to).collect()
            }
            Err(_) => vec![],
        };
        let differ = found.iter().zip(&oracle).position(|(one, other)| one != other);
        let place = differ.unwrap_or(found.len().min(oracle.len()));
        assert!(
            found == oracle,
            "`{text}` in {zone} after {}: found {:?}, expected {:?}",
            shown(&[from])[0],
            shown(&found[place..found.len().min(place + 3)]),
            shown(&oracle[place..oracle.len().min(place + 3)]),
        );
        compared += found.len();
    }
    assert!(compared > expressions, "most expressions come often: {compared}");
}

/// How many expressions a run compares, and over how many days: `CLAUDEMESH_TEST_CRON=10000x1100`.
fn amount() -> (usize, i64) {
    let given = std::env::var("CLAUDEMESH_TEST_CRON").unwrap_or_default();
    let (expressions, days) = given.split_once('x').unwrap_or(("150", "40"));
    (expressions.parse().unwrap(), days.parse().unwrap())
}

#[test]
fn random_expressions_come_when_a_look_at_every_minute_says_so() {
    let (expressions, days) = amount();
    compare(11, expressions, days);
}

#[test]
fn every_zone_is_right_around_its_changes_of_the_clock() {
    for zone in ZONES {
        for text in ["*/30 * * * *", "15 2 * * *", "0,20,40 0-3 * * *", "59 23 * * sun", "* 1 * * *"] {
            let cron = Cron::parse(text, zone).unwrap();
            // A year with both changes, for the zones that have some.
            let (from, to) = (at("2025-12-31T00:00:00Z"), at("2027-01-02T00:00:00Z"));
            let found: Vec<i64> = std::iter::successors(cron.next(from), |at| cron.next(*at)).take_while(|at| *at <= to).collect();
            assert!(found == Oracle::new(text, zone).times(from, to), "{text} in {zone}");
        }
    }
}

#[test]
fn a_missing_time_comes_at_the_first_minute_that_exists_and_a_doubled_one_once() {
    // In Berlin 2026-03-29 02:00 is 03:00, and 2026-10-25 03:00 is 02:00.
    let cron = Cron::parse("30 2 * * *", Tz::Europe__Berlin).unwrap();
    assert_eq!(
        shown(&cron.upcoming(at("2026-03-28T00:00:00Z"), 3)),
        ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"]
    );
    assert_eq!(
        shown(&cron.upcoming(at("2026-10-24T12:00:00Z"), 2)),
        ["2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"]
    );
    // Asked in the second of the two hours.
    assert_eq!(shown(&cron.upcoming(at("2026-10-25T01:15:00Z"), 1)), ["2026-10-26T01:30:00.000Z"]);
    // Several that are missing, and one that exists at the same minute, are one.
    let several = Cron::parse("0,15 2,3 * * *", Tz::Europe__Berlin).unwrap();
    assert_eq!(
        shown(&several.upcoming(at("2026-03-29T00:00:00Z"), 3)),
        ["2026-03-29T01:00:00.000Z", "2026-03-29T01:15:00.000Z", "2026-03-30T00:00:00.000Z"]
    );
    // Apia left out the whole 30th of December 2011.
    let noon = Cron::parse("0 12 30 12 *", Tz::Pacific__Apia).unwrap();
    assert_eq!(shown(&noon.upcoming(at("2011-12-29T00:00:00Z"), 1)), ["2011-12-30T10:00:00.000Z"]);
}

#[test]
fn days_are_those_of_posix() {
    let first = |text: &str| {
        let times = Cron::parse(text, Tz::UTC).unwrap().upcoming(at("2026-06-01T12:00:00Z"), 4);
        times.iter().map(|ms| claudemesh_protocol::time::iso(*ms)[5..10].to_owned()).collect::<Vec<_>>()
    };
    // 2026-06-01 is a Monday. Either field of days, when both are given.
    assert_eq!(first("0 0 13 * fri"), ["06-05", "06-12", "06-13", "06-19"]);
    assert_eq!(first("0 0 * * 0"), ["06-07", "06-14", "06-21", "06-28"]);
    assert_eq!(first("0 0 * * 7"), first("0 0 * * SUN"));
    assert_eq!(first("0 0 * * fri-sun"), ["06-05", "06-06", "06-07", "06-12"]);
    assert_eq!(first("0 0 * * 5-7"), first("0 0 * * fri-sun"));
    assert_eq!(first("0 0 */1 * 1"), ["06-08", "06-15", "06-22", "06-29"], "every day is no restriction");
    assert_eq!(first("0 0 31 * *"), ["07-31", "08-31", "10-31", "12-31"]);
    assert_eq!(first("@monthly"), ["07-01", "08-01", "09-01", "10-01"]);
    assert_eq!(first("@Weekly"), first("0 0 * * sun"));
    assert_eq!(first("0 0 30 feb mon"), ["02-01", "02-08", "02-15", "02-22"], "no 30th, but Mondays");
    let leap = Cron::parse("0 0 29 2 *", Tz::UTC).unwrap();
    assert_eq!(shown(&leap.upcoming(at("2026-06-01T12:00:00Z"), 2)), ["2028-02-29T00:00:00.000Z", "2032-02-29T00:00:00.000Z"]);
}

#[test]
fn what_never_comes_or_cannot_be_read_is_refused_with_the_reason() {
    for (text, reason) in [
        ("*/0 * * * *", "minute: `*/0`: a step of 0 never comes to an end"),
        ("0 0 30 2 *", "none of these months has such a day"),
        ("0 0 31 4,6,9,11 *", "none of these months has such a day"),
        ("30-10 * * * *", "minute: `30-10`: the range is reversed"),
        ("0 0 * * fri-mon", "day of week: `fri-mon`: the range is reversed"),
        ("61 * * * *", "minute: `61`: expected 0 to 59"),
        ("* 24 * * *", "hour: `24`: expected 0 to 23"),
        ("* * 0 * *", "day of month: `0`: expected 1 to 31"),
        ("* * * 13 *", "month: `13`: expected 1 to 12 or jan to dec"),
        ("* * * * 8", "day of week: `8`: expected 0 to 7 or sun to sat"),
        ("* * * foo *", "month: `foo`: expected 1 to 12 or jan to dec"),
        ("1,,2 * * * *", "minute: ``: expected 0 to 59"),
        ("+5 * * * *", "minute: `+5`: expected 0 to 59"),
        ("-5 * * * *", "minute: `-5`: expected 0 to 59"),
        ("5/x * * * *", "minute: `5/x`: expected a whole number as the step"),
        ("99999999999 * * * *", "minute: `99999999999`: expected 0 to 59"),
        ("* * * *", "expected five fields (minute, hour, day of month, month, day of week), got 4"),
        ("0 * * * * *", "expected five fields (minute, hour, day of month, month, day of week), got 6"),
        ("", "expected five fields (minute, hour, day of month, month, day of week), got 0"),
        (
            "@reboot",
            "expected five fields or one of @yearly @annually @monthly @weekly @daily @midnight @hourly",
        ),
        ("0 0 * *\n*", "expected at most 1024 characters in one line"),
    ] {
        assert_eq!(refused(text), reason, "{text}");
    }
    assert_eq!(refused(&"1,".repeat(600)), "expected at most 1024 characters in one line");
}

#[test]
fn the_longest_wait_is_found_at_once() {
    let rare = Cron::parse("59 23 29 2 *", Tz::Europe__Berlin).unwrap();
    assert_eq!(shown(&rare.upcoming(at("2096-03-01T00:00:00Z"), 1)), Vec::<String>::new(), "2100 is no leap year");
    assert_eq!(shown(&rare.upcoming(at("2026-03-01T00:00:00Z"), 1)), ["2028-02-29T22:59:00.000Z"]);
}

#[test]
fn zones_are_those_of_iana() {
    assert_eq!(zone("Europe/Berlin"), Some(Tz::Europe__Berlin));
    for bad in ["", "Mars/Phobos", "europe berlin", "+02:00", &"x".repeat(99)] {
        assert_eq!(zone(bad), None, "{bad}");
    }
}
