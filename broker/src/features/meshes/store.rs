//! `meshes`: one row per mesh. An archived mesh keeps its row and its slug.

use claudemesh_protocol::id::{MeshId, PublicKey};
use claudemesh_protocol::session::SelfEditable;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::meshes;
use crate::db::{Db, DbError, convert};
use crate::features::members::schema::members;
use crate::features::members::store::{Member, NewMemberRow};
use crate::{with_conn, with_tx};

/// A mesh as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshRecord {
    /// Row id.
    pub id: MeshId,
    /// Unique on the broker.
    pub slug: String,
    /// Shown to people.
    pub name: String,
    /// Signs invites and everything only the owner may do.
    pub owner_pubkey: PublicKey,
    /// What members may edit of themselves.
    pub self_editable: SelfEditable,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds; an archived mesh accepts nothing.
    pub archived_at_ms: Option<i64>,
}

impl MeshRecord {
    /// A mesh that is called like its slug.
    pub fn new(id: MeshId, slug: &str, owner_pubkey: PublicKey, created_at_ms: i64) -> Self {
        Self {
            id,
            slug: slug.into(),
            name: slug.into(),
            owner_pubkey,
            self_editable: SelfEditable::default(),
            created_at_ms,
            archived_at_ms: None,
        }
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = meshes)]
struct MeshRow {
    id: String,
    slug: String,
    name: String,
    owner_pubkey: String,
    self_editable: String,
    created_at_ms: i64,
    archived_at_ms: Option<i64>,
}

impl From<&MeshRecord> for MeshRow {
    fn from(mesh: &MeshRecord) -> Self {
        Self {
            id: mesh.id.to_string(),
            slug: mesh.slug.clone(),
            name: mesh.name.clone(),
            owner_pubkey: mesh.owner_pubkey.to_hex(),
            self_editable: convert::to_json(&mesh.self_editable),
            created_at_ms: mesh.created_at_ms,
            archived_at_ms: mesh.archived_at_ms,
        }
    }
}

impl TryFrom<MeshRow> for MeshRecord {
    type Error = DbError;

    fn try_from(row: MeshRow) -> Result<Self, DbError> {
        Ok(Self {
            owner_pubkey: convert::key("meshes.owner_pubkey", &row.owner_pubkey)?,
            self_editable: convert::from_json("meshes.self_editable", &row.self_editable)?,
            id: row.id.into(),
            slug: row.slug,
            name: row.name,
            created_at_ms: row.created_at_ms,
            archived_at_ms: row.archived_at_ms,
        })
    }
}

/// Creates a mesh and its first member in one transaction.
///
/// # Errors
/// [`DbError::Conflict`] when the slug is taken, also by an archived mesh.
pub async fn create(db: &Db, mesh: &MeshRecord, owner: &Member) -> Result<(), DbError> {
    let (row, member) = (MeshRow::from(mesh), NewMemberRow::from(owner));
    with_tx!(db, |conn| {
        diesel::insert_into(meshes::table).values(&row).execute(conn).await?;
        diesel::insert_into(members::table).values(&member).execute(conn).await?;
    });
    Ok(())
}

/// One mesh, archived or not.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &Db, id: &MeshId) -> Result<Option<MeshRecord>, DbError> {
    let row = with_conn!(db, |conn| meshes::table
        .find(id.as_str())
        .select(MeshRow::as_select())
        .first(conn)
        .await
        .optional()?);
    row.map(TryInto::try_into).transpose()
}

/// One mesh by its slug, archived or not.
///
/// # Errors
/// Storage fails.
pub async fn by_slug(db: &Db, slug: &str) -> Result<Option<MeshRecord>, DbError> {
    let row = with_conn!(db, |conn| meshes::table
        .filter(meshes::slug.eq(slug))
        .select(MeshRow::as_select())
        .first(conn)
        .await
        .optional()?);
    row.map(TryInto::try_into).transpose()
}

/// Ids of all meshes that are not archived, oldest first.
///
/// # Errors
/// Storage fails.
pub async fn list_ids(db: &Db) -> Result<Vec<MeshId>, DbError> {
    let ids = with_conn!(db, |conn| meshes::table
        .filter(meshes::archived_at_ms.is_null())
        .order((meshes::created_at_ms, meshes::id))
        .select(meshes::id)
        .load::<String>(conn)
        .await?);
    Ok(ids.into_iter().map(MeshId::from).collect())
}

/// Archives a mesh; `false` when it does not exist or was archived before.
///
/// # Errors
/// Storage fails.
pub async fn archive(db: &Db, id: &MeshId, now_ms: i64) -> Result<bool, DbError> {
    let changed =
        with_tx!(db, |conn| diesel::update(meshes::table.find(id.as_str()).filter(meshes::archived_at_ms.is_null()))
            .set(meshes::archived_at_ms.eq(now_ms))
            .execute(conn)
            .await?);
    Ok(changed == 1)
}

/// Replaces the policy of a mesh; `false` when there is no such mesh.
///
/// # Errors
/// Storage fails.
pub async fn set_policy(db: &Db, id: &MeshId, policy: &SelfEditable) -> Result<bool, DbError> {
    let text = convert::to_json(policy);
    let changed = with_tx!(db, |conn| diesel::update(meshes::table.find(id.as_str()))
        .set(meshes::self_editable.eq(&text))
        .execute(conn)
        .await?);
    Ok(changed == 1)
}
