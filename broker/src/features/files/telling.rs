//! Telling those a file is for, telling owners who waits for a key, and ending what has expired.

use std::collections::{HashSet, VecDeque};

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::files::{DELETED, FileChange, FileEntry, FileKeyWanted};
use claudemesh_protocol::id::{FileId, MemberId};
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::target::group_covers;

use super::store::{self, Gone, Removal, Row, Why, member_reader, revoked_reader};
use super::{Files, discard};
use crate::blobs::Blobs;
use crate::db::DbError;
use crate::journal::MeshStore;
use crate::mesh::context::MeshContext;
use crate::mesh::outcome::{Lane, Outcome, Work, boxed};
use crate::mesh::peers::{Peer, PeerHandle};
use crate::metrics::METRICS;

/// Changes that wait for room in the budget of events.
const MAX_LATE: usize = 1_000;
/// Members that wait for keys and are remembered.
const MAX_WANTED: usize = 1_000;
/// An owner is asked again for the same key after this time, in milliseconds.
const ASK_AGAIN_MS: i64 = 60_000;
/// Files that one step removes.
const EXPIRED_AT_ONCE: i64 = 64;
/// Time until it is tried again when storage failed, in milliseconds.
const TRY_AGAIN_MS: i64 = 60_000;
/// Storage is looked at at least so often, in milliseconds: an upload that goes on ends later than the mesh knows, and a file whose
/// bytes were lost ends earlier.
const LOOK_MS: i64 = 600_000;
/// Names of the two timers.
const LATE: &str = "late";
const EXPIRE: &str = "expire";

/// What is told, and who is told.
pub(super) struct News {
    event: ServerMessage,
    /// As they are stored; `*` means no one, because it only fills a list.
    readers: Vec<String>,
    members: Vec<MemberId>,
    not_to: Vec<PeerHandle>,
}

/// The session that asks, and the one that it acts for.
fn own_sessions(cx: &MeshContext<'_>) -> Vec<PeerHandle> {
    cx.asker().map_or_else(|_| vec![], |peer| std::iter::once(peer.handle).chain(peer.acts_for).collect())
}

fn change(what: &str, row: &Row, by: &str, file: Option<FileEntry>) -> ServerMessage {
    FileChange { what: what.into(), file_id: row.id.as_str().into(), by: by.into(), file }.into()
}

impl News {
    /// For the members that a file was shared with.
    pub(super) fn of_file(cx: &MeshContext<'_>, what: &str, row: &Row, by: &str, file: Option<FileEntry>) -> Self {
        let shown: Vec<String> = serde_json::from_str(&row.targets).unwrap_or_default();
        let readers = shown.into_iter().filter_map(|target| {
            let key = claudemesh_protocol::id::PublicKey::parse(&target);
            match key {
                Some(key) => cx.roster().member_by_key(&key).map(|member| member_reader(&member.id)),
                None => Some(target),
            }
        });
        let (readers, not_to) = (readers.collect(), own_sessions(cx));
        Self { event: change(what, row, by, file), readers, members: vec![], not_to }
    }

    /// For those who could read a file, and its owner.
    pub(super) fn of_readers(cx: &MeshContext<'_>, what: &str, row: &Row, readers: Vec<String>, by: &str) -> Self {
        let (members, not_to) = (vec![row.owner_id.as_str().into()], own_sessions(cx));
        Self { event: change(what, row, by, None), readers, members, not_to }
    }

    /// For one member.
    pub(super) fn of_member(
        cx: &MeshContext<'_>,
        what: &str,
        row: &Row,
        member: MemberId,
        by: &str,
        file: Option<FileEntry>,
    ) -> Self {
        let not_to = own_sessions(cx);
        Self { event: change(what, row, by, file), readers: vec![], members: vec![member], not_to }
    }

    fn is_for(&self, cx: &MeshContext<'_>, peer: &Peer) -> bool {
        if peer.older || peer.ephemeral || self.not_to.contains(&peer.handle) {
            return false;
        }
        if self.members.contains(&peer.member) {
            return true;
        }
        if self.readers.contains(&revoked_reader(&peer.member)) {
            return false;
        }
        let own = member_reader(&peer.member);
        let groups = || cx.roster().all_groups(peer);
        self.readers.iter().any(|reader| {
            *reader == own
                || reader
                    .strip_prefix('@')
                    .is_some_and(|audience| groups().iter().any(|group| group_covers(audience, &group.name)))
        })
    }
}

/// A member that waits for the key of a file.
struct Wanted {
    file: FileId,
    owner: MemberId,
    member: MemberId,
    asked_mono_ms: i64,
}

/// What a mesh in memory knows of its files.
#[derive(Default)]
pub struct Telling {
    late: VecDeque<News>,
    wanted: VecDeque<Wanted>,
    /// When the next file or upload goes, Unix milliseconds; it may be too early.
    next_end_ms: Option<i64>,
}

impl Telling {
    /// Of a mesh whose next file goes at this time.
    pub(super) fn new(next_end_ms: Option<i64>) -> Self {
        Self { next_end_ms, ..Self::default() }
    }

    /// Tells a change, or keeps it until there is room.
    pub(super) fn tell(&mut self, cx: &mut MeshContext<'_>, news: News) {
        self.late.push_back(news);
        if self.late.len() > MAX_LATE {
            self.late.pop_front();
            METRICS.events_dropped.inc();
        }
        self.tell_late(cx);
    }

