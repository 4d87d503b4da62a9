//! The way out of services: the broker dials for them, what their allow-list permits and nothing else.
//!
//! Names are resolved here and the addresses are looked at, so a name that is allowed does not lead to a private address. No rule is
//! the same as no way out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claudemesh_protocol::runner::frame::{Frame, Kind};
use claudemesh_protocol::runner::limits::MAX_DATA_BYTES;
use claudemesh_protocol::runner::window::Sending;
use claudemesh_protocol::runner::{BrokerAnswer, FailCode, Failure, RefusedWhy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::link::Exchange;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(15);

/// What may be reached: `host:port` entries. A host may begin with `*.`, a port may be `*`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rules(Vec<(String, Option<u16>)>);

impl Rules {
    /// From entries that were checked before; others match nothing.
    pub(super) fn new<'a>(entries: impl IntoIterator<Item = &'a String>) -> Self {
        let rule = |entry: &'a String| {
            let (host, port) = entry.rsplit_once(':')?;
            let port = if port == "*" { None } else { Some(port.parse().ok()?) };
            Some((normal(host), port))
        };
        Self(entries.into_iter().filter_map(rule).collect())
    }

    /// Whether some entry permits it.
    pub(super) fn permit(&self, host: &str, port: u16) -> bool {
        let host = normal(host);
        let fits = |rule: &str| match rule.strip_prefix("*.") {
            Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => rule == host,
        };
        self.0.iter().any(|(rule, of)| of.is_none_or(|of| of == port) && fits(rule))
    }
}

/// A host without case, brackets and the dot at its end.
fn normal(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase()
}

/// Whether an address is one of the open internet. What is not sure is not.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match parts {
        // Addresses that carry an older one in them.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(v4(high, low)),
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Of the one block that is handed out, without those for examples, tunnels and benchmarks.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Why there is no connection.
pub(super) struct Refused {
    why: RefusedWhy,
    message: String,
}

impl Refused {
    /// For people.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

fn refused<T>(why: RefusedWhy, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { why, message: message.into() })
}

/// Dials what rules permit. `private`: what the operator lets services reach among private addresses.
pub(super) async fn dial(rules: &Rules, private: &Rules, host: &str, port: u16) -> Result<TcpStream, Refused> {
    if !rules.permit(host, port) {
        return refused(RefusedWhy::NotAllowed, format!("`network_allow` of the service has no entry {host}:{port}"));
    }
    let bare = normal(host);
    let found = match bare.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => match tokio::time::timeout(CONNECT, tokio::net::lookup_host((bare.as_str(), port))).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) | Err(_) => return refused(RefusedWhy::Unresolved, format!("{host} has no address")),
        },
    };
    let allowed: Vec<SocketAddr> =
        found.iter().copied().filter(|at| is_public(at.ip()) || private.permit(&bare, port)).collect();
    if allowed.is_empty() && !found.is_empty() {
        let message =
            format!("{host} has a private address; the operator can allow {host}:{port} in `services.allow_private`");
        return refused(RefusedWhy::Private, message);
    }
    match tokio::time::timeout(CONNECT, TcpStream::connect(allowed.as_slice())).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => refused(RefusedWhy::Unreachable, format!("{host}:{port} cannot be reached: {error}")),
        Err(_) => refused(RefusedWhy::Unreachable, format!("{host}:{port} does not answer")),
    }
}

/// Tells the runner that there is no connection.
pub(super) async fn refuse(mut exchange: Exchange, refused: Refused) {
    let answer = BrokerAnswer::Refused { why: refused.why, message: refused.message };
    if let Ok(frame) = Frame::with_head(Kind::Head, exchange.number, &answer, Vec::new(), true) {
        // When the runner is gone, so is who asked.
        let _ = exchange.send(&frame).await;
    }
    // What the service has said so far needs no more answer.
    exchange.reset(FailCode::Cancelled, "refused".into()).await;
}

/// Tells an MCP server that its client cannot be asked: a call has no session behind it that could.
pub(super) async fn cannot(mut exchange: Exchange) {
    let message = "clients of a hosted server cannot be asked".to_owned();
    let answer = BrokerAnswer::Failed(Failure { code: FailCode::Unsupported, message: message.clone() });
    if let Ok(frame) = Frame::with_head(Kind::Head, exchange.number, &answer, Vec::new(), true) {
        let _ = exchange.send(&frame).await;
    }
    exchange.reset(FailCode::Unsupported, message).await;
}

/// What the runner takes now.
struct Credit {
    sending: Mutex<Sending>,
    more: Notify,
}

impl Credit {
    /// Waits until something may be sent, and says how much of what is wanted.
    async fn wait(&self, wanted: usize) -> usize {
        loop {
            let more = self.more.notified();
            let available = self.sending.lock().unwrap_or_else(PoisonError::into_inner).available().min(wanted);
            if available > 0 {
                return available;
            }
            more.await;
        }
    }

