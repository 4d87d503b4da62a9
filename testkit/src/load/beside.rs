//! What a load does to messages: 1,000 direct messages a second, in turns alone and beside it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::asking::Asks;
use super::bench::{Options, Stage, faults, median, paced_run};
use super::fleet::Fleet;
use super::report::{Report, ms, number};

/// A load: its name, and how many answers a second it is meant to get.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) rate: f64,
}

/// Measures the turns; what counts is the median of the rounds. `add` adds the connections of the load, which are there in both kinds of
/// rounds and begin with phase 1.
pub(super) async fn beside(
    options: &Options,
    report: &mut Report,
    load: Load,
    add: impl AsyncFn(&Stage, &mut Fleet) -> Result<Rc<Asks>>,
) -> Result<()> {
    let Load { name, unit, rate } = load;
    let (mut p99, mut rates, mut busy) = ([const { Vec::new() }; 2], Vec::new(), 0);
    for round in 0..2 * options.rounds {
        let (kind, loaded) = (round % 2, round % 2 == 1);
        let stage = Stage::new(options)?;
        let sessions = stage.sessions("peer", 100)?;
        let mut others = Fleet::new(stage.broker.address, 4);
        let run = add(&stage, &mut others).await?;
        others.ready().await?;
        let (start, before) = (Instant::now(), run.answered.get());
        others.phase(if loaded { 1 } else { 2 });
        let (latency, traffic) = paced_run(&stage, &sessions, Duration::from_secs(6)).await?;
        let seconds = start.elapsed().as_secs_f64();
        others.phase(2);
        others.end().await?;
        run.check()?;
        p99[kind].push(ms(&latency.push, 99.0));
        if loaded {
            rates.push((run.answered.get() - before) as f64 / seconds);
            busy += run.busy.get();
            if round == 1 {
                faults(report, &format!("1,000 messages/s beside {name}"), &traffic);
            }
        }
    }
    let p99 = p99.map(median);
    report.at_least(format!("{name} beside messages"), median(rates), rate * 0.95, unit);
    report.note("… refused because the mesh was busy", number(busy as f64));
    report.note(format!("1,000 messages/s, no {name}: send to push, p99"), format!("{} ms", number(p99[0])));
    // Below half a millisecond the difference is the scheduler's, not ours.
    report.at_most(format!("1,000 messages/s beside {name}: p99"), p99[1], (p99[0] * 1.5).max(0.5), "ms");
    report.note(format!("… of that without {name}"), number(p99[1] / p99[0]));
    Ok(())
}
