//! `POST /hook/set-status`: only who knows the session's token, and only that session.

use anyhow::Result;
use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::{broker_suite, enrol};
use serde_json::{Value, json};

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn hook(base: &str, token: Option<&str>, body: &Value) -> Result<enrol::Answer> {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|text| ("authorization", text.as_str())).collect();
    enrol::request("POST", base, "/hook/set-status", body.to_string().as_bytes(), None, &headers)
}

async fn status_of(peer: &mut TestPeer, session_id: &str) -> Result<String> {
    let list = peer.call(json!({"type": "list_peers"}), "peers_list").await?;
    let mut peers = list["peers"].as_array().into_iter().flatten();
    let found = peers.find(|peer| peer["sessionId"] == session_id).expect("the session is listed");
    Ok(found["status"].as_str().unwrap_or_default().to_owned())
}

broker_suite! {
    async fn a_hook_sets_the_status_of_its_own_session_only(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let bob = mesh.member("bob")?;
        let extra = json!({"hookTokenHash": sha256_hex(TOKEN.as_bytes())});
        let mut peers = Vec::new();
        for name in ["one", "two"] {
            let session = bob.session(name);
            let hello = session.hello_at(broker.now_ms(), extra.clone());
            peers.push(TestPeer::hello(&broker.url(), hello, session.key.clone()).await?);
        }
        let body = json!({"cwd": "/tmp/test", "pid": 1, "session_id": "two", "status": "working"});
        let answer = hook(&broker.base(), Some(TOKEN), &body)?;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(status_of(&mut peers[0], "one").await?, "idle");
        assert_eq!(status_of(&mut peers[0], "two").await?, "working");
        Ok(())
    }

    async fn a_hook_reaches_every_mesh_of_its_session_and_no_neighbour(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let extra = json!({"hookTokenHash": sha256_hex(TOKEN.as_bytes())});
        let mut peers = Vec::new();
        for slug in ["red", "blue"] {
            let bob = broker.mesh(slug)?.member("bob")?;
            for name in ["one", "two"] {
                let session = bob.session(name);
                let hello = session.hello_at(broker.now_ms(), extra.clone());
                peers.push(TestPeer::hello(&broker.url(), hello, session.key.clone()).await?);
            }
        }
        let body = json!({"cwd": "/tmp/test", "session_id": "two", "status": "working"});
        assert_eq!(hook(&broker.base(), Some(TOKEN), &body)?.body["sessions"], 2);
        // A session of the same directory that is in no mesh: no one else is taken for it, now or at the next hello.
        let stranger = json!({"cwd": "/tmp/test", "session_id": "three", "status": "dnd"});
        assert_eq!(hook(&broker.base(), Some(TOKEN), &stranger)?.body["pending"], true);
        for peer in &mut peers {
            assert_eq!((status_of(peer, "one").await?, status_of(peer, "two").await?), ("idle".into(), "working".into()));
        }
        let green = broker.mesh("green")?.member("bob")?;
        for (name, status) in [("four", "idle"), ("three", "dnd")] {
            let late = green.session(name);
            let hello = late.hello_at(broker.now_ms(), extra.clone());
            let mut late = TestPeer::hello(&broker.url(), hello, late.key.clone()).await?;
            assert_eq!(status_of(&mut late, name).await?, status, "{name}");
        }
        Ok(())
    }

    async fn a_hook_in_a_very_deep_directory_finds_its_session(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let session = broker.mesh("team")?.member("bob")?.session("one");
        let deep = "/deeper".repeat(300);
        let hello = session.hello_at(broker.now_ms(), json!({"hookTokenHash": sha256_hex(TOKEN.as_bytes()), "cwd": deep}));
        let mut peer = TestPeer::hello(&broker.url(), hello, session.key.clone()).await?;
        let body = json!({"cwd": deep, "pid": std::process::id(), "status": "working"});
        assert_eq!(hook(&broker.base(), Some(TOKEN), &body)?.body["sessions"], 1);
        assert_eq!(status_of(&mut peer, "one").await?, "working");
        Ok(())
    }

    async fn a_hook_without_the_token_changes_nothing(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let session = mesh.member("bob")?.session("one");
        let hello = session.hello_at(broker.now_ms(), json!({"hookTokenHash": sha256_hex(TOKEN.as_bytes())}));
        let mut peer = TestPeer::hello(&broker.url(), hello, session.key.clone()).await?;
        let body = json!({"cwd": "/tmp/test", "pid": std::process::id(), "session_id": "one", "status": "dnd"});
        assert_eq!(hook(&broker.base(), None, &body)?.status, 401);
        assert_eq!(hook(&broker.base(), Some("00"), &body)?.status, 401, "too short to be a token");
        // A token of the right shape, but of another member of the mesh; nothing tells it that the session exists.
        let other = TOKEN.replace('0', "f");
        let mallory = mesh.member("mallory")?.session("other");
        let hello = mallory.hello_at(broker.now_ms(), json!({"hookTokenHash": sha256_hex(other.as_bytes()), "cwd": "/elsewhere", "pid": 1}));
        let _mallory = TestPeer::hello(&broker.url(), hello, mallory.key.clone()).await?;
        let answer = hook(&broker.base(), Some(&other), &body)?;
        assert_eq!((answer.status, &answer.body), (200, &json!({"ok": true, "pending": true})));
        assert_eq!(status_of(&mut peer, "one").await?, "idle");
        assert_eq!(hook(&broker.base(), Some(TOKEN), &body)?.body["sessions"], 1);
        assert_eq!(status_of(&mut peer, "one").await?, "dnd");
        Ok(())
    }

    async fn a_hook_to_idle_releases_what_waits(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let session = mesh.member("bob")?.session("one");
        let hello = session.hello_at(broker.now_ms(), json!({"hookTokenHash": sha256_hex(TOKEN.as_bytes())}));
        let mut receiver = TestPeer::hello(&broker.url(), hello, session.key.clone()).await?;
        let body = |status: &str| json!({"cwd": "/tmp/test", "session_id": "one", "status": status});
        hook(&broker.base(), Some(TOKEN), &body("working"))?;
        sender.say(&session.pubkey(), "held", json!({})).await?;
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        hook(&broker.base(), Some(TOKEN), &body("idle"))?;
        assert_eq!(receiver.text().await?, "held");
        Ok(())
    }

    async fn a_bad_hook_body_is_refused_with_a_code(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let answer = hook(&broker.base(), Some(TOKEN), &json!({"cwd": "/", "status": "asleep"}))?;
        assert_eq!(answer.status, 400, "{answer:?}");
        Ok(())
    }
}
