//! The image and the compose file at work: locked down as documented, with messages through them, stopped and started again.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::base;
use super::daemon::{Docker, pause};
use super::people::Team;
use crate::shell::{Shell, phase, run_quiet, which};

/// From start to `healthy`, with a check every second.
const HEALTH_PATIENCE: Duration = Duration::from_secs(60);
/// What the compose file names.
const POSTGRES_IMAGE: &str = "postgres:17-bookworm";

/// Tries both; what was started is gone afterwards, also when a step failed.
///
/// # Errors
/// The first thing that is not as documented.
pub(super) fn run(shell: &Shell, docker: &Docker, image: &str) -> Result<()> {
    phase("image: one container with SQLite", || alone(shell, docker, image))?;
    let postgres = phase("image: PostgreSQL", || base::postgres(shell, docker, POSTGRES_IMAGE))?;
    phase("image: compose file with PostgreSQL", || composed(shell, docker, image, &postgres))
}

/// Removes a container and its volume.
struct Container<'a> {
    docker: &'a Docker,
    name: String,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.docker.command(["rm", "-f", &self.name]).output();
        let _ = self.docker.command(["volume", "rm", "-f", &self.name]).output();
    }
}

impl Container<'_> {
    fn inspect(&self, format: &str) -> Result<String> {
        inspect(self.docker, &self.name, format)
    }
}

fn inspect(docker: &Docker, container: &str, format: &str) -> Result<String> {
    docker.ask(["inspect", "-f", format, container])
}

