//! There is no way out of the role of a mesh, and the broker's own user needs no more rights than the docs say.

use claudemesh_protocol::error::ErrorCode;
use serde_json::json;

use crate::db::Db;
use crate::db::testing::on_postgres;
use crate::features::sql::Wanted;
use crate::features::sql::database::Database;
use crate::features::sql::limits::SECONDS_PER_REQUEST;
use crate::features::sql::stop::Stop;
use crate::features::sql::tests::{Lab, statement};

/// Statements that reach out of the schema, or would change who asks.
const HOSTILE: &[&str] = &[
    "SET ROLE postgres",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION postgres",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET search_path = public",
    "SELECT set_config('role', 'postgres', false)",
    "SELECT set_config('session_authorization', 'postgres', false)",
    "DO $$ BEGIN EXECUTE 'SET ROLE postgres'; END $$",
    "DO $$ BEGIN COMMIT; END $$",
    "COPY t TO '/tmp/claudemesh-stolen'",
    "COPY t FROM '/etc/passwd'",
    "COPY t TO PROGRAM 'id'",
    "COPY t FROM STDIN",
    "COPY (SELECT 1) TO STDOUT",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/claudemesh-stolen')",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION postgres_fdw",
    "CREATE EXTENSION file_fdw",
    "SELECT dblink_connect('host=127.0.0.1')",
    "SELECT * FROM dblink('host=127.0.0.1', 'SELECT 1') AS x(n int)",
    "CREATE LANGUAGE plpython3u",
    "CREATE FUNCTION f() RETURNS int AS '/lib/x86_64-linux-gnu/libc.so.6', 'system' LANGUAGE C",
    "CREATE SCHEMA other",
    "CREATE DATABASE other",
    "CREATE ROLE other",
    "ALTER ROLE postgres PASSWORD 'x'",
    "CREATE TABLE public.x (n int)",
    "CREATE FOREIGN DATA WRAPPER x",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "LOAD 'x'",
    "SELECT pg_reload_conf()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres' AND 1 / (CASE WHEN pg_terminate_backend(pid) THEN 0 ELSE 0 END) = 1",
    "SELECT rolpassword FROM pg_authid",
    "SELECT passwd FROM pg_shadow",
    "LISTEN x",
    "NOTIFY x",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "PREPARE TRANSACTION 'x'",
    "PREPARE x AS SELECT 1",
    "DISCARD ALL",
    "CHECKPOINT",
    "VACUUM",
    "GRANT SELECT ON t TO nobody_there",
    "SELECT * FROM members",
    "TABLE public.members",
];

fn disguises(sql: &str) -> Vec<String> {
    let (head, tail) = sql.split_once(' ').unwrap_or((sql, ""));
    vec![
        sql.to_owned(),
        format!("/* SELECT /* 1 */ */ {head} /**/ {tail}"),
        format!("-- SELECT\n{head}\n\t{tail}"),
        format!(";; {sql};"),
        format!("SELECT 1; {sql}"),
        format!("\u{feff}{sql}"),
        format!("{head}\u{a0}{tail}"),
    ]
}

