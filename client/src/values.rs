//! Values of flags that are more than a word: groups, times.

use std::time::Duration;

/// Longest time: an invite may be open for a year, and nothing else comes near it.
const LONGEST: Duration = Duration::from_secs(claudemesh_protocol::limits::MAX_INVITE_DAYS * 86_400);

/// A parsed list of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(pub Vec<claudemesh_protocol::features::groups::Group>);

/// Reads `name:role,name2` (an `@` before a name is dropped).
///
/// # Errors
/// What is wrong, for clap.
pub fn parse_groups(text: &str) -> Result<Groups, String> {
    let mut groups = vec![];
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, role) = part.split_once(':').map_or((part, None), |(name, role)| (name, Some(role.trim())));
        let name = name.trim().trim_start_matches('@');
        let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if name.is_empty() || !name.chars().all(fine) {
            return Err(format!("'{name}' is not a group name: letters, digits, '-', '_', '.' and '/' are allowed"));
        }
        let role = role.filter(|role| !role.is_empty()).map(str::to_owned);
        groups.push(claudemesh_protocol::features::groups::Group { name: name.to_owned(), role });
    }
    Ok(Groups(groups))
}

/// Bounds of times on the command line. Invites end at a whole second and the silence of a peer counts in milliseconds, so what
/// is shorter than a second would act like 0 there: an invite that no one can use, `kick --stale` for everyone.
const SHORTEST: Duration = Duration::from_secs(1);

/// Reads a number with `s`, `m`, `h` or `d` (seconds without a unit), from a second to 366 days.
///
/// # Errors
/// What is wrong, for clap.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" | "hr" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" => 604_800.0,
        _ if digits.trim().parse::<f64>().is_err() => {
            return Err(format!("'{text}' is not a length of time: expected a number and s, m, h or d, such as 30m"));
        }
        unit => return Err(format!("'{unit}' is not a unit of time: s, m, h or d")),
    };
    let number: f64 =
        digits.trim().parse().map_err(|_| format!("'{text}' is not a time: expected for example 30m or 7d"))?;
    // The bounds hold for what is used, which is rounded to nanoseconds.
    Duration::try_from_secs_f64(number * factor).ok().filter(|time| (SHORTEST..=LONGEST).contains(time)).ok_or_else(
        || format!("'{text}' is out of range: at least a second and at most {} days", LONGEST.as_secs() / 86_400),
    )
}

/// Reads a moment in Unix milliseconds: a time ago (`7d`), a date (`2026-11-28`, its beginning in UTC), or a whole ISO time.
///
/// # Errors
/// What is wrong, for clap.
pub(crate) fn parse_moment(text: &str) -> Result<i64, String> {
    let text = text.trim();
    if let Ok(ago) = parse_duration(text) {
        return Ok(crate::clock::now_ms().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)));
    }
    let whole = if text.len() == "2026-11-28".len() { format!("{text}T00:00:00.000Z") } else { text.to_owned() };
    claudemesh_protocol::time::parse_iso(&whole)
        .ok_or_else(|| format!("'{text}' is not a time: expected for example 7d, 2026-11-28 or 2026-11-28T09:00:00Z"))
}

/// Reads how many seconds to wait for an answer: 1 to 600, as anyone who waits takes less for 1.
///
/// # Errors
/// What is wrong, for clap.
pub(crate) fn parse_wait(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (1.0..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("'{text}' is not a number of seconds from 1 to 600")),
    }
}

/// Reads a number of seconds up to a day; 0 waits for nothing.
///
/// # Errors
/// What is wrong, for clap.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("'{text}' is not a number of seconds from 0 to 86400")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(parse_duration("1s"), Ok(SHORTEST));
        assert_eq!(parse_duration("366d"), Ok(LONGEST));
        assert!(parse_duration("3650d").unwrap_err().contains("at most 366 days"));
        for bad in ["", "x", "-1s", "0", "5y", "1e9d", "NaN", "inf", "367d", "366.001d", "0.0000000000006"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_rounds_to_nothing_is_out_of_range() {
        let tiny = format!(".{}6", "0".repeat(30));
        for bad in [tiny.as_str(), "1e-300d", "0.0004s", "0.9"] {
            let said = parse_duration(bad).unwrap_err();
            assert_eq!(said, format!("'{bad}' is out of range: at least a second and at most 366 days"));
            assert!(parse_wait(bad.trim_end_matches(['s', 'd'])).is_err(), "{bad}");
        }
        assert_eq!(parse_wait("1"), Ok(1.0));
        assert_eq!(parse_wait("600"), Ok(600.0));
        for bad in ["600.1", "NaN", "inf", "-1"] {
            assert!(parse_wait(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_have_optional_roles() {
        let groups = parse_groups("@front:lead, qa/load,").unwrap().0;
        assert_eq!(groups[0].name, "front");
        assert_eq!(groups[0].role.as_deref(), Some("lead"));
        assert_eq!((groups[1].name.as_str(), &groups[1].role), ("qa/load", &None));
        assert!(parse_groups("a b").is_err());
    }

    #[test]
    fn a_moment_is_a_time_ago_a_date_or_a_whole_time() {
        assert_eq!(parse_moment("2026-04-08"), Ok(1_775_606_400_000));
        assert_eq!(parse_moment("2026-04-08T09:53:03Z"), Ok(1_775_641_983_000));
        // The moment is read first: now may be a millisecond later than the time it was taken from, never earlier.
        let moment = parse_moment("1h").unwrap();
        let ago = crate::clock::now_ms() - moment;
        assert!((3_600_000..3_660_000).contains(&ago), "{ago}");
        for wrong in ["", "yesterday", "2026-13-01", "2026-11-28T09:00", "400d"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsers_never_panic(text in ".{0,30}") {
            let _ = (parse_duration(&text), parse_groups(&text), parse_seconds(&text), parse_moment(&text));
        }
    }
}
