//! The Docker daemon: the one that is there, or a private one that leaves nothing behind.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child::{die_with_us, is_root, signal};
use crate::shell::{run_quiet, which};

/// How long a daemon may take to answer; it takes half a second.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that answers.
pub(crate) struct Docker {
    /// `DOCKER_HOST` of the private daemon; the surroundings' own when there is one.
    host: Option<String>,
    private: Option<PrivateDaemon>,
}

struct PrivateDaemon {
    child: Child,
    /// Everything it has: images, containers, socket, log.
    folder: tempfile::TempDir,
    /// Held while it runs: two daemons that start together spoil each other's packet filter.
    _turn: File,
}

/// Whether a daemon answers or can be started here.
pub(crate) fn can_run() -> bool {
    which("docker").is_some() && (answers(None) || (is_root() && which("dockerd").is_some()))
}

impl Docker {
    /// The daemon that answers already, else a private one.
    ///
    /// # Errors
    /// None answers, and none can be started; the log of the attempt is in the message.
    pub(crate) fn find_or_start() -> Result<Self> {
        if answers(None) {
            return Ok(Self { host: None, private: None });
        }
        if !is_root() || which("dockerd").is_none() {
            bail!("no Docker daemon answers; a private one needs root and `dockerd` (Debian: docker.io)");
        }
        mount_control_groups()?;
        let turn = File::create(std::env::temp_dir().join("claudemesh-docker.lock"))?;
        turn.lock().context("waiting for another run's private daemon")?;
        let folder = tempfile::Builder::new().prefix("claudemesh-docker-").tempdir()?;
        let socket = format!("unix://{}", folder.path().join("docker.sock").display());
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new(which("dockerd").context("dockerd was there a moment ago")?);
        command.arg("--data-root").arg(folder.path().join("data")).arg("--exec-root").arg(folder.path().join("exec"));
        command.arg("--pidfile").arg(folder.path().join("pid")).args(["--host", &socket]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SIGTERM: it stops its containers and unmounts.
        die_with_us(&mut command, libc::SIGTERM);
        let child = command.spawn().context("starting dockerd")?;
        let mut docker = Self { host: Some(socket), private: Some(PrivateDaemon { child, folder, _turn: turn }) };
        docker.wait_until_it_answers()?;
        Ok(docker)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        let Some(private) = &mut self.private else { return Ok(()) };
        loop {
            if answers(self.host.as_deref()) {
                return Ok(());
            }
            let ended = private.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(private.folder.path().join("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                bail!("dockerd did not get ready ({ended:?}):\n{tail}");
            }
            pause();
        }
    }

    /// Where this daemon answers, as `DOCKER_HOST` has it.
    pub(crate) fn address(&self) -> String {
        let own = || std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
        self.host.clone().unwrap_or_else(own)
    }

    /// `docker <args>` against this daemon.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.program("docker");
        command.args(args);
        command
    }

    /// Another client of the same daemon.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Runs `docker <args>` and answers its trimmed stdout.
    ///
    /// # Errors
    /// Its status is not 0.
    pub(crate) fn ask<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        Ok(run_quiet(&mut self.command(args))?.trim().to_owned())
    }

    /// Removes an image; one that is in use or gone stays as it is.
    pub(crate) fn remove_image(&self, tag: &str) {
        let _ = self.command(["image", "rm", tag]).output();
    }
}

impl Drop for PrivateDaemon {
    fn drop(&mut self) {
        signal(self.child.id(), libc::SIGTERM);
        self.child.wait().ok();
    }
}

/// Between two questions to a daemon, which tells no one when it is ready or a container healthy.
#[expect(clippy::disallowed_methods, reason = "no arbiter runs in xtask")]
pub(super) fn pause() {
    std::thread::sleep(Duration::from_millis(200));
}

fn answers(host: Option<&str>) -> bool {
    let mut command = Command::new("docker");
    if let Some(host) = host {
        command.env("DOCKER_HOST", host);
    }
    command.args(["version", "--format", "{{.Server.Version}}"]).output().is_ok_and(|output| output.status.success())
}

/// A container needs the control groups of the kernel; a minimal machine may not have mounted the older kind.
fn mount_control_groups() -> Result<()> {
    let there = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/memory/tasks"];
    if there.iter().any(|file| Path::new(file).exists()) {
        return Ok(());
    }
    let mount = which("cgroupfs-mount").context("control groups are not mounted (Debian: cgroupfs-mount)")?;
    run_quiet(&mut Command::new(mount)).map(drop)
}
