//! Runs one test body on both backends: `store_suite!`.
//!
//! SQLite gets a fresh file, PostgreSQL a fresh schema that is dropped afterwards. The server's URL comes from
//! `CLAUDEMESH_TEST_POSTGRES`; without it the PostgreSQL half says so and passes, except with `CI=true`, where it fails.

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};

use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::id::{MeshId, PublicKey, random_id};

use super::meshes::{self, MeshRecord};
use super::{Db, DbOptions, MeshDb};
use crate::db::members::{Member, Role};
use crate::journal::{Journal, MeshStore};

/// Wall time of the tests.
pub(crate) const NOW: i64 = 1_700_000_000_000;

/// Defines tests that run on SQLite and on PostgreSQL: `store_suite! { async fn name(db: Db) { … } }`.
macro_rules! store_suite {
    ($($(#[$doc:meta])* async fn $name:ident($db:ident: Db) $body:block)*) => {
        $($(#[$doc])* async fn $name($db: $crate::db::Db) $body)*
        #[cfg(feature = "sqlite")]
        mod sqlite {
            $(#[tokio::test] async fn $name() { $crate::db::testing::on_sqlite(super::$name).await })*
        }
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[tokio::test] async fn $name() { $crate::db::testing::on_postgres(super::$name).await })*
        }
    };
}
pub(crate) use store_suite;

#[cfg(feature = "sqlite")]
pub(crate) async fn on_sqlite<F: Future<Output = ()>>(body: impl FnOnce(Db) -> F) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let url = format!("sqlite:{}", folder.path().join("new folder/broker.db").display());
    let db = Db::open(&url, DbOptions::default()).await.expect("SQLite opens");
    db.migrate().await.expect("migrations run");
    body(db).await;
}

#[cfg(feature = "postgres")]
pub(crate) async fn on_postgres<F: Future<Output = ()>>(body: impl FnOnce(Db) -> F) {
    use std::panic::AssertUnwindSafe;

    use diesel_async::SimpleAsyncConnection;
    use futures_util::FutureExt;

    let Some((url, schema)) = postgres_url() else { return };
    let mut admin = super::postgres::Server::parse(&url).expect("a URL").connect().await.expect("PostgreSQL answers");
    admin.batch_execute(&format!("CREATE SCHEMA {schema}")).await.expect("a schema can be made");
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{separator}options=-csearch_path%3D{schema}");
    let outcome = AssertUnwindSafe(async {
        let db = Db::open(&url, DbOptions::default()).await.expect("PostgreSQL opens");
        db.migrate().await.expect("migrations run");
        body(db).await;
    })
    .catch_unwind()
    .await;
    admin.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.expect("the schema can be dropped");
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// The server's URL and a schema name that is used once.
#[cfg(feature = "postgres")]
#[expect(clippy::print_stderr, reason = "a person who runs the tests by hand sees what was left out")]
fn postgres_url() -> Option<(String, String)> {
    match std::env::var("CLAUDEMESH_TEST_POSTGRES") {
        Ok(url) if !url.is_empty() => {
            let schema = format!("test_{}", random_id(&mut rand::rngs::OsRng).to_lowercase());
            Some((url, schema))
        }
        _ if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
            panic!("CLAUDEMESH_TEST_POSTGRES must name a PostgreSQL server in CI")
        }
        _ => {
            eprintln!("PostgreSQL half not run: CLAUDEMESH_TEST_POSTGRES is not set");
            None
        }
    }
}

/// A fresh random key.
pub(crate) fn key() -> PublicKey {
    SecretKey::random(&mut rand::rngs::OsRng).public()
}

/// A member that is not stored yet; members made later joined later.
pub(crate) fn member(mesh: &MeshId, name: &str, role: Role) -> Member {
    static JOINED: AtomicI64 = AtomicI64::new(NOW);
    let id = random_id(&mut rand::rngs::OsRng).into();
    Member::new(id, mesh, key(), name, role, JOINED.fetch_add(1, Ordering::Relaxed))
}

/// One mesh's storage, to read.
pub(crate) fn of(db: &Db, mesh: &MeshId) -> MeshDb {
    MeshDb::new(db.clone(), mesh.clone())
}

/// One mesh's storage, to write: with a journal of its own.
pub(crate) fn store(db: &Db, mesh: &MeshId) -> MeshStore {
    MeshStore::new(db.clone(), mesh.clone(), Journal::start(db.clone()).0)
}

/// Stores a mesh with its owner.
pub(crate) async fn mesh(db: &Db, slug: &str, owner_key: PublicKey) -> (MeshRecord, Member) {
    let mesh = MeshRecord::new(random_id(&mut rand::rngs::OsRng).into(), slug, owner_key, NOW);
    let owner = member(&mesh.id, "owner", Role::Owner);
    meshes::create(&store(db, &mesh.id), &mesh, &owner).await.expect("a mesh can be stored");
    (mesh, owner)
}

/// Storage whose server does not answer: nothing listens on that port.
#[cfg(feature = "postgres")]
pub(crate) fn unreachable() -> Db {
    let options = DbOptions { wait: std::time::Duration::from_millis(500), ..DbOptions::default() };
    Db::Postgres(super::PostgresDb::open("postgres://nobody@127.0.0.1:1/none", options).expect("opening is lazy"))
}
