//! Which `claudemesh mcp` serves which session: one small file per server in `<config dir>/run/servers`.
//!
//! A session is found by Claude's session id; where the host has changed it without telling the server (`/clear`), by the
//! host's process among our own ancestors. A file whose process is dead is removed by anyone who meets it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::session_dir::{is_alive, start_time};
use crate::config::{ConfigError, ConfigStore};
use crate::files;
use crate::paths::Env;

/// Longest path that fits the address of a Unix socket on every system, with its closing zero.
const MAX_SOCKET_PATH: usize = 100;
/// Largest file that is read.
const MAX_RECORD_BYTES: u64 = 64 * 1024;
/// How far up the process tree the host is looked for.
const MAX_ANCESTORS: usize = 32;

/// One running server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// The server's process.
    pub pid: u32,
    /// Its start time, see [`start_time`].
    pub start_time: u64,
    /// The host that started it.
    pub host_pid: u32,
    /// Claude's session id as the host last told it.
    pub session_id: Option<String>,
    /// Session id on the wire: what the broker knows the session by.
    pub wire_session_id: String,
    /// Its socket.
    pub socket: PathBuf,
    /// Slugs of its meshes.
    pub meshes: Vec<String>,
    /// What the session is called in them.
    pub name: String,
}

impl Record {
    /// Whether the process that wrote it still runs.
    pub fn is_alive(&self) -> bool {
        is_alive(self.pid, self.start_time)
    }
}

/// Our entry in the registry; removed on drop together with its socket.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    record: Record,
}

impl Entry {
    /// Where the server should listen.
    pub fn socket(&self) -> &Path {
        &self.record.socket
    }

    /// Changes the entry.
    ///
    /// # Errors
    /// What the system says.
    pub fn update(&mut self, change: impl FnOnce(&mut Record)) -> std::io::Result<()> {
        let mut record = self.record.clone();
        change(&mut record);
        if record != self.record {
            write(&self.path, &record)?;
            self.record = record;
        }
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(&self.record.socket);
    }
}

/// Rewritten on each change of session; losing it costs a fallback, so it is not synced.
fn write(path: &Path, record: &Record) -> std::io::Result<()> {
    let text = serde_json::to_vec(record).map_err(std::io::Error::other)?;
    let temporary = path.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, files::PRIVATE_FILE);
    std::io::Write::write_all(&mut options.open(&temporary)?, &text)?;
    std::fs::rename(temporary, path)
}

impl ConfigStore {
    fn servers_dir(&self) -> PathBuf {
        self.dir().join("run").join("servers")
    }

    /// Registers this process as a server and chooses the place of its socket.
    ///
    /// # Errors
    /// [`ConfigError::Io`]
    pub fn register_server(&self, mut record: Record) -> Result<Entry, ConfigError> {
        let dir = self.servers_dir();
        let failed = |path: &Path, error| ConfigError::Io { path: path.to_path_buf(), action: "written", error };
        files::create_private_dir(&dir).map_err(|error| failed(&dir, error))?;
        record.pid = std::process::id();
        record.start_time = start_time(record.pid).unwrap_or(0);
        record.socket = socket_path(&dir, record.pid).map_err(|error| failed(&dir, error))?;
        let path = dir.join(format!("{}.json", record.pid));
        // A file of that name is of a dead process that had our pid.
        let _ = std::fs::remove_file(&record.socket);
        write(&path, &record).map_err(|error| failed(&path, error))?;
        Ok(Entry { path, record })
    }

    /// All running servers; files of dead ones are removed.
    pub fn servers(&self) -> Vec<Record> {
        let Ok(entries) = std::fs::read_dir(self.servers_dir()) else { return vec![] };
        let mut list = Vec::new();
        for path in
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json"))
        {
            let bytes = files::read_limited(&path, MAX_RECORD_BYTES).ok().flatten();
            let Some(record) = bytes.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok()) else { continue };
            if record.is_alive() {
                list.push(record);
            } else {
                let _ = std::fs::remove_file(&path);
                let _ = std::fs::remove_file(&record.socket);
            }
        }
        list.sort_by_key(|record| record.pid);
        list
    }

    /// The servers of one session: those that know its id, else those whose host is the nearest ancestor of this process.
    pub fn servers_of(&self, session_id: Option<&str>, env: &Env) -> Vec<Record> {
        let all = self.servers();
        if all.is_empty() {
            return all;
        }
        let known = |record: &&Record| session_id.is_some() && record.session_id.as_deref() == session_id;
        let by_id: Vec<Record> = all.iter().filter(known).cloned().collect();
        if !by_id.is_empty() {
            return by_id;
        }
        let host = env.text("CLAUDE_PID").and_then(|pid| pid.parse().ok());
        let hosts = host.into_iter().chain(ancestors());
        for host in hosts {
            let of_host: Vec<Record> = all.iter().filter(|record| record.host_pid == host).cloned().collect();
            if !of_host.is_empty() {
                return of_host;
            }
        }
        vec![]
    }

    /// The servers of the session that this process runs in, when it runs in one: hosts mark what they start.
    pub fn own_servers(&self, env: &Env) -> Vec<Record> {
        let marks = ["CLAUDECODE", "CLAUDE_CODE_SESSION_ID", crate::paths::SESSION_ID, crate::paths::SESSION_DIR];
        if env.flag("CLAUDEMESH_NO_SESSION") || !marks.iter().any(|mark| env.is_set(mark)) {
            return vec![];
        }
        let id = env.text("CLAUDE_CODE_SESSION_ID").or_else(|| env.text(crate::paths::SESSION_ID));
        self.servers_of(id, env)
    }
}

