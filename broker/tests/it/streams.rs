//! Streams over real sockets: offsets, where a subscriber begins, consumers that go on, readers that are too slow.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

fn entry(stream: &str, data: Value) -> Value {
    json!({"type": "publish", "stream": stream, "data": data})
}

/// Publishes and waits until it is stored; answers the offset.
async fn publish(peer: &mut TestPeer, stream: &str, data: Value) -> Result<u64> {
    let done = peer.call(merged(entry(stream, data), json!({"confirm": true})), "done").await?;
    done["offset"].as_u64().context("an offset")
}

async fn subscribe(peer: &mut TestPeer, stream: &str, extra: Value) -> Result<Value> {
    peer.call(merged(json!({"type": "subscribe", "stream": stream}), extra), "subscribed").await
}

async fn read(peer: &mut TestPeer, stream: &str, extra: Value) -> Result<Value> {
    peer.call(merged(json!({"type": "read_stream", "stream": stream}), extra), "stream_page").await
}

/// The next `count` entries: offset and data.
async fn heard(peer: &mut TestPeer, count: usize) -> Result<Vec<(u64, Value)>> {
    let mut all = Vec::new();
    for _ in 0..count {
        let data = peer.expect("stream_data").await?;
        all.push((data["offset"].as_u64().context("an offset")?, data["data"].clone()));
    }
    Ok(all)
}

