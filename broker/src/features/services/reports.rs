//! What the host tells of versions of services.

use std::sync::Arc;

use claudemesh_protocol::features::mcp_servers::ToolDef;
use claudemesh_protocol::features::services::{McpDeployProgress, McpDeployStatus, Status, limits as wire};
use serde_json::json;

use super::deploying::{end_of_trial, failed, keep};
use super::{Memory, Service, Trial, instance, tell_host, telling};
use crate::mesh::context::MeshContext;
use crate::mesh::hosting::{Command, Report};

/// Whether a report is of the version that is tried, or of the one that serves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Tried,
    Serving,
}

/// Whose version that is. One that was replaced or removed meanwhile is no one's.
fn whose(memory: &Memory, cx: &MeshContext<'_>, id: &str) -> Option<(String, Which)> {
    let name = memory.by_instance.get(id)?;
    let service = memory.services.get(name)?;
    let is = |revision: i64| instance(cx.mesh_id(), name, service.created_at_ms, revision) == id;
    if service.trial.as_ref().is_some_and(|trial| is(trial.version.revision)) {
        return Some((name.clone(), Which::Tried));
    }
    is(service.version.revision).then(|| (name.clone(), Which::Serving))
}

pub(super) fn take(memory: &mut Memory, cx: &mut MeshContext<'_>, report: &Report) {
    let id = match report {
        Report::Answered { .. } | Report::Progress { .. } => return,
        Report::Installing { instance, .. }
        | Report::Pinned { instance, .. }
        | Report::Installed { instance, .. }
        | Report::Running { instance, .. }
        | Report::Tools { instance, .. }
        | Report::Failed { instance, .. }
        | Report::Crashed { instance, .. } => instance,
    };
    let Some((name, which)) = whose(memory, cx, id) else { return };
    let name = name.as_str();
    match (report, which) {
        (Report::Installing { line, .. }, Which::Tried) => installing(memory, cx, name, Some(line)),
        (Report::Pinned { commit, .. }, Which::Tried) => {
            if let Some(trial) = trial(memory, name) {
                trial.version.source.pinned = Some(commit.clone());
            }
            installing(memory, cx, name, None);
        }
        (Report::Installed { runtime, .. }, Which::Tried) => {
            if let Some(trial) = trial(memory, name) {
                trial.runtime = Some(runtime.clone());
            }
            installing(memory, cx, name, None);
        }
        (Report::Running { tools, .. }, Which::Tried) => promote(memory, cx, name, tools),
        (Report::Failed { code, message, .. }, Which::Tried) => failed(memory, cx, name, *code, message),
        (Report::Running { tools, .. } | Report::Tools { tools, .. }, Which::Serving) => back(memory, cx, name, tools),
        (Report::Failed { message, .. }, Which::Serving) => ended(memory, cx, name, (message, 0, false)),
        (Report::Crashed { message, restarts, again, .. }, Which::Serving) => {
            ended(memory, cx, name, (message, *restarts, *again));
        }
        // One that does not answer within its time is told as failed.
        (Report::Crashed { .. } | Report::Tools { .. }, Which::Tried) => {}
        (_, Which::Serving) => {}
        (Report::Answered { .. } | Report::Progress { .. }, _) => {}
    }
}

fn trial<'a>(memory: &'a mut Memory, name: &str) -> Option<&'a mut Trial> {
    memory.services.get_mut(name).and_then(|service| service.trial.as_mut())
}

/// The installer is at work, and may have said something.
fn installing(memory: &mut Memory, cx: &mut MeshContext<'_>, name: &str, line: Option<&String>) {
    let Some(trial) = trial(memory, name) else { return };
    let is_first = std::mem::replace(&mut trial.stage, Status::Installing) != Status::Installing;
    if let Some(asked) = trial.asked.as_ref().filter(|asked| asked.waits)
        && (line.is_some() || is_first)
    {
        let line = line.cloned();
        let told = McpDeployProgress { server_name: name.to_owned(), status: Status::Installing, line };
        // One that does not fit stands in the log.
        cx.push(asked.at, &told.into());
    }
    if is_first {
        telling::status(memory, cx, name, Status::Installing, None);
    }
}

/// The version that was tried answers: it takes the place of the one before, which ends.
fn promote(memory: &mut Memory, cx: &mut MeshContext<'_>, name: &str, tools: &Arc<[ToolDef]>) {
    let (mesh, now) = (cx.mesh_id().clone(), cx.now_ms());
    let before = telling::seers(cx, name);
    let Some(service) = memory.services.get_mut(name) else { return };
    let Some(trial) = service.trial.take() else { return };
    let old = service.serves().then(|| instance(&mesh, name, service.created_at_ms, service.version.revision));
    service.version = trial.version;
    service.tools = Arc::clone(tools);
    service.runtime = trial.runtime.or(service.runtime.take());
    (service.status, service.error, service.updated_at_ms) = (Status::Running, None, now);
    let rescoped = trial.scope.is_some();
    if let Some((scope, audience)) = trial.scope {
        (service.scope, service.audience) = (scope, audience);
    }
    let payload = json!({"service": name, "revision": service.version.revision, "tools": tools.len()});
    keep(cx, name, service, "mcp_service_running", payload);
    if rescoped {
        super::deploying::keep_scope(cx, name, service);
    }
    let by = service.version.deployed_by.clone();
    memory.publish(cx, name);
    telling::status(memory, cx, name, Status::Running, None);
    if rescoped {
        telling::rescoped(memory, cx, name, &by, &before);
    }
    if old.is_some() {
        telling::updated(memory, cx, name)
    } else {
        telling::deployed(memory, cx, name)
    }
    if let Some(old) = old {
        memory.by_instance.remove(&old);
        tell_host(cx, Command::Remove(old));
    }
    let last = McpDeployStatus {
        server_name: name.to_owned(),
        status: Status::Running,
        tools: Some(tools.to_vec()),
        ..McpDeployStatus::default()
    };
    end_of_trial(memory, cx, name, trial.asked, last);
}

/// The version that serves answers again, or has other tools.
fn back(memory: &mut Memory, cx: &mut MeshContext<'_>, name: &str, tools: &Arc<[ToolDef]>) {
    let Some(service) = memory.services.get_mut(name) else { return };
    let was = std::mem::replace(&mut service.status, Status::Running);
    let other = *service.tools != **tools;
    service.error = service.error.take().filter(|_| was == Status::Running);
    if other {
        service.tools = Arc::clone(tools);
        keep_tools(cx, name, service);
    }
    memory.publish(cx, name);
    if was != Status::Running {
        telling::status(memory, cx, name, Status::Running, None);
    }
    if other {
        telling::updated(memory, cx, name);
    }
}

fn keep_tools(cx: &mut MeshContext<'_>, name: &str, service: &Service) {
    let payload = json!({"service": name, "revision": service.version.revision, "tools": service.tools.len()});
    keep(cx, name, service, "mcp_service_running", payload);
}

/// The version that serves ended by itself.
fn ended(memory: &mut Memory, cx: &mut MeshContext<'_>, name: &str, (message, restarts, again): (&str, u32, bool)) {
    let Some(service) = memory.services.get_mut(name) else { return };
    let text: String = message.chars().take(wire::MAX_ERROR_CHARS).collect();
    service.status = if again { Status::Restarting } else { Status::Crashed };
    let known = service.error.replace(text.clone()).as_ref() == Some(&text);
    // A host that cannot be started is tried again and again; that is told once.
    if known && !again {
        return memory.publish(cx, name);
    }
    memory.publish(cx, name);
    telling::crashed(cx, name, &text, restarts, again);
}
