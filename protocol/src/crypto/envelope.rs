//! Bodies of messages: sealed for one recipient, or readable by their audience.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_box::SalsaBox;
use crypto_box::aead::{Aead, generic_array::GenericArray};
use rand::{CryptoRng, RngCore};

use super::keys::{self, KeyError, SecretKey};
use crate::id::PublicKey;

/// The two wire fields of a body, both standard base64 with padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// 24 bytes.
    pub nonce: String,
    /// Tag (16 bytes) and body, or the plain body for audiences.
    pub ciphertext: String,
}

/// Why a body cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A field is not base64 of the right length.
    #[error("expected base64 of a 24-byte nonce and of at least 16 bytes of ciphertext")]
    Malformed,
    /// One of the keys is unusable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not sealed by that sender for that recipient, or changed on the way.
    #[error("the body cannot be opened with this key")]
    CannotOpen,
    /// The opened body is not UTF-8.
    #[error("the body is not UTF-8 text")]
    NotText,
}

/// Seals a text: `crypto_box_easy` with the x25519 forms of both ed25519 keys.
///
/// # Errors
/// [`EnvelopeError::Key`] when the recipient's key is no point.
pub fn seal_direct(
    text: &str,
    recipient: &PublicKey,
    sender: &SecretKey,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<Envelope, EnvelopeError> {
    let mut nonce = [0; 24];
    rng.fill_bytes(&mut nonce);
    seal_direct_with_nonce(text, recipient, sender, nonce)
}

/// As [`seal_direct`] with a given nonce, which must never be used twice for the same pair of keys.
///
/// # Errors
/// As [`seal_direct`].
pub fn seal_direct_with_nonce(
    text: &str,
    recipient: &PublicKey,
    sender: &SecretKey,
    nonce: [u8; 24],
) -> Result<Envelope, EnvelopeError> {
    let sealed = SalsaBox::new(&keys::to_x25519(recipient)?, &sender.to_x25519())
        .encrypt(GenericArray::from_slice(&nonce), text.as_bytes())
        .map_err(|_| EnvelopeError::Malformed)?;
    Ok(Envelope { nonce: STANDARD.encode(nonce), ciphertext: STANDARD.encode(sealed) })
}

/// Opens a sealed text.
///
/// # Errors
/// [`EnvelopeError::CannotOpen`] when the keys do not fit; never returns bytes that failed authentication.
pub fn open_direct(
    nonce: &str,
    ciphertext: &str,
    sender: &PublicKey,
    recipient: &SecretKey,
) -> Result<String, EnvelopeError> {
    let nonce = STANDARD.decode(nonce).map_err(|_| EnvelopeError::Malformed)?;
    let sealed = STANDARD.decode(ciphertext).map_err(|_| EnvelopeError::Malformed)?;
    if nonce.len() != 24 || sealed.len() < 16 {
        return Err(EnvelopeError::Malformed);
    }
    let opened = SalsaBox::new(&keys::to_x25519(sender)?, &recipient.to_x25519())
        .decrypt(GenericArray::from_slice(&nonce), sealed.as_slice())
        .map_err(|_| EnvelopeError::CannotOpen)?;
    String::from_utf8(opened).map_err(|_| EnvelopeError::NotText)
}

/// A body for an audience: base64 of the text, and a random nonce that older clients expect.
pub fn encode_public(text: &str, rng: &mut (impl RngCore + CryptoRng)) -> Envelope {
    let mut nonce = [0; 24];
    rng.fill_bytes(&mut nonce);
    Envelope { nonce: STANDARD.encode(nonce), ciphertext: STANDARD.encode(text) }
}

/// Reads a body for an audience.
///
/// # Errors
/// Not base64, or not UTF-8.
pub fn decode_public(ciphertext: &str) -> Result<String, EnvelopeError> {
    let bytes = STANDARD.decode(ciphertext).map_err(|_| EnvelopeError::Malformed)?;
    String::from_utf8(bytes).map_err(|_| EnvelopeError::NotText)
}

/// `crypto_box_seal`: anyone can seal to an x25519 key, only its owner opens.
///
/// # Errors
/// [`EnvelopeError::Malformed`] when the cipher refuses the input (it never does for short inputs).
pub fn seal_anonymous(
    bytes: &[u8],
    recipient: &crypto_box::PublicKey,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<Vec<u8>, EnvelopeError> {
    recipient.seal(rng, bytes).map_err(|_| EnvelopeError::Malformed)
}

/// `crypto_box_seal_open`.
///
/// # Errors
/// [`EnvelopeError::CannotOpen`].
pub fn open_anonymous(sealed: &[u8], recipient: &crypto_box::SecretKey) -> Result<Vec<u8>, EnvelopeError> {
    recipient.unseal(sealed).map_err(|_| EnvelopeError::CannotOpen)
}

/// SHA-256 fingerprint of a send request, so that a reused idempotency key with another content is noticed.
///
/// Parts separated by NUL: `version kind ref reply_to priority meta`, then the raw SHA-256 of the body.
pub fn request_fingerprint(kind: &str, reference: &str, reply_to: &str, priority: &str, body: &str) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for part in ["1", kind, reference, reply_to, priority, ""] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(Sha256::digest(body));
    hex::encode(hash.finalize())
}
