//! Groups as a connection holds them.

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use serde_json::json;

broker_suite! {
    async fn joining_then_sending_on_one_socket_keeps_its_order(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        for round in 0..20 {
            let group = format!("g{round}");
            receiver.send(&json!({"type": "join_group", "name": group, "role": "lead"})).await?;
            receiver.settle().await?;
            sender.say(&format!("@{group}"), &group, json!({})).await?;
            assert_eq!(receiver.text().await?, group);
            receiver.send(&json!({"type": "leave_group", "name": group})).await?;
            receiver.settle().await?;
            sender.say(&format!("@{group}"), "nobody is there", json!({})).await?;
            assert_eq!(receiver.waiting_messages().await?.len(), 0);
        }
        Ok(())
    }

    async fn a_group_name_with_a_quote_is_data_or_refused(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        let code = peer.refused(json!({"type": "join_group", "name": "x' OR '1'='1"})).await?;
        assert_eq!(code, "invalid_name");
        peer.settle().await
    }
}
