//! Topics: who sees them, who reads what was written there, and what a history gives.

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

async fn history(peer: &mut TestPeer, extra: Value) -> Result<Vec<Value>> {
    let ask = claudemesh_testkit::identity::merged(json!({"type": "topic_history", "topic": "plans"}), extra);
    let answer = peer.call(ask, "topic_history_response").await?;
    Ok(answer["messages"].as_array().cloned().unwrap_or_default())
}

broker_suite! {
    async fn a_private_topic_does_not_exist_for_others(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, mallory) = (mesh.member("alice")?, mesh.member("mallory")?);
        let mut owner = broker.join(&alice).await?;
        let made = owner.call(json!({"type": "topic_create", "name": "plans", "visibility": "private"}), "topic_created").await?;
        let id = made["topic"]["id"].as_str().unwrap_or_default().to_owned();
        owner.say("#plans", "secret", json!({})).await?;
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
                owner = broker.join(&alice).await?;
            }
            let mut stranger = broker.join(&mallory).await?;
            for topic in ["plans", "#plans", &id] {
                for kind in ["topic_join", "topic_leave", "topic_members", "topic_history", "topic_mark_read"] {
                    let code = stranger.refused(json!({"type": kind, "topic": topic})).await?;
                    assert_eq!(code, "topic_not_found", "{kind} {topic}, restarted: {restarted}");
                }
                let ack = stranger.say(&format!("#{topic}"), "let me in", json!({})).await?;
                assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!("topic_not_found")), "{ack}");
            }
            let list = stranger.call(json!({"type": "topic_list"}), "topic_list_response").await?;
            assert_eq!(list["topics"], json!([]));
            let info = stranger.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
            assert!(!info.to_string().contains("plans"), "{info}");
            let taken = json!({"type": "topic_create", "name": "plans", "visibility": "public"});
            assert_eq!(stranger.refused(taken).await?, "already_exists");
            assert_eq!(stranger.waiting_messages().await?.len(), 0);
            assert_eq!(history(&mut owner, json!({})).await?.len(), 1);
            stranger.close().await?;
        }
        Ok(())
    }

    async fn silent_requests_are_confirmed_when_that_is_wanted(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut alice, mut bob) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        alice.call(json!({"type": "topic_create", "name": "plans"}), "topic_created").await?;
        let members = async |peer: &mut TestPeer| -> Result<Vec<Value>> {
            let ask = json!({"type": "topic_members", "topic": "plans"});
            let answer = peer.call(ask, "topic_members_response").await?;
            Ok(answer["members"].as_array().cloned().unwrap_or_default())
        };
        bob.call(json!({"type": "topic_join", "topic": "plans", "confirm": true}), "done").await?;
        assert_eq!(members(&mut bob).await?.len(), 2, "done is said when it is done");
        bob.call(json!({"type": "topic_mark_read", "topic": "plans", "confirm": true}), "done").await?;
        assert!(members(&mut bob).await?.iter().any(|member| member["lastReadAt"].is_string()));
        bob.call(json!({"type": "topic_leave", "topic": "plans", "confirm": true}), "done").await?;
        assert_eq!(members(&mut alice).await?.len(), 1);
        let missing = json!({"type": "topic_join", "topic": "nowhere", "confirm": true});
        assert_eq!(bob.refused(missing).await?, "topic_not_found");
        Ok(())
    }

    async fn a_history_has_its_bounds_and_is_of_one_topic(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        for name in ["plans", "other"] {
            peer.call(json!({"type": "topic_create", "name": name}), "topic_created").await?;
        }
        let elsewhere = peer.say("#other", "elsewhere", json!({})).await?["messageId"].clone();
        for number in 0..5 {
            peer.say("#plans", &number.to_string(), json!({})).await?;
        }
        for (limit, count) in [(json!(0), 1), (json!(2), 2), (json!(4_294_967_295_u32), 5), (Value::Null, 5)] {
            assert_eq!(history(&mut peer, json!({"limit": limit})).await?.len(), count, "{limit}");
        }
        let newest = history(&mut peer, json!({"limit": 1})).await?[0]["id"].clone();
        let older = history(&mut peer, json!({"beforeId": newest})).await?;
        assert!(older.len() == 4 && older.iter().all(|message| message["id"] != newest), "{older:?}");
        for (field, value, code) in [
            ("limit", json!(-1), "invalid_args"),
            ("limit", json!(1e300), "invalid_args"),
            ("limit", json!("5"), "invalid_args"),
            ("beforeId", elsewhere, "not_found"),
            ("beforeId", json!(""), "not_found"),
            ("beforeId", json!("é".repeat(16)), "not_found"),
        ] {
            let ask = json!({"type": "topic_history", "topic": "plans", field: value});
            assert_eq!(peer.refused(ask.clone()).await?, code, "{ask}");
        }
        Ok(())
    }

    async fn who_has_left_a_topic_gets_no_more_of_it(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut reader = broker.join(&mesh.member("bob")?).await?;
        sender.call(json!({"type": "topic_create", "name": "plans"}), "topic_created").await?;
        for kind in ["topic_join", "topic_leave", "topic_leave"] {
            reader.send(&json!({"type": kind, "topic": "plans"})).await?;
            history(&mut reader, json!({})).await?;
            sender.say("#plans", kind, json!({})).await?;
        }
        assert_eq!(reader.text().await?, "topic_join");
        assert_eq!(reader.waiting_messages().await?.len(), 0);
        Ok(())
    }
}
