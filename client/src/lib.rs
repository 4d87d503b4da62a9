//! The claudemesh client: command line, MCP server, launch, hooks.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod context;
pub mod doctor;
pub mod error;
pub mod features;
pub mod files;
pub mod hook;
pub mod http;
pub mod inbox;
pub mod install;
pub mod ipc;
pub mod launch;
pub mod local;
pub mod logs;
pub mod mcp;
pub mod output;
pub mod paths;
pub mod proxy;
#[cfg(test)]
mod rooms;
pub mod service;
pub mod session;
pub mod telemetry;
pub mod values;
pub mod verb;
pub mod wrap;
