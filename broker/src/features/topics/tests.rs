use claudemesh_protocol::features::topics::Visibility;
use claudemesh_protocol::message::{Failure, ServerMessage};

use claudemesh_protocol::features::topics::TopicMembers;

use super::*;
use crate::mesh::testing::TestMesh;

#[actix_rt::test]
async fn one_member_does_not_use_up_the_topics_of_a_mesh() {
    let mut mesh = TestMesh::new().await;
    let (alice, mallory) = (mesh.member("alice", 1).await, mesh.member("mallory", 2).await);
    let (one, _) = mesh.peer(&alice, "alice", Some(11));
    let (other, _) = mesh.peer(&mallory, "mallory", Some(12));
    let mut create = async |at, name: String| {
        let request = TopicCreate { name, description: None, visibility: Some(Visibility::Private) };
        let answer = mesh.ask(at, Request::TopicCreate(request)).await;
        match answer {
            ServerMessage::Failure(Failure::Error(error)) => Err(error.code),
            _ => Ok(()),
        }
    };
    let mut made = 0;
    for number in 0..PER_MEMBER.default + 10 {
        made += usize::from(create(other, format!("t{number}")).await.is_ok());
    }
    assert_eq!(made, 500);
    assert_eq!(create(other, "one-more".into()).await, Err("limit".into()));
    assert_eq!(create(other, "t0".into()).await, Ok(()), "one that exists is no new one");
    assert_eq!(create(one, "plans".into()).await, Ok(()));
    let answer = mesh.ask(other, claudemesh_protocol::features::info::MeshInfo {}).await;
    let info: MeshInfoResult = serde_json::from_str(&answer.write(None)).unwrap();
    let own = info.limits.iter().filter(|bound| bound.name.starts_with("topics."));
    let told: Vec<_> = own.map(|one| (one.name.as_str(), one.limit, one.used)).collect();
    assert_eq!(told, [("topics.per_mesh", 1_000, 501), ("topics.per_member", 500, 500)]);
}

#[actix_rt::test]
async fn a_fault_of_storage_names_an_incident_and_not_its_cause() {
    let mut mesh = TestMesh::new().await;
    let alice = mesh.member("alice", 1).await;
    let (at, _) = mesh.peer(&alice, "alice", Some(11));
    let create = TopicCreate { name: "plans".into(), description: None, visibility: None };
    mesh.ask(at, Request::TopicCreate(create)).await;
    rename(&mesh.core.db).await.unwrap();
    let answer = mesh.ask(at, Request::TopicMembers(TopicMembers { topic: "plans".into() })).await;
    let ServerMessage::Failure(Failure::Error(error)) = answer else { panic!("{answer:?}") };
    assert_eq!((error.code.as_str(), error.id.as_deref()), ("internal", Some("i")));
    let incident = error.message.split("(incident ").nth(1).and_then(|rest| rest.strip_suffix(')'));
    assert!(incident.is_some_and(|text| uuid::Uuid::parse_str(text).is_ok()), "{}", error.message);
    assert!(!error.message.contains("topic_members"), "{}", error.message);
}

async fn rename(db: &crate::db::Db) -> Result<(), DbError> {
    let rename = diesel::sql_query("ALTER TABLE topic_members RENAME TO hidden");
    crate::with_conn!(db, |conn| diesel_async::RunQueryDsl::execute(rename, conn).await?);
    Ok(())
}

/// What a stream does not read is bounded: it is ended, and the others go on.
#[actix_rt::test]
async fn a_follower_that_does_not_read_is_ended_and_holds_no_one_up() {
    let mut mesh = TestMesh::new().await;
    let alice = mesh.member("alice", 1).await;
    let (at, _) = mesh.peer(&alice, "alice", Some(11));
    let create = TopicCreate { name: "plans".into(), description: None, visibility: None };
    mesh.ask(at, Request::TopicCreate(create)).await;
    let topic = mesh.core.topics.find("plans").unwrap().id.clone();
    let mut open =
        || mesh.step(None, |features, cx| features.topics.followers.stream(cx, &alice, &topic, None)).unwrap();
    let (mut slow, mut quick) = (open(), open());
    let mut read = 0;
    for _ in 0..follow::WAITING + 10 {
        let text = claudemesh_protocol::features::messaging::Priority::Next;
        mesh.send(at, "#plans", text, "aGk=").ok().unwrap();
        mesh.settle().await;
        read += usize::from(quick.try_recv().is_ok());
    }
    assert_eq!(read, follow::WAITING + 10, "each is told at once");
    let mut had = 0;
    while slow.try_recv().is_ok() {
        had += 1;
    }
    assert!(had == follow::WAITING && slow.is_closed(), "{had}");
}
