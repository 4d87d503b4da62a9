//! The bytes of a file as the broker stores them, made while they are read and undone while they arrive. Neither side holds more than
//! a few chunks, however long the file is.

use std::io::{self, Read, Write};

use claudemesh_protocol::crypto::file::chunks::{CHUNK_BYTES, Chunks, HEADER_BYTES, SEALED_CHUNK_BYTES};
use claudemesh_protocol::crypto::file::{FileError, FileKey};
use sha2::{Digest, Sha256};

/// Hash and length of bytes that went by.
#[derive(Clone, Default)]
pub struct Tally {
    hash: Sha256,
    bytes: u64,
}

impl Tally {
    /// Takes more of them.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many there were.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// SHA-256 of all of them so far, in hex.
    pub fn sha256(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }
}

/// A file on its way to the broker: what is read from it is what is stored.
pub struct Outgoing<R> {
    from: R,
    sealing: Option<Chunks>,
    /// The next piece of the file: only when there is one behind it, it is not the last.
    next: Vec<u8>,
    number: u32,
    ended: bool,
    ready: Vec<u8>,
    taken: usize,
    /// Of the file itself, when it is not what is stored.
    plain: Option<Tally>,
    stored: Tally,
}

impl<R: Read> Outgoing<R> {
    /// A file that is stored as it is.
    pub fn plain(from: R) -> Self {
        Self {
            from,
            sealing: None,
            next: Vec::new(),
            number: 0,
            ended: false,
            ready: Vec::new(),
            taken: 0,
            plain: None,
            stored: Tally::default(),
        }
    }

    /// A file that is sealed under this header. A header is for one content only.
    ///
    /// # Errors
    /// [`FileError`] when the header is not one of this key.
    pub fn sealed(from: R, key: &FileKey, header: &[u8]) -> Result<Self, FileError> {
        let chunks = Chunks::new(key, header)?;
        let plain = Some(Tally::default());
        Ok(Self { ready: header.to_vec(), sealing: Some(chunks), plain, ..Self::plain(from) })
    }

    /// Spares the hash of the file itself, when it is known.
    #[must_use]
    pub fn without_plain_tally(self) -> Self {
        Self { plain: None, ..self }
    }

    /// What was read of the file itself. When that is not counted: what was given out.
    pub fn plain_tally(&self) -> &Tally {
        self.plain.as_ref().unwrap_or(&self.stored)
    }

    /// What was given out.
    pub fn stored_tally(&self) -> &Tally {
        &self.stored
    }

    /// Reads until `part` is full or the file ends. Answers whether that was its end.
    ///
    /// # Errors
    /// What reading says.
    pub fn fill(&mut self, part: &mut Vec<u8>, most: usize) -> io::Result<bool> {
        part.clear();
        loop {
            let wanted = (most - part.len()) as u64;
            if wanted == 0 {
                // A file that ends with the part has ended: one more byte would be read otherwise.
                return self.is_drained();
            }
            if self.by_ref().take(wanted).read_to_end(part)? == 0 {
                return Ok(true);
            }
        }
    }

    fn is_drained(&mut self) -> io::Result<bool> {
        if self.taken == self.ready.len() && !self.ended {
            self.make()?;
        }
        Ok(self.taken == self.ready.len())
    }

    /// Makes the next bytes that are ready; none at the end.
    fn make(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.taken = 0;
        let Some(chunks) = &self.sealing else {
            read_piece(&mut self.from, &mut self.ready, CHUNK_BYTES)?;
            self.ended = self.ready.is_empty();
            return Ok(());
        };
        if self.number == 0 && self.next.is_empty() {
            read_piece(&mut self.from, &mut self.next, CHUNK_BYTES)?;
        }
        std::mem::swap(&mut self.ready, &mut self.next);
        self.next.clear();
        if self.ready.len() == CHUNK_BYTES {
            read_piece(&mut self.from, &mut self.next, CHUNK_BYTES)?;
        }
        if let Some(plain) = &mut self.plain {
            plain.add(&self.ready);
        }
        self.ended = self.next.is_empty();
        chunks.seal(self.number, self.ended, &mut self.ready).map_err(io::Error::other)?;
        self.number = self.number.checked_add(1).ok_or_else(|| io::Error::other(FileError::TooLong))?;
        Ok(())
    }
}

