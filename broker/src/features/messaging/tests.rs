use std::collections::HashSet;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::messaging::{ClientAck, InboxPull, Priority, Send, Stage, Trace};
use claudemesh_protocol::features::presence::PeerStatus;
use claudemesh_protocol::features::topics::Visibility;
use claudemesh_protocol::limits;
use claudemesh_protocol::target::TargetField;
use proptest::prelude::*;
use serde_json::Value;

use super::state::AckGracePeriod;
use super::store;
use crate::mesh::context::FlushWanted;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::{PeerHandle, StatusSource};
use crate::mesh::resolve::{Resolved, resolve_name};
use crate::mesh::testing::{Frames, TestMesh, key};
use crate::mesh::topics::TopicState;
use crate::session::queue::FRAME_OVERHEAD_BYTES;

fn texts(frames: &[Value]) -> Vec<String> {
    frames.iter().map(|frame| frame["ciphertext"].as_str().unwrap().to_owned()).collect()
}

fn pushes(frames: &Frames) -> Vec<Value> {
    TestMesh::take(frames, "push")
}

fn acknowledge(mesh: &mut TestMesh, at: PeerHandle, pushes: &[Value]) {
    let message_ids = pushes.iter().map(|push| push["messageId"].as_str().unwrap().to_owned()).collect();
    mesh.handle(at, ClientAck { message_ids, ..ClientAck::default() }).unwrap();
}

#[test]
fn a_retry_has_the_id_of_its_first_attempt_even_on_a_broker_that_never_saw_it() {
    let id = |mesh: &str, member: &str, client: Option<&str>| {
        super::send::message_id(&mesh.into(), &member.into(), client).to_string()
    };
    assert_eq!(id("m", "a", Some("1")), id("m", "a", Some("1")));
    let others = [id("m", "a", Some("2")), id("m", "b", Some("1")), id("n", "a", Some("1")), id("m", "a", None)];
    assert!(others.iter().all(|other| *other != id("m", "a", Some("1")) && other.len() == 32), "{others:?}");
    assert_ne!(id("m", "a", None), id("m", "a", None));
}

fn refusal(outcome: Outcome) -> Value {
    let Outcome::Answer(message) = outcome else { panic!("expected an answer") };
    serde_json::from_str(&message.write(None)).unwrap()
}

/// Everything that memory holds for one peer: its queue, and the messages in its window that have no row yet.
fn held_for(mesh: &TestMesh, at: PeerHandle) -> (usize, usize) {
    let peer = mesh.core.roster.get(at).unwrap();
    let open = &mesh.features.messaging.open;
    let rows = open.values().filter(|open| open.recipients.iter().any(|one| one.key == peer.key() && !one.received));
    (peer.socket.as_ref().unwrap().held_bytes(), rows.map(|open| open.message.ciphertext.len()).sum())
}

#[actix_rt::test]
async fn a_peer_that_never_reads_is_held_a_fixed_amount_for_and_misses_nothing() {
    for acks in [true, false] {
        let mut mesh = TestMesh::new().await;
        let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
        let (from, _) = mesh.peer(&alice, "alice", Some(11));
        let (to, frames) = mesh.peer(&bob, "bob", Some(12));
        mesh.core.roster.get_mut(to).unwrap().acks = acks;
        // Once it has started, a mailbox takes more than the few frames of a new one: bytes are the only bound.
        mesh.settle_frames().await;
        // Sinks take what they got whenever the test waits; storage is written without waiting for them.
        let body = "x".repeat(16 * 1024);
        for _ in 0..300 {
            mesh.send(from, &key(12).to_hex(), Priority::Next, &body).unwrap();
            let (queue, rows) = held_for(&mesh, to);
            let headers = limits::MAX_IN_FLIGHT * FRAME_OVERHEAD_BYTES;
            let most = if acks { limits::MAX_IN_FLIGHT_BYTES + headers } else { limits::MAX_QUEUED_PUSH_BYTES };
            assert!(queue <= most, "{queue} bytes in the queue, acks: {acks}");
            // Those that were not pushed are handed to the journal within one window, whatever becomes of the peer.
            assert!(mesh.features.messaging.urgent || rows <= limits::MAX_IN_FLIGHT_BYTES, "{rows} bytes without row");
        }
        let mut got = 0;
        for _ in 0..100 {
            mesh.settle().await;
            let found = pushes(&frames);
            got += found.len();
            if acks && !found.is_empty() {
                acknowledge(&mut mesh, to, &found);
            }
            mesh.step(None, |features, cx| super::journaling::refill(&mut features.messaging, cx, to));
        }
        assert_eq!(got, 300, "acks: {acks}");
        assert_eq!(held_for(&mesh, to).0, 0);
        assert_eq!(mesh.features.messaging.open.len(), 0, "all of it is on disk or was acknowledged");
    }
}

