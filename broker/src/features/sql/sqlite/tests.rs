//! There is no way out of a database of a mesh in SQLite, and none to take more than its share.

use std::collections::BTreeMap;
use std::path::Path;

use claudemesh_protocol::error::ErrorCode;
use serde_json::json;

use crate::db::Db;
use crate::db::testing::on_sqlite;
use crate::features::sql::limits::{MEMORY_PER_REQUEST, SECONDS_PER_REQUEST};
use crate::features::sql::tests::Lab;

/// Statements that reach out of the database, or into the engine.
const HOSTILE: &[&str] = &[
    "ATTACH '{out}' AS x",
    "ATTACH DATABASE 'file:{out}?mode=rwc' AS x",
    "ATTACH '' AS x",
    "ATTACH ':memory:' AS x",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '{out}'",
    "VACUUM main INTO '{out}'",
    "PRAGMA writable_schema = 1",
    "PRAGMA main.writable_schema = ON",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA synchronous = OFF",
    "PRAGMA temp_store_directory = '{folder}'",
    "PRAGMA data_store_directory = '{folder}'",
    "PRAGMA max_page_count = 4294967294",
    "PRAGMA cache_size = 1000000",
    "PRAGMA mmap_size = 1000000000",
    "PRAGMA temp_store = FILE",
    "PRAGMA hard_heap_limit = 1",
    "PRAGMA soft_heap_limit = 1",
    "PRAGMA trusted_schema = 1",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA user_version = 7",
    "PRAGMA database_list",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA optimize",
    "SELECT load_extension('{out}')",
    "SELECT load_extension('libc.so.6', 'system')",
    "SELECT fts3_tokenizer('simple', x'0000000000000000')",
    "SELECT * FROM pragma_database_list",
    "SELECT file FROM pragma_database_list()",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('{out}', 'x')",
    "SELECT edit('x')",
    "SELECT * FROM fsdir('/')",
    "CREATE VIRTUAL TABLE v USING csv(filename='/etc/passwd')",
    "CREATE VIRTUAL TABLE v USING fts3(x)",
    "CREATE VIRTUAL TABLE v USING dbstat",
    "CREATE TEMP TABLE v (x)",
    "CREATE TABLE temp.v (x)",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE TEMP TRIGGER v AFTER INSERT ON t BEGIN SELECT 1; END",
    "BEGIN",
    "COMMIT",
    "SAVEPOINT a",
    "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 0, 'CREATE TABLE x (y)')",
    "UPDATE sqlite_schema SET sql = 'x'",
    "DELETE FROM sqlite_master",
    "DROP TABLE sqlite_schema",
    "SELECT * FROM main.members",
    "SELECT * FROM other.t",
    "ATTACH (SELECT '{out}') AS x",
];

/// The same statement in other clothes.
fn disguises(sql: &str) -> Vec<String> {
    let (head, tail) = sql.split_once(' ').unwrap_or((sql, ""));
    let mut all = vec![
        sql.to_owned(),
        sql.to_lowercase().replace("{OUT}", "{out}"),
        format!("/* SELECT 1 */ {head} /**/ {tail}"),
        format!("-- SELECT\n{head}\n\t{tail}"),
        format!(";;{sql};"),
        format!("{sql} -- ; SELECT 1"),
        format!("\u{feff}{sql}"),
        format!("{head}\u{a0}{tail}"),
        format!("SELECT 1; {sql}"),
        format!("ＳＥＬＥＣＴ; {sql}"),
    ];
    // These are refused when they run, and an explanation runs nothing.
    if !(sql.starts_with("VACUUM") || sql.contains("pragma_database_list")) {
        all.push(format!("EXPLAIN {sql}"));
    }
    all
}

/// Names and lengths of all files below a folder.
fn files(folder: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.path().display().to_string(), entry.metadata().unwrap().len());
        }
    }
    found
}

#[tokio::test]
async fn no_statement_reaches_another_file_or_the_engine() {
    on_sqlite(async |db: Db| {
        let Db::Sqlite(backend) = &db else { unreachable!("a file") };
        let folder = Path::new(backend.path()).parent().unwrap().to_owned();
        let lab = Lab::new(&db, "home").await;
        let other = Lab::new(&db, "abroad").await;
        for lab in [&lab, &other] {
            lab.run("CREATE TABLE t (n INTEGER)").await.unwrap();
            lab.run("INSERT INTO t VALUES (1)").await.unwrap();
        }
        let before: Vec<String> = files(&folder).into_keys().collect();
        let out = folder.join("stolen.db").display().to_string();
        let mut tried = 0;
        for sql in HOSTILE {
            let sql = sql.replace("{out}", &out).replace("{folder}", &folder.display().to_string());
            for sql in disguises(&sql) {
                for refusal in [lab.run(&sql).await.map(drop), lab.ask(&sql).await.map(drop)] {
                    let code = refusal.expect_err(&sql).code;
                    let fine = [ErrorCode::ExecuteError, ErrorCode::QueryError, ErrorCode::InvalidArgs].contains(&code);
                    assert!(fine, "{sql}: {code:?}");
                    tried += 1;
                }
            }
        }
        assert!(tried > 1_000);
        assert_eq!(files(&folder).into_keys().collect::<Vec<_>>(), before, "no file came and none went");
        for lab in [lab, other] {
            assert_eq!(lab.ask("SELECT * FROM t").await.unwrap(), json!([{"n": 1}]));
            // The connection is as it was.
            let settings = lab.ask("SELECT (SELECT user_version FROM pragma_user_version) AS version, (SELECT foreign_keys FROM pragma_foreign_keys) AS keys").await;
            assert_eq!(settings.unwrap(), json!([{"version": 0, "keys": 1}]));
        }
    })
    .await;
}

