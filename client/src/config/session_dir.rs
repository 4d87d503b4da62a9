//! The folder of a launched session: who it is and which mesh it works on. No keys: those stay in the main config.
//!
//! `launch` makes `<config dir>/run/session-XXXXXX/session.json` (0600 in 0700) and passes the folder to Claude Code in
//! `CLAUDEMESH_SESSION_DIR`; the MCP server and hooks of that session read it. A folder is removed by its launch, or by a
//! later one when the process that made it is dead: pid **and** start time must match, pids are used again.

use std::path::{Path, PathBuf};

use claudemesh_protocol::features::groups::Group;
use serde::{Deserialize, Serialize};

use super::{ConfigError, ConfigStore, MessageMode};
use crate::paths::{self, Env};

/// `session.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionInfo {
    /// Always 1.
    pub version: u64,
    /// Process that made the folder.
    pub pid: u32,
    /// Its start time in the system's own measure, see [`start_time`]; 0 when the system does not tell.
    pub start_time: u64,
    /// Claude Code itself, once it runs: it may outlive the launch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child_pid: Option<u32>,
    /// Its start time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child_start_time: Option<u64>,
    /// The config folder that was in use.
    pub config_dir: PathBuf,
    /// The one mesh of this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_slug: Option<String>,
    /// Display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Groups to join.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// How messages arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_mode: Option<MessageMode>,
    /// Which tools the session offers: `full`, `lean` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_surface: Option<String>,
    /// Folder that peers may ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_dir: Option<PathBuf>,
    /// Claude's session id, when launch chose or knew it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claude_session_id: Option<String>,
    /// ISO time.
    pub created_at: String,
}

impl SessionInfo {
    /// The session this process belongs to: `None` outside a launched session.
    ///
    /// # Errors
    /// [`ConfigError`] when the folder is named but cannot be read.
    pub fn of_env(env: &Env) -> Result<Option<Self>, ConfigError> {
        env.path(paths::SESSION_DIR).map_or(Ok(None), |dir| Self::read(&dir))
    }

    /// Reads `session.json` of a folder; `None` when it is gone.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn read(dir: &Path) -> Result<Option<Self>, ConfigError> {
        let path = dir.join("session.json");
        let bytes = crate::files::read_limited(&path, 256 * 1024).map_err(|error| ConfigError::Io {
            path: path.clone(),
            action: "read",
            error,
        })?;
        bytes.map(|bytes| super::parse(&path, &bytes)).transpose()
    }

    /// Whether the process that made the folder, or the Claude Code it started, still runs.
    pub fn is_alive(&self) -> bool {
        is_alive(self.pid, self.start_time)
            || self.child_pid.is_some_and(|pid| is_alive(pid, self.child_start_time.unwrap_or(0)))
    }
}

/// A session folder of our own; removed on drop.
#[derive(Debug)]
pub struct SessionDir {
    dir: tempfile::TempDir,
    info: SessionInfo,
}

impl SessionDir {
    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Notes the process of Claude Code, so that the folder stays while it runs, even without us.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn note_child(&mut self, pid: u32) -> Result<(), ConfigError> {
        self.info.child_pid = Some(pid);
        self.info.child_start_time = start_time(pid);
        ConfigStore::at(&self.info.config_dir).write_json(&self.path().join("session.json"), &self.info)
    }
}

impl ConfigStore {
    /// Makes a session folder for this process. Sets `version`, `pid`, `start_time`, `config_dir` and `created_at`.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn create_session_dir(&self, mut info: SessionInfo) -> Result<SessionDir, ConfigError> {
        let run = self.dir.join("run");
        self.create_dir(&run)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix("session-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(crate::files::PRIVATE_DIR));
        let made = builder.tempdir_in(&run);
        let dir = made.map_err(|error| ConfigError::Io { path: run, action: "written", error })?;
        info.version = 1;
        info.pid = std::process::id();
        info.start_time = start_time(info.pid).unwrap_or(0);
        info.config_dir.clone_from(&self.dir);
        info.created_at = crate::clock::now_iso();
        self.write_json(&dir.path().join("session.json"), &info)?;
        Ok(SessionDir { dir, info })
    }

    /// Removes folders of launches that died without cleaning up; answers how many. What cannot be read or removed stays.
    pub fn sweep_session_dirs(&self) -> usize {
        let stale = self.stale_session_dirs();
        stale.iter().filter(|dir| std::fs::remove_dir_all(dir).is_ok()).count()
    }

    /// Session folders whose process is dead.
    pub fn stale_session_dirs(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.dir.join("run")) else { return vec![] };
        let dirs = entries.flatten().map(|entry| entry.path());
        let dirs =
            dirs.filter(|dir| dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("session-")));
        // A folder without its file may be one that is being made right now: left alone.
        dirs.filter(|dir| SessionInfo::read(dir).ok().flatten().is_some_and(|info| !info.is_alive())).collect()
    }
}

/// Whether a process with this id and start time runs. Without a start time (0) the id alone decides.
pub fn is_alive(pid: u32, started: u64) -> bool {
    #[cfg(unix)]
    {
        let Some(process) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
        match rustix::process::test_kill_process(process) {
            Ok(()) | Err(rustix::io::Errno::PERM) => {}
            Err(_) => return false,
        }
        started == 0 || start_time(pid).is_none_or(|now| now == started)
    }
    #[cfg(not(unix))]
    {
        let _ = (pid, started);
        true
    }
}

/// When a process was started, in clock ticks since boot; `None` where the system does not tell it this way.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything; field 22 is the start time.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}
