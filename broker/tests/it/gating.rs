//! Priorities wait for the recipient's status, and every way to `idle` lets them go.

use std::time::Duration;

use anyhow::Result;
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::peer::TestPeer;
use serde_json::json;

async fn set_status(peer: &mut TestPeer, status: &str) -> Result<()> {
    peer.send(&json!({"type": "set_status", "status": status})).await?;
    peer.settle().await
}

broker_suite! {
    async fn now_passes_and_next_waits_while_the_recipient_works(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        for status in ["working", "dnd"] {
            set_status(&mut receiver, status).await?;
            let ack = sender.say(&receiver.pubkey(), "can wait", json!({})).await?;
            assert_eq!(ack["queued"], true, "{ack}");
            assert_eq!(ack["waiting"], 1, "the ack says that it waits: {ack}");
            assert_eq!(ack["recipients"][0]["status"], status, "{ack}");
            sender.say(&receiver.pubkey(), "urgent", json!({"priority": "now"})).await?;
            assert_eq!(receiver.text().await?, "urgent");
            assert_eq!(receiver.waiting_messages().await?.len(), 0);
            set_status(&mut receiver, "idle").await?;
            assert_eq!(receiver.text().await?, "can wait");
        }
        Ok(())
    }

    async fn a_group_message_waits_for_the_status_too(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        set_status(&mut receiver, "dnd").await?;
        sender.say("*", "to all", json!({})).await?;
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        set_status(&mut receiver, "idle").await?;
        assert_eq!(receiver.text().await?, "to all");
        Ok(())
    }

    async fn the_expiry_of_working_releases_what_waits(database: Database) -> Result<()> {
        let broker = Builder::new(database).config(|config| config.connections.working_ttl_seconds = 60).start().await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        set_status(&mut receiver, "working").await?;
        sender.say(&receiver.pubkey(), "held", json!({})).await?;
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        broker.advance(Duration::from_secs(61));
        assert_eq!(receiver.text().await?, "held");
        Ok(())
    }

    async fn low_is_counted_when_idle_and_comes_when_pulled(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let session = mesh.member("bob")?.session("one");
        let hello = session.hello_at(broker.now_ms(), json!({"capabilities": ["client_ack", "pull"]}));
        let mut receiver = TestPeer::hello(&broker.url(), hello, session.key.clone()).await?;
        set_status(&mut receiver, "working").await?;
        for number in 0..3 {
            sender.say(&session.pubkey(), &number.to_string(), json!({"priority": "low"})).await?;
        }
        set_status(&mut receiver, "idle").await?;
        assert_eq!(receiver.event("low_waiting").await?["count"], 3);
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        let pulled = receiver.call(json!({"type": "inbox_pull"}), "inbox_pull_result").await?;
        assert_eq!(pulled["pushed"], 3, "{pulled}");
        for number in 0..3 {
            assert_eq!(receiver.text().await?, number.to_string());
        }
        Ok(())
    }

    async fn a_client_that_cannot_pull_gets_low_when_it_becomes_idle(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        set_status(&mut receiver, "working").await?;
        sender.say(&receiver.pubkey(), "low", json!({"priority": "low"})).await?;
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        set_status(&mut receiver, "idle").await?;
        assert_eq!(receiver.text().await?, "low");
        Ok(())
    }
}
