//! What peers may send without end costs a bounded amount, and a fault of storage holds no one up for good.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{ClientAck, Priority, Stage};
use claudemesh_protocol::limits;
use diesel_async::RunQueryDsl;

use super::store;
use crate::db::{Db, DbError};
use crate::mesh::resolve::{Resolved, resolve_name};
use crate::mesh::testing::{TestMesh, key};
use crate::with_conn;

fn seen(message_ids: Vec<String>) -> ClientAck {
    ClientAck { message_ids, stage: Some(Stage::Seen), ..ClientAck::default() }
}

#[actix_rt::test]
async fn acknowledgements_of_unknown_messages_cost_a_few_looks_however_many_come() {
    let mut mesh = TestMesh::new().await;
    let bob = mesh.member("bob", 2).await;
    let (at, _) = mesh.peer(&bob, "bob", Some(12));
    for frame in 0..200 {
        let unknown = (0..limits::MAX_ACK_IDS).map(|number| format!("{frame:016}{number:016}")).collect();
        mesh.handle(at, seen(unknown)).unwrap();
    }
    assert!((1..=8).contains(&mesh.core.work.len()), "{} pieces of work", mesh.core.work.len());
    mesh.settle().await;
    assert!(mesh.features.messaging.lookups.is_empty(), "the next ones are looked up again");
    mesh.handle(at, seen(vec!["0".repeat(32)])).unwrap();
    assert_eq!(mesh.core.work.len(), 1);
}

#[actix_rt::test]
async fn a_receipt_is_written_once_however_often_it_is_said() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, _) = mesh.peer(&alice, "alice", Some(11));
    let (to, frames) = mesh.peer(&bob, "bob", Some(12));
    mesh.send(from, &key(12).to_hex(), Priority::Next, "x").unwrap();
    mesh.settle().await;
    let pushed = TestMesh::take(&frames, "push");
    let id = pushed[0]["messageId"].as_str().unwrap().to_owned();
    for forgotten in [false, true] {
        let stage = if forgotten { Stage::Seen } else { Stage::Handed };
        if forgotten {
            mesh.features.messaging.recent.clear();
        }
        let ack = || ClientAck { stage: Some(stage), ..seen(vec![id.clone(); 512]) };
        mesh.handle(to, ack()).unwrap();
        mesh.settle().await;
        mesh.tick();
        mesh.settle().await;
        let stored = store::deliveries_of(&mesh.core.storage(), 1).await.unwrap();
        assert_eq!(stored[0].stage, Some(stage));
        for _ in 0..100 {
            mesh.handle(to, ack()).unwrap();
        }
        mesh.run_work().await;
        assert_eq!(mesh.features.messaging.stages.len(), 0, "forgotten: {forgotten}");
    }
}

async fn rename(db: &Db, from: &str, to: &str) -> Result<(), DbError> {
    with_conn!(db, |conn| diesel::sql_query(format!("ALTER TABLE {from} RENAME TO {to}")).execute(conn).await?);
    Ok(())
}

#[actix_rt::test]
async fn what_waits_for_the_member_comes_although_it_could_not_be_read_at_first() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, _) = mesh.peer(&alice, "alice", Some(11));
    mesh.send(from, &key(2).to_hex(), Priority::Next, "for the member").unwrap();
    mesh.settle().await;
    let (_, frames) = mesh.peer(&bob, "bob", Some(12));
    rename(&mesh.core.db, "deliveries", "hidden").await.unwrap();
    mesh.settle().await;
    rename(&mesh.core.db, "hidden", "deliveries").await.unwrap();
    assert_eq!(TestMesh::take(&frames, "push").len(), 0);
    // It keeps its place in the order: nothing overtakes what is still to be read.
    mesh.send(from, &key(12).to_hex(), Priority::Next, "for the session").unwrap();
    mesh.tick();
    mesh.settle().await;
    let pushes = TestMesh::take(&frames, "push");
    let texts: Vec<_> = pushes.iter().map(|push| push["ciphertext"].as_str().unwrap()).collect();
    assert_eq!(texts, ["for the member", "for the session"]);
}

#[actix_rt::test]
async fn a_session_keeps_its_key_whoever_enrols_it() {
    let mut mesh = TestMesh::new().await;
    let (bob, mallory) = (mesh.member("bob", 2).await, mesh.member("mallory", 12).await);
    assert_eq!(resolve_name(&mesh.core.roster, &key(12).to_hex(), None).unwrap(), Resolved::Member(mallory, key(12)));
    mesh.peer(&bob, "bob", Some(12));
    assert_eq!(resolve_name(&mesh.core.roster, &key(12).to_hex(), None).unwrap(), Resolved::Session(key(12)));
    assert_eq!(resolve_name(&mesh.core.roster, &key(2).to_hex(), None).unwrap(), Resolved::Member(bob, key(2)));
}

#[actix_rt::test]
async fn a_session_that_is_called_like_a_key_takes_nothing_from_the_key() {
    let mut mesh = TestMesh::new().await;
    let (bob, mallory) = (mesh.member("bob", 0xab).await, mesh.member("mallory", 3).await);
    for name in ["abababab", "AB".repeat(32).as_str()] {
        let (at, _) = mesh.peer(&mallory, name, Some(13));
        let refused = resolve_name(&mesh.core.roster, name, None).unwrap_err();
        assert_eq!(refused.code, ErrorCode::AmbiguousTarget, "{name}");
        let means: Vec<_> = refused.candidates.iter().map(|one| one.member_pubkey).collect();
        assert!(means.contains(&key(0xab)) && means.contains(&key(3)), "{means:?}");
        mesh.step(None, |_, cx| cx.end(at, false));
        mesh.core.roster.known.remove(&key(13));
        assert_eq!(resolve_name(&mesh.core.roster, name, None).unwrap(), Resolved::Member(bob.clone(), key(0xab)));
    }
}
