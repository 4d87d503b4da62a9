//! Services: MCP servers that the mesh hosts itself, apart from anyone's session.
//!
//! A member deploys one; the broker's host installs and runs it, and everyone in its [`Scope`] sees and calls it with `mcp_schema` and
//! `mcp_call`, as a server that a session runs. A name is one thing in a mesh: of a service, or of a session's server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::features::mcp_servers::ToolDef;
use crate::id::MemberId;

pub mod limits;
mod scope;

pub use scope::Scope;

/// Events of services, as `push` of the subtype `system`. Only those in the scope of the service get them.
pub mod event {
    /// A service answers, or came into sight; with its tools.
    pub const DEPLOYED: &str = "mcp_deployed";
    /// A service is no more, or went out of sight.
    pub const UNDEPLOYED: &str = "mcp_undeployed";
    /// A service runs in a newer version, or its tools have changed.
    pub const UPDATED: &str = "mcp_updated";
    /// A service ended without being told to.
    pub const CRASHED: &str = "mcp_crashed";
    /// A service is for others now.
    pub const SCOPE_CHANGED: &str = "mcp_scope_changed";
    /// How far a deploy is: building, installing, running or failed. Not told to clients that say nothing of themselves in their
    /// hello.
    pub const STATUS: &str = "mcp_service_status";
}

/// What becomes of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted; its source is being fetched.
    #[default]
    Building,
    /// What it needs is being installed.
    Installing,
    /// It answers.
    Running,
    /// It was stopped.
    Stopped,
    /// It could not be started.
    Failed,
    /// It ended too often, and is not started again by itself.
    Crashed,
    /// It ended, and is being started again.
    Restarting,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Building, Self::Installing, Self::Running, Self::Stopped, Self::Failed, Self::Crashed, Self::Restarting];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Installing => "installing",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::Restarting => "restarting",
        }
    }

    /// The status of a word on the wire.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether a deploy has come to its end with it.
    pub const fn is_end_of_deploy(self) -> bool {
        match self {
            Self::Running | Self::Stopped | Self::Failed | Self::Crashed => true,
            Self::Building | Self::Installing | Self::Restarting => false,
        }
    }
}

/// Where a service comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source {
    /// A zip archive among the files of the mesh.
    Zip {
        /// Id of the file.
        file_id: String,
    },
    /// A git repository.
    Git {
        /// `https://…`, or what else the operator allows.
        url: String,
        /// A branch or tag; the default branch when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
        /// Exactly this commit; 40 hex digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
    },
    /// A package of npm.
    Npx {
        /// Name, with `@version` if wanted.
        package: String,
    },
    /// A package of PyPI.
    Uvx {
        /// Name, with `==version` if wanted.
        package: String,
    },
    /// A program that the host has.
    Command {
        /// Name or path.
        command: String,
    },
}

impl Source {
    /// The word on the wire.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Zip { .. } => "zip",
            Self::Git { .. } => "git",
            Self::Npx { .. } => "npx",
            Self::Uvx { .. } => "uvx",
            Self::Command { .. } => "command",
        }
    }
}

/// What a service is started with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Plain variables; at most [`limits::MAX_ENV`]. The broker reads and keeps them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Arguments behind its command; at most [`limits::MAX_ARGS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// MiB; [`limits::USUAL_MEMORY_MB`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Processors, such as 0.5; one when absent. Stored, and not applied to a single service yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// `host:port` that it may reach; none when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_allow: Vec<String>,
    /// `node`, `python` or `bun`; found out when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// How long a call may take that says nothing else, in milliseconds; [`limits::USUAL_TIMEOUT_MS`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Scripts of packages may run while they are installed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub install_scripts: bool,
}

/// `mcp_deploy`: a service of the caller's member with that name is replaced once the new one answers.
///
/// It is answered at once with the status `building`, and under the same `_reqId` once more with `running` or `failed`. With `wait`
/// there is one answer, the last.
/// Errors: `invalid_name`, `invalid_args`, `already_exists` (the name is another member's), `services_off`, `limit` with `bound`,
/// `busy`, `rate_limited`, `forbidden` (a scope wider than the caller's own groups).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct McpDeploy {
    /// As the name of a session's server.
    pub server_name: String,
    /// Where it comes from.
    pub source: Source,
    /// What it is started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,
    /// Who may use it; of a service that is replaced as before, else [`Scope::Peer`], when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// What it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Answer only when it runs or has failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
}

/// `mcp_undeploy`: ends a service; nothing of it is kept. Errors: `not_found`, `forbidden`, `rate_limited`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpUndeploy {
    /// Its name.
    pub server_name: String,
}

