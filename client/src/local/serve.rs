//! Starting the embedded broker, saying how to use it, ending in good order.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use claudemesh_broker::config::{Config as BrokerConfig, LogFormat};
use claudemesh_broker::{Broker, Deps, StartError, telemetry};
use serde_json::json;

use super::{demo, mesh};
use crate::cli::Context;
use crate::cli::args::UpArgs;
use crate::error::{CliError, ExitCode};
use crate::features::enrolment::{self, InviteWish};
use crate::output::{Style, clean};

/// Where `up` listens when nothing else is said.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7900);
/// The invite that `up` prints: enough for a team at a desk, not for ever.
const INVITE_USES: u32 = 10;
const INVITE_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// Runs `up` until a signal comes.
///
/// # Errors
/// Exit 3 for a bad address, 6 when `up` runs already with these data, 4 when the port is taken, 10 for the data folder.
pub fn up(cx: &Context, args: &UpArgs) -> Result<ExitCode, CliError> {
    let listen = match &args.listen {
        None => DEFAULT_LISTEN,
        Some(text) => text.parse().map_err(|_| {
            CliError::invalid_args(format!("'{}' is no address.", clean(text)))
                .hint("Expected an IP address and a port, for example 127.0.0.1:7900 or 0.0.0.0:7900.")
        })?,
    };
    let data_dir = args.data_dir.clone().unwrap_or_else(|| cx.store.dir().join("broker"));
    let mut config = BrokerConfig { listen, data_dir: data_dir.clone(), ..BrokerConfig::default() };
    config.log.format = LogFormat::Text;
    config.log.filter = cx.env.text("CLAUDEMESH_LOG").unwrap_or("warn").to_owned();
    config.public_url = public_url(listen);
    telemetry::start(&config.log).map_err(|error| CliError::invalid_args(format!("{error}.")))?;
    if let Err(error) = claudemesh_broker::raise_open_file_limit() {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let (cx, args) = (cx.clone(), args.clone());
    actix_rt::System::new().block_on(async move {
        let broker = Broker::start(config, Deps::default()).await.map_err(|error| start_error(error, listen))?;
        let run = run(&cx, &args, &broker.ws_url(), broker.operator_token.clone(), data_dir).await;
        if run.is_ok() && !cx.out.is_json() && !cx.out.is_quiet() {
            eprintln!("ending");
        }
        broker.shutdown().await;
        run.map(|()| ExitCode::Success)
    })
}

async fn run(
    cx: &Context,
    args: &UpArgs,
    listening: &str,
    operator_token: Option<String>,
    data_dir: PathBuf,
) -> Result<(), CliError> {
    let url = reachable(listening);
    if !cx.out.is_json() {
        cx.out.write(&format!("listening on {listening}\n"))?;
    }
    let (own, name, address) = (cx.clone(), args.name.clone(), url.clone());
    let (local, invite) = blocking(move || {
        let token = mesh::operator_token(&data_dir, operator_token)?;
        let local = mesh::ensure(&own, &address, name.as_deref(), token.as_deref())?;
        let wish = InviteWish { role: "member", uses: INVITE_USES, lifetime: INVITE_LIFETIME, preset: None };
        let invite = enrolment::create_invite(&local.owner, &local.entry, &wish)?;
        Ok((local, invite))
    })
    .await?;
    if args.demo {
        demo::run(cx, &local).await?;
    }
    let slug = &local.entry.slug;
    let value = json!({
        "ok": true, "listening": listening, "mesh": slug, "meshId": local.entry.mesh_id, "brokerUrl": url,
        "invite": invite.view.url, "inviteExpiresAt": invite.view.expires_at, "pid": std::process::id(),
    });
    cx.out.answer(&value, |out| {
        let join = format!("claudemesh join {} --name <name>", clean(&invite.view.url));
        format!(
            "{} mesh {} is up\n\n  join it    {}\n             ({INVITE_USES} uses, 24 hours; more with `claudemesh invite`)\n  \
             write      claudemesh send <name> \"hello\"\n  read       claudemesh inbox\n  with Claude Code\n             \
             claudemesh install, then claudemesh launch --mesh {slug}\n\nCtrl-C ends it; messages that wait stay on disk.\n",
            out.tick(),
            out.paint(Style::Bold, slug),
            out.paint(Style::Bold, &join),
        )
    })?;
    wait_for_signal().await
}

/// Runs blocking work (HTTP to ourselves, files) beside the broker.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CliError::internal(format!("A task ended early: {error}.")))?
}

async fn wait_for_signal() -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::internal(format!("Signals cannot be heard: {error}."));
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = hangup.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(failed),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map_err(failed)
}

/// The address for this machine itself when the broker listens on all of them.
fn reachable(listening: &str) -> String {
    listening.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
}

/// How other machines reach a broker that listens for them. `None` on loopback: links are made from the request then.
fn public_url(listen: SocketAddr) -> Option<String> {
    if listen.ip().is_loopback() || listen.port() == 0 {
        return None;
    }
    let address = if listen.ip().is_unspecified() { outside_address()? } else { listen.ip() };
    Some(format!("http://{}", SocketAddr::new(address, listen.port())))
}

/// The address that this machine would use towards others. Connecting a datagram socket sends nothing.
fn outside_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn start_error(error: StartError, listen: SocketAddr) -> CliError {
    let message = crate::error::sentence(&error.to_string());
    match error {
        StartError::Locked(_) => CliError::new(ExitCode::AlreadyExists, "already_running", message)
            .hint("`claudemesh up` runs already; use its mesh, or another one with --data-dir and --listen."),
        StartError::DataDir { .. } => CliError::io(message).hint("Check the rights of the folder, or use --data-dir."),
        StartError::Config(_) => CliError::invalid_args(message),
        _ => CliError::network(message).hint(format!(
            "Is something else listening on {listen}? Choose another port: claudemesh up --listen 127.0.0.1:7901"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_needs_no_public_address() {
        assert_eq!(public_url("127.0.0.1:7900".parse().unwrap()), None);
        assert_eq!(public_url("10.1.2.3:7900".parse().unwrap()).as_deref(), Some("http://10.1.2.3:7900"));
        assert_eq!(reachable("ws://0.0.0.0:7900/ws"), "ws://127.0.0.1:7900/ws");
        assert_eq!(reachable("ws://127.0.0.1:7900/ws"), "ws://127.0.0.1:7900/ws");
    }
}
