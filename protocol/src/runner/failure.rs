//! Why something was not done.

use serde::{Deserialize, Serialize};

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Stable.
    pub code: FailCode,
    /// For people. Never a value of a secret.
    pub message: String,
}

/// Stable words for failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailCode {
    /// The spec or the request breaks a rule.
    Invalid,
    /// No service has that id.
    NotFound,
    /// A service has that id already.
    Exists,
    /// Something else is being done with that service; try again.
    Busy,
    /// A bound was reached.
    Limit,
    /// The bundle is not what the spec says, or holds what is refused.
    BadBundle,
    /// The installer failed; its log says why.
    InstallFailed,
    /// A sealed value cannot be opened: it has to be sealed again for this runner.
    Sealed,
    /// The program could not be started.
    StartFailed,
    /// The server did not answer `initialize` as MCP has it.
    HandshakeFailed,
    /// The service does not run.
    NotRunning,
    /// The service crashed during this, or is being restarted; try again.
    Restarting,
    /// It took too long.
    Timeout,
    /// The other side ended it.
    Cancelled,
    /// The result or line is too large.
    TooLarge,
    /// The other side does not know how to do this.
    Unsupported,
    /// A rule of this wire was broken.
    Protocol,
    /// A fault of the runner or the broker.
    Internal,
    /// A word of a newer version.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Head of a reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reset {
    /// Why.
    pub code: FailCode,
    /// For people, and for the MCP server as the reason of a cancellation.
    pub message: String,
}
