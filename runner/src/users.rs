//! Users of services: each has one of its own, so neither files nor processes of another one are within its reach.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A user and its group of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User(pub(crate) u32);

/// The pool.
#[derive(Debug)]
pub(crate) struct Users {
    first: u32,
    /// Not as root nothing can be given to another user.
    separate: bool,
    taken: Mutex<BTreeSet<u32>>,
}

/// Folders in which every user may write.
const SHARED: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

impl Users {
    pub(crate) fn new(first: u32) -> Self {
        let separate = rustix::process::geteuid().is_root();
        Self { first, separate, taken: Mutex::default() }
    }

    pub(crate) fn separate(&self) -> bool {
        self.separate
    }

    /// A free one; `None` when the runner is not root, and all services are its own user.
    pub(crate) fn take(&self) -> Option<User> {
        if !self.separate {
            return None;
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = (self.first..).find(|uid| !taken.contains(uid))?;
        taken.insert(uid);
        Some(User(uid))
    }

    /// Gives one back whose processes are ended and whose folder is removed.
    pub(crate) fn give_back(&self, user: User) {
        for folder in SHARED {
            remove_files_of(Path::new(folder), user);
        }
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&user.0);
    }
}

/// What the user left in a shared folder, so that the next one with its number finds nothing.
fn remove_files_of(folder: &Path, user: User) {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(found) = entry.path().symlink_metadata() else { continue };
        if found.uid() != user.0 {
            continue;
        }
        // The standard library follows no links here.
        let _ = if found.is_dir() { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
    }
}
