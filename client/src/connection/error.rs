//! Why a request to a broker failed.

use std::time::Duration;

use claudemesh_protocol::crypto::envelope::EnvelopeError;
use claudemesh_protocol::crypto::keys::KeyError;
use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::messaging::Candidate;

use crate::error::{CliError, ExitCode, NEW_INVITE};

/// Close code of a broker: kicked, come back when a human starts the client again.
pub(super) const CLOSE_KICKED: u16 = 4001;
/// Close code of a broker: banned, or no member any more; the reason tells which.
pub(super) const CLOSE_BANNED: u16 = 4002;
/// The reason of [`CLOSE_BANNED`] for one that may join again.
pub(super) const REASON_REMOVED: &str = "removed";

/// Why a connection ended for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// An owner or admin closed it; a new start of the client connects again.
    #[error("kicked from the mesh")]
    Kicked,
    /// The member is banned.
    #[error("banned from the mesh")]
    Banned,
    /// The member was removed, or has left.
    #[error("you are no member of this mesh any more: you were removed, or have left")]
    Removed,
    /// [`super::Connection::close`] was called.
    #[error("closed")]
    ByUs,
    /// A one-shot connection that failed or was lost.
    #[error("{0}")]
    Failed(Box<ConnectionError>),
}

/// A failed connection or request. Nothing is guessed: a request that fails never looks like an empty answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// No socket at the moment; the connection task is trying.
    #[error("not connected (reconnecting): {0}")]
    NotConnected(String),
    /// The socket cannot be opened.
    #[error("the broker at {url} cannot be reached: {reason}")]
    Unreachable {
        /// WebSocket URL.
        url: String,
        /// What the system or the HTTP layer said.
        reason: String,
    },
    /// The socket was lost before the answer. The request may or may not have been carried out.
    #[error("the connection was lost before the answer: {0}")]
    Lost(String),
    /// No answer in time. The request may or may not have been carried out.
    #[error("no answer from the broker within {} s", .0.as_secs())]
    Timeout(Duration),
    /// No answer from a broker of the older kind, which is silent about what it does not know.
    #[error("the broker is of an older kind and does not answer `{0}`")]
    NotKnown(&'static str),
    /// Too many requests wait for the socket.
    #[error("too many requests are waiting for the broker")]
    QueueFull,
    /// The broker answered with an error.
    #[error("{}", describe(.0))]
    Refused(Box<WireError>),
    /// The connection ended for good.
    #[error("{0}")]
    Closed(Closed),
    /// An answer of another kind or shape.
    #[error("the broker answered {got} where {expected} was expected")]
    Unexpected {
        /// Wire tag.
        expected: &'static str,
        /// Wire tag or what is wrong with it.
        got: String,
    },
    /// A body cannot be sealed for its recipient.
    #[error("the message cannot be sealed for its recipient: {0}")]
    Seal(#[from] EnvelopeError),
    /// A key of the config is unusable.
    #[error("the member key in the config cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The broker URL of the config is unusable.
    #[error("expected a ws:// or wss:// URL of the broker, got '{0}'")]
    BadUrl(String),
}

/// An error frame of the broker.
#[derive(Clone, Debug, PartialEq)]
pub struct WireError(pub ErrorFrame);

impl Eq for WireError {}

fn describe(error: &WireError) -> String {
    error.0.message.clone()
}

impl ConnectionError {
    /// The stable code, when the broker gave one that we know.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => error.0.known_code(),
            Self::Closed(Closed::Failed(error)) => error.code(),
            _ => None,
        }
    }

    /// What an ambiguous target may mean.
    pub fn candidates(&self) -> &[Candidate] {
        match self {
            Self::Refused(error) => &error.0.candidates,
            _ => &[],
        }
    }

    /// Whether the outcome is open: the broker may have carried the request out.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Timeout(_))
    }

    /// Whether trying again later may help without anyone changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(error) => error.0.known_code().is_none_or(ErrorCode::retryable),
            Self::Closed(_) | Self::Seal(_) | Self::Key(_) | Self::BadUrl(_) => false,
            _ => true,
        }
    }
}

impl From<ErrorFrame> for ConnectionError {
    fn from(frame: ErrorFrame) -> Self {
        Self::Refused(Box::new(WireError(frame)))
    }
}

impl From<ConnectionError> for CliError {
    fn from(error: ConnectionError) -> Self {
        let message = crate::error::sentence(&error.to_string());
        match error {
            ConnectionError::Refused(frame) => {
                let known = frame.0.known_code();
                let cli = Self::from(frame.0);
                match known.and_then(hint_for) {
                    Some(hint) if cli.hint.is_none() => cli.hint(hint),
                    _ => cli,
                }
            }
            ConnectionError::Closed(Closed::Failed(error)) => Self::from(*error),
            ConnectionError::Closed(Closed::Kicked) => Self::new(ExitCode::PermissionDenied, "kicked", message),
            ConnectionError::Closed(Closed::Banned) => {
                Self::new(ExitCode::PermissionDenied, ErrorCode::Revoked.as_str(), message).hint(UNBAN)
            }
            ConnectionError::Closed(Closed::Removed) => {
                Self::new(ExitCode::PermissionDenied, ErrorCode::MemberRemoved.as_str(), message).hint(NEW_INVITE)
            }
            ConnectionError::Unreachable { .. } => {
                Self::network(message).hint("Check that the broker runs; `claudemesh doctor` shows which part fails.")
            }
            ConnectionError::Timeout(_) => Self::new(ExitCode::Network, "timeout", message),
            ConnectionError::NotKnown(_) => Self::new(ExitCode::Network, "not_supported", message)
                .hint("Ask the person who runs the broker to bring it up to date."),
            ConnectionError::Key(_) | ConnectionError::BadUrl(_) => Self::new(ExitCode::Io, "broken_config", message)
                .hint("Leave the mesh and join it again with a fresh invite."),
            ConnectionError::Seal(_) => Self::invalid_args(message),
            ConnectionError::Unexpected { .. } => Self::new(ExitCode::Network, "unexpected_answer", message),
            _ => Self::network(message),
        }
    }
}

/// What a banned member can do.
const UNBAN: &str = "Ask the owner of the mesh to unban you.";

fn hint_for(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::UnknownTarget | ErrorCode::PeerNotFound => {
            "`claudemesh peers --all` lists the members and their sessions."
        }
        ErrorCode::TopicNotFound => "`claudemesh topic list` lists the topics; `claudemesh topic create` makes one.",
        ErrorCode::AmbiguousTarget => "`claudemesh peers --all` lists addresses and keys.",
        ErrorCode::Unauthorized => "The broker does not know this member; join again with a fresh invite.",
        ErrorCode::Revoked => UNBAN,
        ErrorCode::TimestampSkew => {
            "One of the two clocks is wrong: let this machine set its clock by the network, or tell the operator of the broker."
        }
        _ => return None,
    })
}
