use claudemesh_protocol::crypto::audit::Entry;
use claudemesh_protocol::crypto::{keys, signed};
use claudemesh_protocol::features::meshes::PatchSettings;
use claudemesh_protocol::message::{Failure, ServerMessage};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::*;
use crate::audit::By;
use crate::audit::schema::audit_log;
use crate::db::Db;
use crate::db::members::{self, MemberPatch};
use crate::db::meshes;
use crate::mesh::testing::TestMesh;

fn read<T: serde::de::DeserializeOwned>(answer: &ServerMessage) -> T {
    serde_json::from_str(&answer.write(None)).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn code(answer: &ServerMessage) -> &str {
    match answer {
        ServerMessage::Failure(Failure::Error(error)) => &error.code,
        _ => "",
    }
}

async fn overwrite(db: &Db, seq: i64) -> Result<(), DbError> {
    // Unaudited: it is the damage that the chain has to show.
    crate::with_tx!(db, |conn| diesel::update(audit_log::table.filter(audit_log::seq.eq(seq)))
        .set(audit_log::payload.eq("{}"))
        .execute(conn)
        .await?);
    Ok(())
}

/// A mesh where an admin `ann` and a member `bob` are, and `changes` entries by each of them.
async fn mesh_with_entries(changes: usize) -> (TestMesh, PeerHandle, PeerHandle, MemberId) {
    let mut mesh = TestMesh::new().await;
    let (ann, bob) = (mesh.member("ann", 1).await, mesh.member("bob", 2).await);
    let patch = MemberPatch { role: Some(Role::Admin), ..MemberPatch::default() };
    members::update(&mesh.core.storage(), &ann, &patch, &By::nobody(0)).await.unwrap();
    mesh.core.roster.member_mut(&ann).unwrap().role = Role::Admin;
    for number in 0..changes {
        for (at, member) in [&ann, &bob].into_iter().enumerate() {
            // Another value each time: what changes nothing has no entry.
            let limits = [("topics.per_mesh".to_owned(), Some((2 * number + at + 1) as u64))].into();
            let change = PatchSettings { limits, ..PatchSettings::default() };
            meshes::change_settings(&mesh.core.storage(), &change, &By::member(member, 5)).await.unwrap();
        }
    }
    let (one, _) = mesh.peer(&ann, "ann", Some(11));
    let (other, _) = mesh.peer(&bob, "bob", Some(12));
    (mesh, one, other, bob)
}

#[actix_rt::test]
async fn admins_read_all_and_members_what_they_did() {
    let (mut mesh, ann, bob, _) = Box::pin(mesh_with_entries(3)).await;
    let all: AuditResult = read(&mesh.ask(ann, AuditQuery::default()).await);
    // The mesh, its members, ann's role, three changes by each.
    assert_eq!((all.total, all.entries.len()), (10, 10));
    assert_eq!(all.entries.iter().map(|row| row.id).collect::<Vec<_>>(), (1..=10).rev().collect::<Vec<_>>());
    assert_eq!((all.entries[0].actor.as_deref(), all.entries[1].actor.as_deref()), (Some("bob"), Some("ann")));
    assert!(all.entries[0].payload.is_object() && all.entries[0].created_at.ends_with('Z'));
    let own: AuditResult = read(&mesh.ask(bob, AuditQuery::default()).await);
    assert_eq!((own.total, own.entries.len()), (4, 4));
    assert!(own.entries.iter().all(|row| row.actor.as_deref() == Some("bob")), "{own:?}");
    let page =
        AuditQuery { limit: Some(2), offset: Some(1), event_type: Some("policy_changed".into()), before: Some(10) };
    let page: AuditResult = read(&mesh.ask(ann, page).await);
    assert_eq!((page.entries.iter().map(|row| row.id).collect::<Vec<_>>(), page.total), (vec![8, 7], 6));
    let far = AuditQuery { offset: Some(MAX_OFFSET + 1), ..AuditQuery::default() };
    assert_eq!(code(&mesh.ask(ann, far).await), "invalid_args");
}

#[actix_rt::test]
async fn everyone_verifies_and_learns_where_the_chain_broke() {
    let (mut mesh, _, bob, _) = Box::pin(mesh_with_entries(2)).await;
    let whole: AuditVerifyResult = read(&mesh.ask(bob, AuditVerify {}).await);
    assert_eq!(whole, AuditVerifyResult { valid: true, entries: 8, broken_at: None });
    overwrite(&mesh.core.db, 6).await.unwrap();
    let broken: AuditVerifyResult = read(&mesh.ask(bob, AuditVerify {}).await);
    assert_eq!(broken, AuditVerifyResult { valid: false, entries: 5, broken_at: Some(6) });
}

#[actix_rt::test]
async fn the_signed_head_is_that_of_storage_and_of_the_greeting() {
    let (mut mesh, ann, bob, _) = Box::pin(mesh_with_entries(1)).await;
    let told: AuditHeadsResult = read(&mesh.ask(bob, AuditHeads { at: Some(3) }).await);
    let stored = audit::head(&mesh.core.storage()).await.unwrap();
    assert_eq!((told.head.seq, &told.head.hash), (stored.seq, &stored.hash));
    assert_eq!(told.hash_at, audit::hash_at(&mesh.core.storage(), 3).await.unwrap());
    let text = signed::audit_head(&mesh.core.id, told.head.seq, &told.head.hash, told.head.at);
    assert!(keys::verify(&told.key, text.as_bytes(), &told.head.signature).is_ok());
    let greeted = |mesh: &mut TestMesh| {
        let mut ack: HelloAck = serde_json::from_str(r#"{"presenceId":"p","memberDisplayName":"n"}"#).unwrap();
        mesh.step(None, |features, cx| features.greet(cx, ann, &mut ack));
        serde_json::from_value::<AuditHeadsResult>(ack.features["audit"].clone()).unwrap()
    };
    assert_eq!(greeted(&mut mesh).head.hash, told.head.hash);
    // As after a restart: the journal has appended nothing, and the head is that of storage.
    let (journal, _) = crate::journal::Journal::start(mesh.core.db.clone());
    mesh.core.journal = journal;
    mesh.features = crate::features::Features::load(&mesh.core.storage()).await.unwrap();
    assert_eq!(greeted(&mut mesh).head.hash, told.head.hash);
}

#[actix_rt::test]
async fn an_export_has_all_that_the_hashes_are_made_of() {
    let (mut mesh, ann, bob, _) = Box::pin(mesh_with_entries(3)).await;
    assert_eq!(code(&mesh.ask(bob, AuditExport::default()).await), "forbidden");
    let (mut after, mut previous, mut seen) = (None, "genesis".to_owned(), 0);
    loop {
        let page: AuditPage = read(&mesh.ask(ann, AuditExport { after, limit: Some(4) }).await);
        for entry in &page.entries {
            let fields = Entry {
                mesh: "mesh",
                event: &entry.event_type,
                actor: entry.actor.as_ref().map(MemberId::as_str),
                payload: &entry.payload,
                at_ms: entry.created_at_ms,
            };
            seen += 1;
            assert_eq!((entry.seq, &entry.prev_hash), (seen, &previous));
            assert_eq!(fields.hash(&previous), entry.hash);
            previous.clone_from(&entry.hash);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((seen, previous), (10, audit::head(&mesh.core.storage()).await.unwrap().hash));
}

#[actix_rt::test]
async fn a_long_log_is_verified_in_pieces() {
    let (mut mesh, ann, _, _) = Box::pin(mesh_with_entries(3)).await;
    let in_pieces = async |mesh: &mut TestMesh, piece| {
        let outcome = mesh.step(Some(ann), |_, cx| verify(cx, Head::genesis(), piece).erase());
        read::<AuditVerifyResult>(&mesh.answer_of(ann, Ok(outcome)).await)
    };
    for piece in [1, 3, 5, 10, 11] {
        let found = in_pieces(&mut mesh, piece).await;
        assert_eq!((found.valid, found.entries, found.broken_at), (true, 10, None), "{piece}");
    }
    overwrite(&mesh.core.db, 7).await.unwrap();
    for piece in [1, 3, 6, 7] {
        let found = in_pieces(&mut mesh, piece).await;
        assert_eq!((found.valid, found.entries, found.broken_at), (false, 6, Some(7)), "{piece}");
    }
}
