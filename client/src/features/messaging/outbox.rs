//! The outbox: what `send` and `send_message` could not hand to a broker, kept on this machine until it can.
//!
//! One file per command, `outbox/<mesh>/<time>-<id>.json` below the config folder: 0600 in a 0700 folder, as the inbox. Everything that makes
//! a message the same message is fixed when it is queued or before its first attempt: the batch its idempotency keys follow from, and the
//! key that it is sealed for. So an attempt whose answer was lost, by whatever was killed, is repeated as the same message, and the broker
//! and the recipient's inbox know it. One process delivers at a time, in the order of queueing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::features::messaging::{Priority, Trace};
use claudemesh_protocol::id::{MeshId, PublicKey};
use serde::{Deserialize, Serialize};

use super::{Draft, handed_over};
use crate::config::MeshEntry;
use crate::connection::{Connection, ConnectionError, State};
use crate::context::Context;
use crate::context::connect::{self, Purpose};
use crate::error::{CliError, ExitCode};
use crate::files::{self, FileLock};
use crate::inbox::questions::REPLY;
use crate::output::{clean, counted};
use crate::session::notes::{ChannelNote, MeshTag, harmless_value};
use crate::session::{JoinedMesh, Session};

/// Files of one mesh: a script that sends in a loop must not fill the disk while the broker is away.
pub const MAX_PARCELS: usize = 500;
/// Bytes of one mesh.
pub const MAX_BYTES: u64 = 32 << 20;
/// A broker keeps messages as long for who is away; later they would surprise everyone.
pub const KEEP_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// Largest file: a message of the largest size in JSON, where every character may take six.
const MAX_PARCEL_BYTES: u64 = 8 << 20;
/// How long a process waits for another that delivers: what it sends next comes after what was queued before.
const TURN_PATIENCE: Duration = Duration::from_secs(2);

/// What one command wanted to send.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parcel {
    /// Names it in lists.
    pub id: String,
    /// Unix ms.
    pub queued_at_ms: i64,
    /// The text.
    pub text: String,
    /// Urgency.
    pub priority: Priority,
    /// Id of the message it answers.
    pub reply_to: Option<String>,
    /// Whether it answers a question.
    pub is_reply: bool,
    /// Exchange it belongs to.
    pub trace: Trace,
    /// What the idempotency keys of its messages follow from.
    pub batch: String,
    /// A target that means this member is meant so.
    pub to_self: bool,
    /// The messages.
    pub steps: Vec<Step>,
}

/// One message: to one recipient, or to audiences together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Targets as they were written.
    pub targets: Vec<String>,
    /// Who it is sealed for; known from the first attempt on.
    pub sealed_for: Option<PublicKey>,
    /// Id at the broker, once it has it.
    pub message_id: Option<String>,
    /// Why it will never arrive.
    pub failed: Option<String>,
}

/// What a delivery did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Messages that the broker has now.
    pub sent: usize,
    /// Messages that it will never take.
    pub failed: usize,
    /// Messages that still wait.
    pub waiting: usize,
}

impl Parcel {
    /// A command that could not be carried out.
    pub fn new(draft: &Draft, batch: &str, steps: Vec<Step>, to_self: bool) -> Self {
        Self {
            id: uuid::Uuid::new_v4().simple().to_string(),
            queued_at_ms: crate::clock::now_ms(),
            text: draft.text.clone(),
            priority: draft.priority,
            reply_to: draft.reply_to.clone(),
            is_reply: draft.subtype == Some(REPLY),
            trace: draft.trace.clone(),
            batch: batch.to_owned(),
            to_self,
            steps,
        }
    }

    fn draft(&self) -> Draft {
        Draft {
            reply_to: self.reply_to.clone(),
            subtype: self.is_reply.then_some(REPLY),
            trace: self.trace.clone(),
            batch: Some(self.batch.clone()),
            ..Draft::new(self.text.clone(), self.priority)
        }
    }

    /// Everyone it is for, as they were written.
    pub fn targets(&self) -> Vec<&str> {
        self.steps.iter().flat_map(|step| &step.targets).map(String::as_str).collect()
    }

    /// Why something in it will never arrive.
    pub fn failure(&self) -> Option<&str> {
        self.steps.iter().find_map(|step| step.failed.as_deref())
    }

    fn is_open(&self) -> bool {
        self.steps.iter().any(Step::is_open)
    }
}

impl Step {
    /// One that was not tried yet.
    pub fn new(targets: Vec<String>) -> Self {
        Self { targets, sealed_for: None, message_id: None, failed: None }
    }

