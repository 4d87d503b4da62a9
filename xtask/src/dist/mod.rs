//! `cargo xtask dist`: what a release consists of, for the machine that it runs on.
//!
//! | artefact | what it is |
//! |---|---|
//! | `claudemesh-V-TARGET.tar.gz` | both programs, stripped, with manual pages, completions, licences, configuration, service |
//! | `claudemesh-V-TARGET-debug.tar.gz` | their debug information, which `gdb` and `perf` find by name |
//! | `claudemesh_V_ARCH.deb` | the same files for Debian and Ubuntu |
//! | `claudemesh-V.tgz` | a package for npm with the program of the command line in it |
//! | `claudemesh.rb` | a formula for Homebrew |
//! | `install.sh` | fetches the archive, compares its checksum, and unpacks it |
//! | `SHA256SUMS` | of all of them |

mod check;
mod deb;
mod glibc;
mod npm;
mod text;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::shell::{self, Shell, phase, which};
use tree::Tree;

/// Package and program have the same name.
const PROGRAMS: [&str; 2] = ["claudemesh", "claudemesh-broker"];

/// The profile that a program is handed on with, and its largest size in bytes. The client has a broker in it, and everyone who
/// tries it downloads it: it is built for size.
fn handed_on(name: &str) -> (&'static str, u64) {
    if name == "claudemesh" { ("dist-client", 32_000_000) } else { ("dist", 25_000_000) }
}

/// Arguments of `dist`.
#[derive(Args)]
pub(crate) struct DistArgs {
    /// Folder for the artefacts
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Where the artefacts will lie; the formula and the install script fetch them from there
    #[arg(long, value_name = "URL", default_value = "https://example.invalid/claudemesh")]
    base_url: String,
    /// Also installs each artefact and runs it
    #[arg(long)]
    check: bool,
    /// Makes them of the debug build that is there and tries them, as `cargo xtask test` does; keeps nothing
    #[arg(long)]
    test: bool,
}

/// What is made, and who it is for.
struct Release {
    version: String,
    /// `x86_64-unknown-linux-gnu`
    target: String,
    /// The oldest glibc that has every symbol of the programs.
    glibc: glibc::Version,
    base_url: String,
    out: PathBuf,
    /// Packs quickly rather than small.
    quick: bool,
}

impl Release {
    /// `claudemesh-0.1.0-x86_64-unknown-linux-gnu`
    fn name(&self) -> String {
        format!("claudemesh-{}-{}", self.version, self.target)
    }

    /// First word of the target.
    fn arch(&self) -> &str {
        self.target.split('-').next().unwrap_or(&self.target)
    }

    fn level(&self) -> &'static str {
        if self.quick { "-1" } else { "-9" }
    }
}

/// Builds both programs and makes all artefacts.
///
/// # Errors
/// The build failed, the tools of the C compiler's package are missing, a program is too large, or an artefact does not work.
pub(crate) fn run(shell: &Shell, args: &DistArgs) -> Result<()> {
    if args.test {
        return test(shell);
    }
    // What `/health` tells; without git it says `unknown`.
    let revision =
        shell::run_quiet(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(&shell.root));
    let revision = revision.ok().map(|revision| ("GIT_SHA", revision.trim().to_owned()));
    for name in PROGRAMS {
        let (profile, _) = handed_on(name);
        // Each alone: together they would be built with the features of both.
        phase(&format!("build {name} with profile {profile}"), || {
            let mut command = shell.cargo(["build", "--profile", profile, "--locked", "--bin", name, "-p", name]);
            shell::run(command.envs(revision.clone()))
        })?;
    }
    let out = args.out.clone().unwrap_or_else(|| shell.target.join("dist/artefacts"));
    let release = make(shell, None, &out, &args.base_url)?;
    if args.check { check::all(&release) } else { Ok(()) }
}

