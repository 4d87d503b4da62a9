//! The bytes on their way: one stream when they can be read again, part by part when not.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use claudemesh_protocol::features::files::limits::PART_BYTES;
use claudemesh_protocol::features::files::{UploadStarted, UploadStatus};
use claudemesh_protocol::id::FileId;

use super::super::form::{Outgoing, Tally};
use super::super::http::{Broken, Http, OfSource, Stored};
use super::super::progress::{Progress, Stop};
use super::super::retry::Patience;
use super::source::{Bytes, changed, read_error};
use super::{Form, PIECE_BYTES, Plan, STEP_LIMIT, Upload, sealing_error};
use crate::error::CliError;

/// How many pieces may wait between the reading thread and the sending one.
const PIECES: usize = 8;

impl Upload {
    /// Sends what can be read again: in one stream, from where the broker is.
    pub(super) fn send_again(
        &self,
        plan: &Plan,
        mut place: UploadStarted,
        bytes: Bytes,
    ) -> Result<(String, Tally), CliError> {
        let length = place.size;
        let mut patience = Patience::new(self.stop.clone());
        self.progress.begin(Some(length));
        if place.finished {
            // It was finished before: only the hash is needed.
            place.offset = length;
        }
        loop {
            let mut file = self.outgoing(plan, bytes.from_start()?)?;
            let skipped = io::copy(&mut (&mut file).take(place.offset), &mut io::sink()).map_err(read_error)?;
            if skipped != place.offset {
                return Err(changed());
            }
            self.progress.at(place.offset);
            // When all bytes are there, an empty part at the end says so; a file without bytes needs none.
            let sent = match place.finished || length == 0 {
                true => Ok(()),
                false => self.stream(&place, length - place.offset, &mut file).map(drop),
            };
            if bytes.has_changed() {
                return Err(changed());
            }
            match sent {
                Ok(()) => return Ok((file.stored_tally().sha256(), file.plain_tally().clone())),
                Err(broken) => {
                    self.progress.waits();
                    place = self.place_again(&place.file_id, &mut patience, broken)?;
                }
            }
        }
    }

    /// One PATCH. Reading and sealing run beside sending.
    fn stream(
        &self,
        place: &UploadStarted,
        length: u64,
        file: &mut Outgoing<Box<dyn Read + Send + '_>>,
    ) -> Result<Stored, Broken> {
        let http = Http::of(self.connection.identity()).map_err(Broken::Network)?;
        std::thread::scope(|scope| {
            let (pieces, ready) = sync_channel(PIECES);
            scope.spawn(move || {
                loop {
                    let mut piece = Vec::with_capacity(PIECE_BYTES);
                    let read = (&mut *file).take(PIECE_BYTES as u64).read_to_end(&mut piece);
                    let is_end = !matches!(read, Ok(1..));
                    if pieces.send(read.map(|_| piece)).is_err() || is_end {
                        return;
                    }
                }
            });
            let mut body = Body {
                ready,
                piece: Cursor::new(vec![]),
                at: place.offset,
                progress: &*self.progress,
                sent: &self.sent,
                stop: &self.stop,
            };
            let stored = http.patch(&place.url, place.offset, Some(length), true, &mut body)?;
            match stored.complete {
                true => Ok(stored),
                false => Err(Broken::Stale),
            }
        })
    }

    /// Sends what can be read once: part by part, each kept until the broker has it.
    pub(super) fn send_once(
        &self,
        plan: &Plan,
        mut place: UploadStarted,
        head: Vec<u8>,
        rest: Box<dyn Read + Send>,
    ) -> Result<(String, Tally), CliError> {
        let mut patience = Patience::new(self.stop.clone());
        self.progress.begin(None);
        let mut file = self.outgoing(plan, Box::new(Cursor::new(head).chain(rest)))?;
        let (mut part, mut begin) = (Vec::new(), 0_u64);
        loop {
            let is_last = file.fill(&mut part, PART_BYTES as usize).map_err(read_error)?;
            let end = begin + part.len() as u64;
            loop {
                // What the broker has of this part already, after it was cut.
                let done = place.offset.checked_sub(begin).and_then(|done| usize::try_from(done).ok());
                let Some(mut unsent) = done.and_then(|done| part.get(done..)) else {
                    return Err(CliError::network("The broker has lost a part of the upload.").hint("Share it again."));
                };
                let sent = Http::of(self.connection.identity()).map_err(Broken::Network).and_then(|http| {
                    let length = Some(unsent.len() as u64);
                    http.patch(&place.url, place.offset, length, is_last, &mut unsent)
                });
                match sent {
                    Ok(stored) if stored.offset == end && stored.complete == is_last => {
                        place.offset = end;
                        break;
                    }
                    Ok(_) => place = self.place_again(&place.file_id, &mut patience, Broken::Stale)?,
                    Err(broken) => {
                        self.progress.waits();
                        place = self.place_again(&place.file_id, &mut patience, broken)?;
                    }
                }
            }
            patience.moved(end);
            self.progress.at(end);
            begin = end;
            if is_last {
                return Ok((file.stored_tally().sha256(), file.plain_tally().clone()));
            }
        }
    }

    fn outgoing<'a>(
        &self,
        plan: &Plan,
        from: Box<dyn Read + Send + 'a>,
    ) -> Result<Outgoing<Box<dyn Read + Send + 'a>>, CliError> {
        let (Some((key, header)), Form::Sealed) = (&plan.sealing, self.share.form) else {
            return Ok(Outgoing::plain(from));
        };
        let sealed = Outgoing::sealed(from, key, header).map_err(sealing_error)?;
        Ok(if plan.known.is_some() { sealed.without_plain_tally() } else { sealed })
    }

    /// Waits, then asks where an upload that broke off goes on.
    fn place_again(
        &self,
        file_id: &FileId,
        patience: &mut Patience,
        broken: Broken,
    ) -> Result<UploadStarted, CliError> {
        patience.moved(self.sent.load(Ordering::Relaxed));
        patience.wait(broken)?;
        loop {
            let ask = self.connection.request_within(UploadStatus { file_id: file_id.clone() }, STEP_LIMIT);
            match self.runtime.block_on(ask) {
                Ok(place) => {
                    patience.moved(place.offset);
                    return Ok(place);
                }
                Err(error) => patience.wait_for(error)?,
            }
        }
    }
}

/// The body of a PATCH, from another thread.
struct Body<'a> {
    ready: Receiver<io::Result<Vec<u8>>>,
    piece: Cursor<Vec<u8>>,
    at: u64,
    progress: &'a dyn Progress,
    sent: &'a AtomicU64,
    stop: &'a Stop,
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_set() {
            return Err(io::Error::other(OfSource(io::ErrorKind::Interrupted.into())));
        }
        if self.piece.position() == self.piece.get_ref().len() as u64 {
            match self.ready.recv() {
                Ok(Ok(piece)) => self.piece = Cursor::new(piece),
                Ok(Err(error)) => return Err(io::Error::other(OfSource(error))),
                Err(_) => return Ok(0),
            }
        }
        let count = self.piece.read(into)?;
        self.at += count as u64;
        self.progress.at(self.at);
        self.sent.fetch_max(self.at, Ordering::Relaxed);
        Ok(count)
    }
}
