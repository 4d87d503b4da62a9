//! Telling the readers: every write once, in the order of the revisions, although slow work of several sockets ends in any order.
//! Also what has to happen at a time: keys expire.
//!
//! What cannot be told in order, or at all, is told as `state_missed`; its readers then ask with `list_state since`.

use std::collections::{BTreeMap, BTreeSet};

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorClass;
use claudemesh_protocol::features::state::limits::MAX_PAGE;
use claudemesh_protocol::features::state::{StateChange, StateMissed};
use claudemesh_protocol::message::ServerMessage;
use futures_util::future::join_all;

use super::store::{self, Act, Entry, Write};
use super::{State, json_of, number};
use crate::db::{DbError, MeshDb};
use crate::journal::WriteError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Lane, Outcome};
use crate::mesh::peers::{Peer, PeerHandle};
use crate::refusal::Refusal;

/// Bytes of changes that may wait for their turn, or for room in the budget of events.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// What a waiting change costs beside its key and value; also bounds their number.
const ENTRY_OVERHEAD_BYTES: usize = 256;
/// Names that the overview of the mesh shows.
const MAX_NAMES: usize = 500;
/// Keys that one step lets expire.
const EXPIRE_CHUNK: i64 = 200;
/// A write that has not come back when later ones have is looked for in storage after this time.
const GAP_MS: i64 = 5_000;
/// How long something waits that could not be done just now.
const RETRY_MS: i64 = 1_000;
/// When an expiry that failed is tried again.
const EXPIRY_RETRY_MS: i64 = 60_000;

/// The socket that wrote: it is not told of its own writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Writer {
    pub peer: PeerHandle,
    pub socket_no: u64,
}

/// A write on its way to the readers; `None` when a later one of the same key has replaced it in storage.
type Waiting = Option<(Entry, Option<Writer>)>;

/// See the module.
#[derive(Default)]
pub(super) struct Telling {
    /// Everything up to this revision was told.
    told: i64,
    /// Writes that are done, by revision.
    waiting: BTreeMap<i64, Waiting>,
    waiting_bytes: usize,
    /// Since when the write after `told` is missing, in monotonic ms.
    gap_since: Option<i64>,
    /// Whether storage is being asked for missing writes.
    looking: bool,
    /// Those who did not get every event.
    behind: BTreeSet<PeerHandle>,
    /// The first keys in order.
    names: BTreeSet<String>,
    /// There are more keys than `names` holds.
    more_names: bool,
    names_stale: bool,
    next_expiry_ms: Option<i64>,
    expiring: bool,
}

impl Telling {
    pub(super) async fn load(storage: &MeshDb) -> Result<Self, DbError> {
        let (told, names) = (store::head(storage).await?.revision, store::names(storage, MAX_NAMES + 1).await?);
        let mut telling = Self { told, next_expiry_ms: store::next_expiry(storage).await?, ..Self::default() };
        telling.put_names(names);
        Ok(telling)
    }

    pub(super) fn started(&mut self, cx: &mut MeshContext<'_>) {
        self.arm_expiry(cx);
    }

    /// What everyone who is here was told.
    pub(super) fn revision(&self) -> u64 {
        number(self.told)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.iter().cloned().collect()
    }

    /// A write is back from storage, or failed, or nothing was heard of it in time.
    pub(super) fn returned(
        &mut self,
        cx: &mut MeshContext<'_>,
        writer: Option<Writer>,
        written: Result<Entry, Refusal>,
    ) -> Result<Entry, Refusal> {
        match written {
            Ok(entry) => {
                self.put(cx, entry.clone(), writer);
                self.tell(cx);
                Ok(entry)
            }
            Err(refusal) => {
                // It may have been written after all.
                if matches!(refusal.code.class(), ErrorClass::Internal | ErrorClass::Unavailable) {
                    self.look(cx);
                }
                Err(refusal)
            }
        }
    }

