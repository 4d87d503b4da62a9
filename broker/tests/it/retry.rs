//! A retry with the same `client_message_id` is the same message.

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::merged;
use serde_json::json;

broker_suite! {
    async fn a_retry_is_answered_with_the_first_id_and_delivered_once(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let session = alice.session("one");
        let mut sender = broker.connect(&session).await?;
        let mut receiver = broker.join(&bob).await?;
        let key = json!({"client_message_id": "c-1", "request_fingerprint": "f".repeat(64)});
        let first = sender.say(&receiver.pubkey(), "once", key.clone()).await?;
        let second = sender.say(&receiver.pubkey(), "once", key.clone()).await?;
        assert_eq!(second["queued"], true, "{second}");
        assert_eq!(second["duplicate"], true, "{second}");
        assert_eq!(second["messageId"], first["messageId"]);
        // Also from a new connection, as after a lost ack.
        sender.close().await?;
        let mut sender = broker.connect(&session).await?;
        let third = sender.say(&receiver.pubkey(), "once", key).await?;
        assert_eq!(third["messageId"], first["messageId"]);
        assert_eq!(receiver.text().await?, "once");
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn a_retry_is_known_after_a_restart(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut sender = broker.join(&alice).await?;
        let key = json!({"client_message_id": "c-1"});
        let first = sender.say(&bob.pubkey(), "once", key.clone()).await?;
        broker.restart().await?;
        let mut sender = broker.join(&alice).await?;
        let second = sender.say(&bob.pubkey(), "once", key).await?;
        assert_eq!(second["messageId"], first["messageId"]);
        let mut receiver = broker.join(&bob).await?;
        receiver.message().await?;
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn another_message_under_a_used_id_is_refused(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        let key = |print: &str| json!({"client_message_id": "c-1", "request_fingerprint": print.repeat(64)});
        sender.say(&receiver.pubkey(), "one", key("a")).await?;
        let ack = sender.say(&receiver.pubkey(), "two", key("b")).await?;
        assert_eq!(ack["queued"], false, "{ack}");
        assert_eq!(receiver.text().await?, "one");
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn each_of_several_attempts_at_once_is_answered(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut one, mut two) = (broker.join(&alice).await?, broker.connect(&alice.session("two")).await?);
        // Bob is away: the first attempt waits for the disk when the others come.
        let frame = one.message_frame(&bob.pubkey(), "once", json!({"client_message_id": "c-1"}))?;
        let attempt = |id: &str| merged(frame.clone(), json!({"id": id}));
        for id in ["a", "b", "c"] {
            one.send(&attempt(id)).await?;
        }
        two.send(&attempt("d")).await?;
        let mut ids = Vec::new();
        for id in ["a", "b", "c", "d"] {
            let peer = if id == "d" { &mut two } else { &mut one };
            let ack = peer.find("an ack for each", |frame| frame["type"] == "ack" && frame["id"] == id).await?;
            assert_eq!(ack["queued"], true, "{ack}");
            ids.push(ack["messageId"].clone());
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "{ids:?}");
        let mut receiver = broker.join(&bob).await?;
        receiver.message().await?;
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn two_senders_may_use_the_same_id(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut one, mut two) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        let mut receiver = broker.join(&mesh.member("carol")?).await?;
        let key = json!({"client_message_id": "c-1"});
        let first = one.say(&receiver.pubkey(), "from alice", key.clone()).await?;
        let second = two.say(&receiver.pubkey(), "from bob", key).await?;
        assert_ne!(first["messageId"], second["messageId"]);
        assert_eq!(receiver.text().await?, "from alice");
        assert_eq!(receiver.text().await?, "from bob");
        Ok(())
    }
}
