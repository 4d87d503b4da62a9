//! The lock of a data directory: of all processes that could serve from it, the one that holds the lock does.
//!
//! It is an advisory lock of the system on `broker.lock`, so it ends with the process however that dies. [`DataDirLock::wait`]
//! sleeps in the system until then: a successor is woken, not polling.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the lock file.
const FILE: &str = "broker.lock";

/// Held by the process that serves from a data directory; released when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct DataDirLock {
    dir: PathBuf,
    _file: Arc<File>,
}

impl DataDirLock {
    /// Takes the lock; makes the directory (0700) when it is missing. `None` when another process holds it.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn try_take(dir: &Path) -> io::Result<Option<Self>> {
        let file = open(dir)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { dir: dir.into(), _file: Arc::new(file) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the lock, blocking this thread until no one else holds it. Of many that wait one gets it.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn wait(dir: &Path) -> io::Result<Self> {
        let file = open(dir)?;
        loop {
            match file.lock() {
                Ok(()) => return Ok(Self { dir: dir.into(), _file: Arc::new(file) }),
                // A signal came to this thread.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn open(dir: &Path) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_has_one_holder_and_wakes_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDirLock::try_take(dir.path()).unwrap().unwrap();
        let second = held.clone();
        assert!(DataDirLock::try_take(dir.path()).unwrap().is_none());
        let waiting = {
            let dir = dir.path().to_path_buf();
            std::thread::spawn(move || DataDirLock::wait(&dir).map(|lock| lock.dir().to_path_buf()))
        };
        drop(held);
        assert!(DataDirLock::try_take(dir.path()).unwrap().is_none(), "a clone holds it");
        drop(second);
        assert_eq!(waiting.join().unwrap().unwrap(), dir.path());
    }
}
