//! `schedules` and `schedule_totals`: what is to be sent when, and how much of it there is.
//!
//! Nothing of it lives in memory but the next page of what is due.

mod fire;
mod write;

use claudemesh_protocol::features::schedules::limits::MAX_PAGE_BYTES;
use claudemesh_protocol::features::schedules::{Misfire, ScheduleClock, ScheduleState};
use claudemesh_protocol::id::{MemberId, MeshId};
use claudemesh_protocol::target::TargetField;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

pub use self::fire::{LeftOut, Sent, advance, due, meshes_due, rearm};
pub use self::write::{Asked, Change, Edit, Refused, When, change, end_all, new_id, purge};
use super::cron::{self, BadCron, Cron};
use super::schema::{schedule_totals, schedules};
use crate::db::{DbError, MeshDb};
use crate::with_conn;

/// An entry as stored.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = schedules, primary_key(mesh_id, id), treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct Row {
    /// Mesh.
    pub mesh_id: String,
    /// UUID.
    pub id: String,
    /// Whose it is.
    pub member_id: String,
    /// A `targetSpec` as JSON.
    pub targets: String,
    /// Of a sealed text; else empty.
    pub nonce: String,
    /// The text in base64, sealed or not; empty once the entry is over.
    pub body: String,
    /// Whether the text is sealed.
    pub sealed: bool,
    /// `reminder`, or nothing.
    pub subtype: Option<String>,
    /// Of a recurring entry.
    pub cron: Option<String>,
    /// Its time zone.
    pub zone: String,
    /// See [`ScheduleClock`].
    pub clock: String,
    /// See [`Misfire`].
    pub misfire: String,
    /// See [`ScheduleState`].
    pub state: String,
    /// Unix milliseconds at which it is sent next, or was due last.
    pub at_ms: i64,
    /// The same of an entry that waits for it; `None`: it waits for nothing.
    pub due_ms: Option<i64>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds of the last change by a member, or of its end.
    pub changed_at_ms: i64,
    /// How often it was sent.
    pub fired_count: i64,
    /// Times that were missed and not made up for.
    pub missed_count: i64,
    /// Unix milliseconds.
    pub last_fired_ms: Option<i64>,
    /// Why it could not be sent the last time.
    pub last_error: Option<String>,
    /// Grows by one with each change by a member.
    pub version: i64,
    /// Bytes of body, targets and expression.
    pub size_bytes: i64,
}

impl Row {
    /// How far it is.
    pub fn state(&self) -> ScheduleState {
        ScheduleState::ALL.into_iter().find(|one| one.as_str() == self.state).unwrap_or(ScheduleState::Failed)
    }

    /// What happens to missed times.
    pub fn misfire(&self) -> Misfire {
        Misfire::ALL.into_iter().find(|one| one.as_str() == self.misfire).unwrap_or_default()
    }

    /// Which clock it follows.
    pub fn clock(&self) -> ScheduleClock {
        if self.clock == ScheduleClock::Mesh.as_str() { ScheduleClock::Mesh } else { ScheduleClock::Wall }
    }

    /// Its recipients.
    pub fn targets(&self) -> TargetField {
        serde_json::from_str(&self.targets).unwrap_or_else(|_| TargetField::One(self.targets.clone()))
    }

    /// When it comes, if it comes again and again.
    ///
    /// # Errors
    /// The expression, which was checked when it was stored, cannot be read any more: a zone was given up.
    pub fn cron(&self) -> Result<Option<Cron>, BadCron> {
        let Some(text) = &self.cron else { return Ok(None) };
        let zone = cron::zone(&self.zone).ok_or_else(|| BadCron(format!("there is no time zone `{}`", self.zone)))?;
        Cron::parse(text, zone).map(Some)
    }

    /// Bytes that count.
    pub fn size(&self) -> i64 {
        let cron = self.cron.as_ref().map_or(0, String::len);
        i64::try_from(self.body.len() + self.nonce.len() + self.targets.len() + cron).unwrap_or(i64::MAX)
    }

    /// What it adds to the totals of its member and its mesh.
    fn weight(&self) -> Weight {
        if !self.state().is_live() {
            return Weight::default();
        }
        Weight { entries: 1, recurring: i64::from(self.cron.is_some()), bytes: self.size_bytes }
    }
}

/// What counts against the quotas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Entries that wait or are paused.
    pub entries: i64,
    /// Those of them that come again and again.
    pub recurring: i64,
    /// Bytes of all.
    pub bytes: i64,
}

impl Weight {
    fn plus(self, other: Self, sign: i64) -> Self {
        Self {
            entries: self.entries + sign * other.entries,
            recurring: self.recurring + sign * other.recurring,
            bytes: self.bytes + sign * other.bytes,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = schedule_totals, primary_key(mesh_id, member_id))]
struct Total {
    mesh_id: String,
    member_id: String,
    entries: i64,
    recurring: i64,
    bytes: i64,
}

impl Total {
    fn weight(&self) -> Weight {
        Weight { entries: self.entries, recurring: self.recurring, bytes: self.bytes }
    }

