//! Deploys, updates and the end of services.

use std::collections::VecDeque;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::services::{
    Config, McpDeploy, McpDeployStatus, McpUndeploy, McpUpdate, Scope, Source, Status, limits as wire,
};
use claudemesh_protocol::id::{MemberId, MeshId};
use claudemesh_protocol::runner::{EnvVar, Limits, Runtime, ServiceSpec, Source as RunnerSource, Text};
use serde_json::json;

use super::store::{self, Told};
use super::{
    Asked, Memory, Pinned, Service, Services, Trial, Version, checking, instance, lane, limits, tell_host, telling,
};
use crate::audit::By;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::hosting::{Command, Instance};
use crate::mesh::outcome::{Outcome, Work};
use crate::refusal::{Refusal, invalid};

/// A deploy that waits for its turn.
#[derive(Debug)]
pub(super) struct Queued {
    member: MemberId,
    source: Source,
    config: Config,
    description: Option<String>,
    scope: Option<(Scope, Vec<MemberId>)>,
    deployed_by: String,
    asked: Option<Asked>,
    /// The word in the audit log.
    event: &'static str,
}

pub(super) fn missing(name: &str) -> Refusal {
    let name: String = name.chars().filter(|symbol| !symbol.is_control()).take(64).collect();
    Refusal::new(ErrorCode::NotFound, format!("MCP server \"{name}\" not found in mesh"))
}

fn taken(name: &str) -> Refusal {
    Refusal::new(ErrorCode::AlreadyExists, format!("another member has the MCP server \"{name}\""))
}

pub(super) fn deploy(
    memory: &mut Memory,
    cx: &mut MeshContext<'_>,
    request: McpDeploy,
) -> Result<Outcome<McpDeployStatus>, Refusal> {
    checking::check(&request)?;
    cx.hosting().ready()?;
    let McpDeploy { server_name: name, source, config, scope, description, wait } = request;
    let peer = cx.asker()?;
    let (member, deployed_by, at) = (peer.member.clone(), peer.name.clone(), peer.handle);
    if cx.services().is_of_another(&name, &member) {
        return Err(taken(&name));
    }
    let config = config.unwrap_or_default();
    let pinned = Pinned { source: source.clone(), pinned: None };
    let version = Version {
        revision: 1,
        source: pinned,
        config: config.clone(),
        deployed_by: String::new(),
        description: String::new(),
    };
    let checked = spec(cx.mesh_id(), &name, 0, &version).check();
    checked.map_err(|error| invalid(format!("`{}`: expected {}", error.field, error.expected)))?;
    // A scope that is not named stays as it was; it was checked then.
    let scope = match (scope, memory.services.contains_key(&name)) {
        (None, true) => None,
        (scope, _) => {
            let scope = scope.unwrap_or_default();
            let audience = checking::audience(cx, &scope)?;
            Some((scope, audience))
        }
    };
    within_quotas(memory, cx, &name, &member, &config)?;
    cx.count_write(&limits::DEPLOYS_PER_MINUTE, Some(&member))?;
    let asked = cx.reply_to().map(|to| Asked { to, at, waits: wait });
    let event = "mcp_deployed";
    let new = Queued { member, source, config, description, scope, deployed_by, asked, event };
    take_turn(memory, cx, name, new)?;
    Ok(Outcome::Silent)
}

/// Refuses what would be more than the mesh or the member may have.
fn within_quotas(
    memory: &Memory,
    cx: &MeshContext<'_>,
    name: &str,
    member: &MemberId,
    config: &Config,
) -> Result<(), Refusal> {
    let wanted_mb = config.memory_mb.unwrap_or(wire::USUAL_MEMORY_MB);
    cx.limits().quotas.fits(&limits::MEMORY_PER_SERVICE, wanted_mb as usize)?;
    let others = || memory.services.iter().filter(|(other, _)| *other != name).map(|(_, service)| service);
    if !memory.services.contains_key(name) {
        cx.within(&limits::PER_MESH, others().count(), 1)?;
        cx.within(&limits::PER_MEMBER, others().filter(|service| service.owner == *member).count(), 1)?;
    }
    let used_mb: u64 = others().map(|service| u64::from(service.memory_mb())).sum();
    cx.within(&limits::MEMORY_PER_MESH, usize::try_from(used_mb).unwrap_or(usize::MAX), wanted_mb.into())
}