/// Part of `cargo xtask test`: artefacts of the debug build, so that nothing is compiled again; each is installed and run.
///
/// # Errors
/// As [`run`].
pub(crate) fn test(shell: &Shell) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let base_url = format!("file://{}", folder.path().display());
    let release = make(shell, Some("debug"), folder.path(), &base_url)?;
    check::all(&release)
}

/// `quick`: of this profile, instead of the one that each is handed on with, and without a bound of their sizes.
fn make(shell: &Shell, quick: Option<&str>, out: &Path, base_url: &str) -> Result<Release> {
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("emptying {}", out.display()))?;
    }
    let stripped = out.join("programs");
    fs::create_dir_all(&stripped).with_context(|| format!("making {}", stripped.display()))?;
    let mut newest = glibc::Version::default();
    phase("programs and debug files", || {
        for name in PROGRAMS {
            let (profile, most) = handed_on(name);
            let program = split(&shell.binary(quick.unwrap_or(profile), name), &stripped)?;
            let size = fs::metadata(&program)?.len();
            let needs = glibc::needed(&program)?;
            newest = newest.max(needs);
            eprintln!("   {} {:.1} MB, needs glibc {needs}", program.display(), size as f64 / 1e6);
            ensure!(quick.is_some() || size <= most, "{name} has {size} bytes, more than {most}");
        }
        ensure!(newest <= glibc::OLDEST, "the programs need glibc {newest}, and {} is promised", glibc::OLDEST);
        Ok(())
    })?;
    let release = Release {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        target: host()?,
        glibc: newest,
        base_url: base_url.trim_end_matches('/').to_owned(),
        out: out.to_owned(),
        quick: quick.is_some(),
    };
    let tree = phase("files of the archive", || Tree::make(shell, &release, &stripped))?;
    phase("archives", || tree.archives(&release, &stripped))?;
    if which("dpkg-deb").is_some() {
        phase("package for Debian", || deb::make(&release, &tree))?;
    } else {
        missing("dpkg-deb", "the package for Debian")?;
    }
    if which("npm").is_some() {
        phase("package for npm", || npm::make(shell, &release, &stripped))?;
    } else {
        missing("npm", "the package for npm")?;
    }
    phase("formula and install script", || text::write(shell, &release))?;
    phase("checksums", || sums(&release))?;
    Ok(release)
}

pub(super) fn missing(tool: &str, what: &str) -> Result<()> {
    if shell::strict() {
        bail!("{tool} is missing, and nothing may be skipped with CI=true");
    }
    eprintln!("   SKIPPING {what}: {tool} is missing");
    Ok(())
}

fn host() -> Result<String> {
    let version = shell::run_quiet(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(host.to_owned())
}

/// Copies a program without, and beside it a file with its debug information; the program names that file.
fn split(program: &Path, out: &Path) -> Result<PathBuf> {
    let stripped = out.join(program.file_name().context("a program has a name")?);
    let debug = stripped.with_extension("debug");
    let objcopy = |args: &[&str], from: &Path, to: &Path| {
        shell::run_quiet(Command::new("objcopy").args(args).arg(from).arg(to)).map(drop)
    };
    objcopy(&["--only-keep-debug"], program, &debug)?;
    objcopy(&["--strip-all", &format!("--add-gnu-debuglink={}", debug.display())], program, &stripped)?;
    Ok(stripped)
}

/// Writes `SHA256SUMS`.
fn sums(release: &Release) -> Result<()> {
    let mut names: Vec<String> = fs::read_dir(&release.out)?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != "SHA256SUMS")
        .collect();
    names.sort();
    let text = shell::run_quiet(Command::new("sha256sum").arg("--").args(&names).current_dir(&release.out))?;
    fs::write(release.out.join("SHA256SUMS"), &text)?;
    eprint!("{text}");
    Ok(())
}

/// The checksum of one artefact.
fn sum(file: &Path) -> Result<String> {
    let text = shell::run_quiet(Command::new("sha256sum").arg(file))?;
    Ok(text.split_whitespace().next().context("sha256sum prints a sum")?.to_owned())
}
