//! What concerns the files of all meshes: what is due, and what the sweep compares the store with.

use std::collections::BTreeMap;

use claudemesh_protocol::id::MeshId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::db::{Db, DbError};
use crate::features::files::schema::{file_parts, files};
use crate::{with_conn, with_tx};

/// Meshes that are loaded at once for what has expired in them.
const MAX_WOKEN: i64 = 64;

/// Meshes in which a file or an upload goes until a time.
///
/// # Errors
/// Storage fails.
pub async fn meshes_due(db: &Db, until_ms: i64) -> Result<Vec<MeshId>, DbError> {
    let ids: Vec<String> = with_conn!(db, |conn| files::table
        .filter(files::expires_at_ms.le(until_ms))
        .select(files::mesh_id)
        .distinct()
        .limit(MAX_WOKEN)
        .load(conn)
        .await?);
    Ok(ids.into_iter().map(MeshId::from).collect())
}

/// Meshes that have files or uploads.
///
/// # Errors
/// Storage fails.
pub async fn meshes(db: &Db) -> Result<Vec<String>, DbError> {
    Ok(with_conn!(db, |conn| files::table.select(files::mesh_id).distinct().load(conn).await?))
}

/// Every object of a mesh that has a row, with the file that it belongs to.
///
/// # Errors
/// Storage fails.
pub async fn objects_of(db: &Db, mesh: &str) -> Result<BTreeMap<String, String>, DbError> {
    let rows: Vec<(String, String)> = with_conn!(db, |conn| file_parts::table
        .filter(file_parts::mesh_id.eq(mesh))
        .select((file_parts::object, file_parts::file_id))
        .load(conn)
        .await?);
    Ok(rows.into_iter().collect())
}

/// Marks files whose bytes are missing in the store: no one can read them any more, and their mesh removes them next.
///
/// # Errors
/// Storage fails.
pub async fn set_lost(db: &Db, mesh: &str, ids: &[String]) -> Result<usize, DbError> {
    // Unaudited: the mesh removes them, and that is the entry.
    Ok(with_tx!(db, |conn| diesel::update(files::table.filter(files::mesh_id.eq(mesh)).filter(files::id.eq_any(ids)))
        .set((files::lost.eq(true), files::expires_at_ms.eq(Some(0_i64))))
        .execute(conn)
        .await?))
}
