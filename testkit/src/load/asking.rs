//! Peers that ask one kind of request: at a pace, or so many at a time until all are answered.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior};

use super::bench::{Stage, hello};
use super::fleet::Fleet;
use super::report::latencies;
use crate::wire::{Out, Peer, field, is};

/// Requests of one peer in flight while a mesh is filled.
const FILLING: u32 = 64;

/// What those who ask and those who listen share.
pub(super) struct Asks {
    start: Instant,
    /// Request to answer.
    pub(super) latency: RefCell<Histogram<u64>>,
    /// Request to event, as listeners see it.
    pub(super) told: RefCell<Histogram<u64>>,
    /// Answers, refusals that were expected among them.
    pub(super) answered: Cell<u64>,
    /// Answers that are no refusal.
    pub(super) granted: Cell<u64>,
    /// Events that were missed, or came out of order.
    pub(super) missed: Cell<u64>,
    /// Requests of a pace that the broker had no room for.
    pub(super) busy: Cell<u64>,
    /// Whether times are recorded (not while warming up).
    pub(super) measuring: Cell<bool>,
    /// Signalled with the last answer of a plan, or the first refusal.
    pub(super) finished: Notify,
    error: RefCell<Option<String>>,
    planned: u64,
}

impl Asks {
    /// A run that ends after so many answers.
    pub(super) fn new(planned: u64) -> Rc<Self> {
        Rc::new(Self {
            start: Instant::now(),
            latency: RefCell::new(latencies()),
            told: RefCell::new(latencies()),
            answered: Cell::new(0),
            granted: Cell::new(0),
            missed: Cell::new(0),
            busy: Cell::new(0),
            measuring: Cell::new(true),
            finished: Notify::new(),
            error: RefCell::default(),
            planned,
        })
    }

    /// Microseconds since its start.
    pub(super) fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes how long ago a moment is.
    pub(super) fn note(&self, into: &RefCell<Histogram<u64>>, at: u64) {
        if self.measuring.get() {
            into.borrow_mut().saturating_record(self.micros().saturating_sub(at).max(1));
        }
    }

    /// The first refusal ends the run.
    pub(super) fn fail(&self, text: &[u8]) {
        let text = String::from_utf8_lossy(text).chars().take(300).collect();
        self.error.borrow_mut().get_or_insert(text);
        self.finished.notify_one();
    }

    /// # Errors
    /// A request was refused.
    pub(super) fn check(&self) -> Result<()> {
        match self.error.borrow().as_ref() {
            Some(error) => bail!("the broker refused: {error}"),
            None => Ok(()),
        }
    }
}

/// How a peer asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rhythm {
    /// Once in every tick of its timer, in phase 1.
    Paced,
    /// So many in all and in flight.
    Window(u32, u32),
}

/// Makes a frame without its end from its number and the time: everything up to the last `}`.
pub(super) type Make = Box<dyn FnMut(usize, u64) -> String>;

/// Asks in its rhythm.
pub(super) struct Asker {
    run: Rc<Asks>,
    make: Make,
    rhythm: Rhythm,
    /// Codes of refusals that are answers.
    fine: &'static [&'static str],
    active: bool,
    sent_at: Vec<u64>,
}

impl Asker {
    pub(super) fn new(run: &Rc<Asks>, rhythm: Rhythm, make: impl FnMut(usize, u64) -> String + 'static) -> Self {
        let (run, make) = (run.clone(), Box::new(make));
        Self { run, make, rhythm, fine: &[], active: false, sent_at: Vec::new() }
    }

    /// Refusals with these codes count as answers.
    pub(super) fn expecting(self, fine: &'static [&'static str]) -> Self {
        Self { fine, ..self }
    }

    fn ask(&mut self, out: &mut Out) {
        let (number, now) = (self.sent_at.len(), self.run.micros());
        self.sent_at.push(now);
        let frame = (self.make)(number, now);
        let body = frame.strip_suffix('}').unwrap_or(&frame);
        out.text(&[body.as_bytes(), b",\"_reqId\":\"", number.to_string().as_bytes(), b"\"}"]);
    }
}

impl Peer for Asker {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        let refused = is(text, "error");
        if refused {
            let code = field(text, "code").unwrap_or_default();
            if matches!(self.rhythm, Rhythm::Paced) && code == b"busy" {
                return self.run.busy.set(self.run.busy.get() + 1);
            }
            if !self.fine.iter().any(|fine| fine.as_bytes() == code) {
                return self.run.fail(text);
            }
        }
        let number = field(text, "_reqId").and_then(|id| std::str::from_utf8(id).ok()?.parse::<usize>().ok());
        let Some(at) = number.and_then(|number| self.sent_at.get(number)) else { return };
        self.run.note(&self.run.latency, *at);
        self.run.answered.set(self.run.answered.get() + 1);
        self.run.granted.set(self.run.granted.get() + u64::from(!refused));
        if matches!(self.rhythm, Rhythm::Window(all, _) if self.sent_at.len() < all as usize) {
            self.ask(out);
        }
        if self.run.answered.get() == self.run.planned {
            self.run.finished.notify_one();
        }
    }

    fn tick(&mut self, out: &mut Out) {
        if self.active {
            self.ask(out);
        }
    }

    fn phase(&mut self, phase: u32, out: &mut Out) {
        match self.rhythm {
            Rhythm::Paced => self.active = phase == 1,
            Rhythm::Window(all, window) if phase == 1 => (0..window.min(all)).for_each(|_| self.ask(out)),
            Rhythm::Window(..) => {}
        }
    }
}

/// A whole number behind a key such as `"offset":`.
pub(super) fn number_field(text: &[u8], key: &[u8]) -> Option<u64> {
    let from = memchr::memmem::find(text, key)? + key.len();
    let digits = text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[from..from + digits]).ok()?.parse().ok()
}

/// One of several that ask so often a second together, staggered.
pub(super) fn pace(index: usize, askers: u32, rate: u32) -> Interval {
    let every = Duration::from_secs(1) * askers / rate;
    let first = tokio::time::Instant::now() + every * u32::try_from(index).unwrap_or(0) / askers;
    let mut interval = tokio::time::interval_at(first, every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    interval
}

/// Fills a mesh: so many requests, shared among four members, as fast as they are answered. `make` gets the number of the request
/// over all of them.
pub(super) async fn fill(stage: &Stage, what: &str, count: u32, make: fn(usize) -> String) -> Result<()> {
    const MEMBERS: u32 = 4;
    let each = count.div_ceil(MEMBERS);
    let run = Asks::new(u64::from(each * MEMBERS));
    let mut fleet = Fleet::new(stage.broker.address, 4);
    for (index, session) in stage.sessions(&format!("filling-{what}"), MEMBERS)?.iter().enumerate() {
        let first = index * each as usize;
        let asker = Asker::new(&run, Rhythm::Window(each, FILLING), move |number, _| make(first + number));
        fleet.add(hello(session), asker, None);
    }
    fleet.ready().await?;
    fleet.phase(1);
    // A debug build needs its time.
    loop {
        let before = run.answered.get();
        let ended = fleet.until(&run.finished).await;
        if ended.is_ok() || run.answered.get() == before {
            run.check()?;
            ended.with_context(|| format!("{} of {count} {what} are there", run.answered.get()))?;
            break;
        }
    }
    fleet.end().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_write_is_read_from_what_is_told() {
        assert_eq!(
            number_field(br#"{"type":"state_change","key":"k","value":123,"version":4}"#, b"\"value\":"),
            Some(123)
        );
        assert_eq!(number_field(br#"{"value":null}"#, b"\"value\":"), None);
    }
}