/// `mcp_update`: fetches the source of a service again and replaces it as a deploy does. Errors: `not_found`, `forbidden`, `busy`,
/// `services_off`, `rate_limited`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpUpdate {
    /// Its name.
    pub server_name: String,
    /// As in `mcp_deploy`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
}

/// `mcp_logs`: what a service has said lately, and what its installer has. Errors: `not_found`, `invalid_args`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpLogs {
    /// Its name.
    pub server_name: String,
    /// The last so many; 1 to [`limits::MAX_LOG_LINES`], [`limits::USUAL_LOG_LINES`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
    /// Only those behind this one: `last` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// `mcp_scope`: says who may use a service, or with `scope` changes it. Errors: `not_found`, `forbidden`, `invalid_args`,
/// `peer_not_found`, `rate_limited`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpScope {
    /// Its name.
    pub server_name: String,
    /// From now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// `mcp_catalog`: the services that the caller may use or manages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpCatalog {
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `mcp_deploy_status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpDeployStatus {
    /// Its name.
    pub server_name: String,
    /// What became of it.
    pub status: Status,
    /// With `running`: its tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ToolDef>>,
    /// Why it failed; with `running`: why the version before goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `error`: a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// `mcp_logs_result`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpLogsResult {
    /// As asked.
    pub server_name: String,
    /// Oldest first.
    pub lines: Vec<String>,
    /// Number of the last line, to go on behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
}

/// `mcp_scope_result`: of a service that is not there, or not for the caller, `{"type":"peer"}` and `unknown`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct McpScopeResult {
    /// As asked.
    pub server_name: String,
    /// A [`Scope`].
    pub scope: serde_json::Value,
    /// Name of the session that deployed it.
    pub deployed_by: String,
}

/// A row of `mcp_catalog_result`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceRow {
    /// Its name.
    pub name: String,
    /// `mcp`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is good for.
    pub description: String,
    /// What became of it.
    pub status: Status,
    /// Number of its tools.
    pub tool_count: u32,
    /// Name of the session that deployed it.
    pub deployed_by: String,
    /// Who may use it: a scope as in `mcp_scope`.
    pub scope: Scope,
    /// `zip`, `git`, `npx`, `uvx` or `command`.
    pub source_type: String,
    /// `node`, `python` or `bun`, once that is known.
    pub runtime: Option<String>,
    /// ISO time.
    pub created_at: String,
    /// ISO time of the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<MemberId>,
    /// Why the last deploy failed, or what ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `mcp_catalog_result`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpCatalogResult {
    /// By name.
    pub services: Vec<ServiceRow>,
    /// There are more: ask with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `mcp_deploy_progress`: what the installer of a deploy says, for the connection that asked with `wait`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McpDeployProgress {
    /// Its name.
    pub server_name: String,
    /// How far it is.
    pub status: Status,
    /// A line of the installer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

/// A row of `services` in `hello_ack`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HelloService {
    /// Its name.
    pub name: String,
    /// What it is good for.
    pub description: String,
    /// `running`.
    pub status: Status,
    /// Its tools.
    pub tools: Vec<ToolDef>,
    /// Name of the session that deployed it.
    pub deployed_by: String,
}

crate::wire_feature! {
    requests {
        /// Deploys an MCP server that the mesh hosts.
        McpDeploy = "mcp_deploy" => answers McpDeployStatus, needs CanDeployMcp, once;
        /// Ends a hosted MCP server and removes all of it.
        McpUndeploy = "mcp_undeploy" => answers McpDeployStatus, needs nothing, once;
        /// Fetches the source of a hosted MCP server again and replaces it.
        McpUpdate = "mcp_update" => answers McpDeployStatus, needs CanDeployMcp, once;
        /// The last lines of a hosted MCP server's log.
        McpLogs = "mcp_logs" => answers McpLogsResult, needs CanUseTools, repeatable;
        /// Who may use a hosted MCP server; changes it with `scope`.
        McpScope = "mcp_scope" => answers McpScopeResult, needs CanUseTools, repeatable;
        /// The hosted MCP servers that the caller may use or manages.
        McpCatalog = "mcp_catalog" => answers McpCatalogResult, needs CanUseTools, repeatable;
    }
    answers {
        McpDeployStatus = "mcp_deploy_status",
        McpLogsResult = "mcp_logs_result",
        McpScopeResult = "mcp_scope_result",
        McpCatalogResult = "mcp_catalog_result",
    }
    events {
        McpDeployProgress = "mcp_deploy_progress",
    }
}

#[cfg(feature = "testing")]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_word() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(Status::parse("Running"), None);
    }
}
