//! Schedules: messages that are sent later, once or again and again. They stay in storage; memory has the next page of what is due.

mod check;
pub mod cron;
mod firing;
pub mod limits;
mod plan;
pub mod schema;
mod sending;
pub mod store;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::schedules::limits as wire;
use claudemesh_protocol::features::schedules::{
    CancelScheduled, CancelScheduledAck, EditScheduled, ListScheduled, PauseScheduled, Request, ResumeScheduled,
    Schedule, ScheduleClock, ScheduleState, ScheduledAck, ScheduledEntry, ScheduledList, ScheduledResult,
};
use claudemesh_protocol::id::{MemberId, MeshId, ScheduleId};
use serde_json::json;

pub use self::firing::SchedulesMemory;
use self::store::{Asked, Change, Filter, Refused, Row};
use crate::db::{Db, DbError, MeshDb};
use crate::journal::WriteError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::Roster;
use crate::quota::{Quota, Quotas};
use crate::refusal::{Refusal, invalid};

/// Meshes that sleep and are woken by one look.
const MAX_WOKEN: i64 = 1_000;

/// The feature.
pub struct Schedules;

impl Feature for Schedules {
    const NAME: &'static str = "schedules";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = SchedulesMemory;

    fn started(memory: &mut SchedulesMemory, cx: &mut MeshContext<'_>) {
        memory.begin(cx);
    }

    fn handle(memory: &mut SchedulesMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::Schedule(request) => Self::answer::<Schedule>(create(memory, cx, request)),
            Request::ListScheduled(request) => Self::answer::<ListScheduled>(list(cx, request)),
            Request::CancelScheduled(request) => Self::answer::<CancelScheduled>(cancel(memory, cx, request)),
            Request::PauseScheduled(request) => {
                let change = Change::Pause(found(&request.scheduled_id)?);
                Self::answer::<PauseScheduled>(changed(memory, cx, change))
            }
            Request::ResumeScheduled(request) => {
                let change = Change::Resume(found(&request.scheduled_id)?);
                Self::answer::<ResumeScheduled>(changed(memory, cx, change))
            }
            Request::EditScheduled(request) => {
                let id = found(&request.scheduled_id)?;
                let edit = check::edit(cx, request)?;
                Self::answer::<EditScheduled>(changed(memory, cx, Change::Edit(id, Box::new(edit))))
            }
        }
    }

    fn on_event(memory: &mut SchedulesMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        match event {
            // The wall clock may have been set, or the machine slept.
            MeshEvent::Tick => memory.turn(cx, ScheduleClock::Wall),
            MeshEvent::SimulatedTime { sim_ms } => memory.simulated(cx, *sim_ms),
            MeshEvent::MemberGone { member } => firing::end_all(cx, member),
            _ => {}
        }
    }

    fn on_wake(memory: &mut SchedulesMemory, cx: &mut MeshContext<'_>, key: &str) {
        memory.woken(cx, key);
    }

    fn is_settled(memory: &SchedulesMemory, cx: &MeshContext<'_>) -> bool {
        memory.is_settled(cx)
    }

    async fn describe_stored(
        storage: &MeshDb,
        member: &MemberId,
        quotas: &Quotas,
        info: &mut MeshInfoResult,
    ) -> Result<(), DbError> {
        let (mesh, own) = (store::used(storage, None).await?, store::used(storage, Some(member)).await?);
        let used = |number: i64| number.max(0).unsigned_abs();
        info.schedules = u32::try_from(used(mesh.entries)).unwrap_or(u32::MAX);
        info.limits.extend([
            quotas.bound(&limits::PER_MESH, used(mesh.entries)),
            quotas.bound(&limits::PER_MEMBER, used(own.entries)),
            quotas.bound(&limits::RECURRING_PER_MEMBER, used(own.recurring)),
            quotas.bound(&limits::BYTES_PER_MESH, used(mesh.bytes)),
            quotas.bound(&limits::BYTES_PER_MEMBER, used(own.bytes)),
        ]);
        Ok(())
    }

    async fn due(db: &Db, until_ms: i64) -> Result<Vec<MeshId>, DbError> {
        store::meshes_due(db, until_ms, MAX_WOKEN).await
    }

    async fn upkeep(db: &Db, now_ms: i64) -> Result<usize, DbError> {
        store::purge(db, now_ms).await
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let with_row = |code, message: String, row: &Row| {
            let current = json!({"scheduledId": row.id, "state": row.state, "version": row.version});
            Self { current: Some(Box::new(current)), ..Self::new(code, message) }
        };
        match refused {
            Refused::Missing => Self::new(ErrorCode::NotFound, "there is no such schedule entry of yours in this mesh"),
            Refused::Ambiguous => {
                Self::new(ErrorCode::AmbiguousPrefix, "several entries begin so; give more of the id")
            }
            Refused::Version(row) => with_row(ErrorCode::Conflict, "the entry has another version".into(), &row),
            Refused::Over(row) => {
                with_row(ErrorCode::Conflict, format!("the entry is over: it is {}", row.state), &row)
            }
            Refused::Foreign => Self::new(ErrorCode::Forbidden, "only the member whose entry it is may do this"),
            Refused::Sealed => {
                invalid("`to`: the text is sealed for the earlier recipient; give it again with the new one")
            }
            Refused::Cron(bad) => Self::new(ErrorCode::InvalidCron, format!("Invalid cron expression: {bad}")),
            Refused::Limit(bound) => bound.into(),
        }
    }
}

