//! Whether this program and a broker are of the same release.

/// Says so when the broker is of another release than this program: another major or minor version. `None` for one of the same
/// release, and for a broker that tells no version.
pub fn hint(broker: Option<&str>) -> Option<String> {
    between(env!("CARGO_PKG_VERSION"), broker?)
}

fn between(own: &str, broker: &str) -> Option<String> {
    let (mine, theirs) = (release(own)?, release(broker)?);
    let older = match mine.cmp(&theirs) {
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Less => "Update claudemesh on this machine",
        std::cmp::Ordering::Greater => "Ask the person who runs the broker to update it",
    };
    Some(format!(
        "the broker has version {}.{}, and this claudemesh has {}.{}: what only one of them knows does not work. {older}.",
        theirs.0, theirs.1, mine.0, mine.1
    ))
}

/// Major and minor version. What a broker says is not trusted: only numbers are read.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_minor_version_is_told_with_what_to_do() {
        assert_eq!(between("0.1.0", "0.1.9"), None, "fixes only");
        let newer = between("0.1.0", "0.2.0").unwrap();
        assert!(
            newer.contains("broker has version 0.2") && newer.contains("Update claudemesh on this machine"),
            "{newer}"
        );
        let older = between("1.0.0", "0.9.1-rc.1").unwrap();
        assert!(older.contains("broker has version 0.9") && older.contains("runs the broker"), "{older}");
        assert_eq!(between("0.1.0", "\u{1b}[2J"), None);
        assert_eq!(between("0.10.0", "0.9.0").map(|text| text.contains("runs the broker")), Some(true), "as numbers");
        assert_eq!(hint(None), None);
        assert_eq!(hint(Some(env!("CARGO_PKG_VERSION"))), None);
    }
}
