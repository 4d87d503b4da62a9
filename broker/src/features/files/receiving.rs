//! Taking in the bytes of an upload: they are read no faster than they are stored, and at most two parts are in memory.
//!
//! Parts are stored one after the other, beside the reading. Their rows are written together, so a large upload is no flood of
//! transactions; what has no row yet when the broker is killed is removed by the sweep and sent again.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Payload;
use bytes::BytesMut;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::files::UploadProgress;
use claudemesh_protocol::features::files::limits::PART_BYTES;
use claudemesh_protocol::id::FileId;
use futures_util::{StreamExt, TryStreamExt};
use rand::RngCore;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::store::{self, NewPart, Refused, Row};
use crate::blobs::transfers::Turn;
use crate::blobs::{Blobs, Writing};
use crate::clock::SharedClock;
use crate::journal::{MeshStore, WriteError};
use crate::refusal::Refusal;

/// A client that sends nothing for so long is gone.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// The HTTP server reads no more than this from a socket at once; it is room for one chunk, not a bound.
const MAX_CHUNK_BYTES: u64 = 64 << 10;
/// Parts whose rows are written together.
const ROWS_TOGETHER: usize = 16;
/// Rows wait no longer than this for others, in milliseconds: what has no row is sent again after a crash.
const ROWS_WAIT_MS: i64 = 2_000;

/// Where the bytes of one upload go.
pub(super) struct Target {
    pub storage: MeshStore,
    pub blobs: Arc<Blobs>,
    pub clock: SharedClock,
    pub row: Row,
    pub turn: Turn,
}

/// What a client says about the body that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// Where it belongs.
    pub offset: u64,
    /// It is the last one.
    pub complete: bool,
}

/// A request that failed, and how many bytes of the upload are on stable storage.
#[derive(Debug)]
pub(super) struct Broken {
    pub refusal: Refusal,
    pub offset: Option<u64>,
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, offset: None }
    }
}

impl From<Refused> for Broken {
    fn from(refused: Refused) -> Self {
        let offset = match refused {
            Refused::Offset(at) => Some(at),
            _ => None,
        };
        Self { refusal: refused.into(), offset }
    }
}

impl From<WriteError<Refused>> for Broken {
    fn from(error: WriteError<Refused>) -> Self {
        match error {
            WriteError::Refused(refused) => refused.into(),
            WriteError::Db(error) => Refusal::from(error).into(),
        }
    }
}

/// What was read and is not handed over yet.
#[derive(Default)]
struct Segment {
    /// Copied from the chunks of the socket. Two buffers serve a whole upload: the chunks are freed where they were made, at once, so
    /// the allocator keeps nothing back for them.
    bytes: BytesMut,
    /// Its share of the memory for uploads.
    room: Vec<OwnedSemaphorePermit>,
}

/// Stores parts and their rows.
struct Sink {
    storage: MeshStore,
    blobs: Arc<Blobs>,
    clock: SharedClock,
    file: FileId,
    prefix: String,
    /// Bytes whose rows are committed.
    committed: u64,
    /// Where the next part begins.
    at: u64,
    uncommitted: Vec<(Writing, u64)>,
    committed_mono_ms: i64,
    /// The buffer of the part that was stored last.
    spare: BytesMut,
}

impl Sink {
    async fn put(mut self: Box<Self>, segment: Segment) -> (Box<Self>, Result<(), Refusal>) {
        let stored = self.try_put(segment).await;
        (self, stored)
    }

    async fn try_put(&mut self, segment: Segment) -> Result<(), Refusal> {
        let name = format!("{}/{:012x}-{:08x}", self.prefix, self.at, rand::rngs::OsRng.next_u32());
        let object = self.blobs.begin(name);
        let (size, bytes) = (segment.bytes.len() as u64, segment.bytes.freeze());
        self.blobs.put(&object, vec![bytes.clone()]).await?;
        self.spare = bytes.try_into_mut().unwrap_or_default();
        self.uncommitted.push((object, size));
        self.at += size;
        let waits_ms = self.clock.mono_ms() - self.committed_mono_ms;
        let due = self.uncommitted.len() >= ROWS_TOGETHER || waits_ms >= ROWS_WAIT_MS;
        if due { self.commit().await } else { Ok(()) }
    }

