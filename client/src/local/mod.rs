//! `claudemesh up`: the broker in this process and the mesh `local`. The only place of the client that knows the broker.

#[cfg(feature = "local-broker")]
mod demo;
#[cfg(feature = "local-broker")]
mod mesh;
#[cfg(feature = "local-broker")]
mod serve;

#[cfg(feature = "local-broker")]
pub use serve::up;

/// Stands in where the embedded broker was left out of the build.
///
/// # Errors
/// Always: exit 8 with what to do.
#[cfg(not(feature = "local-broker"))]
pub fn up(
    _cx: &crate::cli::Context,
    _args: &crate::cli::args::UpArgs,
) -> Result<crate::error::ExitCode, crate::error::CliError> {
    Err(crate::error::CliError::internal("This build has no embedded broker.")
        .hint("Run `claudemesh-broker`, or build with the feature `local-broker`."))
}
