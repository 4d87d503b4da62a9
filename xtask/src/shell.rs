//! Running commands: where we are, how long a phase took, and what a failure says.

use std::env;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

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

    /// A binary of the workspace in the given profile folder (`debug`, `release`).
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
    let status = command.status().with_context(|| format!("starting {}", show(command)))?;
    if !status.success() {
        bail!("{status}: {}", show(command));
    }
    Ok(())
}

/// Runs quietly; its output appears only when it fails.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_quiet(command: &mut Command) -> Result<String> {
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
