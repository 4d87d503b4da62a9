//! Calls in a running session: handed to the servers that it runs, or to the model.

use std::sync::Arc;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{McpCallCancel, McpCallForward, McpCallResponse, McpPartForward};
use claudemesh_protocol::session::HelloAck;

use super::asked::{NOTE_CHARS, failed};
use super::hosting;
use crate::config::MessageMode;
use crate::connection::{Connection, Heard};
use crate::session::events::{OnEvent, OnWelcome};
use crate::session::notes::ChannelNote;
use crate::session::{JoinedMesh, Session};

/// Takes calls.
pub struct ForwardedCalls;

impl OnEvent for ForwardedCalls {
    type Event = McpCallForward;

    fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<McpCallForward>) {
        match heard {
            Heard::Event(forward) => {
                if let Some(forward) = bound.hosting.forwarded(&bound.connection, forward) {
                    ask_the_model(session, bound, forward);
                }
            }
            Heard::Lagged(missed) => {
                tracing::warn!(mesh.slug = bound.tag.slug, missed, "calls of MCP servers were lost: too many at once");
            }
            Heard::Away => bound.hosting.away(),
        }
    }
}

fn ask_the_model(session: &Arc<Session>, bound: &JoinedMesh, forward: McpCallForward) {
    if session.mode() == MessageMode::Off || session.is_quiet() {
        let why = "the session takes no calls now: its user does not want to be disturbed".to_owned();
        return answer(&bound.connection, failed(forward.call_id, ErrorCode::Unavailable, why));
    }
    match bound.hosting.asked().take(forward) {
        Ok(waiting) => {
            let meta = [
                ("kind", "mcp_call".to_owned()),
                ("from_name", waiting.forward.caller_name.clone()),
                ("server", waiting.forward.server_name.clone()),
                ("tool", waiting.forward.tool_name.clone()),
                ("call_id", waiting.forward.call_id.clone()),
            ];
            session.tell(bound, ChannelNote::of_mesh(&waiting.text(NOTE_CHARS), meta, &bound.tag));
        }
        Err(response) => answer(&bound.connection, response),
    }
}

fn answer(connection: &Connection, response: McpCallResponse) {
    let connection = connection.clone();
    tokio::spawn(async move {
        if let Err(error) = hosting::respond(&connection, response).await {
            tracing::debug!(%error, "a call was not answered");
        }
    });
}

/// Hears that no one waits for a call any more.
pub struct CancelledCalls;

impl OnEvent for CancelledCalls {
    type Event = McpCallCancel;

    fn on_event(_: &Arc<Session>, bound: &JoinedMesh, heard: Heard<McpCallCancel>) {
        if let Heard::Event(cancel) = heard {
            bound.hosting.cancelled(&cancel.call_id);
        }
    }
}

/// Hands out parts of large results.
pub struct WantedParts;

impl OnEvent for WantedParts {
    type Event = McpPartForward;

    fn on_event(_: &Arc<Session>, bound: &JoinedMesh, heard: Heard<McpPartForward>) {
        if let Heard::Event(wanted) = heard {
            bound.hosting.part(&bound.connection, wanted);
        }
    }
}

/// Registers again what the model offers: the broker forgets it with the session's place in the mesh.
#[derive(Default)]
pub struct OfferedAgain;

impl OnWelcome for OfferedAgain {
    async fn on_welcome(&mut self, _: &Arc<Session>, bound: &JoinedMesh, _: &HelloAck) {
        for register in bound.hosting.asked().offered() {
            let name = register.server_name.clone();
            if let Err(error) = bound.connection.request(register).await {
                tracing::warn!(server = name, %error, "an MCP server of this session is not registered");
            }
        }
    }
}
