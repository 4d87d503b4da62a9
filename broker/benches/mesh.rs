//! What one message costs inside a mesh, without sockets and disk, and what a batch costs on disk.
//! `cargo bench -p claudemesh-broker`.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use actix_rt::System;
use claudemesh_broker::audit::HeadSigner;
use claudemesh_broker::blobs::Blobs;
use claudemesh_broker::clock::SystemClock;
use claudemesh_broker::config::{Config, Connections, Limits};
use claudemesh_broker::db::meshes;
use claudemesh_broker::db::{Db, DbOptions};
use claudemesh_broker::features::messaging::store;
use claudemesh_broker::features::messaging::store::types::{MessagingPart, NewDelivery, NewMessage, RecipientKind};
use claudemesh_broker::features::messaging::{Messaging, MessagingMemory};
use claudemesh_broker::journal::{Batch, Journal, MeshStore, write_batch};
use claudemesh_broker::mesh::context::{Caller, Core, MeshContext, Shared};
use claudemesh_broker::mesh::dispatch::Feature;
use claudemesh_broker::mesh::peers::{Member, Moment, Peer, PeerHandle, Role, Roster};
use claudemesh_broker::mesh::principal::Principal;
use claudemesh_broker::session::Out;
use claudemesh_broker::session::queue::{PeerSender, SendQueue};
use claudemesh_protocol::features::messaging::{ClientAck, Priority, Request, Send};
use claudemesh_protocol::id::{MeshId, PublicKey};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Base64 of a sealed body of 300 bytes.
const BODY_CHARS: usize = 424;

/// A socket that is always ready.
struct Drain(Arc<SendQueue>);

impl Actor for Drain {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(512);
    }
}

impl Handler<Out> for Drain {
    type Result = ();

    fn handle(&mut self, out: Out, _: &mut Self::Context) {
        if let Out::Ready = out {
            drop(self.0.take());
            self.0.mark_written();
        }
    }
}

struct Fixture {
    core: Core,
    memory: MessagingMemory,
    _data: tempfile::TempDir,
}

fn key(number: u16) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    PublicKey::from_bytes(bytes)
}

fn mesh() -> meshes::MeshRecord {
    meshes::MeshRecord::new("mesh".into(), "mesh", key(0), 0)
}

fn member(number: u16, role: Role) -> Member {
    let name = format!("peer {number}");
    Member::new(format!("member-{number}").into(), &"mesh".into(), key(number), &name, role, 0)
}

async fn database() -> (Db, tempfile::TempDir) {
    let data = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", data.path().join("bench.db").display());
    let db = Db::open(&url, DbOptions::default()).await.expect("a new file opens");
    db.migrate().await.expect("a new file is migrated");
    (db, data)
}

impl Fixture {
    async fn new() -> Self {
        let (db, data) = database().await;
        let (journal, _) = Journal::start(db.clone());
        let config = Config { data_dir: data.path().to_owned(), ..Config::default() };
        let shared = Shared {
            clock: SystemClock::shared(),
            db,
            journal,
            audit: Arc::new(HeadSigner::open(data.path()).expect("a new folder gets a key")),
            limits: Limits::default().without_rates(),
            connections: Connections::default(),
            hooks: Arc::default(),
            blobs: Arc::new(Blobs::open(&config).expect("a new folder can be used")),
            hosting: Arc::new(claudemesh_broker::mesh::hosting::NoHost),
        };
        let core = Core::new(mesh(), Roster::default(), &shared);
        Self { core, memory: MessagingMemory::new(0, Default::default(), vec![], vec![]), _data: data }
    }

    /// A member with one connected session.
    fn join(&mut self, number: u16, acks: bool) -> PeerHandle {
        let member = member(number, Role::Member);
        self.core.roster.put_member(member.clone());
        let load = Arc::<SendQueue>::default();
        let at = self.core.roster.next_ref();
        self.core.roster.insert(Peer {
            proven: true,
            acks,
            pulls: true,
            socket: Some(PeerSender::new(Drain(load.clone()).start().recipient(), load)),
            socket_no: u64::from(number),
            ..Peer::new(at, &member, Some(key(number + 10_000)), Moment::default())
        });
        at
    }

    fn ask(&mut self, peer: PeerHandle, request: impl Into<Request>) {
        let caller = Caller {
            from: Principal::Peer(peer),
            waiting: None,
            req_id: None,
            id: Some("1".into()),
            confirm: false,
            tag: "",
        };
        let mut cx = MeshContext::new(&mut self.core, Some(caller));
        if Messaging::handle(&mut self.memory, &mut cx, request.into()).is_err() {
            panic!("the request was refused");
        }
        self.core.events.clear();
    }

