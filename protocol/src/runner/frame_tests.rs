use proptest::prelude::*;

use super::*;
use crate::runner::{FromRunner, ToRunner};

const SESSION: Session = Session([7; 16]);

fn all(decoder: &mut Decoder) -> Vec<Frame> {
    std::iter::from_fn(|| decoder.next_frame()).map(|(frame, _)| frame).collect()
}

fn encoded(frames: &[Frame], session: &Session) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        frame.encode(session, &mut out).unwrap();
    }
    out
}

fn frames() -> impl Strategy<Value = Frame> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    (0..Kind::ALL.len(), any::<bool>(), any::<u64>(), bytes(), bytes())
        .prop_map(|(kind, last, stream, head, body)| Frame { kind: Kind::ALL[kind], last, stream, head, body })
}

proptest! {
    #[test]
    fn frames_are_found_between_other_bytes(
        parts in prop::collection::vec((frames(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
        piece in 1_usize..500,
    ) {
        let mut bytes = Vec::new();
        let mut between = 0;
        for (frame, garbage) in &parts {
            bytes.extend_from_slice(garbage);
            between += garbage.len() as u64;
            frame.encode(&SESSION, &mut bytes).unwrap();
        }
        let mut decoder = Decoder::of(SESSION);
        let mut found = Vec::new();
        for part in bytes.chunks(piece) {
            decoder.push(part);
            found.extend(all(&mut decoder));
        }
        prop_assert_eq!(found, parts.into_iter().map(|(frame, _)| frame).collect::<Vec<_>>());
        prop_assert_eq!(decoder.skipped(), between);
    }

    #[test]
    fn random_bytes_are_no_frames(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut decoder = Decoder::attachable();
        decoder.push(&bytes);
        prop_assert_eq!(decoder.next_frame(), None);
    }

    #[test]
    fn a_changed_header_is_no_frame(at in 0..HEADER_BYTES, bit in 0_u8..8) {
        let mut bytes = encoded(&[Frame::data(2, b"abc".to_vec(), false)], &SESSION);
        bytes[at] ^= 1 << bit;
        let mut decoder = Decoder::of(SESSION);
        decoder.push(&bytes);
        prop_assert_eq!(decoder.next_frame(), None);
    }
}

#[test]
fn a_frame_inside_of_output_is_not_read() {
    // What a server writes knows neither this session nor that of before.
    let inner =
        [encoded(&[Frame::credit(2, 9)], &Session::NONE), encoded(&[Frame::credit(2, 9)], &Session([1; 16]))].concat();
    let mut decoder = Decoder::of(SESSION);
    decoder.push(&inner);
    decoder.push(&encoded(&[Frame::credit(4, 10)], &SESSION));
    let found = all(&mut decoder);
    assert_eq!(found.iter().map(|frame| (frame.stream, frame.granted())).collect::<Vec<_>>(), [(4, Some(10))]);
    assert_eq!(decoder.skipped(), inner.len() as u64);
}

#[test]
fn an_attachment_ends_a_frame_that_was_begun() {
    let mut decoder = Decoder::attachable();
    decoder.attached(SESSION);
    let begun = encoded(&[Frame::data(2, vec![b'x'; MAX_DATA_BYTES], false)], &SESSION);
    decoder.push(&begun[..100]);
    assert!(all(&mut decoder).is_empty());
    let next = Session([9; 16]);
    let attach = ToRunner::Attach { version: 1, session: next.to_hex() };
    decoder.push(
        &[vec![0; MAX_FRAME_BYTES], encoded(&[Frame::message(&attach, Vec::new()).unwrap()], &Session::NONE)].concat(),
    );
    assert_eq!(decoder.next_frame().map(|(frame, marked)| (frame.kind, marked)), Some((Kind::Data, true)));
    let (frame, marked) = decoder.next_frame().unwrap();
    assert_eq!((frame.head::<ToRunner>().unwrap(), marked), (attach, false));
    decoder.attached(next);
    decoder.push(&encoded(&[Frame::credit(2, 1)], &next));
    assert!(matches!(decoder.next_frame(), Some((_, true))));
}

#[test]
fn too_much_is_neither_written_nor_read() {
    let mut out = vec![1];
    assert_eq!(
        Frame::data(2, vec![0; MAX_DATA_BYTES + 1], false).encode(&SESSION, &mut out),
        Err(FrameError::TooLarge)
    );
    assert_eq!(Frame::message(&FromRunner::Pong { n: 1 }, vec![0; MAX_FRAME_BYTES]), Err(FrameError::TooLarge));
    assert_eq!(out, [1]);
    let mut bytes = encoded(&[Frame::data(2, Vec::new(), false)], &SESSION);
    bytes[20..24].copy_from_slice(&u32::MAX.to_be_bytes());
    let mark = SESSION.mark(&bytes[..MARK_AT]);
    bytes[MARK_AT..].copy_from_slice(&mark);
    let mut decoder = Decoder::of(SESSION);
    decoder.push(&bytes);
    decoder.push(&encoded(&[Frame::credit(4, 1)], &SESSION));
    assert_eq!(all(&mut decoder).len(), 1, "a length that no frame has is skipped");
}

#[test]
fn a_session_is_not_printed() {
    let session = Session::random(&mut rand::thread_rng());
    assert_eq!(Session::parse(&session.to_hex()), Some(session));
    assert_eq!((format!("{session:?}"), Session::parse("12")), ("Session(…)".into(), None));
}
