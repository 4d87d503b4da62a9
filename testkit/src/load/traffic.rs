//! Direct messages among peers: as fast as the window allows, at a fixed pace, or only received.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use super::ledger::Ledger;
use super::report::latencies;
use crate::wire::{Out, Peer, field, is};

/// Base64 length of a sealed body of 300 bytes (16 bytes of tag more).
pub const BODY_CHARS: usize = 424;
const NONCE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What all peers of a run share.
pub struct Run {
    /// Addresses of the recipients.
    pub targets: Vec<String>,
    /// What was sent and what arrived.
    pub ledger: RefCell<Ledger>,
    /// Send to push.
    pub push_latency: RefCell<Histogram<u64>>,
    /// Send to ack.
    pub ack_latency: RefCell<Histogram<u64>>,
    /// Signalled when everything that is wanted has been acknowledged and, if receivers are part of it, received.
    pub finished: Notify,
    /// Refusals and error frames, the first few in full.
    pub errors: RefCell<Vec<String>>,
    /// Positive acks.
    pub acked: Cell<u64>,
    /// Messages that will be sent in all.
    pub planned: u64,
    /// Whether the run ends with the last arrival (else with the last ack).
    pub wait_for_arrival: bool,
    /// Whether latencies are recorded (not while warming up).
    pub measuring: Cell<bool>,
    start: Instant,
    padding: Vec<u8>,
}

impl Run {
    /// An empty run.
    pub fn new(senders: usize, targets: Vec<String>, planned: u64, wait_for_arrival: bool) -> Rc<Self> {
        let ledger = Ledger::new(senders, targets.len());
        Rc::new(Self { wait_for_arrival, ..Self::build(targets, ledger, planned) })
    }

    fn build(targets: Vec<String>, ledger: Ledger, planned: u64) -> Self {
        Self {
            ledger: RefCell::new(ledger),
            targets,
            push_latency: RefCell::new(latencies()),
            ack_latency: RefCell::new(latencies()),
            finished: Notify::new(),
            errors: RefCell::default(),
            acked: Cell::new(0),
            planned,
            wait_for_arrival: false,
            measuring: Cell::new(true),
            start: Instant::now(),
            padding: vec![b'A'; BODY_CHARS],
        }
    }

    /// The run that receives what `sent` sent: same ledger and targets, ends with the last arrival.
    pub fn draining(sent: &Rc<Self>) -> Rc<Self> {
        let mut run = Self::build(sent.targets.clone(), sent.ledger.replace(Ledger::new(0, 0)), sent.planned);
        run.wait_for_arrival = true;
        run.measuring = Cell::new(false);
        // Nothing is sent any more, so nothing is acknowledged.
        run.acked = Cell::new(sent.planned);
        Rc::new(run)
    }

    /// How far it is, for the message of a run that does not end.
    pub fn progress(&self) -> String {
        let ledger = self.ledger.borrow();
        let (acked, sent) = (self.acked.get(), ledger.sent_total);
        format!("{sent} of {} sent, {acked} acknowledged, {} arrived", self.planned, ledger.received_total)
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn check_finished(&self) {
        let ledger = self.ledger.borrow();
        if self.acked.get() >= self.planned && (!self.wait_for_arrival || ledger.received_total >= self.planned) {
            self.finished.notify_one();
        }
    }

    fn complain(&self, text: &[u8]) {
        let mut errors = self.errors.borrow_mut();
        if errors.len() < 10 {
            errors.push(String::from_utf8_lossy(text).chars().take(300).collect());
        }
        self.finished.notify_one();
    }
}

/// How a peer sends.
#[derive(Clone, Copy)]
pub enum Sending {
    /// It only receives.
    Nothing,
    /// That many messages, so many unacknowledged at a time, from phase 1 on.
    Window {
        /// Messages in all.
        messages: u32,
        /// In flight.
        window: u32,
    },
    /// One message per tick of its timer while the phase is odd.
    Paced,
}

/// One peer of a run.
pub struct Trader {
    run: Rc<Run>,
    /// Index as sender.
    sender: usize,
    /// Index as recipient, if it is one.
    recipient: Option<usize>,
    sending: Sending,
    active: bool,
    /// Microseconds of each send, by number.
    sent_at: Vec<u64>,
    random: SmallRng,
    digits: Vec<u8>,
}

impl Trader {
    /// A peer that is sender number `sender` and, if it also receives, target number `recipient`.
    pub fn new(run: &Rc<Run>, sender: usize, recipient: Option<usize>, sending: Sending) -> Self {
        Self {
            run: run.clone(),
            sender,
            recipient,
            sending,
            active: false,
            sent_at: Vec::new(),
            random: SmallRng::seed_from_u64(sender as u64),
            digits: Vec::with_capacity(64),
        }
    }

