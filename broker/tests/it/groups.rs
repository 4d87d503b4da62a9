//! Groups as a connection holds them.

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

broker_suite! {
    async fn joining_then_sending_on_one_socket_keeps_its_order(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        for round in 0..20 {
            let group = format!("g{round}");
            receiver.send(&json!({"type": "join_group", "name": group, "role": "lead"})).await?;
            receiver.settle().await?;
            sender.say(&format!("@{group}"), &group, json!({})).await?;
            assert_eq!(receiver.text().await?, group);
            receiver.send(&json!({"type": "leave_group", "name": group})).await?;
            receiver.settle().await?;
            sender.say(&format!("@{group}"), "no one is there", json!({})).await?;
            assert_eq!(receiver.waiting_messages().await?.len(), 0);
        }
        Ok(())
    }

    async fn a_confirmed_write_keeps_the_role_and_counts_who_left(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        let role = async |peer: &mut TestPeer| -> Result<Value> {
            let list = peer.call(json!({"type": "list_peers"}), "peers_list").await?;
            let own = list["peers"].as_array().into_iter().flatten().find(|one| one["isSelf"] == true).cloned();
            Ok(own.unwrap_or_default()["groups"][0]["role"].clone())
        };
        let join = |role: Option<&str>, confirm: bool| {
            let mut frame = json!({"type": "join_group", "name": "qa", "confirm": confirm});
            if let Some(role) = role {
                frame["role"] = role.into();
            }
            frame
        };
        peer.call(join(Some("lead"), true), "done").await?;
        peer.call(join(None, true), "done").await?;
        assert_eq!(role(&mut peer).await?, "lead", "no role keeps the one of before");
        peer.call(join(Some(""), true), "done").await?;
        assert_eq!(role(&mut peer).await?, Value::Null, "an empty one clears it");
        // Without a confirmation as ever: the group is written as it is given.
        peer.send(&join(Some("lead"), false)).await?;
        peer.send(&join(None, false)).await?;
        assert_eq!(role(&mut peer).await?, Value::Null);
        for sessions in [1, 0] {
            let left = json!({"type": "leave_group", "name": "qa", "confirm": true});
            assert_eq!(peer.call(left, "done").await?["sessions"], sessions);
        }
        Ok(())
    }

    async fn an_audience_of_those_who_get_it_directly_is_told_apart_from_an_empty_one(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut alice = broker.join(&mesh.member("alice")?).await?;
        let bob = mesh.member("bob")?;
        let mut peer = broker.join(&bob).await?;
        peer.send(&json!({"type": "join_group", "name": "frontend"})).await?;
        peer.settle().await?;
        for (group, words) in [("@frontend", "you are left out"), ("@empty", "no one else is in @empty")] {
            let ack = alice.say(group, "hello", json!({"exclude": [bob.pubkey()]})).await?;
            assert!(ack["error"].as_str().is_some_and(|text| text.contains(words)), "{ack}");
            assert!(ack["error"].as_str().is_some_and(|text| text.starts_with("unknown_target")), "{ack}");
        }
        Ok(())
    }

    async fn nothing_of_one_socket_overtakes_what_it_sent_before(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        let mut subscriber = broker.join(&mesh.member("bob")?).await?;
        // Forty rounds go out before the first answer is read; storage is asked in between.
        for round in 0..40 {
            for frame in [
                json!({"type": "join_group", "name": format!("g{round}")}),
                json!({"type": "set_summary", "summary": format!("round {round}")}),
                json!({"type": "list_peers", "_reqId": format!("in{round}")}),
                json!({"type": "leave_group", "name": format!("g{round}")}),
                json!({"type": "list_peers", "_reqId": format!("out{round}")}),
                json!({"type": "topic_create", "name": format!("t{round}")}),
                json!({"type": "topic_join", "topic": format!("t{round}")}),
                json!({"type": "topic_members", "topic": format!("t{round}"), "_reqId": format!("topic{round}")}),
            ] {
                peer.send(&frame).await?;
            }
            let frame = peer.message_frame(&format!("#t{round}"), "first", json!({}))?;
            peer.send(&frame).await?;
        }
        for round in 0..40 {
            let own = |list: &Value| -> Value {
                let mut peers = list["peers"].as_array().into_iter().flatten();
                peers.find(|one| one["isSelf"] == true).cloned().unwrap_or_default()
            };
            let inside = own(&peer.find("a list", |frame| frame["_reqId"] == format!("in{round}")).await?);
            assert_eq!(inside["groups"], json!([{"name": format!("g{round}")}]), "{inside}");
            assert_eq!(inside["summary"], format!("round {round}"));
            let outside = own(&peer.find("a list", |frame| frame["_reqId"] == format!("out{round}")).await?);
            assert_eq!(outside["groups"], json!([]), "{outside}");
            let members = peer.find("the members", |frame| frame["_reqId"] == format!("topic{round}")).await?;
            assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
            let ack = peer.expect("ack").await?;
            assert_eq!(ack["queued"], true, "{ack}");
        }
        // A topic that was made twice at once is one topic.
        let twice = json!({"type": "topic_create", "name": "twice"});
        peer.send(&twice).await?;
        let answer = subscriber.call(twice, "topic_created").await?;
        let first = peer.find("the topic", |frame| frame["topic"]["name"] == "twice").await?;
        assert_eq!((&answer["topic"]["id"], first["created"] != answer["created"]), (&first["topic"]["id"], true));
        Ok(())
    }

    async fn a_group_name_with_a_quote_is_data_or_refused(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        let code = peer.refused(json!({"type": "join_group", "name": "x' OR '1'='1"})).await?;
        assert_eq!(code, "invalid_name");
        // In a hello it is left out, in a target it is refused; neither reaches anyone's queue.
        let bob = mesh.member("bob")?.session("one");
        let hello = bob.hello_at(broker.now_ms(), json!({"groups": [{"name": "x' OR '1'='1"}, {"name": "dev"}]}));
        let mut bob = TestPeer::hello(&broker.url(), hello, bob.key.clone()).await?;
        let list = peer.call(json!({"type": "list_peers"}), "peers_list").await?;
        let listed = list["peers"].as_array().into_iter().flatten().find(|one| one["displayName"] == "bob");
        assert_eq!(listed.expect("bob is listed")["groups"], json!([{"name": "dev"}]));
        for target in ["@x' OR '1'='1", "@dev') OR ('1'='1"] {
            let ack = peer.say(target, "to whom?", json!({})).await?;
            assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!("invalid_args")), "{ack}");
        }
        assert_eq!(bob.waiting_messages().await?.len(), 0);
        peer.settle().await
    }
}