fn alone(shell: &Shell, docker: &Docker, image: &str) -> Result<()> {
    let port = free_port()?;
    let container = Container { docker, name: format!("claudemesh-check-{}", std::process::id()) };
    let name = container.name.as_str();
    let (publish, volume) = (format!("127.0.0.1:{port}:7900"), format!("{name}:/data"));
    let mut command = docker.command(["run", "-d", "--name", name, "-p", &publish, "-v", &volume]);
    command.args(["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
    // The image's own check, oftener.
    run_quiet(command.args(["--health-interval", "1s", image]))?;
    wait_until_healthy(docker, name)?;
    ensure!(container.inspect("{{.Config.User}}")? == "claudemesh", "the image does not run as its own user");
    let uid = docker.ask(["exec", name, "id", "-u"])?;
    ensure!(uid == "10001", "runs as uid {uid}");
    ensure!(docker.ask(["exec", name, "touch", "/usr/x"]).is_err(), "the root file system can be written");
    let team = Team::found(&shell.binary("debug", "claudemesh"), port, &operator_token(docker, name)?)?;
    team.ann_writes("before the restart")?;
    drain(docker, name)?;
    // A message to a stopped broker stays with its sender until the broker is back.
    team.ann_writes("while it is stopped")?;
    ensure!(team.ann_has_queued()? == 1, "a message for a stopped broker is not in the sender's outbox");
    docker.ask(["start", name])?;
    wait_until_healthy(docker, name)?;
    team.ann.run(&["outbox", "send"])?;
    ensure!(team.ann_has_queued()? == 0, "a message that was sent is still in the outbox");
    team.bob_finds(&["before the restart", "while it is stopped"])?;
    // The other bad day: no time to drain.
    team.ann_writes("before the crash")?;
    docker.ask(["kill", name])?;
    docker.ask(["start", name])?;
    wait_until_healthy(docker, name)?;
    team.bob_finds(&["before the crash"])
}

fn composed(shell: &Shell, docker: &Docker, image: &str, postgres: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    // The shipped file as it is, but for the images that are here, a health check that does not wait half a minute, and
    // no more open files than a daemon that we start may hand out.
    let images = folder.path().join("images.yml");
    let text = format!(
        "services:\n  broker:\n    image: {image}\n    healthcheck:\n      interval: 1s\n    ulimits:\n      nofile: {}\n  \
         postgres:\n    image: {postgres}\n",
        open_files()?.min(65_536)
    );
    fs::write(&images, text)?;
    let port = free_port()?;
    let project = format!("claudemesh-check-{}", std::process::id());
    let compose = || {
        let (mut command, port) = (compose_program(docker)?, port.to_string());
        command.arg("-f").arg(shell.root.join("deploy/compose.yml")).arg("-f").arg(&images).args(["-p", &project]);
        command.env("POSTGRES_PASSWORD", "only-for-this-check").env("CLAUDEMESH_PORT", port);
        anyhow::Ok(command)
    };
    let works = compose_works(shell, docker, port, &compose);
    if works.is_err() {
        let logs = compose()?.args(["logs", "--no-color", "--tail=30"]).output()?;
        eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
    }
    run_quiet(compose()?.args(["down", "-v", "--remove-orphans", "-t", "10"]))?;
    works
}

fn compose_works(shell: &Shell, docker: &Docker, port: u16, compose: &dyn Fn() -> Result<Command>) -> Result<()> {
    run_quiet(compose()?.args(["up", "-d", "--no-build"]))?;
    let broker = run_quiet(compose()?.args(["ps", "-q", "broker"]))?.trim().to_owned();
    wait_until_healthy(docker, &broker)?;
    for (format, expected) in [
        ("{{.HostConfig.ReadonlyRootfs}}", "true"),
        ("{{.HostConfig.CapDrop}}", "[ALL]"),
        ("{{.HostConfig.SecurityOpt}}", "[no-new-privileges:true]"),
    ] {
        let found = inspect(docker, &broker, format)?;
        ensure!(found == expected, "{format} is {found}, expected {expected}");
    }
    let team = Team::found(&shell.binary("debug", "claudemesh"), port, &operator_token(docker, &broker)?)?;
    team.ann_writes("kept in PostgreSQL")?;
    drain(docker, &broker)?;
    // Nothing but the database keeps it: the broker's own container is made anew.
    docker.ask(["rm", "-f", &broker])?;
    run_quiet(compose()?.args(["up", "-d", "--no-build"]))?;
    let broker = run_quiet(compose()?.args(["ps", "-q", "broker"]))?.trim().to_owned();
    wait_until_healthy(docker, &broker)?;
    team.bob_finds(&["kept in PostgreSQL"])
}

/// SIGTERM: the broker drains and ends with 0 in time.
fn drain(docker: &Docker, container: &str) -> Result<()> {
    docker.ask(["stop", "-t", "20", container])?;
    let code = inspect(docker, container, "{{.State.ExitCode}}")?;
    ensure!(code == "0", "exit code {code} after SIGTERM");
    Ok(())
}

fn wait_until_healthy(docker: &Docker, container: &str) -> Result<()> {
    let deadline = Instant::now() + HEALTH_PATIENCE;
    loop {
        let state = inspect(docker, container, "{{.State.Status}} {{.State.Health.Status}}")?;
        match state.as_str() {
            "running healthy" => return Ok(()),
            state if state.starts_with("exited") || Instant::now() > deadline => {
                let logs = docker.command(["logs", "--tail", "30", container]).output()?;
                let text = [logs.stdout, logs.stderr].concat();
                bail!("the container is `{state}`:\n{}", String::from_utf8_lossy(&text));
            }
            _ => pause(),
        }
    }
}

/// The very first start prints it once.
fn operator_token(docker: &Docker, container: &str) -> Result<String> {
    let logs = docker.ask(["logs", container])?;
    let token =
        logs.lines().find_map(|line| line.strip_prefix("operator token")?.rsplit(' ').next().map(str::to_owned));
    token.with_context(|| format!("the first start printed no operator token: {logs}"))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// How many files a process of ours may open at most.
fn open_files() -> Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit of open files")?;
    let hard = line.split_whitespace().nth(1).context("no hard limit of open files")?;
    Ok(hard.parse().unwrap_or(u64::MAX))
}

/// `docker compose` where the plug-in is there, else the older program.
fn compose_program(docker: &Docker) -> Result<Command> {
    if docker.ask(["compose", "version"]).is_ok() {
        return Ok(docker.command(["compose"]));
    }
    which("docker-compose").context("neither `docker compose` nor `docker-compose` is there")?;
    Ok(docker.program("docker-compose"))
}
