//! Who may read a file, who has read it, and what a member sees of all files.

use claudemesh_protocol::features::files::limits::{MAX_ACCESSES, MAX_READERS};
use claudemesh_protocol::id::{FileId, MemberId};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::{Refused, Row, member_reader, revoked_reader};
use crate::audit::Audit;
use crate::db::{DbError, MeshDb};
use crate::features::files::schema::{file_accesses, file_keys, file_readers, files};
use crate::journal::{MeshStore, WriteError};
use crate::{tx_write, with_conn};

/// Rows of the access log that are kept of a file.
const ACCESSES: i64 = MAX_ACCESSES as i64;

/// Who looks.
#[derive(Clone, Debug, Default)]
pub struct Viewer {
    /// Its id.
    pub member: String,
    /// What it is as a reader: `*`, itself, its groups and those above them.
    pub readers: Vec<String>,
    /// Its keys, in hex: the session's, then the member's.
    pub keys: Vec<String>,
    /// It manages the files of others.
    pub manages: bool,
}

impl Viewer {
    /// Whether a file that is for `readers` is for this one, too.
    fn is_meant(&self, row: &Row, readers: &[String]) -> bool {
        let revoked = revoked_reader(&self.member.as_str().into());
        row.owner_id == self.member
            || (readers.iter().any(|reader| self.readers.contains(reader)) && !readers.contains(&revoked))
    }

    fn owns(&self, row: &Row) -> bool {
        row.owner_id == self.member || self.manages
    }
}

/// A row of the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = file_accesses)]
pub struct Access {
    mesh_id: String,
    file_id: String,
    number: i64,
    /// Who.
    pub member_id: String,
    /// Name of the session or member at that time.
    pub peer_name: String,
    /// Unix milliseconds.
    pub accessed_at_ms: i64,
}

/// A file that someone may read.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The file.
    pub row: Row,
    /// The key that its key is sealed for, and the sealed key.
    pub sealed: Option<(String, String)>,
}

/// One more reader.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Of which file.
    pub file: FileId,
    /// Who grants it.
    pub by: Viewer,
    /// The member that gets access.
    pub member: MemberId,
    /// The key that is granted for, in hex.
    pub pubkey: String,
    /// The file's key, sealed for it.
    pub sealed_key: Option<String>,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// A grant that is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Granted {
    /// The file.
    pub row: Row,
    /// It changed something.
    pub changed: bool,
}

/// One reader less.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// Of which file.
    pub file: FileId,
    /// Who takes it away.
    pub by: Viewer,
    /// The member that loses access.
    pub from: Viewer,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// Who may read a file, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Readers {
    /// The file.
    pub row: Row,
    /// Readers and those whose access was revoked.
    pub readers: Vec<String>,
    /// Members and public keys that the file's key is sealed for.
    pub keys: Vec<(String, String)>,
}

/// Lets a reader have a file, and notes it in the access log.
///
/// # Errors
/// [`Refused::Missing`], [`Refused::NotFor`], [`Refused::NoKey`], or storage fails.
pub async fn open(
    store: &MeshStore,
    file: FileId,
    viewer: Viewer,
    name: String,
    now_ms: i64,
) -> Result<Opened, WriteError<Refused>> {
    tx_write!(store, (file, viewer, name, now_ms), |conn, mesh| {
        let refused = WriteError::Refused;
        let place = files::table.find((mesh.as_str(), file.as_str()));
        let row: Option<Row> = place.select(Row::as_select()).first(conn).await.optional()?;
        let row = row.filter(|row| row.is_ready(*now_ms)).ok_or(refused(Refused::Missing))?;
        let readers: Vec<String> = file_readers::table
            .filter(file_readers::mesh_id.eq(mesh.as_str()))
            .filter(file_readers::file_id.eq(file.as_str()))
            .select(file_readers::reader)
            .load(conn)
            .await?;
        if !viewer.is_meant(&row, &readers) {
            return Err(refused(Refused::NotFor));
        }
        let mut keys: Vec<(String, String)> = file_keys::table
            .filter(file_keys::mesh_id.eq(mesh.as_str()))
            .filter(file_keys::file_id.eq(file.as_str()))
            .filter(file_keys::pubkey.eq_any(&viewer.keys))
            .select((file_keys::pubkey, file_keys::sealed_key))
            .load(conn)
            .await?;
        let sealed = preferred(viewer, &mut keys);
        if row.encryption.is_some() && sealed.is_none() && row.owner_id != viewer.member {
            return Err(refused(Refused::NoKey(Box::new(row))));
        }
        let of_file = file_accesses::table
            .filter(file_accesses::mesh_id.eq(mesh.as_str()))
            .filter(file_accesses::file_id.eq(file.as_str()));
        let last: Option<i64> = of_file.select(diesel::dsl::max(file_accesses::number)).first(conn).await?;
        let access = Access {
            mesh_id: mesh.to_string(),
            file_id: file.to_string(),
            number: last.unwrap_or(0) + 1,
            member_id: viewer.member.clone(),
            peer_name: name.clone(),
            accessed_at_ms: *now_ms,
        };
        diesel::insert_into(file_accesses::table).values(&access).execute(conn).await?;
        diesel::delete(of_file.filter(file_accesses::number.le(access.number - ACCESSES))).execute(conn).await?;
        Ok((Opened { row, sealed }, Audit::Unaudited("reading changes nothing that is shared")))
    })
}

