//! Files that travel with a message: lines behind its text, one for each.
//!
//! A small file is inside the line, sealed with the message; it is written to disk when the message is stored, and the line names its
//! place then. A larger one is a shared file whose id stands in the line, or a path on the host that both sides run on. Clients that
//! do not know the lines show them as text.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files;

/// How a line begins.
const MARK: &str = "[claudemesh attachment] ";
/// Files that travel with one message.
pub const MAX_ATTACHMENTS: usize = 16;
/// Longest file inside a message, in bytes; in base64 and sealed it is far below what a message may have.
pub const MAX_INLINE_BYTES: usize = 64 << 10;

/// A file that travels with a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    /// Its name, as the sender wrote it; empty when only readers of the file may know it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    /// SHA-256, in hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Id of the shared file that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where it lies on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<String>,
    /// Where it lies on the sender's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name of that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The file itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub data: Option<String>,
}

impl Attachment {
    /// A small file inside the message.
    pub fn inline(name: String, bytes: &[u8]) -> Self {
        let sha256 = hex::encode(Sha256::digest(bytes));
        Self { name, size: bytes.len() as u64, sha256, data: Some(STANDARD.encode(bytes)), ..Self::default() }
    }
}

/// A text with its attachments.
pub fn with(text: &str, files: &[Attachment]) -> String {
    let mut body = text.to_owned();
    for file in files {
        // A struct of texts and numbers always becomes JSON.
        let line = serde_json::to_string(file).unwrap_or_default();
        body += if body.is_empty() { "" } else { "\n" };
        body += &format!("{MARK}{line}");
    }
    body
}

/// The text of a body, and its attachments in their order.
pub fn split(body: &str) -> (&str, Vec<Attachment>) {
    let (mut text, mut files) = (body, Vec::new());
    while files.len() < MAX_ATTACHMENTS {
        let (before, line) = text.rsplit_once('\n').unwrap_or(("", text));
        let file = line.strip_prefix(MARK).and_then(|json| serde_json::from_str(json).ok());
        let Some(file) = file else { break };
        files.push(file);
        text = before;
    }
    files.reverse();
    (text, files)
}

/// The body as it is stored: files inside it are on disk then. `None` when nothing is to be changed.
///
/// # Errors
/// What the system says; a file that is not what its line says is left out, and no error.
pub(super) fn unpacked(folder: &Path, message_id: &str, body: &str) -> io::Result<Option<String>> {
    if !body.contains(MARK) {
        return Ok(None);
    }
    let (text, mut all) = split(body);
    if all.is_empty() {
        return Ok(None);
    }
    for (number, file) in all.iter_mut().enumerate() {
        // Only we know where it lies here.
        file.saved = None;
        let Some(bytes) = file.data.take().and_then(|data| STANDARD.decode(data).ok()) else { continue };
        if bytes.len() > MAX_INLINE_BYTES || hex::encode(Sha256::digest(&bytes)) != file.sha256 {
            continue;
        }
        files::create_private_dir(folder)?;
        let stem: String = crate::config::file_name_of(message_id).chars().take(40).collect();
        let path = folder.join(format!("{stem}-{number}-{}", files::safe_name(&file.name)));
        // A message may come twice.
        if !path.exists() {
            files::write_private(&path, &bytes)?;
        }
        file.size = bytes.len() as u64;
        file.saved = Some(path.to_string_lossy().into_owned());
    }
    Ok(Some(with(text, &all)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_and_its_files_come_apart_again() {
        let (small, large) = (
            Attachment::inline("a.txt".into(), b"hello"),
            Attachment { name: "b\n.txt".into(), size: 9, id: Some("f".into()), ..Attachment::default() },
        );
        for text in ["", "look", "two\nlines\n", "[claudemesh attachment] no json"] {
            let body = with(text, &[small.clone(), large.clone()]);
            assert_eq!(split(&body), (text, vec![small.clone(), large.clone()]), "{text:?}");
        }
        assert_eq!(split("only text"), ("only text", vec![]));
        let inside = format!("{}\nmore", with("x", std::slice::from_ref(&small)));
        assert_eq!(split(&inside), (inside.as_str(), vec![]), "only at the end");
        let many = vec![large; MAX_ATTACHMENTS + 4];
        assert_eq!(split(&with("x", &many)).1.len(), MAX_ATTACHMENTS);
    }

    #[test]
    fn a_small_file_is_on_disk_and_a_forged_place_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("texts/m");
        let small = Attachment::inline("../../evil".into(), b"hello");
        let forged = Attachment { saved: Some("/etc/passwd".into()), ..Attachment::default() };
        let wrong = Attachment { sha256: "00".into(), ..small.clone() };
        let body = with("look", &[small, forged, wrong]);
        for _ in 0..2 {
            let stored = unpacked(&folder, "id-1", &body).unwrap().unwrap();
            let (text, files) = split(&stored);
            assert_eq!((text, files.len()), ("look", 3));
            let saved = files[0].saved.clone().unwrap();
            assert_eq!(saved, folder.join("id-1-0-evil").to_string_lossy());
            assert_eq!(std::fs::read(&saved).unwrap(), b"hello");
            assert_eq!(crate::files::mode_of(Path::new(&saved)), Some(0o600));
            assert_eq!((&files[1].saved, &files[2].saved), (&None, &None));
            assert!(files.iter().all(|file| file.data.is_none()));
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert_eq!(unpacked(&folder, "id-1", "no file").unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_body_breaks_it(body in "(\\[claudemesh attachment\\] |\\{|\\}|\"name\":|\n|\\PC){0,40}") {
            let (text, files) = split(&body);
            proptest::prop_assert!(text.len() <= body.len() && files.len() <= MAX_ATTACHMENTS);
        }
    }
}
