//! Memory: texts that a mesh keeps, found again by words. They stay in storage; a mesh in memory knows how many there are.
//!
//! No one is told of a new memory: it is there for who asks. Requests of one socket share a lane, so a reader finds what it
//! wrote before.

pub mod http;
pub mod limits;
pub mod schema;
pub mod store;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::memory::limits as wire;
use claudemesh_protocol::features::memory::{
    Conditions, Forget, ListMemories, Memory as Told, MemoryResults, MemoryStored, Recall, Remember, Request,
};
use claudemesh_protocol::features::messaging::Ack;
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::time::iso;

use self::store::{Found, New, Only, Page, Place, Refused, Removal, Stored};
use crate::db::{DbError, MeshDb};
use crate::journal::WriteError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::quota::{Quota, Quotas};
use crate::refusal::{Refusal, invalid};
use crate::search::query::Query;

/// How often the log of storage is emptied while memories are forgotten, in milliseconds.
const SCRUB_EVERY_MS: i64 = 5_000;

/// What a mesh in memory knows of its memories: nothing of themselves.
#[derive(Default)]
pub struct MemoryMemory {
    /// Something was forgotten that the log of storage may still hold; when to look after it, in monotonic ms.
    scrub_at: Option<i64>,
}

/// The feature.
pub struct Memory;

impl Feature for Memory {
    const NAME: &'static str = "memory";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = MemoryMemory;

    fn handle(_: &mut MemoryMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::Remember(request) => Self::answer::<Remember>(remember(cx, request)),
            Request::Recall(request) => Self::answer::<Recall>(recall(cx, request)),
            Request::ListMemories(request) => Self::answer::<ListMemories>(list(cx, request)),
            Request::Forget(request) => Self::answer::<Forget>(forget(cx, request)),
        }
    }

    fn on_event(memory: &mut MemoryMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        if let MeshEvent::Tick = event
            && memory.scrub_at.is_some_and(|at| at <= cx.mono_ms())
        {
            memory.scrub_at = None;
            scrub(cx);
        }
    }

    async fn describe_stored(
        storage: &MeshDb,
        member: &MemberId,
        quotas: &Quotas,
        info: &mut MeshInfoResult,
    ) -> Result<(), DbError> {
        let (mesh, own) = (store::total(storage, None).await?, store::total(storage, Some(member)).await?);
        info.memory_count = u32::try_from(mesh.memories).unwrap_or(0);
        info.limits.extend([
            quotas.bound(&limits::PER_MESH, mesh.memories.max(0).unsigned_abs()),
            quotas.bound(&limits::PER_MEMBER, own.memories.max(0).unsigned_abs()),
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
            Refused::Missing => Self::new(ErrorCode::NotFound, "there is no such memory"),
            Refused::Ambiguous => Self::new(ErrorCode::AmbiguousPrefix, "several memories have an id that begins so"),
            Refused::Foreign => Self::new(
                ErrorCode::Forbidden,
                format!(
                    "another member stored this memory; to forget it needs the capability {}",
                    Capability::CanModerate.as_str()
                ),
            ),
        }
    }
}

fn check_tags(tags: Vec<String>) -> Result<Vec<String>, Refusal> {
    let tags: Vec<String> = tags.iter().map(|tag| tag.trim().to_owned()).collect();
    let fine = |tag: &String| {
        !tag.is_empty() && tag.chars().count() <= wire::MAX_TAG_CHARS && !tag.chars().any(char::is_control)
    };
    if tags.len() > wire::MAX_TAGS || !tags.iter().all(fine) {
        return Err(invalid("`tags`: expected at most 16 tags of 1 to 64 characters without control characters"));
    }
    Ok(tags)
}

fn remember(cx: &mut MeshContext<'_>, request: Remember) -> Result<Outcome<MemoryStored>, Refusal> {
    let content = request.content;
    let fine = |symbol: char| !symbol.is_control() || matches!(symbol, '\n' | '\r' | '\t');
    if content.trim().is_empty() || !content.chars().all(fine) {
        return Err(invalid("`content`: expected a text without control characters other than line ends and tabs"));
    }
    let tags = check_tags(request.tags)?;
    let quotas = cx.limits().quotas.clone();
    quotas.fits(&limits::BYTES_PER_MEMORY, content.len())?;
    let own = cx.member()?;
    let (member, author_name) = (own.id.clone(), own.display_name.clone());
    cx.count_write(&limits::WRITES_PER_MINUTE, Some(&member))?;
    let storage = cx.storage();
    let new = New { content, tags, member, author_name, now_ms: cx.now_ms(), quotas };
    let slow = async move { store::remember(&storage, new).await };
    Ok(Memory::work_in(cx.own_lane::<Memory>(), slow, |_, _, stored: Stored| {
        let Stored { id, duplicate } = stored;
        Ok(Outcome::Answer(MemoryStored { memory_id: id.clone(), id, duplicate }))
    }))
}

