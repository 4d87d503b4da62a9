//! What a member sees of all files.

use std::collections::HashMap;

use claudemesh_protocol::features::files::limits::MAX_PAGE_BYTES;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::access::{Opened, Viewer, preferred};
use super::{Row, revoked_reader};
use crate::db::{DbError, MeshDb};
use crate::features::files::schema::{file_keys, file_readers, files};
use crate::with_conn;

/// What a row of a list costs beside its texts.
const ROW_OVERHEAD_BYTES: usize = 768;

/// What a list is asked for.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// A part of the folded name.
    pub query: Option<String>,
    /// Shared by one of these.
    pub from: Option<Vec<String>>,
    /// Has this tag.
    pub tag: Option<String>,
    /// Also what is not for the viewer.
    pub all: bool,
    /// Behind this one: time and id.
    pub behind: Option<(i64, String)>,
    /// Rows.
    pub limit: u32,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The files, each with the key that its key is sealed for and the sealed key.
    pub files: Vec<Opened>,
    /// There is more.
    pub more: bool,
}

/// A text as a part of a `LIKE` pattern.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    for symbol in text.chars() {
        if matches!(symbol, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(symbol);
    }
    pattern
}

/// Files that can be read, the newest first: those that are for the viewer and its own, or all.
///
/// # Errors
/// Storage fails.
pub async fn list(db: &MeshDb, viewer: &Viewer, listing: &Listing) -> Result<Page, DbError> {
    let mesh = db.mesh().as_str();
    let meant = file_readers::table
        .filter(file_readers::mesh_id.eq(mesh))
        .filter(file_readers::file_id.eq(files::id))
        .filter(file_readers::reader.eq_any(&viewer.readers));
    let revoked = file_readers::table
        .filter(file_readers::mesh_id.eq(mesh))
        .filter(file_readers::file_id.eq(files::id))
        .filter(file_readers::reader.eq(revoked_reader(&viewer.member.as_str().into())));
    let name = listing.query.as_ref().map(|query| format!("%{}%", literal(query)));
    // In the list of tags a tag stands between quotes.
    let tag = listing.tag.as_ref().map(|tag| format!("%{}%", literal(&json!(tag).to_string())));
    let mut rows: Vec<Row> = with_conn!(db.db(), |conn| {
        let mut query = files::table
            .filter(files::mesh_id.eq(mesh))
            .filter(files::ready_at_ms.is_not_null())
            .filter(files::lost.eq(false))
            .filter(files::expires_at_ms.is_null().or(files::expires_at_ms.gt(listing.now_ms)))
            .order((files::ready_at_ms.desc(), files::id.desc()))
            .limit(i64::from(listing.limit) + 1)
            .select(Row::as_select())
            .into_boxed();
        if !listing.all {
            let own = files::owner_id.eq(&viewer.member);
            query =
                query.filter(own.or(diesel::dsl::exists(meant).and(diesel::dsl::not(diesel::dsl::exists(revoked)))));
        }
        if let Some(name) = &name {
            query = query.filter(files::name_folded.like(name).escape('\\'));
        }
        if let Some(from) = &listing.from {
            query = query.filter(files::owner_id.eq_any(from));
        }
        if let Some(tag) = &tag {
            query = query.filter(files::tags.like(tag).escape('\\'));
        }
        if let Some((at, id)) = &listing.behind {
            query = query.filter(files::ready_at_ms.lt(*at).or(files::ready_at_ms.eq(*at).and(files::id.lt(id))));
        }
        query.load(conn).await?
    });
    let fetched = rows.len();
    let mut bytes = 0;
    let fits = |(at, row): &(usize, &Row)| {
        let texts = row.name.len() + row.tags.len() + row.sealed_meta.as_ref().map_or(0, String::len);
        bytes += texts + ROW_OVERHEAD_BYTES;
        *at == 0 || (*at < listing.limit as usize && bytes <= MAX_PAGE_BYTES)
    };
    let shown = rows.iter().enumerate().take_while(fits).count();
    rows.truncate(shown);
    let mut keys = keys_of(db, &rows, viewer).await?;
    let opened = |row: Row| {
        let mut own = keys.remove(&row.id).unwrap_or_default();
        Opened { sealed: preferred(viewer, &mut own), row }
    };
    Ok(Page { files: rows.into_iter().map(opened).collect(), more: fetched > shown })
}

/// The keys of files that are sealed for a viewer, by file.
async fn keys_of(
    db: &MeshDb,
    rows: &[Row],
    viewer: &Viewer,
) -> Result<HashMap<String, Vec<(String, String)>>, DbError> {
    let ids: Vec<&str> = rows.iter().filter(|row| row.encryption.is_some()).map(|row| row.id.as_str()).collect();
    let mut found: HashMap<String, Vec<(String, String)>> = HashMap::new();
    if ids.is_empty() {
        return Ok(found);
    }
    let keys: Vec<(String, String, String)> = with_conn!(db.db(), |conn| file_keys::table
        .filter(file_keys::mesh_id.eq(db.mesh().as_str()))
        .filter(file_keys::file_id.eq_any(&ids))
        .filter(file_keys::pubkey.eq_any(&viewer.keys))
        .select((file_keys::file_id, file_keys::pubkey, file_keys::sealed_key))
        .load(conn)
        .await?);
    for (file, key, sealed) in keys {
        found.entry(file).or_default().push((key, sealed));
    }
    Ok(found)
}