#[tokio::test]
async fn no_statement_leaves_the_role_or_reaches_a_file_or_the_network() {
    on_postgres(async |db: Db| {
        let (lab, other) = (Lab::new(&db, "home").await, Lab::new(&db, "abroad").await);
        for lab in [&lab, &other] {
            lab.run("CREATE TABLE t (n INTEGER)").await.unwrap();
            lab.run("INSERT INTO t VALUES (1)").await.unwrap();
        }
        for sql in HOSTILE.iter().flat_map(|sql| disguises(sql)) {
            for refusal in [lab.run(&sql).await.map(drop), lab.ask(&sql).await.map(drop)] {
                let code = refusal.expect_err(&sql).code;
                let fine = [ErrorCode::ExecuteError, ErrorCode::QueryError, ErrorCode::InvalidArgs].contains(&code);
                assert!(fine, "{sql}: {code:?}");
            }
        }
        assert!(!std::path::Path::new("/tmp/claudemesh-stolen").exists());
        // No table holds it, so no bound would count it.
        assert_eq!(lab.run("SELECT lo_create(0)").await.unwrap_err().code, ErrorCode::ExecuteError);
        let Db::Postgres(backend) = &db else { unreachable!("a server") };
        let theirs = crate::features::sql::database::name_of(other.storage.mesh());
        for sql in [
            format!("SET ROLE {theirs}"),
            format!("SELECT * FROM {theirs}.t"),
            format!("GRANT {theirs} TO CURRENT_USER"),
        ] {
            assert!(lab.run(&sql).await.is_err(), "{sql}");
        }
        // What is counted at the end cannot be forged.
        let forged =
            ["CREATE TEMP TABLE pg_class AS SELECT * FROM pg_catalog.pg_class LIMIT 0", "CREATE TABLE u (n int)"];
        let lab = lab.quota("sql.tables_per_mesh", 1);
        let refusal = lab.list(forged.map(|sql| statement(sql, vec![])).to_vec()).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Limit, "{refusal}");
        let lab = lab.quota("sql.tables_per_mesh", 500);
        // Who asks is the role, whatever is tried, and what a request leaves in a connection is gone with it.
        let mine = crate::features::sql::database::name_of(lab.storage.mesh());
        let who = "SELECT current_user::text AS u, session_user::text AS s, current_setting('search_path') AS p";
        assert_eq!(lab.ask(who).await.unwrap(), json!([{"u": mine, "s": mine, "p": mine}]));
        lab.run(
            "DO $$ BEGIN PERFORM set_config('search_path', 'pg_catalog', false); PERFORM pg_advisory_lock(7); END $$",
        )
        .await
        .unwrap();
        assert_eq!(lab.ask(who).await.unwrap(), json!([{"u": mine, "s": mine, "p": mine}]));
        let pid = "SELECT pg_backend_pid() AS pid";
        assert_eq!(lab.ask(pid).await.unwrap(), lab.ask(pid).await.unwrap(), "the connection is kept, and cleaned");
        let own = backend.apart().own().await.unwrap();
        let locks: i64 = own
            .query_one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(locks, 0);
        for lab in [lab, other] {
            assert_eq!(lab.ask("SELECT * FROM t").await.unwrap(), json!([{"n": 1}]));
            lab.remove(&db).await;
        }
    })
    .await;
}

