//! A file as a row of sealed chunks: XChaCha20-Poly1305 in the STREAM construction.
//!
//! ```text
//! "CMF1" ‖ log2 of the chunk (1) ‖ nonce (19) ‖ check of the key (32) ‖ chunk ‖ chunk ‖ … ‖ last chunk
//! ```
//!
//! A chunk is 64 KiB of the file and a tag of 16 bytes; the last one may be shorter, and is empty only in an empty file. Its nonce is
//! the file's nonce, its number and whether it is the last, and the header is authenticated with each. So a chunk that was changed,
//! moved, repeated, cut off or added does not open, and any chunk can be opened by itself. The check of the key makes sure that a
//! file has one meaning: without it someone could make a file that two keys open as two texts.

use aead::stream::{NewStream, StreamBE32, StreamPrimitive};
use chacha20poly1305::XChaCha20Poly1305;
use rand::{CryptoRng, RngCore};
use sha2::{Digest, Sha256};

use super::{FileError, FileKey};

/// Bytes of the file in one chunk: small enough to be held by the dozen, large enough that the tags cost little (0.02 %).
pub const CHUNK_BYTES: usize = 1 << CHUNK_LOG2;
/// Bytes of a sealed chunk.
pub const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + TAG_BYTES;
/// Bytes before the first chunk.
pub const HEADER_BYTES: usize = CHECK_FROM + 32;

const CHUNK_LOG2: u8 = 16;
const TAG_BYTES: usize = 16;
const MAGIC: &[u8; 4] = b"CMF1";
const NONCE_FROM: usize = 5;
const CHECK_FROM: usize = NONCE_FROM + 19;
/// Chunks that the counter can number.
const MAX_CHUNKS: u64 = 1 << 32;

/// How many chunks a file of this many bytes has.
fn chunks_of(plain: u64) -> u64 {
    plain.div_ceil(CHUNK_BYTES as u64).max(1)
}

/// Bytes that a file of `plain` bytes has when it is sealed; `None` when it is too long.
pub fn sealed_bytes(plain: u64) -> Option<u64> {
    let chunks = chunks_of(plain);
    (chunks <= MAX_CHUNKS).then(|| HEADER_BYTES as u64 + plain + chunks * TAG_BYTES as u64)
}

/// Bytes of the file in `sealed` bytes; `None` when no sealed file has that length.
pub fn plain_bytes(sealed: u64) -> Option<u64> {
    let body = sealed.checked_sub((HEADER_BYTES + TAG_BYTES) as u64)?;
    let plain = body.checked_sub(body / SEALED_CHUNK_BYTES as u64 * TAG_BYTES as u64)?;
    (sealed_bytes(plain) == Some(sealed)).then_some(plain)
}

/// Where a chunk begins among the sealed bytes.
pub fn sealed_offset(chunk: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(chunk) * SEALED_CHUNK_BYTES as u64
}

/// The header of one file. Its nonce is used with one key and one content only: who begins again makes a new one.
pub fn new_header(key: &FileKey, rng: &mut (impl RngCore + CryptoRng)) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(MAGIC);
    header[4] = CHUNK_LOG2;
    rng.fill_bytes(&mut header[NONCE_FROM..CHECK_FROM]);
    let check = check(key, &header[..CHECK_FROM]);
    header[CHECK_FROM..].copy_from_slice(&check);
    header
}

/// Whether bytes are the beginning of a file of this form. A file of the existing form begins with random bytes.
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

fn check(key: &FileKey, before: &[u8]) -> [u8; 32] {
    let secret = key.derived("claudemesh file check");
    Sha256::new().chain_update(*secret).chain_update(before).finalize().into()
}

/// Seals and opens the chunks of one file, in any order.
pub struct Chunks {
    cipher: StreamBE32<XChaCha20Poly1305>,
    header: [u8; HEADER_BYTES],
}

impl Chunks {
    /// For a file that begins with this header.
    ///
    /// # Errors
    /// [`FileError::Malformed`] for other bytes or another version, [`FileError::CannotOpen`] for another key.
    pub fn new(key: &FileKey, header: &[u8]) -> Result<Self, FileError> {
        let header: [u8; HEADER_BYTES] = header.try_into().map_err(|_| FileError::Malformed)?;
        if !is_header(&header) || header[4] != CHUNK_LOG2 {
            return Err(FileError::Malformed);
        }
        // Neither side of the comparison is secret: anyone can read the check, and the key cannot be found from it.
        if check(key, &header[..CHECK_FROM]) != header[CHECK_FROM..] {
            return Err(FileError::CannotOpen);
        }
        let nonce = aead::generic_array::GenericArray::from_slice(&header[NONCE_FROM..CHECK_FROM]);
        let secret = key.derived("claudemesh file chunks");
        Ok(Self { cipher: StreamBE32::new((&*secret).into(), nonce), header })
    }

