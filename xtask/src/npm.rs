//! Clients that others wrote, from npm: the TypeScript SDK's MCP client and Claude Code itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, Shell, phase, strict};

/// The pinned MCP client.
const SDK: (&str, &str) = ("@modelcontextprotocol/sdk", "1.32.2");
/// The pinned MCP server that is called directly and through the mesh.
const EVERYTHING: (&str, &str) = ("@modelcontextprotocol/server-everything", "2026.8.31");
/// The pinned versions of Claude Code: the newest, and the one that older node versions get.
const CLAUDE_VERSIONS: [&str; 2] = ["2.1.329", "2.1.197"];

/// The pinned S3 server: one that checks signatures.
const S3: (&str, &str) = ("s3rver", "3.7.1");

/// Other hosts: variable, package, version, program.
const HOSTS: [(&str, &str, &str, &str); 3] = [
    ("CLAUDEMESH_TEST_CODEX", "@openai/codex", "0.169.0", "codex"),
    ("CLAUDEMESH_TEST_GEMINI", "@google/gemini-cli", "0.61.0", "gemini"),
    ("CLAUDEMESH_TEST_OPENCODE", "opencode-ai", "1.18.33", "opencode"),
];

/// Installs every client that the tests start, so that they need not wait for the network.
///
/// # Errors
/// An installation failed.
pub(crate) fn download(shell: &Shell, hosts: bool) -> Result<()> {
    let sdk = format!("{}@{}", SDK.0, SDK.1);
    phase("install the TypeScript SDK", || install(shell, "sdk", &sdk))?;
    phase("install an MCP server", || install(shell, "everything", &format!("{}@{}", EVERYTHING.0, EVERYTHING.1)))?;
    phase("install an S3 server", || install(shell, S3.0, &format!("{}@{}", S3.0, S3.1)))?;
    for version in CLAUDE_VERSIONS {
        phase(&format!("install Claude Code {version}"), || install_claude(shell, version))?;
    }
    for (_, package, version, program) in HOSTS.iter().filter(|_| hosts) {
        phase(&format!("install {package} {version}"), || install(shell, program, &format!("{package}@{version}")))?;
    }
    Ok(())
}

/// Installs other hosts (some 900 MB) and lets them start `claudemesh mcp` as `docs/other-hosts.md` has it.
///
/// # Errors
/// An installation or a test failed.
pub(crate) fn other_hosts(shell: &Shell) -> Result<()> {
    let mut command = ignored_test(shell, "real_hosts");
    for (variable, package, version, program) in HOSTS {
        let folder = phase(&format!("install {package} {version}"), || {
            install(shell, program, &format!("{package}@{version}"))
        })?;
        command.env(variable, folder.join("node_modules/.bin").join(program));
    }
    command.env(runner_variable()?, loopback_only(shell));
    phase("other hosts", || shell::run(&mut command))
}

/// Runs a program so that it sees loopback only.
fn loopback_only(shell: &Shell) -> String {
    let runner = if crate::child::is_root() { "unshare -n" } else { "unshare -rn" };
    format!("{runner} sh {}", shell.root.join("xtask/loopback-only.sh").display())
}

/// Installs the clients and runs the tests that drive `claudemesh mcp` with them.
///
/// # Errors
/// An installation or a test failed, or `CI=true` and this machine has no network namespaces.
pub(crate) fn real_clients(shell: &Shell, namespaces: bool) -> Result<()> {
    let sdk = install(shell, "sdk", &format!("{}@{}", SDK.0, SDK.1))?;
    phase("TypeScript SDK client", || {
        let mut command = ignored_test(shell, "sdk");
        shell::run(command.env("CLAUDEMESH_TEST_SDK", &sdk))
    })?;
    let everything = install(shell, "everything", &format!("{}@{}", EVERYTHING.0, EVERYTHING.1))?;
    phase("MCP server from npm", || {
        let mut command = ignored_test(shell, "real_servers");
        shell::run(command.env("CLAUDEMESH_TEST_MCP_EVERYTHING", &everything))
    })?;
    phase("services from npm and PyPI", || shell::run(&mut ignored_test(shell, "runner")))?;
    if !namespaces {
        if strict() {
            bail!(
                "Claude Code cannot be run here without a network namespace, and nothing may be skipped with CI=true"
            );
        }
        return Ok(());
    }
    for version in CLAUDE_VERSIONS {
        let folder = install_claude(shell, version)?;
        phase(&format!("Claude Code {version}"), || {
            let mut command = ignored_test(shell, "real_claude");
            command.env("CLAUDEMESH_TEST_CLAUDE", folder.join("node_modules/.bin/claude"));
            // The test binary, and with it broker, model and client, sees loopback only.
            shell::run(command.env(runner_variable()?, loopback_only(shell)))
        })?;
    }
    Ok(())
}

/// Installs an S3 server and runs the broker's tests of files in a bucket.
///
/// # Errors
/// The installation or a test failed.
pub(crate) fn s3(shell: &Shell) -> Result<()> {
    let folder = install(shell, S3.0, &format!("{}@{}", S3.0, S3.1))?;
    phase("files in a bucket", || {
        let mut command = ignored_test(shell, "s3");
        command.env("CLAUDEMESH_TEST_S3RVER", folder.join("node_modules/.bin/s3rver"));
        // The pair that this server knows.
        shell::run(command.env("AWS_ACCESS_KEY_ID", "S3RVER").env("AWS_SECRET_ACCESS_KEY", "S3RVER"))
    })
}

fn install_claude(shell: &Shell, version: &str) -> Result<PathBuf> {
    install(shell, &format!("claude-{version}"), &format!("@anthropic-ai/claude-code@{version}"))
}

/// Tests that need what this task has prepared.
pub(crate) fn ignored_test(shell: &Shell, name: &str) -> Command {
    // `--workspace` although one package has the test: the same features as in the build before, nothing is rebuilt.
    shell.cargo(["test", "--workspace", "--test", name, "--", "--ignored", "--nocapture", "--test-threads=1"])
}

fn runner_variable() -> Result<String> {
    let version = shell::run_quiet(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.replace('-', "_").to_uppercase()))
}

/// A folder with the package; kept between runs.
fn install(shell: &Shell, name: &str, package: &str) -> Result<PathBuf> {
    let folder = shell.target.join("npm").join(name);
    let done = folder.join("installed");
    if fs::read_to_string(&done).is_ok_and(|text| text == package) {
        return Ok(folder);
    }
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("package.json"), r#"{"name":"claudemesh-tests","private":true}"#)?;
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]).arg(&folder).arg(package);
    shell::run_quiet(&mut command)?;
    fs::write(&done, package)?;
    Ok(folder)
}
