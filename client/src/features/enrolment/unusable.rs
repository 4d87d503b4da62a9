//! Why an invite does not let anyone in: one word each, and one exit code, whatever the broker and the kind of the link.

use claudemesh_protocol::error::ErrorCode;

use crate::error::{CliError, ExitCode};

/// What the reader of these errors can do: the person who joins has no mesh yet, and so no command that makes an invite.
const ASK: &str = "Ask the person who invited you for a new link.";

/// Why an invite is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Taken back.
    Revoked,
    /// Its time is over.
    Expired,
    /// It has let in as many as it allows.
    UsedUp,
    /// The broker does not have it.
    Unknown,
}

impl Unusable {
    /// The reason behind a broker's code; `is_banned` tells whether it may be about the member. `None` for other failures.
    pub(super) fn of(code: &str, is_banned: bool) -> Option<Self> {
        match ErrorCode::parse(code)? {
            ErrorCode::InviteRevoked => Some(Self::Revoked),
            ErrorCode::Revoked if !is_banned => Some(Self::Revoked),
            ErrorCode::InviteExpired | ErrorCode::Expired => Some(Self::Expired),
            ErrorCode::InviteExhausted | ErrorCode::Exhausted => Some(Self::UsedUp),
            ErrorCode::InviteNotFound | ErrorCode::NotFound => Some(Self::Unknown),
            _ => None,
        }
    }

    /// The failure of `join`.
    pub(super) fn error(self) -> CliError {
        let (word, message, hint) = match self {
            Self::Revoked => ("invite_revoked", "This invite was revoked.", ASK.to_owned()),
            Self::Expired => ("invite_expired", "This invite has expired.", ASK.to_owned()),
            Self::UsedUp => {
                ("invite_used_up", "This invite is used up: it has let in as many people as it allows.", ASK.to_owned())
            }
            Self::Unknown => (
                "invite_unknown",
                "This invite is unknown to its broker.",
                format!("Check that the link is complete. {ASK}"),
            ),
        };
        CliError::new(ExitCode::Auth, word, message).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_links_have_the_same_words() {
        for (codes, word) in [
            (["revoked", "invite_revoked"], "invite_revoked"),
            (["expired", "invite_expired"], "invite_expired"),
            (["exhausted", "invite_exhausted"], "invite_used_up"),
            (["not_found", "invite_not_found"], "invite_unknown"),
        ] {
            for code in codes {
                let error = Unusable::of(code, false).unwrap().error();
                assert_eq!((error.code.as_str(), error.exit), (word, ExitCode::Auth), "{code}");
                assert!(!error.hint.unwrap().contains("claudemesh invite"), "they cannot run that");
            }
        }
        assert_eq!(Unusable::of("revoked", true), None, "it is the member who is banned");
        assert_eq!(Unusable::of("rate_limited", false), None);
    }
}
