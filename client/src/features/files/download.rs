//! Reading a file: into a temporary file beside its place or onto standard output, checked, and gone on with after a break.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::crypto::file::{FileKey, chunks, whole};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::files::{FileEntry, FileUrl, SECRETBOX, STREAM};
use claudemesh_protocol::id::{FileId, PublicKey};
use tokio::runtime::Handle;

use super::form::{self, HEADER, Incoming, Tally};
use super::http::{Broken, Http};
use super::place::{Part, Place};
use super::progress::{Progress, Stop};
use super::retry::Patience;
use super::transfers::{DownloadNote, Note};
use super::view::{FileView, Proof, key_of};
use crate::connection::{Connection, ConnectionError};
use crate::error::{CliError, ExitCode};
use crate::files::safe_name;

/// Bytes that are taken from the socket at once.
const PIECE_BYTES: usize = 64 << 10;
/// How often, and how long, a reader without a key waits for the sharer's client to give it one by itself.
const KEY_TRIES: u32 = 8;
const KEY_PAUSE: Duration = Duration::from_millis(500);

/// Where a file goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// This path; a folder takes the file under its own name.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Which file.
    pub id: FileId,
    /// Where it goes.
    pub target: Target,
    /// A file that is there is replaced.
    pub replace: bool,
}

/// A file that was read.
pub struct Got {
    /// With its label.
    pub view: FileView,
    /// Where it lies; `None` when it lies nowhere.
    pub path: Option<PathBuf>,
    /// Bytes of the file itself.
    pub size: u64,
    /// SHA-256 of the file itself, hex.
    pub sha256: String,
    /// Who shared it, as far as it is proved.
    pub proof: Proof,
    /// Byte that it went on at; 0 for a new one.
    pub resumed_at: u64,
}

/// Reads a file.
///
/// # Errors
/// What the broker or the system says; `hash_mismatch` when it is not what was shared.
pub async fn get(
    connection: &Connection,
    config_dir: &Path,
    wish: Wish,
    progress: Arc<dyn Progress>,
) -> Result<Got, CliError> {
    let url = with_key(connection, &wish.id).await?;
    let sharer = sharer_key(connection, &url).await;
    let entry = url.file.clone().unwrap_or_else(|| entry_of_older(&url));
    let key = key_of(&url, connection.identity());
    if entry.encrypted && key.is_none() {
        return Err(CliError::new(
            ExitCode::PermissionDenied,
            ErrorCode::NoFileKey.as_str(),
            "The key of this file is not sealed for you.",
        )
        .hint("Ask the one who shared it for `claudemesh file grant`."));
    }
    let mut sealed_for_us = entry.clone();
    sealed_for_us.sealed_key.clone_from(&url.sealed_key);
    let view = FileView::of(sealed_for_us, connection.identity());
    let proof = view.proof(sharer.as_ref(), connection.identity());
    if proof == Proof::Forged {
        let message = "The label of this file was not signed by the member that is said to have shared it.";
        return Err(CliError::new(ExitCode::Auth, "forged_label", message)
            .hint("Nothing was written. Ask the sharer, and the people who run the broker."));
    }
    let stop = Stop::default();
    let download = Download {
        connection: connection.clone(),
        config_dir: config_dir.to_path_buf(),
        runtime: Handle::current(),
        progress: Arc::clone(&progress),
        stop: stop.clone(),
        wish,
        view,
        key,
        proof,
    };
    let _given_up = stop.when_dropped();
    let done = tokio::task::spawn_blocking(move || download.run(url)).await;
    progress.end();
    done.map_err(|_| CliError::internal("The download ended without a word."))?
}