/// Begins a deploy, or lets it wait for the one of that name that is under way.
fn take_turn(memory: &mut Memory, cx: &mut MeshContext<'_>, name: String, new: Queued) -> Result<(), Refusal> {
    if let Some(service) = memory.services.get_mut(&name)
        && service.trial.is_some()
    {
        if service.queue.len() >= limits::MAX_QUEUED {
            let message = format!("{} deploys of \"{name}\" wait already", limits::MAX_QUEUED);
            return Err(Refusal::new(ErrorCode::Busy, message));
        }
        service.queue.push_back(new);
        return Ok(());
    }
    begin(memory, cx, name, new);
    Ok(())
}

fn begin(memory: &mut Memory, cx: &mut MeshContext<'_>, name: String, new: Queued) {
    let now = cx.now_ms();
    let Queued { member, source, config, description, scope, deployed_by, asked, event } = new;
    let before = memory.services.get(&name);
    let revision = before.map_or(1, Service::next_revision);
    let usual = || before.map_or_else(|| format!("MCP server: {name}"), |service| service.version.description.clone());
    let description = description.unwrap_or_else(usual);
    let version = Version { revision, source: Pinned { source, pinned: None }, config, deployed_by, description };
    let created_at_ms = before.map_or(now, |service| service.created_at_ms);
    let service = memory.services.entry(name.clone()).or_insert_with(|| Service {
        owner: member.clone(),
        version: version.clone(),
        scope: Scope::Peer,
        audience: Vec::new(),
        status: Status::Building,
        error: None,
        runtime: None,
        tools: Default::default(),
        created_at_ms: now,
        updated_at_ms: now,
        trial: None,
        queue: VecDeque::new(),
    });
    let is_new = !service.serves();
    if is_new && service.version.revision != revision {
        // One that failed, of which only the log was left.
        let old = instance(cx.mesh_id(), &name, created_at_ms, service.version.revision);
        memory.by_instance.remove(&old);
        tell_host(cx, Command::Remove(old));
    }
    if is_new {
        (service.version, service.status, service.error) = (version.clone(), Status::Building, None);
        if let Some((scope, audience)) = scope.clone() {
            (service.scope, service.audience) = (scope, audience);
        }
    }
    let payload = json!({
        "service": name, "source": version.source.source.kind(), "scope": service.scope, "revision": revision,
    });
    service.updated_at_ms = now;
    service.trial =
        Some(Trial { version, scope: scope.filter(|_| !is_new), runtime: None, stage: Status::Building, asked });
    let row = service.row(&name);
    memory.by_instance.insert(instance(cx.mesh_id(), &name, created_at_ms, revision), name.clone());
    memory.publish(cx, &name);
    let told = Told { by: By::member(&member, now), event, payload };
    let storage = cx.storage();
    let slow = async move { store::put(&storage, row, told).await };
    let then = move |memory: &mut Memory, cx: &mut MeshContext<'_>, done: Result<(), Refusal>| {
        match done {
            Ok(()) => accepted(memory, cx, &name, revision),
            Err(refusal) => not_stored(memory, cx, &name, revision, &refusal),
        }
        Ok(Outcome::<McpDeployStatus>::Silent)
    };
    spawn(cx, Services::work_or_failure(lane(), slow, then));
}

fn spawn(cx: &mut MeshContext<'_>, outcome: Outcome<McpDeployStatus>) {
    if let Outcome::Work(work) = outcome {
        cx.spawn(Work { reply_to: None, ..work });
    }
}

/// A deploy is stored: the host begins with it.
fn accepted(memory: &mut Memory, cx: &mut MeshContext<'_>, name: &str, revision: i64) {
    let mesh = cx.mesh_id().clone();
    // It may have been undeployed meanwhile.
    let Some(service) = memory.services.get(name) else { return };
    let Some(trial) = service.trial.as_ref().filter(|trial| trial.version.revision == revision) else { return };
    if let Some(asked) = trial.asked.as_ref().filter(|asked| !asked.waits) {
        let building = McpDeployStatus { server_name: name.to_owned(), ..McpDeployStatus::default() };
        cx.reply(&asked.to, &building.into());
    }
    let started =
        cx.hosting().tell(&mesh, Command::Start(Box::new(for_host(cx, &mesh, name, service, &trial.version))));
    telling::status(memory, cx, name, Status::Building, None);
    if let Err(refusal) = started {
        failed(memory, cx, name, refusal.code, &refusal.message);
    }
}

