//! Versions and capability words exchanged in the handshake.

/// Version of the wire spoken by this crate. Sent in `hello.protocolVersion` and `hello_ack.protocolVersion`.
pub const PROTOCOL_VERSION: u32 = 2;

/// The client acknowledges pushes with `client_ack`; the broker redelivers until it does.
pub const CAP_CLIENT_ACK: &str = "client_ack";
/// The client pulls `low` messages itself (`inbox_pull`); without it they are delivered when it becomes idle.
pub const CAP_PULL: &str = "pull";
/// One-shot verb: not listed, not a recipient, claims nothing that is queued.
pub const CAP_EPHEMERAL: &str = "ephemeral";
/// The session is over when its socket closes: no grace in which it counts as away.
pub const CAP_NO_LEASE: &str = "no_lease";
/// A shell that reads its member's messages for as long as its verb runs. It is no session: no other is told that it comes and goes,
/// it is over when its socket closes, and a write for all sessions of the member is none for it.
pub const CAP_SHELL: &str = "shell";

/// The broker keeps groups of members, renames members and sessions, and lets the owner change roles: `whoami` and its like.
pub const CAP_MEMBERS: &str = "members";

/// The broker knows calls that are cancelled, tell of their progress and have results in parts: `mcp_call` with `call`.
pub const CAP_MCP_CALLS: &str = "mcp_calls";
/// The broker keeps files: `start_upload` and its like. Reference brokers know `get_file` and its like only.
pub const CAP_FILES: &str = "files";

/// What the broker announces in `hello_ack.capabilities`.
pub const BROKER_CAPABILITIES: &[&str] = &[
    "client_ack",
    "pull",
    "ephemeral",
    "resolve_target",
    "target_session",
    "receipts",
    "trace",
    "echo",
    "confirm",
    "shell",
    "members",
    "mcp_calls",
    "files",
];
