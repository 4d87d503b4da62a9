//! Streams: logs that are kept and pushed. Entries stay in storage; a mesh in memory knows what each stream keeps, who subscribes
//! to it and how far each subscriber is.
//!
//! Entries of one stream are published in batches, one after the other, so they are told in the order of their offsets. A
//! subscriber that is behind reads from storage at its own pace; what is gone by then is told as `stream_gap`.

pub mod limits;
mod publishing;
mod reading;
pub mod schema;
pub mod store;
mod subscribers;

use std::collections::BTreeMap;

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::streams::limits as wire;
use claudemesh_protocol::features::streams::{
    AckStream, CreateStream, DeleteStream, ListStreams, Publish, ReadStream, Request, StreamCreated, StreamEntry,
    StreamList, Subscribe, Unsubscribe,
};
use claudemesh_protocol::id::StreamId;
use claudemesh_protocol::time::iso;

use self::publishing::Publishing;
use self::store::{Consumer, Refused, Stream};
use self::subscribers::Subscribers;
use crate::db::{Db, DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::{Lane, Outcome};
use crate::quota::Quota;
use crate::refusal::{Refusal, invalid};

/// Names that the overview of the mesh shows.
const MAX_NAMES: usize = 500;

/// What a mesh in memory knows of one stream.
#[derive(Default)]
struct Channel {
    /// As storage has it; `None`: there is only who waits for it.
    row: Option<Stream>,
    subscribers: Subscribers,
    publishing: Publishing,
}

impl Channel {
    /// Offset of the next entry, as far as the readers are to know of it.
    fn next(&self) -> i64 {
        self.row.as_ref().map_or(0, |row| row.next_offset)
    }

    fn is_empty(&self) -> bool {
        self.row.is_none() && self.subscribers.is_empty() && self.publishing.is_idle()
    }
}

/// What a mesh in memory knows of its streams.
#[derive(Default)]
pub struct StreamsMemory {
    channels: BTreeMap<String, Channel>,
    /// Positions that are to be stored.
    moved: Vec<Consumer>,
    /// Since when positions are being stored, in monotonic ms.
    storing: Option<i64>,
}

/// The feature.
pub struct Streams;

impl Feature for Streams {
    const NAME: &'static str = "streams";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = StreamsMemory;

    async fn load(storage: &MeshDb) -> Result<StreamsMemory, DbError> {
        let channel = |row: Stream| (row.name.clone(), Channel { row: Some(row), ..Channel::default() });
        let channels = store::load(storage).await?.into_iter().map(channel).collect();
        Ok(StreamsMemory { channels, ..StreamsMemory::default() })
    }

    fn handle(memory: &mut StreamsMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::CreateStream(request) => Self::answer::<CreateStream>(create(cx, request)),
            Request::DeleteStream(request) => Self::answer::<DeleteStream>(delete(cx, request)),
            Request::Subscribe(request) => Self::answer::<Subscribe>(subscribers::subscribe(memory, cx, request)),
            Request::Unsubscribe(request) => Self::answer::<Unsubscribe>(unsubscribe(memory, cx, &request)),
            Request::Publish(request) => Self::answer::<Publish>(publishing::publish(memory, cx, request)),
            Request::AckStream(request) => Self::answer::<AckStream>(acknowledge(memory, cx, request)),
            Request::ReadStream(request) => Self::answer::<ReadStream>(reading::read(cx, request)),
            Request::ListStreams(_) => Self::answer::<ListStreams>(Ok(list(memory))),
        }
    }

    fn on_event(memory: &mut StreamsMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        match event {
            // What the socket of before subscribed to, its successor does not know of.
            MeshEvent::Attached { peer, reattached: true, .. }
            | MeshEvent::Detached { peer }
            | MeshEvent::Ended { peer, .. } => {
                memory.leave(cx, *peer);
                memory.store_positions(cx);
            }
            MeshEvent::Tick => {
                memory.look_for_lost_work(cx);
                memory.pump_all(cx);
                memory.note_positions(cx);
                memory.store_positions(cx);
            }
            _ => {}
        }
    }

    fn on_wake(memory: &mut StreamsMemory, cx: &mut MeshContext<'_>, name: &str) {
        subscribers::pump(memory, cx, name);
    }

    fn is_settled(memory: &StreamsMemory, _: &MeshContext<'_>) -> bool {
        memory.moved.is_empty()
            && memory.storing.is_none()
            && memory.channels.values().all(|one| one.publishing.is_idle())
    }

    fn describe(memory: &StreamsMemory, cx: &MeshContext<'_>, info: &mut MeshInfoResult) {
        let rows = || memory.channels.values().filter_map(|channel| channel.row.as_ref());
        info.streams = rows().take(MAX_NAMES).map(|row| row.name.clone()).collect();
        info.stream_count = u32::try_from(rows().count()).unwrap_or(u32::MAX);
        let quotas = &cx.limits().quotas;
        info.limits.push(quotas.bound(&limits::PER_MESH, rows().count() as u64));
        info.limits.push(quotas.bound(&limits::BYTES_PER_MESH, rows().map(|row| number(row.bytes)).sum()));
        if let Ok(peer) = cx.asker() {
            let own = rows().filter(|row| row.created_by == peer.member.as_str()).count();
            info.limits.push(quotas.bound(&limits::PER_MEMBER, own as u64));
        }
    }

    async fn upkeep(db: &Db, now_ms: i64) -> Result<usize, DbError> {
        store::purge(db, now_ms).await
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Missing => Self::new(ErrorCode::NotFound, "there is no such stream"),
            Refused::Foreign => Self::new(ErrorCode::Forbidden, "only who made the stream deletes it"),
            Refused::Limit(bound) => bound.into(),
        }
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.trim().is_empty() || name.chars().count() > wire::MAX_NAME_CHARS || name.chars().any(char::is_control) {
        let message = "expected a stream name of 1 to 128 characters without control characters";
        return Err(Refusal::new(ErrorCode::InvalidName, message));
    }
    Ok(())
}

