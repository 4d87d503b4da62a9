use claudemesh_protocol::features::presence::WriteTarget;
use claudemesh_protocol::message::ServerMessage;
use serde_json::{Value, json};

use super::*;
use crate::mesh::testing::TestMesh;

fn read(answer: &ServerMessage) -> Value {
    serde_json::from_str(&answer.write(None)).unwrap()
}

fn join(name: &str, role: Option<&str>, as_member: bool) -> JoinGroup {
    JoinGroup { name: name.into(), role: role.map(str::to_owned), as_member, target: WriteTarget::default() }
}

#[actix_rt::test]
async fn a_member_is_in_a_group_for_good_and_a_session_for_its_time() {
    let mut mesh = TestMesh::new().await;
    mesh.confirm = true;
    let (ann, bob) = (mesh.member("Ann", 1).await, mesh.member("Bob", 2).await);
    let (at, _) = mesh.peer(&ann, "api", Some(11));
    let (other, _) = mesh.peer(&bob, "web", Some(12));
    mesh.ask(at, join("dev", Some("lead"), true)).await;
    mesh.ask(other, join("dev", None, false)).await;
    let list = read(&mesh.ask(at, ListGroups {}).await);
    let rows = list["groups"][0]["members"].as_array().unwrap();
    let told: Vec<_> = rows.iter().map(|row| (&row["kind"], &row["name"], &row["role"], &row["waits"])).collect();
    assert_eq!(
        told,
        [
            (&json!("member"), &json!("Ann"), &json!("lead"), &json!(true)),
            (&json!("session"), &json!("Bob/web"), &Value::Null, &json!(false)),
        ]
    );
    // It is what storage has, also when no one of them is here.
    let stored = store::load(&mesh.core.storage()).await.unwrap();
    assert_eq!(stored[&ann], [Group { name: "dev".into(), role: Some("lead".into()) }]);
    mesh.ask(at, join("dev", None, true)).await;
    assert_eq!(mesh.core.roster.groups_of(&ann)[0].role.as_deref(), Some("lead"), "it is kept");
    let leave = LeaveGroup { name: "dev".into(), as_member: true, target: WriteTarget::default() };
    mesh.ask(at, leave).await;
    assert!(store::load(&mesh.core.storage()).await.unwrap().get(&ann).is_none_or(Vec::is_empty));
    assert!(mesh.core.roster.groups_of(&ann).is_empty());
}

#[actix_rt::test]
async fn a_member_joins_so_many_groups_and_no_session_is_named_for_it() {
    let mut mesh = TestMesh::new().await;
    mesh.confirm = true;
    let ann = mesh.member("Ann", 1).await;
    let (at, _) = mesh.peer(&ann, "api", Some(11));
    for number in 0..limits::MAX_GROUPS {
        mesh.ask(at, join(&format!("g{number}"), None, true)).await;
    }
    let full = read(&mesh.ask(at, join("one-more", None, true)).await);
    assert_eq!((&full["code"], &full["bound"]["name"]), (&json!("limit"), &json!("groups.per_member")));
    let all = WriteTarget { target_session: Some("*".into()) };
    let refused = read(&mesh.ask(at, JoinGroup { target: all, ..join("g0", None, true) }).await);
    assert_eq!(refused["code"], "invalid_args");
    for bad in ["bad name", "", "a,b"] {
        assert_eq!(read(&mesh.ask(at, join(bad, None, true)).await)["code"], "invalid_name", "{bad:?}");
    }
}
