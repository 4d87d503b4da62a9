//! Services: MCP servers that the mesh hosts.
//!
//! This feature keeps what was deployed and in which scope, and tells the host what to run ([`crate::mesh::hosting`]). What becomes of it
//! comes back as reports. Each deploy is a version of its own with an id of its own: the one that serves goes on until the new one
//! answers. Calls go the way of all MCP servers (`mcp_servers`), which finds services in the book of the mesh.

mod checking;
mod deploying;
pub mod host;
pub mod limits;
mod reading;
mod reports;
pub mod schema;
pub mod store;
mod telling;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::mcp_servers::ToolDef;
use claudemesh_protocol::features::services::{
    Config, HelloService, McpCatalog, McpDeploy, McpLogs, McpScope, McpUndeploy, McpUpdate, Request, Scope, Source,
    Status, limits as wire,
};
use claudemesh_protocol::id::{MemberId, MeshId};
use claudemesh_protocol::session::HelloAck;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::deploying::Queued;
use self::store::Row;
use crate::db::{DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::hosting::{Command, Hosted, Route};
use crate::mesh::outcome::{Lane, Outcome, ReplyTo};
use crate::mesh::peers::PeerHandle;
use crate::quota::Quota;
use crate::refusal::Refusal;

/// A source with what was found out about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pinned {
    #[serde(flatten)]
    source: Source,
    /// The commit that the branch was at when it was deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned: Option<String>,
}

/// What one deploy asked for.
#[derive(Clone, Debug)]
struct Version {
    revision: i64,
    source: Pinned,
    config: Config,
    deployed_by: String,
    description: String,
}

/// A version that is being tried.
#[derive(Debug)]
struct Trial {
    version: Version,
    /// Who may use it once it answers; as before when absent.
    scope: Option<(Scope, Vec<MemberId>)>,
    runtime: Option<String>,
    stage: Status,
    /// Who wants to know how it ends.
    asked: Option<Asked>,
}

/// Who asked for a deploy.
#[derive(Clone, Debug)]
struct Asked {
    to: ReplyTo,
    at: PeerHandle,
    /// There is one answer, the last.
    waits: bool,
}

/// A service.
#[derive(Debug)]
struct Service {
    owner: MemberId,
    /// The one that serves; of a service that has never answered, the one that is tried or failed.
    version: Version,
    scope: Scope,
    audience: Vec<MemberId>,
    status: Status,
    error: Option<String>,
    runtime: Option<String>,
    tools: Arc<[ToolDef]>,
    created_at_ms: i64,
    updated_at_ms: i64,
    trial: Option<Trial>,
    /// Deploys that wait for the one under way.
    queue: VecDeque<Queued>,
}

impl Service {
    fn read(row: &Row) -> Option<Self> {
        let (source, config) = (serde_json::from_str(&row.source).ok()?, serde_json::from_str(&row.config).ok()?);
        let tools: Vec<ToolDef> = serde_json::from_str(&row.tools).ok()?;
        let version = Version {
            revision: row.revision,
            source,
            config,
            deployed_by: row.deployed_by.clone(),
            description: row.description.clone(),
        };
        Some(Self {
            owner: row.member_id.as_str().into(),
            version,
            scope: serde_json::from_str(&row.scope).ok()?,
            audience: serde_json::from_str(&row.audience).ok()?,
            status: Status::parse(&row.status)?,
            error: row.error.clone(),
            runtime: row.runtime.clone(),
            tools: tools.into(),
            created_at_ms: row.created_at_ms,
            updated_at_ms: row.updated_at_ms,
            trial: None,
            queue: VecDeque::new(),
        })
    }

    fn row(&self, name: &str) -> Row {
        // None of these can fail: their keys are texts.
        let text = |value: serde_json::Result<String>| value.unwrap_or_default();
        let row = Row {
            name: name.to_owned(),
            member_id: self.owner.to_string(),
            deployed_by: self.version.deployed_by.clone(),
            description: self.version.description.clone(),
            source: text(serde_json::to_string(&self.version.source)),
            config: text(serde_json::to_string(&self.version.config)),
            sealed: "[]".into(),
            scope: text(serde_json::to_string(&self.scope)),
            audience: text(serde_json::to_string(&self.audience)),
            status: self.status.as_str().into(),
            error: self.error.clone(),
            runtime: self.runtime.clone(),
            tools: text(serde_json::to_string(&*self.tools)),
            revision: self.version.revision,
            pending: self.trial.as_ref().map(|trial| trial.version.revision),
            created_at_ms: self.created_at_ms,
            updated_at_ms: self.updated_at_ms,
            ..Row::default()
        };
        let bytes = [&row.description, &row.source, &row.config, &row.scope, &row.audience, &row.tools];
        Row { size_bytes: bytes.iter().map(|text| text.len() as i64).sum(), ..row }
    }

    /// Whether a version of it has answered, and was not ended.
    fn serves(&self) -> bool {
        matches!(self.status, Status::Running | Status::Restarting | Status::Crashed)
    }

    fn memory_mb(&self) -> u32 {
        self.version.config.memory_mb.unwrap_or(wire::USUAL_MEMORY_MB)
    }

    fn next_revision(&self) -> i64 {
        1 + self.trial.as_ref().map_or(self.version.revision, |trial| trial.version.revision)
    }
}

