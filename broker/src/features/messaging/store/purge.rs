//! Expiry and purging, in bounded chunks so that senders never wait long for the write lock.

use std::collections::BTreeMap;

use claudemesh_protocol::id::MeshId;
use diesel::dsl::{exists, not, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;

use super::super::schema::{deliveries, messages};
use super::PENDING;
use crate::db::convert::STAGE_EXPIRED;
use crate::db::schema::broker_meta;
use crate::db::{Db, DbError};
use crate::{with_conn, with_tx};

pub use crate::mesh::message::QUEUE_KEPT_MS;
/// A message of a topic is kept this long, in milliseconds: 30 days.
pub const HISTORY_KEPT_MS: i64 = 30 * 86_400_000;
/// Messages per transaction.
const CHUNK: i64 = 500;

/// Ends the deliveries that no one took before their message's expiry; returns how many.
///
/// # Errors
/// Storage fails; what was done stays done.
pub async fn expire(db: &Db, now_ms: i64) -> Result<usize, DbError> {
    let mut total = 0;
    loop {
        let due: Vec<(String, i64)> = with_conn!(db, |conn| messages::table
            .inner_join(
                deliveries::table.on(deliveries::mesh_id.eq(messages::mesh_id).and(deliveries::seq.eq(messages::seq)))
            )
            .filter(messages::expires_at_ms.le(now_ms))
            .filter(sql::<Bool>(PENDING))
            .select((messages::mesh_id, messages::seq))
            .distinct()
            .limit(CHUNK)
            .load(conn)
            .await?);
        if due.is_empty() {
            return Ok(total);
        }
        let due = by_mesh(due);
        // Unaudited: upkeep, by rules that are no secret.
        total += with_tx!(db, |conn| {
            let mut count = 0;
            for (mesh, seqs) in &due {
                let rows = deliveries::table
                    .filter(deliveries::mesh_id.eq(mesh))
                    .filter(deliveries::seq.eq_any(seqs))
                    .filter(sql::<Bool>(PENDING));
                count += diesel::update(rows)
                    .set((deliveries::stage.eq(STAGE_EXPIRED), deliveries::stage_at_ms.eq(now_ms)))
                    .execute(conn)
                    .await?;
            }
            count
        });
    }
}

/// Whether a message is older than its topic keeps them; those that are in none are kept as long as those of a topic that says
/// nothing. Raw SQL, because diesel has no subquery that yields one value of another table's row.
fn kept_no_more(now_ms: i64) -> diesel::expression::SqlLiteral<Bool> {
    let kept = format!(
        "messages.created_at_ms <= {now_ms} - COALESCE((SELECT topics.retention_ms FROM topics \
         WHERE topics.id = messages.topic_id), {HISTORY_KEPT_MS})"
    );
    sql::<Bool>(&kept)
}

/// Deletes messages for which nothing waits any more: after [`QUEUE_KEPT_MS`], those of topics after [`HISTORY_KEPT_MS`] or what
/// the topic says.
/// Returns how many messages went.
///
/// # Errors
/// Storage fails; what was done stays done.
pub async fn purge(db: &Db, now_ms: i64) -> Result<usize, DbError> {
    let mut total = 0;
    loop {
        let waiting = deliveries::table
            .filter(deliveries::mesh_id.eq(messages::mesh_id))
            .filter(deliveries::seq.eq(messages::seq))
            .filter(sql::<Bool>(PENDING));
        let old = kept_no_more(now_ms)
            .or(messages::topic_id.is_null().and(messages::created_at_ms.le(now_ms - QUEUE_KEPT_MS)));
        let done: Vec<(String, i64)> = with_conn!(db, |conn| messages::table
            .filter(messages::expires_at_ms.le(now_ms))
            .filter(old)
            .filter(not(exists(waiting)))
            .order(messages::expires_at_ms)
            .select((messages::mesh_id, messages::seq))
            .limit(CHUNK)
            .load(conn)
            .await?);
        if done.is_empty() {
            return Ok(total);
        }
        let done = by_mesh(done);
        // Unaudited: upkeep, by rules that are no secret.
        total += with_tx!(db, |conn| {
            let mut count = 0;
            for (mesh, seqs) in &done {
                // The mesh's order must not start again once its last message is gone.
                let key = purged_key(mesh);
                let before = broker_meta::table.find(&key).select(broker_meta::value).first::<String>(conn).await;
                let before: i64 = before.optional()?.and_then(|text| text.parse().ok()).unwrap_or(0);
                let highest = seqs.iter().copied().max().unwrap_or(0).max(before).to_string();
                diesel::insert_into(broker_meta::table)
                    .values((broker_meta::key.eq(&key), broker_meta::value.eq(&highest)))
                    .on_conflict(broker_meta::key)
                    .do_update()
                    .set(broker_meta::value.eq(&highest))
                    .execute(conn)
                    .await?;
                diesel::delete(
                    deliveries::table.filter(deliveries::mesh_id.eq(mesh)).filter(deliveries::seq.eq_any(seqs)),
                )
                .execute(conn)
                .await?;
                count += diesel::delete(
                    messages::table.filter(messages::mesh_id.eq(mesh)).filter(messages::seq.eq_any(seqs)),
                )
                .execute(conn)
                .await?;
            }
            count
        });
    }
}

/// Highest purged `seq` of a mesh, 0 for none.
pub(super) async fn purged_up_to(db: &Db, mesh: &MeshId) -> Result<i64, DbError> {
    let text = crate::db::meta::get(db, &purged_key(mesh.as_str())).await?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn purged_key(mesh: &str) -> String {
    format!("purged_seq.{mesh}")
}

fn by_mesh(rows: Vec<(String, i64)>) -> BTreeMap<String, Vec<i64>> {
    let mut meshes: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (mesh, seq) in rows {
        meshes.entry(mesh).or_default().push(seq);
    }
    meshes
}
