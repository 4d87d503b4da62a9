//! `cargo xtask image`: the broker's container image, and the proof that it and the compose file work.
//!
//! Uses the Docker daemon that is there; where there is none, and we are root, it starts a private one whose whole state
//! lies in a temporary folder. Base images are pulled, or made from the Debian mirror where they cannot be.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::shell::{self, Shell, phase};

mod base;
mod check;
mod daemon;
mod hosted;
mod people;

use daemon::Docker;
pub(crate) use daemon::can_run;

/// Arguments of `image`.
#[derive(Args)]
pub(crate) struct ImageArgs {
    /// Name of the image
    #[arg(long, default_value = "claudemesh-broker")]
    tag: String,
    /// Takes this program instead of compiling one in the image
    #[arg(long, value_name = "FILE")]
    prebuilt: Option<PathBuf>,
    /// Runs the image and the compose file, and sends messages through them
    #[arg(long)]
    check: bool,
}

/// Builds the image, and with `--check` tries it.
///
/// # Errors
/// No daemon can be had, the build failed, or what was built does not work.
pub(crate) fn run(shell: &Shell, args: &ImageArgs) -> Result<()> {
    let docker = phase("docker", Docker::find_or_start)?;
    build(shell, &docker, &args.tag, args.prebuilt.as_deref())?;
    if args.check {
        phase("build the command line", || shell::run(&mut shell.cargo(["build", "-p", "claudemesh", "--bins"])))?;
        check::run(shell, &docker, &args.tag)?;
    }
    Ok(())
}

/// Part of `cargo xtask test`: the image around the debug build, so that nothing is compiled again.
///
/// # Errors
/// As [`run`].
pub(crate) fn test(shell: &Shell) -> Result<()> {
    let docker = phase("docker", Docker::find_or_start)?;
    let tag = "claudemesh-broker-test";
    build(shell, &docker, tag, Some(&shell.binary("debug", "claudemesh-broker")))?;
    let checked = check::run(shell, &docker, tag);
    docker.remove_image(tag);
    checked.and_then(|()| hosted::test(shell, &docker))
}

/// A build context with nothing but this program under this name, without its debug information, which is most of a debug build.
fn context_of(program: &Path, name: &str) -> Result<tempfile::TempDir> {
    let context = tempfile::tempdir()?;
    let copy = context.path().join(name);
    std::fs::copy(program, &copy).with_context(|| format!("copying {}", program.display()))?;
    // Without the tool the image is only larger.
    let _ = std::process::Command::new("strip").arg(&copy).output();
    Ok(context)
}

fn build(shell: &Shell, docker: &Docker, tag: &str, prebuilt: Option<&Path>) -> Result<()> {
    let dockerfile = shell.root.join("deploy/Dockerfile");
    let base = phase("base image", || base::runtime(shell, docker, prebuilt.is_some()))?;
    let mut command = docker.command(["build", "-t", tag, "-f"]);
    command.arg(&dockerfile).args(["--build-arg", &format!("BASE_IMAGE={base}")]);
    match prebuilt {
        Some(program) => phase("image of a program that is there", || {
            let context = context_of(program, "claudemesh-broker")?;
            shell::run_quiet(command.args(["--build-arg", &format!("BUILD_IMAGE={base}")]).arg(context.path()))
                .map(drop)
        }),
        None => {
            let compiler = phase("image with the compiler", || base::compiler(shell, docker))?;
            phase("image with a program compiled in it", || {
                let argument = format!("BUILD_IMAGE={compiler}");
                shell::run(command.args(["--build-arg", &argument]).arg(&shell.root))
            })
        }
    }
}
