//! Every form of target reaches the ones it means, once, in order, also after an absence.

use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::wire::Socket;
use rand::rngs::OsRng;
use serde_json::{Value, json};

broker_suite! {
    async fn what_is_read_together_with_the_close_still_counts(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut bob = broker.join(&mesh.member("bob")?).await?;
        let session = mesh.member("alice")?.session("one");
        for round in 0..2 {
            let mut socket = Socket::connect(broker.address()).await?;
            socket.hello(&session.hello_at(broker.now_ms(), json!({})).to_string()).await?;
            let texts: Vec<String> = (0..10).map(|number| format!("{round}.{number}")).collect();
            for text in &texts {
                let sealed = envelope::encode_public(text, &mut OsRng);
                let frame = json!({
                    "type": "send", "targetSpec": "*", "priority": "now",
                    "nonce": sealed.nonce, "ciphertext": sealed.ciphertext,
                });
                socket.out.text(&[frame.to_string().as_bytes()]);
            }
            socket.leave().await?;
            for text in &texts {
                assert_eq!(bob.text().await.with_context(|| text.clone())?, *text);
            }
        }
        Ok(())
    }

    async fn a_session_key_reaches_that_session_sealed(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut sender = broker.join(&alice).await?;
        let mut one = broker.connect(&bob.session("one")).await?;
        let mut two = broker.connect(&bob.session("two")).await?;
        let ack = sender.say(&one.pubkey(), "only for one", json!({})).await?;
        assert_eq!(ack["queued"], true, "{ack}");
        let push = one.message().await?;
        assert_eq!(one.open(&push)?, "only for one");
        assert_eq!(push["senderPubkey"], sender.pubkey());
        assert_eq!(push["senderMemberPubkey"], alice.pubkey());
        assert_eq!(push["senderName"], "alice");
        assert_eq!(push["messageId"], ack["messageId"]);
        assert_eq!(two.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn a_member_key_reaches_every_session_of_the_member(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut sender = broker.join(&alice).await?;
        let mut sessions = vec![broker.connect(&bob.session("one")).await?, broker.connect(&bob.session("two")).await?];
        let ack = sender.say(&bob.pubkey(), "for both", json!({})).await?;
        assert_eq!(ack["queued"], true, "{ack}");
        for session in &mut sessions {
            let push = session.message().await?;
            assert_eq!(push["messageId"], ack["messageId"]);
            assert_eq!(session.open(&push)?, "for both");
            assert_eq!(session.waiting_messages().await?.len(), 0);
        }
        Ok(())
    }

    async fn a_member_key_waits_for_the_first_session_that_returns(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut sender = broker.join(&alice).await?;
        let ack = sender.say(&bob.pubkey(), "later", json!({})).await?;
        assert_eq!(ack["queued"], true, "{ack}");
        assert_eq!(ack["online"], 0, "{ack}");
        assert_eq!(ack["waiting"], 1, "{ack}");
        let mut first = broker.connect(&bob.session("one")).await?;
        assert_eq!(first.message().await?["messageId"], ack["messageId"]);
        first.settle().await?;
        let mut second = broker.connect(&bob.session("two")).await?;
        assert_eq!(second.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn a_name_and_a_key_prefix_are_resolved_by_the_broker(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut sender = broker.join(&alice).await?;
        let mut receiver = broker.join(&bob).await?;
        for target in ["bob", "BOB", &bob.pubkey()[..8]] {
            let ack = sender.say(target, target, json!({})).await?;
            assert_eq!(ack["queued"], true, "{target}: {ack}");
            assert_eq!(receiver.message().await?["messageId"], ack["messageId"]);
        }
        Ok(())
    }

    async fn the_second_member_of_a_name_gets_another_one(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let twins = [mesh.member("twin")?, mesh.member("Twin")?];
        let mut sender = broker.join(&alice).await?;
        for (name, member) in ["twin", "Twin-2"].into_iter().zip(&twins) {
            let ack = sender.say(name, "for one", json!({})).await?;
            assert_eq!(ack["queued"], true, "{ack}");
            assert_eq!(ack["recipients"][0]["pubkey"], member.pubkey(), "{ack}");
        }
        Ok(())
    }

    async fn an_unknown_target_is_refused_with_a_code(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let nobody = SecretKey::random(&mut rand::thread_rng()).public().to_hex();
        // A group or mesh without anyone else is no target either: `queued` would be a promise to no one.
        for target in ["nobody", &nobody, &nobody[..8], "@empty", "*"] {
            let ack = sender.say(target, "hello?", json!({})).await?;
            assert_eq!(ack["queued"], false, "{ack}");
            assert_eq!(ack["code"], "unknown_target", "{ack}");
            assert!(ack["error"].as_str().unwrap_or_default().starts_with("unknown_target"), "{ack}");
        }
        Ok(())
    }

    async fn a_group_reaches_its_subtree_and_never_the_sender(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let (mut sender, mut sibling) = (broker.join(&alice).await?, broker.connect(&alice.session("other")).await?);
        let mut inside = broker.join(&mesh.member("bob")?).await?;
        let mut below = broker.join(&mesh.member("carol")?).await?;
        let mut outside = broker.join(&mesh.member("dave")?).await?;
        for (peer, group) in [
            (&mut sender, "dev"),
            (&mut sibling, "dev"),
            (&mut inside, "dev"),
            (&mut below, "dev/web"),
            (&mut outside, "developers"),
        ] {
            peer.send(&json!({"type": "join_group", "name": group})).await?;
            peer.settle().await?;
        }
        let ack = sender.say("@dev", "to the subtree", json!({})).await?;
        assert_eq!(ack["queued"], true, "{ack}");
        // The connection that sends is left out, not its member: another session of Alice is as much in the group as Bob.
        for peer in [&mut inside, &mut below, &mut sibling] {
            assert_eq!(peer.text().await?, "to the subtree");
        }
        for target in [sibling.pubkey(), alice.pubkey()] {
            sender.say(&target, "to my other session", json!({})).await?;
            assert_eq!(sibling.text().await?, "to my other session");
        }
        let ack = sender.say("@dev/web", "to the leaf", json!({})).await?;
        assert_eq!(ack["queued"], true, "{ack}");
        assert_eq!(below.text().await?, "to the leaf");
        for peer in [&mut sender, &mut sibling, &mut inside, &mut outside] {
            assert_eq!(peer.waiting_messages().await?.len(), 0);
        }
        Ok(())
    }

    async fn everyone_means_all_visible_others(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut seen = broker.join(&mesh.member("bob")?).await?;
        let mut hidden = broker.join(&mesh.member("carol")?).await?;
        hidden.call(json!({"type": "set_visible", "visible": false}), "ack").await?;
        for target in ["*", "@all"] {
            let ack = sender.say(target, target, json!({})).await?;
            assert_eq!(ack["queued"], true, "{ack}");
            assert_eq!(seen.text().await?, target);
        }
        assert_eq!(hidden.waiting_messages().await?.len(), 0);
        assert_eq!(sender.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn an_audience_counts_those_who_are_just_away_and_a_topic_all_its_subscribers(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let (gone, away) = (mesh.member("bob")?.session("one"), mesh.member("carol")?.session("one"));
        sender.call(json!({"type": "topic_create", "name": "design"}), "topic_created").await?;
        for session in [&gone, &away] {
            let mut peer = broker.connect(session).await?;
            peer.send(&json!({"type": "join_group", "name": "dev"})).await?;
            peer.send(&json!({"type": "topic_join", "topic": "design"})).await?;
            peer.call(json!({"type": "topic_members", "topic": "design"}), "topic_members_response").await?;
            peer.close().await?;
            if session.id == gone.id && session.pubkey() == gone.pubkey() {
                broker.pass(Duration::from_secs(120), &mut sender).await?;
                sender.event("peer_left").await?;
            }
        }
        // Carol's lease runs; Bob has left.
        let ack = sender.say("@dev", "to the group", json!({})).await?;
        assert_eq!((&ack["online"], &ack["waiting"]), (&json!(0), &json!(1)), "{ack}");
        let ack = sender.say("#design", "to the topic", json!({})).await?;
        assert_eq!((&ack["online"], &ack["waiting"]), (&json!(0), &json!(2)), "{ack}");
        let (mut gone, mut away) = (broker.connect(&gone).await?, broker.connect(&away).await?);
        assert_eq!((away.text().await?.as_str(), away.text().await?.as_str()), ("to the group", "to the topic"));
        assert_eq!(gone.text().await?, "to the topic");
        for peer in [&mut gone, &mut away] {
            assert_eq!(peer.waiting_messages().await?.len(), 0);
        }
        // How far a member has read is kept per member.
        gone.send(&json!({"type": "topic_mark_read", "topic": "design"})).await?;
        let members = gone.call(json!({"type": "topic_members", "topic": "design"}), "topic_members_response").await?;
        let read = |name: &str| {
            let mut list = members["members"].as_array().into_iter().flatten();
            list.find(|one| one["displayName"] == name).map(|one| one["lastReadAt"].is_string())
        };
        assert_eq!((read("bob"), read("carol")), (Some(true), Some(false)), "{members}");
        Ok(())
    }

    async fn a_list_of_targets_reaches_each_recipient_once(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let bob = mesh.member("bob")?;
        let (mut first, mut second) = (broker.join(&bob).await?, broker.join(&mesh.member("carol")?).await?);
        first.send(&json!({"type": "join_group", "name": "dev"})).await?;
        first.settle().await?;
        let frame = sender.message_frame("*", "union", json!({"targetSpec": ["@dev", "bob", "carol", first.pubkey(), "*"]}))?;
        let id = frame["id"].clone();
        sender.send(&frame).await?;
        let ack = sender.find("ack", |frame| frame["type"] == "ack" && frame["id"] == id).await?;
        assert_eq!(ack["queued"], true, "{ack}");
        for peer in [&mut first, &mut second] {
            assert_eq!(peer.text().await?, "union");
            assert_eq!(peer.waiting_messages().await?.len(), 0);
        }
        Ok(())
    }

    async fn messages_of_one_sender_arrive_in_order_after_an_absence(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let session = bob.session("one");
        broker.connect(&session).await?.close().await?;
        let mut sender = broker.join(&alice).await?;
        // More than fits into the window of unacknowledged pushes.
        for number in 0..600 {
            let frame = sender.message_frame(&session.pubkey(), &number.to_string(), json!({}))?;
            sender.send(&frame).await?;
        }
        for _ in 0..600 {
            assert_eq!(sender.expect("ack").await?["queued"], true);
        }
        let mut receiver = broker.connect(&session).await?;
        for number in 0..600 {
            assert_eq!(receiver.text().await?, number.to_string());
        }
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn an_unacknowledged_message_comes_again_and_an_acknowledged_one_does_not(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let session = bob.session("one");
        let mut sender = broker.join(&alice).await?;
        let mut receiver = broker.connect(&session).await?;
        sender.say(&session.pubkey(), "kept", json!({})).await?;
        receiver.text().await?;
        sender.say(&session.pubkey(), "again", json!({})).await?;
        receiver.acknowledge = false;
        assert_eq!(receiver.text().await?, "again");
        receiver.settle().await?;
        receiver.close().await?;
        let mut receiver = broker.connect(&session).await?;
        assert_eq!(receiver.text().await?, "again");
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn a_push_that_comes_again_is_word_for_word_the_first(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let session = bob.session("one");
        let mut sender = broker.join(&alice).await?;
        let mut receiver = broker.connect(&session).await?;
        receiver.acknowledge = false;
        sender.call(json!({"type": "topic_create", "name": "design"}), "topic_created").await?;
        receiver.send(&json!({"type": "topic_join", "topic": "design"})).await?;
        receiver.settle().await?;
        let extra = json!({
            "replyToId": "earlier", "subtype": "question", "trace": {"id": "t", "hop": 2}, "client_message_id": "c-1",
            "request_fingerprint": "ab".repeat(32), "priority": "now",
        });
        sender.say(&session.pubkey(), "direct", extra).await?;
        sender.say("#design", "to the topic", json!({"replyToId": "earlier"})).await?;
        let first = [receiver.message().await?, receiver.message().await?];
        let (direct, topic) = (&first[0], &first[1]);
        assert_eq!((&direct["senderName"], &direct["replyToId"]), (&json!("alice"), &json!("earlier")), "{direct}");
        assert_eq!((&direct["subtype"], &direct["trace"]["hop"]), (&json!("question"), &json!(2)), "{direct}");
        assert_eq!((&topic["topic"], &topic["senderMemberPubkey"]), (&json!("design"), &json!(alice.pubkey())), "{topic}");
        receiver.settle().await?;
        receiver.close().await?;
        // From memory on the next socket, and from the database after a restart.
        let mut receiver = broker.connect(&session).await?;
        receiver.acknowledge = false;
        assert_eq!([receiver.message().await?, receiver.message().await?], first);
        broker.restart().await?;
        let mut receiver = broker.connect(&session).await?;
        assert_eq!([receiver.message().await?, receiver.message().await?], first);
        Ok(())
    }

    async fn a_restart_of_the_broker_loses_nothing_that_was_promised(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let session = bob.session("one");
        broker.connect(&session).await?.close().await?;
        let mut sender = broker.join(&alice).await?;
        for number in 0..20 {
            let ack = sender.say(&session.pubkey(), &number.to_string(), json!({})).await?;
            assert_eq!(ack["queued"], true, "{ack}");
        }
        broker.restart().await?;
        let mut receiver = broker.connect(&session).await?;
        for number in 0..20 {
            let push = receiver.message().await?;
            assert_eq!(receiver.open(&push)?, number.to_string());
            assert_eq!(push["senderName"], "alice", "a drained push says as much as a live one");
        }
        Ok(())
    }

    async fn a_message_of_another_mesh_is_never_seen(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let (one, two) = (broker.mesh("one")?, broker.mesh("two")?);
        let mut sender = broker.join(&one.member("alice")?).await?;
        let mut stranger = broker.join(&two.member("bob")?).await?;
        let ack = sender.say(&stranger.pubkey(), "over the fence", json!({})).await?;
        assert_eq!(ack["code"], "unknown_target", "{ack}");
        sender.say("*", "inside", json!({})).await?;
        assert_eq!(stranger.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn a_client_without_acknowledgements_gets_each_message_once(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let connect = async || {
            let hello = bob.hello_at(broker.now_ms(), "one", json!({"capabilities": null, "protocolVersion": null}));
            let mut peer = TestPeer::hello(&broker.url(), hello, bob.key.clone()).await?;
            peer.acknowledge = false;
            anyhow::Ok(peer)
        };
        let mut receiver = connect().await?;
        let mut sender = broker.join(&alice).await?;
        // More than the window of clients that do acknowledge.
        for number in 0..300 {
            sender.say(&bob.pubkey(), &number.to_string(), json!({})).await?;
            assert_eq!(receiver.text().await?, number.to_string());
        }
        // It has had the chance to take them when its socket stayed open for half a minute.
        for _ in 0..35 {
            broker.pass(Duration::from_secs(1), &mut receiver).await?;
        }
        receiver.close().await?;
        assert_eq!(connect().await?.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn what_a_verb_sends_to_everyone_is_not_for_the_inbox_of_the_same_shell(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let shell = |capabilities: Value| json!({"channel": "cli", "capabilities": capabilities});
        let inbox = alice.hello_at(broker.now_ms(), "inbox", shell(json!(["client_ack"])));
        let mut inbox = TestPeer::hello(&broker.url(), inbox, alice.key.clone()).await?;
        let verb = alice.hello_at(broker.now_ms(), "verb", shell(json!(["client_ack", "ephemeral"])));
        let mut verb = TestPeer::hello(&broker.url(), verb, alice.key.clone()).await?;
        assert_ne!(verb.say("*", "alone", json!({})).await?["queued"], true);
        let (mut own, mut bob) = (broker.join(&alice).await?, broker.join(&mesh.member("bob")?).await?);
        assert_eq!(verb.say("*", "all of you", json!({})).await?["recipients"].as_array().map(Vec::len), Some(2));
        for peer in [&mut own, &mut bob] {
            assert_eq!(peer.message().await?["targetSpec"], "*");
        }
        assert_eq!(inbox.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn a_session_without_lease_leaves_with_its_socket(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let bob = mesh.member("bob")?;
        let mut alice = broker.join(&mesh.member("alice")?).await?;
        let hello = bob.hello_at(broker.now_ms(), "brief", json!({"capabilities": ["no_lease"]}));
        let peer = TestPeer::hello(&broker.url(), hello, bob.key.clone()).await?;
        let list = alice.call(json!({"type": "list_peers"}), "peers_list").await?;
        assert_eq!(list["peers"].as_array().map(Vec::len), Some(2), "{list}");
        peer.close().await?;
        assert_eq!(alice.event("peer_left").await?["name"], "bob");
        let list = alice.call(json!({"type": "list_peers"}), "peers_list").await?;
        assert_eq!(list["peers"].as_array().map(Vec::len), Some(1), "{list}");
        Ok(())
    }

    async fn an_ephemeral_connection_is_not_listed_and_claims_nothing(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut sender = broker.join(&alice).await?;
        sender.say(&bob.pubkey(), "for a real session", json!({})).await?;
        let hello = bob.hello_at(broker.now_ms(), "verb", json!({"capabilities": ["client_ack", "ephemeral"]}));
        let mut verb = TestPeer::hello(&broker.url(), hello, bob.key.clone()).await?;
        assert_eq!(verb.waiting_messages().await?.len(), 0);
        let list = sender.call(json!({"type": "list_peers"}), "peers_list").await?;
        let names: Vec<&str> =
            list["peers"].as_array().into_iter().flatten().filter_map(|peer| peer["displayName"].as_str()).collect();
        assert_eq!(names, ["alice"], "{list}");
        // Nor is what comes while it is here for it: not by key, not by name, not as one of an audience.
        for target in [&bob.pubkey(), "bob"] {
            let ack = sender.say(&bob.pubkey(), "for a real session", json!({"targetSpec": target})).await?;
            assert_eq!((&ack["queued"], &ack["online"]), (&json!(true), &json!(0)), "{ack}");
        }
        assert_eq!(sender.say("*", "to no one", json!({})).await?["code"], "unknown_target");
        assert_eq!(verb.waiting_messages().await?.len(), 0);
        verb.close().await?;
        let mut real = broker.join(&bob).await?;
        let push = real.message().await?;
        assert_eq!(push["targetSpec"], bob.pubkey());
        assert_eq!(real.waiting_messages().await?.len(), 2);
        Ok(())
    }
}
