//! The existing system's upload of a file in one request, which has to be signed.

use std::sync::Arc;

use anyhow::Result;
use claudemesh_protocol::crypto::http::{headers_over, sha256_hex};
use claudemesh_protocol::features::files::signing::{CONTENT_HEADER, upload_digest};
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::clock::now_ms;
use claudemesh_testkit::http::{self, Reply};
use claudemesh_testkit::identity::Member;
use serde_json::json;

use super::{content, get, stored, team, url_of};

/// The headers of `POST /upload`, signed.
fn signed(member: &Arc<Member>, given: &[(&'static str, &str)], body: &[u8]) -> Vec<(&'static str, String)> {
    let content = sha256_hex(body);
    let find = |name: &str| given.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
    let digest = upload_digest(&content, find);
    let mut all: Vec<_> = given.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    all.extend(headers_over(&member.key, "POST", "/upload", &digest, now_ms()));
    all.push((CONTENT_HEADER, content));
    all
}

async fn post(broker: &TestBroker, given: &[(&'static str, String)], body: &[u8]) -> Result<Reply> {
    let given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
    http::send("POST", &format!("{}/upload", broker.base()), &given, body).await
}

broker_suite! {
    async fn the_upload_of_the_existing_system_works_when_it_is_signed(database: Database) -> Result<()> {
        let (broker, mesh, alice, bob) = team(database).await?;
        let mut b = broker.join(&bob).await?;
        let body = content(5_000_000);
        let (id, member) = (mesh.id.to_string(), alice.id.to_string());
        let base = [("x-mesh-id", id.as_str()), ("x-member-id", member.as_str()), ("x-file-name", "f.txt"), ("content-type", "text/plain")];
        let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
        let unsigned: Vec<(&'static str, String)> = with(&[]).iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        assert_eq!(post(&broker, &unsigned, b"x").await?.failure(), (401, "unauthorized".into()));
        let reply = post(&broker, &signed(&alice, &with(&[("x-tags", "[\"t\"]"), ("x-target-spec", "")]), &body), &body).await?;
        assert_eq!((reply.status, &reply.json()["ok"]), (200, &json!(true)), "{reply:?}");
        let file = reply.json()["fileId"].clone();
        let row = b.call(json!({"type": "list_files", "query": "F.TX"}), "file_list").await?["files"][0].clone();
        assert_eq!((&row["id"], &row["tags"], &row["size"]), (&file, &json!(["t"]), &json!(5_000_000)));
        assert_eq!((&row["persistent"], &row["uploadedBy"]), (&json!(true), &json!(alice.id)));
        assert!(get(&url_of(&mut b, &file).await?, "").await?.body == body);
        // The slug in place of the member's id, as some clients send it; sealed for one reader.
        let keys = json!([{"peerPubkey": bob.pubkey(), "sealedKey": "eA=="}, {"peerPubkey": alice.pubkey(), "sealedKey": "eQ=="}]).to_string();
        let sealed = [
            ("x-mesh-id", id.as_str()), ("x-member-id", "team"), ("x-file-name", "e.bin"), ("x-persistent", "false"), ("x-encrypted", "true"),
            ("x-file-keys", keys.as_str()), ("x-target-spec", "bob"),
        ];
        let reply = post(&broker, &signed(&alice, &sealed, b"nonce and box"), b"nonce and box").await?;
        assert_eq!(reply.status, 200, "{reply:?}");
        let found = b.call(json!({"type": "get_file", "fileId": reply.json()["fileId"]}), "file_url").await?;
        assert_eq!((&found["sealedKey"], &found["encrypted"], &found["file"]["encryption"]), (&json!("eA=="), &json!(true), &json!("secretbox")));
        // What is refused leaves nothing.
        let before = stored(&broker).len();
        let other = signed(&alice, &with(&[]), b"other bytes");
        assert_eq!(post(&broker, &other, b"these bytes").await?.failure(), (400, "hash_mismatch".into()));
        let renamed: Vec<_> = signed(&alice, &with(&[]), b"b").into_iter()
            .map(|(name, value)| (name, if name == "x-file-name" { "evil.exe".to_owned() } else { value })).collect();
        assert_eq!(post(&broker, &renamed, b"b").await?.failure(), (401, "bad_signature".into()), "the name is signed, too");
        let once = signed(&alice, &with(&[("x-tags", "[]")]), b"b");
        assert_eq!(post(&broker, &once, b"b").await?.status, 200);
        assert_eq!(post(&broker, &once, b"b").await?.failure(), (401, "replayed".into()));
        let of_bob = [("x-mesh-id", id.as_str()), ("x-member-id", member.as_str()), ("x-file-name", "f")];
        assert_eq!(post(&broker, &signed(&bob, &of_bob, b"b"), b"b").await?.failure(), (401, "member_id_mismatch".into()));
        let nameless = [("x-mesh-id", id.as_str()), ("x-member-id", member.as_str())];
        assert_eq!(post(&broker, &signed(&alice, &nameless, b"b"), b"b").await?.failure(), (400, "invalid_args".into()));
        let bad_name = [("x-mesh-id", id.as_str()), ("x-member-id", member.as_str()), ("x-file-name", "..%2Fx")];
        assert_eq!(post(&broker, &signed(&alice, &bad_name, b"b"), b"b").await?.failure(), (400, "invalid_name".into()));
        assert_eq!(post(&broker, &signed(&alice, &with(&[("x-tags", "[2]")]), b""), b"").await?.failure(), (400, "invalid_args".into()), "empty body");
        let elsewhere = broker.mesh("elsewhere")?;
        let there = elsewhere.id.to_string();
        let foreign = [("x-mesh-id", there.as_str()), ("x-member-id", member.as_str()), ("x-file-name", "f")];
        assert_eq!(post(&broker, &signed(&alice, &foreign, b"b"), b"b").await?.failure(), (401, "unauthorized".into()));
        assert_eq!(stored(&broker).len(), before + 1);
        Ok(())
    }
}
