//! Who has to do with a task: who asks, whether its holder is gone, and who is told of a change.

use std::collections::{HashSet, VecDeque};

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::tasks::{TaskChange, TaskEntry};
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::name::folded;
use claudemesh_protocol::target::group_covers;
use claudemesh_protocol::time::iso;

use super::store::{By, CLAIMED, Changed, Task};
use crate::mesh::context::MeshContext;
use crate::mesh::peers::{Member, Peer, PeerHandle, Roster};
use crate::metrics::METRICS;
use crate::refusal::Refusal;

/// A claim is stale when its session is gone for this long, in milliseconds: longer than a restart of a machine.
const STALE_MS: i64 = 15 * 60_000;
/// A claim that was made outside of sessions, at a shell, is stale after this time: a day's work of a person.
const STALE_AT_SHELL_MS: i64 = 86_400_000;
/// Changes that wait for room in the budget of events.
const MAX_LATE: usize = 1_000;

/// The session that the caller is or acts for.
fn session<'a>(cx: &'a MeshContext<'_>, peer: &'a Peer) -> &'a Peer {
    peer.acts_for.and_then(|at| cx.roster().get(at)).unwrap_or(peer)
}

/// The caller as the history names it.
pub(super) fn asker(cx: &MeshContext<'_>) -> Result<By, Refusal> {
    let peer = session(cx, cx.asker()?);
    // A verb at a shell that is no one's session is gone in a moment, and a member may ask without any connection.
    let key = if peer.ephemeral || !peer.online() { String::new() } else { peer.key().to_hex() };
    let manages = cx.may(Capability::CanModerate)?;
    Ok(By { member: peer.member.to_string(), key, name: peer.name.clone(), manages })
}

/// Whether a session is meant by its own name alone. One that another member has means that member: sessions choose their names.
fn goes_by_its_name(roster: &Roster, peer: &Peer) -> bool {
    let name = folded(&peer.name);
    let has_it = |other: &Member| other.revoked_at_ms.is_none() && folded(&other.display_name) == name;
    !roster.members().any(|other| other.id != peer.member && has_it(other))
}

fn whole_name(peer: &Peer, member: &Member) -> String {
    format!("{}/{}", member.display_name, peer.name)
}