    fn take(&self, bytes: usize) {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
    }

    fn granted(&self, frame: &Frame) -> bool {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = frame.granted().is_some_and(|bytes| sending.granted(bytes).is_ok());
        drop(sending);
        self.more.notify_one();
        fits
    }
}

/// Carries bytes both ways until one side has ended both.
pub(super) async fn carry(mut exchange: Exchange, first: Frame, stream: TcpStream) {
    let opened = Frame::with_head(Kind::Head, exchange.number, &BrokerAnswer::Opened, Vec::new(), false);
    let Ok(opened) = opened else { return };
    if exchange.send(&opened).await.is_err() {
        return;
    }
    let (read, mut write) = stream.into_split();
    let credit = Arc::new(Credit { sending: Mutex::default(), more: Notify::new() });
    let back = back(read, exchange.sender(), Arc::clone(&credit));
    let there = async {
        let mut next = Some(first);
        while let Some(frame) = match next.take() {
            Some(frame) => Some(frame),
            None => exchange.frames.recv().await,
        } {
            match frame.kind {
                Kind::Credit if credit.granted(&frame) => {}
                Kind::Head | Kind::Data => {
                    if write.write_all(&frame.body).await.is_err() || exchange.took(frame.body.len()).await.is_err() {
                        return End::Broken;
                    }
                    if frame.last {
                        // The service has said all; the other side may go on.
                        let _ = write.shutdown().await;
                        return End::Said;
                    }
                }
                Kind::Reset => return End::Reset,
                _ => return End::Broken,
            }
        }
        End::Broken
    };
    let ended = {
        let (mut back, mut there) = (pin!(back), pin!(there));
        let (mut heard, mut said) = (false, false);
        loop {
            tokio::select! {
                () = &mut back, if !heard => heard = true,
                end = &mut there, if !said => match end {
                    End::Said => said = true,
                    End::Reset => break true,
                    End::Broken => break false,
                },
            }
            if heard && said {
                break true;
            }
        }
    };
    exchange.over = ended;
}

/// How the service's side of a connection ended.
enum End {
    Said,
    Reset,
    Broken,
}

/// What the host sends.
async fn back(mut read: tokio::net::tcp::OwnedReadHalf, sender: super::link::Sender, credit: Arc<Credit>) {
    let mut piece = vec![0; MAX_DATA_BYTES];
    loop {
        let most = credit.wait(MAX_DATA_BYTES).await;
        let bytes = read.read(&mut piece[..most]).await.unwrap_or(0);
        credit.take(bytes);
        let frame = Frame::data(sender.number, piece[..bytes].to_vec(), bytes == 0);
        if sender.send(&frame).await.is_err() || bytes == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_permits_its_host_and_port_and_nothing_beside() {
        let entries =
            ["api.example.org:443", "*.cdn.example:443", "[2001:db8::1]:80", "any.example:*"].map(String::from);
        let rules = Rules::new(&entries);
        for (host, port) in [
            ("API.example.org.", 443),
            ("a.cdn.example", 443),
            ("a.b.cdn.example", 443),
            ("2001:db8::1", 80),
            ("any.example", 1),
        ] {
            assert!(rules.permit(host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("api.example.org", 80),
            ("example.org", 443),
            ("xapi.example.org", 443),
            ("api.example.org.evil.example", 443),
            ("cdn.example", 443),
            ("evilcdn.example", 443),
            (".cdn.example", 443),
            ("2001:db8::2", 80),
            ("", 443),
        ] {
            assert!(!rules.permit(host, port), "{host}:{port}");
        }
        assert!(!Rules::default().permit("api.example.org", 443), "no rule is no way out");
    }

    #[test]
    fn private_and_local_addresses_are_told_apart() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::127.0.0.1",
            "64:ff9b:1::1",
            "fec0::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in
            ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn what_leads_to_this_machine_is_not_dialled_unless_the_operator_says_so() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let entries = ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"].map(|host| format!("{host}:{port}"));
        let rules = Rules::new(&entries);
        for host in ["127.0.0.1", "localhost", "0.0.0.0", "::ffff:127.0.0.1"] {
            let refused = dial(&rules, &Rules::default(), host, port).await.err().unwrap();
            assert_eq!(refused.why, RefusedWhy::Private, "{host}: {}", refused.message);
        }
        assert!(dial(&rules, &rules, "localhost", port).await.is_ok());
        let refused = dial(&Rules::default(), &rules, "localhost", port).await.err().unwrap();
        assert_eq!(
            refused.why,
            RefusedWhy::NotAllowed,
            "what the operator lets through still needs the service's rule"
        );
        let unknown = Rules::new(&["no-such-host.invalid:1".to_owned()]);
        let refused = dial(&unknown, &Rules::default(), "no-such-host.invalid", 1).await.err().unwrap();
        assert_eq!(refused.why, RefusedWhy::Unresolved);
    }
}
