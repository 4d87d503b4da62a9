//! `streams` and the tables around it: what each stream keeps, its entries, and how far its consumers are.

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::features::streams::limits::MAX_PAGE_BYTES;
use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::limits::{BYTES_PER_MESH, PER_MEMBER, PER_MESH};
use super::schema::{stream_consumers, stream_entries, stream_heads, streams};
use crate::audit::Audit;
use crate::db::{Db, DbError, MeshDb};
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;
use crate::{tx_write, with_conn, with_tx};

mod consumers;

pub use self::consumers::{Consumer, move_consumers, open_consumer};

/// Entries that one step of the clean-up looks at.
const CHUNK: i64 = 500;

/// A stream as stored. Entries from `first_offset` up to `next_offset` are kept, without a hole.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = streams, primary_key(mesh_id, name))]
pub struct Stream {
    /// Mesh.
    pub mesh_id: String,
    /// Its name.
    pub name: String,
    /// Its id; another stream of the same name, made later, has another one.
    pub id: String,
    /// Member who made it.
    pub created_by: String,
    /// Name of its session.
    pub created_by_name: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Of the oldest entry that is kept.
    pub first_offset: i64,
    /// Of the next entry.
    pub next_offset: i64,
    /// Of the newest entry, in Unix milliseconds.
    pub published_at_ms: i64,
    /// Of the data that is kept.
    pub bytes: i64,
    /// Bound of the entries.
    pub keep_entries: i64,
    /// Bound of the bytes.
    pub keep_bytes: i64,
    /// Bound of the age, in milliseconds.
    pub keep_ms: i64,
}

/// An entry as stored.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = stream_entries)]
pub struct Entry {
    /// Mesh.
    pub mesh_id: String,
    /// Stream.
    pub stream_id: String,
    /// Its offset.
    pub place: i64,
    /// Compact JSON.
    pub data: String,
    /// Bytes of it.
    pub size_bytes: i64,
    /// Member who published it.
    pub published_by: String,
    /// Name of its session.
    pub published_by_name: String,
    /// The client's id of that session.
    pub session_id: String,
    /// Unix milliseconds; never less than that of the entry before.
    pub published_at_ms: i64,
}

/// An entry to publish.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEntry {
    /// Compact JSON.
    pub data: String,
    /// Member.
    pub by: String,
    /// Name of its session.
    pub by_name: String,
    /// The client's id of that session.
    pub session_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = stream_heads, primary_key(mesh_id))]
struct Head {
    mesh_id: String,
    streams: i64,
    bytes: i64,
}

/// Why a write changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// There is no such stream.
    Missing,
    /// It is not the caller's.
    Foreign,
    /// A bound is hit.
    Limit(Bound),
}

/// What the streams of a mesh hold in all. For use in a transaction.
macro_rules! head {
    ($conn:expr, $mesh:expr) => {{
        let head: Option<Head> =
            stream_heads::table.find($mesh.as_str()).select(Head::as_select()).first($conn).await.optional()?;
        head.unwrap_or_else(|| Head { mesh_id: $mesh.to_string(), ..Head::default() })
    }};
}

macro_rules! put_head {
    ($conn:expr, $head:expr) => {
        diesel::insert_into(stream_heads::table)
            .values(&$head)
            .on_conflict(stream_heads::mesh_id)
            .do_update()
            .set(&$head)
            .execute($conn)
            .await?
    };
}

/// Refuses one stream more than there may be. For use in a transaction.
macro_rules! room_for_one {
    ($conn:expr, $mesh:expr, $head:expr, $stream:expr, $quotas:expr) => {{
        let own: i64 = streams::table
            .filter(streams::mesh_id.eq($mesh.as_str()))
            .filter(streams::created_by.eq(&$stream.created_by))
            .count()
            .get_result($conn)
            .await?;
        $quotas
            .growth(&PER_MESH, $head.streams, $head.streams + 1)
            .and_then(|()| $quotas.growth(&PER_MEMBER, own, own + 1))
    }};
}

fn created(stream: &Stream) -> Audit {
    let payload = json!({"stream": stream.id, "name": stream.name});
    Audit::entry("stream_created", Some(&MemberId::from(stream.created_by.as_str())), payload, stream.created_at_ms)
}

