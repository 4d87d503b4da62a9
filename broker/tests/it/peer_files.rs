//! Peers' folders over real sockets: a request, its one answer, its time, and its entry in the audit log.

use std::time::Duration;

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

/// Sends a request and does not wait for its answer.
async fn ask(peer: &mut TestPeer, id: &str, target: &str, path: &str) -> Result<()> {
    let frame = json!({"type": "peer_file_request", "_reqId": id, "targetPubkey": target, "filePath": path});
    peer.send(&frame).await
}

async fn answer_to(peer: &mut TestPeer, id: &str) -> Result<Value> {
    peer.find(id, |frame| frame["_reqId"] == id).await
}

async fn share(peer: &mut TestPeer) -> Result<()> {
    peer.call(json!({"type": "share_folder", "shared": true, "confirm": true}), "done").await.map(drop)
}

/// Answers a request that came.
async fn give(peer: &mut TestPeer, told: &Value, content: &str) -> Result<Value> {
    peer.ask(json!({
        "type": "peer_file_response", "requesterPubkey": told["requesterPubkey"], "requestId": told["requestId"],
        "filePath": told["filePath"], "content": content, "confirm": true,
    }))
    .await
}

broker_suite! {
    async fn a_file_is_relayed_once_and_stands_in_the_audit_log(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob, eve) = (mesh.member("alice")?, mesh.member("bob")?, mesh.member("eve")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let mut eve = broker.join(&eve).await?;
        let target = ben.pubkey();
        ask(&mut ann, "before", &target, "x.txt").await?;
        assert_eq!(answer_to(&mut ann, "before").await?["code"], "not_shared");
        share(&mut ben).await?;
        ask(&mut ann, "one", &target, "x.txt").await?;
        let told = ben.expect("peer_file_request_forward").await?;
        assert_eq!((&told["filePath"], &told["asker"]["memberName"]), (&json!("x.txt"), &json!("alice")));
        assert_eq!(told["requesterPubkey"], json!(ann.pubkey()));
        // Anyone else who knows all about it is refused.
        assert_eq!(give(&mut eve, &told, "ZXZpbA==").await?["code"], "not_found");
        assert_eq!(give(&mut ben, &told, "aGk=").await?["type"], "done");
        let got = answer_to(&mut ann, "one").await?;
        assert_eq!((&got["type"], &got["content"]), (&json!("peer_file_response_forward"), &json!("aGk=")));
        assert_eq!(give(&mut ben, &told, "YWdhaW4=").await?["code"], "not_found", "an answer counts once");
        let log = ann.call(json!({"type": "audit_query", "eventType": "folder_read"}), "audit_result").await?;
        assert_eq!(log["total"], 1, "{log}");
        assert_eq!((&log["entries"][0]["payload"]["kind"], log.to_string().contains("x.txt")), (&json!("file"), false));
        Ok(())
    }

    async fn who_waits_is_told_of_the_time_and_of_a_peer_that_is_gone(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let target = ben.pubkey();
        share(&mut ben).await?;
        ask(&mut ann, "late", &target, "x.txt").await?;
        let told = ben.expect("peer_file_request_forward").await?;
        broker.advance(Duration::from_secs(16));
        assert_eq!(answer_to(&mut ann, "late").await?["code"], "timeout");
        assert_eq!(give(&mut ben, &told, "bGF0ZQ==").await?["code"], "not_found");
        ask(&mut ann, "gone", &target, "x.txt").await?;
        ben.expect("peer_file_request_forward").await?;
        ben.close().await?;
        assert_eq!(answer_to(&mut ann, "gone").await?["code"], "peer_not_found");
        // One that asked and left takes its request along.
        let mut ben = broker.join(&bob).await?;
        share(&mut ben).await?;
        ask(&mut ann, "left", &ben.pubkey(), "x.txt").await?;
        let told = ben.expect("peer_file_request_forward").await?;
        ann.close().await?;
        mesh.settle()?;
        assert_eq!(give(&mut ben, &told, "aGk=").await?["code"], "not_found");
        Ok(())
    }

    async fn a_hundred_requests_at_once_are_answered_all(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        share(&mut ben).await?;
        for number in 0..100 {
            ask(&mut ann, &format!("n{number}"), &ben.pubkey(), &format!("{number}.txt")).await?;
        }
        let mut codes = Vec::new();
        for number in 5..100 {
            codes.push(answer_to(&mut ann, &format!("n{number}")).await?["code"].clone());
        }
        assert!(codes.iter().all(|code| code == "limit"), "{codes:?}");
        for _ in 0..5 {
            let told = ben.expect("peer_file_request_forward").await?;
            assert_eq!(give(&mut ben, &told, "aGk=").await?["type"], "done");
        }
        for number in 0..5 {
            let got = answer_to(&mut ann, &format!("n{number}")).await?;
            assert_eq!((&got["content"], &got["filePath"]), (&json!("aGk="), &json!(format!("{number}.txt"))));
        }
        Ok(())
    }
}
