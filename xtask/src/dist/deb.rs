//! The package for Debian and Ubuntu, made by `dpkg-deb` of the same tree as the archive.
//!
//! Not by `cargo-deb`: that would have to be compiled first, and would need a second list of the same files in a Cargo.toml.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Release;
use super::tree::Tree;
use crate::shell;

/// Debian's word for the machine.
fn architecture(release: &Release) -> Result<&'static str> {
    match release.arch() {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no package for {other}"),
    }
}

/// `claudemesh_0.1.0_amd64.deb`
pub(super) fn name(release: &Release) -> Result<String> {
    Ok(format!("claudemesh_{}_{}.deb", release.version, architecture(release)?))
}

/// Makes it.
pub(super) fn make(release: &Release, tree: &Tree) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("DEBIAN"))?;
    shell::run_quiet(Command::new("cp").arg("-a").arg(&tree.folder).arg(root.join("usr")))?;
    let doc = root.join("usr/share/doc/claudemesh");
    fs::write(doc.join("copyright"), copyright(&doc)?)?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::remove_file(doc.join(licence))?;
    }
    fs::rename(doc.join("CHANGELOG.md"), doc.join("changelog"))?;
    gzip(&doc.join("changelog"))?;
    let man = root.join("usr/share/man/man1");
    for page in fs::read_dir(&man)?.flatten() {
        gzip(&page.path())?;
    }
    let size = shell::run_quiet(Command::new("du").args(["-sk", "--apparent-size"]).arg(root.join("usr")))?;
    let size = size.split_whitespace().next().context("du prints a size")?;
    fs::write(root.join("DEBIAN/control"), control(release, size)?)?;
    fs::write(root.join("DEBIAN/md5sums"), md5sums(&root)?)?;
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zgzip", if release.quick { "-z1" } else { "-z9" }, "--build"]);
    shell::run_quiet(command.arg(&root).arg(release.out.join(name(release)?))).map(drop)
}

fn gzip(file: &Path) -> Result<()> {
    shell::run_quiet(Command::new("gzip").args(["-9n"]).arg(file)).map(drop)
}

fn control(release: &Release, size: &str) -> Result<String> {
    Ok(format!(
        "Package: claudemesh\nVersion: {}\nArchitecture: {}\nInstalled-Size: {size}\n\
         Maintainer: The claudemesh authors <claudemesh@example.invalid>\n\
         Depends: libc6 (>= {}), libgcc-s1\nSection: net\nPriority: optional\n\
         Description: lets Claude Code sessions work as one team\n \
         Sessions see each other, send messages that arrive in the other session while it\n \
         works, ask each other and share values. The command line, the MCP server for Claude\n \
         Code and the broker. The broker's service is not started by itself.\n",
        release.version,
        architecture(release)?,
        release.glibc
    ))
}

/// Both licences in one file, where Debian has them.
fn copyright(doc: &Path) -> Result<String> {
    let mut text = String::from("claudemesh is licensed under MIT or Apache-2.0, as you like.\n");
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        text += &format!("\n----- {licence} -----\n\n{}", fs::read_to_string(doc.join(licence))?);
    }
    Ok(text)
}

fn md5sums(root: &Path) -> Result<String> {
    shell::run_quiet(Command::new("sh").args(["-c", "find usr -type f | sort | xargs md5sum"]).current_dir(root))
}
