//! The host's own relay: `notifications/claude/channel/permission_request` in, `…/permission` out, strings only.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{CustomNotification, ServerNotification};
use rmcp::service::{Peer, RoleServer};
use serde_json::{Value, json};

use super::ask::{Call, Ended, ask};
use super::pending_requests::RequestSource;
use super::preview;
use super::rules::Rules;
use super::wire::{self, MAX_TOOL_CHARS};
use crate::config::ConfigStore;
use crate::session::Session;

/// The capability that tells the host that we relay. Declared only when someone may decide: the host shows every question
/// to anyone who declares it.
pub const CAPABILITY: &str = "claude/channel/permission";
/// How long the first notification waits for the hook of the same call. The host starts both at once.
const HOOK_PATIENCE: Duration = Duration::from_secs(2);
/// The host asks.
pub const REQUESTED: &str = "notifications/claude/channel/permission_request";
/// We answer.
pub const DECIDED: &str = "notifications/claude/channel/permission";

/// Whether the capability is declared.
pub fn is_on(store: &ConfigStore) -> bool {
    Rules::load(store).is_ok_and(|rules| rules.is_on())
}

/// Takes a notification of the host; answers whether it was one of ours.
pub fn notified(session: &Arc<Session>, notification: &CustomNotification, peer: Peer<RoleServer>) -> bool {
    if notification.method != REQUESTED {
        return false;
    }
    if !is_on(session.store()) {
        return true;
    }
    let Some(call) = notification.params.as_ref().and_then(call_of) else {
        tracing::warn!("a permission request of the host has another shape than documented");
        return true;
    };
    let (session, id) = (Arc::clone(session), call.id.clone().unwrap_or_default());
    tokio::spawn(async move {
        // The hook has the whole input and hears when the user decides; one call is asked about once.
        if session.permissions.is_hooked(HOOK_PATIENCE).await {
            return;
        }
        let Ended::Decided(decision) = ask(&session, call).await else { return };
        let params = json!({"request_id": id, "behavior": decision.behavior.as_str()});
        let note = ServerNotification::CustomNotification(CustomNotification::new(DECIDED, Some(params)));
        if let Err(error) = peer.send_notification(note).await {
            tracing::warn!(%error, "the host is gone and cannot be told of a permission");
        }
    });
    true
}

fn call_of(params: &Value) -> Option<Call> {
    let text = |name: &str| params[name].as_str();
    let id = text("request_id").filter(|id| wire::is_id(id))?;
    let tool = text("tool_name").filter(|tool| !tool.is_empty() && tool.chars().count() <= MAX_TOOL_CHARS)?;
    let (description, input) = (text("description").unwrap_or_default(), text("input_preview").unwrap_or_default());
    // The host shows no more than a beginning: the answer is about the question under this id.
    let digest = wire::digest(tool, &json!({"description": description, "input_preview": input, "request_id": id}));
    let shown = if description.is_empty() { input.to_owned() } else { format!("{description}\n{input}") };
    let preview = preview::of_text(&shown);
    Some(Call { tool: tool.to_owned(), preview, digest, id: Some(id.to_owned()), source: RequestSource::Channel })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_shape_is_taken() {
        let good = json!({"request_id": "abcde", "tool_name": "Bash", "description": "d", "input_preview": "i"});
        let call = call_of(&good).unwrap();
        assert_eq!((call.id.as_deref(), call.tool.as_str(), call.preview.as_str()), (Some("abcde"), "Bash", "d\ni"));
        for (name, value) in [
            ("request_id", json!("ABCDE")),
            ("request_id", json!("abcdl")),
            ("request_id", json!(7)),
            ("tool_name", json!(null)),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(call_of(&bad).is_none(), "{bad}");
        }
    }
}
