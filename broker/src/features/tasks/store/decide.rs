//! What a change makes of a task: pure rules on the row as it is in the transaction.

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::features::tasks::TaskPriority;
use claudemesh_protocol::id::{MemberId, TaskId};
use serde_json::json;

use super::{CLAIMED, DONE, Head, OPEN, Task, priority_column};
use crate::audit::Audit;
use crate::quota::Quotas;

/// Who changes a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct By {
    /// Member.
    pub member: String,
    /// Key of its session; empty when it is no one's session: a verb at a shell.
    pub key: String,
    /// Name of its session.
    pub name: String,
    /// May change what belongs to others.
    pub manages: bool,
}

/// A task to create.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct New {
    /// Id.
    pub id: String,
    /// Title.
    pub title: String,
    /// Description.
    pub description: Option<String>,
    /// Assignee.
    pub assignee: Option<String>,
    /// Priority.
    pub priority: TaskPriority,
    /// Tags.
    pub tags: Vec<String>,
    /// Ids or beginnings of ids.
    pub depends_on: Vec<String>,
    /// Unix milliseconds.
    pub due_at_ms: Option<i64>,
}

/// What of a task is changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    /// Title.
    pub title: Option<String>,
    /// Description.
    pub description: Option<Option<String>>,
    /// Assignee.
    pub assignee: Option<Option<String>>,
    /// Priority.
    pub priority: Option<TaskPriority>,
    /// Tags.
    pub tags: Option<Vec<String>>,
    /// Ids or beginnings of ids.
    pub depends_on: Option<Vec<String>>,
    /// Unix milliseconds.
    pub due_at_ms: Option<Option<i64>>,
    /// Only if the task has this version.
    pub expected_version: Option<i64>,
}

/// What is done to a task. `String`: its id, or the beginning of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Makes it.
    Create(Box<New>),
    /// Takes it; also a claim that is stale, if the task still has the version at which that was seen.
    Claim(String, Option<i64>),
    /// Takes the first ready one for these assignees (in lower case), or else for no one.
    ClaimNext(Vec<String>),
    /// Gives it back.
    Unclaim(String),
    /// Finishes it with a result.
    Complete(String, Option<String>),
    /// Opens it again.
    Reopen(String),
    /// Changes it.
    Update(String, Box<Patch>),
    /// Removes it.
    Delete(String),
}

/// One change of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What.
    pub act: Act,
    /// Who.
    pub by: By,
    /// Unix milliseconds.
    pub now_ms: i64,
    /// What may be kept.
    pub quotas: Quotas,
}

/// What came of a change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changed {
    /// As in the history, or `deleted`; empty when there was nothing to change.
    pub what: &'static str,
    /// The task before.
    pub before: Option<Task>,
    /// The task now. `None`: it was deleted, or no task is ready.
    pub task: Option<Task>,
    /// What the mesh has in all now.
    pub head: Head,
}

/// Why a change changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// There is no such task.
    Missing,
    /// Several ids begin so.
    Ambiguous,
    /// A dependency does not exist.
    NoDependency(String),
    /// It is claimed by someone else, done, or blocked.
    NotClaimable(Box<Task>),
    /// It is not what the change is for.
    Conflict(&'static str, Box<Task>),
    /// Tasks would wait for each other in a circle, or in a chain that is too long.
    Circle,
    /// It is not the caller's.
    Foreign(&'static str),
    /// A bound is hit.
    Limit(Bound),
}

/// A step of a change: the task after it, and what the history says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decision {
    pub after: Option<Task>,
    pub what: &'static str,
    pub detail: Option<String>,
}

impl Decision {
    /// The task is as it should be already.
    fn unchanged(task: &Task) -> Self {
        Self { after: Some(task.clone()), what: "", detail: None }
    }

    fn to(what: &'static str, after: Task) -> Self {
        Self { after: Some(after), what, detail: None }
    }
}

impl Act {
    /// The id that it names.
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::Create(_) | Self::ClaimNext(_) => None,
            Self::Claim(id, _)
            | Self::Unclaim(id)
            | Self::Complete(id, _)
            | Self::Reopen(id)
            | Self::Update(id, _)
            | Self::Delete(id) => Some(id),
        }
    }

    /// The dependencies that the task has after it; `None`: those of before.
    pub(super) fn depends_on(&self) -> Option<&[String]> {
        match self {
            Self::Create(new) => Some(&new.depends_on),
            Self::Update(_, patch) => patch.depends_on.as_deref(),
            _ => None,
        }
    }

    /// Bytes of what it brings.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Create(new) => new.title.len() + new.description.as_ref().map_or(0, String::len),
            Self::Update(_, patch) => patch.description.iter().flatten().map(String::len).sum(),
            Self::Complete(_, result) => result.as_ref().map_or(0, String::len),
            _ => 0,
        }
    }
}