/// The lane of a stream: it is made, written and deleted in the order in which that was asked for.
fn lane(name: &str) -> Lane {
    Lane::of::<Streams>(format_args!("of {name}"))
}

/// A stream that the caller makes, with the bounds of a stream that says nothing.
fn new_stream(cx: &MeshContext<'_>, name: &str) -> Result<Stream, Refusal> {
    let (peer, quotas, now_ms) = (cx.asker()?, &cx.limits().quotas, cx.now_ms());
    let most = |quota| i64::try_from(quotas.value(quota)).unwrap_or(i64::MAX);
    Ok(Stream {
        name: name.into(),
        id: StreamId::random(&mut rand::thread_rng()).to_string(),
        created_by: peer.member.to_string(),
        created_by_name: peer.name.clone(),
        created_at_ms: now_ms,
        keep_entries: most(&limits::KEEP_ENTRIES),
        keep_bytes: most(&limits::KEEP_BYTES),
        keep_ms: limits::KEEP_MS,
        ..Stream::default()
    })
}

fn create(cx: &mut MeshContext<'_>, request: CreateStream) -> Result<Outcome<StreamCreated>, Refusal> {
    check_name(&request.name)?;
    let mut new = new_stream(cx, &request.name)?;
    if request.keep_entries == Some(0) {
        return Err(invalid("`keep_entries`: expected at least 1"));
    }
    if request.keep_bytes.is_some_and(|bytes| bytes < wire::MAX_DATA_BYTES as u64) {
        return Err(invalid(format!("`keep_bytes`: expected at least {}, one entry", wire::MAX_DATA_BYTES)));
    }
    if request.keep_s.is_some_and(|seconds| !(1..=wire::MAX_KEEP_S).contains(&seconds)) {
        return Err(invalid(format!("`keep_s`: expected 1 to {} seconds", wire::MAX_KEEP_S)));
    }
    let stored = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    // More than the operator gives is as much as the operator gives.
    new.keep_entries = request.keep_entries.map_or(new.keep_entries, |most| stored(most).min(new.keep_entries));
    new.keep_bytes = request.keep_bytes.map_or(new.keep_bytes, |most| stored(most).min(new.keep_bytes));
    new.keep_ms = request.keep_s.map_or(new.keep_ms, |most| stored(most).saturating_mul(1_000));
    let (storage, lane, quotas) = (cx.storage(), lane(&new.name), cx.limits().quotas.clone());
    let slow = async move { store::create(&storage, new, quotas).await };
    Ok(Streams::work_in(lane, slow, |memory, _, (stream, created)| {
        let answer = StreamCreated { id: stream.id.as_str().into(), name: stream.name.clone(), created };
        let channel = memory.channels.entry(stream.name.clone()).or_default();
        channel.row = Some(stream);
        Ok(Outcome::Answer(answer))
    }))
}

