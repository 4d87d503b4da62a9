//! The transaction of a change: the task, its tags, dependencies and history, what waits for it, and the totals.

use std::collections::{BTreeMap, BTreeSet};

use claudemesh_protocol::features::tasks::limits::{MAX_DEPENDENCIES, MAX_HISTORY};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::limits::{BYTES_PER_MEMBER, BYTES_PER_MESH, PER_MEMBER, PER_MESH};
use super::super::schema::{task_dependencies, task_heads, task_members, task_steps, task_tags, tasks};
use super::decide::{Act, Change, Changed, Refused, audited, counted, decided, size_of, sooner};
use super::{DONE, Head, Step, Task, Usage, end_of_prefix, one};
use crate::audit::Audit;
use crate::journal::{MeshStore, WriteError};
use crate::tx_write;

/// Tasks that are looked at for a circle. A chain that is longer is refused.
const MAX_WALK: usize = 2_000;

/// The ready tasks of a mesh in the order in which to take them. A macro, because the type of the expression has no short name.
macro_rules! ready {
    ($mesh:expr) => {
        tasks::table
            .filter(tasks::mesh_id.eq($mesh.as_str()))
            .filter(tasks::status.eq($crate::features::tasks::store::OPEN))
            .filter(tasks::blockers.eq(0))
            .order((tasks::priority.desc(), tasks::seq.asc()))
            .select(Task::as_select())
    };
}
pub(super) use ready;

/// The first two tasks whose id begins so. For use in a transaction.
macro_rules! beginning {
    ($conn:expr, $mesh:expr, $id:expr) => {{
        let found: Vec<Task> = tasks::table
            .filter(tasks::mesh_id.eq($mesh.as_str()))
            .filter(tasks::id.ge($id))
            .filter(tasks::id.lt(end_of_prefix($id)))
            .order(tasks::id)
            .limit(2)
            .select(Task::as_select())
            .load($conn)
            .await?;
        found
    }};
}

/// What the audit log says of a change that found nothing to change.
const UNCHANGED: &str = "nothing was changed";

