//! The open folder, and the walk to a place below it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ignore::gitignore::Gitignore;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, open, openat, readlinkat, stat, statat};
use rustix::io::Errno;

use super::FolderError;
use super::ignored::{self, Above, MAX_LIST_BYTES};
use crate::features::peer_files::policy;

/// Links on one way: as many as systems follow.
const MAX_LINKS: usize = 40;
/// Parts of one way, those of links included.
const MAX_PARTS: usize = 1_000;

/// A folder that is shown to peers.
#[derive(Debug)]
pub struct SharedFolder {
    path: PathBuf,
    root: OwnedFd,
    id: (u64, u64),
    above: Above,
}

/// A folder on the way.
pub(super) struct Level {
    /// Its name; empty for the shared folder itself.
    pub(super) name: String,
    pub(super) fd: OwnedFd,
    /// What its `.gitignore` says.
    ignore: Option<Gitignore>,
}

/// What a path means.
pub(super) enum Found {
    File { file: OwnedFd, stat: Stat },
    Folder(Vec<Level>),
}

/// What the system says, in our words.
pub(super) fn failed(error: Errno) -> FolderError {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => FolderError::Missing,
        // A link or another kind of file was put there since it was looked at.
        Errno::LOOP | Errno::MLINK | Errno::NXIO => FolderError::Changed,
        other => FolderError::Io(std::io::Error::from(other).kind()),
    }
}

/// What tells one file from another.
#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the types differ between systems")]
pub(super) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// Without waiting: a pipe that was put there since would never answer.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

impl SharedFolder {
    /// Opens a folder.
    ///
    /// # Errors
    /// What the system says; `NotADirectory` for anything else.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let path = path.canonicalize()?;
        let root = open(&path, FOLDER, Mode::empty())?;
        let id = identity(&fstat(&root)?);
        let above = Above::of(&path);
        Ok(Self { path, root, id, above })
    }

    /// Where it is, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where something below it is, as it was asked for.
    pub fn local_path(&self, path: &str) -> Option<PathBuf> {
        let parts = policy::parts(path).ok()?;
        Some(parts.iter().fold(self.path.clone(), |path, part| path.join(part)))
    }

    fn level(&self) -> Result<Level, FolderError> {
        // What stands at its place now is what its user knows of.
        let there = stat(&self.path).map_err(|_| FolderError::Gone)?;
        if identity(&there) != self.id {
            return Err(FolderError::Gone);
        }
        let fd = openat(&self.root, ".", FOLDER, Mode::empty()).map_err(failed)?;
        Ok(Level { name: String::new(), ignore: list_of(&fd)?, fd })
    }

    /// Whether git ignores something in the last of these folders.
    pub(super) fn ignores(&self, levels: &[Level], name: &str, is_dir: bool) -> bool {
        let mut path = name.to_owned();
        for level in levels.iter().rev() {
            if let Some(said) = level.ignore.as_ref().and_then(|list| ignored::says(list, &path, is_dir)) {
                return said;
            }
            if !level.name.is_empty() {
                path = format!("{}/{path}", level.name);
            }
        }
        self.above.says(&path, is_dir).unwrap_or(false)
    }

    /// Walks to a place.
    pub(super) fn find(&self, path: &str) -> Result<Found, FolderError> {
        let parts = policy::parts(path)?.into();
        self.walk(vec![self.level()?], parts)
    }

    /// Walks on from a folder.
    pub(super) fn walk(&self, mut levels: Vec<Level>, mut parts: VecDeque<String>) -> Result<Found, FolderError> {
        let (mut links, mut walked) = (0, 0);
        while let Some(part) = parts.pop_front() {
            walked += 1;
            if walked > MAX_PARTS {
                return Err(FolderError::Missing);
            }
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    levels.pop();
                    if levels.is_empty() {
                        return Err(FolderError::Outside);
                    }
                    continue;
                }
                _ => {}
            }
            if let Some(why) = policy::refused(&part) {
                return Err(FolderError::Refused(why));
            }
            let Some(here) = levels.last() else { return Err(FolderError::Outside) };
            let found = statat(&here.fd, part.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            match kind(&found) {
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(FolderError::Missing);
                    }
                    let target = readlinkat(&here.fd, part.as_str(), Vec::<u8>::new()).map_err(failed)?;
                    let target = target.into_string().map_err(|_| FolderError::Missing)?;
                    if target.starts_with('/') {
                        return Err(FolderError::Outside);
                    }
                    for part in target.split('/').rev() {
                        parts.push_front(part.to_owned());
                    }
                }
                FileType::Directory => {
                    if self.ignores(&levels, &part, true) {
                        return Err(FolderError::Ignored);
                    }
                    let level = enter(here, part)?;
                    levels.push(level);
                }
                FileType::RegularFile if parts.iter().all(|part| part.is_empty() || part == ".") => {
                    if self.ignores(&levels, &part, false) {
                        return Err(FolderError::Ignored);
                    }
                    let file = openat(&here.fd, part.as_str(), FILE, Mode::empty()).map_err(failed)?;
                    let stat = fstat(&file).map_err(failed)?;
                    // What was opened counts, not what was there a moment ago.
                    return match kind(&stat) {
                        FileType::RegularFile => Ok(Found::File { file, stat }),
                        _ => Err(FolderError::NotAFile),
                    };
                }
                FileType::RegularFile => return Err(FolderError::NotAFolder),
                _ => return Err(FolderError::NotAFile),
            }
        }
        Ok(Found::Folder(levels))
    }
}

/// Opens a folder in another one, which must be a folder now.
pub(super) fn enter(here: &Level, name: String) -> Result<Level, FolderError> {
    let fd = openat(&here.fd, name.as_str(), FOLDER, Mode::empty()).map_err(failed)?;
    Ok(Level { ignore: list_of(&fd)?, name, fd })
}

/// The folder's `.gitignore`. One that cannot be read hides everything: no one knows what it says.
fn list_of(folder: &OwnedFd) -> Result<Option<Gitignore>, FolderError> {
    let file = match openat(folder, ".gitignore", FILE, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        // Git does not follow a link there either.
        Err(Errno::LOOP | Errno::MLINK) => return Ok(None),
        Err(_) => return Err(FolderError::Ignored),
    };
    if fstat(&file).map_or(true, |stat| kind(&stat) != FileType::RegularFile) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let read = File::from(file).take(MAX_LIST_BYTES + 1).read_to_end(&mut bytes);
    if read.is_err() || bytes.len() as u64 > MAX_LIST_BYTES {
        return Err(FolderError::Ignored);
    }
    Ok(Some(ignored::list(&String::from_utf8_lossy(&bytes))))
}
