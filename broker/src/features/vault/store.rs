//! `vault_entries`: what clients have sealed, and what they say about it.

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::features::vault::EntryType;
use claudemesh_protocol::features::vault::limits::MAX_PAGE_BYTES;
use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::limits::{BYTES_PER_MEMBER, BYTES_PER_MESH, PER_MEMBER, PER_MESH};
use super::schema::vault_entries;
use crate::audit::Audit;
use crate::db::{DbError, MeshDb};
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;
use crate::search::index::IndexConnection;
use crate::{tx_write, with_conn};

/// An entry as stored.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = vault_entries, primary_key(mesh_id, member_id, name), treat_none_as_null = true)]
pub struct Row {
    /// Mesh.
    pub mesh_id: String,
    /// Whose it is.
    pub member_id: String,
    /// Its name.
    pub name: String,
    /// See [`EntryType`].
    pub entry_type: String,
    /// Path at which a service finds a file.
    pub mount_path: Option<String>,
    /// What it is, for people.
    pub description: Option<String>,
    /// The sealed value in base64.
    pub ciphertext: String,
    /// In base64.
    pub nonce: String,
    /// The key of the value, sealed for the member; in base64.
    pub sealed_key: String,
    /// Of the member's key over the entry, in hex.
    pub signature: Option<String>,
    /// Unix milliseconds, by the client's clock.
    pub signed_at_ms: Option<i64>,
    /// Bytes of the sealed value and the description.
    pub size_bytes: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

impl Row {
    /// What it is for.
    pub fn entry_type(&self) -> EntryType {
        EntryType::ALL.into_iter().find(|one| one.as_str() == self.entry_type).unwrap_or_default()
    }
}

/// An entry without its value.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable)]
#[diesel(table_name = vault_entries)]
pub struct Label {
    /// Whose it is.
    pub member_id: String,
    /// Its name.
    pub name: String,
    /// See [`EntryType`].
    pub entry_type: String,
    /// Path at which a service finds a file.
    pub mount_path: Option<String>,
    /// What it is, for people.
    pub description: Option<String>,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

/// An entry to store, for the member in it.
#[derive(Clone, Debug)]
pub struct New {
    /// The entry; its mesh is set when it is stored.
    pub row: Row,
    /// What may be kept.
    pub quotas: Quotas,
}

/// Which entry to delete, and who asks for it.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Whose it is.
    pub of: MemberId,
    /// Its name.
    pub name: String,
    /// Who deletes it.
    pub member: MemberId,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// Why a write changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// A bound is hit.
    Limit(Bound),
}

impl From<Bound> for WriteError<Refused> {
    fn from(bound: Bound) -> Self {
        Self::Refused(Refused::Limit(bound))
    }
}

/// What a mesh, or a member of it, has in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// How many entries.
    pub entries: i64,
    /// Their bytes.
    pub bytes: i64,
}

impl Usage {
    fn of<'a>(sizes: impl IntoIterator<Item = &'a (String, i64)>) -> Self {
        let add =
            |usage: Self, (_, bytes): &(String, i64)| Self { entries: usage.entries + 1, bytes: usage.bytes + bytes };
        sizes.into_iter().fold(Self::default(), add)
    }
}

/// Stores an entry in place of the one of this member and name, which is taken out of the file.
///
/// # Errors
/// [`Refused::Limit`], or storage fails.
pub async fn set(store: &MeshStore, new: New) -> Result<(), WriteError<Refused>> {
    let rows = 2 + new.row.ciphertext.len() / 4_096;
    tx_write!(store, rows: rows, (new), |conn, mesh| {
        let row = Row { mesh_id: mesh.to_string(), ..new.row.clone() };
        let place = vault_entries::table.find((mesh.as_str(), &row.member_id, &row.name));
        let before: Option<i64> = place.select(vault_entries::size_bytes).first(conn).await.optional()?;
        let sizes: Vec<(String, i64)> = vault_entries::table
            .filter(vault_entries::mesh_id.eq(mesh.as_str()))
            .select((vault_entries::member_id, vault_entries::size_bytes))
            .load(conn)
            .await?;
        let whole = Usage::of(&sizes);
        let own = Usage::of(sizes.iter().filter(|(of, _)| *of == row.member_id));
        let (more, growth) = (i64::from(before.is_none()), row.size_bytes - before.unwrap_or(0));
        new.quotas.growth(&PER_MESH, whole.entries, whole.entries + more)?;
        new.quotas.growth(&PER_MEMBER, own.entries, own.entries + more)?;
        new.quotas.growth(&BYTES_PER_MESH, whole.bytes, whole.bytes + growth)?;
        new.quotas.growth(&BYTES_PER_MEMBER, own.bytes, own.bytes + growth)?;
        if before.is_some() {
            conn.erasing().await?;
            diesel::delete(place).execute(conn).await?;
        }
        let payload = json!({"key": row.name, "type": row.entry_type, "replaced": before.is_some()});
        let audit = Audit::entry("vault_stored", Some(&MemberId::from(row.member_id.as_str())), payload, row.updated_at_ms);
        diesel::insert_into(vault_entries::table).values(row).execute(conn).await?;
        Ok(((), audit))
    })
}

