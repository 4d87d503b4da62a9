//! Notes of transfers that are under way, so that the same command goes on after it was killed.
//!
//! A note of an upload holds the key of its file, so the folder is private. It goes when the transfer is done; one that was left is
//! removed after a week, as the broker gives such uploads up after a day.

use std::path::{Path, PathBuf};
use std::time::Duration;

use claudemesh_protocol::id::FileId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::StoredSecret;
use crate::files;

/// Folder of the notes below the config folder.
const FOLDER: &str = "transfers";
/// How long a note is kept that no one goes on with.
const KEEP: Duration = Duration::from_secs(7 * 86_400);
/// Longest note.
const MAX_NOTE_BYTES: u64 = 64 << 10;

/// An upload that has begun.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct UploadNote {
    /// The client's name of the upload: with the same one the broker answers how far it is.
    pub(super) client_upload_id: String,
    /// SHA-256 of the file itself, hex. Another content is another upload, with another key.
    pub(super) sha256: String,
    /// Key of the file, when it is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<StoredSecret>,
    /// Header of the sealed bytes, hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) header: String,
}

/// A download that has begun.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct DownloadNote {
    /// Which file.
    pub(super) file_id: FileId,
    /// SHA-256 of the stored bytes: another one is another file.
    pub(super) sha256: String,
    /// Where it grows.
    pub(super) part: PathBuf,
}

/// Where the note of one transfer is kept.
pub(super) struct Note {
    path: PathBuf,
}

impl Note {
    /// Of the transfer that these parts name, in any earlier process, too.
    pub(super) fn of(config_dir: &Path, kind: &str, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let name = format!("{kind}-{}.json", &hex::encode(hash.finalize())[..32]);
        Self { path: config_dir.join(FOLDER).join(name) }
    }

    /// What is noted. A note that cannot be read is none: the transfer begins anew.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let bytes = files::read_limited(&self.path, MAX_NOTE_BYTES).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Notes it.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write(&self, note: &impl Serialize) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            files::create_private_dir(folder)?;
        }
        files::write_private(&self.path, &serde_json::to_vec(note)?)
    }

    /// The transfer is over.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes what was left a week ago, temporary files of downloads too.
pub(super) fn prune(config_dir: &Path) {
    for entry in std::fs::read_dir(config_dir.join(FOLDER)).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|meta| meta.modified()).ok();
        if written.and_then(|at| at.elapsed().ok()).is_none_or(|passed| passed <= KEEP) {
            continue;
        }
        let note = Note { path: entry.path() };
        if let Some(download) = note.read::<DownloadNote>()
            && is_part(&download.part)
        {
            let _ = std::fs::remove_file(&download.part);
        }
        note.remove();
    }
}

/// Only a file with a name of ours is removed, whatever a note says.
fn is_part(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(".claudemesh-") && name.ends_with(".part")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_private_found_again_and_removed_when_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let note = Note::of(dir.path(), "download", &["mesh", "a", "b"]);
        assert!(note.read::<DownloadNote>().is_none());
        let (part, other) = (dir.path().join(".claudemesh-1.part"), dir.path().join("mine.txt"));
        for path in [&part, &other] {
            std::fs::write(path, "x").unwrap();
        }
        let download = |part: &Path| DownloadNote { file_id: "f".into(), sha256: "ab".into(), part: part.into() };
        note.write(&download(&part)).unwrap();
        assert_eq!(files::mode_of(&note.path), Some(0o600));
        assert_eq!(files::mode_of(&dir.path().join(FOLDER)), Some(0o700));
        let again = Note::of(dir.path(), "download", &["mesh", "a", "b"]).read::<DownloadNote>().unwrap();
        assert_eq!(again.part, part);
        assert!(Note::of(dir.path(), "download", &["mesh", "ab", ""]).read::<DownloadNote>().is_none());
        let forged = Note::of(dir.path(), "download", &["other"]);
        forged.write(&download(&other)).unwrap();
        prune(dir.path());
        assert!(part.exists(), "it may go on");
        let past = std::time::SystemTime::UNIX_EPOCH;
        for note in [&note, &forged] {
            std::fs::File::options().write(true).open(&note.path).unwrap().set_modified(past).unwrap();
        }
        prune(dir.path());
        assert!(!part.exists() && !note.path.exists() && !forged.path.exists());
        assert!(other.exists(), "a note removes no other files");
    }
}