    fn is_open(&self) -> bool {
        self.message_id.is_none() && self.failed.is_none()
    }

    fn is_audience(&self) -> bool {
        self.targets.iter().all(|target| target == "*" || target.starts_with(['@', '#']))
    }
}

/// The messages of recipients: one for each, and one for all audiences.
pub fn steps(recipients: &[String]) -> Vec<Step> {
    let is_audience = |target: &&String| *target == "*" || target.starts_with(['@', '#']);
    let (audiences, direct): (Vec<&String>, Vec<&String>) = recipients.iter().partition(is_audience);
    let mut steps: Vec<Step> = direct.into_iter().map(|target| Step::new(vec![target.clone()])).collect();
    if !audiences.is_empty() {
        steps.push(Step::new(audiences.into_iter().cloned().collect()));
    }
    steps
}

/// The outbox of one mesh.
#[derive(Clone, Debug)]
pub struct Outbox {
    dir: PathBuf,
}

impl Outbox {
    /// Of a mesh below the config folder. Touches nothing.
    pub fn of(config_dir: &Path, mesh: &MeshId) -> Self {
        Self { dir: config_dir.join("outbox").join(crate::config::file_name_of(mesh.as_str())) }
    }

    /// The files, oldest first. Most people have none, and then this is one look at a folder that is not there.
    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return vec![] };
        let mut files: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        files.sort();
        files
    }

    /// Whether something waits here, without looking at what.
    pub fn is_empty(&self) -> bool {
        self.files().is_empty()
    }

    /// What waits and what will never arrive, oldest first. A file that cannot be read is left out and stays.
    pub fn parcels(&self) -> Vec<Parcel> {
        self.files().iter().filter_map(|path| read(path)).collect()
    }

    /// Keeps a command.
    ///
    /// # Errors
    /// Exit 7 `outbox_full`, 10 when it cannot be written.
    pub fn keep(&self, parcel: &Parcel) -> Result<(), CliError> {
        let files = self.files();
        let size: u64 = files.iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum();
        if files.len() >= MAX_PARCELS || size.saturating_add(parcel.text.len() as u64) > MAX_BYTES {
            let message = format!("The outbox of this mesh is full: {} commands, {} bytes.", files.len(), size);
            return Err(CliError::new(ExitCode::PermissionDenied, "outbox_full", message)
                .hint("`claudemesh outbox list` shows it, `claudemesh outbox drop --all` empties it."));
        }
        self.write(parcel).map_err(|error| CliError::io(format!("The outbox cannot be written: {error}.")))
    }

    /// Removes commands by id or its beginning, or all; answers the removed ids.
    ///
    /// # Errors
    /// Exit 10 when a file cannot be removed.
    pub fn discard(&self, fits: impl Fn(&Parcel) -> bool) -> Result<Vec<String>, CliError> {
        let mut dropped = vec![];
        for path in self.files() {
            let Some(parcel) = read(&path).filter(&fits) else { continue };
            fs::remove_file(&path)
                .map_err(|error| CliError::io(format!("{} cannot be removed: {error}.", path.display())))?;
            dropped.push(parcel.id);
        }
        Ok(dropped)
    }

    /// The messages that a command has become whose id begins so; `None` when the broker does not have them all, or none is known.
    pub fn handed_over(&self, id: &str) -> Option<Vec<String>> {
        handed_over::find(&self.dir, id)
    }

    fn path(&self, parcel: &Parcel) -> PathBuf {
        self.dir.join(format!("{:015}-{}.json", parcel.queued_at_ms.max(0), parcel.id))
    }

    fn write(&self, parcel: &Parcel) -> std::io::Result<()> {
        files::create_private_dir(&self.dir)?;
        files::write_private(&self.path(parcel), &serde_json::to_vec(parcel)?)
    }

    /// Hands everything to the broker, in order. Stops where the broker cannot be reached, or wants to be asked later.
    ///
    /// # Errors
    /// Exit 10 when a file cannot be written: then nothing more is sent, because an attempt could not be noted.
    pub async fn deliver(&self, connection: &Connection) -> Result<Delivered, CliError> {
        let mut done = Delivered::default();
        if self.is_empty() {
            return Ok(done);
        }
        let path = self.dir.join("lock");
        let lock = tokio::task::spawn_blocking(move || FileLock::take(&path, TURN_PATIENCE)).await;
        let Ok(Ok(_lock)) = lock else {
            // Another process delivers at this moment.
            done.waiting = self.parcels().iter().flat_map(|parcel| &parcel.steps).filter(|step| step.is_open()).count();
            return Ok(done);
        };
        let mut stopped = false;
        for path in self.files() {
            let Some(mut parcel) = read(&path) else { continue };
            if !stopped {
                stopped = !self.deliver_one(connection, &mut parcel, &mut done).await?;
            }
            done.waiting += parcel.steps.iter().filter(|step| step.is_open()).count();
            if !parcel.is_open() && parcel.failure().is_none() {
                let noted = handed_over::note(&self.dir, &parcel);
                noted.map_err(|error| CliError::io(format!("The outbox cannot be written: {error}.")))?;
                // Gone only now: what was handed over is with the broker. A crash before this repeats the same messages.
                let removed = fs::remove_file(&path);
                removed.map_err(|error| CliError::io(format!("{} cannot be removed: {error}.", path.display())))?;
            }
        }
        Ok(done)
    }

    /// `false` when it is no use to go on now.
    async fn deliver_one(
        &self,
        connection: &Connection,
        parcel: &mut Parcel,
        done: &mut Delivered,
    ) -> Result<bool, CliError> {
        let unwritten = |error| CliError::io(format!("The outbox cannot be written: {error}."));
        let expired = crate::clock::now_ms().saturating_sub(parcel.queued_at_ms) > KEEP_MS;
        let draft = parcel.draft();
        for at in 0..parcel.steps.len() {
            if !parcel.steps[at].is_open() {
                continue;
            }
            if expired {
                parcel.steps[at].failed = Some("it waited here for more than seven days".into());
                done.failed += 1;
                self.write(parcel).map_err(unwritten)?;
                continue;
            }
            let step = parcel.steps[at].clone();
            let sent = if step.is_audience() {
                // Who got it directly is left out, as with a command that was not queued.
                let reached: Vec<PublicKey> = parcel
                    .steps
                    .iter()
                    .filter(|one| one.message_id.is_some())
                    .filter_map(|one| one.sealed_for)
                    .collect();
                connection.send_audience(&step.targets, &reached, &draft).await
            } else {
                let target = step.targets.first().map(String::as_str).unwrap_or_default();
                let to = match step.sealed_for {
                    Some(key) => Ok((key, None)),
                    None => connection.recipient(target, parcel.to_self).await,
                };
                match to {
                    Err(error) => Err(error),
                    Ok((key, to)) => {
                        if parcel.steps[at].sealed_for.is_none() {
                            // Before the attempt: another key would be another message.
                            parcel.steps[at].sealed_for = Some(key);
                            self.write(parcel).map_err(unwritten)?;
                        }
                        connection.send_direct(&key, &Draft { to, ..draft.clone() }).await
                    }
                }
            };
            match sent {
                Ok(ack) => {
                    parcel.steps[at].message_id = Some(ack.message_id);
                    done.sent += 1;
                }
                Err(error) if waits(&error) => return Ok(false),
                Err(error) => {
                    parcel.steps[at].failed = Some(error.to_string());
                    done.failed += 1;
                }
            }
            self.write(parcel).map_err(unwritten)?;
        }
        Ok(true)
    }
}

