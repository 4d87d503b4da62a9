//! `state_entries`, `state_heads` and `state_members`: the values, what a mesh has in all, and what each member wrote last.

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::features::state::limits::MAX_PAGE_BYTES;
use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::limits::{BYTES_PER_MEMBER, BYTES_PER_MESH, KEYS_PER_MEMBER, KEYS_PER_MESH};
use super::schema::{state_entries, state_heads, state_members};
use crate::audit::Audit;
use crate::db::{Db, DbError, MeshDb};
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;
use crate::{tx_write, with_conn, with_tx};

/// A deleted key is remembered this long, in milliseconds: 7 days, as messages are.
pub const TOMBSTONE_KEPT_MS: i64 = 7 * 86_400_000;
/// Deleted keys that one mesh remembers; the oldest goes first.
pub const MAX_TOMBSTONES: i64 = 100_000;
/// Tombstones that one transaction of the upkeep removes.
const CHUNK: i64 = 500;

/// A key as stored. A deleted one has the value `null` and no expiry.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = state_entries, primary_key(mesh_id, name), treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct Entry {
    /// Mesh.
    pub mesh_id: String,
    /// The key.
    pub name: String,
    /// Compact JSON.
    pub value: String,
    /// Bytes of key and value.
    pub size_bytes: i64,
    /// Grows by one with each write of the key.
    pub version: i64,
    /// Grows by one with each write in the mesh.
    pub revision: i64,
    /// Member who wrote last.
    pub updated_by: String,
    /// Name of its session at that time.
    pub updated_by_name: String,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
    /// Unix milliseconds.
    pub expires_at_ms: Option<i64>,
    /// A tombstone.
    pub deleted: bool,
}

impl Entry {
    /// Whether it can be read at this time.
    fn live(&self, now_ms: i64) -> bool {
        !self.deleted && self.expires_at_ms.is_none_or(|ends| ends > now_ms)
    }
}

/// What a mesh has in all.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = state_heads, primary_key(mesh_id))]
pub struct Head {
    /// Mesh.
    pub mesh_id: String,
    /// Of the last write; 0 before the first.
    pub revision: i64,
    /// Tombstones up to this revision may be gone.
    pub forgotten_revision: i64,
    /// Keys that exist.
    pub entries: i64,
    /// Bytes of these.
    pub bytes: i64,
    /// Keys that are remembered as deleted.
    pub tombstones: i64,
}

/// What a member wrote last.
#[derive(Clone, Debug, Default, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = state_members, primary_key(mesh_id, member_id))]
pub struct Usage {
    mesh_id: String,
    member_id: String,
    /// Keys.
    pub entries: i64,
    /// Bytes of these.
    pub bytes: i64,
}

/// What a write does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Stores compact JSON.
    Set {
        /// The value.
        value: String,
        /// Unix milliseconds.
        expires_at_ms: Option<i64>,
    },
    /// Leaves a tombstone.
    Delete,
    /// Leaves a tombstone if its time is over.
    Expire,
}

/// One write of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The key.
    pub key: String,
    /// What it does.
    pub act: Act,
    /// Only if this is its version; 0: only if there is no such key.
    pub expected_version: Option<i64>,
    /// Member and the name of its session; `None` when the key expires by itself.
    pub by: Option<(MemberId, String)>,
    /// Unix milliseconds of the write.
    pub now_ms: i64,
    /// Unix milliseconds by which it is decided what has expired.
    pub believed_ms: i64,
    /// What may be kept.
    pub quotas: Quotas,
}

/// Why a write changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// Another version is there.
    Conflict {
        /// Compact JSON; `null` when there is no such key.
        value: String,
        /// 0 when there is no such key.
        version: i64,
    },
    /// There is nothing to delete, or to expire.
    Missing,
    /// A bound is hit.
    Limit(Bound),
}

impl From<Bound> for WriteError<Refused> {
    fn from(bound: Bound) -> Self {
        Self::Refused(Refused::Limit(bound))
    }
}

