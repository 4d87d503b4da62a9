//! Installs each artefact as its readers would, and runs what is there then.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use super::tree::COMPLETIONS;
use super::{PROGRAMS, Release, deb, missing, npm, sum};
use crate::shell::{self, phase, which};

/// All artefacts that are there.
pub(super) fn all(release: &Release) -> Result<()> {
    phase("checksums fit", || {
        let mut command = Command::new("sha256sum");
        shell::run_quiet(command.args(["--check", "--strict", "SHA256SUMS"]).current_dir(&release.out)).map(drop)
    })?;
    phase("the archive works", || archive(release))?;
    phase("the install script works", || script(release))?;
    phase("the install script refuses another archive", || tampered(release))?;
    if release.out.join(deb::name(release)?).exists() {
        phase("the package for Debian works", || debian(release))?;
    }
    if release.out.join(npm::name(release)).exists() {
        phase("the package for npm works", || node(release))?;
    }
    phase("the formula names the archive", || formula(release))
}

/// A program says which version it is, in a home of its own.
fn runs(program: &Path, release: &Release) -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut command = Command::new(program);
    let said = shell::run_quiet(command.arg("--version").env_clear().env("HOME", home.path()))?;
    ensure!(said.contains(&release.version), "{} says {said}", program.display());
    Ok(())
}

/// Everything that belongs below a prefix is there and works.
fn complete(prefix: &Path, release: &Release) -> Result<()> {
    for name in PROGRAMS {
        runs(&prefix.join("bin").join(name), release)?;
    }
    let man = fs::read_dir(prefix.join("share/man/man1"))?.flatten();
    let pages: Vec<String> = man.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    ensure!(pages.len() > 20 && pages.iter().any(|page| page.starts_with("claudemesh-send.1")), "manual: {pages:?}");
    for (shell, path) in COMPLETIONS {
        let script = prefix.join(path);
        ensure!(fs::metadata(&script)?.len() > 1_000, "completions for {shell} are empty");
        if shell == "bash" {
            shell::run_quiet(Command::new("bash").arg("-n").arg(&script))?;
        }
    }
    for file in ["DEPENDENCIES", "docs/meshes.md", "docs/troubleshooting.md"] {
        ensure!(prefix.join("share/doc/claudemesh").join(file).exists(), "{file} is missing");
    }
    Ok(())
}

fn archive(release: &Release) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = release.out.join(format!("{}.tar.gz", release.name()));
    shell::run_quiet(Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(folder.path()))?;
    let prefix = folder.path().join(release.name());
    complete(&prefix, release)?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        ensure!(prefix.join("share/doc/claudemesh").join(licence).exists(), "{licence} is missing");
    }
    Ok(())
}

/// The script that a reader would fetch, with the artefacts in this folder.
fn installed(out: &Path, prefix: &Path) -> Result<Output> {
    let mut command = Command::new("sh");
    command.arg(out.join("install.sh")).arg("--prefix").arg(prefix);
    command.env("CLAUDEMESH_BASE_URL", format!("file://{}", out.display()));
    command.stdin(Stdio::null()).output().context("starting sh")
}

fn script(release: &Release) -> Result<()> {
    let prefix = tempfile::tempdir()?;
    for again in [false, true] {
        let output = installed(&release.out, prefix.path())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "install.sh (a second time: {again}): {said}");
        complete(prefix.path(), release)?;
    }
    Ok(())
}

