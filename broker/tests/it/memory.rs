//! Memory over real sockets: what outlives a restart, who may forget what, what is refused, pages and bounds.

use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

async fn remember(peer: &mut TestPeer, content: &str, tags: Value) -> Result<String> {
    let stored = peer.call(json!({"type": "remember", "content": content, "tags": tags}), "memory_stored").await?;
    assert_eq!(stored["id"], stored["memoryId"], "under both names");
    Ok(stored["id"].as_str().context("an id")?.to_owned())
}

async fn recall(peer: &mut TestPeer, query: &str, extra: Value) -> Result<Value> {
    peer.call(merged(json!({"type": "recall", "query": query}), extra), "memory_results").await
}

async fn list(peer: &mut TestPeer, extra: Value) -> Result<Value> {
    peer.call(merged(json!({"type": "list_memories"}), extra), "memory_results").await
}

async fn forget(peer: &mut TestPeer, id: &str) -> Result<Value> {
    peer.ask(json!({"type": "forget", "memoryId": id})).await
}

fn texts(results: &Value) -> Vec<&str> {
    let rows = results["memories"].as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter().filter_map(|row| row["content"].as_str()).collect()
}

broker_suite! {
    async fn what_one_remembers_others_find_also_after_a_restart(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut writer = broker.join(&alice).await?;
        let id = remember(&mut writer, "Deploying to prod\nhappens on Fridays", json!(["ops"])).await?;
        let again = writer.call(json!({"type": "remember", "content": "Deploying to prod\nhappens on Fridays", "tags": ["ops"]}), "memory_stored").await?;
        assert_eq!((&again["id"], &again["duplicate"]), (&json!(id), &json!(true)), "a retry is the same memory");
        remember(&mut writer, "something else", json!([])).await?;
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
            }
            let mut reader = broker.join(&bob).await?;
            let found = recall(&mut reader, "deploy", json!({})).await?;
            let row = &found["memories"][0];
            assert_eq!((texts(&found).len(), &row["id"], &row["tags"]), (1, &json!(id), &json!(["ops"])), "{found}");
            assert_eq!((&row["rememberedBy"], &row["snippet"]), (&json!("alice"), &json!("**Deploying** to prod happens on Fridays")));
            assert!(row["rememberedAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{row}");
            assert_eq!(texts(&recall(&mut reader, "ops", json!({})).await?).len(), 1, "tags are searched");
            let nothing = recall(&mut reader, "deploy kubernetes", json!({})).await?;
            assert_eq!((texts(&nothing).len(), &nothing["unmatched"]), (0, &json!(["kubernetes"])));
            let info = reader.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
            assert_eq!(info["memoryCount"], 2, "restarted: {restarted}");
            let limits = info["limits"].as_array().context("limits")?;
            assert!(limits.iter().any(|bound| bound["name"] == "memory.per_mesh" && bound["used"] == 2), "{info}");
            reader.close().await?;
        }
        Ok(())
    }

    async fn forgetting_is_for_the_author_and_for_moderators(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut alice, mut bob) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let (first, second) = (remember(&mut alice, "first fact", json!([])).await?, remember(&mut alice, "second fact", json!([])).await?);
        assert_eq!(forget(&mut bob, &first).await?["code"], "forbidden");
        assert_eq!(texts(&recall(&mut bob, "fact", json!({})).await?).len(), 2, "nothing was changed");
        let gone = forget(&mut alice, &first[..8]).await?;
        assert_eq!((&gone["type"], &gone["id"], &gone["messageId"], &gone["queued"], &gone["code"]),
            (&json!("ack"), &json!(first), &json!(first), &json!(false), &Value::Null));
        assert_eq!(forget(&mut owner, &second).await?["id"], json!(second));
        for unknown in [first.as_str(), "nothing of that", "", "1234567", "%%%%%%%%", "éééééééé"] {
            let ack = forget(&mut alice, unknown).await?;
            assert_eq!((&ack["type"], &ack["code"]), (&json!("ack"), &json!("not_found")), "{unknown}");
        }
        assert_eq!(list(&mut bob, json!({})).await?["memories"], json!([]));
        assert_eq!(recall(&mut bob, "fact", json!({})).await?["unmatched"], json!(["fact"]));
        let log = owner.call(json!({"type": "audit_query", "eventType": "memory_forgotten"}), "audit_result").await?;
        assert_eq!(log["entries"].as_array().map(Vec::len), Some(2), "{log}");
        assert!(!log.to_string().contains("fact"), "never the text: {log}");
        Ok(())
    }

    async fn what_is_wrong_is_refused_and_changes_nothing(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        let remember = |content: Value, tags: Value| json!({"type": "remember", "content": content, "tags": tags});
        let words = (0..33).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
        for (frame, code) in [
            (json!({"type": "remember"}), "invalid_args"),
            (remember(json!(""), json!([])), "invalid_args"),
            (remember(json!(" \n"), json!([])), "invalid_args"),
            (remember(json!(7), json!([])), "invalid_args"),
            (remember(json!("a\u{0}b"), json!([])), "invalid_args"),
            (remember(json!("a\u{1b}[31m"), json!([])), "invalid_args"),
            (remember(json!("x"), json!("ops")), "invalid_args"),
            (remember(json!("x"), json!([""])), "invalid_args"),
            (remember(json!("x"), json!(["a\nb"])), "invalid_args"),
            (remember(json!("x"), json!(["t".repeat(65)])), "invalid_args"),
            (remember(json!("x"), json!(vec!["t"; 17])), "invalid_args"),
            (remember(json!("x".repeat(32_769)), json!([])), "limit"),
            (json!({"type": "recall"}), "invalid_args"),
            (json!({"type": "recall", "query": "x".repeat(1_025)}), "invalid_args"),
            (json!({"type": "recall", "query": words}), "invalid_args"),
            (json!({"type": "recall", "query": "x", "cursor": "-1"}), "invalid_args"),
            (json!({"type": "list_memories", "cursor": "x"}), "invalid_args"),
            (json!({"type": "list_memories", "tags": ["\u{0}"]}), "invalid_args"),
            (json!({"type": "forget"}), "invalid_args"),
        ] {
            assert_eq!(peer.refused(frame.clone()).await?, code, "{}", frame.to_string().chars().take(100).collect::<String>());
        }
        // What looks like a query language, or is no word at all, finds nothing and breaks nothing.
        for query in ["", "\"", "'", "' OR 1=1 --", "NEAR(a b, 5)", "{tokens}: a", "a AND", "(", "a:*", "<->", "\\", "*", "-", "^x", "👩‍🚀"] {
            let found = recall(&mut peer, query, json!({"limit": 0})).await?;
            assert_eq!(texts(&found), Vec::<&str>::new(), "{query}");
        }
        assert_eq!(list(&mut peer, json!({"author": "nobody"})).await?["memories"], json!([]));
        assert_eq!(list(&mut peer, json!({})).await?["memories"], json!([]));
        Ok(())
    }

    async fn who_may_not_read_or_write_shared_things_is_refused(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, mut owner) = (mesh.member("alice")?, broker.connect(&mesh.creator.session("owner")).await?);
        let mut peer = broker.join(&alice).await?;
        let deny = json!({"type": "set_permissions", "member": alice.id, "permissions": {"canWriteState": false, "canReadShared": false}});
        let done = owner.ask(deny).await?;
        assert_ne!(done["type"], "error", "{done}");
        for frame in [
            json!({"type": "remember", "content": "x"}),
            json!({"type": "recall", "query": "x"}),
            json!({"type": "list_memories"}),
            json!({"type": "forget", "memoryId": "12345678"}),
        ] {
            assert_eq!(peer.refused(frame.clone()).await?, "forbidden", "{frame}");
        }
        Ok(())
    }

    async fn lists_are_read_by_pages_tags_authors_and_times(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let member = mesh.member("bob")?;
        let (mut alice, mut bob) = (broker.join(&mesh.member("alice")?).await?, broker.join(&member).await?);
        for number in 0..5 {
            remember(&mut alice, &format!("fact number {number}"), json!([if number % 2 == 0 { "even" } else { "odd" }])).await?;
            broker.advance(Duration::from_secs(1));
        }
        let border = broker.now_ms();
        remember(&mut bob, "fact of bob", json!([])).await?;
        let (mut seen, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = list(&mut bob, json!({"limit": 2, "cursor": cursor})).await?;
            seen.extend(texts(&page).into_iter().map(str::to_owned));
            cursor = page["next"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(seen, ["fact of bob", "fact number 4", "fact number 3", "fact number 2", "fact number 1", "fact number 0"]);
        assert_eq!(texts(&list(&mut bob, json!({"tags": ["EVEN"], "limit": 2})).await?), ["fact number 4", "fact number 2"]);
        for author in ["BOB", &member.pubkey(), member.id.as_str()] {
            assert_eq!(texts(&list(&mut alice, json!({"author": author})).await?), ["fact of bob"], "{author}");
        }
        assert_eq!(texts(&recall(&mut alice, "fact", json!({"since_ms": border})).await?), ["fact of bob"]);
        assert_eq!(texts(&recall(&mut alice, "fact", json!({"until_ms": border, "tags": ["odd"]})).await?).len(), 2);
        let first = recall(&mut alice, "fact", json!({"limit": 4})).await?;
        let rest = recall(&mut alice, "fact", json!({"limit": 4, "cursor": first["next"]})).await?;
        assert_eq!((texts(&first).len(), texts(&rest).len(), &rest["next"]), (4, 2, &Value::Null));
        Ok(())
    }

    async fn bounds_are_told_with_their_name_and_use(database: Database) -> Result<()> {
        let small = |config: &mut Config| {
            config.limits = LimitsMode::Default;
            let quotas = std::mem::take(&mut config.limit.quotas);
            config.limit.quotas = quotas.with("memory.per_member", 2).with("memory.bytes_per_memory", 20).with("memory.writes_per_minute", 4);
        };
        let broker = Builder::new(database).config(small).start().await?;
        let mesh = broker.mesh("team")?;
        let mut alice = broker.join(&mesh.member("alice")?).await?;
        let frame = |text: &str| json!({"type": "remember", "content": text});
        let long = alice.ask(frame("more than twenty bytes")).await?;
        assert_eq!((&long["code"], &long["bound"]["name"]), (&json!("limit"), &json!("memory.bytes_per_memory")), "{long}");
        for text in ["one", "two"] {
            remember(&mut alice, text, json!([])).await?;
        }
        let full = alice.ask(frame("three")).await?;
        assert_eq!(full["bound"], json!({"name": "memory.per_member", "limit": 2, "used": 2}), "{full}");
        remember(&mut alice, "two", json!([])).await?;
        let waits = alice.ask(frame("two")).await?;
        assert_eq!(waits["code"], "rate_limited", "{waits}");
        assert_eq!(texts(&list(&mut alice, json!({})).await?), ["two", "one"]);
        Ok(())
    }
}
