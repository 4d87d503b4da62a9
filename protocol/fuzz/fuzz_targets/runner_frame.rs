//! The wire between broker and runner: frames between other bytes, heads, and specs.
#![no_main]

use claudemesh_protocol::runner::frame::{Decoder, Session};
use claudemesh_protocol::runner::{Answer, Ask, BrokerAnswer, FromRunner, RunnerAsk, ToRunner};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::attachable();
    let mut read = 0;
    for piece in bytes.chunks(7) {
        decoder.push(piece);
        while let Some((frame, marked)) = decoder.next_frame() {
            assert!(!marked, "no session has begun");
            let mut again = Vec::new();
            if frame.encode(&Session::NONE, &mut again).is_ok() {
                read += again.len();
            }
            let _ = frame.head::<ToRunner>();
            let _ = frame.granted();
        }
    }
    assert!(read as u64 + decoder.skipped() <= bytes.len() as u64);
    let _ = serde_json::from_slice::<FromRunner>(bytes);
    let _ = serde_json::from_slice::<Answer>(bytes);
    let _ = serde_json::from_slice::<RunnerAsk>(bytes);
    let _ = serde_json::from_slice::<BrokerAnswer>(bytes);
    if let Ok(Ask::Install { spec }) = serde_json::from_slice(bytes) {
        // What is checked is a folder's name and nothing else.
        if spec.check().is_ok() {
            assert!(!spec.id.contains(['/', '.']) && !spec.id.is_empty());
        }
    }
});
