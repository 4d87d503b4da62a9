//! `memories`, `memory_totals` and the index `__memory_index`: the texts, what a mesh and its members have in all, and the words.

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::features::memory::limits::MAX_PAGE_BYTES;
use claudemesh_protocol::id::{MemberId, MeshId, random_id};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::limits::{BYTES_PER_MEMBER, BYTES_PER_MESH, PER_MEMBER, PER_MESH};
use super::schema::{memories, memory_totals};
use crate::audit::Audit;
use crate::db::{DbError, MeshDb};
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;
use crate::search::index::{self, Document, Index, IndexConnection, Search};
use crate::search::query::Query;
use crate::search::rank::{self, Seen};
use crate::{tx_write, with_conn};

/// The words of all memories.
const INDEX: Index = Index("__memory_index");
/// The row of the mesh itself in `memory_totals`.
const WHOLE_MESH: &str = "";

/// A memory as stored.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = memories)]
pub struct Row {
    /// Mesh.
    pub mesh_id: String,
    /// Its id.
    pub id: String,
    /// Place in the order of all memories; its number in the index.
    pub row_no: i64,
    /// The text.
    pub content: String,
    /// As they were given, a JSON list.
    pub tags: String,
    /// Bytes of text and tags.
    pub size_bytes: i64,
    /// Of text and tags.
    pub digest: String,
    /// Who stored it.
    pub member_id: String,
    /// Name of the member at that time.
    pub author_name: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

impl Row {
    /// The tags.
    pub fn tags(&self) -> Vec<String> {
        serde_json::from_str(&self.tags).unwrap_or_default()
    }
}

/// What a mesh, or a member of it, has in all.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = memory_totals, primary_key(mesh_id, member_id))]
pub struct Total {
    /// Mesh.
    pub mesh_id: String,
    /// Member; empty for the mesh.
    pub member_id: String,
    /// How many.
    pub memories: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Unix milliseconds of the last one.
    pub last_at_ms: i64,
}

/// A memory to store.
#[derive(Clone, Debug)]
pub struct New {
    /// The text.
    pub content: String,
    /// Labels of it.
    pub tags: Vec<String>,
    /// Who stores it.
    pub member: MemberId,
    /// Its name.
    pub author_name: String,
    /// Unix milliseconds.
    pub now_ms: i64,
    /// What may be kept.
    pub quotas: Quotas,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its id.
    pub id: String,
    /// The member had stored the same before.
    pub duplicate: bool,
}

/// Which memory to delete, and who asks for it.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Id, or the beginning of one.
    pub id: String,
    /// Who deletes it.
    pub member: MemberId,
    /// It may delete those of others.
    pub may_all: bool,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// Why a write changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// A bound is hit.
    Limit(Bound),
    /// There is no such memory.
    Missing,
    /// Several begin so.
    Ambiguous,
    /// Another member stored it.
    Foreign,
}

/// Which memories are meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Only {
    /// All of these.
    pub tags: Vec<String>,
    /// One of these members; `None`: of anyone.
    pub members: Option<Vec<MemberId>>,
    /// Unix milliseconds, inclusive.
    pub since_ms: Option<i64>,
    /// Unix milliseconds, exclusive.
    pub until_ms: Option<i64>,
}

/// A memory with what a query saw in it.
pub type Found = (Row, Option<Seen>);

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Found>,
    /// What the next page is asked for with.
    pub next: Option<String>,
}

impl From<Bound> for WriteError<Refused> {
    fn from(bound: Bound) -> Self {
        Self::Refused(Refused::Limit(bound))
    }
}

