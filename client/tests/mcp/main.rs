//! The MCP server and the verbs of the wire against a real broker: through the strict host, through the SDK's client, and
//! through the shell.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api_keys;
mod away;
mod channel;
mod clock;
mod contexts;
mod doctor;
mod enrolment;
mod files;
mod flags;
mod governance;
mod hooks;
mod human_output;
mod in_process;
mod in_session;
mod inbound_rule;
mod info;
mod json;
mod local;
mod mcp_servers;
mod memory;
mod meshes;
mod modes;
mod names;
mod notify;
mod older_broker;
mod one_machine;
mod other_hosts;
mod outbox;
#[cfg(target_os = "linux")]
mod output;
#[cfg(unix)]
mod peer_files;
mod permissions;
mod proofs;
mod proxy;
mod questions;
mod reading;
mod routes;
mod schedules;
mod sdk_client;
mod services;
mod shell;
mod skills;
mod sql;
mod state;
mod status_line;
mod streams;
mod surface;
mod takeover;
mod tasks;
mod team;
mod templates;
mod terminal;
mod tls_proxy;
mod top;
mod topics;
mod vault;