    fn put(&mut self, cx: &mut MeshContext<'_>, entry: Entry, writer: Option<Writer>) {
        if let Some(expires) = entry.expires_at_ms {
            self.next_expiry_ms = Some(self.next_expiry_ms.map_or(expires, |next| next.min(expires)));
            self.arm_expiry(cx);
        }
        if entry.revision > self.told && !matches!(self.waiting.get(&entry.revision), Some(Some(_))) {
            self.waiting_bytes += cost_of(&entry);
            self.waiting.insert(entry.revision, Some((entry, writer)));
        }
    }

    /// Tells what is next in order.
    fn tell(&mut self, cx: &mut MeshContext<'_>) {
        while let Some(next) = self.waiting.first_entry().filter(|next| *next.key() <= self.told + 1) {
            if let Some((entry, writer)) = next.get()
                && let Some(event) = event(entry)
            {
                match cx.tell(&event, Capability::CanReadShared, |peer| !wrote(peer, *writer)) {
                    Some(missed) => self.behind.extend(missed),
                    None if self.waiting_bytes <= MAX_WAITING_BYTES => {
                        return cx.wake_at("tell", cx.room_for_event_ms());
                    }
                    None => self.behind.extend(readers(cx, *writer)),
                }
            }
            let (revision, waiting) = next.remove_entry();
            self.told = self.told.max(revision);
            self.gap_since = None;
            if let Some((entry, _)) = waiting {
                self.waiting_bytes -= cost_of(&entry);
                self.note_name(cx, entry);
            }
        }
        if !self.behind.is_empty() {
            cx.wake_at("behind", cx.mono_ms() + RETRY_MS);
        }
        if !self.waiting.is_empty() && self.gap_since.is_none() {
            self.gap_since = Some(cx.mono_ms());
            cx.wake_at("gap", cx.mono_ms() + GAP_MS);
        }
    }

    pub(super) fn on_wake(&mut self, cx: &mut MeshContext<'_>, key: &str) {
        match key {
            "tell" => self.tell(cx),
            "behind" => self.tell_behind(cx),
            "gap" => match self.gap_since.map(|since| since + GAP_MS) {
                Some(due) if due <= cx.mono_ms() => self.look(cx),
                Some(due) => cx.wake_at("gap", due),
                None => {}
            },
            "names" => self.reload_names(cx),
            "expiry" => self.expire(cx),
            _ => {}
        }
    }

    /// Tells those who missed something up to where.
    fn tell_behind(&mut self, cx: &mut MeshContext<'_>) {
        let event: ServerMessage = StateMissed { revision: self.revision() }.into();
        // Who is away asks when it returns; clients of before know no such word.
        let gone = |at: PeerHandle| cx.roster().get(at).is_none_or(|peer| !peer.online() || peer.older);
        self.behind.retain(|at| !gone(*at) && !cx.push(*at, &event));
        if !self.behind.is_empty() {
            cx.wake_at("behind", cx.mono_ms() + RETRY_MS);
        }
    }

    /// Asks storage for the writes that are missing.
    fn look(&mut self, cx: &mut MeshContext<'_>) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let (storage, after, now) = (cx.storage(), self.told, cx.believed_ms());
        let slow = async move {
            let head = store::head(&storage).await?.revision;
            Ok::<_, DbError>((head, store::changes(&storage, "", after, MAX_PAGE, now).await?))
        };
        let work = State::work_or_failure(Lane::of::<State>("look"), slow, |memory, cx, found| {
            let telling = &mut memory.telling;
            telling.looking = false;
            telling.gap_since = None;
            match found {
                Ok((head, page)) => {
                    let up_to = page.next.unwrap_or(head);
                    for entry in page.entries {
                        telling.put(cx, entry, None);
                    }
                    for revision in telling.told + 1..=up_to {
                        telling.waiting.entry(revision).or_insert(None);
                    }
                    telling.tell(cx);
                    if up_to < head {
                        telling.look(cx);
                    }
                }
                Err(error) => {
                    tracing::warn!(mesh.id = %cx.mesh_id(), error = %error, "missing changes of state could not be read");
                    telling.gap_since = Some(cx.mono_ms());
                    cx.wake_at("gap", cx.mono_ms() + GAP_MS);
                }
            }
            Ok(Outcome::Silent)
        });
        spawn(cx, work);
    }

