//! Other hosts take our server with the configuration of `docs/other-hosts.md`. Nothing leaves the machine.
//!
//! `cargo xtask test --hosts` installs the pinned versions, names the programs in `CLAUDEMESH_TEST_{CODEX,GEMINI,OPENCODE}` and
//! runs this in a network namespace that has loopback only.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use claudemesh_testkit::cli::{self, CommandLine};
use serde_json::Value;

/// The page with the configuration of each host.
const PAGE: &str = include_str!("../../../docs/other-hosts.md");

/// A home with one host in it.
struct Lab {
    home: CommandLine,
    host: String,
}

impl Lab {
    fn new(variable: &str) -> Result<Self> {
        let host = std::env::var(variable).with_context(|| format!("{variable} names the program"))?;
        let home = CommandLine::new(env!("CARGO_BIN_EXE_claudemesh"))?;
        let bin = home.home().join("bin");
        std::fs::create_dir(&bin)?;
        // Found as `claudemesh`, as the page has it, and what it is told is written down.
        let script = format!(
            "#!/bin/sh\ntee -a '{}' | '{}' \"$@\"\n",
            home.home().join("told").display(),
            env!("CARGO_BIN_EXE_claudemesh")
        );
        std::fs::write(bin.join("claudemesh"), script)?;
        std::fs::set_permissions(bin.join("claudemesh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self { home, host })
    }

    /// Writes a file below the home folder.
    fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.home.home().join(inside);
        std::fs::create_dir_all(path.parent().context("a file in a folder")?)?;
        Ok(std::fs::write(path, text)?)
    }

    /// Runs the host, at most for these seconds; answers both outputs.
    fn run(&self, seconds: &str, args: &[&str]) -> Result<String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("timeout");
        cli::clean(&mut command);
        command.args([seconds, &self.host]).args(args).current_dir(self.home.project()).stdin(Stdio::null());
        command.env("HOME", self.home.home()).env("PATH", format!("{}/bin:{path}", self.home.home().display()));
        for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "CODEX_HOME"] {
            command.env_remove(name);
        }
        let output = command.output().context("starting the host")?;
        Ok([output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
    }

    /// Frames that the host sent to our server.
    fn told(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.home.home().join("told")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).context("a frame is JSON")).collect()
    }
}

/// The block of a language under a heading of the page.
fn block(heading: &str, language: &str) -> Result<String> {
    let (_, section) = PAGE.split_once(&format!("## {heading}\n")).context("the heading")?;
    let section = section.split("\n## ").next().unwrap_or(section);
    let (_, block) = section.split_once(&format!("```{language}\n")).context("the block")?;
    Ok(block.split("```").next().unwrap_or(block).to_owned())
}

#[test]
#[ignore = "needs Codex CLI from npm; `cargo xtask test --hosts` installs it and runs this"]
fn codex_starts_our_server_and_lists_its_tools() -> Result<()> {
    let lab = Lab::new("CLAUDEMESH_TEST_CODEX")?;
    // A model on a port that no one listens on: the session starts, its first request fails.
    let model = "model = \"none\"\nmodel_provider = \"none\"\n[model_providers.none]\nname = \"none\"\n\
                 base_url = \"http://127.0.0.1:9/v1\"\nwire_api = \"responses\"\nrequest_max_retries = 0\nstream_max_retries = 0\n";
    lab.write(".codex/config.toml", &format!("{model}{}", block("Codex CLI", "toml")?))?;
    assert!(lab.run("60", &["mcp", "list"])?.contains("claudemesh"));
    // It goes on trying to reach its model; the server is started before.
    let said = lab.run("20", &["exec", "--skip-git-repo-check", "hi"])?;
    let told = lab.told()?;
    let methods: Vec<&str> = told.iter().filter_map(|frame| frame["method"].as_str()).collect();
    assert!(methods.contains(&"initialize") && methods.contains(&"tools/list"), "{methods:?}\n{said}");
    Ok(())
}

#[test]
#[ignore = "needs Gemini CLI from npm; `cargo xtask test --hosts` installs it and runs this"]
fn gemini_says_connected() -> Result<()> {
    let lab = Lab::new("CLAUDEMESH_TEST_GEMINI")?;
    lab.write(".gemini/settings.json", &block("Gemini CLI", "json")?)?;
    let project = lab.home.project().canonicalize()?.display().to_string();
    lab.write(".gemini/trustedFolders.json", &serde_json::json!({project: "TRUST_FOLDER"}).to_string())?;
    let said = lab.run("60", &["mcp", "list"])?;
    let row = said.lines().find(|line| line.contains("claudemesh mcp"));
    match row {
        Some(row) if row.contains("Connected") => Ok(()),
        _ => bail!("{said}"),
    }
}

#[test]
#[ignore = "needs OpenCode from npm; `cargo xtask test --hosts` installs it and runs this"]
fn opencode_says_connected() -> Result<()> {
    let lab = Lab::new("CLAUDEMESH_TEST_OPENCODE")?;
    lab.write(".config/opencode/opencode.json", &block("OpenCode", "json")?)?;
    let said = lab.run("60", &["mcp", "list"])?;
    assert!(said.contains("claudemesh") && said.contains("connected"), "{said}");
    Ok(())
}
