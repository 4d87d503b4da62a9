//! One sender, many receivers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use super::report::latencies;
use crate::wire::{Out, Peer, field, is};

/// What sender and receivers share.
pub struct Broadcast {
    /// Deliveries so far.
    pub delivered: Cell<u64>,
    /// Acks so far.
    pub acked: Cell<u32>,
    /// Send to push.
    pub latency: RefCell<Histogram<u64>>,
    /// Signalled when all deliveries and acks are there.
    pub finished: Notify,
    /// The first refusal.
    pub error: RefCell<Option<String>>,
    /// Deliveries out of order or twice.
    pub disorder: Cell<u64>,
    messages: u32,
    receivers: u64,
    start: Instant,
}

impl Broadcast {
    /// A run of that many messages to that many receivers.
    pub fn new(messages: u32, receivers: u32) -> Rc<Self> {
        Rc::new(Self {
            delivered: Cell::new(0),
            acked: Cell::new(0),
            latency: RefCell::new(latencies()),
            finished: Notify::new(),
            error: RefCell::default(),
            disorder: Cell::new(0),
            messages,
            receivers: u64::from(receivers),
            start: Instant::now(),
        })
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn check_finished(&self) {
        let wanted = u64::from(self.messages) * self.receivers;
        if self.acked.get() == self.messages && self.delivered.get() >= wanted {
            self.finished.notify_one();
        }
    }

    fn complain(&self, text: &[u8]) {
        let text = String::from_utf8_lossy(text).chars().take(300).collect();
        self.error.borrow_mut().get_or_insert(text);
        self.finished.notify_one();
    }
}

/// Sends `*` with a few messages in flight.
pub struct Speaker {
    run: Rc<Broadcast>,
    sent: u32,
    window: u32,
}

impl Speaker {
    /// The sender of the run.
    pub fn new(run: &Rc<Broadcast>, window: u32) -> Self {
        Self { run: run.clone(), sent: 0, window }
    }

    fn send(&mut self, out: &mut Out) {
        let body = format!("{:08x}{:016x}{}", self.sent, self.run.micros(), "A".repeat(376));
        let frame = format!(
            r#"{{"type":"send","id":"{}","targetSpec":"*","priority":"now","nonce":"","ciphertext":"{body}"}}"#,
            self.sent
        );
        out.text(&[frame.as_bytes()]);
        self.sent += 1;
    }
}

impl Peer for Speaker {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        if is(text, "ack") {
            if memchr::memmem::find(text, b"\"queued\":true").is_none() {
                return self.run.complain(text);
            }
            self.run.acked.set(self.run.acked.get() + 1);
            if self.sent < self.run.messages {
                self.send(out);
            }
            self.run.check_finished();
        } else if !is(text, "push") {
            self.run.complain(text);
        }
    }

    fn phase(&mut self, _phase: u32, out: &mut Out) {
        for _ in 0..self.window.min(self.run.messages) {
            self.send(out);
        }
    }
}

/// Receives, and acknowledges when it said so in its hello.
pub struct Listener {
    run: Rc<Broadcast>,
    acknowledge: bool,
    next: u32,
}

impl Listener {
    /// A receiver of the run.
    pub fn new(run: &Rc<Broadcast>, acknowledge: bool) -> Self {
        Self { run: run.clone(), acknowledge, next: 0 }
    }
}

impl Peer for Listener {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        let Some(body) = field(text, "ciphertext").filter(|body| body.len() == 400) else {
            return; // an event of the broker
        };
        if self.acknowledge
            && let Some(id) = field(text, "messageId")
        {
            out.text(&[b"{\"type\":\"client_ack\",\"brokerMessageId\":\"", id, b"\"}"]);
        }
        let number = |from: usize, to: usize| {
            std::str::from_utf8(&body[from..to]).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok())
        };
        if let (Some(count), Some(at)) = (number(0, 8), number(8, 24)) {
            if count != u64::from(self.next) {
                self.run.disorder.set(self.run.disorder.get() + 1);
            }
            self.next += 1;
            let latency = self.run.micros().saturating_sub(at).max(1);
            self.run.latency.borrow_mut().saturating_record(latency);
        }
        self.run.delivered.set(self.run.delivered.get() + 1);
        self.run.check_finished();
    }
}