    fn send(&mut self, out: &mut Out) {
        use std::io::Write;
        let targets = self.run.targets.len();
        let mut target = self.random.gen_range(0..targets);
        if Some(target) == self.recipient {
            target = (target + 1) % targets;
        }
        let number = self.run.ledger.borrow_mut().send(self.sender, target);
        let now = self.run.micros();
        let local = self.sent_at.len();
        self.sent_at.push(now);
        // The body is opaque to the broker: sender, recipient, number, when; padded to the size of a sealed message.
        self.digits.clear();
        write!(self.digits, "{:06x}{target:06x}{number:08x}{now:016x}", self.sender).expect("a Vec takes every write");
        let body = self.digits.len();
        write!(self.digits, "{local}").expect("a Vec takes every write");
        let (prefix, id) = self.digits.split_at(body);
        out.text(&[
            b"{\"type\":\"send\",\"id\":\"",
            id,
            b"\",\"targetSpec\":\"",
            self.run.targets[target].as_bytes(),
            b"\",\"priority\":\"next\",\"nonce\":\"",
            NONCE.as_bytes(),
            b"\",\"client_message_id\":\"",
            prefix,
            b"\",\"ciphertext\":\"",
            prefix,
            &self.run.padding[prefix.len()..],
            b"\"}",
        ]);
    }

    fn push(&mut self, text: &[u8], out: &mut Out) {
        let Some(mark) = field(text, "ciphertext").filter(|body| body.len() == BODY_CHARS).and_then(read_mark) else {
            return; // an event of the broker
        };
        let Some(id) = field(text, "messageId") else {
            return self.run.complain(text);
        };
        out.text(&[b"{\"type\":\"client_ack\",\"brokerMessageId\":\"", id, b"\"}"]);
        let recipient = mark.target;
        if self.recipient != Some(recipient) {
            return self.run.complain(b"a message for another peer arrived");
        }
        let first = self.run.ledger.borrow_mut().receive(mark.sender, recipient, mark.number);
        if first && self.run.measuring.get() {
            let latency = self.run.micros().saturating_sub(mark.at).max(1);
            self.run.push_latency.borrow_mut().saturating_record(latency);
        }
        self.run.check_finished();
    }

    fn ack(&mut self, text: &[u8], out: &mut Out) {
        if memchr::memmem::find(text, b"\"queued\":true").is_none() {
            return self.run.complain(text);
        }
        let number = field(text, "id").and_then(|id| std::str::from_utf8(id).ok()?.parse::<usize>().ok());
        if let Some(at) = number.and_then(|number| self.sent_at.get(number))
            && self.run.measuring.get()
        {
            let latency = self.run.micros().saturating_sub(*at).max(1);
            self.run.ack_latency.borrow_mut().saturating_record(latency);
        }
        self.run.acked.set(self.run.acked.get() + 1);
        if let Sending::Window { messages, .. } = self.sending
            && self.sent_at.len() < messages as usize
        {
            self.send(out);
        }
        self.run.check_finished();
    }
}

struct Mark {
    sender: usize,
    target: usize,
    number: u32,
    at: u64,
}

fn read_mark(body: &[u8]) -> Option<Mark> {
    let text = std::str::from_utf8(body.get(..36)?).ok()?;
    Some(Mark {
        sender: usize::from_str_radix(&text[..6], 16).ok()?,
        target: usize::from_str_radix(&text[6..12], 16).ok()?,
        number: u32::from_str_radix(&text[12..20], 16).ok()?,
        at: u64::from_str_radix(&text[20..36], 16).ok()?,
    })
}

impl Peer for Trader {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        if is(text, "push") {
            self.push(text, out);
        } else if is(text, "ack") {
            self.ack(text, out);
        } else if !is(text, "state_change") && !is(text, "state_missed") {
            self.run.complain(text);
        }
    }

    fn tick(&mut self, out: &mut Out) {
        if self.active && matches!(self.sending, Sending::Paced) {
            self.send(out);
        }
    }

    fn phase(&mut self, phase: u32, out: &mut Out) {
        self.active = phase % 2 == 1;
        if let Sending::Window { messages, window } = self.sending
            && phase == 1
        {
            for _ in 0..window.min(messages) {
                self.send(out);
            }
        }
    }
}
