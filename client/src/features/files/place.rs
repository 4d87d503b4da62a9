//! Where a downloaded file comes to lie: first in a temporary file beside its place, which a later try goes on with, then under its
//! own name, whole and checked.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use claudemesh_protocol::crypto::file::chunks::CHUNK_BYTES;
use sha2::{Digest, Sha256};

#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use super::form::Tally;
use crate::error::{CliError, ExitCode};
use crate::files::{self, FileLock};
use crate::output::clean;

/// How long a second download of the same file into the same place waits for the first.
const LOCK_PATIENCE: std::time::Duration = std::time::Duration::from_millis(200);

/// A place for a file.
pub(super) struct Place {
    target: PathBuf,
    part: PathBuf,
    replace: bool,
}

fn io_error(path: &Path, error: &io::Error) -> CliError {
    let error_words = CliError::io(format!("{}: {error}.", clean(&path.to_string_lossy())));
    match error.kind() {
        io::ErrorKind::StorageFull => {
            error_words.hint("The disk is full. Make room and run it again: it goes on where it was.")
        }
        _ => error_words,
    }
}

impl Place {
    /// The place `target` for one file. With `replace` a file that is there is replaced.
    ///
    /// # Errors
    /// Exit 6 when something is there already, 10 when the folder does not exist.
    pub(super) fn new(target: &Path, file_id: &str, replace: bool) -> Result<Self, CliError> {
        let target = std::path::absolute(target).map_err(|error| io_error(target, &error))?;
        let folder = target.parent().unwrap_or(Path::new("/"));
        let digest = hex::encode(Sha256::digest(format!("{file_id}\0{}", target.display())));
        let part = folder.join(format!(".claudemesh-{}.part", &digest[..24]));
        let place = Self { part, replace, target };
        place.check()?;
        Ok(place)
    }

    /// Where the file will be.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Where it grows.
    pub(super) fn part(&self) -> &Path {
        &self.part
    }

    fn check(&self) -> Result<(), CliError> {
        match fs::symlink_metadata(&self.target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error(&self.target, &error)),
            Ok(there) if there.is_dir() => Err(self.taken("is a folder")),
            Ok(_) if self.replace => Ok(()),
            Ok(_) => Err(self.taken("exists already")),
        }
    }

    fn taken(&self, why: &str) -> CliError {
        let path = self.target.to_string_lossy();
        CliError::new(
            ExitCode::AlreadyExists,
            "already_exists",
            format!("{} {why}; nothing was written.", clean(&path)),
        )
        .hint("Give another place, or replace the file with --force.")
        .field("path", path.into_owned())
    }

    /// Opens the temporary file, with what an earlier try has left. It is private and no link is followed.
    ///
    /// # Errors
    /// Exit 10, also when another process is downloading the same file into it.
    pub(super) fn open(&self) -> Result<Part, CliError> {
        let wrong = |error: io::Error| io_error(&self.part, &error);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        options.mode(files::PRIVATE_FILE).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(&self.part).map_err(wrong)?;
        let there = file.metadata().map_err(wrong)?;
        #[cfg(unix)]
        let own = there.uid() == rustix::process::geteuid().as_raw() && there.nlink() == 1;
        #[cfg(not(unix))]
        let own = true;
        if !there.is_file() || !own {
            return Err(CliError::io(format!("{} is not a file of yours.", clean(&self.part.to_string_lossy()))));
        }
        let lock = FileLock::take_file(file.try_clone().map_err(wrong)?, LOCK_PATIENCE).map_err(|error| match error
            .kind()
        {
            io::ErrorKind::TimedOut => CliError::new(
                ExitCode::AlreadyExists,
                "conflict",
                "Another process is downloading this file to the same place.",
            )
            .hint("Wait until it is done."),
            _ => wrong(error),
        })?;
        Ok(Part { file, _lock: lock })
    }

    /// Gives the whole file its name. Until now nothing of it was to be seen there.
    ///
    /// # Errors
    /// Exit 6 when something came there meanwhile, 10 when it cannot be renamed.
    pub(super) fn finish(&self, part: Part) -> Result<(), CliError> {
        let wrong = |error: io::Error| io_error(&self.target, &error);
        part.file.sync_all().map_err(wrong)?;
        self.check()?;
        if self.replace {
            fs::rename(&self.part, &self.target).map_err(wrong)?;
        } else {
            // Unlike a rename, a link never replaces what is there.
            match fs::hard_link(&self.part, &self.target) {
                Ok(()) => fs::remove_file(&self.part).map_err(wrong)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(self.taken("exists already")),
                // A file system without links.
                Err(_) => fs::rename(&self.part, &self.target).map_err(wrong)?,
            }
        }
        let folder = self.target.parent().unwrap_or(Path::new("/"));
        // Some file systems cannot sync a folder, and then there is nothing to do.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }

    /// Removes what an earlier try has left.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(&self.part);
    }
}

