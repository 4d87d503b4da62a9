//! Repositories, at one commit.

use claudemesh_protocol::runner::{Failure, Text};

use super::{Installer, need, no, read_small};
use crate::secrets;

/// Fetches a commit into the folder of the program. No hooks, no submodules, nothing but HTTP.
pub(super) async fn fetch(
    installer: &Installer<'_>,
    url: &str,
    commit: &str,
    auth: Option<&Text>,
) -> Result<(), Failure> {
    let git = need("git")?;
    let header = match auth {
        Some(auth) => {
            let value = secrets::open(auth, installer.spec, "git".into(), &installer.host.key)?;
            installer.service.log.hide(std::slice::from_ref(&value));
            Some(format!("Authorization: {}", String::from_utf8_lossy(&value)))
        }
        None => None,
    };
    let mut env = vec![
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ASKPASS", "/bin/false"),
        ("GIT_ALLOW_PROTOCOL", "http:https"),
        ("GIT_LFS_SKIP_SMUDGE", "1"),
    ];
    let key = format!("http.{url}.extraHeader");
    if let Some(header) = &header {
        // In the environment and not among the arguments, which others can see.
        env.extend([
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", key.as_str()),
            ("GIT_CONFIG_VALUE_0", header.as_str()),
        ]);
    }
    let step = async |args: &[&str]| {
        let all: Vec<&str> = ["-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        installer.step(&git, &all, &env).await
    };
    step(&["init", "--quiet", "."]).await?;
    // Servers that do not give a commit by its name give their branches and tags.
    if step(&["fetch", "--quiet", "--depth", "1", "--no-tags", "--", url, commit]).await.is_err() {
        step(&["fetch", "--quiet", "--", url, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"])
            .await?;
    }
    step(&["checkout", "--quiet", "--detach", commit, "--"]).await?;
    let head = read_small(&installer.app.join(".git/HEAD")).unwrap_or_default();
    if head.trim().eq_ignore_ascii_case(commit) { Ok(()) } else { Err(no("the repository does not have that commit")) }
}