impl<R: Read> Read for Outgoing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() && !self.ended {
            self.make()?;
        }
        let rest = &self.ready[self.taken..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.stored.add(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

/// Reads `most` bytes, fewer only at the end.
fn read_piece(from: &mut impl Read, into: &mut Vec<u8>, most: usize) -> io::Result<()> {
    into.reserve_exact(most);
    from.take(most as u64).read_to_end(into).map(drop)
}

/// A file that arrives: stored bytes go in, the file itself comes out, and only what is authentic.
pub struct Incoming<W> {
    into: W,
    opening: Option<Opening>,
    plain: Tally,
}

struct Opening {
    chunks: Chunks,
    number: u32,
    /// Bytes that are not opened yet: the last chunk is known at the end only.
    held: Vec<u8>,
}

impl<W: Write> Incoming<W> {
    /// A file that is stored as it is. `plain` is of what `into` has already.
    pub fn plain(into: W, plain: Tally) -> Self {
        Self { into, opening: None, plain }
    }

    /// A sealed file whose bytes arrive from chunk `number` on, behind the header.
    ///
    /// # Errors
    /// [`FileError`] when the header is not one of this key.
    pub fn sealed(into: W, key: &FileKey, header: &[u8], number: u32, plain: Tally) -> Result<Self, FileError> {
        let chunks = Chunks::new(key, header)?;
        let held = Vec::with_capacity(2 * SEALED_CHUNK_BYTES);
        Ok(Self { into, opening: Some(Opening { chunks, number, held }), plain })
    }

    /// Takes bytes as they come.
    ///
    /// # Errors
    /// `InvalidData` for what is not authentic, and what writing says.
    pub fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let Some(opening) = &mut self.opening else {
                self.plain.add(bytes);
                return self.into.write_all(bytes);
            };
            if opening.held.len() == SEALED_CHUNK_BYTES {
                // More comes behind it.
                self.open(false)?;
                continue;
            }
            let count = bytes.len().min(SEALED_CHUNK_BYTES - opening.held.len());
            let (now, later) = bytes.split_at(count);
            opening.held.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Takes the end. Answers what arrived in all.
    ///
    /// # Errors
    /// As [`Incoming::push`].
    pub fn finish(mut self) -> io::Result<(W, Tally)> {
        if self.opening.is_some() {
            self.open(true)?;
        }
        self.into.flush()?;
        Ok((self.into, self.plain))
    }

    /// What arrived so far.
    pub fn plain_tally(&self) -> &Tally {
        &self.plain
    }

    /// Where it goes.
    pub fn inner(&mut self) -> &mut W {
        &mut self.into
    }

    fn open(&mut self, is_last: bool) -> io::Result<()> {
        let Some(opening) = &mut self.opening else { return Ok(()) };
        opening
            .chunks
            .open(opening.number, is_last, &mut opening.held)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.plain.add(&opening.held);
        self.into.write_all(&opening.held)?;
        opening.held.clear();
        opening.number += 1;
        Ok(())
    }
}

/// How many bytes of a sealed file are behind a number of its own bytes, all in whole chunks: the chunk to go on with, and its place.
pub fn resume_at(plain: u64) -> (u32, u64) {
    let number = u32::try_from(plain / CHUNK_BYTES as u64).unwrap_or(u32::MAX);
    (number, claudemesh_protocol::crypto::file::chunks::sealed_offset(number))
}

/// The header at the beginning of stored bytes.
pub const HEADER: usize = HEADER_BYTES;

#[cfg(test)]
mod tests {
    use claudemesh_protocol::crypto::file::chunks::{new_header, sealed_bytes};
    use proptest::prelude::*;

    use super::*;

    fn key() -> (FileKey, [u8; HEADER]) {
        let key = FileKey::from_bytes([5; 32]);
        let header = new_header(&key, &mut rand::rngs::OsRng);
        (key, header)
    }

    fn sealed(plain: &[u8], key: &FileKey, header: &[u8]) -> Vec<u8> {
        let mut stored = vec![];
        let mut out = Outgoing::sealed(plain, key, header).unwrap();
        out.read_to_end(&mut stored).unwrap();
        assert_eq!((out.plain_tally().bytes(), out.stored_tally().bytes()), (plain.len() as u64, stored.len() as u64));
        assert_eq!(out.stored_tally().sha256(), hex::encode(Sha256::digest(&stored)));
        assert_eq!(out.plain_tally().sha256(), hex::encode(Sha256::digest(plain)));
        stored
    }

    #[test]
    fn a_sealed_file_has_the_length_that_is_foretold_and_comes_in_any_portions() {
        let (key, header) = key();
        for count in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 200_000] {
            let plain: Vec<u8> = (0..count).map(|at| at as u8).collect();
            let stored = sealed(&plain, &key, &header);
            assert_eq!(stored.len() as u64, sealed_bytes(count as u64).unwrap(), "{count}");
            for portion in [1_000, 65_536, 65_552, usize::MAX] {
                let mut file = Incoming::sealed(vec![], &key, &header, 0, Tally::default()).unwrap();
                for bytes in stored[HEADER..].chunks(portion.min(stored.len())) {
                    file.push(bytes).unwrap();
                }
                let (got, tally) = file.finish().unwrap();
                assert!(got == plain && tally.bytes() == count as u64, "{count} in portions of {portion}");
            }
        }
    }

    #[test]
    fn it_goes_on_at_a_chunk() {
        let (key, header) = key();
        let plain: Vec<u8> = (0..3 * CHUNK_BYTES + 9).map(|at| (at / 3) as u8).collect();
        let stored = sealed(&plain, &key, &header);
        let (number, at) = resume_at(2 * CHUNK_BYTES as u64);
        let mut before = Tally::default();
        before.add(&plain[..2 * CHUNK_BYTES]);
        let mut file = Incoming::sealed(plain[..2 * CHUNK_BYTES].to_vec(), &key, &header, number, before).unwrap();
        file.push(&stored[usize::try_from(at).unwrap()..]).unwrap();
        let (got, tally) = file.finish().unwrap();
        assert_eq!((got == plain, tally.sha256()), (true, hex::encode(Sha256::digest(&plain))));
    }

    #[test]
    fn what_is_cut_or_changed_writes_nothing_more() {
        let (key, header) = key();
        let plain = vec![7; 2 * CHUNK_BYTES];
        let mut stored = sealed(&plain, &key, &header);
        let mut cut = Incoming::sealed(vec![], &key, &header, 0, Tally::default()).unwrap();
        cut.push(&stored[HEADER..HEADER + SEALED_CHUNK_BYTES]).unwrap();
        assert!(cut.finish().is_err(), "the first chunk is not the last");
        let at = stored.len() - 1;
        stored[at] ^= 1;
        let mut changed = Incoming::sealed(vec![], &key, &header, 0, Tally::default()).unwrap();
        changed.push(&stored[HEADER..]).unwrap();
        assert_eq!(changed.inner().len(), CHUNK_BYTES, "the authentic part");
        assert_eq!(changed.finish().err().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
    }

    #[test]
    fn parts_are_full_but_for_the_last_and_say_when_that_was() {
        for (count, expected) in
            [(0, vec![(0, true)]), (5, vec![(4, false), (1, true)]), (8, vec![(4, false), (4, true)])]
        {
            let plain = vec![1; count];
            let mut file = Outgoing::plain(plain.as_slice());
            let (mut part, mut seen) = (vec![], vec![]);
            loop {
                let ended = file.fill(&mut part, 4).unwrap();
                seen.push((part.len(), ended));
                if ended {
                    break;
                }
            }
            assert_eq!(seen, expected, "{count}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn the_same_key_and_header_make_the_same_bytes_in_any_parts(count in 0..200_000_usize, most in 1..100_000_usize) {
            let (key, header) = key();
            let plain: Vec<u8> = (0..count).map(|at| (at % 251) as u8).collect();
            let whole = sealed(&plain, &key, &header);
            let mut file = Outgoing::sealed(plain.as_slice(), &key, &header).unwrap();
            let (mut part, mut all) = (vec![], vec![]);
            while !file.fill(&mut part, most).unwrap() {
                prop_assert_eq!(part.len(), most);
                all.extend_from_slice(&part);
            }
            all.extend_from_slice(&part);
            prop_assert!(all == whole);
        }
    }
}
