//! Puts an edit of someone else's file on disk, or refuses and leaves it as it is.
//!
//! Order: our lock, the lock folder that Node programs use (`<file>.lock`), an advisory lock on the file itself, read,
//! edit, backup, temporary file, compare with what was read, rename, read back. A writer that changes the file in
//! between is noticed by the comparison and the edit starts again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{CliError, ExitCode};
use crate::files::{self, FileLock};

use super::json_edit::{Document, EditError};
use super::receipt::ReceiptBook;

/// Larger files are not Claude Code's.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// How long another program may keep the file.
const PATIENCE: Duration = Duration::from_secs(5);
/// After this time a lock folder was forgotten by a program that died; its holders touch it more often.
const LOCK_FOLDER_STALE: Duration = Duration::from_secs(10);
/// Edits that start again because the file changed under them.
const ATTEMPTS: usize = 5;
/// Backups of ours that are kept per file: the newest. An older one is of little use, and the files hold secrets.
const BACKUPS_KEPT: usize = 5;

/// A file that cannot be edited. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The system refused.
    #[error("{} cannot be {action}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// `read`, `written`, …
        action: &'static str,
        /// Why.
        error: io::Error,
    },
    /// Its content does not allow the edit.
    #[error("{} was left alone: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The user made it read-only.
    #[error("{} is read-only", path.display())]
    ReadOnly {
        /// Which file.
        path: PathBuf,
    },
    /// Another program keeps it locked or keeps changing it.
    #[error("{} is being changed by another program", path.display())]
    Busy {
        /// Which file.
        path: PathBuf,
    },
    /// What is on disk after the write is not what was written.
    #[error("{} does not hold what was written to it; the old content is in {}", path.display(), backup.display())]
    NotVerified {
        /// Which file.
        path: PathBuf,
        /// The copy made before.
        backup: PathBuf,
    },
}

impl From<ApplyError> for CliError {
    fn from(error: ApplyError) -> Self {
        let message = crate::error::sentence(&error.to_string());
        let (code, hint) = match &error {
            ApplyError::Io { path, .. } => ("io_error", format!("Check owner and rights of {}.", path.display())),
            ApplyError::Content { path, .. } => {
                ("broken_file", format!("Nothing was changed. Fix {} and run the command again.", path.display()))
            }
            ApplyError::ReadOnly { path } => {
                ("read_only", format!("Nothing was changed. Allow it with `chmod u+w {}`.", path.display()))
            }
            ApplyError::Busy { .. } => {
                ("busy", "Nothing was changed. Close running Claude Code sessions and try again.".to_owned())
            }
            ApplyError::NotVerified { .. } => ("not_verified", "Copy the backup back by hand.".to_owned()),
        };
        Self::new(ExitCode::Io, code, message).hint(hint)
    }
}

/// What happened to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied<T> {
    /// What the edit said.
    pub answer: T,
    /// Whether the file is another one now.
    pub changed: bool,
    /// The copy of the old content, when there was one.
    pub backup: Option<PathBuf>,
}

/// Where an edit keeps things.
#[derive(Debug)]
pub(super) struct EditContext<'a> {
    /// Our config folder.
    pub(super) config_dir: &'a Path,
    /// Where copies of the old content go.
    pub(super) backups: &'a Path,
}

/// What an edit is for: decides what happens with receipts and with files that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Adds; makes a missing file; extends the receipt.
    Install,
    /// Removes; leaves a missing file missing; uses up the receipt.
    Uninstall,
    /// Removes what has nothing to do with the installation; leaves file and receipt in place.
    Sweep,
}