fn size(content: &str, tags: &[String]) -> i64 {
    let bytes = content.len() + tags.iter().map(String::len).sum::<usize>();
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn digest(content: &str, tags: &[String]) -> String {
    let mut hasher = Sha256::new();
    for part in std::iter::once(content).chain(tags.iter().map(String::as_str)) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hex::encode(hasher.finalize())
}

/// A row with the words of its index entry. Takes as long as the text is.
fn document(mesh: &MeshId, new: &New) -> Document {
    let text = Document::new(mesh).text(&new.content);
    let text = new.tags.iter().fold(text, |document, tag| document.text(tag).label("tag", tag));
    text.label("by", new.member.as_str())
}

/// The row of totals of a mesh or a member. A macro, because the two connections have no type in common.
macro_rules! total {
    ($conn:expr, $mesh:expr, $member:expr) => {{
        let found = memory_totals::table.find(($mesh.as_str(), $member)).select(Total::as_select());
        let found: Option<Total> = found.first($conn).await.optional()?;
        found.unwrap_or_else(|| Total { mesh_id: $mesh.to_string(), member_id: $member.into(), ..Total::default() })
    }};
}

macro_rules! put_total {
    ($conn:expr, $total:expr) => {
        diesel::insert_into(memory_totals::table)
            .values($total)
            .on_conflict((memory_totals::mesh_id, memory_totals::member_id))
            .do_update()
            .set($total)
            .execute($conn)
            .await?
    };
}

/// Stores a memory, or finds the one that the member has stored before.
///
/// # Errors
/// [`Refused::Limit`], or storage fails.
pub async fn remember(store: &MeshStore, new: New) -> Result<Stored, WriteError<Refused>> {
    let document = document(store.mesh(), &new);
    let (digest, size) = (digest(&new.content, &new.tags), size(&new.content, &new.tags));
    let id = random_id(&mut rand::rngs::OsRng);
    let rows = 2 + new.content.len() / 1_024;
    tx_write!(store, rows: rows, (new, document, digest, size, id), |conn, mesh| {
        let known: Option<String> = memories::table
            .filter(memories::mesh_id.eq(mesh.as_str()))
            .filter(memories::member_id.eq(new.member.as_str()))
            .filter(memories::digest.eq(digest))
            .select(memories::id)
            .first(conn)
            .await
            .optional()?;
        if let Some(id) = known {
            let stored = Stored { id, duplicate: true };
            return Ok((stored, Audit::Unaudited("nothing was changed")));
        }
        let mut whole = total!(conn, mesh, WHOLE_MESH);
        let mut own = total!(conn, mesh, new.member.as_str());
        let (size, quotas) = (*size, &new.quotas);
        quotas.growth(&PER_MESH, whole.memories, whole.memories + 1)?;
        quotas.growth(&PER_MEMBER, own.memories, own.memories + 1)?;
        quotas.growth(&BYTES_PER_MESH, whole.bytes, whole.bytes + size)?;
        quotas.growth(&BYTES_PER_MEMBER, own.bytes, own.bytes + size)?;
        let last: Option<i64> =
            memories::table.select(diesel::dsl::max(memories::row_no)).first(conn).await?;
        let row = Row {
            mesh_id: mesh.to_string(),
            id: id.clone(),
            row_no: last.unwrap_or(0) + 1,
            content: new.content.clone(),
            tags: json!(new.tags).to_string(),
            size_bytes: size,
            digest: digest.clone(),
            member_id: new.member.to_string(),
            author_name: new.author_name.clone(),
            // A clock that was put back does not change the order.
            created_at_ms: new.now_ms.max(whole.last_at_ms),
        };
        let (row_no, created_at_ms) = (row.row_no, row.created_at_ms);
        diesel::insert_into(memories::table).values(row).execute(conn).await?;
        conn.index(INDEX, row_no, document).await?;
        for total in [&mut whole, &mut own] {
            (total.memories, total.bytes, total.last_at_ms) = (total.memories + 1, total.bytes + size, created_at_ms);
            put_total!(conn, &*total);
        }
        let payload = json!({"memory": id, "size": size, "tags": new.tags.len()});
        let audit = Audit::entry("memory_stored", Some(&new.member), payload, new.now_ms);
        Ok((Stored { id: id.clone(), duplicate: false }, audit))
    })
}

/// Deletes a memory: the row, its words, and what was on the pages of SQLite's file.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn forget(store: &MeshStore, removal: Removal) -> Result<Row, WriteError<Refused>> {
    tx_write!(store, rows: 4, (removal), |conn, mesh| {
        let refused = WriteError::Refused;
        // A range rather than LIKE: it uses the key, keeps case apart and has no wildcards. No id has a symbol behind `z`.
        let found: Vec<Row> = memories::table
            .filter(memories::mesh_id.eq(mesh.as_str()))
            .filter(memories::id.ge(&removal.id))
            .filter(memories::id.lt(format!("{}~", removal.id)))
            .order(memories::id)
            .limit(2)
            .select(Row::as_select())
            .load(conn)
            .await?;
        let row = match found.as_slice() {
            [] => return Err(refused(Refused::Missing)),
            [row] => row.clone(),
            [first, ..] if first.id == removal.id => first.clone(),
            _ => return Err(refused(Refused::Ambiguous)),
        };
        if row.member_id != removal.member.as_str() && !removal.may_all {
            return Err(refused(Refused::Foreign));
        }
        conn.erasing().await?;
        diesel::delete(memories::table.find((mesh.as_str(), &row.id))).execute(conn).await?;
        conn.erased(INDEX, row.row_no).await?;
        for member in [WHOLE_MESH, row.member_id.as_str()] {
            let mut total = total!(conn, mesh, member);
            (total.memories, total.bytes) = (total.memories - 1, total.bytes - row.size_bytes);
            put_total!(conn, &total);
        }
        let payload = json!({"memory": row.id, "size": row.size_bytes, "author": row.member_id});
        let audit = Audit::entry("memory_forgotten", Some(&removal.member), payload, removal.now_ms);
        Ok((row, audit))
    })
}

