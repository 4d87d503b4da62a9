//! The files of the log: the one that is written, and those that were put aside, oldest first.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Last, Tail};
use crate::files::FileLock;

/// `audit-000000001234.log`: the number is that of its last record.
fn archive_path(path: &Path, seq: u64) -> PathBuf {
    path.with_file_name(format!("audit-{seq:012}.log"))
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("audit-")?.strip_suffix(".log")?.parse().ok()
}

/// Files that were put aside, oldest first.
fn archives(path: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = path.parent().unwrap_or(path);
    let mut list = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        list.extend(number(&path).map(|number| (number, path)));
    }
    list.sort();
    Ok(list.into_iter().map(|(_, path)| path).collect())
}

/// Puts the file aside whose last record has this number.
pub(super) fn put_aside(path: &Path, seq: u64) -> io::Result<()> {
    let to = archive_path(path, seq);
    // Never over an older one: that would lose records.
    if to.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(path, to)
}

/// The last record of the newest file that was put aside.
pub(super) fn newest(path: &Path) -> io::Result<Option<Last>> {
    match archives(path)?.last() {
        Some(newest) => Ok(Tail::read(&mut File::open(newest)?)?.last),
        None => Ok(None),
    }
}

/// The oldest files when there are more than `keep`, each with its last record.
pub(super) fn too_many(path: &Path, keep: usize) -> io::Result<Vec<(PathBuf, Last)>> {
    let mut list = archives(path)?;
    list.truncate(list.len().saturating_sub(keep));
    let end = |path: PathBuf| -> io::Result<Option<(PathBuf, Last)>> {
        Ok(Tail::read(&mut File::open(&path)?)?.last.map(|last| (path, last)))
    };
    list.into_iter().map(end).filter_map(Result::transpose).collect()
}

/// Opens all files of the log, oldest first, with their names and lengths of now. Under the lock, so that none is put aside
/// meanwhile and no line is half written; without it where the folder cannot be written.
pub(super) fn open_all(path: &Path, patience: Duration) -> io::Result<Vec<(String, File, u64)>> {
    if !path.parent().is_some_and(Path::is_dir) {
        return Ok(vec![]);
    }
    let _lock = FileLock::take(&path.with_extension("lock"), patience).ok();
    let mut list = archives(path)?;
    list.push(path.to_path_buf());
    let mut opened = Vec::new();
    for path in list {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match File::open(&path) {
            Ok(file) => {
                let length = file.metadata()?.len();
                opened.push((name, file, length));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}
