//! `cargo xtask test`: everything that can be shown on one machine.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::beside::{Beside, Part};
use crate::postgres::Postgres;
use crate::setup::Tools;
use crate::shell::{self, Shell, phase, which};
use crate::{dist, image, npm, room, setup};

/// Rounds of kill and restart that a test has time for; hundreds belong to `claudemesh-load torture` by hand.
const TORTURE_RUNS: u32 = 20;

/// Arguments of `test`.
#[derive(Args, Clone)]
pub(crate) struct TestArgs {
    /// Rounds of kill and restart
    #[arg(long, default_value_t = TORTURE_RUNS)]
    torture_runs: u32,
    /// Also start other hosts (Codex, Gemini CLI, OpenCode; some 900 MB from npm) with our server
    #[arg(long)]
    hosts: bool,
    /// Only the tests whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// One part, as the task starts it beside others
    #[arg(long, hide = true)]
    part: Option<Part>,
}

impl Default for TestArgs {
    fn default() -> Self {
        Self { torture_runs: TORTURE_RUNS, hosts: false, only: None, part: None }
    }
}

impl TestArgs {
    /// As words of a command line, for a part.
    fn words(&self) -> Vec<String> {
        let mut words = vec!["--torture-runs".into(), self.torture_runs.to_string()];
        words.extend(self.hosts.then(|| "--hosts".into()));
        words
    }
}

/// The task `test`.
///
/// # Errors
/// Those of the parts that failed; all that are under way come to their end.
pub(crate) fn run(shell: &Shell, args: &TestArgs) -> Result<()> {
    match args.part {
        Some(Part::Downloads) => npm::download(shell, args.hosts),
        Some(Part::Programs) => programs(shell, args),
        None => {
            let mut results = vec![];
            let outcome = phase("cargo xtask test", || run_all(shell, args, &mut results));
            for line in &results {
                println!("{line}");
            }
            outcome
        }
    }
}

fn run_all(shell: &Shell, args: &TestArgs, results: &mut Vec<String>) -> Result<()> {
    room::check(&shell.target)?;
    let tools = setup::run()?;
    let whole = args.only.is_none();
    let downloads = if whole && tools.npm { Some(Beside::start(Part::Downloads, &args.words(), None)?) } else { None };
    // `--bins --tests` together: one feature set for everything that follows, so nothing is built twice.
    phase("build", || shell::run(&mut shell.cargo(["build", "--workspace", "--bins", "--tests"])))?;
    downloads.map(Beside::finish).transpose()?;
    let postgres = match &tools.postgres {
        Some(bin) => Some(phase("start PostgreSQL", || Postgres::start(bin))?),
        None => None,
    };
    let server = postgres.as_ref().map(Postgres::url);
    let programs = if whole { Some(Beside::start(Part::Programs, &args.words(), server.as_deref())?) } else { None };
    let tested = phase("tests", || tests(shell, args.only.as_deref(), server.as_deref(), results));
    let programs = programs.map(Beside::finish).transpose();
    if let Ok(Some(text)) = &programs {
        results.extend(text.lines().filter(|line| shell::is_result(line)).map(str::to_owned));
    }
    tested.and(programs.map(drop))
}

/// Runs a command with the address of a fresh server in its environment, and stops the server.
///
/// # Errors
/// PostgreSQL is not installed or does not start, or the command fails.
pub(crate) fn with_postgres(command: &[OsString]) -> Result<()> {
    let bin = setup::found().postgres.context("PostgreSQL is not installed; `cargo xtask setup` installs it")?;
    let server = Postgres::start(&bin)?;
    let (program, arguments) = command.split_first().context("expected a command")?;
    shell::run(Command::new(program).args(arguments).env("CLAUDEMESH_TEST_POSTGRES", server.url()))
}

/// Unit tests, the suites of every crate and the replay of the fuzz targets.
fn tests(shell: &Shell, only: Option<&str>, server: Option<&str>, results: &mut Vec<String>) -> Result<()> {
    // nextest runs the tests of all programs beside each other; cargo's own runner those of one program after the other.
    let nextest = which("cargo-nextest").is_some();
    let mut command = if nextest {
        shell.cargo(["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        shell.cargo(["test", "--workspace", "--no-fail-fast", "--"])
    };
    command.args(only);
    command.envs(server.map(|url| ("CLAUDEMESH_TEST_POSTGRES", url)));
    let tested = shell::run_watched(&mut command, results);
    if nextest && only.is_none() {
        // Examples in comments, which nextest leaves out.
        return tested.and(shell::run(&mut shell.cargo(["test", "--quiet", "--workspace", "--doc"])));
    }
    tested
}

/// What starts whole programs: they wait for each other most of the time.
fn programs(shell: &Shell, args: &TestArgs) -> Result<()> {
    let tools = setup::found();
    torture_all(shell, args, &tools)?;
    phase("what a release consists of", || dist::test(shell))?;
    if tools.npm {
        npm::s3(shell)?;
        npm::real_clients(shell, tools.namespaces)?;
        if args.hosts {
            npm::other_hosts(shell)?;
        }
    }
    if tools.docker { image::test(shell) } else { Ok(()) }
}

fn torture_all(shell: &Shell, args: &TestArgs, tools: &Tools) -> Result<()> {
    phase("torture on SQLite", || torture(shell, args.torture_runs, None))?;
    let Some(url) = std::env::var("CLAUDEMESH_TEST_POSTGRES").ok().filter(|_| tools.postgres.is_some()) else {
        return Ok(());
    };
    // Fewer: what is shown is the broker's side, which the first has shown at length.
    phase("torture on PostgreSQL", || torture(shell, args.torture_runs.div_ceil(5), Some(&url)))
}

fn torture(shell: &Shell, runs: u32, database_url: Option<&str>) -> Result<()> {
    let mut command = Command::new(shell.binary("debug", "claudemesh-load"));
    command.args(["torture", "--runs", &runs.to_string(), "--broker-bin"]);
    command.arg(shell.binary("debug", "claudemesh-broker"));
    if let Some(url) = database_url {
        command.args(["--database-url", url]);
    }
    shell::run(&mut command)
}
