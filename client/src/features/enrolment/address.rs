//! Short names of meshes and addresses of brokers: which are fine, and which are safe.

use crate::error::CliError;
use crate::http;

/// An address that the broker gave of itself, with TLS when we reached the same host and port by TLS: behind a proxy it does
/// not know how it is reached, and a secure link must not become a plain connection.
pub(super) fn keep_secure(base: &str, url: &str) -> String {
    let authority = |url: &str| -> Option<String> {
        let (_, rest) = url.split_once("://")?;
        Some(rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase())
    };
    if base.starts_with("https://") && authority(base) == authority(url) {
        for (plain, secure) in [("ws://", "wss://"), ("http://", "https://")] {
            if let Some(rest) = url.strip_prefix(plain) {
                return format!("{secure}{rest}");
            }
        }
    }
    url.to_owned()
}

/// The WebSocket URL of a broker given its HTTP address.
pub fn broker_ws(base: &str) -> String {
    match base.split_once("://") {
        Some(("https", rest)) => format!("wss://{rest}/ws"),
        Some((_, rest)) => format!("ws://{rest}/ws"),
        None => format!("ws://{base}/ws"),
    }
}

/// A local short name: lower-case letters, digits and hyphens, 2 to 32, not a hyphen first.
///
/// # Errors
/// Exit 3.
pub fn check_slug(slug: &str) -> Result<(), CliError> {
    let fine = (2..=32).contains(&slug.len())
        && !slug.starts_with('-')
        && slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fine {
        return Ok(());
    }
    Err(CliError::invalid_args(format!("'{}' is not a valid short name for a mesh.", crate::output::clean(slug)))
        .hint("Lower-case letters, digits and hyphens, 2 to 32 characters, for example `dev-team`."))
}

/// A broker address without a path is the place where brokers listen.
pub(super) fn with_path(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) if !rest.trim_end_matches('/').contains(['/', '?', '#']) => {
            format!("{scheme}://{}/ws", rest.trim_end_matches('/'))
        }
        _ => url.to_owned(),
    }
}

/// Only WebSocket URLs without anything that a connection would not use.
pub(super) fn check_broker_url(url: &str) -> Result<(), CliError> {
    let host = url.strip_prefix("ws://").or_else(|| url.strip_prefix("wss://"));
    let host = host.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    if host.is_some_and(|host| !host.is_empty() && !host.contains('@')) && !url.chars().any(char::is_control) {
        return Ok(());
    }
    Err(CliError::invalid_args(format!("'{}' is not a valid broker address.", crate::output::clean(url)))
        .hint("Expected ws://HOST:PORT/ws or wss://HOST/ws."))
}

/// Whether keys and public messages would travel unprotected to another machine.
pub fn is_exposed(broker_url: &str) -> bool {
    broker_url.starts_with("ws://") && !http::is_loopback(broker_url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_and_broker_urls_are_checked() {
        assert!(check_slug("dev-team").is_ok());
        for bad in ["", "a", "-ab", "Team", "a b", "a/b", &"x".repeat(33)] {
            assert!(check_slug(bad).is_err(), "{bad}");
        }
        assert!(check_broker_url("ws://h:1/ws").is_ok());
        assert!(check_broker_url("wss://h").is_ok());
        for bad in ["http://h/ws", "ws://", "ws:///ws", "ws://user@h/ws", "ws://h/\n", "javascript:x"] {
            assert!(check_broker_url(bad).is_err(), "{bad}");
        }
        assert!(is_exposed("ws://10.0.0.1/ws"));
        assert!(!is_exposed("ws://127.0.0.1:7900/ws"));
        assert!(!is_exposed("wss://10.0.0.1/ws"));
    }

    #[test]
    fn an_address_without_a_path_is_completed() {
        for (given, expected) in [
            ("ws://h:1", "ws://h:1/ws"),
            ("wss://h/", "wss://h/ws"),
            ("ws://h:1/ws", "ws://h:1/ws"),
            ("wss://h/mesh/ws", "wss://h/mesh/ws"),
        ] {
            assert_eq!(with_path(given), expected);
        }
    }

    #[test]
    fn a_secure_link_does_not_become_a_plain_connection() {
        assert_eq!(keep_secure("https://h:1", "ws://h:1/ws"), "wss://h:1/ws");
        assert_eq!(keep_secure("https://h", "http://H/i/ABC"), "https://H/i/ABC");
        assert_eq!(keep_secure("http://h:1", "ws://h:1/ws"), "ws://h:1/ws");
        assert_eq!(keep_secure("https://h:1", "ws://other:1/ws"), "ws://other:1/ws");
        assert_eq!(keep_secure("https://h:1", "wss://h:1/ws"), "wss://h:1/ws");
    }
}
