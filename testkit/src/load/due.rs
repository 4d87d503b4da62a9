//! Schedules under load: what very many that wait cost, and how late those are that are due together.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use claudemesh_protocol::crypto::envelope::decode_public;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::sync::Notify;

use super::asking::{Asker, Asks, Rhythm, fill};
use super::bench::{Options, Stage, faults, hello};
use super::fleet::Fleet;
use super::kept::look;
use super::report::{Report, latencies, ms, number};
use crate::wire::{Out, Peer, field, is};

/// More than an empty mesh, in MiB.
const MOST_MIB: f64 = 40.0;
/// Entries that are due within one second, a millisecond from each other.
const DUE: u32 = 1_000;
/// They go to so many peers.
const RECIPIENTS: u32 = 100;
/// From the first request to the first time: what storing them takes, and more.
const AHEAD: Duration = Duration::from_secs(8);
/// The ordinary load of messages beside them.
const BESIDE: Duration = Duration::from_secs(12);

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An entry that waits for a year.
fn armed(entry: usize) -> String {
    let at = now_ms() + 31_536_000_000 + i64::try_from(entry).unwrap_or_default();
    json!({"type": "schedule", "to": "*", "message": format!("entry {entry}"), "deliverAt": at}).to_string()
}

/// What the recipients share.
struct Arrivals {
    late: RefCell<Histogram<u64>>,
    early: Cell<u32>,
    count: Cell<u32>,
    all: Notify,
}

/// Reads when a message was due, which is its text.
struct Recipient(Rc<Arrivals>);

impl Peer for Recipient {
    fn frame(&mut self, text: &[u8], _out: &mut Out) {
        if !is(text, "push") {
            return;
        }
        let body = field(text, "ciphertext").and_then(|body| std::str::from_utf8(body).ok());
        let due = body.and_then(|body| decode_public(body).ok()).and_then(|text| text.parse::<i64>().ok());
        let Some(due) = due else { return };
        let arrivals = &self.0;
        let late = now_ms() - due;
        arrivals.early.set(arrivals.early.get() + u32::from(late < 0));
        arrivals.late.borrow_mut().saturating_record(u64::try_from(late).unwrap_or_default() * 1_000 + 1);
        arrivals.count.set(arrivals.count.get() + 1);
        if arrivals.count.get() == DUE {
            arrivals.all.notify_one();
        }
    }
}

/// Fills a mesh with entries that wait, and lets others become due beside them, alone and beside messages.
pub(super) async fn due(options: &Options, report: &mut Report) -> Result<()> {
    let mut stage = Stage::new(options)?;
    look(&stage, "empty").await?;
    let empty = stage.broker.rss()?;
    // A mesh may have so many; those that are due soon belong to them.
    fill(&stage, "schedules", options.kept.saturating_sub(2 * DUE), armed).await?;
    let more = |stage: &Stage| -> Result<f64> { Ok(stage.broker.rss()?.saturating_sub(empty) as f64 / 1_048_576.0) };
    let what = format!("{} armed schedules", number(f64::from(options.kept)));
    report.at_most(format!("{what}: broker memory more than empty"), more(&stage)?, MOST_MIB, "MiB");
    stage.broker.terminate()?;
    stage.broker.restart()?;
    look(&stage, "full").await?;
    report.at_most(format!("{what}: the same when it was started again"), more(&stage)?, MOST_MIB, "MiB");
    for beside in [false, true] {
        fire(&stage, beside, report).await?;
    }
    Ok(())
}

async fn fire(stage: &Stage, beside: bool, report: &mut Report) -> Result<()> {
    let turn = if beside { "beside" } else { "alone" };
    let arrivals = Rc::new(Arrivals {
        late: RefCell::new(latencies()),
        early: Cell::new(0),
        count: Cell::new(0),
        all: Notify::new(),
    });
    let recipients = stage.sessions(&format!("{turn}-recipient"), RECIPIENTS)?;
    let keys: Vec<String> = recipients.iter().map(|session| session.pubkey()).collect();
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for session in &recipients {
        fleet.add(hello(session), Recipient(arrivals.clone()), None);
    }
    let run = Asks::new(u64::from(DUE));
    let first = now_ms() + i64::try_from(AHEAD.as_millis()).unwrap_or_default();
    let author = Asker::new(&run, Rhythm::Window(DUE, 64), move |entry, _| {
        let at = first + i64::try_from(entry).unwrap_or_default();
        let to = &keys[entry % keys.len()];
        json!({"type": "schedule", "to": to, "message": at.to_string(), "deliverAt": at}).to_string()
    });
    fleet.add(hello(&stage.sessions(&format!("{turn}-author"), 1)?[0]), author, None);
    fleet.ready().await?;
    fleet.phase(1);
    fleet.until(&run.finished).await.context("not all are scheduled")?;
    run.check()?;
    let stored_by = first - now_ms();
    anyhow::ensure!(stored_by > 0, "storing took {} ms too long", -stored_by);
    let what = format!(
        "{} due in one second{}",
        number(f64::from(DUE)),
        if beside { ", beside 1,000 messages/s" } else { "" }
    );
    if beside {
        let sessions = stage.sessions("peer", 100)?;
        let (latency, traffic) = super::bench::paced_run(stage, &sessions, BESIDE).await?;
        report.note(format!("{what}: messages, send to push, p99"), format!("{} ms", number(ms(&latency.push, 99.0))));
        faults(report, &what, &traffic);
    }
    fleet.until(&arrivals.all).await.with_context(|| format!("{} of {DUE} arrived", arrivals.count.get()))?;
    let late = arrivals.late.replace(latencies());
    report.note(format!("{what}: late, p50"), format!("{} ms", number(ms(&late, 50.0))));
    report.at_most(format!("{what}: the latest"), ms(&late, 100.0), 50.0, "ms");
    report.at_most(format!("{what}: too early"), f64::from(arrivals.early.get()), 0.0, "");
    // A moment for what should not come: second copies.
    fleet.for_a_while(Duration::from_millis(500)).await?;
    report.at_most(format!("{what}: twice"), f64::from(arrivals.count.get() - DUE), 0.0, "");
    fleet.end().await
}
