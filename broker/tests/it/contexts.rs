//! Contexts over real sockets: one per session, marked when the session is gone, told to those who may read.

use std::time::Duration;

use anyhow::Result;
use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

async fn share(peer: &mut TestPeer, summary: &str, extra: Value) -> Result<Value> {
    peer.call(merged(json!({"type": "share_context", "summary": summary}), extra), "context_shared").await
}

async fn get(peer: &mut TestPeer, query: &str) -> Result<Value> {
    peer.call(json!({"type": "get_context", "query": query}), "context_results").await
}

fn rows(answer: &Value) -> Vec<(&str, &str, bool)> {
    let rows = answer["contexts"].as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default();
            (text("sessionName"), text("summary"), row["gone"] == true)
        })
        .collect()
}

broker_suite! {
    async fn each_session_has_its_context_also_when_it_is_gone(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut reader = broker.join(&bob).await?;
        let (one, two) = (alice.session("one"), alice.session("two"));
        let (mut first, mut second) = (broker.connect(&one).await?, broker.connect(&two).await?);
        let full = json!({"filesRead": ["src/auth.ts"], "keyFindings": ["tokens live 15 minutes"], "tags": ["login"]});
        let id = share(&mut first, "Refactoring", full).await?["id"].clone();
        share(&mut second, "Testing", json!({})).await?;
        assert_eq!(share(&mut first, "Refactoring, half done", json!({})).await?["id"], id, "in place of the one before");
        for summary in ["Refactoring", "Testing", "Refactoring, half done"] {
            let told = reader.expect("state_change").await?;
            assert_eq!((&told["key"], &told["value"], &told["updatedBy"]), (&json!("_context:alice"), &json!(summary), &json!("alice")));
        }
        let list = reader.call(json!({"type": "list_contexts"}), "context_list").await?;
        assert_eq!(rows(&list).iter().map(|row| (row.1, row.2)).collect::<Vec<_>>(), [("Refactoring, half done", false), ("Testing", false)]);
        assert_eq!(get(&mut reader, "15 minutes").await?["unmatched"], json!(["15", "minutes"]), "that was before");
        assert_eq!(rows(&get(&mut reader, "").await?).len(), 2, "all of them");
        let found = get(&mut reader, "test").await?;
        assert_eq!((found["contexts"].as_array().map(Vec::len), &found["contexts"][0]["snippet"]), (Some(1), &json!("**Testing**")));
        let state = reader.call(json!({"type": "list_state"}), "state_list").await?;
        assert_eq!(state["entries"], json!([]), "it is no state");
        second.close().await?;
        // Past its grace, a step at a time: the others are heard of in between.
        for _ in 0..10 {
            broker.advance(Duration::from_secs(10));
            reader.settle().await?;
            first.settle().await?;
        }
        let list = reader.call(json!({"type": "list_contexts"}), "context_list").await?;
        let gone = |list: &Value| rows(list).iter().map(|row| (row.1.to_owned(), row.2)).collect::<Vec<_>>();
        assert_eq!(gone(&list), [("Refactoring, half done".to_owned(), false), ("Testing".to_owned(), true)]);
        broker.restart().await?;
        let mut reader = broker.join(&bob).await?;
        let list = reader.call(json!({"type": "list_contexts"}), "context_list").await?;
        assert_eq!(gone(&list).len(), 2, "they outlive the broker");
        Ok(())
    }

    async fn what_is_wrong_is_refused_and_bounds_are_told(database: Database) -> Result<()> {
        let small = |config: &mut Config| {
            config.limits = LimitsMode::Default;
            let quotas = std::mem::take(&mut config.limit.quotas);
            config.limit.quotas = quotas.with("contexts.per_mesh", 1).with("contexts.bytes_per_context", 40).with("contexts.writes_per_minute", 4);
        };
        let broker = Builder::new(database).config(small).start().await?;
        let mesh = broker.mesh("team")?;
        let (mut alice, mut bob) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        let frame = |extra: Value| merged(json!({"type": "share_context", "summary": "x"}), extra);
        for (frame, code) in [
            (json!({"type": "share_context"}), "invalid_args"),
            (frame(json!({"summary": " "})), "invalid_args"),
            (frame(json!({"summary": "a\u{0}"})), "invalid_args"),
            (frame(json!({"summary": "x".repeat(8_193)})), "invalid_args"),
            (frame(json!({"filesRead": "a"})), "invalid_args"),
            (frame(json!({"filesRead": ["x".repeat(1_025)]})), "invalid_args"),
            (frame(json!({"keyFindings": ["\u{1b}"]})), "invalid_args"),
            (frame(json!({"tags": vec!["t"; 201]})), "invalid_args"),
            (frame(json!({"keyFindings": ["more than forty bytes of what was found out"]})), "limit"),
            (json!({"type": "get_context"}), "invalid_args"),
            (json!({"type": "get_context", "query": "x", "cursor": "y"}), "invalid_args"),
        ] {
            assert_eq!(alice.refused(frame.clone()).await?, code, "{}", frame.to_string().chars().take(100).collect::<String>());
        }
        assert_eq!(rows(&get(&mut bob, "").await?).len(), 0);
        share(&mut alice, "one", json!({})).await?;
        let full = bob.ask(frame(json!({}))).await?;
        assert_eq!(full["bound"], json!({"name": "contexts.per_mesh", "limit": 1, "used": 1}), "{full}");
        for _ in 0..3 {
            share(&mut alice, "one again", json!({})).await?;
        }
        assert_eq!(alice.refused(frame(json!({}))).await?, "rate_limited");
        Ok(())
    }
}