/// Keys and bytes of a mesh or a member without an entry, and with another in its place.
fn exchanged((entries, bytes): (i64, i64), before: Option<&Entry>, after: Option<&Entry>) -> (i64, i64) {
    let (less, fewer) = before.map_or((0, 0), |entry| (entry.size_bytes, 1));
    let (more, one) = after.map_or((0, 0), |entry| (entry.size_bytes, 1));
    (entries - fewer + one, bytes - less + more)
}

/// What is there, if the write may be done; `None` when there is no such key.
fn checked<'a>(write: &Write, old: Option<&'a Entry>) -> Result<Option<&'a Entry>, Refused> {
    let live = old.filter(|entry| entry.live(write.believed_ms));
    let version = live.map_or(0, |entry| entry.version);
    if write.expected_version.is_some_and(|expected| expected != version) {
        let value = live.map_or_else(|| "null".into(), |entry| entry.value.clone());
        return Err(Refused::Conflict { value, version });
    }
    match write.act {
        Act::Set { .. } => Ok(live),
        Act::Delete if live.is_some() => Ok(live),
        // One that was deleted, or written again with more time, has nothing to expire.
        Act::Expire if live.is_none() && old.is_some_and(|entry| !entry.deleted) => Ok(None),
        Act::Delete | Act::Expire => Err(Refused::Missing),
    }
}

/// The key after the write.
fn changed(write: &Write, mesh: &str, old: Option<&Entry>, revision: i64) -> Entry {
    let (value, expires_at_ms, deleted) = match &write.act {
        Act::Set { value, expires_at_ms } => (value.clone(), *expires_at_ms, false),
        Act::Delete | Act::Expire => ("null".into(), None, true),
    };
    let (updated_by, updated_by_name) = match (&write.by, old) {
        (Some((member, name)), _) => (member.to_string(), name.clone()),
        (None, Some(old)) => (old.updated_by.clone(), old.updated_by_name.clone()),
        (None, None) => Default::default(),
    };
    Entry {
        mesh_id: mesh.into(),
        name: write.key.clone(),
        size_bytes: i64::try_from(write.key.len() + value.len()).unwrap_or(i64::MAX),
        value,
        version: old.map_or(0, |old| old.version) + 1,
        revision,
        updated_by,
        updated_by_name,
        updated_at_ms: write.now_ms,
        expires_at_ms,
        deleted,
    }
}

/// Its entry in the audit log: the value stays out of it.
fn audited(write: &Write, entry: &Entry) -> Audit {
    let (event, payload) = match write.act {
        Act::Set { .. } => {
            ("state_set", json!({"key": entry.name, "version": entry.version, "size": entry.value.len()}))
        }
        Act::Delete => ("state_deleted", json!({"key": entry.name, "version": entry.version, "size": 0})),
        Act::Expire => {
            ("state_deleted", json!({"key": entry.name, "version": entry.version, "size": 0, "expired": true}))
        }
    };
    Audit::entry(event, write.by.as_ref().map(|(member, _)| member), payload, write.now_ms)
}

