//! Tasks: work that one peer describes and another one takes. They stay in storage.
//!
//! Requests of one socket share a lane: they are done in their order. Sockets run beside each other, and the transaction decides
//! who wins a task.

mod check;
pub mod http;
pub mod limits;
mod parties;
mod returning;
pub mod schema;
pub mod store;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::{MeshInfoResult, TaskCounts};
use claudemesh_protocol::features::tasks::limits as wire;
use claudemesh_protocol::features::tasks::{
    ClaimTask, CompleteTask, CreateTask, DeleteTask, GetTask, ListTasks, NextTask, ReopenTask, Request, TaskChanged,
    TaskCreated, TaskList, TaskResult, TaskStep, UnclaimTask, UpdateTask,
};
use claudemesh_protocol::id::{MemberId, TaskId};
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::time::iso;
use serde_json::json;

use self::parties::{Late, asker, entry, is_stale, names_of};
use self::store::{Act, CLAIMED, Change, Changed, Filter, Place, Refused, Task};
use crate::db::{DbError, MeshDb};
use crate::journal::WriteError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::quota::{Quota, Quotas};
use crate::refusal::{Refusal, invalid};

/// How often a claim is tried again when the task was changed between the look and the claim.
const MAX_TAKEOVERS: u8 = 3;

/// What a mesh in memory knows of its tasks: what is still to be told, and no task.
#[derive(Default)]
pub struct TasksMemory {
    late: Late,
    /// How many are open.
    open: i64,
}

/// The feature.
pub struct Tasks;

impl Feature for Tasks {
    const NAME: &'static str = "tasks";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = TasksMemory;

    async fn load(storage: &MeshDb) -> Result<TasksMemory, DbError> {
        Ok(TasksMemory { open: store::head(storage).await?.open, ..TasksMemory::default() })
    }

    fn handle(_: &mut TasksMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::CreateTask(request) => Self::answer::<CreateTask>(create(cx, request)),
            Request::GetTask(request) => Self::answer::<GetTask>(get(cx, &request.task_id)),
            Request::ClaimTask(request) => {
                Self::answer::<ClaimTask>(changed(cx, Act::Claim(check::id(&request.task_id)?, None)))
            }
            Request::UnclaimTask(request) => {
                Self::answer::<UnclaimTask>(changed(cx, Act::Unclaim(check::id(&request.task_id)?)))
            }
            Request::CompleteTask(request) => Self::answer::<CompleteTask>(complete(cx, request)),
            Request::ReopenTask(request) => {
                Self::answer::<ReopenTask>(changed(cx, Act::Reopen(check::id(&request.task_id)?)))
            }
            Request::UpdateTask(request) => Self::answer::<UpdateTask>(update(cx, request)),
            Request::DeleteTask(request) => {
                Self::answer::<DeleteTask>(changed(cx, Act::Delete(check::id(&request.task_id)?)))
            }
            Request::ListTasks(request) => Self::answer::<ListTasks>(list(cx, request)),
            Request::NextTask(request) => Self::answer::<NextTask>(next(cx, &request)),
        }
    }

    fn on_event(memory: &mut TasksMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        if let MeshEvent::Attached { peer, known, .. } = event
            && memory.open > 0
        {
            returning::tell(cx, *peer, known.as_deref());
        }
    }

    fn on_wake(memory: &mut TasksMemory, cx: &mut MeshContext<'_>, _: &str) {
        memory.late.tell(cx);
    }

    async fn describe_stored(
        storage: &MeshDb,
        member: &MemberId,
        quotas: &Quotas,
        info: &mut MeshInfoResult,
    ) -> Result<(), DbError> {
        let (mesh, own) = (store::head(storage).await?, store::created_by(storage, member.as_str()).await?);
        let count = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
        info.tasks = TaskCounts { open: count(mesh.open), claimed: count(mesh.claimed), done: count(mesh.done) };
        let used = |number: i64| number.max(0).unsigned_abs();
        info.limits.extend([
            quotas.bound(&limits::PER_MESH, used(mesh.tasks())),
            quotas.bound(&limits::PER_MEMBER, used(own.0)),
            quotas.bound(&limits::BYTES_PER_MESH, used(mesh.bytes)),
            quotas.bound(&limits::BYTES_PER_MEMBER, used(own.1)),
        ]);
        Ok(())
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let with_task = |code, message: &str, task: &Task| {
            let current = json!({
                "taskId": task.id, "status": task.status().ok(), "claimedBy": task.holder_name, "result": task.result,
                "blocked": task.blocked(), "version": task.version,
            });
            Self { current: Some(Box::new(current)), ..Self::new(code, message) }
        };
        match refused {
            Refused::Missing => Self::new(ErrorCode::TaskNotFound, "task not found in this mesh"),
            Refused::Ambiguous => Self::new(ErrorCode::AmbiguousPrefix, "several tasks begin so; give more of the id"),
            Refused::NoDependency(id) => {
                Self::new(ErrorCode::TaskNotFound, format!("`depends_on`: there is no task `{id}`"))
            }
            Refused::NotClaimable(task) => {
                with_task(ErrorCode::TaskNotClaimable, "task is not open or does not exist", &task)
            }
            Refused::Conflict(message, task) => with_task(ErrorCode::Conflict, message, &task),
            Refused::Circle => Self::new(
                ErrorCode::Conflict,
                "`depends_on`: the tasks would wait for each other, or in too long a chain",
            ),
            Refused::Foreign(message) => Self::new(ErrorCode::Forbidden, message),
            Refused::Limit(bound) => bound.into(),
        }
    }
}

