//! Where the embedded broker was left out of the build: the same names, and a word on what to do.

use super::store::Store;
use crate::config::{ConfigStore, MeshEntry};
use crate::context::Context;
use crate::error::CliError;
use crate::paths::Env;

fn missing() -> CliError {
    CliError::internal("This build has no embedded broker.")
        .hint("Run `claudemesh-broker`, or build with the feature `local-broker`.")
}

/// Never made.
#[derive(Debug)]
pub enum Candidate {}

impl Candidate {
    /// Nothing to leave.
    pub async fn leave(self) {}
}

/// # Errors
/// Always: exit 8.
pub fn up(_: &Context, _: &super::cli::UpArgs) -> Result<crate::error::ExitCode, CliError> {
    Err(missing())
}

/// # Errors
/// Always: exit 8.
pub fn join(_: &Env, _: &ConfigStore, _: &Store) -> Result<Candidate, CliError> {
    Err(missing())
}

/// # Errors
/// Always: exit 8.
pub fn create_mesh(_: &Context, _: &Store, _: bool) -> Result<MeshEntry, CliError> {
    Err(missing())
}

/// Another process may serve it.
///
/// # Errors
/// None.
pub fn ensure_served(_: &Context, entry: MeshEntry) -> Result<MeshEntry, CliError> {
    Ok(entry)
}

/// None: nothing can be served.
pub fn may_create(_: &Context) -> Option<Store> {
    None
}

/// Nothing to give up.
pub fn release() {}

/// Never.
pub fn serves_now() -> bool {
    false
}

/// It never is.
pub fn tell_if_alone(_: &Context, _: &str) {}

/// As it is.
///
/// # Errors
/// None.
pub fn address_of(_: &Context, broker_url: &str) -> Result<String, CliError> {
    Ok(broker_url.to_owned())
}

/// None: there is no broker in this build.
///
/// # Errors
/// None.
pub fn own_broker(_: &Context) -> Result<Option<String>, CliError> {
    Ok(None)
}