/// Does a write: version and revision are given in the transaction, so they follow the order of the commits. Returns the key
/// as it is now.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn write(store: &MeshStore, write: Write) -> Result<Entry, WriteError<Refused>> {
    let rows = write.key.len() + if let Act::Set { value, .. } = &write.act { value.len() } else { 0 };
    tx_write!(store, rows: 1 + rows / 4_096, (write), |conn, mesh| {
        let head = state_heads::table.find(mesh.as_str()).select(Head::as_select()).first(conn).await.optional()?;
        let mut head = head.unwrap_or_else(|| Head { mesh_id: mesh.to_string(), ..Head::default() });
        let row = state_entries::table.find((mesh.as_str(), &write.key));
        let old: Option<Entry> = row.select(Entry::as_select()).first(conn).await.optional()?;
        checked(write, old.as_ref()).map_err(WriteError::Refused)?;
        let new = changed(write, mesh.as_str(), old.as_ref(), head.revision + 1);
        // An expired key counts until it is deleted.
        let (before, after) = (old.as_ref().filter(|old| !old.deleted), Some(&new).filter(|new| !new.deleted));
        let quotas = &write.quotas;
        let (entries, bytes) = exchanged((head.entries, head.bytes), before, after);
        quotas.growth(&KEYS_PER_MESH, head.entries, entries)?;
        quotas.growth(&BYTES_PER_MESH, head.bytes, bytes)?;
        let mut members: Vec<&str> = before.iter().chain(&after).map(|entry| entry.updated_by.as_str()).collect();
        members.dedup();
        for member in members {
            let found = state_members::table.find((mesh.as_str(), member)).select(Usage::as_select());
            let found: Option<Usage> = found.first(conn).await.optional()?;
            let used = found.unwrap_or_default();
            let own = |entry: &&Entry| entry.updated_by == member;
            let (entries, bytes) = exchanged((used.entries, used.bytes), before.filter(own), after.filter(own));
            quotas.growth(&KEYS_PER_MEMBER, used.entries, entries)?;
            quotas.growth(&BYTES_PER_MEMBER, used.bytes, bytes)?;
            let usage = Usage { mesh_id: mesh.to_string(), member_id: member.into(), entries, bytes };
            diesel::insert_into(state_members::table)
                .values(&usage)
                .on_conflict((state_members::mesh_id, state_members::member_id))
                .do_update()
                .set(&usage)
                .execute(conn)
                .await?;
        }
        diesel::insert_into(state_entries::table)
            .values(&new)
            .on_conflict((state_entries::mesh_id, state_entries::name))
            .do_update()
            .set(&new)
            .execute(conn)
            .await?;
        (head.revision, head.entries, head.bytes) = (new.revision, entries, bytes);
        head.tombstones += i64::from(new.deleted) - i64::from(old.is_some_and(|old| old.deleted));
        if head.tombstones > MAX_TOMBSTONES {
            let oldest: i64 = state_entries::table
                .filter(state_entries::mesh_id.eq(mesh.as_str()))
                .filter(state_entries::deleted)
                .order(state_entries::revision)
                .select(state_entries::revision)
                .first(conn)
                .await?;
            diesel::delete(
                state_entries::table
                    .filter(state_entries::mesh_id.eq(mesh.as_str()))
                    .filter(state_entries::revision.eq(oldest)),
            )
            .execute(conn)
            .await?;
            (head.tombstones, head.forgotten_revision) = (head.tombstones - 1, oldest);
        }
        diesel::insert_into(state_heads::table)
            .values(&head)
            .on_conflict(state_heads::mesh_id)
            .do_update()
            .set(&head)
            .execute(conn)
            .await?;
        let audit = audited(write, &new);
        Ok((new, audit))
    })
}

/// What a mesh has in all.
///
/// # Errors
/// Storage fails.
pub async fn head(db: &MeshDb) -> Result<Head, DbError> {
    let found: Option<Head> = with_conn!(db.db(), |conn| state_heads::table
        .find(db.mesh().as_str())
        .select(Head::as_select())
        .first(conn)
        .await
        .optional()?);
    Ok(found.unwrap_or_default())
}

/// What a member wrote last.
///
/// # Errors
/// Storage fails.
pub async fn usage(db: &MeshDb, member: &MemberId) -> Result<Usage, DbError> {
    let found: Option<Usage> = with_conn!(db.db(), |conn| state_members::table
        .find((db.mesh().as_str(), member.as_str()))
        .select(Usage::as_select())
        .first(conn)
        .await
        .optional()?);
    Ok(found.unwrap_or_default())
}

/// The keys of a mesh that can be read at a time. A macro, because the type of the expression has no short name.
macro_rules! live {
    ($mesh:expr, $now_ms:expr) => {
        state_entries::table
            .filter(state_entries::mesh_id.eq($mesh.as_str()))
            .filter(diesel::dsl::not(state_entries::deleted))
            .filter(state_entries::expires_at_ms.is_null().or(state_entries::expires_at_ms.gt($now_ms)))
    };
}

