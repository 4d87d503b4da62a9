//! The wire of claudemesh: message types, ids, limits, error codes, signed strings, envelopes and invites.
//!
//! Pure data and cryptography. No I/O, no clock, no async runtime: the same crate serves the broker, the
//! client and the test kit, so a field cannot be spelt differently on the two ends.
//!
//! # Map
//!
//! - [`frame`]: what every JSON frame has in common (`type`, `_reqId`, `id`), reading and writing frames.
//! - [`message`]: [`message::ClientMessage`] and [`message::ServerMessage`], two levels: feature, then message.
//! - [`call`]: which answer belongs to which request, and the macro that declares the messages of a feature.
//! - [`capability`]: what members may be allowed to do.
//! - [`session`]: `hello`, `session_hello`, `hello_ack`.
//! - [`name`]: the rule for names of members and sessions, and the address `member/session`.
//! - [`features`]: one folder per feature, named as in the broker and the client.
//! - [`error`]: the table of stable error codes and the `error` frame.
//! - [`crypto`]: keys, signed strings, the direct envelope, sealed boxes, invites, signed HTTP requests.
//! - [`runner`]: the other wire, between the broker and the runner in a mesh's container.
//! - [`limits`]: every bound of the wire with its reason.
#![deny(missing_docs)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod call;
pub mod capability;
pub mod crypto;
pub mod error;
pub mod features;
pub mod frame;
pub mod id;
pub mod limits;
pub mod message;
pub mod name;
pub mod runner;
pub mod session;
pub mod target;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod version;
