//! The end of files and uploads. Rows go first; who removes them gets the names of the objects that have to go then. What is left in
//! the store when the broker is killed in between is removed by the sweep.

use claudemesh_protocol::id::{FileId, MemberId};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::{Refused, Row};
use crate::audit::Audit;
use crate::db::{DbError, MeshDb};
use crate::features::files::schema::{file_readers, files};
use crate::journal::{MeshStore, WriteError};
use crate::{tx_write, with_conn};

/// Why something goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its owner gives up an upload.
    Cancelled(MemberId),
    /// A member deletes a file; one of others, too, when it may (`true`).
    Deleted(MemberId, bool),
    /// Its time is over, by the given one.
    Expired,
}

/// What goes.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Which.
    pub file: FileId,
    /// Why.
    pub why: Why,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// What is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gone {
    /// As it was.
    pub row: Row,
    /// Whom it was for.
    pub readers: Vec<String>,
    /// What has to go from the store.
    pub objects: Vec<String>,
}

/// Removes all rows of a file inside `tx_write!`, gives back what it has taken, and yields the names of its objects.
macro_rules! remove_rows {
    ($conn:ident, $mesh:expr, $row:expr) => {{
        use $crate::features::files::schema::{file_accesses, file_keys, file_parts, file_readers, files};
        let row: &$crate::features::files::store::Row = $row;
        let (mesh, id) = ($mesh, row.id.as_str());
        let parts = file_parts::table.filter(file_parts::mesh_id.eq(mesh)).filter(file_parts::file_id.eq(id));
        let objects: Vec<String> = parts.select(file_parts::object).load($conn).await?;
        diesel::delete(parts).execute($conn).await?;
        let readers = file_readers::table.filter(file_readers::mesh_id.eq(mesh)).filter(file_readers::file_id.eq(id));
        diesel::delete(readers).execute($conn).await?;
        let keys = file_keys::table.filter(file_keys::mesh_id.eq(mesh)).filter(file_keys::file_id.eq(id));
        diesel::delete(keys).execute($conn).await?;
        let accesses =
            file_accesses::table.filter(file_accesses::mesh_id.eq(mesh)).filter(file_accesses::file_id.eq(id));
        diesel::delete(accesses).execute($conn).await?;
        diesel::delete(files::table.find((mesh, id))).execute($conn).await?;
        let uploads = -i64::from(row.ready_at_ms.is_none());
        let change = $crate::features::files::store::Change { files: -1, uploads, bytes: -row.size_bytes };
        $crate::features::files::store::change_totals!($conn, mesh, row.owner_id.as_str(), change);
        objects
    }};
}
pub(super) use remove_rows;

/// Removes a file or an upload.
///
/// # Errors
/// [`Refused::Missing`], [`Refused::Foreign`], or storage fails.
pub async fn remove(store: &MeshStore, removal: Removal) -> Result<Gone, WriteError<Refused>> {
    tx_write!(store, rows: 4, (removal), |conn, mesh| {
        let refused = WriteError::Refused;
        let place = files::table.find((mesh.as_str(), removal.file.as_str()));
        let row: Option<Row> = place.select(Row::as_select()).first(conn).await.optional()?;
        let row = row.ok_or(refused(Refused::Missing))?;
        let (ready, ended) = (row.ready_at_ms.is_some(), row.expires_at_ms.is_some_and(|at| at <= removal.now_ms));
        let actor = match &removal.why {
            Why::Cancelled(member) if !ready && row.owner_id == member.as_str() => None,
            Why::Deleted(member, _) if ready && row.owner_id == member.as_str() => Some(member),
            Why::Deleted(member, true) if ready => Some(member),
            Why::Deleted(_, false) if ready => return Err(refused(Refused::Foreign)),
            Why::Expired if ended => None,
            // What was changed meanwhile has another end.
            Why::Cancelled(_) | Why::Deleted(..) | Why::Expired => return Err(refused(Refused::Missing)),
        };
        let readers: Vec<String> = file_readers::table
            .filter(file_readers::mesh_id.eq(mesh.as_str()))
            .filter(file_readers::file_id.eq(&row.id))
            .select(file_readers::reader)
            .load(conn)
            .await?;
        let objects = remove_rows!(conn, mesh.as_str(), &row);
        let audit = Audit::when(ready, || {
            let payload = json!({
                "file": row.id,
                "owner": row.owner_id,
                "size": row.size_bytes,
                "expired": removal.why == Why::Expired && !row.lost,
                "lost": row.lost,
            });
            Audit::entry("file_deleted", actor, payload, removal.now_ms)
        });
        Ok((Gone { row, readers, objects }, audit))
    })
}

/// Files and uploads whose time is over, at most `limit`.
///
/// # Errors
/// Storage fails.
pub async fn due(db: &MeshDb, now_ms: i64, limit: i64) -> Result<Vec<FileId>, DbError> {
    let ids: Vec<String> = with_conn!(db.db(), |conn| files::table
        .filter(files::mesh_id.eq(db.mesh().as_str()))
        .filter(files::expires_at_ms.le(now_ms))
        .order((files::expires_at_ms, files::id))
        .limit(limit)
        .select(files::id)
        .load(conn)
        .await?);
    Ok(ids.into_iter().map(FileId::from).collect())
}

/// When the next file or upload goes.
///
/// # Errors
/// Storage fails.
pub async fn next_end(db: &MeshDb) -> Result<Option<i64>, DbError> {
    Ok(with_conn!(db.db(), |conn| files::table
        .filter(files::mesh_id.eq(db.mesh().as_str()))
        .select(diesel::dsl::min(files::expires_at_ms))
        .first(conn)
        .await?))
}
