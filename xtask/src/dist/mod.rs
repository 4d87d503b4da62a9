//! `cargo xtask dist`: the programs as releases have them, small, with their debug information in files beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::shell::{self, Shell, phase};

/// A program that is handed on is at most so large: it is downloaded by everyone who tries it.
const MAX_BYTES: u64 = 25_000_000;
/// Package and program have the same name.
const PROGRAMS: [&str; 2] = ["claudemesh", "claudemesh-broker"];

/// Arguments of `dist`.
#[derive(Args)]
pub(crate) struct DistArgs {
    /// Folder for the programs and their `.debug` files
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Builds both programs and splits off their debug files.
///
/// # Errors
/// The build failed, the tools of the C compiler's package are missing, or a program is too large.
pub(crate) fn run(shell: &Shell, args: &DistArgs) -> Result<()> {
    phase("build with profile dist", || {
        let mut command = shell.cargo(["build", "--profile", "dist", "--locked", "--bins"]);
        shell::run(command.args(PROGRAMS.iter().flat_map(|name| ["-p", name])))
    })?;
    let out = args.out.clone().unwrap_or_else(|| shell.target.join("dist/stripped"));
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    for name in PROGRAMS {
        let program = split(&shell.binary("dist", name), &out)?;
        let size = fs::metadata(&program)?.len();
        eprintln!("   {} {:.1} MB", program.display(), size as f64 / 1e6);
        ensure!(size <= MAX_BYTES, "{name} has {size} bytes, more than {MAX_BYTES}");
    }
    Ok(())
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