/// A deploy could not be stored: it is as if no one had asked for it.
fn not_stored(memory: &mut Memory, cx: &mut MeshContext<'_>, name: &str, revision: i64, refusal: &Refusal) {
    let Some(service) = memory.services.get_mut(name) else { return };
    let Some(trial) = service.trial.take_if(|trial| trial.version.revision == revision) else { return };
    if let Some(asked) = trial.asked {
        cx.refuse(&asked.to, refusal.clone());
    }
    let (serves, waiting) = (service.serves(), service.queue.drain(..).collect::<Vec<_>>());
    for queued in waiting {
        if let Some(asked) = queued.asked {
            cx.refuse(&asked.to, refusal.clone());
        }
    }
    memory.by_instance.retain(|id, of| of != name || !id.ends_with(&format!("-{revision}")));
    if !serves {
        memory.services.remove(name);
    }
    memory.publish(cx, name);
}

/// A version, as its host gets it.
pub(super) fn for_host(
    cx: &MeshContext<'_>,
    mesh: &MeshId,
    name: &str,
    service: &Service,
    version: &Version,
) -> Instance {
    let mut spec = spec(mesh, name, service.created_at_ms, version);
    cx.hosting().complete(&mut spec);
    let branch = match &version.source.source {
        Source::Git { branch, commit: None, .. } if version.source.pinned.is_none() => {
            Some(branch.clone().unwrap_or_default())
        }
        _ => None,
    };
    Instance { spec, allow: version.config.network_allow.clone(), branch }
}

/// A version for the runner. A commit that has to be found out first is all zeros.
fn spec(mesh: &MeshId, name: &str, created_at_ms: i64, version: &Version) -> ServiceSpec {
    let Config { env, args, memory_mb, cpus, runtime, install_scripts, .. } = version.config.clone();
    let source = match version.source.source.clone() {
        Source::Npx { package } => RunnerSource::Npm { package, bin: None },
        Source::Uvx { package } => RunnerSource::Pypi { package, bin: None },
        Source::Command { command } => RunnerSource::Command { command },
        Source::Git { url, commit, .. } => {
            let commit = commit.or_else(|| version.source.pinned.clone()).unwrap_or_else(|| "0".repeat(40));
            RunnerSource::Git { url, commit, auth: None }
        }
        Source::Zip { file_id } => RunnerSource::Zip { sha256: file_id, bytes: 0 },
    };
    let id = instance(mesh, name, created_at_ms, version.revision);
    let runtime = runtime.as_deref().and_then(|word| match word {
        "node" => Some(Runtime::Node),
        "python" => Some(Runtime::Python),
        "bun" => Some(Runtime::Bun),
        _ => None,
    });
    let limits = Limits {
        memory_bytes: u64::from(memory_mb.unwrap_or(wire::USUAL_MEMORY_MB)) << 20,
        // At most 64 processors, as checked.
        cpu_millis: (cpus.unwrap_or(1.0) * 1_000.0) as u32,
        ..Limits::default()
    };
    let env = env.into_iter().map(|(name, value)| EnvVar { name, value: Text::Plain(value) }).collect();
    ServiceSpec { runtime, args, env, limits, install_scripts, ..ServiceSpec::new(id, name, mesh.as_str(), source) }
}

/// A deploy has come to its end: the one who asked is told, and the next one of that name begins.
pub(super) fn end_of_trial(
    memory: &mut Memory,
    cx: &mut MeshContext<'_>,
    name: &str,
    asked: Option<Asked>,
    last: McpDeployStatus,
) {
    if let Some(asked) = asked {
        cx.reply(&asked.to, &last.into());
    }
    let next = memory.services.get_mut(name).and_then(|service| service.queue.pop_front());
    if let Some(next) = next {
        begin(memory, cx, name.to_owned(), next);
    }
}

