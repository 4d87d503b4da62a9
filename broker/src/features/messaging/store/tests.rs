use std::sync::Arc;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::Stage;
use claudemesh_protocol::id::MeshId;

use super::testing::message;
use super::types::{MessagingPart, NewDelivery, NewMessage, RecipientKind, StageUpdate};
use super::*;
use crate::audit::By;
use crate::db::Db;
use crate::db::members::{self as members, Role};
use crate::db::sessions::{self as presence, LastSeen, SessionsPart, StatsDelta};
use crate::db::testing::{NOW, key, member, mesh, of, store, store_suite};
use crate::journal::{Batch, write_batch};

async fn history(
    db: &MeshDb,
    topic: &claudemesh_protocol::id::TopicId,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<StoredMessage>, DbError> {
    let part = TopicPart { before_seq: before.unwrap_or(i64::MAX), ..TopicPart::newest(topic.clone(), limit) };
    topic_history(db, &part).await
}

fn delivery(message: &NewMessage, recipient: PublicKey, kind: RecipientKind) -> NewDelivery {
    NewDelivery {
        mesh_id: message.mesh_id.clone(),
        seq: message.seq,
        recipient_key: recipient,
        kind,
        member_id: "receiver".into(),
        priority: message.priority,
        size_bytes: 300,
    }
}

fn stage(mesh: &MeshId, seq: i64, recipient: PublicKey, stage: Stage, route: Option<&str>) -> StageUpdate {
    StageUpdate {
        mesh_id: mesh.clone(),
        seq,
        recipient_key: recipient,
        stage,
        at_ms: NOW + seq,
        route: route.map(Into::into),
    }
}

async fn write(db: &Db, messages: &[NewMessage], deliveries: Vec<NewDelivery>) {
    let messages = messages.iter().cloned().map(Arc::new).collect();
    write_batch(db, Arc::new(Batch::of(MessagingPart { messages, deliveries, ..MessagingPart::default() })))
        .await
        .unwrap();
}

async fn acknowledge(db: &Db, stages: Vec<StageUpdate>) {
    write_batch(db, Arc::new(Batch::of(MessagingPart { stages, ..MessagingPart::default() }))).await.unwrap();
}

/// Seqs of everything that waits for a recipient.
async fn pending(db: &Db, mesh: &MeshId, recipient: &PublicKey) -> Vec<i64> {
    let mut seqs = Vec::new();
    for priority in Priority::ALL {
        let rows = load_pending_class(&of(db, mesh), recipient, priority, 0, 1_000).await.unwrap();
        seqs.extend(rows.into_iter().map(|message| message.seq));
    }
    seqs.sort_unstable();
    seqs
}

/// One class of a queue.
async fn load_pending_class(
    db: &MeshDb,
    recipient: &PublicKey,
    priority: Priority,
    after_seq: i64,
    limit: u32,
) -> Result<Vec<StoredMessage>, DbError> {
    let rows = load_queue_class(db, recipient, priority, after_seq, limit).await?;
    Ok(rows.into_iter().map(|(message, _)| message).collect())
}

store_suite! {
    async fn a_message_reads_back_as_written(db: Db) {
        let mesh: MeshId = "m".into();
        let full = NewMessage {
            client_message_id: Some("c1".into()),
            request_fingerprint: Some("f".into()),
            reply_to_id: Some("earlier".into()),
            subtype: Some("question".into()),
            topic_id: Some("t".into()),
            topic_name: Some("general".into()),
            trace_id: Some("trace".into()),
            trace_hop: 3,
            target_spec: "Zoë 'OR 1=1 --".into(),
            ..message(&mesh, 1)
        };
        let bob = key();
        write(&db, &[full.clone(), message(&mesh, 2)], vec![delivery(&full, bob, RecipientKind::Session)]).await;
        let waiting = load_pending_class(&of(&db, &mesh), &bob, full.priority, 0, 10).await.unwrap();
        assert_eq!(waiting, vec![full.clone()]);
        assert!(load_pending_class(&of(&db, &"n".into()), &bob, full.priority, 0, 10).await.unwrap().is_empty());
        let repeatable = newest_repeatable(&of(&db, &mesh), 10).await.unwrap();
        assert_eq!(repeatable, [(full.id.clone(), 1, Some("f".into()))]);
        assert!(newest_repeatable(&of(&db, &"n".into()), 10).await.unwrap().is_empty());
        let found = message_by_id_prefix(&of(&db, &mesh), &full.id.as_str()[..8], 3).await.unwrap();
        assert_eq!(found, vec![full.clone()]);
        assert!(message_by_id_prefix(&of(&db, &"n".into()), &full.id.as_str()[..8], 3).await.unwrap().is_empty());
        assert!(message_by_id_prefix(&of(&db, &mesh), "%", 3).await.unwrap().is_empty());
        assert!(message_by_id_prefix(&of(&db, &mesh), "ü", 3).await.unwrap().is_empty());
        assert_eq!(history(&of(&db, &mesh), &"t".into(), None, 10).await.unwrap(), vec![full]);
        assert_eq!(max_seq(&of(&db, &mesh)).await.unwrap(), 2);
        assert_eq!(max_seq(&of(&db, &"n".into())).await.unwrap(), 0);
    }

    async fn a_prefix_tells_case_apart_and_stops_at_the_limit(db: Db) {
        let mesh: MeshId = "m".into();
        let ids = ["abcdefgh1", "abcdefgh2", "abcdefgh3", "abcdefgh4", "ABCDEFGH1", "abcdefgi"];
        let messages: Vec<_> = ids
            .iter()
            .zip(1..)
            .map(|(id, seq)| NewMessage { id: (*id).into(), ..message(&mesh, seq) })
            .collect();
        write(&db, &messages, vec![]).await;
        let found = message_by_id_prefix(&of(&db, &mesh), "abcdefgh", 3).await.unwrap();
        assert_eq!(found.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), &ids[..3]);
        assert_eq!(message_by_id_prefix(&of(&db, &mesh), "ABCD", 3).await.unwrap().len(), 1);
    }

    async fn pending_is_in_order_and_respects_cursor_priority_and_limit(db: Db) {
        let (mesh, bob, eve): (MeshId, _, _) = ("m".into(), key(), key());
        let urgencies = [Priority::Low, Priority::Now, Priority::Next, Priority::Low, Priority::Next];
        let messages: Vec<_> =
            urgencies.iter().zip(1..).map(|(&priority, seq)| NewMessage { priority, ..message(&mesh, seq) }).collect();
        let mut deliveries: Vec<_> =
            messages.iter().rev().map(|message| delivery(message, bob, RecipientKind::Session)).collect();
        deliveries.push(delivery(&messages[1], eve, RecipientKind::Member));
        write(&db, &messages, deliveries).await;
        assert_eq!(pending(&db, &mesh, &bob).await, [1, 2, 3, 4, 5]);
        let seqs = |rows: Vec<StoredMessage>| rows.into_iter().map(|row| row.seq).collect::<Vec<_>>();
        assert_eq!(seqs(load_pending_class(&of(&db, &mesh), &bob, Priority::Now, 0, 9).await.unwrap()), [2]);
        assert_eq!(seqs(load_pending_class(&of(&db, &mesh), &bob, Priority::Low, 0, 9).await.unwrap()), [1, 4]);
        assert_eq!(seqs(load_pending_class(&of(&db, &mesh), &bob, Priority::Next, 3, 9).await.unwrap()), [5]);
        assert_eq!(seqs(load_pending_class(&of(&db, &mesh), &bob, Priority::Low, 0, 1).await.unwrap()), [1]);
        let counts = pending_counts(&of(&db, &mesh)).await.unwrap();
        assert_eq!(counts[&bob], PendingCounts { kind: RecipientKind::Session, counts: [1, 2, 2] });
        assert_eq!(counts[&eve], PendingCounts { kind: RecipientKind::Member, counts: [1, 0, 0] });
        assert!(pending_counts(&of(&db, &"n".into())).await.unwrap().is_empty());
    }

    async fn stages_climb_and_keep_their_route(db: Db) {
        let (mesh, bob): (MeshId, _) = ("m".into(), key());
        let one = message(&mesh, 1);
        let written = MessagingPart {
            messages: vec![Arc::new(one.clone())],
            deliveries: vec![delivery(&one, bob, RecipientKind::Session)],
            stages: vec![
                stage(&mesh, 1, bob, Stage::Received, None),
                stage(&mesh, 1, bob, Stage::Handed, Some("channel")),
                stage(&mesh, 1, bob, Stage::Seen, None),
            ],
        };
        write_batch(&db, Arc::new(Batch::of(written))).await.unwrap();
        let receipt = |rows: Vec<StoredDelivery>| (rows[0].stage, rows[0].route.clone());
        let seen = (Some(Stage::Seen), Some("channel".to_owned()));
        assert_eq!(receipt(deliveries_of(&of(&db, &mesh), 1).await.unwrap()), seen);
        acknowledge(&db, vec![stage(&mesh, 1, bob, Stage::Received, Some("late"))]).await;
        assert_eq!(receipt(deliveries_of(&of(&db, &mesh), 1).await.unwrap()), seen);
        acknowledge(&db, vec![stage(&mesh, 1, bob, Stage::Answered, None)]).await;
        assert_eq!(receipt(deliveries_of(&of(&db, &mesh), 1).await.unwrap()).0, Some(Stage::Answered));
        assert!(pending(&db, &mesh, &bob).await.is_empty());
        assert!(pending_counts(&of(&db, &mesh)).await.unwrap().is_empty());
    }

    async fn writing_a_batch_twice_changes_nothing(db: Db) {
        let (mesh, owner) = mesh(&db, "team", key()).await;
        let bob = key();
        let one = NewMessage { client_message_id: Some("c".into()), ..message(&mesh.id, 1) };
        let presence = SessionsPart {
            sessions: vec![],
            stats: vec![StatsDelta {
                mesh_id: mesh.id.clone(),
                member_id: owner.id.clone(),
                messages_in: 1,
                messages_out: 2,
                tool_calls: 3,
                errors: 0,
            }],
            last_seen: vec![LastSeen { member_id: owner.id.clone(), at_ms: NOW + 5 }],
        };
        let stats = presence.stats.clone();
        let mut batch = Batch::of(presence);
        batch.id = "batch-1".into();
        *batch.part() = MessagingPart {
            messages: vec![Arc::new(one.clone())],
            deliveries: vec![delivery(&one, bob, RecipientKind::Session)],
            stages: vec![],
        };
        let batch = Arc::new(batch);
        write_batch(&db, batch.clone()).await.unwrap();
        acknowledge(&db, vec![stage(&mesh.id, 1, bob, Stage::Received, None)]).await;
        write_batch(&db, batch.clone()).await.unwrap();
        assert!(pending(&db, &mesh.id, &bob).await.is_empty(), "an acknowledged delivery must not come back");
        assert_eq!(presence::totals(&of(&db, &mesh.id)).await.unwrap(), stats);
        let last_seen = vec![LastSeen { member_id: owner.id.clone(), at_ms: NOW + 1 }];
        let mut next = Batch::of(SessionsPart { stats, last_seen, sessions: vec![] });
        next.id = "batch-2".into();
        write_batch(&db, Arc::new(next)).await.unwrap();
        assert_eq!(presence::totals(&of(&db, &mesh.id)).await.unwrap()[0].messages_out, 4);
        let owner = members::load(&of(&db, &mesh.id), &owner.id).await.unwrap().unwrap();
        assert_eq!(owner.last_seen_at_ms, Some(NOW + 5), "a sign of life never goes back");
    }

    async fn what_a_session_left_behind_is_its_copies_that_no_other_session_of_the_member_has(db: Db) {
        let (mesh, bob, laptop, desk): (MeshId, _, _, _) = ("m".into(), key(), key(), key());
        let messages: Vec<_> = (1..=4).map(|seq| message(&mesh, seq)).collect();
        let mut deliveries: Vec<_> =
            messages.iter().map(|message| delivery(message, laptop, RecipientKind::Member)).collect();
        deliveries[3].kind = RecipientKind::Session;
        deliveries.push(delivery(&messages[1], desk, RecipientKind::Member));
        deliveries.push(delivery(&messages[2], bob, RecipientKind::Member));
        write(&db, &messages, deliveries).await;
        acknowledge(&db, vec![stage(&mesh, 2, desk, Stage::Received, None)]).await;
        let member = delivery(&messages[0], laptop, RecipientKind::Member).member_id;
        let rows = load_copies_class(&of(&db, &mesh), &[laptop], Priority::Next, 0, 9).await.unwrap();
        assert_eq!(rows.iter().map(|(row, _)| row.seq).collect::<Vec<_>>(), [1, 2, 3], "4 is for the session itself");
        assert_eq!(taken_by_member(&of(&db, &mesh), &member, &[1, 2, 3, 4]).await.unwrap(), [2]);
        assert_eq!(pending(&db, &mesh, &laptop).await, [1, 2, 3, 4]);
        let mut copies = pending_copies(&of(&db, &mesh)).await.unwrap();
        copies.sort_by_key(|(_, key, _)| *key != laptop);
        assert_eq!(copies, [(member.clone(), laptop, [0, 3, 0]), (member.clone(), bob, [0, 1, 0])]);
        // A session that has no delivery of its own took what was for its member.
        let id = |message: &NewMessage| message.id.to_string();
        let ids = [id(&messages[1]), id(&messages[2])];
        let below = below_stage(&of(&db, &mesh), &ids, (&desk, &member), Stage::Seen).await.unwrap();
        let mut of_three = vec![(3, laptop), (3, bob)];
        of_three.sort_by_key(|(_, key)| key.to_hex());
        assert_eq!(below, [vec![(2, desk)], of_three].concat());
    }

    async fn what_nobody_took_expires_for_good(db: Db) {
        let (mesh, bob): (MeshId, _) = ("m".into(), key());
        let messages: Vec<_> =
            (1..=1_203).map(|seq| NewMessage { expires_at_ms: NOW + seq, ..message(&mesh, seq) }).collect();
        let deliveries = messages.iter().map(|message| delivery(message, bob, RecipientKind::Session)).collect();
        write(&db, &messages, deliveries).await;
        acknowledge(&db, vec![stage(&mesh, 1, bob, Stage::Received, None)]).await;
        assert_eq!(expire(&db, NOW + 1_200).await.unwrap(), 1_199);
        assert_eq!(expire(&db, NOW + 1_200).await.unwrap(), 0);
        assert_eq!(pending(&db, &mesh, &bob).await, [1_201, 1_202, 1_203]);
        acknowledge(&db, vec![stage(&mesh, 2, bob, Stage::Received, None)]).await;
        assert_eq!(deliveries_of(&of(&db, &mesh), 2).await.unwrap()[0].stage, None);
        assert_eq!(deliveries_of(&of(&db, &mesh), 1).await.unwrap()[0].stage, Some(Stage::Received));
    }

    async fn purging_keeps_what_waits_topics_and_the_order(db: Db) {
        let (mesh, bob): (MeshId, _) = ("m".into(), key());
        let mut messages: Vec<_> = (1..=5).map(|seq| message(&mesh, seq)).collect();
        messages[1].topic_id = Some("t".into());
        messages[2].expires_at_ms = NOW + HISTORY_KEPT_MS * 2;
        messages[3].created_at_ms = NOW + QUEUE_KEPT_MS / 2;
        let deliveries = messages[..3].iter().map(|message| delivery(message, bob, RecipientKind::Session)).collect();
        write(&db, &messages, deliveries).await;
        assert_eq!(purge(&db, NOW + QUEUE_KEPT_MS).await.unwrap(), 1, "only 5: 1 to 3 wait or are topics, 4 is young");
        assert_eq!(max_seq(&of(&db, &mesh)).await.unwrap(), 5);
        expire(&db, NOW + QUEUE_KEPT_MS).await.unwrap();
        assert_eq!(purge(&db, NOW + QUEUE_KEPT_MS).await.unwrap(), 1);
        assert!(deliveries_of(&of(&db, &mesh), 1).await.unwrap().is_empty());
        assert_eq!(history(&of(&db, &mesh), &"t".into(), None, 9).await.unwrap().len(), 1);
        assert_eq!(purge(&db, NOW + HISTORY_KEPT_MS).await.unwrap(), 2);
        assert_eq!(pending(&db, &mesh, &bob).await, [3], "a message that may still be delivered is never purged");
    }

    async fn history_pages_backwards(db: Db) {
        let mesh: MeshId = "m".into();
        let messages: Vec<_> =
            (1..=7).map(|seq| NewMessage { topic_id: Some("t".into()), ..message(&mesh, seq) }).collect();
        write(&db, &messages, vec![]).await;
        let seqs = |rows: Vec<StoredMessage>| rows.into_iter().map(|row| row.seq).collect::<Vec<_>>();
        assert_eq!(seqs(history(&of(&db, &mesh), &"t".into(), None, 3).await.unwrap()), [7, 6, 5]);
        assert_eq!(seqs(history(&of(&db, &mesh), &"t".into(), Some(5), 3).await.unwrap()), [4, 3, 2]);
        assert!(history(&of(&db, &mesh), &"u".into(), None, 3).await.unwrap().is_empty());
        assert!(history(&of(&db, &"n".into()), &"t".into(), None, 3).await.unwrap().is_empty());
    }

    async fn what_may_be_repeated_comes_newest_first(db: Db) {
        let mesh: MeshId = "m".into();
        let mut messages: Vec<_> = (1..=4)
            .map(|seq| NewMessage { client_message_id: Some(format!("c{seq}").into()), ..message(&mesh, seq) })
            .collect();
        messages[2].client_message_id = None;
        messages[3].request_fingerprint = Some("f".into());
        write(&db, &messages, vec![]).await;
        let found = newest_repeatable(&of(&db, &mesh), 2).await.unwrap();
        assert_eq!(found, [(messages[3].id.clone(), 4, Some("f".into())), (messages[1].id.clone(), 2, None)]);
    }

    async fn a_large_batch_is_written_whole(db: Db) {
        let (mesh, keys): (MeshId, Vec<_>) = ("m".into(), (0..100).map(|_| key()).collect());
        let messages: Vec<_> = (1..=60).map(|seq| message(&mesh, seq)).collect();
        let deliveries = messages
            .iter()
            .flat_map(|message| keys.iter().map(|key| delivery(message, *key, RecipientKind::Session)))
            .collect();
        write(&db, &messages, deliveries).await;
        let stages = keys.iter().map(|key| stage(&mesh, 60, *key, Stage::Received, None)).collect();
        acknowledge(&db, stages).await;
        let counts = pending_counts(&of(&db, &mesh)).await.unwrap();
        assert_eq!(counts.len(), 100);
        assert!(counts.values().all(|pending| pending.counts == [0, 59, 0]));
    }

    async fn members_of_other_meshes_cannot_be_touched(db: Db) {
        let (here, _) = mesh(&db, "here", key()).await;
        let (there, _) = mesh(&db, "there", key()).await;
        let ada = member(&here.id, "Ada", Role::Member);
        members::insert(&store(&db, &here.id), &ada).await.unwrap();
        let patch = members::MemberPatch { role: Some(Role::Admin), ..Default::default() };
        assert_eq!(members::update(&store(&db, &there.id), &ada.id, &patch, &By::nobody(NOW)).await.unwrap(), None);
        assert!(!members::revoke(&store(&db, &there.id), &ada.id, None, &By::nobody(NOW)).await.unwrap());
        assert_eq!(members::load(&of(&db, &there.id), &ada.id).await.unwrap(), None);
        assert_eq!(members::load(&of(&db, &here.id), &ada.id).await.unwrap(), Some(ada));
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_full_disk_keeps_nothing_of_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let options = crate::db::DbOptions { max_bytes: Some(600_000), ..Default::default() };
    let db = Db::open(folder.path().join("db").to_str().unwrap(), options).await.unwrap();
    db.migrate().await.unwrap();
    let (mesh, bob): (MeshId, _) = ("m".into(), key());
    let first = message(&mesh, 1);
    write(&db, std::slice::from_ref(&first), vec![delivery(&first, bob, RecipientKind::Session)]).await;
    let large: Vec<_> =
        (2..40).map(|seq| Arc::new(NewMessage { ciphertext: "x".repeat(50_000), ..message(&mesh, seq) })).collect();
    let deliveries = large.iter().map(|message| delivery(message, bob, RecipientKind::Session)).collect();
    let part = MessagingPart { messages: large, deliveries, ..MessagingPart::default() };
    let batch = Arc::new(Batch::of(part));
    for _ in 0..3 {
        let error = write_batch(&db, batch.clone()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::StorageFull, "{error:?}");
    }
    assert_eq!(pending(&db, &mesh, &bob).await, [1]);
    assert_eq!(max_seq(&of(&db, &mesh)).await.unwrap(), 1);
    let small = message(&mesh, 2);
    write(&db, std::slice::from_ref(&small), vec![delivery(&small, bob, RecipientKind::Session)]).await;
    assert_eq!(pending(&db, &mesh, &bob).await, [1, 2]);
}

/// How SQLite runs a query, step by step.
#[cfg(feature = "sqlite")]
async fn plan_of(query: &str) -> Vec<String> {
    #[derive(diesel::deserialize::QueryableByName)]
    struct Step {
        #[diesel(sql_type = diesel::sql_types::Text)]
        detail: String,
    }
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("plan.db").display());
    let db = Db::open(&url, crate::db::DbOptions::default()).await.unwrap();
    db.migrate().await.unwrap();
    let Db::Sqlite(backend) = &db else { panic!("a SQLite URL") };
    let query = diesel::sql_query(format!("EXPLAIN QUERY PLAN {query}"));
    let steps: Vec<Step> = query.load(&mut *backend.get().await.unwrap()).await.unwrap();
    steps.into_iter().map(|step| step.detail).collect()
}

