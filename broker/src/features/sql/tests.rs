//! The database of a mesh on both backends: what it answers, what it bounds, and that there is no way out of it.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::sql::Statement;
use claudemesh_protocol::id::MemberId;
use serde_json::{Value, json};

use super::database::{Database, Recorder, name_of, sweep};
use super::limits::{BYTES_PER_MESH, SECONDS_PER_REQUEST, TABLES_PER_MESH};
use super::page::Page;
use super::stop::Stop;
use super::{Done, Wanted};
use crate::audit::{self, By};
use crate::db::testing::{NOW, key, mesh, store, store_suite};
use crate::db::{Db, meshes};
use crate::journal::MeshStore;
use crate::quota::Quotas;
use crate::refusal::Refusal;

const PAGE: Wanted = Wanted { skip: 0, limit: 1_000 };

/// One mesh with its database.
pub(super) struct Lab {
    pub(super) storage: MeshStore,
    pub(super) database: Database,
    pub(super) quotas: Quotas,
    member: MemberId,
}

impl Lab {
    pub(super) async fn new(db: &Db, slug: &str) -> Self {
        let (home, owner) = mesh(db, slug, key()).await;
        let storage = store(db, &home.id);
        Self { database: Database::of(&storage), storage, quotas: Quotas::default(), member: owner.id }
    }

    pub(super) fn quota(mut self, name: &str, value: u64) -> Self {
        self.quotas = self.quotas.with(name, value);
        self
    }

    pub(super) async fn list(&self, list: Vec<Statement>) -> Result<Done, Refusal> {
        let stop = Stop::default();
        let recorder = Recorder::new(self.storage.clone(), &self.member, NOW, &list);
        let run = self.database.execute(list, PAGE, stop.clone(), self.quotas.clone(), recorder);
        stop.within(&self.quotas, run).await
    }

    pub(super) async fn run(&self, sql: &str) -> Result<Done, Refusal> {
        self.list(vec![statement(sql, vec![])]).await
    }

    pub(super) async fn page(&self, sql: &str, params: Vec<Value>, wanted: Wanted) -> Result<Page, Refusal> {
        let stop = Stop::default();
        let ask = self.database.query(statement(sql, params), wanted, stop.clone(), self.quotas.clone());
        stop.within(&self.quotas, ask).await
    }

    pub(super) async fn ask(&self, sql: &str) -> Result<Value, Refusal> {
        Ok(json!(self.page(sql, vec![], PAGE).await?.rows))
    }

    /// What the entries say, the newest first.
    async fn audited(&self) -> Vec<Value> {
        let all = audit::Filter { event: Some("sql_executed".into()), ..audit::Filter::default() };
        let entries = audit::query(&self.storage, &all, 50).await.unwrap();
        entries.into_iter().map(|entry| serde_json::from_str(&entry.payload).unwrap()).collect()
    }

    /// Nothing of it stays on a server that is shared with other tests.
    pub(super) async fn remove(self, db: &Db) {
        assert!(meshes::delete(&self.storage, &By::member(&self.member, NOW)).await.unwrap());
        assert!(sweep(db).await.unwrap() >= 1);
    }
}

