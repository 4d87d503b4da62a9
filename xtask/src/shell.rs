//! Running commands: where we are, how long a phase took, and what a failure says.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::child::die_with_us;

/// The repository and its build folder.
pub(crate) struct Shell {
    /// Root of the repository.
    pub(crate) root: PathBuf,
    /// Cargo's target folder, also the home of downloaded test clients.
    pub(crate) target: PathBuf,
}

impl Shell {
    /// Finds the repository from the place this program was built at.
    pub(crate) fn new() -> Result<Self> {
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest.parent().context("xtask has a parent folder")?.to_owned();
        let metadata = Command::new(cargo_bin())
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(&root)
            .output()
            .context("running cargo metadata")?;
        if !metadata.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&metadata.stderr));
        }
        let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).context("reading cargo metadata")?;
        let target = metadata["target_directory"].as_str().context("cargo metadata has no target_directory")?;
        Ok(Self { root, target: target.into() })
    }

    /// `cargo <args>` in the root.
    pub(crate) fn cargo<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(cargo_bin());
        command.args(args).current_dir(&self.root);
        // What `cargo run` told us about xtask must not reach the builds we start.
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                command.env_remove(name);
            }
        }
        command
    }

    /// A binary of the workspace in the given profile folder (`debug`, `release`, `dist`).
    pub(crate) fn binary(&self, profile: &str, name: &str) -> PathBuf {
        self.target.join(profile).join(name)
    }
}

/// Runs to the end with our own stdout and stderr.
///
/// # Errors
/// It cannot be started or its status is not 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("   $ {}", show(command));
    die_with_us(command, libc::SIGTERM);
    let status = command.status().with_context(|| format!("starting {}", show(command)))?;
    if !status.success() {
        bail!("{status}: {}", show(command));
    }
    Ok(())
}

/// Runs as [`run`] does and keeps the lines in which a test runner sums up.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_watched(command: &mut Command, results: &mut Vec<String>) -> Result<()> {
    eprintln!("   $ {}", show(command));
    die_with_us(command, libc::SIGTERM);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {}", show(command)))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let seen = thread::scope(|scope| {
        let err = scope.spawn(move || err.map_or_else(Vec::new, |pipe| pass_on(pipe, std::io::stderr())));
        let mut seen = out.map_or_else(Vec::new, |pipe| pass_on(pipe, std::io::stdout()));
        seen.extend(err.join().unwrap_or_default());
        seen
    });
    results.extend(seen);
    let status = child.wait()?;
    if !status.success() {
        bail!("{status}: {}", show(command));
    }
    Ok(())
}

/// Copies line by line; answers the lines that sum up.
fn pass_on(from: impl Read, mut to: impl Write) -> Vec<String> {
    let mut from = BufReader::new(from);
    let (mut seen, mut line) = (vec![], vec![]);
    while from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        // A terminal that went away is no reason to stop reading: the child would wait.
        to.write_all(&line).and_then(|()| to.flush()).ok();
        let text = String::from_utf8_lossy(&line);
        if is_result(&text) {
            seen.push(text.trim_end().to_owned());
        }
        line.clear();
    }
    seen
}

/// Whether a test runner sums up in this line: cargo's own, or nextest.
pub(crate) fn is_result(line: &str) -> bool {
    line.starts_with("test result: ") || (line.contains("Summary") && line.contains("tests run: "))
}

/// Runs quietly; its output appears only when it fails.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_quiet(command: &mut Command) -> Result<String> {
    die_with_us(command, libc::SIGTERM);
    let output = command.output().with_context(|| format!("starting {}", show(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{}: {}\n{stdout}{}", output.status, show(command), String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}

/// Announces a phase, runs it and prints how long it took.
///
/// # Errors
/// Those of the phase, with its name.
pub(crate) fn phase<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("== {name}");
    let start = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("== {name}: {verdict} in {:.1} s", start.elapsed().as_secs_f64());
    std::io::stderr().flush().ok();
    result.with_context(|| format!("in phase `{name}`"))
}

/// The first folder of `PATH` (and of the places Debian keeps administration tools) that has the program.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Whether nothing may be skipped.
pub(crate) fn strict() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

fn cargo_bin() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_both_runners_are_kept() {
        let text = "running 2 tests\ntest a ... ok\ntest result: ok. 2 passed; 0 failed; finished in 0.01s\n\
                    \n     Summary [   1.234s] 2 tests run: 2 passed, 1 skipped";
        let mut out = vec![];
        let seen = pass_on(text.as_bytes(), &mut out);
        assert_eq!(out, text.as_bytes());
        assert_eq!(
            seen,
            [
                "test result: ok. 2 passed; 0 failed; finished in 0.01s",
                "     Summary [   1.234s] 2 tests run: 2 passed, 1 skipped"
            ]
        );
    }

    #[test]
    fn a_watched_command_fails_with_its_results_kept() {
        let mut results = vec![];
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: FAILED. 1 passed; 1 failed'; echo other >&2; exit 3"]);
        let error = run_watched(&mut command, &mut results).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert_eq!(results, ["test result: FAILED. 1 passed; 1 failed"]);
    }
}
