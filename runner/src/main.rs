//! `claudemesh-runner`: the first process of a mesh's container.
//!
//! It speaks with the broker over its standard streams (`claudemesh_protocol::runner`), installs and supervises MCP servers, each as a user of
//! its own in a folder of its own, opens their secrets, and is their only way out. It has no network, and trusts neither what
//! it runs nor what it is sent.
//!
//! - [`link`]: frames, streams and credit.
//! - [`broker`]: what the broker asks.
//! - [`service`]: a service: its process, MCP, restarts.
//! - [`install`]: packages, repositories, bundles.
//! - [`process`]: starting, ending and reaping processes; [`stage`] is what a child does before it becomes what it is to be.
//! - [`proxy`]: the way out of each service.
//! - [`log`]: the last lines of each service.
#![warn(clippy::print_stdout)]

mod broker;
mod config;
mod install;
mod link;
mod log;
mod process;
mod proxy;
mod secrets;
mod service;
mod stage;
mod stats;
mod users;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match args.next().as_deref() {
        None => run(),
        Some("--version") => {
            #[expect(clippy::print_stdout, reason = "what was asked for")]
            {
                println!("claudemesh-runner {}", env!("CARGO_PKG_VERSION"));
            }
            Ok(())
        }
        Some(stage::EXEC) => stage::exec(),
        Some(stage::UNPACK) => stage::unpack(),
        Some(stage::KILL_ALL) => stage::kill_all(),
        Some(_) => Err(anyhow::anyhow!(
            "it takes no arguments but --version; it speaks with the broker over its standard streams"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("claudemesh-runner: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let config = config::Config::from_env()?;
    process::become_parent()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(broker::run(config));
    // Threads that read standard input must not keep the process.
    runtime.shutdown_background();
    done
}
