//! Messages that are sent later, over real sockets: to who is here and who is away, over restarts and kills, by both clocks.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_protocol::crypto::envelope;
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::enrol::OwnedMesh;
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::process::BrokerProcess;
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_secs(60);

fn at(to: &str, text: &str, deliver_at: i64) -> Value {
    json!({"type": "schedule", "to": to, "message": text, "deliverAt": deliver_at})
}

fn cron(to: &str, text: &str, cron: &str, more: Value) -> Value {
    let mut frame = json!({"type": "schedule", "to": to, "message": text, "deliverAt": 0, "cron": cron, "tz": "UTC"});
    frame.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    frame
}

async fn schedule(peer: &mut TestPeer, frame: Value) -> Result<Value> {
    peer.call(frame, "scheduled_ack").await
}

async fn listed(peer: &mut TestPeer, more: Value) -> Result<Vec<Value>> {
    let mut frame = json!({"type": "list_scheduled"});
    frame.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    Ok(peer.call(frame, "scheduled_list").await?["messages"].as_array().context("messages")?.clone())
}

/// Texts that came and were not taken yet, in their order.
async fn texts(peer: &mut TestPeer) -> Result<Vec<String>> {
    let messages = peer.waiting_messages().await?;
    messages.iter().map(|push| peer.open(push)).collect()
}

