//! A mesh without sockets and timers for unit tests: real roster, real storage, peers that collect their frames.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use claudemesh_protocol::features::messaging::{Priority, Send};
use claudemesh_protocol::id::{MemberId, MeshId, PresenceId, PublicKey};
use claudemesh_protocol::message::{ClientMessage, ServerMessage};
use serde_json::Value;

use super::context::{Caller, Core, FlushWanted, MeshContext, Shared};
use super::dispatch::Features;
use super::events::MeshEvent;
use super::lanes::Lanes;
use super::outcome::{Outcome, Work};
use super::peers::{Member, Moment, Peer, PeerHandle, Role, Roster};
use super::principal::{Answer, Principal, Waiting};
use super::step;
use crate::clock::ManualClock;
use crate::config::{Connections, Limits};
use crate::db::meshes::{self, MeshRecord};
use crate::db::{Db, DbOptions};
use crate::journal::Journal;
use crate::refusal::Refusal;
use crate::session::Out;
use crate::session::queue::{PeerSender, SendQueue};

/// Frames a socket got.
pub type Frames = Arc<Mutex<Vec<Value>>>;

struct Sink {
    frames: Frames,
    load: Arc<SendQueue>,
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
            self.load.mark_written();
            self.frames.lock().unwrap().extend(texts.iter().map(|text| serde_json::from_str::<Value>(text).unwrap()));
        }
    }
}

