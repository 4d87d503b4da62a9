//! What connections ask, one request after the other, and what became of each.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use anyhow::Result;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::Ground;
use super::cast::{Board, Cast};
use crate::identity::{Session, merged};
use crate::wire::{Out, Peer};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// No answer yet.
    Open,
    Confirmed,
    Refused,
    /// The broker was killed before it answered: it was done once, or not at all.
    Unknown,
}

/// All requests of the workers of a subject, by worker and number.
pub(super) struct Asked<A> {
    acts: Vec<Vec<(A, Fate)>>,
    open: usize,
    confirmed: u64,
    refused: u64,
    unknown: u64,
}

impl<A: Clone> Asked<A> {
    pub(super) fn new(workers: usize) -> Self {
        Self { acts: (0..workers).map(|_| Vec::new()).collect(), open: 0, confirmed: 0, refused: 0, unknown: 0 }
    }

    /// Begins a request; answers its number.
    pub(super) fn begin(&mut self, worker: usize, act: A) -> usize {
        self.acts[worker].push((act, Fate::Open));
        self.open += 1;
        self.acts[worker].len() - 1
    }

    /// How many workers there are.
    pub(super) fn workers(&self) -> usize {
        self.acts.len()
    }

    /// The answer is here: what was asked.
    pub(super) fn end(&mut self, worker: usize, number: usize, fate: Fate) -> Result<A, String> {
        let asked = self.acts[worker].get_mut(number).filter(|(_, fate)| *fate == Fate::Open);
        let asked = asked.ok_or_else(|| format!("request {number} was answered twice, or never sent"))?;
        asked.1 = fate;
        self.open -= 1;
        *(if fate == Fate::Confirmed { &mut self.confirmed } else { &mut self.refused }) += 1;
        Ok(asked.0.clone())
    }

    /// What had no answer when the broker was killed will get none. Answers what that was.
    pub(super) fn cut_off(&mut self) -> Vec<(usize, usize, A)> {
        let mut cut = Vec::new();
        for (worker, acts) in self.acts.iter_mut().enumerate() {
            for (number, (act, fate)) in acts.iter_mut().enumerate().filter(|(_, (_, fate))| *fate == Fate::Open) {
                *fate = Fate::Unknown;
                cut.push((worker, number, act.clone()));
            }
        }
        self.open = 0;
        self.unknown += cut.len() as u64;
        cut
    }

    /// Everything that a worker asked, in its order.
    pub(super) fn of(&self, worker: usize) -> &[(A, Fate)] {
        &self.acts[worker]
    }

    /// The request that left a mark.
    pub(super) fn marked(&self, mark: &str) -> Result<&(A, Fate), String> {
        let place = mark.strip_prefix('w').and_then(|rest| rest.split_once('n'));
        let asked = place.and_then(|(worker, number)| {
            self.acts.get(worker.parse::<usize>().ok()?)?.get(number.parse::<usize>().ok()?)
        });
        asked.ok_or_else(|| format!("no one wrote {mark}"))
    }

    /// Requests without an answer.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// `120 confirmed, 3 refused, 2 cut off`
    pub(super) fn summary(&self) -> String {
        format!("{} confirmed, {} refused, {} cut off, done or not", self.confirmed, self.refused, self.unknown)
    }
}

/// What a request leaves behind, so that it is known again: one word.
pub(super) fn mark_of(worker: usize, number: usize) -> String {
    format!("w{worker}n{number}")
}

/// What the workers of a subject ask, and what it makes of the answers.
pub(super) trait Book: 'static {
    /// A word for faults.
    const NAME: &'static str;

    /// The next request of a worker and its number; `None`: it has nothing to ask.
    fn ask(&mut self, worker: usize, random: &mut StdRng) -> Option<(usize, Value)>;

    /// The answer to a request, in whatever order the answers come.
    fn answered(&mut self, worker: usize, number: usize, answer: &Value) -> Result<(), String>;

    /// What had no answer when the broker was killed will get none.
    fn cut_off(&mut self);

    /// How much of what was cut off a worker has still to ask for again, at most.
    fn to_repeat(&self) -> usize {
        0
    }

    /// What the broker sends unasked.
    fn told(&mut self, worker: usize, frame: &[u8]) -> Result<(), String> {
        let _ = (worker, frame);
        Ok(())
    }
}

/// Sessions that work on one book.
pub(super) struct Team<B> {
    sessions: Vec<Session>,
    pub(super) book: Rc<RefCell<B>>,
    board: Rc<Board>,
    turns: Cell<u64>,
}

impl<B: Book> Team<B> {
    /// Members of their own with one session each.
    pub(super) fn new(ground: &Ground, prefix: &str, count: usize, book: B) -> Result<Self> {
        let sessions = ground.sessions(prefix, count)?;
        let (book, board) = (Rc::new(RefCell::new(book)), ground.board.clone());
        Ok(Self { sessions, book, board, turns: Cell::new(0) })
    }

    /// Names of the sessions.
    pub(super) fn names(&self) -> Vec<String> {
        self.sessions.iter().map(|session| session.member.name.clone()).collect()
    }

    /// Adds their connections once more: what was cut off is asked for again, and one thing more.
    pub(super) fn add_again(&self, cast: &mut Cast) {
        self.book.borrow_mut().cut_off();
        let again = u32::try_from(self.book.borrow().to_repeat()).unwrap_or(u32::MAX);
        self.add(cast, again + 1, 1);
    }

    /// Adds their connections: each asks so much in all, and so much at once.
    pub(super) fn add(&self, cast: &mut Cast, left: u32, window: usize) {
        self.book.borrow_mut().cut_off();
        self.turns.set(self.turns.get() + 1);
        for (worker, session) in self.sessions.iter().enumerate() {
            let random = StdRng::seed_from_u64(self.turns.get() * 100 + worker as u64);
            let (book, board) = (self.book.clone(), self.board.clone());
            cast.connect(session.hello(json!({})), Worker { worker, left, window, random, book, board });
        }
    }
}

/// One connection of a worker.
struct Worker<B> {
    worker: usize,
    left: u32,
    window: usize,
    random: StdRng,
    book: Rc<RefCell<B>>,
    board: Rc<Board>,
}

impl<B: Book> Worker<B> {
    fn ask(&mut self, out: &mut Out) {
        if self.left == 0 {
            return;
        }
        let asked = self.book.borrow_mut().ask(self.worker, &mut self.random);
        if let Some((number, frame)) = asked {
            self.left -= 1;
            out.text(&[merged(frame, json!({ "_reqId": number.to_string() })).to_string().as_bytes()]);
        }
    }

    /// Whether it was an answer.
    fn read(&self, text: &[u8]) -> Result<bool, String> {
        let mut book = self.book.borrow_mut();
        if memchr::memmem::find(text, b"\"_reqId\":\"").is_none() {
            return book.told(self.worker, text).map(|()| false);
        }
        let frame: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let number = frame["_reqId"].as_str().and_then(|id| id.parse().ok());
        let number = number.ok_or_else(|| format!("an answer without its request: {frame}"))?;
        book.answered(self.worker, number, &frame).map(|()| true)
    }
}

impl<B: Book> Peer for Worker<B> {
    fn phase(&mut self, _phase: u32, out: &mut Out) {
        (0..self.window).for_each(|_| self.ask(out));
    }

    fn frame(&mut self, text: &[u8], out: &mut Out) {
        match self.read(text) {
            Err(fault) => return self.board.fail(format!("{}, worker {}: {fault}", B::NAME, self.worker)),
            Ok(true) => self.ask(out),
            Ok(false) => {}
        }
        self.board.change();
    }
}
