//! Sharing a file: read, sealed and sent in one stream, and gone on with when the way to the broker was lost or this program was
//! killed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use claudemesh_protocol::crypto::file::chunks::{self, HEADER_BYTES};
use claudemesh_protocol::crypto::file::label::Label;
use claudemesh_protocol::crypto::file::{FileError, FileKey, whole};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::files::limits::MAX_KEYS;
use claudemesh_protocol::features::files::{
    CancelUpload, FileEntry, FileKey as ReaderKey, FinishUpload, SECRETBOX, STREAM, StartUpload, UploadStarted,
    check_name,
};
use claudemesh_protocol::id::FileId;
use claudemesh_protocol::target::TargetField;
use claudemesh_protocol::version::CAP_FILES;
use tokio::runtime::Handle;

use super::form::Tally;
use super::progress::{Progress, Stop};
use super::readers::Readers;
use super::retry::Patience;
use super::transfers::{Note, UploadNote};
use crate::config::StoredSecret;
use crate::connection::{Connection, ConnectionError};
use crate::error::{CliError, ExitCode};
use crate::files;
use crate::output::clean;

mod send;
mod source;

use source::Bytes;

/// How long the broker may take to begin or finish an upload: it may have to hash all of it.
const STEP_LIMIT: Duration = Duration::from_secs(120);
/// Bytes that are read at once, and travel from the reading thread to the sending one.
const PIECE_BYTES: usize = 256 << 10;

/// Where the bytes come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file; what is no plain file, for example a pipe, is read once.
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// How a file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Sealed chunk by chunk.
    Sealed,
    /// As it is: the broker can read it, and everyone whom the broker lets.
    Plain,
    /// Sealed as a whole, in the form that clients of the existing system open.
    Whole,
}

/// How long a file is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is deleted.
    Persistent,
    /// For so long; the broker's usual time, a day, without one.
    For(Option<Duration>),
}

/// A file to share.
#[derive(Clone, Debug)]
pub struct Share {
    /// Where it is.
    pub source: Source,
    /// What readers see as its name; of the path when `None`.
    pub name: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Who it is for; everyone when empty.
    pub targets: Vec<String>,
    /// How it is stored.
    pub form: Form,
    /// How long it is kept.
    pub lifetime: Lifetime,
}

/// A file that was shared.
pub struct Shared {
    /// As the broker has it.
    pub file: FileEntry,
    /// Its name.
    pub name: String,
    /// Bytes of the file itself.
    pub size: u64,
    /// SHA-256 of the file itself, hex.
    pub sha256: String,
    /// Who it is for.
    pub readers: Readers,
    /// Byte that it went on at; 0 for a new one.
    pub resumed_at: u64,
}

/// Shares a file.
///
/// # Errors
/// What the broker or the system says; exit 10 (`changed`) when the file changed while it was read.
pub async fn share(
    connection: &Connection,
    config_dir: &Path,
    share: Share,
    progress: Arc<dyn Progress>,
) -> Result<Shared, CliError> {
    connection.hello_ack()?;
    if !connection.broker_can(CAP_FILES) {
        return Err(CliError::from(ConnectionError::NotKnown("start_upload")));
    }
    let readers = connection.readers_of(&share.targets).await?;
    let stop = Stop::default();
    let upload = Upload {
        connection: connection.clone(),
        config_dir: config_dir.to_path_buf(),
        runtime: Handle::current(),
        progress: Arc::clone(&progress),
        stop: stop.clone(),
        sent: AtomicU64::new(0),
        share,
        readers,
    };
    let _given_up = stop.when_dropped();
    let done = tokio::task::spawn_blocking(move || upload.run()).await;
    progress.end();
    done.map_err(|_| CliError::internal("The upload ended without a word."))?
}

struct Upload {
    connection: Connection,
    config_dir: PathBuf,
    runtime: Handle,
    progress: Arc<dyn Progress>,
    stop: Stop,
    /// The byte to which the transfer has come.
    sent: AtomicU64,
    share: Share,
    readers: Readers,
}

/// What an upload is, once its source was looked at.
struct Plan {
    name: String,
    /// Bytes and hash of the file itself; `None` when it can be read once only.
    known: Option<(u64, String)>,
    sealing: Option<(FileKey, [u8; HEADER_BYTES])>,
    client_upload_id: String,
    note: Option<Note>,
}

