//! Log lines of long-running verbs: on standard error, because standard output belongs to the protocol or to the answer, and in
//! a file ([`crate::logs`]), because hosts keep the standard error of what they start to themselves.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt;

use crate::logs::{LogFile, Source};
use crate::paths::Env;

/// What is logged when `CLAUDEMESH_LOG` does not say: trouble, and who serves the mesh of this machine. A broken request of
/// a stranger, such as a port scan, is no trouble of ours.
const USUAL: &str = "warn,actix_http=off,claudemesh::local=info,claudemesh::connection=info";
/// The same for `up`, which says itself what it does.
const USUAL_OF_UP: &str = "warn,actix_http=off";

/// Starts logging of an MCP server. A filter that does not parse is told and replaced: a session must not fail for it.
pub fn start(env: &Env, config_dir: &std::path::Path) {
    if let Some(error) = start_with(env, LogFile::of(config_dir, Source::Mcp), USUAL) {
        tracing::warn!(%error, "CLAUDEMESH_LOG is not a filter");
    }
}

/// Starts logging of `up`.
///
/// # Errors
/// What is wrong with `CLAUDEMESH_LOG`.
pub fn start_of_up(env: &Env, config_dir: &std::path::Path) -> Result<(), String> {
    match start_with(env, LogFile::of(config_dir, Source::Broker), USUAL_OF_UP) {
        Some(error) => Err(format!("CLAUDEMESH_LOG is not a filter: {error}")),
        None => Ok(()),
    }
}

fn start_with(env: &Env, file: LogFile, usual: &str) -> Option<String> {
    let (filter, error) = match EnvFilter::try_new(env.text("CLAUDEMESH_LOG").unwrap_or(usual)) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(usual), Some(error.to_string())),
    };
    let writer = std::io::stderr.and(file);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    // Fails only when a subscriber is installed already.
    let _ = builder.try_init();
    error
}
