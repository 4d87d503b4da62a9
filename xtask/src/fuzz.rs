//! Coverage-guided fuzzing with the stable toolchain.
//!
//! `libfuzzer-sys` needs only the compiler's coverage instrumentation, which stable rustc has as an LLVM pass; no
//! sanitizer is used, so no nightly is needed.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell::{self, Shell, phase};

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

impl FuzzArgs {
    /// Every target for that long.
    pub(crate) fn seconds(seconds: u32) -> Self {
        Self { seconds, target: None }
    }
}

const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code -Cdebug-assertions";

/// Builds the targets, then runs each with the committed seeds; what it finds lands in `<target>/fuzz/artifacts`.
///
/// # Errors
/// The build failed, or an input made a target panic.
pub(crate) fn run(shell: &Shell, args: &FuzzArgs) -> Result<()> {
    let folder = shell.root.join("protocol/fuzz");
    let out = shell.target.join("fuzz");
    // An explicit --target keeps the flags away from build scripts and proc macros.
    let triple = host_triple()?;
    phase("fuzz build", || {
        let manifest = folder.join("Cargo.toml");
        let mut command = shell.cargo(["build", "--release", "--target", &triple, "--manifest-path"]);
        shell::run(command.arg(manifest).arg("--target-dir").arg(&out).env("RUSTFLAGS", COVERAGE))
    })?;
    let mut targets: Vec<String> = fs::read_dir(folder.join("fuzz_targets"))
        .context("reading protocol/fuzz/fuzz_targets")?
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .filter(|name| args.target.as_ref().is_none_or(|only| only == name))
        .collect();
    targets.sort();
    for name in targets {
        phase(&format!("fuzz {name}"), || {
            let corpus = out.join("corpus").join(&name);
            let artifacts = out.join("artifacts");
            fs::create_dir_all(&corpus)?;
            fs::create_dir_all(&artifacts)?;
            let mut command = std::process::Command::new(out.join(&triple).join("release").join(&name));
            command.arg(format!("-max_total_time={}", args.seconds));
            command.arg(format!("-artifact_prefix={}/{name}-", artifacts.display()));
            command.args(["-timeout=5", "-rss_limit_mb=1024", "-max_len=8192", "-print_final_stats=1", "-verbosity=0"]);
            command.arg(corpus);
            let seeds = folder.join("seeds").join(&name);
            if seeds.is_dir() {
                command.arg(seeds);
            }
            let report = command.output().with_context(|| format!("starting the fuzz target {name}"))?;
            let text = String::from_utf8_lossy(&report.stderr);
            if !report.status.success() {
                bail!("{}: a finding is in {}\n{text}", report.status, artifacts.display());
            }
            for line in text.lines().filter(|line| line.contains("number_of_executed_units")) {
                eprintln!("   {line}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn host_triple() -> Result<String> {
    let version = shell::run_quiet(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
