//! How a value is sealed, and how its member proves that it wrote it.
//!
//! The value goes into a `crypto_secretbox_easy` under a random key; that key goes into a `crypto_box_seal` for the x25519 form of the
//! member's key. Anyone can make such a box for a member, so the client also signs the entry: the broker can keep, lose or withhold a
//! value, not put another one in its place. Entries of clients of before have no signature.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Key, Nonce, XSalsa20Poly1305};
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{EntryType, VaultSecret, VaultSet};
use crate::crypto::envelope::{self, EnvelopeError};
use crate::crypto::keys::{self, KeyError, SecretKey};
use crate::crypto::signed;
use crate::id::{MeshId, PublicKey};

/// Bytes of a nonce.
const NONCE_BYTES: usize = 24;
/// Bytes of the key of a value.
const KEY_BYTES: usize = 32;
/// Bytes by which a sealed value is longer than the value.
const TAG_BYTES: usize = 16;
/// Bytes of a sealed key: an x25519 key and a tag more than the key has.
const SEALED_KEY_BYTES: usize = 32 + TAG_BYTES + KEY_BYTES;

/// A sealed value: three fields of the wire, in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Tag and value.
    pub ciphertext: String,
    /// 24 bytes.
    pub nonce: String,
    /// The key of the value, for its member alone.
    pub sealed_key: String,
}

/// What a member knows of who wrote an entry of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SealState {
    /// The member's key has signed it, for this mesh and under this name.
    Verified,
    /// No one has signed it: its client is of before.
    Unsigned,
    /// There is a signature, and it is not of this entry: what it holds is not what the member stored.
    Forged,
}

impl SealState {
    /// The word for tools and scripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unsigned => "unsigned",
            Self::Forged => "forged",
        }
    }
}

/// Seals a value for a member.
///
/// # Errors
/// [`EnvelopeError::Key`] when the member's key is no point.
pub fn seal(value: &[u8], member: &PublicKey, rng: &mut (impl RngCore + CryptoRng)) -> Result<Sealed, EnvelopeError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let mut nonce = [0; NONCE_BYTES];
    rng.fill_bytes(&mut *key);
    rng.fill_bytes(&mut nonce);
    let cipher = XSalsa20Poly1305::new(Key::from_slice(&*key));
    let sealed = cipher.encrypt(Nonce::from_slice(&nonce), value).map_err(|_| EnvelopeError::Malformed)?;
    let sealed_key = envelope::seal_anonymous(&*key, &keys::to_x25519(member)?, rng)?;
    Ok(Sealed {
        ciphertext: STANDARD.encode(sealed),
        nonce: STANDARD.encode(nonce),
        sealed_key: STANDARD.encode(sealed_key),
    })
}

/// Opens a value.
///
/// # Errors
/// [`EnvelopeError::CannotOpen`] when it was sealed for another member or changed on the way, [`EnvelopeError::Malformed`].
pub fn open(entry: &VaultSecret, member: &SecretKey) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| EnvelopeError::Malformed);
    let (nonce, sealed, sealed_key) = (bytes(&entry.nonce)?, bytes(&entry.ciphertext)?, bytes(&entry.sealed_key)?);
    if nonce.len() != NONCE_BYTES || sealed.len() < TAG_BYTES {
        return Err(EnvelopeError::Malformed);
    }
    let key = Zeroizing::new(envelope::open_anonymous(&sealed_key, &member.to_x25519())?);
    if key.len() != KEY_BYTES {
        return Err(EnvelopeError::Malformed);
    }
    let cipher = XSalsa20Poly1305::new(Key::from_slice(&key));
    let value = cipher.decrypt(Nonce::from_slice(&nonce), sealed.as_slice()).map_err(|_| EnvelopeError::CannotOpen)?;
    Ok(Zeroizing::new(value))
}

