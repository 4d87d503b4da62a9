//! What [`Cron`] finds, compared with an oracle that looks at every minute and knows neither the crate nor our parser's lists.

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
    /// Whether a value is in the field.
    fields: Vec<[bool; 64]>,
    any_day: bool,
    any_weekday: bool,
}

impl Oracle {
    fn new(expression: &str) -> Self {
        let fields: Vec<&str> = expression.split(' ').collect();
        let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
        let mut sets = Vec::new();
        for (text, (low, high)) in fields.iter().zip(bounds) {
            let mut set = [false; 64];
            for part in text.split(',') {
                let (range, step) =
                    part.split_once('/').map_or((part, 1), |(range, step)| (range, step.parse().unwrap()));
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
                    set[(if high == 6 { value % 7 } else { value }) as usize] = true;
                    value += step;
                }
            }
            sets.push(set);
        }
        let any = |text: &str| text == "*" || text == "*/1";
        Self { fields: sets, any_day: any(fields[2]), any_weekday: any(fields[4]) }
    }

    fn fits(&self, [day, month, weekday]: [u8; 3]) -> bool {
        let (of_month, of_week) = (self.fields[2][day as usize], self.fields[4][weekday as usize]);
        let days = match (self.any_day, self.any_weekday) {
            (true, true) => true,
            (true, false) => of_week,
            (false, true) => of_month,
            (false, false) => of_month || of_week,
        };
        days && self.fields[3][month as usize]
    }

    /// Looks at every minute that shows a fitting time of the day.
    fn times(&self, calendar: &Calendar) -> Vec<i64> {
        let mut found = Vec::new();
        for (of_day, shown) in calendar.minutes.iter().enumerate() {
            if self.fields[0][of_day % 60] && self.fields[1][of_day / 60] {
                let fitting = shown.iter().filter(|(_, date)| self.fits(*date));
                found.extend(fitting.map(|(at, _)| calendar.from_ms + i64::from(*at) * MINUTE_MS));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Every minute that a clock in a zone shows within some days, with the minute of UTC at which it comes: itself, for one that the clock
/// leaves out the first that exists, and for one that it shows twice the first.
struct Calendar {
    from_ms: i64,
    to_ms: i64,
    /// By the minute of the day: the minute of UTC, and day, month and weekday.
    minutes: Vec<Vec<(u32, [u8; 3])>>,
}

impl Calendar {
    fn new(zone: Tz, from_ms: i64, days: i64) -> Self {
        let local = |ms: i64| DateTime::<Utc>::from_timestamp_millis(ms).unwrap().with_timezone(&zone).naive_local();
        let mut minutes = vec![Vec::new(); 24 * 60];
        // The latest that was shown. A clock that goes back stays below it until it has caught up.
        let mut shown = local(from_ms - MINUTE_MS);
        let count = u32::try_from(days * 24 * 60).unwrap();
        for at in 0..count {
            let now = local(from_ms + i64::from(at) * MINUTE_MS);
            while shown < now {
                shown += TimeDelta::minutes(1);
                let date = [shown.day(), shown.month(), shown.weekday().num_days_from_sunday()];
                let of_day = (shown.hour() * 60 + shown.minute()) as usize;
                minutes[of_day].push((at, date.map(|field| u8::try_from(field).unwrap())));
            }
        }
        Self { from_ms, to_ms: from_ms + i64::from(count) * MINUTE_MS, minutes }
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

/// Times that are compared from each of some places on.
const COMPARED: usize = 200;
const PLACES: usize = 5;

/// Compares so many random expressions in each zone, over so many days.
fn compare(seed: u64, expressions: usize, days: i64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut compared = 0;
    for zone in ZONES {
        // 2005 to 2037: with the day that Apia left out, and with what the zones are said to do.
        let minute = rng.gen_range(18_408_960..35_239_680_i64);
        let calendar = Calendar::new(zone, minute * MINUTE_MS, days);
        for _ in 0..expressions {
            let text = expression(&mut rng);
            let all = Oracle::new(&text).times(&calendar);
            for _ in 0..PLACES {
                // Two days from its beginning: the clock may have been set back just before it.
                let after = rng.gen_range(calendar.from_ms + 2 * 86_400_000..calendar.to_ms);
                let expected: Vec<i64> = all.iter().copied().filter(|at| *at > after).take(COMPARED).collect();
                let found: Vec<i64> = match Cron::parse(&text, zone) {
                    Ok(cron) => {
                        let times = std::iter::successors(cron.next(after), |at| cron.next(*at));
                        times.take_while(|at| *at < calendar.to_ms).take(COMPARED).collect()
                    }
                    Err(_) => vec![],
                };
                let at = found.iter().zip(&expected).position(|(one, other)| one != other);
                let at = at.unwrap_or(found.len().min(expected.len()));
                let (one, other) = (found.iter().skip(at).take(3), expected.iter().skip(at).take(3));
                let (one, other): (Vec<i64>, Vec<i64>) = (one.copied().collect(), other.copied().collect());
                assert!(
                    found == expected,
                    "`{text}` in {zone} after {:?}: {:?} is not {:?}",
                    shown(&[after]),
                    shown(&one),
                    shown(&other)
                );
                compared += found.len();
            }
        }
    }
    assert!(compared > expressions * ZONES.len() * PLACES, "most expressions come often: {compared}");
}

#[test]
fn random_expressions_come_when_a_look_at_every_minute_says_so() {
    compare(11, 12, 400);
}

/// Run by hand: `cargo test -p claudemesh-broker --lib ten_thousand_expressions -- --ignored`. `CLAUDEMESH_TEST_SEED` chooses others.
#[test]
#[ignore = "looks at 15 thousand million minutes, which takes minutes; run it when cron.rs or its crates change"]
fn ten_thousand_expressions_come_at_their_times_over_three_years() {
    let seed = std::env::var("CLAUDEMESH_TEST_SEED").map_or(29, |seed| seed.parse().unwrap());
    compare(seed, 10_008 / ZONES.len(), 3 * 366);
}

#[test]
fn every_zone_is_right_around_its_changes_of_the_clock() {
    for zone in ZONES {
        // A year, with both changes for the zones that have some.
        let calendar = Calendar::new(zone, at("2025-12-31T00:00:00Z"), 370);
        for text in ["*/30 * * * *", "15 2 * * *", "0,20,40 0-3 * * *", "59 23 * * sun", "* 1 * * *"] {
            let cron = Cron::parse(text, zone).unwrap();
            let times = std::iter::successors(cron.next(calendar.from_ms - 1), |at| cron.next(*at));
            let found: Vec<i64> = times.take_while(|at| *at < calendar.to_ms).collect();
            assert!(found == Oracle::new(text).times(&calendar), "{text} in {zone}");
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
    assert_eq!(
        shown(&leap.upcoming(at("2026-06-01T12:00:00Z"), 2)),
        ["2028-02-29T00:00:00.000Z", "2032-02-29T00:00:00.000Z"]
    );
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
        ("@reboot", "expected five fields or one of @yearly @annually @monthly @weekly @daily @midnight @hourly"),
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
