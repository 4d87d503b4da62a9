//! Peers' folders: reading one of a peer, and showing one folder of this session to others.
//!
//! A folder is shown when the user said so for the session (`--share-dir`), and each reader only after the user said so for that
//! reader. [`consent`] keeps what the user said, [`serve`] answers requests, [`folder`] walks the disk and [`policy`] names what is
//! never given. Requests and answers are sealed between the two members; with older clients they are plain, and each side is told.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::messaging::Candidate;
use claudemesh_protocol::features::peer_files::sealed::{self, Entry, Listing, Outcome, Part, Question, Reply, What};
use claudemesh_protocol::features::peer_files::{PeerDirRequest, PeerFileRequest, Sealed, limits};

use crate::connection::{Connection, ConnectionError};
use crate::context::connect::hostname;

pub mod cli;
pub mod consent;
pub mod folder;
pub mod orders;
pub mod policy;
pub mod remembered;
pub mod report;
pub mod serve;
pub mod tools;

/// How long a reader waits for the peer's user: hosts end most tool calls after a minute.
pub const WAIT: Duration = Duration::from_secs(45);
/// What a request takes beside the wait of the peer.
const MARGIN: Duration = Duration::from_secs(5);
/// As long as a request of this feature may take in all.
pub const LONGEST: Duration = Duration::from_millis(limits::MAX_WAIT_MS).saturating_add(MARGIN);

/// A file of a peer, or a part of one.
#[derive(Clone, Debug)]
pub struct PeerFile {
    /// Whose it is.
    pub peer: Candidate,
    /// What was read.
    pub bytes: Vec<u8>,
    /// First byte.
    pub offset: u64,
    /// Bytes of the whole file.
    pub size: u64,
    /// It came sealed from that member.
    pub sealed: bool,
    /// Where the file is, when the peer is on this machine.
    pub local_path: Option<String>,
}

impl PeerFile {
    /// First byte behind what was read; `None` at the end of the file.
    pub fn next(&self) -> Option<u64> {
        let next = self.offset.saturating_add(self.bytes.len() as u64);
        (next < self.size && !self.bytes.is_empty()).then_some(next)
    }
}

/// What is in a folder of a peer.
#[derive(Clone, Debug)]
pub struct PeerFolder {
    /// Whose it is.
    pub peer: Candidate,
    /// By path.
    pub entries: Vec<Entry>,
    /// There is more than a list can have.
    pub more: bool,
    /// It came sealed from that member.
    pub sealed: bool,
    /// Where the folder is, when the peer is on this machine.
    pub local_path: Option<String>,
}

impl Connection {
    /// Reads a part of a file of a peer's folder: at most `length` bytes, and at most [`limits::MAX_READ_BYTES`].
    ///
    /// # Errors
    /// What the broker or the peer says, with its code; of the transport.
    pub async fn read_peer_file(
        &self,
        peer: &Candidate,
        path: &str,
        offset: u64,
        length: u64,
    ) -> Result<PeerFile, ConnectionError> {
        let most = length.min(limits::MAX_READ_BYTES);
        let first = match self.file_part(peer, path, offset, most, None).await {
            Err(error) if error.code() == Some(ErrorCode::PlainOnly) => {
                return self.read_plain(peer, path, offset, most).await;
            }
            first => first?,
        };
        let Some((part, mut bytes)) = first else { return self.read_plain(peer, path, offset, most).await };
        let wanted = most.min(part.size.saturating_sub(offset));
        while (bytes.len() as u64) < wanted {
            let (at, left) = (offset.saturating_add(bytes.len() as u64), wanted - bytes.len() as u64);
            let more = self.file_part(peer, path, at, left, Some(part.version.clone())).await?;
            match more {
                Some((_, more)) if !more.is_empty() => bytes.extend(more),
                // Shorter than it said: what is there is what there is.
                _ => break,
            }
        }
        let Part { size, local_path, .. } = part;
        Ok(PeerFile { peer: peer.clone(), bytes, offset, size, sealed: true, local_path })
    }

    /// One sealed part; `None` when nothing can be sealed on this connection.
    async fn file_part(
        &self,
        peer: &Candidate,
        path: &str,
        offset: u64,
        length: u64,
        version: Option<String>,
    ) -> Result<Option<(Part, Vec<u8>)>, ConnectionError> {
        let length = length.min(limits::MAX_PART_BYTES);
        let Some(heard) = self.ask_sealed(peer, What::Read { path: path.into(), offset, length, version }).await?
        else {
            return Ok(None);
        };
        let Outcome::Part(part) = heard else { return Err(nonsense("another answer than a part of a file")) };
        let bytes = STANDARD.decode(&part.content).map_err(|_| nonsense("content that is no base64"))?;
        if bytes.len() as u64 > length || part.offset != offset {
            return Err(nonsense("another part than the one that was asked for"));
        }
        Ok(Some((part, bytes)))
    }

    /// Lists what is in a folder of a peer.
    ///
    /// # Errors
    /// As [`Connection::read_peer_file`].
    pub async fn list_peer_files(
        &self,
        peer: &Candidate,
        path: &str,
        pattern: Option<&str>,
    ) -> Result<PeerFolder, ConnectionError> {
        let pattern = pattern.map(str::to_owned);
        let what = What::List { path: path.into(), pattern: pattern.clone(), depth: None };
        let listed = match self.ask_sealed(peer, what).await {
            Err(error) if error.code() == Some(ErrorCode::PlainOnly) => None,
            listed => listed?,
        };
        match listed {
            Some(Outcome::Listing(Listing { entries, more, local_path })) => {
                Ok(PeerFolder { peer: peer.clone(), entries, more, sealed: true, local_path })
            }
            Some(_) => Err(nonsense("another answer than a list")),
            None => self.list_plain(peer, path, pattern).await,
        }
    }