#[actix_rt::test]
async fn a_name_means_the_member_when_its_sessions_carry_it() {
    let mut mesh = TestMesh::new().await;
    let bob = mesh.member("Bob", 1).await;
    mesh.peer(&bob, "bob", Some(11));
    let resolved = resolve_name(&mesh.core.roster, "bob", None).unwrap();
    assert_eq!(resolved, Resolved::Member(bob.clone(), key(1)));
    mesh.peer(&bob, "backend", Some(12));
    assert_eq!(resolve_name(&mesh.core.roster, "BACKEND", None).unwrap(), Resolved::Session(key(12)));
}

#[actix_rt::test]
async fn two_meanings_are_answered_with_candidates() {
    let mut mesh = TestMesh::new().await;
    let first = mesh.member("worker", 1).await;
    mesh.member("worker", 2).await;
    let refused = resolve_name(&mesh.core.roster, "worker", None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::AmbiguousTarget);
    assert_eq!(refused.candidates.len(), 2);
    let (one, _) = mesh.peer(&first, "twin", Some(11));
    let (other, _) = mesh.peer(&first, "twin", Some(12));
    assert_eq!(resolve_name(&mesh.core.roster, "twin", None).unwrap_err().code, ErrorCode::AmbiguousTarget);
    // One that was closed is not meant while the other is here; of two that were closed, the first that returns.
    mesh.disconnect(one);
    assert_eq!(resolve_name(&mesh.core.roster, "twin", None).unwrap(), Resolved::Session(key(12)));
    mesh.disconnect(other);
    assert_eq!(resolve_name(&mesh.core.roster, "twin", None).unwrap(), Resolved::Member(first, key(1)));
}

#[actix_rt::test]
async fn a_member_is_not_taken_for_an_ended_session_of_another_one() {
    let mut mesh = TestMesh::new().await;
    let (ann, bob) = (mesh.member("Ann", 1).await, mesh.member("Bob", 2).await);
    let (at, _) = mesh.peer(&ann, "Bob", Some(11));
    let refused = resolve_name(&mesh.core.roster, "Bob", None).unwrap_err();
    assert_eq!((refused.code, refused.candidates.len()), (ErrorCode::AmbiguousTarget, 2), "both are here");
    // It may come back within its lease.
    mesh.disconnect(at);
    assert_eq!(resolve_name(&mesh.core.roster, "Bob", None).unwrap_err().code, ErrorCode::AmbiguousTarget);
    mesh.step(None, |_, cx| cx.end(at, false));
    assert!(mesh.core.roster.known.contains_key(&key(11)), "it is remembered");
    assert_eq!(resolve_name(&mesh.core.roster, "Bob", None).unwrap(), Resolved::Member(bob, key(2)));
    assert_eq!(resolve_name(&mesh.core.roster, "Ann/Bob", None).unwrap(), Resolved::Session(key(11)));
}