/// What the mesh, or a member of it, has in all.
///
/// # Errors
/// Storage fails.
pub async fn total(db: &MeshDb, member: Option<&MemberId>) -> Result<Total, DbError> {
    let found: Option<Total> = with_conn!(db.db(), |conn| memory_totals::table
        .find((db.mesh().as_str(), member.map_or(WHOLE_MESH, MemberId::as_str)))
        .select(Total::as_select())
        .first(conn)
        .await
        .optional()?);
    Ok(found.unwrap_or_default())
}

/// A search for what the conditions allow; `None` when nothing was stored in that time.
async fn searched(db: &MeshDb, words: Query, only: &Only) -> Result<Option<Search>, DbError> {
    let mut search = Search::new(db.mesh(), words);
    for tag in &only.tags {
        search = search.label("tag", [tag.as_str()]);
    }
    if let Some(members) = &only.members {
        search = search.label("by", members.iter().map(MemberId::as_str));
    }
    // Times of a mesh never go back, so they are a range of rows.
    if let Some(since) = only.since_ms {
        let first: Option<i64> = with_conn!(db.db(), |conn| memories::table
            .filter(memories::mesh_id.eq(db.mesh().as_str()))
            .filter(memories::created_at_ms.ge(since))
            .order((memories::created_at_ms, memories::row_no))
            .select(memories::row_no)
            .first(conn)
            .await
            .optional()?);
        let Some(first) = first else { return Ok(None) };
        search.from = first;
    }
    if let Some(until) = only.until_ms {
        let Some(last) = last_before(db, until).await? else { return Ok(None) };
        search.to = last;
    }
    Ok(Some(search))
}

/// The last row that is older than a time.
async fn last_before(db: &MeshDb, time_ms: i64) -> Result<Option<i64>, DbError> {
    Ok(with_conn!(db.db(), |conn| memories::table
        .filter(memories::mesh_id.eq(db.mesh().as_str()))
        .filter(memories::created_at_ms.lt(time_ms))
        .order((memories::created_at_ms.desc(), memories::row_no.desc()))
        .select(memories::row_no)
        .first(conn)
        .await
        .optional()?))
}

async fn rows(db: &MeshDb, numbers: &[i64]) -> Result<Vec<Row>, DbError> {
    Ok(with_conn!(db.db(), |conn| memories::table
        .filter(memories::mesh_id.eq(db.mesh().as_str()))
        .filter(memories::row_no.eq_any(numbers))
        .select(Row::as_select())
        .load(conn)
        .await?))
}

