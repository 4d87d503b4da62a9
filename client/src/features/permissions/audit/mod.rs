//! `audit.log`: what was asked, answered and decided. JSON lines, 0600, only ever added to.
//!
//! Each record has the SHA-256 of the line before it and a signature of the own member key of its mesh, so a record that
//! was changed, removed or put in between is found. The end of the log can be cut off by anyone who may write the file; no
//! log on one machine can prevent that, and approvers keep records of their own answers.
//!
//! Several processes write: one at a time, under a lock, synced before anything is decided on it. A file that has grown is
//! put aside and the chain goes on in the next one; the oldest file is given up when there are many, which the chain says.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;

use claudemesh_protocol::crypto::keys::{self, SecretKey};
use claudemesh_protocol::crypto::signed::{self, PermissionWord};
use claudemesh_protocol::id::PublicKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::wire::canonical;
use crate::config::ConfigStore;
use crate::files::{self, FileLock};

mod archives;

/// Longest record: a bounded preview and some keys.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// A file of this size is put aside.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Files that were put aside and are kept: some ten thousand questions.
const MAX_ARCHIVES: usize = 8;
/// How long one writer waits for another.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A log that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the permission log {} cannot be {action}: {error}", path.display())]
pub struct AuditError {
    path: PathBuf,
    action: &'static str,
    error: std::io::Error,
}

impl AuditError {
    /// The process is ending.
    pub(super) fn ended() -> Self {
        let error = std::io::Error::other("the process is ending");
        Self { path: PathBuf::from("audit.log"), action: "written", error }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Approvers were asked.
    Asked,
    /// An approver's answer came and counts; its signature is in the record.
    Answered,
    /// The host was told.
    Decided,
    /// No one has decided in time.
    Expired,
    /// The session does not need the answer any more.
    Withdrawn,
    /// An answer does not count, and why.
    Refused,
    /// This member answered someone else's question.
    Gave,
    /// The user let someone read the shared folder.
    FolderAllowed,
    /// The user did not.
    FolderDenied,
    /// The user took it back.
    FolderRevoked,
    /// A line that was cut off when a process died was removed.
    Mended,
    /// The oldest file was given up; the record says where the chain begins since.
    Pruned,
}

impl Event {
    /// The word in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Answered => "answered",
            Self::Decided => "decided",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Refused => "refused",
            Self::Gave => "gave",
            Self::FolderAllowed => "folder_allowed",
            Self::FolderDenied => "folder_denied",
            Self::FolderRevoked => "folder_revoked",
            Self::Mended => "mended",
            Self::Pruned => "pruned",
        }
    }
}

/// Where the log is.
pub fn path(store: &ConfigStore) -> PathBuf {
    store.dir().join("audit.log")
}

/// Adds a record and waits until it is on the disk. Blocking.
///
/// # Errors
/// [`AuditError`]: nothing was added, and nothing may be decided on it.
pub fn append(store: &ConfigStore, key: &SecretKey, mesh: &str, event: Event, data: Value) -> Result<(), AuditError> {
    let path = path(store);
    let failed = |action: &'static str| {
        let path = path.clone();
        move |error| AuditError { path, action, error }
    };
    files::create_private_dir(store.dir()).map_err(failed("made"))?;
    let _lock = FileLock::take(&path.with_extension("lock"), LOCK_PATIENCE).map_err(failed("locked"))?;
    let mut file = open(&path).map_err(failed("opened"))?;
    let mut end = Tail::read(&mut file).map_err(failed("read"))?;
    let torn = end.torn;
    if torn > 0 {
        // A process died in the middle of its line: whatever it wanted to decide on it was not decided.
        file.set_len(end.whole).map_err(failed("mended"))?;
    }
    if end.whole >= MAX_FILE_BYTES
        && let Some(last) = &end.last
    {
        match archives::put_aside(&path, last.seq) {
            Ok(()) => {
                file = open(&path).map_err(failed("opened"))?;
                end.whole = 0;
            }
            // Too long is better than not written.
            Err(error) => tracing::warn!(%error, "the permission log cannot be put aside and grows on"),
        }
    }
    if end.last.is_none() {
        // The file before it was put aside, and the process that did it went no further.
        end.last = archives::newest(&path).map_err(failed("read"))?;
    }
    let (mut lines, mut last) = (String::new(), end.last);
    if torn > 0 {
        add(&mut lines, &mut last, key, mesh, Event::Mended, json!({"bytes": torn}));
    }
    let given_up = archives::too_many(&path, MAX_ARCHIVES).map_err(failed("read"))?;
    for (_, end) in &given_up {
        let data = json!({"through": end.seq, "hash": end.hash});
        add(&mut lines, &mut last, key, mesh, Event::Pruned, data);
    }
    add(&mut lines, &mut last, key, mesh, event, data);
    let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
    written.map_err(|error| {
        // A full disk may have taken half a line.
        let _ = file.set_len(end.whole);
        failed("written")(error)
    })?;
    // Only now: what is missing must be written down first.
    for (old, _) in given_up {
        if let Err(error) = std::fs::remove_file(&old) {
            tracing::warn!(path = %old.display(), %error, "an old permission log stays");
        }
    }
    Ok(())
}

