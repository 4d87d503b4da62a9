//! `meshes`: one row per mesh. An archived mesh keeps its row and its slug. A deleted one keeps its row, because the audit log
//! refers to it, and gives the slug back; [`super::erase`] removes the rest.

use std::collections::BTreeMap;

use claudemesh_protocol::features::meshes::{PatchMesh, PatchSettings};
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
    /// Unix milliseconds; what belonged to the mesh is being erased since.
    pub deleted_at_ms: Option<i64>,
    /// Limits that the mesh has set itself, by name.
    #[diesel(serialize_as = Json<BTreeMap<String, u64>>, deserialize_as = Json<BTreeMap<String, u64>>)]
    pub limits: BTreeMap<String, u64>,
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
            deleted_at_ms: None,
            limits: BTreeMap::new(),
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

/// Ids of meshes that were deleted after `since_ms`: what came in while they were erased may be left.
///
/// # Errors
/// Storage fails.
pub async fn deleted_since(db: &Db, since_ms: i64) -> Result<Vec<MeshId>, DbError> {
    let ids = with_conn!(db, |conn| meshes::table
        .filter(meshes::deleted_at_ms.ge(since_ms))
        .order(meshes::id)
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

/// Brings an archived mesh back; `false` when it is not archived, or deleted.
///
/// # Errors
/// Storage fails.
pub async fn restore(store: &MeshStore, by: &By) -> Result<bool, DbError> {
    let by = by.clone();
    Ok(tx_write!(store, (by), |conn, mesh| {
        let archived = meshes::table
            .find(mesh.as_str())
            .filter(meshes::archived_at_ms.is_not_null())
            .filter(meshes::deleted_at_ms.is_null());
        let changed = diesel::update(archived).set(meshes::archived_at_ms.eq(None::<i64>)).execute(conn).await? == 1;
        Ok((changed, Audit::when(changed, || by.entry("mesh_restored", json!({})))))
    })?)
}

/// Marks a mesh as deleted and gives its slug back; `false` when it does not exist or was deleted before.
///
/// # Errors
/// Storage fails.
pub async fn delete(store: &MeshStore, by: &By) -> Result<bool, DbError> {
    let by = by.clone();
    Ok(tx_write!(store, (by), |conn, mesh| {
        let there = meshes::table.find(mesh.as_str()).filter(meshes::deleted_at_ms.is_null());
        let slug = there.select(meshes::slug).first::<String>(conn).await.optional()?;
        let Some(slug) = slug else { return Ok((false, Audit::Unaudited("there is no such mesh"))) };
        let change = (
            meshes::deleted_at_ms.eq(by.at_ms),
            meshes::archived_at_ms.eq(by.at_ms),
            // No slug of a mesh has a slash.
            meshes::slug.eq(format!("deleted/{mesh}")),
            meshes::name.eq(""),
        );
        diesel::update(there).set(change).execute(conn).await?;
        Ok((true, by.entry("mesh_deleted", json!({"slug": slug}))))
    })?)
}

/// Changes slug and name of a live mesh, checked by the caller. Returns what the mesh is then; `None`: no live mesh has this id.
///
/// # Errors
/// [`DbError::Conflict`] when the slug is taken.
pub async fn rename(store: &MeshStore, to: &PatchMesh, by: &By) -> Result<Option<MeshRecord>, DbError> {
    let (to, by) = (to.clone(), by.clone());
    Ok(tx_write!(store, (to, by), |conn, mesh| {
        let live = meshes::table.find(mesh.as_str()).filter(meshes::archived_at_ms.is_null());
        let before = live.select(MeshRecord::as_select()).first(conn).await.optional()?;
        let Some(before) = before else { return Ok((None, Audit::Unaudited("there is no such mesh"))) };
        let after = MeshRecord {
            slug: to.slug.clone().unwrap_or_else(|| before.slug.clone()),
            name: to.name.clone().unwrap_or_else(|| before.name.clone()),
            ..before.clone()
        };
        let change = (meshes::slug.eq(&after.slug), meshes::name.eq(&after.name));
        diesel::update(live).set(change).execute(conn).await?;
        let payload = json!({"from": before.slug, "to": after.slug, "name": after.name});
        let entry = Audit::when(after != before, || by.entry("mesh_renamed", payload));
        Ok((Some(after), entry))
    })?)
}

/// Changes policy and limits of a live mesh, checked by the caller. Returns what the mesh is then; `None`: no live mesh has this id.
///
/// # Errors
/// Storage fails.
pub async fn change_settings(store: &MeshStore, to: &PatchSettings, by: &By) -> Result<Option<MeshRecord>, DbError> {
    let (to, by) = (to.clone(), by.clone());
    Ok(tx_write!(store, (to, by), |conn, mesh| {
        let live = meshes::table.find(mesh.as_str()).filter(meshes::archived_at_ms.is_null());
        let before = live.select(MeshRecord::as_select()).first(conn).await.optional()?;
        let Some(before) = before else { return Ok((None, Audit::Unaudited("there is no such mesh"))) };
        let mut after = before.clone();
        if let Some(change) = to.self_editable {
            after.self_editable = change.applied(after.self_editable);
        }
        for (name, value) in &to.limits {
            match value {
                Some(value) => drop(after.limits.insert(name.clone(), *value)),
                None => drop(after.limits.remove(name)),
            }
        }
        let change = (
            meshes::self_editable.eq(convert::to_json(&after.self_editable)),
            meshes::limits.eq(convert::to_json(&after.limits)),
        );
        diesel::update(live).set(change).execute(conn).await?;
        let payload = json!({"selfEditable": after.self_editable, "limits": after.limits});
        let entry = Audit::when(after != before, || by.entry("policy_changed", payload));
        Ok((Some(after), entry))
    })?)
}
