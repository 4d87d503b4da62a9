//! What the table of a feature says about its messages, for the compiler: which answer belongs to which request.
//!
//! A feature declares its messages with [`crate::wire_feature!`]. Client and broker get from it: the answer type of a
//! request ([`Call`]), the rows of `docs/wire.md` ([`RequestRow`]), the capability that dispatch checks.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::capability::Capability;
use crate::message::{ClientMessage, ServerMessage};

/// A request: what a client may ask, and what its feature's table says about it.
pub trait Call: Into<ClientMessage> {
    /// The answer. A silent request has it only when the frame carried `confirm:true`.
    type Answer: ServerBody;
    /// `type` on the wire.
    const TAG: &'static str;
    /// Whether asking twice does no more than asking once, so that a client may ask again after a lost connection.
    const REPEATABLE: bool;
    /// What the caller must be allowed to do. Dispatch checks it before the feature sees the request.
    const NEEDS: Option<Capability>;
    /// Answered only when the frame carries `confirm:true`. Errors are answered always.
    const SILENT: bool;
}

/// What a broker may send: an answer or an event.
pub trait ServerBody: Sized {
    /// `type` on the wire.
    const TAG: &'static str;
    /// Sent without being asked for.
    const EVENT: bool;

    /// The message.
    fn into_message(self) -> ServerMessage;

    /// The body of a message, if it is of this type.
    ///
    /// # Errors
    /// The message as it was.
    fn from_message(message: ServerMessage) -> Result<Self, Box<ServerMessage>>;
}

/// One row of the table of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestRow {
    /// `type` on the wire.
    pub tag: &'static str,
    /// `type` of the answer.
    pub answer: &'static str,
    /// As [`Call::SILENT`].
    pub silent: bool,
    /// As [`Call::REPEATABLE`].
    pub repeatable: bool,
    /// As [`Call::NEEDS`].
    pub needs: Option<Capability>,
    /// What it does, in one or two sentences.
    pub doc: &'static str,
}

/// `done`: the answer to a silent request that carried `confirm:true`.
///
/// Shape: `{"type":"done","_reqId":…}`, with the fields that the feature adds (`version`, `sessions` …) beside them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub struct Done {
    /// What the feature says about it.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl From<Map<String, Value>> for Done {
    fn from(mut fields: Map<String, Value>) -> Self {
        // They belong to the frame, not to the feature.
        for own in ["type", "_reqId"] {
            fields.shift_remove(own);
        }
        Self { fields }
    }
}

crate::wire_enum! {
    /// The answer that all silent requests share.
    pub enum Confirmation {
        Done = "done",
    }
}

/// A confirmation that says no more than that it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// How many sessions of the member a confirmed write changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Changed sessions.
    pub sessions: u32,
}

/// Makes a struct the body of `done`.
#[macro_export]
macro_rules! done_body {
    ($($name:ident),* $(,)?) => {
        $(impl $crate::call::ServerBody for $name {
            const TAG: &'static str = "done";
            const EVENT: bool = false;

            fn into_message(self) -> $crate::message::ServerMessage {
                $crate::call::Done::of(&self).into_message()
            }

            fn from_message(
                message: $crate::message::ServerMessage,
            ) -> Result<Self, Box<$crate::message::ServerMessage>> {
                $crate::call::Done::from_message(message)?.read()
            }
        })*
    };
}

done_body!(Nothing, Sessions);

impl Done {
    /// A confirmation with the fields of a struct.
    pub fn of<T: Serialize>(body: &T) -> Self {
        match serde_json::to_value(body) {
            Ok(Value::Object(fields)) => Self { fields },
            // A struct without named fields has nothing to add.
            _ => Self::default(),
        }
    }

    /// Its fields as a struct.
    ///
    /// # Errors
    /// The message as it was, when a field is missing or of another type.
    pub fn read<T: for<'a> Deserialize<'a>>(self) -> Result<T, Box<ServerMessage>> {
        match T::deserialize(Value::Object(self.fields.clone())) {
            Ok(body) => Ok(body),
            Err(_) => Err(Box::new(self.into_message())),
        }
    }
}

impl ServerBody for Done {
    const TAG: &'static str = "done";
    const EVENT: bool = false;

    fn into_message(self) -> ServerMessage {
        Confirmation::from(self).into()
    }

