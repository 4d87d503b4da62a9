//! `skills`, `skill_versions` and the index `__skill_index`: what each skill says about itself, all its texts, and the words.

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::features::skills::limits::MAX_PAGE_BYTES;
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey, random_id};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::limits::{BYTES_PER_MEMBER, BYTES_PER_MESH, PER_MEMBER, PER_MESH, VERSIONS_PER_SKILL};
use super::schema::{skill_versions, skills};
use crate::audit::Audit;
use crate::db::{DbError, MeshDb};
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;
use crate::search::index::{self, Document, Index, IndexConnection, Search};
use crate::search::query::Query;
use crate::{tx_write, with_conn};

/// The words of all skills.
const INDEX: Index = Index("__skill_index");
/// What a row of a list costs beside its texts.
const ROW_OVERHEAD_BYTES: usize = 512;

/// A skill as stored, with what its newest version says about it.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = skills)]
pub struct Row {
    /// Mesh.
    pub mesh_id: String,
    /// Name.
    pub name: String,
    /// Its id; another one when the skill is shared again after it was removed.
    pub id: String,
    /// Its number in the index.
    pub row_no: i64,
    /// Who shared it first.
    pub owner_id: String,
    /// The newest version.
    pub version: i64,
    /// What it is good for.
    pub description: String,
    /// A JSON list.
    pub tags: String,
    /// Who wrote the newest version.
    pub author_id: String,
    /// Name of the author at that time.
    pub author_name: String,
    /// Bytes of all its versions.
    pub size_bytes: i64,
    /// When it was shared first; Unix milliseconds.
    pub created_at_ms: i64,
    /// When the newest version was shared; Unix milliseconds.
    pub updated_at_ms: i64,
}

impl Row {
    /// The tags.
    pub fn tags(&self) -> Vec<String> {
        serde_json::from_str(&self.tags).unwrap_or_default()
    }
}

/// A version of a skill as stored.
#[derive(Clone, Debug, Default, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = skill_versions)]
pub struct Version {
    /// Mesh.
    pub mesh_id: String,
    /// Id of the skill.
    pub skill_id: String,
    /// Counted from 1.
    pub version: i64,
    /// What it is good for.
    pub description: String,
    /// The text.
    pub instructions: String,
    /// A JSON list.
    pub tags: String,
    /// Canonical JSON.
    pub manifest: Option<String>,
    /// Of name, description, text, manifest and tags.
    pub digest: String,
    /// Who wrote it.
    pub author_id: String,
    /// Name of the author at that time.
    pub author_name: String,
    /// Key of the author, in hex.
    pub author_pubkey: String,
    /// Of the digest, in hex.
    pub signature: Option<String>,
    /// Unix milliseconds, by the author's clock.
    pub signed_at_ms: Option<i64>,
    /// Bytes of description, text, manifest and tags.
    pub size_bytes: i64,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

impl Version {
    /// The tags.
    pub fn tags(&self) -> Vec<String> {
        serde_json::from_str(&self.tags).unwrap_or_default()
    }
}

/// A skill, or a version of one, to store.
#[derive(Clone, Debug)]
pub struct New {
    /// Name.
    pub name: String,
    /// What it is good for.
    pub description: String,
    /// The text.
    pub instructions: String,
    /// Labels of it.
    pub tags: Vec<String>,
    /// Canonical JSON.
    pub manifest: Option<String>,
    /// Of name, description, text, manifest and tags.
    pub digest: String,
    /// Of the digest, and when; Unix milliseconds.
    pub signature: Option<(String, i64)>,
    /// Who shares it.
    pub member: MemberId,
    /// Its name.
    pub author_name: String,
    /// Its key.
    pub author_key: PublicKey,
    /// It may change those of others.
    pub may_all: bool,
    /// Bytes of description, text, manifest and tags.
    pub size_bytes: i64,
    /// Unix milliseconds.
    pub now_ms: i64,
    /// What may be kept.
    pub quotas: Quotas,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shared {
    /// The version that has the text.
    pub version: i64,
    /// The newest version had it before.
    pub unchanged: bool,
}

/// Which skill to remove, and who asks for it.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Name.
    pub name: String,
    /// Who removes it.
    pub member: MemberId,
    /// It may remove those of others.
    pub may_all: bool,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// Why a write changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// A bound is hit.
    Limit(Bound),
    /// There is no such skill.
    Missing,
    /// Another member has shared it.
    Foreign,
}

impl From<Bound> for WriteError<Refused> {
    fn from(bound: Bound) -> Self {
        Self::Refused(Refused::Limit(bound))
    }
}

/// What a mesh, or a member of it, has in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// How many skills.
    pub skills: i64,
    /// Their bytes with all versions.
    pub bytes: i64,
}

