//! `contexts` and the index `__context_index`: what each session shares, and the words of it.

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::features::contexts::limits::MAX_PAGE_BYTES;
use claudemesh_protocol::id::{MemberId, MeshId, random_id};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::limits::{PER_MEMBER, PER_MESH};
use super::schema::contexts;
use crate::audit::Audit;
use crate::db::schema::sessions;
use crate::db::{Db, DbError, MeshDb};
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;
use crate::search::index::{self, Document, Index, IndexConnection, Search};
use crate::search::query::Query;
use crate::search::rank::{self, Seen};
use crate::{tx_write, with_conn, with_tx};

/// A context stays this long after its session was there last, in milliseconds: 30 days.
pub const KEPT_MS: i64 = 30 * 86_400_000;
/// The words of all contexts.
const INDEX: Index = Index("__context_index");
/// Contexts that one transaction of the upkeep looks at.
const CHUNK: i64 = 200;

/// A context as stored.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = contexts)]
pub struct Row {
    /// Mesh.
    pub mesh_id: String,
    /// Public name of the session, or `member:` and the id of a member.
    pub session: String,
    /// Its id; it stays when the session shares again.
    pub id: String,
    /// Place in the order of the changes; its number in the index.
    pub row_no: i64,
    /// Whose session it is.
    pub member_id: String,
    /// Name of the member at that time.
    pub peer_name: String,
    /// Name of the session at that time.
    pub session_name: String,
    /// What it is about.
    pub summary: String,
    /// A JSON list.
    pub files: String,
    /// A JSON list.
    pub findings: String,
    /// A JSON list.
    pub tags: String,
    /// Bytes of all texts.
    pub size_bytes: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

impl Row {
    /// Files that were read.
    pub fn files(&self) -> Vec<String> {
        serde_json::from_str(&self.files).unwrap_or_default()
    }

    /// What was found out.
    pub fn findings(&self) -> Vec<String> {
        serde_json::from_str(&self.findings).unwrap_or_default()
    }

    /// Words to find it by.
    pub fn tags(&self) -> Vec<String> {
        serde_json::from_str(&self.tags).unwrap_or_default()
    }

    /// What a search looks through beside the summary.
    fn fields(&self) -> Vec<String> {
        [self.tags(), self.findings(), self.files()].concat()
    }
}

/// What a session shares.
#[derive(Clone, Debug)]
pub struct New {
    /// As in [`Row`].
    pub session: String,
    /// Whose session it is.
    pub member: MemberId,
    /// Name of the member.
    pub peer_name: String,
    /// Name of the session.
    pub session_name: String,
    /// What it is about.
    pub summary: String,
    /// Files that were read.
    pub files: Vec<String>,
    /// What was found out.
    pub findings: Vec<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Bytes of all texts.
    pub size_bytes: i64,
    /// Unix milliseconds.
    pub now_ms: i64,
    /// What may be kept.
    pub quotas: Quotas,
}

/// Why nothing is stored.
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

/// A context with what a query saw in it.
pub type Found = (Row, Option<Seen>);

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Found>,
    /// What the next page is asked for with.
    pub next: Option<String>,
}

fn document(mesh: &MeshId, new: &New) -> Document {
    let fields = new.tags.iter().chain(&new.findings).chain(&new.files);
    fields.fold(Document::new(mesh).text(&new.summary), |document, field| document.text(field))
}

/// Stores a context in place of the one that the session shared before; returns its id.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn share(store: &MeshStore, new: New) -> Result<String, WriteError<Refused>> {
    let document = document(store.mesh(), &new);
    let fresh = random_id(&mut rand::rngs::OsRng);
    let rows = 3 + usize::try_from(new.size_bytes).unwrap_or(0) / 1_024;
    tx_write!(store, rows: rows, (new, document, fresh), |conn, mesh| {
        let place = contexts::table.find((mesh.as_str(), &new.session));
        let old: Option<Row> = place.select(Row::as_select()).first(conn).await.optional()?;
        let all = contexts::table.filter(contexts::mesh_id.eq(mesh.as_str()));
        if let Some(old) = &old {
            conn.erasing().await?;
            diesel::delete(place).execute(conn).await?;
            conn.erased(INDEX, old.row_no).await?;
        } else {
            let of_mesh: i64 = all.count().get_result(conn).await?;
            let own = all.filter(contexts::member_id.eq(new.member.as_str()));
            let of_member: i64 = own.count().get_result(conn).await?;
            new.quotas.growth(&PER_MESH, of_mesh, of_mesh + 1)?;
            new.quotas.growth(&PER_MEMBER, of_member, of_member + 1)?;
        }
        let last: Option<i64> = contexts::table.select(diesel::dsl::max(contexts::row_no)).first(conn).await?;
        let id = old.map_or_else(|| fresh.clone(), |old| old.id);
        let row = Row {
            mesh_id: mesh.to_string(),
            session: new.session.clone(),
            id: id.clone(),
            row_no: last.unwrap_or(0) + 1,
            member_id: new.member.to_string(),
            peer_name: new.peer_name.clone(),
            session_name: new.session_name.clone(),
            summary: new.summary.clone(),
            files: json!(new.files).to_string(),
            findings: json!(new.findings).to_string(),
            tags: json!(new.tags).to_string(),
            size_bytes: new.size_bytes,
            updated_at_ms: new.now_ms,
        };
        let row_no = row.row_no;
        diesel::insert_into(contexts::table).values(row).execute(conn).await?;
        conn.index(INDEX, row_no, document).await?;
        let payload = json!({"context": id, "size": new.size_bytes});
        Ok((id, Audit::entry("context_shared", Some(&new.member), payload, new.now_ms)))
    })
}

