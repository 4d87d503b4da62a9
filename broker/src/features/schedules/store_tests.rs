use std::collections::HashSet;

use super::fire::Sent;
use super::write::{Asked, Change, Edit, Refused, When};
use super::*;
use crate::audit::{Filter as AuditFilter, query};
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};
use crate::features::schedules::limits;
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;

const MINUTE_MS: i64 = 60_000;

fn asked(member: &str) -> Asked {
    Asked { member: member.into(), manages: false, now_ms: NOW, sim_ms: None, quotas: Quotas::default() }
}

fn new(id: &str, at_ms: i64) -> Row {
    Row {
        id: id.into(),
        member_id: "ada".into(),
        targets: "\"*\"".into(),
        body: "c2F5".into(),
        zone: "UTC".into(),
        clock: "wall".into(),
        misfire: "fire_once".into(),
        state: "active".into(),
        at_ms,
        created_at_ms: NOW,
        changed_at_ms: NOW,
        version: 1,
        ..Row::default()
    }
}

fn recurring(id: &str, cron: &str) -> Row {
    Row { cron: Some(cron.into()), ..new(id, 0) }
}

async fn put(store: &MeshStore, row: Row) -> Row {
    let asked = asked(&row.member_id);
    change(store, Change::Create(Box::new(row)), asked).await.unwrap()
}

