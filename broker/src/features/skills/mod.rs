//! Skills: instructions that members share, with their former versions and the signatures of their authors. They stay in storage; a
//! mesh in memory knows only who has still to be told of a change. Requests of one socket share a lane, so a reader finds what it
//! wrote before.
//!
//! The broker checks a signature when a skill is shared, so that a client learns at once that its text cannot be verified. Readers
//! check it again and need not believe the broker.

pub mod limits;
pub mod schema;
pub mod store;
mod telling;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::crypto::audit::canonical_json;
use claudemesh_protocol::crypto::keys::KeyError;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::skills::limits as wire;
use claudemesh_protocol::features::skills::{
    GetSkill, ListSkills, NOT_FOUND, REMOVED, RemoveSkill, Request, SHARED, ShareSkill, Skill as Told, SkillAck,
    SkillData, SkillEntry, SkillList, SkillVersion,
};
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::name;
use claudemesh_protocol::time::iso;

use self::store::{Found, Mark, New, Page, Refused, Removal, Row, Shared, Wanted};
pub use self::telling::Telling;
use crate::db::{DbError, MeshDb};
use crate::journal::WriteError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::quota::{Quota, Quotas};
use crate::refusal::{Refusal, invalid};
use crate::search::query::Query;

/// The feature.
pub struct Skills;

impl Feature for Skills {
    const NAME: &'static str = "skills";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = Telling;

    fn handle(_: &mut Telling, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::ShareSkill(request) => Self::answer::<ShareSkill>(share(cx, request)),
            Request::GetSkill(request) => Self::answer::<GetSkill>(get(cx, request)),
            Request::ListSkills(request) => Self::answer::<ListSkills>(list(cx, request)),
            Request::RemoveSkill(request) => Self::answer::<RemoveSkill>(remove(cx, request)),
        }
    }

    fn on_event(memory: &mut Telling, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        if let MeshEvent::Tick = event {
            memory.tell_late(cx);
        }
    }

    async fn describe_stored(
        storage: &MeshDb,
        member: &MemberId,
        quotas: &Quotas,
        info: &mut MeshInfoResult,
    ) -> Result<(), DbError> {
        let (mesh, own) = (store::usage(storage, None).await?, store::usage(storage, Some(member)).await?);
        info.skill_count = number(mesh.skills);
        info.limits.extend([
            quotas.bound(&limits::PER_MESH, mesh.skills.max(0).unsigned_abs()),
            quotas.bound(&limits::PER_MEMBER, own.skills.max(0).unsigned_abs()),
            quotas.bound(&limits::BYTES_PER_MESH, mesh.bytes.max(0).unsigned_abs()),
            quotas.bound(&limits::BYTES_PER_MEMBER, own.bytes.max(0).unsigned_abs()),
        ]);
        Ok(())
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Limit(bound) => bound.into(),
            Refused::Missing => Self::new(ErrorCode::NotFound, "there is no such skill"),
            Refused::Foreign => Self::new(
                ErrorCode::Forbidden,
                format!(
                    "another member shared this skill; to change or remove it needs the capability {}",
                    Capability::CanModerate.as_str()
                ),
            ),
        }
    }
}

/// A number of storage on the wire.
fn number(stored: i64) -> u32 {
    u32::try_from(stored).unwrap_or(0)
}

/// Lines and tabs are fine; other control characters are not.
fn is_text(text: &str) -> bool {
    text.chars().all(|symbol| !symbol.is_control() || matches!(symbol, '\n' | '\r' | '\t'))
}

fn check_name(text: &str) -> Result<(), Refusal> {
    // What is signed is the name as it was sent, so it must be the form that is kept.
    if name::visible(text).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    let message = "`name`: expected 1 to 64 characters that can be seen, in composed form and without margins";
    Err(Refusal::new(ErrorCode::InvalidName, message))
}

fn check_tags(tags: &[String]) -> Result<(), Refusal> {
    let fine = |tag: &String| {
        !tag.trim().is_empty() && tag.chars().count() <= wire::MAX_TAG_CHARS && !tag.chars().any(char::is_control)
    };
    if tags.len() > wire::MAX_TAGS || !tags.iter().all(fine) {
        return Err(invalid("`tags`: expected at most 16 tags of 1 to 64 characters without control characters"));
    }
    Ok(())
}

