//! `api_keys`: keys of programs, by the hash of their secret.

use claudemesh_protocol::features::api_keys::KeyCapability;
use claudemesh_protocol::id::{MemberId, MeshId};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::schema::api_keys;
use crate::audit::{Audit, By};
use crate::db::{Db, DbError, MeshDb};
use crate::journal::MeshStore;
use crate::mesh::keys::KeyState;
use crate::{tx_write, with_conn};

/// A key as stored.
#[derive(Clone, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = api_keys)]
pub struct Row {
    /// Mesh.
    pub mesh_id: String,
    /// Id.
    pub id: String,
    /// The member that it acts for.
    pub member_id: String,
    /// What it is for.
    pub label: String,
    /// Beginning of its secret.
    pub prefix: String,
    /// SHA-256 of its secret, in hex.
    pub secret_hash: String,
    /// A JSON list.
    pub capabilities: String,
    /// A JSON list of names of topics; `None`: not confined.
    pub topic_scopes: Option<String>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub expires_at_ms: Option<i64>,
    /// Unix milliseconds.
    pub last_used_at_ms: Option<i64>,
    /// Unix milliseconds.
    pub revoked_at_ms: Option<i64>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Row").field("id", &self.id).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Row {
    /// What it may do; what this broker does not know is left out.
    pub fn capabilities(&self) -> Vec<KeyCapability> {
        let names: Vec<String> = serde_json::from_str(&self.capabilities).unwrap_or_default();
        names.iter().filter_map(|name| KeyCapability::parse(name)).collect()
    }

    /// Topics that it is confined to. A list that cannot be read confines it to none.
    pub fn scopes(&self) -> Option<Vec<String>> {
        self.topic_scopes.as_ref().map(|text| serde_json::from_str(text).unwrap_or_default())
    }

    /// As the mesh has it in memory.
    pub fn state(&self) -> KeyState {
        let member = MemberId::from(self.member_id.as_str());
        let mut key = KeyState::new(self.id.clone(), member, self.capabilities());
        (key.scopes, key.expires_at_ms) = (self.scopes(), self.expires_at_ms);
        key
    }
}

/// Stores a new key.
///
/// # Errors
/// Storage fails.
pub async fn create(store: &MeshStore, row: &Row, by: &By) -> Result<(), DbError> {
    let (row, by) = (Row { mesh_id: store.mesh().to_string(), ..row.clone() }, by.clone());
    Ok(tx_write!(store, (row, by), |conn, _mesh| {
        diesel::insert_into(api_keys::table).values(row.clone()).execute(conn).await?;
        let payload = json!({"key": row.id, "of": row.member_id, "capabilities": row.capabilities(),
                             "topics": row.scopes(), "expiresAt": row.expires_at_ms});
        Ok(((), by.entry("api_key_created", payload)))
    })?)
}

/// Keys of a mesh, or of one member in it, in the order of their making; revoked ones, too.
///
/// # Errors
/// Storage fails.
pub async fn list(db: &MeshDb, member: Option<&MemberId>) -> Result<Vec<Row>, DbError> {
    Ok(with_conn!(db.db(), |conn| {
        let all = api_keys::table
            .filter(api_keys::mesh_id.eq(db.mesh().as_str()))
            .order((api_keys::created_at_ms, api_keys::id))
            .select(Row::as_select());
        match member {
            Some(member) => all.filter(api_keys::member_id.eq(member.as_str())).load(conn).await?,
            None => all.load(conn).await?,
        }
    }))
}

/// Ends a key; `false` when it had ended before, or there is none.
///
/// # Errors
/// Storage fails.
pub async fn revoke(store: &MeshStore, id: &str, by: &By) -> Result<bool, DbError> {
    let (id, by) = (id.to_owned(), by.clone());
    Ok(tx_write!(store, (id, by), |conn, mesh| {
        let live = api_keys::table.find((mesh.as_str(), id)).filter(api_keys::revoked_at_ms.is_null());
        let ended = diesel::update(live).set(api_keys::revoked_at_ms.eq(by.at_ms)).execute(conn).await? == 1;
        Ok((ended, Audit::when(ended, || by.entry("api_key_revoked", json!({"key": id})))))
    })?)
}

/// Ends all keys of a member; returns how many.
///
/// # Errors
/// Storage fails.
pub async fn revoke_all(store: &MeshStore, member: &MemberId, by: &By) -> Result<usize, DbError> {
    let (member, by) = (member.clone(), by.clone());
    Ok(tx_write!(store, (member, by), |conn, mesh| {
        let live = api_keys::table
            .filter(api_keys::mesh_id.eq(mesh.as_str()))
            .filter(api_keys::member_id.eq(member.as_str()))
            .filter(api_keys::revoked_at_ms.is_null());
        let ended = diesel::update(live).set(api_keys::revoked_at_ms.eq(by.at_ms)).execute(conn).await?;
        let payload = || json!({"of": member, "keys": ended});
        Ok((ended, Audit::when(ended > 0, || by.entry("api_keys_ended", payload()))))
    })?)
}

/// Notes when keys were used last.
///
/// # Errors
/// Storage fails.
pub async fn note_uses(store: &MeshStore, uses: Vec<(String, i64)>) -> Result<(), DbError> {
    Ok(tx_write!(store, (uses), |conn, mesh| {
        for (id, at_ms) in uses {
            let row = api_keys::table.find((mesh.as_str(), id));
            diesel::update(row).set(api_keys::last_used_at_ms.eq(*at_ms)).execute(conn).await?;
        }
        Ok(((), Audit::Unaudited("when a key was used last changes nothing")))
    })?)
}

/// The mesh and the id of the key with this hash, over all meshes; revoked ones are not found.
///
/// # Errors
/// Storage fails.
pub async fn by_hash(db: &Db, hash: &str) -> Result<Option<(MeshId, String)>, DbError> {
    let found: Option<(String, String)> = with_conn!(db, |conn| api_keys::table
        .filter(api_keys::secret_hash.eq(hash))
        .filter(api_keys::revoked_at_ms.is_null())
        .select((api_keys::mesh_id, api_keys::id))
        .first(conn)
        .await
        .optional()?);
    Ok(found.map(|(mesh, id)| (mesh.into(), id)))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
