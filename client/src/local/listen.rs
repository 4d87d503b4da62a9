//! Addresses to listen on, in the forms that people type.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::error::CliError;
use crate::output::clean;

/// Reads `0.0.0.0:7900`, `0.0.0.0`, `:7900` (all addresses), `7900` (this machine), `localhost:7900`, `[::]:7900`, `host`. Without
/// a port it is the `usual` one.
///
/// # Errors
/// Exit 3, with the forms that are understood.
pub(super) fn address(text: &str, usual: u16) -> Result<SocketAddr, CliError> {
    let wrong = || {
        CliError::invalid_args(format!("'{}' is not a valid address to listen on.", clean(text)))
            .hint("Expected an address and a port, for example 127.0.0.1:7900, 0.0.0.0:7900 (other machines too) or localhost.")
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(wrong());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, usual));
    }
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().map_err(|_| wrong())?),
        None => (text, usual),
    };
    match host {
        "" | "*" => return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
        "localhost" => return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        "[::1]" => return Ok(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port)),
        _ if host.contains(['/', ':', '@', ' ']) => return Err(wrong()),
        _ => {}
    }
    let found = (host, port).to_socket_addrs().map_err(|_| wrong())?;
    // IPv4 first: it is what others can type.
    found.min_by_key(SocketAddr::is_ipv6).ok_or_else(wrong)
}

/// A short name for a mesh, from the name of this machine or else of its user.
pub(super) fn mesh_name(host: Option<&str>, user: Option<&str>) -> String {
    let short = |text: &str| -> Option<String> {
        let first = text.split('.').next().unwrap_or_default();
        let letters: String = first
            .to_lowercase()
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
            .collect();
        let name: String = letters.trim_matches('-').chars().take(32).collect();
        let name = name.trim_end_matches('-').to_owned();
        // What every machine is called says nothing about this one.
        (name.len() >= 2 && name != "localhost" && name != "local").then_some(name)
    };
    host.and_then(short).or_else(|| user.and_then(short)).unwrap_or_else(|| "our-mesh".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_type_them() {
        for (typed, meant) in [
            ("127.0.0.1:7901", "127.0.0.1:7901"),
            ("0.0.0.0", "0.0.0.0:7900"),
            (":7900", "0.0.0.0:7900"),
            ("*:80", "0.0.0.0:80"),
            ("7901", "127.0.0.1:7901"),
            ("localhost:7900", "127.0.0.1:7900"),
            ("localhost", "127.0.0.1:7900"),
            ("::", "[::]:7900"),
            ("[::1]", "[::1]:7900"),
            ("[::1]:7901", "[::1]:7901"),
            (" 10.1.2.3 ", "10.1.2.3:7900"),
        ] {
            assert_eq!(address(typed, 7900).unwrap(), meant.parse().unwrap(), "{typed}");
        }
        assert_eq!(address("0.0.0.0", 27900).unwrap(), "0.0.0.0:27900".parse().unwrap(), "where the mesh is already");
        for bad in
            ["", "nonsense host", "127.0.0.1:x", "127.0.0.1:99999", "ws://127.0.0.1:7900/ws", "a@b:1", "256.1.1.1:1"]
        {
            assert!(address(bad, 7900).unwrap_err().hint.is_some_and(|hint| hint.contains("127.0.0.1:7900")), "{bad}");
        }
    }

    #[test]
    fn a_mesh_for_others_is_called_after_its_machine() {
        assert_eq!(mesh_name(Some("Anvil.example.org"), Some("ann")), "anvil");
        assert_eq!(mesh_name(Some("Ann's MacBook"), None), "ann-s-macbook");
        assert_eq!(mesh_name(Some("localhost"), Some("ann")), "ann");
        assert_eq!(mesh_name(None, None), "our-mesh");
        assert_eq!(mesh_name(Some(&format!("{}-x", "a".repeat(31))), None).len(), 31);
    }
}
