//! Parts of the tests that run beside others, each in a process of its own so that what it prints stays together.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::child::{die_with_us, signal};

/// What can run beside something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Downloads: waits for the network while the compiler works
    Downloads,
    /// Torture, real clients and the container image: wait for processes while the tests work
    Programs,
}

/// This program, as it was started: the build that comes before a part may have put another file into its place.
fn this_program() -> Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().context("finding this program")
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Downloads => "downloads",
            Self::Programs => "torture, real clients, image",
        }
    }
}

/// A part under way; ended when dropped before it is done.
pub(crate) struct Beside {
    part: Part,
    child: Child,
    folder: tempfile::TempDir,
}

impl Beside {
    /// Starts `cargo xtask test --part <part> <args>`.
    ///
    /// # Errors
    /// This program cannot be started a second time.
    pub(crate) fn start(part: Part, args: &[String], server: Option<&str>) -> Result<Self> {
        let folder = tempfile::tempdir().context("making a folder for what a part prints")?;
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new(this_program()?);
        let value = part.to_possible_value().context("every part has a name")?;
        command.args(["test", "--part", value.get_name()]).args(args);
        command.stdout(log.try_clone()?).stderr(log);
        if let Some(url) = server {
            command.env("CLAUDEMESH_TEST_POSTGRES", url);
        }
        die_with_us(&mut command, libc::SIGTERM);
        let child = command.spawn().context("starting a part of the tests")?;
        eprintln!("== {} beside what follows; shown when done", part.name());
        Ok(Self { part, child, folder })
    }

    /// Waits for its end, prints what it said, and answers that.
    ///
    /// # Errors
    /// It failed.
    pub(crate) fn finish(mut self) -> Result<String> {
        let status = self.child.wait()?;
        let text = self.print()?;
        self.judge(status).map(|()| text)
    }

    fn print(&self) -> Result<String> {
        let mut text = vec![];
        File::open(self.log())?.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        eprintln!("== {}, beside the others:\n{}", self.part.name(), text.trim_end());
        Ok(text)
    }

    fn judge(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("{}: {status}; what it printed stands above", self.part.name());
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            signal(self.child.id(), libc::SIGTERM);
            self.child.wait().ok();
        }
    }
}
