//! Contexts: what each session works on and has found out, for the others to look up. They stay in storage.

pub mod limits;
pub mod schema;
pub mod store;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::contexts::limits as wire;
use claudemesh_protocol::features::contexts::{
    Context as Told, ContextEntry, ContextList, ContextResults, ContextShared, GetContext, ListContexts, Request,
    STATE_KEY_PREFIX, ShareContext,
};
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::state::StateChange;
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::time::iso;

use self::store::{Found, New, Page, Refused, Row};
use crate::db::{Db, DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::{Peer, PeerHandle};
use crate::quota::{Quota, Quotas};
use crate::refusal::{Refusal, invalid};
use crate::search::query::Query;

/// What the key of a context that was shared outside of a session begins with.
const OF_MEMBER: &str = "member:";

/// The feature.
pub struct Contexts;

impl Feature for Contexts {
    const NAME: &'static str = "contexts";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = ();

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::ShareContext(request) => Self::answer::<ShareContext>(share(cx, request)),
            Request::GetContext(request) => Self::answer::<GetContext>(get(cx, request)),
            Request::ListContexts(request) => Self::answer::<ListContexts>(list(cx, request)),
        }
    }

    async fn describe_stored(
        storage: &MeshDb,
        member: &MemberId,
        quotas: &Quotas,
        info: &mut MeshInfoResult,
    ) -> Result<(), DbError> {
        let (mesh, own) = (store::count(storage, None).await?, store::count(storage, Some(member)).await?);
        info.context_count = u32::try_from(mesh).unwrap_or(0);
        info.limits.extend([
            quotas.bound(&limits::PER_MESH, mesh.max(0).unsigned_abs()),
            quotas.bound(&limits::PER_MEMBER, own.max(0).unsigned_abs()),
        ]);
        Ok(())
    }

    async fn upkeep(db: &Db, now_ms: i64) -> Result<usize, DbError> {
        store::purge(db, now_ms).await
    }
}

impl From<Refused> for Refusal {
    fn from(Refused::Limit(bound): Refused) -> Self {
        bound.into()
    }
}

/// Lines and tabs are fine; other control characters are not.
fn is_text(text: &str) -> bool {
    text.chars().all(|symbol| !symbol.is_control() || matches!(symbol, '\n' | '\r' | '\t'))
}

fn check(request: &ShareContext) -> Result<(), Refusal> {
    let summary = &request.summary;
    if summary.trim().is_empty() || summary.len() > wire::MAX_SUMMARY_BYTES || !is_text(summary) {
        return Err(invalid(
            "`summary`: expected 1 to 8192 bytes without control characters other than line ends and tabs",
        ));
    }
    for (name, list) in [("filesRead", &request.files_read), ("keyFindings", &request.key_findings)] {
        let fine = |item: &String| item.len() <= wire::MAX_ITEM_BYTES && is_text(item);
        if list.len() > wire::MAX_ITEMS || !list.iter().all(fine) {
            let message =
                format!("`{name}`: expected at most 200 texts of at most 1024 bytes without control characters");
            return Err(invalid(&message));
        }
    }
    let fine = |tag: &String| tag.chars().count() <= wire::MAX_TAG_CHARS && !tag.chars().any(char::is_control);
    if request.tags.len() > wire::MAX_ITEMS || !request.tags.iter().all(fine) {
        return Err(invalid("`tags`: expected at most 200 tags of at most 64 characters without control characters"));
    }
    Ok(())
}

fn share(cx: &mut MeshContext<'_>, request: ShareContext) -> Result<Outcome<ContextShared>, Refusal> {
    check(&request)?;
    let items = request.files_read.iter().chain(&request.key_findings).chain(&request.tags);
    let size = request.summary.len() + items.map(String::len).sum::<usize>();
    let quotas = cx.limits().quotas.clone();
    quotas.fits(&limits::BYTES_PER_CONTEXT, size)?;
    let own = cx.asker()?;
    let at = own.handle;
    // A verb at the shell of a session acts for it; any other verb is gone at once, and its key with it.
    let session = own.acts_for.and_then(|at| cx.roster().get(at)).unwrap_or(own);
    let (of, session_name) = (session.handle, session.name.clone());
    let key = if session.ephemeral || session.handle == PeerHandle::NONE {
        format!("{OF_MEMBER}{}", own.member)
    } else {
        session.key().to_hex()
    };
    let (member, peer_name) = (own.member.clone(), cx.member()?.display_name.clone());
    cx.count_write(&limits::WRITES_PER_MINUTE, Some(&member))?;
    let change = StateChange {
        key: format!("{STATE_KEY_PREFIX}{peer_name}"),
        value: request.summary.clone().into(),
        updated_by: peer_name.clone(),
        ..StateChange::default()
    };
    let new = New {
        session: key,
        member,
        peer_name,
        session_name,
        summary: request.summary,
        files: request.files_read,
        findings: request.key_findings,
        tags: request.tags,
        size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        now_ms: cx.now_ms(),
        quotas,
    };
    let storage = cx.storage();
    let slow = async move { store::share(&storage, new).await };
    Ok(Contexts::work_in(cx.own_lane::<Contexts>(), slow, move |(), cx, id| {
        let others = |peer: &Peer| peer.handle != at && peer.handle != of && !peer.ephemeral;
        // Who misses it finds the context in the list.
        let _ = cx.tell(&change.into(), Capability::CanReadShared, others);
        Ok(Outcome::Answer(ContextShared { id }))
    }))
}

