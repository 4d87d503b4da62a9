//! `files` and its tables: what is shared, where its bytes lie, who may read it, who did, and what all of it takes.

mod access;
mod all_meshes;
mod listing;
mod removing;
mod uploading;

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

pub use self::access::{
    Access, Grant, Granted, Opened, Readers, Revocation, Viewer, accesses, grant, open, readable, readers, revoke,
};
pub use self::all_meshes::{meshes, meshes_due, objects_of, set_lost};
pub use self::listing::{Listing, Page, list};
pub use self::removing::{Gone, Removal, Why, due, next_end, remove};
pub use self::uploading::{Finished, Finishing, New, NewPart, UPLOAD_IDLE_MS, append, complete, finish, start, upload};
use super::schema::{file_parts, file_totals, files};
use crate::db::{DbError, MeshDb};
use crate::journal::WriteError;
use crate::with_conn;

/// Reader: everyone.
pub const EVERYONE: &str = "*";

/// Reader: one member.
pub fn member_reader(member: &MemberId) -> String {
    format!("m:{member}")
}

/// The mark of a member whose access was revoked.
pub fn revoked_reader(member: &MemberId) -> String {
    format!("!{member}")
}

/// A file as stored.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = files)]
pub struct Row {
    /// Mesh.
    pub mesh_id: String,
    /// Its id.
    pub id: String,
    /// Member that shared it.
    pub owner_id: String,
    /// Name of that member at that time.
    pub owner_name: String,
    /// Chosen by the client.
    pub client_upload_id: String,
    /// Name; of one with a sealed name it says nothing.
    pub name: String,
    /// The name in the form in which it is looked for.
    pub name_folded: String,
    /// A JSON list.
    pub tags: String,
    /// Whom it was shared with, as it was given; a JSON list.
    pub targets: String,
    /// As given.
    pub content_type: Option<String>,
    /// As given.
    pub encryption: Option<String>,
    /// As given.
    pub sealed_meta: Option<String>,
    /// Its owner wants to hear of readers without a key.
    pub regrant: bool,
    /// Kept until it is deleted.
    pub persistent: bool,
    /// How long it is kept once it is finished.
    pub ttl_ms: i64,
    /// `size_bytes` is the most that may come.
    pub at_most: bool,
    /// Bytes of it, or what is reserved for it.
    pub size_bytes: i64,
    /// Bytes whose parts have rows.
    pub received_bytes: i64,
    /// Of all bytes, once all are there.
    pub sha256: Option<String>,
    /// Bytes of it are missing in the store.
    pub lost: bool,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// When it could be read first, Unix milliseconds; `None`: it is an upload.
    pub ready_at_ms: Option<i64>,
    /// When it goes, Unix milliseconds; of an upload: when it is given up.
    pub expires_at_ms: Option<i64>,
}

impl Row {
    /// The tags.
    pub fn tags(&self) -> Vec<String> {
        serde_json::from_str(&self.tags).unwrap_or_default()
    }

    /// Its bytes as a size on the wire.
    pub fn size(&self) -> u64 {
        self.size_bytes.max(0).unsigned_abs()
    }

    /// Bytes that are there.
    pub fn received(&self) -> u64 {
        self.received_bytes.max(0).unsigned_abs()
    }

    /// Whether it can be read.
    pub fn is_ready(&self, now_ms: i64) -> bool {
        self.ready_at_ms.is_some() && !self.lost && self.expires_at_ms.is_none_or(|ends| ends > now_ms)
    }
}

/// A part of a file as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = file_parts)]
pub struct Part {
    /// Mesh.
    pub mesh_id: String,
    /// Of which file.
    pub file_id: String,
    /// Where it begins in the file.
    pub start_at: i64,
    /// Its bytes.
    pub size_bytes: i64,
    /// Its name in the store.
    pub object: String,
}

/// What a mesh or a member has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = file_totals, primary_key(mesh_id, member_id))]
pub struct Usage {
    mesh_id: String,
    member_id: String,
    /// Files and uploads.
    pub files: i64,
    /// Uploads.
    pub uploads: i64,
    /// Bytes, those reserved included.
    pub bytes: i64,
}

impl Usage {
    fn changed(self, mesh: &str, member: &str, by: Change) -> Self {
        Self {
            mesh_id: mesh.into(),
            member_id: member.into(),
            files: self.files + by.files,
            uploads: self.uploads + by.uploads,
            bytes: self.bytes + by.bytes,
        }
    }
}

/// How totals change.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    files: i64,
    uploads: i64,
    bytes: i64,
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// There is no such file or upload, or not for this caller.
    Missing,
    /// It is not for this caller.
    NotFor,
    /// It is sealed and has no key for this caller. With the file, for those who could grant it.
    NoKey(Box<Row>),
    /// It belongs to someone else.
    Foreign,
    /// Bytes are missing.
    Incomplete,
    /// The upload goes on at another offset.
    Offset(u64),
    /// Another upload of this client id is a file with another hash.
    OtherHash,
    /// The owner cannot be shut out.
    OfOwner,
    /// A file that is sealed is granted with a key only.
    KeyWanted,
    /// A file that is not sealed has no keys.
    NotSealed,
    /// It has as many parts or readers as it may have.
    TooMany(&'static str),
    /// A bound is hit.
    Limit(Bound),
}

impl From<Bound> for WriteError<Refused> {
    fn from(bound: Bound) -> Self {
        Self::Refused(Refused::Limit(bound))
    }
}

/// Changes the totals of the mesh and of one member, inside `tx_write!`.
macro_rules! change_totals {
    ($conn:ident, $mesh:expr, $owner:expr, $change:expr) => {{
        use $crate::features::files::schema::file_totals;
        for member in ["", $owner] {
            let found =
                file_totals::table.find(($mesh, member)).select($crate::features::files::store::Usage::as_select());
            let found: Option<$crate::features::files::store::Usage> = found.first($conn).await.optional()?;
            let usage = found.unwrap_or_default().changed($mesh, member, $change);
            diesel::insert_into(file_totals::table)
                .values(&usage)
                .on_conflict((file_totals::mesh_id, file_totals::member_id))
                .do_update()
                .set(&usage)
                .execute($conn)
                .await?;
        }
    }};
}
use change_totals;

/// What the mesh, or what one member of it, has.
///
/// # Errors
/// Storage fails.
pub async fn usage(db: &MeshDb, owner: Option<&MemberId>) -> Result<Usage, DbError> {
    let member = owner.map_or("", MemberId::as_str);
    let found: Option<Usage> = with_conn!(db.db(), |conn| file_totals::table
        .find((db.mesh().as_str(), member))
        .select(Usage::as_select())
        .first(conn)
        .await
        .optional()?);
    Ok(found.unwrap_or_default())
}

/// The parts of a file, in order.
///
/// # Errors
/// Storage fails.
pub async fn parts(db: &MeshDb, file: &str) -> Result<Vec<Part>, DbError> {
    Ok(with_conn!(db.db(), |conn| file_parts::table
        .filter(file_parts::mesh_id.eq(db.mesh().as_str()))
        .filter(file_parts::file_id.eq(file))
        .order(file_parts::start_at)
        .select(Part::as_select())
        .load(conn)
        .await?))
}

#[cfg(test)]
#[path = "../store_tests.rs"]
mod tests;