impl Usage {
    fn of<'a>(sizes: impl IntoIterator<Item = &'a (String, i64)>) -> Self {
        sizes
            .into_iter()
            .fold(Self::default(), |usage, (_, bytes)| Self { skills: usage.skills + 1, bytes: usage.bytes + bytes })
    }
}

/// A skill with one of its texts, and what is known of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The skill.
    pub row: Row,
    /// The text.
    pub text: Version,
    /// All that are kept, the newest first.
    pub versions: Vec<Mark>,
}

/// A version without its text.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = skill_versions)]
pub struct Mark {
    /// Its number.
    pub version: i64,
    /// Name of its author at that time.
    pub author_name: String,
    /// Its bytes.
    pub size_bytes: i64,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// Which skills are meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Words that it has; empty: any.
    pub words: Query,
    /// All of these.
    pub tags: Vec<String>,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Row>,
    /// What the next page is asked for with.
    pub next: Option<String>,
}

/// What is found of a skill: its name, what it is good for, its tags.
fn document(mesh: &MeshId, new: &New) -> Document {
    let text = Document::new(mesh).text(&new.name).text(&new.description);
    new.tags.iter().fold(text, |document, tag| document.text(tag).label("tag", tag))
}

/// Stores a skill, or a version of it behind the others; the oldest ones go when there are too many.
///
/// # Errors
/// [`Refused::Foreign`], [`Refused::Limit`], or storage fails.
pub async fn share(store: &MeshStore, new: New) -> Result<Shared, WriteError<Refused>> {
    let document = document(store.mesh(), &new);
    let fresh = random_id(&mut rand::rngs::OsRng);
    let rows = 4 + usize::try_from(new.size_bytes).unwrap_or(0) / 1_024;
    tx_write!(store, rows: rows, (new, document, fresh), |conn, mesh| {
        let place = skills::table.find((mesh.as_str(), &new.name));
        let old: Option<Row> = place.select(Row::as_select()).first(conn).await.optional()?;
        if let Some(old) = &old {
            if old.owner_id != new.member.as_str() && !new.may_all {
                return Err(WriteError::Refused(Refused::Foreign));
            }
            let newest: Option<Version> = skill_versions::table
                .find((mesh.as_str(), &old.id, old.version))
                .select(Version::as_select())
                .first(conn)
                .await
                .optional()?;
            let same = |newest: &Version| {
                let proved = newest.signature.is_some() || new.signature.is_none();
                newest.digest == new.digest && newest.author_id == new.member.as_str() && proved
            };
            if newest.as_ref().is_some_and(same) {
                let shared = Shared { version: old.version, unchanged: true };
                return Ok((shared, Audit::Unaudited("nothing was changed")));
            }
        }
        let (id, owner, version, created_at_ms, size_before) = match &old {
            Some(old) => (old.id.clone(), old.owner_id.clone(), old.version + 1, old.created_at_ms, old.size_bytes),
            None => (fresh.clone(), new.member.to_string(), 1, new.now_ms, 0),
        };
        let of_skill = skill_versions::table
            .filter(skill_versions::mesh_id.eq(mesh.as_str()))
            .filter(skill_versions::skill_id.eq(&id));
        let kept = i64::try_from(new.quotas.value(&VERSIONS_PER_SKILL)).unwrap_or(i64::MAX).max(1);
        let outdated = of_skill.filter(skill_versions::version.le(version.saturating_sub(kept)));
        let gone: Vec<i64> = outdated.select(skill_versions::size_bytes).load(conn).await?;
        let size_bytes = size_before - gone.iter().sum::<i64>() + new.size_bytes;
        let sizes: Vec<(String, i64)> = skills::table
            .filter(skills::mesh_id.eq(mesh.as_str()))
            .select((skills::owner_id, skills::size_bytes))
            .load(conn)
            .await?;
        let whole = Usage::of(&sizes);
        let own = Usage::of(sizes.iter().filter(|(of, _)| *of == owner));
        let (more, growth) = (i64::from(old.is_none()), size_bytes - size_before);
        new.quotas.growth(&PER_MESH, whole.skills, whole.skills + more)?;
        new.quotas.growth(&PER_MEMBER, own.skills, own.skills + more)?;
        new.quotas.growth(&BYTES_PER_MESH, whole.bytes, whole.bytes + growth)?;
        new.quotas.growth(&BYTES_PER_MEMBER, own.bytes, own.bytes + growth)?;
        if let Some(old) = &old {
            conn.erasing().await?;
            diesel::delete(outdated).execute(conn).await?;
            diesel::delete(place).execute(conn).await?;
            conn.erased(INDEX, old.row_no).await?;
        }
        let last: Option<i64> = skills::table.select(diesel::dsl::max(skills::row_no)).first(conn).await?;
        // The row that was deleted may have been the last one; its number is free again.
        let row_no = last.unwrap_or(0) + 1;
        let tags = json!(new.tags).to_string();
        let row = Row {
            mesh_id: mesh.to_string(),
            name: new.name.clone(),
            id: id.clone(),
            row_no,
            owner_id: owner,
            version,
            description: new.description.clone(),
            tags: tags.clone(),
            author_id: new.member.to_string(),
            author_name: new.author_name.clone(),
            size_bytes,
            created_at_ms,
            updated_at_ms: new.now_ms,
        };
        let text = Version {
            mesh_id: mesh.to_string(),
            skill_id: id.clone(),
            version,
            description: new.description.clone(),
            instructions: new.instructions.clone(),
            tags,
            manifest: new.manifest.clone(),
            digest: new.digest.clone(),
            author_id: new.member.to_string(),
            author_name: new.author_name.clone(),
            author_pubkey: new.author_key.to_hex(),
            signature: new.signature.as_ref().map(|(signature, _)| signature.clone()),
            signed_at_ms: new.signature.as_ref().map(|(_, at)| *at),
            size_bytes: new.size_bytes,
            created_at_ms: new.now_ms,
        };
        diesel::insert_into(skills::table).values(row).execute(conn).await?;
        diesel::insert_into(skill_versions::table).values(text).execute(conn).await?;
        conn.index(INDEX, row_no, document).await?;
        let payload = json!({
            "skill": id,
            "name": new.name,
            "version": version,
            "size": new.size_bytes,
            "signed": new.signature.is_some(),
        });
        let audit = Audit::entry("skill_shared", Some(&new.member), payload, new.now_ms);
        Ok((Shared { version, unchanged: false }, audit))
    })
}

