//! Frames: a header of [`HEADER_BYTES`], a head (JSON) and a body (bytes).
//!
//! | Offset | Bytes | What |
//! |---|---|---|
//! | 0 | 4 | `cmR1` |
//! | 4 | 1 | [`Kind`] |
//! | 5 | 1 | 1 when this is the last frame of its sender on the stream |
//! | 6 | 2 | 0 |
//! | 8 | 8 | number of the stream; 0 for messages |
//! | 16 | 4 | bytes of the head |
//! | 20 | 4 | bytes of the body |
//! | 24 | 8 | the mark: beginning of SHA-256 over the session and the header so far |
//!
//! Numbers are big-endian. A reader looks for the next header whose mark fits and skips what is before it, so bytes of
//! something else cost nothing but themselves. The mark is no signature: it tells frames of this session from all other bytes, also from
//! bytes that an MCP server has made to look like a frame, because it does not know the session.

use std::fmt;

use rand::{CryptoRng, RngCore};
use sha2::{Digest, Sha256};

use super::limits::{MAX_DATA_BYTES, MAX_FRAME_BYTES};

/// Bytes before the head.
pub const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"cmR1";
const MARK_AT: usize = 24;
/// What is kept of a buffer that a large frame has made large.
const KEEP_BYTES: usize = 262_144;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// [`super::ToRunner`] or [`super::FromRunner`] as head, and a body that belongs to it. Stream 0.
    Message = 1,
    /// Opens a stream, or begins the answer on it: a head, and the beginning of the body.
    Head = 2,
    /// More of the body.
    Data = 3,
    /// The receiver has taken so many bytes of the body: a number of 4 bytes as body.
    Credit = 4,
    /// The stream is over; [`super::Reset`] as head. Nothing follows on it from either side.
    Reset = 5,
    /// Something about the exchange, [`super::Note`] as head. It needs no credit.
    Note = 6,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Message, Self::Head, Self::Data, Self::Credit, Self::Reset, Self::Note];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The secret that frames of one attachment have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Session([u8; 16]);

impl Session {
    /// That of `attach`, which tells the other one.
    pub const NONE: Self = Self([0; 16]);

    /// A new one.
    pub fn random(rng: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// From 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// 32 hex digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    fn mark(&self, header: &[u8]) -> [u8; 8] {
        let digest = Sha256::new().chain_update(self.0).chain_update(header).finalize();
        let mut mark = [0; 8];
        mark.copy_from_slice(&digest[..8]);
        mark
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Session(…)")
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The last of its sender on this stream.
    pub last: bool,
    /// The stream: odd when the runner opened it, even when the broker did. Numbers of one session grow and are not used again.
    pub stream: u64,
    /// JSON; empty for data and credit.
    pub head: Vec<u8>,
    /// Bytes.
    pub body: Vec<u8>,
}

/// A frame that must not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Larger than [`MAX_FRAME_BYTES`], or data larger than [`MAX_DATA_BYTES`].
    #[error("expected a frame of at most {MAX_FRAME_BYTES} bytes, and data of at most {MAX_DATA_BYTES}")]
    TooLarge,
    /// The head has no JSON form.
    #[error("the head has no form in JSON")]
    Head,
}

impl Frame {
    /// A message.
    ///
    /// # Errors
    /// As [`Frame::with_head`].
    pub fn message(message: &impl serde::Serialize, body: Vec<u8>) -> Result<Self, FrameError> {
        Self::with_head(Kind::Message, 0, message, body, false)
    }

