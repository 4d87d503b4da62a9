//! Which meshes hold sessions of a hook token, and hook statuses that arrived before their session.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use claudemesh_protocol::features::presence::HookSetStatus;
use claudemesh_protocol::id::MeshId;
use claudemesh_protocol::limits;

/// Parked statuses over the whole broker; the oldest goes first.
const MAX_PENDING: usize = 1_024;

struct Pending {
    token_hash: String,
    status: HookSetStatus,
    mono_ms: i64,
}

#[derive(Default)]
struct Statuses {
    meshes: HashMap<String, HashMap<MeshId, usize>>,
    pending: Vec<Pending>,
}

/// Shared between the HTTP route and the meshes. Locks are held for map accesses only.
#[derive(Default)]
pub struct HookStatusRegistry {
    statuses: Mutex<Statuses>,
}

impl HookStatusRegistry {
    /// A session with this token attached to a mesh.
    pub fn attach(&self, token_hash: &str, mesh: &MeshId) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        *statuses.meshes.entry(token_hash.into()).or_default().entry(mesh.clone()).or_default() += 1;
    }

    /// A session with this token left a mesh.
    pub fn detach(&self, token_hash: &str, mesh: &MeshId) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meshes) = statuses.meshes.get_mut(token_hash) {
            if let Some(count) = meshes.get_mut(mesh) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    meshes.remove(mesh);
                }
            }
            if meshes.is_empty() {
                statuses.meshes.remove(token_hash);
            }
        }
    }

    /// Meshes with sessions of this token.
    pub fn meshes_of(&self, token_hash: &str) -> HashSet<MeshId> {
        let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.meshes.get(token_hash).map(|meshes| meshes.keys().cloned().collect()).unwrap_or_default()
    }

    /// Parks a status for a session that may say hello in the next seconds.
    pub fn park(&self, token_hash: String, status: HookSetStatus, mono_ms: i64) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        prune(&mut statuses.pending, mono_ms);
        statuses.pending.retain(|old| {
            old.token_hash != token_hash || old.status.session_id != status.session_id || old.status.pid != status.pid
        });
        if statuses.pending.len() >= MAX_PENDING {
            statuses.pending.remove(0);
        }
        statuses.pending.push(Pending { token_hash, status, mono_ms });
    }

    /// Takes the parked status of a session that just said hello.
    pub fn claim(
        &self,
        token_hash: &str,
        session_id: &str,
        pid: u64,
        cwd: &str,
        mono_ms: i64,
    ) -> Option<HookSetStatus> {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        prune(&mut statuses.pending, mono_ms);
        let at = statuses.pending.iter().rposition(|entry| {
            entry.token_hash == token_hash && matches(&entry.status, session_id, pid, cwd) != Match::No
        })?;
        Some(statuses.pending.remove(at).status)
    }
}

fn prune(pending: &mut Vec<Pending>, mono_ms: i64) {
    let ttl = limits::millis(limits::PENDING_HOOK_TTL);
    pending.retain(|entry| mono_ms - entry.mono_ms < ttl);
}

/// How well a hook call fits a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// Not at all.
    No,
    /// Same directory only.
    Directory,
    /// Same process and directory.
    Process,
    /// Same session id.
    Session,
}

/// Compares by session id first, then (pid, cwd), then cwd. A call that names another session is for that one, even when it
/// comes from the same directory.
pub fn matches(status: &HookSetStatus, session_id: &str, pid: u64, cwd: &str) -> Match {
    if status.session_id.as_deref() == Some(session_id) {
        Match::Session
    } else if status.pid == Some(pid) && status.cwd == cwd {
        Match::Process
    } else if status.session_id.is_none() && status.cwd == cwd {
        Match::Directory
    } else {
        Match::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudemesh_protocol::features::presence::PeerStatus;

    fn status(session: Option<&str>, pid: Option<u64>, cwd: &str) -> HookSetStatus {
        HookSetStatus { cwd: cwd.into(), status: PeerStatus::Working, pid, session_id: session.map(Into::into) }
    }

    #[test]
    fn a_session_id_beats_everything() {
        assert_eq!(matches(&status(Some("s"), Some(1), "/x"), "s", 2, "/y"), Match::Session);
        assert_eq!(matches(&status(None, Some(1), "/x"), "s", 1, "/x"), Match::Process);
        assert_eq!(matches(&status(None, Some(3), "/x"), "s", 1, "/x"), Match::Directory);
        assert_eq!(matches(&status(None, None, "/z"), "s", 1, "/x"), Match::No);
        assert_eq!(matches(&status(Some("other"), Some(1), "/x"), "s", 1, "/x"), Match::Process, "after /clear");
        assert_eq!(matches(&status(Some("other"), Some(3), "/x"), "s", 1, "/x"), Match::No);
    }

    #[test]
    fn parked_statuses_expire_and_belong_to_their_token() {
        let statuses = HookStatusRegistry::default();
        statuses.park("t".into(), status(Some("s"), None, "/x"), 0);
        assert!(statuses.claim("other", "s", 1, "/x", 1).is_none());
        assert!(statuses.claim("t", "s", 1, "/y", 1).is_some());
        assert!(statuses.claim("t", "s", 1, "/y", 1).is_none(), "claimed once");
        statuses.park("t".into(), status(Some("s"), None, "/x"), 0);
        assert!(statuses.claim("t", "s", 1, "/x", 10_000).is_none());
        // Two sessions start in one directory: each gets its own, whichever says hello first.
        statuses.park("t".into(), status(Some("s"), Some(1), "/x"), 0);
        assert!(statuses.claim("t", "neighbour", 2, "/x", 1).is_none());
        assert!(statuses.claim("t", "s", 9, "/y", 1).is_some());
    }

    #[test]
    fn parked_statuses_are_bounded() {
        let statuses = HookStatusRegistry::default();
        for pid in 0..5_000 {
            statuses.park("t".into(), status(None, Some(pid), "/x"), 0);
        }
        assert_eq!(statuses.statuses.lock().unwrap().pending.len(), MAX_PENDING);
    }

    #[test]
    fn meshes_are_forgotten_with_their_last_session() {
        let statuses = HookStatusRegistry::default();
        let mesh = MeshId::from("m");
        statuses.attach("t", &mesh);
        statuses.attach("t", &mesh);
        statuses.detach("t", &mesh);
        assert_eq!(statuses.meshes_of("t").len(), 1);
        statuses.detach("t", &mesh);
        assert!(statuses.meshes_of("t").is_empty());
    }
}