/// Counts a write, and makes the change.
fn counted(cx: &mut MeshContext<'_>, act: Act) -> Result<Change, Refusal> {
    let by = asker(cx)?;
    let member = cx.asker()?.member.clone();
    cx.count_write(&limits::WRITES_PER_MINUTE, Some(&member))?;
    Ok(Change { act, by, now_ms: cx.now_ms(), quotas: cx.limits().quotas.clone() })
}

/// Does a change, tells those that it concerns, and goes on with `then`. A claim takes over one that is stale.
fn change<A: claudemesh_protocol::call::ServerBody + 'static>(
    cx: &mut MeshContext<'_>,
    change: Change,
    takeovers: u8,
    then: impl FnOnce(&mut MeshContext<'_>, Changed) -> Result<Outcome<A>, Refusal> + Send + 'static,
) -> Result<Outcome<A>, Refusal> {
    let (storage, lane) = (cx.storage(), cx.own_lane::<Tasks>());
    let slow = async move {
        let done = store::change(&storage, change.clone()).await;
        // A refusal has to come back to the mesh: only it knows whose session is gone.
        match done {
            Err(WriteError::Db(error)) => Err(error),
            Err(WriteError::Refused(refused)) => Ok((change, Err(refused))),
            Ok(changed) => Ok((change, Ok(changed))),
        }
    };
    Ok(Tasks::work_in(lane, slow, move |memory, cx, (change, done)| match done {
        Ok(changed) => {
            memory.open = changed.head.open;
            memory.late.changed(cx, &changed, &change.by);
            then(cx, changed)
        }
        Err(Refused::NotClaimable(task))
            if takeovers < MAX_TAKEOVERS && task.status == CLAIMED && is_stale(cx, &task) =>
        {
            match &change.act {
                Act::Claim(id, _) => {
                    let act = Act::Claim(id.clone(), Some(task.version));
                    self::change(cx, Change { act, ..change }, takeovers + 1, then)
                }
                _ => Err(Refused::NotClaimable(task).into()),
            }
        }
        Err(refused) => Err(refused.into()),
    }))
}

/// A change that is confirmed, or answered with the list of all tasks, as clients of before expect.
fn changed(cx: &mut MeshContext<'_>, act: Act) -> Result<Outcome<TaskChanged>, Refusal> {
    let (confirm, reply_to) = (cx.wants_confirmation(), cx.reply_to());
    let asked = counted(cx, act)?;
    change(cx, asked, 0, move |cx, changed| {
        let Some(task) = changed.task.as_ref().or(changed.before.as_ref()) else { return Err(Refused::Missing.into()) };
        if confirm {
            let now = changed.task.as_ref().map(|task| entry(cx, task)).transpose()?;
            return Ok(Outcome::Answer(TaskChanged { task_id: TaskId::from(task.id.as_str()), task: now }));
        }
        let (storage, lane) = (cx.storage(), cx.own_lane::<Tasks>());
        let slow = async move { store::list(&storage, &Filter::default(), wire::MAX_PAGE).await };
        Ok(Tasks::work_in(lane, slow, move |_, cx, page| {
            let list = page_of(cx, &page, false)?;
            if let Some(to) = &reply_to {
                cx.reply(to, &ServerMessage::from(list));
            }
            Ok(Outcome::Silent)
        }))
    })
}