#[tokio::test]
async fn a_bomb_ends_by_time_memory_or_size() {
    on_sqlite(async |db: Db| {
        let lab =
            Lab::new(&db, "home").await.quota(SECONDS_PER_REQUEST.name, 1).quota(MEMORY_PER_REQUEST.name, 32 << 20);
        lab.run("CREATE TABLE t (n INTEGER)").await.unwrap();
        let thousand = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000)";
        let endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)";
        for bomb in [
            format!("{thousand} SELECT count(*) FROM c a, c b, c d, c e, c f"),
            format!("{endless} SELECT n FROM c ORDER BY n"),
            format!("{endless} SELECT count(DISTINCT randomblob(100000)) FROM c"),
            format!("{endless} SELECT group_concat(n) FROM c"),
            format!("{endless} SELECT sum(n) OVER (ORDER BY -n) FROM c"),
            "SELECT randomblob(2000000000)".into(),
            "SELECT zeroblob(2000000000)".into(),
            "SELECT replace(hex(zeroblob(400000)), '0', hex(zeroblob(400000)))".into(),
            format!("SELECT 'a' LIKE '{}'", "%a".repeat(1_000)),
            format!("SELECT {}1", "NOT ".repeat(5_000)),
            format!("SELECT 1 {}", "UNION ALL SELECT 1 ".repeat(2_000)),
        ] {
            let short: String = bomb.chars().take(80).collect();
            let refusal = lab.ask(&bomb).await.map(drop).expect_err(&short);
            let fine = [ErrorCode::Timeout, ErrorCode::Limit, ErrorCode::QueryError].contains(&refusal.code);
            assert!(fine, "{short}: {refusal}");
        }
        // What triggers cause ends, too, and nothing of it stays.
        lab.run("CREATE TRIGGER again AFTER INSERT ON t BEGIN INSERT INTO t SELECT n + 1 FROM t; END").await.unwrap();
        lab.run("INSERT INTO t VALUES (1)").await.unwrap();
        let flood = format!("INSERT INTO t {endless} SELECT n FROM c");
        assert!([ErrorCode::Timeout, ErrorCode::Limit].contains(&lab.run(&flood).await.unwrap_err().code));
        assert_eq!(lab.ask("SELECT 1 AS one").await.unwrap(), json!([{"one": 1}]));
        // A busy machine may need longer to fill it.
        let lab = lab.quota(SECONDS_PER_REQUEST.name, 20);
        let memory = lab
            .ask(&format!("{endless} SELECT count(DISTINCT randomblob(100000)) FROM c"))
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!((memory.code, memory.bound.unwrap().name.as_str()), (ErrorCode::Limit, MEMORY_PER_REQUEST.name));
    })
    .await;
}

#[tokio::test]
async fn full_text_tables_and_reading_pragmas_work() {
    on_sqlite(async |db: Db| {
        let lab = Lab::new(&db, "home").await;
        lab.run("CREATE VIRTUAL TABLE notes USING fts5(body)").await.unwrap();
        lab.run("INSERT INTO notes VALUES ('the build is green')").await.unwrap();
        let found = lab.ask("SELECT body FROM notes WHERE notes MATCH 'green'").await.unwrap();
        assert_eq!(found, json!([{"body": "the build is green"}]));
        assert_eq!(lab.ask("PRAGMA table_info(notes)").await.unwrap()[0]["name"], "body");
        let (names, _) = lab.database.overview(&lab.quotas).await.unwrap();
        assert_eq!(names, ["notes"], "tables that SQLite keeps for it are not told");
        assert!(lab.run("DELETE FROM notes_data").await.is_err(), "nor can they be broken");
        assert!(lab.ask("EXPLAIN QUERY PLAN SELECT * FROM notes").await.is_ok());
        let blob = lab.ask("SELECT x'00ff' AS b, 1e999 AS i").await.unwrap();
        assert_eq!(blob, json!([{"b": {"type": "Buffer", "data": [0, 255]}, "i": "Infinity"}]));
    })
    .await;
}

/// As docs/operations.md says: SQLite's own backup, while others write.
#[tokio::test]
async fn a_copy_that_is_made_while_someone_writes_is_whole() {
    on_sqlite(async |db: Db| {
        let Db::Sqlite(backend) = &db else { unreachable!("a file") };
        let lab = Lab::new(&db, "home").await;
        lab.run("CREATE TABLE t (n INTEGER PRIMARY KEY, twice INTEGER)").await.unwrap();
        let name = crate::features::sql::database::name_of(lab.storage.mesh());
        let file = super::folder(backend.path()).join(format!("{name}.db"));
        let copy = file.with_extension("copy");
        let target = copy.clone();
        let copied = tokio::task::spawn_blocking(move || {
            let from = rusqlite::Connection::open(file).unwrap();
            let mut to = rusqlite::Connection::open(target).unwrap();
            let backup = rusqlite::backup::Backup::new(&from, &mut to).unwrap();
            backup.run_to_completion(1, std::time::Duration::ZERO, None)
        });
        for number in 0..50 {
            lab.run(&format!("INSERT INTO t VALUES ({number}, {})", number * 2)).await.unwrap();
        }
        copied.await.unwrap().unwrap();
        let copy = rusqlite::Connection::open(copy).unwrap();
        let whole: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        let broken: i64 = copy.query_row("SELECT count(*) FROM t WHERE twice <> n * 2", [], |row| row.get(0)).unwrap();
        assert_eq!((whole.as_str(), broken), ("ok", 0));
    })
    .await;
}