    fn note_name(&mut self, cx: &mut MeshContext<'_>, entry: Entry) {
        if entry.deleted {
            if self.names.remove(&entry.name) && self.more_names && !std::mem::replace(&mut self.names_stale, true) {
                cx.wake_at("names", cx.mono_ms() + RETRY_MS);
            }
        } else if !self.more_names || self.names.last().is_some_and(|last| entry.name < *last) {
            self.names.insert(entry.name);
            if self.names.len() > MAX_NAMES {
                self.names.pop_last();
                self.more_names = true;
            }
        }
    }

    fn put_names(&mut self, names: Vec<String>) {
        self.more_names = names.len() > MAX_NAMES;
        self.names = names.into_iter().take(MAX_NAMES).collect();
    }

    /// One of many names is gone: storage knows which comes in its place.
    fn reload_names(&mut self, cx: &mut MeshContext<'_>) {
        let (storage, told) = (cx.storage(), self.told);
        self.names_stale = false;
        let slow = async move { store::names(&storage, MAX_NAMES + 1).await };
        let work = State::work_or_failure(Lane::of::<State>("names"), slow, move |memory, cx, names| {
            let telling = &mut memory.telling;
            let failed = names.is_err();
            if let Ok(names) = names {
                telling.put_names(names);
            }
            // What was told meanwhile may not be among them.
            if (failed || telling.told != told) && !std::mem::replace(&mut telling.names_stale, true) {
                cx.wake_at("names", cx.mono_ms() + RETRY_MS);
            }
            Ok(Outcome::Silent)
        });
        spawn(cx, work);
    }

    fn arm_expiry(&self, cx: &mut MeshContext<'_>) {
        if let Some(next) = self.next_expiry_ms
            && !self.expiring
        {
            cx.wake_at("expiry", cx.mono_ms().saturating_add((next - cx.believed_ms()).max(0)));
        }
    }

    /// Storage failed.
    fn expire_later(&mut self, cx: &mut MeshContext<'_>) {
        self.next_expiry_ms = Some(cx.believed_ms());
        cx.wake_at("expiry", cx.mono_ms() + EXPIRY_RETRY_MS);
    }

    /// Deletes the keys whose time is over.
    fn expire(&mut self, cx: &mut MeshContext<'_>) {
        let now = cx.believed_ms();
        if self.expiring || self.next_expiry_ms.is_none_or(|next| next > now) {
            return self.arm_expiry(cx);
        }
        (self.expiring, self.next_expiry_ms) = (true, None);
        let (storage, now_ms, quotas) = (cx.storage(), cx.now_ms(), cx.limits().quotas.clone());
        let slow = async move {
            let expired = store::expired(&storage, now, EXPIRE_CHUNK).await?;
            // All at once, so that they share a transaction.
            let write = |key: String| Write {
                key,
                act: Act::Expire,
                expected_version: None,
                by: None,
                now_ms,
                believed_ms: now,
                quotas: quotas.clone(),
            };
            let done = join_all(expired.into_iter().map(|key| store::write(&storage, write(key)))).await;
            Ok::<_, DbError>((done, store::next_expiry(&storage).await?))
        };
        let work = State::work_or_failure(Lane::of::<State>("expiry"), slow, move |memory, cx, found| {
            let telling = &mut memory.telling;
            telling.expiring = false;
            let (done, next) = match found {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(mesh.id = %cx.mesh_id(), error = %error, "keys of state could not expire");
                    telling.expire_later(cx);
                    return Ok(Outcome::Silent);
                }
            };
            for written in done {
                match written {
                    Ok(entry) => telling.put(cx, entry, None),
                    Err(WriteError::Refused(_)) => {}
                    Err(WriteError::Db(error)) => {
                        tracing::warn!(mesh.id = %cx.mesh_id(), error = %error, "a key of state could not expire");
                        telling.look(cx);
                        telling.expire_later(cx);
                        return Ok(Outcome::Silent);
                    }
                }
            }
            telling.tell(cx);
            telling.next_expiry_ms = telling.next_expiry_ms.into_iter().chain(next).min();
            telling.arm_expiry(cx);
            Ok(Outcome::Silent)
        });
        spawn(cx, work);
    }
}