/// Id of a version at its host: another one for each deploy, also of a service that was removed and is there again.
fn instance(mesh: &MeshId, name: &str, created_at_ms: i64, revision: i64) -> String {
    let digest = Sha256::new().chain_update(mesh.as_str()).chain_update("|").chain_update(name).finalize();
    format!("s-{}-{created_at_ms:x}-{revision}", hex::encode(&digest[..8]))
}

/// What a mesh in memory knows of its services.
#[derive(Default)]
pub struct Memory {
    services: BTreeMap<String, Service>,
    /// Services by the ids of their versions.
    by_instance: HashMap<String, String>,
}

impl Memory {
    /// Says to the other features what there is under a name.
    fn publish(&self, cx: &mut MeshContext<'_>, name: &str) {
        let Some(service) = self.services.get(name) else { return cx.services_mut().remove(name) };
        let route = if service.status == Status::Running {
            Ok(Route {
                instance: instance(cx.mesh_id(), name, service.created_at_ms, service.version.revision),
                timeout_ms: service.version.config.timeout_ms.unwrap_or(wire::USUAL_TIMEOUT_MS),
            })
        } else {
            Err(format!("MCP server \"{name}\" is {}", service.status.as_str()))
        };
        let hosted = Hosted {
            owner: service.owner.clone(),
            scope: service.scope.clone(),
            audience: service.audience.clone(),
            tools: Arc::clone(&service.tools),
            route,
        };
        cx.services_mut().put(name, hosted);
    }

    /// A service that the asking peer may use.
    fn seen(&self, cx: &MeshContext<'_>, name: &str) -> Result<Option<&Service>, Refusal> {
        let viewer = cx.viewer(cx.asker()?);
        Ok(cx.hosted(name, &viewer).and_then(|_| self.services.get(name)))
    }
}

/// The feature.
pub struct Services;

impl Feature for Services {
    const NAME: &'static str = "services";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = Memory;

    async fn load(storage: &MeshDb) -> Result<Memory, DbError> {
        let rows = store::load(storage).await?;
        let services = rows.iter().filter_map(|row| Some((row.name.clone(), Service::read(row)?))).collect();
        Ok(Memory { services, ..Memory::default() })
    }

    fn started(memory: &mut Memory, cx: &mut MeshContext<'_>) {
        deploying::resume(memory, cx);
    }

    fn handle(memory: &mut Memory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::McpDeploy(request) => Self::answer::<McpDeploy>(deploying::deploy(memory, cx, request)),
            Request::McpUndeploy(request) => Self::answer::<McpUndeploy>(deploying::undeploy(memory, cx, request)),
            Request::McpUpdate(request) => Self::answer::<McpUpdate>(deploying::update(memory, cx, request)),
            Request::McpLogs(request) => Self::answer::<McpLogs>(reading::logs(memory, cx, request)),
            Request::McpScope(request) => Self::answer::<McpScope>(reading::scope(memory, cx, request)),
            Request::McpCatalog(request) => Self::answer::<McpCatalog>(reading::catalog(memory, cx, &request)),
        }
    }

    fn on_event(memory: &mut Memory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        match event {
            MeshEvent::Host(report) => reports::take(memory, cx, report),
            MeshEvent::MemberGone { member } => deploying::member_gone(memory, cx, member),
            _ => {}
        }
    }

    fn greet(memory: &Memory, cx: &MeshContext<'_>, peer: PeerHandle, ack: &mut HelloAck) {
        let Some(peer) = cx.roster().get(peer).filter(|peer| !peer.ephemeral) else { return };
        if !cx.allows_peer(peer, claudemesh_protocol::capability::Capability::CanUseTools) {
            return;
        }
        let viewer = cx.viewer(peer);
        let mut bytes = 0;
        for (name, service) in memory.services.iter().filter(|(_, service)| service.status == Status::Running) {
            if cx.hosted(name, &viewer).is_none() {
                continue;
            }
            let row = HelloService {
                name: name.clone(),
                description: service.version.description.clone(),
                status: Status::Running,
                tools: service.tools.to_vec(),
                deployed_by: service.version.deployed_by.clone(),
            };
            let Ok(row) = serde_json::to_value(row) else { continue };
            bytes += row.to_string().len();
            if bytes > wire::MAX_HELLO_BYTES {
                return;
            }
            ack.services.push(row);
        }
    }

    fn describe(memory: &Memory, cx: &MeshContext<'_>, info: &mut MeshInfoResult) {
        let quotas = &cx.limits().quotas;
        let services = || memory.services.values();
        info.limits.push(quotas.bound(&limits::PER_MESH, services().count() as u64));
        let memory_mb = services().map(|service| u64::from(service.memory_mb())).sum();
        info.limits.push(quotas.bound(&limits::MEMORY_PER_MESH, memory_mb));
        if let Ok(peer) = cx.asker() {
            let own = services().filter(|service| service.owner == peer.member).count();
            info.limits.push(quotas.bound(&limits::PER_MEMBER, own as u64));
        }
    }
}

/// All changes of what is deployed are stored in their order.
fn lane() -> Lane {
    Lane::of::<Services>("services")
}

/// Tells the host something that no one waits for.
fn tell_host(cx: &MeshContext<'_>, command: Command) {
    if let Err(error) = cx.hosting().tell(cx.mesh_id(), command) {
        tracing::warn!(mesh.id = %cx.mesh_id(), error = %error, "the host of services was not told");
    }
}

#[cfg(test)]
mod tests;
