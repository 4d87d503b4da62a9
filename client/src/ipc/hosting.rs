//! `claudemesh mcp-add` and `mcp-remove` in the shell of a session: the session runs the server.

use std::sync::Arc;

use claudemesh_protocol::error::ErrorCode;

use crate::features::mcp_servers::hosting::HostError;
use crate::features::mcp_servers::kept::HostedServer;
use crate::session::{JoinedMesh, Session};

fn bound(session: &Session, mesh_id: &str) -> Option<JoinedMesh> {
    session.meshes().into_iter().find(|bound| bound.tag.id == mesh_id)
}

/// Runs a server until the session ends; one that is to be kept, whenever the session is resumed. Answers the number of its tools.
pub(super) async fn host(
    session: &Arc<Session>,
    mesh_id: &str,
    mut server: HostedServer,
) -> Result<u32, (ErrorCode, String)> {
    let missing = || (ErrorCode::NotFound, "this session is not in that mesh".to_owned());
    let bound = bound(session, mesh_id).ok_or_else(missing)?;
    session.connected(&bound).await.map_err(|error| (ErrorCode::Unavailable, error))?;
    server.session = session.routes.session_id();
    let ack = bound.hosting.add(server.clone()).await.map_err(|error| {
        let code = match &error {
            HostError::Start(_) => ErrorCode::ToolFailed,
            HostError::Register(error) => error.code().unwrap_or(ErrorCode::Unavailable),
            HostError::Known(_) => ErrorCode::AlreadyExists,
            HostError::Late => ErrorCode::Timeout,
        };
        (code, error.to_string())
    })?;
    // A session that the host gives no id is never resumed.
    if server.persistent && server.session.is_some() {
        session.store().keep_server(server).map_err(|error| (ErrorCode::StorageFull, error.to_string()))?;
    }
    Ok(ack.tool_count)
}

/// Stops a server, and does not run it again when the session is resumed.
pub(super) async fn stop(session: &Arc<Session>, mesh_id: &str, name: &str) -> bool {
    match bound(session, mesh_id) {
        Some(bound) => {
            bound.hosting.asked().withdraw(name);
            bound.hosting.stop(name).await
        }
        None => false,
    }
}
