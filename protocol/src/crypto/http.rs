//! Signed HTTP requests: who changes something proves its key.
//!
//! Three headers: [`KEY_HEADER`] (public key, hex), [`TIMESTAMP_HEADER`] (Unix ms), [`SIGNATURE_HEADER`] (hex) over
//! `claudemesh-http|<METHOD>|<path and query>|<timestamp>|<sha256 hex of the body>`. The receiver allows ±60 s and
//! refuses a signature that it has seen.

use sha2::{Digest, Sha256};

use super::{keys, signed};
use crate::error::ErrorCode;
use crate::id::PublicKey;
use crate::limits;

/// Header with the signer's public key.
pub const KEY_HEADER: &str = "x-claudemesh-key";
/// Header with the time of signing.
pub const TIMESTAMP_HEADER: &str = "x-claudemesh-timestamp";
/// Header with the signature.
pub const SIGNATURE_HEADER: &str = "x-claudemesh-signature";

/// The three headers of a signed request.
pub fn headers(
    key: &keys::SecretKey,
    method: &str,
    path_and_query: &str,
    body: &[u8],
    now_ms: i64,
) -> [(&'static str, String); 3] {
    headers_over(key, method, path_and_query, &sha256_hex(body), now_ms)
}

/// As [`headers`], for a body whose digest is known: SHA-256 in lower-case hex, or what stands in its place.
pub fn headers_over(
    key: &keys::SecretKey,
    method: &str,
    path_and_query: &str,
    digest: &str,
    now_ms: i64,
) -> [(&'static str, String); 3] {
    let canonical = signed::http(method, path_and_query, now_ms, digest);
    [
        (KEY_HEADER, key.public().to_hex()),
        (TIMESTAMP_HEADER, now_ms.to_string()),
        (SIGNATURE_HEADER, key.sign(canonical.as_bytes())),
    ]
}

/// Checks the headers of a request; replay memory is the caller's.
///
/// # Errors
/// `malformed`, `timestamp_skew` or `bad_signature`.
pub fn verify(
    key: &str,
    timestamp: &str,
    signature: &str,
    method: &str,
    path_and_query: &str,
    body: &[u8],
    now_ms: i64,
) -> Result<PublicKey, ErrorCode> {
    verify_over(key, timestamp, signature, method, path_and_query, &sha256_hex(body), now_ms)
}

/// As [`verify`], for a body whose digest is known.
///
/// # Errors
/// As [`verify`].
pub fn verify_over(
    key: &str,
    timestamp: &str,
    signature: &str,
    method: &str,
    path_and_query: &str,
    digest: &str,
    now_ms: i64,
) -> Result<PublicKey, ErrorCode> {
    let key = PublicKey::parse(key).ok_or(ErrorCode::Malformed)?;
    // One signature has one spelling: the caller's replay memory may compare texts.
    if signature.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ErrorCode::Malformed);
    }
    let timestamp: i64 = timestamp.parse().map_err(|_| ErrorCode::Malformed)?;
    if now_ms.saturating_sub(timestamp).saturating_abs() > limits::MAX_CLOCK_SKEW_MS {
        return Err(ErrorCode::TimestampSkew);
    }
    let canonical = signed::http(method, path_and_query, timestamp, digest);
    match keys::verify(&key, canonical.as_bytes(), signature) {
        Ok(()) => Ok(key),
        Err(keys::KeyError::BadSignatureShape) => Err(ErrorCode::Malformed),
        Err(_) => Err(ErrorCode::BadSignature),
    }
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