    /// Writes the rows of what is stored.
    async fn commit(&mut self) -> Result<(), Refusal> {
        if self.uncommitted.is_empty() {
            return Ok(());
        }
        let part = |(object, size): &(Writing, u64)| NewPart { object: object.name().to_owned(), size: *size };
        let parts: Vec<NewPart> = self.uncommitted.iter().map(part).collect();
        let now_ms = self.clock.believed_ms();
        self.committed = store::append(&self.storage, self.file.clone(), self.committed, parts, now_ms).await?;
        self.uncommitted.clear();
        self.committed_mono_ms = self.clock.mono_ms();
        Ok(())
    }

    /// Removes what is stored and has no rows.
    async fn discard(&mut self) {
        let left = self.uncommitted.iter().map(|(object, _)| object.name().to_owned()).collect();
        super::discard(&self.blobs, left).await;
        self.uncommitted.clear();
    }
}

/// One part that is stored while the next is read.
enum Writer {
    Idle(Box<Sink>),
    Busy(JoinHandle<(Box<Sink>, Result<(), Refusal>)>),
}

impl Writer {
    async fn idle(self) -> Result<(Box<Sink>, Result<(), Refusal>), Refusal> {
        match self {
            Self::Idle(sink) => Ok((sink, Ok(()))),
            Self::Busy(work) => work.await.map_err(|error| Refusal::fault(ErrorCode::Internal, error)),
        }
    }
}

/// How a body ended.
enum End {
    /// As announced.
    Whole,
    /// It broke off, or another transfer took over; what came before is kept.
    Broken(Refusal),
}

/// Takes in a body. What arrived before a failure is kept as far as it could be stored.
pub(super) async fn receive(target: Target, body: Payload, announced: Announced) -> Result<UploadProgress, Broken> {
    let Target { storage, blobs, clock, row, turn } = target;
    let file = FileId::from(row.id.as_str());
    if row.received() != announced.offset {
        return Err(Refused::Offset(row.received()).into());
    }
    let mut hash = blobs.transfers.take_hash(&file, row.received());
    if hash.is_none() && row.received() == 0 {
        hash = Some(Sha256::new());
    }
    let sink = Box::new(Sink {
        prefix: format!("{}/{}", row.mesh_id, row.id),
        committed: row.received(),
        at: row.received(),
        uncommitted: Vec::new(),
        committed_mono_ms: clock.mono_ms(),
        spare: BytesMut::new(),
        storage: storage.clone(),
        blobs: Arc::clone(&blobs),
        clock,
        file: file.clone(),
    });
    let (mut sink, end) = read(sink, body, &row, &turn, &mut hash).await?;
    let stored = sink.commit().await;
    if let Err(refusal) = stored {
        sink.discard().await;
        return Err(Broken { refusal, offset: Some(sink.committed) });
    }
    let offset = sink.committed;
    if let End::Broken(refusal) = end {
        if let Some(hash) = hash.filter(|_| offset == sink.at) {
            blobs.transfers.keep_hash(&file, offset, hash);
        }
        return Err(Broken { refusal, offset: Some(offset) });
    }
    let complete = offset == row.size() || (announced.complete && row.at_most);
    if !complete {
        if let Some(hash) = hash {
            blobs.transfers.keep_hash(&file, offset, hash);
        }
        if announced.complete {
            return Err(Broken { refusal: Refused::Incomplete.into(), offset: Some(offset) });
        }
        return Ok(UploadProgress { ok: true, offset, complete: false, sha256: None });
    }
    let hash = match hash {
        Some(hash) => hash,
        None => hash_of(&storage, &blobs, &row.id).await?,
    };
    let sha256 = hex::encode(hash.finalize());
    store::complete(&storage, file, offset, sha256.clone()).await?;
    Ok(UploadProgress { ok: true, offset, complete: true, sha256: Some(sha256) })
}

