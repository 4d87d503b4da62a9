use claudemesh_protocol::features::presence::WriteTarget;
use claudemesh_protocol::message::ServerMessage;
use serde_json::Value;

use super::*;
use crate::audit;
use crate::mesh::testing::{TestMesh, key};

fn read(answer: &ServerMessage) -> Value {
    serde_json::from_str(&answer.write(None)).unwrap()
}

fn rename(name: &str) -> RenameMember {
    RenameMember { name: name.into(), member: None }
}

fn rename_session(name: &str) -> RenameSession {
    RenameSession { name: name.into(), target: WriteTarget::default() }
}

async fn events(mesh: &TestMesh) -> Vec<String> {
    let page = audit::page(&mesh.core.storage(), 0, 100).await.unwrap();
    page.into_iter().map(|entry| entry.event_type).collect()
}

async fn owner(mesh: &mut TestMesh) -> PeerHandle {
    let id = mesh.member("olga", 90).await;
    let patch = MemberPatch { role: Some(Role::Owner), ..MemberPatch::default() };
    store::update(&mesh.core.storage(), &id, &patch, &By::nobody(0)).await.unwrap();
    mesh.core.roster.member_mut(&id).unwrap().role = Role::Owner;
    mesh.peer(&id, "olga", Some(190)).0
}

#[actix_rt::test]
async fn a_renamed_member_is_found_by_both_names_for_a_day() {
    let mut mesh = TestMesh::new().await;
    let (ann, bob) = (mesh.member("Ann", 1).await, mesh.member("Bob", 2).await);
    let ((at, _), (_, frames)) = (mesh.peer(&ann, "Ann", Some(11)), mesh.peer(&bob, "Bob", Some(12)));
    let answer = read(&mesh.ask(at, rename("Anne")).await);
    assert_eq!(
        (&answer["type"], &answer["name"], &answer["formerName"]),
        (&"renamed".into(), &"Anne".into(), &"Ann".into())
    );
    let told = TestMesh::take(&frames, "push");
    assert!(
        told.iter().any(|push| push["event"] == "member_renamed" && push["eventData"]["name"] == "Anne"),
        "{told:?}"
    );
    // A session without a name of its own follows.
    assert_eq!(mesh.core.roster.get(at).unwrap().name, "Anne");
    for name in ["Anne", "ann", "ANN"] {
        let meant = resolve_name(&mesh.core.roster, name, None).unwrap();
        assert_eq!(meant.key(), key(1), "{name}");
    }
    assert!(events(&mesh).await.contains(&"member_changed".to_owned()));
    // Anyone who takes the old name is meant by it from then on.
    let other = mesh.member("Ann", 3).await;
    assert_eq!(resolve_name(&mesh.core.roster, "Ann", None).unwrap().member(&mesh.core.roster), Some(&other));
    mesh.core.roster.member_mut(&other).unwrap().revoked_at_ms = Some(1);
    mesh.clock.advance(std::time::Duration::from_secs(24 * 3_600 + 1));
    mesh.step(None, |_, cx| cx.emit(MeshEvent::Tick));
    assert!(resolve_name(&mesh.core.roster, "Ann", None).is_err(), "a day later it is free");
}