fn found(id: &ScheduleId) -> Result<String, Refusal> {
    check::id(id).ok_or_else(|| Refused::Missing.into())
}

/// Who asks; counts as a change.
fn asked(memory: &SchedulesMemory, cx: &mut MeshContext<'_>) -> Result<Asked, Refusal> {
    let member = cx.asker()?.member.clone();
    cx.count_write(&limits::CHANGES_PER_MINUTE, Some(&member))?;
    Ok(Asked {
        member,
        manages: cx.may(Capability::CanModerate)?,
        now_ms: cx.now_ms(),
        sim_ms: memory.sim_ms(),
        quotas: cx.limits().quotas.clone(),
    })
}

fn create(
    memory: &SchedulesMemory,
    cx: &mut MeshContext<'_>,
    request: Schedule,
) -> Result<Outcome<ScheduledAck>, Refusal> {
    let row = check::new(cx, request)?;
    let (asked, turns) = (asked(memory, cx)?, memory.turns());
    let (storage, base) = (cx.storage(), base_of(&row, &asked));
    let slow = async move {
        let row = store::change(&storage, Change::Create(Box::new(row)), asked).await?;
        let next_times = upcoming(&row, base);
        Ok::<_, WriteError<Refused>>((row, next_times))
    };
    Ok(Schedules::work_in(cx.own_lane::<Schedules>(), slow, move |memory, cx, (row, next_times)| {
        memory.changed(cx, &row, turns);
        let ack = ScheduledAck { scheduled_id: row.id.into(), deliver_at: row.at_ms, cron: row.cron, next_times };
        Ok(Outcome::Answer(ack))
    }))
}

/// The time after which the next ones are looked for.
fn base_of(row: &Row, asked: &Asked) -> i64 {
    match row.clock() {
        ScheduleClock::Wall => asked.now_ms,
        ScheduleClock::Mesh => asked.sim_ms.unwrap_or(asked.now_ms),
    }
}

/// The next times of a recurring entry.
fn upcoming(row: &Row, base_ms: i64) -> Vec<i64> {
    let cron = row.cron().ok().flatten();
    match (cron, row.due_ms) {
        (Some(cron), Some(due_ms)) => {
            let behind = cron.upcoming(due_ms.max(base_ms), wire::NEXT_TIMES - 1);
            std::iter::once(due_ms).chain(behind).collect()
        }
        _ => vec![],
    }
}

/// An entry as its list shows it.
fn entry(roster: &Roster, row: Row, base_ms: i64) -> ScheduledEntry {
    let next_times = upcoming(&row, base_ms);
    let by = roster.member(&MemberId::from(row.member_id.as_str()));
    let count = |number: i64| number.max(0).unsigned_abs();
    let plain = STANDARD.decode(&row.body).ok().filter(|_| !row.sealed);
    let sealed = row.sealed && !row.body.is_empty();
    ScheduledEntry {
        to: row.targets(),
        message: plain.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default(),
        deliver_at: row.at_ms,
        created_at: row.created_at_ms,
        fired_count: row.cron.is_some().then(|| count(row.fired_count)),
        tz: row.cron.is_some().then(|| row.zone.clone()),
        next_times,
        state: row.state(),
        misfire: row.misfire(),
        clock: row.clock(),
        by: by.map(|member| member.display_name.clone()).unwrap_or_default(),
        nonce: sealed.then_some(row.nonce),
        ciphertext: sealed.then_some(row.body),
        missed_count: count(row.missed_count),
        last_fired_at: row.last_fired_ms,
        last_error: row.last_error,
        version: count(row.version),
        subtype: row.subtype,
        cron: row.cron,
        id: row.id.into(),
    }
}

