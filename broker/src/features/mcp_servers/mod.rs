//! MCP servers of the mesh: who runs which one, and the calls on their way to them and back.
//!
//! [`McpRegistry`] is the mesh's own memory of them. Servers that are kept lie in storage, too; the others live as long as their
//! session. A name belongs to the member that registered it first. Where a server runs is its [`Host`]: today a session; calls know
//! of it no more than which connection to ask and that only this one answers.

mod called;
mod calls;
mod hosted;
pub mod limits;
mod metrics;
mod registering;
pub mod schema;
pub mod store;
mod telling;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::mcp_servers::{
    McpCall, McpCallResponse, McpCancel, McpList, McpListResult, McpPart, McpPartResponse, McpProgress, McpRegister,
    McpSchema, McpSchemaResult, McpServer, McpTool, McpUnregister, Request, ToolDef,
};
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::time::iso;

use self::store::Row;
use crate::db::{DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::{Peer, PeerHandle};
use crate::quota::Quota;
use crate::refusal::Refusal;

/// Bytes of the texts of one page of `mcp_list_result`, so that an answer stays far below the largest frame.
const MAX_PAGE_BYTES: usize = 786_432;

/// Where a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// Beside this session.
    Peer(PeerHandle),
    /// Nowhere since then (Unix milliseconds).
    Away(i64),
}

/// A registered server.
#[derive(Clone, Debug)]
struct Server {
    member: MemberId,
    /// Name of the session that runs it, or did last.
    hosted_by: String,
    /// Key of that session, in hex: one that comes back with it runs the server again.
    session_ref: String,
    description: String,
    tools: Arc<[ToolDef]>,
    size_bytes: usize,
    created_at_ms: i64,
    persistent: bool,
    host: Host,
}

impl Server {
    fn read(row: &Row, now_ms: i64) -> Option<Self> {
        let tools: Vec<ToolDef> = serde_json::from_str(&row.tools).ok()?;
        Some(Self {
            member: row.member_id.as_str().into(),
            hosted_by: row.hosted_by.clone(),
            session_ref: row.session_ref.clone(),
            description: row.description.clone(),
            tools: tools.into(),
            size_bytes: usize::try_from(row.size_bytes).unwrap_or(0),
            created_at_ms: row.created_at_ms,
            persistent: true,
            // Its session ended with the broker, if it had one.
            host: Host::Away(row.offline_since_ms.unwrap_or(now_ms)),
        })
    }

    /// The session that can be asked now.
    fn peer<'a>(&self, cx: &'a MeshContext<'_>) -> Option<&'a Peer> {
        match self.host {
            Host::Peer(at) => cx.roster().get(at).filter(|peer| peer.online()),
            Host::Away(_) => None,
        }
    }

    /// Since when it cannot be asked; Unix milliseconds.
    fn offline_since_ms(&self, cx: &MeshContext<'_>) -> Option<i64> {
        match self.host {
            Host::Peer(_) if self.peer(cx).is_some() => None,
            Host::Peer(at) => Some(cx.roster().get(at).map_or(cx.now_ms(), |peer| peer.last_seen_ms)),
            Host::Away(since_ms) => Some(since_ms),
        }
    }

    /// Whether its member may still offer servers.
    fn is_allowed(&self, cx: &MeshContext<'_>) -> bool {
        let member = cx.roster().live_member(&self.member);
        member.is_some_and(|member| cx.rights().allows(&member.id, member.role, Capability::CanDeployMcp))
    }
}

/// What a mesh in memory knows of its MCP servers.
#[derive(Default)]
pub struct McpRegistry {
    servers: BTreeMap<String, Server>,
    /// Names that are about to be registered, with how often: they are taken already.
    claims: HashMap<String, (MemberId, usize)>,
    calls: calls::Running,
    called: called::Calls,
}

impl McpRegistry {
    /// A server that may be seen and called.
    fn offered(&self, cx: &MeshContext<'_>, name: &str) -> Option<&Server> {
        self.servers.get(name).filter(|server| server.is_allowed(cx))
    }

    /// Says to the other features whose a name is.
    fn publish(&self, cx: &mut MeshContext<'_>, name: &str) {
        let owner = self.owner(name);
        cx.services_mut().note_session(name, owner);
    }

    /// Whose a name is.
    fn owner(&self, name: &str) -> Option<&MemberId> {
        self.servers.get(name).map(|server| &server.member).or(self.claims.get(name).map(|(member, _)| member))
    }
}

/// The feature.
pub struct McpServers;

impl Feature for McpServers {
    const NAME: &'static str = "mcp_servers";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = McpRegistry;

    fn register_metrics() {
        std::sync::LazyLock::force(&metrics::METRICS);
    }

    async fn load(storage: &MeshDb) -> Result<McpRegistry, DbError> {
        let rows = store::load(storage).await?;
        // The moment in which a broker without this server in memory knows of it for the first time is told by `started`.
        let server = |row: Row| Some((row.name.clone(), Server::read(&row, 0)?));
        Ok(McpRegistry { servers: rows.into_iter().filter_map(server).collect(), ..McpRegistry::default() })
    }

    fn started(memory: &mut McpRegistry, cx: &mut MeshContext<'_>) {
        let now = cx.now_ms();
        for server in memory.servers.values_mut().filter(|server| server.host == Host::Away(0)) {
            server.host = Host::Away(now);
        }
        for name in memory.servers.keys() {
            memory.publish(cx, name);
        }
    }

