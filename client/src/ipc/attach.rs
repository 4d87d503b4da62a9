//! Acting as the session that a verb runs in: its frames travel over the connection of the session's server.
//!
//! No handshake with the broker, no second presence, and what is sent comes from the session itself.

use std::time::Duration;

use crate::config::MeshEntry;
use crate::connection::{Connection, ConnectionError, Identity};
use crate::context::Context;
use crate::features::questions::ask::{AskError, Outcome};

use super::client::Line;
use super::protocol::{Question, Reply, Request};

/// How long the session's server may take to say who it is. It answers at once unless it hangs; giving up early on a busy
/// machine would send the session's words under another name.
#[cfg(unix)]
const PATIENCE: Duration = Duration::from_secs(3);

/// How long it may take until it has read a question: it may be about to connect.
const TAKING_PATIENCE: Duration = Duration::from_secs(8);
/// How much longer than the wait for the answer the sending before it and the word about its end may take.
const END_PATIENCE: Duration = Duration::from_secs(30);

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

/// A question that the session's server asked for us, and the line on which we confirm that its outcome was printed.
pub struct Asked {
    /// How it ended.
    pub outcome: Outcome,
    line: Line,
}

impl Asked {
    /// The outcome was printed. Without this word the answer goes on to the model.
    pub fn confirm(mut self) {
        // Not heard: it is shown once more, which beats not at all.
        let _ = self.line.send(&Request::Printed);
    }
}

/// Asks as the session and waits, blocking; `out` is called when the question is out. `None` outside of a session, or when
/// its server cannot ask and has not begun.
///
/// # Errors
/// [`AskError::Rejected`]; `Lost` when the server went away or refused after it had taken the question.
pub fn ask(
    cx: &Context,
    entry: &MeshEntry,
    question: &Question,
    mut out: impl FnMut(),
) -> Result<Option<Asked>, AskError> {
    let servers = cx.store.own_servers(&cx.env);
    let Some(server) = servers.iter().find(|server| server.meshes.contains(&entry.slug)) else { return Ok(None) };
    let Ok(mut line) = Line::open(server, Some(TAKING_PATIENCE)) else { return Ok(None) };
    // An older server does not know the request, one that is busy or away takes none: nothing was asked.
    if !matches!(line.ask(&Request::Ask(question.clone())), Ok(Reply::Taken)) {
        return Ok(None);
    }
    let lost = |reason: String| AskError::Connection(ConnectionError::Lost(reason));
    let patience = Duration::from_millis(question.wait_ms).saturating_add(END_PATIENCE);
    line.set_patience(Some(patience)).map_err(|error| lost(error.to_string()))?;
    loop {
        match line.receive() {
            Ok(Reply::Asked) => out(),
            Ok(Reply::Outcome(outcome)) => return Ok(Some(Asked { outcome: *outcome, line })),
            Ok(Reply::Rejected(rejected)) => return Err(AskError::Rejected(rejected)),
            Ok(Reply::Error { message, .. }) => return Err(lost(message)),
            Ok(_) => {}
            Err(error) => {
                return Err(lost(format!("the session's server is gone ({error}); an answer comes to the session")));
            }
        }
    }
}
