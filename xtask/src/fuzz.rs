//! Coverage-guided fuzzing with the stable toolchain.
//!
//! `libfuzzer-sys` needs only the compiler's coverage instrumentation, which stable rustc has as an LLVM pass; no
//! sanitizer is used, so no nightly is needed. What is found here is open-ended; the tests replay the committed seeds and a
//! fixed number of inputs made from them (`protocol/fuzz/replay.rs`).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell::{self, Shell, phase, strict, which};

/// Arguments of `fuzz`.
#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target
    #[arg(long)]
    target: Option<String>,
}

const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions";

/// Packages with targets. The second links client and broker, so it takes longer to build.
const PACKAGES: [&str; 2] = ["protocol/fuzz", "client/fuzz"];

/// Builds the targets, then runs each with the committed seeds; an input that breaks a promise becomes a seed itself, so that
/// the tests fail until it is fixed, and hold it fast afterwards.
///
/// # Errors
/// The build failed, no target has the wished name, or an input made a target panic.
pub(crate) fn run(shell: &Shell, args: &FuzzArgs) -> Result<()> {
    // An explicit --target keeps the flags away from build scripts and proc macros.
    let triple = host_triple()?;
    let out = shell.target.join("fuzz");
    let mut runs = 0;
    for package in PACKAGES {
        let folder = shell.root.join(package);
        let targets = targets(&folder, args.target.as_deref())?;
        if targets.is_empty() {
            continue;
        }
        phase(&format!("fuzz build {package}"), || {
            let manifest = folder.join("Cargo.toml");
            let mut command = shell.cargo(["build", "--release", "--target", &triple, "--manifest-path"]);
            shell::run(command.arg(manifest).arg("--target-dir").arg(&out).env("RUSTFLAGS", COVERAGE))
        })?;
        for name in &targets {
            let program = out.join(&triple).join("release").join(name);
            phase(&format!("fuzz {name}"), || fuzz(&program, name, &folder.join("seeds").join(name), &out, args))?;
            runs += 1;
        }
    }
    if runs == 0 {
        bail!("no fuzz target is called {}", args.target.as_deref().unwrap_or_default());
    }
    Ok(())
}

/// Compiles the targets as they are, without instrumentation; says so where the runtime, which is C++, cannot be built.
///
/// # Errors
/// A target does not compile.
pub(crate) fn check(shell: &Shell) -> Result<()> {
    if !["c++", "g++", "clang++"].iter().any(|name| which(name).is_some()) {
        if strict() {
            bail!("no C++ compiler, and nothing may be skipped with CI=true; on Debian: apt-get install g++");
        }
        eprintln!("   SKIPPING: no C++ compiler; on Debian: apt-get install g++");
        return Ok(());
    }
    for package in PACKAGES {
        let manifest = shell.root.join(package).join("Cargo.toml");
        let mut command = shell.cargo(["check", "--bins", "--target-dir"]);
        shell::run(command.arg(shell.target.join("fuzz")).arg("--manifest-path").arg(manifest))?;
    }
    Ok(())
}

/// Names of a package's targets, in order.
fn targets(folder: &Path, only: Option<&str>) -> Result<Vec<String>> {
    let folder = folder.join("fuzz_targets");
    let mut targets: Vec<String> = fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .filter(|name| only.is_none_or(|only| only == name))
        .collect();
    targets.sort();
    Ok(targets)
}

/// Runs one target for its time over its seeds and what earlier runs have found.
fn fuzz(program: &Path, name: &str, seeds: &Path, out: &Path, args: &FuzzArgs) -> Result<()> {
    let corpus = out.join("corpus").join(name);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(seeds)?;
    let mut command = Command::new(program);
    command.arg(format!("-max_total_time={}", args.seconds));
    command.arg(format!("-artifact_prefix={}/found-", seeds.display()));
    command.args(["-timeout=5", "-rss_limit_mb=1024", "-max_len=8192", "-print_final_stats=1", "-verbosity=0"]);
    command.arg(corpus).arg(seeds);
    let report = command.output().with_context(|| format!("starting the fuzz target {name}"))?;
    let text = String::from_utf8_lossy(&report.stderr);
    if !report.status.success() {
        bail!("{}: a finding is in {}; fix it and commit both\n{text}", report.status, seeds.display());
    }
    for line in text.lines().filter(|line| line.contains("number_of_executed_units")) {
        eprintln!("   {line}");
    }
    Ok(())
}

fn host_triple() -> Result<String> {
    let version = shell::run_quiet(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
