//! Careful files: bounded reads, atomic writes, locks that wait for at most a while.
//!
//! Every file of ours and every edit of other people's files goes through here, so that a crash at any moment leaves
//! the old content or the new one, never a half.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use claudemesh_protocol::name::is_invisible;
use unicode_normalization::UnicodeNormalization;

#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};

/// Files that hold secrets.
pub const PRIVATE_FILE: u32 = 0o600;
/// Folders that hold secrets.
pub const PRIVATE_DIR: u32 = 0o700;

/// An exclusive advisory lock on a lock file, released on drop or when the process dies.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock at `path` (created 0600 when missing), waiting at most `patience`.
    ///
    /// # Errors
    /// `TimedOut` when another process keeps it; otherwise what opening or locking said.
    pub fn take(path: &Path, patience: Duration) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        options.mode(PRIVATE_FILE);
        Self::take_file(options.open(path)?, patience)
    }

    /// Takes the lock of a file that is open already, waiting at most `patience`.
    ///
    /// # Errors
    /// As [`FileLock::take`].
    pub fn take_file(file: File, patience: Duration) -> io::Result<Self> {
        match file.try_lock() {
            Ok(()) => return Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        // The blocking call has no deadline of its own, so it waits on a thread; a thread left waiting ends with the
        // process, and a lock that it gets too late is dropped with the file.
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let result = file.lock().map(|()| Self { _file: file });
            let _ = sender.send(result);
        });
        match receiver.recv_timeout(patience) {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock")),
        }
    }
}

/// Creates `dir` and its parents, each new one 0700.
///
/// # Errors
/// What the system says.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(PRIVATE_DIR);
    builder.create(dir)
}

/// Reads a whole file that may have at most `limit` bytes; `None` when it does not exist.
///
/// # Errors
/// `FileTooLarge` over the limit, `InvalidInput` for a pipe or a device, which may never end; otherwise what the system says
/// (a folder in its place, no permission …).
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut options = OpenOptions::new();
    options.read(true);
    // Opening a pipe waits for its writer otherwise. Files do not care.
    #[cfg(unix)]
    options.custom_flags(libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = file.metadata()?;
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// The text without the byte order mark that some editors put before it.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Replaces `path` with `bytes`: temporary file in the same folder, fsync, rename, fsync of the folder.
///
/// The new file has `mode` (before anything is in it). Follows a symbolic link: the file it names is replaced, the
/// link stays. `before_rename` runs last and may still refuse; then nothing has changed.
///
/// # Errors
/// What the system says, or what `before_rename` says.
pub fn write_atomic<E: From<io::Error>>(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    before_rename: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let target = resolve_link(path)?;
    let folder = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".claudemesh-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(fs::Permissions::from_mode(mode));
    let mut temporary = builder.tempfile_in(folder)?;
    temporary.write_all(bytes)?;
    #[cfg(unix)]
    {
        // The creation mask may have taken bits away that the old file had.
        temporary.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        keep_owner(temporary.as_file(), &target);
    }
    temporary.as_file().sync_all()?;
    before_rename(&target)?;
    temporary.persist(&target).map_err(|error| error.error)?;
    // Makes the rename itself durable; some file systems cannot sync a folder, and then there is nothing to do.
    let _ = File::open(folder).and_then(|dir| dir.sync_all());
    Ok(())
}

/// [`write_atomic`] for our own files: 0600, no last check.
///
/// # Errors
/// What the system says.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomic(path, bytes, PRIVATE_FILE, |_| Ok::<(), io::Error>(()))
}

/// Keeps owner and group when root edits a user's file; not possible for others and not needed.
#[cfg(unix)]
fn keep_owner(file: &File, target: &Path) {
    if let (Ok(old), Ok(new)) = (fs::metadata(target), file.metadata())
        && (old.uid(), old.gid()) != (new.uid(), new.gid())
    {
        let _ = std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()));
    }
}

/// The file that a path means once symbolic links are followed; a path that does not exist means itself.
///
/// # Errors
/// What the system says, for instance on a loop of links.
pub fn resolve_link(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(real),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut current = path.to_path_buf();
            // A link may name a file that does not exist yet: follow it by hand.
            for _ in 0..40 {
                match fs::read_link(&current) {
                    Ok(next) if next.is_absolute() => current = next,
                    Ok(next) => current = current.parent().unwrap_or(Path::new(".")).join(next),
                    Err(_) => return Ok(real_below(&current)),
                }
            }
            Err(io::Error::other("too many levels of symbolic links"))
        }
        Err(error) => Err(error),
    }
}

/// A path that does not exist, with the part of it that does exist resolved: the same path as once it exists.
fn real_below(path: &Path) -> PathBuf {
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        if let (Ok(real), Ok(rest)) = (fs::canonicalize(above), path.strip_prefix(above)) {
            return real.join(rest);
        }
    }
    path.to_path_buf()
}

