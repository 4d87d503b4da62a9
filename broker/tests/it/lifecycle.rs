//! What a connection may cost before and after its hello, what others learn of its end, and what outlives it.

use std::time::Duration;

use anyhow::Result;
use claudemesh_broker::config::LimitsMode;
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::peer::{PATIENCE, TestPeer};
use claudemesh_testkit::{broker_suite, enrol};
use serde_json::json;

broker_suite! {
    async fn a_socket_that_never_says_hello_is_closed(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mut stranger = TestPeer::connect(&broker.url()).await?;
        // The answer shows that the session is there and its deadline runs.
        assert_eq!(stranger.refused(json!({"type": "list_peers"})).await?, "no_hello");
        broker.advance(Duration::from_secs(11));
        assert_eq!(stranger.expect("error").await?["code"], "hello_timeout");
        let closed = stranger.closed().await?;
        assert_eq!((closed.code, closed.reason.as_str()), (1008, "hello_timeout"));
        Ok(())
    }

    /// Clients that wait for the server's end of a closed connection (Node's are such) see it at once.
    async fn a_connection_ends_with_the_close_handshake(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut shortest = Duration::MAX;
        for round in 0..5 {
            let mut peer = broker.connect(&mesh.creator.session(&format!("s{round}"))).await?;
            peer.settle().await?;
            let started = tokio::time::Instant::now();
            peer.close().await?;
            shortest = shortest.min(started.elapsed());
        }
        // A connection that lingers takes half a second or more, each time; a busy machine is slow now and then.
        assert!(shortest < Duration::from_millis(400), "{shortest:?}");
        Ok(())
    }

    async fn sockets_without_hello_are_bounded_and_members_give_their_place_back(database: Database) -> Result<()> {
        let broker = Builder::new(database).config(|config| config.connections.max_unauthenticated = 1).start().await?;
        let mesh = broker.mesh("team")?;
        // A member does not count once it has said hello.
        let mut member = broker.connect(&mesh.creator.session("one")).await?;
        member.settle().await?;
        let mut stranger = TestPeer::connect(&broker.url()).await?;
        assert_eq!(stranger.refused(json!({"type": "list_peers"})).await?, "no_hello");
        let refused = TestPeer::connect(&broker.url()).await.err().expect("a second stranger is one too many");
        assert!(format!("{refused:#}").contains("503"), "{refused:#}");
        broker.advance(Duration::from_secs(11));
        stranger.closed().await?;
        // The place is free when the broker has seen the end of the socket, a moment after we did.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Err(error) = TestPeer::connect(&broker.url()).await {
            assert!(tokio::time::Instant::now() < deadline, "the place is never free again: {error:#}");
            member.settle().await?;
        }
        Ok(())
    }

    async fn a_flood_of_frames_is_limited_and_free_again_after_the_wait(database: Database) -> Result<()> {
        let slow = |config: &mut claudemesh_broker::config::Config| {
            config.limits = LimitsMode::Default;
            config.limit.frames_per_second = 5;
        };
        let broker = Builder::new(database).config(slow).start().await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.connect(&mesh.creator.session("one")).await?;
        let mut answer = json!({});
        for _ in 0..25 {
            // Cheap and expensive requests alike.
            answer = peer.ask(json!({"type": "mesh_info"})).await?;
            if answer["type"] == "error" {
                break;
            }
        }
        assert_eq!(answer["code"], "rate_limited", "{answer}");
        let wait = answer["retry_after_ms"].as_u64().expect("the answer says how long");
        assert!((1..=1_000).contains(&wait), "{wait}");
        broker.advance(Duration::from_millis(wait));
        peer.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
        Ok(())
    }

    async fn a_wall_clock_that_runs_ahead_expires_nothing(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut sender = broker.join(&alice).await?;
        let kept = sender.say(&bob.pubkey(), "for a week", json!({})).await?;
        sender.say(&bob.pubkey(), "for a minute", json!({"expires_in_ms": 60_000})).await?;
        broker.clock.step_wall(30 * 86_400_000);
        // The hourly look has been there when the short one is no longer counted. It skips an hour in which something was sent
        // while the database answered; within a day, because then the clock is believed.
        let mut sent = 2;
        for hour in 1.. {
            broker.pass(Duration::from_secs(3_900), &mut sender).await?;
            for _ in 0..100 * hour {
                sender.settle().await?;
            }
            let ack = sender.say(&bob.pubkey(), "?", json!({})).await?;
            sent += 1;
            if ack["recipients"][0]["waiting"].as_u64().expect("the ack says how many wait") < sent {
                break;
            }
            assert!(hour < 20, "nothing expires: {ack}");
        }
        let mut receiver = broker.join(&bob).await?;
        assert_eq!(receiver.message().await?["messageId"], kept["messageId"]);
        Ok(())
    }

    async fn a_kicked_peer_has_left_for_the_others(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let mut carol = broker.join(&mesh.member("carol")?).await?;
        for kind in ["kick", "ban"] {
            let mut bob = broker.join(&mesh.member(&format!("bob-{kind}"))?).await?;
            owner.call(json!({"type": kind, "target": format!("bob-{kind}")}), &format!("{kind}_ack")).await?;
            bob.closed().await?;
            assert_eq!(carol.event("peer_left").await?["name"], format!("bob-{kind}"));
            let list = carol.call(json!({"type": "list_peers"}), "peers_list").await?;
            assert_eq!(list["peers"].as_array().map(Vec::len), Some(2), "{list}");
        }
        Ok(())
    }

    async fn every_subscriber_gets_a_topic_message_and_history_keeps_it(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut alice = broker.join(&mesh.member("alice")?).await?;
        let mut bob = broker.join(&mesh.member("bob")?).await?;
        let mut carol = broker.join(&mesh.member("carol")?).await?;
        let mut other = broker.join(&mesh.member("dave")?).await?;
        alice.call(json!({"type": "topic_create", "name": "design"}), "topic_created").await?;
        for peer in [&mut bob, &mut carol] {
            peer.send(&json!({"type": "topic_join", "topic": "design"})).await?;
            peer.call(json!({"type": "topic_members", "topic": "design"}), "topic_members_response").await?;
        }
        let ack = alice.say("#design", "round corners", json!({})).await?;
        assert_eq!(ack["queued"], true, "{ack}");
        for peer in [&mut bob, &mut carol] {
            let push = peer.message().await?;
            assert_eq!((push["topic"].as_str(), peer.open(&push)?.as_str()), (Some("design"), "round corners"));
        }
        assert_eq!(other.waiting_messages().await?.len(), 0);
        let history = json!({"type": "topic_history", "topic": "design"});
        let history = bob.call(history, "topic_history_response").await?;
        assert_eq!(history["messages"][0]["id"], ack["messageId"], "{history}");
        Ok(())
    }

    async fn totals_grow_by_what_was_not_reported_before(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut witness = broker.join(&mesh.member("alice")?).await?;
        let session = mesh.member("bob")?.session("one");
        let mut totals = vec![];
        for reports in [vec![3, 5, 5], vec![5, 6], vec![2]] {
            let mut bob = broker.connect(&session).await?;
            totals.push(bob.hello_ack["restoredStats"]["messagesIn"].clone());
            for count in reports {
                bob.send(&json!({"type": "set_stats", "stats": {"messagesIn": count}})).await?;
                bob.settle().await?;
            }
            bob.close().await?;
            broker.pass(Duration::from_secs(125), &mut witness).await?;
            witness.event("peer_left").await?;
        }
        let bob = broker.connect(&session).await?;
        totals.push(bob.hello_ack["restoredStats"]["messagesIn"].clone());
        // A new connection counts from its own zero; within one, only what was added counts.
        assert_eq!(totals, [json!(null), json!(5), json!(11), json!(13)]);
        Ok(())
    }

    async fn a_blocked_sender_is_told_and_an_audience_leaves_the_blocker_out(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut sender, mut blocker) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let mut other = broker.join(&mesh.member("carol")?).await?;
        let path = format!("/mesh/{}/grants", mesh.id);
        let blocked = json!({"grants": {alice.pubkey(): []}});
        enrol::post(&broker.base(), &path, &blocked, Some(&bob.key))?.read::<serde_json::Value>()?;
        let ack = sender.say(&blocker.pubkey(), "let me in", json!({})).await?;
        assert_eq!((ack["queued"].as_bool(), ack["code"].as_str()), (Some(false), Some("blocked")), "{ack}");
        let ack = sender.say("*", "to all", json!({})).await?;
        assert_eq!((&ack["online"], ack["recipients"].as_array().map(Vec::len)), (&json!(1), Some(1)), "{ack}");
        assert_eq!(other.text().await?, "to all");
        // An audience of no one but blockers is no audience.
        blocker.send(&json!({"type": "join_group", "name": "quiet"})).await?;
        blocker.settle().await?;
        let ack = sender.say("@quiet", "let me in", json!({})).await?;
        assert_eq!((ack["queued"].as_bool(), ack["code"].as_str()), (Some(false), Some("blocked")), "{ack}");
        // Away and back: nothing of it was queued either.
        assert_eq!(blocker.waiting_messages().await?.len(), 0);
        blocker.close().await?;
        let mut again = broker.join(&bob).await?;
        assert_eq!(again.waiting_messages().await?.len(), 0);
        Ok(())
    }
}