/// Of the keys that a viewer has, the one of its session, else the one of its member.
pub(super) fn preferred(viewer: &Viewer, keys: &mut Vec<(String, String)>) -> Option<(String, String)> {
    let at = viewer.keys.iter().find_map(|own| keys.iter().position(|(key, _)| key == own))?;
    Some(keys.swap_remove(at))
}

/// A file that a member had a ticket for, if it can still be read and its access was not revoked.
///
/// # Errors
/// Storage fails.
pub async fn readable(db: &MeshDb, file: &FileId, member: &MemberId, now_ms: i64) -> Result<Option<Row>, DbError> {
    let mesh = db.mesh().as_str();
    let row: Option<Row> = with_conn!(db.db(), |conn| files::table
        .find((mesh, file.as_str()))
        .select(Row::as_select())
        .first(conn)
        .await
        .optional()?);
    let Some(row) = row.filter(|row| row.is_ready(now_ms)) else { return Ok(None) };
    let revoked = revoked_reader(member);
    let marks: i64 = with_conn!(db.db(), |conn| file_readers::table
        .find((mesh, file.as_str(), &revoked))
        .count()
        .get_result(conn)
        .await?);
    Ok((marks == 0).then_some(row))
}

/// The row and the readers of a file that can be read.
async fn seen(db: &MeshDb, file: &FileId, now_ms: i64) -> Result<Option<(Row, Vec<String>)>, DbError> {
    let mesh = db.mesh().as_str();
    let row: Option<Row> = with_conn!(db.db(), |conn| files::table
        .find((mesh, file.as_str()))
        .select(Row::as_select())
        .first(conn)
        .await
        .optional()?);
    let Some(row) = row.filter(|row| row.is_ready(now_ms)) else { return Ok(None) };
    let readers = with_conn!(db.db(), |conn| file_readers::table
        .filter(file_readers::mesh_id.eq(mesh))
        .filter(file_readers::file_id.eq(file.as_str()))
        .order(file_readers::reader)
        .select(file_readers::reader)
        .load(conn)
        .await?);
    Ok(Some((row, readers)))
}

/// The access log of a file, the newest first, for those who may read it and those who manage files.
///
/// # Errors
/// [`Refused::Missing`], also for those who may not see it; or storage fails.
pub async fn accesses(
    db: &MeshDb,
    file: &FileId,
    viewer: &Viewer,
    now_ms: i64,
) -> Result<Vec<Access>, WriteError<Refused>> {
    let found = seen(db, file, now_ms).await?;
    let allowed = |(row, readers): &(Row, Vec<String>)| viewer.is_meant(row, readers) || viewer.manages;
    found.filter(allowed).ok_or(WriteError::Refused(Refused::Missing))?;
    let read = async || -> Result<Vec<Access>, DbError> {
        Ok(with_conn!(db.db(), |conn| file_accesses::table
            .filter(file_accesses::mesh_id.eq(db.mesh().as_str()))
            .filter(file_accesses::file_id.eq(file.as_str()))
            .order(file_accesses::number.desc())
            .limit(ACCESSES)
            .select(Access::as_select())
            .load(conn)
            .await?))
    };
    Ok(read().await?)
}

/// Who may read a file, for its owner and those who manage files.
///
/// # Errors
/// [`Refused::Missing`], [`Refused::Foreign`], or storage fails.
pub async fn readers(db: &MeshDb, file: &FileId, viewer: &Viewer, now_ms: i64) -> Result<Readers, WriteError<Refused>> {
    let found = seen(db, file, now_ms).await?;
    let (row, readers) = found.ok_or(WriteError::Refused(Refused::Missing))?;
    if !viewer.owns(&row) {
        let refused = if viewer.is_meant(&row, &readers) { Refused::Foreign } else { Refused::Missing };
        return Err(WriteError::Refused(refused));
    }
    let read = async || -> Result<Vec<(String, String)>, DbError> {
        Ok(with_conn!(db.db(), |conn| file_keys::table
            .filter(file_keys::mesh_id.eq(db.mesh().as_str()))
            .filter(file_keys::file_id.eq(file.as_str()))
            .order(file_keys::pubkey)
            .select((file_keys::member_id, file_keys::pubkey))
            .load(conn)
            .await?))
    };
    let keys = read().await?;
    Ok(Readers { row, readers, keys })
}