#[actix_rt::test]
async fn a_prefix_needs_eight_digits_and_one_meaning() {
    let mut mesh = TestMesh::new().await;
    let bob = mesh.member("bob", 0xab).await;
    assert_eq!(resolve_name(&mesh.core.roster, "abababab", None).unwrap(), Resolved::Member(bob.clone(), key(0xab)));
    assert_eq!(resolve_name(&mesh.core.roster, "ababab", None).unwrap_err().code, ErrorCode::UnknownTarget);
    mesh.core.roster.member_mut(&bob).unwrap().revoked_at_ms = Some(1);
    for text in ["abababab", "bob", &key(0xab).to_hex()] {
        assert_eq!(resolve_name(&mesh.core.roster, text, None).unwrap_err().code, ErrorCode::UnknownTarget, "{text}");
    }
}

#[actix_rt::test]
async fn a_member_is_reached_in_every_session_and_queued_when_none_is_there() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, acks) = mesh.peer(&alice, "alice", Some(11));
    let (one, first) = mesh.peer(&bob, "bob", Some(21));
    let (two, second) = mesh.peer(&bob, "bob", Some(22));
    mesh.send(from, &key(2).to_hex(), Priority::Next, "both").unwrap();
    mesh.settle().await;
    assert_eq!((texts(&pushes(&first)), texts(&pushes(&second))), (vec!["both".into()], vec!["both".into()]));
    assert_eq!(TestMesh::take(&acks, "ack")[0]["stage"], "stored");
    for at in [one, two] {
        mesh.disconnect(at);
        mesh.step(None, |_, cx| cx.end(at, false));
    }
    mesh.send(from, "bob", Priority::Next, "queued").unwrap();
    mesh.settle().await;
    assert_eq!(TestMesh::take(&acks, "ack")[0]["waiting"], 1);
    let (_, third) = mesh.peer(&bob, "bob", Some(23));
    mesh.settle().await;
    assert_eq!(
        texts(&pushes(&third)),
        ["both", "queued"],
        "the first session that comes takes both: no one acknowledged"
    );
    let (_, fourth) = mesh.peer(&bob, "bob", Some(24));
    mesh.settle().await;
    assert!(pushes(&fourth).is_empty(), "and only that one");
}

#[actix_rt::test]
async fn an_array_reaches_each_recipient_once_and_exclude_is_honoured() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob, carol) =
        (mesh.member("alice", 1).await, mesh.member("bob", 2).await, mesh.member("carol", 3).await);
    let (from, _) = mesh.peer(&alice, "alice", Some(11));
    let (at, frames) = mesh.peer(&bob, "bob", Some(21));
    let (other, others) = mesh.peer(&carol, "carol", Some(31));
    for at in [at, other] {
        mesh.core.roster.get_mut(at).unwrap().groups.push(Group { name: "team/a".into(), role: None });
    }
    let target = TargetField::Many(vec!["bob".into(), "@team".into(), key(21).to_hex(), "*".into()]);
    mesh.handle(from, Send { target_spec: target, ciphertext: "x".into(), ..Send::default() }).unwrap();
    mesh.settle().await;
    assert_eq!((pushes(&frames).len(), pushes(&others).len()), (1, 1));
    let send = Send { target_spec: "@team".into(), ciphertext: "y".into(), exclude: vec![key(2)], ..Send::default() };
    mesh.handle(from, send).unwrap();
    mesh.settle().await;
    assert_eq!((pushes(&frames).len(), pushes(&others).len()), (0, 1));
}

