use claudemesh_protocol::features::state::{GetState, ListState, SetState};
use claudemesh_protocol::features::topics::{TopicCreate, TopicHistory, TopicList};
use claudemesh_protocol::message::{ClientMessage, ServerMessage};
use serde_json::{Value, json};

use super::*;
use crate::mesh::peers::PeerHandle;
use crate::mesh::testing::TestMesh;

async fn made(mesh: &mut TestMesh, at: PeerHandle, capabilities: &[&str], scopes: Option<&[&str]>) -> ApikeyCreated {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
    let request = ApikeyCreate {
        label: "ci".into(),
        capabilities: texts(capabilities),
        topic_scopes: scopes.map(texts),
        ..ApikeyCreate::default()
    };
    let answer = mesh.ask(at, Request::ApikeyCreate(request)).await;
    match serde_json::from_str(&answer.write(None)) {
        Ok(created) => created,
        Err(error) => panic!("{error}: {answer:?}"),
    }
}

async fn code(mesh: &mut TestMesh, key: &str, request: impl Into<ClientMessage>) -> Result<Value, ErrorCode> {
    let answer: Result<ServerMessage, Refusal> = mesh.ask_with_key(key, request).await;
    answer.map(|message| serde_json::from_str(&message.write(None)).unwrap()).map_err(|refusal| refusal.code)
}

#[actix_rt::test]
async fn a_key_does_what_it_was_given_and_what_its_member_may() {
    let mut mesh = TestMesh::new().await;
    let alice = mesh.member("alice", 1).await;
    let (at, _) = mesh.peer(&alice, "alice", Some(11));
    let reads = made(&mut mesh, at, &["read"], None).await;
    let writes = made(&mut mesh, at, &["state_write"], None).await;
    let set = || SetState { key: "build".into(), value: json!(1), expected_version: None, ttl_s: None };
    assert_eq!(code(&mut mesh, &reads.id, set()).await, Err(ErrorCode::ApiKeyMissingCapability));
    assert!(code(&mut mesh, &writes.id, set()).await.is_ok());
    let get = || GetState { key: "build".into() };
    assert_eq!(code(&mut mesh, &writes.id, get()).await, Err(ErrorCode::ApiKeyMissingCapability));
    assert_eq!(code(&mut mesh, &reads.id, get()).await.unwrap()["value"], 1);
    assert!(code(&mut mesh, &reads.id, TopicList {}).await.is_ok());
    assert_eq!(code(&mut mesh, &writes.id, TopicList {}).await, Err(ErrorCode::ApiKeyMissingCapability));
    // What its member may not do any more, the key may not do.
    let denied = [(Capability::CanReadShared, false)].into_iter().collect();
    mesh.core.rights.put(&crate::db::rights::Subject::Member(alice.clone()), denied);
    assert_eq!(code(&mut mesh, &reads.id, get()).await, Err(ErrorCode::Forbidden));
    let more = ApikeyCreate { label: "x".into(), capabilities: vec!["read".into()], ..ApikeyCreate::default() };
    let refused = mesh.ask(at, Request::ApikeyCreate(more)).await.write(None);
    assert!(refused.contains("canReadShared"), "{refused}");
}

#[actix_rt::test]
async fn a_confined_key_reaches_its_topics_and_nothing_else() {
    let mut mesh = TestMesh::new().await;
    let alice = mesh.member("alice", 1).await;
    let (at, _) = mesh.peer(&alice, "alice", Some(11));
    for name in ["plans", "other"] {
        let create = TopicCreate { name: name.into(), description: None, visibility: None };
        mesh.ask(at, create).await;
    }
    let key = made(&mut mesh, at, &["read", "send"], Some(&["#plans"])).await;
    assert_eq!(key.topic_scopes, Some(vec!["plans".to_owned()]));
    let history = |topic: &str| TopicHistory { topic: topic.into(), ..TopicHistory::default() };
    assert!(code(&mut mesh, &key.id, history("plans")).await.is_ok());
    assert_eq!(code(&mut mesh, &key.id, history("other")).await, Err(ErrorCode::ApiKeyTopicOutOfScope));
    assert_eq!(code(&mut mesh, &key.id, history("none")).await, Err(ErrorCode::TopicNotFound));
    let listed = code(&mut mesh, &key.id, TopicList {}).await.unwrap();
    assert_eq!(listed["topics"].as_array().map(Vec::len), Some(1));
    assert_eq!(code(&mut mesh, &key.id, ListState::default()).await, Err(ErrorCode::ApiKeyTopicOutOfScope));
    let send = |to: &str| claudemesh_protocol::features::messaging::Send {
        target_spec: to.into(),
        ciphertext: "aGk=".into(),
        ..claudemesh_protocol::features::messaging::Send::default()
    };
    for (to, expected) in [("#other", "api_key_topic_out_of_scope"), ("*", "api_key_topic_out_of_scope")] {
        let ack = code(&mut mesh, &key.id, send(to)).await.unwrap();
        assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!(expected)), "{to}");
    }
    assert_eq!(code(&mut mesh, &key.id, send("#plans")).await.unwrap()["queued"], true);
}

