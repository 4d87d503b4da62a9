//! Who this session is: the launched session's folder first, the environment second, the config third.

use claudemesh_protocol::features::groups::Group;

use crate::config::project_file::{NameSources, ProjectFile, filled};
use crate::config::session_dir::SessionInfo;
use crate::config::{Config, MessageMode};
use crate::paths::{self, Env};

/// What a session tells about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionIdentity {
    /// Display name.
    pub name: String,
    /// Role, shown as title.
    pub role: Option<String>,
    /// Groups to join; `None` leaves the member's own.
    pub groups: Option<Vec<Group>>,
    /// How messages reach the session.
    pub mode: MessageMode,
    /// The only mesh of this session.
    pub mesh_slug: Option<String>,
    /// Claude's session id, when known.
    pub session_id: Option<String>,
    /// Working directory.
    pub cwd: String,
    /// Model.
    pub model: Option<String>,
}

impl SessionIdentity {
    /// Puts it together. `mode` is the flag of the command line, which wins.
    pub fn resolve(env: &Env, session: Option<&SessionInfo>, config: &Config, mode: Option<MessageMode>) -> Self {
        let cwd = paths::project_dir(env);
        let file = ProjectFile::read(&cwd).unwrap_or_else(|error| {
            // A session without its defaults is better than none; `claudemesh doctor` shows it too.
            tracing::warn!(%error, "the project's defaults are left out");
            ProjectFile::default()
        });
        let name = NameSources {
            chosen: session.and_then(|info| info.display_name.clone()),
            env: env.text(paths::DISPLAY_NAME).map(str::to_owned),
            config: config.display_name.clone(),
            file: file.name,
        }
        .name(&cwd);
        let session_groups = session.map(|info| info.groups.clone()).filter(|groups| !groups.is_empty());
        Self {
            name,
            role: filled(session.and_then(|info| info.role.clone()))
                .or_else(|| filled(env.text(paths::ROLE).map(str::to_owned)))
                .or_else(|| filled(config.role.clone()))
                .or(file.role),
            groups: session_groups.or_else(|| config.groups.clone()).or(file.groups),
            mode: mode
                .or_else(|| session.and_then(|info| info.message_mode))
                .or(config.message_mode)
                .unwrap_or_default(),
            mesh_slug: session.and_then(|info| info.mesh_slug.clone()).or(file.mesh),
            session_id: session
                .and_then(|info| info.claude_session_id.clone())
                .or_else(|| env.text(paths::SESSION_ID).map(str::to_owned))
                .or_else(|| env.text("CLAUDE_CODE_SESSION_ID").map(str::to_owned)),
            cwd: cwd.to_string_lossy().into_owned(),
            model: env.text("CLAUDE_MODEL").map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_folder_beats_env_beats_config_beats_project() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join(".claude-mesh.json"), r#"{"name":"project"}"#).unwrap();
        let bare = Env::of(&[("CLAUDE_PROJECT_DIR", path)]);
        let named = Env::of(&[("CLAUDE_PROJECT_DIR", path), (paths::DISPLAY_NAME, "env")]);
        let config = Config { display_name: Some("config".into()), ..Config::default() };
        let session = SessionInfo { display_name: Some("session".into()), ..SessionInfo::default() };
        let name = |env: &Env, session: Option<&SessionInfo>, config: &Config| {
            SessionIdentity::resolve(env, session, config, None).name
        };
        assert_eq!(name(&named, Some(&session), &config), "session");
        assert_eq!(name(&named, None, &config), "env");
        assert_eq!(name(&bare, None, &config), "config");
        assert_eq!(name(&bare, None, &Config::default()), "project");
        std::fs::write(dir.path().join(".claude-mesh.json"), "not json").unwrap();
        let folder = dir.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(name(&bare, None, &Config::default()), folder);
    }
}
