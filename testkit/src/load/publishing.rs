//! Streams under load: entries that are pushed to many subscribers.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::sync::Notify;

use super::asking::{Asker, Asks, Rhythm, number_field, pace};
use super::bench::{Options, Stage, hello};
use super::beside::{Load, beside};
use super::fleet::Fleet;
use super::report::{Report, ms, number};
use crate::wire::{Out, Peer, is};

const SUBSCRIBERS: u32 = 100;
/// Publishers flat out, and entries of each in flight.
const FLAT_OUT: (u32, u32) = (4, 64);
/// Entries for one message of the other scenarios.
const ENTRIES: u32 = 10;
/// Publishers beside messages, and their rate.
const BESIDE: (u32, u32) = (4, 500);
/// The phase in which all subscribe.
const SUBSCRIBE: u32 = 3;

/// What the subscribers share.
struct Audience {
    subscribed: Cell<u32>,
    delivered: Cell<u64>,
    wanted: u64,
    /// Signalled when all are subscribed, and when all deliveries are there.
    changed: Notify,
}

/// Counts what it is pushed, in its order.
struct Subscriber {
    run: Rc<Asks>,
    audience: Rc<Audience>,
    next: u64,
}

impl Peer for Subscriber {
    fn frame(&mut self, text: &[u8], _out: &mut Out) {
        let audience = &self.audience;
        if is(text, "stream_data") {
            let (offset, at) = (number_field(text, b"\"offset\":"), number_field(text, b"\"data\":"));
            if offset != Some(self.next) {
                self.run.missed.set(self.run.missed.get() + 1);
            }
            self.next = offset.unwrap_or_default() + 1;
            if let Some(at) = at {
                self.run.note(&self.run.told, at);
            }
            audience.delivered.set(audience.delivered.get() + 1);
            if audience.delivered.get() == audience.wanted {
                audience.changed.notify_one();
            }
        } else if is(text, "subscribed") {
            audience.subscribed.set(audience.subscribed.get() + 1);
            if audience.subscribed.get() == SUBSCRIBERS {
                audience.changed.notify_one();
            }
        } else if is(text, "stream_gap") || is(text, "error") {
            self.run.fail(text);
        }
    }

    fn phase(&mut self, phase: u32, out: &mut Out) {
        if phase == SUBSCRIBE {
            out.text(&[br#"{"type":"subscribe","stream":"bench","from":"now","_reqId":"s"}"#]);
        }
    }
}

/// Adds subscribers, and waits until all of them are.
async fn audience(stage: &Stage, fleet: &mut Fleet, run: &Rc<Asks>, wanted: u64) -> Result<Rc<Audience>> {
    let audience =
        Rc::new(Audience { subscribed: Cell::new(0), delivered: Cell::new(0), wanted, changed: Notify::new() });
    for session in &stage.sessions("subscriber", SUBSCRIBERS)? {
        let subscriber = Subscriber { run: run.clone(), audience: audience.clone(), next: 0 };
        fleet.add(hello(session), subscriber, None);
    }
    fleet.ready().await?;
    fleet.phase(SUBSCRIBE);
    fleet.until(&audience.changed).await.context("not all are subscribed")?;
    Ok(audience)
}

fn publisher(run: &Rc<Asks>, rhythm: Rhythm) -> Asker {
    Asker::new(run, rhythm, |_, now| format!(r#"{{"type":"publish","stream":"bench","confirm":true,"data":{now}}}"#))
}

/// As many deliveries as there can be, and messages with and without deliveries.
pub(super) async fn publish(options: &Options, report: &mut Report) -> Result<()> {
    let (publishers, window) = FLAT_OUT;
    let stage = Stage::new(options)?;
    let each = options.messages * ENTRIES / publishers;
    let entries = u64::from(each * publishers);
    let run = Asks::new(entries);
    let mut listening = Fleet::new(stage.broker.address, 32);
    let audience = audience(&stage, &mut listening, &run, entries * u64::from(SUBSCRIBERS)).await?;
    let mut fleet = Fleet::new(stage.broker.address, 4);
    for session in &stage.sessions("publisher", publishers)? {
        fleet.add(hello(session), publisher(&run, Rhythm::Window(each, window)), None);
    }
    fleet.ready().await?;
    let start = Instant::now();
    fleet.phase(1);
    fleet.until(&run.finished).await.with_context(|| format!("{} of {entries} are published", run.answered.get()))?;
    run.check()?;
    let progress = || format!("{} of {} deliveries are here", audience.delivered.get(), audience.wanted);
    listening.until(&audience.changed).await.with_context(progress)?;
    let seconds = start.elapsed().as_secs_f64();
    run.check()?;
    fleet.end().await?;
    listening.end().await?;
    let what = format!("publish to {SUBSCRIBERS} subscribers");
    report.at_least(&what, audience.delivered.get() as f64 / seconds, 100_000.0, "deliveries/s");
    report.note(format!("{what}: entries"), format!("{}/s", number(entries as f64 / seconds)));
    report.note(format!("{what}: publish to push, p99"), format!("{} ms", number(ms(&run.told.borrow(), 99.0))));
    report.at_most(format!("{what}: lost, twice or out of order"), run.missed.get() as f64, 0.0, "");

    let (publishers, rate) = BESIDE;
    let load = Load { name: "streams", unit: "entries/s", rate: f64::from(rate) };
    beside(options, report, load, async |stage: &Stage, fleet: &mut Fleet| {
        let run = Asks::new(u64::MAX);
        self::audience(stage, fleet, &run, u64::MAX).await?;
        for (index, session) in stage.sessions("publisher", publishers)?.iter().enumerate() {
            fleet.add(hello(session), publisher(&run, Rhythm::Paced), Some(pace(index, publishers, rate)));
        }
        Ok(run)
    })
    .await
}