#[tokio::test]
async fn floods_sleeps_and_large_rows_end_and_the_server_is_free_of_them() {
    on_postgres(async |db: Db| {
        let lab = Lab::new(&db, "home").await.quota(SECONDS_PER_REQUEST.name, 1);
        for bomb in [
            "SELECT count(*) FROM generate_series(1, 1000000000000)",
            "SELECT pg_sleep(1000)",
            "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b",
            "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(1000); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$",
        ] {
            assert_eq!(lab.ask(bomb).await.unwrap_err().code, ErrorCode::Timeout, "{bomb}");
        }
        // A busy machine may need longer for so large a row.
        let lab = lab.quota(SECONDS_PER_REQUEST.name, 20);
        let large = lab.ask("SELECT repeat('x', 200000000) AS x").await.unwrap_err();
        assert_eq!(large.code, ErrorCode::Limit, "{large}");
        assert_eq!(lab.ask("SELECT 1 AS one").await.unwrap(), json!([{"one": 1}]));
        let Db::Postgres(backend) = &db else { unreachable!("a server") };
        let own = backend.apart().own().await.unwrap();
        let name = crate::features::sql::database::name_of(lab.storage.mesh());
        // They are ended beside the answer.
        loop {
            let running = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active'";
            let running: i64 = own.query_one(running, &[&name]).await.unwrap().get(0);
            if running == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        lab.remove(&db).await;
    })
    .await;
}

#[tokio::test]
async fn values_of_each_type_come_as_the_server_writes_them() {
    on_postgres(async |db: Db| {
        let lab = Lab::new(&db, "home").await;
        let expressions = [
            "true", "7::int2", "-7::int4", "7::int8", "9007199254740993", "1.50::numeric(10,2)", "-0.00012345::numeric", "100000::numeric", "12345678.9012::numeric",
            "0::numeric", "'NaN'::numeric", "1e20::numeric", "0.1::float4", "0.1::float8", "'Infinity'::float8", "'a'::char", "'ab'::bpchar", "'x'::name", "NULL::int",
            "'\\x00ff'::bytea", "'{\"b\": [1, null]}'::jsonb", "'{\"b\": 1}'::json", "'9f0c8d2e-1111-4222-8333-444455556666'::uuid", "DATE '2026-11-28'", "DATE '0044-03-15 BC'",
            "TIME '12:03:04.5'", "TIMESTAMP '1969-07-20 20:17:40'", "TIMESTAMPTZ '2026-11-28 07:17:01.043863+02'", "INTERVAL '1 year 2 months 3 days 04:05:06.7'", "INTERVAL '-1 second'",
            "'infinity'::date", "ARRAY[1, NULL, 3]", "ARRAY[[1, 2], [3, 4]]", "'{}'::text[]", "ARRAY['a,b', 'NULL']", "7::oid",
        ];
        for expression in expressions {
            // The server's own text of the value is what ours has to say.
            let both = lab.ask(&format!("SELECT {expression} AS v, ({expression})::text AS t")).await.unwrap();
            let (ours, theirs) = (&both[0]["v"], &both[0]["t"]);
            let same = match ours {
                serde_json::Value::String(text) => theirs == text,
                serde_json::Value::Number(number) => *theirs == number.to_string() || theirs.as_str().unwrap().parse::<f64>().unwrap() == number.as_f64().unwrap(),
                serde_json::Value::Bool(truth) => *theirs == truth.to_string(),
                serde_json::Value::Null => theirs.is_null(),
                // Bytes, JSON and arrays are values of their own.
                serde_json::Value::Array(_) | serde_json::Value::Object(_) => true,
            };
            assert!(same, "{expression}: {ours} and {theirs}");
        }
        let nested = lab.ask("SELECT ARRAY[[1, 2], [3, 4]] AS a, ARRAY[1, NULL] AS b, '\\x00ff'::bytea AS c, '{\"x\": [1.5]}'::jsonb AS d").await.unwrap();
        assert_eq!(nested, json!([{"a": [[1, 2], [3, 4]], "b": [1, null], "c": {"type": "Buffer", "data": [0, 255]}, "d": {"x": [1.5]}}]));
        let unknown = lab.ask("SELECT '127.0.0.1'::inet AS address").await.unwrap_err();
        assert!(unknown.code == ErrorCode::QueryError && unknown.message.contains("cast it to text"), "{unknown}");
        lab.run("CREATE TYPE mood AS ENUM ('fine')").await.unwrap();
        lab.run("CREATE TABLE t (m mood, n numeric, d timestamptz, b bytea, ok boolean, a int[])").await.unwrap();
        let values = vec![json!("fine"), json!("1.23456789012345678901"), json!("2026-11-28 07:17:01+00"), json!({"type": "Buffer", "data": [1, 2]}), json!(true), json!("{1,2}")];
        lab.list(vec![statement("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6)", values)]).await.unwrap();
        let back = lab.ask("SELECT * FROM t").await.unwrap();
        assert_eq!(back, json!([{"m": "fine", "n": "1.23456789012345678901", "d": "2026-11-28 07:17:01+00", "b": {"type": "Buffer", "data": [1, 2]}, "ok": true, "a": [1, 2]}]));
        lab.remove(&db).await;
    })
    .await;
}

/// Rights that docs/sql.md names: without them there is a clear code, with them it works.
#[tokio::test]
async fn the_brokers_user_needs_two_rights_and_says_which() {
    on_postgres(async |db: Db| {
        let Db::Postgres(backend) = &db else { unreachable!("a server") };
        let lab = Lab::new(&db, "home").await;
        let own = backend.apart().own().await.unwrap();
        let schema: String = own.query_one("SELECT current_schema()::text", &[]).await.unwrap().get(0);
        let user = format!("broker_{schema}");
        own.batch_execute(&format!(
            "CREATE ROLE {user} LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA {schema} TO {user}"
        ))
        .await
        .unwrap();
        let ask = async || {
            let under = Db::Postgres(backend.under(&user, "secret"));
            let storage = crate::db::testing::of(&under, lab.storage.mesh());
            let wanted = Wanted { skip: 0, limit: 10 };
            Database::of(&storage)
                .query(statement("SELECT 1 AS one", vec![]), wanted, Stop::default(), lab.quotas.clone())
                .await
        };
        let refusal = ask().await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::SqlUnavailable, "{refusal}");
        assert!(refusal.message.contains("CREATEROLE"), "{refusal}");
        own.batch_execute(&format!("ALTER ROLE {user} CREATEROLE")).await.unwrap();
        assert_eq!(ask().await.unwrap_err().code, ErrorCode::SqlUnavailable);
        let database: String = own.query_one("SELECT quote_ident(current_database()::text)", &[]).await.unwrap().get(0);
        own.batch_execute(&format!("GRANT CREATE ON DATABASE {database} TO {user}")).await.unwrap();
        assert_eq!(json!(ask().await.unwrap().rows), json!([{"one": 1}]));
        // A schema into which everyone may write is refused, unless the broker may shut it.
        own.batch_execute(&format!("GRANT CREATE ON SCHEMA {schema} TO PUBLIC")).await.unwrap();
        assert_eq!(ask().await.unwrap_err().code, ErrorCode::SqlUnavailable);
        assert!(lab.ask("SELECT 1 AS one").await.is_ok(), "its owner shuts it");
        assert!(ask().await.is_ok());
        lab.remove(&db).await;
        own.batch_execute(&format!("DROP OWNED BY {user}; DROP ROLE {user}")).await.unwrap();
    })
    .await;
}
