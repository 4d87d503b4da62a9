//! Development tasks: `cargo xtask setup|test|with-postgres|ci|bench|torture|fuzz|dist|image|docs`.
//!
//! Everything a task needs beyond the Rust toolchain is found, or installed on Debian when it runs as root. What it
//! starts, it stops again, also when it is interrupted.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod beside;
#[path = "../../testkit/src/child.rs"]
mod child;
mod ci;
mod dist;
mod fuzz;
mod image;
mod npm;
#[path = "../../testkit/src/postgres.rs"]
#[expect(dead_code, unreachable_pub, reason = "tests of the broker do more with it, from another crate")]
mod postgres;
mod room;
mod setup;
mod shell;
mod test;

use shell::Shell;

/// Development tasks of claudemesh.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Finds what the tests need and installs what is missing (Debian, as root)
    Setup,
    /// Sets up, then runs every test: unit, wire, store and broker suites on both databases, fuzz seeds, torture, real clients
    Test(test::TestArgs),
    /// Runs a command beside a PostgreSQL server of its own, which tests of both databases need: `cargo xtask with-postgres cargo test …`
    WithPostgres {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Formatting, lints, docs, feature combinations, then `test`
    Ci(ci::CiArgs),
    /// Measures what is handed on (profile `dist`) beside a bare relay of the same stack and prints the table
    Bench(bench::BenchArgs),
    /// Kills the broker under load again and again and compares what was acknowledged with what arrives
    Torture(bench::TortureArgs),
    /// Lets every fuzz target look for new inputs for a while; what it finds becomes a seed
    Fuzz(fuzz::FuzzArgs),
    /// Builds what a release consists of: archives, packages for Debian and npm, install script, checksums
    Dist(dist::DistArgs),
    /// Builds the broker's container image, and with --check tries it and the compose file
    Image(image::ImageArgs),
    /// Rewrites the generated reference pages in docs/
    Docs {
        /// Fails when a page would change, instead of writing it
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let shell = Shell::new()?;
    match cli.task {
        Task::Setup => setup::run().map(drop),
        Task::Test(args) => test::run(&shell, &args),
        Task::WithPostgres { command } => test::with_postgres(&command),
        Task::Ci(args) => ci::run(&shell, &args),
        Task::Bench(args) => bench::run(&shell, &args),
        Task::Torture(args) => bench::torture(&shell, &args),
        Task::Fuzz(args) => fuzz::run(&shell, &args),
        Task::Dist(args) => dist::run(&shell, &args),
        Task::Image(args) => image::run(&shell, &args),
        Task::Docs { check } => ci::docs(&shell, check),
    }
}
