//! The two top-level enums: which feature owns a frame, and the frame.

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::FixedState;

use crate::call::{Confirmation, RequestRow};
use crate::error::ErrorFrame;
use crate::frame::Head;

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

macro_rules! wire_messages {
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
                /// Reads the body of one tag.
                type Read = fn(&str, &str) -> Option<Result<$name, serde_json::Error>>;
                // One look-up, however many features there are.
                static READERS: LazyLock<HashMap<&'static str, (&'static str, Read), FixedState>> = LazyLock::new(|| {
                    let mut readers = HashMap::default();
                    $({
                        let read: Read = |tag, text| Some(<$body>::read(tag, text)?.map($name::$variant));
                        readers.extend(<$body>::TAGS.iter().map(|tag| (*tag, (*tag, read))));
                    })*
                    readers
                });
                let Some(tag) = head.tag.as_deref() else { return Err(ReadError::NoType) };
                let unknown = || ReadError::UnknownType(tag.chars().take(64).collect());
                let (own, read) = READERS.get(tag).ok_or_else(unknown)?;
                read(tag, text).ok_or_else(unknown)?.map_err(|error| ReadError::Body { tag: own, error })
            }

            /// Writes the frame.
            pub fn write(&self, req_id: Option<&str>) -> String {
                match self { $(Self::$variant(body) => body.write(req_id),)* }
            }

            /// Writes the frame with `confirm:true`.
            pub fn write_confirmed(&self, req_id: &str) -> String {
                match self { $(Self::$variant(body) => body.write_confirmed(req_id),)* }
            }
        }

        $(impl From<$body> for $name {
            fn from(body: $body) -> Self {
                Self::$variant(body)
            }
        }

        impl TryFrom<$name> for $body {
            type Error = Box<$name>;

            fn try_from(message: $name) -> Result<Self, Box<$name>> {
                match message {
                    $name::$variant(body) => Ok(body),
                    other => Err(Box::new(other)),
                }
            }
        })*
    };
}

/// Makes the two top-level enums and the folds over all features from one list.
macro_rules! wire_features {
    ($($(#[$doc:meta])* $variant:ident => $($module:ident)::+,)*) => {
        wire_messages! {
            /// Client to broker.
            ClientMessage { $($(#[$doc])* $variant(crate::$($module)::+::Request),)* }
        }

        wire_messages! {
            /// Broker to client.
            ServerMessage {
                $($(#[$doc])* $variant(crate::$($module)::+::Response),)*
                /// The answer to silent requests.
                Confirmation(Confirmation),
                /// Failures.
                Failure(Failure),
            }
        }

        impl ClientMessage {
            /// Every request with the feature that owns it.
            pub fn rows() -> Vec<(&'static str, &'static RequestRow)> {
                let mut all = Vec::new();
                $(all.extend(crate::$($module)::+::Request::ROWS.iter().map(|row| (stringify!($variant), row)));)*
                all
            }

            /// What the table says about this request.
            pub fn row(&self) -> &'static RequestRow {
                match self { $(Self::$variant(request) => request.row(),)* }
            }
        }

        impl ServerMessage {
            /// `type` of every event.
            pub fn event_tags() -> Vec<&'static str> {
                let mut all = Vec::new();
                $(all.extend(crate::$($module)::+::Response::EVENTS.iter().copied());)*
                all
            }

            /// Whether it was sent without being asked for.
            pub fn is_event(&self) -> bool {
                match self {
                    $(Self::$variant(response) => {
                        let events = crate::$($module)::+::Response::EVENTS;
                        !events.is_empty() && events.contains(&response.tag())
                    })*
                    Self::Confirmation(_) | Self::Failure(_) => false,
                }
            }
        }

        /// Samples of every message, folded over the features.
        #[cfg(feature = "testing")]
        pub(crate) mod samples {
            /// Requests by name.
            pub(crate) fn requests() -> Vec<(&'static str, super::ClientMessage)> {
                let mut all = Vec::new();
                $(all.extend(
                    crate::$($module)::+::samples::requests().into_iter().map(|(name, body)| (name, body.into())),
                );)*
                all
            }

            /// Answers and events by name.
            pub(crate) fn responses() -> Vec<(&'static str, super::ServerMessage)> {
                let mut all = Vec::new();
                $(all.extend(
                    crate::$($module)::+::samples::responses().into_iter().map(|(name, body)| (name, body.into())),
                );)*
                all
            }

            /// Sample and JSON pointer of the fields that are written as `null` when they have no value.
            pub(crate) fn nulls() -> Vec<(&'static str, &'static str)> {
                let mut all = Vec::new();
                $(all.extend(crate::$($module)::+::samples::NULLS.iter().copied());)*
                all
            }
        }
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

    fn write_confirmed(&self, req_id: &str) -> String {
        self.write(Some(req_id))
    }
}

// One line per feature.
wire_features! {
    /// Messages between peers.
    Messaging => features::messaging,
    /// Who is there.
    Presence => features::presence,
    /// Labels on sessions.
    Groups => features::groups,
    /// Members: who one is, names, roles, removal.
    Members => features::members,
    /// Channels with history.
    Topics => features::topics,
    /// Keys of programs.
    ApiKeys => features::api_keys,
    /// One JSON value per key.
    State => features::state,
    /// Work with an owner and a result.
    Tasks => features::tasks,
    /// Logs that are kept and pushed.
    Streams => features::streams,
    /// The simulated clock.
    Clock => features::clock,
    /// Messages that are sent later.
    Schedules => features::schedules,
    /// What the mesh remembers.
    Memory => features::memory,
    /// What each session works on.
    Contexts => features::contexts,
    /// Instructions that members share.
    Skills => features::skills,
    /// Secrets of a member, sealed by its client.
    Vault => features::vault,
    /// A peer's folder.
    PeerFiles => features::peer_files,
    /// MCP servers that sessions run.
    McpServers => features::mcp_servers,
    /// The mesh's own relational database.
    Sql => features::sql,
    /// MCP servers that the mesh hosts.
    Services => features::services,
    /// Bytes that members share.
    Files => features::files,
    /// Overview.
    Info => features::info,
    /// Closing connections, bans.
    Moderation => features::moderation,
    /// Who may do what.
    Capabilities => features::capabilities,
    /// The audit log.
    Audit => features::audit,
    /// The handshake.
    Session => session,
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
