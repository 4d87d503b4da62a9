//! `tasks` and the tables around it: what each task is, who did what to it, and what meshes and members have in all.

mod decide;
mod write;

use claudemesh_protocol::features::tasks::limits::MAX_PAGE_BYTES;
use claudemesh_protocol::features::tasks::{TaskPriority, TaskStatus};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

pub use self::decide::{Act, By, Change, Changed, New, Patch, Refused};
pub use self::write::change;
use super::schema::{task_heads, task_members, task_steps, task_tags, tasks};
use crate::db::{DbError, MeshDb};
use crate::with_conn;

/// A task as stored.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = tasks, primary_key(mesh_id, seq), treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct Task {
    /// Mesh.
    pub mesh_id: String,
    /// Its number in the mesh, in the order of creation.
    pub seq: i64,
    /// Its id on the wire.
    pub id: String,
    /// What is to be done.
    pub title: String,
    /// What has to be known.
    pub description: Option<String>,
    /// As it was given.
    pub assignee: Option<String>,
    /// The same in lower case.
    pub assignee_folded: Option<String>,
    /// Place in [`TaskPriority::ALL`].
    pub priority: i32,
    /// See [`Task::status`].
    pub status: i32,
    /// JSON list.
    pub tags: String,
    /// JSON list of ids.
    pub depends_on: String,
    /// How many of these are not done.
    pub blockers: i64,
    /// Member who created it.
    pub creator_member: String,
    /// Key of its session; empty when it was no one's session.
    pub creator_session: String,
    /// Name of its session.
    pub creator_name: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Member who claimed it.
    pub holder_member: Option<String>,
    /// Key of its session; empty when it was no one's session.
    pub holder_session: Option<String>,
    /// Name of its session.
    pub holder_name: Option<String>,
    /// Unix milliseconds.
    pub claimed_at_ms: Option<i64>,
    /// What came of it.
    pub result: Option<String>,
    /// Unix milliseconds.
    pub done_at_ms: Option<i64>,
    /// Unix milliseconds.
    pub due_at_ms: Option<i64>,
    /// Grows by one with each change.
    pub version: i64,
    /// Bytes of its texts.
    pub size_bytes: i64,
}

/// [`TaskStatus::Open`] in storage.
pub const OPEN: i32 = 0;
/// [`TaskStatus::Claimed`] in storage.
pub const CLAIMED: i32 = 1;
/// [`TaskStatus::Done`] in storage.
pub const DONE: i32 = 2;

/// A status in storage.
pub fn status_column(status: TaskStatus) -> i32 {
    match status {
        TaskStatus::Open => OPEN,
        TaskStatus::Claimed => CLAIMED,
        TaskStatus::Done => DONE,
    }
}

/// A priority in storage.
pub fn priority_column(priority: TaskPriority) -> i32 {
    priority as i32
}

impl Task {
    /// How far it is.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn status(&self) -> Result<TaskStatus, DbError> {
        match self.status {
            OPEN => Ok(TaskStatus::Open),
            CLAIMED => Ok(TaskStatus::Claimed),
            DONE => Ok(TaskStatus::Done),
            _ => Err(DbError::corrupt("tasks.status")),
        }
    }

    /// How urgent it is.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn priority(&self) -> Result<TaskPriority, DbError> {
        let at = usize::try_from(self.priority).ok();
        at.and_then(|at| TaskPriority::ALL.get(at)).copied().ok_or_else(|| DbError::corrupt("tasks.priority"))
    }

    /// Its tags.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn tags(&self) -> Result<Vec<String>, DbError> {
        serde_json::from_str(&self.tags).map_err(|_| DbError::corrupt("tasks.tags"))
    }

    /// Ids of the tasks that must be done first.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn depends_on(&self) -> Result<Vec<String>, DbError> {
        serde_json::from_str(&self.depends_on).map_err(|_| DbError::corrupt("tasks.depends_on"))
    }
}

/// What a mesh has in all.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = task_heads, primary_key(mesh_id))]
pub struct Head {
    /// Mesh.
    pub mesh_id: String,
    /// Grows by one with each change.
    pub revision: i64,
    /// Of the task that was created last.
    pub last_seq: i64,
    /// Open tasks.
    pub open: i64,
    /// Claimed tasks.
    pub claimed: i64,
    /// Tasks that are done.
    pub done: i64,
    /// Bytes of all.
    pub bytes: i64,
}

impl Head {
    /// All tasks.
    pub fn tasks(&self) -> i64 {
        self.open + self.claimed + self.done
    }
}

