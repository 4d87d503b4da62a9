//! Bundles: zip archives that are unpacked into an empty folder, and nowhere else.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use claudemesh_protocol::runner::limits::{MAX_BUNDLE_BYTES, MAX_BUNDLE_ENTRIES, MAX_PATH_BYTES, MAX_UNPACKED_BYTES};

/// Kinds of files in the mode of an entry.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// What was unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// A path that stays in its folder, of plain names.
fn safe(name: &str) -> anyhow::Result<PathBuf> {
    ensure!(name.len() <= MAX_PATH_BYTES, "a path of {} bytes is too long", name.len());
    ensure!(!name.contains(['\\', '\0', ':']) && !name.chars().any(char::is_control), "{name:?}: not a plain path");
    let path = Path::new(name);
    ensure!(path.components().all(|part| matches!(part, Component::Normal(_))), "{name:?}: it leaves the folder");
    Ok(path.to_owned())
}

/// Unpacks a bundle. A folder in which everything else lies is left out, as archives of repositories have it.
///
/// # Errors
/// It is no zip, or holds a path outside of the folder, a link, the same file twice, or more than the bounds.
pub(crate) fn unpack(bytes: &[u8], target: &Path) -> anyhow::Result<Unpacked> {
    unpack_within(bytes, target, MAX_UNPACKED_BYTES)
}

fn unpack_within(bytes: &[u8], target: &Path, most: u64) -> anyhow::Result<Unpacked> {
    ensure!(bytes.len() as u64 <= MAX_BUNDLE_BYTES, "the bundle has more than {MAX_BUNDLE_BYTES} bytes");
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).context("it is no zip")?;
    ensure!(zip.len() <= MAX_BUNDLE_ENTRIES, "more than {MAX_BUNDLE_ENTRIES} entries");
    let names = (0..zip.len()).map(|at| entry_path(&mut zip, at)).collect::<anyhow::Result<Vec<_>>>()?;
    let top = common_top(&names);
    let mut written = HashSet::new();
    let mut unpacked = Unpacked { files: 0, bytes: 0 };
    for (at, (path, is_folder)) in names.iter().enumerate() {
        let path = top.as_deref().map_or(path.as_path(), |top| path.strip_prefix(top).unwrap_or(path));
        if path.as_os_str().is_empty() {
            continue;
        }
        let place = target.join(path);
        if *is_folder {
            std::fs::create_dir_all(&place)?;
            continue;
        }
        ensure!(written.insert(path.to_owned()), "{}: it is there twice", path.display());
        if let Some(folder) = place.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut entry = zip.by_index(at)?;
        let runs = entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(if runs { 0o700 } else { 0o600 }).open(&place)?;
        unpacked.bytes += copy(&mut entry, &mut file, most - unpacked.bytes)?;
        unpacked.files += 1;
    }
    Ok(unpacked)
}

fn entry_path(zip: &mut zip::ZipArchive<Cursor<&[u8]>>, at: usize) -> anyhow::Result<(PathBuf, bool)> {
    let entry = zip.by_index_raw(at)?;
    let name = entry.name().context("a name that is no text")?.into_owned();
    ensure!(!entry.encrypted(), "{name:?}: it is encrypted");
    let kind = entry.unix_mode().unwrap_or(0) & KIND;
    if ![0, REGULAR, FOLDER].contains(&kind) {
        bail!("{name:?}: it is neither a file nor a folder");
    }
    Ok((safe(name.strip_suffix('/').unwrap_or(&name))?, entry.is_dir()))
}

/// The folder in which everything lies.
fn common_top(names: &[(PathBuf, bool)]) -> Option<PathBuf> {
    let first = names.first()?.0.components().next()?.as_os_str().to_owned();
    let all =
        names.iter().all(|(path, is_folder)| path.starts_with(&first) && (*is_folder || path.components().count() > 1));
    all.then(|| first.into())
}

/// Copies at most `most` bytes: what an entry says of its length is not believed.
fn copy(from: &mut impl Read, to: &mut impl Write, most: u64) -> anyhow::Result<u64> {
    let copied = std::io::copy(&mut from.take(most + 1), to)?;
    ensure!(copied <= most, "it unpacks to more than what is allowed");
    Ok(copied)
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
