//! Peers beside the traffic: idle ones, one that reads and acknowledges, one that sends big bodies.

use std::cell::Cell;
use std::rc::Rc;

use crate::wire::{Out, Peer, field, is};

/// Counts what it is told and says nothing.
#[derive(Default)]
pub struct Idle {
    /// Frames of any kind that arrived at all idle peers.
    pub frames: Rc<Cell<u64>>,
    /// Error frames among them.
    pub errors: Rc<Cell<u64>>,
}

impl Peer for Idle {
    fn frame(&mut self, text: &[u8], _out: &mut Out) {
        self.frames.set(self.frames.get() + 1);
        if is(text, "error") {
            self.errors.set(self.errors.get() + 1);
        }
    }
}

/// Acknowledges every message.
pub struct Reader;

impl Peer for Reader {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        let body = field(text, "ciphertext").unwrap_or_default();
        if let Some(id) = field(text, "messageId").filter(|_| is(text, "push") && !body.is_empty()) {
            out.text(&[b"{\"type\":\"client_ack\",\"brokerMessageId\":\"", id, b"\"}"]);
        }
    }
}

/// Sends a body of 16 KiB to one peer at every tick, whatever the answers are.
pub struct Blaster {
    target: String,
    body: Vec<u8>,
    active: bool,
    sent: u64,
}

impl Blaster {
    /// A sender of big bodies to that key.
    pub fn new(target: String) -> Self {
        Self { target, body: vec![b'A'; 16 * 1024], active: false, sent: 0 }
    }
}

impl Peer for Blaster {
    fn frame(&mut self, _text: &[u8], _out: &mut Out) {}

    fn tick(&mut self, out: &mut Out) {
        if self.active {
            let id = self.sent.to_string();
            self.sent += 1;
            out.text(&[
                b"{\"type\":\"send\",\"id\":\"",
                id.as_bytes(),
                b"\",\"targetSpec\":\"",
                self.target.as_bytes(),
                b"\",\"priority\":\"next\",\"nonce\":\"\",\"ciphertext\":\"",
                &self.body,
                b"\"}",
            ]);
        }
    }

    fn phase(&mut self, phase: u32, _out: &mut Out) {
        self.active = phase == 1;
    }
}
