//! From a reservation to a file that can be read.

use claudemesh_protocol::features::files::limits::UPLOAD_IDLE_S;
use claudemesh_protocol::id::{FileId, MemberId};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::removing::remove_rows;
use super::{Change, Part, Refused, Row, Usage, change_totals};
use crate::audit::Audit;
use crate::db::{DbError, MeshDb};
use crate::features::files::limits::{BYTES_PER_MEMBER, BYTES_PER_MESH, PER_MEMBER, PER_MESH, UPLOADS_PER_MEMBER};
use crate::features::files::schema::{file_keys, file_parts, file_readers, file_totals, files};
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;
use crate::{tx_write, with_conn};

/// Parts that one file may have: at 2 MiB each far more than the largest file.
const MAX_PARTS: i64 = 16_384;
/// An upload without a byte for so long is given up, in milliseconds.
pub const UPLOAD_IDLE_MS: i64 = UPLOAD_IDLE_S as i64 * 1_000;

/// An upload to begin.
#[derive(Clone, Debug, Default)]
pub struct New {
    /// The row, without what comes later.
    pub row: Row,
    /// Whom it is for.
    pub readers: Vec<String>,
    /// Members that its key is sealed for: public key, member, sealed key.
    pub keys: Vec<(String, String, String)>,
    /// What may be kept.
    pub quotas: Quotas,
}

/// A part that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPart {
    /// Its name in the store.
    pub object: String,
    /// Its bytes.
    pub size: u64,
}