/// Opens the file that is written, 0600.
fn open(path: &std::path::Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, files::PRIVATE_FILE);
    options.open(path)
}

fn add(lines: &mut String, last: &mut Option<Last>, key: &SecretKey, mesh: &str, event: Event, data: Value) {
    let (seq, prev) = last.as_ref().map_or((1, String::new()), |last| (last.seq + 1, last.hash.clone()));
    let mut record = json!({
        "seq": seq, "at": crate::clock::now_iso(), "event": event.as_str(), "mesh": mesh, "data": data,
        "prev": prev, "key": key.public(),
    });
    let signature = key.sign(signed::audit(&sha256(canonical(&record).as_bytes())).as_bytes());
    record["sig"] = signature.into();
    let line = record.to_string();
    *last = Some(Last { seq, hash: sha256(line.as_bytes()) });
    lines.push_str(&line);
    lines.push('\n');
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

struct Last {
    seq: u64,
    hash: String,
}

/// How the file ends.
struct Tail {
    last: Option<Last>,
    /// Bytes up to the end of the last whole line.
    whole: u64,
    /// Bytes after it.
    torn: u64,
}

impl Tail {
    fn read(file: &mut File) -> std::io::Result<Self> {
        let length = file.metadata()?.len();
        // The last whole line and what may be cut off after it.
        let from = length.saturating_sub(2 * MAX_LINE_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        Read::by_ref(file).take(2 * MAX_LINE_BYTES).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let torn = (bytes.len() - whole) as u64;
        let lines = bytes[..whole].strip_suffix(b"\n").filter(|lines| !lines.is_empty());
        let last = lines.map(|lines| {
            let line = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            let seq = serde_json::from_slice::<Value>(line).ok().and_then(|record| record["seq"].as_u64());
            // A last line that is no record breaks the chain where it stands; what comes after goes on from it.
            Last { seq: seq.unwrap_or(0), hash: sha256(line) }
        });
        Ok(Self { last, whole: from + whole as u64, torn })
    }
}

/// Something that is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the file.
    pub file: String,
    /// Line in it, from 1 on.
    pub line: u64,
    /// What.
    pub what: String,
}

/// Goes through the log, all its files, oldest first, and answers what is wrong with it. `own` are the member keys that may
/// sign.
///
/// # Errors
/// [`AuditError`] when it cannot be read.
pub fn walk(store: &ConfigStore, own: &[PublicKey], mut each: impl FnMut(&Value)) -> Result<Vec<Fault>, AuditError> {
    let path = path(store);
    let failed = |error| AuditError { path: path.clone(), action: "read", error };
    let mut walk = Walk { own, faults: vec![], chain: None, before: None };
    for (name, file, length) in archives::open_all(&path, LOCK_PATIENCE).map_err(failed)? {
        walk.file(&name, BufReader::new(file.take(length)), &mut each).map_err(failed)?;
    }
    if let Some((file, _)) = walk.before {
        let what = "the records before it are missing, and none says that they were given up".to_owned();
        walk.faults.insert(0, Fault { file, line: 1, what });
    }
    Ok(walk.faults)
}

struct Walk<'a> {
    own: &'a [PublicKey],
    faults: Vec<Fault>,
    /// Hash and number of the last record.
    chain: Option<(String, u64)>,
    /// File that begins in the middle of the chain, with the record that should be before it. A later one may explain it.
    before: Option<(String, (u64, String))>,
}

