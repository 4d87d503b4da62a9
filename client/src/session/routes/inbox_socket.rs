//! The session's own inbox socket: where Claude Code takes messages of the user's other sessions.
//!
//! The host tells the model that such a message comes from another session of its user and should be treated as a teammate's
//! request. Of a stranger's text that would be a lie, so this way is for messages of our own member only, and only where
//! it is provably allowed: the host has given us socket and token, and no setting holds or refuses such messages. The
//! format of a line is not documented; what was posted counts as seen only when the transcript shows it. Seen to work
//! with Claude Code 2.1.329.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::paths::Env;

/// How long the host may take to accept a line.
#[cfg(unix)]
const PATIENCE: Duration = Duration::from_secs(2);
/// Variable in which the host names the socket.
pub const SOCKET: &str = "CLAUDE_CODE_MESSAGING_SOCKET";
/// Variable in which the host names the socket's token.
pub const TOKEN: &str = "CLAUDE_CODE_MESSAGING_TOKEN";
/// Switch of ours: `off` leaves this way out.
pub const SWITCH: &str = "CLAUDEMESH_INBOX_SOCKET";

/// The socket of this session.
#[derive(Clone, PartialEq, Eq)]
pub struct InboxSocket {
    path: PathBuf,
    token: String,
}

impl std::fmt::Debug for InboxSocket {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("InboxSocket").field("path", &self.path).finish_non_exhaustive()
    }
}

impl InboxSocket {
    /// The socket, where its use is provably allowed.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn allowed(env: &Env, project: &Path) -> Result<Self, String> {
        if env.text(SWITCH) == Some("off") {
            return Err(format!("{SWITCH}=off"));
        }
        let (path, token) = match (env.path(SOCKET), env.text(TOKEN)) {
            (Some(path), Some(token)) => (path, token.to_owned()),
            _ => return Err("the host gave no inbox socket".into()),
        };
        for (file, read) in super::host::settings(env, project) {
            // What cannot be read may forbid it.
            let settings = read.map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
            match settings["crossSessionInbound"].as_str() {
                None | Some("accept") => {}
                Some(other) => {
                    return Err(format!(
                        "crossSessionInbound is {} in {}",
                        crate::output::clean(other),
                        file.display()
                    ));
                }
            }
        }
        Ok(Self { path, token })
    }

    /// Posts a text; `true` when the host has taken it.
    pub async fn post(&self, message_id: &str, text: &str) -> bool {
        #[cfg(unix)]
        {
            use tokio::io::AsyncWriteExt;

            let lines = self.lines(message_id, text);
            let posting = async {
                let mut stream = tokio::net::UnixStream::connect(&self.path).await?;
                stream.write_all(lines.as_bytes()).await?;
                stream.shutdown().await
            };
            matches!(tokio::time::timeout(PATIENCE, posting).await, Ok(Ok(())))
        }
        #[cfg(not(unix))]
        {
            let _ = (message_id, text, Duration::ZERO);
            false
        }
    }

    fn lines(&self, message_id: &str, text: &str) -> String {
        let auth = json!({"type": "auth", "token": self.token});
        let message = json!({
            "type": "user", "message": {"role": "user", "content": text}, "msg_id": message_id, "from": "claudemesh",
            "priority": "next",
        });
        format!("{auth}\n{message}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_used_only_where_nothing_forbids_it() {
        let home = tempfile::tempdir().unwrap();
        let project = home.path().join("p");
        std::fs::create_dir_all(project.join(".claude")).unwrap();
        let home_text = home.path().to_str().unwrap();
        let env = Env::of(&[("HOME", home_text), (SOCKET, "/s"), (TOKEN, "t")]);
        assert!(InboxSocket::allowed(&env, &project).is_ok());
        assert!(InboxSocket::allowed(&Env::of(&[("HOME", home_text), (SOCKET, "/s")]), &project).is_err());
        let off = Env::of(&[("HOME", home_text), (SOCKET, "/s"), (TOKEN, "t"), (SWITCH, "off")]);
        assert!(InboxSocket::allowed(&off, &project).is_err());
        for (text, allowed) in [
            (r#"{"crossSessionInbound":"accept"}"#, true),
            (r#"{"crossSessionInbound":"hold"}"#, false),
            (r#"{"crossSessionInbound":"refuse"}"#, false),
            ("not json", false),
            ("{}", true),
        ] {
            std::fs::write(project.join(".claude/settings.local.json"), text).unwrap();
            assert_eq!(InboxSocket::allowed(&env, &project).is_ok(), allowed, "{text}");
        }
        let socket = InboxSocket::allowed(&env, &project).unwrap();
        assert!(!format!("{socket:?}").contains("token"), "the token is not printed");
    }
}
