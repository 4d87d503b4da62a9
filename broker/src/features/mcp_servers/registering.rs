//! Registering and removing servers, and what becomes of them when sessions come and go.

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{
    McpRegister, McpRegisterAck, McpUnregister, ToolDef, is_server_name, limits as wire,
};
use claudemesh_protocol::id::MemberId;

use super::store::{self, Registration, Row};
use super::{Host, McpRegistry, McpServers, Server, limits, missing, telling};
use crate::audit::By;
use crate::db::DbError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Lane, Outcome};
use crate::mesh::peers::PeerHandle;
use crate::refusal::Refusal;

/// All changes of what is registered are stored in their order.
fn lane() -> Lane {
    Lane::of::<McpServers>("registry")
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidArgs, message)
}

fn check(request: &McpRegister) -> Result<(), Refusal> {
    if !is_server_name(&request.server_name) {
        let message =
            "`serverName`: expected 1 to 64 letters, digits, hyphens and underscores, starting with a letter or digit";
        return Err(Refusal::new(ErrorCode::InvalidName, message));
    }
    let is_text = |text: &str| text.chars().all(|symbol| !symbol.is_control() || matches!(symbol, '\n' | '\r' | '\t'));
    if request.description.len() > wire::MAX_DESCRIPTION_BYTES || !is_text(&request.description) {
        return Err(invalid("`description`: expected at most 2048 bytes without control characters"));
    }
    if request.tools.len() > wire::MAX_TOOLS {
        return Err(invalid("`tools`: expected at most 256 tools"));
    }
    let mut names = std::collections::HashSet::new();
    for tool in &request.tools {
        check_tool(tool)?;
        if !names.insert(tool.name.as_str()) {
            return Err(invalid(format!("`tools`: `{}` is there twice", tool.name)));
        }
    }
    Ok(())
}

fn check_tool(tool: &ToolDef) -> Result<(), Refusal> {
    let name = &tool.name;
    if name.trim().is_empty() || name.chars().count() > wire::MAX_TOOL_CHARS || name.chars().any(char::is_control) {
        return Err(invalid("`tools`: expected names of 1 to 128 characters without control characters"));
    }
    if tool.input_schema.as_ref().is_some_and(|schema| !schema.is_object()) {
        return Err(invalid(format!("`tools`: the `inputSchema` of `{name}` is no object")));
    }
    Ok(())
}

/// Refuses what would be more than the mesh or the member may have.
fn within_quotas(
    memory: &McpRegistry,
    cx: &MeshContext<'_>,
    name: &str,
    member: &MemberId,
    size: usize,
) -> Result<(), Refusal> {
    cx.limits().quotas.fits(&limits::BYTES_PER_SERVER, size)?;
    let others = || memory.servers.iter().filter(|(other, _)| *other != name);
    let claimed = || memory.claims.iter().filter(|(other, _)| *other != name && !memory.servers.contains_key(*other));
    if !memory.servers.contains_key(name) {
        cx.within(&limits::PER_MESH, others().count() + claimed().count(), 1)?;
        let own = others().filter(|(_, server)| server.member == *member).count();
        let own_claims = claimed().filter(|(_, (of, _))| of == member).count();
        cx.within(&limits::PER_MEMBER, own + own_claims, 1)?;
    }
    let bytes: usize = others().map(|(_, server)| server.size_bytes).sum();
    cx.within(&limits::BYTES_PER_MESH, bytes, size as u64)
}