impl EditContext<'_> {
    /// Looks whether an edit would work, without writing anything.
    pub(super) fn rehearse<T>(
        &self,
        file: &Path,
        edit: impl Fn(&mut Document) -> Result<T, EditError>,
    ) -> Result<T, ApplyError> {
        let target = resolve(file)?;
        let bytes = read(&target)?;
        refuse_read_only(&target)?;
        let mut doc = open(&target, bytes.as_deref(), None)?;
        edit(&mut doc).map_err(|error| content(&target, error))
    }

    /// Edits `file`.
    pub(super) fn apply<T>(
        &self,
        file: &Path,
        purpose: Purpose,
        edit: impl Fn(&mut Document) -> Result<T, EditError>,
    ) -> Result<Applied<T>, ApplyError> {
        let io_at = |path: &Path, action| {
            let path = path.to_path_buf();
            move |error| ApplyError::Io { path, action, error }
        };
        files::create_private_dir(self.config_dir).map_err(io_at(self.config_dir, "created"))?;
        let lock_path = self.config_dir.join("install.lock");
        let _ours = FileLock::take(&lock_path, PATIENCE).map_err(|error| busy_or(&lock_path, "locked", error))?;
        let target = resolve(file)?;
        if purpose == Purpose::Install
            && let Some(folder) = target.parent()
        {
            files::create_private_dir(folder).map_err(io_at(folder, "created"))?;
        }
        let _theirs = LockFolder::take(&target)?;
        let receipts = ReceiptBook::new(self.config_dir);
        for _ in 0..ATTEMPTS {
            let _file_lock = lock_file(&target)?;
            let before = read(&target)?;
            let mut doc = open(&target, before.as_deref(), receipts.get(&target))?;
            let answer = edit(&mut doc).map_err(|error| content(&target, error))?;
            let delete = purpose == Purpose::Uninstall && doc.receipt.file_created && doc.is_empty();
            if before.as_deref() == Some(doc.text().as_bytes()) && !delete || before.is_none() && doc.is_empty() {
                return Ok(Applied { answer, changed: false, backup: None });
            }
            refuse_read_only(&target)?;
            let backup = before.as_deref().map(|bytes| self.back_up(&target, bytes)).transpose()?;
            if before.is_none() {
                doc.receipt.file_created = true;
            }
            // The receipt first: if we die between the two, an unneeded receipt does no harm.
            if purpose == Purpose::Install {
                receipts.put(&target, Some(&doc.receipt)).map_err(io_at(self.config_dir, "written"))?;
            }
            let unchanged = |path: &Path| -> Result<(), WriteError> {
                let now = files::read_limited(path, MAX_BYTES).map_err(WriteError::Io)?;
                if now == before { Ok(()) } else { Err(WriteError::Changed) }
            };
            let written = if delete {
                unchanged(&target).and_then(|()| fs::remove_file(&target).map_err(WriteError::Io))
            } else {
                let mode = files::mode_of(&target).unwrap_or(files::PRIVATE_FILE);
                files::write_atomic(&target, doc.text().as_bytes(), mode, unchanged)
            };
            match written {
                Ok(()) => {}
                Err(WriteError::Changed) => continue,
                Err(WriteError::Io(error)) => return Err(io_at(&target, "written")(error)),
            }
            let wanted = (!delete).then(|| doc.text().as_bytes().to_vec());
            if read(&target)? != wanted {
                return Err(ApplyError::NotVerified { path: target, backup: backup.unwrap_or_default() });
            }
            if purpose == Purpose::Uninstall {
                receipts.put(&target, None).map_err(io_at(self.config_dir, "written"))?;
            }
            return Ok(Applied { answer, changed: true, backup });
        }
        Err(ApplyError::Busy { path: target })
    }

    /// Copies the old content to `<backups>/<name>.pre-claudemesh.<ms>` and drops our oldest copies.
    fn back_up(&self, target: &Path, bytes: &[u8]) -> Result<PathBuf, ApplyError> {
        let failed = |error| ApplyError::Io { path: self.backups.to_path_buf(), action: "written", error };
        files::create_private_dir(self.backups).map_err(failed)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!("{name}.pre-claudemesh.");
        let mut number = crate::clock::now_ms();
        let path = loop {
            let path = self.backups.join(format!("{prefix}{number}"));
            if !path.exists() {
                break path;
            }
            number += 1;
        };
        files::write_private(&path, bytes).map_err(failed)?;
        // Ours end in the time at which they were made; what someone put beside them under another name stays.
        let time_of = |name: &str| -> Option<i64> {
            let digits = name.strip_prefix(&prefix)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let mut old: Vec<(i64, PathBuf)> = fs::read_dir(self.backups)
            .map_err(failed)?
            .flatten()
            .filter_map(|entry| Some((time_of(&entry.file_name().to_string_lossy())?, entry.path())))
            .collect();
        old.sort();
        for (_, path) in old.iter().rev().skip(BACKUPS_KEPT) {
            let _ = fs::remove_file(path);
        }
        Ok(path)
    }
}

