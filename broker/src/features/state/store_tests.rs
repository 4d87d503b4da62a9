use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::audit::{Filter, query};
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};

fn set(key: &str, value: &str) -> Write {
    Write {
        key: key.into(),
        act: Act::Set { value: value.into(), expires_at_ms: None },
        expected_version: None,
        by: Some(("ada".into(), "Ada".into())),
        now_ms: NOW,
        believed_ms: NOW,
        quotas: Quotas::default(),
    }
}

fn delete(key: &str) -> Write {
    Write { act: Act::Delete, ..set(key, "") }
}

fn until(key: &str, expires_at_ms: i64) -> Write {
    Write { act: Act::Set { value: "1".into(), expires_at_ms: Some(expires_at_ms) }, ..set(key, "") }
}

fn expire(key: &str, now_ms: i64) -> Write {
    Write { act: Act::Expire, by: None, now_ms, believed_ms: now_ms, ..set(key, "") }
}

fn refused(done: Result<Entry, WriteError<Refused>>) -> Refused {
    match done {
        Err(WriteError::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

fn hit(done: Result<Entry, WriteError<Refused>>) -> (String, u64, u64) {
    match refused(done) {
        Refused::Limit(bound) => (bound.name, bound.limit, bound.used),
        other => panic!("no bound: {other:?}"),
    }
}

/// What the totals say, and what counting says.
async fn counted(db: &MeshDb) -> ((i64, i64, i64), (i64, i64, i64)) {
    let head = head(db).await.unwrap();
    let all: Vec<Entry> = rows(db).await.unwrap();
    let live: Vec<&Entry> = all.iter().filter(|entry| !entry.deleted).collect();
    let count = |number: usize| i64::try_from(number).unwrap();
    let found = (count(live.len()), live.iter().map(|entry| entry.size_bytes).sum(), count(all.len() - live.len()));
    let members = usages(db).await.unwrap();
    assert_eq!(members.iter().map(|usage| usage.entries).sum::<i64>(), head.entries, "the members' shares add up");
    assert_eq!(members.iter().map(|usage| usage.bytes).sum::<i64>(), head.bytes);
    ((head.entries, head.bytes, head.tombstones), found)
}

async fn rows(db: &MeshDb) -> Result<Vec<Entry>, DbError> {
    Ok(with_conn!(db.db(), |conn| state_entries::table
        .filter(state_entries::mesh_id.eq(db.mesh().as_str()))
        .select(Entry::as_select())
        .load(conn)
        .await?))
}

async fn usages(db: &MeshDb) -> Result<Vec<Usage>, DbError> {
    Ok(with_conn!(db.db(), |conn| state_members::table
        .filter(state_members::mesh_id.eq(db.mesh().as_str()))
        .select(Usage::as_select())
        .load(conn)
        .await?))
}

/// A step of a writer: a key, and what to do with it; the version is the one that the writer saw last.
#[derive(Clone, Debug)]
struct Step {
    key: u8,
    delete: bool,
    compare: bool,
}

/// Runs the steps of several writers beside each other and compares what they were told with what is stored.
async fn interleaved(store: &MeshStore, writers: &[Vec<Step>]) {
    let run = |number: usize, steps: Vec<Step>| async move {
        let (mut told, mut seen) = (Vec::new(), BTreeMap::new());
        for step in steps {
            let key = format!("k{}", step.key);
            let base = if step.delete { delete(&key) } else { set(&key, &number.to_string()) };
            let expected_version = step.compare.then(|| seen.get(&key).copied().unwrap_or(0));
            let by = Some((format!("m{number}").into(), format!("M{number}")));
            match write(store, Write { expected_version, by, ..base }).await {
                Ok(entry) => {
                    if let Some(expected) = expected_version.filter(|expected| *expected > 0) {
                        assert_eq!(entry.version, expected + 1, "no one wrote in between");
                    }
                    seen.insert(key, if entry.deleted { 0 } else { entry.version });
                    told.push(entry);
                }
                Err(WriteError::Refused(Refused::Conflict { version, .. })) => {
                    assert_ne!(Some(version), expected_version);
                    seen.insert(key, version);
                }
                Err(WriteError::Refused(Refused::Missing)) => {
                    seen.insert(key, 0);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        told
    };
    let first = head(store).await.unwrap().revision + 1;
    let runs = writers.iter().cloned().enumerate().map(|(number, steps)| run(number, steps));
    let mut told: Vec<Entry> = futures_util::future::join_all(runs).await.concat();
    told.sort_by_key(|entry| entry.revision);
    let revisions: Vec<i64> = told.iter().map(|entry| entry.revision).collect();
    assert_eq!(revisions, (first..first + i64::try_from(told.len()).unwrap()).collect::<Vec<_>>(), "one each, no hole");
    let mut last: BTreeMap<String, Entry> = BTreeMap::new();
    for entry in told {
        if let Some(before) = last.insert(entry.name.clone(), entry.clone()) {
            assert_eq!(entry.version, before.version + 1, "{}: versions follow the revisions", entry.name);
        }
    }
    let stored = rows(store).await.unwrap();
    for entry in last.values() {
        assert!(stored.contains(entry), "{entry:?} is what is stored");
    }
    let (said, found) = counted(store).await;
    assert_eq!(said, found);
}

fn writers() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = (0_u8..3, any::<bool>(), any::<bool>()).prop_map(|(key, delete, compare)| Step { key, delete, compare });
    prop::collection::vec(prop::collection::vec(step, 1..8), 2..6)
}

store_suite! {
    async fn versions_and_revisions_hold_under_every_interleaving(db: Db) {
        let (mesh, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &mesh.id);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for _ in 0..24 {
            let writers = writers().new_tree(&mut runner).unwrap().current();
            interleaved(&store, &writers).await;
        }
    }

    async fn a_version_is_compared_in_the_transaction(db: Db) {
        let (mesh, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &mesh.id);
        let only_new = |value: &str| Write { expected_version: Some(0), ..set("k", value) };
        let first = write(&store, only_new("1")).await.unwrap();
        assert_eq!((first.version, first.revision), (1, 1));
        let there = Refused::Conflict { value: "1".into(), version: 1 };
        assert_eq!(refused(write(&store, only_new("2")).await), there);
        let next = |version| Write { expected_version: Some(version), ..set("k", "3") };
        assert_eq!(write(&store, next(1)).await.unwrap().version, 2);
        assert_eq!(refused(write(&store, next(1)).await), Refused::Conflict { value: "3".into(), version: 2 });
        assert_eq!(refused(write(&store, Write { expected_version: Some(1), ..delete("k") }).await), Refused::Conflict { value: "3".into(), version: 2 });
        let gone = write(&store, Write { expected_version: Some(2), ..delete("k") }).await.unwrap();
        assert_eq!((gone.version, gone.revision, gone.deleted), (3, 3, true));
        assert_eq!(refused(write(&store, next(3)).await), Refused::Conflict { value: "null".into(), version: 0 });
        assert_eq!(refused(write(&store, delete("k")).await), Refused::Missing);
        // What was refused has taken no revision.
        assert_eq!(write(&store, only_new("4")).await.unwrap().revision, 4);
        let log = query(&store, &Filter::default(), 9).await.unwrap();
        let events: Vec<&str> = log.iter().map(|entry| entry.event_type.as_str()).collect();
        assert_eq!(events.iter().filter(|event| **event == "state_set").count(), 3, "{events:?}");
        assert_eq!(events.iter().filter(|event| **event == "state_deleted").count(), 1, "{events:?}");
        let first = log.iter().filter(|entry| entry.event_type == "state_set").min_by_key(|entry| entry.seq).unwrap();
        assert_eq!(first.payload, r#"{"key":"k","size":1,"version":1}"#, "no value");
    }

    async fn bounds_are_of_the_mesh_and_of_each_member(db: Db) {
        let (mesh, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &mesh.id);
        let small = [(&KEYS_PER_MESH, 3), (&KEYS_PER_MEMBER, 2), (&BYTES_PER_MESH, 60), (&BYTES_PER_MEMBER, 40)];
        let quotas = small.into_iter().fold(Quotas::default(), |all, (quota, value)| all.with(quota.name, value));
        let by = |who: &str, base: Write| Write { by: Some((who.into(), who.into())), quotas: quotas.clone(), ..base };
        for key in ["a", "b"] {
            write(&store, by("ada", set(key, "1"))).await.unwrap();
        }
        assert_eq!(hit(write(&store, by("ada", set("c", "1"))).await), ("state.keys_per_member".into(), 2, 2));
        write(&store, by("bob", set("c", "1"))).await.unwrap();
        assert_eq!(hit(write(&store, by("bob", set("d", "1"))).await), ("state.keys_per_mesh".into(), 3, 3));
        let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert_eq!(hit(write(&store, by("ada", set("a", &long(40)))).await), ("state.bytes_per_member".into(), 40, 4));
        // A key counts for the one who wrote it last.
        write(&store, by("bob", set("a", &long(36)))).await.unwrap();
        assert_eq!(hit(write(&store, by("ada", set("b", &long(38)))).await), ("state.bytes_per_mesh".into(), 60, 41));
        write(&store, by("ada", delete("a"))).await.unwrap();
        write(&store, by("ada", set("b", &long(38)))).await.unwrap();
        let (said, found) = counted(&store).await;
        assert_eq!((said, said), (found, (2, 41, 1)));
        // What is over a bound that was lowered may shrink.
        let lower = quotas.clone().with(BYTES_PER_MESH.name, 10).with(KEYS_PER_MESH.name, 1);
        write(&store, Write { quotas: lower, ..by("ada", set("b", &long(9))) }).await.unwrap();
    }

    async fn a_list_has_pages_in_the_order_of_the_bytes(db: Db) {
        let (mesh, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &mesh.id);
        for key in ["b", "B", "a/2", "a/1", "ä", "a/10", "_"] {
            write(&store, set(key, "1")).await.unwrap();
        }
        write(&store, delete("b")).await.unwrap();
        let db = of(&db, &mesh.id);
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = page(&db, "", cursor.as_deref(), 2, NOW).await.unwrap();
            assert!(page.entries.len() <= 2);
            all.extend(page.entries.into_iter().map(|entry| entry.name));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(all, ["B", "_", "a/1", "a/10", "a/2", "ä"]);
        let below = page(&db, "a/", None, 9, NOW).await.unwrap();
        assert_eq!((below.entries.len(), below.next), (3, None));
        assert_eq!(names(&db, 3).await.unwrap(), ["B", "_", "a/1"]);
    }

    async fn a_page_is_bounded_in_bytes(db: Db) {
        let (mesh, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &mesh.id);
        let value = format!("\"{}\"", "x".repeat(MAX_PAGE_BYTES / 3));
        for key in ["a", "b", "c", "d"] {
            write(&store, set(key, &value)).await.unwrap();
        }
        let first = page(&store, "", None, 9, NOW).await.unwrap();
        assert_eq!((first.entries.len(), first.next.as_deref()), (2, Some("b")));
        let changed = changes(&store, "", 1, 9, NOW).await.unwrap();
        assert_eq!((changed.entries.len(), changed.next), (2, Some(3)));
    }

    async fn changes_are_told_since_a_revision_and_forgotten_in_time(db: Db) {
        let (mesh, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &mesh.id);
        for key in ["a", "b", "a", "c"] {
            write(&store, set(key, "1")).await.unwrap();
        }
        write(&store, delete("b")).await.unwrap();
        let since = async |after| {
            let page = changes(&store, "", after, 9, NOW).await.unwrap();
            page.entries.into_iter().map(|entry| (entry.revision, entry.name, entry.deleted)).collect::<Vec<_>>()
        };
        let row = |revision, key: &str, deleted| (revision, key.to_owned(), deleted);
        assert_eq!(since(0).await, [row(3, "a", false), row(4, "c", false), row(5, "b", true)]);
        assert_eq!(since(4).await, [row(5, "b", true)]);
        assert_eq!(changes(&store, "a", 0, 9, NOW).await.unwrap().entries.len(), 1);
        assert_eq!(purge(&db, NOW + TOMBSTONE_KEPT_MS).await.unwrap(), 0);
        assert_eq!(purge(&db, NOW + TOMBSTONE_KEPT_MS + 1).await.unwrap(), 1);
        let head = head(&store).await.unwrap();
        assert_eq!((head.revision, head.forgotten_revision, head.tombstones), (5, 5, 0));
        let again = write(&store, set("b", "1")).await.unwrap();
        assert_eq!((again.version, again.revision), (1, 6), "the order of the mesh goes on");
    }

    async fn a_key_expires_once_its_time_is_over(db: Db) {
        let (mesh, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &mesh.id);
        write(&store, until("k", NOW + 100)).await.unwrap();
        write(&store, until("later", NOW + 200)).await.unwrap();
        assert_eq!(next_expiry(&store).await.unwrap(), Some(NOW + 100));
        assert_eq!(refused(write(&store, expire("k", NOW + 99)).await), Refused::Missing);
        assert!(get(&store, "k", NOW + 99).await.unwrap().is_some());
        // Gone for readers and writers before it is deleted.
        assert_eq!(get(&store, "k", NOW + 100).await.unwrap(), None);
        assert_eq!(page(&store, "", None, 9, NOW + 100).await.unwrap().entries.len(), 1);
        assert_eq!(refused(write(&store, Write { believed_ms: NOW + 100, ..delete("k") }).await), Refused::Missing);
        assert_eq!(expired(&store, NOW + 100, 9).await.unwrap(), ["k"]);
        let gone = write(&store, expire("k", NOW + 100)).await.unwrap();
        assert_eq!((gone.version, gone.deleted, gone.updated_by_name.as_str()), (2, true, "Ada"));
        assert_eq!(refused(write(&store, expire("k", NOW + 101)).await), Refused::Missing);
        assert_eq!(next_expiry(&store).await.unwrap(), Some(NOW + 200));
        // Written again without an end, it stays.
        write(&store, set("later", "2")).await.unwrap();
        assert_eq!(next_expiry(&store).await.unwrap(), None);
        assert_eq!(refused(write(&store, expire("later", NOW + 300)).await), Refused::Missing);
        let fresh = Write { expected_version: Some(0), believed_ms: NOW + 300, ..set("k", "3") };
        assert_eq!(write(&store, fresh).await.unwrap().version, 3);
        let (said, found) = counted(&store).await;
        assert_eq!(said, found);
    }
}