/// The manifest as it is stored.
fn check(request: &ShareSkill) -> Result<Option<String>, Refusal> {
    check_name(&request.name)?;
    let description = &request.description;
    if description.trim().is_empty() || description.len() > wire::MAX_DESCRIPTION_BYTES || !is_text(description) {
        return Err(invalid(
            "`description`: expected 1 to 2048 bytes without control characters other than line ends and tabs",
        ));
    }
    if request.instructions.trim().is_empty() || !is_text(&request.instructions) {
        return Err(invalid(
            "`instructions`: expected a text without control characters other than line ends and tabs",
        ));
    }
    check_tags(&request.tags)?;
    if request.manifest.as_ref().is_some_and(|manifest| !manifest.is_object()) {
        return Err(invalid("`manifest`: expected an object"));
    }
    let manifest = request.manifest.as_ref().map(canonical_json);
    if manifest.as_ref().is_some_and(|manifest| manifest.len() > wire::MAX_MANIFEST_BYTES) {
        return Err(invalid("`manifest`: expected at most 8192 bytes"));
    }
    Ok(manifest)
}

/// The signature with its time, once it is of this text by this member.
fn signature(cx: &MeshContext<'_>, request: &ShareSkill, key: &PublicKey) -> Result<Option<(String, i64)>, Refusal> {
    let (signature, at) = match (&request.signature, request.signed_at_ms) {
        (None, None) => return Ok(None),
        (Some(signature), Some(at)) => (signature.to_ascii_lowercase(), at),
        _ => return Err(invalid("`signature` goes with `signed_at_ms`")),
    };
    match request.text().verify(cx.mesh_id(), key, &signature, at) {
        Ok(()) => Ok(Some((signature, at))),
        Err(KeyError::BadSignatureShape) => Err(invalid("`signature`: expected 128 hex digits")),
        Err(_) => Err(Refusal::new(
            ErrorCode::BadSignature,
            "the signature is not of this text by the key of the member that shares it",
        )),
    }
}

fn share(cx: &mut MeshContext<'_>, request: ShareSkill) -> Result<Outcome<SkillAck>, Refusal> {
    let manifest = check(&request)?;
    let tags = request.tags.iter().map(String::len).sum::<usize>();
    let size = request.description.len() + request.instructions.len() + manifest.as_ref().map_or(0, String::len) + tags;
    let quotas = cx.limits().quotas.clone();
    quotas.fits(&limits::BYTES_PER_SKILL, size)?;
    let own = cx.member()?;
    let (member, author_name, author_key) = (own.id.clone(), own.display_name.clone(), own.pubkey);
    cx.count_write(&limits::WRITES_PER_MINUTE, Some(&member))?;
    // At most 64 KiB are hashed, and one signature is checked: a fraction of a millisecond, behind the rate above.
    let signature = signature(cx, &request, &author_key)?;
    let new = New {
        digest: request.text().digest(),
        name: request.name,
        description: request.description,
        instructions: request.instructions,
        tags: request.tags,
        manifest,
        signature,
        member,
        author_name: author_name.clone(),
        author_key,
        may_all: cx.may(Capability::CanModerate)?,
        size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        now_ms: cx.now_ms(),
        quotas,
    };
    let (storage, lane, name) = (cx.storage(), cx.own_lane::<Skills>(), new.name.clone());
    let slow = async move { store::share(&storage, new).await };
    Ok(Skills::work_in(lane, slow, move |memory, cx, shared: Shared| {
        let version = number(shared.version);
        if !shared.unchanged {
            memory.tell(cx, telling::shared(&name, version, &author_name));
        }
        let unchanged = shared.unchanged;
        Ok(Outcome::Answer(SkillAck { name, action: SHARED.into(), version: Some(version), unchanged }))
    }))
}

