//! Subscribers: each is pushed the entries in the order of their offsets. One that is behind reads from storage, a page at a time
//! and no faster than it takes them, until it has caught up.

use std::collections::BTreeMap;

use bytestring::ByteString;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::streams::{
    Edge, Position, StreamData, StreamDeleted, StreamGap, Subscribe, Subscribed, limits as wire,
};
use claudemesh_protocol::message::ServerMessage;
use smallvec::SmallVec;

use super::publishing::LOST_MS;
use super::reading::{json_of, place};
use super::store::{self, Consumer, Entry, Page};
use super::{Channel, Refused, Streams, StreamsMemory, check_name, invalid, limits, number};
use crate::db::DbError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Lane, Outcome};
use crate::mesh::peers::{Peer, PeerHandle};
use crate::refusal::Refusal;

/// Entries that a subscriber that is behind reads at once.
const PAGE: u32 = 200;
/// A subscriber that holds more than this is not read for: what is read would have no room.
const MUCH_HELD_BYTES: usize = 512 << 10;
/// How long a subscriber without room waits, in monotonic ms.
const RETRY_MS: i64 = 50;

/// One subscriber of one stream.
struct Subscriber {
    /// Its socket at that time.
    socket_no: u64,
    /// Offset of the entry that it gets next.
    next: i64,
    /// It asked for a place: its entries have their offsets, and its own are among them.
    placed: bool,
    /// It asked for the oldest entry, whichever that is: what is gone before its first page is no gap.
    fresh: bool,
    /// What it gets next is not the newest, or had no room.
    behind: bool,
    /// Since when a page is being read for it, in monotonic ms.
    reading: Option<i64>,
    consumer: Option<Reader>,
}

/// The consumer that a subscriber reads as.
struct Reader {
    name: String,
    member: String,
    /// Moves with what is pushed; otherwise with `ack_stream`.
    auto: bool,
    /// The position that was noted last.
    noted: i64,
}

/// An entry as a frame, made once for all who get it in that form.
struct Frames<'a> {
    stream: &'a str,
    entry: &'a Entry,
    plain: Option<ByteString>,
    placed: Option<ByteString>,
}

impl<'a> Frames<'a> {
    fn new(stream: &'a str, entry: &'a Entry) -> Self {
        Self { stream, entry, plain: None, placed: None }
    }

    fn get(&mut self, placed: bool) -> ByteString {
        let (stream, entry) = (self.stream, self.entry);
        let frame = if placed { &mut self.placed } else { &mut self.plain };
        let make = || {
            let data = StreamData {
                stream: stream.into(),
                // What cannot be read is `null`: a hole would be worse.
                data: json_of(entry).unwrap_or_default(),
                published_by: entry.published_by_name.clone(),
                offset: placed.then(|| number(entry.place)),
            };
            ByteString::from(ServerMessage::from(data).write(None))
        };
        frame.get_or_insert_with(make).clone()
    }
}

/// Who subscribes to one stream.
#[derive(Default)]
pub(super) struct Subscribers(BTreeMap<PeerHandle, Subscriber>);

impl Subscribers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Pushes what was just published.
    pub(super) fn tell(&mut self, cx: &mut MeshContext<'_>, stream: &str, entries: &[Entry]) {
        let mut frames: Vec<Frames<'_>> = entries.iter().map(|entry| Frames::new(stream, entry)).collect();
        self.0.retain(|at, one| match reader(cx, *at, one) {
            None => false,
            Some(_) if one.behind => true,
            Some(_) => {
                push_all(cx, *at, one, &mut frames);
                true
            }
        });
    }

    /// Tells that the stream is gone, and with it the subscriptions.
    pub(super) fn tell_deleted(&mut self, cx: &mut MeshContext<'_>, stream: &str) {
        let event = ServerMessage::from(StreamDeleted { stream: stream.into() });
        for (at, _) in std::mem::take(&mut self.0) {
            if cx.roster().get(at).is_some_and(|peer| !peer.older) {
                cx.push(at, &event);
            }
        }
    }
}

