//! Shared state: one JSON value per key. Values stay in storage; a mesh in memory knows the order in which it tells of changes.
//!
//! Requests of one socket share a lane: they are done in their order, so a reader sees what it wrote before. Sockets run
//! beside each other, and the transaction orders their writes.

pub mod http;
pub mod limits;
pub mod schema;
pub mod store;
mod telling;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::state::limits as wire;
use claudemesh_protocol::features::state::{
    DeleteState, GetState, ListState, Request, SetState, StateEntry, StateGreeting, StateList, StateResult,
    StateWritten,
};
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::session::HelloAck;
use claudemesh_protocol::time::iso;
use serde_json::{Value, json};

use self::store::{Act, Entry, Refused, Write};
use self::telling::{Telling, Writer};
use crate::db::{Db, DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::PeerHandle;
use crate::quota::{Quota, Quotas};
use crate::refusal::{Refusal, invalid};

/// What a mesh in memory knows of its state: no values.
#[derive(Default)]
pub struct StateMemory {
    telling: Telling,
}

/// The feature.
pub struct State;

impl Feature for State {
    const NAME: &'static str = "state";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = StateMemory;

    async fn load(storage: &MeshDb) -> Result<StateMemory, DbError> {
        Ok(StateMemory { telling: Telling::load(storage).await? })
    }

    fn started(memory: &mut StateMemory, cx: &mut MeshContext<'_>) {
        memory.telling.started(cx);
    }

    fn handle(_: &mut StateMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::SetState(request) => Self::answer::<SetState>(set(cx, request)),
            Request::GetState(request) => Self::answer::<GetState>(get(cx, request)),
            Request::ListState(request) => Self::answer::<ListState>(list(cx, request)),
            Request::DeleteState(request) => Self::answer::<DeleteState>(delete(cx, request)),
        }
    }

    fn on_wake(memory: &mut StateMemory, cx: &mut MeshContext<'_>, key: &str) {
        memory.telling.on_wake(cx, key);
    }

    fn greet(memory: &StateMemory, _: &MeshContext<'_>, _: PeerHandle, ack: &mut HelloAck) {
        if let Ok(greeting) = serde_json::to_value(StateGreeting { revision: memory.telling.revision() }) {
            ack.features.insert(Self::NAME.into(), greeting);
        }
    }

    fn describe(memory: &StateMemory, _: &MeshContext<'_>, info: &mut MeshInfoResult) {
        info.state_keys = memory.telling.names();
    }

    async fn describe_stored(
        storage: &MeshDb,
        member: &MemberId,
        quotas: &Quotas,
        info: &mut MeshInfoResult,
    ) -> Result<(), DbError> {
        let (mesh, own) = (store::head(storage).await?, store::usage(storage, member).await?);
        info.state_count = u32::try_from(mesh.entries).unwrap_or(0);
        info.limits.extend([
            quotas.bound(&limits::KEYS_PER_MESH, number(mesh.entries)),
            quotas.bound(&limits::KEYS_PER_MEMBER, number(own.entries)),
            quotas.bound(&limits::BYTES_PER_MESH, number(mesh.bytes)),
            quotas.bound(&limits::BYTES_PER_MEMBER, number(own.bytes)),
        ]);
        Ok(())
    }

    async fn upkeep(db: &Db, now_ms: i64) -> Result<usize, DbError> {
        store::purge(db, now_ms).await
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Conflict { value, version } => {
                let value: Value = serde_json::from_str(&value).unwrap_or_default();
                let message = format!("the key has version {version} now");
                let current = Some(Box::new(json!({"value": value, "version": version})));
                Self { current, ..Self::new(ErrorCode::Conflict, message) }
            }
            Refused::Missing => Self::new(ErrorCode::NotFound, "there is no such key"),
            Refused::Limit(bound) => bound.into(),
        }
    }
}

fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > wire::MAX_KEY_BYTES || key.chars().any(char::is_control) {
        return Err(invalid("`key`: expected 1 to 512 bytes without control characters"));
    }
    Ok(())
}

fn set(cx: &mut MeshContext<'_>, request: SetState) -> Result<Outcome<StateWritten>, Refusal> {
    if request.ttl_s.is_some_and(|ttl| !(1..=wire::MAX_TTL_S).contains(&ttl)) {
        return Err(invalid("`ttl_s`: expected 1 to 31536000 seconds"));
    }
    let value = request.value.to_string();
    cx.limits().quotas.fits(&limits::BYTES_PER_VALUE, value.len())?;
    let ttl_ms = request.ttl_s.map(|ttl| i64::try_from(ttl).unwrap_or(i64::MAX).saturating_mul(1_000));
    let expires_at_ms = ttl_ms.map(|ttl| cx.now_ms().saturating_add(ttl));
    change(cx, request.key, Act::Set { value, expires_at_ms }, request.expected_version)
}

fn delete(cx: &mut MeshContext<'_>, request: DeleteState) -> Result<Outcome<StateWritten>, Refusal> {
    change(cx, request.key, Act::Delete, request.expected_version)
}

