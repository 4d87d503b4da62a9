//! The ladder `stored` → `received` → `handed` → `seen` → `answered`, for those that it concerns.

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

async fn status(peer: &mut TestPeer, id: &Value) -> Result<Value> {
    peer.call(json!({"type": "message_status", "messageId": id}), "message_status_result").await
}

broker_suite! {
    async fn each_step_is_claimed_when_it_is_proved(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        receiver.acknowledge = false;
        let id = sender.say(&receiver.pubkey(), "how far?", json!({})).await?["messageId"].clone();
        receiver.message().await?;
        let before = status(&mut sender, &id).await?;
        assert_eq!(before["delivered"], false, "{before}");
        assert_eq!(before["stage"], "stored", "{before}");
        for stage in ["received", "handed", "seen"] {
            receiver.send(&json!({"type": "client_ack", "brokerMessageId": id, "stage": stage, "route": "channel"})).await?;
            receiver.settle().await?;
            let now = status(&mut sender, &id).await?;
            assert_eq!(now["stage"], stage, "{now}");
            assert_eq!(now["delivered"], true, "{now}");
        }
        receiver.say(&sender.pubkey(), "this far", json!({"replyToId": id})).await?;
        assert_eq!(sender.message().await?["replyToId"], id);
        assert_eq!(status(&mut sender, &id).await?["stage"], "answered");
        Ok(())
    }

    async fn a_stage_never_goes_back(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        let id = sender.say(&receiver.pubkey(), "once seen", json!({})).await?["messageId"].clone();
        receiver.message().await?;
        for stage in ["seen", "received"] {
            receiver.send(&json!({"type": "client_ack", "brokerMessageId": id, "stage": stage})).await?;
        }
        receiver.settle().await?;
        assert_eq!(status(&mut sender, &id).await?["stage"], "seen");
        Ok(())
    }

    async fn strangers_learn_nothing_and_cannot_acknowledge(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let session = mesh.member("bob")?.session("one");
        broker.connect(&session).await?.close().await?;
        let mut stranger = broker.join(&mesh.member("mallory")?).await?;
        let id = sender.say(&session.pubkey(), "not yours", json!({})).await?["messageId"].clone();
        assert_eq!(stranger.refused(json!({"type": "message_status", "messageId": id})).await?, "not_found");
        stranger.send(&json!({"type": "client_ack", "brokerMessageId": id})).await?;
        stranger.settle().await?;
        assert_eq!(status(&mut sender, &id).await?["delivered"], false);
        assert_eq!(broker.connect(&session).await?.text().await?, "not yours");
        Ok(())
    }
}
