//! `cargo xtask ci`: what has to hold before a change is merged, and the generated pages.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::shell::{self, Shell, phase, which};
use crate::{fuzz, test};

/// Arguments of `ci`.
#[derive(Args)]
pub(crate) struct CiArgs {
    /// Leaves out `test`
    #[arg(long)]
    no_tests: bool,
}

/// Cheap checks first, then the tests.
///
/// # Errors
/// That of the first failing phase.
pub(crate) fn run(shell: &Shell, args: &CiArgs) -> Result<()> {
    phase("fmt", || shell::run(&mut shell.cargo(["fmt", "--all", "--check"])))?;
    phase("clippy", || {
        shell::run(&mut shell.cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    })?;
    phase("doc", || shell::run(shell.cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")))?;
    phase("broker with one database", || {
        for database in ["sqlite", "postgres"] {
            let args = ["check", "-p", "claudemesh-broker", "--lib", "--bins", "--no-default-features", "--features"];
            shell::run(shell.cargo(args).arg(database))?;
        }
        Ok(())
    })?;
    phase("client without the local broker", || {
        shell::run(&mut shell.cargo(["check", "-p", "claudemesh", "--lib", "--bins", "--no-default-features"]))
    })?;
    phase("fuzz targets", || fuzz::check(shell))?;
    phase("dependencies that nothing uses", || {
        optional("cargo-machete", "cargo-machete", &mut shell.cargo(["machete"]), shell)
    })?;
    phase("spelling", || optional("typos", "typos-cli", &mut Command::new("typos"), shell))?;
    phase("licences and sources of dependencies", || {
        // `cargo deny check advisories` needs a database from elsewhere, so it is not part of this.
        optional("cargo-deny", "cargo-deny", &mut shell.cargo(["deny", "check", "licenses", "bans", "sources"]), shell)
    })?;
    if !args.no_tests {
        test::run(shell, &test::TestArgs::default())?;
    }
    docs(shell, true)
}

/// Runs a tool that not every machine has; says so when it is missing.
fn optional(tool: &str, package: &str, command: &mut Command, shell: &Shell) -> Result<()> {
    if which(tool).is_none() {
        eprintln!("   SKIPPING: {tool} is missing; cargo install --locked {package}");
        return Ok(());
    }
    shell::run(command.current_dir(&shell.root))
}

/// Writes (or with `check` compares) `docs/errors.md`, `docs/wire.md` and the plug-in in `deploy/plugin`.
///
/// # Errors
/// The generator failed, or a page differs.
pub(crate) fn docs(shell: &Shell, check: bool) -> Result<()> {
    phase("docs", || {
        let mut command = shell.cargo(["run", "--quiet", "-p", "claudemesh-testkit", "--bin", "claudemesh-load", "--"]);
        command.arg("docs").arg("--out").arg(shell.root.join("docs"));
        shell::run(if check { command.arg("--check") } else { &mut command })?;
        // The plug-in is made from the tables of the client; its test writes it when snapshots are to be rewritten.
        let mut plugin =
            shell.cargo(["test", "--quiet", "-p", "claudemesh", "--test", "cli", "plugin_and_skill_follow"]);
        shell::run(plugin.env("INSTA_UPDATE", if check { "no" } else { "always" }))
    })
}
