//! What a sealed file is called: name, tags, length, hash and who shared it, readable for its readers only.
//!
//! The sharer signs the label with the member key, so a broker that puts a file of its own in place of one is found.

use aead::{Aead, AeadCore, KeyInit, Payload};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::XChaCha20Poly1305;
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FileError, FileKey};
use crate::crypto::keys::{self, SecretKey};
use crate::crypto::signed;
use crate::id::{MeshId, PublicKey};

/// Longest label as JSON, in bytes: a name, tags and what has a fixed length.
pub const MAX_LABEL_BYTES: usize = 4_096;

const PURPOSE: &str = "claudemesh file label";

/// The label of a sealed file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Name of the file, as the sharer wrote it: clean it before it becomes a path.
    pub name: String,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Bytes of the file; `None` while it was sealed before its end was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 of the file, hex; `None` likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Header of the sealed bytes, hex: the label belongs to this file and to no other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub header: String,
    /// Audiences whose members get the key when they come later: `*`, `@group`. The sharer's client gives it to no one else by itself,
    /// whatever a broker says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_to: Vec<String>,
    /// Signature of the sharer's member key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl Label {
    /// SHA-256 of the label without its signature, in hex: of its JSON, whose fields have a fixed order.
    fn digest(&self) -> String {
        let unsigned = Self { signature: None, ..self.clone() };
        hex::encode(Sha256::digest(serde_json::to_vec(&unsigned).unwrap_or_default()))
    }

    /// Signs it with the sharer's member key.
    #[must_use]
    pub fn signed(mut self, mesh: &MeshId, sharer: &SecretKey) -> Self {
        self.signature = Some(sharer.sign(signed::file(mesh, &self.digest()).as_bytes()));
        self
    }

    /// Whether this member has signed it for this mesh. `false` without a signature.
    pub fn is_by(&self, mesh: &MeshId, sharer: &PublicKey) -> bool {
        self.signature
            .as_ref()
            .is_some_and(|word| keys::verify(sharer, signed::file(mesh, &self.digest()).as_bytes(), word).is_ok())
    }

    /// Seals it: base64 of a nonce and XChaCha20-Poly1305 of its JSON.
    ///
    /// # Errors
    /// [`FileError::TooLong`]
    pub fn seal(&self, key: &FileKey, rng: &mut (impl RngCore + CryptoRng)) -> Result<String, FileError> {
        let text = serde_json::to_vec(self).map_err(|_| FileError::Malformed)?;
        if text.len() > MAX_LABEL_BYTES {
            return Err(FileError::TooLong);
        }
        let nonce = XChaCha20Poly1305::generate_nonce(rng);
        let payload = Payload { msg: &text, aad: PURPOSE.as_bytes() };
        let sealed = cipher(key).encrypt(&nonce, payload).map_err(|_| FileError::TooLong)?;
        Ok(STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Opens a sealed label.
    ///
    /// # Errors
    /// [`FileError::Malformed`] when it is not base64 or no label, [`FileError::TooLong`], [`FileError::CannotOpen`].
    pub fn open(sealed: &str, key: &FileKey) -> Result<Self, FileError> {
        if sealed.len() > 2 * MAX_LABEL_BYTES {
            return Err(FileError::TooLong);
        }
        let sealed = STANDARD.decode(sealed).map_err(|_| FileError::Malformed)?;
        let (nonce, body) = sealed.split_at_checked(24).ok_or(FileError::Malformed)?;
        let payload = Payload { msg: body, aad: PURPOSE.as_bytes() };
        let text = cipher(key).decrypt(nonce.into(), payload).map_err(|_| FileError::CannotOpen)?;
        serde_json::from_slice(&text).map_err(|_| FileError::Malformed)
    }
}

fn cipher(key: &FileKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&*key.derived(PURPOSE)).into())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn label() -> Label {
        Label {
            name: "plan.pdf".into(),
            tags: vec!["q3".into()],
            size: Some(7),
            sha256: Some("ab".into()),
            header: "00".into(),
            ..Label::default()
        }
    }

    #[test]
    fn a_label_opens_with_its_key_only_and_says_who_signed_it() {
        let mut rng = StdRng::seed_from_u64(1);
        let (key, sharer, mesh) = (FileKey::random(&mut rng), SecretKey::random(&mut rng), MeshId::from("m"));
        let signed = label().signed(&mesh, &sharer);
        let sealed = signed.seal(&key, &mut rng).unwrap();
        assert!(!sealed.contains("plan"));
        let opened = Label::open(&sealed, &key).unwrap();
        assert_eq!(opened, signed);
        assert!(opened.is_by(&mesh, &sharer.public()));
        assert!(!opened.is_by(&MeshId::from("other"), &sharer.public()), "another mesh");
        assert!(!opened.is_by(&mesh, &SecretKey::random(&mut rng).public()), "another member");
        assert!(!label().is_by(&mesh, &sharer.public()), "no one has signed it");
        let changes: [fn(&mut Label); 6] = [
            |label| label.name.push('x'),
            |label| label.tags.clear(),
            |label| label.size = Some(8),
            |label| label.sha256 = None,
            |label| label.header.push('0'),
            |label| label.open_to.push("*".into()),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = opened.clone();
            change(&mut changed);
            assert!(!changed.is_by(&mesh, &sharer.public()), "change {number}");
        }
        assert_eq!(Label::open(&sealed, &FileKey::from_bytes([1; 32])), Err(FileError::CannotOpen));
        assert_eq!(Label::open("AAAA", &key), Err(FileError::Malformed));
        let long = Label { name: "x".repeat(MAX_LABEL_BYTES), ..Label::default() };
        assert_eq!(long.seal(&key, &mut rng), Err(FileError::TooLong));
    }
}
