//! Messages.
//!
//! The promise: a message whose ack said `queued:true` reaches its recipient, in the order of its sender, and under the id that the
//! ack named; it comes again until the recipient has acknowledged it. Senders retry what was not acknowledged with the same
//! `client_message_id`.

mod ledger;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use self::ledger::Ledger;
use super::cast::{Board, Cast};
use super::{Ground, Subject, older};
use crate::identity::Session;
use crate::wire::{Out, Peer, field, is};

const SENDERS: usize = 4;
const WINDOW: usize = 24;
/// Characters of a body: sender, recipient, number, and padding.
const BODY: usize = 216;

/// How a recipient behaves while the broker is under load. In between all of them are there and acknowledge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Habit {
    /// Online, acknowledges.
    Acknowledges,
    /// Online, never acknowledges.
    Silent,
    /// Away.
    Away,
    /// A client of before, online, acknowledges about half.
    OlderAcknowledges,
    /// A client of before, online, never acknowledges, while others of its member come and go.
    OlderSilent,
    /// Clients of before come and go, and none acknowledges.
    OlderPassing,
}

impl Habit {
    /// A client of before is addressed by the key of its member.
    fn older(self) -> bool {
        matches!(self, Self::OlderAcknowledges | Self::OlderSilent | Self::OlderPassing)
    }

    /// Other connections of its member come and go: what they had and did not take comes after what came meanwhile.
    fn shares(self) -> bool {
        matches!(self, Self::OlderSilent | Self::OlderPassing)
    }
}

const RECIPIENTS: [Habit; 9] = [
    Habit::Acknowledges,
    Habit::Acknowledges,
    Habit::Silent,
    Habit::Silent,
    Habit::Away,
    Habit::Away,
    Habit::OlderAcknowledges,
    Habit::OlderSilent,
    Habit::OlderPassing,
];

/// Which messages a reader acknowledges.
pub(super) enum Acks {
    All,
    None,
    /// About half of them.
    Some(SmallRng),
    /// The first.
    First,
}

impl Acks {
    fn takes(&mut self) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Some(random) => random.gen_bool(0.5),
            Self::First => {
                *self = Self::None;
                true
            }
        }
    }
}

/// What one connection has got.
pub(super) type Got = Rc<RefCell<BTreeSet<(usize, u32)>>>;

/// One connection of a recipient.
pub(super) struct Reader {
    recipient: usize,
    acks: Acks,
    ledger: Rc<RefCell<Ledger>>,
    board: Rc<Board>,
    pub(super) got: Got,
    /// Newest number by sender.
    newest: HashMap<usize, u32>,
    /// One of several connections that come and go: it may get only a part.
    passing: bool,
}

impl Reader {
    pub(super) fn new(recipient: usize, acks: Acks, ledger: &Rc<RefCell<Ledger>>, board: &Rc<Board>) -> Self {
        let (ledger, board, got) = (ledger.clone(), board.clone(), Got::default());
        Self { recipient, acks, ledger, board, got, newest: HashMap::new(), passing: false }
    }

    pub(super) fn in_passing(self) -> Self {
        Self { passing: true, ..self }
    }

    fn read(&mut self, text: &[u8]) -> Result<Option<(usize, u32, String)>, String> {
        let mark = field(text, "ciphertext").filter(|body| body.len() == BODY).and_then(read_mark);
        let (Some((sender, recipient, number)), Some(id)) = (mark, text_field(text, "messageId")) else {
            return Ok(None); // an event of the broker
        };
        if recipient != self.recipient {
            return Err(format!("recipient {} got a message for {recipient}", self.recipient));
        }
        if self.passing {
            return self.ledger.borrow().named(recipient, sender, number, &id).map(|_| None);
        }
        let habit = RECIPIENTS[recipient];
        let late = self.newest.insert(sender, number).is_some_and(|newest| number <= newest);
        let twice = if habit.shares() { self.got.borrow().contains(&(sender, number)) } else { late };
        if twice {
            return Err(format!(
                "recipient {recipient} ({habit:?}) got number {number} of sender {sender} twice or too late on one connection"
            ));
        }
        self.ledger.borrow_mut().arrived(recipient, sender, number, &id)?;
        self.got.borrow_mut().insert((sender, number));
        Ok(Some((sender, number, id)))
    }
}