fn holds(task: &Task, by: &By) -> bool {
    task.holder_member.as_deref() == Some(&by.member)
}

/// Its creator, its holder, and who manages what belongs to others.
fn own(task: &Task, by: &By) -> bool {
    task.creator_member == by.member || holds(task, by) || by.manages
}

fn owned(task: &Task, by: &By, needed: &'static str) -> Result<(), Refused> {
    if own(task, by) { Ok(()) } else { Err(Refused::Foreign(needed)) }
}

fn json_list(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

/// The more urgent of two tasks; of equal ones the older.
pub(super) fn sooner(one: Option<Task>, other: Option<Task>) -> Option<Task> {
    one.into_iter().chain(other).min_by_key(|task| (std::cmp::Reverse(task.priority), task.seq))
}

/// The task after a change, its dependencies left aside. `old` is there for every change but a creation.
pub(super) fn decided(change: &Change, mesh: &str, seq: i64, old: Option<&Task>) -> Result<Decision, Refused> {
    let by = &change.by;
    let Some(old) = old else {
        let Act::Create(new) = &change.act else { return Err(Refused::Missing) };
        return Ok(Decision::to("created", created(new, by, mesh, seq, change.now_ms)));
    };
    let open = Task {
        status: OPEN,
        holder_member: None,
        holder_session: None,
        holder_name: None,
        claimed_at_ms: None,
        ..old.clone()
    };
    let conflict = |message| Err(Refused::Conflict(message, Box::new(old.clone())));
    match &change.act {
        Act::Create(_) => Err(Refused::Missing),
        Act::Claim(_, stale_at) => claimed(old, by, change.now_ms, *stale_at),
        Act::ClaimNext(_) => claimed(old, by, change.now_ms, None),
        Act::Unclaim(_) if old.status != CLAIMED => conflict("the task is not claimed"),
        Act::Unclaim(_) => {
            owned(old, by, "only who claimed or created the task gives it back")?;
            Ok(Decision { detail: old.holder_name.clone(), ..Decision::to("unclaimed", open) })
        }
        Act::Complete(_, result) if old.status == DONE => {
            // The one who completed it may ask again, because the answer was lost; to others it would be a false success.
            if holds(old, by) && (result.is_none() || *result == old.result) {
                return Ok(Decision::unchanged(old));
            }
            conflict("the task is done already; reopen it to give another result")
        }
        Act::Complete(..) if old.blocked() => conflict("the task waits for others that are not done"),
        Act::Complete(..) if old.status == CLAIMED && !own(old, by) => {
            Err(Refused::Foreign("only who claimed or created the task completes it"))
        }
        Act::Complete(_, result) => {
            // A task that is done is held by the one who completed it: the result is that one's.
            let done = Task {
                status: DONE,
                holder_member: Some(by.member.clone()),
                holder_session: Some(by.key.clone()),
                holder_name: Some(by.name.clone()),
                result: result.clone(),
                done_at_ms: Some(change.now_ms),
                ..old.clone()
            };
            Ok(Decision::to("completed", done))
        }
        Act::Reopen(_) if old.status != DONE => conflict("the task is not done"),
        Act::Reopen(_) => {
            owned(old, by, "only who claimed or created the task reopens it")?;
            let again = Task { result: None, done_at_ms: None, ..open };
            Ok(Decision { detail: old.result.clone(), ..Decision::to("reopened", again) })
        }
        Act::Update(_, patch) => {
            owned(old, by, "only who claimed or created the task changes it")?;
            if patch.expected_version.is_some_and(|expected| expected != old.version) {
                return conflict("the task was changed meanwhile");
            }
            Ok(updated(old, patch))
        }
        Act::Delete(_) => {
            if old.creator_member != by.member && !by.manages {
                return Err(Refused::Foreign("only who created the task deletes it"));
            }
            Ok(Decision { after: None, what: "deleted", detail: None })
        }
    }
}

impl Task {
    /// Some of its dependencies are not done.
    pub fn blocked(&self) -> bool {
        self.blockers > 0
    }
}

fn created(new: &New, by: &By, mesh: &str, seq: i64, now_ms: i64) -> Task {
    Task {
        mesh_id: mesh.into(),
        seq,
        id: new.id.clone(),
        title: new.title.clone(),
        description: new.description.clone(),
        assignee_folded: new.assignee.as_ref().map(|name| name.to_lowercase()),
        assignee: new.assignee.clone(),
        priority: priority_column(new.priority),
        tags: json_list(&new.tags),
        depends_on: json_list(&[]),
        creator_member: by.member.clone(),
        creator_session: by.key.clone(),
        creator_name: by.name.clone(),
        created_at_ms: now_ms,
        due_at_ms: new.due_at_ms,
        ..Task::default()
    }
}

fn claimed(old: &Task, by: &By, now_ms: i64, stale_at: Option<i64>) -> Result<Decision, Refused> {
    let same = holds(old, by) && !by.key.is_empty() && old.holder_session.as_deref() == Some(&by.key);
    if old.status == CLAIMED && same {
        return Ok(Decision::unchanged(old));
    }
    let stale = old.status == CLAIMED && stale_at == Some(old.version);
    if old.blocked() || !(old.status == OPEN || stale) {
        return Err(Refused::NotClaimable(Box::new(old.clone())));
    }
    let after = Task {
        status: CLAIMED,
        holder_member: Some(by.member.clone()),
        holder_session: Some(by.key.clone()),
        holder_name: Some(by.name.clone()),
        claimed_at_ms: Some(now_ms),
        ..old.clone()
    };
    let (what, detail) = if stale { ("taken_over", old.holder_name.clone()) } else { ("claimed", None) };
    Ok(Decision { detail, ..Decision::to(what, after) })
}

/// What of a task differs after a patch, its dependencies left aside.
fn updated(old: &Task, patch: &Patch) -> Decision {
    let mut new = old.clone();
    if let Some(title) = &patch.title {
        new.title.clone_from(title);
    }
    if let Some(description) = &patch.description {
        new.description.clone_from(description);
    }
    if let Some(assignee) = &patch.assignee {
        new.assignee_folded = assignee.as_ref().map(|name| name.to_lowercase());
        new.assignee.clone_from(assignee);
    }
    if let Some(priority) = patch.priority {
        new.priority = priority_column(priority);
    }
    if let Some(tags) = &patch.tags {
        new.tags = json_list(tags);
    }
    if let Some(due_at_ms) = patch.due_at_ms {
        new.due_at_ms = due_at_ms;
    }
    let fields = [
        ("title", new.title != old.title),
        ("description", new.description != old.description),
        ("assignee", new.assignee != old.assignee),
        ("priority", new.priority != old.priority),
        ("tags", new.tags != old.tags),
        ("dueAt", new.due_at_ms != old.due_at_ms),
        ("dependsOn", patch.depends_on.is_some()),
    ];
    let changed: Vec<&str> = fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    if changed.is_empty() {
        return Decision::unchanged(old);
    }
    Decision { after: Some(new), what: "updated", detail: Some(changed.join(", ")) }
}

/// Bytes of the texts of a task.
pub(super) fn size_of(task: &Task) -> i64 {
    let texts = [&task.title, &task.tags, &task.depends_on];
    let more = [&task.description, &task.assignee, &task.result];
    let bytes: usize =
        texts.into_iter().map(String::len).chain(more.into_iter().flatten().map(String::len)).sum::<usize>();
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Takes a task out of the totals of a mesh (`sign` -1), or puts it into them (1).
pub(super) fn counted(head: &mut Head, task: Option<&Task>, sign: i64) {
    let Some(task) = task else { return };
    let count = match task.status {
        OPEN => &mut head.open,
        CLAIMED => &mut head.claimed,
        _ => &mut head.done,
    };
    *count += sign;
    head.bytes += sign * task.size_bytes;
}

/// Its entry in the audit log: no text of a task but its id.
pub(super) fn audited(change: &Change, decision: &Decision, task: &Task) -> Audit {
    let event = match decision.what {
        "created" => "task_created",
        "claimed" => "task_claimed",
        "taken_over" => "task_taken_over",
        "unclaimed" => "task_unclaimed",
        "completed" => "task_completed",
        "reopened" => "task_reopened",
        "deleted" => "task_deleted",
        _ => "task_updated",
    };
    let mut payload = json!({"task": TaskId::from(task.id.as_str()), "version": task.version});
    if let ("updated", Some(fields)) = (decision.what, &decision.detail) {
        payload["fields"] = json!(fields);
    }
    Audit::entry(event, Some(&MemberId::from(change.by.member.as_str())), payload, change.now_ms)
}
