//! Shared state under load: how fast it is written and told, and what a flood of it does to messages.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior};

use super::bench::{Options, Stage, faults, hello, median, paced_run};
use super::fleet::Fleet;
use super::report::{Report, latencies, ms, number};
use crate::wire::{Out, Peer, field, is};

/// Writers of the flood, and its rate.
const FLOOD: (u32, u32) = (20, 2_000);
/// Peers that are told of each write, and the rate of the writes.
const TOLD: (u32, u32) = (100, 500);
/// Writers flat out, writes of each in flight, and writes of each for one message of the other scenarios.
const FLAT_OUT: (u32, u32) = (20, 16);
/// Keys of one writer: writes of several keys, and of each again and again.
const KEYS: usize = 50;

/// What writers and readers share.
struct Run {
    start: Instant,
    /// Set to `state_change`.
    told: RefCell<Histogram<u64>>,
    /// Set to `done`.
    confirmed: RefCell<Histogram<u64>>,
    confirmations: Cell<u64>,
    missed: Cell<u64>,
    /// Writes of a pace that the broker had no room for.
    busy: Cell<u64>,
    measuring: Cell<bool>,
    planned: u64,
    finished: Notify,
    error: RefCell<Option<String>>,
}

impl Run {
    fn new(planned: u64) -> Rc<Self> {
        Rc::new(Self {
            start: Instant::now(),
            told: RefCell::new(latencies()),
            confirmed: RefCell::new(latencies()),
            confirmations: Cell::new(0),
            missed: Cell::new(0),
            busy: Cell::new(0),
            measuring: Cell::new(true),
            planned,
            finished: Notify::new(),
            error: RefCell::default(),
        })
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn note(&self, into: &RefCell<Histogram<u64>>, at: u64) {
        if self.measuring.get() {
            into.borrow_mut().saturating_record(self.micros().saturating_sub(at).max(1));
        }
    }

    fn check(&self) -> Result<()> {
        match self.error.borrow().as_ref() {
            Some(error) => bail!("the broker refused: {error}"),
            None => Ok(()),
        }
    }
}

/// Writes its own keys in turn: in every tick of its timer, or so many at a time until all are confirmed.
struct Setter {
    run: Rc<Run>,
    name: String,
    /// Writes in all and in flight; `None`: one in every tick.
    window: Option<(u32, u32)>,
    active: bool,
    sent_at: Vec<u64>,
}

impl Setter {
    fn new(run: &Rc<Run>, number: usize, window: Option<(u32, u32)>) -> Self {
        Self { run: run.clone(), name: format!("bench/{number}/"), window, active: false, sent_at: Vec::new() }
    }

    fn set(&mut self, out: &mut Out) {
        let (number, now) = (self.sent_at.len(), self.run.micros());
        self.sent_at.push(now);
        let frame = format!(
            r#"{{"type":"set_state","_reqId":"{number}","confirm":true,"key":"{}{}","value":{now}}}"#,
            self.name,
            number % KEYS
        );
        out.text(&[frame.as_bytes()]);
    }
}

impl Peer for Setter {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        if is(text, "error") {
            if self.window.is_none() && field(text, "code") == Some(b"busy") {
                return self.run.busy.set(self.run.busy.get() + 1);
            }
            let text = String::from_utf8_lossy(text).chars().take(300).collect();
            self.run.error.borrow_mut().get_or_insert(text);
            return self.run.finished.notify_one();
        }
        if !is(text, "done") {
            return;
        }
        let number = field(text, "_reqId").and_then(|id| std::str::from_utf8(id).ok()?.parse::<usize>().ok());
        if let Some(at) = number.and_then(|number| self.sent_at.get(number)) {
            self.run.note(&self.run.confirmed, *at);
        }
        self.run.confirmations.set(self.run.confirmations.get() + 1);
        if self.window.is_some_and(|(writes, _)| self.sent_at.len() < writes as usize) {
            self.set(out);
        }
        if self.run.confirmations.get() == self.run.planned {
            self.run.finished.notify_one();
        }
    }

    fn tick(&mut self, out: &mut Out) {
        if self.active {
            self.set(out);
        }
    }

    fn phase(&mut self, phase: u32, out: &mut Out) {
        self.active = phase == 1 && self.window.is_none();
        if let Some((writes, window)) = self.window
            && phase == 1
        {
            (0..window.min(writes)).for_each(|_| self.set(out));
        }
    }
}

/// Is told.
struct Listener {
    run: Rc<Run>,
}

impl Peer for Listener {
    fn frame(&mut self, text: &[u8], _out: &mut Out) {
        if is(text, "state_missed") {
            self.run.missed.set(self.run.missed.get() + 1);
        } else if is(text, "state_change")
            && let Some(at) = number_field(text, b"\"value\":")
        {
            self.run.note(&self.run.told, at);
        }
    }
}

fn number_field(text: &[u8], key: &[u8]) -> Option<u64> {
    let from = memchr::memmem::find(text, key)? + key.len();
    let digits = text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[from..from + digits]).ok()?.parse().ok()
}

