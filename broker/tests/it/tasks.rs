//! Tasks over real sockets: of many claimers one wins, what waits for others, who hears of a change, what is stale.

use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

async fn create(peer: &mut TestPeer, title: &str, extra: Value) -> Result<String> {
    let created = peer.call(merged(json!({"type": "create_task", "title": title}), extra), "task_created").await?;
    Ok(created["id"].as_str().context("an id")?.to_owned())
}

fn about(kind: &str, id: &str) -> Value {
    json!({"type": kind, "taskId": id})
}

/// A change that is confirmed; answers the task after it.
async fn confirmed(peer: &mut TestPeer, frame: Value) -> Result<Value> {
    Ok(peer.call(merged(frame, json!({"confirm": true})), "done").await?["task"].clone())
}

async fn get(peer: &mut TestPeer, id: &str) -> Result<Value> {
    peer.call(about("get_task", id), "task_result").await
}

async fn list(peer: &mut TestPeer, extra: Value) -> Result<Value> {
    peer.call(merged(json!({"type": "list_tasks"}), extra), "task_list").await
}

async fn titles(peer: &mut TestPeer, extra: Value) -> Result<Vec<String>> {
    let listed = list(peer, extra).await?;
    let rows = listed["tasks"].as_array().context("tasks")?;
    Ok(rows.iter().filter_map(|row| row["title"].as_str()).map(str::to_owned).collect())
}