/// The temporary file of a download, held by this process.
pub(super) struct Part {
    file: File,
    _lock: FileLock,
}

impl Part {
    /// Reads what is there already, whole chunks of it, so that the hash at the end is that of the whole file.
    ///
    /// # Errors
    /// Exit 10.
    pub(super) fn read_back(&self) -> Result<Tally, CliError> {
        let read = || -> io::Result<Tally> {
            let mut tally = Tally::default();
            (&self.file).seek(SeekFrom::Start(0))?;
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            loop {
                chunk.clear();
                (&self.file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
                if chunk.len() < CHUNK_BYTES {
                    break;
                }
                tally.add(&chunk);
            }
            self.file.set_len(tally.bytes())?;
            (&self.file).seek(SeekFrom::Start(tally.bytes()))?;
            Ok(tally)
        };
        read().map_err(|error| CliError::io(format!("What an earlier try has left cannot be read: {error}.")))
    }

    /// Empties it.
    ///
    /// # Errors
    /// Exit 10.
    pub(super) fn restart(&self) -> Result<(), CliError> {
        let empty = self.file.set_len(0).and_then(|()| (&self.file).seek(SeekFrom::Start(0)));
        empty.map(drop).map_err(|error| CliError::io(format!("The temporary file cannot be emptied: {error}.")))
    }

    /// Where to write.
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_seen_whole_and_replaces_nothing_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("plan.pdf");
        let place = Place::new(&target, "id", false).unwrap();
        let part = place.open().unwrap();
        (&mut part.file()).write_all(b"half").unwrap();
        assert!(!target.exists() && place.part().exists());
        assert_eq!(files::mode_of(place.part()), Some(0o600));
        assert_eq!(place.open().err().map(|error| error.code), Some("conflict".into()), "one at a time");
        fs::write(&target, "mine").unwrap();
        assert_eq!(place.finish(part).unwrap_err().exit, ExitCode::AlreadyExists, "it came meanwhile");
        assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
        assert_eq!(Place::new(&target, "id", false).err().map(|error| error.exit), Some(ExitCode::AlreadyExists));
        let place = Place::new(&target, "id", true).unwrap();
        place.finish(place.open().unwrap()).unwrap();
        assert_eq!((fs::read_to_string(&target).unwrap().as_str(), place.part().exists()), ("half", false));
        assert!(Place::new(dir.path(), "id", true).is_err(), "a folder is not replaced");
    }

    #[test]
    fn an_earlier_try_is_taken_up_at_a_whole_chunk() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(&dir.path().join("x"), "id", false).unwrap();
        let part = place.open().unwrap();
        part.file().write_all(&vec![1; CHUNK_BYTES + 10]).unwrap();
        drop(part);
        let part = place.open().unwrap();
        let tally = part.read_back().unwrap();
        assert_eq!((tally.bytes(), part.file().metadata().unwrap().len()), (CHUNK_BYTES as u64, CHUNK_BYTES as u64));
        assert_eq!(tally.sha256(), hex::encode(Sha256::digest(vec![1; CHUNK_BYTES])));
        part.restart().unwrap();
        assert_eq!(part.read_back().unwrap().bytes(), 0);
        drop(part);
        place.forget();
        assert!(!place.part().exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_place_of_the_temporary_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(&dir.path().join("x"), "id", false).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, place.part()).unwrap();
        assert!(place.open().is_err());
        fs::remove_file(place.part()).unwrap();
        fs::hard_link(&victim, place.part()).unwrap();
        assert!(place.open().is_err(), "a file with a second name");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    }
}
