//! All that is known of the tasks of a mesh, from anyone who learned it: no two may differ.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use claudemesh_protocol::features::tasks::{TaskEntry, TaskStatus, TaskStep};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::super::asked::{Asked, Book, Fate, mark_of};
use super::super::audit::Mark;
use super::WHOLE_HISTORY;

/// Tasks that workers quarrel about: the newest.
const WANTED: usize = 6;

/// What a request is for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Create,
    /// Whichever is the first.
    Next,
    Claim(String),
    Unclaim(String),
    Complete(String),
    Reopen(String),
}

impl Act {
    /// The step that it makes in a history.
    fn step(&self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Next | Self::Claim(_) => "claimed",
            Self::Unclaim(_) => "unclaimed",
            Self::Complete(_) => "completed",
            Self::Reopen(_) => "reopened",
        }
    }

    fn id(&self) -> Option<&str> {
        match self {
            Self::Create | Self::Next => None,
            Self::Claim(id) | Self::Unclaim(id) | Self::Complete(id) | Self::Reopen(id) => Some(id),
        }
    }

    /// Why it may be refused: others were sooner.
    fn may_be(&self, code: &str) -> bool {
        match self {
            Self::Create | Self::Next => false,
            Self::Claim(_) => matches!(code, "task_not_claimable" | "task_not_found"),
            Self::Unclaim(_) | Self::Complete(_) | Self::Reopen(_) => {
                matches!(code, "conflict" | "forbidden" | "task_not_found")
            }
        }
    }
}

/// A step of a task: who did what.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    worker: usize,
    what: &'static str,
}

/// What is known of one task.
#[derive(Default)]
struct Known {
    /// Steps that were confirmed, by version.
    steps: BTreeMap<u64, Step>,
    /// Its history up to here was read and is right.
    judged: u64,
}

pub(super) struct Log {
    pub(super) asked: Asked<Act>,
    /// Names of the workers.
    pub(super) names: Vec<String>,
    tasks: HashMap<String, Known>,
    /// In the order in which they were heard of.
    ids: Vec<String>,
    /// Tasks that a worker holds, as far as it knows.
    held: Vec<BTreeSet<String>>,
    /// Steps in histories that were not confirmed.
    unconfirmed: BTreeMap<(String, u64), Step>,
    /// Marks of creations and results in tasks, and where they were seen.
    marks: HashMap<String, String>,
    deleted: BTreeSet<String>,
    deleted_changes: u64,
    fresh: Vec<Mark>,
    won: u64,
}