/// Where the file is. The sharer's client may be about to seal the key for us.
async fn with_key(connection: &Connection, id: &FileId) -> Result<FileUrl, ConnectionError> {
    let mut left = KEY_TRIES;
    loop {
        match connection.get_file(id).await {
            Err(error) if error.code() == Some(ErrorCode::NoFileKey) && left > 0 => {
                left -= 1;
                tokio::time::sleep(KEY_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// The key of the member that shared a file. Only a signed label needs it.
async fn sharer_key(connection: &Connection, url: &FileUrl) -> Option<PublicKey> {
    let file = url.file.as_ref().filter(|file| file.sealed_meta.is_some())?;
    let members = connection.list_members().await.ok()?;
    members.into_iter().find(|member| member.member_id == file.uploaded_by).map(|member| member.pubkey)
}

/// Brokers of the existing system say less.
fn entry_of_older(url: &FileUrl) -> FileEntry {
    FileEntry {
        id: url.file_id.clone(),
        name: url.name.clone(),
        size: 0,
        tags: vec![],
        uploaded_by: String::new().into(),
        uploaded_at: String::new(),
        persistent: true,
        encrypted: url.encrypted,
        uploader: String::new(),
        expires_at: None,
        sha256: String::new(),
        content_type: None,
        encryption: url.encrypted.then(|| SECRETBOX.to_owned()),
        sealed_meta: None,
        sealed_key: url.sealed_key.clone(),
        sealed_for: None,
    }
}

struct Download {
    connection: Connection,
    config_dir: PathBuf,
    runtime: Handle,
    progress: Arc<dyn Progress>,
    stop: Stop,
    wish: Wish,
    view: FileView,
    key: Option<FileKey>,
    proof: Proof,
}

impl Download {
    fn run(self, url: FileUrl) -> Result<Got, CliError> {
        super::transfers::prune(&self.config_dir);
        match &self.wish.target {
            Target::Path(path) => {
                let path = self.path(path);
                self.into_place(&path, url)
            }
            Target::Stdout => {
                let mut stdout = io::stdout().lock();
                let tally = self.receive(&mut stdout, Tally::default(), url)?;
                self.check(&tally)?;
                Ok(self.got(None, &tally, 0))
            }
        }
    }

    fn got(self, path: Option<PathBuf>, tally: &Tally, resumed_at: u64) -> Got {
        Got { view: self.view, path, size: tally.bytes(), sha256: tally.sha256(), proof: self.proof, resumed_at }
    }

    /// A folder takes the file under its own name, made safe.
    fn path(&self, path: &Path) -> PathBuf {
        if path.is_dir() { path.join(safe_name(self.view.name())) } else { path.to_path_buf() }
    }

    fn into_place(self, path: &Path, url: FileUrl) -> Result<Got, CliError> {
        let place = Place::new(path, self.wish.id.as_str(), self.wish.replace)?;
        let part = place.open()?;
        let mesh = self.connection.identity().mesh_id.to_string();
        let note =
            Note::of(&self.config_dir, "download", &[&mesh, self.wish.id.as_str(), &place.target().to_string_lossy()]);
        let noted = DownloadNote {
            file_id: self.wish.id.clone(),
            sha256: self.view.entry.sha256.clone(),
            part: place.part().to_path_buf(),
        };
        // What another file has left there is of no use, and neither is what no one has noted.
        let earlier: Option<DownloadNote> = note.read();
        let can_go_on = !self.is_older() && (self.view.entry.encryption.is_none() || self.header().is_some());
        let goes_on = can_go_on && earlier.is_some_and(|earlier| earlier.sha256 == noted.sha256);
        if !goes_on {
            part.restart()?;
        }
        if let Err(error) = note.write(&noted) {
            tracing::warn!(%error, "a download that is killed cannot go on: its note could not be written");
        }
        let before = part.read_back()?;
        let resumed_at = before.bytes();
        let end = |error: CliError| {
            // What is wrong is not gone on with; what broke off is.
            if error.code == ErrorCode::HashMismatch.as_str() {
                place.forget();
                note.remove();
            }
            error
        };
        let mut tally = self.into_part(&part, before, url).map_err(&end)?;
        if resumed_at > 0 && self.check(&tally).is_err() {
            // What was there may have lost its end with the machine's power: once more, from the beginning.
            part.restart()?;
            let url = self.runtime.block_on(self.connection.get_file(&self.wish.id))?;
            tally = self.into_part(&part, Tally::default(), url).map_err(&end)?;
        }
        self.check(&tally).map_err(&end)?;
        place.finish(part)?;
        note.remove();
        Ok(self.got(Some(place.target().to_path_buf()), &tally, resumed_at))
    }

    fn into_part(&self, part: &Part, before: Tally, url: FileUrl) -> Result<Tally, CliError> {
        let mut file = part.file();
        self.receive(&mut file, before, url)
    }

    /// Takes the bytes from where `before` ends. Answers what arrived in all.
    fn receive(&self, into: &mut dyn Write, before: Tally, url: FileUrl) -> Result<Tally, CliError> {
        if self.view.entry.encryption.as_deref() == Some(SECRETBOX) {
            return self.receive_whole(into, url);
        }
        if let Some(other) = self.view.entry.encryption.as_deref().filter(|form| *form != STREAM) {
            return Err(CliError::new(
                ExitCode::InvalidArgs,
                "unknown_form",
                format!("The file is sealed as '{}', which this version does not know.", crate::output::clean(other)),
            )
            .hint("Update claudemesh."));
        }
        let mut patience = Patience::new(self.stop.clone());
        self.progress.begin(Some(self.view.size()));
        let (mut tally, mut url, mut header) = (before, url, self.header().unwrap_or_default());
        loop {
            self.progress.at(tally.bytes());
            let broken = match self.attempt(into, &mut tally, &mut header, &url, &mut patience) {
                Ok(()) => return Ok(tally),
                Err(broken) => broken,
            };
            self.progress.waits();
            patience.wait(broken)?;
            url = self.url_again(&mut patience)?;
        }
    }

    fn url_again(&self, patience: &mut Patience) -> Result<FileUrl, CliError> {
        loop {
            match self.runtime.block_on(self.connection.get_file(&self.wish.id)) {
                Ok(url) => return Ok(url),
                Err(error) => patience.wait_for(error)?,
            }
        }
    }

    /// One GET, from where `tally` ends. `tally` follows what was written, also when it breaks off.
    fn attempt(
        &self,
        into: &mut dyn Write,
        tally: &mut Tally,
        header: &mut Vec<u8>,
        url: &FileUrl,
        patience: &mut Patience,
    ) -> Result<(), Broken> {
        let http = Http::of(self.connection.identity()).map_err(Broken::Network)?;
        let is_sealed = self.view.entry.encryption.is_some();
        let (number, from) = if is_sealed { form::resume_at(tally.bytes()) } else { (0, tally.bytes()) };
        if self.is_whole(tally) {
            return Ok(());
        }
        let from = if is_sealed && number == 0 { 0 } else { from };
        let (begins_at, mut body) = http.get(&url.url, url.presigned, from)?;
        if begins_at != from {
            skip(&mut body, from - begins_at)?;
        }
        if is_sealed && from == 0 {
            let mut first = vec![0; HEADER];
            body.read_exact(&mut first).map_err(network)?;
            // The label names it, so that no other file can be put in its place.
            if !header.is_empty() && *header != first {
                return Err(not_what_was_shared());
            }
            *header = first;
        }
        let file = match (&self.key, is_sealed) {
            (Some(key), true) => {
                Incoming::sealed(into, key, header, number, tally.clone()).map_err(|_| not_what_was_shared())?
            }
            _ => Incoming::plain(into, tally.clone()),
        };
        let (done, so_far) = self.pump(&mut body, file, patience);
        *tally = so_far;
        done
    }

    /// Everything from the socket into the file. Answers how it ended, and what is written.
    fn pump(
        &self,
        body: &mut dyn Read,
        mut file: Incoming<&mut dyn Write>,
        patience: &mut Patience,
    ) -> (Result<(), Broken>, Tally) {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            if self.stop.is_set() {
                let error = Broken::Local(io::ErrorKind::Interrupted.into());
                return (Err(error), file.plain_tally().clone());
            }
            let pushed = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => file.push(&piece[..count]).map_err(written),
                Err(error) => Err(network(error)),
            };
            let at = file.plain_tally().bytes();
            if let Err(broken) = pushed {
                return (Err(broken), file.plain_tally().clone());
            }
            patience.moved(at);
            self.progress.at(at);
        }
        let so_far = file.plain_tally().clone();
        // A connection that was cut looks like an end, too; then the last chunk does not open.
        let expected = self.view.size();
        match file.finish() {
            Ok((_, tally)) if self.is_older() => (Ok(()), tally),
            Ok((_, tally)) if tally.bytes() == expected => (Ok(()), tally),
            Ok((_, tally)) if tally.bytes() < expected => {
                (Err(Broken::Network("the connection ended before the file".into())), tally)
            }
            Ok((_, tally)) => (Err(not_what_was_shared()), tally),
            Err(error) if error.kind() == io::ErrorKind::InvalidData && so_far.bytes() < expected => {
                let broken = match self.is_last_chunk(&so_far) {
                    // It came whole and is wrong.
                    true => not_what_was_shared(),
                    false => Broken::Network("the connection ended before the file".into()),
                };
                (Err(broken), so_far)
            }
            Err(error) => (Err(written(error)), so_far),
        }
    }

    /// Whether only the last chunk is missing.
    fn is_last_chunk(&self, tally: &Tally) -> bool {
        self.view.size() - tally.bytes() <= chunks::CHUNK_BYTES as u64
    }

    /// Whether the broker says nothing of the length.
    fn is_older(&self) -> bool {
        self.view.entry.sha256.is_empty()
    }

    /// Whether nothing is missing. An empty sealed file still has a chunk, which must open.
    fn is_whole(&self, tally: &Tally) -> bool {
        !self.is_older()
            && tally.bytes() == self.view.size()
            && (tally.bytes() > 0 || self.view.entry.encryption.is_none())
    }

    fn header(&self) -> Option<Vec<u8>> {
        let label = self.view.label.as_ref()?;
        hex::decode(&label.header).ok().filter(|header| header.len() == HEADER)
    }

    /// A file of the existing form: opened whole.
    fn receive_whole(&self, into: &mut dyn Write, mut url: FileUrl) -> Result<Tally, CliError> {
        let key = self.key.as_ref().ok_or_else(|| CliError::internal("A sealed file without its key."))?;
        let mut patience = Patience::new(self.stop.clone());
        let most = (whole::MAX_BYTES + whole::OVERHEAD) as u64;
        self.progress.begin(Some(self.view.entry.size));
        let sealed = loop {
            let read = Http::of(self.connection.identity()).map_err(Broken::Network).and_then(|http| {
                let (_, body) = http.get(&url.url, url.presigned, 0)?;
                let mut sealed = Vec::new();
                body.take(most + 1).read_to_end(&mut sealed).map_err(network)?;
                Ok(sealed)
            });
            match read {
                Ok(sealed) => break sealed,
                Err(broken) => {
                    self.progress.waits();
                    patience.wait(broken)?;
                    url = self.url_again(&mut patience)?;
                }
            }
        };
        let plain = whole::open(key, sealed).map_err(|error| super::retry::error_of(not_shared(&error.to_string())))?;
        let mut tally = Tally::default();
        tally.add(&plain);
        into.write_all(&plain).and_then(|()| into.flush()).map_err(|error| super::retry::error_of(written(error)))?;
        Ok(tally)
    }

    /// Compares what arrived with what was shared.
    fn check(&self, tally: &Tally) -> Result<(), CliError> {
        match self.view.sha256() {
            Some(expected) if expected != tally.sha256() => Err(super::retry::error_of(not_what_was_shared())),
            _ => Ok(()),
        }
    }
}

fn skip(body: &mut dyn Read, count: u64) -> Result<(), Broken> {
    match io::copy(&mut body.take(count), &mut io::sink()) {
        Ok(skipped) if skipped == count => Ok(()),
        Ok(_) => Err(Broken::Network("the connection ended before the file".into())),
        Err(error) => Err(network(error)),
    }
}

fn network(error: io::Error) -> Broken {
    Broken::Network(error.to_string())
}

/// An error of the place that the file goes to, or of the file itself.
fn written(error: io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::InvalidData => not_what_was_shared(),
        _ => Broken::Local(error),
    }
}

fn not_what_was_shared() -> Broken {
    not_shared("the bytes are not those that were shared")
}

fn not_shared(message: &str) -> Broken {
    Broken::Refused { code: ErrorCode::HashMismatch.as_str().into(), message: message.into(), retryable: false }
}
