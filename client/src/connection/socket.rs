//! Opening a WebSocket: TCP without delay, straight or through a forward proxy, TLS by rustls for `wss`; for a mesh of this
//! machine the Unix socket of its holder.

use std::sync::Once;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::either::Either;

use super::ConnectionError;
use crate::local::store::Store;
use crate::proxy::Proxy;

/// Longest way from a name to an open WebSocket.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest frame we take: the wire's limit and room for another broker's habits.
const MAX_INBOUND_BYTES: usize = claudemesh_protocol::limits::MAX_FRAME_BYTES + (1 << 20);

/// The same on this machine: a holder that does not answer is stopped, or another one is taking over.
const LOCAL_CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

#[cfg(unix)]
type Unix = tokio::net::UnixStream;
#[cfg(not(unix))]
type Unix = TcpStream;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<Either<TcpStream, Unix>>>;

/// Connects to the process that serves this machine's own mesh: by the Unix socket, else where its holder says that it listens.
///
/// # Errors
/// [`ConnectionError::Unreachable`] when no one serves, or not in time.
pub(super) async fn open_local(store: &Store) -> Result<Socket, ConnectionError> {
    let unreachable = |url: String, reason: String| Err(ConnectionError::Unreachable { url, reason });
    let place = store.socket().unwrap_or_else(|| store.dir().to_path_buf()).display().to_string();
    let opened = tokio::time::timeout(LOCAL_CONNECT_TIMEOUT, async {
        #[cfg(unix)]
        if let Some(path) = store.socket()
            && let Ok(stream) = Unix::connect(path).await
        {
            let request = "ws://localhost/ws".into_client_request().map_err(|_| Failure::Url)?;
            return upgrade(request, Either::Right(stream)).await;
        }
        match store.holder() {
            Some(note) => open_inner(&note.url).await,
            None => Err(Failure::Reason("no process serves it at the moment".into())),
        }
    });
    match opened.await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(Failure::Url)) => Err(ConnectionError::BadUrl(place)),
        Ok(Err(Failure::Reason(reason))) => unreachable(place, reason),
        Err(_) => unreachable(place, format!("no answer within {} s", LOCAL_CONNECT_TIMEOUT.as_secs())),
    }
}

/// Connects to a `ws://` or `wss://` URL.
///
/// # Errors
/// [`ConnectionError::BadUrl`] or [`ConnectionError::Unreachable`] with the system's words.
pub(super) async fn open(url: &str) -> Result<Socket, ConnectionError> {
    // Who reads the error must see which way was taken.
    let unreachable = |reason: String| match crate::proxy::words(url) {
        way if way.is_empty() || reason.contains("proxy") => {
            ConnectionError::Unreachable { url: url.to_owned(), reason }
        }
        way => ConnectionError::Unreachable { url: url.to_owned(), reason: format!("{reason} ({})", way.trim_start()) },
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, open_inner(url)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(Failure::Url)) => Err(ConnectionError::BadUrl(url.to_owned())),
        Ok(Err(Failure::Reason(reason))) => Err(unreachable(reason)),
        Err(_) => Err(unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

enum Failure {
    Url,
    Reason(String),
}

async fn open_inner(url: &str) -> Result<Socket, Failure> {
    let request = url.into_client_request().map_err(|_| Failure::Url)?;
    let uri = request.uri();
    let secure = match uri.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        _ => return Err(Failure::Url),
    };
    let host = uri.host().ok_or(Failure::Url)?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = match crate::proxy::for_url(url).map_err(Failure::Reason)? {
        Some(proxy) => tunnel(&proxy, &host, port).await.map_err(Failure::Reason)?,
        None => TcpStream::connect((host.as_str(), port)).await.map_err(|error| Failure::Reason(error.to_string()))?,
    };
    // Small frames must not wait for one another.
    stream.set_nodelay(true).map_err(|error| Failure::Reason(error.to_string()))?;
    if secure {
        install_crypto();
    }
    upgrade(request, Either::Left(stream)).await
}

/// Longest head of a proxy's answer.
const MAX_PROXY_HEAD: usize = 16 << 10;

/// A connection to a host through a forward proxy, which looks the name up.
async fn tunnel(proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream, String> {
    let failed = |what: String| format!("the proxy {proxy} {what}");
    let stream = TcpStream::connect((proxy.host.as_str(), proxy.port)).await;
    let mut stream = stream.map_err(|error| failed(format!("cannot be reached: {error}")))?;
    let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some(authorization) = proxy.authorization() {
        request += &format!("Proxy-Authorization: {authorization}\r\n");
    }
    request += "\r\n";
    let head = async {
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        // Byte by byte: what follows the head belongs to the broker.
        while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_PROXY_HEAD {
            head.push(stream.read_u8().await?);
        }
        Ok::<_, std::io::Error>(head)
    };
    let head = head.await.map_err(|error| failed(format!("broke off: {error}")))?;
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    match status.and_then(|status| status.parse::<u16>().ok()) {
        Some(200..=299) => Ok(stream),
        Some(_) => Err(failed(format!("does not open a way there: {}", crate::output::clean(line)))),
        None => Err(failed("does not answer like an HTTP proxy".into())),
    }
}

async fn upgrade(request: Request, stream: Either<TcpStream, Unix>) -> Result<Socket, Failure> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_INBOUND_BYTES))
        .max_frame_size(Some(MAX_INBOUND_BYTES))
        .write_buffer_size(0);
    let opened = tokio_tungstenite::client_async_tls_with_config(request, stream, Some(config), None).await;
    opened.map(|(socket, _)| socket).map_err(|error| Failure::Reason(error.to_string()))
}

/// rustls wants one provider per process; chosen here so that no other crate's default decides.
pub(crate) fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let provider = rustls::crypto::ring::default_provider();
        // Fails only when one is installed already, which serves as well.
        let _ = provider.install_default();
    });
}
