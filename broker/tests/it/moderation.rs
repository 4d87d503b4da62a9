//! Disconnect, kick, ban: who may, who is hit, what stays closed.

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::{broker_suite, enrol};
use serde_json::json;

broker_suite! {
    async fn a_member_may_not_moderate(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut member = broker.join(&mesh.member("alice")?).await?;
        let mut victim = broker.join(&mesh.member("bob")?).await?;
        for kind in ["disconnect", "kick", "ban", "unban"] {
            assert_eq!(member.refused(json!({"type": kind, "target": "bob"})).await?, "forbidden", "{kind}");
        }
        for everyone in [json!({"type": "kick", "all": true}), json!({"type": "disconnect", "stale": 0})] {
            assert_eq!(member.refused(everyone.clone()).await?, "forbidden", "{everyone}");
        }
        victim.settle().await
    }

    async fn disconnect_and_kick_close_with_their_codes(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let bob = mesh.member("bob")?;
        for (kind, code) in [("disconnect", 1000), ("kick", 4001)] {
            let mut victim = broker.join(&bob).await?;
            let answer = owner.call(json!({"type": kind, "target": victim.pubkey()}), &format!("{kind}_ack")).await?;
            assert_eq!(answer["kicked"][0], "bob", "{answer}");
            assert_eq!(victim.closed().await?.code, code, "{kind}");
        }
        Ok(())
    }

    async fn a_ban_closes_refuses_and_keeps_out_until_unban(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let bob = mesh.member("bob")?;
        let mut victim = broker.join(&bob).await?;
        assert_eq!(owner.call(json!({"type": "ban", "target": "bob"}), "ban_ack").await?["banned"], "bob");
        assert_eq!(victim.closed().await?.code, 4002);
        let mut again = TestPeer::connect(&broker.url()).await?;
        again.send(&bob.session("again").hello_at(broker.now_ms(), json!({}))).await?;
        assert_eq!(again.expect("error").await?["code"], "revoked");
        assert_eq!(again.closed().await?.code, 4002);
        // The same key cannot come back through an invite either.
        let invite = mesh.invite("member", 5)?;
        let answer = enrol::claim_answer(&broker.base(), &invite.code, &bob.key, "bob")?;
        assert!(answer.status >= 400, "{answer:?}");
        // Nor can it do by HTTP what its signature allowed before.
        let members = format!("/mesh/{}/members", mesh.id);
        let answer = enrol::get(&broker.base(), &members, Some(&bob.key))?;
        assert!(matches!(answer.status, 401 | 403), "{answer:?}");
        let bans = owner.call(json!({"type": "list_bans"}), "list_bans_result").await?;
        assert_eq!(bans["bans"][0]["pubkey"], bob.pubkey(), "{bans}");
        // A second ban is no news, and it is not said that no one is called so.
        for target in ["bob", &bob.pubkey(), &bob.pubkey()[..12]] {
            assert_eq!(owner.refused(json!({"type": "ban", "target": target})).await?, "already_exists", "{target}");
        }
        assert_eq!(owner.refused(json!({"type": "ban", "target": "nobody"})).await?, "not_found");
        owner.call(json!({"type": "unban", "target": bob.pubkey()}), "unban_ack").await?;
        broker.join(&bob).await?;
        Ok(())
    }

    async fn a_member_that_was_removed_is_not_told_that_it_is_banned(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let bob = mesh.member("bob")?;
        let mut removed = broker.join(&bob).await?;
        owner.call(json!({"type": "remove_member", "member": "bob"}), "member_changed").await?;
        let closed = removed.closed().await?;
        assert_eq!((closed.code, closed.reason.as_str()), (4002, "removed"));
        // Older clients know one word only, at which they stay away.
        let older = json!({"capabilities": null, "protocolVersion": null});
        for (described, code) in [(json!({}), "member_removed"), (older, "revoked")] {
            let mut again = TestPeer::connect(&broker.url()).await?;
            again.send(&bob.session("again").hello_at(broker.now_ms(), described)).await?;
            assert_eq!(again.expect("error").await?["code"], code);
            assert_eq!(again.closed().await?.code, 4002);
        }
        let members = format!("/mesh/{}/members", mesh.id);
        let answer = enrol::get(&broker.base(), &members, Some(&bob.key))?;
        assert_eq!((answer.status, answer.code()), (403, "member_removed"), "{answer:?}");
        // A key says so as well.
        let refused = owner.say(&bob.pubkey(), "too late", json!({})).await?;
        assert_eq!(refused["queued"], false, "{refused}");
        assert!(refused.to_string().contains("it was removed"), "{refused}");
        Ok(())
    }

    async fn the_owner_cannot_be_banned_and_a_short_prefix_hits_nobody(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let invite = mesh.invite("admin", 1)?;
        let key = claudemesh_protocol::crypto::keys::SecretKey::random(&mut rand::thread_rng());
        let admin = std::sync::Arc::new(enrol::claim(&broker.base(), &invite.code, key, "admin")?);
        let mut admin = broker.join(&admin).await?;
        let bob = mesh.member("bob")?;
        let mut victim = broker.join(&bob).await?;
        assert_eq!(admin.refused(json!({"type": "ban", "target": mesh.creator.pubkey()})).await?, "forbidden");
        for kind in ["ban", "kick", "disconnect", "unban"] {
            assert_eq!(admin.refused(json!({"type": kind, "target": &bob.pubkey()[..7]})).await?, "not_found", "{kind}");
        }
        // A second Bob, whose session is called so: the name means two, and neither is hit by guess.
        let mut namesake = broker.join(&mesh.member("bob")?).await?;
        for kind in ["ban", "kick", "disconnect"] {
            let frame = admin.ask(json!({"type": kind, "target": "bob"})).await?;
            assert_eq!((&frame["type"], &frame["code"]), (&json!("error"), &json!("ambiguous_target")), "{frame}");
            assert_eq!(frame["candidates"].as_array().map(Vec::len), Some(2), "{frame}");
        }
        for peer in [&mut victim, &mut namesake] {
            peer.settle().await?;
        }
        let bans = admin.call(json!({"type": "list_bans"}), "list_bans_result").await?;
        assert_eq!(bans["bans"], json!([]));
        Ok(())
    }
}