fn forget(cx: &mut MeshContext<'_>, request: Forget) -> Result<Outcome<Ack>, Refusal> {
    let id = request.memory_id;
    let member = cx.member()?.id.clone();
    let may_all = cx.may(Capability::CanModerate)?;
    cx.count_write(&limits::WRITES_PER_MINUTE, Some(&member))?;
    let ack = Ack { id: id.clone(), message_id: id.clone(), ..Ack::default() };
    // What no id can begin with is an id of nothing.
    if id.chars().count() < wire::MIN_ID_CHARS || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(Outcome::Answer(not_there(ack)));
    }
    let (storage, removal) = (cx.storage(), Removal { id, member, may_all, now_ms: cx.now_ms() });
    let slow = async move {
        match store::forget(&storage, removal).await {
            Ok(row) => Ok(Some(row)),
            Err(WriteError::Refused(Refused::Missing)) => Ok(None),
            Err(error) => Err(error),
        }
    };
    Ok(Memory::work_in(cx.own_lane::<Memory>(), slow, move |memory, cx, row| {
        let Some(row) = row else { return Ok(Outcome::Answer(not_there(ack))) };
        memory.scrub_at.get_or_insert(cx.mono_ms());
        Ok(Outcome::Answer(Ack { id: row.id.clone(), message_id: row.id, ..ack }))
    }))
}

/// Clients of before expect an `ack` for any id, and take an `error` for the end of another wait.
fn not_there(ack: Ack) -> Ack {
    let code = ErrorCode::NotFound.as_str();
    Ack { error: Some(format!("{code}: there is no such memory")), code: Some(code.into()), ..ack }
}

/// Takes what was forgotten out of the log of storage.
fn scrub(cx: &mut MeshContext<'_>) {
    let storage = cx.storage();
    let slow = async move { Ok::<_, Refusal>(storage.db().scrub().await) };
    let work = Memory::work("scrub", slow, |memory, cx, done| {
        match done {
            Ok(true) => {}
            // Someone reads; or it is not known.
            Ok(false) => memory.scrub_at = Some(cx.mono_ms() + SCRUB_EVERY_MS),
            Err(error) => {
                tracing::warn!(mesh.id = %cx.mesh_id(), error = %error, "the log of storage could not be emptied");
                memory.scrub_at = Some(cx.mono_ms() + SCRUB_EVERY_MS);
            }
        }
        Ok(Outcome::<claudemesh_protocol::call::Nothing>::Silent)
    });
    if let Outcome::Work(work) = work {
        cx.spawn(work);
    }
}

/// Reads the conditions. A name stands for every member that has it, banned ones among them.
fn conditions(cx: &MeshContext<'_>, only: Conditions) -> Result<Only, Refusal> {
    let members = only.author.map(|author| {
        let author = author.trim().to_owned();
        let key = author.to_lowercase();
        let meant = |member: &&crate::mesh::peers::Member| {
            member.id.as_str() == author || member.pubkey.to_hex() == key || member.display_name.to_lowercase() == key
        };
        cx.roster().members().filter(meant).map(|member| member.id.clone()).collect()
    });
    Ok(Only { tags: check_tags(only.tags)?, members, since_ms: only.since_ms, until_ms: only.until_ms })
}

fn page_size(limit: Option<u32>) -> u32 {
    limit.unwrap_or(wire::USUAL_PAGE).clamp(1, wire::MAX_PAGE)
}

fn recall(cx: &mut MeshContext<'_>, request: Recall) -> Result<Outcome<MemoryResults>, Refusal> {
    if request.query.len() > wire::MAX_QUERY_BYTES {
        return Err(invalid("`query`: expected at most 1024 bytes"));
    }
    let words = Query::parse(&request.query);
    if words.len() > wire::MAX_QUERY_WORDS {
        return Err(invalid("`query`: expected at most 32 words and phrases"));
    }
    let skip = match request.cursor.as_deref().map(str::parse::<usize>) {
        None => 0,
        Some(Ok(skip)) => skip,
        Some(Err(_)) => return Err(invalid("`cursor`: expected `next` of the page before")),
    };
    let only = conditions(cx, request.only)?;
    if words.is_empty() {
        return Ok(Outcome::Answer(MemoryResults::default()));
    }
    let (storage, limit) = (cx.storage(), page_size(request.limit));
    let slow = async move {
        let page = store::recall(&storage, words.clone(), &only, skip, limit).await?;
        let nothing = page.rows.is_empty() && skip == 0;
        let unmatched = if nothing { store::unmatched(&storage, &words).await? } else { vec![] };
        Ok::<_, DbError>((page, unmatched))
    };
    Ok(Memory::work_in(cx.own_lane::<Memory>(), slow, |_, _, (page, unmatched)| {
        Ok(Outcome::Answer(MemoryResults { unmatched, ..told(page) }))
    }))
}

fn list(cx: &mut MeshContext<'_>, request: ListMemories) -> Result<Outcome<MemoryResults>, Refusal> {
    let behind = request.cursor.map(|cursor| {
        let (at, id) = cursor.split_once('.')?;
        Some(Place { at_ms: at.parse().ok()?, id: id.to_owned() })
    });
    let behind = match behind {
        Some(None) => return Err(invalid("`cursor`: expected `next` of the page before")),
        other => other.flatten(),
    };
    let only = conditions(cx, request.only)?;
    let (storage, limit) = (cx.storage(), page_size(request.limit));
    let slow = async move { store::list(&storage, &only, behind, limit).await };
    Ok(Memory::work_in(cx.own_lane::<Memory>(), slow, |_, _, page| Ok(Outcome::Answer(told(page)))))
}

fn told(page: Page) -> MemoryResults {
    let told = |(row, seen): Found| Told {
        tags: row.tags(),
        id: row.id,
        content: row.content,
        remembered_by: row.author_name,
        remembered_at: iso(row.created_at_ms),
        member_id: row.member_id,
        snippet: seen.map(|seen| seen.snippet),
    };
    MemoryResults { memories: page.rows.into_iter().map(told).collect(), next: page.next, unmatched: vec![] }
}