/// Makes a stream, unless there is one of that name. Answers it, and whether it is new.
///
/// # Errors
/// [`Refused::Limit`], or storage fails.
pub async fn create(store: &MeshStore, new: Stream, quotas: Quotas) -> Result<(Stream, bool), WriteError<Refused>> {
    tx_write!(store, (new, quotas), |conn, mesh| {
        let known = streams::table.find((mesh.as_str(), &new.name)).select(Stream::as_select());
        let known: Option<Stream> = known.first(conn).await.optional()?;
        if let Some(known) = known {
            return Ok(((known, false), Audit::Unaudited("it exists")));
        }
        let mut head = head!(conn, mesh);
        room_for_one!(conn, mesh, head, new, quotas).map_err(|bound| WriteError::Refused(Refused::Limit(bound)))?;
        let new = Stream { mesh_id: mesh.to_string(), ..new.clone() };
        diesel::insert_into(streams::table).values(&new).execute(conn).await?;
        head.streams += 1;
        put_head!(conn, head);
        let audit = created(&new);
        Ok(((new, true), audit))
    })
}

/// Deletes a stream with all that belongs to it, if this member made it or manages those of others.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn delete(
    store: &MeshStore,
    name: String,
    by: MemberId,
    manages: bool,
    now_ms: i64,
) -> Result<Stream, WriteError<Refused>> {
    tx_write!(store, (name, by, manages, now_ms), |conn, mesh| {
        let known = streams::table.find((mesh.as_str(), name)).select(Stream::as_select());
        let known: Option<Stream> = known.first(conn).await.optional()?;
        let stream = known.ok_or(WriteError::Refused(Refused::Missing))?;
        if stream.created_by != by.as_str() && !*manages {
            return Err(WriteError::Refused(Refused::Foreign));
        }
        diesel::delete(streams::table.find((mesh.as_str(), name))).execute(conn).await?;
        diesel::delete(
            stream_entries::table
                .filter(stream_entries::mesh_id.eq(mesh.as_str()))
                .filter(stream_entries::stream_id.eq(&stream.id)),
        )
        .execute(conn)
        .await?;
        diesel::delete(
            stream_consumers::table
                .filter(stream_consumers::mesh_id.eq(mesh.as_str()))
                .filter(stream_consumers::stream_id.eq(&stream.id)),
        )
        .execute(conn)
        .await?;
        let mut head = head!(conn, mesh);
        (head.streams, head.bytes) = (head.streams - 1, head.bytes - stream.bytes);
        put_head!(conn, head);
        let payload =
            json!({"stream": stream.id, "name": stream.name, "entries": stream.next_offset - stream.first_offset});
        let audit = Audit::entry("stream_deleted", Some(by), payload, *now_ms);
        Ok((stream, audit))
    })
}

/// What came of publishing.
#[derive(Clone, Debug, PartialEq)]
pub struct Appended {
    /// The stream now.
    pub stream: Stream,
    /// Of each entry, its place, or the bound that it went over.
    pub done: Vec<Result<i64, Bound>>,
}

/// How much of the beginning of a stream has to go. `old`: place, bytes and time of its oldest entries, in order.
fn too_much(stream: &Stream, old: &[(i64, i64, i64)], now_ms: i64) -> (usize, i64) {
    let (mut count, mut bytes) = (0, 0);
    for (place, size, at_ms) in old {
        let entries = stream.next_offset - place;
        let over = entries > stream.keep_entries || stream.bytes - bytes > stream.keep_bytes;
        if !over && now_ms - at_ms < stream.keep_ms {
            break;
        }
        (count, bytes) = (count + 1, bytes + size);
    }
    (count, bytes)
}

/// Removes what a stream no longer keeps. For use in a transaction.
macro_rules! trim {
    ($conn:expr, $stream:expr, $bytes:expr, $now_ms:expr) => {
        loop {
            let own = stream_entries::table
                .filter(stream_entries::mesh_id.eq(&$stream.mesh_id))
                .filter(stream_entries::stream_id.eq(&$stream.id));
            let old: Vec<(i64, i64, i64)> = own
                .order(stream_entries::place)
                .select((stream_entries::place, stream_entries::size_bytes, stream_entries::published_at_ms))
                .limit(CHUNK)
                .load($conn)
                .await?;
            let (count, bytes) = too_much(&$stream, &old, $now_ms);
            let Some((last, ..)) = count.checked_sub(1).and_then(|last| old.get(last)) else { break };
            diesel::delete(
                stream_entries::table
                    .filter(stream_entries::mesh_id.eq(&$stream.mesh_id))
                    .filter(stream_entries::stream_id.eq(&$stream.id))
                    .filter(stream_entries::place.le(last)),
            )
            .execute($conn)
            .await?;
            $stream.first_offset = last + 1;
            $stream.bytes -= bytes;
            $bytes -= bytes;
            if count < old.len() {
                break;
            }
        }
    };
}