#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = task_members, primary_key(mesh_id, member_id))]
struct Usage {
    mesh_id: String,
    member_id: String,
    tasks: i64,
    bytes: i64,
}

/// An entry of the history of a task.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = task_steps, treat_none_as_default_value = false)]
pub struct Step {
    /// Mesh.
    pub mesh_id: String,
    /// Task.
    pub task_seq: i64,
    /// Of the task after it.
    pub version: i64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Who.
    pub member_id: String,
    /// Name of its session.
    pub name: String,
    /// What.
    pub what: String,
    /// Which fields, whose claim, or the result of before.
    pub detail: Option<String>,
}

/// What [`list`] looks for; nothing set is everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// One status.
    pub status: Option<TaskStatus>,
    /// One assignee, in lower case.
    pub assignee_folded: Option<String>,
    /// One tag.
    pub tag: Option<String>,
    /// Open and not blocked, in the order in which to take them; otherwise newest first.
    pub ready: bool,
    /// Only what comes behind this one.
    pub after: Option<Place>,
}

/// Where a row stands in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its priority; counts in the list of what is ready.
    pub priority: i32,
    /// Its number.
    pub seq: i64,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows.
    pub tasks: Vec<Task>,
    /// There is more behind this.
    pub next: Option<Place>,
}

/// What a mesh has in all.
///
/// # Errors
/// Storage fails.
pub async fn head(db: &MeshDb) -> Result<Head, DbError> {
    let found: Option<Head> = with_conn!(db.db(), |conn| task_heads::table
        .find(db.mesh().as_str())
        .select(Head::as_select())
        .first(conn)
        .await
        .optional()?);
    Ok(found.unwrap_or_default())
}

/// What a member has created: tasks, and bytes of their texts.
///
/// # Errors
/// Storage fails.
pub async fn created_by(db: &MeshDb, member: &str) -> Result<(i64, i64), DbError> {
    let found: Option<Usage> = with_conn!(db.db(), |conn| task_members::table
        .find((db.mesh().as_str(), member))
        .select(Usage::as_select())
        .first(conn)
        .await
        .optional()?);
    let used = found.unwrap_or_default();
    Ok((used.tasks, used.bytes))
}

/// What comes behind every id that begins so.
pub(super) fn end_of_prefix(id: &str) -> String {
    format!("{id}\u{10ffff}")
}

/// The one that an id or its beginning names. `found`: the first two that begin so.
fn one(mut found: Vec<Task>, id: &str) -> Result<Task, Refused> {
    match found.len() {
        0 => Err(Refused::Missing),
        1 => Ok(found.remove(0)),
        _ if found[0].id == id => Ok(found.remove(0)),
        _ => Err(Refused::Ambiguous),
    }
}

/// One task by its id or its beginning, with its history, oldest first.
///
/// # Errors
/// Storage fails.
pub async fn get(db: &MeshDb, id: &str) -> Result<Result<(Task, Vec<Step>), Refused>, DbError> {
    let found: Vec<Task> = with_conn!(db.db(), |conn| tasks::table
        .filter(tasks::mesh_id.eq(db.mesh().as_str()))
        .filter(tasks::id.ge(id))
        .filter(tasks::id.lt(end_of_prefix(id)))
        .order(tasks::id)
        .limit(2)
        .select(Task::as_select())
        .load(conn)
        .await?);
    let task = match one(found, id) {
        Ok(task) => task,
        Err(refused) => return Ok(Err(refused)),
    };
    let steps = with_conn!(db.db(), |conn| task_steps::table
        .filter(task_steps::mesh_id.eq(db.mesh().as_str()))
        .filter(task_steps::task_seq.eq(task.seq))
        .order(task_steps::version)
        .select(Step::as_select())
        .load(conn)
        .await?);
    Ok(Ok((task, steps)))
}

