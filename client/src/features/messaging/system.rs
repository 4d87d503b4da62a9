//! What the broker itself says in a `push`: who came and went, what waits. Each becomes a note in the session.

use std::sync::Arc;

use claudemesh_protocol::features::messaging::Push;
use claudemesh_protocol::name::Address;
use serde_json::Value;

use crate::connection::Heard;
use crate::session::events::OnEvent;
use crate::session::notes::{ChannelNote, MeshTag, harmless_value};
use crate::session::{JoinedMesh, Session};

/// Names of tools that are told of a server.
const MAX_TOOLS: usize = 12;

/// Tells the session.
pub struct SystemNotes;

impl OnEvent for SystemNotes {
    type Event = Push;

    fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<Push>) {
        match heard {
            Heard::Event(push) => {
                if let Some(note) = note(&push, &bound.tag) {
                    session.tell(bound, note);
                }
            }
            Heard::Lagged(missed) => {
                tracing::warn!(mesh.slug = bound.tag.slug, missed, "events were not shown: too many at once");
            }
            // Who is there is a question to the broker, not to what was told of it.
            Heard::Away => {}
        }
    }
}

/// The note of a broker event; `None` for events that are nothing to tell.
fn note(push: &Push, mesh: &MeshTag) -> Option<ChannelNote> {
    let (event, data) = (push.event.as_deref().unwrap_or_default(), push.event_data.as_ref().unwrap_or(&Value::Null));
    // How far a deploy is fills a list; who asked for it is answered.
    if event.is_empty() || event == "mcp_service_status" {
        return None;
    }
    let text = |name: &str| data[name].as_str().unwrap_or_default();
    let told = told(event, data);
    let tick = data["tick"].as_u64().filter(|_| event == "tick").map(|tick| tick.to_string());
    let meta = [
        ("kind", "system".to_owned()),
        ("event", event.to_owned()),
        ("tick", tick.unwrap_or_default()),
        ("sim_time", text("simTime").to_owned()),
        ("peer_name", text("name").to_owned()),
        ("peer_pubkey", text("pubkey").to_owned()),
        ("peer_last_seen_at", text("lastSeenAt").to_owned()),
        ("peer_summary", text("summary").to_owned()),
        ("sent_at", push.created_at.clone()),
    ];
    let head = if event == "tick" { "heartbeat" } else { "system" };
    Some(ChannelNote::of_mesh(&format!("[{head}] {told}"), meta, mesh))
}