    fn from_message(message: ServerMessage) -> Result<Self, Box<ServerMessage>> {
        match message {
            ServerMessage::Confirmation(Confirmation::Done(done)) => Ok(done),
            other => Err(Box::new(other)),
        }
    }
}

/// Declares the messages of one feature: the enums `Request` and `Response`, the table `ROWS`, and [`Call`] or
/// [`ServerBody`] for each struct.
///
/// ```text
/// wire_feature! {
///     requests {
///         /// Owner or admin: revokes a member until `unban`.
///         Ban = "ban" => answers BanAck, needs CanModerate, once;
///         /// Ends the subscription.
///         TopicLeave = "topic_leave" => silent Nothing, needs nothing, repeatable;
///     }
///     answers { BanAck = "ban_ack", }
///     events { StateChange = "state_change", }
/// }
/// ```
///
/// `answers X` is always answered by `X`, which may belong to another feature. `silent X` is answered by `done` with the
/// fields of `X`, and only when the frame carries `confirm:true`. `repeatable` or `once`: see [`Call::REPEATABLE`].
#[macro_export]
macro_rules! wire_feature {
    (
        requests { $($(#[doc = $doc:literal])+ $request:ident = $tag:literal => $kind:ident $answer:ident, needs $needs:ident, $repeat:ident;)* }
        answers { $($reply:ident = $reply_tag:literal,)* }
        events { $($event:ident = $event_tag:literal,)* }
    ) => {
        $crate::wire_enum! {
            /// What clients ask.
            pub enum Request { $($request = $tag,)* }
        }

        $crate::wire_enum! {
            /// What the broker sends: answers, then events.
            pub enum Response { $($reply = $reply_tag,)* $($event = $event_tag,)* }
        }

        impl Request {
            /// What this feature's requests are, in order.
            pub const ROWS: &'static [$crate::call::RequestRow] = &[$($crate::call::RequestRow {
                tag: $tag,
                answer: <$answer as $crate::call::ServerBody>::TAG,
                silent: $crate::wire_feature!(@silent $kind),
                repeatable: $crate::wire_feature!(@repeat $repeat),
                needs: $crate::wire_feature!(@needs $needs),
                doc: concat!($($doc),+),
            },)*];

            /// The row of this request.
            pub fn row(&self) -> &'static $crate::call::RequestRow {
                let tag = self.tag();
                Self::ROWS.iter().find(|row| row.tag == tag).expect("every variant is made from a row")
            }
        }

        impl Response {
            /// Tags that are sent without being asked for.
            pub const EVENTS: &'static [&'static str] = &[$($event_tag,)*];
        }

        $(impl From<$request> for $crate::message::ClientMessage {
            fn from(body: $request) -> Self {
                Request::$request(body).into()
            }
        }

        impl $crate::call::Call for $request {
            type Answer = $answer;
            const TAG: &'static str = $tag;
            const REPEATABLE: bool = $crate::wire_feature!(@repeat $repeat);
            const NEEDS: Option<$crate::capability::Capability> = $crate::wire_feature!(@needs $needs);
            const SILENT: bool = $crate::wire_feature!(@silent $kind);
        })*

        $($crate::wire_feature!(@body $reply = $reply_tag, false);)*
        $($crate::wire_feature!(@body $event = $event_tag, true);)*
    };
    (@body $name:ident = $tag:literal, $event:literal) => {
        impl From<$name> for $crate::message::ServerMessage {
            fn from(body: $name) -> Self {
                Response::$name(body).into()
            }
        }

        impl $crate::call::ServerBody for $name {
            const TAG: &'static str = $tag;
            const EVENT: bool = $event;

            fn into_message(self) -> $crate::message::ServerMessage {
                self.into()
            }

            fn from_message(
                message: $crate::message::ServerMessage,
            ) -> Result<Self, Box<$crate::message::ServerMessage>> {
                match Response::try_from(message)? {
                    Response::$name(body) => Ok(body),
                    #[allow(unreachable_patterns, reason = "a feature may have one answer only")]
                    other => Err(Box::new(other.into())),
                }
            }
        }
    };
    (@silent answers) => { false };
    (@silent silent) => { true };
    (@repeat repeatable) => { true };
    (@repeat once) => { false };
    (@needs nothing) => { None };
    (@needs $capability:ident) => { Some($crate::capability::Capability::$capability) };
}