broker_suite! {
    async fn entries_are_kept_numbered_and_read_again_after_a_restart(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let bob = mesh.member("bob")?;
        let mut ann = broker.join(&mesh.member("alice")?).await?;
        for number in 0..25 {
            assert_eq!(publish(&mut ann, "builds", json!([number, null])).await?, number);
        }
        broker.restart().await?;
        let mut ben = broker.join(&bob).await?;
        let (mut seen, mut from) = (Vec::new(), json!("start"));
        loop {
            let page = read(&mut ben, "builds", json!({"from": from, "limit": 10})).await?;
            let entries = page["entries"].as_array().context("entries")?;
            ensure!(entries.iter().all(|one| one["publishedBy"] == "alice" && one["at"].is_string()), "{page}");
            seen.extend(entries.iter().map(|one| json!([one["offset"], one["data"]])));
            if page["next"] == page["end"] {
                break;
            }
            from = page["next"].clone();
        }
        assert_eq!(seen, (0..25).map(|number| json!([number, [number, null]])).collect::<Vec<_>>());
        assert_eq!(publish(&mut ben, "builds", json!("on")).await?, 25, "offsets go on");
        let listed = ben.call(json!({"type": "list_streams"}), "stream_list").await?;
        let row = &listed["streams"][0];
        assert_eq!((&row["name"], &row["createdBy"], &row["entries"], &row["first"], &row["next"]),
            (&json!("builds"), &json!("alice"), &json!(26), &json!(0), &json!(26)));
        assert_eq!(ben.refused(json!({"type": "read_stream", "stream": "none"})).await?, "not_found");
        Ok(())
    }

    async fn a_subscriber_begins_where_it_says(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut ann = broker.join(&alice).await?;
        let mut times = Vec::new();
        for number in 0..5 {
            times.push(broker.now_ms());
            publish(&mut ann, "s", json!(number)).await?;
            broker.advance(Duration::from_millis(10));
        }
        for (from, first) in [
            (json!("start"), 0),
            (json!(3), 3),
            (json!(99), 5),
            (json!("now"), 5),
            (json!({"time": times[2]}), 2),
            (json!({"time": times[4] + 1}), 5),
        ] {
            let mut reader = broker.connect(&bob.session(&format!("from {from}"))).await?;
            assert_eq!(subscribe(&mut reader, "s", json!({"from": from})).await?["next"], json!(first), "{from}");
            let next = 5;
            let heard = heard(&mut reader, next - first).await?;
            assert_eq!(heard, (first..next).map(|number| (number as u64, json!(number))).collect::<Vec<_>>(), "{from}");
            assert!(reader.waiting_messages().await?.iter().all(|frame| frame["type"] != "stream_data"));
            reader.close().await?;
        }
        // One that asks for a place hears its own entries, too: the offsets have no hole.
        subscribe(&mut ann, "s", json!({"from": 4})).await?;
        publish(&mut ann, "s", json!("own")).await?;
        assert_eq!(heard(&mut ann, 2).await?, [(4, json!(4)), (5, json!("own"))]);
        // Unsubscribed, and subscribed once although it said so twice.
        let mut ben = broker.join(&bob).await?;
        for _ in 0..2 {
            subscribe(&mut ben, "s", json!({"from": "now"})).await?;
        }
        publish(&mut ann, "s", json!(6)).await?;
        assert_eq!(heard(&mut ben, 1).await?, [(6, json!(6))]);
        ben.call(json!({"type": "unsubscribe", "stream": "s", "confirm": true}), "done").await?;
        publish(&mut ann, "s", json!(7)).await?;
        assert!(ben.waiting_messages().await?.iter().all(|frame| frame["type"] != "stream_data"));
        Ok(())
    }

    async fn many_publish_and_every_subscriber_hears_all_in_one_order(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut readers = Vec::new();
        for number in 0..3 {
            let mut reader = broker.connect(&bob.session(&format!("r{number}"))).await?;
            subscribe(&mut reader, "s", json!({"from": "now"})).await?;
            readers.push(reader);
        }
        let mut writers = Vec::new();
        for number in 0..4 {
            writers.push(broker.connect(&alice.session(&format!("w{number}"))).await?);
        }
        let write = |number: usize, mut writer: TestPeer| async move {
            for step in 0..50 {
                writer.send(&entry("s", json!([number, step]))).await?;
            }
            publish(&mut writer, "s", json!([number, 50])).await
        };
        futures_util::future::try_join_all(writers.into_iter().enumerate().map(|(number, writer)| write(number, writer))).await?;
        // One that comes late reads the same from storage.
        let mut late = broker.connect(&bob.session("late")).await?;
        subscribe(&mut late, "s", json!({"from": "start"})).await?;
        readers.push(late);
        let mut first: Option<Vec<(u64, Value)>> = None;
        for reader in &mut readers {
            let told = heard(reader, 204).await?;
            assert_eq!(told.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (0..204).collect::<Vec<_>>());
            for writer in 0..4 {
                let steps: Vec<&Value> = told.iter().filter(|(_, data)| data[0] == writer).map(|(_, data)| &data[1]).collect();
                assert_eq!(steps, (0..51).map(Value::from).collect::<Vec<_>>().iter().collect::<Vec<_>>(), "in the writer's order");
            }
            let first = first.get_or_insert_with(|| told.clone());
            assert_eq!(told, *first);
        }
        Ok(())
    }

    async fn a_reader_that_is_too_slow_is_told_of_the_gap_and_goes_on(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut ann = broker.join(&mesh.member("alice")?).await?;
        let mut ben = broker.join(&mesh.member("bob")?).await?;
        ann.call(json!({"type": "create_stream", "name": "s", "keep_entries": 20}), "stream_created").await?;
        subscribe(&mut ben, "s", json!({"from": "now"})).await?;
        // More than sockets and queues hold, while it does not read.
        let count = 320;
        for number in 0..count {
            publish(&mut ann, "s", json!([number, "x".repeat(60_000)])).await?;
        }
        let (mut next, mut gaps, mut entries) = (0, 0, 0);
        while next < count {
            // What had no room is looked for again after a moment.
            broker.advance(Duration::from_millis(60));
            let frame = ben.find("an entry or a gap", |frame| frame["type"] == "stream_data" || frame["type"] == "stream_gap").await?;
            if frame["type"] == "stream_gap" {
                ensure!(frame["from"] == next, "{frame}");
                next = frame["to"].as_u64().context("an end")? + 1;
                gaps += 1;
            } else {
                ensure!(frame["offset"] == next && frame["data"][0] == next, "no silent hole: {} {next}", frame["offset"]);
                next += 1;
                entries += 1;
            }
        }
        assert!(gaps > 0 && entries > 20, "{gaps} gaps, {entries} entries");
        publish(&mut ann, "s", json!("live")).await?;
        assert_eq!(heard(&mut ben, 1).await?, [(count, json!("live"))]);
        Ok(())
    }

    async fn a_consumer_goes_on_where_it_stopped(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob, carol, dan) = (mesh.member("alice")?, mesh.member("bob")?, mesh.member("carol")?, mesh.member("dan")?);
        let mut ann = broker.join(&alice).await?;
        for number in 0..6 {
            publish(&mut ann, "s", json!(number)).await?;
        }
        let acking = json!({"consumer": "ci", "from": "start", "ack": true});
        let mut ben = broker.join(&bob).await?;
        assert_eq!(subscribe(&mut ben, "s", acking.clone()).await?["next"], 0);
        heard(&mut ben, 6).await?;
        ben.call(json!({"type": "ack_stream", "stream": "s", "consumer": "ci", "offset": 2, "confirm": true}), "done").await?;
        ben.call(json!({"type": "ack_stream", "stream": "s", "consumer": "ci", "offset": 1, "confirm": true}), "done").await?;
        assert_eq!(ben.refused(json!({"type": "ack_stream", "stream": "s", "consumer": "ci", "offset": 6})).await?, "invalid_args");
        broker.restart().await?;
        let mut ben = broker.join(&bob).await?;
        assert_eq!(subscribe(&mut ben, "s", acking.clone()).await?["next"], 3, "what was not acknowledged comes again");
        assert_eq!(heard(&mut ben, 3).await?.last(), Some(&(5, json!(5))));
        // The name is the member's own.
        let mut cat = broker.join(&carol).await?;
        assert_eq!(subscribe(&mut cat, "s", acking).await?["next"], 0);
        // One that does not acknowledge moves with what it is told.
        let auto = json!({"consumer": "auto", "from": 4});
        cat.close().await?;
        let mut cat = broker.join(&dan).await?;
        assert_eq!(subscribe(&mut cat, "s", auto.clone()).await?["next"], 4);
        heard(&mut cat, 2).await?;
        cat.close().await?;
        let mut ann = broker.join(&alice).await?;
        loop {
            let listed = ann.call(json!({"type": "list_streams"}), "stream_list").await?;
            if listed["streams"][0]["subscriberCount"] == 1 {
                break;
            }
        }
        // Written behind the position.
        publish(&mut ann, "s", json!(6)).await?;
        broker.restart().await?;
        let mut cat = broker.join(&dan).await?;
        assert_eq!(subscribe(&mut cat, "s", auto).await?["next"], 6);
        Ok(())
    }

    async fn what_is_wrong_is_refused_and_bounds_are_told(database: Database) -> Result<()> {
        let small = |config: &mut Config| {
            config.limits = LimitsMode::Default;
            let set = [("streams.per_mesh", 2), ("streams.subscriptions_per_peer", 2), ("streams.published_per_minute", 9), ("streams.entries_per_stream", 50)];
            let quotas = std::mem::take(&mut config.limit.quotas);
            config.limit.quotas = set.into_iter().fold(quotas, |quotas, (name, value)| quotas.with(name, value));
        };
        let broker = Builder::new(database).config(small).start().await?;
        let mesh = broker.mesh("team")?;
        let (mut ann, mut ben) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        let mut stranger = broker.join(&broker.mesh("other")?.member("mallory")?).await?;
        publish(&mut stranger, "theirs", json!(1)).await?;
        for (frame, code) in [
            (json!({"type": "create_stream"}), "invalid_args"),
            (json!({"type": "create_stream", "name": ""}), "invalid_name"),
            (json!({"type": "create_stream", "name": "a\nb"}), "invalid_name"),
            (json!({"type": "create_stream", "name": "x".repeat(129)}), "invalid_name"),
            (json!({"type": "create_stream", "name": "a", "keep_entries": 0}), "invalid_args"),
            (json!({"type": "create_stream", "name": "a", "keep_bytes": 100}), "invalid_args"),
            (json!({"type": "create_stream", "name": "a", "keep_s": 0}), "invalid_args"),
            (json!({"type": "publish", "stream": "a"}), "invalid_args"),
            (entry("", json!(1)), "invalid_name"),
            (entry("a", json!("x".repeat(65_536))), "invalid_args"),
            (json!({"type": "subscribe", "stream": "a", "from": "end"}), "invalid_args"),
            (json!({"type": "subscribe", "stream": "a", "from": -1}), "invalid_args"),
            (json!({"type": "subscribe", "stream": "a", "ack": true}), "invalid_args"),
            (json!({"type": "subscribe", "stream": "a", "consumer": ""}), "invalid_args"),
            (json!({"type": "subscribe", "stream": "a", "consumer": "c"}), "not_found"),
            (json!({"type": "read_stream", "stream": "theirs"}), "not_found"),
            (json!({"type": "delete_stream", "stream": "theirs"}), "not_found"),
            (json!({"type": "ack_stream", "stream": "theirs", "consumer": "c", "offset": 0}), "not_found"),
        ] {
            assert_eq!(ann.refused(frame.clone()).await?, code, "{}", frame.to_string().chars().take(100).collect::<String>());
        }
        assert_eq!(ann.call(json!({"type": "list_streams"}), "stream_list").await?["streams"], json!([]));
        publish(&mut ann, "one", json!(1)).await?;
        ann.call(json!({"type": "create_stream", "name": "two", "keep_entries": 1_000}), "stream_created").await?;
        let listed = ann.call(json!({"type": "list_streams"}), "stream_list").await?;
        assert_eq!(listed["streams"][1]["keepEntries"], 50, "no more than the operator gives");
        let full = ann.ask(merged(entry("three", json!(1)), json!({"confirm": true}))).await?;
        assert_eq!((&full["code"], &full["bound"]["name"]), (&json!("limit"), &json!("streams.per_mesh")));
        for name in ["one", "two"] {
            subscribe(&mut ben, name, json!({})).await?;
        }
        let full = ben.ask(json!({"type": "subscribe", "stream": "three"})).await?;
        assert_eq!((&full["code"], &full["bound"]["name"]), (&json!("limit"), &json!("streams.subscriptions_per_peer")));
        assert_eq!(ben.refused(json!({"type": "delete_stream", "stream": "one"})).await?, "forbidden");
        ann.call(json!({"type": "delete_stream", "stream": "one", "confirm": true}), "done").await?;
        assert_eq!(ben.expect("stream_deleted").await?["stream"], "one");
        let mut code = Value::Null;
        for _ in 0..12 {
            code = ann.ask(merged(entry("two", json!(1)), json!({"confirm": true}))).await?["code"].clone();
            if code == "rate_limited" {
                break;
            }
        }
        assert_eq!(code, "rate_limited");
        Ok(())
    }
}
