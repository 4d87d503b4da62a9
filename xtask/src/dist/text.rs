//! The formula for Homebrew and the install script, with the place and the checksum of the archive in them.

use std::fs;

use anyhow::{Result, ensure};

use super::{Release, sum};
use crate::shell::Shell;

/// Writes both.
pub(super) fn write(shell: &Shell, release: &Release) -> Result<()> {
    let archive = format!("{}.tar.gz", release.name());
    let sum = sum(&release.out.join(&archive))?;
    fs::write(release.out.join("claudemesh.rb"), formula(release, &archive, &sum))?;
    let script = fs::read_to_string(shell.root.join("deploy/install.sh"))?;
    let (version, base) = ("VERSION=${CLAUDEMESH_VERSION:-}", "BASE_URL=${CLAUDEMESH_BASE_URL:-}");
    ensure!(script.contains(version) && script.contains(base), "deploy/install.sh has lost its settings");
    let script = script
        .replace(version, &format!("VERSION=${{CLAUDEMESH_VERSION:-{}}}", release.version))
        .replace(base, &format!("BASE_URL=${{CLAUDEMESH_BASE_URL:-{}}}", release.base_url));
    let path = release.out.join("install.sh");
    fs::write(&path, script)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}

fn formula(release: &Release, archive: &str, sum: &str) -> String {
    let (version, base, arch) = (&release.version, &release.base_url, release.arch());
    let block = if arch == "aarch64" { "on_arm" } else { "on_intel" };
    format!(
        r##"# Homebrew on Linux. `brew install --formula ./claudemesh.rb`, or put it into a tap.
class Claudemesh < Formula
  desc "Lets Claude Code sessions work as one team"
  homepage "{base}"
  version "{version}"
  license any_of: ["MIT", "Apache-2.0"]

  on_linux do
    {block} do
      url "{base}/{archive}"
      sha256 "{sum}"
    end
  end

  def install
    bin.install "bin/claudemesh", "bin/claudemesh-broker"
    man1.install Dir["share/man/man1/*.1"]
    bash_completion.install "share/bash-completion/completions/claudemesh"
    zsh_completion.install "share/zsh/site-functions/_claudemesh"
    fish_completion.install "share/fish/vendor_completions.d/claudemesh.fish"
    doc.install Dir["share/doc/claudemesh/*"]
  end

  test do
    assert_match version.to_s, shell_output("#{{bin}}/claudemesh --version")
  end
end
"##
    )
}
