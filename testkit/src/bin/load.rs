//! `claudemesh-load`: the load generator, the torture and the relay as programs. `cargo xtask` calls it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use claudemesh_testkit::load::bench;
use claudemesh_testkit::{docs, relay, torture};
use rand::Rng;

/// Load generator of claudemesh.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures a broker and prints the figures beside their targets
    Bench {
        /// The broker to measure
        #[arg(long)]
        broker_bin: PathBuf,
        /// The command line to time
        #[arg(long)]
        client_bin: Option<PathBuf>,
        /// Only these scenarios: relay, direct, away, paced, flood, state, recall, publish, claims, kept, due, broadcast, stuck, idle, client, shell
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Idle connections
        #[arg(long, default_value_t = 10_000)]
        connections: u32,
        /// Messages of each of the 100 peers
        #[arg(long, default_value_t = 1000)]
        messages: u32,
        /// Memories, keys or tasks of a mesh in `recall` and `kept`
        #[arg(long, default_value_t = 100_000)]
        kept: u32,
        /// Rounds of each kind in the scenarios that compare two
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Writes the figures as JSON, too
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Kills the broker under load and compares what it promised with what arrives
    Torture {
        /// The broker to kill
        #[arg(long)]
        broker_bin: PathBuf,
        /// Rounds
        #[arg(long, default_value_t = 50)]
        runs: u32,
        /// Repeats the kill times of an earlier run
        #[arg(long)]
        seed: Option<u64>,
        /// Stores in this PostgreSQL instead of SQLite
        #[arg(long)]
        database_url: Option<String>,
        /// At the end, also lets a client that never acknowledges stay for half a minute
        #[arg(long)]
        stay: bool,
        /// Only these features beside the messages: state, tasks, streams, memory, contexts, clock, skills, schedules
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Serves the bare relay and prints its address
    Relay,
    /// Writes the generated reference pages
    Docs {
        /// Folder
        #[arg(long)]
        out: PathBuf,
        /// Fails when a page would change
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Bench { broker_bin, client_bin, only, connections, messages, kept, rounds, json } => {
            let options =
                bench::Options { broker: broker_bin, client: client_bin, only, connections, messages, kept, rounds };
            let report = local(bench::run(&options))?;
            println!("{}", report.table());
            if let Some(file) = json {
                std::fs::write(file, serde_json::to_string_pretty(&report)?)?;
            }
            Ok(())
        }
        Command::Torture { broker_bin, runs, seed, database_url, stay, only } => {
            let seed = seed.unwrap_or_else(|| rand::thread_rng().r#gen());
            let broker_args: Vec<&str> = database_url.iter().flat_map(|url| ["--database-url", url.as_str()]).collect();
            let options = torture::Options { rounds: runs, seed, broker_args: &broker_args, stay, only: &only };
            let summary = local(torture::run(&broker_bin, &options))?;
            println!("{} kills, seed {seed}", summary.rounds);
            for subject in summary.subjects {
                println!("  {subject}");
            }
            Ok(())
        }
        Command::Relay => {
            let workers = std::thread::available_parallelism().map_or(2, usize::from);
            actix_web::rt::System::new().block_on(relay::serve("127.0.0.1:0", workers, |address| {
                println!("{address}");
                std::io::stdout().flush().ok();
            }))?;
            Ok(())
        }
        Command::Docs { out, check } => docs::write(&out, check),
    }
}

/// One thread for all connections: the other core is the broker's.
fn local<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
