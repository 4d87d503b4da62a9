//! Hosted MCP servers in a real container: the image of the runner, and the test that needs a Docker engine.

use anyhow::Result;

use super::base;
use super::daemon::Docker;
use crate::npm::ignored_test;
use crate::shell::{self, Shell, phase};

const TAG: &str = "claudemesh-runner-test";

/// Builds the image of the runner around the debug build, and has a broker host a service in it.
///
/// # Errors
/// The image cannot be built, or the test failed.
pub(super) fn test(shell: &Shell, docker: &Docker) -> Result<()> {
    let base = phase("base image of the runner", || base::with_languages(shell, docker))?;
    phase("image of the runner", || build(shell, docker, &base))?;
    let tested = phase("a hosted service in a container", || {
        let mut command = ignored_test(shell, "it");
        command.env("CLAUDEMESH_TEST_DOCKER", docker.address()).env("CLAUDEMESH_TEST_RUNNER_IMAGE", TAG);
        shell::run(&mut command)
    });
    docker.remove_image(TAG);
    tested
}

/// The Dockerfile as it is published, around a program that is there. uv is left out, since it comes from a registry; the runner
/// installs with pip then.
fn build(shell: &Shell, docker: &Docker, base: &str) -> Result<()> {
    let context = super::context_of(&shell.binary("debug", "claudemesh-runner"), "claudemesh-runner")?;
    let mut command = docker.command(["build", "-t", TAG, "-f"]);
    command.arg(shell.root.join("deploy/runner/Dockerfile"));
    for name in ["BASE_IMAGE", "NODE_IMAGE", "BUILD_IMAGE"] {
        command.args(["--build-arg", &format!("{name}={base}")]);
    }
    shell::run_quiet(command.args(["--build-arg", "UV_VERSION="]).arg(context.path())).map(drop)
}
