//! `claudemesh mcp`: the MCP server of one session, on standard input and output.
//!
//! The handshake is answered at once, brokers are connected in the background. Standard output carries protocol frames only.
//! The server ends with its input or a signal and never because of a broker.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use self::cli::McpArgs;
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::session::{self, Session};

pub mod cli;
pub mod instructions;
mod params;
pub mod server;
pub mod surface;
pub(crate) mod tool;
mod tools;
pub mod transport;

pub use server::MeshServer;
pub use surface::Surface;

/// Longest way out: acknowledgements are sent, then the process ends whatever a broker does.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Runs `mcp` until its input ends or a signal comes.
///
/// # Errors
/// Exit 5 when `--mesh` names a mesh that is not joined; exit 8 when the system gives no runtime.
pub fn run(cx: &Context, args: &McpArgs) -> Result<ExitCode, CliError> {
    if let Some(slug) = &cx.mesh {
        cx.store.load()?.choose(Some(slug))?;
    }
    crate::telemetry::start(&cx.env, cx.store.dir());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::internal(format!("No async runtime: {error}.")))?;
    let session = Session::new(cx.env.clone(), cx.store.clone(), cx.mesh.clone(), args.message_mode);
    if let Some(dir) = &args.share_dir {
        session.folder.share(dir);
    }
    let surface = Surface::choose(args.surface, &cx.env);
    let served = runtime.block_on(async move {
        let (input, output) = rmcp::transport::io::stdio_pipes();
        let mut serving = std::pin::pin!(serve(Arc::clone(&session), surface, input, output));
        let ended = tokio::select! {
            served = &mut serving => Some(served),
            () = signal() => None,
        };
        let mut closing = std::pin::pin!(tokio::time::timeout(CLOSE_PATIENCE, session.close()));
        let served = match ended {
            Some(served) => served,
            // It goes on meanwhile, so that a note that is being written is known to be written, and not shown again.
            None => tokio::select! {
                _ = &mut closing => return Ok(ExitCode::Success),
                served = &mut serving => served,
            },
        };
        let _ = closing.await;
        served.map(|()| ExitCode::Success)
    });
    // A thread may sit in a read of standard input for ever.
    runtime.shutdown_background();
    served
}

/// Serves one client over a pair of byte streams until the input ends.
///
/// # Errors
/// Exit 8 when the serving task dies.
pub async fn serve(
    session: Arc<Session>,
    surface: Surface,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(), CliError> {
    let transport = transport::Stdio::new(input, output, Arc::clone(&session));
    let server = MeshServer::new(Arc::clone(&session), surface);
    // Directly: the first frame may be any request, `initialize` is answered like the others.
    let running = rmcp::service::serve_directly(server, transport, None);
    tokio::spawn(session::run(Arc::clone(&session)));
    tokio::spawn(async move { session.bind().await });
    running.waiting().await.map(drop).map_err(|error| CliError::internal(format!("The MCP server stopped: {error}.")))
}

/// SIGINT, SIGTERM or SIGHUP, the ways hosts end a server.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let waits = kinds.into_iter().filter_map(|kind| signal(kind).ok()).map(|mut signal| {
            Box::pin(async move {
                signal.recv().await;
            })
        });
        futures_util::future::select_all(waits).await;
    }
    #[cfg(not(unix))]
    {
        let _ = tokio::signal::ctrl_c().await;
    }
}
