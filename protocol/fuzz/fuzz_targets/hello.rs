//! The handshake, which anyone may send: hellos, keys, signatures, times.
#![no_main]

use claudemesh_protocol::crypto::keys::{self, SecretKey};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::session::{Hello, SessionHello};
use claudemesh_protocol::time;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = serde_json::from_str::<Hello>(text);
    let _ = serde_json::from_str::<SessionHello>(text);
    let _ = SecretKey::parse(text);
    if let Some(ms) = time::parse_iso(text) {
        let _ = time::iso(ms);
    }
    let (key, rest) = text.split_at_checked(64).unwrap_or((text, ""));
    if let Some(key) = PublicKey::parse(key) {
        let _ = keys::to_x25519(&key);
        let (signature, message) = rest.split_at_checked(128).unwrap_or((rest, ""));
        // A signature that a fuzzer finds would be a forgery.
        let forged = keys::verify(&key, message.as_bytes(), signature).is_ok();
        assert!(!forged || keys::to_x25519(&key).is_ok());
    }
});