    /// The header.
    pub fn header(&self) -> &[u8; HEADER_BYTES] {
        &self.header
    }

    /// Seals a chunk in place; it grows by its tag.
    ///
    /// # Errors
    /// [`FileError::TooLong`] for more than [`CHUNK_BYTES`], for fewer in a chunk that is not the last, and for an empty last chunk
    /// of a file that is not empty.
    pub fn seal(&self, number: u32, is_last: bool, chunk: &mut Vec<u8>) -> Result<(), FileError> {
        if !fits(number, is_last, chunk.len()) {
            return Err(FileError::TooLong);
        }
        self.cipher.encrypt_in_place(number, is_last, &self.header, chunk).map_err(|_| FileError::TooLong)
    }

    /// Opens a sealed chunk in place. What does not open is wiped.
    ///
    /// # Errors
    /// [`FileError::CannotOpen`]
    pub fn open(&self, number: u32, is_last: bool, chunk: &mut Vec<u8>) -> Result<(), FileError> {
        let opened = match chunk.len().checked_sub(TAG_BYTES) {
            Some(plain) if fits(number, is_last, plain) => {
                self.cipher.decrypt_in_place(number, is_last, &self.header, chunk).map_err(|_| FileError::CannotOpen)
            }
            _ => Err(FileError::CannotOpen),
        };
        if opened.is_err() {
            chunk.clear();
        }
        opened
    }
}

