//! The way out of a service: an HTTP proxy on loopback, whose connections are streams to the broker.
//!
//! It resolves nothing and decides nothing: the broker gets the name and the port as the service gave them. What it does decide is who may
//! use it: with users of their own, only its service.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use claudemesh_protocol::runner::{BrokerAnswer, FailCode, Phase, RunnerAsk};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::link::{Inbound, Link, Stream, StreamReader, StreamWriter};
use crate::log::{From, Log};
use crate::users::User;

/// Connections of one service at once.
const MAX_CONNECTIONS: usize = 128;
/// Bytes of the head of a request.
const MAX_HEAD_BYTES: usize = 65_536;
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

struct Shared {
    link: Link,
    id: String,
    user: Option<User>,
    log: Arc<Log>,
    port: u16,
    installing: AtomicBool,
    asked: AtomicU64,
    refused: AtomicU64,
    room: Semaphore,
}

/// A proxy. It ends when it is dropped.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Listens on a free port of loopback.
    pub(crate) async fn start(link: Link, id: String, user: Option<User>, log: Arc<Log>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            link,
            id,
            user,
            log,
            port,
            installing: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            room: Semaphore::new(MAX_CONNECTIONS),
        });
        let task = tokio::spawn(accept(shared.clone(), listener));
        Ok(Self { shared, task })
    }

    pub(crate) fn port(&self) -> u16 {
        self.shared.port
    }

    /// Whether its connections are those of an installer.
    pub(crate) fn installing(&self, yes: bool) {
        self.shared.installing.store(yes, Ordering::Relaxed);
    }

    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Takes no more connections.
    pub(crate) fn end(&self) {
        self.task.abort();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    // Connections end with the proxy.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, from)) => {
                connections.spawn(serve(shared.clone(), socket, from));
            }
            Err(error) => {
                eprintln!("claudemesh-runner: a connection to a proxy fails: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The user of the other end of a connection within this machine.
fn user_of(from: SocketAddr, port: u16) -> Option<u32> {
    let SocketAddr::V4(from) = from else { return None };
    let end = |address: Ipv4Addr, port: u16| format!("{:08X}:{port:04X}", u32::from_ne_bytes(address.octets()));
    let (local, remote) = (end(*from.ip(), from.port()), end(Ipv4Addr::LOCALHOST, port));
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&local.as_str()) && fields.get(2) == Some(&remote.as_str()))
            .then(|| fields.get(7)?.parse().ok())?
    })
}

async fn serve(shared: Arc<Shared>, mut socket: TcpStream, from: SocketAddr) {
    if let Some(User(uid)) = shared.user
        && user_of(from, shared.port) != Some(uid)
    {
        return refuse(&mut socket, "403 Forbidden", "this is the way out of another service").await;
    }
    let Ok(_room) = shared.room.try_acquire() else {
        return refuse(&mut socket, "503 Service Unavailable", "too many connections of this service").await;
    };
    let _ = socket.set_nodelay(true);
    let Ok(Some((head, rest))) = tokio::time::timeout(HEAD_PATIENCE, read_head(&mut socket)).await else { return };
    let Some(request) = Request::read(&head) else {
        return refuse(&mut socket, "400 Bad Request", "expected CONNECT host:port, or an http:// URL").await;
    };
    shared.asked.fetch_add(1, Ordering::Relaxed);
    let phase = if shared.installing.load(Ordering::Relaxed) { Phase::Install } else { Phase::Run };
    let ask = RunnerAsk::Egress { id: shared.id.clone(), host: request.host.clone(), port: request.port, phase };
    let Some(mut stream) = shared.link.open(&ask, &request.first, false).await else {
        return refuse(&mut socket, "503 Service Unavailable", "the broker is not there").await;
    };
    let refused = match stream.reader.next().await {
        Some(Inbound::Head { head, body, last }) => match serde_json::from_slice(&head) {
            Ok(BrokerAnswer::Opened) => return carry(socket, stream, &request, &rest, body, last).await,
            Ok(BrokerAnswer::Refused { message, .. }) => message,
            Ok(BrokerAnswer::Failed(failure)) => failure.message,
            _ => "the broker does not know how to open a connection".into(),
        },
        Some(Inbound::Reset(reset)) => reset.message,
        Some(Inbound::Data { .. }) | None => "the broker has ended the connection".into(),
    };
    shared.refused.fetch_add(1, Ordering::Relaxed);
    let (host, port) = (&request.host, request.port);
    let told = shared.log.without_secrets(&format!("no connection to {host}:{port}: {refused}"));
    shared.log.add(From::Runner, &told);
    refuse(&mut socket, "403 Forbidden", &told).await;
}

/// Answers why there is no connection. What the client still sends is read first, or it would see a broken connection and no answer.
async fn refuse(socket: &mut TcpStream, status: &str, why: &str) {
    let why: String = why.chars().filter(|symbol| !symbol.is_control()).collect();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{why}\n",
        why.len() + 1
    );
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.shutdown().await;
    let mut rest = [0; 4_096];
    let drain = async { while socket.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
}

/// The head of a request with its last empty line, and what came behind it.
async fn read_head(socket: &mut TcpStream) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::new();
    loop {
        if let Some(at) = memchr::memmem::find(&head, b"\r\n\r\n") {
            let rest = head.split_off(at + 4);
            return Some((head, rest));
        }
        if head.len() > MAX_HEAD_BYTES || socket.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
}

