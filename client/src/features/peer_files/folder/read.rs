//! Reading and listing below a shared folder.

use claudemesh_protocol::features::peer_files::limits::MAX_PATTERN_CHARS;
use claudemesh_protocol::features::peer_files::sealed::Entry;
use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::{AtFlags, Dir, FileType, Stat, fstat, statat};
use rustix::io::{Errno, pread};
use sha2::{Digest, Sha256};

use super::open::{Found, Level, SharedFolder, enter, failed, kind};
use super::{FilePart, FolderError, FolderList, ListLimits};
use crate::features::peer_files::policy;

/// Names that one list looks at: a folder of a hundred thousand files costs no more.
const MAX_LOOKED_AT: usize = 20_000;

impl SharedFolder {
    /// Reads at most `length` bytes from `offset` on. With the `version` of an earlier part the file must be the same still.
    ///
    /// # Errors
    /// [`FolderError`]
    pub fn read(&self, path: &str, offset: u64, length: u64, version: Option<&str>) -> Result<FilePart, FolderError> {
        let (file, stat) = match self.find(path)? {
            Found::File { file, stat } => (file, stat),
            Found::Folder(_) => return Err(FolderError::NotAFile),
        };
        let before = version_of(&stat);
        if version.is_some_and(|version| version != before) {
            return Err(FolderError::Changed);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let most = usize::try_from(length.min(size.saturating_sub(offset))).map_err(|_| FolderError::BadPath)?;
        let mut bytes = vec![0; most];
        let mut filled = 0;
        while filled < most {
            match pread(&file, &mut bytes[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let after = fstat(&file).map_err(failed)?;
        // Times of files are coarse: a file that was cut and written again may show the same ones.
        if version_of(&after) != before || filled < most {
            return Err(FolderError::Changed);
        }
        Ok(FilePart { bytes, size, version: before })
    }

    /// Lists what is in a folder below this one, by path.
    ///
    /// # Errors
    /// [`FolderError`]
    pub fn list(&self, path: &str, pattern: Option<&str>, limits: ListLimits) -> Result<FolderList, FolderError> {
        let wanted = pattern.map(Pattern::new).transpose()?;
        let levels = match self.find(path)? {
            Found::Folder(levels) => levels,
            Found::File { .. } => return Err(FolderError::NotAFolder),
        };
        let mut listing = Listing { folder: self, wanted, limits, looked_at: 0, bytes: 0, list: FolderList::default() };
        let mut levels = levels;
        listing.add(&mut levels, "", 1)?;
        let mut list = listing.list;
        list.entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(list)
    }
}

/// Changes with the content, the place and the rights of a file; says nothing of them.
fn version_of(stat: &Stat) -> String {
    let (device, inode) = super::open::identity(stat);
    let text = format!(
        "{device} {inode} {} {} {} {} {}",
        stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec
    );
    hex::encode(&Sha256::digest(text)[..8])
}

/// Which entries are wanted: those whose name fits, or whose path does when the glob has a `/`.
struct Pattern {
    glob: GlobMatcher,
    of_path: bool,
}

impl Pattern {
    fn new(text: &str) -> Result<Self, FolderError> {
        let bad = |why: String| FolderError::BadPattern(why);
        if text.chars().count() > MAX_PATTERN_CHARS {
            return Err(bad(format!("it has more than {MAX_PATTERN_CHARS} characters")));
        }
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
        let glob = glob.map_err(|error| bad(error.kind().to_string()))?.compile_matcher();
        Ok(Self { glob, of_path: text.contains('/') })
    }

    fn fits(&self, path: &str, name: &str) -> bool {
        self.glob.is_match(if self.of_path { path } else { name })
    }
}

/// A list that is being made.
struct Listing<'a> {
    folder: &'a SharedFolder,
    wanted: Option<Pattern>,
    limits: ListLimits,
    looked_at: usize,
    bytes: usize,
    list: FolderList,
}

impl Listing<'_> {
    /// Adds what is in the last of these folders, and what is below it.
    fn add(&mut self, levels: &mut Vec<Level>, before: &str, depth: u32) -> Result<(), FolderError> {
        let Some(here) = levels.last() else { return Ok(()) };
        for name in self.names(here)? {
            let Some(here) = levels.last() else { return Ok(()) };
            let path = format!("{before}{name}");
            // What vanishes or cannot be looked at is not there.
            let Ok(found) = statat(&here.fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let (is_dir, size, goes_down) = match kind(&found) {
                FileType::Directory => (true, None, true),
                FileType::RegularFile => (false, u64::try_from(found.st_size).ok(), false),
                // Where it leads is listed there.
                FileType::Symlink => match self.behind(levels, &name) {
                    Some(Found::File { stat, .. }) => (false, u64::try_from(stat.st_size).ok(), false),
                    Some(Found::Folder(_)) => (true, None, false),
                    None => continue,
                },
                _ => continue,
            };
            if self.folder.ignores(levels, &name, is_dir) {
                continue;
            }
            if self.wanted.as_ref().is_none_or(|pattern| pattern.fits(&path, &name)) {
                self.bytes += path.len();
                if self.list.entries.len() >= self.limits.entries || self.bytes > self.limits.bytes {
                    self.list.more = true;
                    return Ok(());
                }
                self.list.entries.push(Entry { path: path.clone(), is_dir, size });
            }
            if goes_down && depth < self.limits.depth {
                let Some(here) = levels.last() else { return Ok(()) };
                // One that may not be entered stands in the list, and nothing of it.
                let Ok(level) = enter(here, name) else { continue };
                levels.push(level);
                self.add(levels, &format!("{path}/"), depth + 1)?;
                levels.pop();
            }
            if self.list.more {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The names in a folder that may be given, sorted.
    fn names(&mut self, here: &Level) -> Result<Vec<String>, FolderError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&here.fd).map_err(failed)? {
            self.looked_at += 1;
            if self.looked_at > MAX_LOOKED_AT {
                self.list.more = true;
                break;
            }
            let Ok(entry) = entry else { break };
            // A name that is no text cannot be asked for.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name != "." && name != ".." && policy::refused(name).is_none() {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What a link leads to, when that may be given.
    fn behind(&self, levels: &[Level], name: &str) -> Option<Found> {
        let path: Vec<&str> = levels.iter().skip(1).map(|level| level.name.as_str()).chain([name]).collect();
        self.folder.find(&path.join("/")).ok()
    }
}