pub(super) fn register(
    memory: &mut McpRegistry,
    cx: &mut MeshContext<'_>,
    request: McpRegister,
) -> Result<Outcome<McpRegisterAck>, Refusal> {
    check(&request)?;
    let peer = cx.peer()?;
    let (at, hosted_by, member, session_ref) =
        (peer.handle, peer.name.clone(), peer.member.clone(), peer.key().to_hex());
    let McpRegister { server_name: name, description, tools, persistent } = request;
    if memory.owner(&name).is_some_and(|owner| *owner != member) || cx.services().is_of_another(&name, &member) {
        let message = format!("another member has registered the MCP server \"{name}\"");
        return Err(Refusal::new(ErrorCode::AlreadyExists, message));
    }
    let text = serde_json::to_string(&tools).map_err(|error| Refusal::fault(ErrorCode::Internal, error))?;
    let size_bytes = text.len() + description.len();
    within_quotas(memory, cx, &name, &member, size_bytes)?;
    cx.count_write(&limits::REGISTRATIONS_PER_MINUTE, Some(&member))?;
    let now = cx.now_ms();
    let before = memory.servers.get(&name);
    let again = before.is_some_and(|before| {
        before.persistent == persistent && before.description == description && *before.tools == *tools
    });
    let server = Server {
        member: member.clone(),
        hosted_by,
        session_ref,
        description,
        tools: tools.into(),
        size_bytes,
        created_at_ms: before.map_or(now, |before| before.created_at_ms),
        persistent,
        host: Host::Peer(at),
    };
    let registration = Registration {
        row: Row {
            name: name.clone(),
            member_id: member.to_string(),
            hosted_by: server.hosted_by.clone(),
            session_ref: server.session_ref.clone(),
            description: server.description.clone(),
            tools: text,
            size_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX),
            created_at_ms: server.created_at_ms,
            updated_at_ms: now,
            ..Row::default()
        },
        persistent,
        again,
        tools: server.tools.len(),
    };
    memory.claims.entry(name.clone()).or_insert((member, 0)).1 += 1;
    memory.publish(cx, &name);
    let storage = cx.storage();
    let slow = async move { store::register(&storage, registration).await };
    Ok(McpServers::work_or_failure(lane(), slow, move |memory, cx, done: Result<(), Refusal>| {
        memory.unclaim(&name);
        memory.publish(cx, &name);
        done?;
        let ack = McpRegisterAck {
            server_name: name.clone(),
            tool_count: u32::try_from(server.tools.len()).unwrap_or(u32::MAX),
            persistent,
        };
        memory.take_over(cx, name, server, at, again);
        Ok(Outcome::Answer(ack))
    }))
}

impl McpRegistry {
    fn unclaim(&mut self, name: &str) {
        if let Some((_, count)) = self.claims.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.claims.remove(name);
            }
        }
    }

    /// Takes a server into the list once it is stored, and tells of it.
    fn take_over(&mut self, cx: &mut MeshContext<'_>, name: String, mut server: Server, by: PeerHandle, again: bool) {
        let was_offline = self.servers.get(&name).is_some_and(|before| before.offline_since_ms(cx).is_some());
        // The session may have ended, and its member gone, while this was stored.
        if cx.roster().get(by).is_none() {
            if !server.persistent || cx.roster().live_member(&server.member).is_none() {
                self.servers.remove(&name);
                self.publish(cx, &name);
                return;
            }
            server.host = Host::Away(cx.now_ms());
            store_offline(cx, vec![name.clone()], Some(cx.now_ms()));
        }
        match (again, was_offline) {
            (true, true) => telling::restored(cx, &name, &server),
            (true, false) => {}
            (false, _) => telling::registered(cx, &name, &server, by),
        }
        self.servers.insert(name.clone(), server);
        self.publish(cx, &name);
    }
}

