//! Schema changes, compiled in, applied by one process at a time.

use diesel::migration::{Migration, MigrationVersion};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{Db, DbError};

#[cfg(feature = "sqlite")]
const SQLITE: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");
#[cfg(feature = "postgres")]
const POSTGRES: EmbeddedMigrations = embed_migrations!("../migrations/postgres");
/// Names our lock among the advisory locks of a PostgreSQL database: "clmesh" in ASCII.
#[cfg(feature = "postgres")]
const LOCK: i64 = 0x636c_6d65_7368;

#[derive(Clone, Copy)]
enum Direction {
    Up,
    #[cfg(test)]
    Down,
}

/// Applies what is missing, all in one transaction; returns the versions applied.
pub(super) async fn up(db: &Db) -> Result<Vec<String>, DbError> {
    run(db, Direction::Up).await
}

/// Takes everything back.
#[cfg(test)]
pub(super) async fn down(db: &Db) -> Result<Vec<String>, DbError> {
    run(db, Direction::Down).await
}

async fn run(db: &Db, direction: Direction) -> Result<Vec<String>, DbError> {
    let db = db.clone();
    // Diesel's migrations are synchronous. A thread of their own can wait for anything without stalling an actor.
    let work = tokio::task::spawn_blocking(move || {
        let thread = std::thread::Builder::new().name("migrate".into()).spawn(move || run_blocking(&db, direction));
        let thread = thread.map_err(|error| DbError::Migration(error.into()))?;
        thread.join().unwrap_or_else(|_| Err(DbError::Migration("the migration thread panicked".into())))
    });
    work.await.map_err(|error| DbError::Migration(error.into()))?
}

fn run_blocking(db: &Db, direction: Direction) -> Result<Vec<String>, DbError> {
    match db {
        #[cfg(feature = "sqlite")]
        Db::Sqlite(backend) => {
            let mut conn = super::sqlite::connect(backend.path(), None)?;
            // The write lock of the file is the lock: a second process waits and then finds nothing to do.
            conn.immediate_transaction(|conn| {
                let applied = apply(conn, SQLITE, direction)?;
                super::plans::describe(conn)?;
                Ok(applied)
            })
        }
        #[cfg(feature = "postgres")]
        Db::Postgres(backend) => {
            use diesel::connection::SimpleConnection;
            use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .map_err(|error| DbError::Migration(error.into()))?;
            let _entered = runtime.enter();
            let conn = runtime.block_on(backend.server().connect())?;
            let mut conn = AsyncConnectionWrapper::<_>::from(conn);
            diesel::Connection::transaction(&mut conn, |conn| {
                conn.batch_execute(&format!("SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock({LOCK})"))?;
                apply(conn, POSTGRES, direction)
            })
        }
    }
}

fn apply<C, DB>(conn: &mut C, source: EmbeddedMigrations, direction: Direction) -> Result<Vec<String>, DbError>
where
    C: MigrationHarness<DB>,
    DB: diesel::backend::Backend,
    EmbeddedMigrations: diesel::migration::MigrationSource<DB>,
{
    let known: Vec<Box<dyn Migration<DB>>> =
        diesel::migration::MigrationSource::migrations(&source).map_err(DbError::Migration)?;
    let applied = conn.applied_migrations().map_err(DbError::Migration)?;
    if let Some(newer) = applied.iter().find(|version| !known.iter().any(|one| one.name().version() == **version)) {
        return Err(DbError::TooNew(newer.to_string()));
    }
    let names = |versions: Vec<MigrationVersion<'_>>| versions.iter().map(ToString::to_string).collect();
    match direction {
        Direction::Up => conn.run_pending_migrations(source).map(names).map_err(DbError::Migration),
        #[cfg(test)]
        Direction::Down => conn.revert_all_migrations(source).map(names).map_err(DbError::Migration),
    }
}
