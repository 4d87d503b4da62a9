use std::time::Duration;

use claudemesh_protocol::features::schedules::{ListScheduled, Misfire, Schedule, ScheduleState};
use claudemesh_protocol::target::TargetField;
use serde_json::{Value, json};

use super::*;
use crate::mesh::testing::TestMesh;

const MINUTE_MS: i64 = 60_000;

fn row(cron: Option<&str>, misfire: Misfire) -> Row {
    Row { cron: cron.map(Into::into), zone: "UTC".into(), misfire: misfire.as_str().into(), ..Row::default() }
}

#[test]
fn missed_times_are_made_up_for_as_the_entry_plans() {
    // Due at 0, looked at after three hours and a half.
    let now = 210 * MINUTE_MS;
    for (cron, misfire, times, missed) in [
        (None, Misfire::FireOnce, vec![0], 0),
        (None, Misfire::Skip, vec![], 1),
        (None, Misfire::All, vec![0], 0),
        (Some("@hourly"), Misfire::FireOnce, vec![0], 3),
        (Some("@hourly"), Misfire::Skip, vec![], 4),
        (Some("@hourly"), Misfire::All, vec![0, 60 * MINUTE_MS, 120 * MINUTE_MS, 180 * MINUTE_MS], 0),
    ] {
        let expected = Plan { times, missed, until_ms: now };
        assert_eq!(plan(&row(cron, misfire), 0, now), expected, "{cron:?} {misfire:?}");
    }
    let many = plan(&row(Some("* * * * *"), Misfire::All), 0, now);
    assert_eq!((many.times.len(), many.times[99], many.missed), (100, 99 * MINUTE_MS, 111));
    let years = plan(&row(Some("* * * * *"), Misfire::Skip), 0, 10 * 365 * 24 * 60 * MINUTE_MS);
    assert_eq!((years.times.len(), years.missed), (0, 1_001), "nobody counts for long");
}

#[test]
fn an_entry_goes_on_behind_the_time_that_it_was_sent_for() {
    let due = |cron| Row { due_ms: Some(10 * MINUTE_MS), ..row(cron, Misfire::FireOnce) };
    let next = |cron, now| gone_on(due(cron), &plan(&due(cron), 10 * MINUTE_MS, now), (1, None), now).next_ms;
    assert_eq!(next(Some("*/5 * * * *"), 10 * MINUTE_MS), Some(15 * MINUTE_MS));
    assert_eq!(next(Some("*/5 * * * *"), 9 * MINUTE_MS), Some(15 * MINUTE_MS), "the clock went back meanwhile");
    assert_eq!(next(Some("*/5 * * * *"), 32 * MINUTE_MS), Some(35 * MINUTE_MS));
    assert_eq!(next(None, 10 * MINUTE_MS), None);
    let lost = Row { zone: "Mars/Phobos".into(), ..due(Some("@daily")) };
    let lost = gone_on(lost, &Plan::on_time(10 * MINUTE_MS), (1, None), 0);
    assert_eq!(
        (lost.next_ms, lost.error.as_deref()),
        (None, Some("invalid_cron: there is no time zone `Mars/Phobos`"))
    );
}

#[test]
fn one_that_recurs_is_late_when_its_next_time_may_have_come_too() {
    let late = |cron, passed| is_late(&row(cron, Misfire::All), 0, passed);
    let times = [MINUTE_MS - 1, MINUTE_MS, MINUTE_MS + 1];
    assert_eq!(times.map(|passed| late(Some("* * * * *"), passed)), [false, true, true]);
    assert_eq!(times.map(|passed| late(None, passed)), [false, false, true]);
    // What passed since it was read comes next: it is not skipped.
    let read = plan(&row(Some("* * * * *"), Misfire::All), 0, 3 * MINUTE_MS);
    let due = Row { due_ms: Some(0), ..row(Some("* * * * *"), Misfire::All) };
    assert_eq!((read.times.len(), gone_on(due, &read, (4, None), 9 * MINUTE_MS).next_ms), (4, Some(4 * MINUTE_MS)));
}

async fn schedule(mesh: &mut TestMesh, member: &MemberId, entry: Schedule) -> Value {
    let answer = mesh.ask_for(member, entry).await.unwrap();
    serde_json::from_str(&answer.write(None)).unwrap()
}

async fn listed(mesh: &mut TestMesh, member: &MemberId) -> Vec<Value> {
    let answer = mesh.ask_for(member, ListScheduled { ended: true, ..ListScheduled::default() }).await.unwrap();
    let list: Value = serde_json::from_str(&answer.write(None)).unwrap();
    list["messages"].as_array().unwrap().clone()
}