/// Deletes an entry, and what was on the pages of SQLite's file. `false`: there is none.
///
/// # Errors
/// Storage fails.
pub async fn delete(store: &MeshStore, removal: Removal) -> Result<bool, DbError> {
    let written: Result<bool, WriteError> = tx_write!(store, rows: 2, (removal), |conn, mesh| {
        conn.erasing().await?;
        let place = vault_entries::table.find((mesh.as_str(), removal.of.as_str(), &removal.name));
        let gone = diesel::delete(place).execute(conn).await? > 0;
        let payload = || json!({"key": removal.name, "of": removal.of});
        let audit = || Audit::entry("vault_deleted", Some(&removal.member), payload(), removal.now_ms);
        Ok((gone, if gone { audit() } else { Audit::Unaudited("nothing was changed") }))
    });
    Ok(written?)
}

/// A part of what was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Entries in the order of their names.
    pub rows: Vec<Row>,
    /// Names of those that did not fit.
    pub more: Vec<String>,
}

/// The entries of a member under these names, those that are there: of [`MAX_PAGE_BYTES`] together but at least one.
///
/// # Errors
/// Storage fails.
pub async fn get(db: &MeshDb, member: &MemberId, names: &[String]) -> Result<Found, DbError> {
    let wanted = vault_entries::table
        .filter(vault_entries::mesh_id.eq(db.mesh().as_str()))
        .filter(vault_entries::member_id.eq(member.as_str()))
        .filter(vault_entries::name.eq_any(names));
    let mut sizes: Vec<(String, i64)> = with_conn!(db.db(), |conn| wanted
        .order(vault_entries::name)
        .select((vault_entries::name, vault_entries::size_bytes))
        .load(conn)
        .await?);
    let mut bytes = 0_usize;
    let mut fits = |(at, (_, size)): (usize, &(String, i64))| {
        // In base64, with the other fields.
        bytes += usize::try_from(*size).unwrap_or(0) / 3 * 4 + 1_024;
        at == 0 || bytes <= MAX_PAGE_BYTES
    };
    let shown = sizes.iter().enumerate().take_while(|row| fits(*row)).count();
    let more: Vec<String> = sizes.split_off(shown).into_iter().map(|(name, _)| name).collect();
    let names: Vec<String> = sizes.into_iter().map(|(name, _)| name).collect();
    let rows: Vec<Row> = with_conn!(db.db(), |conn| vault_entries::table
        .filter(vault_entries::mesh_id.eq(db.mesh().as_str()))
        .filter(vault_entries::member_id.eq(member.as_str()))
        .filter(vault_entries::name.eq_any(&names))
        .order(vault_entries::name)
        .select(Row::as_select())
        .load(conn)
        .await?);
    Ok(Found { rows, more })
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Label>,
    /// The last of them, when there are more behind it: member and name.
    pub next: Option<(String, String)>,
}

/// Names of one member or of all, behind a member and a name.
///
/// # Errors
/// Storage fails.
pub async fn list(
    db: &MeshDb,
    of: Option<&MemberId>,
    behind: Option<&(String, String)>,
    limit: u32,
) -> Result<Page, DbError> {
    let mut rows: Vec<Label> = with_conn!(db.db(), |conn| {
        let mut wanted = vault_entries::table
            .filter(vault_entries::mesh_id.eq(db.mesh().as_str()))
            .select(Label::as_select())
            .order((vault_entries::member_id, vault_entries::name))
            .limit(i64::from(limit) + 1)
            .into_boxed();
        if let Some(member) = of {
            wanted = wanted.filter(vault_entries::member_id.eq(member.as_str()));
        }
        if let Some((member, name)) = behind {
            let later = vault_entries::member_id.eq(member).and(vault_entries::name.gt(name));
            wanted = wanted.filter(vault_entries::member_id.gt(member).or(later));
        }
        wanted.load(conn).await?
    });
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|row| (row.member_id.clone(), row.name.clone()));
    Ok(Page { rows, next })
}

/// What the mesh, or a member of it, has in all.
///
/// # Errors
/// Storage fails.
pub async fn usage(db: &MeshDb, member: Option<&MemberId>) -> Result<Usage, DbError> {
    let sizes: Vec<(String, i64)> = with_conn!(db.db(), |conn| vault_entries::table
        .filter(vault_entries::mesh_id.eq(db.mesh().as_str()))
        .select((vault_entries::member_id, vault_entries::size_bytes))
        .load(conn)
        .await?);
    Ok(Usage::of(sizes.iter().filter(|(of, _)| member.is_none_or(|member| of == member.as_str()))))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
