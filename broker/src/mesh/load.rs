//! Builds a mesh from storage: at first use, after a crash, after a sleep. Always the same path.

use std::time::Duration;

use claudemesh_protocol::id::{MeshId, MessageId, PublicKey};
use claudemesh_protocol::limits;
use claudemesh_protocol::session::SelfEditable;
use tokio::sync::oneshot;

use super::context::{Core, MeshContext, Shared};
use super::dispatch::Features;
use super::outcome::{Apply, Lane, Outcome, Work};
use super::peers::{KnownSession, Member, Roster};
use super::topics::{TopicBook, TopicState};
use crate::db::{Db, DbError, MeshDb};
use crate::features::meshes::store::{self as meshes, MeshRecord};
use crate::features::messaging::{Counts, MessagingMemory};
use crate::features::presence::store::{SessionRecord, StatsDelta};
use crate::features::{members, messaging, presence, topics};
use crate::hash::FastMap;

/// Retries recognised after a restart.
const RECENT_REPEATABLE: u32 = 20_000;

/// What storage knows of one mesh.
pub struct Loaded {
    mesh: MeshRecord,
    members: Vec<Member>,
    sessions: Vec<SessionRecord>,
    topics: Vec<topics::store::Topic>,
    subscriptions: Vec<topics::store::Subscription>,
    waiting: FastMap<PublicKey, Counts>,
    totals: Vec<StatsDelta>,
    max_seq: i64,
    recent: Vec<(MessageId, messaging::Known)>,
}

/// Reads a mesh; `None` when there is none with that id.
///
/// # Errors
/// Storage.
pub async fn load(db: &Db, id: &MeshId) -> Result<Option<Loaded>, DbError> {
    let Some(mesh) = meshes::load(db, id).await? else { return Ok(None) };
    if mesh.archived_at_ms.is_some() {
        return Ok(Some(Loaded {
            mesh,
            members: vec![],
            sessions: vec![],
            topics: vec![],
            subscriptions: vec![],
            waiting: Default::default(),
            totals: vec![],
            max_seq: 0,
            recent: vec![],
        }));
    }
    // Sessions matter as long as a message can wait for them. The newest one tells the time without a clock.
    let ttl = i64::try_from(limits::QUEUE_TTL.as_millis()).unwrap_or(i64::MAX);
    let db = &MeshDb::new(db.clone(), id.clone());
    let newest = presence::store::newest_seen(db).await?.unwrap_or(0);
    let waiting = messaging::store::pending_counts(db).await?;
    Ok(Some(Loaded {
        members: members::store::load_all(db).await?,
        sessions: presence::store::load_known(db, newest.saturating_sub(ttl)).await?,
        topics: topics::store::load_all(db).await?,
        subscriptions: topics::store::load_subscriptions(db).await?,
        waiting: waiting.into_iter().map(|(key, found)| (key, found.counts)).collect(),
        totals: presence::store::totals(db).await?,
        max_seq: messaging::store::max_seq(db).await?,
        recent: messaging::store::recent_repeatable(db, RECENT_REPEATABLE).await?,
        mesh,
    }))
}

/// Members and policy alone, after HTTP changed them.
async fn members_and_policy(db: &Db, id: &MeshId) -> Result<Option<(Vec<Member>, SelfEditable)>, DbError> {
    let Some(mesh) = meshes::load(db, id).await? else { return Ok(None) };
    let members = members::store::load_all(&MeshDb::new(db.clone(), id.clone())).await?;
    Ok(Some((members, mesh.self_editable)))
}

/// Bans and the reading of members share a lane: rows that were read before a ban must not be taken over after it.
pub fn members_lane() -> Lane {
    Lane("members", String::new())
}

/// Longest read of the members; shorter than the deadline of work, so that a failure is seen here.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// Reads members and policy again, and says `done` when they are taken over. When storage fails it is tried once a second.
pub fn reload_members(cx: &mut MeshContext<'_>, done: Option<oneshot::Sender<()>>) {
    let (db, id) = (cx.core.db.clone(), cx.core.id.clone());
    cx.core.members_stale = false;
    let future = async move {
        let read = tokio::time::timeout(READ_DEADLINE, members_and_policy(&db, &id)).await;
        let apply: Apply = Box::new(move |_, cx| {
            match read {
                Ok(Ok(Some((members, policy)))) => apply_members(cx.core, members, policy),
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
    cx.spawn(Work { lane: members_lane(), future: Box::pin(future), reply_to: None });
}

/// Takes over changed members; sessions without a name of their own follow their member's new name.
fn apply_members(core: &mut Core, members: Vec<Member>, policy: SelfEditable) {
    core.self_editable = policy;
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
    /// Whether the mesh was archived: it accepts nothing.
    pub fn archived(&self) -> bool {
        self.mesh.archived_at_ms.is_some()
    }

    /// Memory of the mesh.
    pub fn into_parts(self, shared: &Shared) -> (Core, Features) {
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
        let mut book = TopicBook::default();
        for topic in self.topics {
            book.put(TopicState {
                id: topic.id,
                name: topic.name,
                description: topic.description,
                visibility: topic.visibility,
                created_by: topic.created_by,
                created_at_ms: topic.created_at_ms,
                subscribers: vec![],
            });
        }
        for subscription in self.subscriptions {
            if let Some(topic) = book.get_mut(&subscription.topic_id) {
                topic.subscribers.push(subscription.member_id);
            }
        }
        let memory = MessagingMemory::new(self.max_seq, self.waiting, self.totals, self.recent);
        (Core::new(self.mesh, roster, book, shared), Features::new(memory))
    }
}
