//! Appending: the only way into `audit_log`.

use std::collections::HashMap;

use claudemesh_protocol::crypto::audit::{GENESIS, canonical_json};
use claudemesh_protocol::id::MeshId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::audit_log;
use super::{Audit, AuditRecord, Head, hashed};
use crate::db::DbError;

/// The ends of the chains that one transaction appends to. Lives as long as the transaction: each chain's end is read once and
/// then followed in memory. It moves only when an entry was inserted, so a savepoint that is undone leaves no hole.
#[derive(Default)]
pub(crate) struct Heads {
    ends: HashMap<MeshId, (i64, String)>,
}

#[derive(Insertable)]
#[diesel(table_name = audit_log, treat_none_as_default_value = false)]
struct NewEntry<'a> {
    mesh_id: &'a str,
    seq: i64,
    prev_hash: String,
    hash: String,
    event_type: &'a str,
    actor_member_id: Option<&'a str>,
    payload: String,
    created_at_ms: i64,
}

impl<'a> NewEntry<'a> {
    fn after((seq, prev_hash): (i64, String), mesh: &'a MeshId, record: &'a AuditRecord) -> Self {
        let payload = canonical_json(&record.payload);
        let actor = record.actor.as_ref().map(|actor| actor.as_str());
        let hash = hashed(mesh.as_str(), record.event, actor, &payload, record.at_ms).hash(&prev_hash);
        Self {
            mesh_id: mesh.as_str(),
            seq: seq + 1,
            prev_hash,
            hash,
            event_type: record.event,
            actor_member_id: actor,
            payload,
            created_at_ms: record.at_ms,
        }
    }
}

/// One body for both connections.
macro_rules! append {
    ($heads:expr, $conn:expr, $mesh:expr, $audit:expr) => {{
        let Audit::Entry(record) = $audit else { return Ok(()) };
        let end = match $heads.ends.remove($mesh) {
            Some(end) => end,
            None => audit_log::table
                .filter(audit_log::mesh_id.eq($mesh.as_str()))
                .order(audit_log::seq.desc())
                .select((audit_log::seq, audit_log::hash))
                .first($conn)
                .await
                .optional()?
                .unwrap_or((0, GENESIS.to_owned())),
        };
        let entry = NewEntry::after(end, $mesh, record);
        let end = (entry.seq, entry.hash.clone());
        diesel::insert_into(audit_log::table).values(&entry).execute($conn).await.map_err(forked)?;
        $heads.ends.insert($mesh.clone(), end);
        Ok(())
    }};
}

/// Someone else appended at the same place: the transaction is run again and reads the new end.
fn forked(error: diesel::result::Error) -> DbError {
    match DbError::from(error) {
        DbError::Conflict(error) => DbError::Crossed(error),
        other => other,
    }
}

impl Heads {
    /// The ends of the chains that were appended to or looked at.
    pub(crate) fn into_ends(self) -> HashMap<MeshId, Head> {
        self.ends.into_iter().map(|(mesh, (seq, hash))| (mesh, Head { seq, hash })).collect()
    }

    #[cfg(feature = "sqlite")]
    pub(crate) async fn append_sqlite(
        &mut self,
        conn: &mut crate::db::JournalSqlite,
        mesh: &MeshId,
        audit: &Audit,
    ) -> Result<(), DbError> {
        append!(self, conn, mesh, audit)
    }

    #[cfg(feature = "postgres")]
    pub(crate) async fn append_postgres(
        &mut self,
        conn: &mut diesel_async::AsyncPgConnection,
        mesh: &MeshId,
        audit: &Audit,
    ) -> Result<(), DbError> {
        append!(self, conn, mesh, audit)
    }
}