fn changed(
    memory: &SchedulesMemory,
    cx: &mut MeshContext<'_>,
    change: Change,
) -> Result<Outcome<ScheduledResult>, Refusal> {
    let (asked, turns) = (asked(memory, cx)?, memory.turns());
    let storage = cx.storage();
    let slow = async move {
        let row = store::change(&storage, change, asked.clone()).await?;
        let base = base_of(&row, &asked);
        Ok::<_, WriteError<Refused>>((row, base))
    };
    Ok(Schedules::work_in(cx.own_lane::<Schedules>(), slow, move |memory, cx, (row, base)| {
        memory.changed(cx, &row, turns);
        Ok(Outcome::Answer(ScheduledResult { entry: entry(cx.roster(), row, base) }))
    }))
}

/// Answers `ok:false` for what is not there, as clients of before expect.
fn cancel(
    memory: &SchedulesMemory,
    cx: &mut MeshContext<'_>,
    request: CancelScheduled,
) -> Result<Outcome<CancelScheduledAck>, Refusal> {
    let nothing = CancelScheduledAck { scheduled_id: request.scheduled_id.clone(), ok: false };
    let Some(id) = check::id(&request.scheduled_id) else { return Ok(Outcome::Answer(nothing)) };
    let (asked, turns) = (asked(memory, cx)?, memory.turns());
    let storage = cx.storage();
    let slow = async move {
        match store::change(&storage, Change::Cancel(id), asked).await {
            Ok(row) => Ok(Some(row)),
            Err(WriteError::Refused(Refused::Missing | Refused::Over(_))) => Ok(None),
            Err(error) => Err(error),
        }
    };
    Ok(Schedules::work_in(cx.own_lane::<Schedules>(), slow, move |memory, cx, row| {
        let Some(row) = row else { return Ok(Outcome::Answer(nothing)) };
        memory.changed(cx, &row, turns);
        Ok(Outcome::Answer(CancelScheduledAck { scheduled_id: row.id.into(), ok: true }))
    }))
}

fn list(cx: &MeshContext<'_>, request: ListScheduled) -> Result<Outcome<ScheduledList>, Refusal> {
    if request.everyone && !cx.may(Capability::CanModerate)? {
        return Err(Refusal::new(ErrorCode::Forbidden, "`everyone`: needs the capability canModerate"));
    }
    let bad_cursor = || invalid("`cursor`: expected `next` of the page before");
    let filter = Filter {
        member: (!request.everyone).then(|| cx.asker().map(|asker| asker.member.clone())).transpose()?,
        ended: request.ended,
        after: request.cursor.as_deref().map(|cursor| parse_place(cursor).ok_or_else(bad_cursor)).transpose()?,
    };
    let limit = request.limit.unwrap_or(wire::MAX_PAGE).clamp(1, wire::MAX_PAGE);
    let (storage, now_ms) = (cx.storage(), cx.now_ms());
    let slow = async move { store::list(&storage, &filter, limit).await };
    Ok(Schedules::work_in(cx.own_lane::<Schedules>(), slow, move |memory, cx, page| {
        let base = |row: &Row| match row.clock() {
            ScheduleClock::Wall => now_ms,
            ScheduleClock::Mesh => memory.sim_ms().unwrap_or(now_ms),
        };
        let rows = page.rows.into_iter().map(|row| {
            let base = base(&row);
            entry(cx.roster(), row, base)
        });
        let messages = rows.collect();
        Ok(Outcome::Answer(ScheduledList { messages, next: page.next.map(|(at_ms, id)| format!("{at_ms}.{id}")) }))
    }))
}

/// What [`list`] wrote.
fn parse_place(cursor: &str) -> Option<store::Place> {
    let (at_ms, id) = cursor.split_once('.')?;
    Some((at_ms.parse().ok()?, check::id(&id.into())?))
}

/// Whether an entry may be sent now.
fn is_active(row: &Row) -> bool {
    row.state() == ScheduleState::Active
}
