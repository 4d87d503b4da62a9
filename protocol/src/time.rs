//! Wire timestamps: ISO-8601 UTC with milliseconds, made without a clock and without a date library.

/// `2026-04-08T09:53:03.000Z` for Unix milliseconds. Years 0 to 9999; other values are clamped.
pub fn iso(ms: i64) -> String {
    let ms = ms.clamp(-62_167_219_200_000, 253_402_300_799_999);
    let days = ms.div_euclid(86_400_000);
    let rest = ms.rem_euclid(86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1_000 % 60, rest % 1_000);
    // By hand: every message carries one, and formatting costs more than the rest of writing it down.
    let mut text = *b"0000-00-00T00:00:00.000Z";
    for (number, range) in
        [(year, 0..4), (month, 5..7), (day, 8..10), (hour, 11..13), (minute, 14..16), (second, 17..19), (milli, 20..23)]
    {
        let mut rest = number;
        for digit in text[range].iter_mut().rev() {
            *digit += u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Unix milliseconds of the form that [`iso`] writes (milliseconds optional); `None` when it is anything else.
pub fn parse_iso(text: &str) -> Option<i64> {
    let body = text.strip_suffix('Z')?;
    let (date, clock) = body.split_once('T')?;
    let mut parts = date.splitn(3, '-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (hms, milli) = clock.split_once('.').unwrap_or((clock, "0"));
    // Digits are ASCII, so cutting them at three cannot split a symbol.
    digits(milli)?;
    let milli = digits(&format!("{milli:0<3}")[..3])?;
    let mut parts = hms.splitn(3, ':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60_000 + second * 1_000 + milli)
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

// Howard Hinnant's civil calendar algorithms: exact over the whole range and branch free.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let doe = shifted.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let mp = (month + 9) % 12;
    let doy = (153 * mp + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// By how much and which way a clock differs from the broker's, for who sent a time that is refused: `the clock of this client is
/// 10 min 3 s behind the broker's; at most 60 s are allowed`.
pub fn skew_words(theirs_ms: i64, broker_ms: i64) -> String {
    let seconds = broker_ms.saturating_sub(theirs_ms).unsigned_abs() / 1_000;
    let way = if theirs_ms < broker_ms { "behind" } else { "ahead of" };
    let amount = match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    };
    let allowed = crate::limits::MAX_CLOCK_SKEW_MS / 1_000;
    format!("the clock of this client is {amount} {way} the broker's; at most {allowed} s are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skew_says_how_much_and_which_way() {
        let words = |theirs: i64, broker: i64| skew_words(theirs * 1_000, broker * 1_000);
        assert_eq!(
            words(0, 603),
            "the clock of this client is 10 min 3 s behind the broker's; at most 60 s are allowed"
        );
        assert!(words(61, 0).contains("is 1 min 1 s ahead of the broker's"));
        assert!(words(0, 7_260).contains("is 2 h 1 min behind"));
        assert!(words(90_000, 0).contains("is 1 d 1 h ahead of"));
        assert!(skew_words(i64::MIN, i64::MAX).contains("behind"));
    }

    #[test]
    fn iso_writes_known_instants() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(1_775_641_983_000), "2026-04-08T09:53:03.000Z");
        assert_eq!(iso(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(iso(-1), "1969-12-31T23:59:59.999Z");
    }

    proptest::proptest! {
        #[test]
        fn iso_round_trips(ms in -62_167_219_200_000i64..253_402_300_799_999) {
            proptest::prop_assert_eq!(parse_iso(&iso(ms)), Some(ms));
        }

        #[test]
        fn parse_iso_never_panics(text in ".{0,40}", fraction in "\\PC{0,6}") {
            let _ = parse_iso(&text);
            let _ = parse_iso(&format!("2026-01-01T00:00:00.{fraction}Z"));
        }
    }
}