/// The version that was tried does not answer: the one before goes on, if there is one.
pub(super) fn failed(memory: &mut Memory, cx: &mut MeshContext<'_>, name: &str, code: ErrorCode, message: &str) {
    let mesh = cx.mesh_id().clone();
    let now = cx.now_ms();
    let Some(service) = memory.services.get_mut(name) else { return };
    let Some(trial) = service.trial.take() else { return };
    let text: String = message.chars().take(wire::MAX_ERROR_CHARS).collect();
    let told_text = if service.serves() { format!("{text}; the version before goes on") } else { text };
    if !service.serves() {
        service.status = Status::Failed;
    }
    (service.error, service.updated_at_ms) = (Some(told_text.clone()), now);
    let id = instance(&mesh, name, service.created_at_ms, trial.version.revision);
    let payload = json!({"service": name, "revision": trial.version.revision, "code": code.as_str()});
    keep(cx, name, service, "mcp_deploy_failed", payload);
    memory.by_instance.remove(&id);
    // The log of one that failed is kept as long as nothing else runs under its name.
    if memory.services.get(name).is_some_and(Service::serves) {
        tell_host(cx, Command::Remove(id));
    } else {
        tell_host(cx, Command::Stop(id));
    }
    memory.publish(cx, name);
    telling::status(memory, cx, name, Status::Failed, Some(&told_text));
    let last = McpDeployStatus {
        server_name: name.to_owned(),
        status: Status::Failed,
        tools: None,
        error: Some(told_text),
        code: Some(code.as_str().to_owned()),
    };
    end_of_trial(memory, cx, name, trial.asked, last);
}

/// Stores what became of a service.
pub(super) fn keep(
    cx: &mut MeshContext<'_>,
    name: &str,
    service: &Service,
    event: &'static str,
    payload: serde_json::Value,
) {
    let told = Told { by: By::nobody(cx.now_ms()), event, payload };
    let (storage, row) = (cx.storage(), service.row(name));
    let slow = async move { store::put(&storage, row, told).await };
    let then = |_: &mut Memory, cx: &mut MeshContext<'_>, done: Result<(), Refusal>| {
        if let Err(error) = done {
            // Memory is right; what a restart would read is not.
            tracing::warn!(mesh.id = %cx.mesh_id(), %error, "what became of a service could not be stored");
        }
        Ok(Outcome::<McpDeployStatus>::Silent)
    };
    spawn(cx, Services::work_or_failure(lane(), slow, then));
}

/// Stores the scope that came with a deploy, once it counts.
pub(super) fn keep_scope(cx: &mut MeshContext<'_>, name: &str, service: &Service) {
    let row = service.row(name);
    let payload = json!({"service": name, "scope": service.scope});
    let told = Told { by: By::nobody(cx.now_ms()), event: "mcp_scope_changed", payload };
    let storage = cx.storage();
    let slow = async move {
        store::set_scope(&storage, (row.name, row.created_at_ms), (row.scope, row.audience), told).await.map(|_| ())
    };
    let then = |_: &mut Memory, cx: &mut MeshContext<'_>, done: Result<(), Refusal>| {
        if let Err(error) = done {
            tracing::warn!(mesh.id = %cx.mesh_id(), %error, "the scope of a service could not be stored");
        }
        Ok(Outcome::<McpDeployStatus>::Silent)
    };
    spawn(cx, Services::work_or_failure(lane(), slow, then));
}

pub(super) fn update(
    memory: &mut Memory,
    cx: &mut MeshContext<'_>,
    request: McpUpdate,
) -> Result<Outcome<McpDeployStatus>, Refusal> {
    let McpUpdate { server_name: name, wait } = request;
    let service = managed(memory, cx, &name)?;
    let version = &service.version;
    let (source, config) = (version.source.source.clone(), version.config.clone());
    let deployed_by = version.deployed_by.clone();
    cx.hosting().ready()?;
    let peer = cx.asker()?;
    let (member, at) = (peer.member.clone(), peer.handle);
    cx.count_write(&limits::DEPLOYS_PER_MINUTE, Some(&member))?;
    let asked = cx.reply_to().map(|to| Asked { to, at, waits: wait });
    let event = "mcp_updated";
    let new = Queued { member, source, config, description: None, scope: None, deployed_by, asked, event };
    take_turn(memory, cx, name, new)?;
    Ok(Outcome::Silent)
}

/// A service that the caller may change: its own, or one of another for those who moderate. Who does not see it learns nothing of it.
fn managed<'a>(memory: &'a Memory, cx: &MeshContext<'_>, name: &str) -> Result<&'a Service, Refusal> {
    let service = memory.services.get(name).ok_or_else(|| missing(name))?;
    if cx.require_own(&service.owner, Capability::CanModerate).is_err() {
        return Err(match memory.seen(cx, name)? {
            Some(_) => Refusal::lacks(Capability::CanModerate),
            None => missing(name),
        });
    }
    Ok(service)
}

