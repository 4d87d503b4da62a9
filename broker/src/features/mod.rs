//! The feature list, and nothing else.

pub mod api_keys;
pub mod audit;
pub mod capabilities;
pub mod clock;
pub mod contexts;
pub mod enrolment;
pub mod files;
pub mod groups;
pub mod info;
#[cfg(test)]
mod isolation;
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

crate::feature_table! {
    routes { enrolment, members, meshes, capabilities, presence, files, topics, state, memory, tasks, api_keys, }

    messaging: Messaging => messaging::Messaging,
    presence: Presence => presence::Presence,
    groups: Groups => groups::Groups,
    members: Members => members::Members,
    topics: Topics => topics::Topics,
    api_keys: ApiKeys => api_keys::ApiKeys,
    state: State => state::State,
    tasks: Tasks => tasks::Tasks,
    streams: Streams => streams::Streams,
    clock: Clock => clock::Clock,
    schedules: Schedules => schedules::Schedules,
    memory: Memory => memory::Memory,
    contexts: Contexts => contexts::Contexts,
    skills: Skills => skills::Skills,
    vault: Vault => vault::Vault,
    peer_files: PeerFiles => peer_files::PeerFiles,
    mcp_servers: McpServers => mcp_servers::McpServers,
    sql: Sql => sql::Sql,
    services: Services => services::Services,
    files: Files => files::Files,
    info: Info => info::Info,
    moderation: Moderation => moderation::Moderation,
    capabilities: Capabilities => capabilities::Capabilities,
    audit: Audit => audit::AuditLog,
}