/// `<dir>/<pid>.sock`, or the same in a private folder with a short path when that would be too long for an address.
fn socket_path(dir: &Path, pid: u32) -> std::io::Result<PathBuf> {
    let path = dir.join(format!("{pid}.sock"));
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok(path);
    }
    let hash = hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(dir.as_os_str().as_encoded_bytes())[..6]);
    let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("claudemesh-{}-{hash}", user()));
    files::create_private_dir(&dir)?;
    check_private(&dir)?;
    Ok(dir.join(format!("{pid}.sock")))
}

/// A folder in a shared place must be ours alone: someone else may have made it before us.
fn check_private(dir: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::symlink_metadata(dir)?;
        if !meta.is_dir() || meta.uid() != user() || meta.mode() & 0o077 != 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, "the folder is not ours alone"));
        }
    }
    let _ = dir;
    Ok(())
}

fn user() -> u32 {
    #[cfg(unix)]
    return rustix::process::getuid().as_raw();
    #[cfg(not(unix))]
    return 0;
}

/// Our parent, its parent and so on, as far as the system tells.
pub fn ancestors() -> Vec<u32> {
    let mut list = Vec::new();
    let mut next = parent_of_self();
    while let Some(pid) = next.filter(|pid| *pid > 1 && list.len() < MAX_ANCESTORS) {
        list.push(pid);
        next = parent_of(pid);
    }
    list
}

fn parent_of_self() -> Option<u32> {
    #[cfg(unix)]
    return Some(std::os::unix::process::parent_id());
    #[cfg(not(unix))]
    return None;
}

/// The parent of a process, where the system has `/proc`.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything; the parent is the second after it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(session_id: &str, host_pid: u32) -> Record {
        Record { session_id: Some(session_id.into()), host_pid, ..Record::default() }
    }

    #[test]
    fn a_session_is_found_by_its_id_and_else_by_its_host() {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path());
        let parent = parent_of_self().unwrap();
        let mut entry = store.register_server(record("one", parent)).unwrap();
        let env = Env::of(&[]);
        assert_eq!(store.servers_of(Some("one"), &env).len(), 1);
        // The host says another id than the server knows: found by the process tree.
        assert_eq!(store.servers_of(Some("two"), &env).len(), 1);
        entry.update(|record| record.host_pid = u32::MAX).unwrap();
        assert!(store.servers_of(Some("two"), &env).is_empty());
        entry.update(|record| record.session_id = Some("two".into())).unwrap();
        assert_eq!(store.servers_of(Some("two"), &env).len(), 1);
        // Outside of a session nothing is found, no matter who our parent is.
        assert!(store.own_servers(&env).is_empty());
        assert_eq!(store.own_servers(&Env::of(&[("CLAUDE_CODE_SESSION_ID", "two")])).len(), 1);
        drop(entry);
        assert!(store.servers().is_empty());
    }

    #[test]
    fn dead_servers_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path());
        let entry = store.register_server(record("one", 1)).unwrap();
        let path = entry.path.clone();
        let mut dead = entry.record.clone();
        dead.start_time += 1;
        write(&path, &dead).unwrap();
        assert!(store.servers().is_empty());
        assert!(!path.exists());
    }

    #[test]
    fn a_long_path_gets_a_short_socket() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        std::fs::create_dir(&long).unwrap();
        let path = socket_path(&long, 7).unwrap();
        assert!(path.as_os_str().len() <= MAX_SOCKET_PATH, "{}", path.display());
        assert_eq!(files::mode_of(path.parent().unwrap()), Some(0o700));
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn our_parent_is_our_first_ancestor() {
        assert_eq!(ancestors().first().copied(), parent_of_self());
    }
}
