//! The `claudemesh` command line in a configuration folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Variables of a surrounding session that must not reach the program under test.
const FOREIGN: [&str; 4] = ["CLAUDE", "ANTHROPIC", "CLAUDEMESH", "MCP_"];

/// The program with its own home and configuration.
pub struct CommandLine {
    /// `claudemesh`
    pub binary: PathBuf,
    folder: tempfile::TempDir,
}

impl CommandLine {
    /// An empty configuration.
    ///
    /// # Errors
    /// No temporary folder.
    pub fn new(binary: impl Into<PathBuf>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir_all(folder.path().join("project"))?;
        Ok(Self { binary: binary.into(), folder })
    }

    /// `CLAUDEMESH_CONFIG_DIR`
    pub fn config_dir(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// `HOME`
    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    /// A working directory.
    pub fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    /// What the program gets beside a clean environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        [("CLAUDEMESH_CONFIG_DIR", self.config_dir()), ("HOME", self.home().to_owned())]
            .map(|(name, path)| (name.to_owned(), path.display().to_string()))
            .to_vec()
    }

    /// A command of the program.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        clean(&mut command);
        command.args(args).envs(self.environment()).current_dir(self.project()).stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        self.command(args).output().with_context(|| format!("starting {}", self.binary.display()))
    }

    /// Runs to the end and reads its stdout as JSON.
    ///
    /// # Errors
    /// Another status than 0, or no JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.run(args)?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("claudemesh {}: {}\n{stdout}{stderr}", args.join(" "), output.status);
        }
        serde_json::from_str(&stdout).with_context(|| format!("claudemesh {}: no JSON: {stdout}", args.join(" ")))
    }
}

/// Removes the variables of a surrounding session from a command's environment.
pub fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| FOREIGN.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
}
