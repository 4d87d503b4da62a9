//! SQL over real sockets: frames, pages, cancelling, capability, restarts, kills in the middle of writes, and what others notice.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::enrol::OwnedMesh;
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::process::BrokerProcess;
use serde_json::{Value, json};

const ENDLESS: &str = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) AS n FROM c";

async fn execute(peer: &mut TestPeer, sql: &str) -> Result<Value> {
    peer.call(json!({"type": "mesh_execute", "sql": sql}), "mesh_query_result").await
}

async fn query(peer: &mut TestPeer, sql: &str, more: Value) -> Result<Value> {
    peer.call(merged(json!({"type": "mesh_query", "sql": sql}), more), "mesh_query_result").await
}

broker_suite! {
    async fn the_frames_of_older_clients_work_and_newer_fields_are_added(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let mut ann = broker.join(&alice).await?;
        // Older clients send a change without a request id.
        ann.send(&json!({"type": "mesh_execute", "sql": "CREATE TABLE cap (id INTEGER, t TEXT)"})).await?;
        let made = ann.expect("mesh_query_result").await?;
        assert_eq!((&made["columns"], &made["rows"], &made["rowCount"]), (&json!([]), &json!([]), &json!(0)));
        let inserted = execute(&mut ann, "INSERT INTO cap VALUES (1, 'x'), (2, 'y')").await?;
        assert_eq!(inserted["rowCount"], 2);
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
                ann = broker.join(&alice).await?;
            }
            let read = query(&mut ann, "SELECT * FROM cap WHERE id = 1", json!({})).await?;
            assert_eq!((&read["columns"], &read["rows"], &read["rowCount"]), (&json!(["id", "t"]), &json!([{"id": 1, "t": "x"}]), &json!(1)));
            let none = query(&mut ann, "SELECT * FROM cap WHERE id = $1", json!({"params": [9]})).await?;
            assert_eq!((&none["columns"], &none["rowCount"]), (&json!(["id", "t"]), &json!(0)));
            let schema = ann.call(json!({"type": "mesh_schema"}), "mesh_schema_result").await?;
            assert_eq!((&schema["tables"][0]["name"], &schema["tables"][0]["columns"][1]["nullable"]), (&json!("cap"), &json!(true)));
            let info = ann.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
            assert_eq!(info["tables"], json!(["cap"]));
            let bounds: Vec<_> = info["limits"].as_array().context("limits")?.iter().filter(|bound| bound["name"].as_str().is_some_and(|name| name.starts_with("sql."))).collect();
            assert!(bounds.len() == 2 && bounds.iter().all(|bound| bound["used"].as_u64() > Some(0)), "{bounds:?}");
        }
        for (frame, code) in [
            (json!({"type": "mesh_query", "sql": "SELEC"}), "query_error"),
            (json!({"type": "mesh_query", "sql": "DELETE FROM cap"}), "query_error"),
            (json!({"type": "mesh_execute", "sql": "INSERT INTO nosuch VALUES (1)"}), "execute_error"),
            (json!({"type": "mesh_execute"}), "invalid_args"),
            (json!({"type": "mesh_query", "sql": "SELECT 1", "limit": 0}), "invalid_args"),
            (json!({"type": "mesh_query", "sql": "SELECT 1", "cursor": "x"}), "invalid_args"),
        ] {
            assert_eq!(ann.refused(frame.clone()).await?, code, "{frame}");
        }
        let list = json!({"type": "mesh_execute", "statements": [
            {"sql": "INSERT INTO cap VALUES ($1, $2)", "params": [3, null]}, {"sql": "DELETE FROM cap WHERE id < 3"}]});
        assert_eq!(ann.call(list, "mesh_query_result").await?["counts"], json!([1, 2]));
        Ok(())
    }

    async fn pages_go_on_at_their_cursor_and_say_that_the_database_was_written(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut ann = broker.join(&mesh.member("alice")?).await?;
        execute(&mut ann, "CREATE TABLE t (n INTEGER)").await?;
        let batch: Vec<Value> = (0..25).map(|number| json!([number])).collect();
        let insert = json!({"type": "mesh_execute", "sql": "INSERT INTO t VALUES ($1)", "batch": batch});
        assert_eq!(ann.call(insert, "mesh_query_result").await?["rowCount"], 25);
        let (mut seen, mut cursor, mut changes) = (vec![], Value::Null, vec![]);
        loop {
            let more = if cursor.is_null() { json!({"limit": 10}) } else { json!({"limit": 10, "cursor": cursor}) };
            let page = query(&mut ann, "SELECT n FROM t ORDER BY n", more).await?;
            seen.extend(page["rows"].as_array().context("rows")?.iter().map(|row| row["n"].clone()));
            changes.push(page["changed"] == true);
            cursor = page["next"].clone();
            if cursor.is_null() {
                break;
            }
            if seen.len() == 20 {
                execute(&mut ann, "INSERT INTO t VALUES (25)").await?;
            }
        }
        assert_eq!(seen, (0..26).map(|number| json!(number)).collect::<Vec<_>>());
        assert_eq!(changes, [false, false, true]);
        Ok(())
    }

    async fn a_runaway_query_is_cancelled_and_holds_no_one_up(database: Database) -> Result<()> {
        let broker = Builder::new(database).config(|config| config.limit.quotas = config.limit.quotas.clone().with("sql.seconds_per_request", 20)).start().await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        ann.send(&json!({"type": "mesh_query", "sql": ENDLESS, "_reqId": "1", "cancelKey": "mine"})).await?;
        // Others, and the same peer's messages, go on at once.
        ann.say("bob", "still here", json!({})).await?;
        assert_eq!(ben.text().await?, "still here");
        execute(&mut ben, "CREATE TABLE t (n INTEGER)").await?;
        assert_eq!(query(&mut ben, "SELECT 1 AS one", json!({})).await?["rows"], json!([{"one": 1}]));
        // Only its own caller can end it.
        let cancel = json!({"type": "mesh_cancel", "cancelKey": "mine"});
        assert_eq!(ben.call(cancel.clone(), "mesh_cancelled").await?["cancelled"], false);
        assert_eq!(ann.call(cancel.clone(), "mesh_cancelled").await?["cancelled"], true);
        let failed = ann.find("the answer of the query", |frame| frame["_reqId"] == "1").await?;
        assert_eq!(failed["code"], "cancelled");
        assert_eq!(ann.call(cancel, "mesh_cancelled").await?["cancelled"], false);
        // A socket that closes ends what it asked: two more of them would take all places of the mesh.
        for number in 0..3 {
            let mut gone = broker.connect(&alice.session(&format!("gone-{number}"))).await?;
            gone.send(&json!({"type": "mesh_query", "sql": ENDLESS, "_reqId": "2"})).await?;
            gone.settle().await?;
            gone.close().await?;
        }
        assert_eq!(query(&mut ben, "SELECT 2 AS two", json!({})).await?["rows"], json!([{"two": 2}]));
        Ok(())
    }

    async fn sql_needs_its_capability_and_has_a_rate(database: Database) -> Result<()> {
        let bounded = |config: &mut Config| {
            config.limits = LimitsMode::Default;
            config.limit.quotas = config.limit.quotas.clone().with("sql.requests_per_minute", 3);
        };
        let broker = Builder::new(database).config(bounded).start().await?;
        let mesh = broker.mesh("team")?;
        let bob = mesh.member("bob")?;
        let (mut owner, mut ben) = (broker.join(&mesh.creator).await?, broker.join(&bob).await?);
        for _ in 0..3 {
            query(&mut ben, "SELECT 1 AS one", json!({})).await?;
        }
        assert_eq!(ben.refused(json!({"type": "mesh_schema"})).await?, "rate_limited");
        let deny = json!({"type": "set_permissions", "member": bob.id, "permissions": {"canRunSql": false}});
        owner.ask(deny).await?;
        for frame in [json!({"type": "mesh_query", "sql": "SELECT 1"}), json!({"type": "mesh_execute", "sql": "CREATE TABLE t (n INTEGER)"}), json!({"type": "mesh_schema"})] {
            assert_eq!(ben.refused(frame).await?, "forbidden");
        }
        Ok(())
    }
}