    fn tell_late(&mut self, cx: &mut MeshContext<'_>) {
        while let Some(news) = self.late.front() {
            let concerned = cx.roster().iter().filter(|peer| peer.online() && news.is_for(cx, peer));
            let recipients: HashSet<PeerHandle> = concerned.map(|peer| peer.handle).collect();
            // Who does not read misses it: the list says the same.
            let told = cx.tell(&news.event, Capability::CanReadShared, |peer| recipients.contains(&peer.handle));
            if told.is_none() {
                return cx.wake_at(LATE, cx.room_for_event_ms());
            }
            self.late.pop_front();
        }
    }

    /// A member may read a file and has no key: its owner is asked, now or when it is there.
    pub(super) fn wants_key(&mut self, cx: &mut MeshContext<'_>, row: &Row, member: &MemberId) {
        let now = cx.mono_ms();
        let same = |wanted: &&mut Wanted| wanted.file.as_str() == row.id && wanted.member == *member;
        if let Some(wanted) = self.wanted.iter_mut().find(same) {
            if now - wanted.asked_mono_ms < ASK_AGAIN_MS {
                return;
            }
            wanted.asked_mono_ms = now;
        } else {
            if self.wanted.len() >= MAX_WANTED {
                self.wanted.pop_front();
            }
            let (file, owner) = (row.id.as_str().into(), row.owner_id.as_str().into());
            self.wanted.push_back(Wanted { file, owner, member: member.clone(), asked_mono_ms: now });
        }
        let (file, owner): (FileId, MemberId) = (row.id.as_str().into(), row.owner_id.as_str().into());
        for at in cx.roster().of_member(&owner).to_vec() {
            ask(cx, at, &file, member);
        }
    }

    /// A member waits no longer for the key of a file.
    pub(super) fn has_key(&mut self, file: &str, member: &MemberId) {
        self.wanted.retain(|wanted| wanted.file.as_str() != file || wanted.member != *member);
    }

    /// A session came: if its member has files that others wait for, it is asked.
    pub(super) fn owner_is_here(&mut self, cx: &mut MeshContext<'_>, at: PeerHandle) {
        let Some(member) = cx.roster().get(at).map(|peer| peer.member.clone()) else { return };
        for wanted in self.wanted.iter().filter(|wanted| wanted.owner == member) {
            ask(cx, at, &wanted.file, &wanted.member);
        }
    }

    /// Something goes at this time.
    pub(super) fn ends_by(&mut self, cx: &mut MeshContext<'_>, at_ms: i64) {
        if self.next_end_ms.is_none_or(|next| at_ms < next) {
            self.next_end_ms = Some(at_ms);
            self.arm(cx);
        }
    }

    /// Sets the timer for the next end.
    pub(super) fn arm(&self, cx: &mut MeshContext<'_>) {
        let wait = self.next_end_ms.map_or(LOOK_MS, |at_ms| at_ms.saturating_sub(cx.believed_ms()));
        cx.wake_at(EXPIRE, cx.mono_ms().saturating_add(wait.clamp(0, LOOK_MS)));
    }

    pub(super) fn woken(&mut self, cx: &mut MeshContext<'_>, key: &str) {
        match key {
            LATE => self.tell_late(cx),
            EXPIRE => expire(cx),
            _ => {}
        }
    }

    /// Tells what has gone, and waits for the next.
    fn expired(&mut self, cx: &mut MeshContext<'_>, gone: Vec<Gone>, next_end_ms: Option<i64>) {
        for gone in gone.into_iter().filter(|gone| gone.row.ready_at_ms.is_some()) {
            let news = News::of_readers(cx, DELETED, &gone.row, gone.readers, "");
            self.tell(cx, news);
        }
        self.next_end_ms = next_end_ms;
        self.arm(cx);
    }
}

/// Asks a session of an owner for the key of a file.
fn ask(cx: &MeshContext<'_>, at: PeerHandle, file: &FileId, member: &MemberId) {
    let listens = |peer: &&Peer| !peer.older && !peer.ephemeral && peer.online();
    let (Some(_), Some(member)) = (cx.roster().get(at).filter(listens), cx.roster().live_member(member)) else {
        return;
    };
    let wanted = FileKeyWanted {
        file_id: file.clone(),
        member_id: member.id.clone(),
        name: member.display_name.clone(),
        pubkey: member.pubkey,
    };
    cx.push(at, &wanted.into());
}

/// Removes what has expired, outside the mesh.
fn expire(cx: &mut MeshContext<'_>) {
    // Whatever becomes of it: it is looked at again.
    cx.wake_at(EXPIRE, cx.mono_ms().saturating_add(TRY_AGAIN_MS));
    let (storage, blobs, now_ms) = (cx.storage(), cx.blobs(), cx.believed_ms());
    let slow = async move {
        let (gone, next) = remove_expired(&storage, &blobs, now_ms).await?;
        Ok(move |memory: &mut Telling, cx: &mut MeshContext<'_>| {
            memory.expired(cx, gone, next);
            Ok(Outcome::Silent)
        })
    };
    cx.spawn(Work::new(Lane::of::<Files>(EXPIRE), boxed::<Files, _, _>(slow)));
}

async fn remove_expired(storage: &MeshStore, blobs: &Blobs, now_ms: i64) -> Result<(Vec<Gone>, Option<i64>), DbError> {
    let mut all = Vec::new();
    for file in store::due(storage, now_ms, EXPIRED_AT_ONCE).await? {
        match store::remove(storage, Removal { file, why: Why::Expired, now_ms }).await {
            Ok(mut gone) => {
                discard(blobs, std::mem::take(&mut gone.objects)).await;
                all.push(gone);
            }
            // Someone was faster, or gave it more time.
            Err(crate::journal::WriteError::Refused(_)) => {}
            Err(crate::journal::WriteError::Db(error)) => return Err(error),
        }
    }
    Ok((all, store::next_end(storage).await?))
}