fn event(entry: &Entry) -> Option<ServerMessage> {
    let value = json_of(entry).ok()?;
    let change = StateChange {
        key: entry.name.clone(),
        value,
        updated_by: entry.updated_by_name.clone(),
        version: number(entry.version),
        revision: number(entry.revision),
        deleted: entry.deleted,
    };
    Some(change.into())
}

/// What a change costs while it waits.
fn cost_of(entry: &Entry) -> usize {
    entry.name.len() + entry.value.len() + ENTRY_OVERHEAD_BYTES
}

/// Whether a write came from this socket of a peer, which then is not told of it.
fn wrote(peer: &Peer, writer: Option<Writer>) -> bool {
    writer == Some(Writer { peer: peer.handle, socket_no: peer.socket_no })
}

fn readers(cx: &MeshContext<'_>, writer: Option<Writer>) -> Vec<PeerHandle> {
    let may = |peer: &&Peer| {
        let member = cx.roster().member(&peer.member);
        member.is_some_and(|member| cx.rights().allows(&member.id, member.role, Capability::CanReadShared))
    };
    let online = cx.roster().iter().filter(|peer| peer.online() && !wrote(peer, writer));
    online.filter(may).map(|peer| peer.handle).collect()
}

fn spawn(cx: &mut MeshContext<'_>, work: Outcome<claudemesh_protocol::call::Nothing>) {
    if let Outcome::Work(work) = work {
        cx.spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use claudemesh_protocol::features::state::SetState;
    use claudemesh_protocol::message::ClientMessage;
    use serde_json::{Value, json};

    use super::*;
    use crate::mesh::testing::{Frames, TestMesh};
    use crate::quota::Quotas;

    async fn set(mesh: &mut TestMesh, at: PeerHandle, key: &str, value: Value) {
        let request = SetState { key: key.into(), value, expected_version: None, ttl_s: None };
        let request = ClientMessage::from(request);
        match mesh.step(Some(at), |features, cx| features.dispatch(cx, request)) {
            Ok(Outcome::Work(work)) => mesh.core.work.push(work),
            _ => panic!("a write is work"),
        }
        mesh.settle().await;
    }

    fn revisions(frames: &Frames) -> Vec<Value> {
        TestMesh::take(frames, "state_change").into_iter().map(|frame| frame["revision"].clone()).collect()
    }

    async fn team() -> (TestMesh, PeerHandle, PeerHandle, Frames) {
        let mut mesh = TestMesh::new().await;
        let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
        let (writer, _) = mesh.peer(&alice, "alice", Some(11));
        let (reader, frames) = mesh.peer(&bob, "bob", Some(12));
        (mesh, writer, reader, frames)
    }

    #[actix_rt::test]
    async fn what_a_member_writes_without_a_connection_is_told_to_everyone_who_is_here() {
        let mut mesh = TestMesh::new().await;
        let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
        let (_, own) = mesh.peer(&alice, "alice", Some(11));
        let (_, other) = mesh.peer(&bob, "bob", Some(12));
        let set = SetState { key: "build".into(), value: json!("red"), expected_version: None, ttl_s: None };
        let answer = mesh.ask_for(&alice, set).await.unwrap();
        assert_eq!(answer.tag(), "done", "a silent request of someone who waits is confirmed");
        for frames in [own, other] {
            let told = TestMesh::take(&frames, "state_change");
            assert_eq!((told.len(), &told[0]["value"], &told[0]["updatedBy"]), (1, &json!("red"), &json!("alice")));
        }
    }

    #[actix_rt::test]
    async fn a_write_whose_end_was_not_heard_of_is_told_in_its_place() {
        let (mut mesh, writer, _, frames) = Box::pin(team()).await;
        let lost = Write {
            key: "lost".into(),
            act: Act::Set { value: "1".into(), expires_at_ms: None },
            expected_version: None,
            by: None,
            now_ms: 0,
            believed_ms: 0,
            quotas: Quotas::default(),
        };
        store::write(&mesh.core.storage(), lost).await.unwrap();
        set(&mut mesh, writer, "a", json!(1)).await;
        set(&mut mesh, writer, "b", json!(2)).await;
        assert!(revisions(&frames).is_empty(), "the first one is missing");
        mesh.advance(Duration::from_millis(4_999));
        mesh.settle().await;
        assert!(revisions(&frames).is_empty());
        mesh.advance(Duration::from_millis(1));
        mesh.settle().await;
        assert_eq!(revisions(&frames), [1, 2, 3]);
    }

    #[actix_rt::test]
    async fn what_a_second_has_no_room_for_is_told_in_the_next() {
        let (mut mesh, writer, _, frames) = Box::pin(team()).await;
        mesh.core.fan_out.spend_all();
        set(&mut mesh, writer, "a", json!(1)).await;
        set(&mut mesh, writer, "a", json!(2)).await;
        assert!(revisions(&frames).is_empty());
        mesh.core.fan_out.earn_all();
        mesh.advance(Duration::from_secs(1));
        mesh.settle().await;
        assert_eq!(revisions(&frames), [1, 2]);
        assert!(TestMesh::take(&frames, "state_missed").is_empty());
    }

    #[actix_rt::test]
    async fn what_cannot_wait_is_told_as_missed() {
        let (mut mesh, writer, _, frames) = Box::pin(team()).await;
        mesh.core.fan_out.spend_all();
        for number in 0..20 {
            set(&mut mesh, writer, "a", json!("x".repeat(250_000))).await;
            assert!(revisions(&frames).is_empty(), "{number}");
        }
        let waiting = mesh.features.state.telling.waiting_bytes;
        assert!(waiting <= MAX_WAITING_BYTES + 260_000, "{waiting}");
        mesh.core.fan_out.earn_all();
        mesh.advance(Duration::from_secs(1));
        mesh.settle().await;
        // The oldest had no room here, and the newest none in the queue of the reader.
        let told = revisions(&frames);
        assert!(told.first().and_then(Value::as_u64) > Some(1) && told.len() < 20, "{told:?}");
        mesh.advance(Duration::from_secs(1));
        mesh.settle().await;
        let missed = TestMesh::take(&frames, "state_missed");
        assert_eq!(missed.iter().map(|frame| frame["revision"].clone()).collect::<Vec<_>>(), [20]);
        set(&mut mesh, writer, "a", json!(1)).await;
        assert_eq!(revisions(&frames), [21]);
    }

    #[actix_rt::test]
    async fn the_overview_names_the_first_keys_and_fills_up_again() {
        let (mut mesh, writer, _, _) = Box::pin(team()).await;
        for number in 0..MAX_NAMES + 5 {
            set(&mut mesh, writer, &format!("k{number:04}"), json!(1)).await;
        }
        let names = mesh.features.state.telling.names();
        assert_eq!((names.len(), names.last().map(String::as_str)), (MAX_NAMES, Some("k0499")));
        let delete = claudemesh_protocol::features::state::DeleteState { key: "k0000".into(), expected_version: None };
        if let Ok(Outcome::Work(work)) =
            mesh.step(Some(writer), |features, cx| features.dispatch(cx, ClientMessage::from(delete)))
        {
            mesh.core.work.push(work);
        }
        mesh.settle().await;
        mesh.advance(Duration::from_secs(1));
        mesh.settle().await;
        let names = mesh.features.state.telling.names();
        assert_eq!(
            (names.first().map(String::as_str), names.last().map(String::as_str)),
            (Some("k0001"), Some("k0500"))
        );
    }
}