fn remove(cx: &mut MeshContext<'_>, request: RemoveSkill) -> Result<Outcome<SkillAck>, Refusal> {
    let own = cx.member()?;
    let (member, by) = (own.id.clone(), own.display_name.clone());
    let may_all = cx.may(Capability::CanModerate)?;
    cx.count_write(&limits::WRITES_PER_MINUTE, Some(&member))?;
    let name = request.name;
    if check_name(&name).is_err() {
        // What no skill can be called is the name of none.
        return Ok(Outcome::Answer(SkillAck { name, action: NOT_FOUND.into(), ..SkillAck::default() }));
    }
    let removal = Removal { name: name.clone(), member, may_all, now_ms: cx.now_ms() };
    let (storage, lane) = (cx.storage(), cx.own_lane::<Skills>());
    let slow = async move {
        match store::remove(&storage, removal).await {
            Ok(_) => Ok(true),
            // Clients of before take it for an answer, not for a failure.
            Err(WriteError::Refused(Refused::Missing)) => Ok(false),
            Err(error) => Err(error),
        }
    };
    Ok(Skills::work_in(lane, slow, move |memory, cx, removed| {
        if removed {
            memory.tell(cx, telling::removed(&name, &by));
        }
        let action = if removed { REMOVED } else { NOT_FOUND };
        Ok(Outcome::Answer(SkillAck { name, action: action.into(), ..SkillAck::default() }))
    }))
}

fn get(cx: &mut MeshContext<'_>, request: GetSkill) -> Result<Outcome<SkillData>, Refusal> {
    if check_name(&request.name).is_err() {
        return Ok(Outcome::Answer(SkillData::default()));
    }
    let (storage, lane) = (cx.storage(), cx.own_lane::<Skills>());
    let slow = async move { store::get(&storage, &request.name, request.version.map(i64::from)).await };
    Ok(Skills::work_in(lane, slow, |_, _, found| Ok(Outcome::Answer(SkillData { skill: found.map(told) }))))
}

fn told(found: Found) -> Told {
    let Found { row, text, versions } = found;
    let mark = |mark: Mark| SkillVersion {
        version: number(mark.version),
        author: mark.author_name,
        at: iso(mark.created_at_ms),
        bytes: mark.size_bytes.max(0).unsigned_abs(),
    };
    Told {
        tags: text.tags(),
        name: row.name,
        description: text.description,
        instructions: text.instructions,
        author: text.author_name,
        manifest: text.manifest.and_then(|manifest| serde_json::from_str(&manifest).ok()),
        created_at: iso(row.created_at_ms),
        updated_at: iso(text.created_at_ms),
        version: number(text.version),
        latest: number(row.version),
        member_id: text.author_id,
        owner_id: row.owner_id,
        author_key: PublicKey::parse(&text.author_pubkey),
        signature: text.signature,
        signed_at_ms: text.signed_at_ms,
        versions: versions.into_iter().map(mark).collect(),
    }
}

fn list(cx: &mut MeshContext<'_>, request: ListSkills) -> Result<Outcome<SkillList>, Refusal> {
    let query = request.query.unwrap_or_default();
    if query.len() > wire::MAX_QUERY_BYTES {
        return Err(invalid("`query`: expected at most 1024 bytes"));
    }
    let words = Query::parse(&query);
    if words.len() > wire::MAX_QUERY_WORDS {
        return Err(invalid("`query`: expected at most 32 words and phrases"));
    }
    check_tags(&request.tags)?;
    if words.is_empty() && !query.trim().is_empty() {
        return Ok(Outcome::Answer(SkillList::default()));
    }
    if request.cursor.as_ref().is_some_and(|cursor| check_name(cursor).is_err()) {
        return Err(invalid("`cursor`: expected `next` of the page before"));
    }
    let limit = request.limit.unwrap_or(wire::MAX_PAGE).clamp(1, wire::MAX_PAGE);
    let (storage, lane, wanted) = (cx.storage(), cx.own_lane::<Skills>(), Wanted { words, tags: request.tags });
    let slow = async move { store::list(&storage, &wanted, request.cursor.as_deref(), limit).await };
    Ok(Skills::work_in(lane, slow, |_, _, Page { rows, next }| {
        Ok(Outcome::Answer(SkillList { skills: rows.into_iter().map(entry).collect(), next }))
    }))
}

fn entry(row: Row) -> SkillEntry {
    SkillEntry {
        tags: row.tags(),
        name: row.name,
        description: row.description,
        author: row.author_name,
        created_at: iso(row.created_at_ms),
        updated_at: iso(row.updated_at_ms),
        version: number(row.version),
        member_id: row.author_id,
    }
}
