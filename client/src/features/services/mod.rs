//! MCP servers that the mesh hosts: deploying, changing and ending them, who may use them, what they say.

use std::time::Duration;

use claudemesh_protocol::features::services::{
    McpCatalog, McpDeploy, McpDeployProgress, McpDeployStatus, McpLogs, McpLogsResult, McpScope, McpScopeResult,
    McpUndeploy, McpUpdate, Scope, ServiceRow,
};

use crate::connection::{Connection, ConnectionError, Heard};

pub mod cli;
pub mod tools;

/// How long a deploy may take: fetching and installing included.
const DEPLOY_PATIENCE: Duration = Duration::from_secs(900);

/// What is to run now.
#[derive(Clone, Debug)]
pub enum Begin {
    /// A service, new or in place of the one of that name.
    Deploy(Box<McpDeploy>),
    /// The newest version of one that is there.
    Update(String),
}

impl Connection {
    /// Deploys or updates a service and waits until it runs or has failed. `told` hears of its progress.
    ///
    /// # Errors
    /// What the broker says, or of the transport: the deploy may go on then.
    pub async fn begin_service(
        &self,
        begin: Begin,
        mut told: impl FnMut(McpDeployProgress),
    ) -> Result<McpDeployStatus, ConnectionError> {
        let mut progress = self.events::<McpDeployProgress>();
        let name = match &begin {
            Begin::Deploy(deploy) => deploy.server_name.clone(),
            Begin::Update(name) => name.clone(),
        };
        let asking = async {
            match begin {
                Begin::Deploy(deploy) => {
                    self.request_within(McpDeploy { wait: true, ..*deploy }, DEPLOY_PATIENCE).await
                }
                Begin::Update(server_name) => {
                    self.request_within(McpUpdate { server_name, wait: true }, DEPLOY_PATIENCE).await
                }
            }
        };
        let mut asking = std::pin::pin!(asking);
        let mut listening = true;
        loop {
            tokio::select! {
                biased;
                heard = progress.next(), if listening => match heard {
                    Some(Heard::Event(notice)) if notice.server_name == name => told(notice),
                    Some(_) => {}
                    None => listening = false,
                },
                answer = &mut asking => return answer,
            }
        }
    }

    /// Ends a service.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn undeploy(&self, name: &str) -> Result<McpDeployStatus, ConnectionError> {
        self.request(McpUndeploy { server_name: name.to_owned() }).await
    }

    /// The services that the member may use or manages, by name.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn services(&self) -> Result<Vec<ServiceRow>, ConnectionError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.request(McpCatalog { cursor }).await?;
            all.extend(page.services);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// The last lines that a service has said; with `after` only those behind that one.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn service_logs(
        &self,
        name: &str,
        lines: u32,
        after: Option<u64>,
    ) -> Result<McpLogsResult, ConnectionError> {
        self.request(McpLogs { server_name: name.to_owned(), lines: Some(lines), after }).await
    }

    /// Who may use a service, from now on with `scope`.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn service_scope(&self, name: &str, scope: Option<Scope>) -> Result<McpScopeResult, ConnectionError> {
        self.request(McpScope { server_name: name.to_owned(), scope }).await
    }
}

/// A scope in words: `everyone`, `the group dev` …
pub fn scope_words(scope: &Scope) -> String {
    match scope {
        Scope::Peer => "its member alone".into(),
        Scope::Mesh => "everyone in the mesh".into(),
        Scope::Peers(names) => names.join(", "),
        Scope::Group(name) => format!("the group {name}"),
        Scope::Groups(names) => format!("the groups {}", names.join(", ")),
        Scope::Role(role) => format!("those with the role {role}"),
    }
}