/// Rounds of kills in this test; the environment may ask for more.
fn rounds() -> usize {
    std::env::var("CLAUDEMESH_SQL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// The broker's own process is killed in the middle of writes: all that was confirmed is there, and nothing is half there.
#[tokio::test]
async fn what_was_confirmed_survives_kills_in_the_middle_of_writes() -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut broker = BrokerProcess::start(Path::new(env!("CARGO_BIN_EXE_claudemesh-broker")), data.path(), &[])?;
    let mesh = OwnedMesh::create(&broker.base(), "team")?;
    let alice = mesh.member("alice")?;
    let mut peer = TestPeer::session(&broker.url(), &alice.session("s")).await?;
    for sql in ["CREATE TABLE one (n INTEGER PRIMARY KEY)", "CREATE TABLE two (n INTEGER PRIMARY KEY, x TEXT)"] {
        execute(&mut peer, sql).await?;
    }
    let (mut sent, mut confirmed) = (0, 0);
    for round in 0..rounds() {
        // Several are on their way; the kill comes after some of them, another number each time.
        let first = sent;
        for _ in 0..8 {
            let x = "x".repeat(1 << (round % 16));
            peer.send(&json!({"type": "mesh_execute", "_reqId": format!("w{sent}"), "statements": [
                {"sql": "INSERT INTO one VALUES (?)", "params": [sent]},
                {"sql": "INSERT INTO two VALUES (?, ?)", "params": [sent, x]}]}))
                .await?;
            sent += 1;
        }
        for number in first..first + round % 8 {
            let id = format!("w{number}");
            let answer = peer.find("a confirmation", |frame| frame["_reqId"] == id.as_str()).await?;
            ensure!(answer["rowCount"] == 2, "{answer}");
            confirmed = number + 1;
        }
        broker.kill()?;
        broker.restart()?;
        peer = TestPeer::session(&broker.url(), &alice.session(&format!("s{round}"))).await?;
        let both = "SELECT (SELECT count(*) FROM one WHERE n < ?1) AS kept, \
             (SELECT count(*) FROM one LEFT JOIN two USING (n) WHERE two.n IS NULL) + \
             (SELECT count(*) FROM two LEFT JOIN one USING (n) WHERE one.n IS NULL) AS halves, \
             (SELECT integrity_check FROM pragma_integrity_check) AS whole, (SELECT max(n) FROM one) AS last";
        let found = query(&mut peer, both, json!({"params": [confirmed]})).await?["rows"][0].clone();
        assert_eq!((&found["halves"], &found["whole"]), (&json!(0), &json!("ok")), "round {round}");
        let lost = "SELECT count(*) AS n FROM one WHERE n >= ?1 AND n < ?2";
        let kept = query(&mut peer, lost, json!({"params": [first, confirmed]})).await?["rows"][0]["n"].clone();
        assert_eq!(kept, json!(confirmed - first), "round {round}: {found}");
        // What was not confirmed may be there or not; from here on it does not matter.
        confirmed = sent;
    }
    broker.terminate()?;
    Ok(())
}

/// Messages pass while all places of a mesh for SQL compute.
#[tokio::test]
async fn messages_pass_beside_statements_that_compute() -> Result<()> {
    let broker = Builder::new(Database::Sqlite)
        .config(|config| config.limit.quotas = config.limit.quotas.clone().with("sql.seconds_per_request", 20))
        .start()
        .await?;
    let mesh = broker.mesh("team")?;
    let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
    let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
    let mut busy = vec![];
    for number in 0..4 {
        let mut peer = broker.connect(&alice.session(&format!("busy-{number}"))).await?;
        peer.send(&json!({"type": "mesh_query", "sql": ENDLESS, "_reqId": "1"})).await?;
        busy.push(peer);
    }
    let messages = async {
        for number in 0..50 {
            ann.say("bob", &number.to_string(), json!({})).await?;
            ensure!(ben.text().await? == number.to_string());
        }
        Ok(())
    };
    // Statements run for twenty seconds: messages do not wait for them.
    tokio::time::timeout(Duration::from_secs(10), messages).await??;
    for peer in busy {
        peer.close().await?;
    }
    Ok(())
}