    /// Id of the message that was admitted last.
    fn last_id(&self) -> String {
        let newest = self.memory.next_seq - 1;
        self.memory.open.get(&newest).expect("a message waits for its acknowledgement").message.id.to_string()
    }
}

fn send(target: &str) -> Send {
    Send {
        target_spec: target.into(),
        priority: Priority::Next,
        nonce: "A".repeat(32),
        ciphertext: "A".repeat(BODY_CHARS),
        ..Send::default()
    }
}

/// Lets the sockets take what was handed to them.
async fn breathe() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

/// `send` and the `client_ack` that settles it.
fn dispatch(c: &mut Criterion) {
    let system = System::new();
    let mut fixture = system.block_on(Fixture::new());
    let (from, to) = system.block_on(async { (fixture.join(1, true), fixture.join(2, true)) });
    let frame = send(&key(10_002).to_hex());
    c.bench_function("dispatch/send and client_ack", |bencher| {
        bencher.iter_custom(|rounds| {
            system.block_on(async {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let start = Instant::now();
                    fixture.ask(from, frame.clone());
                    let id = fixture.last_id();
                    fixture.ask(to, ClientAck { broker_message_id: Some(id), ..ClientAck::default() });
                    spent += start.elapsed();
                    breathe().await;
                }
                spent
            })
        });
    });
    assert!(fixture.memory.open.is_empty(), "every message was settled");
}

/// One message to everyone, handed to every mailbox.
fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    for receivers in [10_u16, 100, 1_000] {
        let system = System::new();
        let mut fixture = system.block_on(Fixture::new());
        let from = system.block_on(async {
            for number in 2..receivers + 2 {
                // Without acknowledgements a delivery is settled when the mailbox has it.
                fixture.join(number, false);
            }
            fixture.join(1, true)
        });
        let frame = send("*");
        group.throughput(Throughput::Elements(receivers.into()));
        group.bench_with_input(BenchmarkId::from_parameter(receivers), &receivers, |bencher, _| {
            bencher.iter_custom(|rounds| {
                system.block_on(async {
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        let start = Instant::now();
                        fixture.ask(from, frame.clone());
                        spent += start.elapsed();
                        breathe().await;
                    }
                    spent
                })
            });
        });
        assert!(fixture.memory.open.is_empty(), "every delivery was taken");
    }
    group.finish();
}

fn batch(mesh: &MeshId, first: i64, count: i64) -> Batch {
    let messages: Vec<Arc<NewMessage>> = (first..first + count)
        .map(|seq| {
            let id = format!("{seq:032}").into();
            Arc::new(NewMessage {
                sender_name: "peer 1".into(),
                target_spec: key(2).to_hex().into(),
                nonce: "A".repeat(32),
                ciphertext: "A".repeat(BODY_CHARS),
                ..NewMessage::new(mesh.clone(), seq, id, ("member-1".into(), key(1)), 1_700_000_000_000)
            })
        })
        .collect();
    let deliveries = messages
        .iter()
        .map(|message| NewDelivery {
            mesh_id: mesh.clone(),
            seq: message.seq,
            recipient_key: key(2),
            kind: RecipientKind::Session,
            member_id: "member-2".into(),
            priority: message.priority,
            size_bytes: 700,
        })
        .collect();
    let mut batch = Batch::of(MessagingPart { messages, deliveries, ..MessagingPart::default() });
    batch.id = uuid::Uuid::new_v4().to_string();
    batch
}

/// A batch of messages with their deliveries on SQLite as the journal writes it, and the backlog of one recipient.
fn disk(c: &mut Criterion) {
    let system = System::new();
    let (db, _data) = system.block_on(database());
    let record = mesh();
    let storage =
        MeshStore::new(db.clone(), record.id.clone(), system.block_on(async { Journal::start(db.clone()).0 }));
    system.block_on(meshes::create(&storage, &record, &member(1, Role::Owner))).expect("a new mesh is stored");
    let mut next = 1;
    let mut group = c.benchmark_group("store");
    group.sample_size(20);
    for count in [1_i64, 64, 512] {
        group.throughput(Throughput::Elements(count.unsigned_abs()));
        group.bench_with_input(BenchmarkId::new("write and sync", count), &count, |bencher, &count| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let batch = Arc::new(batch(&record.id, next, count));
                    next += count;
                    let start = Instant::now();
                    system.block_on(write_batch(&db, batch)).expect("the batch is written");
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    group.throughput(Throughput::Elements(256));
    group.bench_function("read a backlog of 256", |bencher| {
        bencher.iter(|| {
            let recipient = key(2);
            let read = store::load_queue_class(&storage, &recipient, Priority::Next, 0, 256);
            assert_eq!(system.block_on(read).expect("the backlog is read").len(), 256);
        });
    });
    group.finish();
}

criterion_group!(benches, dispatch, fan_out, disk);
criterion_main!(benches);
