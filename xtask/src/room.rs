//! Whether the disk has room for what the tests build: a compiler that runs out of it says so in a thousand lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// What a first `cargo xtask test` leaves in the build folder and in the temporary folder at its largest.
const NEEDED_GB: u64 = 14;
const GB: u64 = 1_000_000_000;

/// Refuses to begin what cannot end.
///
/// # Errors
/// There is less room than is needed beside what was built before.
pub(crate) fn check(target: &Path) -> Result<()> {
    let Some(free) = free_bytes(target) else { return Ok(()) };
    let missing = (NEEDED_GB * GB).saturating_sub(free + built_bytes(target));
    if missing > 0 {
        bail!(
            "the tests need some {NEEDED_GB} GB on the disk of {}: {:.1} GB are free, {:.1} GB more are needed",
            target.display(),
            free as f64 / GB as f64,
            missing as f64 / GB as f64
        );
    }
    Ok(())
}

/// Free bytes of the disk on which a folder is or will be; `None` when this system's `df` does not tell.
fn free_bytes(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|folder| folder.exists())?;
    let output = Command::new("df").arg("-Pk").arg(there).output().ok()?;
    available(&String::from_utf8_lossy(&output.stdout))
}

/// The fourth column of the second line, as POSIX has it, in kibibytes.
fn available(report: &str) -> Option<u64> {
    report.lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Bytes that an earlier run left; they are used again.
fn built_bytes(target: &Path) -> u64 {
    let (mut bytes, mut folders) = (0, vec![PathBuf::from(target)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => bytes += found.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_read_as_posix_prints_it() {
        let report = "Filesystem     1024-blocks      Used Available Capacity Mounted on\n\
                      /dev/vda         263174212 182000000  26000000      88% /\n";
        assert_eq!(available(report), Some(26_000_000 * 1024));
        assert_eq!(available("df: no such file\n"), None);
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(&folder.path().join("not/there/yet")).is_some_and(|free| free > 0));
    }

    #[test]
    fn what_was_built_counts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("debug/deps")).unwrap();
        std::fs::write(folder.path().join("debug/deps/one.rlib"), vec![0; 5_000]).unwrap();
        std::fs::write(folder.path().join("two"), vec![0; 10]).unwrap();
        assert_eq!(built_bytes(folder.path()), 5_010);
    }
}