/// Whether three fields have the form of a sealed value: nothing that is not sealed gets in by mistake. Answers the bytes of the sealed
/// value.
pub fn sealed_bytes(ciphertext: &str, nonce: &str, sealed_key: &str) -> Option<usize> {
    let length = |text: &str| STANDARD.decode(text).ok().map(|bytes| bytes.len());
    let fits = length(nonce) == Some(NONCE_BYTES) && length(sealed_key) == Some(SEALED_KEY_BYTES);
    length(ciphertext).filter(|bytes| fits && *bytes >= TAG_BYTES)
}

/// What is signed of an entry: everything but its description.
#[derive(Clone, Copy, Debug)]
struct SignedParts<'a> {
    key: &'a str,
    entry_type: EntryType,
    mount_path: Option<&'a str>,
    ciphertext: &'a str,
    nonce: &'a str,
    sealed_key: &'a str,
}

impl SignedParts<'_> {
    /// SHA-256 of the parts, each behind its length in bytes (8 bytes, big endian), in lower-case hex. The order is name, type, path
    /// (empty without one), ciphertext, nonce, sealed key.
    fn digest(&self) -> String {
        let path = self.mount_path.unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [self.key, self.entry_type.as_str(), path, self.ciphertext, self.nonce, self.sealed_key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex::encode(hash.finalize())
    }

    fn canonical(&self, mesh: &MeshId, signed_at_ms: i64) -> String {
        signed::vault(mesh, &self.digest(), signed_at_ms)
    }
}

impl VaultSet {
    fn parts(&self) -> SignedParts<'_> {
        SignedParts {
            key: &self.key,
            entry_type: self.entry_type,
            mount_path: self.mount_path.as_deref(),
            ciphertext: &self.ciphertext,
            nonce: &self.nonce,
            sealed_key: &self.sealed_key,
        }
    }

    /// Signs it with the member's key; `now_ms` in Unix milliseconds.
    #[must_use]
    pub fn signed(self, mesh: &MeshId, member: &SecretKey, now_ms: i64) -> Self {
        let signature = member.sign(self.parts().canonical(mesh, now_ms).as_bytes());
        Self { signature: Some(signature), signed_at_ms: Some(now_ms), ..self }
    }

    /// Whether a signature is of this entry, by this key, for this mesh.
    ///
    /// # Errors
    /// As [`keys::verify`].
    pub fn verify(&self, mesh: &MeshId, key: &PublicKey, signature: &str, signed_at_ms: i64) -> Result<(), KeyError> {
        keys::verify(key, self.parts().canonical(mesh, signed_at_ms).as_bytes(), signature)
    }
}

