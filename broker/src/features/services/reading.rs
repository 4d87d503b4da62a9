//! Lists, scopes and logs: what someone who may use a service, or manages it, can read.

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::services::{
    McpCatalog, McpCatalogResult, McpLogs, McpLogsResult, McpScope, McpScopeResult, Scope, ServiceRow, limits as wire,
};
use claudemesh_protocol::time::iso;
use serde_json::json;
use tokio::sync::oneshot;

use super::deploying::missing;
use super::store::{self, Told};
use super::{Memory, Service, Services, checking, lane, limits, telling};
use crate::audit::By;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::hosting::{Command, LogLine};
use crate::mesh::outcome::Outcome;
use crate::refusal::{Refusal, invalid};

/// Rows of one page: with the longest texts far below the largest frame.
const PAGE: usize = 200;

pub(super) fn catalog(
    memory: &Memory,
    cx: &MeshContext<'_>,
    request: &McpCatalog,
) -> Result<Outcome<McpCatalogResult>, Refusal> {
    let viewer = cx.viewer(cx.asker()?);
    let manages = cx.may(Capability::CanModerate)?;
    let behind = request.cursor.as_deref().unwrap_or_default();
    let mut found = memory
        .services
        .iter()
        .filter(|(name, _)| name.as_str() > behind)
        .filter(|(name, _)| manages || cx.hosted(name, &viewer).is_some());
    let services: Vec<ServiceRow> = found.by_ref().take(PAGE).map(|(name, service)| row(name, service)).collect();
    let next = found.next().and_then(|_| services.last()).map(|last| last.name.clone());
    Ok(Outcome::Answer(McpCatalogResult { services, next }))
}

fn row(name: &str, service: &Service) -> ServiceRow {
    let trial = service.trial.as_ref().filter(|_| !service.serves());
    ServiceRow {
        name: name.to_owned(),
        kind: "mcp".into(),
        description: service.version.description.clone(),
        status: trial.map_or(service.status, |trial| trial.stage),
        tool_count: u32::try_from(service.tools.len()).unwrap_or(u32::MAX),
        deployed_by: service.version.deployed_by.clone(),
        scope: service.scope.clone(),
        source_type: service.version.source.source.kind().into(),
        runtime: service.version.config.runtime.clone().or_else(|| service.runtime.clone()),
        created_at: iso(service.created_at_ms),
        updated_at: Some(iso(service.updated_at_ms)),
        member_id: Some(service.owner.clone()),
        error: service.error.clone(),
    }
}

pub(super) fn logs(memory: &Memory, cx: &MeshContext<'_>, request: McpLogs) -> Result<Outcome<McpLogsResult>, Refusal> {
    let McpLogs { server_name: name, lines, after } = request;
    let lines = lines.unwrap_or(wire::USUAL_LOG_LINES);
    if !(1..=wire::MAX_LOG_LINES).contains(&lines) {
        return Err(invalid(format!("`lines`: expected 1 to {}", wire::MAX_LOG_LINES)));
    }
    let service = memory.seen(cx, &name)?.ok_or_else(|| missing(&name))?;
    // What is being tried says more than what has been running for long.
    let revision = service.trial.as_ref().map_or(service.version.revision, |trial| trial.version.revision);
    let instance = super::instance(cx.mesh_id(), &name, service.created_at_ms, revision);
    let (answer, found) = oneshot::channel();
    cx.hosting().tell(cx.mesh_id(), Command::Logs { instance, lines, answer })?;
    let slow = async move {
        let gone = |_| Refusal::new(ErrorCode::ServiceDown, "the host of services went away");
        found.await.map_err(gone)?
    };
    Ok(Services::work_in(cx.own_lane::<Services>(), slow, move |_, _, found: Vec<LogLine>| {
        let last = found.last().map(|line| line.number).or(after);
        let new = found.into_iter().filter(|line| after.is_none_or(|after| line.number > after));
        Ok(Outcome::Answer(McpLogsResult { server_name: name, lines: new.map(|line| line.line).collect(), last }))
    }))
}

pub(super) fn scope(
    memory: &mut Memory,
    cx: &mut MeshContext<'_>,
    request: McpScope,
) -> Result<Outcome<McpScopeResult>, Refusal> {
    let McpScope { server_name: name, scope } = request;
    let manages = cx.may(Capability::CanModerate)?;
    let seen = memory.seen(cx, &name)?.is_some() || manages;
    let service = memory.services.get(&name).filter(|_| seen);
    let Some(scope) = scope else {
        return Ok(Outcome::Answer(match service {
            Some(service) => result(&name, service),
            None => McpScopeResult { server_name: name, scope: json!({"type": "peer"}), deployed_by: "unknown".into() },
        }));
    };
    let service = service.ok_or_else(|| missing(&name))?;
    let (owner, created_at_ms) = (service.owner.clone(), service.created_at_ms);
    cx.require_own(&owner, Capability::CanModerate)?;
    let audience = checking::audience(cx, &scope)?;
    let peer = cx.asker()?;
    let (by, member) = (peer.name.clone(), peer.member.clone());
    cx.count_write(&limits::DEPLOYS_PER_MINUTE, Some(&member))?;
    let now = cx.now_ms();
    let text = |value: serde_json::Result<String>| value.map_err(|error| Refusal::fault(ErrorCode::Internal, error));
    let texts = (text(serde_json::to_string(&scope))?, text(serde_json::to_string(&audience))?);
    let told = Told {
        by: By::member(&member, now),
        event: "mcp_scope_changed",
        payload: json!({"service": name, "scope": scope}),
    };
    let storage = cx.storage();
    let place = (name.clone(), created_at_ms);
    let slow = async move { store::set_scope(&storage, place, texts, told).await };
    Ok(Services::work_in(lane(), slow, move |memory: &mut Memory, cx, _| {
        let before = telling::seers(cx, &name);
        let is_same = |service: &&mut Service| service.created_at_ms == created_at_ms;
        let service = memory.services.get_mut(&name).filter(is_same).ok_or_else(|| missing(&name))?;
        (service.scope, service.audience, service.updated_at_ms) = (scope, audience, now);
        let answer = result(&name, service);
        memory.publish(cx, &name);
        telling::rescoped(memory, cx, &name, &by, &before);
        Ok(Outcome::Answer(answer))
    }))
}

fn result(name: &str, service: &Service) -> McpScopeResult {
    McpScopeResult {
        server_name: name.to_owned(),
        scope: Scope::to_value(&service.scope),
        deployed_by: service.version.deployed_by.clone(),
    }
}
