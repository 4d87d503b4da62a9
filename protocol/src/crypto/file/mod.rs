//! Files that only their readers can open.
//!
//! Each file has a random key. [`chunks`] seals its bytes chunk by chunk, so that neither side ever holds the whole; [`label`] seals
//! what it is called; [`whole`] is the form of the existing system. The key is sealed to the *member* key of every reader, so any
//! session of the reader opens it, today and later.
//!
//! The key itself is used by [`whole`] only. Chunks and label have keys of their own that are derived from it, so no nonce of one
//! can meet a nonce of another.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::{CryptoRng, RngCore};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::envelope::{open_anonymous, seal_anonymous};
use super::keys::{self, SecretKey};
use crate::id::PublicKey;

pub mod chunks;
pub mod label;
pub mod whole;

/// Why a file, its key or its label cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Not the bytes of a sealed file, or of another version of the format.
    #[error("expected a sealed file")]
    Malformed,
    /// A key is no point of the curve, or what was sealed is not a file key.
    #[error("the key of the file cannot be used")]
    Key,
    /// Another key, or a chunk that was changed, moved, repeated, cut off or added.
    #[error("the file was changed, or was sealed with another key")]
    CannotOpen,
    /// Longer than the format can count.
    #[error("the file is too long to be sealed")]
    TooLong,
}

/// The key of one file: 32 random bytes. Printing shows nothing, memory is wiped on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct FileKey([u8; 32]);

impl FileKey {
    /// A new key.
    pub fn random(rng: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// From its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// 64 hex digits, for the private note of an upload that may have to go on.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0))
    }

    /// From [`FileKey::to_hex`].
    ///
    /// # Errors
    /// [`FileError::Key`]
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| FileError::Key)?;
        Ok(Self(bytes))
    }

    /// Seals the key for one reader: base64 of `crypto_box_seal`, 80 bytes, as the existing system has it.
    ///
    /// # Errors
    /// [`FileError::Key`] when the reader's key is no point.
    pub fn seal_for(&self, reader: &PublicKey, rng: &mut (impl RngCore + CryptoRng)) -> Result<String, FileError> {
        let reader = keys::to_x25519(reader).map_err(|_| FileError::Key)?;
        let sealed = seal_anonymous(&self.0, &reader, rng).map_err(|_| FileError::Key)?;
        Ok(STANDARD.encode(sealed))
    }

    /// Opens a key that was sealed for `reader`.
    ///
    /// # Errors
    /// [`FileError::Malformed`] when it is not base64, [`FileError::CannotOpen`] when it was sealed for another key,
    /// [`FileError::Key`] when something else than a key was sealed.
    pub fn open(sealed: &str, reader: &SecretKey) -> Result<Self, FileError> {
        let sealed = STANDARD.decode(sealed).map_err(|_| FileError::Malformed)?;
        let opened = Zeroizing::new(open_anonymous(&sealed, &reader.to_x25519()).map_err(|_| FileError::CannotOpen)?);
        let bytes: [u8; 32] = opened.as_slice().try_into().map_err(|_| FileError::Key)?;
        Ok(Self(bytes))
    }

    /// A key for one purpose. The length of the secret is fixed, so the hash is a key derivation.
    fn derived(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let digest = Sha256::new().chain_update(purpose).chain_update([0]).chain_update(self.0).finalize();
        Zeroizing::new(digest.into())
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("FileKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_key_opens_for_its_reader_and_for_no_one_else() {
        let mut rng = StdRng::seed_from_u64(1);
        let (reader, other) = (SecretKey::random(&mut rng), SecretKey::random(&mut rng));
        let key = FileKey::random(&mut rng);
        let sealed = key.seal_for(&reader.public(), &mut rng).unwrap();
        assert_eq!(STANDARD.decode(&sealed).unwrap().len(), 80);
        assert_eq!(FileKey::open(&sealed, &reader).unwrap(), key);
        assert_eq!(FileKey::open(&sealed, &other), Err(FileError::CannotOpen));
        assert_eq!(FileKey::open("not base64!", &reader), Err(FileError::Malformed));
        let short = seal_anonymous(b"short", &reader.to_x25519().public_key(), &mut rng).unwrap();
        assert_eq!(FileKey::open(&STANDARD.encode(short), &reader), Err(FileError::Key));
        assert_eq!(key.seal_for(&PublicKey::from_bytes([0; 32]), &mut rng), Err(FileError::Key), "a weak point");
        assert_eq!(FileKey::parse(&key.to_hex()).unwrap(), key);
        assert_eq!(format!("{key:?}"), "FileKey(…)");
        assert_ne!(key.derived("a"), key.derived("b"));
    }
}