fn delete(cx: &mut MeshContext<'_>, request: DeleteStream) -> Result<Outcome<Nothing>, Refusal> {
    check_name(&request.stream).map_err(|_| Refused::Missing)?;
    let (by, manages) = (cx.asker()?.member.clone(), cx.may(Capability::CanModerate)?);
    let (storage, now, lane) = (cx.storage(), cx.now_ms(), lane(&request.stream));
    let slow = async move { store::delete(&storage, request.stream, by, manages, now).await };
    Ok(Streams::work_in(lane, slow, |memory, cx, stream| {
        if let Some(mut channel) = memory.channels.remove(&stream.name) {
            channel.subscribers.tell_deleted(cx, &stream.name);
            channel.row = None;
            if !channel.is_empty() {
                memory.channels.insert(stream.name, channel);
            }
        }
        Ok(Outcome::Answer(Nothing {}))
    }))
}

fn unsubscribe(
    memory: &mut StreamsMemory,
    cx: &mut MeshContext<'_>,
    request: &Unsubscribe,
) -> Result<Outcome<Nothing>, Refusal> {
    let at = cx.peer()?.handle;
    memory.leave_one(cx, &request.stream, at);
    memory.store_positions(cx);
    Ok(Outcome::Answer(Nothing {}))
}

fn acknowledge(
    memory: &mut StreamsMemory,
    cx: &mut MeshContext<'_>,
    request: AckStream,
) -> Result<Outcome<Nothing>, Refusal> {
    let row = memory.channels.get(&request.stream).and_then(|channel| channel.row.as_ref()).ok_or(Refused::Missing)?;
    let next = i64::try_from(request.offset).unwrap_or(i64::MAX).saturating_add(1);
    // An entry can be read from storage before the batch that wrote it has come back here.
    let known = next <= row.next_offset;
    let moved = Consumer {
        mesh_id: row.mesh_id.clone(),
        stream_id: row.id.clone(),
        member_id: cx.asker()?.member.to_string(),
        name: request.consumer,
        next_offset: next,
        updated_at_ms: cx.now_ms(),
    };
    subscribers::check_consumer(&moved.name)?;
    let storage = cx.storage();
    let slow = async move {
        let page = if known { None } else { store::page(&storage, &request.stream, next - 1, 1).await? };
        if !known && page.is_none_or(|page| next > page.stream.next_offset) {
            return Err(invalid("`offset`: expected that of an entry that was published"));
        }
        Ok::<_, Refusal>(store::move_consumers(&storage, vec![moved]).await?)
    };
    Ok(Streams::work_in(cx.own_lane::<Streams>(), slow, |_, _, _| Ok(Outcome::Answer(Nothing {}))))
}

fn list(memory: &StreamsMemory) -> Outcome<StreamList> {
    let row = |channel: &Channel| {
        let row = channel.row.as_ref()?;
        Some(StreamEntry {
            id: row.id.as_str().into(),
            name: row.name.clone(),
            created_by: row.created_by_name.clone(),
            created_at: iso(row.created_at_ms),
            subscriber_count: u32::try_from(channel.subscribers.len()).unwrap_or(u32::MAX),
            entries: number(row.next_offset - row.first_offset),
            bytes: number(row.bytes),
            first: number(row.first_offset),
            next: number(row.next_offset),
            keep_entries: number(row.keep_entries),
            keep_bytes: number(row.keep_bytes),
            keep_s: number(row.keep_ms / 1_000),
        })
    };
    Outcome::Answer(StreamList { streams: memory.channels.values().filter_map(row).collect() })
}

/// A number of storage on the wire.
fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

#[cfg(test)]
mod tests;