/// How many contexts a mesh, or a member in it, has.
///
/// # Errors
/// Storage fails.
pub async fn count(db: &MeshDb, member: Option<&MemberId>) -> Result<i64, DbError> {
    Ok(with_conn!(db.db(), |conn| {
        let all = contexts::table.filter(contexts::mesh_id.eq(db.mesh().as_str()));
        match member {
            Some(member) => all.filter(contexts::member_id.eq(member.as_str())).count().get_result(conn).await?,
            None => all.count().get_result(conn).await?,
        }
    }))
}

/// Contexts that fit a query, the best first, from the `skip`th on. Of many that fit, [`index::CANDIDATES`] are told.
///
/// # Errors
/// Storage fails.
pub async fn find(db: &MeshDb, words: Query, skip: usize, limit: u32) -> Result<Page, DbError> {
    let numbers = index::find(db, INDEX, &Search::new(db.mesh(), words.clone())).await?;
    let rows: Vec<Row> = with_conn!(db.db(), |conn| contexts::table
        .filter(contexts::mesh_id.eq(db.mesh().as_str()))
        .filter(contexts::row_no.eq_any(&numbers))
        .select(Row::as_select())
        .load(conn)
        .await?);
    // It reads and cuts all the texts.
    let ranked = tokio::task::spawn_blocking(move || {
        let look = |row: Row| (rank::look(&words, &row.summary, &row.fields()), row);
        let mut ranked: Vec<(Seen, Row)> = rows.into_iter().map(look).collect();
        ranked.sort_by(|(a, older), (b, newer)| b.score.total_cmp(&a.score).then(newer.row_no.cmp(&older.row_no)));
        ranked
    });
    let ranked = ranked.await.map_err(|error| DbError::Panicked(error.into()))?;
    let rest: Vec<Found> = ranked.into_iter().skip(skip).map(|(seen, row)| (row, Some(seen))).collect();
    Ok(page(rest, limit, |shown, _| (skip + shown).to_string()))
}

/// The words of a query that nothing in the mesh has.
///
/// # Errors
/// Storage fails.
pub async fn unmatched(db: &MeshDb, words: &Query) -> Result<Vec<String>, DbError> {
    index::unmatched(db, INDEX, words).await
}

/// All contexts, the newest first, behind the one with this id.
///
/// # Errors
/// Storage fails.
pub async fn list(db: &MeshDb, behind: Option<&str>, limit: u32) -> Result<Page, DbError> {
    let before: Option<i64> = match behind {
        None => None,
        Some(id) => {
            let found: Option<i64> = with_conn!(db.db(), |conn| contexts::table
                .filter(contexts::mesh_id.eq(db.mesh().as_str()))
                .filter(contexts::id.eq(id))
                .select(contexts::row_no)
                .first(conn)
                .await
                .optional()?);
            // It was removed meanwhile: what was behind it is older than all.
            let Some(found) = found else { return Ok(Page::default()) };
            Some(found)
        }
    };
    let rows: Vec<Row> = with_conn!(db.db(), |conn| contexts::table
        .filter(contexts::mesh_id.eq(db.mesh().as_str()))
        .filter(contexts::row_no.lt(before.unwrap_or(i64::MAX)))
        .order(contexts::row_no.desc())
        .limit(i64::from(limit) + 1)
        .select(Row::as_select())
        .load(conn)
        .await?);
    let last = |_: usize, last: &Row| last.id.clone();
    Ok(page(rows.into_iter().map(|row| (row, None)).collect(), limit, last))
}

/// The first rows, at most `limit`, of at most [`MAX_PAGE_BYTES`] together but at least one.
fn page(mut rows: Vec<Found>, limit: u32, cursor: impl Fn(usize, &Row) -> String) -> Page {
    let (mut bytes, limit) = (0_usize, limit as usize);
    let fits = |(at, (row, _)): &(usize, &Found)| {
        bytes = bytes.saturating_add(usize::try_from(row.size_bytes).unwrap_or(0));
        *at == 0 || (*at < limit && bytes <= MAX_PAGE_BYTES)
    };
    let shown = rows.iter().enumerate().take_while(fits).count();
    let more = rows.len() > shown;
    rows.truncate(shown);
    let next = rows.last().filter(|_| more).map(|(row, _)| cursor(shown, row));
    Page { rows, next }
}

/// Removes the contexts of all meshes whose sessions were there last more than [`KEPT_MS`] ago; returns how many.
///
/// # Errors
/// Storage fails; what was done stays done.
pub async fn purge(db: &Db, now_ms: i64) -> Result<usize, DbError> {
    let (oldest, mut after, mut total) = (now_ms - KEPT_MS, 0, 0);
    loop {
        let old: Vec<(i64, String, String)> = with_conn!(db, |conn| contexts::table
            .filter(contexts::updated_at_ms.lt(oldest))
            .filter(contexts::row_no.gt(after))
            .order(contexts::row_no)
            .select((contexts::row_no, contexts::mesh_id, contexts::session))
            .limit(CHUNK)
            .load(conn)
            .await?);
        let Some((last, ..)) = old.last() else { return Ok(total) };
        after = *last;
        // Unaudited: upkeep, by rules that are no secret.
        total += with_tx!(db, |conn| {
            let mut count = 0;
            for (row_no, mesh, session) in &old {
                let seen: Option<i64> = sessions::table
                    .find((mesh, session))
                    .select(sessions::last_seen_at_ms)
                    .first(conn)
                    .await
                    .optional()?;
                if seen.is_some_and(|seen| seen >= oldest) {
                    continue;
                }
                // It may have been shared again since it was found.
                conn.erasing().await?;
                let row = contexts::table.filter(contexts::row_no.eq(row_no));
                count += diesel::delete(row).execute(conn).await?;
                conn.erased(INDEX, *row_no).await?;
            }
            count
        });
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
