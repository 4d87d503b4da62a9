//! `meshes`: one row per mesh. An archived mesh keeps its row and its slug.

use claudemesh_protocol::id::{MeshId, PublicKey};
use claudemesh_protocol::session::SelfEditable;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::schema::meshes;
use crate::audit::{Audit, By};
use crate::db::columns::{Json, Text};
use crate::db::members::Member;
use crate::db::schema::members;
use crate::db::{Db, DbError, convert};
use crate::journal::MeshStore;
use crate::{tx_write, with_conn};

/// A mesh as stored.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = meshes, treat_none_as_default_value = false)]
pub struct MeshRecord {
    /// Row id.
    #[diesel(serialize_as = Text<MeshId>, deserialize_as = Text<MeshId>)]
    pub id: MeshId,
    /// Unique on the broker.
    pub slug: String,
    /// Shown to people.
    pub name: String,
    /// Signs invites and everything only the owner may do.
    #[diesel(serialize_as = Text<PublicKey>, deserialize_as = Text<PublicKey>)]
    pub owner_pubkey: PublicKey,
    /// What members may edit of themselves.
    #[diesel(serialize_as = Json<SelfEditable>, deserialize_as = Json<SelfEditable>)]
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

/// Creates the mesh of this store and its first member in one transaction.
///
/// # Errors
/// [`DbError::Conflict`] when the slug is taken, also by an archived mesh.
pub async fn create(store: &MeshStore, mesh: &MeshRecord, owner: &Member) -> Result<(), DbError> {
    let mesh = MeshRecord { id: store.mesh().clone(), ..mesh.clone() };
    let owner = Member { mesh_id: store.mesh().clone(), ..owner.clone() };
    Ok(tx_write!(store, (mesh, owner), |conn, _mesh| {
        diesel::insert_into(meshes::table).values(mesh.clone()).execute(conn).await?;
        diesel::insert_into(members::table).values(owner.clone()).execute(conn).await?;
        let payload = json!({"slug": mesh.slug, "owner": owner.id});
        Ok(((), Audit::entry("mesh_created", Some(&owner.id), payload, mesh.created_at_ms)))
    })?)
}

/// One mesh, archived or not.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &Db, id: &MeshId) -> Result<Option<MeshRecord>, DbError> {
    Ok(with_conn!(db, |conn| meshes::table
        .find(id.as_str())
        .select(MeshRecord::as_select())
        .first(conn)
        .await
        .optional()?))
}

/// One mesh by its slug, archived or not.
///
/// # Errors
/// Storage fails.
pub async fn by_slug(db: &Db, slug: &str) -> Result<Option<MeshRecord>, DbError> {
    Ok(with_conn!(db, |conn| meshes::table
        .filter(meshes::slug.eq(slug))
        .select(MeshRecord::as_select())
        .first(conn)
        .await
        .optional()?))
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
