//! ed25519 key pairs in libsodium's format, and their x25519 form.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::PublicKey;

/// A key or signature that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 128 hex digits, or the public half does not belong to the seed.
    #[error("expected an ed25519 secret key of 128 hex digits (seed and public key)")]
    BadSecret,
    /// Not a usable point of the curve.
    #[error("expected an ed25519 public key")]
    BadPublic,
    /// Not 128 hex digits.
    #[error("expected a signature of 128 hex digits")]
    BadSignatureShape,
    /// The signature does not verify.
    #[error("signature does not verify")]
    BadSignature,
}

/// An ed25519 secret key: 32 bytes of seed, on the wire and in files 128 hex digits (seed ‖ public key).
///
/// Printing shows nothing, memory is wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey {
    seed: [u8; 32],
}

impl SecretKey {
    /// A new random key.
    pub fn random(rng: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        Self { seed }
    }

    /// From a seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed }
    }

    /// From libsodium's 64 bytes in hex.
    ///
    /// # Errors
    /// [`KeyError::BadSecret`] also when the second half is not the public key of the first.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| KeyError::BadSecret)?;
        let mut seed = [0; 32];
        seed.copy_from_slice(&bytes[..32]);
        let key = Self { seed };
        let fits = key.public().as_bytes() == &bytes[32..];
        bytes.zeroize();
        seed.zeroize();
        if fits { Ok(key) } else { Err(KeyError::BadSecret) }
    }

    /// 128 hex digits. For files only.
    pub fn to_hex(&self) -> zeroize::Zeroizing<String> {
        let mut bytes = self.signing().to_keypair_bytes();
        let text = hex::encode(bytes);
        bytes.zeroize();
        text.into()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.signing().verifying_key().to_bytes())
    }

    /// Detached signature, 128 lower-case hex digits.
    pub fn sign(&self, message: &[u8]) -> String {
        hex::encode(self.signing().sign(message).to_bytes())
    }

    /// The x25519 secret for boxes, as `crypto_sign_ed25519_sk_to_curve25519` makes it.
    pub fn to_x25519(&self) -> crypto_box::SecretKey {
        crypto_box::SecretKey::from(self.signing().to_scalar_bytes())
    }

    fn signing(&self) -> SigningKey {
        SigningKey::from_bytes(&self.seed)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SecretKey(…)")
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(&self.seed[..], &other.seed[..]).into()
    }
}

impl Serialize for SecretKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for SecretKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        let key = Self::parse(&text).map_err(de::Error::custom);
        text.zeroize();
        key
    }
}

/// Verifies a detached signature given as 128 hex digits of either case.
///
/// # Errors
/// [`KeyError::BadSignatureShape`], [`KeyError::BadPublic`] or [`KeyError::BadSignature`].
pub fn verify(key: &PublicKey, message: &[u8], signature: &str) -> Result<(), KeyError> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(signature, &mut bytes).map_err(|_| KeyError::BadSignatureShape)?;
    let verifying = VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| KeyError::BadPublic)?;
    // Strict: no small-order keys, no malleable signatures; libsodium refuses the same.
    verifying.verify_strict(message, &Signature::from_bytes(&bytes)).map_err(|_| KeyError::BadSignature)
}

/// The x25519 form of an ed25519 public key, as `crypto_sign_ed25519_pk_to_curve25519` makes it.
///
/// # Errors
/// [`KeyError::BadPublic`] when it is no point or one of small order.
pub fn to_x25519(key: &PublicKey) -> Result<crypto_box::PublicKey, KeyError> {
    let verifying = VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| KeyError::BadPublic)?;
    if verifying.is_weak() {
        return Err(KeyError::BadPublic);
    }
    Ok(crypto_box::PublicKey::from(verifying.to_montgomery().to_bytes()))
}

/// A number that two members compare by another way than the mesh: six groups of five digits from both keys, the same for
/// both of them.
pub fn safety_number(one: &PublicKey, other: &PublicKey) -> String {
    let (first, second) = if one.as_bytes() <= other.as_bytes() { (one, other) } else { (other, one) };
    let digest = Sha256::new().chain_update(first.as_bytes()).chain_update(second.as_bytes()).finalize();
    // 120 bits: six times 20.
    let groups = (0..6).map(|group| {
        let bits = (0..20).map(|bit| group * 20 + bit);
        let value = bits.fold(0_u32, |value, bit| value << 1 | u32::from(digest[bit / 8] >> (7 - bit % 8) & 1));
        format!("{:05}", value % 100_000)
    });
    groups.collect::<Vec<_>>().join(" ")
}