    /// Asks under seal; `None` when the broker knows no seals.
    async fn ask_sealed(&self, peer: &Candidate, what: What) -> Result<Option<Outcome>, ConnectionError> {
        if self.is_older_broker() {
            return Ok(None);
        }
        let (identity, is_list) = (self.identity(), matches!(what, What::List { .. }));
        let question = Question {
            id: hex::encode(rand::random::<[u8; 16]>()),
            mesh: identity.mesh_id.clone(),
            at_ms: crate::clock::now_ms(),
            session: identity.own_public(),
            hostname: hostname(),
            what,
        };
        let seal = sealed::seal(&question, &peer.member_pubkey, &identity.member, &mut rand::rngs::OsRng);
        let seal = Some(seal.map_err(|error| refused(ErrorCode::InvalidArgs, error.to_string()))?);
        let (target_pubkey, wait_ms) = (peer.pubkey.to_hex(), Some(millis(WAIT)));
        let limit = WAIT + MARGIN;
        let (sealed, error, code) = if is_list {
            let request = PeerDirRequest { target_pubkey, sealed: seal, wait_ms, ..PeerDirRequest::default() };
            let got = self.request_within(request, limit).await?;
            (got.sealed, got.error, got.code)
        } else {
            let request = PeerFileRequest { target_pubkey, sealed: seal, wait_ms, ..PeerFileRequest::default() };
            let got = self.request_within(request, limit).await?;
            (got.sealed, got.error, got.code)
        };
        self.read_reply(peer, &question, sealed, error, code).map(Some)
    }

    /// What the peer said under seal, to this very question.
    fn read_reply(
        &self,
        peer: &Candidate,
        question: &Question,
        sealed: Option<Sealed>,
        error: Option<String>,
        code: Option<String>,
    ) -> Result<Outcome, ConnectionError> {
        let Some(sealed) = sealed else { return Err(told(error, code)) };
        let reply: Reply = sealed::open(&sealed, &peer.member_pubkey, &self.identity().member)
            .map_err(|_| nonsense("an answer that is not sealed by the peer's member"))?;
        if reply.id != question.id {
            return Err(nonsense("an answer to another question"));
        }
        match reply.result {
            Outcome::Refused { code, message } => Err(told(Some(message), Some(code))),
            given => Ok(given),
        }
    }

    /// As older clients ask: the whole file, readable by the broker.
    async fn read_plain(
        &self,
        peer: &Candidate,
        path: &str,
        offset: u64,
        length: u64,
    ) -> Result<PeerFile, ConnectionError> {
        let (target_pubkey, file_path) = (peer.pubkey.to_hex(), path.to_owned());
        let request = PeerFileRequest { target_pubkey, file_path, ..PeerFileRequest::default() };
        let got = self.request_within(request, plain_wait()).await?;
        let Some(content) = got.content else { return Err(told(got.error, got.code)) };
        let all = STANDARD.decode(content).map_err(|_| nonsense("content that is no base64"))?;
        let size = all.len() as u64;
        let from = usize::try_from(offset.min(size)).unwrap_or(all.len());
        let to = usize::try_from(offset.saturating_add(length).min(size)).unwrap_or(all.len());
        let local_path = here(peer, path);
        Ok(PeerFile { peer: peer.clone(), bytes: all[from..to].to_vec(), offset, size, sealed: false, local_path })
    }

    async fn list_plain(
        &self,
        peer: &Candidate,
        path: &str,
        pattern: Option<String>,
    ) -> Result<PeerFolder, ConnectionError> {
        let target_pubkey = peer.pubkey.to_hex();
        let dir_path = if path.is_empty() { ".".to_owned() } else { path.to_owned() };
        let request = PeerDirRequest { target_pubkey, dir_path, pattern, ..PeerDirRequest::default() };
        let got = self.request_within(request, plain_wait()).await?;
        let Some(entries) = got.entries else { return Err(told(got.error, got.code)) };
        let more = entries.len() >= limits::MAX_PLAIN_ENTRIES;
        let entry = |path: String| match path.strip_suffix('/') {
            Some(dir) => Entry { path: dir.to_owned(), is_dir: true, size: None },
            None => Entry { path, is_dir: false, size: None },
        };
        let entries = entries.into_iter().map(entry).collect();
        Ok(PeerFolder { peer: peer.clone(), entries, more, sealed: false, local_path: here(peer, path) })
    }
}

fn plain_wait() -> Duration {
    Duration::from_millis(limits::USUAL_WAIT_MS) + MARGIN
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where a file of an older client is, which shows its working folder, when it is on this machine.
fn here(peer: &Candidate, path: &str) -> Option<String> {
    let same = peer.hostname.is_some() && peer.hostname == hostname();
    let cwd = peer.cwd.as_deref().filter(|cwd| same && !cwd.is_empty())?;
    Some(if matches!(path, "" | ".") { cwd.to_owned() } else { format!("{}/{path}", cwd.trim_end_matches('/')) })
}

fn refused(code: ErrorCode, message: impl Into<String>) -> ConnectionError {
    ErrorFrame::new(code, message).into()
}

/// The peer's refusal. Its words are a peer's words, so they are bounded and harmless.
fn told(error: Option<String>, code: Option<String>) -> ConnectionError {
    let code = code.as_deref().and_then(ErrorCode::parse).unwrap_or(ErrorCode::NotFound);
    let words = error.unwrap_or_else(|| "no reason was given".into());
    refused(code, format!("the peer says: {}", crate::session::notes::harmless_value(&words)))
}

fn nonsense(what: &str) -> ConnectionError {
    refused(ErrorCode::Invalid, format!("the peer sent {what}"))
}
