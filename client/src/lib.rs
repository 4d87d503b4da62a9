//! The claudemesh client: command line, MCP server, launch, hooks.

pub mod clock;
pub mod config;
pub mod error;
pub mod files;
pub mod install;
pub mod output;
pub mod paths;
