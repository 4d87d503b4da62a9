//! The oldest glibc that a program starts with: the newest symbol that it asks for.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// A version of glibc.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

/// What docs/install.md promises: Debian 12, Ubuntu 22.04, RHEL 9 and later. Built on such a system, the programs need 2.34;
/// a build machine with an older glibc makes programs that need less.
pub(super) const OLDEST: Version = Version(2, 34);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// What a program needs.
///
/// # Errors
/// `objdump` is missing, or the program is none.
pub(super) fn needed(program: &Path) -> Result<Version> {
    let table = shell::run_quiet(Command::new("objdump").arg("-T").arg(program))?;
    newest(&table).with_context(|| format!("{} names no symbol of glibc", program.display()))
}

fn newest(table: &str) -> Option<Version> {
    let versions = table.split("GLIBC_").skip(1).filter_map(|rest| {
        let text = rest.split(|end: char| !end.is_ascii_digit() && end != '.').next()?;
        let mut parts = text.split('.').map(str::parse);
        Some(Version(parts.next()?.ok()?, parts.next()?.ok()?))
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_counts() {
        let table = "0000 DF *UND* 0000 (GLIBC_2.2.5) read\n0000 DF *UND* 0000 (GLIBC_2.34) __libc_start_main\n\
                     0000 DF *UND* 0000 (GLIBC_2.9) pipe2\n0000 DF *UND* 0000 (GCC_3.0) _Unwind_Resume\n";
        assert_eq!(newest(table), Some(Version(2, 34)));
        assert!(Version(2, 34) > Version(2, 9) && Version(2, 36) > OLDEST);
        assert_eq!(newest("nothing"), None);
    }
}