/// Reads a body and has its parts stored. The last parts are stored and may have no rows yet when it returns.
async fn read(
    sink: Box<Sink>,
    mut body: Payload,
    row: &Row,
    turn: &Turn,
    hash: &mut Option<Sha256>,
) -> Result<(Box<Sink>, End), Broken> {
    let blobs = Arc::clone(&sink.blobs);
    let mut received = sink.at;
    let mut writer = Writer::Idle(sink);
    let mut segment = Segment::default();
    let end = loop {
        let chunk = tokio::select! {
            biased;
            () = turn.stop.cancelled() => {
                break End::Broken(Refusal::new(ErrorCode::Conflict, "another transfer of this upload took over"));
            }
            chunk = tokio::time::timeout(IDLE_DEADLINE, body.next()) => chunk,
        };
        let chunk = match chunk {
            Err(_) => break End::Broken(Refusal::new(ErrorCode::Timeout, "no byte arrived for a minute")),
            Ok(None) => break End::Whole,
            Ok(Some(Err(_))) => break End::Broken(Refusal::new(ErrorCode::Invalid, "the body broke off")),
            Ok(Some(Ok(chunk))) => chunk,
        };
        let size = chunk.len() as u64;
        if received + size > row.size() {
            let message = format!("the upload was begun with {} bytes, and more came", row.size());
            break End::Broken(Refusal::new(ErrorCode::PayloadTooLarge, message));
        }
        let room = match blobs.room_now(chunk.len()) {
            Some(room) => room,
            None => {
                // What is held here is handed over first, so that everyone who waits for room gets it.
                writer = hand_over(writer, &mut segment).await?;
                blobs.room(chunk.len()).await?
            }
        };
        if let Some(hash) = hash.as_mut() {
            hash.update(&chunk);
        }
        if segment.bytes.capacity() == 0 {
            // Chunks are whole, so the last one of a part goes beyond it.
            let wanted = (row.size() - received).min(PART_BYTES + MAX_CHUNK_BYTES);
            segment.bytes.reserve(usize::try_from(wanted).unwrap_or(0));
        }
        received += size;
        segment.bytes.extend_from_slice(&chunk);
        segment.room.push(room);
        if segment.bytes.len() as u64 >= PART_BYTES {
            writer = hand_over(writer, &mut segment).await?;
        }
    };
    let (sink, stored) = hand_over(writer, &mut segment).await?.idle().await?;
    if let Err(refusal) = stored {
        return Err(failed(sink, refusal).await);
    }
    Ok((sink, end))
}

/// Has a segment stored once the one before it is; the next one gets that one's buffer.
async fn hand_over(writer: Writer, segment: &mut Segment) -> Result<Writer, Broken> {
    let (mut sink, stored) = writer.idle().await?;
    if let Err(refusal) = stored {
        return Err(failed(sink, refusal).await);
    }
    if segment.bytes.is_empty() {
        return Ok(Writer::Idle(sink));
    }
    let mut bytes = std::mem::take(&mut sink.spare);
    bytes.clear();
    let full = std::mem::replace(segment, Segment { bytes, room: Vec::new() });
    Ok(Writer::Busy(tokio::spawn(sink.put(full))))
}

/// A part could not be stored: what is before it is kept if that can be done.
async fn failed(mut sink: Box<Sink>, refusal: Refusal) -> Broken {
    if sink.commit().await.is_err() {
        sink.discard().await;
    }
    Broken { refusal, offset: Some(sink.committed) }
}

/// Counts the hash of an upload from the store: after a restart, or when several connections wrote it.
async fn hash_of(storage: &MeshStore, blobs: &Blobs, file: &str) -> Result<Sha256, Refusal> {
    let mut hash = Sha256::new();
    for part in store::parts(storage, file).await? {
        let mut bytes = blobs.read(&part.object, 0..part.size_bytes.max(0).unsigned_abs());
        while let Some(piece) = bytes.try_next().await? {
            hash.update(&piece);
        }
    }
    Ok(hash)
}