#[actix_rt::test]
async fn whoever_got_it_directly_gets_no_copy_from_a_topic() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob, carol) =
        (mesh.member("alice", 1).await, mesh.member("bob", 2).await, mesh.member("carol", 3).await);
    let (from, _) = mesh.peer(&alice, "alice", Some(11));
    let (at, frames) = mesh.peer(&bob, "bob", Some(21));
    let (_, others) = mesh.peer(&carol, "carol", Some(31));
    mesh.core.topics.put(TopicState {
        id: "topic-1".into(),
        name: "news".into(),
        description: None,
        visibility: Visibility::Public,
        created_by: alice.clone(),
        created_at_ms: 0,
        retention_ms: None,
        roles: std::collections::HashMap::new(),
        subscribers: vec![bob.clone(), carol],
    });
    for excluded in [key(2), key(21)] {
        let news = Send { target_spec: "#news".into(), exclude: vec![excluded], ..Send::default() };
        mesh.handle(from, news).unwrap();
        mesh.settle().await;
        assert_eq!((pushes(&frames).len(), pushes(&others).len()), (0, 1), "{excluded:?}");
        assert!(!mesh.features.messaging.waiting.contains_key(&key(2)), "nor does one wait for the member");
    }
    // A sibling of the session that got it directly has not got it.
    let (_, sibling) = mesh.peer(&bob, "bob", Some(22));
    mesh.handle(from, Send { target_spec: "#news".into(), exclude: vec![key(21)], ..Send::default() }).unwrap();
    mesh.settle().await;
    assert_eq!((pushes(&frames).len(), pushes(&sibling).len()), (0, 1));
    // Nor is anything kept for one that was excluded and is away.
    mesh.step(None, |_, cx| cx.end(at, false));
    mesh.handle(from, Send { target_spec: "#news".into(), exclude: vec![key(2)], ..Send::default() }).unwrap();
    mesh.settle().await;
    assert_eq!(pushes(&sibling).len(), 0);
}

#[actix_rt::test]
async fn grants_refuse_loudly_when_direct_and_silently_in_audiences() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, _) = mesh.peer(&alice, "alice", Some(11));
    let (_, frames) = mesh.peer(&bob, "bob", Some(21));
    mesh.core.roster.member_mut(&bob).unwrap().grants.insert(key(1), vec![]);
    let ack = refusal(mesh.send(from, "bob", Priority::Now, "x").unwrap());
    assert_eq!((&ack["queued"], &ack["code"]), (&false.into(), &"blocked".into()));
    mesh.send(from, "*", Priority::Now, "x").unwrap();
    mesh.settle().await;
    assert!(pushes(&frames).is_empty());
}

#[actix_rt::test]
async fn a_retry_is_the_same_message_and_a_reused_id_is_refused() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, acks) = mesh.peer(&alice, "alice", Some(11));
    let (_, frames) = mesh.peer(&bob, "bob", Some(21));
    let send = |fingerprint: &str| Send {
        target_spec: "bob".into(),
        ciphertext: "x".into(),
        client_message_id: Some("c1".into()),
        request_fingerprint: Some(fingerprint.into()),
        ..Send::default()
    };
    mesh.handle(from, send("f")).unwrap();
    mesh.settle().await;
    let first = TestMesh::take(&acks, "ack").remove(0);
    let again = refusal(mesh.handle(from, send("f")).unwrap());
    assert_eq!((&again["messageId"], &again["duplicate"]), (&first["messageId"], &true.into()));
    let other = refusal(mesh.handle(from, send("g")).unwrap());
    assert_eq!((&other["queued"], &other["code"]), (&false.into(), &"already_exists".into()));
    mesh.settle().await;
    assert_eq!(pushes(&frames).len(), 1);
}

#[actix_rt::test]
async fn a_trace_runs_out_until_a_human_speaks() {
    let mut mesh = TestMesh::new().await;
    mesh.core.limits.trace_budget = 3;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, _) = mesh.peer(&alice, "alice", Some(11));
    mesh.peer(&bob, "bob", Some(21));
    let send = || Send {
        target_spec: "bob".into(),
        ciphertext: "x".into(),
        trace: Some(Trace { id: "t".into(), hop: 1 }),
        ..Send::default()
    };
    for _ in 0..3 {
        assert!(matches!(mesh.handle(from, send()).unwrap(), Outcome::Silent));
    }
    let ack = refusal(mesh.handle(from, send()).unwrap());
    assert_eq!(ack["code"], "trace_budget");
    assert!(ack["retry_after_ms"].as_u64().unwrap() > 0);
    mesh.core.roster.get_mut(from).unwrap().peer_type = Some("human".into());
    assert!(matches!(mesh.handle(from, send()).unwrap(), Outcome::Silent));
}

