//! The test kit: real brokers, real sockets, the load generator, a host that enforces its contract, a scripted model.
//!
//! Development only; nothing that ships depends on it.
//!
//! | module | what it is |
//! |---|---|
//! | [`broker`] | a broker in this process, or the real binary that can be killed |
//! | [`peer`] | a strict websocket peer that speaks JSON |
//! | [`host`] | plays Claude Code's side of the MCP and channel contract |
//! | [`model`] | a scripted Messages API on loopback |
//! | [`http`] | requests that break off, answers that are read piece by piece |
//! | [`schema`] | whether what a tool answers is what its schema says |
//! | [`enrol`], [`identity`] | meshes, members and sessions with real keys and signatures |
//! | [`postgres`] | a PostgreSQL of one's own, to break |
//! | [`load`], [`relay`], [`wire`] | measuring: scenarios, the ceiling they are compared with, a cheap client |
//! | [`tools`] | programs of the machine that tests start, and what happens where they are missing |
//! | [`wait`] | waiting for what another process does |
//! | [`torture`] | kill, restart, compare what was promised with what arrives |

#![expect(clippy::expect_used, reason = "the test kit fails by panicking")]

pub mod broker;
mod child;
pub mod cli;
pub mod clock;
pub mod docs;
pub mod enrol;
pub mod host;
pub mod http;
pub mod identity;
pub mod load;
pub mod model;
pub mod peer;
pub mod postgres;
pub mod process;
pub mod relay;
pub mod schema;
pub mod tools;
pub mod torture;
pub mod wait;
pub mod wire;