impl Upload {
    fn run(self) -> Result<Shared, CliError> {
        super::transfers::prune(&self.config_dir);
        let name = self.name()?;
        let mut bytes = Bytes::open(&self.share.source)?;
        let known = bytes.known()?;
        if self.share.form == Form::Whole {
            bytes = bytes.held()?;
        }
        let plan = self.plan(name, known);
        let (plan, bytes) = self.whole(plan, bytes)?;
        let (started, key_count) = self.start(&plan)?;
        let resumed_at = started.offset;
        let file_id = started.file_id.clone();
        let sent = match bytes {
            Bytes::Once { head, rest } => self.send_once(&plan, started, head, rest),
            bytes => self.send_again(&plan, started, bytes),
        };
        let (stored_sha256, plain) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                if is_over(&error) {
                    self.give_up(&plan, &file_id);
                }
                return Err(error);
            }
        };
        let file = self.finish(&file_id, stored_sha256)?;
        if let Some(note) = &plan.note {
            note.remove();
        }
        self.grant_the_rest(&plan, &file_id, key_count)?;
        let (size, sha256) = plan.known.unwrap_or((plain.bytes(), plain.sha256()));
        Ok(Shared { file, name: plan.name, size, sha256, readers: self.readers, resumed_at })
    }

    fn name(&self) -> Result<String, CliError> {
        let name = match (&self.share.name, &self.share.source) {
            (Some(name), _) => name.clone(),
            (None, Source::Path(path)) => {
                let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // No one chose it for others: what they could not see in it is left out.
                if check_name(&own).is_ok() { own } else { files::safe_name(&own) }
            }
            (None, Source::Stdin) => "stdin".to_owned(),
            (None, Source::Bytes(_)) => "file".to_owned(),
        };
        match check_name(&name) {
            Ok(()) => Ok(name),
            Err(error) => Err(CliError::new(
                ExitCode::InvalidArgs,
                ErrorCode::InvalidName.as_str(),
                format!("'{}': {error}.", clean(&name)),
            )
            .hint("Give it another name with --name.")),
        }
    }

    /// Takes up what an earlier process of the same command has noted, as long as the content is the same.
    fn plan(&self, name: String, known: Option<(u64, String)>) -> Plan {
        let is_sealed = self.share.form == Form::Sealed;
        let new_key = || {
            let key = FileKey::random(&mut rand::rngs::OsRng);
            let header = chunks::new_header(&key, &mut rand::rngs::OsRng);
            (key, header)
        };
        let mut plan =
            Plan { name, known, sealing: None, client_upload_id: uuid::Uuid::new_v4().to_string(), note: None };
        let (Source::Path(path), Some((_, sha256)), true) =
            (&self.share.source, &plan.known, self.share.form != Form::Whole)
        else {
            plan.sealing = is_sealed.then(new_key);
            return plan;
        };
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let (share, mesh) = (&self.share, self.connection.identity().mesh_id.to_string());
        let what = format!("{:?} {:?} {:?} {:?}", share.tags, self.readers.targets, share.form, share.lifetime);
        let note = Note::of(&self.config_dir, "upload", &[&mesh, &path.to_string_lossy(), &plan.name, &what]);
        let earlier: Option<UploadNote> = note.read();
        if let Some(earlier) = earlier.filter(|earlier| &earlier.sha256 == sha256) {
            let key = earlier.key.as_ref().and_then(|key| FileKey::parse(key.expose()).ok());
            let header =
                hex::decode(&earlier.header).ok().and_then(|header| <[u8; HEADER_BYTES]>::try_from(header).ok());
            plan.sealing = key.zip(header).filter(|(key, header)| chunks::Chunks::new(key, header).is_ok());
            if plan.sealing.is_some() == is_sealed {
                plan.client_upload_id = earlier.client_upload_id;
                plan.note = Some(note);
                return plan;
            }
        }
        plan.sealing = is_sealed.then(new_key);
        let (key, header) = match &plan.sealing {
            Some((key, header)) => (Some(StoredSecret::new(key.to_hex().as_str())), hex::encode(header)),
            None => (None, String::new()),
        };
        let noted = UploadNote { client_upload_id: plan.client_upload_id.clone(), sha256: sha256.clone(), key, header };
        match note.write(&noted) {
            Ok(()) => plan.note = Some(note),
            Err(error) => {
                tracing::warn!(%error, "an upload that is killed cannot go on: its note could not be written")
            }
        }
        plan
    }

    /// Seals a file as a whole, when it is to be.
    fn whole(&self, mut plan: Plan, bytes: Bytes) -> Result<(Plan, Bytes), CliError> {
        let (Form::Whole, Bytes::Held(held)) = (self.share.form, &bytes) else { return Ok((plan, bytes)) };
        let key = FileKey::random(&mut rand::rngs::OsRng);
        let sealed = whole::seal(&key, held, &mut rand::rngs::OsRng).map_err(sealing_error)?;
        let mut tally = Tally::default();
        tally.add(held);
        plan.known = Some((tally.bytes(), tally.sha256()));
        plan.sealing = Some((key, [0; HEADER_BYTES]));
        Ok((plan, Bytes::Held(sealed)))
    }

    /// Bytes that will be stored; `None` when no one knows.
    fn stored_bytes(&self, plan: &Plan) -> Result<Option<u64>, CliError> {
        let Some((size, _)) = plan.known else { return Ok(None) };
        match self.share.form {
            Form::Plain => Ok(Some(size)),
            Form::Whole => Ok(Some(size + whole::OVERHEAD as u64)),
            Form::Sealed => chunks::sealed_bytes(size).map(Some).ok_or_else(|| sealing_error(FileError::TooLong)),
        }
    }

    /// Reserves room. Answers where the bytes go, and for how many members the key is there.
    fn start(&self, plan: &Plan) -> Result<(UploadStarted, usize), CliError> {
        let share = &self.share;
        let (persistent, ttl) = match share.lifetime {
            Lifetime::Persistent => (true, None),
            Lifetime::For(time) => (false, time),
        };
        let known = self.stored_bytes(plan)?;
        let sealed_here = share.form == Form::Sealed;
        let mut start = StartUpload {
            client_upload_id: plan.client_upload_id.clone(),
            name: (!sealed_here).then(|| plan.name.clone()),
            size: known.unwrap_or(u64::MAX >> 12),
            at_most: known.is_none(),
            tags: if sealed_here { vec![] } else { share.tags.clone() },
            target_spec: Some(TargetField::Many(self.readers.targets.clone())),
            persistent,
            ttl_s: ttl.map(|time| time.as_secs()),
            encryption: match share.form {
                Form::Sealed => Some(STREAM.into()),
                Form::Whole => Some(SECRETBOX.into()),
                Form::Plain => None,
            },
            regrant: sealed_here && !self.readers.audiences.is_empty(),
            ..StartUpload::default()
        };
        let mut key_count = 0;
        if let Some((key, header)) = &plan.sealing {
            if sealed_here {
                start.sealed_meta =
                    Some(self.label(plan, header).seal(key, &mut rand::rngs::OsRng).map_err(sealing_error)?);
            }
            start.keys = self.keys(key);
            key_count = start.keys.len();
        }
        let ask = |start: StartUpload| self.runtime.block_on(self.connection.request_within(start, STEP_LIMIT));
        // How long a stream will be is not known: as much is reserved as there is room for.
        loop {
            let refused = match ask(start.clone()) {
                Err(ConnectionError::Refused(error)) if start.at_most => error,
                answer => return Ok((answer?, key_count)),
            };
            let room = refused.0.bound.as_ref().map(|bound| match bound.name.as_str() {
                // What one file may have is not used up by others.
                "files.bytes_per_file" => bound.limit,
                _ => bound.limit.saturating_sub(bound.used),
            });
            match room {
                Some(room) if room > 0 && room < start.size => start.size = room,
                _ => return Err(CliError::from(ConnectionError::Refused(refused))),
            }
        }
    }

    fn label(&self, plan: &Plan, header: &[u8]) -> Label {
        let identity = self.connection.identity();
        let label = Label {
            name: plan.name.clone(),
            tags: self.share.tags.clone(),
            size: plan.known.as_ref().map(|(size, _)| *size),
            sha256: plan.known.as_ref().map(|(_, sha256)| sha256.clone()),
            header: hex::encode(header),
            open_to: self.readers.audiences.clone(),
            ..Label::default()
        };
        label.signed(&identity.mesh_id, &identity.member)
    }

    /// The key of the file for its readers, our own first.
    fn keys(&self, key: &FileKey) -> Vec<ReaderKey> {
        let own = self.connection.identity().member.public();
        let others = self.readers.members.iter().filter(|reader| **reader != own);
        let sealed = std::iter::once(&own).chain(others).take(MAX_KEYS).filter_map(|reader| {
            // A key that is no point belongs to no one who could read.
            let sealed_key = key.seal_for(reader, &mut rand::rngs::OsRng).ok()?;
            Some(ReaderKey { peer_pubkey: reader.to_hex(), sealed_key })
        });
        sealed.collect()
    }

    fn finish(&self, file_id: &FileId, sha256: String) -> Result<FileEntry, CliError> {
        let mut patience = Patience::new(self.stop.clone());
        loop {
            let finish = FinishUpload { file_id: file_id.clone(), sha256: sha256.clone() };
            match self.runtime.block_on(self.connection.request_within(finish, STEP_LIMIT)) {
                Ok(finished) => return Ok(finished.file),
                Err(error) => patience.wait_for(error)?,
            }
        }
    }

    /// Takes an upload back that will not be whole.
    fn give_up(&self, plan: &Plan, file_id: &FileId) {
        if let Some(note) = &plan.note {
            note.remove();
        }
        let cancel = CancelUpload { file_id: file_id.clone() };
        if let Err(error) = self.runtime.block_on(self.connection.request(cancel)) {
            tracing::debug!(%error, "the broker gives the upload up by itself");
        }
    }

    /// Seals the key for those who had no room at the start, and for those that an audience has beyond what we saw.
    fn grant_the_rest(&self, plan: &Plan, file_id: &FileId, key_count: usize) -> Result<(), CliError> {
        let Some((key, _)) = &plan.sealing else { return Ok(()) };
        if self.readers.audiences.is_empty() && key_count < MAX_KEYS {
            return Ok(());
        }
        let granted = self.runtime.block_on(self.connection.grant_to_readers_without_key(file_id, key));
        granted.map(drop).map_err(CliError::from)
    }
}

/// Whether going on with an upload makes no sense.
fn is_over(error: &CliError) -> bool {
    error.code == "changed" || matches!(error.exit, ExitCode::PermissionDenied | ExitCode::InvalidArgs)
}

fn sealing_error(error: FileError) -> CliError {
    CliError::invalid_args(crate::error::sentence(&error.to_string()))
}