#[actix_rt::test]
async fn receipts_climb_and_only_by_their_recipient() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob, eve) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await, mesh.member("eve", 3).await);
    let (from, _) = mesh.peer(&alice, "alice", Some(11));
    let (to, frames) = mesh.peer(&bob, "bob", Some(21));
    let (thief, _) = mesh.peer(&eve, "eve", Some(31));
    mesh.send(from, "bob", Priority::Next, "x").unwrap();
    mesh.settle().await;
    let got = pushes(&frames);
    let id = got[0]["messageId"].as_str().unwrap().to_owned();
    acknowledge(&mut mesh, thief, &got);
    assert_eq!(
        mesh.features.messaging.recent.receipt(&id).unwrap().entries[0].stage,
        Stage::Stored,
        "a stranger acknowledges nothing"
    );
    acknowledge(&mut mesh, to, &got);
    let handed = ClientAck {
        broker_message_id: Some(id.clone()),
        stage: Some(Stage::Handed),
        route: Some("channel".into()),
        ..ClientAck::default()
    };
    mesh.handle(to, handed).unwrap();
    let entry = mesh.features.messaging.recent.receipt(&id).unwrap().entries[0].clone();
    assert_eq!((entry.stage, entry.route.as_deref()), (Stage::Handed, Some("channel")));
    acknowledge(&mut mesh, to, &got);
    assert_eq!(mesh.features.messaging.recent.receipt(&id).unwrap().entries[0].stage, Stage::Handed, "never down");
    let reply =
        Send { target_spec: "alice".into(), ciphertext: "re".into(), reply_to_id: Some(id.clone()), ..Send::default() };
    mesh.handle(to, reply).unwrap();
    assert_eq!(mesh.features.messaging.recent.receipt(&id).unwrap().entries[0].stage, Stage::Answered);
}

#[actix_rt::test]
async fn what_is_acknowledged_before_its_batch_never_reaches_the_disk() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, acks) = mesh.peer(&alice, "alice", Some(11));
    let (to, frames) = mesh.peer(&bob, "bob", Some(21));
    mesh.send(from, "bob", Priority::Next, "x").unwrap();
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    let got = pushes(&frames);
    acknowledge(&mut mesh, to, &got);
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    assert_eq!(TestMesh::take(&acks, "ack")[0]["stage"], "received");
    mesh.settle().await;
    assert_eq!(super::store::max_seq(&mesh.core.storage()).await.unwrap(), 0);
}

#[actix_rt::test]
async fn low_waits_until_it_is_pulled_and_is_counted_at_idle() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, _) = mesh.peer(&alice, "alice", Some(11));
    let (to, frames) = mesh.peer(&bob, "bob", Some(21));
    mesh.send(from, "bob", Priority::Low, "later").unwrap();
    mesh.settle().await;
    assert!(pushes(&frames).is_empty());
    mesh.step(None, |_, cx| cx.set_status(to, PeerStatus::Idle, StatusSource::Manual));
    mesh.settle().await;
    let notice = pushes(&frames).remove(0);
    assert_eq!((&notice["event"], &notice["eventData"]["count"]), (&"low_waiting".into(), &1.into()));
    mesh.handle(to, InboxPull::default()).unwrap();
    mesh.settle().await;
    assert_eq!(texts(&pushes(&frames)), ["later"]);
}

/// Messages that have a row.
async fn stored(mesh: &TestMesh) -> i64 {
    super::store::max_seq(&mesh.core.storage()).await.unwrap()
}

