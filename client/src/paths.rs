//! Where things are: our config folder, Claude Code's files, programs on the search path.
//!
//! Reads the environment once into [`Env`], so that everything else is a function of it and can be tested.

use std::collections::HashMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Variable that moves our config folder.
pub const CONFIG_DIR: &str = "CLAUDEMESH_CONFIG_DIR";
/// Variable that names the folder of a launched session, see [`crate::config::session_dir`].
pub const SESSION_DIR: &str = "CLAUDEMESH_SESSION_DIR";
/// Variable that carries Claude's session id to our processes.
pub const SESSION_ID: &str = "CLAUDEMESH_SESSION_ID";
/// Variable that names the mesh for commands, as `--mesh` does.
pub const MESH: &str = "CLAUDEMESH_MESH";
/// Variable with the display name of this session.
pub const DISPLAY_NAME: &str = "CLAUDEMESH_DISPLAY_NAME";
/// Variable with the role of this session.
pub const ROLE: &str = "CLAUDEMESH_ROLE";
/// Variable with the tools that a session offers: `full`, `lean` or `none`.
pub const MCP_SURFACE: &str = "CLAUDEMESH_MCP_SURFACE";

/// Variable with the folder that a session shows to peers who its user allows.
pub const SHARE_DIR: &str = "CLAUDEMESH_SHARE_DIR";

/// Switch for the mesh of this machine: `1` uses it beside meshes that are joined, `0` never serves one.
pub const LOCAL: &str = "CLAUDEMESH_LOCAL";
/// Seconds that the holder of this machine's mesh may answer nothing before another process ends it; 0: it is left alone.
pub const HOLDER_PATIENCE: &str = "CLAUDEMESH_HOLDER_PATIENCE";
/// Set for a session that no one waits for once it has ended: `doctor`'s own.
pub const NO_LEASE: &str = "CLAUDEMESH_NO_LEASE";
/// Variable that moves the database of this machine's mesh.
pub const MESH_DB_PATH: &str = "MESH_DB_PATH";

/// A copy of the environment.
#[derive(Clone, Debug, Default)]
pub struct Env {
    vars: HashMap<OsString, OsString>,
}

impl Env {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self { vars: env::vars_os().collect() }
    }

    /// A made-up environment, for tests.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self { vars: pairs.iter().map(|(key, value)| (key.into(), value.into())).collect() }
    }

    /// The same without a variable.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut vars = self.vars.clone();
        vars.remove(std::ffi::OsStr::new(name));
        Self { vars }
    }

    /// A variable that is set, not empty and valid text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.vars.get(std::ffi::OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// A variable that is set and not empty, as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.vars.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// Whether a switch is on: set to anything but empty, `0`, `false`, `no` or `off`.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off"))
    }

    /// Whether a variable is set at all, even to nothing.
    pub fn is_set(&self, name: &str) -> bool {
        self.vars.contains_key(std::ffi::OsStr::new(name))
    }

    /// Names of all variables that are valid text.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.vars.keys().filter_map(|name| name.to_str())
    }

    /// The user's home folder; `/` when the system does not say.
    pub fn home(&self) -> PathBuf {
        self.path("HOME").or_else(env::home_dir).unwrap_or_else(|| PathBuf::from("/"))
    }
}

/// `CLAUDEMESH_CONFIG_DIR`, else `~/.claudemesh`. An explicit choice (`--config-dir`) wins.
pub fn config_dir(env: &Env, explicit: Option<&Path>) -> PathBuf {
    match explicit {
        Some(dir) => dir.to_path_buf(),
        None => env.path(CONFIG_DIR).unwrap_or_else(|| usual_config_dir(env)),
    }
}

/// Where processes look that no one tells another place: `~/.claudemesh`.
pub fn usual_config_dir(env: &Env) -> PathBuf {
    env.home().join(".claudemesh")
}

/// Files of Claude Code that we edit or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaudeFiles {
    /// `~/.claude.json`: MCP servers of the user, projects, state of Claude Code.
    pub config: PathBuf,
    /// `~/.claude/settings.json`: permissions and hooks of the user.
    pub settings: PathBuf,
    /// Where copies are put before an edit.
    pub backups: PathBuf,
    /// `~/.claude`: transcripts are below `projects`.
    pub dir: PathBuf,
}

impl ClaudeFiles {
    /// With `CLAUDE_CONFIG_DIR` everything is in that folder, `.claude.json` too.
    pub fn locate(env: &Env) -> Self {
        let (config, dir) = match env.path("CLAUDE_CONFIG_DIR") {
            Some(dir) => (dir.join(".claude.json"), dir),
            None => (env.home().join(".claude.json"), env.home().join(".claude")),
        };
        Self { config, settings: dir.join("settings.json"), backups: dir.join("backups"), dir }
    }

    /// Folder with the transcripts of sessions that run in `cwd`: every character that is no ASCII letter or digit
    /// becomes `-`.
    pub fn transcripts(&self, cwd: &Path) -> PathBuf {
        let name =
            cwd.to_string_lossy().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect::<String>();
        self.dir.join("projects").join(name)
    }
}

/// The first executable file called `name` on `PATH`.
pub fn find_program(env: &Env, name: &str) -> Option<PathBuf> {
    find_in(env.path("PATH")?.as_os_str(), name)
}

/// The first executable file called `name` on this path.
pub fn find_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

/// Whether the path is a file that may be run.
pub fn is_executable(path: &Path) -> bool {
    path.is_file() && crate::files::mode_of(path).is_none_or(|mode| mode & 0o111 != 0)
}

/// The folder that a session works on: `CLAUDE_MESH_PROJECT_PATH`, else `CLAUDE_PROJECT_DIR`, else the working folder.
pub fn project_dir(env: &Env) -> PathBuf {
    env.path("CLAUDE_MESH_PROJECT_PATH")
        .or_else(|| env.path("CLAUDE_PROJECT_DIR"))
        .or_else(|| env::current_dir().ok())
        .unwrap_or_else(|| PathBuf::from("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claude_files_follow_claude_config_dir() {
        let files = ClaudeFiles::locate(&Env::of(&[("HOME", "/h"), ("CLAUDE_CONFIG_DIR", "/c")]));
        assert_eq!(files.config, Path::new("/c/.claude.json"));
        assert_eq!(files.settings, Path::new("/c/settings.json"));
        let files = ClaudeFiles::locate(&Env::of(&[("HOME", "/h")]));
        assert_eq!(files.config, Path::new("/h/.claude.json"));
        assert_eq!(files.settings, Path::new("/h/.claude/settings.json"));
        assert_eq!(files.transcripts(Path::new("/a/b.c")), Path::new("/h/.claude/projects/-a-b-c"));
    }

    #[test]
    fn config_dir_prefers_the_flag_then_the_variable() {
        let env = Env::of(&[("HOME", "/h"), (CONFIG_DIR, "/v")]);
        assert_eq!(config_dir(&env, Some(Path::new("/f"))), Path::new("/f"));
        assert_eq!(config_dir(&env, None), Path::new("/v"));
        assert_eq!(config_dir(&Env::of(&[("HOME", "/h"), (CONFIG_DIR, "")]), None), Path::new("/h/.claudemesh"));
    }

    #[test]
    fn flags_understand_words_for_off() {
        let env = Env::of(&[("A", "1"), ("B", "false"), ("C", ""), ("D", "yes")]);
        assert_eq!(["A", "B", "C", "D", "E"].map(|name| env.flag(name)), [true, false, false, true, false]);
    }
}