fn create(cx: &mut MeshContext<'_>, request: CreateTask) -> Result<Outcome<TaskCreated>, Refusal> {
    let new = check::new(request)?;
    let asked = counted(cx, Act::Create(Box::new(new)))?;
    change(cx, asked, 0, |_, changed| {
        let task = changed.task.ok_or(Refused::Missing)?;
        Ok(Outcome::Answer(TaskCreated { id: task.id.into() }))
    })
}

fn complete(cx: &mut MeshContext<'_>, request: CompleteTask) -> Result<Outcome<TaskChanged>, Refusal> {
    let id = check::id(&request.task_id)?;
    check::result(request.result.as_deref())?;
    changed(cx, Act::Complete(id, request.result))
}

fn update(cx: &mut MeshContext<'_>, request: UpdateTask) -> Result<Outcome<TaskChanged>, Refusal> {
    let id = check::id(&request.task_id)?;
    let patch = check::patch(request)?;
    changed(cx, Act::Update(id, Box::new(patch)))
}

fn get(cx: &mut MeshContext<'_>, id: &TaskId) -> Result<Outcome<TaskResult>, Refusal> {
    let (storage, id) = (cx.storage(), check::id(id)?);
    let slow = async move { store::get(&storage, &id).await };
    Ok(Tasks::work_in(cx.own_lane::<Tasks>(), slow, |_, cx, found| {
        let (task, steps) = found?;
        let step = |step: store::Step| TaskStep {
            at: iso(step.at_ms),
            by: step.name,
            what: step.what,
            detail: step.detail.map(|detail| check::beginning(&detail)),
        };
        let task = Some(entry(cx, &task)?);
        Ok(Outcome::Answer(TaskResult { task, history: steps.into_iter().map(step).collect() }))
    }))
}

fn list(cx: &mut MeshContext<'_>, request: ListTasks) -> Result<Outcome<TaskList>, Refusal> {
    if request.ready && request.status.is_some() {
        return Err(invalid("`ready`: expected no `status` beside it; what is ready is open"));
    }
    let bad_cursor = || invalid("`cursor`: expected `next` of the page before");
    let after = request.cursor.as_deref().map(|cursor| parse_place(cursor).ok_or_else(bad_cursor)).transpose()?;
    let limit = request.limit.unwrap_or(wire::MAX_PAGE).clamp(1, wire::MAX_PAGE);
    let ready = request.ready;
    let filter = Filter {
        status: request.status,
        assignee_folded: request
            .assignee
            .map(|name| check::text("assignee", &name).map(|()| name.to_lowercase()))
            .transpose()?,
        tag: request.tag.map(|tag| check::text("tag", &tag).map(|()| tag)).transpose()?,
        ready,
        after,
    };
    let storage = cx.storage();
    let slow = async move { store::list(&storage, &filter, limit).await };
    Ok(Tasks::work_in(cx.own_lane::<Tasks>(), slow, move |_, cx, page| Ok(Outcome::Answer(page_of(cx, &page, ready)?))))
}

fn page_of(cx: &MeshContext<'_>, page: &store::Page, ready: bool) -> Result<TaskList, Refusal> {
    let tasks = page.tasks.iter().map(|task| entry(cx, task)).collect::<Result<_, Refusal>>()?;
    let next = |place: Place| if ready { format!("{}.{}", place.priority, place.seq) } else { place.seq.to_string() };
    Ok(TaskList { tasks, next: page.next.map(next) })
}

/// What [`page_of`] wrote.
fn parse_place(cursor: &str) -> Option<Place> {
    let (priority, seq) = cursor.split_once('.').unwrap_or(("0", cursor));
    Some(Place { priority: priority.parse().ok()?, seq: seq.parse().ok()? })
}

fn next(cx: &mut MeshContext<'_>, request: &NextTask) -> Result<Outcome<TaskResult>, Refusal> {
    let names = names_of(cx.roster(), cx.asker()?, cx.member()?);
    if request.claim {
        let asked = counted(cx, Act::ClaimNext(names))?;
        return change(cx, asked, 0, |cx, changed| {
            let task = changed.task.as_ref().map(|task| entry(cx, task)).transpose()?;
            Ok(Outcome::Answer(TaskResult { task, history: vec![] }))
        });
    }
    let storage = cx.storage();
    let slow = async move { store::next(&storage, &names).await };
    Ok(Tasks::work_in(cx.own_lane::<Tasks>(), slow, |_, cx, found| {
        let task = found.as_ref().map(|task| entry(cx, task)).transpose()?;
        Ok(Outcome::Answer(TaskResult { task, history: vec![] }))
    }))
}
