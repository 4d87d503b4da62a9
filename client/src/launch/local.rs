//! A launch without a server: runs `claudemesh up` beside Claude Code when the mesh of this machine is wanted and nobody
//! serves it.
//!
//! The broker is a process of its own in its own process group, so that the interrupt key does not end it. It serves all
//! sessions of this machine; the launch that ends last stops it. Its process id is kept in `run/up.json`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::Context;
use crate::config::session_dir::{SessionInfo, is_alive, start_time};
use crate::config::{Config, MeshEntry};
use crate::error::{CliError, ExitCode};

/// Mark that `up` leaves on the mesh it made.
const MADE_BY_UP: &str = "madeByUp";
/// How long the broker may take to start. The first start makes its tables.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How long a running broker may take to answer.
const HEALTH_PATIENCE: Duration = Duration::from_secs(2);

/// The broker that some launch started.
#[derive(Debug, Serialize, Deserialize)]
struct Started {
    pid: u32,
    start_time: u64,
}

/// Serves the mesh of this machine while a launch runs; on drop the last launch stops what launches started.
#[derive(Debug)]
pub struct LocalBroker {
    cx: Context,
    slug: String,
}

impl LocalBroker {
    /// Makes the mesh of this machine and serves it, because no mesh is joined at all.
    ///
    /// # Errors
    /// What `up` says when it cannot start.
    pub fn first(cx: &Context) -> Result<Self, CliError> {
        cx.out
            .note("No mesh is joined: starting one on this machine. `claudemesh up` keeps it up without a session.")?;
        Ok(Self { slug: start(cx)?, cx: cx.clone() })
    }

    /// Makes sure that a mesh is served when it is the one of this machine; `None` for other meshes.
    ///
    /// # Errors
    /// What `up` says when it cannot start.
    pub fn for_mesh(cx: &Context, mesh: &MeshEntry) -> Result<Option<Self>, CliError> {
        if !cfg!(feature = "local-broker") || !is_local(mesh) {
            return Ok(None);
        }
        if !is_served(mesh) {
            start(cx)?;
        }
        Ok(Some(Self { cx: cx.clone(), slug: mesh.slug.clone() }))
    }

    /// The slug of the mesh.
    pub fn slug(&self) -> &str {
        &self.slug
    }

    fn others_use_it(&self) -> bool {
        let Ok(entries) = std::fs::read_dir(self.cx.store.dir().join("run")) else { return false };
        let infos = entries.flatten().filter_map(|entry| SessionInfo::read(&entry.path()).ok().flatten());
        let me = std::process::id();
        infos.into_iter().any(|info| info.pid != me && info.mesh_slug.as_ref() == Some(&self.slug) && info.is_alive())
    }
}

impl Drop for LocalBroker {
    fn drop(&mut self) {
        // Under the lock, so that of two launches that end at once one sees that it is the last.
        let Ok(_lock) = self.cx.store.lock() else { return };
        if self.others_use_it() {
            return;
        }
        let path = self.cx.store.dir().join("run/up.json");
        let started = crate::files::read_limited(&path, 4096).ok().flatten();
        let Some(started) = started.and_then(|bytes| serde_json::from_slice::<Started>(&bytes).ok()) else { return };
        #[cfg(unix)]
        if is_alive(started.pid, started.start_time)
            && let Some(pid) = i32::try_from(started.pid).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            // It may be no child of ours, so nothing announces its end. The next launch wants the port and the data.
            for _ in 0..250 {
                if !is_alive(started.pid, started.start_time) {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        let _ = std::fs::remove_file(path);
    }
}

/// Whether `up` made this mesh on this machine.
pub fn is_local(mesh: &MeshEntry) -> bool {
    mesh.extra.get(MADE_BY_UP) == Some(&serde_json::Value::Bool(true))
}

fn is_served(mesh: &MeshEntry) -> bool {
    let base = mesh.broker_http();
    let agent = crate::http::agent(&base, HEALTH_PATIENCE);
    agent.get(format!("{base}/health")).call().is_ok_and(|response| response.status().is_success())
}

/// Starts `up`, on a free port when the usual one is taken; answers the slug of its mesh.
fn start(cx: &Context) -> Result<String, CliError> {
    match start_at(cx, None) {
        Err(error) if error.exit == ExitCode::Network => start_at(cx, Some("127.0.0.1:0")),
        // Another launch was quicker.
        Err(error) if error.exit == ExitCode::AlreadyExists => {
            let config: Config = cx.store.load()?;
            config.meshes.iter().find(|mesh| is_local(mesh)).map(|mesh| mesh.slug.clone()).ok_or(error)
        }
        other => other,
    }
}

fn start_at(cx: &Context, listen: Option<&str>) -> Result<String, CliError> {
    let failed = |what: &str| CliError::internal(format!("The local broker cannot be started: {what}."));
    let program = std::env::current_exe().map_err(|error| failed(&error.to_string()))?;
    let mut command = Command::new(program);
    command.arg("up").arg("--json").arg("--config-dir").arg(cx.store.dir());
    if let Some(address) = listen {
        command.args(["--listen", address]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
    let pid = child.id();
    let stdout = child.stdout.take().ok_or_else(|| failed("it has no output"))?;
    // It prints one object when it is ready, or when it fails.
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut text = String::new();
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            text.push_str(&line);
            text.push('\n');
            if line == "}" {
                break;
            }
        }
        let _ = sender.send(serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default());
        // Reaps it if it ends before us.
        let _ = child.wait();
    });
    let answer = match receiver.recv_timeout(START_PATIENCE) {
        Ok(answer) => answer,
        Err(_) => {
            #[cfg(unix)]
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            return Err(failed("it did not get ready in time"));
        }
    };
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    if answer["ok"] != true {
        let code = text("error").unwrap_or_else(|| "internal".into());
        let exit = match code.as_str() {
            "network_error" => ExitCode::Network,
            "already_running" => ExitCode::AlreadyExists,
            _ => ExitCode::Internal,
        };
        let message = text("message").unwrap_or_else(|| "The local broker did not start.".into());
        return Err(
            CliError::new(exit, code, message).hint(text("hint").unwrap_or_else(|| "Run `claudemesh up`.".into()))
        );
    }
    let started = Started { pid, start_time: start_time(pid).unwrap_or(0) };
    let path = cx.store.dir().join("run/up.json");
    let kept = crate::files::create_private_dir(&cx.store.dir().join("run"))
        .and_then(|()| crate::files::write_private(&path, &serde_json::to_vec(&started)?));
    if let Err(error) = kept {
        cx.out.warn(&format!("The local broker stays up when this session ends: {error}."));
    }
    text("mesh").ok_or_else(|| failed("it named no mesh"))
}
