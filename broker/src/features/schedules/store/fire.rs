//! What is due, and what is stored of it once it was sent.

use std::collections::{BTreeMap, HashSet};

use claudemesh_protocol::features::schedules::{ScheduleClock, ScheduleState};
use claudemesh_protocol::id::MeshId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::schema::{schedule_totals, schedules};
use super::{Row, Total, Weight, fitting, put_total, rows_of, total};
use crate::audit::Audit;
use crate::db::schema::meshes;
use crate::db::{Db, DbError, MeshDb};
use crate::journal::{MeshStore, WriteError};
use crate::{tx_write, with_conn};

/// Rows that are read at once when a clock was set back.
const CHUNK: i64 = 500;

/// What is not read although it is due.
#[derive(Default)]
pub struct LeftOut {
    /// Ids that are being sent.
    pub ids: HashSet<String>,
    /// Members who may send no more for now.
    pub members: Vec<String>,
}

/// What is due until a time, the first of it, and when the next is due behind that. `most` rows of `most_bytes` together, but at least one.
///
/// # Errors
/// Storage fails.
pub async fn due(
    db: &MeshDb,
    clock: ScheduleClock,
    until_ms: i64,
    left_out: &LeftOut,
    most: usize,
    most_bytes: usize,
) -> Result<(Vec<Row>, Option<i64>), DbError> {
    let limit = i64::try_from(most + left_out.ids.len() + 1).unwrap_or(i64::MAX);
    let found: Vec<(Option<i64>, String, i64)> = with_conn!(db.db(), |conn| schedules::table
        .filter(schedules::mesh_id.eq(db.mesh().as_str()))
        .filter(schedules::clock.eq(clock.as_str()))
        .filter(schedules::due_ms.is_not_null())
        .filter(schedules::member_id.ne_all(&left_out.members))
        .order((schedules::due_ms, schedules::id))
        .select((schedules::due_ms, schedules::id, schedules::size_bytes))
        .limit(limit)
        .load(conn)
        .await?);
    let waiting: Vec<_> = found.into_iter().filter(|(_, id, _)| !left_out.ids.contains(id)).collect();
    let is_due = |(due_ms, ..): &&(Option<i64>, String, i64)| due_ms.is_some_and(|due_ms| due_ms <= until_ms);
    let count = fitting(waiting.iter().take_while(is_due).map(|(_, _, size)| *size), most, most_bytes);
    let ids: Vec<String> = waiting.iter().take(count).map(|(_, id, _)| id.clone()).collect();
    let next = waiting.get(count).and_then(|(due_ms, ..)| *due_ms);
    let mut rows = rows_of(db, &ids).await?;
    // An entry that was changed in between is read anew: its change asks for that.
    rows.retain(|row| row.due_ms.is_some_and(|due_ms| due_ms <= until_ms) && row.clock() == clock);
    Ok((rows, next))
}

/// Meshes that have something to send until a time of the wall clock.
///
/// # Errors
/// Storage fails.
pub async fn meshes_due(db: &Db, until_ms: i64, most: i64) -> Result<Vec<MeshId>, DbError> {
    let found: Vec<String> = with_conn!(db, |conn| schedules::table
        .inner_join(meshes::table.on(meshes::id.eq(schedules::mesh_id)))
        .filter(meshes::archived_at_ms.is_null())
        .filter(meshes::deleted_at_ms.is_null())
        .filter(schedules::clock.eq(ScheduleClock::Wall.as_str()))
        .filter(schedules::due_ms.le(until_ms))
        .select(schedules::mesh_id)
        .distinct()
        .limit(most)
        .load(conn)
        .await?);
    Ok(found.into_iter().map(MeshId::from).collect())
}

/// What became of one entry whose time had come.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// The entry as it was read.
    pub row: Row,
    /// Messages that were sent.
    pub fired: i64,
    /// Times that were missed and not made up for.
    pub missed: i64,
    /// Why it could not be sent.
    pub error: Option<String>,
    /// When it comes next; `None`: it is over.
    pub next_ms: Option<i64>,
    /// Unix milliseconds.
    pub now_ms: i64,
}

impl Sent {
    fn after(&self) -> Row {
        let mut row = self.row.clone();
        row.fired_count += self.fired;
        row.missed_count += self.missed;
        if self.fired > 0 {
            row.last_fired_ms = Some(self.now_ms);
        }
        if self.fired > 0 || self.error.is_some() {
            row.last_error.clone_from(&self.error);
        }
        row.due_ms = self.next_ms;
        match self.next_ms {
            Some(next_ms) => row.at_ms = next_ms,
            None => {
                let state = if self.error.is_some() { ScheduleState::Failed } else { ScheduleState::Done };
                over(&mut row, state, self.now_ms);
            }
        }
        row
    }
}