/// Memories that fit a query, the best first, from the `skip`th on. Of many that fit, [`index::CANDIDATES`] are told.
///
/// # Errors
/// Storage fails.
pub async fn recall(db: &MeshDb, words: Query, only: &Only, skip: usize, limit: u32) -> Result<Page, DbError> {
    let Some(search) = searched(db, words.clone(), only).await? else { return Ok(Page::default()) };
    let numbers = index::find(db, INDEX, &search).await?;
    let rows = rows(db, &numbers).await?;
    // It reads and cuts all the texts.
    let ranked = tokio::task::spawn_blocking(move || {
        let look = |row: Row| (rank::look(&words, &row.content, &row.tags()), row);
        let mut ranked: Vec<(Seen, Row)> = rows.into_iter().map(look).collect();
        ranked.sort_by(|(a, older), (b, newer)| b.score.total_cmp(&a.score).then(newer.row_no.cmp(&older.row_no)));
        ranked
    });
    let ranked = ranked.await.map_err(|error| DbError::Panicked(error.into()))?;
    let mut rest: Vec<Found> = ranked.into_iter().skip(skip).map(|(seen, row)| (row, Some(seen))).collect();
    let shown = fitting(rest.iter().map(|(row, _)| row.size_bytes), limit as usize);
    let more = rest.len() > shown;
    rest.truncate(shown);
    Ok(Page { rows: rest, next: more.then(|| (skip + shown).to_string()) })
}

/// The words of a query that nothing in the mesh has.
///
/// # Errors
/// Storage fails.
pub async fn unmatched(db: &MeshDb, words: &Query) -> Result<Vec<String>, DbError> {
    index::unmatched(db, INDEX, words).await
}

/// Where a page of a list goes on: time and id of the last memory of the page before.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Id; the memory may be gone.
    pub id: String,
}

/// Memories that the conditions allow, the newest first, behind a place.
///
/// # Errors
/// Storage fails.
pub async fn list(db: &MeshDb, only: &Only, behind: Option<Place>, limit: u32) -> Result<Page, DbError> {
    let until = only.until_ms.unwrap_or(i64::MAX);
    let (mut to, mut latest) = (i64::MAX, until.saturating_sub(1));
    if let Some(place) = behind {
        let row = memories::table.find((db.mesh().as_str(), &place.id)).select(memories::row_no);
        let known: Option<i64> = with_conn!(db.db(), |conn| row.first(conn).await.optional()?);
        let before = match known {
            Some(row_no) => Some(row_no - 1),
            None => last_before(db, place.at_ms).await?,
        };
        let Some(before) = before else { return Ok(Page::default()) };
        (to, latest) = (before, latest.min(place.at_ms));
    }
    let numbers: Vec<i64> = if only.tags.is_empty() && only.members.is_none() {
        with_conn!(db.db(), |conn| memories::table
            .filter(memories::mesh_id.eq(db.mesh().as_str()))
            .filter(memories::created_at_ms.between(only.since_ms.unwrap_or(i64::MIN), latest))
            .filter(memories::row_no.le(to))
            .order((memories::created_at_ms.desc(), memories::row_no.desc()))
            .select(memories::row_no)
            .limit(i64::from(limit) + 1)
            .load(conn)
            .await?)
    } else {
        let Some(mut search) = searched(db, Query::default(), only).await? else { return Ok(Page::default()) };
        search.to = search.to.min(to);
        index::newest(db, INDEX, &search, limit + 1).await?
    };
    let mut rows = rows(db, &numbers).await?;
    rows.sort_by_key(|row| std::cmp::Reverse(row.row_no));
    let shown = fitting(rows.iter().map(|row| row.size_bytes), limit as usize);
    let more = rows.len() > shown;
    rows.truncate(shown);
    let next = rows.last().filter(|_| more).map(|row| format!("{}.{}", row.created_at_ms, row.id));
    Ok(Page { rows: rows.into_iter().map(|row| (row, None)).collect(), next })
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

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