/// The peer of a subscriber, as long as it may read and has the socket that subscribed.
fn reader<'a>(cx: &'a MeshContext<'_>, at: PeerHandle, one: &Subscriber) -> Option<&'a Peer> {
    let peer = cx.roster().get(at).filter(|peer| peer.online() && peer.socket_no == one.socket_no)?;
    let member = cx.roster().member(&peer.member)?;
    cx.rights().allows(&member.id, member.role, Capability::CanReadShared).then_some(peer)
}

/// Pushes entries in order to one subscriber; what has no room is left for later.
fn push_all(cx: &mut MeshContext<'_>, at: PeerHandle, one: &mut Subscriber, frames: &mut [Frames<'_>]) {
    let Some(peer) = cx.roster().get(at) else { return };
    let own = |entry: &Entry| entry.session_id == peer.session_id && entry.published_by == peer.member.as_str();
    let own: SmallVec<[bool; 8]> = frames.iter().map(|frame| own(frame.entry)).collect();
    for (frame, own) in frames.iter_mut().zip(own) {
        let place = frame.entry.place;
        if place < one.next {
            continue;
        }
        if place > one.next {
            // Its batch was lost sight of: it is in storage.
            one.behind = true;
            return;
        }
        // Clients of before are not told of what they published themselves.
        if (one.placed || !own) && !cx.tell_one(at, frame.get(one.placed)) {
            one.behind = true;
            return;
        }
        one.next = place + 1;
    }
}

pub(super) fn check_consumer(name: &str) -> Result<(), Refusal> {
    let most = wire::MAX_CONSUMER_CHARS;
    if name.trim().is_empty() || name.chars().count() > most || name.chars().any(char::is_control) {
        return Err(invalid(format!("`consumer`: expected 1 to {most} characters without control characters")));
    }
    Ok(())
}

/// Subscribes the connection that asks, from the place that it names.
pub(super) fn subscribe(
    memory: &mut StreamsMemory,
    cx: &mut MeshContext<'_>,
    request: Subscribe,
) -> Result<Outcome<Subscribed>, Refusal> {
    check_name(&request.stream)?;
    if let Some(name) = &request.consumer {
        check_consumer(name)?;
    } else if request.ack {
        return Err(invalid("`ack`: expected a `consumer` beside it"));
    }
    let (at, socket_no) = (cx.peer()?.handle, cx.peer()?.socket_no);
    let known = memory.channels.get(&request.stream).is_some_and(|channel| channel.subscribers.0.contains_key(&at));
    if !known {
        let count = memory.channels.values().filter(|channel| channel.subscribers.0.contains_key(&at)).count();
        cx.within(&limits::SUBSCRIPTIONS, count, 1)?;
    }
    memory.leave_one(cx, &request.stream, at);
    let placed = request.from.is_some() || request.consumer.is_some();
    let name = request.stream;
    let channel = memory.channels.entry(name.clone()).or_default();
    let next = channel.next();
    let one = move |next: i64| Subscriber {
        socket_no,
        next,
        placed,
        fresh: false,
        behind: false,
        reading: None,
        consumer: None,
    };
    let from = request.from.unwrap_or(Position::NOW);
    let here = match (from, &request.consumer) {
        (Position::Word(Edge::Now), None) => Some((next, false)),
        (Position::Offset(offset), None) => Some((i64::try_from(offset).unwrap_or(i64::MAX).min(next), false)),
        (Position::Word(Edge::Start), None) => Some((channel.row.as_ref().map_or(0, |row| row.first_offset), true)),
        _ => None,
    };
    // What is known at once holds for what is published right behind it.
    if let Some((start, fresh)) = here {
        let behind = start < next;
        channel.subscribers.0.insert(at, Subscriber { fresh: fresh && behind, behind, ..one(start) });
        pump(memory, cx, &name);
        return Ok(Outcome::Answer(Subscribed { stream: name, next: placed.then(|| number(start)) }));
    }
    memory.forget_if_empty(&name);
    let (member, storage, now) = (cx.peer()?.member.clone(), cx.storage(), cx.now_ms());
    let (quotas, consumer, auto) = (cx.limits().quotas.clone(), request.consumer, !request.ack);
    let slow = async move {
        // A stream that does not exist begins with its first entry.
        let start = place(&storage, &name, from).await?;
        let Some(consumer) = consumer else { return Ok((name, start.unwrap_or(0), None)) };
        let start = start.ok_or(Refused::Missing)?;
        let opened = store::open_consumer(&storage, name.clone(), member, consumer.clone(), start, now, quotas).await?;
        Ok::<_, Refusal>((name, opened, Some(consumer)))
    };
    Ok(Streams::work_in(cx.own_lane::<Streams>(), slow, move |memory, cx, (name, start, consumer)| {
        // The connection that asked, not one that came after it.
        if cx.peer()?.socket_no == socket_no {
            memory.leave_one(cx, &name, at);
            let channel = memory.channels.entry(name.clone()).or_default();
            let behind = start < channel.next();
            let member = cx.peer()?.member.to_string();
            let consumer = consumer.map(|name| Reader { name, member, auto, noted: start });
            let subscriber = Subscriber { behind, consumer, ..one(start) };
            channel.subscribers.0.insert(at, subscriber);
            pump(memory, cx, &name);
        }
        Ok(Outcome::Answer(Subscribed { stream: name, next: Some(number(start)) }))
    }))
}