pub(super) fn undeploy(
    memory: &mut Memory,
    cx: &mut MeshContext<'_>,
    request: McpUndeploy,
) -> Result<Outcome<McpDeployStatus>, Refusal> {
    let name = request.server_name;
    let service = managed(memory, cx, &name)?;
    let (owner, created_at_ms) = (service.owner.clone(), service.created_at_ms);
    let peer = cx.asker()?;
    let (member, by_name) = (peer.member.clone(), peer.name.clone());
    cx.count_write(&limits::DEPLOYS_PER_MINUTE, Some(&member))?;
    let (storage, by) = (cx.storage(), By::member(&member, cx.now_ms()));
    let slow = {
        let name = name.clone();
        async move { store::remove(&storage, name, owner, by).await }
    };
    Ok(Services::work_in(lane(), slow, move |memory: &mut Memory, cx, _| {
        if memory.services.get(&name).is_some_and(|service| service.created_at_ms == created_at_ms) {
            remove(memory, cx, &name, &by_name);
        }
        let stopped = McpDeployStatus { server_name: name, status: Status::Stopped, ..McpDeployStatus::default() };
        Ok(Outcome::Answer(stopped))
    }))
}

/// Takes a service out of memory, tells of it, and has its host end it.
fn remove(memory: &mut Memory, cx: &mut MeshContext<'_>, name: &str, by: &str) {
    let seers = telling::seers(cx, name);
    let Some(service) = memory.services.remove(name) else { return };
    memory.publish(cx, name);
    memory.by_instance.retain(|_, of| of != name);
    let tried = service.trial.as_ref().map(|trial| trial.version.revision);
    for revision in [Some(service.version.revision), tried].into_iter().flatten() {
        tell_host(cx, Command::Remove(instance(cx.mesh_id(), name, service.created_at_ms, revision)));
    }
    let waiting = service.trial.and_then(|trial| trial.asked).into_iter();
    for asked in waiting.chain(service.queue.into_iter().filter_map(|queued| queued.asked)) {
        let last = McpDeployStatus {
            server_name: name.to_owned(),
            status: Status::Failed,
            tools: None,
            error: Some("it was undeployed meanwhile".into()),
            code: Some(ErrorCode::DeployFailed.as_str().into()),
        };
        cx.reply(&asked.to, &last.into());
    }
    telling::undeployed(cx, name, by, &seers);
}

/// A member is banned or was removed: its services end with it.
pub(super) fn member_gone(memory: &mut Memory, cx: &mut MeshContext<'_>, member: &MemberId) {
    let own = memory.services.iter().filter(|(_, service)| service.owner == *member);
    let names: Vec<String> = own.map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        return;
    }
    for name in names {
        remove(memory, cx, &name, "the mesh");
    }
    let (storage, member) = (cx.storage(), member.clone());
    let slow = async move { store::remove_of(&storage, member).await.map(|_| ()) };
    let then = |_: &mut Memory, cx: &mut MeshContext<'_>, done: Result<(), Refusal>| {
        if let Err(error) = done {
            tracing::warn!(mesh.id = %cx.mesh_id(), %error, "services of a member that left are still stored");
        }
        Ok(Outcome::<McpDeployStatus>::Silent)
    };
    spawn(cx, Services::work_or_failure(lane(), slow, then));
}

/// The mesh is in memory again: what ran before is to run, what was begun is begun again.
pub(super) fn resume(memory: &mut Memory, cx: &mut MeshContext<'_>) {
    let mesh = cx.mesh_id().clone();
    let is_on = cx.hosting().ready().is_ok();
    let names: Vec<String> = memory.services.keys().cloned().collect();
    let mut kept = Vec::new();
    for name in &names {
        let Some(service) = memory.services.get_mut(name) else { continue };
        let id = instance(&mesh, name, service.created_at_ms, service.version.revision);
        match service.status {
            Status::Failed | Status::Stopped => {}
            _ if !is_on => {
                service.status = Status::Stopped;
                service.error = Some("this broker hosts no MCP servers now".into());
            }
            Status::Running | Status::Restarting | Status::Crashed => {
                service.status = Status::Restarting;
                kept.push(for_host(cx, &mesh, name, service, &service.version));
                memory.by_instance.insert(id, name.clone());
            }
            Status::Building | Status::Installing => {
                let version = service.version.clone();
                kept.push(for_host(cx, &mesh, name, service, &version));
                service.trial =
                    Some(Trial { version, scope: None, runtime: None, stage: Status::Building, asked: None });
                memory.by_instance.insert(id, name.clone());
            }
        }
        memory.publish(cx, name);
    }
    if !is_on || names.is_empty() {
        return;
    }
    tell_host(cx, Command::Keep(kept));
}
