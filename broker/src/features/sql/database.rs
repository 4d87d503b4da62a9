//! The database of one mesh, of either kind; the entry of the audit log that goes with a change; removing what deleted meshes left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::sql::{Statement, Table};
use claudemesh_protocol::id::{MemberId, MeshId};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::page::Page;
#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "sqlite")]
use super::sqlite;
use super::stop::Stop;
use super::{Done, Wanted};
use crate::audit::{self, By};
use crate::db::{Db, DbError, MeshDb, meshes};
use crate::journal::MeshStore;
use crate::quota::Quotas;
use crate::refusal::Refusal;

/// Name of what belongs to a mesh: its file, its schema and its role. Ids differ in upper and lower case, and some file systems do
/// not, so a part of a hash stands behind it. Letters, digits and `_` only, at most 60 of them.
pub(super) fn name_of(mesh: &MeshId) -> String {
    let hash = hex::encode(Sha256::digest(mesh.as_str()));
    let plain = mesh.as_str().chars().all(|symbol| symbol.is_ascii_alphanumeric());
    let id =
        if plain && mesh.as_str().len() <= 40 { mesh.as_str().to_ascii_lowercase() } else { hash[..32].to_owned() };
    format!("meshdb_{id}_{}", &hash[..8])
}

/// Removes the databases of deleted meshes; returns how many there were.
///
/// # Errors
/// Storage; it is tried again with the next upkeep.
pub(super) async fn sweep(db: &Db) -> Result<usize, DbError> {
    let deleted = meshes::deleted_since(db, 0).await?;
    let names: Vec<String> = deleted.iter().map(name_of).collect();
    if names.is_empty() {
        return Ok(0);
    }
    match db {
        #[cfg(feature = "sqlite")]
        Db::Sqlite(backend) => Ok(remove_files(&sqlite::folder(backend.path()), &names)),
        #[cfg(feature = "postgres")]
        Db::Postgres(backend) => postgres::remove(backend, &names).await,
    }
}

#[cfg(feature = "sqlite")]
fn remove_files(folder: &std::path::Path, names: &[String]) -> usize {
    let files = |name: &String| sqlite::files(&folder.join(format!("{name}.db")));
    // One that stays is removed with the next upkeep.
    let removed = |file: &std::path::PathBuf| std::fs::remove_file(file).is_ok();
    names.iter().filter(|name| files(name).iter().filter(|file| removed(file)).count() > 0).count()
}

/// The database of one mesh. Cheap to clone.
#[derive(Clone)]
pub(super) struct Database {
    kind: Kind,
    /// Counts changes, from a number of its own for each time that the mesh is in memory.
    version: Arc<AtomicU64>,
}

#[derive(Clone)]
enum Kind {
    #[cfg(feature = "sqlite")]
    Sqlite(Arc<sqlite::Engine>),
    #[cfg(feature = "postgres")]
    Postgres(Arc<postgres::Engine>),
}

impl Database {
    /// That of the mesh whose storage this is. Nothing is opened yet.
    pub(super) fn of(storage: &MeshDb) -> Self {
        let name = name_of(storage.mesh());
        let kind = match storage.db() {
            #[cfg(feature = "sqlite")]
            Db::Sqlite(backend) => {
                let file = sqlite::folder(backend.path()).join(format!("{name}.db"));
                Kind::Sqlite(Arc::new(sqlite::Engine::new(file)))
            }
            #[cfg(feature = "postgres")]
            Db::Postgres(backend) => Kind::Postgres(Arc::new(postgres::Engine::new(backend, name))),
        };
        Self { kind, version: Arc::new(AtomicU64::new(u64::from(rand::random::<u32>()) << 32)) }
    }

