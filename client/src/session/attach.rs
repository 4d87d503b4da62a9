//! Acting as the session that a verb runs in: its frames travel over the connection of the session's server.
//!
//! No handshake with the broker, no second presence, and what is sent comes from the session itself.

use std::time::Duration;

use crate::cli::Context;
use crate::config::MeshEntry;
use crate::connection::{Connection, Identity};

#[cfg(unix)]
use super::protocol::{Reply, Request};

/// How long the session's server may take to say who it is.
#[cfg(unix)]
const PATIENCE: Duration = Duration::from_millis(500);

/// The session's connection to a mesh; `None` outside of a session, or when its server cannot serve us now.
#[cfg(unix)]
pub async fn attach(cx: &Context, entry: &MeshEntry) -> Option<Connection> {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

    let servers = cx.store.own_servers(&cx.env);
    let server = servers.iter().find(|server| server.meshes.contains(&entry.slug))?;
    let opening = async {
        let stream = tokio::net::UnixStream::connect(&server.socket).await.ok()?;
        let (reader, mut writer) = stream.into_split();
        let mut line = serde_json::to_vec(&Request::Attach { mesh_id: entry.mesh_id.to_string() }).ok()?;
        line.push(b'\n');
        writer.write_all(&line).await.ok()?;
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        (&mut reader).take(super::protocol::MAX_LINE_BYTES as u64).read_until(b'\n', &mut line).await.ok()?;
        let Reply::Attached(attached) = serde_json::from_slice(&line).ok()? else { return None };
        let mut identity = Identity::of_mesh(entry, attached.session_id.clone()).ok()?;
        identity.session = attached.session_key.as_ref().map(|key| key.key()).transpose().ok()?;
        Some(Connection::attached(identity, attached.hello_ack, reader, writer))
    };
    tokio::time::timeout(PATIENCE, opening).await.ok().flatten()
}

/// There is no such socket on this system.
#[cfg(not(unix))]
pub async fn attach(_cx: &Context, _entry: &MeshEntry) -> Option<Connection> {
    let _ = Duration::ZERO;
    None
}