    /// A frame whose head is `head` as JSON.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`]; [`FrameError::Head`] for what JSON cannot say.
    pub fn with_head(
        kind: Kind,
        stream: u64,
        head: &impl serde::Serialize,
        body: Vec<u8>,
        last: bool,
    ) -> Result<Self, FrameError> {
        let head = serde_json::to_vec(head).map_err(|_| FrameError::Head)?;
        if head.len() + body.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge);
        }
        Ok(Self { kind, last, stream, head, body })
    }

    /// More of the body of a stream.
    pub fn data(stream: u64, body: Vec<u8>, last: bool) -> Self {
        Self { kind: Kind::Data, last, stream, head: Vec::new(), body }
    }

    /// Lets the other side send `bytes` more.
    pub fn credit(stream: u64, bytes: u32) -> Self {
        Self { kind: Kind::Credit, last: false, stream, head: Vec::new(), body: bytes.to_be_bytes().to_vec() }
    }

    /// What a credit frame grants.
    pub fn granted(&self) -> Option<u32> {
        let bytes = <[u8; 4]>::try_from(self.body.as_slice()).ok()?;
        (self.kind == Kind::Credit).then(|| u32::from_be_bytes(bytes))
    }

    /// Reads the head.
    ///
    /// # Errors
    /// It is not JSON of that form.
    pub fn head<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.head)
    }

    /// Writes the frame behind what is in `out`.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`]; `out` is as before.
    pub fn encode(&self, session: &Session, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let bytes = self.head.len() + self.body.len();
        if bytes > MAX_FRAME_BYTES || (self.kind == Kind::Data && bytes > MAX_DATA_BYTES) {
            return Err(FrameError::TooLarge);
        }
        let start = out.len();
        out.reserve(HEADER_BYTES + bytes);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.kind as u8, u8::from(self.last), 0, 0]);
        out.extend_from_slice(&self.stream.to_be_bytes());
        // Both are at most MAX_FRAME_BYTES.
        out.extend_from_slice(&(self.head.len() as u32).to_be_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_be_bytes());
        let mark = session.mark(&out[start..start + MARK_AT]);
        out.extend_from_slice(&mark);
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&self.body);
        Ok(())
    }
}

struct Header {
    kind: Kind,
    last: bool,
    stream: u64,
    head: usize,
    body: usize,
}

/// Finds frames in bytes. It takes pieces of any size, never fails, and holds at most one frame and one piece.
#[derive(Debug)]
pub struct Decoder {
    session: Session,
    /// Also takes frames of [`Session::NONE`]: the runner does, for `attach`.
    any: bool,
    buffer: Vec<u8>,
    /// Where what is not read yet begins.
    at: usize,
    skipped: u64,
}

impl Decoder {
    /// Of the broker, which has made the session.
    pub fn of(session: Session) -> Self {
        Self { session, any: false, buffer: Vec::new(), at: 0, skipped: 0 }
    }

    /// Of the runner, which is told the session by `attach`. A frame without session that is no `attach` is to be ignored.
    pub fn attachable() -> Self {
        Self { any: true, ..Self::of(Session::NONE) }
    }

    /// From here on frames have the mark of this session.
    pub fn attached(&mut self, session: Session) {
        self.session = session;
    }

    /// Bytes that belonged to no frame.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Takes bytes. Ask [`Decoder::next_frame`] until it has none before giving more.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, with whether it has the mark of the session ([`Session::NONE`] otherwise).
    pub fn next_frame(&mut self) -> Option<(Frame, bool)> {
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            if rest.len() < HEADER_BYTES {
                // Where no header can begin, nothing has to be kept.
                if !rest.is_empty() && !rest.starts_with(&MAGIC[..rest.len().min(4)]) {
                    self.skip(1);
                    continue;
                }
                return None;
            }
            let Some((header, marked)) = self.header(rest) else {
                let next = rest[1..].iter().position(|byte| *byte == MAGIC[0]).map_or(rest.len(), |at| at + 1);
                self.skip(next);
                continue;
            };
            let end = HEADER_BYTES + header.head + header.body;
            if rest.len() < end {
                return None;
            }
            let frame = Frame {
                kind: header.kind,
                last: header.last,
                stream: header.stream,
                head: rest[HEADER_BYTES..HEADER_BYTES + header.head].to_vec(),
                body: rest[HEADER_BYTES + header.head..end].to_vec(),
            };
            self.at += end;
            return Some((frame, marked));
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.at += bytes;
        self.skipped += bytes as u64;
    }

    fn header(&self, rest: &[u8]) -> Option<(Header, bool)> {
        if !rest.starts_with(&MAGIC) || rest[5] > 1 || rest[6..8] != [0, 0] {
            return None;
        }
        let number = |at: usize| u32::from_be_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let header = Header {
            kind: Kind::of(rest[4])?,
            last: rest[5] == 1,
            stream: u64::from(number(8)) << 32 | u64::from(number(12)),
            head: number(16) as usize,
            body: number(20) as usize,
        };
        if header.head.saturating_add(header.body) > MAX_FRAME_BYTES {
            return None;
        }
        let mark = &rest[MARK_AT..HEADER_BYTES];
        let marked = self.session != Session::NONE && self.session.mark(&rest[..MARK_AT]) == mark;
        (marked || (self.any && Session::NONE.mark(&rest[..MARK_AT]) == mark)).then_some((header, marked))
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
