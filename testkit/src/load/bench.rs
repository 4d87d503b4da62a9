//! The scenarios of `cargo xtask bench`, in one run beside the relay.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde_json::json;

use super::broadcast::{Broadcast, Listener, Speaker};
use super::fleet::Fleet;
use super::idle::Idle;
use super::relay::{RelayProcess, passed_on, round_trips};
use super::report::{Report, ms};
use super::traffic::{Run, Sending, Trader};
use super::{claims, client, due, kept, publishing, recall, shared_state, shell};
use crate::enrol::OwnedMesh;
use crate::identity::{Member, Session};
use crate::process::{BrokerProcess, raise_file_limit};
use crate::wire::Socket;

/// What to measure.
pub struct Options {
    /// `claudemesh-broker`
    pub broker: PathBuf,
    /// `claudemesh`, for the start-to-exit times.
    pub client: Option<PathBuf>,
    /// Only these scenarios; empty = all.
    pub only: Vec<String>,
    /// Idle connections.
    pub connections: u32,
    /// Messages per peer in `direct` and `away`.
    pub messages: u32,
    /// What a mesh keeps in `recall`, `kept` and `due`: memories, keys, tasks, schedules.
    pub kept: u32,
    /// Rounds of each kind in `stuck`, `flood` and their like: one p99 of a few seconds varies by more than what is looked for.
    pub rounds: usize,
}

/// Runs the scenarios that are wanted.
///
/// # Errors
/// A scenario could not be run to its end; a missed target is part of the report.
pub async fn run(options: &Options) -> Result<Report> {
    let files = raise_file_limit()?;
    let mut report = Report::default();
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut ceiling = None;
    if ["relay", "direct", "away"].into_iter().any(wanted) {
        ceiling = Some(relay(&mut report).await?);
    }
    if wanted("direct") {
        direct(options, &mut report, ceiling.unwrap_or_default()).await.context("direct")?;
    }
    if wanted("away") {
        away(options, &mut report, ceiling.unwrap_or_default()).await.context("away")?;
    }
    if wanted("paced") {
        paced(options, &mut report).await.context("paced")?;
    }
    if wanted("flood") {
        shared_state::flood(options, &mut report).await.context("flood")?;
    }
    if wanted("state") {
        shared_state::state(options, &mut report).await.context("state")?;
    }
    if wanted("recall") {
        recall::recall(options, &mut report).await.context("recall")?;
    }
    if wanted("publish") {
        publishing::publish(options, &mut report).await.context("publish")?;
    }
    if wanted("claims") {
        claims::claims(options, &mut report).await.context("claims")?;
    }
    if wanted("kept") {
        kept::kept(options, &mut report).await.context("kept")?;
    }
    if wanted("due") {
        due::due(options, &mut report).await.context("due")?;
    }
    if wanted("broadcast") {
        broadcast(options, &mut report).await.context("broadcast")?;
    }
    if wanted("stuck") {
        stuck(options, &mut report).await.context("stuck")?;
    }
    if wanted("idle") {
        let possible = u32::try_from(files.saturating_sub(200)).unwrap_or(u32::MAX);
        if possible < options.connections {
            report.note("idle connections", format!("only {possible} of {}: limit of open files", options.connections));
        }
        idle(options, options.connections.min(possible), &mut report).await.context("idle")?;
    }
    if wanted("client")
        && let Some(client) = &options.client
    {
        client::times(options, client, &mut report).await.context("client")?;
    }
    if wanted("shell")
        && let Some(client) = &options.client
    {
        shell::run(options, client, &mut report).await.context("shell")?;
    }
    Ok(report)
}

/// What the bare relay reaches, in messages per second: a message is two round trips (send and ack, push and
/// acknowledgement). See `docs/benchmarks.md`.
#[derive(Clone, Copy, Default)]
struct Ceiling {
    /// From round trips as the word says: each client waits for its frame. The targets are parts of this.
    waiting: f64,
    /// From frames that travel between clients in batches, 32 under way for each client, as in `direct`.
    batched: f64,
}

impl Ceiling {
    fn note(self, report: &mut Report, what: &str, rate: f64) {
        let part = |ceiling: f64| super::report::number(rate / ceiling);
        let text = format!("{}; of the relay that works on batches {}", part(self.waiting), part(self.batched));
        report.note(format!("{what}: of the relay's ceiling"), text);
    }
}

/// The best of two runs each.
async fn relay(report: &mut Report) -> Result<Ceiling> {
    let (mut trips, mut frames): (f64, f64) = (0.0, 0.0);
    for _ in 0..2 {
        // A fresh process each time: the relay numbers its connections and forgets none.
        trips = trips.max(round_trips(RelayProcess::start()?.address, Duration::from_secs(2)).await?);
        frames = frames.max(passed_on(RelayProcess::start()?.address, Duration::from_secs(2)).await?);
    }
    report.note("bare relay, round trips of one message's frame", format!("{}/s", super::report::number(trips)));
    report.note("bare relay, frames in batches, 32 under way each", format!("{}/s", super::report::number(frames)));
    Ok(Ceiling { waiting: trips / 2.0, batched: frames / 2.0 })
}

