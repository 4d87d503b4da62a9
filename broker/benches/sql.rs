//! What SQL of a mesh costs: many single-row inserts in one list, and a point query beside the same query of bare SQLite.
//! `cargo bench -p claudemesh-broker --bench sql`.

#![expect(clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix_rt::{System, SystemRunner};
use claudemesh_broker::audit::HeadSigner;
use claudemesh_broker::blobs::Blobs;
use claudemesh_broker::clock::SystemClock;
use claudemesh_broker::config::{Config, Connections, Limits};
use claudemesh_broker::db::{Db, DbOptions, meshes};
use claudemesh_broker::features::Features;
use claudemesh_broker::features::sql::Sql;
use claudemesh_broker::journal::{Journal, MeshStore};
use claudemesh_broker::mesh::context::{Caller, Core, MeshContext, Shared};
use claudemesh_broker::mesh::dispatch::Feature;
use claudemesh_broker::mesh::outcome::Outcome;
use claudemesh_broker::mesh::peers::{Member, Role, Roster};
use claudemesh_broker::mesh::principal::Principal;
use claudemesh_protocol::features::sql::{MeshExecute, MeshQuery, Request, Statement};
use claudemesh_protocol::id::PublicKey;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

/// Rows of one list.
const ROWS: u64 = 20_000;

struct Fixture {
    system: SystemRunner,
    core: Core,
    features: Features,
    member: Member,
    data: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let system = System::new();
        let data = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", data.path().join("bench.db").display());
        let record = meshes::MeshRecord::new("mesh".into(), "mesh", PublicKey::from_bytes([7; 32]), 0);
        let key = PublicKey::from_bytes([8; 32]);
        let member = Member::new("member".into(), &record.id, key, "bench", Role::Owner, 0);
        let shared = system.block_on(async {
            let db = Db::open(&url, DbOptions::default()).await.expect("a new file opens");
            db.migrate().await.expect("a new file is migrated");
            let (journal, _) = Journal::start(db.clone());
            let storage = MeshStore::new(db.clone(), record.id.clone(), journal.clone());
            meshes::create(&storage, &record, &member).await.expect("a new mesh is stored");
            let config = Config { data_dir: data.path().to_owned(), ..Config::default() };
            Shared {
                clock: SystemClock::shared(),
                db,
                journal,
                audit: Arc::new(HeadSigner::open(data.path()).expect("a new folder gets a key")),
                limits: Limits::default().without_rates(),
                connections: Connections::default(),
                hooks: Arc::default(),
                hosting: Arc::new(claudemesh_broker::mesh::hosting::NoHost),
                blobs: Arc::new(Blobs::open(&config).expect("a new folder can be used")),
            }
        });
        let mut core = Core::new(record, Roster::default(), &shared);
        core.roster.put_member(member.clone());
        Self { system, core, features: Features::default(), member, data }
    }

    fn ask(&mut self, request: impl Into<Request>) {
        let from = Principal::Member(self.member.id.clone());
        let caller = Caller { from, waiting: None, req_id: None, id: None, confirm: false, tag: "" };
        let mut cx = MeshContext::new(&mut self.core, Some(caller));
        let outcome = Sql::handle(&mut self.features.sql, &mut cx, request.into()).expect("the request is taken");
        let Outcome::Work(work) = outcome else { panic!("SQL runs outside of the mesh") };
        let step = self.system.block_on(work.future).expect("the work is done");
        step(&mut self.features, &mut cx).map(drop).expect("the database takes it");
    }

    fn file(&self) -> PathBuf {
        let folder = std::fs::read_dir(self.data.path().join("bench-sql")).expect("the folder of the databases");
        let files = folder.map(|entry| entry.expect("a file").path());
        files.into_iter().find(|file: &PathBuf| is_database(file)).expect("the database of the mesh")
    }
}

fn is_database(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "db")
}

fn statement(sql: &str) -> MeshExecute {
    MeshExecute { sql: sql.into(), ..MeshExecute::default() }
}

fn sql(c: &mut Criterion) {
    let mut fixture = Fixture::new();
    fixture.ask(statement("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)"));
    let mut group = c.benchmark_group("sql");
    group.sample_size(10);
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("insert single rows in a list", |bencher| {
        bencher.iter(|| {
            let insert = "INSERT INTO t (name) VALUES (?)";
            let one = |number: u64| Statement { sql: insert.into(), params: vec![json!(format!("name {number}"))] };
            fixture.ask(MeshExecute { statements: (0..ROWS).map(one).collect(), ..MeshExecute::default() });
        });
    });
    group.sample_size(50);
    group.throughput(Throughput::Elements(1));
    let point = "SELECT * FROM t WHERE id = ?";
    group.bench_function("point query", |bencher| {
        bencher.iter(|| {
            fixture.ask(MeshQuery { sql: point.into(), params: vec![json!(500)], ..MeshQuery::default() });
        });
    });
    let bare = rusqlite::Connection::open(fixture.file()).expect("the file opens");
    group.bench_function("point query of bare SQLite", |bencher| {
        bencher.iter(|| {
            let name = bare.query_row(point, [500], |row| row.get::<_, String>(1));
            assert_eq!(name.expect("a row"), "name 499");
        });
    });
    group.finish();
}

criterion_group!(benches, sql);
criterion_main!(benches);