pub(super) fn unregister(
    memory: &mut McpRegistry,
    cx: &mut MeshContext<'_>,
    request: McpUnregister,
) -> Result<Outcome<Nothing>, Refusal> {
    let name = request.server_name;
    let asker = cx.asker()?;
    let (at, member) = (asker.handle, asker.member.clone());
    let server = memory.servers.get(&name).ok_or_else(|| missing(&name))?;
    let owner = server.member.clone();
    cx.require_own(&owner, Capability::CanModerate)?;
    cx.count_write(&limits::REGISTRATIONS_PER_MINUTE, Some(&member))?;
    let (storage, by) = (cx.storage(), By::member(&member, cx.now_ms()));
    let slow = {
        let (name, owner) = (name.clone(), owner.clone());
        async move { store::unregister(&storage, name, owner, by).await }
    };
    Ok(McpServers::work_in(lane(), slow, move |memory, cx, ()| {
        // It may have been removed, and its name taken by another, meanwhile.
        if memory.servers.get(&name).is_some_and(|server| server.member == owner)
            && let Some(server) = memory.servers.remove(&name)
        {
            memory.publish(cx, &name);
            telling::unregistered(cx, &name, &server, at);
        }
        Ok(Outcome::Answer(Nothing {}))
    }))
}

/// A session came: it runs again what it ran before. A connection of the older kind does so for its member, whatever session it
/// was.
pub(super) fn came(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, at: PeerHandle) {
    let Some(peer) = cx.roster().get(at).filter(|peer| !peer.ephemeral && !peer.shell) else { return };
    let (member, key, name) = (peer.member.clone(), peer.key().to_hex(), peer.name.clone());
    let control_plane = peer.control_plane;
    let is_its = |server: &Server| {
        matches!(server.host, Host::Away(_)) && server.member == member && (control_plane || server.session_ref == key)
    };
    let mut back = Vec::new();
    for (of, server) in memory.servers.iter_mut().filter(|(_, server)| is_its(server)) {
        server.host = Host::Peer(at);
        server.hosted_by.clone_from(&name);
        back.push((of.clone(), server.clone()));
    }
    for (of, server) in &back {
        telling::restored(cx, of, server);
    }
    store_offline(cx, back.into_iter().map(|(of, _)| of).collect(), None);
}

/// A session ended: what it ran is offline, or no more.
pub(super) fn went(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, at: PeerHandle) {
    let now = cx.now_ms();
    let names: Vec<String> = memory
        .servers
        .iter()
        .filter(|(_, server)| server.host == Host::Peer(at))
        .map(|(name, _)| name.clone())
        .collect();
    let mut offline = Vec::new();
    for name in names {
        let Some(server) = memory.servers.get_mut(&name) else { continue };
        if server.persistent {
            server.host = Host::Away(now);
            telling::offline(cx, &name, server);
            offline.push(name);
        } else if let Some(server) = memory.servers.remove(&name) {
            memory.publish(cx, &name);
            telling::ended(cx, &name, &server);
        }
    }
    store_offline(cx, offline, Some(now));
}

/// A member is banned or was removed: its names are free.
pub(super) fn member_gone(memory: &mut McpRegistry, cx: &mut MeshContext<'_>, member: &MemberId) {
    let names: Vec<String> =
        memory.servers.iter().filter(|(_, server)| server.member == *member).map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        return;
    }
    for name in names {
        if let Some(server) = memory.servers.remove(&name) {
            memory.publish(cx, &name);
            telling::ended(cx, &name, &server);
        }
    }
    let (storage, member) = (cx.storage(), member.clone());
    spawn(cx, async move { store::remove_of(&storage, member).await.map(|_| ()) });
}

fn store_offline(cx: &mut MeshContext<'_>, names: Vec<String>, since_ms: Option<i64>) {
    if names.is_empty() {
        return;
    }
    let storage = cx.storage();
    spawn(cx, async move { store::set_offline(&storage, names, since_ms).await });
}

fn spawn(cx: &mut MeshContext<'_>, slow: impl Future<Output = Result<(), DbError>> + Send + 'static) {
    let work = McpServers::work_or_failure(lane(), slow, |_, cx, done: Result<(), Refusal>| {
        if let Err(error) = done {
            // Memory is right; what a restart would read is not.
            tracing::warn!(mesh.id = %cx.mesh_id(), %error, "what became of MCP servers could not be stored");
        }
        Ok(Outcome::<Nothing>::Silent)
    });
    if let Outcome::Work(work) = work {
        cx.spawn(work);
    }
}
