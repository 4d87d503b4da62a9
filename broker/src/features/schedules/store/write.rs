//! What members change, and what goes with them.

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::features::schedules::{Misfire, ScheduleClock, ScheduleState};
use claudemesh_protocol::id::{MemberId, ScheduleId};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

use super::super::cron::BadCron;
use super::super::limits::{BYTES_PER_MEMBER, BYTES_PER_MESH, PER_MEMBER, PER_MESH, RECURRING_PER_MEMBER};
use super::super::schema::{schedule_totals, schedules};
use super::fire::over;
use super::{Row, Total, Weight, put_total, total};
use crate::audit::{Audit, By};
use crate::db::{Db, DbError};
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;
use crate::{tx_write, with_tx};

/// Entries that are over stay so long, in milliseconds: 7 days, as messages do.
const KEPT_MS: i64 = 7 * 86_400_000;
/// Rows that one transaction of the upkeep removes.
const CHUNK: i64 = 500;

/// What of an entry is to be changed; `None`: as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edit {
    /// Targets as JSON.
    pub targets: Option<String>,
    /// Nonce, body, whether it is sealed.
    pub body: Option<(String, String, bool)>,
    /// A time, or an expression.
    pub when: Option<When>,
    /// Time zone.
    pub zone: Option<String>,
    /// Plan for missed times.
    pub misfire: Option<Misfire>,
    /// Clock.
    pub clock: Option<ScheduleClock>,
    /// Only when it has this version.
    pub expected_version: Option<i64>,
}

/// When an entry comes.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// Once: Unix milliseconds.
    At(i64),
    /// Again and again.
    Cron(String),
}

/// What is done to an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new.
    Create(Box<Row>),
    /// Ends it.
    Cancel(String),
    /// Lets it wait.
    Pause(String),
    /// Lets it go on.
    Resume(String),
    /// Changes it.
    Edit(String, Box<Edit>),
}

impl Change {
    fn id(&self) -> Option<&str> {
        match self {
            Self::Create(_) => None,
            Self::Cancel(id) | Self::Pause(id) | Self::Resume(id) | Self::Edit(id, _) => Some(id),
        }
    }

    fn event(&self) -> &'static str {
        match self {
            Self::Create(_) => "schedule_created",
            Self::Cancel(_) => "schedule_cancelled",
            Self::Pause(_) => "schedule_paused",
            Self::Resume(_) => "schedule_resumed",
            Self::Edit(..) => "schedule_edited",
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Create(row) => row.body.len(),
            Self::Edit(_, edit) => edit.body.as_ref().map_or(0, |(_, body, _)| body.len()),
            Self::Cancel(_) | Self::Pause(_) | Self::Resume(_) => 0,
        }
    }
}

/// Who changes an entry, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The member.
    pub member: MemberId,
    /// Whether entries of others may be cancelled and paused.
    pub manages: bool,
    /// Unix milliseconds, of the wall clock.
    pub now_ms: i64,
    /// What the mesh's clock shows, in Unix milliseconds. `None`: the mesh has no clock.
    pub sim_ms: Option<i64>,
    /// What may be kept.
    pub quotas: Quotas,
}

impl Asked {
    /// The time of the clock that an entry follows. A clock that is not there yet will start at the present time.
    fn now_of(&self, row: &Row) -> i64 {
        match row.clock() {
            ScheduleClock::Wall => self.now_ms,
            ScheduleClock::Mesh => self.sim_ms.unwrap_or(self.now_ms),
        }
    }
}

/// Why nothing is changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// There is none, or not for this member.
    Missing,
    /// Several begin so.
    Ambiguous,
    /// Another version.
    Version(Box<Row>),
    /// It is over.
    Over(Box<Row>),
    /// Only its own member may do this.
    Foreign,
    /// Other targets for a text that is sealed for the old ones.
    Sealed,
    /// It never comes again.
    Cron(BadCron),
    /// A bound is hit.
    Limit(Bound),
}

