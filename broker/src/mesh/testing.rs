//! A mesh without sockets and timers for unit tests: real roster, real storage, peers that collect their frames.

use std::sync::{Arc, Mutex};

use actix::{Actor, Context, Handler};
use claudemesh_protocol::features::messaging::{Priority, Send};
use claudemesh_protocol::id::{MemberId, MeshId, PresenceId, PublicKey};
use serde_json::Value;

use super::context::{Caller, Core, FlushWanted, MeshContext, Shared};
use super::outcome::{Outcome, Reject};
use super::peers::{At, Member, Peer, PeerRef, Role, Roster};
use super::topics::TopicBook;
use crate::clock::ManualClock;
use crate::config::{Connections, Limits};
use crate::db::{Db, DbOptions};
use crate::features::meshes::store::{self as meshes, MeshRecord};
use crate::features::messaging::{Messaging, MessagingMemory, journaling};
use crate::journal::Journal;
use crate::mesh::dispatch::{Feature, Features};
use crate::session::Out;
use crate::session::queue::{Load, Outlet};

/// Frames a socket got.
pub type Frames = Arc<Mutex<Vec<Value>>>;

struct Sink {
    frames: Frames,
    load: Arc<Load>,
}

impl Actor for Sink {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(crate::session::socket::MAILBOX);
    }
}

impl Handler<Out> for Sink {
    type Result = ();

    fn handle(&mut self, out: Out, _: &mut Self::Context) {
        if let Out::Ready = out {
            let texts = self.load.take();
            self.load.left();
            self.frames.lock().unwrap().extend(texts.iter().map(|text| serde_json::from_str::<Value>(text).unwrap()));
        }
    }
}

/// A mesh in a test.
pub struct TestMesh {
    pub core: Core,
    pub features: Features,
    _clock: Arc<ManualClock>,
    sockets: u64,
    _dir: tempfile::TempDir,
}

