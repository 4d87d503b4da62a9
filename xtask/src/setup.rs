//! What the tests need beside the Rust toolchain, and how it gets there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::postgres;
use crate::shell::{self, strict, which};

/// What was found; a phase whose tool is missing says so and is left out (never with `CI=true`).
pub(crate) struct Tools {
    /// Folder with `initdb` and `postgres`.
    pub(crate) postgres: Option<PathBuf>,
    /// Whether `node` and `npm` can be used.
    pub(crate) npm: bool,
    /// Whether `unshare` and `ip` can make a network that has loopback only.
    pub(crate) namespaces: bool,
    /// Whether a Docker daemon answers or can be started, and compose files can be read.
    pub(crate) docker: bool,
}

struct Need {
    what: &'static str,
    packages: &'static [&'static str],
    why: &'static str,
    found: fn() -> bool,
}

const NEEDS: &[Need] = &[
    Need {
        what: "PostgreSQL",
        packages: &["postgresql"],
        why: "the suites on PostgreSQL",
        found: || postgres::programs().is_some(),
    },
    Need {
        what: "node and npm",
        packages: &["nodejs", "npm"],
        why: "the TypeScript SDK's client and Claude Code",
        found: || which("node").is_some() && which("npm").is_some(),
    },
    Need {
        what: "ip",
        packages: &["iproute2"],
        why: "real clients without a network",
        found: || which("ip").is_some(),
    },
    Need {
        what: "unshare",
        packages: &["util-linux"],
        why: "real clients without a network",
        found: || which("unshare").is_some(),
    },
    Need { what: "tmux", packages: &["tmux"], why: "Claude Code in a terminal", found: || which("tmux").is_some() },
    Need {
        what: "Docker with compose",
        packages: &["docker.io", "docker-compose", "debootstrap"],
        why: "the container image and the compose file",
        found: docker,
    },
];

/// Installs what is missing where that is possible, and reports the rest.
///
/// # Errors
/// Something is missing and `CI=true`, or the package manager failed.
fn find_tools() -> Result<Tools> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.found)()).collect();
    if !missing.is_empty() && can_install() {
        let packages = missing.iter().flat_map(|need| need.packages.iter().copied());
        eprintln!("   installing {}", missing.iter().map(|need| need.what).collect::<Vec<_>>().join(", "));
        shell::run(apt().args(["update", "-qq"]))?;
        shell::run(apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages))?;
    }
    for need in NEEDS.iter().filter(|need| !(need.found)()) {
        let packages = need.packages.join(" ");
        if strict() {
            bail!(
                "{} is missing, and nothing may be skipped with CI=true; on Debian: apt-get install {packages}",
                need.what
            );
        }
        eprintln!("   SKIPPING {}: {} is missing; on Debian: apt-get install {packages}", need.why, need.what);
    }
    let tools = found();
    if !tools.namespaces {
        eprintln!("   SKIPPING Claude Code: this machine allows no network namespace");
    }
    Ok(tools)
}

/// What is there now; installs and says nothing.
pub(crate) fn found() -> Tools {
    Tools {
        postgres: postgres::programs(),
        npm: which("node").is_some() && which("npm").is_some(),
        namespaces: namespaces(),
        docker: docker(),
    }
}

/// The phase `setup`.
///
/// # Errors
/// As [`find_tools`].
pub(crate) fn run() -> Result<Tools> {
    shell::phase("setup", find_tools)
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn can_install() -> bool {
    crate::child::is_root() && Path::new("/etc/debian_version").exists() && which("apt-get").is_some()
}

fn docker() -> bool {
    let plugin = || Command::new("docker").args(["compose", "version"]).output().is_ok_and(|out| out.status.success());
    crate::image::can_run() && (which("docker-compose").is_some() || plugin())
}

fn namespaces() -> bool {
    if which("unshare").is_none() || which("ip").is_none() {
        return false;
    }
    Command::new("unshare")
        .args(if crate::child::is_root() { ["-n"] } else { ["-rn"] })
        .args(["ip", "link", "set", "lo", "up"])
        .output()
        .is_ok_and(|output| output.status.success())
}
