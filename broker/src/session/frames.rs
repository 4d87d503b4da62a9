//! The headers of incoming WebSocket frames: one that announces more than is allowed is refused before it is collected.
//!
//! The decoder behind this compares a frame with its limit only once all of it is there, so anyone who announces a frame without
//! end could fill the memory with it. Such a header is replaced by one that the decoder itself refuses as too large: frames
//! before it are still handled, in order.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use actix_web::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;

/// A header of a frame of 2^64 - 1 bytes, masked as those of clients are.
const TOO_LARGE: [u8; 14] = [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Bytes of one frame that a peer may announce; raised once it has said who it is.
pub type FrameLimit = Arc<AtomicUsize>;

/// Bytes from a socket with an eye on the headers in them.
pub struct FrameSizeGuard<S> {
    bytes: S,
    limit: FrameLimit,
    /// The beginning of a header that is not complete.
    held: Bytes,
    /// What is to come of the frame whose header was seen last.
    left: u64,
    refused: bool,
}

impl<S> FrameSizeGuard<S> {
    /// Everything up to the first frame over the limit.
    pub fn new(bytes: S, limit: FrameLimit) -> Self {
        Self { bytes, limit, held: Bytes::new(), left: 0, refused: false }
    }

    /// What of a chunk goes on to the decoder.
    fn pass(&mut self, chunk: Bytes) -> Bytes {
        let chunk = if self.held.is_empty() { chunk } else { joined(&std::mem::take(&mut self.held), &chunk) };
        let limit = self.limit.load(Ordering::Relaxed) as u64;
        let mut at = self.left;
        while let Some(rest) = usize::try_from(at).ok().and_then(|at| chunk.get(at..)).filter(|rest| !rest.is_empty()) {
            let before = chunk.len() - rest.len();
            let Some((header, payload)) = header(rest) else {
                self.left = 0;
                self.held = chunk.slice(before..);
                return chunk.slice(..before);
            };
            if payload > limit {
                self.refused = true;
                return joined(&chunk[..before], &TOO_LARGE);
            }
            at += header + payload;
        }
        self.left = at - chunk.len() as u64;
        chunk
    }
}

fn joined(one: &[u8], other: &[u8]) -> Bytes {
    let mut both = BytesMut::with_capacity(one.len() + other.len());
    both.extend_from_slice(one);
    both.extend_from_slice(other);
    both.freeze()
}

/// Bytes of the header that begins here and of the payload it announces; `None` when it is not complete.
fn header(bytes: &[u8]) -> Option<(u64, u64)> {
    let second = *bytes.get(1)?;
    let (length, payload) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    (bytes.len() as u64 >= length + mask).then_some((length + mask, payload))
}

impl<S: Stream<Item = Result<Bytes, PayloadError>> + Unpin> Stream for FrameSizeGuard<S> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.refused {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(Pin::new(&mut self.bytes).poll_next(cx)) {
            Some(Ok(chunk)) => Some(Ok(self.pass(chunk))),
            end => end,
        })
    }
}

#[cfg(test)]
mod tests {
    use actix_http::ws::{Codec, Frame, ProtocolError};
    use futures_util::{StreamExt, stream};
    use proptest::prelude::*;
    use tokio_util::codec::Decoder;

    use super::*;

    const LIMIT: usize = 70_000;

    fn frame(payload: usize) -> Vec<u8> {
        let mut bytes = vec![0x82];
        match payload {
            0..=125 => bytes.push(0x80 | payload as u8),
            126..=65_535 => {
                bytes.push(0xfe);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0xff);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.resize(bytes.len() + payload.min(LIMIT), b'x');
        bytes
    }

    /// Sizes of the frames that come out of the decoder, and whether it refused one; how much it was given at most.
    fn decoded(bytes: &[u8], pieces: &[usize]) -> (Vec<usize>, bool, usize) {
        let mut rest = Bytes::copy_from_slice(bytes);
        let mut chunks = Vec::new();
        for piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let piece = (*piece).min(rest.len());
            chunks.push(Ok(rest.split_to(piece)));
        }
        let mut announced = FrameSizeGuard::new(stream::iter(chunks), Arc::new(LIMIT.into()));
        let (mut codec, mut buffer, mut sizes, mut most) = (Codec::new().max_size(LIMIT), BytesMut::new(), vec![], 0);
        while let Some(chunk) = futures_util::FutureExt::now_or_never(announced.next()).flatten() {
            buffer.extend_from_slice(&chunk.unwrap());
            most = most.max(buffer.len());
            loop {
                match codec.decode(&mut buffer) {
                    Ok(Some(Frame::Binary(data))) => sizes.push(data.len()),
                    Ok(Some(other)) => panic!("{other:?}"),
                    Ok(None) => break,
                    Err(ProtocolError::Overflow) => return (sizes, true, most),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        (sizes, false, most)
    }

    proptest! {
        /// However the bytes are cut: what is within the limit arrives, and the first that is not ends it.
        #[test]
        fn frames_pass_up_to_the_first_that_announces_too_much(
            fine in prop::collection::vec(prop_oneof![0..200_usize, 65_530..65_540_usize, LIMIT - 3..=LIMIT], 0..4),
            over in prop::option::of(prop_oneof![LIMIT + 1..LIMIT + 3, Just(usize::MAX >> 1), Just(usize::MAX)]),
            pieces in prop::collection::vec(prop_oneof![1..20_usize, 1_000..50_000_usize], 1..8),
        ) {
            let mut bytes: Vec<u8> = fine.iter().flat_map(|payload| frame(*payload)).collect();
            if let Some(over) = over {
                bytes.extend(frame(over));
                bytes.extend(frame(10));
            }
            let (sizes, refused, most) = decoded(&bytes, &pieces);
            prop_assert_eq!((sizes, refused), (fine, over.is_some()));
            prop_assert!(most <= LIMIT + 14 + 50_000, "{} bytes collected", most);
        }
    }
}