impl Peer for Reader {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        if is(text, "error") {
            let what = String::from_utf8_lossy(text);
            return self.board.fail(format!("recipient {} was refused: {what}", self.recipient));
        }
        match self.read(text) {
            Err(fault) => return self.board.fail(fault),
            Ok(None) => return,
            Ok(Some((sender, number, id))) if self.acks.takes() => {
                self.ledger.borrow_mut().take(self.recipient, sender, number);
                out.text(&[b"{\"type\":\"client_ack\",\"brokerMessageId\":\"", id.as_bytes(), b"\"}"]);
            }
            Ok(Some(_)) => {}
        }
        self.board.change();
    }
}

/// What a sender sends once all are ready.
pub(super) enum Plan {
    /// To anyone, as fast as the window allows.
    Flood(SmallRng),
    /// To these recipients, one after the other.
    To(Vec<usize>),
}

/// One connection of a sender.
pub(super) struct Writer {
    sender: usize,
    plan: Plan,
    ledger: Rc<RefCell<Ledger>>,
    board: Rc<Board>,
}

impl Writer {
    fn write(&self, index: usize, out: &mut Out) {
        let ledger = self.ledger.borrow();
        let (target, recipient, number) = ledger.message(self.sender, index);
        let body = format!("{:04x}{recipient:04x}{number:08x}", self.sender);
        let frame = json!({
            "type": "send", "id": index.to_string(), "targetSpec": target, "priority": "now",
            "nonce": "", "ciphertext": format!("{body}{}", "A".repeat(BODY - body.len())),
            "client_message_id": format!("t-{}-{index}", self.sender),
        });
        out.text(&[frame.to_string().as_bytes()]);
    }

    fn write_new(&mut self, out: &mut Out) {
        let recipient = match &mut self.plan {
            Plan::Flood(random) => random.gen_range(0..RECIPIENTS.len()),
            Plan::To(recipients) if !recipients.is_empty() => recipients.remove(0),
            Plan::To(_) => return,
        };
        let index = self.ledger.borrow_mut().add(self.sender, recipient);
        self.write(index, out);
    }

    fn ack(&self, text: &[u8]) -> Result<(), String> {
        let index = text_field(text, "id").and_then(|id| id.parse().ok());
        let (Some(index), Some(message)) = (index, text_field(text, "messageId")) else {
            return Err(format!("an ack without ids: {}", String::from_utf8_lossy(text)));
        };
        self.ledger.borrow_mut().promise(self.sender, index, message)
    }
}

impl Peer for Writer {
    fn phase(&mut self, _phase: u32, out: &mut Out) {
        // What was in flight at the kill goes out again first, in its order and under its old names.
        let open = self.ledger.borrow_mut().retry(self.sender);
        open.into_iter().for_each(|index| self.write(index, out));
        let at_once = if matches!(self.plan, Plan::Flood(_)) { WINDOW } else { 1 };
        (0..at_once).for_each(|_| self.write_new(out));
    }

    fn frame(&mut self, text: &[u8], out: &mut Out) {
        if is(text, "ack") && memchr::memmem::find(text, b"\"queued\":true").is_some() {
            if let Err(fault) = self.ack(text) {
                return self.board.fail(fault);
            }
            self.write_new(out);
            self.board.change();
        } else if is(text, "ack") || is(text, "error") {
            let what = String::from_utf8_lossy(text);
            self.board.fail(format!("sender {} was refused: {what}", self.sender));
        }
    }
}

fn text_field(text: &[u8], key: &str) -> Option<String> {
    Some(std::str::from_utf8(field(text, key)?).ok()?.to_owned())
}