broker_suite! {
    async fn a_task_goes_its_way_and_outlives_a_restart(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut worker) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let id = create(&mut ann, "write tests", json!({
            "description": "both databases", "assignee": "bob", "priority": "high", "tags": ["a", "b", "a"],
            "due_at": 1_775_641_983_000_i64,
        })).await?;
        let claimed = confirmed(&mut worker, about("claim_task", &id)).await?;
        assert_eq!(
            (&claimed["status"], &claimed["claimedBy"], &claimed["assignee"], &claimed["tags"], &claimed["dueAt"]),
            (&json!("claimed"), &json!("bob"), &json!("bob"), &json!(["a", "b"]), &json!("2026-04-08T09:53:03.000Z"))
        );
        assert_eq!(confirmed(&mut worker, about("unclaim_task", &id)).await?["claimedBy"], Value::Null);
        confirmed(&mut worker, about("claim_task", &id)).await?;
        confirmed(&mut worker, merged(about("complete_task", &id), json!({"result": "all green"}))).await?;
        // The same again is the same; another result is not written over the first.
        confirmed(&mut worker, merged(about("complete_task", &id), json!({"result": "all green"}))).await?;
        let conflict = worker.ask(merged(about("complete_task", &id), json!({"result": "red"}))).await?;
        assert_eq!((&conflict["code"], &conflict["current"]["result"]), (&json!("conflict"), &json!("all green")));
        assert_eq!(confirmed(&mut ann, about("reopen_task", &id)).await?["status"], "open");
        let update = json!({
            "type": "update_task", "taskId": id, "title": "write more tests", "assignee": null, "due_at": null, "tags": ["c"], "expected_version": 6,
        });
        let updated = confirmed(&mut ann, update).await?;
        assert_eq!((&updated["assignee"], &updated["tags"], &updated["version"]), (&Value::Null, &json!(["c"]), &json!(7)));
        assert!(updated.get("dueAt").is_none(), "{updated}");
        let other = create(&mut ann, "to be deleted", json!({})).await?;
        assert_eq!(confirmed(&mut ann, about("delete_task", &other)).await?, Value::Null);
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
            }
            let mut reader = broker.connect(&bob.session("reader")).await?;
            // The beginning of an id is enough.
            let found = get(&mut reader, &id[..8]).await?;
            assert_eq!((&found["task"]["id"], &found["task"]["description"]), (&json!(id), &json!("both databases")));
            let history: Vec<(&str, &str)> = found["history"].as_array().context("history")?.iter()
                .map(|step| (step["by"].as_str().unwrap_or_default(), step["what"].as_str().unwrap_or_default())).collect();
            assert_eq!(history, [
                ("alice", "created"), ("bob", "claimed"), ("bob", "unclaimed"), ("bob", "claimed"), ("bob", "completed"),
                ("alice", "reopened"), ("alice", "updated"),
            ]);
            assert_eq!(found["history"][5]["detail"], "all green", "what was there before is not lost");
            assert_eq!(found["history"][6]["detail"], "title, assignee, tags, dueAt");
            assert_eq!(reader.refused(about("get_task", &other)).await?, "task_not_found");
            let info = reader.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
            assert_eq!(info["tasks"], json!({"open": 1, "claimed": 0, "done": 0}), "restarted: {restarted}");
            let used = |name: &str| info["limits"].as_array().into_iter().flatten().find(|bound| bound["name"] == name).cloned();
            assert_eq!(used("tasks.per_mesh").context("a bound")?["used"], 1);
            reader.close().await?;
        }
        Ok(())
    }

    async fn of_many_who_claim_one_wins_and_each_next_is_another(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut ann = broker.join(&mesh.member("alice")?).await?;
        let bob = mesh.member("bob")?;
        let mut rivals = Vec::new();
        for number in 0..12 {
            rivals.push(broker.connect(&bob.session(&format!("rival-{number}"))).await?);
        }
        for round in 0..5 {
            let id = create(&mut ann, &format!("round {round}"), json!({"assignee": "no one here"})).await?;
            let claim = |mut rival: TestPeer, id: String| async move {
                let answer = rival.ask(merged(about("claim_task", &id), json!({"confirm": true}))).await?;
                Ok::<_, anyhow::Error>((rival, answer))
            };
            let done = futures_util::future::try_join_all(rivals.into_iter().map(|rival| claim(rival, id.clone()))).await?;
            let winners = done.iter().filter(|(_, answer)| answer["type"] == "done").count();
            assert_eq!(winners, 1, "{:?}", done.iter().map(|(_, answer)| answer).collect::<Vec<_>>());
            for (_, answer) in done.iter().filter(|(_, answer)| answer["type"] != "done") {
                assert_eq!((&answer["code"], &answer["current"]["claimedBy"]), (&json!("task_not_claimable"), &json!("bob")));
            }
            rivals = done.into_iter().map(|(rival, _)| rival).collect();
        }
        // Seven tasks, twelve who ask for the next one at once.
        for number in 0..7 {
            create(&mut ann, &format!("free {number}"), json!({})).await?;
        }
        let next = |mut rival: TestPeer| async move {
            rival.call(json!({"type": "next_task", "claim": true}), "task_result").await
        };
        let got = futures_util::future::try_join_all(rivals.into_iter().map(next)).await?;
        let mut titles: Vec<&str> = got.iter().filter_map(|answer| answer["task"]["title"].as_str()).collect();
        titles.sort_unstable();
        assert_eq!(titles, (0..7).map(|number| format!("free {number}")).collect::<Vec<_>>());
        assert_eq!(got.iter().filter(|answer| answer["task"].is_null()).count(), 5);
        Ok(())
    }

    async fn what_waits_is_blocked_until_the_others_are_done(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut ann = broker.join(&mesh.member("alice")?).await?;
        let first = create(&mut ann, "first", json!({"priority": "low"})).await?;
        let second = create(&mut ann, "second", json!({})).await?;
        let last = create(&mut ann, "last", json!({"priority": "urgent", "depends_on": [first, &second[..8], second]})).await?;
        let row = get(&mut ann, &last).await?["task"].clone();
        assert_eq!((&row["blocked"], row["dependsOn"].as_array().map(Vec::len)), (&json!(true), Some(2)), "{row}");
        assert_eq!(titles(&mut ann, json!({"ready": true})).await?, ["second", "first"]);
        assert_eq!(ann.refused(about("claim_task", &last)).await?, "task_not_claimable");
        assert_eq!(ann.refused(about("complete_task", &last)).await?, "conflict");
        // No circle, not even a long one, and not with itself.
        let third = create(&mut ann, "third", json!({"depends_on": [last]})).await?;
        for needed in [&third, &last, &first] {
            let frame = merged(about("update_task", &first), json!({"depends_on": [needed]}));
            assert_eq!(ann.refused(frame).await?, "conflict", "{needed}");
        }
        assert_eq!(ann.refused(merged(about("update_task", &first), json!({"depends_on": ["x".repeat(32)]}))).await?, "task_not_found");
        assert_eq!(ann.refused(about("delete_task", &first)).await?, "conflict", "others wait for it");
        confirmed(&mut ann, about("complete_task", &first)).await?;
        assert_eq!(titles(&mut ann, json!({"ready": true})).await?, ["second"]);
        confirmed(&mut ann, about("complete_task", &second)).await?;
        assert_eq!(titles(&mut ann, json!({"ready": true})).await?, ["last"]);
        confirmed(&mut ann, about("reopen_task", &second)).await?;
        assert_eq!(titles(&mut ann, json!({"ready": true})).await?, ["second"]);
        let freed = confirmed(&mut ann, merged(about("update_task", &last), json!({"depends_on": [first]}))).await?;
        assert_eq!((&freed["blocked"], &freed["dependsOn"]), (&json!(false), &json!([first])));
        // A task that is done may go; what waited for it does not name it any more.
        confirmed(&mut ann, about("delete_task", &first)).await?;
        assert_eq!(get(&mut ann, &last).await?["task"]["dependsOn"], json!([]));
        Ok(())
    }

    async fn who_arrives_is_told_what_waits_and_what_changed_meanwhile(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut ann = broker.join(&alice).await?;
        for number in 0..6 {
            create(&mut ann, &format!("low {number}"), json!({"assignee": "Bob", "priority": "low", "description": "long"})).await?;
        }
        let urgent = create(&mut ann, "urgent", json!({"assignee": bob.pubkey(), "priority": "urgent"})).await?;
        create(&mut ann, "no one's", json!({})).await?;
        let done = create(&mut ann, "done", json!({"assignee": "bob"})).await?;
        confirmed(&mut ann, about("complete_task", &done)).await?;
        let session = bob.session("worker");
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
                // Of another session, so that all are told again.
                broker.advance(Duration::from_secs(1));
            }
            let mut worker = broker.connect(&bob.session(&format!("fresh {restarted}"))).await?;
            let told = worker.expect("tasks_waiting").await?;
            let titles: Vec<&str> = told["tasks"].as_array().context("tasks")?.iter().filter_map(|row| row["title"].as_str()).collect();
            assert_eq!((&told["count"], titles), (&json!(7), vec!["urgent", "low 0", "low 1", "low 2", "low 3"]));
            assert!(told["tasks"][1].get("description").is_none(), "{told}");
            worker.close().await?;
        }
        let mut worker = broker.connect(&session).await?;
        worker.expect("tasks_waiting").await?;
        broker.advance(Duration::from_secs(1));
        worker.close().await?;
        let mut ann = broker.join(&alice).await?;
        let late = create(&mut ann, "late", json!({"assignee": "@qa"})).await?;
        confirmed(&mut ann, merged(about("update_task", &urgent), json!({"title": "more urgent"}))).await?;
        let frame = json!({"groups": [{"name": "qa/eu"}]});
        let hello = session.hello_at(broker.now_ms(), frame);
        let mut worker = TestPeer::hello(&broker.url(), hello, session.key.clone()).await?;
        let told = worker.expect("tasks_waiting").await?;
        let ids: Vec<&Value> = told["tasks"].as_array().context("tasks")?.iter().map(|row| &row["id"]).collect();
        assert_eq!(ids, [&json!(urgent), &json!(late)], "what changed since it was here, for its groups, too: {told}");
        // Nothing is news now; clients of before and verbs are told nothing at all.
        broker.advance(Duration::from_secs(1));
        worker.close().await?;
        let mut worker = broker.connect(&session).await?;
        let older = bob.hello_at(broker.now_ms(), "older", json!({"protocolVersion": null, "capabilities": null}));
        let mut older = TestPeer::hello(&broker.url(), older, bob.key.clone()).await?;
        for peer in [&mut worker, &mut older] {
            list(peer, json!({"assignee": "bob"})).await?;
            assert!(peer.kept_of("tasks_waiting").is_empty());
        }
        Ok(())
    }

    async fn creator_assignee_and_holder_hear_of_it_and_nobody_else(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob, carol) = (mesh.member("alice")?, mesh.member("bob")?, mesh.member("carol")?);
        let mut ann = broker.join(&alice).await?;
        let mut other = broker.connect(&alice.session("another")).await?;
        let (mut ben, mut cat) = (broker.join(&bob).await?, broker.join(&carol).await?);
        let id = create(&mut ann, "tests", json!({"assignee": "BOB"})).await?;
        let told = ben.expect("task_change").await?;
        assert_eq!(
            (&told["what"], &told["by"], &told["task"]["title"], &told["task"]["assignee"]),
            (&json!("created"), &json!("alice"), &json!("tests"), &json!("BOB"))
        );
        confirmed(&mut ben, about("claim_task", &id)).await?;
        assert_eq!(ann.expect("task_change").await?["what"], "claimed");
        confirmed(&mut ben, merged(about("complete_task", &id), json!({"result": "green"}))).await?;
        let told = ann.expect("task_change").await?;
        assert_eq!((&told["what"], &told["task"]["result"]), (&json!("completed"), &json!("green")));
        confirmed(&mut ann, about("reopen_task", &id)).await?;
        assert_eq!(ben.expect("task_change").await?["what"], "reopened", "the holder of before, and the assignee");
        // Who is meant by a group hears of it, too.
        cat.send(&json!({"type": "join_group", "name": "qa/eu"})).await?;
        cat.settle().await?;
        confirmed(&mut ann, merged(about("update_task", &id), json!({"assignee": "@qa"}))).await?;
        assert_eq!(cat.expect("task_change").await?["what"], "updated");
        assert_eq!(ben.expect("task_change").await?["what"], "updated", "the assignee of before");
        for peer in [&mut ann, &mut other, &mut ben, &mut cat] {
            let rest = peer.waiting_messages().await?;
            assert!(!rest.iter().any(|frame| frame["type"] == "task_change"), "{rest:?}");
        }
        Ok(())
    }

    async fn a_session_that_calls_itself_like_a_member_gets_nothing_of_that_member(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob, eve) = (mesh.member("alice")?, mesh.member("bob")?, mesh.member("eve")?);
        let mut ann = broker.join(&alice).await?;
        let session = eve.session("s");
        let hello = session.hello_at(broker.now_ms(), json!({"displayName": "bob"}));
        let mut false_bob = TestPeer::hello(&broker.url(), hello, session.key.clone()).await?;
        let called = false_bob.ask(json!({"type": "whoami"})).await?;
        assert!(called.to_string().contains("\"bob\""), "{called}");
        let for_bob = create(&mut ann, "for bob", json!({"assignee": "bob"})).await?;
        let taken = false_bob.ask(json!({"type": "next_task", "claim": true})).await?;
        assert_eq!(taken["task"], Value::Null, "{taken}");
        assert!(!false_bob.waiting_messages().await?.iter().any(|frame| frame["type"] == "task_change"));
        // Its whole name is its own.
        let own = create(&mut ann, "for eve", json!({"assignee": "eve/bob"})).await?;
        assert_eq!(false_bob.expect("task_change").await?["task"]["id"], own.as_str());
        let taken = false_bob.ask(json!({"type": "next_task", "claim": true})).await?;
        assert_eq!(taken["task"]["id"], own.as_str(), "{taken}");
        let mut ben = broker.join(&bob).await?;
        let taken = ben.ask(json!({"type": "next_task", "claim": true})).await?;
        assert_eq!(taken["task"]["id"], for_bob.as_str(), "{taken}");
        Ok(())
    }

    async fn a_claim_whose_session_is_gone_may_be_taken_over(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut ann = broker.join(&alice).await?;
        let holder = bob.session("holder");
        let mut ben = broker.connect(&holder).await?;
        let id = create(&mut ann, "tests", json!({})).await?;
        confirmed(&mut ben, about("claim_task", &id)).await?;
        // The same session may say it twice: it does not know whether the first was heard.
        confirmed(&mut ben, about("claim_task", &id)).await?;
        broker.pass(Duration::from_secs(3_600), &mut ben).await?;
        let mut ann = broker.join(&alice).await?;
        assert_eq!(ann.refused(about("claim_task", &id)).await?, "task_not_claimable", "it is there");
        ben.close().await?;
        ann.settle().await?;
        broker.advance(Duration::from_secs(14 * 60));
        let mut ann = broker.connect(&alice.session("later")).await?;
        assert_eq!(get(&mut ann, &id).await?["task"].get("stale"), None);
        assert_eq!(ann.refused(about("claim_task", &id)).await?, "task_not_claimable");
        broker.stop();
        broker.advance(Duration::from_secs(2 * 60));
        broker.restart().await?;
        let mut ann = broker.connect(&alice.session("later")).await?;
        assert_eq!(get(&mut ann, &id).await?["task"]["stale"], true);
        let taken = confirmed(&mut ann, about("claim_task", &id)).await?;
        assert_eq!((&taken["claimedBy"], taken.get("stale")), (&json!("alice"), None));
        let history = get(&mut ann, &id).await?["history"].clone();
        let last = history.as_array().and_then(|steps| steps.last()).context("a history")?;
        assert_eq!((&last["what"], &last["by"], &last["detail"]), (&json!("taken_over"), &json!("alice"), &json!("bob")));
        let mut ben = broker.connect(&holder).await?;
        assert_eq!(ben.refused(about("claim_task", &id)).await?, "task_not_claimable");
        Ok(())
    }

    async fn what_belongs_to_others_is_theirs(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.join(&mesh.creator).await?;
        let (mut ann, mut ben) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        let mut cat = broker.join(&mesh.member("carol")?).await?;
        let id = create(&mut ann, "tests", json!({})).await?;
        confirmed(&mut ben, about("claim_task", &id)).await?;
        for frame in [
            about("unclaim_task", &id),
            about("complete_task", &id),
            merged(about("update_task", &id), json!({"title": "x"})),
            about("delete_task", &id),
        ] {
            assert_eq!(cat.refused(frame.clone()).await?, "forbidden", "{frame}");
        }
        assert_eq!(ben.refused(about("delete_task", &id)).await?, "forbidden", "only its creator deletes it");
        confirmed(&mut ben, merged(about("update_task", &id), json!({"tags": ["mine"]}))).await?;
        confirmed(&mut ann, about("unclaim_task", &id)).await?;
        confirmed(&mut cat, about("complete_task", &id)).await?;
        assert_eq!(ben.refused(about("reopen_task", &id)).await?, "forbidden");
        confirmed(&mut owner, about("reopen_task", &id)).await?;
        confirmed(&mut owner, about("delete_task", &id)).await?;
        let events = owner.call(json!({"type": "audit_query", "limit": 20}), "audit_result").await?;
        let mut told: Vec<&str> = events["entries"].as_array().context("entries")?.iter()
            .filter_map(|entry| entry["eventType"].as_str().or(entry["event"].as_str())).filter(|event| event.starts_with("task_")).collect();
        told.reverse();
        assert_eq!(told, [
            "task_created", "task_claimed", "task_updated", "task_unclaimed", "task_completed", "task_reopened", "task_deleted",
        ], "{events}");
        assert!(!events.to_string().contains("tests"), "no text of a task");
        Ok(())
    }

    async fn lists_are_filtered_ordered_and_read_page_by_page(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut ann = broker.join(&mesh.member("alice")?).await?;
        for number in 0..25 {
            let priority = ["low", "normal", "high", "urgent"][number % 4];
            let assignee = if number % 2 == 0 { "Ben" } else { "@qa" };
            let extra = json!({"priority": priority, "tags": [format!("t{}", number % 2)], "assignee": assignee});
            create(&mut ann, &format!("n{number:02}"), extra).await?;
        }
        for ready in [false, true] {
            let (mut seen, mut cursor) = (Vec::new(), Value::Null);
            loop {
                let page = list(&mut ann, json!({"ready": ready, "limit": 4, "cursor": cursor})).await?;
                seen.extend(page["tasks"].as_array().context("tasks")?.iter().filter_map(|row| row["title"].as_str().map(str::to_owned)));
                cursor = page["next"].clone();
                if cursor.is_null() {
                    break;
                }
            }
            let mut expected: Vec<usize> = (0..25).collect();
            if ready { expected.sort_by_key(|number| (std::cmp::Reverse(number % 4), *number)) } else { expected.reverse() }
            assert_eq!(seen, expected.iter().map(|number| format!("n{number:02}")).collect::<Vec<_>>(), "ready: {ready}");
        }
        assert_eq!(titles(&mut ann, json!({"tag": "t1", "limit": 2})).await?, ["n23", "n21"]);
        assert_eq!(titles(&mut ann, json!({"assignee": "ben", "limit": 1})).await?, ["n24"]);
        let next = ann.call(json!({"type": "next_task"}), "task_result").await?;
        assert_eq!(next["task"], Value::Null, "none for alice, and none for no one");
        let id = create(&mut ann, "for anyone", json!({"priority": "low"})).await?;
        assert_eq!(ann.call(json!({"type": "next_task"}), "task_result").await?["task"]["id"], json!(id));
        confirmed(&mut ann, about("complete_task", &id)).await?;
        for word in ["done", "completed"] {
            assert_eq!(titles(&mut ann, json!({"status": word})).await?, ["for anyone"]);
        }
        Ok(())
    }

    async fn what_is_wrong_is_refused_and_changes_nothing(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let (mesh, abroad) = (broker.mesh("team")?, broker.mesh("other")?);
        let mut ann = broker.join(&mesh.member("alice")?).await?;
        let mut stranger = broker.join(&abroad.member("mallory")?).await?;
        let foreign = create(&mut stranger, "theirs", json!({})).await?;
        let title = |title: Value| json!({"type": "create_task", "title": title});
        for (frame, code) in [
            (json!({"type": "create_task"}), "invalid_args"),
            (title(json!(7)), "invalid_args"),
            (title(json!("")), "invalid_args"),
            (title(json!(" \n")), "invalid_args"),
            (title(json!("a\u{0}b")), "invalid_args"),
            (title(json!("x".repeat(1_001))), "invalid_args"),
            (merged(title(json!("t")), json!({"priority": "now"})), "invalid_args"),
            (merged(title(json!("t")), json!({"due_at": "soon"})), "invalid_args"),
            (merged(title(json!("t")), json!({"tags": [""]})), "invalid_args"),
            (merged(title(json!("t")), json!({"tags": vec!["t"; 3], "description": "x".repeat(16_385)})), "invalid_args"),
            (merged(title(json!("t")), json!({"assignee": "x".repeat(129)})), "invalid_args"),
            (merged(title(json!("t")), json!({"depends_on": [foreign]})), "task_not_found"),
            (merged(title(json!("t")), json!({"depends_on": ["x"]})), "task_not_found"),
            (about("claim_task", "nope"), "task_not_found"),
            (about("claim_task", &foreign), "task_not_found"),
            (about("get_task", &foreign), "task_not_found"),
            (about("delete_task", "%_'; DROP TABLE tasks"), "task_not_found"),
            (merged(about("complete_task", &foreign), json!({"result": "x".repeat(65_537)})), "invalid_args"),
            (json!({"type": "claim_task"}), "invalid_args"),
            (json!({"type": "list_tasks", "status": "lost"}), "invalid_args"),
            (json!({"type": "list_tasks", "cursor": "x"}), "invalid_args"),
            (json!({"type": "list_tasks", "ready": true, "status": "open"}), "invalid_args"),
        ] {
            assert_eq!(ann.refused(frame.clone()).await?, code, "{}", frame.to_string().chars().take(100).collect::<String>());
        }
        assert_eq!(titles(&mut ann, json!({})).await?, Vec::<String>::new());
        assert_eq!(titles(&mut stranger, json!({"status": "open"})).await?, ["theirs"]);
        Ok(())
    }

    async fn bounds_are_told_with_their_name_and_use(database: Database) -> Result<()> {
        let small = |config: &mut Config| {
            config.limits = LimitsMode::Default;
            let set = [("tasks.per_mesh", 3), ("tasks.per_member", 2), ("tasks.bytes_per_mesh", 200), ("tasks.writes_per_minute", 6)];
            let quotas = std::mem::take(&mut config.limit.quotas);
            config.limit.quotas = set.into_iter().fold(quotas, |quotas, (name, value)| quotas.with(name, value));
        };
        let broker = Builder::new(database).config(small).start().await?;
        let mesh = broker.mesh("team")?;
        let (mut ann, mut ben) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        let new = |title: &str| json!({"type": "create_task", "title": title});
        let bound = async |peer: &mut TestPeer, frame: Value| -> Result<Value> {
            let answer = peer.ask(frame).await?;
            assert_eq!(answer["code"], "limit", "{answer}");
            Ok(answer["bound"].clone())
        };
        let first = create(&mut ann, "a", json!({})).await?;
        create(&mut ann, "b", json!({})).await?;
        assert_eq!(bound(&mut ann, new("c")).await?, json!({"name": "tasks.per_member", "limit": 2, "used": 2}));
        create(&mut ben, "c", json!({})).await?;
        assert_eq!(bound(&mut ben, new("d")).await?, json!({"name": "tasks.per_mesh", "limit": 3, "used": 3}));
        let long = merged(about("complete_task", &first), json!({"result": "x".repeat(300)}));
        assert_eq!(bound(&mut ann, long).await?["name"], "tasks.bytes_per_mesh");
        confirmed(&mut ann, about("delete_task", &first)).await?;
        create(&mut ann, "d", json!({})).await?;
        let waits = ann.ask(new("e")).await?;
        assert_eq!(waits["code"], "rate_limited", "{waits}");
        Ok(())
    }
}