fn page_size(limit: Option<u32>, usual: u32) -> u32 {
    limit.unwrap_or(usual).clamp(1, wire::MAX_PAGE)
}

fn get(cx: &mut MeshContext<'_>, request: GetContext) -> Result<Outcome<ContextResults>, Refusal> {
    if request.query.len() > wire::MAX_QUERY_BYTES {
        return Err(invalid("`query`: expected at most 1024 bytes"));
    }
    let words = Query::parse(&request.query);
    if words.len() > wire::MAX_QUERY_WORDS {
        return Err(invalid("`query`: expected at most 32 words and phrases"));
    }
    let (storage, limit, cursor) = (cx.storage(), page_size(request.limit, wire::USUAL_PAGE), request.cursor);
    if request.query.trim().is_empty() {
        let slow = async move { store::list(&storage, cursor.as_deref(), limit).await };
        return Ok(Contexts::work_in(cx.own_lane::<Contexts>(), slow, |(), cx, page| {
            Ok(Outcome::Answer(results(cx, page, vec![])))
        }));
    }
    let skip = match cursor.as_deref().map(str::parse::<usize>) {
        None => 0,
        Some(Ok(skip)) => skip,
        Some(Err(_)) => return Err(invalid("`cursor`: expected `next` of the page before")),
    };
    if words.is_empty() {
        return Ok(Outcome::Answer(ContextResults::default()));
    }
    let slow = async move {
        let page = store::find(&storage, words.clone(), skip, limit).await?;
        let nothing = page.rows.is_empty() && skip == 0;
        let unmatched = if nothing { store::unmatched(&storage, &words).await? } else { vec![] };
        Ok::<_, DbError>((page, unmatched))
    };
    Ok(Contexts::work_in(cx.own_lane::<Contexts>(), slow, |(), cx, (page, unmatched)| {
        Ok(Outcome::Answer(results(cx, page, unmatched)))
    }))
}

fn list(cx: &mut MeshContext<'_>, request: ListContexts) -> Result<Outcome<ContextList>, Refusal> {
    let (storage, limit, cursor) = (cx.storage(), page_size(request.limit, wire::MAX_PAGE), request.cursor);
    let slow = async move { store::list(&storage, cursor.as_deref(), limit).await };
    Ok(Contexts::work_in(cx.own_lane::<Contexts>(), slow, |(), cx, Page { rows, next }| {
        let entry = |(row, _): Found| ContextEntry {
            gone: is_gone(cx, &row),
            tags: row.tags(),
            peer_name: row.peer_name,
            summary: row.summary,
            updated_at: iso(row.updated_at_ms),
            id: row.id,
            session_name: row.session_name,
        };
        Ok(Outcome::Answer(ContextList { contexts: rows.into_iter().map(entry).collect(), next }))
    }))
}

/// Whether the session is neither connected nor in its grace. A shell is never there.
fn is_gone(cx: &MeshContext<'_>, row: &Row) -> bool {
    let member = row.member_id.as_str().into();
    let there = |at| cx.roster().get(at).is_some_and(|peer| peer.key().to_hex() == row.session);
    !row.session.starts_with(OF_MEMBER) && !cx.roster().of_member(&member).iter().copied().any(there)
}

fn results(cx: &MeshContext<'_>, Page { rows, next }: Page, unmatched: Vec<String>) -> ContextResults {
    let told = |(row, seen): Found| Told {
        gone: is_gone(cx, &row),
        files_read: row.files(),
        key_findings: row.findings(),
        tags: row.tags(),
        peer_name: row.peer_name,
        summary: row.summary,
        updated_at: iso(row.updated_at_ms),
        id: row.id,
        session_name: row.session_name,
        snippet: seen.map(|seen| seen.snippet),
    };
    ContextResults { contexts: rows.into_iter().map(told).collect(), next, unmatched }
}
