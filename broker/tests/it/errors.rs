//! No frame without an answer, and the socket stays open.

use anyhow::Result;
use claudemesh_protocol::crypto::signed;
use claudemesh_protocol::limits;
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::identity::Member;
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::{broker_suite, enrol};
use serde_json::{Value, json};

broker_suite! {
    async fn every_bad_frame_is_answered_with_its_code_and_ids(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        for (text, code, with_id) in [
            ("", "bad_json", false),
            ("not json", "bad_json", false),
            ("[1,2]", "bad_json", false),
            ("{\"no\":\"type\"}", "bad_json", false),
            (r#"{"type":"fly","_reqId":"r","id":"i"}"#, "unknown_message_type", true),
            (r#"{"type":"apikey_create","label":"x","capabilities":["admin"],"_reqId":"r","id":"i"}"#, "forbidden", true),
            (r#"{"type":"set_status","_reqId":"r","id":"i"}"#, "invalid_args", true),
            (r#"{"type":"set_status","status":"asleep","_reqId":"r","id":"i"}"#, "invalid_args", true),
            (r#"{"type":"set_visible","visible":"yes","_reqId":"r","id":"i"}"#, "invalid_args", true),
            (r#"{"type":"message_status","messageId":"nothing-like-it","_reqId":"r","id":"i"}"#, "invalid_argument", true),
            (r#"{"type":"message_status","messageId":"abcdefgh12345678abcdefgh12345678","_reqId":"r","id":"i"}"#, "not_found", true),
            (r#"{"type":"join_group","name":"a//b","_reqId":"r","id":"i"}"#, "invalid_name", true),
            (r#"{"type":"topic_join","topic":"nowhere","_reqId":"r","id":"i"}"#, "topic_not_found", true),
        ] {
            peer.send_text(text).await?;
            let error = peer.expect("error").await?;
            assert_eq!(error["code"], code, "{text}: {error}");
            if with_id {
                assert_eq!(error["_reqId"], "r", "{text}: {error}");
            }
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        }
        peer.settle().await
    }

    async fn a_send_with_a_bad_body_is_answered_under_its_id(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        peer.send(&json!({"type": "send", "id": "s1", "targetSpec": "*", "priority": "urgent", "nonce": "", "ciphertext": ""})).await?;
        let error = peer.find("an answer", |frame| frame["id"] == "s1").await?;
        assert_eq!(error["code"], "invalid_args", "{error}");
        peer.settle().await
    }

    async fn a_binary_message_is_refused_and_the_socket_stays_open(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        peer.send_binary(vec![0, 159, 146, 150]).await?;
        assert_eq!(peer.expect("error").await?["code"], "bad_json");
        peer.settle().await
    }

    async fn before_the_hello_everything_else_is_no_hello(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let member = mesh.member("alice")?;
        let mut peer = TestPeer::connect(&broker.url()).await?;
        peer.send(&json!({"type": "list_peers", "_reqId": "r"})).await?;
        let error = peer.expect("error").await?;
        assert_eq!(error["code"], "no_hello", "{error}");
        peer.send(&member.session("one").hello_at(broker.now_ms(), json!({}))).await?;
        peer.expect("hello_ack").await?;
        Ok(())
    }

    async fn a_second_hello_is_refused_and_changes_nothing(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut peer = broker.join(&alice).await?;
        peer.send(&bob.session("two").hello_at(broker.now_ms(), json!({}))).await?;
        assert_eq!(peer.expect("error").await?["code"], "already_hello");
        let list = peer.call(json!({"type": "list_peers"}), "peers_list").await?;
        assert_eq!(list["peers"].as_array().map(Vec::len), Some(1), "{list}");
        Ok(())
    }

    async fn each_check_of_a_hello_has_its_code(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let now = broker.now_ms();
        let session = alice.session("one");
        let hello = |extra| session.hello_at(now, extra);
        let other = alice.session("other").hello_at(now, json!({}));
        let attested = |expires_at: i64, by: &Member| {
            let text = signed::attestation(&alice.pubkey(), &session.pubkey(), &expires_at.to_string());
            json!({"parentAttestation": {
                "sessionPubkey": session.pubkey(), "parentMemberPubkey": alice.pubkey(), "expiresAt": expires_at,
                "signature": by.key.sign(text.as_bytes()),
            }})
        };
        let mut unreadable = attested(now + 60_000, &alice);
        unreadable["parentAttestation"]["signature"] = "nothex".into();
        let plain = |extra| alice.hello_at(now, "c", extra);
        // What is signed in a hello; a member who signs for another's id has a valid signature.
        let mut for_bob = (*alice).clone();
        for_bob.id = bob.id.clone();
        for (frame, code) in [
            (hello(json!({"sessionPubkey": "nothex"})), "bad_session_pubkey"),
            (hello(json!({"sessionPubkey": session.pubkey().to_uppercase()})), "bad_session_pubkey"),
            (hello(json!({"parentMemberPubkey": "nothex"})), "bad_parent_pubkey"),
            (hello(json!({"parentMemberPubkey": alice.pubkey().to_uppercase()})), "bad_parent_pubkey"),
            (hello(json!({"parentAttestation": null})), "attestation_mismatch"),
            (hello(json!({"parentAttestation": other["parentAttestation"]})), "attestation_mismatch"),
            (hello(attested(now, &alice)), "expired"),
            (hello(attested(now + limits::MAX_ATTESTATION_TTL_MS + 1, &alice)), "ttl_too_long"),
            (hello(unreadable), "malformed"),
            (hello(attested(now + 60_000, &bob)), "bad_signature"),
            (hello(json!({"signature": "00".repeat(64)})), "bad_signature"),
            (hello(json!({"signature": "nothex"})), "malformed"),
            (session.hello_at(now - 60_001, attested(now + 60_000, &alice)), "timestamp_skew"),
            (session.hello_at(now + 61_001, json!({})), "timestamp_skew"),
            (hello(json!({"parentMemberId": bob.id})), "parent_member_id_mismatch"),
            (hello(json!({"cwd": null})), "malformed"),
            (plain(json!({"sessionPubkey": "nothex"})), "bad_session_pubkey"),
            (alice.hello_at(now - 60_001, "c", json!({})), "timestamp_skew"),
            (alice.hello_at(now + 61_001, "c", json!({})), "timestamp_skew"),
            (plain(json!({"pubkey": "xyz"})), "malformed"),
            (plain(json!({"signature": "nothex"})), "malformed"),
            (plain(json!({"signature": "00".repeat(64)})), "bad_signature"),
            (plain(json!({"memberId": bob.id})), "bad_signature"),
            (for_bob.hello_at(now, "c", json!({})), "member_id_mismatch"),
            (plain(json!({"sessionId": null})), "malformed"),
            (plain(json!({"pid": "one"})), "malformed"),
        ] {
            let mut peer = TestPeer::connect(&broker.url()).await?;
            peer.send(&frame).await?;
            let error = peer.expect("error").await?;
            assert_eq!(error["code"], code, "{error}");
            let closed = peer.closed().await?;
            assert_eq!(closed.code, 1008, "{code}");
            assert_eq!(closed.reason, code);
        }
        // What is just within the bounds is let in; an empty session key is none.
        for frame in [
            alice.session("s").hello_at(now - 60_000, json!({})),
            bob.hello_at(now - 60_000, "old", json!({})),
            bob.hello_at(now + 60_000, "new", json!({"sessionPubkey": ""})),
            hello(attested(now + limits::MAX_ATTESTATION_TTL_MS, &alice)),
            hello(json!({"parentMemberId": ""})),
        ] {
            let mut peer = TestPeer::connect(&broker.url()).await?;
            peer.send(&frame).await?;
            peer.expect("hello_ack").await?;
        }
        Ok(())
    }

    async fn the_first_check_that_fails_is_the_one_that_is_told(database: Database) -> Result<()> {
        let broker = Builder::new(database).config(|config| config.connections.max_per_mesh = 1).start().await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let now = broker.now_ms();
        let session = alice.session("one");
        let told = async |frame: &Value| {
            let mut peer = TestPeer::connect(&broker.url()).await?;
            peer.send(frame).await?;
            anyhow::Ok(peer.next().await?["code"].as_str().unwrap_or("none").to_owned())
        };
        // Everything is wrong at first; one fault after the other is mended.
        let right = |at: i64| session.hello_at(at, json!({}));
        let mut frame = right(now - 120_000);
        let good = frame.clone();
        frame["sessionPubkey"] = "x".into();
        frame["parentMemberPubkey"] = "x".into();
        frame["parentAttestation"]["expiresAt"] = 0.into();
        frame["parentAttestation"]["signature"] = "x".into();
        frame["signature"] = "x".into();
        frame["parentMemberId"] = json!(bob.id);
        assert_eq!(told(&frame).await?, "bad_session_pubkey");
        frame["sessionPubkey"] = good["sessionPubkey"].clone();
        assert_eq!(told(&frame).await?, "bad_parent_pubkey");
        frame["parentMemberPubkey"] = bob.pubkey().into();
        assert_eq!(told(&frame).await?, "attestation_mismatch");
        frame["parentMemberPubkey"] = good["parentMemberPubkey"].clone();
        assert_eq!(told(&frame).await?, "expired");
        frame["parentAttestation"]["expiresAt"] = (now + limits::MAX_ATTESTATION_TTL_MS + 1).into();
        assert_eq!(told(&frame).await?, "ttl_too_long");
        frame["parentAttestation"]["expiresAt"] = good["parentAttestation"]["expiresAt"].clone();
        assert_eq!(told(&frame).await?, "malformed");
        frame["parentAttestation"]["signature"] = "00".repeat(64).into();
        assert_eq!(told(&frame).await?, "bad_signature");
        frame["parentAttestation"] = good["parentAttestation"].clone();
        assert_eq!(told(&frame).await?, "timestamp_skew");
        let good = right(now);
        frame["timestamp"] = good["timestamp"].clone();
        frame["parentAttestation"] = good["parentAttestation"].clone();
        assert_eq!(told(&frame).await?, "malformed");
        frame["signature"] = "00".repeat(64).into();
        assert_eq!(told(&frame).await?, "bad_signature");
        frame["signature"] = good["signature"].clone();
        assert_eq!(told(&frame).await?, "parent_member_id_mismatch");
        // Only who may come in learns that there is no room.
        assert_eq!(told(&right(now)).await?, "capacity");
        assert_eq!(told(&alice.hello_at(now, "c", json!({}))).await?, "capacity");
        owner.call(json!({"type": "ban", "target": "alice"}), "ban_ack").await?;
        assert_eq!(told(&session.hello_at(now, json!({"parentMemberId": bob.id}))).await?, "revoked");
        assert_eq!(told(&alice.hello_at(now, "c", json!({}))).await?, "revoked");
        Ok(())
    }

    /// Clients of the older kind read JSON from every answer.
    async fn a_route_that_is_not_there_is_refused_in_json(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        for (method, path) in [("GET", "/"), ("POST", "/uploads"), ("GET", "/downloads/x"), ("OPTIONS", "/mesh")] {
            let answer = enrol::request(method, &broker.base(), path, b"", None, &[])?;
            assert_eq!((answer.status, answer.code()), (404, "not_found"), "{method} {path}: {}", answer.body);
        }
        Ok(())
    }

    async fn a_stranger_is_unauthorized(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let (one, two) = (broker.mesh("one")?, broker.mesh("two")?);
        let mut stranger = (*one.member("alice")?).clone();
        stranger.mesh = two.id.clone();
        let stranger = std::sync::Arc::new(stranger);
        let mut peer = TestPeer::connect(&broker.url()).await?;
        peer.send(&stranger.session("one").hello_at(broker.now_ms(), json!({}))).await?;
        assert_eq!(peer.expect("error").await?["code"], "unauthorized");
        assert_eq!(peer.closed().await?.code, 1008);
        Ok(())
    }
}