    /// What dialect of SQL it speaks.
    pub(super) fn dialect(&self) -> &'static str {
        match &self.kind {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(_) => "sqlite",
            #[cfg(feature = "postgres")]
            Kind::Postgres(_) => "postgresql",
        }
    }

    /// Another number after each change.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// A page of a query.
    ///
    /// # Errors
    /// `query_error`, `limit`, `cancelled`, `timeout`, `busy`, `sql_unavailable`, `internal`.
    pub(super) async fn query(
        &self,
        asked: Statement,
        wanted: Wanted,
        stop: Stop,
        quotas: Quotas,
    ) -> Result<Page, Refusal> {
        match &self.kind {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(engine) => Arc::clone(engine).query(asked, wanted, stop, quotas).await,
            #[cfg(feature = "postgres")]
            Kind::Postgres(engine) => engine.query(&asked, wanted, &stop, &quotas).await,
        }
    }

    /// Runs statements in one transaction. The entry of the audit log is on disk before the change is.
    ///
    /// # Errors
    /// As [`Database::query`], with `execute_error`. Nothing was changed.
    pub(super) async fn execute(
        &self,
        list: Vec<Statement>,
        wanted: Wanted,
        stop: Stop,
        quotas: Quotas,
        recorder: Recorder,
    ) -> Result<Done, Refusal> {
        let done = match &self.kind {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(engine) => {
                let runtime = tokio::runtime::Handle::current();
                let record = move |done: &Done| runtime.block_on(recorder.write(done));
                Arc::clone(engine).execute(list, wanted, stop, quotas, record).await
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres(engine) => engine.execute(&list, wanted, &stop, &quotas, &recorder).await,
        };
        // Also after a failure, whose outcome may be unknown.
        self.version.fetch_add(1, Ordering::AcqRel);
        done
    }

    /// Tables and views behind a name, by name; and whether there are more.
    ///
    /// # Errors
    /// As [`Database::query`].
    pub(super) async fn schema(
        &self,
        after: String,
        stop: Stop,
        quotas: Quotas,
    ) -> Result<(Vec<Table>, bool), Refusal> {
        match &self.kind {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(engine) => Arc::clone(engine).schema(after, stop, quotas).await,
            #[cfg(feature = "postgres")]
            Kind::Postgres(engine) => engine.schema(&after, &stop, &quotas).await,
        }
    }

    /// Names of tables and views, and the bytes that are used. A mesh that never used SQL gets no database by this.
    ///
    /// # Errors
    /// As [`Database::query`].
    pub(super) async fn overview(&self, quotas: &Quotas) -> Result<(Vec<String>, u64), Refusal> {
        match &self.kind {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(engine) => Arc::clone(engine).overview(quotas.clone()).await,
            #[cfg(feature = "postgres")]
            Kind::Postgres(engine) => engine.overview().await,
        }
    }
}

/// Writes the entry `sql_executed` of the audit log. It names the statements by their digest: what is in them may be secret.
pub(super) struct Recorder {
    storage: MeshStore,
    by: By,
    digest: String,
    statements: usize,
}

impl Recorder {
    /// For these statements.
    pub(super) fn new(storage: MeshStore, member: &MemberId, now_ms: i64, list: &[Statement]) -> Self {
        let mut hash = Sha256::new();
        for one in list {
            // JSON has no raw line end within a text, so no two lists have the same bytes.
            hash.update(serde_json::to_vec(one).unwrap_or_default());
            hash.update(b"\n");
        }
        Self { storage, by: By::member(member, now_ms), digest: hex::encode(hash.finalize()), statements: list.len() }
    }

    /// Writes it, before the commit of the change.
    ///
    /// # Errors
    /// Storage; the change may not be made then.
    pub(super) async fn write(&self, done: &Done) -> Result<(), Refusal> {
        let rows: u64 = done.counts.iter().sum();
        let payload = json!({ "digest": self.digest, "statements": self.statements, "rows": rows });
        Ok(audit::append(&self.storage, self.by.entry("sql_executed", payload)).await?)
    }
}

/// `query_error` or `execute_error` with what the database says.
pub(super) fn query_failed(code: ErrorCode, message: &str) -> Refusal {
    /// Characters: a statement that is repeated in a message helps no one.
    const MOST: usize = 1_000;
    Refusal::new(code, message.chars().take(MOST).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_short_and_distinct() {
        let names = ["aB", "Ab", "a/../b", "a\"b", &"x".repeat(200), "0123456789abcdefghijABCDEFGHIJ01"]
            .map(|id| name_of(&MeshId::from(id.to_owned())));
        for name in &names {
            assert!(name.len() <= 60 && name.chars().all(|symbol| symbol.is_ascii_alphanumeric() || symbol == '_'));
            assert_eq!(*name, name.to_ascii_lowercase());
        }
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
