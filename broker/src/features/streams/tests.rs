use claudemesh_protocol::features::streams::{Position, Publish, Subscribe};
use claudemesh_protocol::message::ClientMessage;
use serde_json::{Value, json};

use super::*;
use crate::mesh::peers::PeerHandle;
use crate::mesh::testing::{Frames, TestMesh};
use crate::quota::Quotas;

fn tell(mesh: &mut TestMesh, at: PeerHandle, request: impl Into<ClientMessage>) {
    let request = request.into();
    match mesh.step(Some(at), |features, cx| features.dispatch(cx, request)) {
        Ok(Outcome::Work(work)) => mesh.core.work.push(work),
        Ok(_) => {}
        Err(refusal) => panic!("{refusal}"),
    }
}

async fn publish(mesh: &mut TestMesh, at: PeerHandle, data: Value) {
    tell(mesh, at, Publish { stream: "s".into(), data });
    mesh.settle().await;
}

fn offsets(frames: &Frames) -> Vec<Value> {
    TestMesh::take(frames, "stream_data").into_iter().map(|frame| frame["offset"].clone()).collect()
}

async fn team() -> (TestMesh, PeerHandle, PeerHandle, Frames) {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (writer, _) = mesh.peer(&alice, "alice", Some(11));
    let (reader, frames) = mesh.peer(&bob, "bob", Some(12));
    (mesh, writer, reader, frames)
}

fn from(from: Position) -> Subscribe {
    Subscribe { stream: "s".into(), from: Some(from), ..Subscribe::default() }
}

#[actix_rt::test]
async fn who_begins_in_the_past_is_told_what_is_gone_and_then_the_rest() {
    let (mut mesh, writer, reader, frames) = Box::pin(team()).await;
    let create = CreateStream { name: "s".into(), keep_entries: Some(3), ..CreateStream::default() };
    mesh.ask(writer, create).await;
    for number in 0..10 {
        publish(&mut mesh, writer, json!(number)).await;
    }
    mesh.ask(reader, from(Position::Offset(2))).await;
    mesh.settle().await;
    let gaps = TestMesh::take(&frames, "stream_gap");
    assert_eq!((gaps.len(), &gaps[0]["from"], &gaps[0]["to"]), (1, &json!(2), &json!(6)));
    assert_eq!(offsets(&frames), [7, 8, 9]);
    // Who asks for whatever there is missed nothing.
    mesh.ask(reader, from(Position::START)).await;
    mesh.settle().await;
    assert_eq!(
        (TestMesh::take(&frames, "stream_gap").len(), offsets(&frames)),
        (0, vec![json!(7), json!(8), json!(9)])
    );
    publish(&mut mesh, writer, json!(10)).await;
    assert_eq!(offsets(&frames), [10]);
}

#[actix_rt::test]
async fn an_entry_is_acknowledged_before_the_batch_that_wrote_it_came_back() {
    let (mut mesh, writer, reader, _) = Box::pin(team()).await;
    publish(&mut mesh, writer, json!(0)).await;
    let row = mesh.features.streams.channels["s"].row.clone().unwrap();
    let early =
        store::NewEntry { data: "1".into(), by: "member-1".into(), by_name: "alice".into(), session_id: "x".into() };
    store::append(&mesh.core.storage(), row, vec![early], (0, 0), Quotas::default()).await.unwrap();
    mesh.confirm = true;
    for (offset, answer) in [(0, "done"), (1, "done"), (2, "error")] {
        let ack = AckStream { stream: "s".into(), consumer: "ci".into(), offset };
        let told: Value = serde_json::from_str(&mesh.ask(reader, ack).await.write(None)).unwrap();
        assert_eq!(told["type"], answer, "{offset}: {told}");
        assert_eq!(told.get("code").is_some_and(|code| code == "invalid_args"), answer == "error", "{told}");
    }
}

#[actix_rt::test]
async fn entries_of_a_batch_that_was_lost_sight_of_are_told_in_their_place() {
    let (mut mesh, writer, reader, frames) = Box::pin(team()).await;
    mesh.ask(reader, from(Position::NOW)).await;
    publish(&mut mesh, writer, json!(0)).await;
    // Written by work whose end the mesh never heard of.
    let row = mesh.features.streams.channels["s"].row.clone().unwrap();
    let lost =
        store::NewEntry { data: "1".into(), by: "member-1".into(), by_name: "alice".into(), session_id: "x".into() };
    store::append(&mesh.core.storage(), row, vec![lost], (0, 0), Quotas::default()).await.unwrap();
    publish(&mut mesh, writer, json!(2)).await;
    assert_eq!(offsets(&frames), [0, 1, 2]);
}

#[actix_rt::test]
async fn who_may_read_no_more_gets_no_more() {
    let (mut mesh, writer, reader, frames) = Box::pin(team()).await;
    mesh.ask(reader, from(Position::START)).await;
    publish(&mut mesh, writer, json!(0)).await;
    assert_eq!(offsets(&frames), [0]);
    let of = crate::db::rights::Subject::Member("member-2".into());
    mesh.core.rights.put(&of, [(Capability::CanReadShared, false)].into());
    publish(&mut mesh, writer, json!(1)).await;
    assert!(offsets(&frames).is_empty());
    assert_eq!(mesh.features.streams.channels["s"].subscribers.len(), 0);
}

#[actix_rt::test]
async fn a_consumer_that_does_not_acknowledge_moves_with_what_is_pushed() {
    let (mut mesh, writer, reader, frames) = Box::pin(team()).await;
    publish(&mut mesh, writer, json!(0)).await;
    let consumer = || Subscribe { consumer: Some("ci".into()), ..from(Position::START) };
    mesh.ask(reader, consumer()).await;
    mesh.settle().await;
    publish(&mut mesh, writer, json!(1)).await;
    assert_eq!(offsets(&frames), [0, 1]);
    mesh.disconnect(reader);
    // It is on its way to storage.
    assert!(
        !mesh.features.is_settled(&crate::mesh::context::MeshContext::new(&mut mesh.core, None)),
        "the position is not stored yet"
    );
    mesh.tick();
    mesh.settle().await;
    publish(&mut mesh, writer, json!(2)).await;
    let frames = mesh.connect(reader);
    mesh.ask(reader, consumer()).await;
    mesh.settle().await;
    assert_eq!(offsets(&frames), [2]);
}
