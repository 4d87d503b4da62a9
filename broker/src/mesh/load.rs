//! Builds a mesh from storage: at first use, after a crash, after a sleep. Always the same path.

use std::time::Duration;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::members::Renamed;
use claudemesh_protocol::features::presence::event_data;
use claudemesh_protocol::id::{MeshId, PublicKey};
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::name::looks_like;
use tokio::sync::oneshot;

use super::context::{Core, MeshContext, Shared};
use super::dispatch::Features;
use super::outcome::{Apply, Lane, Outcome, Work};
use super::peers::{KnownSession, Member, Peer, Roster};
use super::step::step;
use crate::db::former_names::{self, FormerNames};
use crate::db::member_groups::{self, MemberGroups};
use crate::db::meshes::{self, MeshRecord};
use crate::db::rights::{self, Rights};
use crate::db::sessions::SessionRecord;
use crate::db::{Db, DbError, MeshDb};
use crate::db::{members, sessions};

/// What storage knows of one mesh.
pub struct Loaded {
    mesh: MeshRecord,
    members: Vec<Member>,
    rights: Rights,
    sessions: Vec<SessionRecord>,
    member_groups: MemberGroups,
    former: FormerNames,
    features: Features,
}

/// What there is under an id.
pub enum Found {
    /// No mesh.
    Nothing,
    /// A mesh that was archived: it accepts nothing.
    Archived,
    /// A mesh that was deleted.
    Deleted,
    /// A mesh.
    Mesh(Box<Loaded>),
}

/// Reads a mesh with the memory of every feature.
///
/// # Errors
/// Storage.
pub async fn load(db: &Db, id: &MeshId) -> Result<Found, DbError> {
    let Some(mesh) = meshes::load(db, id).await? else { return Ok(Found::Nothing) };
    if mesh.deleted_at_ms.is_some() {
        return Ok(Found::Deleted);
    }
    if mesh.archived_at_ms.is_some() {
        return Ok(Found::Archived);
    }
    // Sessions matter as long as a message can wait for them. The newest one tells the time without a clock.
    let ttl = limits::millis(limits::QUEUE_TTL);
    let storage = MeshDb::new(db.clone(), id.clone());
    let newest = sessions::newest_seen(&storage).await?.unwrap_or(0);
    Ok(Found::Mesh(Box::new(Loaded {
        members: members::load_all(&storage).await?,
        rights: rights::load(&storage).await?,
        sessions: sessions::load_known(&storage, newest.saturating_sub(ttl)).await?,
        member_groups: member_groups::load(&storage).await?,
        former: former_names::load(&storage).await?,
        features: Features::load(&storage).await?,
        mesh,
    })))
}

/// Members, what they may do, and the mesh itself, after HTTP changed them.
struct People {
    members: Vec<Member>,
    former: FormerNames,
    rights: Rights,
    mesh: MeshRecord,
}

async fn members_and_mesh(db: &Db, id: &MeshId) -> Result<Option<People>, DbError> {
    let Some(mesh) = meshes::load(db, id).await? else { return Ok(None) };
    let storage = MeshDb::new(db.clone(), id.clone());
    Ok(Some(People {
        members: members::load_all(&storage).await?,
        former: former_names::load(&storage).await?,
        rights: rights::load(&storage).await?,
        mesh,
    }))
}

/// Bans and the reading of members share a lane: rows that were read before a ban must not be taken over after it.
pub fn members_lane() -> Lane {
    Lane::of_mesh("members")
}

