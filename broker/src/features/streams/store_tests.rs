use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::audit::{Filter, query};
use crate::db::testing::{NOW, key, mesh, store, store_suite};

fn stream(name: &str) -> Stream {
    Stream {
        name: name.into(),
        id: format!("id of {name}"),
        created_by: "ada".into(),
        created_by_name: "Ada".into(),
        created_at_ms: NOW,
        keep_entries: 100,
        keep_bytes: 1_000_000,
        keep_ms: 60_000,
        ..Stream::default()
    }
}

fn entry(data: &str) -> NewEntry {
    NewEntry { data: data.into(), by: "ada".into(), by_name: "Ada".into(), session_id: "s".into() }
}

async fn published(store: &MeshStore, of: &Stream, data: &[&str], at_ms: i64) -> Appended {
    let entries = data.iter().map(|data| entry(data)).collect();
    append(store, of.clone(), entries, (at_ms, at_ms), Quotas::default()).await.unwrap()
}

async fn read(db: &MeshDb, name: &str, from: i64, limit: u32) -> (i64, i64, Vec<i64>) {
    let page = page(db, name, from, limit).await.unwrap().unwrap();
    (page.stream.first_offset, page.stream.next_offset, page.entries.iter().map(|entry| entry.place).collect())
}

/// What the totals say is what the entries say.
async fn counted(db: &MeshDb) {
    let all = load(db).await.unwrap();
    let mut bytes = 0;
    for stream in &all {
        let entries = page(db, &stream.name, 0, 1_000).await.unwrap().unwrap().entries;
        assert_eq!(stream.bytes, entries.iter().map(|entry| entry.size_bytes).sum::<i64>(), "{}", stream.name);
        let places: Vec<i64> = entries.iter().map(|entry| entry.place).collect();
        assert_eq!(places, (stream.first_offset..stream.next_offset).collect::<Vec<_>>(), "no hole");
        bytes += stream.bytes;
    }
    let head: Head = head(db).await.unwrap();
    assert_eq!((head.streams, head.bytes), (i64::try_from(all.len()).unwrap(), bytes));
}

async fn head(db: &MeshDb) -> Result<Head, DbError> {
    Ok(with_conn!(db.db(), |conn| stream_heads::table
        .find(db.mesh().as_str())
        .select(Head::as_select())
        .first(conn)
        .await?))
}

/// A step of a stream and its consumers.
#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Open(u8, u8),
    Move(u8, u8),
    Read(u8, u8),
    Delete,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..6_u8).prop_map(Step::Publish),
        3 => (0..3_u8, 0..60_u8).prop_map(|(who, start)| Step::Open(who, start)),
        4 => (0..3_u8, 0..60_u8).prop_map(|(who, to)| Step::Move(who, to)),
        3 => (0..60_u8, 1..9_u8).prop_map(|(from, limit)| Step::Read(from, limit)),
        1 => Just(Step::Delete),
    ];
    prop::collection::vec(step, 1..30)
}

/// What a stream and its consumers should be: nothing but lists.
#[derive(Default)]
struct Model {
    /// Whether it is there; each one that is made anew has another id.
    id: Option<u32>,
    made: u32,
    data: Vec<String>,
    first: usize,
    places: BTreeMap<u8, usize>,
}

impl Model {
    const KEPT: usize = 7;

    fn stream(&mut self) -> Stream {
        if self.id.is_none() {
            self.made += 1;
        }
        let id = format!("id {}", self.id.unwrap_or(self.made));
        Stream { id, keep_entries: i64::try_from(Self::KEPT).unwrap(), ..stream("builds") }
    }

    fn publish(&mut self, data: Vec<String>) {
        self.id = Some(self.made);
        self.data.extend(data);
        self.first = self.first.max(self.data.len().saturating_sub(Self::KEPT));
    }
}