pub(super) struct Stage {
    pub(super) broker: BrokerProcess,
    pub(super) mesh: OwnedMesh,
    _data: tempfile::TempDir,
}

impl Stage {
    pub(super) fn new(options: &Options) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let broker = BrokerProcess::start(&options.broker, data.path(), &[])?;
        let mesh = OwnedMesh::create(&broker.base(), "load")?;
        Ok(Self { broker, mesh, _data: data })
    }

    /// That many members with one session each.
    pub(super) fn sessions(&self, prefix: &str, count: u32) -> Result<Vec<Session>> {
        let members = self.mesh.members(prefix, count)?;
        Ok(members.iter().enumerate().map(|(index, member)| member.session(&format!("{prefix}-{index}"))).collect())
    }
}

fn keys(sessions: &[Session]) -> Vec<String> {
    sessions.iter().map(Session::pubkey).collect()
}

pub(super) fn hello(session: &Session) -> Option<String> {
    Some(session.hello(json!({})).to_string())
}

fn check(run: &Run) -> Result<()> {
    match run.errors.borrow().first() {
        Some(error) => bail!("the broker refused: {error}"),
        None => Ok(()),
    }
}

pub(super) fn faults(report: &mut Report, what: &str, run: &Run) {
    let ledger = run.ledger.borrow();
    report.at_most(format!("{what}: lost"), ledger.lost() as f64, 0.0, "");
    report.at_most(format!("{what}: twice"), ledger.twice as f64, 0.0, "");
    report.at_most(format!("{what}: out of order"), ledger.out_of_order as f64, 0.0, "");
}

async fn direct(options: &Options, report: &mut Report, ceiling: Ceiling) -> Result<()> {
    let stage = Stage::new(options)?;
    let sessions = stage.sessions("peer", 100)?;
    let planned = 100 * u64::from(options.messages);
    let run = Run::new(100, keys(&sessions), planned, true);
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for (index, session) in sessions.iter().enumerate() {
        let sending = Sending::Window { messages: options.messages, window: 32 };
        fleet.add(hello(session), Trader::new(&run, index, Some(index), sending), None);
    }
    fleet.ready().await?;
    let (start, cpu) = (Instant::now(), stage.broker.cpu_seconds()?);
    fleet.phase(1);
    fleet.until(&run.finished).await.with_context(|| run.progress())?;
    let seconds = start.elapsed().as_secs_f64();
    check(&run)?;
    // A moment for what should not come: second copies.
    fleet.for_a_while(Duration::from_millis(300)).await?;
    fleet.end().await?;
    let rate = planned as f64 / seconds;
    report.at_least(format!("direct, 100 peers x {}", options.messages), rate, 0.35 * ceiling.waiting, "messages/s");
    ceiling.note(report, "direct", rate);
    let used = (stage.broker.cpu_seconds()? - cpu) / planned as f64 * 1e6;
    report.note("direct: broker time per message", format!("{} µs of one core", super::report::number(used)));
    faults(report, "direct", &run);
    Ok(())
}

async fn away(options: &Options, report: &mut Report, ceiling: Ceiling) -> Result<()> {
    let stage = Stage::new(options)?;
    let (senders, recipients) = (stage.sessions("sender", 100)?, stage.sessions("away", 100)?);
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for session in &recipients {
        fleet.add(hello(session), Idle::default(), None);
    }
    fleet.ready().await?;
    fleet.end().await?;

    let planned = 100 * u64::from(options.messages);
    let run = Run::new(100, keys(&recipients), planned, false);
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for (index, session) in senders.iter().enumerate() {
        let sending = Sending::Window { messages: options.messages, window: 32 };
        fleet.add(hello(session), Trader::new(&run, index, None, sending), None);
    }
    fleet.ready().await?;
    let start = Instant::now();
    fleet.phase(1);
    fleet.until(&run.finished).await.with_context(|| run.progress())?;
    let rate = planned as f64 / start.elapsed().as_secs_f64();
    check(&run)?;
    fleet.end().await?;
    report.at_least("away, every message on disk", rate, 0.15 * ceiling.waiting, "messages/s");
    ceiling.note(report, "away", rate);

    // The same ledger goes on: what comes back must be everything that was acknowledged.
    let run = Run::draining(&run);
    let mut fleet = Fleet::new(stage.broker.address, 32);
    let start = Instant::now();
    for (index, session) in recipients.iter().enumerate() {
        fleet.add(hello(session), Trader::new(&run, 0, Some(index), Sending::Nothing), None);
    }
    fleet.ready().await?;
    fleet.until(&run.finished).await.with_context(|| run.progress())?;
    let rate = planned as f64 / start.elapsed().as_secs_f64();
    check(&run)?;
    fleet.for_a_while(Duration::from_millis(300)).await?;
    fleet.end().await?;
    report.note("away: drained after return", format!("{} messages/s", super::report::number(rate)));
    faults(report, "away", &run);
    Ok(())
}

