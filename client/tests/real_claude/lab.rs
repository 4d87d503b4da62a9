//! A home folder of its own with Claude Code, our program and, on request, a mesh and a scripted model.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::cli::{self, CommandLine};
use claudemesh_testkit::enrol;
use claudemesh_testkit::model::Model;
use claudemesh_testkit::peer::TestPeer;
use serde_json::Value;

/// No run of these tests takes longer, also beside other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// Claude Code and our program, alone in the world.
pub(crate) struct Lab {
    pub(crate) program: CommandLine,
    claude: PathBuf,
}

impl Lab {
    pub(crate) fn new() -> Result<Self> {
        let claude = std::env::var("CLAUDEMESH_TEST_CLAUDE").context("CLAUDEMESH_TEST_CLAUDE names the program")?;
        let program = CommandLine::new(env!("CARGO_BIN_EXE_claudemesh"))?;
        let lab = Self { program, claude: claude.into() };
        std::fs::create_dir_all(lab.config())?;
        std::fs::create_dir_all(lab.bin())?;
        // Found as `claudemesh`, and every call is written down before it happens.
        let script = format!(
            "#!/bin/sh\necho \"$*\" >> '{}'\nexec '{}' \"$@\"\n",
            lab.calls_file().display(),
            env!("CARGO_BIN_EXE_claudemesh")
        );
        let path = lab.bin().join("claudemesh");
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(lab)
    }

    /// `CLAUDE_CONFIG_DIR`
    pub(crate) fn config(&self) -> PathBuf {
        self.program.home().join("claude")
    }

    fn bin(&self) -> PathBuf {
        self.program.home().join("bin")
    }

    fn calls_file(&self) -> PathBuf {
        self.program.home().join("calls")
    }

    /// How our program was called so far: its arguments, one call a line.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.calls_file()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Processes of our program in this lab, by their command lines.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let home = self.program.home().display().to_string();
        let mut found = vec![];
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if line.contains(env!("CARGO_BIN_EXE_claudemesh")) && String::from_utf8_lossy(&environment).contains(&home)
            {
                found.push((pid, line));
            }
        }
        found
    }

    /// A mesh `team` on a broker of its own: our program is the peer `agent`, and someone who watches.
    pub(crate) async fn team(&self) -> Result<(TestBroker, TestPeer)> {
        let broker = TestBroker::start(Database::Sqlite).await?;
        self.program.json(&["create", "team", "--broker", &broker.url(), "--name", "agent", "--json"])?;
        let invite = self.program.json(&["invite", "--json"])?;
        let code = invite["code"].as_str().context("the invite has a code")?;
        let key = claudemesh_protocol::crypto::keys::SecretKey::random(&mut rand::thread_rng());
        let watcher = Arc::new(enrol::claim(&broker.base(), code, key, "watcher")?);
        let watcher = broker.join(&watcher).await?;
        Ok((broker, watcher))
    }

    /// `claude <args>` in the project.
    pub(crate) fn claude(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.claude);
        cli::clean(&mut command);
        command.args(args).envs(self.program.environment()).current_dir(self.program.project());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("CLAUDE_CONFIG_DIR", self.config()).env("PATH", format!("{}:{path}", self.bin().display()));
        for switch in [
            "DISABLE_AUTOUPDATER",
            "DISABLE_TELEMETRY",
            "DISABLE_ERROR_REPORTING",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        ] {
            command.env(switch, "1");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `claude -p <args>` with the scripted model.
    pub(crate) fn prompt(&self, model: &Model, args: &[&str]) -> Command {
        let mut command = self.claude(&["-p", "say hi", "--output-format", "json"]);
        command.args(args).env("ANTHROPIC_BASE_URL", model.url());
        command.env("ANTHROPIC_API_KEY", "dummy-key-for-a-loopback-stand-in");
        command
    }

    /// Runs to the end; answers both outputs together and the exit code.
    pub(crate) async fn finish(&self, command: Command) -> Result<(String, Option<i32>)> {
        let output = self.output(command).await?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok((text, output.status.code()))
    }

    async fn output(&self, command: Command) -> Result<Output> {
        let shown = format!("{command:?}");
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().context("starting claude")?;
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        Ok(ended.with_context(|| format!("{shown} did not end within two minutes"))??)
    }

    /// Runs to a good end; answers the JSON on its standard output. Warnings are on the other one.
    pub(crate) async fn json(&self, command: Command) -> Result<Value> {
        let shown = format!("{command:?}");
        let output = self.output(command).await?;
        anyhow::ensure!(output.status.success(), "{shown}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).with_context(|| shown)
    }

    /// Runs to a good end; answers what it printed.
    pub(crate) async fn good(&self, command: Command) -> Result<String> {
        let shown = format!("{command:?}");
        let (text, code) = self.finish(command).await?;
        anyhow::ensure!(code == Some(0), "{shown}: {code:?}\n{text}");
        Ok(text)
    }
}
