//! Base images: pulled, or made here where no registry of images can be reached.
//!
//! What is made is kept as an archive in the target folder, because a private daemon forgets its images.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::daemon::Docker;
use crate::shell::{Shell, run_quiet, which};

/// Debian's release that the image is made for; a program that was compiled here needs this machine's release or a later one.
const RELEASE: &str = "bookworm";

/// Debian slim, of this machine's own release when a program of this machine should run in it.
///
/// # Errors
/// It can neither be pulled nor made.
pub(super) fn runtime(shell: &Shell, docker: &Docker, for_our_program: bool) -> Result<String> {
    let release =
        if for_our_program { own_release().unwrap_or_else(|| RELEASE.to_owned()) } else { RELEASE.to_owned() };
    let official = format!("debian:{release}-slim");
    if pull(docker, &official) {
        return Ok(official);
    }
    debian(shell, docker, &release, "ca-certificates")
}

/// Debian of this machine's own release with git and Python, for the runner of hosted services.
///
/// # Errors
/// It can neither be pulled nor made.
pub(super) fn with_languages(shell: &Shell, docker: &Docker) -> Result<String> {
    let release = own_release().unwrap_or_else(|| RELEASE.to_owned());
    let official = format!("debian:{release}-slim");
    if pull(docker, &official) {
        return Ok(official);
    }
    debian(shell, docker, &release, "ca-certificates,git,python3,python3-venv")
}

/// cargo and a C compiler: the official image, or Debian with this machine's own toolchain and downloaded crates.
///
/// # Errors
/// It can neither be pulled nor made.
pub(super) fn compiler(shell: &Shell, docker: &Docker) -> Result<String> {
    let official = format!("rust:1-slim-{RELEASE}");
    if pull(docker, &official) {
        return Ok(official);
    }
    let base = debian(shell, docker, RELEASE, "ca-certificates,gcc,libc6-dev")?;
    let context = tempfile::tempdir()?;
    let sysroot = run_quiet(Command::new("rustc").args(["--print", "sysroot"]))?;
    archive(&context.path().join("rust.tar"), Path::new(sysroot.trim()), &["bin", "lib"])?;
    run_quiet(Command::new("cargo").args(["fetch", "--locked"]).current_dir(&shell.root))?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    archive(
        &context.path().join("crates.tar"),
        &home.context("no home folder")?,
        &["registry/index", "registry/cache"],
    )?;
    let dockerfile = format!(
        "FROM {base}\nADD rust.tar /usr/local/\nADD crates.tar /usr/local/cargo/\n\
         ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true\n"
    );
    fs::write(context.path().join("Dockerfile"), dockerfile)?;
    let tag = "claudemesh-test/rust";
    run_quiet(docker.command(["build", "-t", tag]).arg(context.path()))?;
    Ok(tag.to_owned())
}

/// PostgreSQL: the image the compose file names, or Debian with this machine's own server.
///
/// # Errors
/// It can neither be pulled nor made.
pub(super) fn postgres(shell: &Shell, docker: &Docker, official: &str) -> Result<String> {
    if pull(docker, official) {
        return Ok(official.to_owned());
    }
    let release =
        own_release().context("this machine is no Debian, so its PostgreSQL fits into no image we can make")?;
    let base = debian(shell, docker, &release, "ca-certificates")?;
    let bin = crate::postgres::programs().context("PostgreSQL is not on this machine")?;
    let version = bin.parent().and_then(Path::file_name).context("the server lies in a folder of its version")?;
    let share = Path::new("/usr/share/postgresql").join(version);
    let context = tempfile::tempdir()?;
    let mut files: BTreeSet<String> = libraries(["postgres", "initdb", "pg_isready"].map(|name| bin.join(name)))?;
    files.extend([bin.parent().context("bin has a parent")?, &share].map(|path| path.display().to_string()));
    let relative: Vec<&str> = files.iter().map(|file| file.trim_start_matches('/')).collect();
    archive(&context.path().join("postgres.tar"), Path::new("/"), &relative)?;
    for file in ["postgres.Dockerfile", "postgres-entrypoint.sh"] {
        fs::copy(shell.root.join("xtask/image").join(file), context.path().join(file))?;
    }
    let tag = "claudemesh-test/postgres";
    let mut command = docker.command(["build", "-t", tag, "-f"]);
    command.arg(context.path().join("postgres.Dockerfile"));
    command.args(["--build-arg", &format!("BASE_IMAGE={base}"), "--build-arg", &format!("BIN={}", bin.display())]);
    run_quiet(command.arg(context.path()))?;
    Ok(tag.to_owned())
}

/// Files that the loader would load for these programs.
fn libraries(programs: impl IntoIterator<Item = PathBuf>) -> Result<BTreeSet<String>> {
    let text = run_quiet(Command::new("ldd").args(programs))?;
    let paths = text.lines().filter_map(|line| line.split_once("=> ")?.1.split(' ').next()).map(str::to_owned);
    // The C library is the base image's own: a second one beside it would not be found anyway.
    Ok(paths.filter(|path| path.starts_with('/') && !path.ends_with("/libc.so.6")).collect())
}

/// A tar file of these entries; what a link points to instead of the link, because the link may lead out of the archive.
fn archive(file: &Path, folder: &Path, entries: &[&str]) -> Result<()> {
    let mut command = Command::new("tar");
    run_quiet(command.arg("-chf").arg(file).arg("-C").arg(folder).args(entries)).map(drop)
}

/// Whether an image is there now.
fn pull(docker: &Docker, image: &str) -> bool {
    docker.ask(["image", "inspect", image]).is_ok() || docker.ask(["pull", "-q", image]).is_ok()
}

/// A minimal Debian from the mirror that this machine uses already.
fn debian(shell: &Shell, docker: &Docker, release: &str, packages: &str) -> Result<String> {
    let name = format!("{release}-{}", packages.replace(',', "-"));
    let tag = format!("claudemesh-test/debian:{name}");
    if docker.ask(["image", "inspect", &tag]).is_ok() {
        return Ok(tag);
    }
    let folder = shell.target.join("image");
    fs::create_dir_all(&folder)?;
    let kept = folder.join(format!("{name}.tar"));
    if !kept.exists() {
        if which("debootstrap").is_none() || !crate::child::is_root() {
            bail!("no image can be pulled, and to make one needs root and debootstrap");
        }
        let work = tempfile::Builder::new().prefix("claudemesh-debian-").tempdir()?;
        let root = work.path().join("root");
        let mut command = Command::new("debootstrap");
        command.args(["--variant=minbase", &format!("--include={packages}"), release]).arg(&root);
        run_quiet(command.args(mirror()))?;
        for leftover in ["var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"] {
            let _ = fs::remove_dir_all(root.join(leftover));
        }
        // Under another name until it is whole.
        let half = kept.with_extension("half");
        run_quiet(Command::new("tar").arg("-cf").arg(&half).arg("-C").arg(&root).arg("."))?;
        fs::rename(&half, &kept)?;
    }
    let mut import = docker.command(["import", "-", &tag]);
    import.stdin(Stdio::from(fs::File::open(&kept)?));
    run_quiet(&mut import)?;
    Ok(tag)
}

/// Codename of this machine's Debian; `None` on anything else.
fn own_release() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"'));
    (value("ID=") == Some("debian")).then(|| value("VERSION_CODENAME=").map(str::to_owned))?
}

/// The mirror in apt's own list; debootstrap knows the usual one.
fn mirror() -> Option<String> {
    let text = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("URIs:"))?;
    line.split_whitespace().next().map(str::to_owned)
}