/// One key.
///
/// # Errors
/// Storage fails.
pub async fn get(db: &MeshDb, key: &str, now_ms: i64) -> Result<Option<Entry>, DbError> {
    Ok(with_conn!(db.db(), |conn| live!(db.mesh(), now_ms)
        .filter(state_entries::name.eq(key))
        .select(Entry::as_select())
        .first(conn)
        .await
        .optional()?))
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page<C> {
    /// The rows.
    pub entries: Vec<Entry>,
    /// There is more behind this.
    pub next: Option<C>,
}

/// How many of the rows go on a page: at most `limit`, of at most [`MAX_PAGE_BYTES`] together but at least one.
fn fitting(sizes: impl IntoIterator<Item = i64>, limit: usize) -> usize {
    let mut bytes = 0_usize;
    let fits = |(at, size): &(usize, i64)| {
        bytes = bytes.saturating_add(usize::try_from(*size).unwrap_or(0));
        *at == 0 || (*at < limit && bytes <= MAX_PAGE_BYTES)
    };
    sizes.into_iter().enumerate().take_while(fits).count()
}

/// The keys of a mesh with this beginning, in order, behind `after`. Values are read for one page only.
///
/// # Errors
/// Storage fails.
pub async fn page(
    db: &MeshDb,
    prefix: &str,
    after: Option<&str>,
    limit: u32,
    now_ms: i64,
) -> Result<Page<String>, DbError> {
    let after = after.unwrap_or_default();
    let mut found: Vec<(String, i64)> = with_conn!(db.db(), |conn| live!(db.mesh(), now_ms)
        .filter(state_entries::name.ge(prefix))
        .filter(state_entries::name.gt(after))
        .order(state_entries::name)
        .select((state_entries::name, state_entries::size_bytes))
        .limit(i64::from(limit) + 1)
        .load(conn)
        .await?);
    // The order is that of the bytes, so all keys with one beginning stand together.
    let with_prefix = found.iter().take_while(|(key, _)| key.starts_with(prefix)).count();
    found.truncate(with_prefix);
    let shown = fitting(found.iter().map(|(_, size)| *size), limit as usize);
    let more = shown < found.len();
    found.truncate(shown);
    let Some((last, _)) = found.last() else { return Ok(Page { entries: vec![], next: None }) };
    let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    let entries = with_conn!(db.db(), |conn| live!(db.mesh(), now_ms)
        .filter(state_entries::name.eq_any(&keys))
        .order(state_entries::name)
        .select(Entry::as_select())
        .load(conn)
        .await?);
    Ok(Page { entries, next: more.then(|| last.clone()) })
}

/// What was written after a revision, in the order of the writes, deleted keys included. Of a key the last write only.
///
/// # Errors
/// Storage fails.
pub async fn changes(db: &MeshDb, prefix: &str, after: i64, limit: u32, now_ms: i64) -> Result<Page<i64>, DbError> {
    let mut found: Vec<(i64, String, i64)> = with_conn!(db.db(), |conn| state_entries::table
        .filter(state_entries::mesh_id.eq(db.mesh().as_str()))
        .filter(state_entries::revision.gt(after))
        .order(state_entries::revision)
        .select((state_entries::revision, state_entries::name, state_entries::size_bytes))
        .limit(i64::from(limit) + 1)
        .load(conn)
        .await?);
    let size = |(_, key, size): &(i64, String, i64)| if key.starts_with(prefix) { *size } else { 0 };
    let shown = fitting(found.iter().map(size), limit as usize);
    let more = shown < found.len();
    found.truncate(shown);
    let next = found.last().filter(|_| more).map(|(revision, ..)| *revision);
    let wanted: Vec<i64> =
        found.into_iter().filter(|(_, key, _)| key.starts_with(prefix)).map(|(revision, ..)| revision).collect();
    if wanted.is_empty() {
        return Ok(Page { entries: vec![], next });
    }
    let mut entries: Vec<Entry> = with_conn!(db.db(), |conn| state_entries::table
        .filter(state_entries::mesh_id.eq(db.mesh().as_str()))
        .filter(state_entries::revision.eq_any(&wanted))
        .order(state_entries::revision)
        .select(Entry::as_select())
        .load(conn)
        .await?);
    // The deletion of an expired key is a write of its own, which follows.
    entries.retain(|entry| entry.deleted || entry.live(now_ms));
    Ok(Page { entries, next })
}

/// The first keys of a mesh in order.
///
/// # Errors
/// Storage fails.
pub async fn names(db: &MeshDb, limit: usize) -> Result<Vec<String>, DbError> {
    Ok(with_conn!(db.db(), |conn| state_entries::table
        .filter(state_entries::mesh_id.eq(db.mesh().as_str()))
        .filter(diesel::dsl::not(state_entries::deleted))
        .order(state_entries::name)
        .select(state_entries::name)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .load(conn)
        .await?))
}

/// When the first key expires, in Unix milliseconds.
///
/// # Errors
/// Storage fails.
pub async fn next_expiry(db: &MeshDb) -> Result<Option<i64>, DbError> {
    Ok(with_conn!(db.db(), |conn| state_entries::table
        .filter(state_entries::mesh_id.eq(db.mesh().as_str()))
        .filter(state_entries::expires_at_ms.is_not_null())
        .select(diesel::dsl::min(state_entries::expires_at_ms))
        .first(conn)
        .await?))
}

/// Keys whose time is over, the earliest first.
///
/// # Errors
/// Storage fails.
pub async fn expired(db: &MeshDb, now_ms: i64, limit: i64) -> Result<Vec<String>, DbError> {
    Ok(with_conn!(db.db(), |conn| state_entries::table
        .filter(state_entries::mesh_id.eq(db.mesh().as_str()))
        .filter(state_entries::expires_at_ms.le(now_ms))
        .order(state_entries::expires_at_ms)
        .select(state_entries::name)
        .limit(limit)
        .load(conn)
        .await?))
}

/// Forgets the keys of all meshes that were deleted more than [`TOMBSTONE_KEPT_MS`] ago; returns how many.
///
/// # Errors
/// Storage fails; what was done stays done.
pub async fn purge(db: &Db, now_ms: i64) -> Result<usize, DbError> {
    let mut total = 0;
    loop {
        let old: Vec<(String, i64)> = with_conn!(db, |conn| state_entries::table
            .filter(state_entries::deleted)
            .filter(state_entries::updated_at_ms.lt(now_ms - TOMBSTONE_KEPT_MS))
            .order((state_entries::mesh_id, state_entries::revision))
            .select((state_entries::mesh_id, state_entries::revision))
            .limit(CHUNK)
            .load(conn)
            .await?);
        if old.is_empty() {
            return Ok(total);
        }
        // Unaudited: upkeep, by rules that are no secret.
        total += with_tx!(db, |conn| {
            let mut count = 0;
            for (mesh, revision) in &old {
                // It may have been written again since it was found.
                let row = state_entries::table
                    .filter(state_entries::mesh_id.eq(mesh))
                    .filter(state_entries::revision.eq(revision))
                    .filter(state_entries::deleted);
                let gone = diesel::delete(row).execute(conn).await?;
                count += gone;
                let gone = i64::try_from(gone).unwrap_or(0);
                let head = state_heads::table.find(mesh);
                diesel::update(head)
                    .set(state_heads::tombstones.eq(state_heads::tombstones - gone))
                    .execute(conn)
                    .await?;
                diesel::update(head.filter(state_heads::forgotten_revision.lt(revision)))
                    .set(state_heads::forgotten_revision.eq(revision))
                    .execute(conn)
                    .await?;
            }
            count
        });
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
