//! The package for npm. It carries the program itself, so `npx claudemesh` starts it without a detour over node.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::json;

use super::Release;
use crate::shell::{self, Shell};

/// `claudemesh-0.1.0.tgz`
pub(super) fn name(release: &Release) -> String {
    format!("claudemesh-{}.tgz", release.version)
}

/// Makes it.
pub(super) fn make(shell: &Shell, release: &Release, programs: &Path) -> Result<()> {
    let cpu = match release.arch() {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => bail!("no package for {other}"),
    };
    let folder = tempfile::tempdir()?;
    let at = |path: &str| folder.path().join(path);
    fs::create_dir_all(at("bin"))?;
    fs::copy(programs.join("claudemesh"), at("bin/claudemesh"))?;
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(shell.root.join(name), at(name))?;
    }
    fs::write(at("README.md"), README)?;
    let package = json!({
        "name": "claudemesh",
        "version": release.version,
        "description": "Lets Claude Code sessions work as one team: presence, messages, questions, shared state",
        "license": "MIT OR Apache-2.0",
        "bin": {"claudemesh": "bin/claudemesh"},
        "files": ["bin/claudemesh", "LICENSE-MIT", "LICENSE-APACHE"],
        // npm refuses it elsewhere instead of installing what cannot run.
        "os": ["linux"],
        "cpu": [cpu],
        "libc": ["glibc"],
    });
    fs::write(at("package.json"), serde_json::to_string_pretty(&package)?)?;
    let mut command = Command::new("npm");
    command.args(["pack", "--silent", "--offline", "--pack-destination"]).arg(&release.out).current_dir(folder.path());
    shell::run_quiet(&mut command).map(drop)
}

const README: &str = "# claudemesh\n\nLets Claude Code sessions work as one team.\n\n```sh\nnpx claudemesh up --demo\n\
                      npm install --global claudemesh\nclaudemesh install\n```\n\n\
                      `npx` keeps programs in a cache that npm may empty. For `claudemesh install`, which writes the program's\n\
                      path into Claude Code's files, install the package with `--global` first.\n\n\
                      The package has the command line and the MCP server, not `claudemesh-broker`.\n";