#[actix_rt::test]
async fn a_message_on_its_way_is_written_only_when_its_acknowledgement_stays_out() {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, acks) = mesh.peer(&alice, "alice", Some(11));
    let (to, frames) = mesh.peer(&bob, "bob", Some(21));
    mesh.settle().await;
    // Acknowledged within its period: no row, and the sender has its ack.
    mesh.send(from, &key(21).to_hex(), Priority::Now, "quick").unwrap();
    assert_eq!(mesh.core.flush_wanted, FlushWanted::Expected);
    mesh.commit_wanted(FlushWanted::Expected).await;
    mesh.settle_frames().await;
    acknowledge(&mut mesh, to, &pushes(&frames));
    for _ in 0..3 {
        mesh.commit_wanted(FlushWanted::Expected).await;
    }
    mesh.settle_frames().await;
    assert_eq!(TestMesh::take(&acks, "ack").len(), 1);
    assert_eq!(stored(&mesh).await, 0);
    // Not acknowledged: written after one whole period, at most two.
    mesh.send(from, &key(21).to_hex(), Priority::Now, "slow").unwrap();
    mesh.commit_wanted(FlushWanted::Expected).await;
    assert_eq!(stored(&mesh).await, 0);
    mesh.commit_wanted(FlushWanted::Expected).await;
    assert_eq!(stored(&mesh).await, 2);
    mesh.settle_frames().await;
    assert_eq!(TestMesh::take(&acks, "ack").len(), 1);
    // Someone is away: nothing waits.
    mesh.disconnect(to);
    mesh.send(from, &key(21).to_hex(), Priority::Now, "away").unwrap();
    assert_eq!(mesh.core.flush_wanted, FlushWanted::Soon);
    mesh.commit_wanted(FlushWanted::Expected).await;
    assert_eq!(stored(&mesh).await, 3);
}

#[test]
fn the_period_follows_the_load() {
    let mut hold = AckGracePeriod::default();
    let shortest = hold.period_ms;
    let mut periods = |count: usize, admitted: usize, late: usize| {
        for _ in 0..count {
            hold.admit(admitted);
            hold.next_period(0, late);
        }
        hold.period_ms
    };
    assert_eq!(periods(5, 10, 10), shortest, "a few slow ones keep no sender waiting");
    assert!(periods(3, 1_000, 900) > shortest);
    assert_eq!(periods(20, 1_000, 900), 32, "bounded");
    assert_eq!(periods(20, 1_000, 0), shortest);
}

#[derive(Clone, Debug)]
enum Step {
    Send(Priority),
    Commit,
    Ripen,
    Settle,
    Acknowledge(usize),
    Drop,
    Return,
    Status(PeerStatus),
    Pull,
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![3 => Just(Priority::Next), 1 => Just(Priority::Now), 1 => Just(Priority::Low)];
    let status = prop_oneof![Just(PeerStatus::Idle), Just(PeerStatus::Working), Just(PeerStatus::Dnd)];
    prop_oneof![
        8 => priority.prop_map(Step::Send),
        2 => Just(Step::Commit),
        2 => Just(Step::Ripen),
        2 => Just(Step::Settle),
        4 => (0usize..4).prop_map(Step::Acknowledge),
        1 => Just(Step::Drop),
        2 => Just(Step::Return),
        1 => status.prop_map(Step::Status),
        1 => Just(Step::Pull),
    ]
}

