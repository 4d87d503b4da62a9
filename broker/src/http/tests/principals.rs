//! Requests of someone without a socket: by the same handlers, in a mesh that may sleep.

use claudemesh_protocol::features::capabilities::{Changes, SetPermissions};
use claudemesh_protocol::features::groups::JoinGroup;
use claudemesh_protocol::features::messaging::{MessageStatus, Send};
use claudemesh_protocol::features::presence::SetStats;
use claudemesh_protocol::features::state::{DeleteState, GetState, ListState, SetState};
use claudemesh_protocol::features::topics::{TopicCreate, TopicList};

use super::*;
use crate::audit::{self, Filter};
use crate::mesh::principal::Principal;

#[actix_rt::test]
async fn a_member_without_a_socket_asks_a_sleeping_mesh() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (_, bob) = enrol(&app, &team, "member").await;
    let (directory, bob) = (&bench.state.directory, Principal::Member(bob.member_id.clone()));
    assert!(directory.loaded(&team.id).await.is_none(), "no one needed it so far");
    let set = SetState { key: "build".into(), value: json!("green"), expected_version: None, ttl_s: None };
    let written = directory.request(&team.id, bob.clone(), set.clone()).await.unwrap();
    assert_eq!((written.version, written.revision), (1, 1));
    let got = directory.request(&team.id, bob.clone(), GetState { key: "build".into() }).await.unwrap();
    assert_eq!((got.value, got.updated_by.as_str()), (json!("green"), "Bob"));
    // The change stands in the log with its member, as one over a socket does.
    let log = audit::query(&bench.state.storage(&team.id), &Filter::default(), 1).await.unwrap();
    let Principal::Member(id) = &bob else { panic!("made above") };
    assert_eq!((log[0].event_type.as_str(), log[0].actor_member_id.as_ref()), ("state_set", Some(id)));
    let conflict = SetState { expected_version: Some(0), ..set };
    let refused = directory.request(&team.id, bob.clone(), conflict).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.current.is_some()), ("conflict", true));
    // What is silent over a socket is confirmed here, and what is answered after a commit is answered.
    directory
        .request(&team.id, bob.clone(), DeleteState { key: "build".into(), expected_version: None })
        .await
        .unwrap();
    assert_eq!(directory.request(&team.id, bob.clone(), ListState::default()).await.unwrap().entries.len(), 0);
    let create = TopicCreate { name: "plans".into(), description: None, visibility: None };
    assert!(directory.request(&team.id, bob.clone(), create).await.unwrap().created);
    assert_eq!(directory.request(&team.id, bob.clone(), TopicList {}).await.unwrap().topics.len(), 1);
    let send = Send { target_spec: "Ada".into(), ciphertext: "aGk=".into(), ..Send::default() };
    let ack = directory.request(&team.id, bob.clone(), send).await.unwrap();
    assert!(ack.queued && ack.error.is_none(), "{ack:?}");
    let status = MessageStatus { message_id: ack.message_id };
    let status = directory.request(&team.id, bob, status).await.unwrap();
    assert_eq!(status.recipients.len(), 1, "{status:?}");
}

#[actix_rt::test]
async fn a_member_without_a_socket_is_held_to_what_it_may_do() {
    let bench = bench(|config| {
        config.limit.quotas = std::mem::take(&mut config.limit.quotas).with("state.writes_per_minute", 2);
    })
    .await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (_, bob) = enrol(&app, &team, "member").await;
    let (directory, ada) = (&bench.state.directory, owner_of(&bench, &team).await);
    let bob = Principal::Member(bob.member_id);
    let set = |key: &str| SetState { key: key.into(), value: json!(1), expected_version: None, ttl_s: None };
    for key in ["a", "b"] {
        directory.request(&team.id, bob.clone(), set(key)).await.unwrap();
    }
    let refused = directory.request(&team.id, bob.clone(), set("c")).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.retry_after_ms.is_some()), ("rate_limited", true));
    let deny = Changes::from([(claudemesh_protocol::capability::Capability::CanReadShared, Some(false))]);
    let deny = SetPermissions { member: Some("Bob".into()), default: false, permissions: deny };
    let by_bob = directory.request(&team.id, bob.clone(), deny.clone()).await.unwrap_err();
    assert_eq!(by_bob.message, "this needs the capability canManagePermissions");
    directory.request(&team.id, ada, deny).await.unwrap();
    let refused = directory.request(&team.id, bob.clone(), GetState { key: "a".into() }).await.unwrap_err();
    assert_eq!(refused.message, "this needs the capability canReadShared");
    // What is about a connection is refused instead of changing nothing.
    let join = JoinGroup { name: "ops".into(), role: None, as_member: false, target: Default::default() };
    assert!(directory.request(&team.id, bob.clone(), join).await.is_err());
    assert_eq!(
        directory.request(&team.id, bob.clone(), SetStats::default()).await.unwrap_err().code.as_str(),
        "invalid"
    );
    let nobody = Principal::Member("nobody".into());
    assert_eq!(directory.request(&team.id, nobody, TopicList {}).await.unwrap_err().code.as_str(), "revoked");
    let nowhere = directory.request(&"nowhere".into(), bob, TopicList {}).await.unwrap_err();
    assert_eq!(nowhere.code.as_str(), "unauthorized");
}

#[actix_rt::test]
async fn what_the_owners_key_changes_is_the_owners_in_the_log() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let Principal::Member(ada) = owner_of(&bench, &team).await else { panic!("a member") };
    let invite = invite_request(&team, "member", 1);
    let invites = format!("/mesh/{}/invites", team.id);
    assert_eq!(super::send(&app, call("POST", invites.clone()).json(&invite).by(&team.owner)).await.0, 201);
    let revoke = format!("{invites}/{}/revoke", invite.invite_id);
    assert_eq!(super::send(&app, call("POST", revoke).by(&team.owner)).await.0, 200);
    assert_eq!(super::send(&app, call("POST", format!("/mesh/{}/archive", team.id)).by(&team.owner)).await.0, 200);
    let log = audit::query(&bench.state.storage(&team.id), &Filter::default(), 9).await.unwrap();
    let told: Vec<_> = log.iter().map(|entry| (entry.event_type.as_str(), entry.actor_member_id.as_ref())).collect();
    let by = Some(&ada);
    let events = ["mesh_archived", "invite_revoked", "invite_created", "mesh_created"].map(|event| (event, by));
    assert_eq!(told, events);
}
