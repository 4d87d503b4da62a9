//! The role and the schema of a mesh: made when they are first needed, let in for a minute, removed with the mesh.

use claudemesh_protocol::error::ErrorCode;
use rand::Rng;
use rand::distributions::Alphanumeric;
use tokio_postgres::error::SqlState;

use crate::db::{Apart, As, BoundedError, DbError, PostgresDb, Session};
use crate::features::sql::limits::SECONDS_PER_REQUEST;
use crate::quota::Quotas;
use crate::refusal::Refusal;

/// Connections of one mesh at once: those that read, one that writes, and some that are just ending.
const CONNECTIONS: u32 = 8;
/// How long a password is good for. The clocks of broker and server do not matter: the server's own is asked.
const PASSWORD_SECONDS: u32 = 60;
/// Bytes of temporary files that a server may write for one connection, where the broker's user may say so.
const TEMP_FILES: &str = "1GB";

/// What the broker lacks, as an operator reads it.
const NEEDS: &str = "the broker's database user needs CREATEROLE, and CREATE on the database; see docs/sql.md";

/// A fault of the server's, unless it says that the broker's user may not do this.
pub(super) fn failed(error: tokio_postgres::Error) -> Refusal {
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Refusal::new(ErrorCode::SqlUnavailable, NEEDS),
        _ => DbError::Unavailable(error.into()).into(),
    }
}

/// Makes role and schema unless they are there, and shuts the doors to the broker's own tables.
///
/// # Errors
/// `sql_unavailable`, `unavailable`.
pub(super) async fn prepare(apart: &Apart, name: &str) -> Result<(), Refusal> {
    let own = apart.own().await?;
    let row = own
        .query_one(
            "SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1), \
             EXISTS (SELECT 1 FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner \
                     WHERE n.nspname = $1 AND r.rolname = $1)",
            &[&name],
        )
        .await
        .map_err(failed)?;
    let (role, schema): (bool, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    if !role {
        // Sent as one text, so both are done or none. The broker's user is in the role so that it can make the schema for it, and end its connections.
        own.batch_execute(&format!(
            "CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT CONNECTION LIMIT {CONNECTIONS}; \
             GRANT {name} TO CURRENT_USER"
        ))
        .await
        .map_err(failed)?;
        // Only some users may; without it the disk of the server is bounded by the time that a statement has.
        let _ = own.batch_execute(&format!("ALTER ROLE {name} SET temp_file_limit = '{TEMP_FILES}'")).await;
    }
    if !schema {
        let made = own.batch_execute(&format!("CREATE SCHEMA {name} AUTHORIZATION {name}")).await;
        made.map_err(failed)?;
    }
    shut(&own, name).await
}

/// Looks whether the role has rights on the broker's schema or tables, by way of PUBLIC. Servers before 15 let anyone write into the
/// schema `public`.
async fn shut(own: &tokio_postgres::Client, name: &str) -> Result<(), Refusal> {
    let open = "SELECT has_schema_privilege($1, current_schema(), 'CREATE') \
         OR EXISTS (SELECT 1 FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') \
                    AND has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE'))";
    let is_open =
        async || own.query_one(open, &[&name]).await.and_then(|row| row.try_get::<_, bool>(0)).map_err(failed);
    if !is_open().await? {
        return Ok(());
    }
    // The name of the schema comes from the server, quoted by it.
    let shutting = "DO $$ BEGIN EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema()); END $$";
    own.batch_execute(shutting).await.map_err(failed)?;
    if is_open().await? {
        let message = "anyone may write into the schema of the broker, or read its tables; see docs/sql.md";
        return Err(Refusal::new(ErrorCode::SqlUnavailable, message));
    }
    Ok(())
}

/// A connection under the role.
///
/// # Errors
/// `sql_unavailable` when the server does not let the role in, `unavailable`.
pub(super) async fn connect(apart: &Apart, name: &str, quotas: &Quotas) -> Result<Session, Refusal> {
    let password: String = rand::rngs::OsRng.sample_iter(Alphanumeric).take(40).map(char::from).collect();
    let kept = postgres_protocol::password::scram_sha_256(password.as_bytes());
    let own = apart.own().await?;
    let until = own
        .query_one(&format!("SELECT (now() + interval '{PASSWORD_SECONDS} seconds')::text"), &[])
        .await
        .and_then(|row| row.try_get::<_, String>(0))
        .map_err(failed)?;
    own.batch_execute(&format!("ALTER ROLE {name} PASSWORD '{kept}' VALID UNTIL '{until}'")).await.map_err(failed)?;
    // The broker ends a statement itself; the server's own limit is for a broker that is gone.
    let seconds = quotas.value(&SECONDS_PER_REQUEST) + 5;
    let options = format!(
        "-c search_path={name} -c statement_timeout={seconds}s -c lock_timeout={seconds}s \
         -c idle_in_transaction_session_timeout={idle}s -c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres \
         -c bytea_output=hex -c client_min_messages=error -c max_parallel_workers_per_gather=0",
        idle = seconds * 2
    );
    let opened = apart.open(As { role: name, password: &password, options: &options }).await;
    opened.map_err(|error| match error {
        BoundedError::Driver(error) if error.code().is_some_and(is_about_login) => {
            let message = "the database server does not let the role of the mesh in with a password; see docs/sql.md";
            Refusal::new(ErrorCode::SqlUnavailable, message)
        }
        other => DbError::Unavailable(other.into()).into(),
    })
}

fn is_about_login(code: &SqlState) -> bool {
    [&SqlState::INVALID_AUTHORIZATION_SPECIFICATION, &SqlState::INVALID_PASSWORD, &SqlState::INSUFFICIENT_PRIVILEGE]
        .contains(&code)
}

/// Removes role and schema of these names, with all that is in them; returns how many there were.
///
/// # Errors
/// Storage; it is tried again.
pub(in crate::features::sql) async fn remove(db: &PostgresDb, names: &[String]) -> Result<usize, DbError> {
    let apart = db.apart();
    let fail = |error: tokio_postgres::Error| DbError::Unavailable(error.into());
    let own = apart.own().await?;
    let there =
        own.query("SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)", &[&names]).await.map_err(fail)?;
    for row in &there {
        let name: String = row.try_get(0).map_err(fail)?;
        apart.forget(&name);
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
        own.query(end, &[&name]).await.map_err(fail)?;
        own.batch_execute(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}")).await.map_err(fail)?;
    }
    Ok(there.len())
}