/// Whatever sockets, acknowledgements, commits and statuses do: in the end every message arrived, and per priority the
/// first arrivals are in sending order.
async fn run(steps: Vec<Step>) {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, _acks) = mesh.peer(&alice, "alice", Some(11));
    let (to, mut frames) = mesh.peer(&bob, "bob", Some(21));
    let mut sent: Vec<(Priority, String)> = Vec::new();
    let mut unacknowledged: Vec<Value> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let mut online = true;
    let collect = |frames: &Frames, unacknowledged: &mut Vec<Value>, seen: &mut Vec<String>| {
        for push in pushes(frames).into_iter().filter(|push| push.get("subtype").is_none()) {
            let text = push["ciphertext"].as_str().unwrap().to_owned();
            if !seen.contains(&text) {
                seen.push(text);
            }
            unacknowledged.push(push);
        }
    };
    for step in steps {
        match step {
            Step::Send(priority) => {
                let text = format!("m{}", sent.len());
                mesh.send(from, &key(21).to_hex(), priority, &text).unwrap();
                sent.push((priority, text));
            }
            Step::Commit => mesh.commit().await,
            Step::Ripen => mesh.commit_wanted(FlushWanted::Expected).await,
            Step::Settle => mesh.settle().await,
            Step::Acknowledge(count) => {
                collect(&frames, &mut unacknowledged, &mut seen);
                let count = count.min(unacknowledged.len());
                let some: Vec<Value> = unacknowledged.drain(..count).collect();
                if online {
                    acknowledge(&mut mesh, to, &some);
                }
            }
            Step::Drop if online => {
                mesh.settle().await;
                collect(&frames, &mut unacknowledged, &mut seen);
                unacknowledged.clear();
                mesh.disconnect(to);
                online = false;
            }
            Step::Return if !online => {
                frames = mesh.connect(to);
                online = true;
            }
            Step::Status(status) => {
                mesh.step(None, |_, cx| cx.set_status(to, status, StatusSource::Manual));
            }
            Step::Pull if online => {
                mesh.handle(to, InboxPull { limit: Some(2) }).unwrap();
            }
            Step::Drop | Step::Return | Step::Pull => {}
        }
    }
    if !online {
        frames = mesh.connect(to);
    }
    mesh.step(None, |_, cx| cx.set_status(to, PeerStatus::Idle, StatusSource::Manual));
    for _ in 0..sent.len() + 2 {
        mesh.settle().await;
        collect(&frames, &mut unacknowledged, &mut seen);
        let all: Vec<Value> = std::mem::take(&mut unacknowledged);
        acknowledge(&mut mesh, to, &all);
        mesh.handle(to, InboxPull::default()).unwrap();
    }
    mesh.settle().await;
    for priority in Priority::ALL {
        let expected: Vec<String> =
            sent.iter().filter(|(one, _)| *one == priority).map(|(_, text)| text.clone()).collect();
        let arrived: Vec<String> = seen.iter().filter(|text| expected.contains(text)).cloned().collect();
        assert_eq!(arrived, expected, "{priority:?}");
    }
    assert!(mesh.features.messaging.waiting.is_empty(), "{:?}", mesh.features.messaging.waiting);
    mesh.settle().await;
    assert!(mesh.features.messaging.open.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_message_arrives_once_in_order_over_all_interleavings(steps in proptest::collection::vec(step(), 1..60)) {
        actix_rt::System::new().block_on(run(steps));
    }
}

/// What happens to the connections of one member: two sessions that acknowledge and return, and verbs that never do either.
#[derive(Clone, Debug)]
enum Coming {
    Send(Priority),
    Come(usize),
    Go(usize),
    Verb,
    VerbEnds,
    Acknowledge(usize),
    Commit,
    Settle,
    Restart,
}

fn coming() -> impl Strategy<Value = Coming> {
    let priority = prop_oneof![Just(Priority::Next), Just(Priority::Now)];
    prop_oneof![
        6 => priority.prop_map(Coming::Send),
        3 => (0..2_usize).prop_map(Coming::Come),
        2 => (0..2_usize).prop_map(Coming::Go),
        3 => Just(Coming::Verb),
        3 => Just(Coming::VerbEnds),
        2 => (0..2_usize).prop_map(Coming::Acknowledge),
        2 => Just(Coming::Commit),
        3 => Just(Coming::Settle),
        1 => Just(Coming::Restart),
    ]
}

/// A closed socket, as the mesh tells of it.
fn leave(mesh: &mut TestMesh, at: PeerHandle) {
    mesh.disconnect(at);
}