async fn refused(store: &MeshStore, change: Change, asked: Asked) -> Refused {
    match super::change(store, change, asked).await {
        Err(WriteError::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

async fn due_ids(db: &MeshDb, until_ms: i64) -> (Vec<String>, Option<i64>) {
    let (rows, next) = due(db, ScheduleClock::Wall, until_ms, &LeftOut::default(), 2, 1 << 20).await.unwrap();
    (rows.into_iter().map(|row| row.id).collect(), next)
}

fn sent(row: Row, next_ms: Option<i64>) -> Sent {
    Sent { row, fired: 1, missed: 0, error: None, next_ms, now_ms: NOW + 9 }
}

async fn all(db: &MeshDb) -> Vec<Row> {
    list(db, &Filter { ended: true, ..Filter::default() }, 100).await.unwrap().rows
}

/// The totals are what counting says.
async fn counted(db: &MeshDb) {
    let rows = all(db).await;
    let members: HashSet<&str> = rows.iter().map(|row| row.member_id.as_str()).collect();
    let sum = |rows: &mut dyn Iterator<Item = &Row>| rows.fold(Weight::default(), |sum, row| sum.plus(row.weight(), 1));
    for member in members {
        let own = used(db, Some(&member.into())).await.unwrap();
        assert_eq!(own, sum(&mut rows.iter().filter(|row| row.member_id == member)), "{member}");
    }
    assert_eq!(used(db, None).await.unwrap(), sum(&mut rows.iter()), "the mesh");
}

store_suite! {
    async fn what_is_due_is_read_in_the_order_of_its_times_and_goes_on(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        for (id, at_ms) in [("b", NOW + 1), ("a", NOW + 1), ("c", NOW + 2), ("late", NOW - 1), ("far", NOW + 9_999_999_999)] {
            put(&here, new(id, at_ms)).await;
        }
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(due_ids(&read, NOW + 5).await, (ids(&["late", "a"]), Some(NOW + 1)), "a page has two rows");
        let left_out = LeftOut { ids: ids(&["late", "a"]).into_iter().collect(), members: Vec::new() };
        let (rest, next) = due(&read, ScheduleClock::Wall, NOW + 5, &left_out, 9, 1 << 20).await.unwrap();
        assert_eq!((rest.len(), &rest[0].id, next), (2, &"b".to_owned(), Some(NOW + 9_999_999_999)));
        let (one, next) = due(&read, ScheduleClock::Wall, NOW + 5, &LeftOut::default(), 9, 1).await.unwrap();
        assert_eq!((one.len(), next), (1, Some(NOW + 1)), "at least one, however large it is");
        assert_eq!(meshes_due(&db, NOW, 9).await.unwrap(), std::slice::from_ref(&home.id));
        assert_eq!(meshes_due(&db, NOW - 2, 9).await.unwrap(), []);
        let rows = all(&read).await;
        let row = |id: &str| rows.iter().find(|row| row.id == id).unwrap().clone();
        let failed = Sent { error: Some("unknown_target: gone".into()), fired: 0, ..sent(row("a"), None) };
        advance(&here, vec![sent(row("late"), None), failed, sent(row("b"), Some(NOW + 3))]).await.unwrap();
        // A second time they are not what they were.
        advance(&here, vec![sent(row("late"), Some(NOW)), sent(row("b"), None)]).await.unwrap();
        assert_eq!(due_ids(&read, NOW + 5).await.0, ids(&["c", "b"]));
        let rows = all(&read).await;
        let of = |id: &str| rows.iter().find(|row| row.id == id).map(|row| (row.state.as_str(), row.fired_count, row.body.as_str())).unwrap();
        assert_eq!((of("late"), of("a"), of("b")), (("done", 1, ""), ("failed", 0, ""), ("active", 1, "c2F5")));
        counted(&read).await;
    }

    async fn an_entry_is_paused_resumed_edited_and_cancelled_by_its_member(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let hourly = put(&here, recurring("11111111-a", "@hourly")).await;
        let first = NOW / 3_600_000 * 3_600_000 + 3_600_000;
        assert_eq!((hourly.due_ms, hourly.at_ms), (Some(first), first));
        put(&here, new("11111111-b", NOW + 5)).await;
        let id = || "11111111-a".to_owned();
        assert_eq!(refused(&here, Change::Pause("11111111".into()), asked("ada")).await, Refused::Ambiguous);
        assert_eq!(refused(&here, Change::Pause(id()), asked("bob")).await, Refused::Missing);
        let moderator = Asked { manages: true, ..asked("bob") };
        assert_eq!(refused(&here, Change::Resume(id()), moderator.clone()).await, Refused::Foreign);
        let paused = change(&here, Change::Pause(id()), moderator.clone()).await.unwrap();
        assert_eq!((paused.due_ms, paused.state(), paused.version), (None, ScheduleState::Paused, 2));
        assert_eq!(change(&here, Change::Pause(id()), asked("ada")).await.unwrap(), paused, "once is enough");
        let later = Asked { now_ms: first + 5 * 3_600_000, ..asked("ada") };
        let resumed = change(&here, Change::Resume(id()), later).await.unwrap();
        assert_eq!(resumed.due_ms, Some(first + 6 * 3_600_000), "nothing of the pause is missed");
        let edit = Edit { when: Some(When::At(NOW + 7)), expected_version: Some(9), ..Edit::default() };
        let edit = |version| Change::Edit(id(), Box::new(Edit { expected_version: version, ..edit.clone() }));
        assert!(matches!(refused(&here, edit(Some(9)), asked("ada")).await, Refused::Version(row) if row.version == 3));
        let once = change(&here, edit(Some(3)), asked("ada")).await.unwrap();
        assert_eq!((once.cron.clone(), once.due_ms, once.version), (None, Some(NOW + 7), 4));
        let sealed = Edit { body: Some(("bm9uY2U=".into(), "c2VhbGVk".into(), true)), ..Edit::default() };
        change(&here, Change::Edit(id(), Box::new(sealed)), asked("ada")).await.unwrap();
        let other = Edit { targets: Some("\"bob\"".into()), ..Edit::default() };
        assert_eq!(refused(&here, Change::Edit(id(), Box::new(other)), asked("ada")).await, Refused::Sealed);
        counted(&read).await;
        let gone = change(&here, Change::Cancel(id()), asked("ada")).await.unwrap();
        assert_eq!((gone.state(), gone.due_ms, gone.body.as_str()), (ScheduleState::Cancelled, None, ""));
        assert_eq!(change(&here, Change::Cancel(id()), asked("ada")).await.unwrap(), gone);
        assert!(matches!(refused(&here, Change::Resume(id()), asked("ada")).await, Refused::Over(_)));
        counted(&read).await;
        let log = query(&read, &AuditFilter::default(), 99).await.unwrap();
        let events: Vec<&str> = log.iter().rev().map(|entry| entry.event_type.as_str()).collect();
        assert_eq!(events, [
            "mesh_created", "schedule_created", "schedule_created", "schedule_paused", "schedule_resumed", "schedule_edited",
            "schedule_edited", "schedule_cancelled",
        ]);
        assert!(!format!("{log:?}").contains("c2F5") && !format!("{log:?}").contains("c2VhbGVk"), "no text is in it");
    }

    async fn bounds_hold_and_what_is_over_makes_room(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let quotas = Quotas::default()
            .with(limits::PER_MEMBER.name, 3)
            .with(limits::RECURRING_PER_MEMBER.name, 1)
            .with(limits::BYTES_PER_MESH.name, 60);
        let bounded = |member: &str| Asked { quotas: quotas.clone(), ..asked(member) };
        let create = |row: Row| Change::Create(Box::new(row));
        let limit = |refused: Refused| match refused {
            Refused::Limit(bound) => bound.name,
            other => panic!("{other:?}"),
        };
        change(&here, create(recurring("1", "@daily")), bounded("ada")).await.unwrap();
        assert_eq!(limit(refused(&here, create(recurring("2", "@daily")), bounded("ada")).await), limits::RECURRING_PER_MEMBER.name);
        for id in ["2", "3"] {
            change(&here, create(new(id, NOW)), bounded("ada")).await.unwrap();
        }
        assert_eq!(limit(refused(&here, create(new("4", NOW)), bounded("ada")).await), limits::PER_MEMBER.name);
        let large = Row { member_id: "bob".into(), body: "x".repeat(50), ..new("5", NOW) };
        assert_eq!(limit(refused(&here, create(large), bounded("bob")).await), limits::BYTES_PER_MESH.name);
        change(&here, Change::Cancel("2".into()), bounded("ada")).await.unwrap();
        change(&here, create(new("4", NOW)), bounded("ada")).await.unwrap();
        counted(&read).await;
        let never = refused(&here, create(recurring("6", "0 0 29 2 *")), Asked { now_ms: 4_090_000_000_000, ..bounded("bob") }).await;
        assert!(matches!(never, Refused::Cron(_)), "{never:?}");
    }

    async fn entries_go_with_their_member_and_those_that_are_over_after_a_week(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        put(&here, recurring("1", "@daily")).await;
        put(&here, new("2", NOW)).await;
        put(&here, Row { member_id: "bob".into(), ..new("3", NOW) }).await;
        assert_eq!(end_all(&here, &"ada".into(), NOW).await.unwrap(), 2);
        assert_eq!(end_all(&here, &"ada".into(), NOW).await.unwrap(), 0);
        assert_eq!(due_ids(&read, i64::MAX).await.0, ["3"]);
        assert_eq!(used(&read, Some(&"ada".into())).await.unwrap(), Weight::default());
        assert_eq!(used(&read, None).await.unwrap().entries, 1);
        let week = 7 * 86_400_000;
        assert_eq!(purge(&db, NOW + week).await.unwrap(), 0);
        assert_eq!(purge(&db, NOW + week + 1).await.unwrap(), 2);
        assert_eq!(all(&read).await.len(), 1);
    }

    async fn a_list_goes_on_where_its_page_ended(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        for number in 0..7 {
            put(&here, new(&format!("id-{number}"), NOW + number / 3)).await;
        }
        put(&here, Row { member_id: "bob".into(), ..new("id-bob", NOW) }).await;
        let mut filter = Filter { member: Some("ada".into()), ..Filter::default() };
        let mut seen = Vec::new();
        loop {
            let page = list(&read, &filter, 2).await.unwrap();
            seen.extend(page.rows.into_iter().map(|row| row.id));
            match page.next {
                Some(next) => filter.after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, (0..7).map(|number| format!("id-{number}")).collect::<Vec<_>>());
    }

    async fn recurring_entries_follow_a_clock_that_was_set_back(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let simulated = |row: Row| Row { clock: "mesh".into(), ..row };
        let asked = Asked { sim_ms: Some(NOW), ..asked("ada") };
        for row in [recurring("often", "* * * * *"), new("once", NOW + 5 * MINUTE_MS)] {
            change(&here, Change::Create(Box::new(simulated(row))), asked.clone()).await.unwrap();
        }
        let back = NOW - 365 * 86_400_000;
        rearm(&here, back, false).await.unwrap();
        let (rows, _) = due(&read, ScheduleClock::Mesh, i64::MAX, &LeftOut::default(), 9, 1 << 20).await.unwrap();
        let times: Vec<_> = rows.iter().map(|row| (row.id.as_str(), row.due_ms)).collect();
        let next = back / MINUTE_MS * MINUTE_MS + MINUTE_MS;
        assert_eq!(times, [("often", Some(next)), ("once", Some(NOW + 5 * MINUTE_MS))]);
        assert_eq!(due_ids(&read, i64::MAX).await.0, Vec::<String>::new(), "they are not the wall clock's");
    }
}
