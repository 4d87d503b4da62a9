//! SIGTERM: everyone is told, and what was accepted is on disk.

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use serde_json::json;

broker_suite! {
    async fn a_drain_closes_with_a_reason_and_keeps_what_was_accepted(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut sender = broker.join(&alice).await?;
        let session = bob.session("there");
        let there = broker.connect(&session).await?;
        for number in 0..50 {
            let frame = sender.message_frame(&alice.pubkey(), &number.to_string(), json!({}))?;
            sender.send(&frame).await?;
        }
        for _ in 0..50 {
            sender.expect("ack").await?;
        }
        // The other half is for one who is there and does not acknowledge: the broker is in no hurry to write these.
        for number in 0..50 {
            let frame = sender.message_frame(&session.pubkey(), &number.to_string(), json!({}))?;
            sender.send(&frame).await?;
        }
        // Frames of one socket are handled in order: after this one all of them have been accepted.
        sender.settle().await?;
        let closing = tokio::spawn(async move {
            let closed = sender.closed().await;
            anyhow::Ok((sender, closed?))
        });
        broker.restart().await?;
        let (_, closed) = closing.await??;
        assert_eq!(closed.code, 1001, "{closed:?}");
        drop(there);
        for session in [session, alice.session("later")] {
            let mut receiver = broker.connect(&session).await?;
            for _ in 0..50 {
                receiver.message().await?;
            }
            assert_eq!(receiver.waiting_messages().await?.len(), 0);
        }
        Ok(())
    }
}
