//! `mesh_clocks`: one row per mesh that has a clock.

use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

pub use super::model::{Act, NoClock, State};
use super::schema::mesh_clocks;
use crate::audit::Audit;
use crate::db::{DbError, MeshDb};
use crate::journal::{MeshStore, WriteError};
use crate::{tx_write, with_conn};

/// The clock of a mesh.
///
/// # Errors
/// Storage fails.
pub async fn find(db: &MeshDb) -> Result<Option<State>, DbError> {
    Ok(with_conn!(db.db(), |conn| mesh_clocks::table
        .find(db.mesh().as_str())
        .select(State::as_select())
        .first(conn)
        .await
        .optional()?))
}

/// Does something to the clock of a mesh at a moment (Unix milliseconds). Returns it as it is afterwards.
///
/// # Errors
/// [`NoClock`], or storage fails.
pub async fn act(
    store: &MeshStore,
    act: Act,
    now_ms: i64,
    by: Option<MemberId>,
) -> Result<Option<State>, WriteError<NoClock>> {
    tx_write!(store, rows: 1, (act, now_ms, by), |conn, mesh| {
        let row = mesh_clocks::table.find(mesh.as_str());
        let before: Option<State> = row.select(State::as_select()).first(conn).await.optional()?;
        let had_one = before.is_some();
        let after = State::after(before, mesh.as_str(), *act, *now_ms).map_err(WriteError::Refused)?;
        match &after {
            Some(clock) => {
                diesel::insert_into(mesh_clocks::table)
                    .values(clock)
                    .on_conflict(mesh_clocks::mesh_id)
                    .do_update()
                    .set(clock)
                    .execute(conn)
                    .await?;
            }
            None if had_one => {
                diesel::delete(row).execute(conn).await?;
            }
            None => {}
        }
        let audit = audited(*act, after.as_ref(), by.as_ref(), *now_ms);
        Ok((after, audit))
    })
}

fn audited(act: Act, clock: Option<&State>, by: Option<&MemberId>, now_ms: i64) -> Audit {
    let event = match act {
        Act::Set { .. } => "clock_set",
        Act::Pause => "clock_paused",
        Act::Resume => "clock_resumed",
        Act::Stop => "clock_stopped",
        Act::Tick | Act::Empty { .. } | Act::Back => return Audit::Unaudited("the clock goes on by itself"),
    };
    let payload = clock.map_or_else(
        || json!({}),
        |clock| json!({"speedThousandths": clock.speed_thousandths, "tick": clock.tick, "simMs": clock.sim_ms}),
    );
    Audit::entry(event, by, payload, now_ms)
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::features::clock::Speed;

    use super::*;
    use crate::audit::{Filter, query};
    use crate::db::testing::{NOW, key, mesh, of, store, store_suite};

    store_suite! {
        async fn a_clock_is_kept_as_it_was_and_every_change_by_a_member_is_audited(db: Db) {
            let mesh = mesh(&db, "team", key()).await.0.id;
            let (store, reader) = (store(&db, &mesh), of(&db, &mesh));
            let ada: Option<MemberId> = Some("ada".into());
            assert!(matches!(act(&store, Act::Pause, NOW, ada.clone()).await, Err(WriteError::Refused(NoClock))));
            assert_eq!(act(&store, Act::Tick, NOW, None).await.unwrap(), None);
            let set = Act::Set { speed: Some(Speed::of(2.5)), sim_ms: Some(7) };
            let begun = act(&store, set, NOW, ada.clone()).await.unwrap();
            assert_eq!(find(&reader).await.unwrap(), begun);
            let ticked = act(&store, Act::Tick, NOW + 24_000, None).await.unwrap().unwrap();
            assert_eq!((ticked.tick, ticked.sim_ms), (1, 60_007));
            assert_eq!(find(&reader).await.unwrap(), Some(ticked));
            act(&store, Act::Pause, NOW + 25_000, ada.clone()).await.unwrap();
            act(&store, Act::Resume, NOW + 26_000, ada.clone()).await.unwrap();
            assert_eq!(act(&store, Act::Stop, NOW + 27_000, ada).await.unwrap(), None);
            assert_eq!(find(&reader).await.unwrap(), None);
            let entries = query(&reader, &Filter::default(), 99).await.unwrap();
            let events: Vec<&str> = entries.iter().rev().map(|entry| entry.event_type.as_str()).collect();
            assert_eq!(events, ["mesh_created", "clock_set", "clock_paused", "clock_resumed", "clock_stopped"]);
        }
    }
}