    fn of(mesh: &MeshId, member: &str, weight: Weight) -> Self {
        let Weight { entries, recurring, bytes } = weight;
        Self { mesh_id: mesh.to_string(), member_id: member.into(), entries, recurring, bytes }
    }
}

/// The totals of a member, or of the mesh (an empty id). For use in a transaction.
macro_rules! total {
    ($conn:expr, $mesh:expr, $member:expr) => {{
        let found: Option<Total> = schedule_totals::table
            .find(($mesh.as_str(), $member))
            .select(Total::as_select())
            .first($conn)
            .await
            .optional()?;
        found.map_or_else(Weight::default, |found| found.weight())
    }};
}
use total;

/// Stores the totals of a member, or of the mesh. For use in a transaction.
macro_rules! put_total {
    ($conn:expr, $mesh:expr, $member:expr, $weight:expr) => {{
        let total = Total::of($mesh, $member, $weight);
        diesel::insert_into(schedule_totals::table)
            .values(&total)
            .on_conflict((schedule_totals::mesh_id, schedule_totals::member_id))
            .do_update()
            .set(&total)
            .execute($conn)
            .await?;
    }};
}
use put_total;

/// What counts against the quotas of a member, or of the mesh (`None`).
///
/// # Errors
/// Storage fails.
pub async fn used(db: &MeshDb, member: Option<&MemberId>) -> Result<Weight, DbError> {
    let member = member.map_or("", MemberId::as_str);
    Ok(with_conn!(db.db(), |conn| total!(conn, db.mesh(), member)))
}

/// Where a row stands in a list: its time and its id.
pub type Place = (i64, String);

/// What [`list`] looks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// One member's, or everyone's.
    pub member: Option<MemberId>,
    /// Also those that are over.
    pub ended: bool,
    /// Only what comes behind this one.
    pub after: Option<Place>,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Row>,
    /// There is more behind this.
    pub next: Option<Place>,
}

/// Entries in the order of their times: at most `limit`, of at most [`MAX_PAGE_BYTES`] together but at least one.
///
/// # Errors
/// Storage fails.
pub async fn list(db: &MeshDb, filter: &Filter, limit: u32) -> Result<Page, DbError> {
    let mut found: Vec<(i64, String, i64)> = with_conn!(db.db(), |conn| {
        let mut rows = schedules::table
            .filter(schedules::mesh_id.eq(db.mesh().as_str()))
            .select((schedules::at_ms, schedules::id, schedules::size_bytes))
            .order((schedules::at_ms, schedules::id))
            .limit(i64::from(limit) + 1)
            .into_boxed();
        if let Some(member) = &filter.member {
            rows = rows.filter(schedules::member_id.eq(member.as_str()));
        }
        if !filter.ended {
            let live = [ScheduleState::Active.as_str(), ScheduleState::Paused.as_str()];
            rows = rows.filter(schedules::state.eq_any(live));
        }
        if let Some((at_ms, id)) = &filter.after {
            let behind = schedules::at_ms.eq(at_ms).and(schedules::id.gt(id));
            rows = rows.filter(schedules::at_ms.gt(at_ms).or(behind));
        }
        rows.load(conn).await?
    });
    let shown = fitting(found.iter().map(|(_, _, size)| *size), limit as usize, MAX_PAGE_BYTES);
    let more = shown < found.len();
    found.truncate(shown);
    let next = found.last().filter(|_| more).map(|(at_ms, id, _)| (*at_ms, id.clone()));
    let ids: Vec<String> = found.into_iter().map(|(_, id, _)| id).collect();
    Ok(Page { rows: rows_of(db, &ids).await?, next })
}

/// How many of the rows go on a page: at least one.
fn fitting(sizes: impl IntoIterator<Item = i64>, limit: usize, most_bytes: usize) -> usize {
    let mut bytes = 0_usize;
    let fits = |(at, size): &(usize, i64)| {
        bytes = bytes.saturating_add(usize::try_from(*size).unwrap_or(0));
        *at == 0 || (*at < limit && bytes <= most_bytes)
    };
    sizes.into_iter().enumerate().take_while(fits).count()
}

/// The rows of these ids, in the order of the ids.
async fn rows_of(db: &MeshDb, ids: &[String]) -> Result<Vec<Row>, DbError> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let mut rows: Vec<Row> = with_conn!(db.db(), |conn| schedules::table
        .filter(schedules::mesh_id.eq(db.mesh().as_str()))
        .filter(schedules::id.eq_any(ids))
        .select(Row::as_select())
        .load(conn)
        .await?);
    let places: std::collections::HashMap<&str, usize> =
        ids.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
    // Those that were deleted in between are not there any more.
    rows.sort_by_key(|row| places.get(row.id.as_str()).copied());
    Ok(rows)
}

#[cfg(test)]
#[path = "../store_tests.rs"]
mod tests;