/// Reads on for the subscribers of a stream that are behind.
pub(super) fn pump(memory: &mut StreamsMemory, cx: &mut MeshContext<'_>, name: &str) {
    let Some(channel) = memory.channels.get_mut(name) else { return };
    let (newest, now) = (channel.next(), cx.mono_ms());
    let (mut wanted, mut waits) = (Vec::new(), false);
    channel.subscribers.0.retain(|at, one| {
        let Some(peer) = reader(cx, *at, one) else { return false };
        one.behind &= one.next < newest;
        if one.behind && one.reading.is_none_or(|since| since < now - LOST_MS) {
            if peer.socket.as_ref().is_some_and(|socket| socket.held_bytes() < MUCH_HELD_BYTES) {
                one.reading = Some(now);
                wanted.push((*at, one.next));
            } else {
                waits = true;
            }
        }
        true
    });
    if waits {
        cx.wake_at(name, cx.mono_ms() + RETRY_MS);
    }
    for (at, from) in wanted {
        let (storage, stream) = (cx.storage(), name.to_owned());
        let slow = async move {
            let page = store::page(&storage, &stream, from, PAGE).await;
            Ok::<_, Refusal>((stream, page))
        };
        let lane = Lane::of::<Streams>(format_args!("{name} for {}", at.0));
        let work = Streams::work_in(lane, slow, move |memory, cx, (stream, page)| {
            caught_up(memory, cx, &stream, at, from, page);
            Ok(Outcome::<Subscribed>::Silent)
        });
        if let Outcome::Work(work) = work {
            cx.spawn(work);
        }
    }
}

/// A page for one subscriber is read.
fn caught_up(
    memory: &mut StreamsMemory,
    cx: &mut MeshContext<'_>,
    name: &str,
    at: PeerHandle,
    from: i64,
    page: Result<Option<Page>, DbError>,
) {
    let Some(channel) = memory.channels.get_mut(name) else { return };
    let Channel { row, subscribers, .. } = channel;
    let Some(one) = subscribers.0.get_mut(&at) else { return };
    one.reading = None;
    let page = match page {
        Ok(Some(page)) => page,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(mesh.id = %cx.mesh_id(), stream = name, error = %error, "a stream could not be read");
            return cx.wake_at(name, cx.mono_ms() + 20 * RETRY_MS);
        }
    };
    // A new subscription of the same connection began elsewhere; a stream that was made anew has other entries.
    let same = row.as_ref().is_some_and(|row| row.id == page.stream.id) && one.next == from;
    if same && reader(cx, at, one).is_some() {
        let first = page.entries.first().map_or(page.stream.next_offset, |entry| entry.place);
        if first <= one.next || told_of_gap(cx, at, one, name, first) {
            let mut frames: Vec<Frames<'_>> = page.entries.iter().map(|entry| Frames::new(name, entry)).collect();
            (one.behind, one.fresh) = (false, false);
            push_all(cx, at, one, &mut frames);
            let full = one.behind;
            one.behind = true;
            if full {
                return cx.wake_at(name, cx.mono_ms() + RETRY_MS);
            }
        } else {
            return cx.wake_at(name, cx.mono_ms() + RETRY_MS);
        }
    }
    pump(memory, cx, name);
}

