use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::audit::{Filter as AuditFilter, query};
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};
use crate::features::tasks::schema::task_dependencies;
use crate::journal::{MeshStore, WriteError};

fn by(name: &str) -> By {
    By { member: name.into(), key: format!("key of {name}"), name: name.to_uppercase(), manages: false }
}

fn doing(act: Act, name: &str) -> Change {
    Change { act, by: by(name), now_ms: NOW, quotas: Default::default() }
}

fn new(id: &str, depends_on: &[&str]) -> Act {
    let depends_on = depends_on.iter().map(|id| (*id).to_owned()).collect();
    Act::Create(Box::new(New { id: id.into(), title: format!("title of {id}"), depends_on, ..New::default() }))
}

async fn done(store: &MeshStore, act: Act, name: &str) -> Task {
    change(store, doing(act, name)).await.unwrap().task.unwrap()
}

async fn refused(store: &MeshStore, act: Act, name: &str) -> Refused {
    match change(store, doing(act, name)).await {
        Err(WriteError::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

async fn rows(db: &MeshDb) -> Vec<Task> {
    list(db, &Filter::default(), 100).await.unwrap().tasks
}

/// The totals, and what counting says.
async fn counted(db: &MeshDb) {
    let (head, all) = (head(db).await.unwrap(), rows(db).await);
    let count = |status| i64::try_from(all.iter().filter(|task| task.status == status).count()).unwrap();
    assert_eq!((head.open, head.claimed, head.done), (count(OPEN), count(CLAIMED), count(DONE)));
    assert_eq!(head.bytes, all.iter().map(|task| task.size_bytes).sum::<i64>());
    let creators: BTreeSet<&str> = all.iter().map(|task| task.creator_member.as_str()).collect();
    let mut sums = (0, 0);
    for creator in creators {
        let used = created_by(db, creator).await.unwrap();
        sums = (sums.0 + used.0, sums.1 + used.1);
    }
    assert_eq!(sums, (head.tasks(), head.bytes), "the members' shares add up");
    for task in &all {
        let waits: i64 = waits(db, task.seq).await.unwrap();
        assert_eq!(task.blockers, waits, "{} is blocked by what is not done", task.id);
    }
}

/// Of the tasks that one waits for, those that are not done.
async fn waits(db: &MeshDb, seq: i64) -> Result<i64, DbError> {
    let needed: Vec<i64> = with_conn!(db.db(), |conn| task_dependencies::table
        .filter(task_dependencies::mesh_id.eq(db.mesh().as_str()))
        .filter(task_dependencies::task_seq.eq(seq))
        .select(task_dependencies::needs_seq)
        .load(conn)
        .await?);
    Ok(with_conn!(db.db(), |conn| tasks::table
        .filter(tasks::mesh_id.eq(db.mesh().as_str()))
        .filter(tasks::seq.eq_any(&needed))
        .filter(tasks::status.ne(DONE))
        .count()
        .get_result(conn)
        .await?))
}

/// A step of one of several rivals on one of a few tasks.
#[derive(Clone, Debug)]
enum Move {
    Create(u8, Option<u8>),
    Claim(u8),
    Next,
    Unclaim(u8),
    Complete(u8),
    Reopen(u8),
    Depend(u8, u8),
    Delete(u8),
}

fn act(step: &Move) -> Act {
    let id = |number: u8| format!("task-{number:04}");
    match step {
        Move::Create(one, needs) => new(&id(*one), &needs.map(id).iter().map(String::as_str).collect::<Vec<_>>()),
        Move::Claim(one) => Act::Claim(id(*one), None),
        Move::Next => Act::ClaimNext(vec![]),
        Move::Unclaim(one) => Act::Unclaim(id(*one)),
        Move::Complete(one) => Act::Complete(id(*one), Some("done".into())),
        Move::Reopen(one) => Act::Reopen(id(*one)),
        Move::Depend(one, other) => {
            Act::Update(id(*one), Box::new(Patch { depends_on: Some(vec![id(*other)]), ..Patch::default() }))
        }
        Move::Delete(one) => Act::Delete(id(*one)),
    }
}

/// Rivals run beside each other. Whatever they do: one step after the other, one audit entry for each change, no task with two
/// holders, totals and blockers that are right.
async fn rivals(store: &MeshStore, moves: &[Vec<Move>]) {
    let before = head(store).await.unwrap().revision;
    let run = |number: usize, moves: Vec<Move>| async move {
        let mut told = Vec::new();
        for step in moves {
            let change_one = Change { by: By { manages: true, ..by(&format!("m{number}")) }, ..doing(act(&step), "") };
            match change(store, change_one).await {
                Ok(changed) => told.push(changed),
                // Its id is taken.
                Err(WriteError::Db(DbError::Conflict(_))) => {}
                Err(WriteError::Refused(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        told
    };
    let runs = moves.iter().cloned().enumerate().map(|(number, moves)| run(number, moves));
    let mut told: Vec<Changed> = futures_util::future::join_all(runs).await.concat();
    told.retain(|changed| !changed.what.is_empty());
    told.sort_by_key(|changed| changed.head.revision);
    let revisions: Vec<i64> = told.iter().map(|changed| changed.head.revision).collect();
    assert_eq!(revisions, (before + 1..=before + i64::try_from(told.len()).unwrap()).collect::<Vec<_>>());
    for pair in told.iter().filter(|changed| changed.what == "claimed") {
        assert_eq!(pair.before.as_ref().map(|task| task.status), Some(OPEN), "only what is open is won");
    }
    // Each change begins where the one before of the same task ended. The blockers change with other tasks.
    let mut last: std::collections::BTreeMap<i64, Task> = Default::default();
    for changed in &told {
        let seq = changed.task.as_ref().or(changed.before.as_ref()).unwrap().seq;
        if let (Some(known), Some(before)) = (last.get(&seq), &changed.before) {
            assert_eq!(
                (known.version, known.status, &known.holder_member),
                (before.version, before.status, &before.holder_member)
            );
        }
        if let Some(task) = &changed.task {
            last.insert(seq, task.clone());
        }
    }
    counted(store).await;
    let audited = query(store, &AuditFilter::default(), 1_000).await.unwrap();
    let audited = audited.iter().filter(|entry| entry.event_type.starts_with("task_")).count();
    assert_eq!(i64::try_from(audited).unwrap(), head(store).await.unwrap().revision, "one entry for each change");
}

fn moves() -> impl Strategy<Value = Vec<Vec<Move>>> {
    let one = 0..6_u8;
    let step = prop_oneof![
        3 => (one.clone(), prop::option::of(one.clone())).prop_map(|(one, needs)| Move::Create(one, needs)),
        4 => one.clone().prop_map(Move::Claim),
        2 => Just(Move::Next),
        1 => one.clone().prop_map(Move::Unclaim),
        3 => one.clone().prop_map(Move::Complete),
        1 => one.clone().prop_map(Move::Reopen),
        2 => (one.clone(), one.clone()).prop_map(|(one, other)| Move::Depend(one, other)),
        1 => one.prop_map(Move::Delete),
    ];
    prop::collection::vec(prop::collection::vec(step, 1..12), 2..5)
}

store_suite! {
    async fn rivals_leave_nothing_inconsistent(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for _ in 0..12 {
            let steps = moves().new_tree(&mut runner).unwrap().current();
            rivals(&store, &steps).await;
        }
    }

    async fn only_one_of_many_gets_a_task(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        done(&store, new("task-0001", &[]), "ada").await;
        let names: Vec<String> = (0..50).map(|number| format!("m{number}")).collect();
        let claims = names.iter().map(|name| change(&store, doing(Act::Claim("task-0001".into(), None), name)));
        let won = futures_util::future::join_all(claims).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(won, 1);
        let task = rows(&store).await.remove(0);
        let holder = task.holder_member.clone().unwrap();
        assert_eq!((task.status, task.version), (CLAIMED, 2));
        // A claim that was seen as stale is taken over by one, and only as it was seen.
        assert!(matches!(refused(&store, Act::Claim("task-0001".into(), Some(1)), "x").await, Refused::NotClaimable(_)));
        let takeovers = names.iter().map(|name| change(&store, doing(Act::Claim("task-0001".into(), Some(2)), name)));
        let done = futures_util::future::join_all(takeovers).await;
        let taken = done.iter().flatten().filter(|changed| changed.what == "taken_over").count();
        assert_eq!(taken, 1, "{holder}");
    }

    async fn a_beginning_that_means_two_names_neither(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        for id in ["abcdefgh1", "abcdefgh2", "abcdefgh"] {
            done(&store, new(id, &[]), "ada").await;
        }
        assert_eq!(refused(&store, Act::Claim("abcdefg".into(), None), "ada").await, Refused::Ambiguous);
        assert_eq!(done(&store, Act::Claim("abcdefgh".into(), None), "ada").await.id, "abcdefgh", "a whole id");
        assert_eq!(get(&store, "abcdefgh1").await.unwrap().unwrap().0.id, "abcdefgh1");
        assert_eq!(get(&store, "abcdefgh3").await.unwrap(), Err(Refused::Missing));
    }

    async fn the_history_keeps_the_newest_steps(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        done(&store, new("task-0001", &[]), "ada").await;
        for number in 0..claudemesh_protocol::features::tasks::limits::MAX_HISTORY {
            let patch = Patch { title: Some(format!("title {number}")), ..Patch::default() };
            done(&store, Act::Update("task-0001".into(), Box::new(patch)), "ada").await;
        }
        let (task, steps) = get(&store, "task-0001").await.unwrap().unwrap();
        assert_eq!((task.version, steps.len(), steps[0].version), (201, 200, 2));
        // What changes nothing is no step.
        let patch = Patch { title: Some(task.title.clone()), ..Patch::default() };
        assert_eq!(done(&store, Act::Update("task-0001".into(), Box::new(patch)), "ada").await.version, 201);
    }

    async fn a_page_holds_no_more_than_an_answer_may(db: Db) {
        let (team, _) = mesh(&db, "team", key()).await;
        let store = store(&db, &team.id);
        for number in 0..15 {
            let id = format!("task-{number:04}");
            done(&store, new(&id, &[]), "ada").await;
            done(&store, Act::Complete(id, Some("x".repeat(65_536))), "ada").await;
        }
        let first = list(&store, &Filter::default(), 100).await.unwrap();
        assert_eq!(first.tasks.len(), 11);
        let rest = list(&store, &Filter { after: first.next, ..Filter::default() }, 100).await.unwrap();
        assert_eq!((rest.tasks.len(), rest.next), (4, None));
        assert_eq!(of(&db, &team.id).mesh(), store.mesh());
    }
}
