//! A file in the form of the existing system: a nonce of 24 bytes, then `crypto_secretbox` of the whole. It is opened whole, so it
//! has a bound; our own files are [`super::chunks`].

use crypto_secretbox::aead::{AeadInPlace, KeyInit, generic_array::GenericArray};
use crypto_secretbox::{Tag, XSalsa20Poly1305};
use rand::{CryptoRng, RngCore};

use super::{FileError, FileKey};

/// Bytes before the file: nonce and tag.
pub const OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;
/// Longest file of this form, in bytes when it is not sealed: what the existing system takes.
pub const MAX_BYTES: usize = 50 << 20;

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Seals a whole file.
///
/// # Errors
/// [`FileError::TooLong`]
pub fn seal(key: &FileKey, plain: &[u8], rng: &mut (impl RngCore + CryptoRng)) -> Result<Vec<u8>, FileError> {
    let mut nonce = [0; NONCE_BYTES];
    rng.fill_bytes(&mut nonce);
    seal_with_nonce(key, plain, nonce)
}

/// As [`seal`] with a given nonce, which must never be used twice with one key.
///
/// # Errors
/// As [`seal`].
pub fn seal_with_nonce(key: &FileKey, plain: &[u8], nonce: [u8; NONCE_BYTES]) -> Result<Vec<u8>, FileError> {
    if plain.len() > MAX_BYTES {
        return Err(FileError::TooLong);
    }
    let mut sealed = vec![0; OVERHEAD];
    sealed[..NONCE_BYTES].copy_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let cipher = XSalsa20Poly1305::new(GenericArray::from_slice(&key.0));
    let (head, body) = sealed.split_at_mut(OVERHEAD);
    let tag = cipher
        .encrypt_in_place_detached(GenericArray::from_slice(&nonce), b"", body)
        .map_err(|_| FileError::TooLong)?;
    head[NONCE_BYTES..].copy_from_slice(&tag);
    Ok(sealed)
}

/// Opens a whole file in place.
///
/// # Errors
/// [`FileError::Malformed`] when it is too short, [`FileError::TooLong`], [`FileError::CannotOpen`].
pub fn open(key: &FileKey, mut sealed: Vec<u8>) -> Result<Vec<u8>, FileError> {
    if sealed.len() < OVERHEAD {
        return Err(FileError::Malformed);
    }
    if sealed.len() > MAX_BYTES + OVERHEAD {
        return Err(FileError::TooLong);
    }
    let cipher = XSalsa20Poly1305::new(GenericArray::from_slice(&key.0));
    let (head, body) = sealed.split_at_mut(OVERHEAD);
    let (nonce, tag) = head.split_at(NONCE_BYTES);
    cipher
        .decrypt_in_place_detached(GenericArray::from_slice(nonce), b"", body, Tag::from_slice(tag))
        .map_err(|_| FileError::CannotOpen)?;
    sealed.drain(..OVERHEAD);
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_changed_or_short_file_does_not_open() {
        let key = FileKey::from_bytes([3; 32]);
        let sealed = seal_with_nonce(&key, b"hello", [7; 24]).unwrap();
        assert_eq!(open(&key, sealed.clone()).unwrap(), b"hello");
        assert_eq!(open(&FileKey::from_bytes([4; 32]), sealed.clone()), Err(FileError::CannotOpen));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&key, changed), Err(FileError::CannotOpen), "byte {at}");
        }
        assert_eq!(open(&key, sealed[..OVERHEAD - 1].to_vec()), Err(FileError::Malformed));
        assert_eq!(seal(&key, &vec![0; MAX_BYTES + 1], &mut rand::rngs::OsRng), Err(FileError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(plain: Vec<u8>, nonce: [u8; 24], key: [u8; 32]) {
            let key = FileKey::from_bytes(key);
            prop_assert_eq!(open(&key, seal_with_nonce(&key, &plain, nonce).unwrap()).unwrap(), plain);
        }
    }
}