#[actix_rt::test]
async fn a_name_has_one_living_member_and_a_former_name_of_two_means_neither() {
    let mut mesh = TestMesh::new().await;
    let (ann, bob) = (mesh.member("Ann", 1).await, mesh.member("Bob", 2).await);
    let ((ann_at, _), (bob_at, _)) = (mesh.peer(&ann, "a", Some(11)), mesh.peer(&bob, "b", Some(12)));
    for name in ["Bob", "bob", " BOB "] {
        let refused = read(&mesh.ask(ann_at, rename(name)).await);
        assert_eq!(refused["code"], "name_taken", "{name}: {refused}");
    }
    // One's own name may be spelled in another way, and is no former one.
    assert_eq!(read(&mesh.ask(ann_at, rename("ann")).await)["name"], "ann");
    let rows = read(&mesh.ask(ann_at, ListMembers {}).await);
    assert!(rows["members"].as_array().unwrap().iter().all(|row| row["formerNames"].is_null()), "{rows}");
    // Bob was Bob, then Ann was: each gave it up.
    assert_eq!(read(&mesh.ask(bob_at, rename("Bobby")).await)["name"], "Bobby");
    assert_eq!(resolve_name(&mesh.core.roster, "Bob", None).unwrap().key(), key(2));
    assert_eq!(read(&mesh.ask(ann_at, rename("Bob")).await)["name"], "Bob");
    assert_eq!(resolve_name(&mesh.core.roster, "Bob", None).unwrap().key(), key(1));
    assert_eq!(read(&mesh.ask(ann_at, rename("Anne")).await)["name"], "Anne");
    let refused = resolve_name(&mesh.core.roster, "Bob", None).unwrap_err();
    assert_eq!((refused.code.as_str(), refused.candidates.len()), ("ambiguous_target", 2), "{refused:?}");
    assert!(refused.message.contains("no one is called `Bob` now"), "{refused:?}");
    let mut names: Vec<_> = refused.candidates.into_iter().map(|one| one.name).collect();
    names.sort();
    assert_eq!(names, ["Anne", "Bobby"]);
}

#[actix_rt::test]
async fn names_follow_one_rule_and_look_alikes_are_told() {
    let mut mesh = TestMesh::new().await;
    let (ann, _) = (mesh.member("Ann", 1).await, mesh.member("Bob", 2).await);
    let (at, _) = mesh.peer(&ann, "Ann", Some(11));
    for bad in ["", "\u{3164}", "a,b", "Bob/api", "@qa", "deadbeef"] {
        for answer in [mesh.ask(at, rename(bad)).await, mesh.ask(at, rename_session(bad)).await] {
            assert_eq!(read(&answer)["code"], "invalid_name", "{bad:?}");
        }
    }
    let answer = read(&mesh.ask(at, rename("Воb")).await);
    assert_eq!(answer["looksLike"], serde_json::json!(["Bob"]));
    let list = read(&mesh.ask(at, ListMembers {}).await);
    let row = list["members"].as_array().unwrap().iter().find(|row| row["name"] == "Воb").unwrap().clone();
    assert_eq!((&row["looksLike"], &row["formerNames"]), (&serde_json::json!(["Bob"]), &serde_json::json!(["Ann"])));
}

#[actix_rt::test]
async fn a_renamed_session_keeps_its_name_until_its_client_brings_another() {
    let mut mesh = TestMesh::new().await;
    let (bob, ann) = (mesh.member("Bob", 2).await, mesh.member("Ann", 1).await);
    let (at, _) = mesh.peer(&bob, "api", Some(12));
    let (_, frames) = mesh.peer(&ann, "web", Some(11));
    mesh.core.roster.get_mut(at).unwrap().brought_name = "api".into();
    let answer = read(&mesh.ask(at, rename_session("server")).await);
    assert_eq!((&answer["address"], &answer["formerName"]), (&"Bob/server".into(), &"api".into()));
    let peer = mesh.core.roster.get(at).unwrap();
    assert_eq!((peer.name.as_str(), peer.renamed_from.as_deref()), ("server", Some("api")));
    for name in ["server", "api", "Bob/server", "bob/API"] {
        assert_eq!(resolve_name(&mesh.core.roster, name, None).unwrap().key(), key(12), "{name}");
    }
    assert!(events(&mesh).await.contains(&"session_renamed".to_owned()));
    let told = TestMesh::take(&frames, "push");
    assert!(told.iter().any(|push| push["event"] == "session_renamed"), "{told:?}");
    let all = WriteTarget { target_session: Some("*".into()) };
    let refused = mesh.ask(at, RenameSession { name: "x".into(), target: all }).await;
    assert_eq!(read(&refused)["code"], "invalid_args");
}

