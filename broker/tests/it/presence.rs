//! What peers say about themselves, and who hears of it.

use std::time::Duration;

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

async fn listed(peer: &mut TestPeer, name: &str) -> Result<Value> {
    let list = peer.call(json!({"type": "list_peers"}), "peers_list").await?;
    let mut peers = list["peers"].as_array().into_iter().flatten();
    Ok(peers.find(|peer| peer["displayName"] == name).cloned().unwrap_or(Value::Null))
}

broker_suite! {
    async fn others_see_status_summary_profile_and_stats(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut watcher = broker.join(&mesh.member("alice")?).await?;
        let mut bob = broker.join(&mesh.member("bob")?).await?;
        bob.send(&json!({"type": "set_status", "status": "dnd"})).await?;
        bob.send(&json!({"type": "set_summary", "summary": "reviews"})).await?;
        bob.send(&json!({"type": "set_stats", "stats": {"messagesIn": 2, "toolCalls": 7}})).await?;
        bob.call(json!({"type": "set_profile", "title": "Reviewer", "capabilities": ["rust"]}), "ack").await?;
        bob.settle().await?;
        let seen = listed(&mut watcher, "bob").await?;
        assert_eq!(seen["status"], "dnd", "{seen}");
        assert_eq!(seen["summary"], "reviews");
        assert_eq!(seen["profile"]["title"], "Reviewer");
        assert_eq!(seen["stats"]["toolCalls"].as_f64(), Some(7.0));
        assert_eq!(seen["cwd"], "/tmp/test");
        Ok(())
    }

    async fn two_sessions_of_a_member_do_not_show_each_others_data(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let bob = mesh.member("bob")?;
        let sessions = [bob.session("one"), bob.session("two")];
        for session in &sessions {
            let mut peer = broker.connect(session).await?;
            let name = session.id.as_str();
            peer.send(&json!({"type": "set_summary", "summary": format!("summary of {name}")})).await?;
            peer.send(&json!({"type": "join_group", "name": name, "role": "lead"})).await?;
            peer.call(json!({"type": "set_profile", "title": format!("title of {name}")}), "ack").await?;
            peer.call(json!({"type": "set_visible", "visible": name == "two"}), "ack").await?;
            peer.close().await?;
        }
        // Their leases end, and the broker is started anew: each comes back as itself, not as its sibling.
        let mut watcher = broker.join(&mesh.member("alice")?).await?;
        broker.pass(Duration::from_secs(180), &mut watcher).await?;
        broker.restart().await?;
        let (mut one, _two) = (broker.connect(&sessions[0]).await?, broker.connect(&sessions[1]).await?);
        assert_eq!((&one.hello_ack["restored"], &one.hello_ack["reattached"]), (&json!(true), &Value::Null));
        assert_eq!(one.hello_ack["lastSummary"], "summary of one");
        assert_eq!(one.hello_ack["restoredGroups"], json!([{"name": "one", "role": "lead"}]));
        let list = one.call(json!({"type": "list_peers"}), "peers_list").await?;
        let peers = list["peers"].as_array().cloned().unwrap_or_default();
        assert_eq!(peers.len(), 2, "{list}");
        for peer in peers {
            let name = peer["sessionId"].as_str().unwrap_or_default();
            assert_eq!(peer["summary"], format!("summary of {name}"), "{list}");
            assert_eq!(peer["groups"], json!([{"name": name, "role": "lead"}]), "{list}");
            assert_eq!(peer["profile"]["title"], format!("title of {name}"), "{list}");
            assert_eq!(peer["visible"], name == "two", "{list}");
        }
        // A third session of the member has nothing of either.
        let third = broker.connect(&bob.session("three")).await?;
        assert_eq!(third.hello_ack["restored"], Value::Null, "{}", third.hello_ack);
        let list = one.call(json!({"type": "list_peers"}), "peers_list").await?;
        let third = list["peers"].as_array().into_iter().flatten().find(|peer| peer["sessionId"] == "three");
        let third = third.expect("it is listed");
        assert_eq!((&third["visible"], &third["groups"], &third["summary"]), (&json!(true), &json!([]), &Value::Null));
        Ok(())
    }

    async fn hiding_and_showing_is_told_to_the_others(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut watcher = broker.join(&mesh.member("alice")?).await?;
        let mut bob = broker.join(&mesh.member("bob")?).await?;
        bob.call(json!({"type": "set_visible", "visible": false}), "ack").await?;
        assert_eq!(watcher.event("peer_hidden").await?["name"], "bob");
        assert_eq!(listed(&mut watcher, "bob").await?, Value::Null);
        assert_eq!(listed(&mut bob, "bob").await?["displayName"], "bob", "one sees oneself");
        bob.call(json!({"type": "set_visible", "visible": true}), "ack").await?;
        assert_eq!(watcher.event("peer_visible").await?["name"], "bob");
        Ok(())
    }

    async fn a_hidden_peer_comes_and_goes_without_a_word(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut watcher = broker.join(&mesh.member("alice")?).await?;
        let session = mesh.member("bob")?.session("one");
        let mut bob = broker.connect(&session).await?;
        bob.call(json!({"type": "set_visible", "visible": false}), "ack").await?;
        bob.close().await?;
        let carol = broker.join(&mesh.member("carol")?).await?;
        carol.close().await?;
        // Bob's lease ends first; the first that the others hear of anyone's leaving is of Carol.
        broker.pass(Duration::from_secs(120), &mut watcher).await?;
        assert_eq!(watcher.event("peer_left").await?["name"], "carol");
        Ok(())
    }

    async fn a_write_can_name_the_session_of_the_same_member(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut running = broker.connect(&bob.session("running")).await?;
        let mut stranger = broker.join(&alice).await?;
        let hello = bob.hello_at(broker.now_ms(), "verb", json!({"capabilities": ["client_ack", "ephemeral"]}));
        let mut verb = TestPeer::hello(&broker.url(), hello, bob.key.clone()).await?;
        let write = json!({"type": "set_summary", "summary": "from the shell", "targetSession": "running", "confirm": true});
        assert_eq!(verb.call(write.clone(), "done").await?["sessions"], 1);
        assert_eq!(listed(&mut running, "bob").await?["summary"], "from the shell");
        let answer = stranger.ask(write).await?;
        assert!(answer["type"] == "error" || answer["sessions"] == 0, "another member's session: {answer}");
        Ok(())
    }
}
