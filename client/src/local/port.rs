//! Who has the port at which clients look for a broker first.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long someone on this machine may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Who listens at an address of this machine, in words; `None` when no one does.
pub(super) fn taken_by(address: SocketAddr) -> Option<String> {
    TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    Some(match listener(address.port()) {
        Some((pid, name)) => format!("{} (process {pid})", crate::output::clean(&name)),
        // Of another user, or of another network namespace.
        None => "another program".to_owned(),
    })
}

/// Process and name of the program that listens on a port, as far as this user may see.
#[cfg(target_os = "linux")]
fn listener(port: u16) -> Option<(u32, String)> {
    let mut sockets = vec![];
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = std::fs::read_to_string(table).unwrap_or_default();
        sockets.extend(table.lines().filter_map(|row| Some(format!("socket:[{}]", listening_inode(row, port)?))));
    }
    let holds = |pid: u32| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = open.filter_map(|file| std::fs::read_link(file.path()).ok());
        links.any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let pid = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid| holds(*pid))?;
    // The name only: a command line may hold secrets.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim().to_owned()))
}

#[cfg(not(target_os = "linux"))]
fn listener(_: u16) -> Option<(u32, String)> {
    None
}

/// The inode in a row of `/proc/net/tcp` that listens (state `0A`) on this port.
#[cfg(target_os = "linux")]
fn listening_inode(row: &str, port: u16) -> Option<&str> {
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (_, own) = fields.get(1)?.rsplit_once(':')?;
    let listens = u16::from_str_radix(own, 16) == Ok(port) && *fields.get(3)? == "0A";
    listens.then(|| fields.get(9).copied()).flatten()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found_and_a_free_port_is_nobodys() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let who = taken_by(address).unwrap();
        assert!(who.ends_with(&format!("(process {})", std::process::id())), "{who}");
        drop(listener);
        assert_eq!(taken_by(address), None);
    }
}