impl TestMesh {
    /// An empty mesh on a fresh SQLite file, all limits off.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("test.db").display());
        let db = Db::open(&url, DbOptions::default()).await.unwrap();
        db.migrate().await.unwrap();
        let clock = ManualClock::at(1_700_000_000_000);
        let (journal, _) = Journal::start(db.clone());
        let shared = Shared {
            clock: clock.clone(),
            db: db.clone(),
            journal,
            limits: Limits::off(),
            connections: Connections::default(),
            hooks: Arc::default(),
        };
        let mesh = MeshRecord::new(MeshId::from("mesh"), "mesh", key(250), 0);
        let core = Core::new(mesh.clone(), Roster::default(), TopicBook::default(), &shared);
        let features = Features::new(MessagingMemory::new(0, Default::default(), vec![], vec![]));
        meshes::create(&core.storage(), &mesh, &member("owner", 200, Role::Owner)).await.unwrap();
        Self { core, features, _clock: clock, sockets: 0, _dir: dir }
    }

    /// A member in memory and storage.
    pub async fn member(&mut self, name: &str, number: u8) -> MemberId {
        let member = member(name, number, Role::Member);
        crate::features::members::store::insert(&self.core.storage(), &member).await.unwrap();
        let id = member.id.clone();
        self.core.roster.put_member(member);
        id
    }

    /// A connected session of a member that acknowledges and pulls.
    pub fn peer(&mut self, member: &MemberId, name: &str, session: Option<u8>) -> (PeerRef, Frames) {
        let member = self.core.roster.member(member).unwrap().clone();
        let at = self.core.roster.next_ref();
        self.core.roster.insert(Peer {
            presence: PresenceId::from(format!("presence-{}", at.0)),
            proven: session.is_some(),
            session_id: format!("session-{}", at.0),
            name: name.into(),
            pid: at.0,
            cwd: format!("/{name}"),
            peer_type: Some("ai".into()),
            acks: true,
            pulls: true,
            ..Peer::new(at, &member, session.map(key), At::default())
        });
        let known = super::attach::known_of(self.core.roster.get(at).unwrap());
        let key = self.core.roster.get(at).unwrap().key();
        self.core.roster.known.insert(key, known);
        let frames = self.connect(at);
        (at, frames)
    }

    /// Opens a new socket for a record, as a (re-)attach does.
    pub fn connect(&mut self, at: PeerRef) -> Frames {
        let frames = Frames::default();
        let load = Arc::<Load>::default();
        let sink = Sink { frames: frames.clone(), load: load.clone() }.start().recipient();
        self.sockets += 1;
        let number = self.sockets;
        let peer = self.core.roster.get_mut(at).unwrap();
        peer.socket = Some(Outlet::new(sink, load));
        peer.socket_no = number;
        peer.outbox.rewind();
        self.step(None, |features, cx| journaling::attached(&mut features.messaging, cx, at));
        frames
    }

    /// Closes the socket of a record, as a detach does.
    pub fn disconnect(&mut self, at: PeerRef) {
        let peer = self.core.roster.get_mut(at).unwrap();
        peer.socket = None;
        peer.outbox.rewind();
    }

    /// Runs something with a context and delivers the events it caused.
    pub fn step<T>(&mut self, at: Option<PeerRef>, run: impl FnOnce(&mut Features, &mut MeshContext<'_>) -> T) -> T {
        let caller = at.map(|peer| Caller { peer, req_id: Some("r".into()), id: Some("i".into()) });
        let mut cx = MeshContext { core: &mut self.core, caller };
        let result = run(&mut self.features, &mut cx);
        while let Some(event) = cx.core.events.pop_front() {
            cx.caller = None;
            self.features.on_event(&mut cx, &event);
        }
        result
    }

    /// One messaging request.
    pub fn ask(
        &mut self,
        at: PeerRef,
        request: impl Into<claudemesh_protocol::features::messaging::Request>,
    ) -> Result<Outcome, Reject> {
        let request = request.into();
        self.step(Some(at), |features, cx| Messaging::handle(&mut features.messaging, cx, request))
    }

    /// Sends a text.
    pub fn send(&mut self, at: PeerRef, to: &str, priority: Priority, text: &str) -> Result<Outcome, Reject> {
        self.ask(at, Send { target_spec: to.into(), priority, ciphertext: text.into(), ..Send::default() })
    }

    /// Writes what is pending and runs the work that follows, until nothing is left.
    pub async fn settle(&mut self) {
        for _ in 0..1_000 {
            self.commit().await;
            let work = std::mem::take(&mut self.core.work);
            if work.is_empty() && self.core.flush_wanted == FlushWanted::No {
                break;
            }
            for work in work {
                let apply = work.future.await.unwrap();
                let _ = self.step(None, |features, cx| apply(features, cx));
            }
        }
        self.settle_frames().await;
    }

    /// Lets the sinks, which run on this thread, take what was pushed.
    pub async fn settle_frames(&self) {
        for _ in 0..32 {
            tokio::task::yield_now().await;
        }
    }

    /// Writes one batch of all that is pending.
    pub async fn commit(&mut self) {
        self.commit_wanted(FlushWanted::Now).await;
    }

    /// Writes one batch of what a flush with this urgency takes.
    pub async fn commit_wanted(&mut self, wanted: FlushWanted) {
        self.core.flush_wanted = FlushWanted::No;
        let (batch, ticket) =
            self.step(None, |features, cx| journaling::take_batch(&mut features.messaging, cx, wanted));
        let mut batch = batch;
        batch.id = uuid::Uuid::new_v4().to_string();
        crate::journal::write_batch(&self.core.db, Arc::new(batch)).await.unwrap();
        self.step(None, |features, cx| journaling::committed(&mut features.messaging, cx, ticket, Ok(())));
    }

    /// Takes the frames of one type that a socket got.
    pub fn take(frames: &Frames, kind: &str) -> Vec<Value> {
        let mut all = frames.lock().unwrap();
        let (wanted, rest) = all.drain(..).partition(|frame: &Value| frame["type"] == kind);
        *all = rest;
        wanted
    }
}

/// A key from a number.
pub fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

fn member(name: &str, number: u8, role: Role) -> Member {
    Member::new(MemberId::from(format!("member-{number}")), &MeshId::from("mesh"), key(number), name, role, 0)
}
