//! One folder per feature, named as in the protocol and the broker.
//!
//! `mod.rs`: typed requests as `impl Connection`; `cli.rs`: the verbs of the shell; `tools.rs`: the MCP tools. Both call
//! the same requests.

pub mod enrolment;
pub mod groups;
pub mod info;
pub mod meshes;
pub mod messaging;
pub mod moderation;
pub mod permissions;
pub mod presence;
pub mod questions;
pub mod topics;
