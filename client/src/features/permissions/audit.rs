//! `audit.log`: what was asked, answered and decided. JSON lines, 0600, only ever added to.
//!
//! Each record has the SHA-256 of the line before it and a signature of the own member key of its mesh, so a record that
//! was changed, removed or put in between is found. The end of the log can be cut off by whoever may write the file; no
//! log on one machine can prevent that, and approvers keep records of their own answers.
//!
//! Several processes write: one at a time, under a lock, synced before anything is decided on it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use claudemesh_protocol::crypto::keys::{self, SecretKey};
use claudemesh_protocol::crypto::signed::{self, PermissionWord};
use claudemesh_protocol::id::PublicKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::wire::canonical;
use crate::config::ConfigStore;
use crate::files::{self, FileLock};

/// Longest record: a bounded preview and some keys.
const MAX_LINE_BYTES: u64 = 64 * 1024;
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
    /// Nobody has decided in time.
    Expired,
    /// The session does not need the answer any more.
    Withdrawn,
    /// An answer does not count, and why.
    Refused,
    /// This member answered somebody else's question.
    Gave,
    /// A line that was cut off when a process died was removed.
    Mended,
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
            Self::Mended => "mended",
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
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, files::PRIVATE_FILE);
    let mut file = options.open(&path).map_err(failed("opened"))?;
    let end = Tail::read(&mut file).map_err(failed("read"))?;
    let mut lines = String::new();
    let mut last = end.last;
    if end.torn > 0 {
        // A process died in the middle of its line: whatever it wanted to decide on it was not decided.
        file.set_len(end.whole).map_err(failed("mended"))?;
        add(&mut lines, &mut last, key, mesh, Event::Mended, json!({"bytes": end.torn}));
    }
    add(&mut lines, &mut last, key, mesh, event, data);
    let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
    written.map_err(|error| {
        // A full disk may have taken half a line.
        let _ = file.set_len(end.whole);
        failed("written")(error)
    })
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
    /// Line, from 1 on.
    pub line: u64,
    /// What.
    pub what: String,
}

/// Goes through the log, oldest first, and answers what is wrong with it. `own` are the member keys that may sign.
///
/// # Errors
/// [`AuditError`] when it cannot be read.
pub fn walk(path: &Path, own: &[PublicKey], mut each: impl FnMut(&Value)) -> Result<Vec<Fault>, AuditError> {
    let failed = |error| AuditError { path: path.to_path_buf(), action: "read", error };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(failed(error)),
    };
    let mut reader = BufReader::new(file);
    let (mut faults, mut number, mut prev, mut seq) = (vec![], 0, String::new(), 0);
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(faults);
        }
        number += 1;
        let mut fault = |what: &str| faults.push(Fault { line: number, what: what.to_owned() });
        if line.pop_if(|byte| *byte == b'\n').is_none() {
            fault("it is cut off");
        }
        let Ok(record) = serde_json::from_slice::<Value>(&line) else {
            fault("it is no record");
            prev = sha256(&line);
            continue;
        };
        if record["prev"] != prev.as_str() {
            fault("the line before it was changed or removed");
        }
        if record["seq"] != seq + 1 {
            fault("its number does not follow");
        }
        if let Err(what) = check(&record, own) {
            fault(what);
        }
        each(&record);
        (prev, seq) = (sha256(&line), record["seq"].as_u64().unwrap_or(seq + 1));
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

/// The approver's own signature, which nobody on this machine can make.
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
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed([7; 32])
    }

    fn log(count: usize) -> (tempfile::TempDir, ConfigStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path());
        for number in 0..count {
            append(&store, &key(), "m", Event::Asked, json!({"number": number})).unwrap();
        }
        (dir, store)
    }

    fn faults(store: &ConfigStore) -> Vec<Fault> {
        walk(&path(store), &[key().public()], |_| {}).unwrap()
    }

    #[test]
    fn any_change_inside_the_log_is_found() {
        let (_dir, store) = log(4);
        assert_eq!(faults(&store), vec![]);
        assert_eq!(files::mode_of(&path(&store)), Some(0o600));
        let whole = std::fs::read_to_string(path(&store)).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let changed = whole.replacen("\"number\":1", "\"number\":9", 1);
        let removed = [lines[0], lines[2], lines[3], ""].join("\n");
        let swapped = [lines[1], lines[0], lines[2], lines[3], ""].join("\n");
        let doubled = [lines[0], lines[0], lines[1], ""].join("\n");
        let headless = [lines[1], lines[2], ""].join("\n");
        let garbage = [lines[0], "nonsense", lines[1], ""].join("\n");
        for text in [changed, removed, swapped, doubled, headless, garbage] {
            std::fs::write(path(&store), &text).unwrap();
            assert!(!faults(&store).is_empty(), "{text}");
        }
        // Signed by somebody else, in a chain that fits.
        let (_dir, store) = log(1);
        append(&store, &SecretKey::from_seed([8; 32]), "m", Event::Asked, json!({})).unwrap();
        assert_eq!(faults(&store).len(), 1);
    }

    #[test]
    fn a_line_cut_off_by_a_crash_is_removed_and_told() {
        let (_dir, store) = log(2);
        let whole = std::fs::read(path(&store)).unwrap();
        let torn = [&whole[..], b"{\"seq\":3,\"at\""].concat();
        std::fs::write(path(&store), torn).unwrap();
        assert_eq!(faults(&store).first().map(|fault| fault.line), Some(3));
        append(&store, &key(), "m", Event::Expired, json!({})).unwrap();
        let mut events = vec![];
        let faults = walk(&path(&store), &[key().public()], |record| events.push(record["event"].clone())).unwrap();
        assert_eq!((faults, events), (vec![], vec!["asked".into(), "asked".into(), json!("mended"), "expired".into()]));
    }

    #[test]
    fn writers_at_once_make_one_chain() {
        let (_dir, store) = log(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..5 {
                        append(&store, &key(), "m", Event::Refused, json!({"number": number})).unwrap();
                    }
                });
            }
        });
        let mut count = 0;
        assert_eq!(walk(&path(&store), &[key().public()], |_| count += 1).unwrap(), vec![]);
        assert_eq!(count, 20);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_an_error() {
        let (_dir, store) = log(0);
        std::fs::create_dir(path(&store)).unwrap();
        assert!(append(&store, &key(), "m", Event::Asked, json!({})).is_err());
        #[cfg(target_os = "linux")]
        {
            std::fs::remove_dir(path(&store)).unwrap();
            // A disk without room.
            std::os::unix::fs::symlink("/dev/full", path(&store)).unwrap();
            assert!(append(&store, &key(), "m", Event::Asked, json!({})).is_err());
        }
    }
}