fn change(
    cx: &mut MeshContext<'_>,
    key: String,
    act: Act,
    expected_version: Option<u64>,
) -> Result<Outcome<StateWritten>, Refusal> {
    check_key(&key)?;
    if key == wire::TEMPLATE_KEY {
        cx.require(Capability::CanManageMesh)?;
    }
    // A version that no key can have is one that this key has not.
    let expected_version = expected_version.map(|version| i64::try_from(version).unwrap_or(i64::MAX));
    let asker = cx.asker()?;
    let (member, name) = (asker.member.clone(), asker.name.clone());
    // Of a member without a connection every session is told.
    let writer = asker.online().then_some(Writer { peer: asker.handle, socket_no: asker.socket_no });
    cx.count_write(&limits::WRITES_PER_MINUTE, Some(&member))?;
    let write = Write {
        key,
        act,
        expected_version,
        by: Some((member, name)),
        now_ms: cx.now_ms(),
        believed_ms: cx.believed_ms(),
        quotas: cx.limits().quotas.clone(),
    };
    let storage = cx.storage();
    let slow = async move { store::write(&storage, write).await };
    // Whatever comes of it, the mesh has to know.
    Ok(State::work_or_failure(cx.own_lane::<State>(), slow, move |memory, cx, written| {
        let entry = memory.telling.returned(cx, writer, written)?;
        Ok(Outcome::Answer(StateWritten { version: number(entry.version), revision: number(entry.revision) }))
    }))
}

fn get(cx: &mut MeshContext<'_>, request: GetState) -> Result<Outcome<StateResult>, Refusal> {
    check_key(&request.key)?;
    let (storage, now) = (cx.storage(), cx.believed_ms());
    let slow = async move {
        let found = store::get(&storage, &request.key, now).await?;
        Ok::<_, DbError>((request.key, found))
    };
    Ok(State::work_in(cx.own_lane::<State>(), slow, |_, _, (key, found)| {
        let missing = StateResult { key, ..StateResult::default() };
        let result = match found {
            None => missing,
            Some(entry) => StateResult {
                value: json_of(&entry)?,
                updated_at: iso(entry.updated_at_ms),
                version: number(entry.version),
                expires_at: entry.expires_at_ms.map(iso),
                updated_by: entry.updated_by_name,
                ..missing
            },
        };
        Ok(Outcome::Answer(result))
    }))
}

fn list(cx: &mut MeshContext<'_>, request: ListState) -> Result<Outcome<StateList>, Refusal> {
    let limit = request.limit.unwrap_or(wire::MAX_PAGE).clamp(1, wire::MAX_PAGE);
    let prefix = request.prefix.unwrap_or_default();
    if prefix.len() > wire::MAX_KEY_BYTES || prefix.chars().any(char::is_control) {
        return Err(invalid("`prefix`: expected at most 512 bytes without control characters"));
    }
    let cursor = request.cursor;
    let (storage, now) = (cx.storage(), cx.believed_ms());
    let Some(since) = request.since else {
        if let Some(cursor) = &cursor {
            check_key(cursor).map_err(|_| invalid("`cursor`: expected `next` of the page before"))?;
        }
        let slow = async move {
            // Read first: the page is at least as new.
            let head = store::head(&storage).await?;
            let page = store::page(&storage, &prefix, cursor.as_deref(), limit, now).await?;
            Ok::<_, DbError>((head, page))
        };
        return Ok(State::work_in(cx.own_lane::<State>(), slow, |_, _, (head, page)| {
            let entries = page.entries.into_iter().map(row).collect::<Result<_, _>>()?;
            let list = StateList { entries, next: page.next, revision: number(head.revision), incomplete: false };
            Ok(Outcome::Answer(list))
        }));
    };
    let since = i64::try_from(since).unwrap_or(i64::MAX);
    let after = match cursor {
        None => since,
        Some(cursor) => {
            let after: i64 = cursor
                .parse()
                .map_err(|_| invalid("`cursor`: expected `next` of the page before, with the same `since`"))?;
            after.max(since)
        }
    };
    let slow = async move {
        let before = store::head(&storage).await?;
        let page = store::changes(&storage, &prefix, after, limit, now).await?;
        // Read last: what was forgotten while the page was read is missing on it.
        let forgotten = store::head(&storage).await?.forgotten_revision;
        Ok::<_, DbError>((before.revision, forgotten, page))
    };
    Ok(State::work_in(cx.own_lane::<State>(), slow, move |_, _, (revision, forgotten, page)| {
        let entries = page.entries.into_iter().map(row).collect::<Result<_, _>>()?;
        let next = page.next.map(|revision| revision.to_string());
        // A revision that is still to come is one of storage that was put back to an older state.
        let incomplete = since < forgotten || since > revision;
        Ok(Outcome::Answer(StateList { entries, next, revision: number(revision), incomplete }))
    }))
}

fn row(entry: Entry) -> Result<StateEntry, Refusal> {
    Ok(StateEntry {
        value: json_of(&entry)?,
        updated_at: iso(entry.updated_at_ms),
        version: number(entry.version),
        revision: number(entry.revision),
        deleted: entry.deleted,
        expires_at: entry.expires_at_ms.map(iso),
        key: entry.name,
        updated_by: entry.updated_by_name,
    })
}

/// The stored value.
fn json_of(entry: &Entry) -> Result<Value, Refusal> {
    Ok(serde_json::from_str(&entry.value).map_err(|_| DbError::corrupt("state_entries.value"))?)
}

/// A count of storage on the wire.
fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}