/// A message is found by the beginning of its id without a look at the rest of its mesh.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_id_is_one_range_of_its_index() {
    // The conditions of `message_by_id_prefix`.
    let query = "SELECT * FROM messages WHERE (mesh_id || '') = 'm' AND id >= 'abc' AND id < 'abd' ORDER BY id LIMIT 3";
    let plan = plan_of(query).await;
    assert_eq!(plan.len(), 1, "no sort: {plan:?}");
    assert!(plan[0].starts_with("SEARCH messages USING INDEX messages_by_id (id>? AND id<?)"), "{plan:?}");
}

/// What waits for a recipient is found without looking at anything else, however much the tables hold.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_queue_is_one_range_of_its_index() {
    // The conditions of `load_queue_class`.
    let query = format!(
        "SELECT messages.* FROM deliveries \
         JOIN messages ON messages.mesh_id = deliveries.mesh_id AND messages.seq = deliveries.seq \
         WHERE deliveries.mesh_id = 'm' AND deliveries.recipient_key = 'k' AND {PENDING} AND deliveries.priority = 1 \
         AND deliveries.seq > 7 ORDER BY deliveries.seq LIMIT 10"
    );
    let plan = plan_of(&query).await;
    assert_eq!(plan.len(), 2, "two searches and no sort: {plan:?}");
    let range = "INDEX deliveries_pending (mesh_id=? AND recipient_key=? AND priority=? AND seq>?)";
    assert!(plan[0].starts_with("SEARCH") && plan[0].contains(range), "{plan:?}");
    assert!(plan[1].starts_with("SEARCH messages") && plan[1].ends_with("(mesh_id=? AND seq=?)"), "{plan:?}");
}
