//! Plain blocking HTTP for hooks, the doctor and enrolment. TLS is set up only when a URL asks for it.

use std::time::Duration;

use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

/// An HTTP client for one base address, with a limit for the whole exchange. Statuses of 400 and more are answers, not
/// errors. It takes the way that [`crate::proxy`] chooses.
///
/// # Errors
/// A sentence part about a proxy of the environment that cannot be used.
pub fn agent(base: &str, limit: Duration) -> Result<ureq::Agent, String> {
    Ok(builder(base)?.timeout_global(Some(limit)).build().into())
}

/// As [`agent`], for bytes of any number: `connect` and `answer` bound the beginning and the end of an exchange, `stall` the time
/// without a byte.
///
/// # Errors
/// As [`agent`].
pub fn transfer_agent(base: &str, connect: Duration, answer: Duration, stall: Duration) -> Result<ureq::Agent, String> {
    let builder = builder(base)?
        .timeout_connect(Some(connect))
        .timeout_recv_response(Some(answer))
        .timeout_per_read(Some(stall))
        .timeout_per_write(Some(stall));
    Ok(builder.build().into())
}

fn builder(base: &str) -> Result<ConfigBuilder<AgentScope>, String> {
    let mut builder = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("claudemesh/", env!("CARGO_PKG_VERSION")))
        .proxy(proxy(base)?);
    if let Some(roots) = base.starts_with("https://").then(system_roots).flatten() {
        builder = builder.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(builder)
}

fn proxy(base: &str) -> Result<Option<ureq::Proxy>, String> {
    let Some(proxy) = crate::proxy::for_url(base)? else { return Ok(None) };
    let mut builder = ureq::Proxy::builder(ureq::ProxyProtocol::Http).host(&proxy.host).port(proxy.port);
    if let Some((name, password)) = &proxy.credentials {
        builder = builder.username(name).password(password);
    }
    builder.build().map(Some).map_err(|error| format!("the proxy {proxy} cannot be used: {error}"))
}

/// The certificates that this system trusts, as for the WebSocket: a company's own authority is one of them, or that of
/// `SSL_CERT_FILE`. `None` when the system has none; Mozilla's are used then.
fn system_roots() -> Option<RootCerts> {
    let certificates = rustls_native_certs::load_native_certs().certs;
    if certificates.is_empty() {
        return None;
    }
    Some(certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).into())
}

/// Whether a URL names this machine itself.
pub fn is_loopback(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_is_recognised_by_host_only() {
        for url in ["ws://127.0.0.1:7900/ws", "http://localhost", "ws://[::1]:7900/ws", "http://u@127.8.9.1/x"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in
            ["ws://127.0.0.1.example.org/ws", "http://localhost@evil.org/", "wss://10.0.0.1/ws", "ws://[fe80::1]/"]
        {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
