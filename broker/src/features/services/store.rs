//! `services`: what the mesh hosts. Who may do what is decided by the mesh, which has all of it in memory.

use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

use super::schema::services;
use crate::audit::{Audit, By};
use crate::db::{DbError, MeshDb};
use crate::journal::MeshStore;
use crate::search::index::IndexConnection;
use crate::{tx_write, with_conn};

/// A service as stored.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = services)]
pub struct Row {
    /// Mesh.
    pub mesh_id: String,
    /// Name.
    pub name: String,
    /// Whose it is.
    pub member_id: String,
    /// Name of the session that deployed it.
    pub deployed_by: String,
    /// What it is good for.
    pub description: String,
    /// JSON: where it comes from.
    pub source: String,
    /// JSON: what it is started with.
    pub config: String,
    /// JSON: values that only the runner can open.
    pub sealed: String,
    /// JSON: who may use it.
    pub scope: String,
    /// JSON: ids of the members that the scope names.
    pub audience: String,
    /// The word on the wire.
    pub status: String,
    /// Why the last deploy failed, or what ended it.
    pub error: Option<String>,
    /// `node`, `python` or `bun`, once that is known.
    pub runtime: Option<String>,
    /// A JSON list.
    pub tools: String,
    /// Raised with each version that is tried.
    pub revision: i64,
    /// The version that is being tried in place of this one.
    pub pending: Option<i64>,
    /// Bytes of all texts.
    pub size_bytes: i64,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

/// What the audit log says of a change.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who.
    pub by: By,
    /// What.
    pub event: &'static str,
    /// Names, and nothing that is secret.
    pub payload: Value,
}

/// All services of the mesh.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &MeshDb) -> Result<Vec<Row>, DbError> {
    Ok(with_conn!(db.db(), |conn| services::table
        .filter(services::mesh_id.eq(db.mesh().as_str()))
        .order(services::name)
        .select(Row::as_select())
        .load(conn)
        .await?))
}

/// Stores a service in place of what is under its name. The scope of one that is there stays: [`set_scope`] changes it.
///
/// # Errors
/// Storage fails.
pub async fn put(store: &MeshStore, row: Row, told: Told) -> Result<(), DbError> {
    let rows = 1 + usize::try_from(row.size_bytes).unwrap_or(0) / 4_096;
    Ok(tx_write!(store, rows: rows, (row, told), |conn, mesh| {
        let row = Row { mesh_id: mesh.to_string(), ..row.clone() };
        diesel::insert_into(services::table)
            .values(&row)
            .on_conflict((services::mesh_id, services::name))
            .do_update()
            .set((
                services::member_id.eq(&row.member_id),
                services::deployed_by.eq(&row.deployed_by),
                services::description.eq(&row.description),
                services::source.eq(&row.source),
                services::config.eq(&row.config),
                services::sealed.eq(&row.sealed),
                services::status.eq(&row.status),
                services::error.eq(&row.error),
                services::runtime.eq(&row.runtime),
                services::tools.eq(&row.tools),
                services::revision.eq(row.revision),
                services::pending.eq(row.pending),
                services::size_bytes.eq(row.size_bytes),
                services::updated_at_ms.eq(row.updated_at_ms),
            ))
            .execute(conn)
            .await?;
        Ok(((), told.by.entry(told.event, told.payload.clone())))
    })?)
}

/// Changes who may use a service: a scope and its audience, as JSON. `false`: there is none of that name and time.
///
/// # Errors
/// Storage fails.
pub async fn set_scope(
    store: &MeshStore,
    (name, created_at_ms): (String, i64),
    (scope, audience): (String, String),
    told: Told,
) -> Result<bool, DbError> {
    Ok(tx_write!(store, (name, created_at_ms, scope, audience, told), |conn, mesh| {
        let place = services::table
            .filter(services::mesh_id.eq(mesh.as_str()))
            .filter(services::name.eq(name))
            .filter(services::created_at_ms.eq(*created_at_ms));
        let changed = diesel::update(place)
            .set((
                services::scope.eq(scope),
                services::audience.eq(audience),
                services::updated_at_ms.eq(told.by.at_ms),
            ))
            .execute(conn)
            .await?
            > 0;
        Ok((changed, Audit::when(changed, || told.by.entry(told.event, told.payload.clone()))))
    })?)
}

/// Removes a service, and what was on the pages of SQLite's file. `false`: there is none.
///
/// # Errors
/// Storage fails.
pub async fn remove(store: &MeshStore, name: String, owner: MemberId, by: By) -> Result<bool, DbError> {
    Ok(tx_write!(store, (name, owner, by), |conn, mesh| {
        conn.erasing().await?;
        let gone = diesel::delete(services::table.find((mesh.as_str(), name))).execute(conn).await? > 0;
        let entry = || by.entry("mcp_undeployed", json!({"service": name, "owner": owner.as_str()}));
        Ok((gone, Audit::when(gone, entry)))
    })?)
}

/// Removes the services of a member that has left; returns how many there were.
///
/// # Errors
/// Storage fails.
pub async fn remove_of(store: &MeshStore, member: MemberId) -> Result<usize, DbError> {
    Ok(tx_write!(store, (member), |conn, mesh| {
        conn.erasing().await?;
        let own =
            services::table.filter(services::mesh_id.eq(mesh.as_str())).filter(services::member_id.eq(member.as_str()));
        let removed = diesel::delete(own).execute(conn).await?;
        Ok((removed, Audit::Unaudited("the entry of the member's end tells of it")))
    })?)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