#[actix_rt::test]
async fn renaming_others_needs_the_capability_and_never_touches_the_owner() {
    let mut mesh = TestMesh::new().await;
    let boss = owner(&mut mesh).await;
    let (ann, bob) = (mesh.member("Ann", 1).await, mesh.member("Bob", 2).await);
    let (at, _) = mesh.peer(&ann, "Ann", Some(11));
    mesh.peer(&bob, "Bob", Some(12));
    let bobby = |member: &str| RenameMember { name: "Bobby".into(), member: Some(member.into()) };
    assert_eq!(read(&mesh.ask(at, bobby("Bob")).await)["code"], "forbidden");
    mesh.core.roster.member_mut(&ann).unwrap().role = Role::Admin;
    assert_eq!(read(&mesh.ask(at, bobby("olga")).await)["code"], "forbidden");
    assert_eq!(read(&mesh.ask(at, bobby("Bob")).await)["name"], "Bobby");
    assert_eq!(read(&mesh.ask(boss, bobby("nobody")).await)["code"], "not_found");
}

#[actix_rt::test]
async fn a_member_that_may_manage_members_renames_members_and_no_admins() {
    let mut mesh = TestMesh::new().await;
    let ids = [mesh.member("Ann", 1).await, mesh.member("Bob", 2).await, mesh.member("Carl", 3).await];
    let (at, _) = mesh.peer(&ids[0], "Ann", Some(11));
    mesh.core.roster.member_mut(&ids[2]).unwrap().role = Role::Admin;
    let to = |member: &str| RenameMember { name: "Zed".into(), member: Some(member.into()) };
    let given = |capability| Overrides::from([(capability, true)]);
    let own = rights::Subject::Member(ids[0].clone());
    mesh.step(None, |_, cx| cx.change_rights(&own, given(Capability::CanModerate)));
    let refused = read(&mesh.ask(at, to("Bob")).await);
    assert!(refused["message"].as_str().unwrap().ends_with("canManageMembers"), "{refused}");
    mesh.step(None, |_, cx| cx.change_rights(&own, given(Capability::CanManageMembers)));
    assert_eq!(read(&mesh.ask(at, to("Carl")).await)["code"], "forbidden");
    assert_eq!(read(&mesh.ask(at, to("Bob")).await)["name"], "Zed");
}

#[actix_rt::test]
async fn roles_are_the_owners() {
    let mut mesh = TestMesh::new().await;
    let boss = owner(&mut mesh).await;
    let ann = mesh.member("Ann", 1).await;
    let (at, _) = mesh.peer(&ann, "Ann", Some(11));
    let set = |role: &str| SetMemberRole { member: "Ann".into(), role: role.into() };
    assert_eq!(read(&mesh.ask(boss, set("owner")).await)["code"], "invalid_args");
    assert_eq!(read(&mesh.ask(boss, set("admin")).await)["role"], "admin");
    assert_eq!(mesh.core.roster.member(&ann).unwrap().role, Role::Admin);
    let own = SetMemberRole { member: "olga".into(), role: "member".into() };
    assert_eq!(read(&mesh.ask(boss, own.clone()).await)["code"], "invalid");
    assert_eq!(read(&mesh.ask(at, own).await)["code"], "forbidden");
    let who = read(&mesh.ask(at, Whoami {}).await);
    assert_eq!(
        (&who["name"], &who["role"], &who["session"]["address"]),
        (&"Ann".into(), &"admin".into(), &"Ann".into())
    );
}

#[actix_rt::test]
async fn who_is_removed_is_gone_and_may_leave_by_itself() {
    let mut mesh = TestMesh::new().await;
    let boss = owner(&mut mesh).await;
    let (ann, bob) = (mesh.member("Ann", 1).await, mesh.member("Bob", 2).await);
    let (at, _) = mesh.peer(&ann, "Ann", Some(11));
    let (other, _) = mesh.peer(&bob, "Bob", Some(12));
    let remove = |member: &str| RemoveMember { member: member.into() };
    assert_eq!(read(&mesh.ask(at, remove("Bob")).await)["code"], "forbidden");
    assert_eq!(read(&mesh.ask(boss, remove("olga")).await)["code"], "invalid");
    assert_eq!(read(&mesh.ask(boss, remove("Bob")).await)["name"], "Bob");
    assert!(mesh.core.roster.get(other).is_none(), "its connections are ended");
    let request = remove("Ann").into();
    let left = mesh.step(Some(at), |features, cx| features.dispatch(cx, request)).unwrap();
    let Outcome::Work(work) = left else { panic!("storage is asked") };
    let reply_to = mesh.step(Some(at), |_, cx| cx.reply_to());
    mesh.core.work.push(crate::mesh::outcome::Work { reply_to, ..work });
    mesh.settle().await;
    assert!(mesh.core.roster.get(at).is_none(), "its connections are ended");
    for (id, event) in [(&bob, "member_removed"), (&ann, "member_left")] {
        assert!(mesh.core.roster.member(id).unwrap().removed_at_ms.is_some());
        assert!(mesh.core.roster.member(id).unwrap().banned_at_ms().is_none(), "its key may join again");
        assert!(events(&mesh).await.contains(&event.to_owned()));
    }
    assert!(resolve_name(&mesh.core.roster, "Bob", None).is_err());
}