/// Whether a chunk may have this length: files have one form only.
fn fits(number: u32, is_last: bool, plain: usize) -> bool {
    match is_last {
        false => plain == CHUNK_BYTES,
        true => plain <= CHUNK_BYTES && (plain > 0 || number == 0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// A sealed file as its header and its chunks.
    fn sealed(plain: &[u8], seed: u64) -> (FileKey, [u8; HEADER_BYTES], Vec<Vec<u8>>) {
        let mut rng = StdRng::seed_from_u64(seed);
        let key = FileKey::random(&mut rng);
        let header = new_header(&key, &mut rng);
        let file = Chunks::new(&key, &header).unwrap();
        let mut pieces: Vec<Vec<u8>> = plain.chunks(CHUNK_BYTES).map(<[u8]>::to_vec).collect();
        if pieces.is_empty() {
            pieces.push(vec![]);
        }
        let last = pieces.len() - 1;
        for (number, piece) in pieces.iter_mut().enumerate() {
            file.seal(number as u32, number == last, piece).unwrap();
        }
        (key, header, pieces)
    }

    fn opened(key: &FileKey, header: &[u8], pieces: &[Vec<u8>]) -> Result<Vec<u8>, FileError> {
        let file = Chunks::new(key, header)?;
        let mut plain = vec![];
        for (number, piece) in pieces.iter().enumerate() {
            let mut piece = piece.clone();
            file.open(number as u32, number + 1 == pieces.len(), &mut piece)?;
            plain.extend(piece);
        }
        Ok(plain)
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    #[test]
    fn every_length_around_the_borders_of_chunks_opens_again() {
        for count in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 5] {
            let plain = bytes(count);
            let (key, header, pieces) = sealed(&plain, 1);
            let total = HEADER_BYTES + pieces.iter().map(Vec::len).sum::<usize>();
            assert_eq!(sealed_bytes(count as u64), Some(total as u64), "{count}");
            assert_eq!(plain_bytes(total as u64), Some(count as u64), "{count}");
            assert_eq!(opened(&key, &header, &pieces).unwrap(), plain, "{count}");
            let again = opened(&FileKey::from_bytes([9; 32]), &header, &pieces);
            assert_eq!(again, Err(FileError::CannotOpen), "another key");
        }
    }

    #[test]
    fn lengths_that_no_file_has_are_none() {
        let file = |plain| sealed_bytes(plain).unwrap();
        for wrong in [0, HEADER_BYTES as u64, file(0) - 1, file(CHUNK_BYTES as u64) + 16, file(CHUNK_BYTES as u64) + 1]
        {
            assert_eq!(plain_bytes(wrong), None, "{wrong}");
        }
        assert_eq!(sealed_bytes(u64::MAX), None);
        assert_eq!(plain_bytes(u64::MAX), None);
        assert_eq!(sealed_offset(2), (HEADER_BYTES + 2 * SEALED_CHUNK_BYTES) as u64);
    }

    #[test]
    fn a_chunk_moved_cut_repeated_added_or_of_another_file_is_found() {
        let plain = bytes(3 * CHUNK_BYTES + 100);
        let (key, header, pieces) = sealed(&plain, 2);
        let mut rng = StdRng::seed_from_u64(3);
        // Of the same key under another nonce.
        let other_header = new_header(&key, &mut rng);
        let mut other = plain[..CHUNK_BYTES].to_vec();
        Chunks::new(&key, &other_header).unwrap().seal(0, false, &mut other).unwrap();
        let changes: [(&str, fn(&mut Vec<Vec<u8>>, &[u8])); 9] = [
            ("two are swapped", |pieces, _| pieces.swap(0, 1)),
            ("the last is in front", |pieces, _| pieces.swap(1, 3)),
            ("one is repeated", |pieces, _| pieces.insert(1, pieces[0].clone())),
            ("the last is repeated", |pieces, _| pieces.push(pieces[3].clone())),
            ("the first is missing", |pieces, _| drop(pieces.remove(0))),
            ("the last is missing", |pieces, _| drop(pieces.pop())),
            ("the last is shorter", |pieces, _| pieces[3].truncate(100)),
            ("the last is longer", |pieces, _| pieces[3].push(0)),
            ("one is of another file", |pieces, other| pieces[0] = other.to_vec()),
        ];
        for (what, change) in changes {
            let mut changed = pieces.clone();
            change(&mut changed, &other);
            assert_eq!(opened(&key, &header, &changed), Err(FileError::CannotOpen), "{what}");
        }
        for at in [0, 4, 10, 40] {
            let mut changed = header;
            changed[at] ^= 1;
            assert!(opened(&key, &changed, &pieces).is_err(), "byte {at} of the header");
        }
        assert_eq!(opened(&key, &header, &pieces).unwrap(), plain);
    }

    #[test]
    fn any_chunk_opens_by_itself() {
        let plain = bytes(2 * CHUNK_BYTES + 7);
        let (key, header, pieces) = sealed(&plain, 4);
        let file = Chunks::new(&key, &header).unwrap();
        for number in [2, 0, 1] {
            let mut piece = pieces[number].clone();
            file.open(number as u32, number == 2, &mut piece).unwrap();
            assert_eq!(piece, plain[number * CHUNK_BYTES..plain.len().min((number + 1) * CHUNK_BYTES)]);
        }
        let mut piece = pieces[0].clone();
        assert_eq!(file.open(0, true, &mut piece), Err(FileError::CannotOpen), "not the last");
        assert!(piece.is_empty(), "what does not open is not handed on");
    }

    #[test]
    fn chunks_of_a_wrong_length_are_not_made() {
        let mut rng = StdRng::seed_from_u64(5);
        let key = FileKey::random(&mut rng);
        let file = Chunks::new(&key, &new_header(&key, &mut rng)).unwrap();
        for (number, is_last, count) in [(0, false, 10), (1, true, 0), (0, true, CHUNK_BYTES + 1), (0, false, 0)] {
            assert_eq!(file.seal(number, is_last, &mut vec![0; count]), Err(FileError::TooLong));
        }
        assert_eq!(Chunks::new(&key, b"CMF1").err(), Some(FileError::Malformed));
        assert_eq!(Chunks::new(&key, &[0; HEADER_BYTES]).err(), Some(FileError::Malformed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_sealed_opens_and_a_changed_byte_does_not(count in 0..150_000_usize, seed: u64, at: usize, bit in 0..8_u8) {
            let plain = bytes(count);
            let (key, header, mut pieces) = sealed(&plain, seed);
            prop_assert_eq!(opened(&key, &header, &pieces).unwrap(), plain);
            let total: usize = pieces.iter().map(Vec::len).sum();
            let mut at = at % total;
            for piece in &mut pieces {
                if at < piece.len() {
                    piece[at] ^= 1 << bit;
                    break;
                }
                at -= piece.len();
            }
            prop_assert_eq!(opened(&key, &header, &pieces), Err(FileError::CannotOpen));
        }

        #[test]
        fn lengths_are_each_others_inverse(plain in 0..1_u64 << 47) {
            prop_assert_eq!(plain_bytes(sealed_bytes(plain).unwrap()), Some(plain));
        }
    }
}