/// Longest read of the members; shorter than the deadline of work, so that a failure is seen here.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// Reads members, name and settings again, and says `done` when they are taken over. When storage fails it is tried once a second.
pub fn reload_members(cx: &mut MeshContext<'_>, done: Option<oneshot::Sender<()>>) {
    let (db, id) = (cx.core.db.clone(), cx.core.id.clone());
    cx.core.members_stale = false;
    let future = async move {
        let read = tokio::time::timeout(READ_DEADLINE, members_and_mesh(&db, &id)).await;
        let apply: Apply = Box::new(move |_, cx| {
            match read {
                Ok(Ok(Some(people))) => {
                    cx.core.follow(&people.mesh);
                    cx.core.roster.former = people.former;
                    cx.core.rights = people.rights;
                    people.members.into_iter().for_each(|member| put_member(cx, member));
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    tracing::error!(error = %error, mesh.id = %cx.core.id, "members cannot be read again");
                    cx.core.members_stale = true;
                }
                Err(_) => cx.core.members_stale = true,
            }
            // A caller that no longer waits does not need the answer.
            if let Some(done) = done {
                let _ = done.send(());
            }
            Ok(Outcome::Silent)
        });
        Ok(apply)
    };
    cx.spawn(Work::new(members_lane(), Box::pin(future)));
}

/// Takes over a member as it is stored now. Sessions without a name of their own follow their member's new name, and the others are
/// told of it.
pub fn put_member(cx: &mut MeshContext<'_>, member: Member) {
    let old = cx.core.roster.member(&member.id).map(|old| old.display_name.clone());
    let renamed = old.filter(|old| *old != member.display_name);
    if let Some(old) = &renamed {
        for at in cx.core.roster.of_member(&member.id).to_vec() {
            cx.change_peer(at, |peer| {
                if peer.name == *old {
                    peer.name.clone_from(&member.display_name);
                }
            });
        }
    }
    let (key, name, live) = (member.pubkey, member.display_name.clone(), member.revoked_at_ms.is_none());
    cx.core.roster.put_member(member);
    if let (Some(former_name), true) = (renamed, live) {
        let event = Renamed {
            kind: "member".into(),
            pubkey: key,
            address: name.clone(),
            looks_like: look_alikes(&cx.core.roster, &key, &name),
            name,
            former_name,
        };
        let event = cx.system_event("member_renamed", event_data(&event));
        tell_roster(cx, &event, |_| true);
    }
}

/// Tells everyone of an audience but one-shot verbs. What does not fit into the second is told as `roster_changed`.
pub fn tell_roster(cx: &mut MeshContext<'_>, event: &ServerMessage, audience: impl Fn(&Peer) -> bool) {
    let anyone: Option<Capability> = None;
    if cx.tell(event, anyone, |peer| !peer.ephemeral && audience(peer)).is_none() {
        cx.leave_out("roster_changed");
    }
}

/// Names of other members that look like this one.
pub fn look_alikes(roster: &Roster, key: &PublicKey, name: &str) -> Vec<String> {
    let others = roster.members().filter(|other| other.pubkey != *key && other.revoked_at_ms.is_none());
    let mut found: Vec<String> =
        others.map(|other| &other.display_name).filter(|other| looks_like(name, other)).cloned().collect();
    found.sort_unstable();
    found.dedup();
    found
}

impl Loaded {
    /// Memory of the mesh.
    pub(super) fn into_parts(self, shared: &Shared) -> (Core, Features) {
        let mut roster = Roster::default();
        roster.member_groups = self.member_groups;
        roster.former = self.former;
        for member in self.members {
            roster.put_member(member);
        }
        for session in self.sessions {
            roster.known.insert(
                session.session_key,
                KnownSession {
                    member: session.member_id,
                    name: session.display_name,
                    session_id: session.session_id,
                    last_seen_ms: session.last_seen_at_ms,
                    groups: session.groups,
                    profile: session.profile,
                    visible: session.visible,
                    summary: session.summary,
                    cwd: session.cwd,
                    hostname: session.hostname,
                    renamed_from: session.renamed_from,
                    proven: session.proven,
                },
            );
        }
        let (mut core, mut features) = (Core::new(self.mesh, roster, shared), self.features);
        core.rights = self.rights;
        step(&mut core, &mut features, None, |features, cx| features.started(cx));
        (core, features)
    }
}
