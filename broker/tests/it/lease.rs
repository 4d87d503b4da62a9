//! A closed socket keeps its place for 90 s; only its own key takes it back.

use std::time::Duration;

use anyhow::Result;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::Member;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

fn events(frames: &[Value]) -> Vec<String> {
    frames.iter().filter_map(|frame| frame["event"].as_str().map(str::to_owned)).collect()
}

async fn peers(peer: &mut TestPeer) -> Result<Vec<Value>> {
    let list = peer.call(json!({"type": "list_peers"}), "peers_list").await?;
    Ok(list["peers"].as_array().cloned().unwrap_or_default())
}

/// Waits until the broker has seen the end of that peer's socket.
async fn until_away(watcher: &mut TestPeer, name: &str) -> Result<()> {
    while peers(watcher).await?.iter().any(|peer| peer["displayName"] == name && peer["online"] == true) {
        tokio::task::yield_now().await;
    }
    Ok(())
}

broker_suite! {
    async fn a_member_is_not_told_of_its_own_sessions(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let bob = mesh.member("bob")?;
        let mut first = broker.connect(&bob.session("one")).await?;
        let second = broker.connect(&bob.session("two")).await?;
        let carol = broker.join(&mesh.member("carol")?).await?;
        // The first event that Bob hears is of someone else, of coming and of going.
        assert_eq!(first.event("peer_joined").await?["name"], "carol");
        second.close().await?;
        carol.close().await?;
        broker.pass(Duration::from_secs(120), &mut first).await?;
        assert_eq!(first.event("peer_left").await?["name"], "carol");
        assert_eq!(peers(&mut first).await?.len(), 1);
        Ok(())
    }

    async fn a_message_to_a_session_that_has_ended_says_so_and_waits_for_its_key_alone(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut watcher = broker.join(&mesh.member("alice")?).await?;
        let bob = mesh.member("bob")?;
        let (one, two) = (bob.session("one"), bob.session("two"));
        let ended = |ack: &Value| ack["recipients"][0]["ended"].as_bool();
        broker.connect(&one).await?.close().await?;
        until_away(&mut watcher, "bob").await?;
        let ack = watcher.say(&one.pubkey(), "come back soon", json!({})).await?;
        assert_eq!((&ack["queued"], ended(&ack)), (&json!(true), None), "it may come back: {ack}");
        broker.pass(Duration::from_secs(91), &mut watcher).await?;
        let ack = watcher.say(&one.pubkey(), "for this session", json!({})).await?;
        assert_eq!((&ack["queued"], ended(&ack)), (&json!(true), Some(true)), "{ack}");
        assert_eq!(ack["recipients"][0]["memberName"], "bob", "{ack}");
        // Another session of the member does not get it, and what is for the member has not ended.
        let mut other = broker.connect(&two).await?;
        let ack = watcher.say(&bob.pubkey(), "for the member", json!({})).await?;
        assert_eq!((ended(&ack), &ack["online"]), (None, &json!(1)), "{ack}");
        assert_eq!(other.text().await?, "for the member");
        let mut back = broker.connect(&one).await?;
        assert_eq!([back.text().await?, back.text().await?], ["come back soon", "for this session"]);
        Ok(())
    }

    async fn a_return_within_the_grace_is_silent_and_keeps_the_presence(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut watcher = broker.join(&mesh.member("alice")?).await?;
        let session = mesh.member("bob")?.session("one");
        let mut away = broker.connect(&session).await?;
        watcher.event("peer_joined").await?;
        away.send(&json!({"type": "set_summary", "summary": "in the middle of it"})).await?;
        away.send(&json!({"type": "join_group", "name": "dev"})).await?;
        away.settle().await?;
        let presence = away.hello_ack["presenceId"].clone();
        away.close().await?;
        until_away(&mut watcher, "bob").await?;
        broker.advance(Duration::from_secs(60));
        let listed = peers(&mut watcher).await?;
        let bob = listed.iter().find(|peer| peer["displayName"] == "bob").expect("still listed in its grace");
        assert_eq!(bob["online"], false, "{bob}");
        let back = broker.connect(&session).await?;
        assert_eq!(back.hello_ack["presenceId"], presence, "{}", back.hello_ack);
        assert_eq!(back.hello_ack["reattached"], true, "{}", back.hello_ack);
        let listed = peers(&mut watcher).await?;
        let bob = listed.iter().find(|peer| peer["displayName"] == "bob").expect("listed");
        assert_eq!(bob["summary"], "in the middle of it");
        assert_eq!(bob["groups"][0]["name"], "dev", "{bob}");
        watcher.settle().await?;
        let mut told = Vec::new();
        while let Ok(Ok(frame)) = tokio::time::timeout(Duration::ZERO, watcher.next()).await {
            told.push(frame);
        }
        assert_eq!(events(&told), Vec::<String>::new(), "a silent return");
        Ok(())
    }

    async fn an_older_client_comes_back_by_member_and_session_id(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut watcher = broker.join(&mesh.member("alice")?).await?;
        let (bob, mallory) = (mesh.member("bob")?, mesh.member("mallory")?);
        let connect = async |member: &Member, id: &str| {
            let hello = member.hello_at(broker.now_ms(), id, json!({}));
            TestPeer::hello(&broker.url(), hello, member.key.clone()).await
        };
        let first = connect(&bob, "same").await?;
        let presence = first.hello_ack["presenceId"].clone();
        first.close().await?;
        until_away(&mut watcher, "bob").await?;
        let stranger = connect(&mallory, "same").await?;
        assert_ne!(stranger.hello_ack["presenceId"], presence, "the id alone opens nothing");
        let other = connect(&bob, "other").await?;
        assert_ne!(other.hello_ack["presenceId"], presence);
        let back = connect(&bob, "same").await?;
        assert_eq!((&back.hello_ack["presenceId"], &back.hello_ack["reattached"]), (&presence, &json!(true)));
        assert!(back.hello_ack["memberProfile"].is_object(), "older clients take their settings from it each time");
        Ok(())
    }

    async fn after_the_grace_the_peer_has_left(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut watcher = broker.join(&mesh.member("alice")?).await?;
        let session = mesh.member("bob")?.session("one");
        broker.connect(&session).await?.close().await?;
        until_away(&mut watcher, "bob").await?;
        broker.pass(Duration::from_secs(91), &mut watcher).await?;
        assert_eq!(watcher.event("peer_left").await?["name"], "bob");
        assert_eq!(peers(&mut watcher).await?.len(), 1);
        // Its queue stays.
        watcher.say(&session.pubkey(), "for later", json!({})).await?;
        let mut back = broker.connect(&session).await?;
        assert_eq!(back.text().await?, "for later");
        Ok(())
    }

    async fn the_newest_connection_of_a_session_wins(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let session = mesh.member("bob")?.session("one");
        let mut old = broker.connect(&session).await?;
        let mut new = broker.connect(&session).await?;
        let closed = old.closed().await?;
        assert_eq!((closed.code, closed.reason.as_str()), (1000, "session_replaced"));
        // The end of the old socket must not take the new one with it.
        broker.pass(Duration::from_secs(120), &mut new).await?;
        assert_eq!(peers(&mut new).await?.len(), 1);
        Ok(())
    }

    async fn a_socket_that_was_silent_too_long_is_closed_and_not_ignored(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut silent = broker.join(&mesh.member("bob")?).await?;
        broker.advance(Duration::from_secs(80));
        let closed = silent.closed().await?;
        assert_eq!((closed.code, closed.reason.as_str()), (1000, "disconnected_stale"));
        Ok(())
    }

    async fn another_member_with_the_same_session_id_knocks_nobody_off(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut victim = broker.connect(&mesh.member("bob")?.session("shared-id")).await?;
        let mut other = broker.connect(&mesh.member("mallory")?.session("shared-id")).await?;
        victim.settle().await?;
        other.settle().await?;
        assert_eq!(peers(&mut victim).await?.len(), 2);
        Ok(())
    }

    async fn a_claimed_session_key_does_not_take_over_its_owner(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (bob, mallory) = (mesh.member("bob")?, mesh.member("mallory")?);
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let session = bob.session("one");
        let captured = session.hello_at(broker.now_ms(), json!({}));
        TestPeer::hello(&broker.url(), captured.clone(), session.key.clone()).await?.close().await?;
        sender.say(&session.pubkey(), "secret", json!({})).await?;
        let refused = async |broker: &TestBroker, hello: Value, code: &str| {
            let mut thief = TestPeer::connect(&broker.url()).await?;
            thief.send(&hello).await?;
            let answer = thief.next().await?;
            assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{answer}");
            assert_eq!(thief.closed().await?.code, 1008);
            anyhow::Ok(())
        };
        // Unproven claims through `hello`: the wire allows the field, the broker must not believe it. The second is what
        // someone makes of a hello of Bob's own member that he captured: its signature does not cover the session.
        let claim = json!({"sessionPubkey": session.pubkey()});
        for thief in [&mallory, &bob] {
            refused(&broker, thief.hello_at(broker.now_ms(), "one", claim.clone()), "attestation_mismatch").await?;
        }
        // A key that was never proved, as older clients have it, is its member's all the same.
        let older = json!({"sessionPubkey": SecretKey::random(&mut rand::thread_rng()).public().to_hex()});
        let hello = bob.hello_at(broker.now_ms(), "older", older.clone());
        TestPeer::hello(&broker.url(), hello, bob.key.clone()).await?.close().await?;
        refused(&broker, mallory.hello_at(broker.now_ms(), "older", older), "attestation_mismatch").await?;
        // A proof works once, and only with the key that it names.
        refused(&broker, captured, "replayed").await?;
        let attested = mallory.session("one").hello_at(broker.now_ms(), claim.clone());
        refused(&broker, attested, "attestation_mismatch").await?;
        // A broker that was started anew knows which keys were proved.
        broker.restart().await?;
        for thief in [&mallory, &bob] {
            refused(&broker, thief.hello_at(broker.now_ms(), "one", claim.clone()), "attestation_mismatch").await?;
        }
        let mut owner = broker.connect(&session).await?;
        assert_eq!(owner.text().await?, "secret");
        // The owner is connected now: a claim does not push it off its place either.
        refused(&broker, bob.hello_at(broker.now_ms(), "one", claim), "attestation_mismatch").await?;
        owner.settle().await?;
        Ok(())
    }
}