fn read_mark(body: &[u8]) -> Option<(usize, usize, u32)> {
    let text = std::str::from_utf8(body.get(..16)?).ok()?;
    let number = |from: usize, to: usize| u32::from_str_radix(&text[from..to], 16).ok();
    Some((number(0, 4)? as usize, number(4, 8)? as usize, number(8, 16)?))
}

/// The subject.
pub(super) struct Messages {
    ledger: Rc<RefCell<Ledger>>,
    senders: Vec<Session>,
    recipients: Vec<Session>,
    board: Rc<Board>,
}

impl Messages {
    pub(super) fn new(ground: &Ground) -> Result<Self> {
        let (senders, recipients) =
            (ground.sessions("sender", SENDERS)?, ground.sessions("recipient", RECIPIENTS.len())?);
        let target = |(session, habit): (&Session, &Habit)| {
            if habit.older() { session.member.pubkey() } else { session.pubkey() }
        };
        let ledger = Ledger::new(recipients.iter().zip(&RECIPIENTS).map(target).collect());
        Ok(Self { ledger: Rc::new(RefCell::new(ledger)), senders, recipients, board: ground.board.clone() })
    }

    pub(super) fn ledger(&self) -> Rc<RefCell<Ledger>> {
        self.ledger.clone()
    }

    pub(super) fn board(&self) -> Rc<Board> {
        self.board.clone()
    }

    /// The first recipient of that habit.
    pub(super) fn who(habit: Habit) -> usize {
        RECIPIENTS.iter().position(|other| *other == habit).unwrap_or_default()
    }

    pub(super) fn session(&self, recipient: usize) -> &Session {
        &self.recipients[recipient]
    }

    pub(super) fn reader(&self, recipient: usize, acks: Acks) -> Reader {
        Reader::new(recipient, acks, &self.ledger, &self.board)
    }

    /// Whether what a connection has got is all that was promised to the recipient and not acknowledged.
    pub(super) fn complete(&self, recipient: usize, got: &Got) -> impl Fn() -> bool + 'static {
        let (ledger, got) = (self.ledger.clone(), got.clone());
        move || ledger.borrow().all_among(recipient, &got.borrow())
    }

    pub(super) fn add_sender(&self, cast: &mut Cast, sender: usize, plan: Plan) {
        let (ledger, board) = (self.ledger.clone(), self.board.clone());
        cast.connect(self.senders[sender].hello(json!({})), Writer { sender, plan, ledger, board });
    }
}

impl Subject for Messages {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn load(&mut self, cast: &mut Cast) {
        for (recipient, habit) in RECIPIENTS.into_iter().enumerate() {
            let hello = || -> Value { self.recipients[recipient].hello(json!({})) };
            match habit {
                Habit::Acknowledges => cast.connect(hello(), self.reader(recipient, Acks::All)),
                Habit::Silent => cast.connect(hello(), self.reader(recipient, Acks::None)),
                Habit::Away => {}
                older => older::load(self, cast, recipient, older),
            }
        }
        let acked = self.ledger.borrow().promised();
        for sender in 0..SENDERS {
            self.add_sender(cast, sender, Plan::Flood(SmallRng::seed_from_u64(sender as u64 + acked)));
        }
    }

    fn settle(&mut self, cast: &mut Cast) {
        for (recipient, habit) in RECIPIENTS.into_iter().enumerate() {
            if habit.older() {
                older::settle(self, cast, recipient, habit);
            } else {
                let hello = self.recipients[recipient].hello(json!({}));
                cast.connect(hello, self.reader(recipient, Acks::All));
            }
        }
        for sender in 0..SENDERS {
            self.add_sender(cast, sender, Plan::To(Vec::new()));
        }
    }

    fn settled(&self) -> bool {
        self.ledger.borrow().settled()
    }

    fn missing(&self) -> String {
        self.ledger.borrow().missing()
    }

    fn summary(&self) -> String {
        self.ledger.borrow().summary()
    }
}
