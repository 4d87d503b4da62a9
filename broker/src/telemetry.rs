//! Structured logs on stderr.

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging. A second call in one process (tests) changes nothing.
///
/// # Errors
/// The filter does not parse.
pub fn start(log: &Log) -> Result<(), crate::config::ConfigError> {
    // A broken request of a stranger, such as a port scan, is no error of ours; the library calls it one.
    let quiet =
        if log.filter.contains("actix_http") { log.filter.clone() } else { format!("actix_http=off,{}", log.filter) };
    let filter = EnvFilter::try_new(quiet)
        .map_err(|error| crate::config::ConfigError::Value { key: "log.filter", message: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    // `try_init` fails only when a subscriber is installed already.
    let _ = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    Ok(())
}