/// 100 peers, 10 messages a second each, staggered.
fn pace(index: usize) -> tokio::time::Interval {
    let first = tokio::time::Instant::now() + Duration::from_millis(index as u64);
    let mut interval = tokio::time::interval_at(first, Duration::from_millis(100));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

pub(super) struct Latency {
    pub(super) push: Histogram<u64>,
    ack: Histogram<u64>,
}

/// Latencies of 1,000 messages a second over 100 sessions, after a second of warm-up.
pub(super) async fn paced_run(stage: &Stage, sessions: &[Session], time: Duration) -> Result<(Latency, Rc<Run>)> {
    let run = Run::new(sessions.len(), keys(sessions), u64::MAX, true);
    run.measuring.set(false);
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for (index, session) in sessions.iter().enumerate() {
        fleet.add(hello(session), Trader::new(&run, index, Some(index), Sending::Paced), Some(pace(index)));
    }
    fleet.ready().await?;
    fleet.phase(1);
    fleet.for_a_while(Duration::from_secs(1)).await?;
    run.measuring.set(true);
    fleet.for_a_while(time).await?;
    run.measuring.set(false);
    fleet.phase(2);
    fleet.for_a_while(Duration::from_millis(500)).await?;
    fleet.end().await?;
    check(&run)?;
    let latency = Latency { push: run.push_latency.borrow().clone(), ack: run.ack_latency.borrow().clone() };
    Ok((latency, run))
}

async fn paced(options: &Options, report: &mut Report) -> Result<()> {
    let stage = Stage::new(options)?;
    let sessions = stage.sessions("peer", 100)?;
    let (latency, run) = paced_run(&stage, &sessions, Duration::from_secs(8)).await?;
    report.at_most("1,000 messages/s: send to push, p50", ms(&latency.push, 50.0), 0.5, "ms");
    report.at_most("1,000 messages/s: send to push, p99", ms(&latency.push, 99.0), 3.0, "ms");
    report.at_most("1,000 messages/s: send to ack, p99", ms(&latency.ack, 99.0), 8.0, "ms");
    faults(report, "1,000 messages/s", &run);
    Ok(())
}

async fn broadcast(options: &Options, report: &mut Report) -> Result<()> {
    for acknowledge in [false, true] {
        let stage = Stage::new(options)?;
        let member = stage.mesh.member("listener")?;
        let speaker = stage.sessions("speaker", 1)?;
        let run = Broadcast::new(400, 1000);
        let mut fleet = Fleet::new(stage.broker.address, 32);
        let capabilities = if acknowledge { json!({}) } else { json!({"capabilities": null}) };
        for index in 0..1000 {
            let session = member.session(&format!("listener-{index}"));
            fleet.add(Some(session.hello(capabilities.clone()).to_string()), Listener::new(&run, acknowledge), None);
        }
        fleet.ready().await?;
        fleet.add(hello(&speaker[0]), Speaker::new(&run, 4), None);
        fleet.ready().await?;
        // The joins of a thousand peers are announced to a thousand peers; let them pass.
        fleet.for_a_while(Duration::from_secs(1)).await?;
        let start = Instant::now();
        fleet.phase(1);
        fleet.until(&run.finished).await.with_context(|| {
            format!("{} of 400,000 deliveries and {} of 400 acks are here", run.delivered.get(), run.acked.get())
        })?;
        let rate = run.delivered.get() as f64 / start.elapsed().as_secs_f64();
        if let Some(error) = run.error.borrow().as_ref() {
            bail!("the broker refused: {error}");
        }
        fleet.end().await?;
        let latency = run.latency.borrow();
        if acknowledge {
            report.at_least("broadcast to 1,000", rate, 150_000.0, "deliveries/s");
            report.at_most("broadcast: send to push, p99", ms(&latency, 99.0), 50.0, "ms");
        } else {
            // A client that never acknowledges may still lose what was pushed, so every push is a row on disk.
            let text = format!("{} deliveries/s", super::report::number(rate));
            report.note("broadcast to 1,000 older clients that never acknowledge", text);
        }
        report.at_most("broadcast: out of order or twice", run.disorder.get() as f64, 0.0, "");
    }
    Ok(())
}

/// Paced traffic while someone sends 200 bodies of 16 KiB a second to one peer: in turns it reads and does not. What counts
/// is the median of the rounds.
async fn stuck(options: &Options, report: &mut Report) -> Result<()> {
    let (mut p99, mut grown) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for round in 0..2 * options.rounds {
        let (kind, reads) = (round % 2, round % 2 == 0);
        let stage = Stage::new(options)?;
        let sessions = stage.sessions("peer", 100)?;
        let (victim, blaster) = (stage.sessions("victim", 1)?, stage.sessions("blaster", 1)?);
        let mut others = Fleet::new(stage.broker.address, 4);
        // A socket that said hello and is never read again; kept open until the end of the round.
        let mut unread = None;
        if reads {
            others.add(hello(&victim[0]), super::idle::Reader, None);
        } else {
            let mut socket = Socket::connect(stage.broker.address).await?;
            socket.hello(&hello(&victim[0]).unwrap_or_default()).await?;
            unread = Some(socket);
        }
        let mut interval = tokio::time::interval(Duration::from_millis(5));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        others.add(hello(&blaster[0]), super::idle::Blaster::new(victim[0].pubkey()), Some(interval));
        others.ready().await?;
        others.phase(1);
        let before = stage.broker.rss()?;
        let (latency, _) = paced_run(&stage, &sessions, Duration::from_secs(6)).await?;
        grown[kind].push(stage.broker.rss()?.saturating_sub(before) as f64 / 1_048_576.0);
        p99[kind].push(ms(&latency.push, 99.0));
        others.end().await?;
        drop(unread);
    }
    let (p99, grown) = (p99.map(median), grown.map(median));
    // The rest of the growth is the hundred others, and the same in both kinds of rounds.
    report.at_most("one peer never reads: broker grows more by", (grown[1] - grown[0]).max(0.0), 16.0, "MiB");
    report.note("all read: others' send to push, p99", format!("{} ms", super::report::number(p99[0])));
    // Below half a millisecond the difference is the scheduler's, not ours.
    let most = (p99[0] * 1.5).max(0.5);
    report.at_most("one peer never reads: others' p99", p99[1], most, "ms");
    Ok(())
}

/// Of an odd number of values.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn idle(options: &Options, connections: u32, report: &mut Report) -> Result<()> {
    const MESHES: u32 = 20;
    let data = tempfile::tempdir()?;
    let broker = BrokerProcess::start(&options.broker, data.path(), &[])?;
    let meshes: Vec<OwnedMesh> =
        (0..MESHES).map(|index| OwnedMesh::create(&broker.base(), &format!("idle-{index}"))).collect::<Result<_>>()?;
    // Signed before the clock runs: the client's signatures are not what is measured.
    let members: Vec<Arc<Member>> =
        meshes.iter().map(|mesh| mesh.members("idle", 10)).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    let per_mesh = members.len() / MESHES as usize;
    let sessions: Vec<String> = (0..connections as usize)
        .map(|index| {
            let mesh = index % MESHES as usize;
            let member = &members[mesh * per_mesh + index / MESHES as usize % per_mesh];
            member.session(&format!("idle-{index}")).hello(json!({})).to_string()
        })
        .collect();
    let (frames, errors) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let before = broker.rss()?;
    let mut fleet = Fleet::new(broker.address, 128);
    let start = Instant::now();
    for hello in sessions {
        fleet.add(Some(hello), Idle { frames: frames.clone(), errors: errors.clone() }, None);
    }
    fleet.ready().await?;
    let rate = f64::from(connections) / start.elapsed().as_secs_f64();
    report.at_least(format!("{connections} hellos in {MESHES} meshes"), rate, 2000.0, "hellos/s");
    fleet.for_a_while(Duration::from_secs(3)).await?;
    let each = broker.rss()?.saturating_sub(before) as f64 / f64::from(connections) / 1024.0;
    report.at_most(format!("{connections} idle connections: broker memory each"), each, 25.0, "KiB");
    report.note("idle: frames they were sent meanwhile", super::report::number(frames.get() as f64));
    if errors.get() > 0 {
        bail!("{} idle peers got an error", errors.get());
    }

    // Live traffic in one more mesh of the same broker.
    let mesh = OwnedMesh::create(&broker.base(), "live")?;
    let stage = Stage { broker, mesh, _data: data };
    let sessions = stage.sessions("peer", 100)?;
    let (latency, run) = paced_run(&stage, &sessions, Duration::from_secs(5)).await?;
    report.at_most("beside them, 1,000 messages/s: push p50", ms(&latency.push, 50.0), 0.5, "ms");
    report.at_most("beside them, 1,000 messages/s: push p99", ms(&latency.push, 99.0), 3.0, "ms");
    faults(report, "beside them", &run);
    fleet.end().await
}
