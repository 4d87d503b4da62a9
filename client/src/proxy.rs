//! Which way leads to a broker: straight, or through a forward proxy of the environment. HTTP and WebSocket ask here, so both
//! take the same way.
//!
//! `HTTP_PROXY` is for `http://` and `ws://`, `HTTPS_PROXY` for `https://` and `wss://`, `ALL_PROXY` for both, in small letters,
//! too, which win. `NO_PROXY` lists the hosts that are reached straight. This machine is always reached straight.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;

/// A forward proxy that opens tunnels by `CONNECT`. Shown without its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name and password, decoded.
    pub credentials: Option<(String, String)>,
    /// The variable that names it.
    variable: String,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = crate::output::clean(&self.host);
        match host.contains(':') {
            true => write!(f, "http://[{host}]:{} ({})", self.port, self.variable),
            false => write!(f, "http://{host}:{} ({})", self.port, self.variable),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl Proxy {
    /// The value of the header `Proxy-Authorization`.
    pub fn authorization(&self) -> Option<String> {
        let (name, password) = self.credentials.as_ref()?;
        Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"))))
    }
}

/// The proxy for a URL, as the environment of this process says; `None` when it is reached straight.
///
/// # Errors
/// A sentence part about a variable whose value cannot be used.
pub fn for_url(url: &str) -> Result<Option<Proxy>, String> {
    choose(url, |name| std::env::var(name).ok())
}

/// What errors add about the way to a URL: nothing, or ` through the proxy http://host:port (HTTPS_PROXY)`.
pub fn words(url: &str) -> String {
    match for_url(url) {
        Ok(Some(proxy)) => format!(" through the proxy {proxy}"),
        Ok(None) | Err(_) => String::new(),
    }
}

fn choose(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Proxy>, String> {
    let Some((host, port)) = host_and_port(url) else { return Ok(None) };
    if crate::http::is_loopback(url) {
        return Ok(None);
    }
    let read = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let secure = url.starts_with("https://") || url.starts_with("wss://");
    let names = if secure { ["https_proxy", "HTTPS_PROXY"] } else { ["http_proxy", "HTTP_PROXY"] };
    let names = names.into_iter().chain(["all_proxy", "ALL_PROXY"]);
    let Some((name, value)) = names.into_iter().find_map(|name| Some((name, read(name)?))) else { return Ok(None) };
    let straight = read("no_proxy").or_else(|| read("NO_PROXY")).unwrap_or_default();
    if straight.split([',', ' ']).any(|rule| is_straight(rule.trim(), &host, port)) {
        return Ok(None);
    }
    parse(&value, name).map(Some)
}

/// A proxy URL; without a scheme it is `http`.
fn parse(value: &str, variable: &str) -> Result<Proxy, String> {
    // The value may hold a password and is not shown.
    let wrong = |what: &str| format!("{variable} {what}; expected http://[name:password@]host[:port]");
    let rest = match value.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) => {
            return Err(wrong(&format!(
                "names a proxy of the kind {}, which cannot be used",
                crate::output::clean(scheme)
            )));
        }
        None => value,
    };
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (credentials, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, rest),
    };
    let (host, port) =
        split_port(place, 80).filter(|(host, _)| !host.is_empty()).ok_or_else(|| wrong("is not a URL"))?;
    let decode = |text: &str| -> Result<String, String> {
        percent_decoded(text).ok_or_else(|| wrong("has credentials that are not UTF-8"))
    };
    let credentials = match credentials {
        Some(text) => {
            let (name, password) = text.split_once(':').unwrap_or((text, ""));
            Some((decode(name)?, decode(password)?))
        }
        None => None,
    };
    Ok(Proxy { host, port, credentials, variable: variable.to_owned() })
}

fn percent_decoded(text: &str) -> Option<String> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let code = std::str::from_utf8(tail.get(..2).unwrap_or_default()).ok();
        match code.filter(|_| *first == b'%').and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).ok()
}

/// Host and port of a URL, the host without brackets.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let place = rest.split(['/', '?', '#']).next()?;
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    split_port(place, if matches!(scheme, "https" | "wss") { 443 } else { 80 })
}

fn split_port(place: &str, usual: u16) -> Option<(String, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').unwrap_or(port))
        }
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let port = if port.is_empty() { usual } else { port.parse().ok()? };
    Some((host.to_ascii_lowercase(), port))
}

