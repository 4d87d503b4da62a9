//! Tasks.
//!
//! The promise: a confirmed change of a task is there once after a kill, under the version that the confirmation named; the history
//! holds every step, and each one follows from the one before, so that no task is won by two; what a task is now is what its last step
//! made of it.

mod log;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use claudemesh_protocol::features::tasks::{TaskEntry, TaskList, TaskResult, TaskStatus};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::json;

use self::log::Log;
use super::asked::Team;
use super::audit::{Audited, Mark};
use super::cast::{Asking, Cast, Quiet};
use super::{Ground, Subject};
use crate::identity::Session;

const WORKERS: usize = 4;
/// Requests of one worker that wait for their answer.
const WINDOW: usize = 3;
/// Requests of one worker in a round.
const REQUESTS: u32 = 24;
/// Tasks that are done and stay; older ones are deleted between rounds, so many at a time.
const KEPT: usize = 20;
const DELETED: usize = 3;
/// Changes that a task has when no history is left out of it.
const WHOLE_HISTORY: u64 = claudemesh_protocol::features::tasks::limits::MAX_HISTORY as u64;

/// The subject.
pub(super) struct Tasks {
    team: Team<Log>,
    owner: Session,
    /// Versions of all tasks together, those of deleted ones included.
    changes: u64,
}

impl Tasks {
    pub(super) fn new(ground: &Ground) -> Result<Self> {
        let mut log = Log::new(WORKERS);
        let prefix = "task-worker";
        log.names = (0..WORKERS).map(|worker| format!("{prefix}-{worker}")).collect();
        let team = Team::new(ground, prefix, WORKERS, log)?;
        ensure!(team.names() == team.book.borrow().names, "the workers are called {:?}", team.names());
        Ok(Self { team, owner: ground.mesh.creator.session("task-owner"), changes: 0 })
    }

    async fn at_rest(&mut self, quiet: &Quiet) -> Result<()> {
        let mut asking = quiet.connect(&self.owner.hello(json!({}))).await?;
        let listed = everything(&mut asking).await?;
        for task in listed.values() {
            let known = self.team.book.borrow().judged(task.id.as_str());
            ensure!(known <= task.version, "{} had version {known} and has {}", task.id, task.version);
            if known == task.version {
                continue;
            }
            let frame = json!({"type": "get_task", "taskId": task.id});
            let found: TaskResult = serde_json::from_value(asking.call(frame, "task_result").await?)?;
            let shown = found.task.context("a task that is listed can be read")?;
            ensure!(shown.version == task.version, "{} is listed and shown with different versions", task.id);
            self.team.book.borrow_mut().judge(&shown, &found.history).map_err(anyhow::Error::msg)?;
        }
        self.team.book.borrow().all_there(&listed).map_err(anyhow::Error::msg)?;
        self.count_ready(&mut asking, &listed).await?;
        self.delete_old(&mut asking, &listed).await?;
        self.changes = self.team.book.borrow().changes();
        Ok(())
    }

    /// The list of what is ready is that of the open ones.
    async fn count_ready(&self, asking: &mut Asking, listed: &BTreeMap<String, TaskEntry>) -> Result<()> {
        let open = listed.values().filter(|task| task.status == TaskStatus::Open).count();
        let frame = json!({"type": "list_tasks", "ready": true});
        let ready: TaskList = serde_json::from_value(asking.call(frame, "task_list").await?)?;
        ensure!(ready.next.is_some() || ready.tasks.len() == open, "{} are ready, {open} are open", ready.tasks.len());
        Ok(())
    }

    /// Deletes the oldest of those that are done: a task that is deleted does not come back.
    async fn delete_old(&self, asking: &mut Asking, listed: &BTreeMap<String, TaskEntry>) -> Result<()> {
        let is_old = |task: &&TaskEntry| task.status == TaskStatus::Done || task.version >= WHOLE_HISTORY / 2;
        let mut old: Vec<&TaskEntry> = listed.values().filter(is_old).collect();
        old.sort_by(|one, other| one.created_at.cmp(&other.created_at));
        for task in old.iter().rev().skip(KEPT).take(DELETED) {
            asking.call(json!({"type": "delete_task", "taskId": task.id, "confirm": true}), "done").await?;
            self.team.book.borrow_mut().deleted(task.id.as_str(), task.version);
        }
        Ok(())
    }
}

/// All tasks by id.
async fn everything(asking: &mut Asking) -> Result<BTreeMap<String, TaskEntry>> {
    let (mut rows, mut cursor) = (BTreeMap::new(), None::<String>);
    loop {
        let frame = json!({"type": "list_tasks", "cursor": cursor});
        let list: TaskList = serde_json::from_value(asking.call(frame, "task_list").await?)?;
        for row in list.tasks {
            let id = row.id.to_string();
            ensure!(rows.insert(id.clone(), row).is_none(), "{id} is in the list twice");
        }
        cursor = list.next;
        if cursor.is_none() {
            return Ok(rows);
        }
    }
}

impl Subject for Tasks {
    fn name(&self) -> &'static str {
        "tasks"
    }

    fn load(&mut self, cast: &mut Cast) {
        self.team.add(cast, REQUESTS, WINDOW);
    }

    fn settle(&mut self, cast: &mut Cast) {
        self.team.add(cast, 1, 1);
    }

    fn settled(&self) -> bool {
        self.team.book.borrow().asked.open() == 0
    }

    fn missing(&self) -> String {
        format!("{} requests without an answer", self.team.book.borrow().asked.open())
    }

    fn check<'a>(&'a mut self, quiet: &'a Quiet) -> LocalBoxFuture<'a, Result<()>> {
        self.at_rest(quiet).boxed_local()
    }

    fn audited(&self) -> &'static [Audited] {
        &[
            Audited { event: "task_created", fields: &["task", "version"] },
            Audited { event: "task_claimed", fields: &["task", "version"] },
            Audited { event: "task_taken_over", fields: &["task", "version"] },
            Audited { event: "task_unclaimed", fields: &["task", "version"] },
            Audited { event: "task_completed", fields: &["task", "version"] },
            Audited { event: "task_reopened", fields: &["task", "version"] },
            Audited { event: "task_updated", fields: &["task", "version"] },
            Audited { event: "task_deleted", fields: &["task", "version"] },
        ]
    }

    fn confirmed(&mut self) -> Vec<Mark> {
        self.team.book.borrow_mut().take_confirmed()
    }

    fn changes(&self) -> Option<u64> {
        Some(self.changes)
    }

    fn summary(&self) -> String {
        let log = self.team.book.borrow();
        format!("{}; {} steps in whole histories, {} claims won", log.asked.summary(), self.changes, log.won())
    }
}
