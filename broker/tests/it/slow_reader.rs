//! A peer that never reads costs a fixed amount and holds no one up.

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use serde_json::json;

broker_suite! {
    async fn a_peer_that_never_reads_holds_nobody_up_and_loses_nothing(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut reader = broker.join(&mesh.member("carol")?).await?;
        let session = mesh.member("bob")?.session("one");
        // Held open, never polled: its kernel buffers fill up.
        let stuck = broker.connect(&session).await?;
        let body = "x".repeat(64 * 1024);
        for number in 0..200 {
            let ack = sender.say(&session.pubkey(), &format!("{number} {body}"), json!({})).await?;
            assert_eq!(ack["queued"], true, "{ack}");
            sender.say(&reader.pubkey(), &number.to_string(), json!({})).await?;
            assert_eq!(reader.text().await?, number.to_string());
        }
        drop(stuck);
        let mut back = broker.connect(&session).await?;
        for number in 0..200 {
            let text = back.text().await?;
            assert_eq!(text.split(' ').next(), Some(number.to_string().as_str()));
        }
        Ok(())
    }
}
