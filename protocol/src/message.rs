//! The two top-level enums: which feature owns a frame, and the frame.

use crate::error::ErrorFrame;
use crate::features::{groups, info, messaging, moderation, presence, topics};
use crate::frame::Head;
use crate::session;

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not one JSON object.
    #[error("expected one JSON object per frame: {0}")]
    BadJson(serde_json::Error),
    /// No `type` text.
    #[error("expected a `type` text")]
    NoType,
    /// No feature owns the tag.
    #[error("unknown message type `{0}`")]
    UnknownType(String),
    /// The body of a known type is wrong.
    #[error("`{tag}`: {error}")]
    Body {
        /// The tag.
        tag: &'static str,
        /// What serde says: field and expectation.
        error: serde_json::Error,
    },
}

impl ReadError {
    /// Its stable code.
    pub fn code(&self) -> crate::error::ErrorCode {
        match self {
            Self::BadJson(_) | Self::NoType => crate::error::ErrorCode::BadJson,
            Self::UnknownType(_) => crate::error::ErrorCode::UnknownType,
            Self::Body { .. } => crate::error::ErrorCode::InvalidArgs,
        }
    }
}

macro_rules! wire_features {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident($body:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "messages are moved once, from the reader to the handler")]
        pub enum $name { $($(#[$vdoc])* $variant($body),)* }

        impl $name {
            /// Every tag with the feature that owns it.
            pub fn tags() -> Vec<(&'static str, &'static str)> {
                let mut all = Vec::new();
                $(all.extend(<$body>::TAGS.iter().map(|tag| (*tag, stringify!($variant))));)*
                all
            }

            /// `type` of this message.
            pub fn tag(&self) -> &'static str {
                match self { $(Self::$variant(body) => body.tag(),)* }
            }

            /// Reads the body of a frame whose head was read.
            ///
            /// # Errors
            /// No tag, an unknown tag, or a body that does not fit.
            pub fn read(head: &Head<'_>, text: &str) -> Result<Self, ReadError> {
                let Some(tag) = head.tag.as_deref() else { return Err(ReadError::NoType) };
                $(if let Some(body) = <$body>::read(tag, text) {
                    return match body {
                        Ok(body) => Ok(Self::$variant(body)),
                        Err(error) => {
                            let tag = <$body>::TAGS.iter().find(|own| **own == tag).copied().unwrap_or("?");
                            Err(ReadError::Body { tag, error })
                        }
                    };
                })*
                Err(ReadError::UnknownType(tag.chars().take(64).collect()))
            }

            /// Writes the frame.
            pub fn write(&self, req_id: Option<&str>) -> String {
                match self { $(Self::$variant(body) => body.write(req_id),)* }
            }
        }

        $(impl From<$body> for $name {
            fn from(body: $body) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

/// `error` as an enum of one, so that it fits the table.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// `error`
    Error(ErrorFrame),
}

impl Failure {
    const TAGS: &'static [&'static str] = &["error"];

    fn tag(&self) -> &'static str {
        "error"
    }

    fn read(tag: &str, text: &str) -> Option<Result<Self, serde_json::Error>> {
        (tag == "error").then(|| serde_json::from_str(text).map(Self::Error))
    }

    fn write(&self, req_id: Option<&str>) -> String {
        let Self::Error(body) = self;
        crate::frame::write("error", body, req_id)
    }
}

wire_features! {
    /// Client to broker.
    ClientMessage {
        /// Most frequent first: tags are compared in this order.
        Messaging(messaging::Request),
        /// Presence.
        Presence(presence::Request),
        /// Groups.
        Groups(groups::Request),
        /// Topics.
        Topics(topics::Request),
        /// Overview.
        Info(info::Request),
        /// Moderation.
        Moderation(moderation::Request),
        /// The handshake.
        Session(session::Request),
    }
}

wire_features! {
    /// Broker to client.
    ServerMessage {
        /// Acks, pushes, receipts.
        Messaging(messaging::Response),
        /// Presence.
        Presence(presence::Response),
        /// Topics.
        Topics(topics::Response),
        /// Overview.
        Info(info::Response),
        /// Moderation.
        Moderation(moderation::Response),
        /// The handshake.
        Session(session::Response),
        /// Failures.
        Failure(Failure),
    }
}

impl From<ErrorFrame> for ServerMessage {
    fn from(frame: ErrorFrame) -> Self {
        Self::Failure(Failure::Error(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tag_has_two_owners() {
        for mut tags in [ClientMessage::tags(), ServerMessage::tags()] {
            let count = tags.len();
            tags.sort_unstable();
            tags.dedup_by_key(|(tag, _)| *tag);
            assert_eq!(tags.len(), count);
        }
    }
}