/// What a client of the proxy wants.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    host: String,
    port: u16,
    connect: bool,
    /// The head of a plain request, as its server gets it.
    first: Vec<u8>,
}

impl Request {
    fn read(head: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?;
        let (line, fields) = head.split_once("\r\n")?;
        let mut parts = line.split(' ');
        let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
            return None;
        }
        if method == "CONNECT" {
            let (host, port) = authority(target, None)?;
            return Some(Self { host, port, connect: true, first: Vec::new() });
        }
        let rest = target.strip_prefix("http://")?;
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, port) = authority(&rest[..at], Some(80))?;
        let slash = if rest[at..].starts_with('/') { "" } else { "/" };
        // The connection serves this one request: the next one may be for another host. And what is asked for is what is in the URL,
        // whatever host the fields name.
        let mut first =
            format!("{method} {slash}{} {version}\r\nHost: {}\r\nConnection: close\r\n", &rest[at..], &rest[..at]);
        for field in fields.split("\r\n").filter(|field| !field.is_empty()) {
            let name = field.split(':').next().unwrap_or_default().to_ascii_lowercase();
            if !matches!(
                name.as_str(),
                "host" | "connection" | "proxy-connection" | "proxy-authorization" | "keep-alive"
            ) {
                first.push_str(field);
                first.push_str("\r\n");
            }
        }
        first.push_str("\r\n");
        Some(Self { host, port, connect: false, first: first.into_bytes() })
    }
}

/// `host:port` or `[address]:port`.
fn authority(text: &str, usual: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
        Some(_) => return None,
        None => usual?,
    };
    let fits = |symbol: char| symbol.is_ascii_alphanumeric() || ".-_:".contains(symbol);
    (!host.is_empty() && host.len() <= 253 && host.chars().all(fits) && port != 0).then(|| (host.to_owned(), port))
}

async fn carry(mut socket: TcpStream, stream: Stream, request: &Request, rest: &[u8], body: Vec<u8>, last: bool) {
    if request.connect && socket.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_err() {
        return;
    }
    let Stream { reader, writer } = stream;
    let (from_service, to_service) = socket.into_split();
    let out = async {
        if writer.data(rest, false).await.is_err() {
            return;
        }
        copy_out(from_service, &writer).await;
    };
    tokio::join!(out, copy_in(reader, to_service, body, last));
}

async fn copy_out(mut from: OwnedReadHalf, to: &StreamWriter) {
    let mut piece = vec![0; 32_768];
    loop {
        match from.read(&mut piece).await {
            Ok(0) => {
                let _ = to.data(b"", true).await;
                return;
            }
            Ok(bytes) => {
                if to.data(&piece[..bytes], false).await.is_err() {
                    return;
                }
            }
            Err(_) => return to.reset(FailCode::Cancelled, "the service has closed its connection"),
        }
    }
}

async fn copy_in(mut from: StreamReader, mut to: OwnedWriteHalf, first: Vec<u8>, mut last: bool) {
    if to.write_all(&first).await.is_err() {
        return;
    }
    while !last {
        match from.next().await {
            Some(Inbound::Data { body, last: is_last }) => {
                if to.write_all(&body).await.is_err() {
                    return;
                }
                last = is_last;
            }
            // Dropped without a shutdown, so that the service sees that something is missing.
            Some(Inbound::Reset(_) | Inbound::Head { .. }) | None => return to.forget(),
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Option<(String, u16, String)> {
        let request = Request::read(head.as_bytes())?;
        Some((request.host, request.port, String::from_utf8(request.first).unwrap()))
    }

    #[test]
    fn requests_are_read_as_a_proxy_does() {
        let of = |host: &str, port, first: &str| Some((host.to_owned(), port, first.to_owned()));
        assert_eq!(read("CONNECT a.example:443 HTTP/1.1\r\nHost: b\r\n\r\n"), of("a.example", 443, ""));
        assert_eq!(read("CONNECT [::1]:22 HTTP/1.1\r\n\r\n"), of("::1", 22, ""));
        let plain = "GET http://a.example:8080/x?y HTTP/1.1\r\nHost: other\r\nProxy-Authorization: z\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(
            read(plain),
            of("a.example", 8080, "GET /x?y HTTP/1.1\r\nHost: a.example:8080\r\nConnection: close\r\n\r\n")
        );
        assert_eq!(
            read("GET http://a?b HTTP/1.0\r\n\r\n"),
            of("a", 80, "GET /?b HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n")
        );
        for bad in [
            "GET /x HTTP/1.1\r\n\r\n",
            "GET https://a/ HTTP/1.1\r\n\r\n",
            "CONNECT a HTTP/1.1\r\n\r\n",
            "CONNECT a:0 HTTP/1.1\r\n\r\n",
            "CONNECT a:99999 HTTP/1.1\r\n\r\n",
            "CONNECT a:+1 HTTP/1.1\r\n\r\n",
            "CONNECT u@a:1 HTTP/1.1\r\n\r\n",
            "CONNECT a%00:1 HTTP/1.1\r\n\r\n",
            "CONNECT a:1 HTTP/2\r\n\r\n",
            "CONNECT  a:1 HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
