//! Sealed bodies from outside: nothing but what the sender sealed ever opens.
#![no_main]

use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::crypto::keys::SecretKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, [u8; 24])| {
    let (first, second, nonce) = input;
    let (alice, bob) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    assert!(envelope::open_direct(first, second, &alice.public(), &bob).is_err(), "a forgery");
    let _ = envelope::decode_public(first);
    assert!(envelope::open_anonymous(first.as_bytes(), &bob.to_x25519()).is_err(), "a forgery");
    let sealed = envelope::seal_direct_with_nonce(first, &bob.public(), &alice, nonce).expect("good keys seal");
    let opened = envelope::open_direct(&sealed.nonce, &sealed.ciphertext, &alice.public(), &bob);
    assert_eq!(opened.as_deref(), Ok(first));
});
