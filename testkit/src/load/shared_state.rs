//! Shared state under load: how fast it is written and told, and what a flood of it does to messages.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::asking::{Asker, Asks, Rhythm, number_field, pace};
use super::bench::{Options, Stage, hello};
use super::beside::{Load, beside};
use super::fleet::Fleet;
use super::report::{Report, ms, number};
use crate::wire::{Out, Peer, is};

/// Writers of the flood, and its rate.
const FLOOD: (u32, u32) = (20, 2_000);
/// Peers that are told of each write, and the rate of the writes.
const TOLD: (u32, u32) = (100, 500);
/// Writers flat out, writes of each in flight, and writes of each for one message of the other scenarios.
const FLAT_OUT: (u32, u32) = (20, 16);
/// Keys of one writer: writes of several keys, and of each again and again.
const KEYS: usize = 50;

/// Writes its own keys in turn.
fn setter(run: &Rc<Asks>, writer: usize, rhythm: Rhythm) -> Asker {
    Asker::new(run, rhythm, move |number, now| {
        let key = number % KEYS;
        format!(r#"{{"type":"set_state","confirm":true,"key":"bench/{writer}/{key}","value":{now}}}"#)
    })
}

/// Is told.
struct Listener {
    run: Rc<Asks>,
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

/// 1,000 direct messages a second beside a flood of writes.
pub(super) async fn flood(options: &Options, report: &mut Report) -> Result<()> {
    let (writers, rate) = FLOOD;
    let load = Load { name: "floods of state", unit: "writes/s", rate: f64::from(rate) };
    beside(options, report, load, async |stage: &Stage, fleet: &mut Fleet| {
        let run = Asks::new(u64::MAX);
        for (index, session) in stage.sessions("setter", writers)?.iter().enumerate() {
            fleet.add(hello(session), setter(&run, index, Rhythm::Paced), Some(pace(index, writers, rate)));
        }
        Ok(run)
    })
    .await
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
    let run = Asks::new(u64::MAX);
    run.measuring.set(false);
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for session in &sessions {
        fleet.add(hello(session), Listener { run: run.clone() }, None);
    }
    fleet.ready().await?;
    for (index, session) in setters.iter().enumerate() {
        fleet.add(hello(session), setter(&run, index, Rhythm::Paced), Some(pace(index, 5, rate)));
    }
    fleet.ready().await?;
    // The joins are announced to everyone; let them pass.
    fleet.for_a_while(Duration::from_secs(1)).await?;
    fleet.phase(1);
    fleet.for_a_while(Duration::from_secs(1)).await?;
    run.measuring.set(true);
    let (start, before) = (Instant::now(), run.answered.get());
    fleet.for_a_while(Duration::from_secs(5)).await?;
    run.measuring.set(false);
    let seconds = start.elapsed().as_secs_f64();
    let confirmed = (run.answered.get() - before) as f64;
    fleet.phase(2);
    fleet.end().await?;
    run.check()?;
    let told = run.told.borrow();
    let what = format!("state at {rate} writes/s, {readers} readers");
    report.at_most(format!("{what}: set to push, p99"), ms(&told, 99.0), 5.0, "ms");
    report.note(format!("{what}: set to push, p50"), format!("{} ms", number(ms(&told, 50.0))));
    report.note(format!("{what}: set to confirmation, p99"), format!("{} ms", number(ms(&run.latency.borrow(), 99.0))));
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
    let run = Asks::new(planned);
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for (index, session) in setters.iter().enumerate() {
        fleet.add(hello(session), setter(&run, index, Rhythm::Window(options.messages, window)), None);
    }
    fleet.ready().await?;
    let start = Instant::now();
    fleet.phase(1);
    fleet.until(&run.finished).await.with_context(|| format!("{} of {planned} confirmed", run.answered.get()))?;
    let rate = planned as f64 / start.elapsed().as_secs_f64();
    fleet.end().await?;
    run.check()?;
    report.at_least(format!("state set flat out, {writers} peers"), rate, 5_000.0, "writes/s");
    report.note("… set to confirmation, p99", format!("{} ms", number(ms(&run.latency.borrow(), 99.0))));
    Ok(())
}