/// Appends entries in order; makes the stream when there is none. What the stream keeps no longer goes.
///
/// # Errors
/// [`Refused::Limit`] when the stream cannot be made, or storage fails; then nothing is published. The second time is the one by
/// which it is decided what is too old.
pub async fn append(
    store: &MeshStore,
    new: Stream,
    entries: Vec<NewEntry>,
    (now_ms, believed_ms): (i64, i64),
    quotas: Quotas,
) -> Result<Appended, WriteError<Refused>> {
    let bytes: usize = entries.iter().map(|entry| entry.data.len()).sum();
    let rows = 1 + entries.len() / 4 + bytes / 4_096;
    tx_write!(store, rows: rows, (new, entries, now_ms, believed_ms, quotas), |conn, mesh| {
        let known = streams::table.find((mesh.as_str(), &new.name)).select(Stream::as_select());
        let known: Option<Stream> = known.first(conn).await.optional()?;
        let is_new = known.is_none();
        let mut head = head!(conn, mesh);
        let mut stream = match known {
            Some(stream) => stream,
            None => {
                room_for_one!(conn, mesh, head, new, quotas)
                    .map_err(|bound| WriteError::Refused(Refused::Limit(bound)))?;
                head.streams += 1;
                Stream { mesh_id: mesh.to_string(), ..new.clone() }
            }
        };
        stream.published_at_ms = stream.published_at_ms.max(*now_ms);
        let (mut rows, mut done) = (Vec::new(), Vec::new());
        for entry in entries {
            let size_bytes = i64::try_from(entry.data.len()).unwrap_or(i64::MAX);
            // What the stream lets go for it is not counted: one that is full goes on in a mesh that is full.
            let more = size_bytes.min((stream.keep_bytes - stream.bytes).max(0));
            if let Err(bound) = quotas.growth(&BYTES_PER_MESH, head.bytes, head.bytes + more) {
                done.push(Err(bound));
                continue;
            }
            done.push(Ok(stream.next_offset));
            rows.push(Entry {
                mesh_id: mesh.to_string(),
                stream_id: stream.id.clone(),
                place: stream.next_offset,
                data: entry.data.clone(),
                size_bytes,
                published_by: entry.by.clone(),
                published_by_name: entry.by_name.clone(),
                session_id: entry.session_id.clone(),
                published_at_ms: stream.published_at_ms,
            });
            (stream.next_offset, stream.bytes, head.bytes) =
                (stream.next_offset + 1, stream.bytes + size_bytes, head.bytes + size_bytes);
        }
        for row in &rows {
            diesel::insert_into(stream_entries::table).values(row).execute(conn).await?;
        }
        trim!(conn, stream, head.bytes, *believed_ms);
        diesel::insert_into(streams::table)
            .values(&stream)
            .on_conflict((streams::mesh_id, streams::name))
            .do_update()
            .set(&stream)
            .execute(conn)
            .await?;
        put_head!(conn, head);
        let audit = if is_new { created(&stream) } else { Audit::Unaudited("entries are like messages") };
        Ok((Appended { stream, done }, audit))
    })
}

/// The streams of a mesh by name.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &MeshDb) -> Result<Vec<Stream>, DbError> {
    Ok(with_conn!(db.db(), |conn| streams::table
        .filter(streams::mesh_id.eq(db.mesh().as_str()))
        .order(streams::name)
        .select(Stream::as_select())
        .load(conn)
        .await?))
}

/// A part of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The stream.
    pub stream: Stream,
    /// Its entries from the asked place on, without a hole between them; the first may come later than asked.
    pub entries: Vec<Entry>,
}