/// One of `writers` that write `rate` times a second together, staggered.
fn pace(index: usize, writers: u32, rate: u32) -> Interval {
    let every = Duration::from_secs(1) * writers / rate;
    let first = tokio::time::Instant::now() + every * u32::try_from(index).unwrap_or(0) / writers;
    let mut interval = tokio::time::interval_at(first, every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    interval
}

/// 1,000 direct messages a second, in turns alone and beside a flood of writes. What counts is the median of the rounds.
pub(super) async fn flood(options: &Options, report: &mut Report) -> Result<()> {
    let (writers, rate) = FLOOD;
    let (mut p99, mut rates, mut busy) = ([const { Vec::new() }; 2], Vec::new(), 0);
    for round in 0..2 * options.rounds {
        let (kind, floods) = (round % 2, round % 2 == 1);
        let stage = Stage::new(options)?;
        let (sessions, setters) = (stage.sessions("peer", 100)?, stage.sessions("setter", writers)?);
        let run = Run::new(u64::MAX);
        let mut others = Fleet::new(stage.broker.address, 4);
        for (index, session) in setters.iter().enumerate() {
            // Connected in both kinds of rounds.
            let pace = pace(index, writers, rate);
            others.add(hello(session), Setter::new(&run, index, None), Some(pace));
        }
        others.ready().await?;
        let start = Instant::now();
        others.phase(if floods { 1 } else { 2 });
        let (latency, traffic) = paced_run(&stage, &sessions, Duration::from_secs(6)).await?;
        let seconds = start.elapsed().as_secs_f64();
        others.phase(2);
        others.end().await?;
        run.check()?;
        p99[kind].push(ms(&latency.push, 99.0));
        if floods {
            rates.push(run.confirmations.get() as f64 / seconds);
            busy += run.busy.get();
            if round == 1 {
                faults(report, "1,000 messages/s beside a flood of state", &traffic);
            }
        }
    }
    let p99 = p99.map(median);
    report.at_least("flood of state beside them", median(rates), f64::from(rate) * 0.95, "writes/s");
    report.note("… refused because the mesh was busy", number(busy as f64));
    report.note("1,000 messages/s, no flood: send to push, p99", format!("{} ms", number(p99[0])));
    // Below half a millisecond the difference is the scheduler's, not ours.
    report.at_most("1,000 messages/s beside the flood: p99", p99[1], (p99[0] * 1.5).max(0.5), "ms");
    report.note("… of that without the flood", number(p99[1] / p99[0]));
    Ok(())
}

/// How soon everyone is told, and how many writes a second are stored and confirmed.
pub(super) async fn state(options: &Options, report: &mut Report) -> Result<()> {
    told(options, report).await.context("told")?;
    flat_out(options, report).await.context("flat out")
}

async fn told(options: &Options, report: &mut Report) -> Result<()> {
    let (readers, rate) = TOLD;
    let stage = Stage::new(options)?;
    let (sessions, setters) = (stage.sessions("reader", readers)?, stage.sessions("setter", 5)?);
    let run = Run::new(u64::MAX);
    run.measuring.set(false);
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for session in &sessions {
        fleet.add(hello(session), Listener { run: run.clone() }, None);
    }
    fleet.ready().await?;
    for (index, session) in setters.iter().enumerate() {
        fleet.add(hello(session), Setter::new(&run, index, None), Some(pace(index, 5, rate)));
    }
    fleet.ready().await?;
    // The joins are announced to everyone; let them pass.
    fleet.for_a_while(Duration::from_secs(1)).await?;
    fleet.phase(1);
    fleet.for_a_while(Duration::from_secs(1)).await?;
    run.measuring.set(true);
    let (start, before) = (Instant::now(), run.confirmations.get());
    fleet.for_a_while(Duration::from_secs(5)).await?;
    run.measuring.set(false);
    let seconds = start.elapsed().as_secs_f64();
    let confirmed = (run.confirmations.get() - before) as f64;
    fleet.phase(2);
    fleet.end().await?;
    run.check()?;
    let told = run.told.borrow();
    let what = format!("state at {rate} writes/s, {readers} readers");
    report.at_most(format!("{what}: set to push, p99"), ms(&told, 99.0), 5.0, "ms");
    report.note(format!("{what}: set to push, p50"), format!("{} ms", number(ms(&told, 50.0))));
    report
        .note(format!("{what}: set to confirmation, p99"), format!("{} ms", number(ms(&run.confirmed.borrow(), 99.0))));
    report.note(format!("{what}: confirmed"), format!("{}/s", number(confirmed / seconds)));
    let wanted = confirmed * f64::from(readers);
    report.note(format!("{what}: told of all changes"), format!("{} %", number(told.len() as f64 / wanted * 100.0)));
    report.note(format!("{what}: refused because the mesh was busy"), number(run.busy.get() as f64));
    report.note(format!("{what}: told that some were missed"), number(run.missed.get() as f64));
    Ok(())
}

async fn flat_out(options: &Options, report: &mut Report) -> Result<()> {
    let (writers, window) = FLAT_OUT;
    let stage = Stage::new(options)?;
    let setters = stage.sessions("setter", writers)?;
    let planned = u64::from(writers) * u64::from(options.messages);
    let run = Run::new(planned);
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for (index, session) in setters.iter().enumerate() {
        fleet.add(hello(session), Setter::new(&run, index, Some((options.messages, window))), None);
    }
    fleet.ready().await?;
    let start = Instant::now();
    fleet.phase(1);
    fleet.until(&run.finished).await.with_context(|| format!("{} of {planned} confirmed", run.confirmations.get()))?;
    let rate = planned as f64 / start.elapsed().as_secs_f64();
    fleet.end().await?;
    run.check()?;
    report.at_least(format!("state set flat out, {writers} peers"), rate, 5_000.0, "writes/s");
    report.note("… set to confirmation, p99", format!("{} ms", number(ms(&run.confirmed.borrow(), 99.0))));
    Ok(())
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