    fn handle(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::McpRegister(request) => Self::answer::<McpRegister>(registering::register(memory, cx, request)),
            Request::McpUnregister(request) => {
                Self::answer::<McpUnregister>(registering::unregister(memory, cx, request))
            }
            Request::McpList(request) => Self::answer::<McpList>(Ok(list(memory, cx, &request))),
            Request::McpSchema(request) => Self::answer::<McpSchema>(schema_of(memory, cx, request)),
            Request::McpCall(request) => Self::answer::<McpCall>(calls::call(memory, cx, request)),
            Request::McpCallResponse(request) => Self::answer::<McpCallResponse>(calls::respond(memory, cx, request)),
            Request::McpProgress(request) => Self::answer::<McpProgress>(calls::progress(memory, cx, request)),
            Request::McpCancel(request) => Self::answer::<McpCancel>(calls::cancel(memory, cx, request)),
            Request::McpPart(request) => Self::answer::<McpPart>(calls::part(memory, cx, &request)),
            Request::McpPartResponse(request) => {
                Self::answer::<McpPartResponse>(calls::part_response(memory, cx, request))
            }
        }
    }

    fn on_event(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        match event {
            MeshEvent::Attached { peer, reattached: true, .. } | MeshEvent::Detached { peer } => {
                memory.calls.peer_gone(cx, *peer);
            }
            MeshEvent::Attached { peer, reattached: false, .. } => registering::came(memory, cx, *peer),
            MeshEvent::Ended { peer, .. } => {
                memory.calls.peer_gone(cx, *peer);
                registering::went(memory, cx, *peer);
            }
            MeshEvent::MemberGone { member } => registering::member_gone(memory, cx, member),
            MeshEvent::Tick => called::tick(memory, cx, false),
            MeshEvent::Stopping => called::tick(memory, cx, true),
            MeshEvent::BecameIdle { .. }
            | MeshEvent::Answered { .. }
            | MeshEvent::TopicPosted { .. }
            | MeshEvent::KeyEnded { .. }
            | MeshEvent::TopicStored { .. }
            | MeshEvent::SimulatedTime { .. }
            | MeshEvent::Letter(_) => {}
            MeshEvent::Host(report) => hosted::take(memory, cx, report),
        }
    }

    fn on_wake(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, _: &str) {
        memory.calls.expire(cx);
    }

    fn describe(memory: &McpRegistry, cx: &MeshContext<'_>, info: &mut MeshInfoResult) {
        let servers = || memory.servers.values();
        info.mcp_server_count = u32::try_from(servers().count()).unwrap_or(u32::MAX);
        let quotas = &cx.limits().quotas;
        info.limits.push(quotas.bound(&limits::PER_MESH, servers().count() as u64));
        let bytes = servers().map(|server| server.size_bytes as u64).sum();
        info.limits.push(quotas.bound(&limits::BYTES_PER_MESH, bytes));
        if let Ok(peer) = cx.asker() {
            let own = servers().filter(|server| server.member == peer.member).count();
            info.limits.push(quotas.bound(&limits::PER_MEMBER, own as u64));
        }
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("MCP server \"{}\" not found in mesh", shown(name)))
}

/// A name in a message: what no server can be called is cut short.
fn shown(name: &str) -> String {
    name.chars().filter(|symbol| !symbol.is_control()).take(64).collect()
}

fn list(memory: &McpRegistry, cx: &MeshContext<'_>, request: &McpList) -> Outcome<McpListResult> {
    let behind = request.cursor.as_deref().unwrap_or_default();
    let mut found = memory.servers.iter().filter(|(name, server)| name.as_str() > behind && server.is_allowed(cx));
    let (mut servers, mut bytes, mut next) = (Vec::new(), 0, None);
    for (name, server) in &mut found {
        bytes += server.size_bytes + 512;
        if bytes > MAX_PAGE_BYTES && !servers.is_empty() {
            next = servers.last().map(|last: &McpServer| last.name.clone());
            break;
        }
        servers.push(row(cx, name, server));
    }
    Outcome::Answer(McpListResult { servers, next })
}

fn row(cx: &MeshContext<'_>, name: &str, server: &Server) -> McpServer {
    let tool =
        |tool: &ToolDef| McpTool { name: tool.name.clone(), description: tool.description.clone().unwrap_or_default() };
    let offline_since_ms = server.offline_since_ms(cx);
    McpServer {
        name: name.to_owned(),
        description: server.description.clone(),
        hosted_by: server.peer(cx).map_or_else(|| server.hosted_by.clone(), |peer| peer.name.clone()),
        tools: server.tools.iter().map(tool).collect(),
        online: offline_since_ms.is_none(),
        offline_since: offline_since_ms.map(iso),
        persistent: server.persistent,
        member_id: Some(server.member.clone()),
    }
}

fn schema_of(
    memory: &McpRegistry,
    cx: &MeshContext<'_>,
    request: McpSchema,
) -> Result<Outcome<McpSchemaResult>, Refusal> {
    let McpSchema { server_name, tool_name } = request;
    let viewer = cx.viewer(cx.asker()?);
    // A service that does not run now may have a server of a session beside it, of the same member.
    let service = cx.hosted(&server_name, &viewer);
    let session = || memory.offered(cx, &server_name).map(|server| &server.tools);
    let tools = match service {
        Some(service) if service.route.is_ok() => Some(&service.tools),
        service => session().or(service.map(|service| &service.tools)),
    };
    let tools = tools.ok_or_else(|| missing(&server_name))?;
    let wanted = |tool: &&ToolDef| tool_name.as_ref().is_none_or(|name| tool.name == *name);
    let tools: Vec<ToolDef> = tools.iter().filter(wanted).cloned().collect();
    if let Some(name) = tool_name.filter(|_| tools.is_empty()) {
        let message = format!("MCP server \"{server_name}\" has no tool \"{}\"", shown(&name));
        return Err(Refusal::new(ErrorCode::NotFound, message));
    }
    Ok(Outcome::Answer(McpSchemaResult { server_name, tools }))
}

#[cfg(test)]
mod tests;