/// An event in words.
pub(crate) fn told(event: &str, data: &Value) -> String {
    let text = |name: &str| data[name].as_str().unwrap_or_default();
    let word = |name: &str| harmless_value(text(name));
    let name = harmless_value(&Address { member: text("memberName"), session: text("name") }.to_string());
    match event {
        "peer_joined" => format!("{name} joined{}", groups(data)),
        "peer_returned" => {
            let summary = word("summary");
            let works = if summary.is_empty() { String::new() } else { format!(", was working on: {summary}") };
            format!("{name} is back{}{works}", groups(data))
        }
        "peer_left" => format!("{name} left"),
        "peer_visible" => format!("{name} is visible again"),
        "peer_hidden" => format!("{name} is hidden now"),
        "low_waiting" => {
            let count = data["count"].as_u64().unwrap_or(0);
            format!("{count} low-priority messages wait; check_messages reads them")
        }
        "tick" => heartbeat(data),
        "member_renamed" | "session_renamed" => {
            let looks = data["looksLike"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let looks: Vec<String> = looks.map(harmless_value).collect();
            let looks = if looks.is_empty() { String::new() } else { format!("; looks like {}", looks.join(", ")) };
            format!("{} is called {} now{looks}", word("formerName"), word("address"))
        }
        "member_role_changed" => format!("{} is {} of the mesh now", word("name"), word("role")),
        "member_removed" => format!("{} is no member any more", word("name")),
        "mesh_transferred" => format!("{} is the owner of the mesh now", word("name")),
        "mcp_registered" => {
            let tools: Vec<&str> = data["tools"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let shown: Vec<String> = tools.iter().take(MAX_TOOLS).map(|tool| harmless_value(tool)).collect();
            let more = if tools.len() > shown.len() { ", …" } else { "" };
            format!(
                "{} offers the MCP server {} ({}{more}); mesh_tool_call calls its tools",
                word("hostedBy"),
                word("serverName"),
                shown.join(", ")
            )
        }
        "mcp_deployed" => format!(
            "the mesh hosts the MCP server {} for you now ({} tools, deployed by {}); mesh_tool_call calls its tools",
            word("name"),
            data["tool_count"].as_u64().unwrap_or(0),
            word("deployed_by")
        ),
        "mcp_updated" => {
            let count = data["tool_count"].as_u64().unwrap_or(0);
            format!("the hosted MCP server {} has {count} tools now; mesh_mcp_schema shows them", word("name"))
        }
        "mcp_undeployed" => format!("the hosted MCP server {} is gone", word("name")),
        "mcp_crashed" => {
            let again = if data["again"] == true { "is being started again" } else { "does not run any more" };
            format!("the hosted MCP server {} has crashed and {again}", word("name"))
        }
        "mcp_scope_changed" => format!("{} has changed who may use the MCP server {}", word("by"), word("name")),
        "mcp_unregistered" => format!("the MCP server {} of {} is gone", word("serverName"), word("hostedBy")),
        "mcp_offline" => format!("the MCP server {} of {} is offline", word("serverName"), word("hostedBy")),
        "mcp_restored" => format!("the MCP server {} of {} is back", word("serverName"), word("hostedBy")),
        other => format!("{} {}", harmless_value(other), harmless_value(&data.to_string())),
    }
}

/// A minute of the simulated clock.
fn heartbeat(data: &Value) -> String {
    let (tick, speed) = (data["tick"].as_u64().unwrap_or(0), data["speed"].as_f64().unwrap_or(0.0));
    let time = harmless_value(data["simTime"].as_str().unwrap_or_default());
    format!("tick {tick} | sim time {time} | speed: x{speed}")
}

fn groups(data: &Value) -> String {
    let names: Vec<String> = data["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|group| group["name"].as_str())
        .map(|name| format!("@{}", harmless_value(name)))
        .collect();
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_told_in_words() {
        let mesh = MeshTag { slug: "team".into(), id: "m".into() };
        let event = |name: &str, data: Value| {
            let push = Push { event: Some(name.into()), event_data: Some(data), ..Push::default() };
            note(&push, &mesh).map(|note| note.content().to_owned())
        };
        let groups = json!([{"name": "qa"}]);
        assert_eq!(
            event("peer_joined", json!({"name": "Bob", "groups": groups})).unwrap(),
            "[system] Bob joined (@qa)"
        );
        assert_eq!(event("peer_left", json!({"name": "B<channel>"})).unwrap(), "[system] B[channel] left");
        let tick = json!({"tick": 7, "simTime": "2030-01-01T09:07:00.000Z", "speed": 2.5});
        assert_eq!(
            event("tick", tick).unwrap(),
            "[heartbeat] tick 7 | sim time 2030-01-01T09:07:00.000Z | speed: x2.5"
        );
        let tools: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
        let server = json!({"serverName": "calc", "hostedBy": "B<channel>", "description": "obey", "tools": tools});
        assert_eq!(
            event("mcp_registered", server).unwrap(),
            "[system] B[channel] offers the MCP server calc (t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, …); mesh_tool_call calls its tools"
        );
        let server = json!({"serverName": "calc", "hostedBy": "Bob"});
        assert_eq!(event("mcp_offline", server).unwrap(), "[system] the MCP server calc of Bob is offline");
        let service = json!({"name": "tickets", "tool_count": 3, "deployed_by": "B<channel>"});
        assert_eq!(
            event("mcp_deployed", service).unwrap(),
            "[system] the mesh hosts the MCP server tickets for you now (3 tools, deployed by B[channel]); mesh_tool_call calls its tools"
        );
        assert_eq!(event("mcp_service_status", json!({"name": "tickets", "status": "building"})), None);
        assert!(event("something_new", json!({"a": 1})).unwrap().contains("something_new"));
        assert_eq!(event("", Value::Null), None);
    }
}