/// The entry as the change leaves it, or why the change is refused. `None`: nothing changes.
fn decided(change: &Change, asked: &Asked, old: Option<&Row>) -> Result<Option<Row>, Refused> {
    let Some(old) = old else {
        return match change {
            Change::Create(new) => Ok(Some((**new).clone())),
            _ => Err(Refused::Missing),
        };
    };
    let mut row = old.clone();
    row.version += 1;
    row.changed_at_ms = asked.now_ms;
    match change {
        Change::Create(_) => return Err(Refused::Missing),
        Change::Cancel(_) if old.state() == ScheduleState::Cancelled => return Ok(None),
        Change::Cancel(_) if !old.state().is_live() => return Err(Refused::Over(Box::new(row))),
        Change::Cancel(_) => over(&mut row, ScheduleState::Cancelled, asked.now_ms),
        _ if !old.state().is_live() => return Err(Refused::Over(Box::new(row))),
        Change::Pause(_) if old.state() == ScheduleState::Paused => return Ok(None),
        Change::Pause(_) => {
            row.state = ScheduleState::Paused.as_str().into();
            row.due_ms = None;
        }
        Change::Resume(_) if old.state() == ScheduleState::Active => return Ok(None),
        Change::Resume(_) => {
            row.state = ScheduleState::Active.as_str().into();
            arm(&mut row, asked)?;
        }
        Change::Edit(_, edit) => edited(&mut row, edit, asked)?,
    }
    row.size_bytes = row.size();
    Ok(Some(row))
}

/// The next time of an entry that was new, paused or changed.
fn arm(row: &mut Row, asked: &Asked) -> Result<(), Refused> {
    if let Some(cron) = row.cron().map_err(Refused::Cron)? {
        let never = || Refused::Cron(BadCron("it does not come before the year 2100".into()));
        row.at_ms = cron.next(asked.now_of(row)).ok_or_else(never)?;
    }
    row.due_ms = (row.state() == ScheduleState::Active).then_some(row.at_ms);
    Ok(())
}

fn edited(row: &mut Row, edit: &Edit, asked: &Asked) -> Result<(), Refused> {
    if edit.expected_version.is_some_and(|version| version != row.version - 1) {
        row.version -= 1;
        return Err(Refused::Version(Box::new(row.clone())));
    }
    if let Some(targets) = &edit.targets {
        if row.sealed && edit.body.is_none() && *targets != row.targets {
            return Err(Refused::Sealed);
        }
        row.targets.clone_from(targets);
    }
    if let Some((nonce, body, sealed)) = &edit.body {
        (row.nonce, row.body, row.sealed) = (nonce.clone(), body.clone(), *sealed);
    }
    if let Some(zone) = &edit.zone {
        row.zone.clone_from(zone);
    }
    if let Some(misfire) = edit.misfire {
        row.misfire = misfire.as_str().into();
    }
    if let Some(clock) = edit.clock {
        row.clock = clock.as_str().into();
    }
    match &edit.when {
        None => {}
        Some(When::At(at_ms)) => (row.cron, row.at_ms) = (None, *at_ms),
        Some(When::Cron(cron)) => row.cron = Some(cron.clone()),
    }
    // A time that is not changed stays: it may be due at this moment.
    if edit.when.is_some() || edit.zone.is_some() || edit.clock.is_some() {
        arm(row, asked)?;
    }
    Ok(())
}

/// Who it is for is no secret within the audit log; what it says is.
fn audited(change: &Change, row: &Row) -> Value {
    let mut payload = json!({"scheduleId": row.id, "to": row.targets(), "at": row.at_ms});
    if let Some(cron) = &row.cron {
        payload["cron"] = json!(cron);
    }
    if !matches!(change, Change::Create(_)) {
        payload["of"] = json!(row.member_id);
    }
    payload
}