fn to(target: &str, deliver_at: i64) -> Schedule {
    let message = Some("stand-up".into());
    Schedule { to: target.into(), message, deliver_at: Some(deliver_at), ..Schedule::default() }
}

#[actix_rt::test]
async fn a_message_goes_when_its_time_has_come_to_those_who_are_here_and_to_those_who_are_away() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (_, here) = mesh.peer(&alice, "alice", Some(11));
    let now = mesh.core.clock.now_ms();
    let both = Schedule { to: TargetField::Many(vec!["alice".into(), "bob".into()]), ..to("", now + 5_000) };
    let ack = schedule(&mut mesh, &alice, both).await;
    assert_eq!(ack["deliverAt"], now + 5_000, "{ack}");
    mesh.advance(Duration::from_millis(4_999));
    mesh.settle().await;
    assert_eq!(TestMesh::take(&here, "push").len(), 0, "not yet");
    mesh.advance(Duration::from_millis(1));
    mesh.settle().await;
    let pushes = TestMesh::take(&here, "push");
    assert_eq!((pushes.len(), &pushes[0]["ciphertext"], &pushes[0]["nonce"]), (1, &json!("c3RhbmQtdXA="), &json!("")));
    let (_, late) = mesh.peer(&bob, "bob", Some(12));
    mesh.settle().await;
    assert_eq!(TestMesh::take(&late, "push").len(), 1, "it waited");
    let list = listed(&mut mesh, &alice).await;
    assert_eq!((list.len(), &list[0]["state"], &list[0]["message"]), (1, &json!("done"), &json!("")));
}

#[actix_rt::test]
async fn a_recipient_who_is_gone_ends_an_entry_with_the_reason_and_a_recurring_one_goes_on() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let now = mesh.core.clock.now_ms();
    schedule(&mut mesh, &alice, to("bob", now + 1_000)).await;
    schedule(&mut mesh, &alice, Schedule { cron: Some("* * * * *".into()), ..to("bob", 0) }).await;
    mesh.step(None, |_, cx| cx.change_member(&bob, |member| member.revoked_at_ms = Some(1)));
    mesh.advance(Duration::from_secs(61));
    mesh.settle().await;
    let list = listed(&mut mesh, &alice).await;
    let state = |recurring: bool| {
        let row = list.iter().find(|row| row["cron"].is_string() == recurring).unwrap();
        (row["state"].clone(), row["lastError"].as_str().unwrap_or_default().starts_with("unknown_target: "))
    };
    assert_eq!(state(false), (json!(ScheduleState::Failed), true), "{list:?}");
    assert_eq!(state(true), (json!(ScheduleState::Active), true), "{list:?}");
}

#[actix_rt::test]
async fn what_is_sent_later_counts_as_what_is_sent_now_and_holds_up_nobody_else() {
    let mut mesh = TestMesh::new().await;
    mesh.core.limits.member_per_minute = 3;
    let members = (mesh.member("alice", 1).await, mesh.member("bob", 2).await, mesh.member("carol", 3).await);
    let (alice, bob, carol) = members;
    let (_, here) = mesh.peer(&bob, "bob", Some(12));
    let now = mesh.core.clock.now_ms();
    for number in 0..5 {
        let text = Schedule { message: Some(format!("alice {number}")), ..to("bob", now + 1_000) };
        schedule(&mut mesh, &alice, text).await;
    }
    // Behind all of Alice's, in the same page and in one of its own.
    schedule(&mut mesh, &carol, to("bob", now + 1_001)).await;
    schedule(&mut mesh, &carol, to("bob", now + 5_000)).await;
    mesh.advance(Duration::from_millis(1_001));
    mesh.settle().await;
    let from = |pushes: Vec<Value>, key: u8| {
        let key = crate::mesh::testing::key(key).to_hex();
        pushes.iter().filter(|push| push["senderPubkey"] == key.as_str()).count()
    };
    let pushes = TestMesh::take(&here, "push");
    assert_eq!((from(pushes.clone(), 1), from(pushes, 3)), (3, 1));
    mesh.advance(Duration::from_millis(4_000));
    mesh.settle().await;
    let pushes = TestMesh::take(&here, "push");
    assert_eq!((from(pushes.clone(), 1), from(pushes, 3)), (0, 1));
    // A token comes back every 20 s.
    for expected in [1, 1, 0] {
        mesh.advance(Duration::from_secs(20));
        mesh.settle().await;
        assert_eq!(from(TestMesh::take(&here, "push"), 1), expected);
    }
    let list = listed(&mut mesh, &alice).await;
    assert!(list.len() == 5 && list.iter().all(|row| row["state"] == json!(ScheduleState::Done)), "{list:?}");
}