#[actix_rt::test]
async fn a_key_ends_with_its_time_its_revocation_and_its_member() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (one, _) = mesh.peer(&alice, "alice", Some(11));
    let (other, _) = mesh.peer(&bob, "bob", Some(12));
    let end = iso(mesh.core.clock.now_ms() + 60_000);
    let short = ApikeyCreate {
        label: "short".into(),
        capabilities: vec!["read".into()],
        expires_at: Some(end),
        ..ApikeyCreate::default()
    };
    let short = mesh.ask(one, Request::ApikeyCreate(short)).await.write(None);
    let short: ApikeyCreated = serde_json::from_str(&short).unwrap();
    let (first, second) = (made(&mut mesh, one, &["read"], None).await, made(&mut mesh, other, &["read"], None).await);
    assert!(code(&mut mesh, &short.id, TopicList {}).await.is_ok());
    mesh.advance(std::time::Duration::from_secs(60));
    assert_eq!(code(&mut mesh, &short.id, TopicList {}).await, Err(ErrorCode::ApiKeyInvalid));
    // Bob sees and revokes his own alone.
    let revoke = |id: &str| Request::ApikeyRevoke(ApikeyRevoke { id: id.into() });
    let answer = mesh.ask(other, revoke(&first.id)).await.write(None);
    assert!(answer.contains("not_found"), "{answer}");
    let answer = mesh.ask(one, revoke(&first.prefix)).await.write(None);
    assert!(answer.contains(r#""status":"revoked""#), "{answer}");
    assert_eq!(code(&mut mesh, &first.id, TopicList {}).await, Err(ErrorCode::ApiKeyInvalid));
    assert!(code(&mut mesh, &second.id, TopicList {}).await.is_ok());
    mesh.step(None, |_, cx| cx.emit(MeshEvent::MemberGone { member: bob.clone() }));
    mesh.settle().await;
    assert_eq!(code(&mut mesh, &second.id, TopicList {}).await, Err(ErrorCode::ApiKeyInvalid));
    let rows = store::list(&mesh.core.storage(), Some(&bob)).await.unwrap();
    assert!(rows.iter().all(|row| row.revoked_at_ms.is_some()), "it does not come back with its member");
}

#[actix_rt::test]
async fn no_secret_is_kept_and_bad_requests_have_their_codes() {
    let mut mesh = TestMesh::new().await;
    let alice = mesh.member("alice", 1).await;
    let (at, _) = mesh.peer(&alice, "alice", Some(11));
    let key = made(&mut mesh, at, &["read", "read"], None).await;
    assert_eq!((key.secret.len(), key.secret.starts_with(&key.prefix), key.prefix.len()), (46, true, 11));
    assert_eq!(key.capabilities, ["read"]);
    let rows = store::list(&mesh.core.storage(), None).await.unwrap();
    let stored = format!("{:?} {} {}", rows[0], rows[0].secret_hash, rows[0].capabilities);
    assert!(!stored.contains(&key.secret) && rows[0].secret_hash == hash_of(&key.secret));
    assert!(!format!("{key:?}").contains(&key.secret), "not even where it is logged");
    let base = || ApikeyCreate { label: "x".into(), capabilities: vec!["read".into()], ..ApikeyCreate::default() };
    for (request, code) in [
        (ApikeyCreate { label: " ".into(), ..base() }, "invalid_args"),
        (ApikeyCreate { label: "x".repeat(65), ..base() }, "invalid_args"),
        (ApikeyCreate { capabilities: vec![], ..base() }, "invalid_args"),
        (ApikeyCreate { capabilities: vec!["bogus".into()], ..base() }, "invalid_args"),
        (ApikeyCreate { capabilities: vec!["admin".into()], ..base() }, "forbidden"),
        (ApikeyCreate { expires_at: Some("soon".into()), ..base() }, "invalid_args"),
        (ApikeyCreate { expires_at: Some("2001-01-01T00:00:00.000Z".into()), ..base() }, "invalid_args"),
        (ApikeyCreate { topic_scopes: Some(vec![]), ..base() }, "invalid_args"),
        (ApikeyCreate { topic_scopes: Some(vec!["none".into()]), ..base() }, "topic_not_found"),
        (ApikeyCreate { member: Some("owner".into()), ..base() }, "not_found"),
    ] {
        let answer = mesh.ask(at, Request::ApikeyCreate(request.clone())).await.write(None);
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{request:?}: {answer}");
    }
}
