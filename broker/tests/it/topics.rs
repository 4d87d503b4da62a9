//! Topics: who sees them, who reads what was written there, and what a history gives.

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

async fn history(peer: &mut TestPeer, extra: Value) -> Result<Vec<Value>> {
    let ask = claudemesh_testkit::identity::merged(json!({"type": "topic_history", "topic": "plans"}), extra);
    let answer = peer.call(ask, "topic_history_response").await?;
    Ok(answer["messages"].as_array().cloned().unwrap_or_default())
}

broker_suite! {
    async fn a_private_topic_does_not_exist_for_others(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, mallory) = (mesh.member("alice")?, mesh.member("mallory")?);
        let mut owner = broker.join(&alice).await?;
        let made = owner.call(json!({"type": "topic_create", "name": "plans", "visibility": "private"}), "topic_created").await?;
        let id = made["topic"]["id"].as_str().unwrap_or_default().to_owned();
        owner.say("#plans", "secret", json!({})).await?;
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
                owner = broker.join(&alice).await?;
            }
            let mut stranger = broker.join(&mallory).await?;
            for topic in ["plans", "#plans", &id] {
                for kind in ["topic_join", "topic_leave", "topic_members", "topic_history", "topic_mark_read"] {
                    let code = stranger.refused(json!({"type": kind, "topic": topic})).await?;
                    assert_eq!(code, "topic_not_found", "{kind} {topic}, restarted: {restarted}");
                }
                let ack = stranger.say(&format!("#{topic}"), "let me in", json!({})).await?;
                assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!("topic_not_found")), "{ack}");
            }
            let list = stranger.call(json!({"type": "topic_list"}), "topic_list_response").await?;
            assert_eq!(list["topics"], json!([]));
            let info = stranger.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
            assert!(!info.to_string().contains("plans"), "{info}");
            let taken = json!({"type": "topic_create", "name": "plans", "visibility": "public"});
            assert_eq!(stranger.refused(taken).await?, "already_exists");
            assert_eq!(stranger.waiting_messages().await?.len(), 0);
            assert_eq!(history(&mut owner, json!({})).await?.len(), 1);
            stranger.close().await?;
        }
        Ok(())
    }

    async fn silent_requests_are_confirmed_when_that_is_wanted(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut alice, mut bob) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        alice.call(json!({"type": "topic_create", "name": "plans"}), "topic_created").await?;
        let members = async |peer: &mut TestPeer| -> Result<Vec<Value>> {
            let ask = json!({"type": "topic_members", "topic": "plans"});
            let answer = peer.call(ask, "topic_members_response").await?;
            Ok(answer["members"].as_array().cloned().unwrap_or_default())
        };
        bob.call(json!({"type": "topic_join", "topic": "plans", "confirm": true}), "done").await?;
        assert_eq!(members(&mut bob).await?.len(), 2, "done is said when it is done");
        bob.call(json!({"type": "topic_mark_read", "topic": "plans", "confirm": true}), "done").await?;
        assert!(members(&mut bob).await?.iter().any(|member| member["lastReadAt"].is_string()));
        bob.call(json!({"type": "topic_leave", "topic": "plans", "confirm": true}), "done").await?;
        assert_eq!(members(&mut alice).await?.len(), 1);
        let missing = json!({"type": "topic_join", "topic": "nowhere", "confirm": true});
        assert_eq!(bob.refused(missing).await?, "topic_not_found");
        Ok(())
    }

    async fn a_history_has_its_bounds_and_is_of_one_topic(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        for name in ["plans", "other"] {
            peer.call(json!({"type": "topic_create", "name": name}), "topic_created").await?;
        }
        let elsewhere = peer.say("#other", "elsewhere", json!({})).await?["messageId"].clone();
        for number in 0..5 {
            peer.say("#plans", &number.to_string(), json!({})).await?;
        }
        for (limit, count) in [(json!(0), 1), (json!(2), 2), (json!(4_294_967_295_u32), 5), (Value::Null, 5)] {
            assert_eq!(history(&mut peer, json!({"limit": limit})).await?.len(), count, "{limit}");
        }
        let newest = history(&mut peer, json!({"limit": 1})).await?[0]["id"].clone();
        let older = history(&mut peer, json!({"beforeId": newest})).await?;
        assert!(older.len() == 4 && older.iter().all(|message| message["id"] != newest), "{older:?}");
        for (field, value, code) in [
            ("limit", json!(-1), "invalid_args"),
            ("limit", json!(1e300), "invalid_args"),
            ("limit", json!("5"), "invalid_args"),
            ("beforeId", elsewhere, "not_found"),
            ("beforeId", json!(""), "not_found"),
            ("beforeId", json!("é".repeat(16)), "not_found"),
        ] {
            let ask = json!({"type": "topic_history", "topic": "plans", field: value});
            assert_eq!(peer.refused(ask.clone()).await?, code, "{ask}");
        }
        Ok(())
    }

    async fn who_has_left_a_topic_gets_no_more_of_it(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut reader = broker.join(&mesh.member("bob")?).await?;
        sender.call(json!({"type": "topic_create", "name": "plans"}), "topic_created").await?;
        for kind in ["topic_join", "topic_leave", "topic_leave"] {
            reader.send(&json!({"type": kind, "topic": "plans"})).await?;
            history(&mut reader, json!({})).await?;
            sender.say("#plans", kind, json!({})).await?;
        }
        assert_eq!(reader.text().await?, "topic_join");
        assert_eq!(reader.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn roles_say_who_writes_who_lets_in_and_who_leads(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob, eve) = (mesh.member("alice")?, mesh.member("bob")?, mesh.member("eve")?);
        let mut lead = broker.join(&alice).await?;
        let mut member = broker.join(&bob).await?;
        let mut other = broker.join(&eve).await?;
        let create = json!({"type": "topic_create", "name": "plans", "visibility": "private"});
        lead.call(create, "topic_created").await?;
        let set = |topic: &str, who: &str, role: &str| {
            json!({"type": "topic_set_member", "topic": topic, "member": who, "role": role})
        };
        let answer = lead.call(set("plans", "bob", "observer"), "topic_member_set").await?;
        assert_eq!((&answer["memberId"], &answer["role"]), (&json!(bob.id), &json!("observer")));
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
                (lead, member, other) =
                    (broker.join(&alice).await?, broker.join(&bob).await?, broker.join(&eve).await?);
            }
            let ack = member.say("#plans", "may I", json!({})).await?;
            assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!("forbidden")), "restarted: {restarted}");
            for role in ["lead", "member", "anything"] {
                let join = json!({"type": "topic_join", "topic": "plans", "role": role, "confirm": true});
                assert_eq!(member.refused(join).await?, "forbidden", "{role}");
            }
            assert_eq!(member.refused(set("plans", "eve", "member")).await?, "forbidden");
            let update = json!({"type": "topic_update", "topic": "plans", "visibility": "public"});
            assert_eq!(member.refused(update).await?, "forbidden");
            assert_eq!(other.refused(set("plans", "eve", "lead")).await?, "topic_not_found");
        }
        lead.say("#plans", "for you", json!({})).await?;
        assert_eq!(member.text().await?, "for you", "an observer reads");
        lead.call(set("plans", "bob", "lead"), "topic_member_set").await?;
        member.call(set("plans", "eve", "member"), "topic_member_set").await?;
        assert_eq!(other.say("#plans", "hello", json!({})).await?["queued"], true);
        let remove = json!({"type": "topic_remove_member", "topic": "plans", "member": "eve"});
        assert_eq!(member.call(remove, "topic_member_set").await?["role"], Value::Null);
        assert_eq!(other.refused(json!({"type": "topic_members", "topic": "plans"})).await?, "topic_not_found");
        let update = json!({"type": "topic_update", "topic": "plans", "visibility": "dm"});
        lead.call(update, "topic_updated").await?;
        assert_eq!(lead.refused(set("plans", "eve", "member")).await?, "invalid", "a dm has two members");
        // A public topic has its leads, too, and a member with canModerate stands in for one.
        member.call(json!({"type": "topic_create", "name": "open"}), "topic_created").await?;
        let join = json!({"type": "topic_join", "topic": "open", "role": "lead", "confirm": true});
        assert_eq!(other.refused(join).await?, "forbidden");
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        owner.call(set("open", "eve", "lead"), "topic_member_set").await?;
        for (frame, code) in [
            (set("open", "nobody", "member"), "not_found"),
            (set("nowhere", "eve", "member"), "topic_not_found"),
            (set("open", "eve", ""), "invalid_args"),
            (json!({"type": "topic_update", "topic": "open", "retention_days": 366}), "invalid_args"),
            (json!({"type": "topic_update", "topic": "open", "description": "x".repeat(1025)}), "invalid_args"),
        ] {
            assert_eq!(owner.refused(frame.clone()).await?, code, "{frame}");
        }
        Ok(())
    }

    async fn messages_are_edited_deleted_pinned_and_reacted_to(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob, eve) = (mesh.member("alice")?, mesh.member("bob")?, mesh.member("eve")?);
        let mut lead = broker.join(&alice).await?;
        let mut author = broker.join(&bob).await?;
        let mut reader = broker.join(&eve).await?;
        lead.call(json!({"type": "topic_create", "name": "plans"}), "topic_created").await?;
        for peer in [&mut author, &mut reader] {
            peer.call(json!({"type": "topic_join", "topic": "plans", "confirm": true}), "done").await?;
        }
        let id = author.say("#plans", "at 5", json!({})).await?["messageId"].as_str().unwrap_or_default().to_owned();
        let on = |kind: &str, extra: Value| {
            let frame = json!({"type": kind, "topic": "plans", "messageId": id});
            claudemesh_testkit::identity::merged(frame, extra)
        };
        let body = json!({"ciphertext": "YXQgNg=="});
        assert_eq!(lead.refused(on("topic_edit", body.clone())).await?, "forbidden", "a lead does not write for others");
        let answer = author.call(on("topic_edit", body), "topic_message_result").await?;
        assert_eq!(answer["message"]["ciphertext"], "YXQgNg==");
        assert!(answer["message"]["editedAt"].is_string());
        let told = reader.expect("topic_message_changed").await?;
        assert_eq!((&told["change"], &told["message"]), (&json!("edited"), &answer["message"]));
        assert_eq!((&told["topic"], &told["by"]), (&json!("plans"), &json!(bob.id)));
        // Reactions count members, once each.
        for peer in [&mut lead, &mut reader] {
            peer.call(on("topic_react", json!({"emoji": "👍"})), "topic_message_result").await?;
        }
        let again = reader.call(on("topic_react", json!({"emoji": "👍"})), "topic_message_result").await?;
        assert_eq!(again["message"]["reactions"], json!([{"emoji": "👍", "count": 2}]));
        reader.call(on("topic_react", json!({"emoji": "👍", "remove": true})), "topic_message_result").await?;
        assert_eq!(reader.refused(on("topic_pin", json!({}))).await?, "forbidden");
        lead.call(on("topic_pin", json!({})), "topic_message_result").await?;
        let reply = reader.say("#plans", "fine", json!({"replyToId": id})).await?["messageId"].clone();
        let pinned = history(&mut reader, json!({"pinned": true})).await?;
        assert_eq!((pinned.len(), &pinned[0]["id"], &pinned[0]["replies"]), (1, &json!(id), &json!(1)));
        let thread = history(&mut reader, json!({"repliesToId": id})).await?;
        assert_eq!((thread.len(), &thread[0]["id"]), (1, &reply));
        // Its author or a lead deletes it; then nothing of it is left.
        assert_eq!(reader.refused(on("topic_delete_message", json!({}))).await?, "forbidden");
        let gone = lead.call(on("topic_delete_message", json!({})), "topic_message_result").await?;
        let left = &gone["message"];
        assert_eq!((&left["ciphertext"], left.get("pinnedAt"), left.get("reactions")), (&json!(""), None, None));
        lead.call(on("topic_delete_message", json!({})), "topic_message_result").await?;
        let rows = history(&mut reader, json!({})).await?;
        assert_eq!((&rows[1]["id"], &rows[1]["deletedAt"]), (&json!(id), &left["deletedAt"]));
        for (frame, code) in [
            (on("topic_edit", json!({"ciphertext": "YQ=="})), "invalid"),
            (on("topic_edit", json!({"ciphertext": ""})), "invalid_args"),
            (on("topic_react", json!({"emoji": "a b"})), "invalid_args"),
            (on("topic_react", json!({"emoji": "👍"})), "invalid"),
            (on("topic_react", json!({"emoji": "👍", "messageId": "none"})), "not_found"),
            (on("topic_react", json!({"emoji": "👍", "messageId": ""})), "invalid_args"),
        ] {
            assert_eq!(author.refused(frame.clone()).await?, code, "{frame}");
        }
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let entries = owner.call(json!({"type": "audit_query", "limit": 20}), "audit_result").await?;
        let events: Vec<&str> = entries["entries"].as_array().map(Vec::as_slice).unwrap_or_default().iter()
            .filter_map(|entry| entry["eventType"].as_str())
            .filter(|event| event.starts_with("topic_message"))
            .collect();
        assert_eq!(events, ["topic_message_deleted", "topic_message_pinned", "topic_message_edited"], "{entries}");
        Ok(())
    }

    async fn who_is_mentioned_is_told_once_and_finds_it_later(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob, eve) = (mesh.member("alice")?, mesh.member("bob")?, mesh.member("eve")?);
        let (mut writer, mut named) = (broker.join(&alice).await?, broker.join(&bob).await?);
        writer.call(json!({"type": "topic_create", "name": "plans"}), "topic_created").await?;
        writer.call(json!({"type": "topic_create", "name": "secret", "visibility": "private"}), "topic_created").await?;
        writer.say("#secret", "@bob must not know", json!({})).await?;
        let id = writer.say("#plans", "@Bob and @eve and @bob, mail a@bob", json!({})).await?["messageId"].clone();
        let told = named.expect("topic_notification").await?;
        assert_eq!((&told["notification"]["id"], &told["notification"]["topicName"]), (&id, &json!("plans")));
        let list = |extra: Value| claudemesh_testkit::identity::merged(json!({"type": "notification_list"}), extra);
        broker.restart().await?;
        let (mut writer, mut named) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let mut away = broker.join(&eve).await?;
        for peer in [&mut named, &mut away] {
            let found = peer.call(list(json!({"unread": true})), "notification_list_result").await?;
            assert_eq!((found["notifications"].as_array().map(Vec::len), &found["unread"]), (Some(1), &json!(1)));
            assert_eq!((&found["notifications"][0]["id"], &found["notifications"][0]["senderName"]), (&id, &json!("alice")));
        }
        writer.say("#plans", "by list", json!({"mentions": ["@BOB"]})).await?;
        named.expect("topic_notification").await?;
        let newest = named.call(list(json!({"limit": 1})), "notification_list_result").await?;
        let older = named.call(list(json!({"beforeId": newest["notifications"][0]["id"]})), "notification_list_result").await?;
        assert_eq!(older["notifications"][0]["id"], id);
        let read = json!({"type": "notification_read", "ids": [id]});
        assert_eq!(named.call(read.clone(), "notification_read_result").await?["marked"], 1);
        assert_eq!(named.call(read, "notification_read_result").await?["marked"], 0);
        let unread = named.call(list(json!({"unread": true})), "notification_list_result").await?;
        assert_eq!((unread["notifications"].as_array().map(Vec::len), &unread["unread"]), (Some(1), &json!(1)));
        let all = json!({"type": "notification_read", "all": true});
        assert_eq!(named.call(all, "notification_read_result").await?["marked"], 1);
        let own = writer.call(list(json!({})), "notification_list_result").await?;
        assert_eq!(own["notifications"], json!([]), "no one is told of their own words");
        for frame in [
            json!({"type": "notification_read"}),
            json!({"type": "notification_read", "ids": ["a"], "all": true}),
            json!({"type": "notification_read", "ids": vec!["a"; 201]}),
        ] {
            assert_eq!(named.refused(frame).await?, "invalid_args");
        }
        assert_eq!(named.refused(list(json!({"beforeId": "none"}))).await?, "not_found");
        Ok(())
    }

    async fn a_search_finds_what_its_caller_may_read_and_unread_is_counted(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut writer, mut reader) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        for (name, visibility) in [("plans", "public"), ("other", "public"), ("secret", "private")] {
            writer.call(json!({"type": "topic_create", "name": name, "visibility": visibility}), "topic_created").await?;
        }
        reader.call(json!({"type": "topic_join", "topic": "plans", "confirm": true}), "done").await?;
        for (topic, text) in [("plans", "Freeze at FIVE"), ("other", "five freezes"), ("secret", "freeze five"), ("plans", "thaw")] {
            writer.say(&format!("#{topic}"), text, json!({})).await?;
        }
        let search = |extra: Value| claudemesh_testkit::identity::merged(json!({"type": "topic_search", "text": "five freeze"}), extra);
        let topics = |found: &Value| -> Vec<String> {
            let hits = found["messages"].as_array().cloned().unwrap_or_default();
            hits.iter().filter_map(|hit| hit["topic"].as_str().map(str::to_owned)).collect()
        };
        assert_eq!(topics(&reader.call(search(json!({})), "topic_search_result").await?), ["other", "plans"]);
        assert_eq!(topics(&writer.call(search(json!({})), "topic_search_result").await?), ["secret", "other", "plans"]);
        let first = reader.call(search(json!({"limit": 1})), "topic_search_result").await?;
        let second = reader.call(search(json!({"limit": 1, "cursor": first["next"]})), "topic_search_result").await?;
        assert_eq!((topics(&first), topics(&second)), (vec!["other".to_owned()], vec!["plans".to_owned()]));
        assert_eq!(topics(&reader.call(search(json!({"topic": "plans"})), "topic_search_result").await?), ["plans"]);
        assert_eq!(reader.refused(search(json!({"topic": "secret"}))).await?, "topic_not_found");
        assert_eq!(reader.refused(search(json!({"text": "x"}))).await?, "invalid_args");
        let unread = async |peer: &mut TestPeer| -> Result<Vec<(String, Value)>> {
            let list = peer.call(json!({"type": "topic_list"}), "topic_list_response").await?;
            let rows = list["topics"].as_array().cloned().unwrap_or_default();
            Ok(rows.iter().map(|row| (row["name"].as_str().unwrap_or_default().to_owned(), row["unread"].clone())).collect())
        };
        let row = |name: &str, unread: Value| (name.to_owned(), unread);
        assert_eq!(unread(&mut reader).await?, [row("other", Value::Null), row("plans", json!(2))]);
        reader.call(json!({"type": "topic_mark_read", "topic": "plans", "confirm": true}), "done").await?;
        assert_eq!(unread(&mut reader).await?, [row("other", Value::Null), row("plans", json!(0))]);
        assert_eq!(unread(&mut writer).await?[1], row("plans", json!(0)), "own messages are read");
        Ok(())
    }
}