/// Deletes a skill: all its texts, its words, and what was on the pages of SQLite's file.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn remove(store: &MeshStore, removal: Removal) -> Result<Row, WriteError<Refused>> {
    tx_write!(store, rows: 4, (removal), |conn, mesh| {
        let refused = WriteError::Refused;
        let place = skills::table.find((mesh.as_str(), &removal.name));
        let row: Option<Row> = place.select(Row::as_select()).first(conn).await.optional()?;
        let row = row.ok_or(refused(Refused::Missing))?;
        if row.owner_id != removal.member.as_str() && !removal.may_all {
            return Err(refused(Refused::Foreign));
        }
        conn.erasing().await?;
        let texts = skill_versions::table
            .filter(skill_versions::mesh_id.eq(mesh.as_str()))
            .filter(skill_versions::skill_id.eq(&row.id));
        diesel::delete(texts).execute(conn).await?;
        diesel::delete(place).execute(conn).await?;
        conn.erased(INDEX, row.row_no).await?;
        let payload = json!({"skill": row.id, "name": row.name, "version": row.version, "owner": row.owner_id});
        let audit = Audit::entry("skill_removed", Some(&removal.member), payload, removal.now_ms);
        Ok((row, audit))
    })
}

/// A skill with its newest text or with that of one version; `None` when either is not there.
///
/// # Errors
/// Storage fails.
pub async fn get(db: &MeshDb, name: &str, version: Option<i64>) -> Result<Option<Found>, DbError> {
    let mesh = db.mesh().as_str();
    let row: Option<Row> = with_conn!(db.db(), |conn| skills::table
        .find((mesh, name))
        .select(Row::as_select())
        .first(conn)
        .await
        .optional()?);
    let Some(mut row) = row else { return Ok(None) };
    let of_skill =
        || skill_versions::table.filter(skill_versions::mesh_id.eq(mesh)).filter(skill_versions::skill_id.eq(&row.id));
    let versions: Vec<Mark> = with_conn!(db.db(), |conn| of_skill()
        .order(skill_versions::version.desc())
        .select(Mark::as_select())
        .load(conn)
        .await?);
    // A newer one may have been shared since the row was read.
    let Some(latest) = versions.as_slice().first().map(|mark| mark.version) else { return Ok(None) };
    let text: Option<Version> = with_conn!(db.db(), |conn| of_skill()
        .filter(skill_versions::version.eq(version.unwrap_or(latest)))
        .select(Version::as_select())
        .first(conn)
        .await
        .optional()?);
    row.version = latest;
    Ok(text.map(|text| Found { row, text, versions }))
}

