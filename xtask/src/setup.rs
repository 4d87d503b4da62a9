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
        why: "the TypeScript SDK's client, Claude Code and an S3 server",
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
    Need {
        what: "Caddy",
        packages: &["caddy"],
        why: "the file for Caddy that puts TLS in front of a broker",
        found: || which("caddy").is_some(),
    },
    Need {
        what: "nginx, openssl and curl",
        packages: &["nginx-light", "openssl", "curl"],
        why: "the file for nginx that puts TLS in front of a broker",
        found: || ["nginx", "openssl", "curl"].iter().all(|program| which(program).is_some()),
    },
    Need {
        what: "systemd-analyze",
        packages: &["systemd"],
        why: "what systemd says of the unit of `claudemesh service install`",
        found: || which("systemd-analyze").is_some(),
    },
    Need { what: "Ruby", packages: &["ruby"], why: "the formula for Homebrew", found: || which("ruby").is_some() },
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
        let _quiet = NoServices::begin();
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

/// While it lives, packages that are installed start no service: the tests start what they need, and two web servers would both
/// want port 80. The file is Debian's way to say so.
struct NoServices(Option<&'static Path>);

impl NoServices {
    fn begin() -> Self {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = Path::new("/usr/sbin/policy-rc.d");
        // One that is there has the word.
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path);
        let written = made.and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"));
        Self(written.is_ok().then_some(path))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
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