/// Ends an entry: its text is of no use any more.
pub(super) fn over(row: &mut Row, state: ScheduleState, now_ms: i64) {
    row.state = state.as_str().into();
    row.due_ms = None;
    row.changed_at_ms = now_ms;
    (row.nonce, row.body) = (String::new(), String::new());
    row.size_bytes = row.size();
}

/// Goes on from entries whose time had come. One that was changed since it was read stays as it was changed.
///
/// # Errors
/// Storage fails; then all of them are due still.
pub async fn advance(store: &MeshStore, sent: Vec<Sent>) -> Result<(), DbError> {
    let rows = 1 + sent.len() / 8;
    let written: Result<(), WriteError> = tx_write!(store, rows: rows, (sent), |conn, mesh| {
        let mut freed: BTreeMap<&str, Weight> = BTreeMap::new();
        for one in sent {
            let after = one.after();
            let row = schedules::table
                .filter(schedules::mesh_id.eq(mesh.as_str()))
                .filter(schedules::id.eq(&one.row.id))
                .filter(schedules::due_ms.eq(one.row.due_ms))
                .filter(schedules::version.eq(one.row.version));
            let changed = if after.due_ms.is_some() {
                // The text stays: nothing but what the time changes is written.
                diesel::update(row)
                    .set((
                        schedules::due_ms.eq(after.due_ms),
                        schedules::at_ms.eq(after.at_ms),
                        schedules::fired_count.eq(after.fired_count),
                        schedules::missed_count.eq(after.missed_count),
                        schedules::last_fired_ms.eq(after.last_fired_ms),
                        schedules::last_error.eq(&after.last_error),
                    ))
                    .execute(conn)
                    .await?
            } else {
                diesel::update(row).set(&after).execute(conn).await?
            };
            if changed > 0 && after.due_ms.is_none() {
                for member in [one.row.member_id.as_str(), ""] {
                    let weight = freed.entry(member).or_default();
                    *weight = weight.plus(one.row.weight(), 1);
                }
            }
        }
        for (member, weight) in freed {
            let total = total!(conn, mesh, member).plus(weight, -1);
            put_total!(conn, mesh, member, total);
        }
        Ok(((), Audit::Unaudited("it went as it was scheduled; messages have their own entries")))
    });
    Ok(written?)
}

/// Takes the times of recurring entries that follow the mesh's clock anew: it is new, or was set back. What is due by a clock that was
/// there before stays.
///
/// # Errors
/// Storage fails.
pub async fn rearm(store: &MeshStore, sim_ms: i64, is_new: bool) -> Result<(), DbError> {
    let mut after = String::new();
    let due_after = if is_new { i64::MIN } else { sim_ms };
    loop {
        let rows: Vec<Row> = with_conn!(store.db(), |conn| schedules::table
            .filter(schedules::mesh_id.eq(store.mesh().as_str()))
            .filter(schedules::clock.eq(ScheduleClock::Mesh.as_str()))
            .filter(schedules::due_ms.gt(due_after))
            .filter(schedules::cron.is_not_null())
            .filter(schedules::id.gt(&after))
            .order(schedules::id)
            .select(Row::as_select())
            .limit(CHUNK)
            .load(conn)
            .await?);
        let Some(last) = rows.last() else { return Ok(()) };
        after.clone_from(&last.id);
        let next = |row: &Row| row.cron().ok().flatten().and_then(|cron| cron.next(sim_ms));
        let moved: Vec<(String, i64, Option<i64>)> = rows
            .iter()
            .filter_map(|row| next(row).map(|next| (row.id.clone(), next, row.due_ms)))
            .filter(|(_, next, due)| Some(*next) != *due)
            .collect();
        let cost = 1 + moved.len() / 8;
        let written: Result<(), WriteError> = tx_write!(store, rows: cost, (moved), |conn, mesh| {
            for (id, next, due) in moved {
                let row = schedules::table
                    .filter(schedules::mesh_id.eq(mesh.as_str()))
                    .filter(schedules::id.eq(id))
                    .filter(schedules::due_ms.eq(due));
                let times = (schedules::due_ms.eq(Some(*next)), schedules::at_ms.eq(next));
                diesel::update(row).set(times).execute(conn).await?;
            }
            Ok(((), Audit::Unaudited("it follows the clock, whose change has an entry")))
        });
        written?;
    }
}