enum WriteError {
    Changed,
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn resolve(file: &Path) -> Result<PathBuf, ApplyError> {
    files::resolve_link(file).map_err(|error| ApplyError::Io { path: file.to_path_buf(), action: "read", error })
}

fn read(target: &Path) -> Result<Option<Vec<u8>>, ApplyError> {
    files::read_limited(target, MAX_BYTES).map_err(|error| ApplyError::Io {
        path: target.to_path_buf(),
        action: "read",
        error,
    })
}

fn open(
    target: &Path,
    bytes: Option<&[u8]>,
    receipt: Option<super::json_edit::Receipt>,
) -> Result<Document, ApplyError> {
    let reason = |reason: &str| ApplyError::Content { path: target.to_path_buf(), reason: reason.into() };
    let text = match bytes {
        None => "{}\n",
        Some(bytes) => std::str::from_utf8(bytes).map_err(|_| reason("it is not UTF-8 text"))?,
    };
    if text.trim().is_empty() {
        return Err(reason("it is empty, which is not valid JSON; delete it or write {} into it"));
    }
    Document::open(text, receipt).map_err(|error| content(target, error))
}

fn content(target: &Path, error: EditError) -> ApplyError {
    ApplyError::Content { path: target.to_path_buf(), reason: error.to_string() }
}

/// A rename would replace a read-only file; the user meant something by making it so.
fn refuse_read_only(target: &Path) -> Result<(), ApplyError> {
    match files::mode_of(target) {
        Some(mode) if mode & 0o200 == 0 => Err(ApplyError::ReadOnly { path: target.to_path_buf() }),
        _ => Ok(()),
    }
}

fn busy_or(path: &Path, action: &'static str, error: io::Error) -> ApplyError {
    if error.kind() == io::ErrorKind::TimedOut {
        ApplyError::Busy { path: path.to_path_buf() }
    } else {
        ApplyError::Io { path: path.to_path_buf(), action, error }
    }
}

/// The advisory lock of the file itself, for programs that use one.
fn lock_file(target: &Path) -> Result<Option<FileLock>, ApplyError> {
    match File::open(target) {
        Ok(file) => FileLock::take_file(file, PATIENCE).map(Some).map_err(|error| busy_or(target, "locked", error)),
        Err(_) => Ok(None),
    }
}

/// The lock that Node programs use for a file: a folder `<file>.lock`.
struct LockFolder {
    path: Option<PathBuf>,
}

impl LockFolder {
    fn take(target: &Path) -> Result<Self, ApplyError> {
        let mut name = target.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path: Some(path) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // Where no folder can be made the write will fail with a better message.
                Err(_) => return Ok(Self { path: None }),
            }
            let age = fs::metadata(&path).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > LOCK_FOLDER_STALE) && fs::remove_dir(&path).is_ok() {
                continue;
            }
            if Instant::now() >= deadline {
                return Err(ApplyError::Busy { path: target.to_path_buf() });
            }
            // Nothing announces that another program removes its folder.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for LockFolder {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_dir(path);
        }
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
