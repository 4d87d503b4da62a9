//! The three headers of a signed request, as anyone may send them.
#![no_main]

use claudemesh_protocol::crypto::http;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str, &str, &[u8])| {
    let (key, timestamp, signature, path, body) = input;
    let verdict = http::verify(key, timestamp, signature, "POST", path, body, 1_775_641_983_000);
    assert!(verdict.is_err(), "a forgery");
});