/// Lets one more member read a file.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn grant(store: &MeshStore, grant: Grant) -> Result<Granted, WriteError<Refused>> {
    tx_write!(store, rows: 2, (grant), |conn, mesh| {
        let refused = WriteError::Refused;
        let place = files::table.find((mesh.as_str(), grant.file.as_str()));
        let row: Option<Row> = place.select(Row::as_select()).first(conn).await.optional()?;
        let row = row.filter(|row| row.is_ready(grant.now_ms)).ok_or(refused(Refused::Missing))?;
        if !grant.by.owns(&row) {
            return Err(refused(Refused::Foreign));
        }
        match (&row.encryption, &grant.sealed_key) {
            (None, Some(_)) => return Err(refused(Refused::NotSealed)),
            (Some(_), None) => return Err(refused(Refused::KeyWanted)),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let of_file = file_readers::table
            .filter(file_readers::mesh_id.eq(mesh.as_str()))
            .filter(file_readers::file_id.eq(grant.file.as_str()));
        let count: i64 = of_file.count().get_result(conn).await?;
        if count >= i64::try_from(MAX_READERS).unwrap_or(i64::MAX) {
            return Err(refused(Refused::TooMany("readers")));
        }
        let mark = of_file.filter(file_readers::reader.eq(revoked_reader(&grant.member)));
        let mut changed = diesel::delete(mark).execute(conn).await?;
        let reader = (
            file_readers::mesh_id.eq(mesh.as_str()),
            file_readers::file_id.eq(grant.file.as_str()),
            file_readers::reader.eq(member_reader(&grant.member)),
        );
        changed +=
            diesel::insert_into(file_readers::table).values(reader).on_conflict_do_nothing().execute(conn).await?;
        if let Some(sealed) = &grant.sealed_key {
            let key = (
                file_keys::mesh_id.eq(mesh.as_str()),
                file_keys::file_id.eq(grant.file.as_str()),
                file_keys::pubkey.eq(&grant.pubkey),
                file_keys::member_id.eq(grant.member.as_str()),
                file_keys::sealed_key.eq(sealed),
            );
            let place = (file_keys::mesh_id, file_keys::file_id, file_keys::pubkey);
            changed += diesel::insert_into(file_keys::table)
                .values(key)
                .on_conflict(place)
                .do_update()
                .set((file_keys::sealed_key.eq(sealed), file_keys::member_id.eq(grant.member.as_str())))
                .execute(conn)
                .await?;
        }
        let audit = Audit::when(changed > 0, || {
            let payload = json!({"file": row.id, "owner": row.owner_id, "member": grant.member});
            Audit::entry("file_granted", Some(&grant.by.member.as_str().into()), payload, grant.now_ms)
        });
        Ok((Granted { row, changed: changed > 0 }, audit))
    })
}

/// Takes a file away from a member; gives back the file and whether the member could read it until now.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn revoke(store: &MeshStore, revocation: Revocation) -> Result<(Row, bool), WriteError<Refused>> {
    tx_write!(store, rows: 2, (revocation), |conn, mesh| {
        let refused = WriteError::Refused;
        let place = files::table.find((mesh.as_str(), revocation.file.as_str()));
        let row: Option<Row> = place.select(Row::as_select()).first(conn).await.optional()?;
        let row = row.filter(|row| row.is_ready(revocation.now_ms)).ok_or(refused(Refused::Missing))?;
        if !revocation.by.owns(&row) {
            return Err(refused(Refused::Foreign));
        }
        if row.owner_id == revocation.from.member {
            return Err(refused(Refused::OfOwner));
        }
        let from: MemberId = revocation.from.member.as_str().into();
        let of_file = file_readers::table
            .filter(file_readers::mesh_id.eq(mesh.as_str()))
            .filter(file_readers::file_id.eq(revocation.file.as_str()));
        let readers: Vec<String> = of_file.select(file_readers::reader).load(conn).await?;
        let could_read = revocation.from.is_meant(&row, &readers);
        diesel::delete(of_file.filter(file_readers::reader.eq(member_reader(&from)))).execute(conn).await?;
        let keys = file_keys::table
            .filter(file_keys::mesh_id.eq(mesh.as_str()))
            .filter(file_keys::file_id.eq(revocation.file.as_str()))
            .filter(file_keys::member_id.eq(from.as_str()));
        diesel::delete(keys).execute(conn).await?;
        let mark = (
            file_readers::mesh_id.eq(mesh.as_str()),
            file_readers::file_id.eq(revocation.file.as_str()),
            file_readers::reader.eq(revoked_reader(&from)),
        );
        let marked =
            diesel::insert_into(file_readers::table).values(mark).on_conflict_do_nothing().execute(conn).await?;
        let audit = Audit::when(marked > 0, || {
            let payload = json!({"file": row.id, "owner": row.owner_id, "member": from});
            Audit::entry("file_revoked", Some(&revocation.by.member.as_str().into()), payload, revocation.now_ms)
        });
        Ok(((row, could_read), audit))
    })
}
