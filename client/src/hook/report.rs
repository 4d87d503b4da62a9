//! Telling the brokers what a session does, when no server of the session is there to do it.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::session_dir::SessionInfo;
use crate::config::{ConfigStore, broker_http};
use crate::ipc::Hook;
use crate::paths::Env;

/// How long all brokers together may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Posts a status to every broker of the session's meshes, in parallel. Answers what became of it, for the debug log.
pub(super) fn status(env: &Env, store: &ConfigStore, hook: &Hook, status: &str) -> Vec<String> {
    let token = match store.hook_token() {
        Ok(Some(token)) => token,
        Ok(None) => return vec!["no hook token: no session has run with this config".into()],
        Err(error) => return vec![error.to_string()],
    };
    let brokers = match brokers(env, store) {
        Ok(brokers) => brokers,
        Err(error) => return vec![error],
    };
    let report = body(env, hook, status).to_string();
    let (sender, receiver) = mpsc::channel();
    let deadline = Instant::now() + PATIENCE;
    for broker in brokers {
        let (sender, report) = (sender.clone(), report.clone());
        let bearer = format!("Bearer {}", token.expose());
        std::thread::spawn(move || {
            let result = post(&broker, &bearer, &report);
            let _ = sender.send((broker, result));
        });
    }
    drop(sender);
    let mut words = vec![];
    // A name look-up cannot be interrupted; its thread ends with the process.
    while let Ok((broker, result)) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        words.push(format!("{broker}: {}", result.unwrap_or_else(|error| error)));
    }
    words
}

/// `{cwd, status, pid, session_id?}`
fn body(env: &Env, hook: &Hook, status: &str) -> Value {
    let cwd = hook.cwd.clone().map(PathBuf::from).unwrap_or_else(|| crate::paths::project_dir(env));
    // Newer versions tell the pid of the session; else our parent is it, or a shell that it started.
    let pid = env.text("CLAUDE_PID").and_then(|pid| pid.parse().ok()).unwrap_or_else(parent_pid);
    let session_id = hook.session_id.as_deref().or_else(|| env.text("CLAUDE_CODE_SESSION_ID"));
    let mut body = json!({"cwd": cwd.to_string_lossy(), "status": status, "pid": pid});
    if let Some(session_id) = session_id {
        body["session_id"] = session_id.into();
    }
    body
}

fn parent_pid() -> u32 {
    #[cfg(unix)]
    return std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    return std::process::id();
}

/// HTTP addresses of the brokers to tell, each once: the session's mesh when launched for one, else all joined meshes.
fn brokers(env: &Env, store: &ConfigStore) -> Result<Vec<String>, String> {
    let config = store.load().map_err(|error| error.to_string())?;
    let session = SessionInfo::of_env(env).ok().flatten();
    let slug = session.and_then(|info| info.mesh_slug).filter(|slug| config.by_slug(slug).is_some());
    let meshes = config.meshes.iter().filter(|mesh| slug.as_ref().is_none_or(|slug| mesh.slug == *slug));
    let mut brokers: Vec<String> = meshes.map(|mesh| broker_http(&mesh.broker_url)).collect();
    brokers.sort();
    brokers.dedup();
    Ok(brokers)
}

/// `POST /hook/set-status`. Answers status and body for the log.
///
/// # Errors
/// What the transport says.
pub fn post(broker: &str, bearer: &str, report: &str) -> Result<String, String> {
    let agent = crate::http::agent(broker, PATIENCE)?;
    let request = agent.post(format!("{broker}/hook/set-status"));
    let request = request.header("authorization", bearer).header("content-type", "application/json");
    let mut response = request.send(report).map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
    Ok(format!("{status} {}", crate::output::clean(&body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_falls_back_to_the_environment() {
        let env = Env::of(&[("CLAUDE_PID", "42"), ("CLAUDE_CODE_SESSION_ID", "env-id"), ("CLAUDE_PROJECT_DIR", "/p")]);
        let value = body(&env, &Hook::default(), "idle");
        assert_eq!(value, json!({"cwd": "/p", "status": "idle", "pid": 42, "session_id": "env-id"}));
        let hook = crate::hook::input::parse("stop", r#"{"session_id":"s","cwd":"/w"}"#);
        assert_eq!(body(&env, &hook, "idle")["session_id"], "s");
    }
}