pub(super) fn statement(sql: &str, params: Vec<Value>) -> Statement {
    Statement { sql: sql.into(), params }
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> ErrorCode {
    result.unwrap_err().code
}

store_suite! {
    async fn rows_come_back_with_names_types_and_true_counts(db: Db) {
        let lab = Lab::new(&db, "home").await;
        lab.run("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, age INTEGER)").await.unwrap();
        let insert = "INSERT INTO people VALUES ($1, $2, $3)";
        let rows = [json!([1, "Ann", 41]), json!([2, "Zoë 👩‍🚀 'x' -- y", null])];
        let list = rows.iter().map(|row| statement(insert, row.as_array().unwrap().clone())).collect();
        let done = lab.list(list).await.unwrap();
        assert_eq!((done.counts, done.changes), (vec![1, 1], true));
        let page = lab.page("SELECT id, name, age FROM people WHERE id > $1 ORDER BY id", vec![json!(1)], PAGE).await.unwrap();
        assert_eq!(page.columns, ["id", "name", "age"]);
        assert_eq!(page.types.iter().map(|of| of.to_lowercase()).collect::<Vec<_>>()[1], "text");
        assert_eq!(json!(page.rows), json!([{"id": 2, "name": "Zoë 👩‍🚀 'x' -- y", "age": null}]));
        // Names also without rows.
        let empty = lab.page("SELECT id, name FROM people WHERE id = 9", vec![], PAGE).await.unwrap();
        assert_eq!((empty.columns.as_slice(), empty.rows.len(), empty.types.len()), (&["id".to_owned(), "name".to_owned()][..], 0, 2));
        assert_eq!(lab.run("UPDATE people SET age = 7").await.unwrap().counts, [2]);
        assert_eq!(lab.run("UPDATE people SET age = 8 WHERE id = 9").await.unwrap().counts, [0]);
        let returned = lab.run("DELETE FROM people WHERE id = 1 RETURNING id, age").await.unwrap();
        assert_eq!((returned.counts, json!(returned.page.rows)), (vec![1], json!([{"id": 1, "age": 7}])));
        assert_eq!(lab.run("CREATE INDEX by_age ON people (age)").await.unwrap().counts, [0]);
        lab.remove(&db).await;
    }

    async fn a_query_that_changes_something_is_refused_by_the_engine(db: Db) {
        let lab = Lab::new(&db, "home").await;
        lab.run("CREATE TABLE t (n INTEGER)").await.unwrap();
        for sql in [
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t VALUES (1) RETURNING n",
            "/* SELECT */ DELETE FROM t",
            "UPDATE t SET n = 1",
            "DROP TABLE t",
            "CREATE TABLE u (n INTEGER)",
            "ALTER TABLE t ADD COLUMN m INTEGER",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        ] {
            assert_eq!(code(lab.ask(sql).await), ErrorCode::QueryError, "{sql}");
        }
        // What only looks like a change is none.
        let fine = lab.ask("SELECT 'DROP TABLE t; GRANT' AS \"DELETE\" -- INSERT").await.unwrap();
        assert_eq!(fine, json!([{"DELETE": "DROP TABLE t; GRANT"}]));
        assert_eq!(lab.ask("SELECT * FROM t").await.unwrap(), json!([]));
        lab.remove(&db).await;
    }

    async fn tables_are_altered_renamed_and_dropped(db: Db) {
        let lab = Lab::new(&db, "home").await;
        for sql in [
            "CREATE TABLE t (n INTEGER, old TEXT)",
            "ALTER TABLE t ADD COLUMN m INTEGER",
            "ALTER TABLE t RENAME COLUMN m TO k",
            "ALTER TABLE t DROP COLUMN old",
            "ALTER TABLE t RENAME TO u",
            "CREATE TABLE v AS SELECT * FROM u",
            "DROP TABLE u",
        ] {
            lab.run(sql).await.expect(sql);
        }
        let page = lab.page("SELECT * FROM v", vec![], PAGE).await.unwrap();
        assert_eq!(page.columns, ["n", "k"]);
        lab.remove(&db).await;
    }

    async fn a_list_is_all_or_nothing_and_says_which_statement_failed(db: Db) {
        let lab = Lab::new(&db, "home").await;
        lab.run("CREATE TABLE t (n INTEGER PRIMARY KEY)").await.unwrap();
        let entries = lab.audited().await.len();
        let list = ["INSERT INTO t VALUES (1)", "CREATE TABLE u (n INTEGER)", "INSERT INTO t VALUES (1)"];
        let refusal = lab.list(list.map(|sql| statement(sql, vec![])).to_vec()).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::ExecuteError);
        assert!(refusal.message.starts_with("statement 3: "), "{refusal}");
        assert_eq!(lab.ask("SELECT * FROM t").await.unwrap(), json!([]));
        assert_eq!(code(lab.ask("SELECT * FROM u").await), ErrorCode::QueryError);
        // A transaction cannot be ended from inside of it.
        for end in ["COMMIT", "/* x */ end", "; rollback", "SAVEPOINT a", "-- a\nBEGIN"] {
            let list = ["INSERT INTO t VALUES (1)", end, "INSERT INTO t VALUES (1)"];
            let refused = lab.list(list.map(|sql| statement(sql, vec![])).to_vec()).await;
            assert!([ErrorCode::ExecuteError, ErrorCode::InvalidArgs].contains(&code(refused)), "{end}");
        }
        assert_eq!(lab.ask("SELECT * FROM t").await.unwrap(), json!([]));
        assert_eq!(lab.audited().await.len(), entries, "what changed nothing has no entry");
        for several in ["SELECT 1; SELECT 2", "SELECT 1; DROP TABLE t"] {
            assert!([ErrorCode::QueryError, ErrorCode::InvalidArgs].contains(&code(lab.ask(several).await)), "{several}");
        }
        assert!(lab.ask("SELECT 1 AS one;").await.is_ok());
        lab.remove(&db).await;
    }

    async fn each_change_has_an_entry_with_its_digest_and_nothing_of_it(db: Db) {
        let lab = Lab::new(&db, "home").await;
        lab.run("CREATE TABLE t (n TEXT)").await.unwrap();
        lab.list(vec![statement("INSERT INTO t VALUES ($1)", vec![json!("secret")]); 2]).await.unwrap();
        lab.ask("SELECT * FROM t").await.unwrap();
        let entries = lab.audited().await;
        assert_eq!(entries.len(), 2);
        let newest = &entries[0];
        assert_eq!((&newest["statements"], &newest["rows"]), (&json!(2), &json!(2)));
        assert_eq!(newest["digest"].as_str().unwrap().len(), 64);
        assert!(!newest.to_string().contains("secret"));
        lab.remove(&db).await;
    }

    async fn parameters_and_values_keep_what_they_are(db: Db) {
        let lab = Lab::new(&db, "home").await;
        let page = lab.page(
            "SELECT CAST($2 AS BIGINT) AS large, CAST($1 AS TEXT) AS text, CAST($3 AS DOUBLE PRECISION) AS real, $1 || '' AS again",
            vec![json!("it's"), json!(9_007_199_254_740_993_i64), json!(1.5)],
            PAGE,
        );
        let row = json!(page.await.unwrap().rows[0]);
        assert_eq!(row, json!({"large": "9007199254740993", "text": "it's", "real": 1.5, "again": "it's"}));
        let twice = lab.ask("SELECT 1 AS a, 2 AS a").await.unwrap();
        assert_eq!(twice, json!([{"a": 1, "a_2": 2}]));
        for params in [vec![], vec![json!(1), json!(2)]] {
            assert_eq!(code(lab.page("SELECT CAST($1 AS INTEGER)", params, PAGE).await), ErrorCode::InvalidArgs);
        }
        assert!([ErrorCode::QueryError, ErrorCode::InvalidArgs].contains(&code(lab.ask("SELECT :name").await)));
        assert!([ErrorCode::QueryError, ErrorCode::InvalidArgs].contains(&code(lab.ask("SELEC 1").await)));
        assert_eq!(code(lab.ask("SELECT * FROM nosuch").await), ErrorCode::QueryError);
        lab.remove(&db).await;
    }

    async fn pages_follow_each_other_and_a_row_too_large_is_refused(db: Db) {
        let lab = Lab::new(&db, "home").await;
        lab.run("CREATE TABLE t (n INTEGER)").await.unwrap();
        let rows = (0..25).map(|number| statement("INSERT INTO t VALUES ($1)", vec![json!(number)])).collect();
        lab.list(rows).await.unwrap();
        let mut seen = Vec::new();
        for skip in [0, 10, 20] {
            let page = lab.page("SELECT n FROM t ORDER BY n", vec![], Wanted { skip, limit: 10 }).await.unwrap();
            assert_eq!(page.more, skip < 20);
            seen.extend(page.rows.into_iter().map(|row| row["n"].as_i64().unwrap()));
        }
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
        // Rows that no one asked for are not made.
        let endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c";
        let page = lab.page(endless, vec![], Wanted { skip: 500, limit: 300 }).await.unwrap();
        assert_eq!((page.rows.len(), page.more, &page.rows[299]["n"]), (300, true, &json!(800)));
        lab.run("CREATE TABLE wide (x TEXT)").await.unwrap();
        let x = json!("x".repeat(200_000));
        for _ in 0..5 {
            lab.list(vec![statement("INSERT INTO wide VALUES ($1)", vec![x.clone()])]).await.unwrap();
        }
        let page = lab.page("SELECT x FROM wide", vec![], PAGE).await.unwrap();
        assert_eq!((page.rows.len(), page.more), (3, true));
        assert_eq!(code(lab.ask("SELECT a.x || b.x || c.x || d.x AS x FROM wide a, wide b, wide c, wide d LIMIT 1").await), ErrorCode::Limit);
        lab.remove(&db).await;
    }

    async fn the_schema_is_told_with_indexes_keys_and_views(db: Db) {
        let lab = Lab::new(&db, "home").await;
        for sql in [
            "CREATE TABLE teams (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'x')",
            "CREATE TABLE people (id INTEGER, team INTEGER REFERENCES teams (id))",
            "CREATE UNIQUE INDEX people_by_team ON people (team, id)",
            "CREATE VIEW names AS SELECT name FROM teams",
        ] {
            lab.run(sql).await.unwrap();
        }
        let (tables, more) = lab.database.schema(String::new(), Stop::default(), lab.quotas.clone()).await.unwrap();
        assert!(!more);
        assert_eq!(tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["names", "people", "teams"]);
        let [names, people, teams] = &tables[..] else { panic!("three") };
        assert!(names.view.as_ref().is_some_and(|view| view.contains("teams")) && names.columns.len() == 1);
        assert_eq!((people.indexes[0].columns.as_slice(), people.indexes[0].unique), (&["team".to_owned(), "id".to_owned()][..], true));
        let key = &people.foreign_keys[0];
        assert_eq!((key.table.as_str(), &key.columns[..], &key.references[..]), ("teams", &["team".to_owned()][..], &["id".to_owned()][..]));
        assert!(teams.columns[0].primary_key && !teams.columns[1].nullable && teams.columns[1].default.as_ref().is_some_and(|value| value.contains("'x'")));
        let (after, _) = lab.database.schema("people".into(), Stop::default(), lab.quotas.clone()).await.unwrap();
        assert_eq!(after.len(), 1);
        let (names, bytes) = lab.database.overview(&lab.quotas).await.unwrap();
        assert_eq!(names, ["names", "people", "teams"]);
        assert!(bytes > 0);
        lab.remove(&db).await;
    }

    async fn bounds_are_kept_and_what_went_over_them_is_undone(db: Db) {
        let lab = Lab::new(&db, "home").await.quota(TABLES_PER_MESH.name, 2).quota(BYTES_PER_MESH.name, 1 << 20);
        lab.run("CREATE TABLE a (x TEXT)").await.unwrap();
        lab.run("CREATE TABLE b (x TEXT)").await.unwrap();
        let refusal = lab.run("CREATE TABLE c (x TEXT)").await.unwrap_err();
        assert_eq!((refusal.code, refusal.bound.unwrap().name.as_str()), (ErrorCode::Limit, TABLES_PER_MESH.name));
        // Texts that do not compress.
        let random = |seed: u64| {
            let mut state = seed;
            (0..40_000).map(|_| { state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); char::from(33 + (state >> 58) as u8) }).collect::<String>()
        };
        let insert = |seed| statement("INSERT INTO a VALUES ($1)", vec![json!(random(seed))]);
        let refusal = lab.list((0..60).map(insert).collect()).await.unwrap_err();
        assert_eq!((refusal.code, refusal.bound.unwrap().name.as_str()), (ErrorCode::Limit, BYTES_PER_MESH.name));
        assert_eq!(lab.ask("SELECT count(*) AS n FROM a").await.unwrap(), json!([{"n": 0}]));
        // The space of what was undone may be used again.
        lab.run("DROP TABLE b").await.unwrap();
        lab.remove(&db).await;
    }

    async fn a_runaway_statement_ends_and_its_mesh_goes_on(db: Db) {
        let lab = Lab::new(&db, "home").await.quota(SECONDS_PER_REQUEST.name, 1);
        lab.run("CREATE TABLE t (n INTEGER)").await.unwrap();
        let endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";
        assert_eq!(code(lab.ask(endless).await), ErrorCode::Timeout);
        let write = "INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n % 1000 + 1 FROM c) SELECT n FROM c WHERE n = -1";
        assert_eq!(code(lab.run(write).await), ErrorCode::Timeout);
        assert_eq!(lab.ask("SELECT count(*) AS n FROM t").await.unwrap(), json!([{"n": 0}]));
        // Its caller can end it, too.
        let stop = Stop::default();
        let ask = lab.database.query(statement(endless, vec![]), PAGE, stop.clone(), lab.quotas.clone());
        let wait = stop.within(&lab.quotas, ask);
        let (told, ended) = tokio::join!(wait, async { stop.end(super::Reason::Caller) });
        assert_eq!((code(told), ended), (ErrorCode::Cancelled, true));
        assert_eq!(lab.ask("SELECT 1 AS one").await.unwrap(), json!([{"one": 1}]));
        lab.remove(&db).await;
    }

    async fn meshes_see_nothing_of_each_other_and_a_deleted_one_leaves_nothing(db: Db) {
        let (home, abroad) = (Lab::new(&db, "home").await, Lab::new(&db, "abroad").await);
        home.run("CREATE TABLE t (n INTEGER)").await.unwrap();
        home.run("INSERT INTO t VALUES (1)").await.unwrap();
        abroad.run("CREATE TABLE t (n INTEGER)").await.unwrap();
        assert_eq!(abroad.ask("SELECT * FROM t").await.unwrap(), json!([]));
        let theirs = name_of(home.storage.mesh());
        for sql in [format!("SELECT * FROM {theirs}.t"), format!("SELECT * FROM \"{theirs}\".\"t\""), "SELECT * FROM members".into(), "SELECT * FROM public.members".into()] {
            assert_eq!(code(abroad.ask(&sql).await), ErrorCode::QueryError, "{sql}");
        }
        for sql in [format!("DROP TABLE {theirs}.t"), format!("INSERT INTO {theirs}.t VALUES (2)"), format!("CREATE TABLE {theirs}.u (n INTEGER)")] {
            assert_eq!(code(abroad.run(&sql).await), ErrorCode::ExecuteError, "{sql}");
        }
        assert_eq!(home.ask("SELECT * FROM t").await.unwrap(), json!([{"n": 1}]));
        home.remove(&db).await;
        assert_eq!(abroad.ask("SELECT * FROM t").await.unwrap(), json!([]), "another mesh keeps what it has");
        assert_eq!(sweep(&db).await.unwrap(), 0);
        abroad.remove(&db).await;
    }
}
