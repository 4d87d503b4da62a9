//! `mcp_servers`: the servers that are kept while no session runs them. Who may register what is decided by the mesh, which also
//! knows the servers that are not kept.

use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::schema::mcp_servers;
use crate::audit::{Audit, By};
use crate::db::{DbError, MeshDb};
use crate::journal::MeshStore;
use crate::{tx_write, with_conn};

/// A server as stored.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = mcp_servers, treat_none_as_null = true)]
pub struct Row {
    /// Mesh.
    pub mesh_id: String,
    /// Name.
    pub name: String,
    /// Whose it is.
    pub member_id: String,
    /// Name of the session that ran it last.
    pub hosted_by: String,
    /// Key of that session, in hex.
    pub session_ref: String,
    /// What it is good for.
    pub description: String,
    /// A JSON list.
    pub tools: String,
    /// Bytes of tools and description.
    pub size_bytes: i64,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
    /// Unix milliseconds; `None` while a session runs it.
    pub offline_since_ms: Option<i64>,
}

/// What is registered.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The server.
    pub row: Row,
    /// It is kept.
    pub persistent: bool,
    /// It was registered before with the same tools: only its host is another one.
    pub again: bool,
    /// Number of its tools.
    pub tools: usize,
}

/// All servers of the mesh that are kept.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &MeshDb) -> Result<Vec<Row>, DbError> {
    Ok(with_conn!(db.db(), |conn| mcp_servers::table
        .filter(mcp_servers::mesh_id.eq(db.mesh().as_str()))
        .order(mcp_servers::name)
        .select(Row::as_select())
        .load(conn)
        .await?))
}

/// Notes a registration: keeps the server, or no longer keeps it.
///
/// # Errors
/// Storage fails.
pub async fn register(store: &MeshStore, new: Registration) -> Result<(), DbError> {
    let rows = 1 + usize::try_from(new.row.size_bytes).unwrap_or(0) / 4_096;
    Ok(tx_write!(store, rows: rows, (new), |conn, mesh| {
        let row = Row { mesh_id: mesh.to_string(), ..new.row.clone() };
        if new.persistent {
            diesel::insert_into(mcp_servers::table)
                .values(&row)
                .on_conflict((mcp_servers::mesh_id, mcp_servers::name))
                .do_update()
                .set(&row)
                .execute(conn)
                .await?;
        } else {
            diesel::delete(mcp_servers::table.find((mesh.as_str(), &row.name))).execute(conn).await?;
        }
        let payload = json!({"server": row.name, "tools": new.tools, "persistent": new.persistent});
        let by = By::member(&MemberId::from(row.member_id.as_str()), row.updated_at_ms);
        Ok(((), Audit::when(!new.again, || by.entry("mcp_registered", payload))))
    })?)
}

/// Notes that a server was removed, and keeps it no longer.
///
/// # Errors
/// Storage fails.
pub async fn unregister(store: &MeshStore, name: String, owner: MemberId, by: By) -> Result<(), DbError> {
    Ok(tx_write!(store, (name, owner, by), |conn, mesh| {
        diesel::delete(mcp_servers::table.find((mesh.as_str(), name))).execute(conn).await?;
        Ok(((), by.entry("mcp_unregistered", json!({"server": name, "owner": owner.as_str()}))))
    })?)
}

/// Notes since when servers are offline (Unix milliseconds); `None`: they are not.
///
/// # Errors
/// Storage fails.
pub async fn set_offline(store: &MeshStore, names: Vec<String>, since_ms: Option<i64>) -> Result<(), DbError> {
    let rows = names.len();
    Ok(tx_write!(store, rows: rows, (names, since_ms), |conn, mesh| {
        let servers = mcp_servers::table
            .filter(mcp_servers::mesh_id.eq(mesh.as_str()))
            .filter(mcp_servers::name.eq_any(names));
        diesel::update(servers).set(mcp_servers::offline_since_ms.eq(*since_ms)).execute(conn).await?;
        Ok(((), Audit::Unaudited("who is there is no change of the mesh")))
    })?)
}

/// Removes the servers of a member that has left; returns how many there were.
///
/// # Errors
/// Storage fails.
pub async fn remove_of(store: &MeshStore, member: MemberId) -> Result<usize, DbError> {
    Ok(tx_write!(store, (member), |conn, mesh| {
        let own = mcp_servers::table
            .filter(mcp_servers::mesh_id.eq(mesh.as_str()))
            .filter(mcp_servers::member_id.eq(member.as_str()));
        let removed = diesel::delete(own).execute(conn).await?;
        Ok((removed, Audit::Unaudited("the entry of the member's end tells of it")))
    })?)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