/// Tasks, a page at a time: at most `limit`, of at most [`MAX_PAGE_BYTES`] together but at least one.
///
/// # Errors
/// Storage fails.
pub async fn list(db: &MeshDb, filter: &Filter, limit: u32) -> Result<Page, DbError> {
    let mut found: Vec<(i64, i32, i64)> = with_conn!(db.db(), |conn| {
        let mut rows = tasks::table
            .filter(tasks::mesh_id.eq(db.mesh().as_str()))
            .select((tasks::seq, tasks::priority, tasks::size_bytes))
            .limit(i64::from(limit) + 1)
            .into_boxed();
        if let Some(status) = filter.status {
            rows = rows.filter(tasks::status.eq(status_column(status)));
        }
        if let Some(assignee) = &filter.assignee_folded {
            rows = rows.filter(tasks::assignee_folded.eq(assignee));
        }
        if let Some(tag) = &filter.tag {
            let tagged = task_tags::table
                .filter(task_tags::mesh_id.eq(db.mesh().as_str()))
                .filter(task_tags::tag.eq(tag))
                .select(task_tags::task_seq);
            rows = rows.filter(tasks::seq.eq_any(tagged));
        }
        if filter.ready {
            rows = rows.filter(tasks::status.eq(OPEN)).filter(tasks::blockers.eq(0));
            rows = rows.order((tasks::priority.desc(), tasks::seq.asc()));
            if let Some(after) = filter.after {
                let behind = tasks::priority.eq(after.priority).and(tasks::seq.gt(after.seq));
                rows = rows.filter(tasks::priority.lt(after.priority).or(behind));
            }
        } else {
            rows = rows.order(tasks::seq.desc());
            if let Some(after) = filter.after {
                rows = rows.filter(tasks::seq.lt(after.seq));
            }
        }
        rows.load(conn).await?
    });
    let shown = fitting(found.iter().map(|(_, _, size)| *size), limit as usize);
    let more = shown < found.len();
    found.truncate(shown);
    let next = found.last().filter(|_| more).map(|&(seq, priority, _)| Place { priority, seq });
    let seqs: Vec<i64> = found.iter().map(|(seq, ..)| *seq).collect();
    let mut tasks: Vec<Task> = with_conn!(db.db(), |conn| tasks::table
        .filter(tasks::mesh_id.eq(db.mesh().as_str()))
        .filter(tasks::seq.eq_any(&seqs))
        .select(Task::as_select())
        .load(conn)
        .await?);
    // Those that were deleted in between are not there any more.
    let place = |seq: i64| seqs.iter().position(|one| *one == seq);
    tasks.sort_by_key(|task| place(task.seq));
    Ok(Page { tasks, next })
}

/// How many of the rows go on a page.
fn fitting(sizes: impl IntoIterator<Item = i64>, limit: usize) -> usize {
    let mut bytes = 0_usize;
    let fits = |(at, size): &(usize, i64)| {
        bytes = bytes.saturating_add(usize::try_from(*size).unwrap_or(0));
        *at == 0 || (*at < limit && bytes <= MAX_PAGE_BYTES)
    };
    sizes.into_iter().enumerate().take_while(fits).count()
}

/// The first of the ready tasks for one of these assignees (in lower case), or else for no one.
///
/// # Errors
/// Storage fails.
pub async fn next(db: &MeshDb, names: &[String]) -> Result<Option<Task>, DbError> {
    let mut best: Option<Task> = None;
    for name in names {
        let found: Option<Task> = with_conn!(db.db(), |conn| write::ready!(db.mesh())
            .filter(tasks::assignee_folded.eq(name))
            .first(conn)
            .await
            .optional()?);
        best = decide::sooner(best, found);
    }
    if best.is_some() {
        return Ok(best);
    }
    Ok(with_conn!(db.db(), |conn| write::ready!(db.mesh())
        .filter(tasks::assignee_folded.is_null())
        .first(conn)
        .await
        .optional()?))
}

/// Open tasks for one of these assignees (in lower case), the most urgent first, and how many there are in all; with `since_ms`
/// (Unix milliseconds) only those that were changed after it.
///
/// # Errors
/// Storage fails.
pub async fn waiting(
    db: &MeshDb,
    names: &[String],
    since_ms: Option<i64>,
    limit: u32,
) -> Result<(Vec<Task>, i64), DbError> {
    // A macro, because it is asked for twice and the two connections have no type in common.
    macro_rules! meant {
        () => {
            tasks::table
                .filter(tasks::mesh_id.eq(db.mesh().as_str()))
                .filter(tasks::status.eq(OPEN))
                .filter(tasks::assignee_folded.eq_any(names))
                .filter(exists(
                    task_steps::table
                        .filter(task_steps::mesh_id.eq(db.mesh().as_str()))
                        .filter(task_steps::task_seq.eq(tasks::seq))
                        .filter(task_steps::at_ms.ge(since_ms.unwrap_or(i64::MIN))),
                ))
        };
    }
    let count: i64 = with_conn!(db.db(), |conn| meant!().count().get_result(conn).await?);
    if count == 0 {
        return Ok((vec![], 0));
    }
    let found = with_conn!(db.db(), |conn| meant!()
        .order((tasks::priority.desc(), tasks::seq))
        .select(Task::as_select())
        .limit(i64::from(limit))
        .load(conn)
        .await?);
    Ok((found, count))
}

#[cfg(test)]
#[path = "../store_tests.rs"]
mod tests;
