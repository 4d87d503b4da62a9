//! Start to exit of the command line.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use claudemesh_protocol::crypto::keys::SecretKey;
use serde_json::json;

use super::bench::Options;
use super::report::Report;
use crate::cli::CommandLine;
use crate::enrol;
use crate::host::{self, Host};
use crate::process::BrokerProcess;

/// The median time from start to exit over `runs` runs, in milliseconds.
///
/// # Errors
/// It cannot be started, or fails.
pub fn start_to_exit(
    binary: &Path,
    args: &[&str],
    environment: &[(&str, &str)],
    stdin: &str,
    runs: usize,
) -> Result<f64> {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        times.push(once(binary, args, environment, stdin)?);
    }
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1000.0)
}

fn once(binary: &Path, args: &[&str], environment: &[(&str, &str)], stdin: &str) -> Result<Duration> {
    let mut command = Command::new(binary);
    command.args(args).envs(environment.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("starting {}", binary.display()))?;
    // A program that does not read its stdin may be gone already.
    child.stdin.take().context("stdin was piped")?.write_all(stdin.as_bytes()).ok();
    let output = child.wait_with_output()?;
    let time = start.elapsed();
    if !output.status.success() {
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("`{} {}` ended with {}: {out}{error}", binary.display(), args.join(" "), output.status);
    }
    Ok(time)
}

/// Starts the command line again and again, alone and inside a session.
pub(super) async fn times(options: &Options, client: &Path, report: &mut Report) -> Result<()> {
    let data = tempfile::tempdir()?;
    let broker = BrokerProcess::start(&options.broker, data.path(), &[])?;
    let program = CommandLine::new(client)?;
    let environment = program.environment();
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    program.json(&["create", "bench", "--broker", &broker.url(), "--name", "bench", "--json"])?;
    let invite = program.json(&["invite", "--json"])?;
    let code = invite["code"].as_str().context("the invite has a code")?;
    let key = SecretKey::random(&mut rand::thread_rng());
    enrol::claim(&broker.base(), code, key, "colleague")?;
    let event = json!({"session_id": "s", "cwd": "/tmp", "hook_event_name": "Stop"}).to_string();
    let hook = start_to_exit(client, &["hook", "idle"], &environment, &event, 21)?;
    report.at_most("claudemesh hook, start to exit", hook, 20.0, "ms");
    let send = start_to_exit(client, &["send", "colleague", "hello"], &environment, "", 21)?;
    report.at_most("claudemesh send on loopback, start to exit", send, 60.0, "ms");
    let mut start = host::Options::new(client, program.project()).env("CLAUDE_CODE_SESSION_ID", "bench");
    start.env.extend(program.environment());
    let mut host = Host::start(start).await?;
    // Answers once the session is connected.
    host.tool("ping_mesh", json!({})).await?;
    let inside: Vec<(&str, &str)> =
        environment.iter().copied().chain([("CLAUDECODE", "1"), ("CLAUDE_CODE_SESSION_ID", "bench")]).collect();
    let event = json!({"session_id": "bench", "cwd": "/tmp", "hook_event_name": "PostToolUse"}).to_string();
    let hook = start_to_exit(client, &["hook", "post-tool"], &inside, &event, 21)?;
    report.at_most("claudemesh hook inside a session, start to exit", hook, 20.0, "ms");
    let send = start_to_exit(client, &["send", "colleague", "hello"], &inside, "", 21)?;
    report.at_most("claudemesh send inside a session, start to exit", send, 15.0, "ms");
    host.end().await?;
    Ok(())
}