/// Skills by name behind one, those that are wanted.
///
/// # Errors
/// Storage fails.
pub async fn list(db: &MeshDb, wanted: &Wanted, behind: Option<&str>, limit: u32) -> Result<Page, DbError> {
    let of_mesh = skills::table
        .filter(skills::mesh_id.eq(db.mesh().as_str()))
        .filter(skills::name.gt(behind.unwrap_or_default()))
        .order(skills::name)
        .limit(i64::from(limit) + 1);
    let rows: Vec<Row> = match numbers(db, wanted).await? {
        None => with_conn!(db.db(), |conn| of_mesh.select(Row::as_select()).load(conn).await?),
        Some(numbers) => {
            let wanted = of_mesh.filter(skills::row_no.eq_any(&numbers));
            with_conn!(db.db(), |conn| wanted.select(Row::as_select()).load(conn).await?)
        }
    };
    Ok(page(rows, limit as usize))
}

/// The numbers of those that are wanted; `None`: all.
async fn numbers(db: &MeshDb, wanted: &Wanted) -> Result<Option<Vec<i64>>, DbError> {
    if wanted.words.is_empty() && wanted.tags.is_empty() {
        return Ok(None);
    }
    let search = Search::new(db.mesh(), wanted.words.clone());
    let search = wanted.tags.iter().fold(search, |search, tag| search.label("tag", [tag.as_str()]));
    if wanted.words.is_empty() {
        let most = u32::try_from(PER_MESH.most).unwrap_or(u32::MAX);
        return index::newest(db, INDEX, &search, most).await.map(Some);
    }
    index::find(db, INDEX, &search).await.map(Some)
}

/// The first rows, at most `limit`, of at most [`MAX_PAGE_BYTES`] together but at least one.
fn page(mut rows: Vec<Row>, limit: usize) -> Page {
    let mut bytes = 0_usize;
    let fits = |(at, row): &(usize, &Row)| {
        bytes += row.name.len() + row.description.len() + row.tags.len() + ROW_OVERHEAD_BYTES;
        *at == 0 || (*at < limit && bytes <= MAX_PAGE_BYTES)
    };
    let shown = rows.iter().enumerate().take_while(fits).count();
    let more = rows.len() > shown;
    rows.truncate(shown);
    let next = rows.last().filter(|_| more).map(|row| row.name.clone());
    Page { rows, next }
}

/// What the mesh, or what a member has shared of it, takes in all.
///
/// # Errors
/// Storage fails.
pub async fn usage(db: &MeshDb, owner: Option<&MemberId>) -> Result<Usage, DbError> {
    let sizes: Vec<(String, i64)> = with_conn!(db.db(), |conn| skills::table
        .filter(skills::mesh_id.eq(db.mesh().as_str()))
        .select((skills::owner_id, skills::size_bytes))
        .load(conn)
        .await?);
    Ok(Usage::of(sizes.iter().filter(|(of, _)| owner.is_none_or(|owner| of == owner.as_str()))))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
