//! A home folder of its own, and the program run in it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use claudemesh_protocol::crypto::keys::SecretKey;
use serde_json::{Value, json};

/// A home folder with nothing in it.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("claudemesh-test-").tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::create_dir(dir.path().join("project")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside)
    }

    pub(crate) fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    pub(crate) fn write(&self, inside: &str, text: &str) -> PathBuf {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn mode(&self, inside: &str) -> u32 {
        claudemesh::files::mode_of(&self.path(inside)).unwrap_or_else(|| panic!("{inside} is not there"))
    }

    /// An executable script in `bin`, which is on the path.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(&format!("bin/{name}"), text);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    /// A command with a clean environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claudemesh"));
        command.args(args).env_clear().current_dir(self.path("project"));
        command.env("HOME", self.dir.path()).env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command
    }

    /// Runs the program with nothing on standard input.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args), "")
    }

    /// Runs it with more variables.
    pub(crate) fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = self.command(args);
        command.envs(variables.iter().copied());
        finish(command, "")
    }

    /// Writes a config with these joined meshes: slug and broker URL.
    pub(crate) fn join(&self, meshes: &[(&str, &str)]) {
        let entries: Vec<Value> =
            meshes.iter().enumerate().map(|(at, (slug, url))| entry(slug, url, at as u8)).collect();
        let path = self.write(".claudemesh/config.json", &json!({"version": 1, "meshes": entries}).to_string());
        private(&path);
        let folder = self.path(".claudemesh");
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }

    /// Paths and the like of this run replaced by words, for snapshots.
    pub(crate) fn redact(&self, text: &str) -> String {
        text.replace(&*self.dir.path().to_string_lossy(), "[HOME]")
            .replace(env!("CARGO_BIN_EXE_claudemesh"), "[PROGRAM]")
            .replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
    }
}

/// Makes a file private.
pub(crate) fn private(path: &Path) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// A mesh entry with a key of its own.
pub(crate) fn entry(slug: &str, broker_url: &str, seed: u8) -> Value {
    let key = SecretKey::from_seed([seed + 1; 32]);
    json!({
        "meshId": format!("mesh-{slug}"), "memberId": "member", "slug": slug, "name": slug,
        "pubkey": key.public().to_string(), "secretKey": &*key.to_hex(), "brokerUrl": broker_url,
        "joinedAt": "2026-04-08T09:53:03.000Z",
    })
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A program that was written a moment ago may still be open for writing in a child that another test forked in between.
    let busy = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ExecutableFileBusy;
    let mut spawned = command.spawn();
    for _ in 0..100 {
        if !spawned.as_ref().is_err_and(busy) {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(20));
        spawned = command.spawn();
    }
    let mut child = spawned.unwrap();
    // The program may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The end of a program that must not wait for anything; killed when it does.
pub(crate) fn ended(child: &mut std::process::Child) -> std::process::ExitStatus {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if std::time::Instant::now() > deadline {
            let _ = child.kill();
            panic!("it waits");
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}
