//! Tasks under load: many rivals who claim what is next, or all the same.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::asking::{Asker, Asks, Rhythm, fill, pace};
use super::bench::{Options, Stage, hello};
use super::beside::{Load, beside};
use super::fleet::Fleet;
use super::report::{Report, ms, number};
use crate::wire::{Out, Peer, Socket, field, is};

const RIVALS: u32 = 50;
/// Claims of one rival in flight.
const WINDOW: u32 = 4;
/// Tasks for one message of the other scenarios.
const TASKS: u32 = 10;
/// Claims a second beside messages, and tasks for one message of the other scenarios: enough for a round.
const BESIDE: (u32, u32) = (2_000, 16);
const NEXT: &str = r#"{"type":"next_task","claim":true}"#;

/// The request that creates a task.
pub(super) fn create(task: usize) -> String {
    json!({"type": "create_task", "title": format!("task {task}"), "tags": ["bench"]}).to_string()
}

/// Who got which task.
#[derive(Default)]
struct Won {
    tasks: RefCell<HashSet<Vec<u8>>>,
    twice: Cell<u64>,
    /// Rivals who were told that nothing is left.
    through: Cell<u32>,
}

/// Claims what is next until nothing is left.
struct Rival {
    run: Rc<Asks>,
    won: Rc<Won>,
    sent_at: Vec<u64>,
    through: bool,
}

impl Rival {
    fn ask(&mut self, out: &mut Out) {
        let number = self.sent_at.len().to_string();
        self.sent_at.push(self.run.micros());
        out.text(&[NEXT.trim_end_matches('}').as_bytes(), b",\"_reqId\":\"", number.as_bytes(), b"\"}"]);
    }
}

impl Peer for Rival {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        if is(text, "error") {
            return self.run.fail(text);
        }
        if !is(text, "task_result") {
            return;
        }
        let number = field(text, "_reqId").and_then(|id| std::str::from_utf8(id).ok()?.parse::<usize>().ok());
        if let Some(at) = number.and_then(|number| self.sent_at.get(number)) {
            self.run.note(&self.run.latency, *at);
        }
        let Some(id) = field(text, "id") else {
            if !std::mem::replace(&mut self.through, true) {
                self.won.through.set(self.won.through.get() + 1);
                if self.won.through.get() == RIVALS {
                    self.run.finished.notify_one();
                }
            }
            return;
        };
        if !self.won.tasks.borrow_mut().insert(id.to_owned()) {
            self.won.twice.set(self.won.twice.get() + 1);
        }
        self.ask(out);
    }

    fn phase(&mut self, phase: u32, out: &mut Out) {
        if phase == 1 {
            (0..WINDOW).for_each(|_| self.ask(out));
        }
    }
}

/// Claims of what is next, claims of the same tasks by all, and messages with and without claims.
pub(super) async fn claims(options: &Options, report: &mut Report) -> Result<()> {
    let stage = Stage::new(options)?;
    let tasks = (options.messages * TASKS).next_multiple_of(4);
    fill(&stage, "tasks", tasks, create).await?;
    let (run, won) = (Asks::new(u64::MAX), Rc::new(Won::default()));
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for session in &stage.sessions("rival", RIVALS)? {
        let rival = Rival { run: run.clone(), won: won.clone(), sent_at: Vec::new(), through: false };
        fleet.add(hello(session), rival, None);
    }
    fleet.ready().await?;
    let start = Instant::now();
    fleet.phase(1);
    let progress = || format!("{} of {tasks} tasks are claimed", won.tasks.borrow().len());
    fleet.until(&run.finished).await.with_context(progress)?;
    let seconds = start.elapsed().as_secs_f64();
    run.check()?;
    fleet.end().await?;
    let claimed = won.tasks.borrow().len();
    report.at_least(format!("claims of what is next, {RIVALS} rivals"), claimed as f64 / seconds, 2_000.0, "claims/s");
    report.note("… claim to answer, p99", format!("{} ms", number(ms(&run.latency.borrow(), 99.0))));
    let lost = (tasks as usize).abs_diff(claimed) as u64 + won.twice.get();
    report.at_most("… tasks that nobody got, or two", lost as f64, 0.0, "");
    all_the_same(options, report).await.context("all the same")?;

    let (rate, tasks) = BESIDE;
    let load = Load { name: "claims", unit: "claims/s", rate: f64::from(rate) };
    beside(options, report, load, async |stage: &Stage, fleet: &mut Fleet| {
        fill(stage, "tasks", options.messages * tasks, create).await?;
        let run = Asks::new(u64::MAX);
        for (index, session) in stage.sessions("rival", RIVALS)?.iter().enumerate() {
            let asker = Asker::new(&run, Rhythm::Paced, |_, _| NEXT.to_owned());
            fleet.add(hello(session), asker, Some(pace(index, RIVALS, rate)));
        }
        Ok(run)
    })
    .await
}

/// Every rival claims the same tasks in the same order: one of them gets each.
async fn all_the_same(options: &Options, report: &mut Report) -> Result<()> {
    let stage = Stage::new(options)?;
    let tasks = options.messages.div_ceil(10).max(4);
    fill(&stage, "tasks", tasks, create).await?;
    let ids = Rc::new(ids(&stage).await?);
    let count = u32::try_from(ids.len())?;
    let run = Asks::new(u64::from(RIVALS * count));
    let mut fleet = Fleet::new(stage.broker.address, 32);
    for session in &stage.sessions("rival", RIVALS)? {
        let ids = ids.clone();
        let claim =
            move |number: usize, _| format!(r#"{{"type":"claim_task","taskId":"{}","confirm":true}}"#, ids[number]);
        let asker = Asker::new(&run, Rhythm::Window(count, 1), claim).expecting(&["task_not_claimable"]);
        fleet.add(hello(session), asker, None);
    }
    fleet.ready().await?;
    let start = Instant::now();
    fleet.phase(1);
    fleet.until(&run.finished).await.with_context(|| format!("{} claims are answered", run.answered.get()))?;
    let seconds = start.elapsed().as_secs_f64();
    run.check()?;
    fleet.end().await?;
    let rate = format!("{}/s", number(run.answered.get() as f64 / seconds));
    report.note(format!("claims of the same tasks by {RIVALS} rivals, won and lost"), rate);
    let wrong = run.granted.get().abs_diff(u64::from(count));
    report.at_most("… tasks without exactly one winner", wrong as f64, 0.0, "");
    Ok(())
}

/// Ids of the tasks that are open.
async fn ids(stage: &Stage) -> Result<Vec<String>> {
    let mut socket = Socket::connect(stage.broker.address).await?;
    socket.hello(&hello(&stage.sessions("looker", 1)?[0]).context("a hello")?).await?;
    let (mut ids, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let ask = json!({"type": "list_tasks", "status": "open", "cursor": cursor}).to_string();
        let page: Value = serde_json::from_slice(&socket.call(ask.as_bytes(), |text| is(text, "task_list")).await?)?;
        let rows = page["tasks"].as_array().context("a list")?;
        ids.extend(rows.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)));
        cursor = page["next"].clone();
        if cursor.is_null() {
            socket.leave().await?;
            return Ok(ids);
        }
    }
}