impl Log {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            asked: Asked::new(workers),
            names: Vec::new(),
            tasks: HashMap::new(),
            ids: Vec::new(),
            held: vec![BTreeSet::new(); workers],
            unconfirmed: BTreeMap::new(),
            marks: HashMap::new(),
            deleted: BTreeSet::new(),
            deleted_changes: 0,
            fresh: Vec::new(),
            won: 0,
        }
    }

    fn choose(&self, worker: usize, random: &mut StdRng) -> Act {
        let wanted = &self.ids[self.ids.len().saturating_sub(WANTED)..];
        let any = |random: &mut StdRng| wanted.get(random.gen_range(0..wanted.len().max(1))).cloned();
        let own = |random: &mut StdRng| {
            let held = &self.held[worker];
            held.iter().nth(random.gen_range(0..held.len().max(1))).cloned()
        };
        let act = match random.gen_range(0..20) {
            0..=2 => None,
            3..=6 => Some(Act::Next),
            7..=11 => any(random).map(Act::Claim),
            12..=16 => own(random).map(Act::Complete),
            17..=18 => own(random).map(Act::Unclaim),
            _ => any(random).map(Act::Reopen),
        };
        act.unwrap_or(Act::Create)
    }

    fn frame(&self, worker: usize, number: usize, act: &Act) -> Value {
        let mark = mark_of(worker, number);
        match act {
            Act::Create => json!({"type": "create_task", "title": mark}),
            Act::Next => json!({"type": "next_task", "claim": true}),
            Act::Claim(id) => json!({"type": "claim_task", "taskId": id, "confirm": true}),
            Act::Unclaim(id) => json!({"type": "unclaim_task", "taskId": id, "confirm": true}),
            Act::Complete(id) => json!({"type": "complete_task", "taskId": id, "result": mark, "confirm": true}),
            Act::Reopen(id) => json!({"type": "reopen_task", "taskId": id, "confirm": true}),
        }
    }

    /// A step was confirmed.
    fn confirmed(&mut self, worker: usize, act: &Act, id: &str, version: u64) -> Result<(), String> {
        let step = Step { worker, what: act.step() };
        let known = self.tasks.entry(id.into()).or_default();
        if let Some(before) = known.steps.insert(version, step.clone()) {
            // A session that asks for what it holds already is told so again.
            let again = before == step && step.what == "claimed";
            return if again { Ok(()) } else { Err(format!("version {version} of {id} is {before:?} and {step:?}")) };
        }
        self.fresh.push(Mark::new(&format!("task_{}", step.what), [json!(id), json!(version)]));
        self.won += u64::from(step.what == "claimed");
        Ok(())
    }

    fn done(&mut self, worker: usize, act: &Act, task: &Value) -> Result<(), String> {
        let (Some(id), Some(version)) = (task["id"].as_str(), task["version"].as_u64()) else {
            return Err(format!("a confirmation without id and version: {task}"));
        };
        if act.id().is_some_and(|asked| asked != id) {
            return Err(format!("{act:?} was confirmed of {id}"));
        }
        let holder = task["claimedBy"].as_str();
        let (wanted, held) = match act {
            Act::Next | Act::Claim(_) => ("claimed", holder == Some(&self.names[worker])),
            Act::Complete(_) => ("done", true),
            Act::Create | Act::Unclaim(_) | Act::Reopen(_) => ("open", holder.is_none()),
        };
        if task["status"] != wanted || !held {
            return Err(format!("{act:?} was confirmed, and the task is {task}"));
        }
        if wanted == "claimed" {
            self.held[worker].insert(id.into());
        } else {
            self.held[worker].remove(id);
        }
        self.heard_of(id);
        self.confirmed(worker, act, id, version)
    }

    fn heard_of(&mut self, id: &str) {
        if !self.tasks.contains_key(id) {
            self.ids.push(id.into());
            self.tasks.insert(id.into(), Known::default());
        }
    }

    /// The version up to which the history of a task was found right.
    pub(super) fn judged(&self, id: &str) -> u64 {
        self.tasks.get(id).map_or(0, |known| known.judged)
    }

    /// Compares a task and its history with what is known.
    pub(super) fn judge(&mut self, task: &TaskEntry, history: &[TaskStep]) -> Result<(), String> {
        let id = task.id.to_string();
        let steps = u64::try_from(history.len()).unwrap_or(0);
        if steps != task.version.min(WHOLE_HISTORY) {
            return Err(format!("{id} has version {}, and its history has {steps} steps", task.version));
        }
        let (mut status, mut holder) = (None, None);
        // A history that was cut begins with any step.
        let first = task.version - steps + 1;
        for (version, step) in (first..).zip(history) {
            let wrong = || format!("version {version} of {id}: {step:?} after {status:?}, held by {holder:?}");
            let worker = self.names.iter().position(|name| *name == step.by).ok_or_else(wrong)?;
            let (allowed, next) = match step.what.as_str() {
                "created" => (status.is_none(), TaskStatus::Open),
                "claimed" => (status == Some(TaskStatus::Open), TaskStatus::Claimed),
                "unclaimed" => (status == Some(TaskStatus::Claimed), TaskStatus::Open),
                "completed" => (matches!(status, Some(TaskStatus::Open | TaskStatus::Claimed)), TaskStatus::Done),
                "reopened" => (status == Some(TaskStatus::Done), TaskStatus::Open),
                _ => (false, TaskStatus::Open),
            };
            if !allowed && (version != first || first == 1) {
                return Err(wrong());
            }
            status = Some(next);
            match step.what.as_str() {
                // What is done is held by the one who completed it.
                "claimed" | "completed" => holder = Some(worker),
                "unclaimed" | "reopened" => holder = None,
                _ => {}
            }
            self.explained(&id, version, worker, &step.what)?;
        }
        let known = self.tasks.get(&id).and_then(|known| known.steps.last_key_value());
        if let Some((version, step)) = known.filter(|(version, _)| **version > task.version) {
            return Err(format!(
                "version {version} of {id} was confirmed ({step:?}), and it has version {}",
                task.version
            ));
        }
        let held = holder.map(|worker| self.names[worker].as_str());
        if status != Some(task.status) || (first == 1 && held != task.claimed_by.as_deref()) {
            return Err(format!("the history of {id} ends with {status:?}, held by {held:?}, and it is {task:?}"));
        }
        self.texts(task)?;
        self.heard_of(&id);
        if let Some(known) = self.tasks.get_mut(&id) {
            known.judged = task.version;
        }
        self.no_more_than_asked()
    }

    /// A step of a history is a confirmed one, or one that was cut off.
    fn explained(&mut self, id: &str, version: u64, worker: usize, what: &str) -> Result<(), String> {
        if let Some(step) = self.tasks.get(id).and_then(|known| known.steps.get(&version)) {
            if (step.worker, step.what) == (worker, what) {
                return Ok(());
            }
            return Err(format!("version {version} of {id} was confirmed as {step:?} and is {what} by {worker}"));
        }
        let mut cut_off = self.asked.of(worker).iter().filter(|(_, fate)| *fate == Fate::Unknown);
        let cause = cut_off.find(|(act, _)| act.step() == what && act.id().is_none_or(|asked| asked == id));
        let cause =
            cause.ok_or_else(|| format!("version {version} of {id}: no one asked worker {worker} to be {what}"))?;
        let step = Step { worker, what: cause.0.step() };
        self.unconfirmed.insert((id.into(), version), step);
        Ok(())
    }

    /// There are no more unconfirmed steps than requests that were cut off.
    fn no_more_than_asked(&self) -> Result<(), String> {
        for (worker, name) in self.names.iter().enumerate() {
            for what in ["created", "claimed", "unclaimed", "completed", "reopened"] {
                let cut_off =
                    self.asked.of(worker).iter().filter(|(act, fate)| *fate == Fate::Unknown && act.step() == what);
                let (cut_off, wanted) = (cut_off.count(), Step { worker, what });
                let done = self.unconfirmed.values().filter(|step| **step == wanted).count();
                if done > cut_off {
                    return Err(format!(
                        "{name}: {done} times {what} without a confirmation, and {cut_off} were cut off"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Title and result are of the requests that made them, each of them once.
    fn texts(&mut self, task: &TaskEntry) -> Result<(), String> {
        let id = task.id.to_string();
        for (text, step) in [(Some(&task.title), "created"), (task.result.as_ref(), "completed")] {
            let Some(text) = text else { continue };
            let (act, fate) = self.asked.marked(text)?;
            if act.step() != step || *fate == Fate::Refused || act.id().is_some_and(|asked| asked != id) {
                return Err(format!("{text} ({act:?}, {fate:?}) is in {id}"));
            }
            match self.marks.insert(text.clone(), id.clone()) {
                Some(other) if other != id => return Err(format!("{text} is in {other} and in {id}")),
                _ => {}
            }
        }
        if (task.status == TaskStatus::Done) != task.result.is_some() {
            return Err(format!("{id} is {:?} with the result {:?}", task.status, task.result));
        }
        Ok(())
    }

    /// Every task that is known is there, and none that was deleted.
    pub(super) fn all_there(&self, listed: &BTreeMap<String, TaskEntry>) -> Result<(), String> {
        if let Some(id) = self.deleted.iter().find(|id| listed.contains_key(*id)) {
            return Err(format!("{id} was deleted and is there"));
        }
        match self.tasks.keys().find(|id| !self.deleted.contains(*id) && !listed.contains_key(*id)) {
            Some(id) => Err(format!("{id} is gone")),
            None => Ok(()),
        }
    }

    /// A task was deleted at rest.
    pub(super) fn deleted(&mut self, id: &str, version: u64) {
        self.deleted.insert(id.into());
        self.deleted_changes += version + 1;
        self.ids.retain(|known| known != id);
        for held in &mut self.held {
            held.remove(id);
        }
        self.fresh.push(Mark::new("task_deleted", [json!(id), json!(version)]));
    }

    /// Changes of all tasks, as they were found.
    pub(super) fn changes(&self) -> u64 {
        let live = self.tasks.iter().filter(|(id, _)| !self.deleted.contains(*id));
        self.deleted_changes + live.map(|(_, known)| known.judged).sum::<u64>()
    }

    pub(super) fn take_confirmed(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.fresh)
    }

    pub(super) fn won(&self) -> u64 {
        self.won
    }
}

impl Book for Log {
    const NAME: &'static str = "tasks";

    fn ask(&mut self, worker: usize, random: &mut StdRng) -> Option<(usize, Value)> {
        let act = self.choose(worker, random);
        let number = self.asked.begin(worker, act.clone());
        Some((number, self.frame(worker, number, &act)))
    }

    fn answered(&mut self, worker: usize, number: usize, answer: &Value) -> Result<(), String> {
        if answer["type"] == "error" {
            let act = self.asked.end(worker, number, Fate::Refused)?;
            if let Some(id) = act.id() {
                self.held[worker].remove(id);
            }
            let code = answer["code"].as_str().unwrap_or_default();
            return if act.may_be(code) { Ok(()) } else { Err(format!("{act:?} was refused: {answer}")) };
        }
        let act = self.asked.end(worker, number, Fate::Confirmed)?;
        match act {
            Act::Create => {
                let task = json!({"id": answer["id"], "version": 1, "status": "open"});
                self.done(worker, &act, &task)
            }
            // Nothing was ready.
            Act::Next if answer["task"].is_null() => Ok(()),
            _ => self.done(worker, &act, &answer["task"]),
        }
    }

    fn cut_off(&mut self) {
        self.asked.cut_off();
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