/// What an upload is finished with.
#[derive(Clone, Debug)]
pub struct Finishing {
    /// Which.
    pub file: FileId,
    /// Who asks.
    pub member: MemberId,
    /// What the client says.
    pub sha256: String,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Finished {
    /// It can be read; it could before (`true`).
    Ready(Box<Row>, bool),
    /// Its bytes have another hash: it is gone, and these objects have to go.
    OtherHash(Vec<String>),
}

fn whole(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Reserves room for an upload, or finds the one that this client began before under its id.
///
/// # Errors
/// [`Refused::Limit`], or storage fails.
pub async fn start(store: &MeshStore, new: New) -> Result<Row, WriteError<Refused>> {
    let rows = 2 + new.keys.len() / 8;
    tx_write!(store, rows: rows, (new), |conn, mesh| {
        let before: Option<Row> = files::table
            .filter(files::mesh_id.eq(mesh.as_str()))
            .filter(files::owner_id.eq(&new.row.owner_id))
            .filter(files::client_upload_id.eq(&new.row.client_upload_id))
            .select(Row::as_select())
            .first(conn)
            .await
            .optional()?;
        if let Some(before) = before {
            return Ok((before, Audit::Unaudited("nothing was changed")));
        }
        let quotas = &new.quotas;
        let bytes = new.row.size_bytes;
        let used = |member| file_totals::table.find((mesh.as_str(), member)).select(Usage::as_select());
        let whole: Usage = used("").first(conn).await.optional()?.unwrap_or_default();
        let own: Usage = used(new.row.owner_id.as_str()).first(conn).await.optional()?.unwrap_or_default();
        quotas.growth(&UPLOADS_PER_MEMBER, own.uploads, own.uploads + 1)?;
        quotas.growth(&PER_MESH, whole.files, whole.files + 1)?;
        quotas.growth(&PER_MEMBER, own.files, own.files + 1)?;
        quotas.growth(&BYTES_PER_MESH, whole.bytes, whole.bytes.saturating_add(bytes))?;
        quotas.growth(&BYTES_PER_MEMBER, own.bytes, own.bytes.saturating_add(bytes))?;
        let row = Row {
            mesh_id: mesh.to_string(),
            expires_at_ms: Some(new.row.created_at_ms.saturating_add(UPLOAD_IDLE_MS)),
            ..new.row.clone()
        };
        diesel::insert_into(files::table).values(&row).execute(conn).await?;
        for reader in &new.readers {
            let place = (
                file_readers::mesh_id.eq(mesh.as_str()),
                file_readers::file_id.eq(&row.id),
                file_readers::reader.eq(reader),
            );
            diesel::insert_into(file_readers::table).values(place).on_conflict_do_nothing().execute(conn).await?;
        }
        for (pubkey, member, sealed) in &new.keys {
            let key = (
                file_keys::mesh_id.eq(mesh.as_str()),
                file_keys::file_id.eq(&row.id),
                file_keys::pubkey.eq(pubkey),
                file_keys::member_id.eq(member),
                file_keys::sealed_key.eq(sealed),
            );
            diesel::insert_into(file_keys::table).values(key).on_conflict_do_nothing().execute(conn).await?;
        }
        change_totals!(conn, mesh.as_str(), row.owner_id.as_str(), Change { files: 1, uploads: 1, bytes });
        Ok((row, Audit::Unaudited("no one sees an upload before it is finished")))
    })
}

/// An upload of a member, finished or not.
///
/// # Errors
/// Storage fails.
pub async fn upload(db: &MeshDb, file: &FileId, owner: &MemberId) -> Result<Option<Row>, DbError> {
    Ok(with_conn!(db.db(), |conn| files::table
        .find((db.mesh().as_str(), file.as_str()))
        .filter(files::owner_id.eq(owner.as_str()))
        .select(Row::as_select())
        .first(conn)
        .await
        .optional()?))
}

/// Adds parts to an upload behind the bytes that it has; gives back how many it has now.
///
/// # Errors
/// [`Refused::Missing`] when there is no such upload any more, [`Refused::Offset`] when it has other bytes,
/// [`Refused::TooMany`], or storage fails.
pub async fn append(
    store: &MeshStore,
    file: FileId,
    offset: u64,
    parts: Vec<NewPart>,
    now_ms: i64,
) -> Result<u64, WriteError<Refused>> {
    let rows = 1 + parts.len() / 8;
    tx_write!(store, rows: rows, (file, offset, parts, now_ms), |conn, mesh| {
        let refused = WriteError::Refused;
        let place = files::table.find((mesh.as_str(), file.as_str()));
        let row: Option<Row> = place.select(Row::as_select()).first(conn).await.optional()?;
        let row = row.filter(|row| row.ready_at_ms.is_none()).ok_or(refused(Refused::Missing))?;
        if row.received() != *offset {
            return Err(refused(Refused::Offset(row.received())));
        }
        let of_file = file_parts::table
            .filter(file_parts::mesh_id.eq(mesh.as_str()))
            .filter(file_parts::file_id.eq(file.as_str()));
        let count: i64 = of_file.count().get_result(conn).await?;
        if count.saturating_add(i64::try_from(parts.len()).unwrap_or(i64::MAX)) > MAX_PARTS {
            return Err(refused(Refused::TooMany("parts")));
        }
        let mut start_at = row.received_bytes;
        let mut added = Vec::with_capacity(parts.len());
        for part in parts {
            let size_bytes = whole(part.size);
            let object = part.object.clone();
            let (mesh_id, file_id) = (mesh.to_string(), file.to_string());
            added.push(Part { mesh_id, file_id, start_at, size_bytes, object });
            start_at = start_at.saturating_add(size_bytes);
        }
        for row in &added {
            diesel::insert_into(file_parts::table).values(row).execute(conn).await?;
        }
        let progress = (
            files::received_bytes.eq(start_at),
            files::expires_at_ms.eq(now_ms.saturating_add(UPLOAD_IDLE_MS)),
            files::sha256.eq(None::<String>),
        );
        diesel::update(place).set(progress).execute(conn).await?;
        Ok((start_at.max(0).unsigned_abs(), Audit::Unaudited("no one sees an upload before it is finished")))
    })
}

/// All bytes of an upload are there: notes their hash, and gives back what was reserved for more.
///
/// # Errors
/// [`Refused::Missing`], [`Refused::Offset`], [`Refused::Incomplete`], or storage fails.
pub async fn complete(store: &MeshStore, file: FileId, bytes: u64, sha256: String) -> Result<(), WriteError<Refused>> {
    tx_write!(store, (file, bytes, sha256), |conn, mesh| {
        let refused = WriteError::Refused;
        let place = files::table.find((mesh.as_str(), file.as_str()));
        let row: Option<Row> = place.select(Row::as_select()).first(conn).await.optional()?;
        let row = row.filter(|row| row.ready_at_ms.is_none()).ok_or(refused(Refused::Missing))?;
        if row.received() != *bytes {
            return Err(refused(Refused::Offset(row.received())));
        }
        if row.size_bytes != row.received_bytes && !row.at_most {
            return Err(refused(Refused::Incomplete));
        }
        let end = (files::sha256.eq(Some(sha256)), files::size_bytes.eq(row.received_bytes));
        diesel::update(place).set(end).execute(conn).await?;
        let bytes = row.received_bytes - row.size_bytes;
        if bytes != 0 {
            change_totals!(conn, mesh.as_str(), row.owner_id.as_str(), Change { bytes, ..Change::default() });
        }
        Ok(((), Audit::Unaudited("no one sees an upload before it is finished")))
    })
}

/// Makes an upload a file, if its bytes have the hash that the client names. Otherwise it is removed.
///
/// # Errors
/// [`Refused::Missing`], [`Refused::Incomplete`], [`Refused::OtherHash`] when it is finished with another one, or storage fails.
pub async fn finish(store: &MeshStore, finishing: Finishing) -> Result<Finished, WriteError<Refused>> {
    tx_write!(store, rows: 2, (finishing), |conn, mesh| {
        let refused = WriteError::Refused;
        let place = files::table.find((mesh.as_str(), finishing.file.as_str()));
        let row: Option<Row> = place.select(Row::as_select()).first(conn).await.optional()?;
        let own = |row: &Row| row.owner_id == finishing.member.as_str();
        let mut row = row.filter(own).ok_or(refused(Refused::Missing))?;
        let hash = row.sha256.clone().ok_or(refused(Refused::Incomplete))?;
        let same = hash == finishing.sha256;
        if row.ready_at_ms.is_some() {
            let before = Finished::Ready(Box::new(row), true);
            return if same { Ok((before, Audit::Unaudited("nothing was changed"))) } else { Err(refused(Refused::OtherHash)) };
        }
        if row.size_bytes != row.received_bytes {
            return Err(refused(Refused::Incomplete));
        }
        if !same {
            let objects = remove_rows!(conn, mesh.as_str(), &row);
            return Ok((Finished::OtherHash(objects), Audit::Unaudited("no one saw this upload")));
        }
        row.ready_at_ms = Some(finishing.now_ms);
        row.expires_at_ms = (!row.persistent).then(|| finishing.now_ms.saturating_add(row.ttl_ms));
        let ready = (files::ready_at_ms.eq(row.ready_at_ms), files::expires_at_ms.eq(row.expires_at_ms));
        diesel::update(place).set(ready).execute(conn).await?;
        let change = Change { uploads: -1, ..Change::default() };
        change_totals!(conn, mesh.as_str(), row.owner_id.as_str(), change);
        let payload = json!({
            "file": row.id,
            "size": row.size_bytes,
            "sha256": hash,
            "encrypted": row.encryption.is_some(),
            "persistent": row.persistent,
            "targets": serde_json::from_str::<serde_json::Value>(&row.targets).unwrap_or_default(),
        });
        let audit = Audit::entry("file_shared", Some(&finishing.member), payload, finishing.now_ms);
        Ok((Finished::Ready(Box::new(row), false), audit))
    })
}