/// Permission bits of a file, `None` where the system has none or the file is missing.
pub fn mode_of(path: &Path) -> Option<u32> {
    #[cfg(unix)]
    return fs::metadata(path).ok().map(|meta| meta.permissions().mode() & 0o7777);
    #[cfg(not(unix))]
    return fs::metadata(path).ok().and(None);
}

/// Longest name that another member gives a file on this machine, in bytes: file systems allow 255, and the temporary file beside it has a longer one.
const MAX_FOREIGN_NAME_BYTES: usize = 200;
/// What a file without a usable name is called.
const UNNAMED: &str = "file";
/// Names that mean devices on Windows, with any ending.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// A name that another member chose, as a plain name for a file in a folder: no separators, no leading dot, no marks that hide or turn text, bounded. Never empty.
pub fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |symbol: char| match symbol {
        '<' | '>' | ':' | '"' | '|' | '?' | '*' => Some('_'),
        control if control.is_control() => Some('_'),
        hidden if is_invisible(hidden) => None,
        other => Some(other),
    };
    let text: String = last.nfc().filter_map(plain).collect();
    let margin = |symbol: char| symbol == '.' || symbol.is_whitespace();
    let text = text.trim_matches(margin);
    let text = shortened(text);
    let stem = text.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let numbered = |word: &str| {
        stem.strip_prefix(word).is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let device = DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt");
    match text.is_empty() {
        true => UNNAMED.to_owned(),
        false if device || text.starts_with('-') => format!("_{text}"),
        false => text,
    }
}

/// Cuts the stem, so that the ending stays.
fn shortened(text: &str) -> String {
    if text.len() <= MAX_FOREIGN_NAME_BYTES {
        return text.to_owned();
    }
    let (stem, ending) = match text.rsplit_once('.') {
        Some((stem, ending)) if ending.len() <= 16 => (stem, format!(".{ending}")),
        _ => (text, String::new()),
    };
    let mut end = (MAX_FOREIGN_NAME_BYTES - ending.len()).min(stem.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &stem[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_peer_stays_in_its_folder() {
        for (name, expected) in [
            ("plan.pdf", "plan.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Windows\\win.ini", "win.ini"),
            ("..", "file"),
            ("/", "file"),
            ("", "file"),
            (".bashrc", "bashrc"),
            ("a\0b\nc", "a_b_c"),
            ("x\u{202e}fdp.exe", "xfdp.exe"),
            ("CON", "_CON"),
            ("com1.txt", "_com1.txt"),
            ("-rf", "_-rf"),
            ("a:b*c?", "a_b_c_"),
            ("end. ", "end"),
            (". .x", "x"),
            ("u\u{308}.txt", "ü.txt"),
            ("日本 🚀.txt", "日本 🚀.txt"),
        ] {
            assert_eq!(safe_name(name), expected, "{name:?}");
        }
        let long = safe_name(&format!("{}.tar", "ü".repeat(300)));
        assert!(long.len() <= MAX_FOREIGN_NAME_BYTES && long.ends_with("ü.tar"), "{long}");
    }

    #[test]
    fn write_atomic_keeps_the_link_and_sets_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.json");
        let link = dir.path().join("link.json");
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_private(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(mode_of(&real), Some(0o600));
    }

    #[test]
    fn write_atomic_changes_nothing_when_the_last_check_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        let result = write_atomic(&path, b"new", 0o600, |_| Err::<(), _>(io::Error::other("no")));
        assert!(result.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary file is gone");
    }

    #[test]
    fn a_missing_file_has_the_path_it_will_have() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("home")).unwrap();
        let path = dir.path().join("home/./.claude/settings.json");
        let before = resolve_link(&path).unwrap();
        fs::create_dir(dir.path().join("home/.claude")).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(resolve_link(&path).unwrap(), before);
        assert_eq!(before, fs::canonicalize(&path).unwrap());
    }

    #[test]
    fn lock_times_out_while_another_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::take(&path, Duration::from_secs(1)).unwrap();
        let error = FileLock::take(&path, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(held);
        FileLock::take(&path, Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn read_limited_refuses_large_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        fs::write(&path, vec![b'x'; 11]).unwrap();
        assert_eq!(read_limited(&path, 11).unwrap().unwrap().len(), 11);
        assert_eq!(read_limited(&path, 10).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(read_limited(&dir.path().join("none"), 10).unwrap().is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_name_leaves_its_folder_or_hides(name in "\\PC{0,300}|[\\x00-\\x7f]{0,300}|[./\\\\ ]{0,20}") {
            let safe = safe_name(&name);
            proptest::prop_assert!(!safe.is_empty() && safe.len() <= MAX_FOREIGN_NAME_BYTES + 1);
            proptest::prop_assert!(!safe.contains(['/', '\\', '\0']) && !safe.starts_with(['.', '-']));
            proptest::prop_assert!(!safe.chars().any(char::is_control));
        }
    }
}