/// Whether a rule of `NO_PROXY` is about a host: `*`, a name with all names below it, an address, or a range of addresses
/// (`10.0.0.0/8`), each with or without a port.
fn is_straight(rule: &str, host: &str, port: u16) -> bool {
    if rule.is_empty() {
        return false;
    }
    if rule == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        if let Some((net, bits)) = rule.split_once('/') {
            return in_range(address, net, bits);
        }
        let bare = rule.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok_and(|rule| rule == address) {
            return true;
        }
    }
    let Some((name, of_port)) = split_port(rule, port) else { return false };
    let name = name.trim_start_matches("*.").trim_start_matches('.');
    let host = host.trim_end_matches('.');
    let below = host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !name.is_empty() && below && of_port == port
}

fn in_range(address: IpAddr, net: &str, bits: &str) -> bool {
    let Ok(bits) = bits.parse::<u32>() else { return false };
    match (address, net.parse::<IpAddr>()) {
        (IpAddr::V4(address), Ok(IpAddr::V4(net))) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            address.to_bits() & mask == net.to_bits() & mask
        }
        (IpAddr::V6(address), Ok(IpAddr::V6(net))) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            address.to_bits() & mask == net.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, vars: &[(&str, &str)]) -> Option<String> {
        let of = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        choose(url, of).unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn http_and_websocket_take_the_same_way() {
        let vars =
            [("HTTP_PROXY", "http://plain:3128"), ("https_proxy", "tls:8080"), ("HTTPS_PROXY", "http://other:1")];
        for url in ["http://broker.example/x", "ws://broker.example/ws"] {
            assert_eq!(chosen(url, &vars).as_deref(), Some("http://plain:3128 (HTTP_PROXY)"), "{url}");
        }
        for url in ["https://broker.example/x", "wss://broker.example/ws"] {
            assert_eq!(chosen(url, &vars).as_deref(), Some("http://tls:8080 (https_proxy)"), "{url}");
        }
        let all = [("ALL_PROXY", "http://[fd00::1]:3128"), ("HTTP_PROXY", "")];
        assert_eq!(chosen("ws://b/ws", &all).as_deref(), Some("http://[fd00::1]:3128 (ALL_PROXY)"));
        assert_eq!(chosen("wss://b/ws", &all).as_deref(), Some("http://[fd00::1]:3128 (ALL_PROXY)"));
        assert_eq!(chosen("ws://b/ws", &[("HTTPS_PROXY", "http://p")]), None);
    }

    #[test]
    fn this_machine_and_no_proxy_are_reached_straight() {
        let straight =
            |url: &str, rule: &str| chosen(url, &[("ALL_PROXY", "http://p:1"), ("NO_PROXY", rule)]).is_none();
        for url in ["ws://127.0.0.1:7900/ws", "http://localhost:1", "ws://[::1]/ws"] {
            assert!(straight(url, ""), "{url}");
        }
        for rule in ["*", "broker.example", ".example", "x, *.example", "broker.example:80", "a broker.example b"] {
            assert!(straight("ws://broker.example/ws", rule), "{rule}");
        }
        for rule in ["", "ample", "broker.example:81", "other.example", "broker.example.org"] {
            assert!(!straight("ws://broker.example/ws", rule), "{rule}");
        }
        for rule in ["10.0.0.0/8", "10.1.2.3", "10.1.2.3:80"] {
            assert!(straight("ws://10.1.2.3/ws", rule), "{rule}");
        }
        assert!(!straight("ws://11.1.2.3/ws", "10.0.0.0/8") && straight("ws://[fd00::2]/ws", "fd00::/64"));
        let both = [("ALL_PROXY", "http://p:1"), ("no_proxy", "b"), ("NO_PROXY", "x")];
        assert_eq!(chosen("ws://b/ws", &both), None);
    }

    #[test]
    fn credentials_are_used_and_never_shown() {
        let of = |_: &str| Some("http://me:p%40ss@p:3128/".to_owned());
        let proxy = choose("ws://b/ws", |name| of(name).filter(|_| name == "HTTP_PROXY")).unwrap().unwrap();
        assert_eq!(proxy.authorization().unwrap(), "Basic bWU6cEBzcw==");
        assert_eq!(
            (proxy.to_string(), format!("{proxy:?}")),
            ("http://p:3128 (HTTP_PROXY)".to_owned(), "Proxy(http://p:3128 (HTTP_PROXY))".to_owned())
        );
        for wrong in ["socks5://me:secret@p:1", "http://me:secret@p:port", "http://me:secret@"] {
            let error = parse(wrong, "ALL_PROXY").unwrap_err();
            assert!(error.starts_with("ALL_PROXY ") && !error.contains("secret"), "{error}");
        }
    }
}
