//! Which function runs each verb that talks to a broker.

use super::{Context, Verb, meshes};
use crate::error::{CliError, ExitCode};

/// Runs a verb.
///
/// # Errors
/// What the verb says.
pub fn run(cx: &Context, verb: Verb) -> Result<ExitCode, CliError> {
    match verb {
        Verb::List(_) => meshes::list(cx),
        Verb::Leave(args) => meshes::leave(cx, &args),
        other => Err(CliError::internal(format!("This build cannot run {other:?}."))),
    }
    .map(|()| ExitCode::Success)
}

/// Joins a mesh for `launch --join` and answers its local slug.
///
/// # Errors
/// What `join` says.
pub fn join_for_launch(cx: &Context, link: &str, name: Option<&str>) -> Result<String, CliError> {
    let _ = (cx, link, name);
    Err(CliError::internal("This build cannot join."))
}
