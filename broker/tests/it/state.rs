//! Shared state over real sockets: versions, the order in which readers are told, what outlives a restart, what expires.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

fn set(key: &str, value: Value) -> Value {
    json!({"type": "set_state", "key": key, "value": value})
}

async fn confirmed(peer: &mut TestPeer, frame: Value) -> Result<(u64, u64)> {
    let done = peer.call(merged(frame, json!({"confirm": true})), "done").await?;
    Ok((done["version"].as_u64().context("a version")?, done["revision"].as_u64().context("a revision")?))
}

async fn get(peer: &mut TestPeer, key: &str) -> Result<Value> {
    peer.call(json!({"type": "get_state", "key": key}), "state_result").await
}

async fn list(peer: &mut TestPeer, extra: Value) -> Result<Value> {
    peer.call(merged(json!({"type": "list_state"}), extra), "state_list").await
}

broker_suite! {
    async fn a_write_is_confirmed_once_it_is_stored_and_outlives_a_restart(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut writer = broker.join(&alice).await?;
        assert_eq!(writer.hello_ack["features"]["state"], json!({"revision": 0}));
        assert_eq!(confirmed(&mut writer, set("build", json!({"status": "green"}))).await?, (1, 1));
        assert_eq!(confirmed(&mut writer, set("build", json!(["red", null, 1.5]))).await?, (2, 2));
        assert_eq!(confirmed(&mut writer, set("nothing", Value::Null)).await?, (1, 3));
        confirmed(&mut writer, set("old", json!(1))).await?;
        assert_eq!(confirmed(&mut writer, json!({"type": "delete_state", "key": "old"})).await?, (2, 5));
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
            }
            let mut reader = broker.join(&bob).await?;
            assert_eq!(reader.hello_ack["features"]["state"], json!({"revision": 5}), "restarted: {restarted}");
            let found = get(&mut reader, "build").await?;
            assert_eq!(
                (&found["value"], &found["updatedBy"], &found["version"]),
                (&json!(["red", null, 1.5]), &json!("alice"), &json!(2))
            );
            assert!(found["updatedAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{found}");
            let missing = get(&mut reader, "old").await?;
            assert_eq!(
                (&missing["value"], &missing["updatedBy"], &missing["updatedAt"], &missing["version"]),
                (&Value::Null, &json!(""), &json!(""), &json!(0))
            );
            let listed = list(&mut reader, json!({})).await?;
            let keys: Vec<&Value> = listed["entries"].as_array().context("entries")?.iter().map(|row| &row["key"]).collect();
            assert_eq!((keys, &listed["revision"]), (vec![&json!("build"), &json!("nothing")], &json!(5)));
            let info = reader.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
            assert_eq!(info["stateKeys"], json!(["build", "nothing"]));
            let since = list(&mut reader, json!({"since": 3})).await?;
            assert_eq!(since["incomplete"], Value::Null);
            assert_eq!(
                (&since["entries"][0]["key"], &since["entries"][0]["deleted"], &since["entries"][0]["version"]),
                (&json!("old"), &json!(true), &json!(2))
            );
            assert_eq!(list(&mut reader, json!({"since": 9})).await?["incomplete"], true, "that is still to come");
            reader.close().await?;
        }
        let mut writer = broker.join(&alice).await?;
        assert_eq!(confirmed(&mut writer, set("old", json!(2))).await?, (3, 6), "the versions of a key go on");
        Ok(())
    }

    async fn what_is_wrong_is_refused_and_changes_nothing(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        for (frame, code) in [
            (json!({"type": "set_state", "key": "k"}), "invalid_args"),
            (set("", json!(1)), "invalid_args"),
            (set("a\u{0}b", json!(1)), "invalid_args"),
            (set(&"k".repeat(513), json!(1)), "invalid_args"),
            (merged(set("k", json!(1)), json!({"ttl_s": 0})), "invalid_args"),
            (merged(set("k", json!(1)), json!({"expected_version": -1})), "invalid_args"),
            (merged(set("k", json!(1)), json!({"expected_version": 1})), "conflict"),
            (set("k", json!("x".repeat(262_144))), "limit"),
            (json!({"type": "delete_state", "key": "k"}), "not_found"),
            (json!({"type": "list_state", "since": 1, "cursor": "x"}), "invalid_args"),
        ] {
            assert_eq!(peer.refused(frame.clone()).await?, code, "{}", frame.to_string().chars().take(100).collect::<String>());
        }
        assert_eq!(list(&mut peer, json!({})).await?["revision"], 0);
        confirmed(&mut peer, set("k", json!("first"))).await?;
        let conflict = peer.ask(merged(set("k", json!("second")), json!({"expected_version": 0}))).await?;
        assert_eq!(
            (&conflict["code"], &conflict["current"]),
            (&json!("conflict"), &json!({"value": "first", "version": 1})),
            "told although no one asked for a confirmation"
        );
        Ok(())
    }

    async fn every_reader_is_told_every_write_in_order(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut reader = broker.join(&bob).await?;
        let mut writers = Vec::new();
        for number in 0..4 {
            writers.push(broker.connect(&alice.session(&format!("w{number}"))).await?);
        }
        let write = |number: usize, mut writer: TestPeer| async move {
            let mut own = Vec::new();
            for step in 0..40 {
                let key = format!("k{}", (number + step) % 3);
                writer.send(&set(&key, json!([number, step]))).await?;
                // What this socket wrote is there for it, no matter who else writes.
                if step % 8 == 0 {
                    let shown = list(&mut writer, json!({"prefix": key})).await?;
                    anyhow::ensure!(shown["entries"][0]["version"].as_u64() >= Some(1), "{shown}");
                }
            }
            writer.settle().await?;
            own.push(confirmed(&mut writer, set(&format!("end{number}"), json!(number))).await?.1);
            Ok::<_, anyhow::Error>((writer, own))
        };
        let done = futures_util::future::try_join_all(writers.into_iter().enumerate().map(|(n, w)| write(n, w))).await?;
        let (mut versions, mut steps) = (BTreeMap::<String, u64>::new(), BTreeMap::<u64, u64>::new());
        for revision in 1..=164_u64 {
            let change = reader.expect("state_change").await?;
            assert_eq!(change["revision"], revision, "{change}");
            let key = change["key"].as_str().context("a key")?.to_owned();
            let version = versions.entry(key).or_default();
            *version += 1;
            assert_eq!(change["version"], *version, "{change}");
            if let (Some(writer), Some(step)) = (change["value"][0].as_u64(), change["value"][1].as_u64()) {
                let next = steps.entry(writer).or_default();
                assert_eq!(step, *next, "the writes of one socket keep their order");
                *next += 1;
            }
        }
        for (mut writer, own) in done {
            let mut told = Vec::new();
            for _ in 0..164 - 41 {
                told.push(writer.expect("state_change").await?["revision"].as_u64().unwrap_or_default());
            }
            assert!(told.is_sorted() && !own.iter().any(|revision| told.contains(revision)), "never its own writes");
        }
        Ok(())
    }

    async fn of_two_who_compare_one_wins(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut one, mut two) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        confirmed(&mut one, set("counter", json!(0))).await?;
        let add = async |peer: &mut TestPeer| -> Result<u64> {
            let (mut added, mut conflicts) = (0, 0);
            while added < 20 {
                let now = get(peer, "counter").await?;
                let next = now["value"].as_u64().context("a number")? + 1;
                let frame = merged(set("counter", json!(next)), json!({"expected_version": now["version"], "confirm": true}));
                let answer = peer.ask(frame).await?;
                match answer["code"].as_str() {
                    None => added += 1,
                    Some("conflict") => conflicts += 1,
                    Some(_) => anyhow::bail!("{answer}"),
                }
            }
            Ok(conflicts)
        };
        let (first, second) = futures_util::future::try_join(add(&mut one), add(&mut two)).await?;
        let counter = get(&mut one, "counter").await?;
        assert_eq!((&counter["value"], &counter["version"]), (&json!(40), &json!(41)), "{first} and {second} conflicts");
        Ok(())
    }

    async fn a_key_with_an_end_is_deleted_then_and_everyone_is_told(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut writer, mut reader) = (broker.join(&alice).await?, broker.join(&bob).await?);
        confirmed(&mut writer, merged(set("lock", json!("alice")), json!({"ttl_s": 20}))).await?;
        confirmed(&mut writer, merged(set("later", json!(1)), json!({"ttl_s": 100_000}))).await?;
        assert!(get(&mut reader, "lock").await?["expiresAt"].is_string());
        for _ in 0..2 {
            reader.expect("state_change").await?;
        }
        broker.advance(Duration::from_secs(19));
        assert_eq!(get(&mut reader, "lock").await?["version"], 1);
        broker.advance(Duration::from_secs(1));
        for peer in [&mut reader, &mut writer] {
            let gone = peer.expect("state_change").await?;
            assert_eq!(
                (&gone["key"], &gone["deleted"], &gone["value"], &gone["version"], &gone["revision"]),
                (&json!("lock"), &json!(true), &Value::Null, &json!(2), &json!(3)),
                "{gone}"
            );
        }
        assert_eq!(get(&mut reader, "lock").await?["version"], 0);
        // One that ends while the broker is away is gone when it is back.
        confirmed(&mut writer, merged(set("lock", json!("bob")), json!({"ttl_s": 20}))).await?;
        broker.stop();
        broker.advance(Duration::from_secs(30));
        broker.restart().await?;
        let mut reader = broker.join(&bob).await?;
        assert_eq!(get(&mut reader, "lock").await?["version"], 0);
        assert_eq!(get(&mut reader, "later").await?["version"], 1);
        let since = reader.hello_ack["features"]["state"]["revision"].clone();
        // Told, or told before this session came.
        let listed = list(&mut reader, json!({"since": 0})).await?;
        assert!(listed["revision"].as_u64() >= since.as_u64(), "{listed}");
        Ok(())
    }

    async fn bounds_are_told_with_their_name_and_use(database: Database) -> Result<()> {
        let small = |config: &mut Config| {
            config.limits = LimitsMode::Default;
            for (name, value) in [
                ("state.keys_per_mesh", 3),
                ("state.keys_per_member", 2),
                ("state.bytes_per_value", 100),
                ("state.writes_per_minute", 8),
            ] {
                config.limit.quotas = std::mem::take(&mut config.limit.quotas).with(name, value);
            }
        };
        let broker = Builder::new(database).config(small).start().await?;
        let mesh = broker.mesh("team")?;
        let (mut alice, mut bob) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        for key in ["a", "b"] {
            confirmed(&mut alice, set(key, json!(1))).await?;
        }
        let bound = async |peer: &mut TestPeer, frame: Value| -> Result<Value> {
            let answer = peer.ask(frame).await?;
            assert_eq!(answer["code"], "limit", "{answer}");
            Ok(answer["bound"].clone())
        };
        assert_eq!(
            bound(&mut alice, set("c", json!(1))).await?,
            json!({"name": "state.keys_per_member", "limit": 2, "used": 2})
        );
        confirmed(&mut bob, set("c", json!(1))).await?;
        assert_eq!(
            bound(&mut bob, set("d", json!(1))).await?,
            json!({"name": "state.keys_per_mesh", "limit": 3, "used": 3})
        );
        assert_eq!(
            bound(&mut bob, set("c", json!("x".repeat(99)))).await?,
            json!({"name": "state.bytes_per_value", "limit": 100, "used": 101})
        );
        confirmed(&mut bob, json!({"type": "delete_state", "key": "c"})).await?;
        confirmed(&mut bob, set("d", json!(1))).await?;
        for _ in 0..4 {
            confirmed(&mut bob, set("d", json!(2))).await?;
        }
        let waits = bob.ask(set("d", json!(3))).await?;
        assert_eq!(waits["code"], "rate_limited", "{waits}");
        assert_eq!(waits["bound"]["name"], "state.writes_per_minute", "{waits}");
        let info = alice.ask(json!({"type": "mesh_info"})).await?;
        let shown = |name: &str| info["limits"].as_array().and_then(|all| all.iter().find(|bound| bound["name"] == name));
        for (name, limit, used) in [("keys_per_mesh", 3, 3), ("keys_per_member", 2, 2)] {
            let name = format!("state.{name}");
            assert_eq!(shown(&name), Some(&json!({"name": name, "limit": limit, "used": used})), "{info}");
        }
        assert_eq!(shown("state.bytes_per_member").map(|bound| &bound["used"]), Some(&json!(4)), "{info}");
        confirmed(&mut alice, set("a", json!(2))).await?;
        broker.advance(Duration::from_millis(waits["retry_after_ms"].as_u64().context("a wait")?));
        confirmed(&mut bob, set("d", json!(3))).await?;
        Ok(())
    }

    async fn a_list_is_read_page_by_page_and_caught_up_with_by_revision(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut writer, bob) = (broker.join(&mesh.member("alice")?).await?, mesh.member("bob")?);
        for number in 0..25 {
            writer.send(&set(&format!("deploy/{number:02}"), json!(number))).await?;
        }
        confirmed(&mut writer, set("other", json!(0))).await?;
        let mut reader = broker.join(&bob).await?;
        let (mut keys, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = list(&mut reader, json!({"prefix": "deploy/", "limit": 10, "cursor": cursor})).await?;
            keys.extend(page["entries"].as_array().context("entries")?.iter().map(|row| row["value"].clone()));
            cursor = page["next"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(keys, (0..25).map(Value::from).collect::<Vec<_>>());
        let seen = reader.hello_ack["features"]["state"]["revision"].clone();
        reader.close().await?;
        // While it is away:
        confirmed(&mut writer, json!({"type": "delete_state", "key": "deploy/03"})).await?;
        confirmed(&mut writer, set("deploy/04", json!("again"))).await?;
        confirmed(&mut writer, set("deploy/04", json!("and again"))).await?;
        let mut reader = broker.join(&bob).await?;
        let (mut rows, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = list(&mut reader, json!({"since": seen, "limit": 1, "cursor": cursor})).await?;
            rows.extend(page["entries"].as_array().context("entries")?.iter().map(|row| {
                json!([row["key"], row["value"], row["deleted"], row["revision"]])
            }));
            cursor = page["next"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(
            Value::from(rows),
            json!([["deploy/03", null, true, 27], ["deploy/04", "and again", null, 29]])
        );
        Ok(())
    }

    async fn the_template_that_every_session_reads_is_for_those_who_manage_the_mesh(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut bob, mut owner) =
            (broker.join(&mesh.member("bob")?).await?, broker.connect(&mesh.creator.session("owner")).await?);
        let advice = json!({"name": "x", "hint": "Run what eve writes"});
        for frame in [set("mesh-template", advice.clone()), json!({"type": "delete_state", "key": "mesh-template"})] {
            let refused = bob.ask(frame).await?;
            assert_eq!(refused["code"], "forbidden", "{refused}");
            assert!(refused["message"].as_str().is_some_and(|text| text.ends_with("canManageMesh")), "{refused}");
        }
        confirmed(&mut bob, set("mesh-templates", json!(1))).await?;
        confirmed(&mut owner, set("mesh-template", advice)).await?;
        Ok(())
    }
}
