//! Sealed files from outside: headers, chunks, labels, keys, lengths. Nothing opens but what was sealed.
#![no_main]

use claudemesh_protocol::crypto::file::chunks::{self, Chunks, HEADER_BYTES};
use claudemesh_protocol::crypto::file::label::Label;
use claudemesh_protocol::crypto::file::{FileKey, whole};
use claudemesh_protocol::crypto::keys::SecretKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u32, bool, &[u8])| {
    let (length, number, is_last, bytes) = input;
    let key = FileKey::from_bytes([1; 32]);
    if let Some(plain) = chunks::plain_bytes(length) {
        assert_eq!(chunks::sealed_bytes(plain), Some(length));
    }
    let (header, body) = bytes.split_at(bytes.len().min(HEADER_BYTES));
    assert!(Chunks::new(&key, header).is_err(), "a forged header");
    let mut own = [0; HEADER_BYTES];
    let fixed = chunks::new_header(&key, &mut rand_of(length));
    own.copy_from_slice(&fixed);
    let file = Chunks::new(&key, &own).expect("our own header");
    let mut chunk = body.to_vec();
    assert!(file.open(number, is_last, &mut chunk).is_err(), "a forged chunk");
    assert!(whole::open(&key, bytes.to_vec()).is_err(), "a forged file");
    let text = String::from_utf8_lossy(bytes);
    assert!(Label::open(&text, &key).is_err() && FileKey::open(&text, &SecretKey::from_seed([2; 32])).is_err());
    let mut sealed = body.to_vec();
    sealed.truncate(chunks::CHUNK_BYTES);
    if file.seal(0, true, &mut sealed).is_ok() {
        file.open(0, true, &mut sealed).expect("what was sealed");
        assert_eq!(sealed, body[..body.len().min(chunks::CHUNK_BYTES)]);
    }
});

/// Dice that fall the same way for the same input.
fn rand_of(seed: u64) -> rand::rngs::StdRng {
    rand::SeedableRng::seed_from_u64(seed)
}
