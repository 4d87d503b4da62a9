//! `cargo xtask bench` and `cargo xtask torture`: build, then hand over to the load generator.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::shell::{self, Shell, phase};

/// Arguments of `bench`.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Only these scenarios (relay, direct, away, paced, flood, state, recall, publish, claims, kept, due, broadcast, stuck, idle, client, shell)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Idle connections
    #[arg(long, default_value_t = 10_000)]
    connections: u32,
    /// Writes the figures as JSON, too
    #[arg(long)]
    json: Option<std::path::PathBuf>,
    /// Measures the binaries that are there instead of building them
    #[arg(long)]
    no_build: bool,
}

/// Arguments of `torture`.
#[derive(Args)]
pub(crate) struct TortureArgs {
    /// Rounds of kill and restart
    #[arg(long, default_value_t = 50)]
    runs: u32,
    /// Repeats the kill times of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// With a release build
    #[arg(long)]
    release: bool,
}

/// The profile of what is handed on; `release` is quicker to build and slower to run.
const PROFILE: &str = "dist";

/// Measures what is handed on.
///
/// # Errors
/// The build or a scenario failed (a missed target is printed, not an error).
pub(crate) fn run(shell: &Shell, args: &BenchArgs) -> Result<()> {
    if !args.no_build {
        phase(&format!("build with profile {PROFILE}"), || {
            let packages = ["-p", "claudemesh-broker", "-p", "claudemesh", "-p", "claudemesh-testkit"];
            shell::run(shell.cargo(["build", "--profile", PROFILE, "--bins"]).args(packages))
        })?;
    }
    phase(&format!("bench of profile {PROFILE}"), || {
        let mut command = Command::new(shell.binary(PROFILE, "claudemesh-load"));
        command.arg("bench").arg("--broker-bin").arg(shell.binary(PROFILE, "claudemesh-broker"));
        command.arg("--client-bin").arg(shell.binary(PROFILE, "claudemesh"));
        command.args(["--connections", &args.connections.to_string()]);
        if !args.only.is_empty() {
            command.args(["--only", &args.only.join(",")]);
        }
        if let Some(file) = &args.json {
            command.arg("--json").arg(file);
        }
        shell::run(&mut command)
    })
}

/// Kills and restarts the broker.
///
/// # Errors
/// The build failed, or a promise was broken.
pub(crate) fn torture(shell: &Shell, args: &TortureArgs) -> Result<()> {
    let profile = if args.release { "release" } else { "debug" };
    phase("build", || {
        let mut command = shell.cargo(["build", "--bins", "-p", "claudemesh-broker", "-p", "claudemesh-testkit"]);
        shell::run(if args.release { command.arg("--release") } else { &mut command })
    })?;
    phase("torture", || {
        let mut command = Command::new(shell.binary(profile, "claudemesh-load"));
        command.args(["torture", "--stay", "--runs", &args.runs.to_string()]);
        command.arg("--broker-bin").arg(shell.binary(profile, "claudemesh-broker"));
        if let Some(seed) = args.seed {
            command.args(["--seed", &seed.to_string()]);
        }
        shell::run(&mut command)
    })
}