/// Between two looks of a session for what its shells have queued since.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Delivers what is queued for one mesh as long as a session runs: after each new connection, and when something was queued since.
pub async fn run(session: Arc<Session>, bound: JoinedMesh) {
    let outbox = Outbox::of(session.config_dir(), &bound.connection.identity().mesh_id);
    let stop = session.stopped();
    let mut state = bound.connection.watch();
    loop {
        let ready = matches!(&*state.borrow_and_update(), State::Ready(_));
        if ready && !outbox.is_empty() {
            match outbox.deliver(&bound.connection).await {
                Ok(done) => {
                    tracing::info!(mesh.slug = bound.tag.slug, ?done, "the outbox was delivered");
                    if done.failed > 0 {
                        session.tell(&bound, undeliverable(&outbox, done.failed, &bound.tag));
                    }
                }
                Err(error) => tracing::warn!(mesh.slug = bound.tag.slug, %error, "the outbox cannot be used"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = state.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// The note of queued messages that will never arrive: their sender was told that they would.
fn undeliverable(outbox: &Outbox, failed: usize, mesh: &MeshTag) -> ChannelNote {
    let parcels = outbox.parcels();
    let newest = parcels.iter().rev().find_map(|parcel| Some((parcel.targets().join(","), parcel.failure()?)));
    let (to, why) = newest.unwrap_or_default();
    let count = counted(failed, "queued message");
    let (to, why) = (harmless_value(&to), harmless_value(why));
    let text = format!("[outbox] {count} cannot be delivered; the last one was for {to}: {why}");
    ChannelNote::of_mesh(&text, [("kind", "outbox".to_owned())], mesh)
}

/// Between two attempts of verbs that have other things to do.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// How long such an attempt may take: no one asked for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// After a verb: hands over what is queued for the brokers that it has reached; when it `worked`, now and then for the others, too.
/// Says so on stderr, and nothing when it does not succeed.
pub fn after(cx: &Context, worked: bool) {
    // No folder, nothing queued: the usual case.
    let dir = cx.store.dir().join("outbox");
    if !dir.is_dir() {
        return;
    }
    let Ok(config) = cx.store.load() else { return };
    let mark = dir.join("tried");
    let age = fs::metadata(&mark).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
    let tries_others = worked && age.is_none_or(|age| age >= TRY_AGAIN);
    let may_answer = |entry: &MeshEntry| tries_others || connect::was_reached(&entry.mesh_id);
    let full = |entry: &MeshEntry| Outbox::of(cx.store.dir(), &entry.mesh_id).parcels().iter().any(Parcel::is_open);
    let waiting: Vec<MeshEntry> = config.meshes.into_iter().filter(|entry| may_answer(entry) && full(entry)).collect();
    if tries_others && !waiting.is_empty() {
        let _ = fs::write(&mark, b"1");
    }
    for entry in waiting {
        let outbox = Outbox::of(cx.store.dir(), &entry.mesh_id);
        let delivered = connect::block_on(async {
            let work = async {
                let connection = connect::connect(cx, &entry, Purpose::Ask).await?;
                let delivered = outbox.deliver(&connection).await;
                connection.close().await;
                delivered
            };
            tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Ok(Delivered::default()))
        });
        match delivered {
            Ok(done) if done.sent > 0 || done.failed > 0 => {
                let failed = if done.failed > 0 {
                    format!(", {} cannot be delivered (claudemesh outbox list)", done.failed)
                } else {
                    String::new()
                };
                cx.out.remark(&format!(
                    "{}: {} of the outbox sent{failed}",
                    clean(&entry.slug),
                    counted(done.sent, "message")
                ));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the outbox was not delivered"),
        }
    }
}

/// Whether a later attempt may succeed.
pub fn waits(error: &ConnectionError) -> bool {
    error.is_open() || error.is_retryable() || matches!(error, ConnectionError::Closed(_))
}

fn read(path: &Path) -> Option<Parcel> {
    let bytes = files::read_limited(path, MAX_PARCEL_BYTES).ok().flatten()?;
    match serde_json::from_slice(&bytes) {
        Ok(parcel) => Some(parcel),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a file of the outbox cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(text: &str) -> Parcel {
        let recipients = ["Bob".to_owned(), "@qa".to_owned(), "Ann".to_owned(), "*".to_owned()];
        Parcel::new(&Draft::new(text, Priority::Next), "batch", steps(&recipients), false)
    }

    #[test]
    fn audiences_are_one_message_and_each_recipient_has_one() {
        let steps = parcel("x").steps;
        let targets: Vec<Vec<&str>> =
            steps.iter().map(|step| step.targets.iter().map(String::as_str).collect()).collect();
        assert_eq!(targets, [vec!["Bob"], vec!["Ann"], vec!["@qa", "*"]]);
        assert!(steps[2].is_audience() && !steps[0].is_audience());
    }

    #[test]
    fn what_is_kept_is_private_in_order_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::of(dir.path(), &"m".into());
        assert!(outbox.is_empty() && !dir.path().join("outbox").exists(), "looking makes nothing");
        let (mut second, mut first) = (parcel("second"), parcel("first"));
        (first.queued_at_ms, second.queued_at_ms) = (9, 10);
        outbox.keep(&second).unwrap();
        outbox.keep(&first).unwrap();
        let texts: Vec<String> = outbox.parcels().into_iter().map(|parcel| parcel.text).collect();
        assert_eq!(texts, ["first", "second"]);
        assert!(outbox.files().iter().all(|path| files::mode_of(path) == Some(0o600)));
        assert_eq!(files::mode_of(&outbox.dir), Some(0o700));
        fs::write(outbox.dir.join("0-broken.json"), "{").unwrap();
        assert_eq!(outbox.parcels().len(), 2, "a broken file hides no other");
        let huge = parcel(&"x".repeat(MAX_BYTES as usize));
        assert_eq!(outbox.keep(&huge).unwrap_err().code, "outbox_full");
        assert_eq!(outbox.discard(|one| one.id == first.id).unwrap(), [first.id.clone()]);
        assert_eq!(outbox.parcels().len(), 1);
    }
}
