//! What is signed of `POST /upload`: the headers say what the body is, so they are signed with it.
//!
//! The headers of [`crate::crypto::http`] are sent as everywhere. In place of the body's SHA-256 stands [`upload_digest`], and the
//! body's SHA-256 is sent in [`CONTENT_HEADER`]: the broker checks the signature before the first byte, and the body when it ends.

use crate::crypto::http::sha256_hex;

/// Header with the SHA-256 of the body, in lower-case hex.
pub const CONTENT_HEADER: &str = "x-claudemesh-content-sha256";

/// The headers that are signed, in the order in which they are.
pub const SIGNED_HEADERS: [&str; 13] = [
    "content-type",
    "x-content-format",
    "x-encrypted",
    "x-expires-in",
    "x-file-keys",
    "x-file-name",
    "x-member-id",
    "x-mesh-id",
    "x-owner-pubkey",
    "x-persistent",
    "x-sealed-meta",
    "x-tags",
    "x-target-spec",
];

/// What stands in the signed text in place of the body's hash: the SHA-256 of one line `name:value` for each of
/// [`SIGNED_HEADERS`] that is sent, and of the body's hash behind them. In lower-case hex.
pub fn upload_digest<'a>(body_sha256: &str, header: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut text = String::new();
    for name in SIGNED_HEADERS {
        if let Some(value) = header(name) {
            text.extend([name, ":", value, "\n"]);
        }
    }
    text.push_str(body_sha256);
    sha256_hex(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_header_and_the_body_are_in_the_digest() {
        let digest = |name: &str, body: &str| {
            upload_digest(body, |header| match header {
                "x-file-name" => Some(name.to_owned().leak()),
                _ => None,
            })
        };
        assert_eq!(digest("a", "00"), sha256_hex(b"x-file-name:a\n00"));
        assert_ne!(digest("a", "00"), digest("b", "00"));
        assert_ne!(digest("a", "00"), digest("a", "01"));
        assert_eq!(upload_digest("00", |_| None), sha256_hex(b"00"));
        assert!(SIGNED_HEADERS.is_sorted());
    }
}
