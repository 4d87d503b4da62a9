//! One folder per feature, named as in the protocol and the broker.
//!
//! `mod.rs`: typed requests as `impl Connection`; `cli.rs`: the verbs of the shell; `tools.rs`: the MCP tools. Both call
//! the same requests. What a feature does in the running session, beside verbs and tools, stands in the lists below.

use crate::session::admit::Interceptor;
use crate::session::events::Listener;

pub mod api_keys;
pub mod audit;
pub mod capabilities;
pub mod clock;
pub mod configuration;
pub mod contexts;
pub mod enrolment;
pub mod files;
pub mod groups;
pub mod inbound;
pub mod info;
pub mod mcp_servers;
pub mod members;
pub mod memory;
pub mod meshes;
pub mod messaging;
pub mod moderation;
pub mod notify;
pub mod peer_files;
pub mod permissions;
pub mod presence;
pub mod questions;
pub mod schedules;
pub mod services;
pub mod skills;
pub mod sql;
pub mod state;
pub mod status_line;
pub mod streams;
pub mod tasks;
pub mod templates;
pub mod top;
pub mod topics;
pub mod vault;

/// What looks at incoming messages before any route may show them, in this order, one line each.
pub const INTERCEPTORS: &[Interceptor] = &[
    // Signed answers are no one's mail, whatever the rule says.
    Interceptor::of::<permissions::Words>(),
    Interceptor::of::<inbound::InboundRule>(),
    // What the rule holds back ends no wait.
    Interceptor::of::<questions::Answers>(),
];

/// What the features do about the broker's events in a session, one line each.
pub const EVENTS: &[Listener] = &[
    Listener::of::<messaging::system::SystemNotes>(),
    Listener::of::<state::notes::StateNotes>(),
    Listener::of::<contexts::notes::ContextNotes>(),
    Listener::of::<state::notes::MissedNotes>(),
    Listener::of::<tasks::notes::TaskNotes>(),
    Listener::of::<tasks::notes::WaitingNotes>(),
    Listener::of::<streams::notes::StreamNotes>(),
    Listener::of::<streams::notes::GapNotes>(),
    Listener::of::<streams::notes::DeletedNotes>(),
    Listener::of::<mcp_servers::notes::ForwardedCalls>(),
    Listener::of::<mcp_servers::notes::CancelledCalls>(),
    Listener::of::<mcp_servers::notes::WantedParts>(),
    Listener::of_welcomes::<mcp_servers::notes::OfferedAgain>(),
    Listener::of_welcomes::<state::notes::FirstWelcome>(),
    Listener::of::<skills::list_changes::SkillChanges>(),
    Listener::of_welcomes::<skills::list_changes::LateMeshes>(),
    Listener::of_welcomes::<audit::session::LogWatch>(),
    Listener::of::<peer_files::serve::FileRequests>(),
    Listener::of::<peer_files::serve::ListRequests>(),
    Listener::of_welcomes::<peer_files::serve::Announcement>(),
    Listener::of::<files::notes::FileNotes>(),
    Listener::of::<files::notes::KeyWishes>(),
];
