//! Log lines of long-running verbs, on standard error: standard output belongs to the protocol or to the answer.

use tracing_subscriber::EnvFilter;

use crate::paths::Env;

/// What is logged when `CLAUDEMESH_LOG` does not say: trouble, and who serves the mesh of this machine.
const USUAL: &str = "warn,claudemesh::local=info,claudemesh::connection=info";

/// Starts logging. A filter that does not parse is told and replaced: a session must not fail for it.
pub fn start(env: &Env) {
    let (filter, error) = match EnvFilter::try_new(env.text("CLAUDEMESH_LOG").unwrap_or(USUAL)) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(USUAL), Some(error)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // Fails only when a subscriber is installed already.
    let _ = builder.try_init();
    if let Some(error) = error {
        tracing::warn!(%error, "CLAUDEMESH_LOG is not a valid filter");
    }
}
