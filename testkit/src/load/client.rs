//! Start to exit of the command line.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

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