#[actix_rt::test]
async fn another_owner_holds_the_key_of_the_mesh() {
    let mut mesh = TestMesh::new().await;
    let boss = owner(&mut mesh).await;
    let ann = mesh.member("Ann", 1).await;
    let (at, _) = mesh.peer(&ann, "Ann", Some(11));
    let to = TransferMesh { member: "Ann".into() };
    assert_eq!(read(&mesh.ask(at, to.clone()).await)["code"], "forbidden");
    assert_eq!(read(&mesh.ask(boss, to.clone()).await)["role"], "owner");
    assert_eq!(mesh.core.owner_key, key(1));
    assert_eq!(read(&mesh.ask(boss, to).await)["code"], "forbidden", "it is an admin now");
    let who = read(&mesh.ask(at, Whoami {}).await);
    assert_eq!((&who["role"], &who["ownerPubkey"]), (&"owner".into(), &key(1).to_hex().into()));
    let stored = crate::db::meshes::load(&mesh.core.db, &mesh.core.id).await.unwrap().unwrap();
    assert_eq!(stored.owner_pubkey, key(1));
    assert!(events(&mesh).await.contains(&"mesh_transferred".to_owned()));
}

#[actix_rt::test]
async fn an_address_means_a_session_of_that_member_and_nobody_who_calls_itself_so() {
    let mut mesh = TestMesh::new().await;
    let (bob, carl) = (mesh.member("Bob", 2).await, mesh.member("Carl", 3).await);
    let (old, _) = mesh.peer(&bob, "api", Some(12));
    mesh.peer(&carl, "Bob/api", Some(13));
    mesh.peer(&carl, "api", Some(14));
    let key_of = |mesh: &TestMesh, text: &str| resolve_name(&mesh.core.roster, text, None).map(|found| found.key());
    assert_eq!(key_of(&mesh, "Bob/api"), Ok(key(12)));
    assert_eq!(key_of(&mesh, "Carl/api"), Ok(key(14)));
    let prefix = &key(2).to_hex()[..8];
    assert_eq!(key_of(&mesh, &format!("{prefix}/API")), Ok(key(12)), "a member can be named by its key");
    // Two that are here are ambiguous; the candidates say whose and where.
    let refusal = key_of(&mesh, "api").unwrap_err();
    assert_eq!(refusal.code, ErrorCode::AmbiguousTarget);
    let told: Vec<String> = refusal.candidates.iter().map(|one| one.address()).collect();
    assert_eq!(told, ["Bob/api", "Carl/api"]);
    assert!(refusal.candidates.iter().all(|one| one.cwd.as_deref() == Some("/api") && one.online));
    // One that has ended makes nothing ambiguous, no matter whose it was.
    mesh.disconnect(old);
    assert_eq!(key_of(&mesh, "api"), Ok(key(14)));
    assert_eq!(key_of(&mesh, "Bob/api"), Ok(key(12)), "and is still meant by its address");
    let (newest, _) = mesh.peer(&bob, "api", Some(15));
    assert_eq!(key_of(&mesh, "Bob/api"), Ok(key(15)), "the one that is here wins");
    mesh.disconnect(newest);
    assert_eq!(key_of(&mesh, "Bob/api"), Ok(key(2)), "of several that are away the first that returns is meant");
    for nobody in ["Bob/none", "None/api", "/api", "Bob/"] {
        assert!(key_of(&mesh, nobody).is_err(), "{nobody}");
    }
}