fn tampered(release: &Release) -> Result<()> {
    let (folder, prefix) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let archive = format!("{}.tar.gz", release.name());
    for name in ["SHA256SUMS", "install.sh", &archive] {
        fs::copy(release.out.join(name), folder.path().join(name))?;
    }
    let mut bytes = fs::read(folder.path().join(&archive))?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(folder.path().join(&archive), bytes)?;
    let output = installed(folder.path(), &prefix.path().join("there"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("checksum"), "it took another archive: {said}");
    ensure!(!prefix.path().join("there").exists(), "something was installed");
    // One whose sum is not known is refused as well.
    fs::write(folder.path().join("SHA256SUMS"), "0000  other.tar.gz\n")?;
    let output = installed(folder.path(), &prefix.path().join("there"))?;
    ensure!(!output.status.success() && !prefix.path().join("there").exists(), "it took an archive without a sum");
    Ok(())
}

/// Into a root of its own, with dpkg's own records there, and out again.
fn debian(release: &Release) -> Result<()> {
    let root = tempfile::tempdir()?;
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log"] {
        fs::create_dir_all(root.path().join(folder))?;
    }
    for file in ["status", "available"] {
        fs::write(root.path().join("var/lib/dpkg").join(file), "")?;
    }
    let file = release.out.join(deb::name(release)?);
    let fields = shell::run_quiet(Command::new("dpkg-deb").arg("--field").arg(&file))?;
    let needs = format!("libc6 (>= {})", release.glibc);
    ensure!(fields.contains(&needs) && fields.contains(&release.version), "{fields}");
    let dpkg = || {
        let mut command = Command::new("dpkg");
        // The root has no C library of its own, and the tests need not run as root.
        command.args(["--force-depends", "--force-not-root"]).arg(format!("--root={}", root.path().display()));
        // Tools that a root user always finds.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command
    };
    shell::run_quiet(dpkg().arg("-i").arg(&file))?;
    complete(&root.path().join("usr"), release)?;
    let unit = fs::read_to_string(root.path().join("usr/lib/systemd/system/claudemesh-broker.service"))?;
    ensure!(unit.contains("ExecStart=/usr/bin/claudemesh-broker"), "{unit}");
    ensure!(root.path().join("usr/share/doc/claudemesh/copyright").exists(), "no copyright");
    let wrong = shell::run_quiet(dpkg().args(["--verify", "claudemesh"]))?;
    ensure!(wrong.trim().is_empty(), "files differ from their sums: {wrong}");
    shell::run_quiet(dpkg().args(["--purge", "claudemesh"]))?;
    ensure!(!root.path().join("usr/bin/claudemesh").exists(), "the package leaves its program behind");
    Ok(())
}

/// As a dependency of a project, and with `npx`; nothing is fetched.
fn node(release: &Release) -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("package.json"), r#"{"name":"try","private":true}"#)?;
    let file = release.out.join(npm::name(release));
    let node = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(folder.path()).env("HOME", folder.path()).env("npm_config_offline", "true");
        command.env("npm_config_cache", folder.path().join("cache")).env("npm_config_update_notifier", "false");
        command
    };
    shell::run_quiet(node("npm").args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).arg(&file))?;
    let said = shell::run_quiet(node("npx").args(["--no-install", "claudemesh", "--version"]))?;
    ensure!(said.contains(&release.version), "npx claudemesh says {said}");
    runs(&folder.path().join("node_modules/.bin/claudemesh"), release)?;
    // And as someone who has only the file.
    let package = format!("--package={}", file.display());
    let said = shell::run_quiet(node("npx").args(["--yes", &package, "claudemesh", "--version"]))?;
    ensure!(said.contains(&release.version), "npx with the file says {said}");
    Ok(())
}

/// There is no Homebrew on a machine of ours: its parts are compared, and Ruby reads it.
fn formula(release: &Release) -> Result<()> {
    let (file, archive) = (release.out.join("claudemesh.rb"), format!("{}.tar.gz", release.name()));
    let text = fs::read_to_string(&file)?;
    let url = format!("url \"{}/{archive}\"", release.base_url);
    let sum = format!("sha256 \"{}\"", sum(&release.out.join(&archive))?);
    ensure!(text.contains(&url) && text.contains(&sum), "{text}");
    if which("ruby").is_none() {
        return missing("ruby", "the formula as Ruby reads it");
    }
    shell::run_quiet(Command::new("ruby").arg("-c").arg(&file)).map(drop)
}
