//! Builds a mesh from storage: at first use, after a crash, after a sleep. Always the same path.

use std::time::Duration;

use claudemesh_protocol::id::MeshId;
use claudemesh_protocol::limits;
use tokio::sync::oneshot;

use super::context::{Core, MeshContext, Shared};
use super::dispatch::Features;
use super::outcome::{Apply, Lane, Outcome, Work};
use super::peers::{KnownSession, Member, Roster};
use super::step::step;
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
        features: Features::load(&storage).await?,
        mesh,
    })))
}

/// Members, what they may do, and the mesh itself, after HTTP changed them.
async fn members_and_mesh(db: &Db, id: &MeshId) -> Result<Option<(Vec<Member>, Rights, MeshRecord)>, DbError> {
    let Some(mesh) = meshes::load(db, id).await? else { return Ok(None) };
    let storage = MeshDb::new(db.clone(), id.clone());
    let (members, rights) = (members::load_all(&storage).await?, rights::load(&storage).await?);
    Ok(Some((members, rights, mesh)))
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
                Ok(Ok(Some((members, rights, mesh)))) => {
                    cx.core.follow(&mesh);
                    apply_members(cx.core, members);
                    cx.core.rights = rights;
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    tracing::error!(error = %error, mesh.id = %cx.core.id, "members cannot be read again");
                    cx.core.members_stale = true;
                }
                Err(_) => cx.core.members_stale = true,
            }
            // Whoever no longer waits does not need the answer.
            if let Some(done) = done {
                let _ = done.send(());
            }
            Ok(Outcome::Silent)
        });
        Ok(apply)
    };
    cx.spawn(Work::new(members_lane(), Box::pin(future)));
}

/// Takes over changed members; sessions without a name of their own follow their member's new name.
fn apply_members(core: &mut Core, members: Vec<Member>) {
    for member in members {
        let renamed = core
            .roster
            .member(&member.id)
            .filter(|old| old.display_name != member.display_name)
            .map(|old| old.display_name.clone());
        if let Some(old) = renamed {
            for at in core.roster.of_member(&member.id).to_vec() {
                if let Some(peer) = core.roster.get_mut(at)
                    && peer.name == old
                {
                    peer.name.clone_from(&member.display_name);
                }
            }
        }
        core.roster.put_member(member);
    }
}

impl Loaded {
    /// Memory of the mesh.
    pub(super) fn into_parts(self, shared: &Shared) -> (Core, Features) {
        let mut roster = Roster::default();
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
