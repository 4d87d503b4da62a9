//! The claudemesh broker: per-mesh supervisor actors over actix, HTTP/WebSocket, durable storage.
//!
//! [`Broker::start`] is the whole embedded interface; the binary, the client's local mode and the tests use it.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod audit;
pub mod blobs;
pub mod clock;
pub mod config;
pub mod db;
pub mod features;
pub mod hash;
pub mod http;
pub mod journal;
mod lock;
mod memory_release;
pub mod mesh;
pub mod metrics;
mod open_connections;
pub mod quota;
pub mod refusal;
pub mod search;
mod server;
pub mod session;
pub mod telemetry;
#[cfg(unix)]
pub mod unix_socket;

pub use lock::DataDirLock;
pub use server::raise_open_file_limit;
pub use server::{Broker, Deps, RunningBroker, StartError};
