//! Runners as processes of the broker's own user. They isolate nothing: for development, and for tests without Docker.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use claudemesh_protocol::id::MeshId;
use tokio::process::Command;

use super::settings::Settings;
use super::{NoRunner, Started, first_user, folder_of};

/// Variables of the broker that a runner needs: where programs and certificates are.
const PASSED_ON: &[&str] =
    &["PATH", "LANG", "TZ", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT"];

/// Starts runners as processes.
pub(super) struct Processes {
    program: PathBuf,
    root: PathBuf,
}

impl Processes {
    pub(super) fn new(settings: &Settings, data_dir: &Path) -> Self {
        let root = settings.folder.clone().unwrap_or_else(|| data_dir.join("runners"));
        let beside = || {
            let own = std::env::current_exe().ok()?;
            Some(own.with_file_name("claudemesh-runner"))
        };
        let program = settings.runner.clone().or_else(beside).unwrap_or_else(|| "claudemesh-runner".into());
        Self { program, root }
    }

    pub(super) async fn start(&self, mesh: &MeshId) -> Result<Started, NoRunner> {
        let folder = folder_of(&self.root, mesh);
        let fail = |what: &str, error: std::io::Error| NoRunner(format!("{what}: {error}"));
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(|error| fail("the folder of a runner cannot be made", error))?;
        #[cfg(unix)]
        for folder in [&self.root, &folder] {
            // Under root, services are users of their own, who have to get to their folders. What is in them is theirs alone.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            let opened = tokio::fs::set_permissions(folder, mode).await;
            opened.map_err(|error| fail("the folder of a runner cannot be opened", error))?;
        }
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("CLAUDEMESH_RUNNER_DIR", folder.join("services"))
            .env("CLAUDEMESH_RUNNER_KEY_FILE", folder.join("key"))
            .env("CLAUDEMESH_RUNNER_FIRST_UID", first_user(mesh).to_string())
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let spawned = command.spawn();
        let mut child = spawned.map_err(|error| fail("the program of the runner cannot be started", error))?;
        match (child.stdout.take(), child.stdin.take()) {
            (Some(read), Some(write)) => {
                Ok(Started { read: Box::new(read), write: Box::new(write), fresh: true, keep: Some(child) })
            }
            _ => Err(NoRunner("the runner has no pipes".into())),
        }
    }

    pub(super) async fn remove(&self, mesh: &MeshId) {
        let folder = folder_of(&self.root, mesh);
        if let Err(error) = tokio::fs::remove_dir_all(&folder).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(mesh.id = %mesh, %error, "the folder of a runner could not be removed");
        }
    }
}
