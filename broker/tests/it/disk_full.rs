//! A full disk: an error for what cannot be kept, nothing lost of what was promised, and life goes on when there is room.

use anyhow::Result;
use claudemesh_testkit::broker::{Builder, Database};
use serde_json::{Value, json};

/// SQLite only: the limit is that of its file. What a full PostgreSQL answers is mapped to the same code.
#[tokio::test]
async fn a_full_disk_is_an_error_and_loses_nothing() -> Result<()> {
    let mut broker =
        Builder::new(Database::Sqlite).config(|config| config.database_max_bytes = Some(1 << 20)).start().await?;
    let mesh = broker.mesh("team")?;
    let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
    let mut sender = broker.join(&alice).await?;
    let body = "A".repeat(40_000);
    let mut kept: Vec<Value> = Vec::new();
    let mut refused = None;
    for number in 0..100 {
        let frame = json!({
            "type": "send", "id": number.to_string(), "targetSpec": bob.pubkey(), "priority": "next", "nonce": "",
            "ciphertext": format!("{number:03}{body}"),
        });
        sender.send(&frame).await?;
        let ack = sender.expect("ack").await?;
        if ack["queued"] == true {
            kept.push(json!(format!("{number:03}")));
        } else {
            refused = Some(ack);
            break;
        }
    }
    let refused = refused.expect("a megabyte does not hold a hundred of them");
    assert_eq!(refused["code"], "storage_full", "{refused}");
    assert!(kept.len() > 5, "{} were kept", kept.len());
    // What was promised is there, also after a restart; nothing of what was refused is.
    broker.restart().await?;
    let mut receiver = broker.join(&bob).await?;
    let mut got: Vec<Value> = Vec::new();
    for _ in 0..kept.len() {
        let push = receiver.message().await?;
        got.push(json!(push["ciphertext"].as_str().unwrap_or_default()[..3]));
    }
    assert_eq!(got, kept);
    assert_eq!(receiver.waiting_messages().await?.len(), 0);
    // Between peers that acknowledge nothing needs the disk.
    let mut sender = broker.join(&alice).await?;
    let direct = json!({
        "type": "send", "id": "live", "targetSpec": bob.pubkey(), "priority": "now", "nonce": "", "ciphertext": "bGl2ZQ==",
    });
    sender.send(&direct).await?;
    assert_eq!(receiver.message().await?["ciphertext"], "bGl2ZQ==");
    Ok(())
}
