//! What a person waits for at the shell of a mesh with 100 peers, and what a live screen of them costs.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::bench::{Options, Stage, hello};
use super::client::start_to_exit;
use super::fleet::Fleet;
use super::idle::Reader;
use super::report::Report;
use super::screen::Screen;
use crate::cli::CommandLine;

/// Peers that are connected.
const PEERS: u32 = 100;
/// Runs of each command; the median counts.
const RUNS: usize = 21;
/// How long the live screen is watched: long enough for some of its looks every five seconds.
const WATCHED: Duration = Duration::from_secs(20);

/// Measures the commands and the live screen.
pub(super) async fn run(options: &Options, client: &Path, report: &mut Report) -> Result<()> {
    let stage = Stage::new(options)?;
    let mut peers = Fleet::new(stage.broker.address, 4);
    for session in stage.sessions("peer", PEERS)? {
        peers.add(hello(&session), Reader, None);
    }
    peers.ready().await?;
    let person = CommandLine::new(client)?;
    person.json(&["join", &stage.mesh.invite("member", 1)?.url, "--name", "person", "--json"])?;
    let environment = person.environment();
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let time = |args: &[&str]| start_to_exit(client, args, &environment, "", RUNS);
    report.at_most("claudemesh --version, start to exit", time(&["--version"])?, 5.0, "ms");
    report.at_most("claudemesh peers, 100 of them", time(&["peers"])?, 25.0, "ms");
    report.at_most("claudemesh inbox, nothing new", time(&["inbox"])?, 30.0, "ms");

    let top = Screen::start(person.command(&["top"]))?;
    // In the order of names among the first rows, and only there when the list of all is.
    top.shows("peer-19")?;
    let before = top.cpu_seconds()?;
    peers.for_a_while(WATCHED).await?;
    let part = (top.cpu_seconds()? - before) / WATCHED.as_secs_f64() * 100.0;
    report.at_most("claudemesh top at 100 peers, of a core", part, 2.0, "%");
    top.end("q")?;
    peers.end().await
}