/// Entries from a place on: at most `limit`, of at most [`MAX_PAGE_BYTES`] together but at least one. `None`: no such stream.
///
/// # Errors
/// Storage fails.
pub async fn page(db: &MeshDb, name: &str, from: i64, limit: u32) -> Result<Option<Page>, DbError> {
    // Read first: what is published meanwhile is left for the next page.
    let stream: Option<Stream> = with_conn!(db.db(), |conn| streams::table
        .find((db.mesh().as_str(), name))
        .select(Stream::as_select())
        .first(conn)
        .await
        .optional()?);
    let Some(stream) = stream else { return Ok(None) };
    let sizes: Vec<(i64, i64)> = with_conn!(db.db(), |conn| stream_entries::table
        .filter(stream_entries::mesh_id.eq(db.mesh().as_str()))
        .filter(stream_entries::stream_id.eq(&stream.id))
        .filter(stream_entries::place.ge(from))
        .filter(stream_entries::place.lt(stream.next_offset))
        .order(stream_entries::place)
        .select((stream_entries::place, stream_entries::size_bytes))
        .limit(i64::from(limit))
        .load(conn)
        .await?);
    let mut bytes = 0_usize;
    let fits = |(at, (_, size)): &(usize, &(i64, i64))| {
        bytes = bytes.saturating_add(usize::try_from(*size).unwrap_or(0));
        *at == 0 || bytes <= MAX_PAGE_BYTES
    };
    let Some((_, (last, _))) = sizes.iter().enumerate().take_while(fits).last() else {
        return Ok(Some(Page { stream, entries: vec![] }));
    };
    let entries = with_conn!(db.db(), |conn| stream_entries::table
        .filter(stream_entries::mesh_id.eq(db.mesh().as_str()))
        .filter(stream_entries::stream_id.eq(&stream.id))
        .filter(stream_entries::place.ge(from))
        .filter(stream_entries::place.le(last))
        .order(stream_entries::place)
        .select(Entry::as_select())
        .load(conn)
        .await?);
    Ok(Some(Page { stream, entries }))
}

/// The place of the first entry of that time or later; that of the next one when all are older. `None`: no such stream.
///
/// # Errors
/// Storage fails.
pub async fn place_at(db: &MeshDb, name: &str, at_ms: i64) -> Result<Option<i64>, DbError> {
    let stream: Option<Stream> = with_conn!(db.db(), |conn| streams::table
        .find((db.mesh().as_str(), name))
        .select(Stream::as_select())
        .first(conn)
        .await
        .optional()?);
    let Some(stream) = stream else { return Ok(None) };
    // The times grow with the places.
    let (mut low, mut high) = (stream.first_offset, stream.next_offset);
    while low < high {
        let middle = low + (high - low) / 2;
        let time: Option<i64> = with_conn!(db.db(), |conn| stream_entries::table
            .find((db.mesh().as_str(), &stream.id, middle))
            .select(stream_entries::published_at_ms)
            .first(conn)
            .await
            .optional()?);
        // One that went meanwhile was older.
        if time.is_none_or(|time| time < at_ms) { low = middle + 1 } else { high = middle }
    }
    Ok(Some(low))
}

/// Removes what streams no longer keep because of its age, over all meshes; answers how many entries.
///
/// # Errors
/// Storage fails; what was done stays done.
pub async fn purge(db: &Db, now_ms: i64) -> Result<usize, DbError> {
    let all: Vec<(String, String)> = with_conn!(db, |conn| streams::table
        .filter(streams::next_offset.gt(streams::first_offset))
        .select((streams::mesh_id, streams::name))
        .load(conn)
        .await?);
    let mut total = 0;
    for (mesh, name) in all {
        // Unaudited: upkeep, by rules that are no secret.
        total += with_tx!(db, |conn| {
            let row = streams::table.find((&mesh, &name)).select(Stream::as_select());
            let found: Option<Stream> = row.first(conn).await.optional()?;
            let mut removed = 0;
            if let Some(mut stream) = found {
                let (first, mut bytes) = (stream.first_offset, 0);
                trim!(conn, stream, bytes, now_ms);
                if stream.first_offset > first {
                    removed = usize::try_from(stream.first_offset - first).unwrap_or(0);
                    diesel::update(streams::table.find((&mesh, &name)))
                        .set((streams::first_offset.eq(stream.first_offset), streams::bytes.eq(stream.bytes)))
                        .execute(conn)
                        .await?;
                    diesel::update(stream_heads::table.find(&mesh))
                        .set(stream_heads::bytes.eq(stream_heads::bytes + bytes))
                        .execute(conn)
                        .await?;
                }
            }
            removed
        });
    }
    Ok(total)
}

#[cfg(test)]
#[path = "../store_tests.rs"]
mod tests;