/// What an assignee may be called who is this peer, in lower case.
pub(super) fn names_of(roster: &Roster, peer: &Peer, member: &Member) -> Vec<String> {
    let mut names =
        vec![whole_name(peer, member), member.display_name.clone(), member.pubkey.to_hex(), peer.key().to_hex()];
    if goes_by_its_name(roster, peer) {
        names.push(peer.name.clone());
    }
    for group in &peer.groups {
        // A group is meant by its own name and by those above it.
        let parts: Vec<&str> = group.name.split('/').collect();
        names.extend((1..=parts.len()).map(|count| format!("@{}", parts[..count].join("/"))));
    }
    let mut names: Vec<String> = names.into_iter().map(|name| name.to_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether an assignee means this peer.
fn is_meant(roster: &Roster, assignee: &str, peer: &Peer, member: &Member) -> bool {
    match assignee.strip_prefix('@') {
        Some(group) => peer.groups.iter().any(|own| group_covers(group, &own.name.to_lowercase())),
        None => {
            (assignee == peer.name.to_lowercase() && goes_by_its_name(roster, peer))
                || assignee == whole_name(peer, member).to_lowercase()
                || assignee == member.display_name.to_lowercase()
                || assignee == member.pubkey.to_hex()
                || assignee == peer.key().to_hex()
        }
    }
}

/// Whether the session that holds a task is gone for so long that others may take it over.
pub(super) fn is_stale(cx: &MeshContext<'_>, task: &Task) -> bool {
    if task.status != CLAIMED {
        return false;
    }
    let Some(key) = task.holder_session.as_deref().and_then(PublicKey::parse) else {
        return task.claimed_at_ms.is_some_and(|at| cx.believed_ms() - at >= STALE_AT_SHELL_MS);
    };
    let mut seen_ms = cx.roster().known.get(&key).map(|known| known.last_seen_ms);
    for at in cx.roster().with_key(&key) {
        match cx.roster().get(*at) {
            Some(peer) if peer.online() => return false,
            Some(peer) => seen_ms = seen_ms.max(Some(peer.last_seen_ms)),
            None => {}
        }
    }
    // One that is not even remembered has not been here for days; but a claim is as old as it is.
    let seen_ms = seen_ms.max(task.claimed_at_ms);
    seen_ms.is_none_or(|seen| cx.believed_ms() - seen >= STALE_MS)
}

/// A task as the wire shows it.
pub(super) fn entry(cx: &MeshContext<'_>, task: &Task) -> Result<TaskEntry, Refusal> {
    Ok(TaskEntry {
        id: task.id.as_str().into(),
        title: task.title.clone(),
        description: task.description.clone(),
        assignee: task.assignee.clone(),
        claimed_by: task.holder_name.clone(),
        status: task.status()?,
        priority: task.priority()?,
        created_by: task.creator_name.clone(),
        tags: task.tags()?,
        created_at: iso(task.created_at_ms),
        result: task.result.clone(),
        depends_on: task.depends_on()?.into_iter().map(Into::into).collect(),
        blocked: task.blocked(),
        due_at: task.due_at_ms.map(iso),
        stale: is_stale(cx, task),
        claimed_at: task.claimed_at_ms.map(iso),
        completed_at: task.done_at_ms.map(iso),
        version: u64::try_from(task.version).unwrap_or(0),
    })
}

/// One that a change concerns: a session, or all sessions of its member when it is not here.
#[derive(Clone, Debug, PartialEq)]
struct Party {
    member: MemberId,
    session: Option<PeerHandle>,
}

impl Party {
    fn of(cx: &MeshContext<'_>, member: &str, key: &str) -> Self {
        let here = |at: &&PeerHandle| cx.roster().get(**at).is_some_and(Peer::online);
        let key = PublicKey::parse(key);
        let session = key.and_then(|key| cx.roster().with_key(&key).iter().find(here).copied());
        Self { member: member.into(), session }
    }

    fn is(&self, peer: &Peer) -> bool {
        self.session.map_or(self.member == peer.member, |at| at == peer.handle)
    }
}

/// Who is concerned by a change, and what is told.
struct News {
    event: ServerMessage,
    parties: Vec<Party>,
    /// In lower case.
    assignees: Vec<String>,
    not_to: Option<PeerHandle>,
}

/// Tells of changes; those for which a second had no room in the next one.
#[derive(Default)]
pub(super) struct Late(VecDeque<News>);

impl Late {
    /// Tells creator, holder and assignee, those of before too, of a change by someone else.
    pub(super) fn changed(&mut self, cx: &mut MeshContext<'_>, changed: &Changed, by: &By) {
        let Some(task) = changed.task.as_ref().or(changed.before.as_ref()).filter(|_| !changed.what.is_empty()) else {
            return;
        };
        let Ok(shown) = entry(cx, task) else { return };
        let tasks = || changed.task.iter().chain(&changed.before);
        let mut parties = vec![Party::of(cx, &task.creator_member, &task.creator_session)];
        for task in tasks() {
            if let (Some(member), Some(key)) = (&task.holder_member, &task.holder_session) {
                let holder = Party::of(cx, member, key);
                if !parties.contains(&holder) {
                    parties.push(holder);
                }
            }
        }
        let mut assignees: Vec<String> = tasks().filter_map(|task| task.assignee_folded.clone()).collect();
        assignees.dedup();
        let event = TaskChange { what: changed.what.into(), by: by.name.clone(), task: shown }.into();
        let not_to = cx.asker().ok().map(|peer| session(cx, peer).handle);
        self.0.push_back(News { event, parties, assignees, not_to });
        if self.0.len() > MAX_LATE {
            self.0.pop_front();
            METRICS.events_dropped.inc();
        }
        self.tell(cx);
    }

    /// Tells what there is room for.
    pub(super) fn tell(&mut self, cx: &mut MeshContext<'_>) {
        while let Some(news) = self.0.front() {
            let recipients = recipients(cx, news);
            // Who does not read misses it: what is in the list can be read there.
            if cx.tell(&news.event, Capability::CanReadShared, |peer| recipients.contains(&peer.handle)).is_none() {
                return cx.wake_at("late", cx.room_for_event_ms());
            }
            self.0.pop_front();
        }
    }
}

fn recipients(cx: &MeshContext<'_>, news: &News) -> HashSet<PeerHandle> {
    let concerned = |peer: &&Peer| {
        // Clients of before know no such word, and a verb that asks once does not listen.
        if peer.older || peer.ephemeral || Some(peer.handle) == news.not_to {
            return false;
        }
        let Some(member) = cx.roster().member(&peer.member) else { return false };
        news.parties.iter().any(|party| party.is(peer))
            || news.assignees.iter().any(|assignee| is_meant(cx.roster(), assignee, peer, member))
    };
    cx.roster().iter().filter(|peer| peer.online()).filter(concerned).map(|peer| peer.handle).collect()
}