/// Does a change; returns the entry as it is then.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn change(store: &MeshStore, change: Change, asked: Asked) -> Result<Row, WriteError<Refused>> {
    let rows = 2 + change.bytes() / 4_096;
    tx_write!(store, rows: rows, (change, asked), |conn, mesh| {
        let refused = WriteError::Refused;
        let old = match change.id() {
            None => None,
            Some(id) => {
                let mut found: Vec<Row> = schedules::table
                    .filter(schedules::mesh_id.eq(mesh.as_str()))
                    .filter(schedules::id.ge(id))
                    .filter(schedules::id.lt(format!("{id}\u{10ffff}")))
                    .order(schedules::id)
                    .limit(64)
                    .select(Row::as_select())
                    .load(conn)
                    .await?;
                let whole = found.iter().any(|row| row.id == id);
                found.retain(|row| row.id == id || !whole);
                // What belongs to others is not there for those who may not change it.
                found.retain(|row| row.member_id == asked.member.as_str() || asked.manages);
                match found.len() {
                    0 => return Err(refused(Refused::Missing)),
                    1 => found.pop(),
                    _ => return Err(refused(Refused::Ambiguous)),
                }
            }
        };
        let own = old.as_ref().is_none_or(|old| old.member_id == asked.member.as_str());
        if !own && !matches!(change, Change::Cancel(_) | Change::Pause(_)) {
            return Err(refused(Refused::Foreign));
        }
        let Some(mut row) = decided(change, asked, old.as_ref()).map_err(refused)? else {
            return Ok((old.unwrap_or_default(), Audit::Unaudited("nothing was changed")));
        };
        if old.is_none() {
            row.mesh_id = mesh.to_string();
            row.size_bytes = row.size();
            arm(&mut row, asked).map_err(refused)?;
        }
        let before = old.as_ref().map_or_else(Weight::default, Row::weight);
        let quotas = &asked.quotas;
        let over = |bound| refused(Refused::Limit(bound));
        for member in [row.member_id.as_str(), ""] {
            let used = total!(conn, mesh, member);
            let wanted = used.plus(before, -1).plus(row.weight(), 1);
            if member.is_empty() {
                quotas.growth(&PER_MESH, used.entries, wanted.entries).map_err(over)?;
                quotas.growth(&BYTES_PER_MESH, used.bytes, wanted.bytes).map_err(over)?;
            } else {
                quotas.growth(&PER_MEMBER, used.entries, wanted.entries).map_err(over)?;
                quotas.growth(&RECURRING_PER_MEMBER, used.recurring, wanted.recurring).map_err(over)?;
                quotas.growth(&BYTES_PER_MEMBER, used.bytes, wanted.bytes).map_err(over)?;
            }
            if used != wanted {
                put_total!(conn, mesh, member, wanted);
            }
        }
        if old.is_some() {
            diesel::update(schedules::table.find((mesh.as_str(), &row.id))).set(&row).execute(conn).await?;
        } else {
            diesel::insert_into(schedules::table).values(&row).execute(conn).await?;
        }
        let audit = By::member(&asked.member, asked.now_ms).entry(change.event(), audited(change, &row));
        Ok((row, audit))
    })
}

/// Ends all entries of a member that left or was banned; returns how many.
///
/// # Errors
/// Storage fails.
pub async fn end_all(store: &MeshStore, member: &MemberId, now_ms: i64) -> Result<usize, DbError> {
    let member = member.clone();
    let written: Result<usize, WriteError> = tx_write!(store, rows: 4, (member, now_ms), |conn, mesh| {
        let states = [ScheduleState::Active.as_str(), ScheduleState::Paused.as_str()];
        let rows = schedules::table
            .filter(schedules::mesh_id.eq(mesh.as_str()))
            .filter(schedules::member_id.eq(member.as_str()))
            .filter(schedules::state.eq_any(states));
        let ended = diesel::update(rows)
            .set((
                schedules::state.eq(ScheduleState::Cancelled.as_str()),
                schedules::due_ms.eq(None::<i64>),
                schedules::changed_at_ms.eq(now_ms),
                schedules::nonce.eq(""),
                schedules::body.eq(""),
            ))
            .execute(conn)
            .await?;
        if ended > 0 {
            let rest = total!(conn, mesh, "").plus(total!(conn, mesh, member.as_str()), -1);
            put_total!(conn, mesh, "", rest);
            put_total!(conn, mesh, member.as_str(), Weight::default());
        }
        let payload = json!({"of": member, "entries": ended});
        Ok((ended, Audit::when(ended > 0, || By::nobody(*now_ms).entry("schedules_ended", payload))))
    });
    Ok(written?)
}

/// Removes entries that have been over for [`KEPT_MS`], in all meshes; returns how many.
///
/// # Errors
/// Storage fails.
pub async fn purge(db: &Db, now_ms: i64) -> Result<usize, DbError> {
    let oldest = now_ms - KEPT_MS;
    let mut total = 0;
    for state in ScheduleState::ALL.into_iter().filter(|state| !state.is_live()) {
        loop {
            // Unaudited: upkeep, by rules that are no secret.
            let count = with_tx!(db, |conn| {
                let old: Vec<(String, String)> = schedules::table
                    .filter(schedules::state.eq(state.as_str()))
                    .filter(schedules::changed_at_ms.lt(oldest))
                    .select((schedules::mesh_id, schedules::id))
                    .limit(CHUNK)
                    .load(conn)
                    .await?;
                for (mesh, id) in &old {
                    diesel::delete(schedules::table.find((mesh, id))).execute(conn).await?;
                }
                old.len()
            });
            total += count;
            if count < usize::try_from(CHUNK).unwrap_or(usize::MAX) {
                break;
            }
        }
    }
    Ok(total)
}

/// A new id.
pub fn new_id() -> ScheduleId {
    uuid::Uuid::new_v4().to_string().into()
}
