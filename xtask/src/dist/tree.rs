//! The files of a release, as they lie below `/usr` or a folder of one's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{PROGRAMS, Release};
use crate::shell::{self, Shell};

/// Completions: the shell, and where it looks for them.
pub(super) const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/claudemesh"),
    ("zsh", "share/zsh/site-functions/_claudemesh"),
    ("fish", "share/fish/vendor_completions.d/claudemesh.fish"),
];
const DOC: &str = "share/doc/claudemesh";
/// Files of the repository, and where they go.
const FILES: [(&str, &str); 5] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("deploy/broker.example.toml", "broker.example.toml"),
];

/// A folder with `bin`, `share` and `lib`.
pub(super) struct Tree {
    pub(super) folder: PathBuf,
}

impl Tree {
    /// Puts it together. Manual pages and completions are what the program itself prints.
    pub(super) fn make(shell: &Shell, release: &Release, programs: &Path) -> Result<Self> {
        let folder = release.out.join("tree").join(release.name());
        let at = |path: &str| -> Result<PathBuf> {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().context("it lies in a folder")?)?;
            Ok(path)
        };
        for name in PROGRAMS {
            fs::copy(programs.join(name), at(&format!("bin/{name}"))?)?;
        }
        let program = folder.join("bin/claudemesh");
        let home = tempfile::tempdir()?;
        let ours = |args: &[&str]| {
            let mut command = Command::new(&program);
            command.args(args).env("HOME", home.path()).env("CLAUDEMESH_CONFIG_DIR", home.path().join("config"));
            shell::run_quiet(&mut command)
        };
        let man = at("share/man/man1/claudemesh.1")?;
        ours(&["man", "--dir", &man.parent().context("it lies in a folder")?.display().to_string()])?;
        for (shell, path) in COMPLETIONS {
            fs::write(at(path)?, ours(&["completions", shell])?)?;
        }
        for (from, to) in FILES {
            let path = at(&format!("{DOC}/{to}"))?;
            fs::copy(shell.root.join(from), &path).with_context(|| format!("copying {from}"))?;
        }
        // Help and README name these pages.
        for page in fs::read_dir(shell.root.join("docs"))? {
            let page = page?;
            let path = at(&format!("{DOC}/docs/{}", page.file_name().to_string_lossy()))?;
            fs::copy(page.path(), &path).with_context(|| format!("copying {}", page.path().display()))?;
        }
        fs::write(at(&format!("{DOC}/DEPENDENCIES"))?, dependencies(shell)?)?;
        let unit = fs::read_to_string(shell.root.join("deploy/claudemesh-broker.service"))?;
        fs::write(at("lib/systemd/system/claudemesh-broker.service")?, unit.replace("/usr/local/bin/", "/usr/bin/"))?;
        Ok(Self { folder })
    }

    /// The archive, and the one with the debug files.
    pub(super) fn archives(&self, release: &Release, programs: &Path) -> Result<()> {
        let name = release.name();
        let parent = self.folder.parent().context("it lies in a folder")?;
        pack(release, parent, &[&name], &release.out.join(format!("{name}.tar.gz")))?;
        let debug: Vec<String> = PROGRAMS.iter().map(|name| format!("{name}.debug")).collect();
        let debug: Vec<&str> = debug.iter().map(String::as_str).collect();
        // Those of a debug build are as large as they are useless to others.
        if release.quick {
            return Ok(());
        }
        pack(release, programs, &debug, &release.out.join(format!("{name}-debug.tar.gz")))
    }
}

/// Packs so that the same files make the same archive.
fn pack(release: &Release, folder: &Path, names: &[&str], archive: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+rw,go+r-w"]);
    command.args(["-I", &format!("gzip -n {}", release.level()), "-cf"]).arg(archive).arg("-C").arg(folder);
    shell::run_quiet(command.args(names)).map(drop)
}

/// Name, version and licence of every crate that is compiled in.
fn dependencies(shell: &Shell) -> Result<String> {
    let mut text = String::from("Crates that claudemesh is built from, with their licences:\n\n");
    let format = "{p} {l}";
    let mut command = shell.cargo(["tree", "--locked", "--offline", "-e", "normal", "--prefix", "none", "-f", format]);
    let listed = shell::run_quiet(command.args(PROGRAMS.iter().flat_map(|name| ["-p", name])))?;
    let mut lines: Vec<&str> = listed.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    lines.retain(|line| !line.is_empty() && !line.starts_with("claudemesh"));
    lines.sort_unstable();
    lines.dedup();
    text += &lines.join("\n");
    text.push('\n');
    Ok(text)
}