/// Does a change. Of several at once each sees what the ones before it have left.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn change(store: &MeshStore, change: Change) -> Result<Changed, WriteError<Refused>> {
    let rows = 3 + change.act.size() / 4_096 + change.act.depends_on().map_or(0, |needed| needed.len() / 8);
    tx_write!(store, rows: rows, (change), |conn, mesh| {
        let refused = WriteError::Refused;
        let head: Option<Head> =
            task_heads::table.find(mesh.as_str()).select(Head::as_select()).first(conn).await.optional()?;
        let mut head = head.unwrap_or_else(|| Head { mesh_id: mesh.to_string(), ..Head::default() });

        // The task as it is.
        let old: Option<Task> = match (&change.act, change.act.id()) {
            (Act::ClaimNext(names), _) => {
                let mut best = None;
                for name in names {
                    let found = ready!(mesh).filter(tasks::assignee_folded.eq(name)).first(conn).await.optional()?;
                    best = sooner(best, found);
                }
                if best.is_none() {
                    best = ready!(mesh).filter(tasks::assignee_folded.is_null()).first(conn).await.optional()?;
                }
                if best.is_none() {
                    return Ok((Changed { head, ..Changed::default() }, Audit::Unaudited(UNCHANGED)));
                }
                best
            }
            (_, Some(id)) => Some(one(beginning!(conn, mesh, id), id).map_err(refused)?),
            (_, None) => None,
        };

        // The task as it is to be.
        let seq = old.as_ref().map_or(head.last_seq + 1, |old| old.seq);
        let mut decision = decided(change, mesh.as_str(), seq, old.as_ref()).map_err(refused)?;
        if decision.what.is_empty() {
            let changed = Changed { what: "", before: old, task: decision.after, head };
            return Ok((changed, Audit::Unaudited(UNCHANGED)));
        }

        // What it waits for.
        let mut needed: Option<BTreeMap<i64, (String, i32)>> = None;
        if let Some(ids) = change.act.depends_on() {
            let mut found = BTreeMap::new();
            for id in ids {
                let task = one(beginning!(conn, mesh, id.as_str()), id);
                let task = task.map_err(|_| refused(Refused::NoDependency(id.clone())))?;
                found.insert(task.seq, (task.id, task.status));
            }
            for need in found.keys() {
                let waiting: i64 = task_dependencies::table
                    .filter(task_dependencies::mesh_id.eq(mesh.as_str()))
                    .filter(task_dependencies::needs_seq.eq(need))
                    .filter(task_dependencies::task_seq.ne(seq))
                    .count()
                    .get_result(conn)
                    .await?;
                if waiting >= i64::try_from(MAX_DEPENDENCIES).unwrap_or(i64::MAX) {
                    return Err(refused(Refused::Circle));
                }
            }
            // A task that is new has no one who waits for it.
            let mut walked: BTreeSet<i64> = BTreeSet::new();
            let mut front: Vec<i64> = if old.is_some() { found.keys().copied().collect() } else { vec![] };
            while !front.is_empty() {
                walked.extend(front.iter().copied());
                if walked.contains(&seq) || walked.len() > MAX_WALK {
                    return Err(refused(Refused::Circle));
                }
                let behind: Vec<i64> = task_dependencies::table
                    .filter(task_dependencies::mesh_id.eq(mesh.as_str()))
                    .filter(task_dependencies::task_seq.eq_any(&front))
                    .select(task_dependencies::needs_seq)
                    .load(conn)
                    .await?;
                front = behind.into_iter().filter(|need| !walked.contains(need)).collect::<BTreeSet<_>>().into_iter().collect();
            }
            needed = Some(found);
        }
        if let (Some(task), Some(needed)) = (&mut decision.after, &needed) {
            let ids: Vec<&str> = needed.values().map(|(id, _)| id.as_str()).collect();
            task.depends_on = serde_json::json!(ids).to_string();
            task.blockers = i64::try_from(needed.values().filter(|(_, status)| *status != DONE).count()).unwrap_or(0);
        }

        // Who waits for it.
        let dependents: Vec<i64> = task_dependencies::table
            .filter(task_dependencies::mesh_id.eq(mesh.as_str()))
            .filter(task_dependencies::needs_seq.eq(seq))
            .select(task_dependencies::task_seq)
            .load(conn)
            .await?;
        let was_done = old.as_ref().is_some_and(|old| old.status == DONE);
        match &decision.after {
            None if !was_done && !dependents.is_empty() => {
                let old = old.unwrap_or_default();
                return Err(refused(Refused::Conflict("other tasks wait for it; change their dependencies first", Box::new(old))));
            }
            None => {
                for dependent in &dependents {
                    let row = tasks::table.find((mesh.as_str(), dependent));
                    let task: Task = row.select(Task::as_select()).first(conn).await?;
                    let mut ids = task.depends_on().map_err(WriteError::Db)?;
                    ids.retain(|id| old.as_ref().is_none_or(|old| *id != old.id));
                    let ids = serde_json::json!(ids).to_string();
                    diesel::update(row).set(tasks::depends_on.eq(ids)).execute(conn).await?;
                }
            }
            Some(task) if (task.status == DONE) != was_done => {
                let more = if was_done { 1 } else { -1 };
                diesel::update(
                    tasks::table.filter(tasks::mesh_id.eq(mesh.as_str())).filter(tasks::seq.eq_any(&dependents)),
                )
                .set(tasks::blockers.eq(tasks::blockers + more))
                .execute(conn)
                .await?;
            }
            Some(_) => {}
        }

        // The totals.
        if let Some(task) = &mut decision.after {
            task.version = old.as_ref().map_or(0, |old| old.version) + 1;
            task.size_bytes = size_of(task);
        }
        let (quotas, used) = (&change.quotas, (head.tasks(), head.bytes));
        counted(&mut head, old.as_ref(), -1);
        counted(&mut head, decision.after.as_ref(), 1);
        let over = |bound| refused(Refused::Limit(bound));
        quotas.growth(&PER_MESH, used.0, head.tasks()).map_err(over)?;
        quotas.growth(&BYTES_PER_MESH, used.1, head.bytes).map_err(over)?;
        let creator = decision.after.as_ref().or(old.as_ref()).map(|task| task.creator_member.clone()).unwrap_or_default();
        let usage: Option<Usage> = task_members::table
            .find((mesh.as_str(), &creator))
            .select(Usage::as_select())
            .first(conn)
            .await
            .optional()?;
        let usage = usage.unwrap_or_else(|| Usage { mesh_id: mesh.to_string(), member_id: creator, tasks: 0, bytes: 0 });
        let size = |task: Option<&Task>| task.map_or((0, 0), |task| (1, task.size_bytes));
        let (before, after) = (size(old.as_ref()), size(decision.after.as_ref()));
        let wanted = (usage.tasks - before.0 + after.0, usage.bytes - before.1 + after.1);
        quotas.growth(&PER_MEMBER, usage.tasks, wanted.0).map_err(over)?;
        quotas.growth(&BYTES_PER_MEMBER, usage.bytes, wanted.1).map_err(over)?;
        let usage = Usage { tasks: wanted.0, bytes: wanted.1, ..usage };
        diesel::insert_into(task_members::table)
            .values(&usage)
            .on_conflict((task_members::mesh_id, task_members::member_id))
            .do_update()
            .set(&usage)
            .execute(conn)
            .await?;
        head.last_seq = head.last_seq.max(seq);
        head.revision += 1;
        diesel::insert_into(task_heads::table)
            .values(&head)
            .on_conflict(task_heads::mesh_id)
            .do_update()
            .set(&head)
            .execute(conn)
            .await?;

        // The task.
        match &decision.after {
            Some(task) => {
                diesel::insert_into(tasks::table)
                    .values(task)
                    .on_conflict((tasks::mesh_id, tasks::seq))
                    .do_update()
                    .set(task)
                    .execute(conn)
                    .await?;
                let step = Step {
                    mesh_id: mesh.to_string(),
                    task_seq: seq,
                    version: task.version,
                    at_ms: change.now_ms,
                    member_id: change.by.member.clone(),
                    name: change.by.name.clone(),
                    what: decision.what.into(),
                    detail: decision.detail.clone(),
                };
                diesel::insert_into(task_steps::table).values(&step).execute(conn).await?;
                let oldest = task.version - i64::try_from(MAX_HISTORY).unwrap_or(i64::MAX);
                diesel::delete(
                    task_steps::table
                        .filter(task_steps::mesh_id.eq(mesh.as_str()))
                        .filter(task_steps::task_seq.eq(seq))
                        .filter(task_steps::version.le(oldest)),
                )
                .execute(conn)
                .await?;
            }
            None => {
                diesel::delete(tasks::table.find((mesh.as_str(), seq))).execute(conn).await?;
                diesel::delete(
                    task_steps::table.filter(task_steps::mesh_id.eq(mesh.as_str())).filter(task_steps::task_seq.eq(seq)),
                )
                .execute(conn)
                .await?;
                diesel::delete(
                    task_dependencies::table
                        .filter(task_dependencies::mesh_id.eq(mesh.as_str()))
                        .filter(task_dependencies::needs_seq.eq(seq)),
                )
                .execute(conn)
                .await?;
            }
        }
        let tags = |task: Option<&Task>| task.map_or_else(|| Ok(vec![]), Task::tags).map_err(WriteError::Db);
        let (tags_before, tags_now) = (tags(old.as_ref())?, tags(decision.after.as_ref())?);
        if tags_before != tags_now {
            diesel::delete(
                task_tags::table.filter(task_tags::mesh_id.eq(mesh.as_str())).filter(task_tags::task_seq.eq(seq)),
            )
            .execute(conn)
            .await?;
            for tag in &tags_now {
                let row = (task_tags::mesh_id.eq(mesh.as_str()), task_tags::tag.eq(tag), task_tags::task_seq.eq(seq));
                diesel::insert_into(task_tags::table).values(row).execute(conn).await?;
            }
        }
        if needed.is_some() || decision.after.is_none() {
            diesel::delete(
                task_dependencies::table
                    .filter(task_dependencies::mesh_id.eq(mesh.as_str()))
                    .filter(task_dependencies::task_seq.eq(seq)),
            )
            .execute(conn)
            .await?;
            for need in needed.iter().flat_map(BTreeMap::keys) {
                let row = (
                    task_dependencies::mesh_id.eq(mesh.as_str()),
                    task_dependencies::task_seq.eq(seq),
                    task_dependencies::needs_seq.eq(need),
                );
                diesel::insert_into(task_dependencies::table).values(row).execute(conn).await?;
            }
        }
        let shown = decision.after.clone().or_else(|| old.clone()).unwrap_or_default();
        let audit = audited(change, &decision, &shown);
        Ok((Changed { what: decision.what, before: old, task: decision.after, head }, audit))
    })
}
