//! The local socket of a session: how hooks, monitors and verbs inside a session reach its `claudemesh mcp`.
//!
//! One process owns a session's connections and inbox readers: its MCP server. Everything else that runs for the session
//! asks it over a Unix socket in the config folder (0600 in 0700), one JSON object per line. Where there is no such server,
//! or it does not answer in time, callers do without it: hooks tell the broker themselves, verbs open their own connection.
//!
//! [`registry`] finds the server of the session a process runs in, [`server`] answers, [`client`] asks.

#[cfg(unix)]
mod asking;
pub mod attach;
pub mod client;
#[cfg(unix)]
mod hosting;
#[cfg(unix)]
mod line;
pub mod protocol;
pub mod registry;
#[cfg(unix)]
pub mod server;

pub use protocol::{Hook, Reply, Request};
