//! Publishing: what comes for one stream while a batch of it is written goes into the next batch.

use std::collections::VecDeque;

use claudemesh_protocol::call::ServerBody;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::streams::{Publish, Published, limits as wire};

use super::store::{self, Appended, Entry, NewEntry, Stream};
use super::{
    Channel, Refused, Streams, StreamsMemory, check_name, invalid, lane, limits, new_stream, number, subscribers,
};
use crate::journal::WriteError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Outcome, ReplyTo};
use crate::refusal::Refusal;

/// Entries of one batch: rows of one transaction, which other writes wait for.
const MAX_BATCH: usize = 256;
/// Bytes of one batch.
const MAX_BATCH_BYTES: usize = 512 << 10;
/// Entries of one stream that may wait for their batch.
const MAX_WAITING: usize = 4_096;
/// Bytes of these.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// A batch that is not back by then is lost, in monotonic milliseconds: longer than any work may take.
pub(super) const LOST_MS: i64 = 60_000;

struct Waiting {
    entry: NewEntry,
    reply_to: Option<ReplyTo>,
    confirm: bool,
}

/// What of one stream is on its way to storage.
#[derive(Default)]
pub(super) struct Publishing {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// The batch that is being written; kept here, so that its publishers hear of it when the work is lost.
    under_way: Vec<Waiting>,
    /// When that batch was begun, in monotonic ms.
    since: Option<i64>,
    /// Tells batches apart: one that was given up may come back after all.
    batch: u64,
}

impl Publishing {
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.since.is_none()
    }
}

/// Takes one entry. It is answered once it is on stable storage.
pub(super) fn publish(
    memory: &mut StreamsMemory,
    cx: &mut MeshContext<'_>,
    request: Publish,
) -> Result<Outcome<Published>, Refusal> {
    check_name(&request.stream)?;
    let data = request.data.to_string();
    if data.len() > wire::MAX_DATA_BYTES {
        return Err(invalid(format!("`data`: expected at most {} bytes of JSON", wire::MAX_DATA_BYTES)));
    }
    let peer = cx.asker()?;
    let (by, by_name, session_id) = (peer.member.clone(), peer.name.clone(), peer.session_id.clone());
    cx.count_write(&limits::PUBLISHED_PER_MINUTE, Some(&by))?;
    let waiting = Waiting {
        entry: NewEntry { data, by: by.to_string(), by_name, session_id },
        reply_to: cx.reply_to(),
        confirm: cx.wants_confirmation(),
    };
    let channel = memory.channels.entry(request.stream.clone()).or_default();
    let publishing = &mut channel.publishing;
    if publishing.waiting.len() >= MAX_WAITING || publishing.waiting_bytes >= MAX_WAITING_BYTES {
        return Err(Refusal::wait(ErrorCode::Busy, "too much waits to be published in this stream", 1_000));
    }
    publishing.waiting_bytes += waiting.entry.data.len();
    publishing.waiting.push_back(waiting);
    let new = new_stream(cx, &request.stream)?;
    begin(channel, cx, new);
    Ok(Outcome::Silent)
}

/// Begins the next batch, unless one is under way. `new`: the stream, in case there is none.
fn begin(channel: &mut Channel, cx: &mut MeshContext<'_>, new: Stream) {
    let publishing = &mut channel.publishing;
    if publishing.since.is_some() || publishing.waiting.is_empty() {
        return;
    }
    let mut bytes = 0;
    while let Some(next) = publishing.waiting.front() {
        bytes += next.entry.data.len();
        let full = publishing.under_way.len() >= MAX_BATCH || bytes > MAX_BATCH_BYTES;
        if full && !publishing.under_way.is_empty() {
            break;
        }
        publishing.waiting_bytes -= next.entry.data.len();
        publishing.under_way.extend(publishing.waiting.pop_front());
    }
    publishing.since = Some(cx.mono_ms());
    publishing.batch += 1;
    let entries: Vec<NewEntry> = publishing.under_way.iter().map(|one| one.entry.clone()).collect();
    let (batch, storage, quotas) = (publishing.batch, cx.storage(), cx.limits().quotas.clone());
    let (times, lane, again) = ((cx.now_ms(), cx.believed_ms()), lane(&new.name), new.clone());
    let slow = async move { Ok::<_, Refusal>(store::append(&storage, new, entries, times, quotas).await) };
    let work = Streams::work_in(lane, slow, move |memory, cx, done| {
        ended(memory, cx, batch, again, done);
        Ok(Outcome::<Published>::Silent)
    });
    if let Outcome::Work(work) = work {
        cx.spawn(work);
    }
}

/// A batch is back: its publishers are answered, and its entries told.
fn ended(
    memory: &mut StreamsMemory,
    cx: &mut MeshContext<'_>,
    batch: u64,
    new: Stream,
    done: Result<Appended, WriteError<Refused>>,
) {
    let Some(channel) = memory.channels.get_mut(&new.name) else { return };
    if channel.publishing.batch != batch || channel.publishing.since.is_none() {
        // It was given up. Its entries are found in storage, behind those that are told next.
        return;
    }
    let under_way = std::mem::take(&mut channel.publishing.under_way);
    channel.publishing.since = None;
    let name = new.name.clone();
    match done {
        Err(error) => refuse_all(cx, under_way, &error.into()),
        Ok(Appended { stream, done }) => {
            let mut told = Vec::new();
            for (one, place) in under_way.into_iter().zip(done) {
                match place {
                    Err(bound) => refuse_all(cx, vec![one], &bound.into()),
                    Ok(place) => {
                        if let (true, Some(to)) = (one.confirm, &one.reply_to) {
                            cx.reply(to, &Published { offset: number(place) }.into_message());
                        }
                        told.push(Entry {
                            mesh_id: stream.mesh_id.clone(),
                            stream_id: stream.id.clone(),
                            place,
                            size_bytes: i64::try_from(one.entry.data.len()).unwrap_or(i64::MAX),
                            data: one.entry.data,
                            published_by: one.entry.by,
                            published_by_name: one.entry.by_name,
                            session_id: one.entry.session_id,
                            published_at_ms: stream.published_at_ms,
                        });
                    }
                }
            }
            channel.row = Some(stream);
            channel.subscribers.tell(cx, &name, &told);
            begin(channel, cx, new);
            return subscribers::pump(memory, cx, &name);
        }
    }
    begin(channel, cx, new);
    memory.forget_if_empty(&name);
}

fn refuse_all(cx: &mut MeshContext<'_>, refused: Vec<Waiting>, refusal: &Refusal) {
    refusal.log(Some(cx.mesh_id()), "publish");
    for one in refused {
        if let Some(to) = &one.reply_to {
            cx.refuse(to, refusal.clone());
        }
    }
}

impl StreamsMemory {
    /// Gives up batches whose work was lost.
    pub(super) fn look_for_lost_work(&mut self, cx: &mut MeshContext<'_>) {
        let lost = cx.mono_ms() - LOST_MS;
        for channel in self.channels.values_mut() {
            let publishing = &mut channel.publishing;
            if publishing.since.is_none_or(|since| since >= lost) {
                continue;
            }
            publishing.since = None;
            let mut refused = std::mem::take(&mut publishing.under_way);
            refused.extend(publishing.waiting.drain(..));
            publishing.waiting_bytes = 0;
            refuse_all(cx, refused, &ErrorCode::Timeout.into());
        }
    }

    /// Forgets a stream that does not exist and that no one waits for.
    pub(super) fn forget_if_empty(&mut self, name: &str) {
        if self.channels.get(name).is_some_and(Channel::is_empty) {
            self.channels.remove(name);
        }
    }
}
