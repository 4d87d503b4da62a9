//! Members that claim what is not theirs, and edits that cross a ban: no one loses a message, a place or a right by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::{broker_suite, enrol};
use serde_json::{Value, json};

async fn refused(broker: &TestBroker, hello: &Value, code: &str) -> Result<()> {
    let mut thief = TestPeer::connect(&broker.url()).await?;
    thief.send(hello).await?;
    let answer = thief.next().await?;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{answer}");
    assert_eq!(thief.closed().await?.code, 1008);
    Ok(())
}

broker_suite! {
    async fn the_key_of_a_member_is_nobody_elses_session_key(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (bob, mallory) = (mesh.member("bob")?, mesh.member("mallory")?);
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        // Bob has never been here: what is for him waits under the key of the member.
        sender.say(&bob.pubkey(), "for bob", json!({})).await?;
        for capabilities in [json!(["client_ack"]), json!(["client_ack", "ephemeral"])] {
            let claim = json!({"sessionPubkey": bob.pubkey(), "capabilities": capabilities});
            refused(&broker, &mallory.hello_at(broker.now_ms(), "m", claim), "attestation_mismatch").await?;
        }
        assert_eq!(broker.join(&bob).await?.text().await?, "for bob");
        Ok(())
    }

    async fn who_names_the_own_member_key_as_session_key_gets_what_waits(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let bob = mesh.member("bob")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        sender.say(&bob.pubkey(), "for bob", json!({})).await?;
        let hello = bob.hello_at(broker.now_ms(), "one", json!({"sessionPubkey": bob.pubkey()}));
        let mut peer = TestPeer::hello(&broker.url(), hello, bob.key.clone()).await?;
        assert_eq!(peer.text().await?, "for bob");
        Ok(())
    }

    async fn a_proof_of_a_session_key_beats_the_claim_that_came_before(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (bob, mallory) = (mesh.member("bob")?, mesh.member("mallory")?);
        let session = bob.session("one");
        let claim = json!({"sessionPubkey": session.pubkey(), "displayName": "squatter"});
        let hello = mallory.hello_at(broker.now_ms(), "m", claim.clone());
        let mut squatter = TestPeer::hello(&broker.url(), hello, mallory.key.clone()).await?;
        squatter.send(&json!({"type": "set_summary", "summary": "not bob's"})).await?;
        squatter.settle().await?;
        let mut owner = broker.connect(&session).await?;
        assert_eq!(squatter.closed().await?.reason, "session_replaced");
        assert_eq!(owner.hello_ack["lastSummary"], Value::Null, "{}", owner.hello_ack);
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        sender.say(&session.pubkey(), "for bob", json!({})).await?;
        assert_eq!(owner.text().await?, "for bob");
        refused(&broker, &mallory.hello_at(broker.now_ms(), "m", claim), "attestation_mismatch").await
    }

    async fn a_ban_holds_while_members_edit_themselves(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let bob = mesh.member("bob")?;
        // Members whose edits make the broker read its members again, all the time.
        let over = Arc::new(AtomicBool::new(false));
        let editors = ["carol", "dave", "erin"].map(|name| {
            let (member, over, base) = (mesh.member(name), over.clone(), broker.base());
            std::thread::spawn(move || -> Result<()> {
                let member = member?;
                let path = format!("/mesh/{}/member/{}", member.mesh, member.id);
                for round in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let body = json!({"roleTag": format!("round {round}")}).to_string();
                    enrol::request("PATCH", &base, &path, body.as_bytes(), Some(&member.key), &[])?;
                }
                Ok(())
            })
        });
        let mut let_in = 0;
        for _ in 0..40 {
            owner.call(json!({"type": "ban", "target": bob.pubkey()}), "ban_ack").await?;
            // Whatever was read before the ban has been taken over by the time of these.
            for _ in 0..10 {
                owner.settle().await?;
            }
            let_in += usize::from(broker.connect(&bob.session("again")).await.is_ok());
            owner.call(json!({"type": "unban", "target": bob.pubkey()}), "unban_ack").await?;
        }
        over.store(true, Ordering::Relaxed);
        for editor in editors {
            editor.join().expect("an editor does not panic")?;
        }
        assert_eq!(let_in, 0, "of 40 bans");
        Ok(())
    }

    async fn a_ban_by_the_owner_of_an_admin_is_not_for_other_admins_to_lift(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let invite = mesh.invite("admin", 2)?;
        let admin = |name: &str| {
            let key = SecretKey::random(&mut rand::thread_rng());
            enrol::claim(&broker.base(), &invite.code, key, name).map(Arc::new)
        };
        let (friend, rogue) = (admin("friend")?, admin("rogue")?);
        let bob = mesh.member("bob")?;
        let mut friend = broker.join(&friend).await?;
        for target in [&rogue, &bob] {
            owner.call(json!({"type": "ban", "target": target.pubkey()}), "ban_ack").await?;
        }
        assert_eq!(friend.refused(json!({"type": "unban", "target": "rogue"})).await?, "forbidden");
        friend.call(json!({"type": "unban", "target": "bob"}), "unban_ack").await?;
        owner.call(json!({"type": "unban", "target": "rogue"}), "unban_ack").await?;
        Ok(())
    }

    async fn what_waits_for_a_banned_member_is_kept_for_its_return(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let bob = mesh.member("bob")?;
        let session = bob.session("one");
        let mut victim = broker.connect(&session).await?;
        victim.acknowledge = false;
        sender.say(&session.pubkey(), "on its way", json!({})).await?;
        victim.message().await?;
        victim.close().await?;
        // In its lease now; the ban ends that, too.
        sender.say(&session.pubkey(), "waiting", json!({})).await?;
        owner.call(json!({"type": "ban", "target": session.pubkey()}), "ban_ack").await?;
        let list = owner.call(json!({"type": "list_peers"}), "peers_list").await?;
        assert!(list["peers"].as_array().into_iter().flatten().all(|peer| peer["displayName"] != "bob"), "{list}");
        let ack = sender.say(&session.pubkey(), "to the banned", json!({})).await?;
        assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!("unknown_target")), "{ack}");
        owner.call(json!({"type": "unban", "target": "bob"}), "unban_ack").await?;
        let mut back = broker.connect(&session).await?;
        assert_eq!((back.text().await?, back.text().await?), ("on its way".into(), "waiting".into()));
        assert_eq!(back.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn an_archived_mesh_ends_for_those_who_are_in_it(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut one, mut two) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let away = mesh.member("carol")?;
        for number in 0..20 {
            let frame = one.message_frame(&away.pubkey(), &number.to_string(), json!({}))?;
            one.send(&frame).await?;
        }
        let path = format!("/mesh/{}/archive", mesh.id);
        let answer = enrol::post(&broker.base(), &path, &json!({}), Some(&mesh.owner))?;
        assert_eq!(answer.status, 200, "{answer:?}");
        for peer in [&mut one, &mut two] {
            let closed = peer.closed().await?;
            assert_eq!((closed.code, closed.reason.as_str()), (1008, "mesh_archived"));
        }
        refused(&broker, &alice.session("again").hello_at(broker.now_ms(), json!({})), "mesh_archived").await?;
        let answer = enrol::get(&broker.base(), &format!("/mesh/{}/members", mesh.id), Some(&alice.key))?;
        assert_eq!((answer.status, answer.code()), (410, "mesh_archived"), "{answer:?}");
        // Another mesh of the same broker goes on.
        let other = broker.mesh("other")?;
        broker.join(&other.member("alice")?).await?.settle().await
    }

    async fn a_nul_that_is_hidden_in_deep_json_fails_nobody(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (bob, carol) = (mesh.member("bob")?, mesh.member("carol")?);
        let mut hostile = broker.join(&mesh.member("mallory")?).await?;
        let mut other = broker.join(&mesh.member("alice")?).await?;
        let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
        let send = json!({"type": "send", "id": "h", "targetSpec": bob.pubkey(), "priority": "next", "nonce": "", "ciphertext": "x\0y"});
        let text = send.to_string();
        let frame = format!("{},\"deep\":{deep}}}", &text[..text.len() - 1]);
        let message = other.message_frame(&carol.pubkey(), "beside it", json!({"id": "o"}))?;
        hostile.send_text(&frame).await?;
        other.send(&message).await?;
        let ack = other.find("the ack", |frame| frame["id"] == "o").await?;
        assert_eq!(ack["queued"], true, "{ack}");
        let answer = hostile.find("an answer", |frame| frame["id"] == "h").await?;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("invalid_args")), "{answer}");
        Ok(())
    }
}