async fn come_and_go(steps: Vec<Coming>) {
    let mut mesh = TestMesh::new().await;
    let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
    let (from, _acks) = mesh.peer(&alice, "alice", Some(11));
    let mut sessions: Vec<(PeerHandle, Option<Frames>)> = vec![];
    for number in [21, 22] {
        let (at, _) = mesh.peer(&bob, "bob", Some(number));
        leave(&mut mesh, at);
        sessions.push((at, None));
    }
    let mut verbs: Vec<(PeerHandle, Frames)> = vec![];
    let mut next_verb = 100;
    let mut sent: Vec<String> = vec![];
    let mut had: HashSet<String> = HashSet::new();
    let verb_ends = |mesh: &mut TestMesh, at: PeerHandle| {
        let gone = mesh.core.roster.remove(at).unwrap();
        mesh.step(None, |_, cx| cx.emit(MeshEvent::Ended { peer: at, record: Box::new(gone), announce: false }));
    };
    for step in steps {
        match step {
            Coming::Send(priority) => {
                let text = format!("m{}", sent.len());
                mesh.send(from, &key(2).to_hex(), priority, &text).unwrap();
                sent.push(text);
            }
            Coming::Come(one) if sessions[one].1.is_none() => sessions[one].1 = Some(mesh.connect(sessions[one].0)),
            Coming::Go(one) if sessions[one].1.is_some() => {
                sessions[one].1 = None;
                leave(&mut mesh, sessions[one].0);
            }
            Coming::Verb => {
                let (at, frames) = mesh.peer(&bob, "bob", Some(next_verb));
                mesh.core.roster.get_mut(at).unwrap().acks = false;
                next_verb += 1;
                verbs.push((at, frames));
            }
            Coming::VerbEnds => {
                if let Some((at, _)) = verbs.pop() {
                    verb_ends(&mut mesh, at);
                }
            }
            Coming::Acknowledge(one) => {
                mesh.settle_frames().await;
                if let (at, Some(frames)) = &sessions[one] {
                    let found = pushes(frames);
                    had.extend(texts(&found));
                    acknowledge(&mut mesh, *at, &found);
                }
            }
            Coming::Commit => mesh.commit().await,
            Coming::Settle => mesh.settle().await,
            Coming::Restart => {
                mesh.settle().await;
                for (at, _) in verbs.drain(..) {
                    verb_ends(&mut mesh, at);
                }
                for (at, frames) in &mut sessions {
                    *frames = None;
                    mesh.disconnect(*at);
                }
                mesh.settle().await;
                let storage = mesh.core.storage();
                let waiting = store::pending_counts(&storage).await.unwrap();
                mesh.features.messaging = super::MessagingMemory::new(
                    store::max_seq(&storage).await.unwrap(),
                    waiting.into_iter().map(|(key, found)| (key, found.counts)).collect(),
                    store::pending_copies(&storage).await.unwrap(),
                    vec![],
                );
            }
            Coming::Come(_) | Coming::Go(_) => {}
        }
    }
    for (at, _) in verbs {
        verb_ends(&mut mesh, at);
    }
    for (at, frames) in sessions {
        if frames.is_some() {
            leave(&mut mesh, at);
        }
    }
    // Anyone who comes next has what no one had.
    let (last, frames) = mesh.peer(&bob, "bob", Some(99));
    for _ in 0..sent.len() + 2 {
        mesh.settle().await;
        let found = pushes(&frames);
        had.extend(texts(&found));
        acknowledge(&mut mesh, last, &found);
    }
    let lost: Vec<&String> = sent.iter().filter(|text| !had.contains(*text)).collect();
    assert_eq!(lost, Vec::<&String>::new());
    mesh.settle().await;
    assert_eq!(mesh.features.messaging.waiting.get(&key(2)), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_for_a_member_is_had_by_one_of_its_sessions_however_they_come_and_go(
        steps in proptest::collection::vec(coming(), 1..50),
    ) {
        actix_rt::System::new().block_on(come_and_go(steps));
    }
}