/// Tells of entries that are gone, up to `first`; `false` when even that has no room.
fn told_of_gap(cx: &mut MeshContext<'_>, at: PeerHandle, one: &mut Subscriber, stream: &str, first: i64) -> bool {
    let gap = StreamGap { stream: stream.into(), from: number(one.next), to: number(first - 1) };
    // Clients of before know no such word.
    let silent = one.fresh || cx.roster().get(at).is_none_or(|peer| peer.older);
    if !silent && !cx.tell_one(at, ServerMessage::from(gap).write(None).into()) {
        return false;
    }
    one.next = first;
    true
}

impl StreamsMemory {
    /// Reads on for those whose page was lost, and for those that nothing else wakes.
    pub(super) fn pump_all(&mut self, cx: &mut MeshContext<'_>) {
        let behind = |channel: &Channel| channel.subscribers.0.values().any(|one| one.behind);
        let names = self.channels.iter().filter(|(_, channel)| behind(channel)).map(|(name, _)| name.clone());
        for name in names.collect::<Vec<_>>() {
            pump(self, cx, &name);
        }
    }

    /// Ends all subscriptions of a connection.
    pub(super) fn leave(&mut self, cx: &MeshContext<'_>, at: PeerHandle) {
        let own = self.channels.iter().filter(|(_, channel)| channel.subscribers.0.contains_key(&at));
        for name in own.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.leave_one(cx, &name, at);
        }
    }

    /// Ends one subscription, and notes how far it came.
    pub(super) fn leave_one(&mut self, cx: &MeshContext<'_>, name: &str, at: PeerHandle) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        if let Some(mut one) = channel.subscribers.0.remove(&at) {
            self.moved.extend(noted(cx, channel, &mut one));
        }
        self.forget_if_empty(name);
    }

    /// Notes how far the consumers are that move with what is pushed.
    pub(super) fn note_positions(&mut self, cx: &MeshContext<'_>) {
        for channel in self.channels.values_mut() {
            let mut subscribers = std::mem::take(&mut channel.subscribers);
            for one in subscribers.0.values_mut() {
                self.moved.extend(noted(cx, channel, one));
            }
            channel.subscribers = subscribers;
        }
    }

    /// Stores what was noted.
    pub(super) fn store_positions(&mut self, cx: &mut MeshContext<'_>) {
        let now = cx.mono_ms();
        if self.storing.is_some_and(|since| since >= now - LOST_MS) {
            return;
        }
        self.storing = None;
        if self.moved.is_empty() {
            return;
        }
        self.storing = Some(now);
        let (storage, moved) = (cx.storage(), std::mem::take(&mut self.moved));
        let slow = async move { Ok::<_, Refusal>(store::move_consumers(&storage, moved).await) };
        let work = Streams::work("positions", slow, |memory, cx, done| {
            memory.storing = None;
            if let Err(error) = done {
                // They are noted again once they move; until then the consumer would get some entries twice.
                tracing::warn!(mesh.id = %cx.mesh_id(), error = %error, "positions of consumers could not be stored");
            }
            Ok(Outcome::<Subscribed>::Silent)
        });
        if let Outcome::Work(work) = work {
            cx.spawn(work);
        }
    }
}

/// How far a consumer came that moves with what is pushed, if it did.
fn noted(cx: &MeshContext<'_>, channel: &Channel, one: &mut Subscriber) -> Option<Consumer> {
    let (row, next) = (channel.row.as_ref()?, one.next);
    let reader = one.consumer.as_mut().filter(|reader| reader.auto && reader.noted < next)?;
    reader.noted = next;
    Some(Consumer {
        mesh_id: row.mesh_id.clone(),
        stream_id: row.id.clone(),
        member_id: reader.member.clone(),
        name: reader.name.clone(),
        next_offset: next,
        updated_at_ms: cx.now_ms(),
    })
}