/// How many entries of the asker are in which state, once none is due any more.
async fn states(peer: &mut TestPeer) -> Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for row in listed(peer, json!({"ended": true})).await? {
        *found.entry(row["state"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    Ok(found)
}

/// Asks until the list is as it is to be: what was sent is noted a moment after it was received.
async fn until(peer: &mut TestPeer, fits: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
    for _ in 0..2_000 {
        let rows = listed(peer, json!({"ended": true})).await?;
        if fits(&rows) {
            return Ok(rows);
        }
    }
    anyhow::bail!("the list stays {:?}", listed(peer, json!({"ended": true})).await?)
}

fn minutes(ms: i64) -> i64 {
    ms / 60_000 * 60_000
}

broker_suite! {
    async fn a_message_comes_at_its_time_to_who_is_here_and_waits_for_who_is_away(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let now = broker.now_ms();
        let ack = schedule(&mut ann, at("bob", "in a minute", now + 60_000)).await?;
        assert_eq!((&ack["deliverAt"], &ack["cron"], &ack["nextTimes"]), (&json!(now + 60_000), &Value::Null, &Value::Null));
        schedule(&mut ann, at("bob", "long over", now - 86_400_000)).await?;
        assert_eq!(ben.text().await?, "long over");
        // Who scheduled it need not be here.
        ann.close().await?;
        broker.advance(Duration::from_secs(59));
        assert_eq!(texts(&mut ben).await?, Vec::<String>::new());
        broker.advance(Duration::from_secs(1));
        let push = ben.message().await?;
        assert_eq!((ben.open(&push)?.as_str(), &push["priority"], &push["nonce"]), ("in a minute", &json!("now"), &json!("")));
        assert_eq!(push["senderMemberName"], "alice");
        // Nor the recipient.
        let mut ann = broker.join(&alice).await?;
        let reminder = json!({"subtype": "reminder"});
        let mut later = at("alice", "for me", now + 180_000);
        later.as_object_mut().context("an object")?.extend(reminder.as_object().cloned().unwrap_or_default());
        schedule(&mut ann, later).await?;
        ann.close().await?;
        broker.pass(Duration::from_secs(240), &mut ben).await?;
        let mut ann = broker.join(&alice).await?;
        let push = ann.message().await?;
        assert_eq!((ann.open(&push)?.as_str(), &push["subtype"]), ("for me", &json!("reminder")));
        until(&mut ann, |rows| rows.len() == 3 && rows.iter().all(|row| row["state"] == "done" && row["message"] == "")).await?;
        Ok(())
    }

    async fn a_recurring_one_comes_once_for_each_of_its_times_over_a_restart(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let mut ann = broker.join(&alice).await?;
        let start = minutes(broker.now_ms()) + 60_000;
        let ack = schedule(&mut ann, cron("alice", "tick", "* * * * *", json!({}))).await?;
        assert_eq!(ack["nextTimes"], json!([start, start + 60_000, start + 120_000]), "{ack}");
        for _ in 0..3 {
            broker.advance(MINUTE);
            assert_eq!(ann.text().await?, "tick");
            // It is heard before the next minute, which would be too long a silence.
            ann.settle().await?;
        }
        assert_eq!(texts(&mut ann).await?, Vec::<String>::new(), "once each");
        ann.close().await?;
        broker.restart().await?;
        let mut ann = broker.join(&alice).await?;
        assert_eq!(texts(&mut ann).await?, Vec::<String>::new(), "none again");
        broker.advance(MINUTE);
        assert_eq!(ann.text().await?, "tick");
        until(&mut ann, |rows| rows.len() == 1 && rows[0]["firedCount"] == 4).await?;
        Ok(())
    }

    async fn missed_times_are_made_up_for_as_planned(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let mut ann = broker.join(&alice).await?;
        for plan in ["fire_once", "skip", "all"] {
            schedule(&mut ann, cron("alice", &format!("hourly {plan}"), "0 * * * *", json!({"misfire": plan}))).await?;
            let mut once = at("alice", &format!("once {plan}"), broker.now_ms() + 600_000);
            once["misfire"] = json!(plan);
            schedule(&mut ann, once).await?;
        }
        schedule(&mut ann, cron("alice", "minutely all", "* * * * *", json!({"misfire": "all"}))).await?;
        ann.close().await?;
        broker.stop();
        broker.advance(Duration::from_secs(5 * 3_600));
        broker.restart().await?;
        let mut ann = broker.join(&alice).await?;
        let mut count: BTreeMap<String, u32> = BTreeMap::new();
        // 1 and 1, 5 and 1, 100.
        for _ in 0..108 {
            *count.entry(ann.text().await?).or_default() += 1;
        }
        let expected = [("hourly all", 5), ("hourly fire_once", 1), ("minutely all", 100), ("once all", 1), ("once fire_once", 1)];
        assert_eq!(count, expected.map(|(text, times)| (text.to_owned(), times)).into());
        assert_eq!(texts(&mut ann).await?, Vec::<String>::new(), "and nothing else");
        until(&mut ann, |rows| {
            let missed = |text: &str| rows.iter().find(|row| row["message"] == text).map(|row| row["missedCount"].clone());
            (missed("hourly fire_once"), missed("hourly skip")) == (Some(json!(4)), Some(json!(5)))
        })
        .await?;
        Ok(())
    }

    async fn it_is_listed_paused_resumed_edited_and_cancelled(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let mut owner = broker.join(&mesh.creator).await?;
        let id = schedule(&mut ann, cron("bob", "tick", "* * * * *", json!({}))).await?["scheduledId"].clone();
        let about = |kind: &str| json!({"type": kind, "scheduledId": id});
        assert_eq!(listed(&mut ben, json!({})).await?, Vec::<Value>::new(), "others' are not listed");
        let cancel = ben.call(about("cancel_scheduled"), "cancel_scheduled_ack").await?;
        assert_eq!(cancel["ok"], false);
        assert_eq!(ben.refused(about("pause_scheduled")).await?, "not_found");
        assert_eq!(ben.refused(json!({"type": "list_scheduled", "everyone": true})).await?, "forbidden");
        let all = listed(&mut owner, json!({"everyone": true})).await?;
        assert_eq!((all.len(), &all[0]["by"], &all[0]["tz"]), (1, &json!("alice"), &json!("UTC")));
        let paused = ann.call(about("pause_scheduled"), "scheduled_result").await?;
        assert_eq!((&paused["entry"]["state"], &paused["entry"]["nextTimes"]), (&json!("paused"), &Value::Null));
        broker.pass(Duration::from_secs(180), &mut ann).await?;
        let mut ben = broker.join(&bob).await?;
        assert_eq!(texts(&mut ben).await?, Vec::<String>::new());
        let next = minutes(broker.now_ms()) + 60_000;
        let resumed = ann.call(about("resume_scheduled"), "scheduled_result").await?;
        assert_eq!(resumed["entry"]["deliverAt"], next);
        let mut edit = about("edit_scheduled");
        edit["message"] = json!("tock");
        edit["expected_version"] = json!(1);
        assert_eq!(ann.refused(edit.clone()).await?, "conflict");
        edit["expected_version"] = resumed["entry"]["version"].clone();
        ann.call(edit, "scheduled_result").await?;
        broker.advance(MINUTE);
        assert_eq!(ben.text().await?, "tock");
        let prefix: String = id.as_str().context("an id")?.chars().take(8).collect();
        let cancelled = ann.call(json!({"type": "cancel_scheduled", "scheduledId": prefix}), "cancel_scheduled_ack").await?;
        assert_eq!((&cancelled["ok"], &cancelled["scheduledId"]), (&json!(true), &id));
        assert_eq!(ann.call(about("cancel_scheduled"), "cancel_scheduled_ack").await?["ok"], true, "it stays cancelled");
        assert_eq!(ann.refused(about("resume_scheduled")).await?, "conflict");
        let nope = ann.call(json!({"type": "cancel_scheduled", "scheduledId": "nope"}), "cancel_scheduled_ack").await?;
        assert_eq!((&nope["ok"], &nope["scheduledId"]), (&json!(false), &json!("nope")));
        broker.pass(Duration::from_secs(120), &mut ann).await?;
        let mut ben = broker.join(&bob).await?;
        assert_eq!(texts(&mut ben).await?, Vec::<String>::new());
        let mut owner = broker.join(&mesh.creator).await?;
        let audit = owner.call(json!({"type": "audit_query", "limit": 100}), "audit_result").await?;
        let count = |event: &str| audit["entries"].as_array().into_iter().flatten().filter(|entry| entry["eventType"] == event).count();
        assert_eq!(
            ["created", "paused", "resumed", "edited", "cancelled"].map(|what| count(&format!("schedule_{what}"))),
            [1; 5],
            "{audit}"
        );
        assert!(!audit.to_string().contains("tock"), "no text is in the log");
        Ok(())
    }

    async fn what_is_sealed_is_read_by_its_recipient_alone(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut ann = broker.join(&alice).await?;
        let sealed = envelope::seal_direct("secret", &bob.key.public(), &alice.key, &mut rand::thread_rng())?;
        let frame = |to: &str| json!({
            "type": "schedule", "to": to, "deliverAt": broker.now_ms() + 60_000, "nonce": sealed.nonce, "ciphertext": sealed.ciphertext,
        });
        assert_eq!(ann.refused(frame("*")).await?, "invalid_args");
        let mut both = frame("bob");
        both["message"] = json!("open");
        assert_eq!(ann.refused(both).await?, "invalid_args");
        schedule(&mut ann, frame("bob")).await?;
        let rows = listed(&mut ann, json!({})).await?;
        assert_eq!((&rows[0]["message"], &rows[0]["ciphertext"]), (&json!(""), &json!(sealed.ciphertext)));
        broker.pass(MINUTE, &mut ann).await?;
        let mut ben = broker.join(&bob).await?;
        assert_eq!(ben.text().await?, "secret");
        Ok(())
    }

    async fn by_the_mesh_clock_it_comes_in_simulated_time(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let mut ann = broker.join(&alice).await?;
        let sim = claudemesh_protocol::time::parse_iso("2030-01-01T09:00:00Z").context("a time")?;
        let mut once = at("alice", "once", sim + 150_000);
        once["clock"] = json!("mesh");
        schedule(&mut ann, once).await?;
        schedule(&mut ann, cron("alice", "every two", "*/2 * * * *", json!({"clock": "mesh"}))).await?;
        broker.pass(Duration::from_secs(300), &mut ann).await?;
        assert_eq!(texts(&mut ann).await?, Vec::<String>::new(), "there is no clock yet");
        let set = json!({"type": "set_clock", "speed": 60, "sim_time": "2030-01-01T09:00:00Z"});
        ann.call(set.clone(), "clock_status").await?;
        broker.advance(Duration::from_secs(2));
        assert_eq!(ann.text().await?, "every two");
        broker.advance(Duration::from_secs(1));
        assert_eq!(ann.text().await?, "once", "at the tick behind its time");
        ann.call(json!({"type": "pause_clock"}), "clock_status").await?;
        broker.pass(Duration::from_secs(60), &mut ann).await?;
        assert_eq!(texts(&mut ann).await?, Vec::<String>::new(), "it stands still");
        ann.call(json!({"type": "resume_clock"}), "clock_status").await?;
        broker.advance(Duration::from_secs(1));
        assert_eq!(ann.text().await?, "every two");
        // Set back, it comes at the times that the clock shows then.
        ann.call(json!({"type": "set_clock", "sim_time": "2020-01-01T00:00:00Z"}), "clock_status").await?;
        let shown = claudemesh_protocol::time::parse_iso("2020-01-01T00:02:00Z");
        until(&mut ann, |rows| rows.iter().any(|row| row["deliverAt"].as_i64() == shown)).await?;
        ann.close().await?;
        broker.restart().await?;
        let mut ann = broker.join(&alice).await?;
        broker.advance(Duration::from_secs(2));
        assert_eq!(ann.text().await?, "every two");
        Ok(())
    }

    async fn no_minute_is_left_out_when_the_clock_of_the_mesh_goes_on_by_several_at_once(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut ann = broker.join(&mesh.member("alice")?).await?;
        let set = json!({"type": "set_clock", "speed": 100, "sim_time": "2030-01-01T09:00:00Z"});
        ann.call(set, "clock_status").await?;
        for misfire in ["all", "fire_once", "skip"] {
            let entry = cron("alice", misfire, "* * * * *", json!({"clock": "mesh", "misfire": misfire}));
            schedule(&mut ann, entry).await?;
        }
        let mut due = claudemesh_protocol::time::parse_iso("2030-01-01T09:01:00Z").context("a time")?;
        // Sent and missed so far: of all, of fire_once, of skip.
        let mut expected = [(0, 0); 3];
        for ticks in [1, 2, 3, 1] {
            broker.advance(Duration::from_millis(600 * ticks));
            due += i64::try_from(ticks)? * 60_000;
            let late = u64::from(ticks > 1);
            let more = [(ticks, 0), (1, ticks - 1), (1 - late, ticks * late)];
            expected.iter_mut().zip(more).for_each(|(all, (sent, missed))| *all = (all.0 + sent, all.1 + missed));
            let rows = until(&mut ann, |rows| rows.iter().all(|row| row["deliverAt"] == due)).await?;
            for (misfire, (sent, missed)) in ["all", "fire_once", "skip"].into_iter().zip(expected) {
                let row = rows.iter().find(|row| row["misfire"] == misfire).context("an entry")?;
                let counts = (row["firedCount"].as_u64(), row["missedCount"].as_u64().unwrap_or(0));
                assert_eq!(counts, (Some(sent), missed), "{misfire} after {ticks} ticks: {row}");
            }
        }
        let came = texts(&mut ann).await?;
        let count = |text: &str| came.iter().filter(|one| *one == text).count();
        assert_eq!(["all", "fire_once", "skip"].map(count), expected.map(|(sent, _)| sent as usize));
        Ok(())
    }

    async fn bad_input_is_refused_with_its_code_and_nothing_is_stored(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut ann = broker.join(&mesh.member("alice")?).await?;
        let later = broker.now_ms() + 60_000;
        for (frame, code) in [
            (cron("*", "x", "61 * * * *", json!({})), "invalid_cron"),
            (cron("*", "x", "*/0 * * * *", json!({})), "invalid_cron"),
            (cron("*", "x", "0 0 30 2 *", json!({})), "invalid_cron"),
            (cron("*", "x", "5-1 * * * *", json!({})), "invalid_cron"),
            (cron("*", "x", "* * * *", json!({})), "invalid_cron"),
            (cron("*", "x", &"1,".repeat(2_000), json!({})), "invalid_cron"),
            (cron("*", "x", "* * * * *", json!({"tz": "Mars/Phobos"})), "invalid_args"),
            (cron("*", "x", "* * * * *", json!({"misfire": "later"})), "invalid_args"),
            (cron("*", "x", "* * * * *", json!({"clock": "sun"})), "invalid_args"),
            (cron("*", "x", "* * * * *", json!({"subtype": "system"})), "invalid_args"),
            (at("", "x", later), "invalid_args"),
            (at("@a b", "x", later), "invalid_args"),
            (at("nobody", "x", later), "unknown_target"),
            (at(&"f".repeat(64), "x", later), "unknown_target"),
            (at("*", "", later), "invalid_args"),
            (at("*", "a\0b", later), "invalid_args"),
            (at("*", &"x".repeat(60_000), later), "payload_too_large"),
            (at("*", "x", i64::MAX), "invalid_args"),
            (json!({"type": "schedule", "to": "*", "message": "x"}), "invalid_args"),
            (json!({"type": "schedule", "to": "*", "deliverAt": later}), "invalid_args"),
            (json!({"type": "schedule", "to": 7, "message": "x", "deliverAt": later}), "invalid_args"),
            (json!({"type": "schedule", "to": "alice", "deliverAt": later, "nonce": "AA==", "ciphertext": "AA=="}), "invalid_args"),
            (json!({"type": "list_scheduled", "cursor": "x"}), "invalid_args"),
            (json!({"type": "resume_scheduled", "scheduledId": "5c0d8f1e"}), "not_found"),
            (json!({"type": "edit_scheduled", "scheduledId": "nope-é", "message": "x"}), "not_found"),
        ] {
            assert_eq!(ann.refused(frame.clone()).await?, code, "{}", frame.to_string().chars().take(200).collect::<String>());
        }
        let reason = ann.ask(cron("*", "x", "61 * * * *", json!({}))).await?;
        assert_eq!(reason["message"], "Invalid cron expression: 61 * * * * (minute: `61`: expected 0 to 59)");
        assert_eq!(states(&mut ann).await?, BTreeMap::new());
        let info = ann.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
        assert_eq!(info["schedules"], 0);
        Ok(())
    }

    async fn bounds_rights_and_other_meshes_are_respected(database: Database) -> Result<()> {
        let few = |config: &mut Config| {
            config.limits = LimitsMode::Default;
            let quotas = std::mem::take(&mut config.limit.quotas).with("schedules.per_member", 2);
            config.limit.quotas = quotas.with("schedules.changes_per_minute", 6);
        };
        let broker = Builder::new(database).config(few).start().await?;
        let (mesh, other) = (broker.mesh("team")?, broker.mesh("other")?);
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let mut stranger = broker.join(&other.creator).await?;
        let mut owner = broker.join(&mesh.creator).await?;
        let later = broker.now_ms() + 60_000;
        let first = schedule(&mut ann, at("bob", "one", later)).await?["scheduledId"].clone();
        let cancelled = stranger.call(json!({"type": "cancel_scheduled", "scheduledId": first}), "cancel_scheduled_ack").await?;
        assert_eq!(cancelled["ok"], false, "of another mesh");
        assert_eq!(listed(&mut stranger, json!({"everyone": true})).await?, Vec::<Value>::new());
        schedule(&mut ann, at("bob", "two", later)).await?;
        let full = ann.ask(at("bob", "three", later)).await?;
        assert_eq!((&full["code"], &full["bound"]["name"]), (&json!("limit"), &json!("schedules.per_member")), "{full}");
        let info = ann.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
        assert_eq!(info["schedules"], 2);
        let bound = info["limits"].as_array().into_iter().flatten().find(|bound| bound["name"] == "schedules.per_member");
        assert_eq!(bound.map(|bound| bound["used"].clone()), Some(json!(2)), "{info}");
        // Who may not schedule any more sends nothing either.
        let no = |member: &str| json!({"type": "set_permissions", "member": member, "permissions": {"canSchedule": false}});
        owner.ask(no("alice")).await?;
        assert_eq!(ann.refused(at("bob", "three", later)).await?, "forbidden");
        broker.advance(MINUTE);
        let failed = |rows: &[Value]| rows.iter().filter(|row| row["state"] == "failed").count() == 2;
        let rows = until(&mut ann, failed).await?;
        assert_eq!(rows[0]["lastError"], "forbidden: this needs the capability canSchedule");
        assert_eq!(texts(&mut ben).await?, Vec::<String>::new());
        // A ban ends what the member has scheduled.
        schedule(&mut ben, cron("*", "spam", "* * * * *", json!({}))).await?;
        owner.ask(json!({"type": "ban", "target": "bob"})).await?;
        let mut found = false;
        for _ in 0..2_000 {
            let rows = listed(&mut owner, json!({"everyone": true, "ended": true})).await?;
            found = rows.iter().any(|row| row["by"] == "bob" && row["state"] == "cancelled");
            if found {
                break;
            }
        }
        assert!(found);
        Ok(())
    }

    async fn a_mesh_that_sleeps_is_woken_for_what_is_due(database: Database) -> Result<()> {
        let soon = |config: &mut Config| config.connections.idle_mesh_seconds = 30;
        let broker = Builder::new(database).config(soon).start().await?;
        let (mesh, other) = (broker.mesh("team")?, broker.mesh("other")?);
        let alice = mesh.member("alice")?;
        let mut elsewhere = broker.join(&other.creator).await?;
        let mut ann = broker.join(&alice).await?;
        schedule(&mut ann, at("alice", "wake up", broker.now_ms() + 3_600_000)).await?;
        ann.close().await?;
        // The lease ends, then the mesh leaves memory; long after that the time comes.
        broker.pass(Duration::from_secs(3_660), &mut elsewhere).await?;
        // The other mesh tells nothing of this one; it gives the broker the time of so many answers, and of its looks.
        for _ in 0..10 {
            broker.advance(Duration::from_secs(5));
            for _ in 0..400 {
                elsewhere.settle().await?;
            }
        }
        let mut ann = broker.join(&alice).await?;
        assert_eq!(ann.hello_ack["waiting"]["now"], 1, "it was sent before somebody came");
        assert_eq!(ann.text().await?, "wake up");
        until(&mut ann, |rows| rows[0]["state"] == "done").await?;
        Ok(())
    }

    async fn a_thousand_of_one_second_all_come(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let due = broker.now_ms() + 50_000;
        for number in 0..1_000 {
            ann.send(&at("bob", &format!("number {number}"), due + number % 7)).await?;
        }
        let last = ann.call(json!({"type": "list_scheduled", "limit": 1}), "scheduled_list").await?;
        assert!(last["next"].is_string(), "there are more");
        ben.settle().await?;
        broker.advance(Duration::from_millis(50_007));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            assert!(seen.insert(ben.text().await?), "each once");
        }
        assert_eq!(texts(&mut ben).await?, Vec::<String>::new());
        Ok(())
    }
}

/// The broker as a process is killed at random moments around the time of many entries. Each is sent once: who gets a message a
/// second time knows it by its id.
#[tokio::test]
async fn nothing_is_sent_twice_or_left_out_when_the_broker_is_killed() -> Result<()> {
    let data = tempfile::tempdir()?;
    let binary = Path::new(env!("CARGO_BIN_EXE_claudemesh-broker"));
    let mut broker = BrokerProcess::start(binary, data.path(), &[])?;
    let mesh = OwnedMesh::create(&broker.base(), "team")?;
    let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
    let mut ids: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    let mut number = 0;
    for round in 0..6_u64 {
        let mut ann = TestPeer::session(&broker.url(), &alice.session("a")).await?;
        let now = claudemesh_testkit::clock::now_ms();
        let first = number;
        for offset in 0..60 {
            schedule(&mut ann, at("bob", &format!("{number}"), now + 400 + offset * 10)).await?;
            number += 1;
        }
        let mut ben = TestPeer::session(&broker.url(), &bob.session("b")).await?;
        // At a moment that messages decide: after some of this round have come.
        let mut taken = 0;
        while taken < 5 + round * 9 {
            let push = ben.message().await?;
            *ids.entry(ben.open(&push)?).or_default().entry(push["messageId"].to_string()).or_default() += 1;
            taken += 1;
        }
        broker.kill()?;
        broker.restart()?;
        let mut ben = TestPeer::session(&broker.url(), &bob.session("b")).await?;
        while (first..number).any(|number| !ids.contains_key(&number.to_string())) {
            let push = ben.message().await?;
            *ids.entry(ben.open(&push)?).or_default().entry(push["messageId"].to_string()).or_default() += 1;
        }
    }
    assert_eq!(ids.len(), number as usize);
    assert!(ids.values().all(|ids| ids.len() == 1), "each time of an entry is one message: {ids:?}");
    let mut ann = TestPeer::session(&broker.url(), &alice.session("a")).await?;
    until(&mut ann, |rows| rows.len() == number as usize && rows.iter().all(|row| row["state"] == "done")).await?;
    Ok(())
}