impl VaultSecret {
    /// Whether its member wrote it.
    pub fn state(&self, mesh: &MeshId, member: &PublicKey) -> SealState {
        let parts = SignedParts {
            key: &self.key,
            entry_type: self.entry_type,
            mount_path: self.mount_path.as_deref(),
            ciphertext: &self.ciphertext,
            nonce: &self.nonce,
            sealed_key: &self.sealed_key,
        };
        match (&self.signature, self.signed_at_ms) {
            (None, _) => SealState::Unsigned,
            (Some(signature), Some(at))
                if keys::verify(member, parts.canonical(mesh, at).as_bytes(), signature).is_ok() =>
            {
                SealState::Verified
            }
            _ => SealState::Forged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &[u8] = b"ghp_s3cret";

    fn key(number: u8) -> SecretKey {
        SecretKey::from_seed([number; 32])
    }

    fn set(value: &[u8], member: &SecretKey) -> VaultSet {
        let Sealed { ciphertext, nonce, sealed_key } = seal(value, &member.public(), &mut rand::rngs::OsRng).unwrap();
        let mount_path = Some("/run/token".into());
        VaultSet { key: "GITHUB_TOKEN".into(), ciphertext, nonce, sealed_key, mount_path, ..VaultSet::default() }
    }

    fn stored(set: VaultSet) -> VaultSecret {
        VaultSecret {
            key: set.key,
            ciphertext: set.ciphertext,
            nonce: set.nonce,
            sealed_key: set.sealed_key,
            entry_type: set.entry_type,
            mount_path: set.mount_path,
            signature: set.signature,
            signed_at_ms: set.signed_at_ms,
        }
    }

    #[test]
    fn a_value_is_opened_by_its_member_alone_and_never_after_a_change() {
        let entry = stored(set(VALUE, &key(7)));
        assert_eq!(*open(&entry, &key(7)).unwrap(), VALUE);
        assert_eq!(open(&entry, &key(8)), Err(EnvelopeError::CannotOpen));
        assert_eq!(*open(&stored(set(b"", &key(7))), &key(7)).unwrap(), b"", "an empty value is one");
        let other = stored(set(VALUE, &key(7)));
        assert_ne!(
            (&entry.ciphertext, &entry.sealed_key),
            (&other.ciphertext, &other.sealed_key),
            "sealed anew each time"
        );
        let flipped = |text: &str| {
            let mut bytes = STANDARD.decode(text).unwrap();
            bytes[5] ^= 1;
            STANDARD.encode(bytes)
        };
        for wrong in [
            VaultSecret { ciphertext: flipped(&entry.ciphertext), ..entry.clone() },
            VaultSecret { nonce: flipped(&entry.nonce), ..entry.clone() },
            VaultSecret { sealed_key: flipped(&entry.sealed_key), ..entry.clone() },
            VaultSecret { sealed_key: other.sealed_key, ..entry.clone() },
            VaultSecret { ciphertext: "AAAA".into(), ..entry.clone() },
            VaultSecret { nonce: "no base64!".into(), ..entry },
        ] {
            assert!(open(&wrong, &key(7)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_entry_that_someone_else_made_or_moved_is_a_forgery() {
        let mesh = MeshId::from("m");
        let entry = stored(set(VALUE, &key(7)).signed(&mesh, &key(7), 9));
        let state = |entry: &VaultSecret| entry.state(&mesh, &key(7).public());
        assert_eq!(state(&entry), SealState::Verified);
        assert_eq!(state(&VaultSecret { signature: None, signed_at_ms: None, ..entry.clone() }), SealState::Unsigned);
        // A value that the broker sealed itself opens, and is found out.
        let made = stored(set(b"another value", &key(7)));
        let put = VaultSecret { signature: entry.signature.clone(), signed_at_ms: entry.signed_at_ms, ..made };
        assert_eq!((open(&put, &key(7)).is_ok(), state(&put)), (true, SealState::Forged));
        let changes: [fn(&mut VaultSecret); 5] = [
            |entry| entry.key.push('2'),
            |entry| entry.entry_type = EntryType::File,
            |entry| entry.mount_path = None,
            |entry| entry.signed_at_ms = Some(10),
            |entry| entry.signed_at_ms = None,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = entry.clone();
            change(&mut changed);
            assert_eq!(state(&changed), SealState::Forged, "change {number}");
        }
        assert_eq!(entry.state(&"other".into(), &key(7).public()), SealState::Forged);
        assert_eq!(entry.state(&mesh, &key(8).public()), SealState::Forged);
    }

    #[test]
    fn what_has_not_the_form_of_a_sealed_value_is_told_apart() {
        let Sealed { ciphertext, nonce, sealed_key } = seal(VALUE, &key(7).public(), &mut rand::rngs::OsRng).unwrap();
        assert_eq!(sealed_bytes(&ciphertext, &nonce, &sealed_key), Some(VALUE.len() + 16));
        // What clients of before sent: the plain value with something in the other fields.
        assert_eq!(sealed_bytes(&STANDARD.encode("a secret that is long"), "bm9uY2U=", "c2VhbA=="), None);
        assert_eq!(sealed_bytes("Y3Q=", &nonce, &sealed_key), None);
        assert_eq!(sealed_bytes(&ciphertext, &nonce, &ciphertext), None);
        assert_eq!(sealed_bytes("!", &nonce, &sealed_key), None);
    }
}
