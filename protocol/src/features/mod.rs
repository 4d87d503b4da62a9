//! One module per feature, named as in the broker and the client.

pub mod api_keys;
pub mod audit;
pub mod capabilities;
pub mod clock;
pub mod contexts;
pub mod enrolment;
pub mod files;
pub mod groups;
pub mod info;
pub mod mcp_servers;
pub mod members;
pub mod memory;
pub mod meshes;
pub mod messaging;
pub mod moderation;
pub mod peer_files;
pub mod presence;
pub mod schedules;
pub mod services;
pub mod skills;
pub mod sql;
pub mod state;
pub mod streams;
pub mod tasks;
pub mod topics;
pub mod vault;
