//! `meshes`: one row per mesh. An archived mesh keeps its row and its slug.

use claudemesh_protocol::id::{MeshId, PublicKey};
use claudemesh_protocol::session::SelfEditable;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::schema::meshes;
use crate::audit::{Audit, By};
use crate::db::{Db, DbError, convert};
use crate::features::members::schema::members;
use crate::features::members::store::{Member, NewMemberRow};
use crate::journal::MeshStore;
use crate::{tx_write, with_conn};

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

/// Creates the mesh of this store and its first member in one transaction.
///
/// # Errors
/// [`DbError::Conflict`] when the slug is taken, also by an archived mesh.
pub async fn create(store: &MeshStore, mesh: &MeshRecord, owner: &Member) -> Result<(), DbError> {
    let (row, member) = (MeshRow::from(mesh), NewMemberRow::from(owner));
    let row = MeshRow { id: store.mesh().to_string(), ..row };
    let owner = owner.id.clone();
    Ok(tx_write!(store, (row, member, owner), |conn, _mesh| {
        diesel::insert_into(meshes::table).values(row).execute(conn).await?;
        diesel::insert_into(members::table).values(member).execute(conn).await?;
        let payload = json!({"slug": row.slug, "owner": owner});
        Ok(((), Audit::entry("mesh_created", Some(owner), payload, row.created_at_ms)))
    })?)
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
pub async fn archive(store: &MeshStore, by: &By) -> Result<bool, DbError> {
    let by = by.clone();
    Ok(tx_write!(store, (by), |conn, mesh| {
        let live = meshes::table.find(mesh.as_str()).filter(meshes::archived_at_ms.is_null());
        let changed = diesel::update(live).set(meshes::archived_at_ms.eq(by.at_ms)).execute(conn).await? == 1;
        Ok((changed, Audit::when(changed, || by.entry("mesh_archived", json!({})))))
    })?)
}

/// Replaces the policy of a mesh; `false` when there is no such mesh.
///
/// # Errors
/// Storage fails.
pub async fn set_policy(store: &MeshStore, policy: &SelfEditable, by: &By) -> Result<bool, DbError> {
    let (policy, by) = (*policy, by.clone());
    Ok(tx_write!(store, (policy, by), |conn, mesh| {
        let changed = diesel::update(meshes::table.find(mesh.as_str()))
            .set(meshes::self_editable.eq(convert::to_json(policy)))
            .execute(conn)
            .await?
            == 1;
        Ok((changed, Audit::when(changed, || by.entry("policy_changed", json!({"selfEditable": policy})))))
    })?)
}