/// Runs the steps on storage and on the model.
async fn follow(store: &MeshStore, steps: &[Step]) {
    let (mut model, at) = (Model::default(), |place: usize| i64::try_from(place).unwrap());
    for (number, step) in steps.iter().enumerate() {
        let own = model.stream();
        match step {
            Step::Publish(count) => {
                let data: Vec<String> = (0..*count).map(|part| format!("[{number},{part}]")).collect();
                let texts: Vec<&str> = data.iter().map(String::as_str).collect();
                let first = model.data.len();
                let done = published(store, &own, &texts, NOW).await.done;
                assert_eq!(done, (first..first + data.len()).map(|place| Ok(at(place))).collect::<Vec<_>>());
                model.publish(data);
            }
            Step::Open(who, start) => {
                let start = usize::from(*start);
                let opened = open_consumer(
                    store,
                    "builds".into(),
                    "ada".into(),
                    format!("c{who}"),
                    at(start),
                    NOW,
                    Quotas::default(),
                )
                .await;
                match opened {
                    Ok(next) => {
                        assert!(model.id.is_some());
                        let place = model.places.entry(*who).or_insert(start.min(model.data.len()));
                        assert_eq!(next, at(*place), "consumer {who} goes on");
                    }
                    Err(WriteError::Refused(Refused::Missing)) => assert!(model.id.is_none()),
                    Err(error) => panic!("{error:?}"),
                }
            }
            Step::Move(who, to) => {
                let moved = Consumer {
                    mesh_id: store.mesh().to_string(),
                    stream_id: own.id.clone(),
                    member_id: "ada".into(),
                    name: format!("c{who}"),
                    next_offset: i64::from(*to),
                    updated_at_ms: NOW,
                };
                let place = model.places.get_mut(who).filter(|place| **place < usize::from(*to));
                assert_eq!(move_consumers(store, vec![moved]).await.unwrap(), usize::from(place.is_some()));
                if let Some(place) = place {
                    *place = usize::from(*to);
                }
            }
            Step::Read(from, limit) => {
                let found = page(store, "builds", i64::from(*from), u32::from(*limit)).await.unwrap();
                assert_eq!(found.is_some(), model.id.is_some());
                let Some(found) = found else { continue };
                let places = model.first.max(usize::from(*from))..model.data.len();
                let expected: Vec<_> =
                    places.take(usize::from(*limit)).map(|place| (at(place), &model.data[place])).collect();
                let entries: Vec<_> = found.entries.iter().map(|entry| (entry.place, &entry.data)).collect();
                assert_eq!(entries, expected, "from {from}");
                assert_eq!(
                    (found.stream.first_offset, found.stream.next_offset),
                    (at(model.first), at(model.data.len()))
                );
            }
            Step::Delete => {
                let deleted = delete(store, "builds".into(), "ada".into(), false, NOW).await;
                assert_eq!(deleted.is_ok(), model.id.is_some());
                model = Model { made: model.made, ..Model::default() };
            }
        }
    }
    // The next run begins anew.
    let _ = delete(store, "builds".into(), "ada".into(), false, NOW).await;
}