impl Walk<'_> {
    fn file(&mut self, name: &str, mut reader: impl BufRead, each: &mut impl FnMut(&Value)) -> std::io::Result<()> {
        let mut number = 0;
        loop {
            let mut line = Vec::new();
            if reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            number += 1;
            self.line(name, number, line, each);
        }
    }

    fn line(&mut self, file: &str, number: u64, mut line: Vec<u8>, each: &mut impl FnMut(&Value)) {
        let faults = &mut self.faults;
        let mut fault = |what: &str| faults.push(Fault { file: file.to_owned(), line: number, what: what.to_owned() });
        if line.pop_if(|byte| *byte == b'\n').is_none() {
            fault("it is cut off");
        }
        let Ok(record) = serde_json::from_slice::<Value>(&line) else {
            fault("it is not a record");
            let seq = self.chain.as_ref().map_or(0, |(_, seq)| *seq);
            self.chain = Some((sha256(&line), seq));
            return;
        };
        let (prev, own_seq) = (record["prev"].as_str().unwrap_or_default(), record["seq"].as_u64());
        match &self.chain {
            // The very first line of all: the beginning, or what is left of it.
            None if own_seq > Some(1) => {
                let before = (own_seq.unwrap_or(1) - 1, prev.to_owned());
                self.before = Some((file.to_owned(), before));
            }
            None if own_seq != Some(1) || !prev.is_empty() => fault("it is not the beginning of a log"),
            None => {}
            Some((hash, seq)) => {
                if prev != hash {
                    fault("the line before it was changed or removed");
                }
                if own_seq != Some(seq + 1) {
                    fault("its number does not follow");
                }
            }
        }
        match check(&record, self.own) {
            Err(what) => fault(what),
            Ok(()) if record["event"] == Event::Pruned.as_str() => {
                let (through, hash) = (&record["data"]["through"], &record["data"]["hash"]);
                self.before.take_if(|(_, (seq, before))| through == &json!(seq) && hash == before.as_str());
            }
            Ok(()) => {}
        }
        each(&record);
        let seq = own_seq.unwrap_or_else(|| self.chain.as_ref().map_or(1, |(_, seq)| seq + 1));
        self.chain = Some((sha256(&line), seq));
    }
}

fn check(record: &Value, own: &[PublicKey]) -> Result<(), &'static str> {
    let key = record["key"].as_str().and_then(PublicKey::parse).ok_or("it names no key")?;
    if !own.contains(&key) {
        return Err("it is signed by a key that is none of this config's members");
    }
    let mut bare = record.clone();
    let signature = bare.as_object_mut().and_then(|map| map.remove("sig"));
    let signature = signature.as_ref().and_then(Value::as_str).ok_or("it has no signature")?;
    let text = signed::audit(&sha256(canonical(&bare).as_bytes()));
    keys::verify(&key, text.as_bytes(), signature).map_err(|_| "its signature does not verify")?;
    if record["event"] == Event::Answered.as_str() {
        check_answer(record).ok_or("the approver's signature in it does not verify")?;
    }
    Ok(())
}

/// The approver's own signature, which no one on this machine can make.
fn check_answer(record: &Value) -> Option<()> {
    let data = &record["data"];
    let word = |name: &str| data[name].as_str();
    let mesh = record["mesh"].as_str()?.into();
    let session = PublicKey::parse(word("session")?)?;
    let text = signed::permission(&PermissionWord {
        mesh: &mesh,
        request: word("request")?,
        session: &session,
        digest: word("digest")?,
        behavior: word("behavior")?,
        expires_at_ms: data["expiresAtMs"].as_i64()?,
        signed_at_ms: data["signedAtMs"].as_i64()?,
    });
    keys::verify(&PublicKey::parse(word("member")?)?, text.as_bytes(), word("signature")?).ok()
}

#[cfg(test)]
mod tests;