/// A mesh in a test.
pub struct TestMesh {
    pub core: Core,
    pub features: Features,
    pub clock: Arc<ManualClock>,
    /// Whether requests ask for a confirmation.
    pub confirm: bool,
    lanes: Lanes,
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
            audit: Arc::new(crate::audit::HeadSigner::open(dir.path()).unwrap()),
            limits: Limits::default().without_rates(),
            connections: Connections::default(),
            hooks: Arc::default(),
            blobs: crate::blobs::testing::blobs(dir.path()),
        };
        let mesh = MeshRecord::new(MeshId::from("mesh"), "mesh", key(250), 0);
        let (core, features) = (Core::new(mesh.clone(), Roster::default(), &shared), Features::default());
        meshes::create(&core.storage(), &mesh, &member("owner", 200, Role::Owner)).await.unwrap();
        let mut mesh = Self { core, features, clock, confirm: false, lanes: Lanes::default(), sockets: 0, _dir: dir };
        mesh.features = Features::load(&mesh.core.storage()).await.unwrap();
        mesh.step(None, |features, cx| features.started(cx));
        mesh
    }

    /// A member in memory and storage.
    pub async fn member(&mut self, name: &str, number: u8) -> MemberId {
        let member = member(name, number, Role::Member);
        crate::db::members::insert(&self.core.storage(), &member).await.unwrap();
        let id = member.id.clone();
        self.core.roster.put_member(member);
        id
    }

    /// A connected session of a member that acknowledges and pulls.
    pub fn peer(&mut self, member: &MemberId, name: &str, session: Option<u8>) -> (PeerHandle, Frames) {
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
            ..Peer::new(at, &member, session.map(key), Moment::default())
        });
        let known = super::attach::known_of(self.core.roster.get(at).unwrap());
        let key = self.core.roster.get(at).unwrap().key();
        self.core.roster.known.insert(key, known);
        let frames = self.connect(at);
        (at, frames)
    }

    /// Opens a new socket for a record, as a (re-)attach does.
    pub fn connect(&mut self, at: PeerHandle) -> Frames {
        let frames = Frames::default();
        let load = Arc::<SendQueue>::default();
        let sink = Sink { frames: frames.clone(), load: load.clone() }.start().recipient();
        self.sockets += 1;
        let number = self.sockets;
        let peer = self.core.roster.get_mut(at).unwrap();
        peer.socket = Some(PeerSender::new(sink, load));
        peer.socket_no = number;
        self.core.roster.sending(at).unwrap().outbox.rewind();
        self.step(None, |_, cx| cx.emit(MeshEvent::Attached { peer: at, reattached: true, known: None }));
        frames
    }

    /// Closes the socket of a record, as a detach does.
    pub fn disconnect(&mut self, at: PeerHandle) {
        self.core.roster.get_mut(at).unwrap().socket = None;
        self.core.roster.sending(at).unwrap().outbox.rewind();
        self.step(None, |_, cx| cx.emit(MeshEvent::Detached { peer: at }));
    }

    /// Runs something on the features and delivers the events it caused.
    pub fn step<T>(&mut self, at: Option<PeerHandle>, run: impl FnOnce(&mut Features, &mut MeshContext<'_>) -> T) -> T {
        let confirm = self.confirm;
        self.step_for(at.map(|at| Caller { confirm, ..caller(at) }), run)
    }

    fn step_for<T>(&mut self, caller: Option<Caller>, run: impl FnOnce(&mut Features, &mut MeshContext<'_>) -> T) -> T {
        let result = step::step(&mut self.core, &mut self.features, caller, run);
        super::fan_out::wake_all(&mut self.core);
        result
    }

    /// A request of a member without a connection, answered: what it set in motion is done, in lane order.
    pub async fn ask_for(&mut self, member: &MemberId, request: impl Into<ClientMessage>) -> Answer {
        let (request, from) = (request.into(), Principal::Member(member.clone()));
        let (waiting, mut answer) = Waiting::new(from.clone());
        let caller = Caller::waiting(from, waiting, request.tag());
        let to = self.step_for(Some(caller.clone()), |_, cx| cx.reply_to()).unwrap();
        match self.step_for(Some(caller), |features, cx| features.dispatch(cx, request))? {
            Outcome::Answer(message) => return Ok(*message),
            Outcome::Work(work) => self.core.work.push(Work { reply_to: Some(to), ..work }),
            Outcome::Silent => drop(to),
            Outcome::Overview(_) => panic!("dispatch runs overviews"),
        }
        self.settle().await;
        answer.try_recv().unwrap()
    }

    /// Any request, answered: what it set in motion is done, in lane order. For requests that have an answer.
    pub async fn ask(&mut self, at: PeerHandle, request: impl Into<ClientMessage>) -> ServerMessage {
        let request = request.into();
        let outcome = self.step(Some(at), |features, cx| features.dispatch(cx, request));
        self.answer_of(at, outcome).await
    }

    /// What comes of an outcome: what it set in motion is done, in lane order.
    pub async fn answer_of(&mut self, at: PeerHandle, outcome: Result<Outcome, Refusal>) -> ServerMessage {
        let work = std::mem::take(&mut self.core.work);
        self.admit(work);
        let outcome = match outcome {
            Ok(Outcome::Work(work)) => {
                self.admit([work]);
                self.run_lanes(Some(at), false).await.expect("the work of the request is run")
            }
            outcome => outcome,
        };
        self.settle().await;
        match outcome {
            Ok(Outcome::Answer(message)) => *message,
            Ok(_) => panic!("this request has no answer of its own; use `handle`"),
            Err(refusal) => refusal.into_frame(Some("i")).into(),
        }
    }

    /// A request of messaging, before anything that follows from it.
    pub fn handle(
        &mut self,
        at: PeerHandle,
        request: impl Into<claudemesh_protocol::features::messaging::Request>,
    ) -> Result<Outcome, Refusal> {
        let request = ClientMessage::from(request.into());
        self.step(Some(at), |features, cx| features.dispatch(cx, request))
    }

    /// Sends a text.
    pub fn send(&mut self, at: PeerHandle, to: &str, priority: Priority, text: &str) -> Result<Outcome, Refusal> {
        self.handle(at, Send { target_spec: to.into(), priority, ciphertext: text.into(), ..Send::default() })
    }

    /// Tells the features that a second is over.
    pub fn tick(&mut self) {
        self.step(None, |_, cx| cx.emit(MeshEvent::Tick));
    }

    /// Moves the clock, and wakes what is due then.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        while let Some((feature, key)) = self.core.timers.due(self.core.clock.mono_ms()) {
            self.step(None, |features, cx| features.on_wake(cx, feature, &key));
        }
    }

    /// Writes what is pending and runs the work that follows, until nothing is left.
    pub async fn settle(&mut self) {
        for _ in 0..1_000 {
            self.commit().await;
            let work = std::mem::take(&mut self.core.work);
            if work.is_empty() && self.lanes.is_empty() && self.core.flush_wanted == FlushWanted::No {
                break;
            }
            self.admit(work);
            self.run_lanes(None, true).await;
        }
        self.settle_frames().await;
    }

    /// Runs the work that is under way, and writes nothing.
    pub async fn run_work(&mut self) {
        let work = std::mem::take(&mut self.core.work);
        self.admit(work);
        self.run_lanes(None, false).await;
    }

    fn admit(&mut self, work: impl IntoIterator<Item = Work>) {
        for work in work {
            assert!(self.lanes.admit(work, None).is_ok(), "no more than a mesh takes");
        }
    }

    /// Runs what is in the lanes; returns what came of the last one. With `writes` it writes in between: work may wait for what the
    /// step before it wants written.
    async fn run_lanes(&mut self, at: Option<PeerHandle>, writes: bool) -> Option<Result<Outcome, Refusal>> {
        let mut last = None;
        while let Some((Work { lane, future, reply_to, .. }, _)) = self.lanes.start() {
            if writes && self.core.flush_wanted != FlushWanted::No {
                self.commit().await;
            }
            let done = future.await;
            self.lanes.finished(&lane, None);
            let caller = reply_to.as_ref().map(|to| to.caller("test")).or(at.map(caller));
            let outcome = done.and_then(|apply| self.step_for(caller, |features, cx| apply(features, cx)));
            let work = std::mem::take(&mut self.core.work);
            self.admit(work);
            let outcome = match outcome {
                Ok(Outcome::Work(work)) => {
                    self.admit([Work { reply_to, ..work }]);
                    continue;
                }
                outcome => {
                    match (&outcome, &reply_to) {
                        (Ok(Outcome::Answer(message)), Some(to)) => self.step(None, |_, cx| cx.reply(to, message)),
                        (Err(refusal), Some(to)) => self.step(None, |_, cx| cx.refuse(to, refusal.clone())),
                        _ => {}
                    }
                    outcome
                }
            };
            // What follows from a request has no answer and does not take the place of one.
            if !matches!(last, Some(Ok(Outcome::Answer(_)))) {
                last = Some(outcome);
            }
        }
        last
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
        let mut batch = step::collect(&mut self.core, &mut self.features, wanted);
        batch.id = uuid::Uuid::new_v4().to_string();
        crate::journal::write_batch(&self.core.db, Arc::new(batch)).await.unwrap();
        self.step(None, |features, cx| features.committed(cx, &Ok(())));
    }

    /// Takes the frames of one type that a socket got.
    pub fn take(frames: &Frames, kind: &str) -> Vec<Value> {
        let mut all = frames.lock().unwrap();
        let (wanted, rest) = all.drain(..).partition(|frame: &Value| frame["type"] == kind);
        *all = rest;
        wanted
    }
}

fn caller(peer: PeerHandle) -> Caller {
    let (req_id, id) = (Some("r".into()), Some("i".into()));
    Caller { from: Principal::Peer(peer), waiting: None, req_id, id, confirm: false, tag: "test" }
}

/// A key from a number.
pub fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

fn member(name: &str, number: u8, role: Role) -> Member {
    Member::new(MemberId::from(format!("member-{number}")), &MeshId::from("mesh"), key(number), name, role, 0)
}
