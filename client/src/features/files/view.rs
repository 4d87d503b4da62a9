//! A file as its reader sees it: with the name and tags that were sealed for it.

use claudemesh_protocol::crypto::file::label::Label;
use claudemesh_protocol::crypto::file::{FileKey, chunks, whole};
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::features::files::{FileEntry, FileUrl, SECRETBOX, STREAM};
use claudemesh_protocol::id::PublicKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connection::Identity;

/// What a reader knows of who shared a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The member that the broker names has signed the label.
    Verified,
    /// No one has signed it: it is not sealed, or its client is an older one.
    Unsigned,
    /// The member that the broker names is not in the mesh any more, so its key is not known.
    Unknown,
    /// It should be signed by that member and is not.
    Forged,
}

/// A file, with its label when we can open it.
#[derive(Clone, Debug)]
pub struct FileView {
    /// As the broker has it.
    pub entry: FileEntry,
    /// What was sealed.
    pub label: Option<Label>,
}

impl FileView {
    /// Opens what is sealed for us.
    pub fn of(entry: FileEntry, identity: &Identity) -> Self {
        let key = entry.sealed_key.as_deref().and_then(|sealed| open_key(sealed, entry.sealed_for.as_ref(), identity));
        let label = key.zip(entry.sealed_meta.as_deref()).and_then(|(key, sealed)| Label::open(sealed, &key).ok());
        Self { entry, label }
    }

    /// Its name, as the sharer wrote it.
    pub fn name(&self) -> &str {
        self.label.as_ref().map_or(&self.entry.name, |label| &label.name)
    }

    /// Its tags.
    pub fn tags(&self) -> &[String] {
        self.label.as_ref().map_or(&self.entry.tags, |label| &label.tags)
    }

    /// Bytes of the file itself.
    pub fn size(&self) -> u64 {
        plain_size(&self.entry)
    }

    /// SHA-256 of the file itself, when it is known before it is read.
    pub fn sha256(&self) -> Option<&str> {
        match (&self.label, self.entry.encrypted) {
            (Some(label), _) => label.sha256.as_deref(),
            (None, false) => Some(&self.entry.sha256).filter(|hash| !hash.is_empty()).map(String::as_str),
            (None, true) => None,
        }
    }

    /// Whether it is looked for: a part of the name in any case, and a tag.
    pub fn fits(&self, query: Option<&str>, tag: Option<&str>) -> bool {
        let named = query.is_none_or(|query| self.name().to_lowercase().contains(&query.to_lowercase()));
        named && tag.is_none_or(|tag| self.tags().iter().any(|own| own.eq_ignore_ascii_case(tag)))
    }

    /// Who shared it, as far as it is proved. `sharer` is the key of the member that the broker names.
    pub fn proof(&self, sharer: Option<&PublicKey>, identity: &Identity) -> Proof {
        let is_ours = self.entry.encryption.as_deref() == Some(STREAM);
        match (&self.label, sharer) {
            (None, _) if !is_ours => Proof::Unsigned,
            (Some(label), Some(sharer)) if label.is_by(&identity.mesh_id, sharer) => Proof::Verified,
            (Some(label), None) if label.signature.is_some() => Proof::Unknown,
            // Clients of this form sign every label, so one without is of someone else.
            _ => Proof::Forged,
        }
    }
}

/// Bytes of the file itself; those that are stored when its form is not known.
fn plain_size(entry: &FileEntry) -> u64 {
    let plain = match entry.encryption.as_deref() {
        Some(STREAM) => chunks::plain_bytes(entry.size),
        Some(SECRETBOX) => entry.size.checked_sub(whole::OVERHEAD as u64),
        _ => None,
    };
    plain.unwrap_or(entry.size)
}

/// Opens a key that is sealed for our member or our session.
fn open_key(sealed: &str, sealed_for: Option<&PublicKey>, identity: &Identity) -> Option<FileKey> {
    let own = [Some(&identity.member), identity.session.as_ref()];
    let fitting = |key: &&SecretKey| sealed_for.is_none_or(|wanted| *wanted == key.public());
    own.into_iter().flatten().filter(fitting).find_map(|key| FileKey::open(sealed, key).ok())
}

/// The key of a file, when it is sealed for us.
pub fn key_of(url: &FileUrl, identity: &Identity) -> Option<FileKey> {
    let sealed_for = url.file.as_ref().and_then(|file| file.sealed_for.as_ref());
    open_key(url.sealed_key.as_deref()?, sealed_for, identity)
}

/// The beginning of an id, as lists show it.
pub fn short(id: &str) -> String {
    crate::inbox::listed::short_id(id)
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::crypto::file::chunks::sealed_bytes;

    use super::*;
    use crate::connection::tests::identity;

    #[test]
    fn a_sealed_file_is_its_sharers_or_forged() {
        let me = identity("ws://127.0.0.1:1/ws");
        let (sharer, other) = (SecretKey::from_seed([7; 32]), SecretKey::from_seed([8; 32]));
        let key = FileKey::from_bytes([1; 32]);
        let mut dice = rand::rngs::OsRng;
        let entry = |label: Option<&Label>| FileEntry {
            id: "f".into(),
            name: "sealed-f".into(),
            size: sealed_bytes(7).unwrap(),
            tags: vec![],
            uploaded_by: "m".into(),
            uploaded_at: String::new(),
            persistent: true,
            encrypted: true,
            uploader: "Ann".into(),
            expires_at: None,
            sha256: "00".into(),
            content_type: None,
            encryption: Some(STREAM.into()),
            sealed_meta: label.map(|label| label.seal(&key, &mut rand::rngs::OsRng).unwrap()),
            sealed_key: Some(key.seal_for(&me.member.public(), &mut rand::rngs::OsRng).unwrap()),
            sealed_for: Some(me.member.public()),
        };
        let plain = Label { name: "Plan.pdf".into(), tags: vec!["Q3".into()], ..Label::default() };
        let signed = plain.clone().signed(&me.mesh_id, &sharer);
        let view = FileView::of(entry(Some(&signed)), &me);
        assert_eq!((view.name(), view.size()), ("Plan.pdf", 7));
        assert!(view.fits(Some("plan"), Some("q3")) && !view.fits(Some("x"), None) && !view.fits(None, Some("x")));
        let proof = |view: &FileView, key: Option<&SecretKey>| view.proof(key.map(SecretKey::public).as_ref(), &me);
        assert_eq!(proof(&view, Some(&sharer)), Proof::Verified);
        assert_eq!(proof(&view, Some(&other)), Proof::Forged);
        assert_eq!(proof(&view, None), Proof::Unknown);
        for unsigned in [entry(Some(&plain)), entry(None)] {
            assert_eq!(proof(&FileView::of(unsigned, &me), Some(&sharer)), Proof::Forged);
        }
        let older = FileEntry { encryption: Some(SECRETBOX.into()), ..entry(None) };
        assert_eq!(proof(&FileView::of(older, &me), Some(&sharer)), Proof::Unsigned);
        let foreign = key.seal_for(&other.public(), &mut dice).unwrap();
        let not_ours = FileEntry { sealed_key: Some(foreign), sealed_for: None, ..entry(Some(&signed)) };
        assert_eq!(FileView::of(not_ours, &me).name(), "sealed-f");
    }
}
