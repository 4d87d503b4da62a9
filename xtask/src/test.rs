//! `cargo xtask test`: everything that can be shown on one machine.

use anyhow::Result;
use clap::Args;

use crate::fuzz::{self, FuzzArgs};
use crate::postgres::Postgres;
use crate::shell::{self, Shell, phase};
use crate::{image, npm, setup};

/// Arguments of `test`.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Rounds of kill and restart
    #[arg(long, default_value_t = 50)]
    torture_runs: u32,
    /// Seconds for each fuzz target
    #[arg(long, default_value_t = 5)]
    fuzz_seconds: u32,
    /// Also start other hosts (Codex, Gemini CLI, OpenCode; some 900 MB from npm) with our server
    #[arg(long)]
    hosts: bool,
    /// Only `cargo test`, with this filter
    #[arg(long)]
    only: Option<String>,
}

/// Runs the phases in order and stops at the first that fails.
///
/// # Errors
/// That of the failing phase.
pub(crate) fn run_all(shell: &Shell, args: &TestArgs) -> Result<()> {
    let tools = setup::run()?;
    // `--bins --tests` together: one feature set for everything that follows, so nothing is built twice.
    phase("build", || shell::run(&mut shell.cargo(["build", "--workspace", "--bins", "--tests"])))?;
    let postgres = match &tools.postgres {
        Some(bin) => Some(phase("start PostgreSQL", || Postgres::start(bin))?),
        None => None,
    };
    let mut tests = shell.cargo(["test", "--workspace", "--no-fail-fast"]);
    if let Some(server) = &postgres {
        tests.env("CLAUDEMESH_TEST_POSTGRES", server.url());
    }
    if let Some(filter) = &args.only {
        return phase("tests", || shell::run(tests.args(["--", filter.as_str()])));
    }
    phase("tests", || shell::run(&mut tests))?;
    phase("torture on SQLite", || torture(shell, args.torture_runs, None))?;
    if let Some(server) = &postgres {
        // Fewer: what is shown is the broker's side, which the first has shown at length.
        phase("torture on PostgreSQL", || torture(shell, args.torture_runs.div_ceil(5), Some(&server.url())))?;
    }
    drop(postgres);
    if tools.npm {
        npm::real_clients(shell, tools.namespaces)?;
        if args.hosts {
            npm::other_hosts(shell)?;
        }
    }
    if tools.docker {
        image::test(shell)?;
    }
    if tools.cxx {
        fuzz::run(shell, &FuzzArgs::seconds(args.fuzz_seconds))?;
    }
    Ok(())
}

/// The task `test`.
///
/// # Errors
/// As [`run_all`].
pub(crate) fn run(shell: &Shell, args: &TestArgs) -> Result<()> {
    phase("cargo xtask test", || run_all(shell, args))
}

impl Default for TestArgs {
    fn default() -> Self {
        Self { torture_runs: 50, fuzz_seconds: 5, hosts: false, only: None }
    }
}

fn torture(shell: &Shell, runs: u32, database_url: Option<&str>) -> Result<()> {
    let mut command = std::process::Command::new(shell.binary("debug", "claudemesh-load"));
    command.args(["torture", "--runs", &runs.to_string(), "--broker-bin"]);
    command.arg(shell.binary("debug", "claudemesh-broker"));
    if let Some(url) = database_url {
        command.args(["--database-url", url]);
    }
    shell::run(&mut command)
}