store_suite! {
    async fn entries_and_positions_are_those_of_a_list(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for run in 0..24 {
            let steps = steps().new_tree(&mut runner).unwrap().current();
            // A stream that is made anew has other consumers.
            follow(&store, &steps).await;
            assert!(load(&store).await.unwrap().is_empty(), "run {run}");
        }
    }

    async fn offsets_grow_by_one_and_what_is_over_the_bounds_goes(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        let of = Stream { keep_entries: 5, ..stream("builds") };
        let done = published(&store, &of, &["1", "2", "3"], NOW).await;
        assert_eq!((done.done, done.stream.next_offset), (vec![Ok(0), Ok(1), Ok(2)], 3));
        published(&store, &of, &["4", "5", "6", "7"], NOW).await;
        assert_eq!(read(&store, "builds", 0, 100).await, (2, 7, vec![2, 3, 4, 5, 6]));
        assert_eq!(read(&store, "builds", 4, 2).await, (2, 7, vec![4, 5]));
        assert_eq!(read(&store, "builds", 7, 2).await, (2, 7, vec![]));
        // Bytes.
        let big = Stream { keep_bytes: 100, ..stream("big") };
        let text = format!("\"{}\"", "x".repeat(40));
        published(&store, &big, &[&text, &text, &text], NOW).await;
        assert_eq!(read(&store, "big", 0, 100).await, (1, 3, vec![1, 2]));
        // Age: at the next entry, and by the clean-up.
        published(&store, &of, &["8"], NOW + 60_000).await;
        assert_eq!(read(&store, "builds", 0, 100).await, (7, 8, vec![7]));
        counted(&store).await;
        assert_eq!(purge(&db, NOW + 30_000).await.unwrap(), 0);
        assert_eq!(purge(&db, NOW + 60_000).await.unwrap(), 2);
        assert_eq!(read(&store, "big", 0, 100).await, (3, 3, vec![]));
        counted(&store).await;
        published(&store, &big, &["1"], NOW + 60_000).await;
        assert_eq!(read(&store, "big", 0, 100).await, (3, 4, vec![3]), "offsets go on");
        // One entry for each stream that was made, none for what was published.
        let told: Vec<String> = query(&store, &Filter::default(), 20).await.unwrap().into_iter().map(|one| one.event_type).collect();
        assert_eq!(told, ["stream_created", "stream_created", "mesh_created"]);
    }

    async fn many_who_publish_at_once_leave_no_hole(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        let of = stream("builds");
        let writes = (0..40).map(|number| {
            let entries = (0..number % 4).map(|part| entry(&format!("[{number},{part}]"))).collect();
            append(&store, of.clone(), entries, (NOW, NOW), Quotas::default())
        });
        let done = futures_util::future::join_all(writes).await;
        let mut places: Vec<i64> = done.into_iter().flat_map(|done| done.unwrap().done).map(Result::unwrap).collect();
        places.sort_unstable();
        assert_eq!(places, (0..60).collect::<Vec<_>>());
        counted(&store).await;
    }

    async fn a_time_is_found_between_the_entries(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        let of = Stream { keep_entries: 20, ..stream("builds") };
        for number in 0..30 {
            published(&store, &of, &["1"], NOW + number * 10).await;
        }
        // A clock that was put back makes no entry older than the one before.
        published(&store, &of, &["1"], NOW).await;
        for (at, expected) in [(0, 11), (NOW + 110, 11), (NOW + 111, 12), (NOW + 200, 20), (NOW + 290, 29), (NOW + 291, 31)] {
            assert_eq!(place_at(&store, "builds", at).await.unwrap(), Some(expected), "{}", at - NOW);
        }
        assert_eq!(place_at(&store, "none", 0).await.unwrap(), None);
    }

    async fn a_consumer_goes_on_and_never_back(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        published(&store, &stream("builds"), &["1", "2", "3"], NOW).await;
        let open = |name: &str, start, quotas: Quotas| {
            open_consumer(&store, "builds".into(), "ada".into(), name.into(), start, NOW, quotas)
        };
        assert_eq!(open("ci", 99, Quotas::default()).await.unwrap(), 3, "not beyond the end");
        let moved = |next_offset| Consumer {
            mesh_id: team.id.to_string(),
            stream_id: "id of builds".into(),
            member_id: "ada".into(),
            name: "slow".into(),
            next_offset,
            updated_at_ms: NOW,
        };
        assert_eq!(move_consumers(&store, vec![moved(1)]).await.unwrap(), 0, "there is none yet");
        assert_eq!(open("slow", 0, Quotas::default()).await.unwrap(), 0);
        assert_eq!(move_consumers(&store, vec![moved(2), moved(1)]).await.unwrap(), 1);
        assert_eq!(open("slow", 0, Quotas::default()).await.unwrap(), 2);
        let full = open("third", 0, Quotas::default().with("streams.consumers_per_member", 2)).await;
        assert!(matches!(full, Err(WriteError::Refused(Refused::Limit(bound))) if bound.used == 2));
        // What is made anew under the name begins anew.
        delete(&store, "builds".into(), "ada".into(), false, NOW).await.unwrap();
        published(&store, &Stream { id: "another".into(), ..stream("builds") }, &["1"], NOW).await;
        assert_eq!(open("slow", 0, Quotas::default()).await.unwrap(), 0);
        counted(&store).await;
    }

    async fn only_who_made_a_stream_deletes_it_and_bounds_hold(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        let quotas = |name, value| Quotas::default().with(name, value);
        assert!(create(&store, stream("one"), quotas("streams.per_member", 1)).await.unwrap().1);
        assert!(!create(&store, stream("one"), quotas("streams.per_member", 1)).await.unwrap().1);
        let full = create(&store, stream("two"), quotas("streams.per_member", 1)).await;
        assert!(matches!(full, Err(WriteError::Refused(Refused::Limit(bound))) if bound.name == "streams.per_member"));
        let full = append(&store, stream("two"), vec![entry("1")], (NOW, NOW), quotas("streams.per_mesh", 1)).await;
        assert!(matches!(full, Err(WriteError::Refused(Refused::Limit(bound))) if bound.name == "streams.per_mesh"));
        let done = append(&store, stream("one"), vec![entry("12345"), entry("1")], (NOW, NOW), quotas("streams.bytes_per_mesh", 4)).await;
        let done = done.unwrap();
        assert!(matches!(&done.done[..], [Err(bound), Ok(0)] if bound.limit == 4), "{:?}", done.done);
        assert!(matches!(
            delete(&store, "one".into(), "bob".into(), false, NOW).await,
            Err(WriteError::Refused(Refused::Foreign))
        ));
        delete(&store, "one".into(), "bob".into(), true, NOW).await.unwrap();
        counted(&store).await;
        assert!(load(&store).await.unwrap().is_empty());
    }
}
