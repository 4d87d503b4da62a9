//! Programs of the machine that some tests start, and what happens where they are missing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where programs lie that are not in everyone's `PATH`.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// Whether nothing may be left out, because `CI=true`.
pub fn strict() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1")
}

/// A program that is installed here, or that `CLAUDEMESH_TEST_<NAME>` names. `None` where it is missing: the test says so and shows nothing.
///
/// # Panics
/// With `CI=true` when the program is missing: `cargo xtask setup` installs it.
pub fn installed(name: &str, package: &str) -> Option<PathBuf> {
    let variable = format!("CLAUDEMESH_TEST_{}", name.to_uppercase().replace('-', "_"));
    let found = find(name, std::env::var_os(variable));
    if found.is_none() {
        let message = missing(name, package, strict());
        assert!(!strict(), "{message}");
        eprintln!("{message}");
    }
    found
}

fn find(name: &str, named: Option<OsString>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    let anywhere = std::env::split_paths(&path).map(|folder| folder.join(name)).chain(usual);
    match named {
        Some(named) => Some(PathBuf::from(named)).filter(|path| path.is_file()),
        None => anywhere.into_iter().find(|path| path.is_file()),
    }
}

fn missing(name: &str, package: &str, strict: bool) -> String {
    let word = if strict { "nothing may be left out with CI=true" } else { "NOT SHOWN" };
    format!("{word}: {name} is missing; `cargo xtask setup` installs it (Debian: apt-get install {package})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name_or_where_the_variable_says() {
        let shell = find("sh", None).expect("every machine has a shell");
        assert!(shell.ends_with("sh"));
        assert_eq!(find("no-such-program", Some(shell.clone().into())), Some(shell));
        assert_eq!(find("sh", Some("/nowhere/sh".into())), None, "a variable that is wrong is not passed over");
        assert_eq!(find("no-such-program", None), None);
        assert!(missing("caddy", "caddy", true).contains("apt-get install caddy"));
    }
}
