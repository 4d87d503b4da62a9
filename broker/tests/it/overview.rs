//! `mesh_info` counts what each feature keeps, also what is too much to be named.

use anyhow::Result;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

async fn confirmed(peer: &mut TestPeer, frame: Value) -> Result<Value> {
    peer.call(merged(frame, json!({"confirm": true})), "done").await
}

async fn info(peer: &mut TestPeer) -> Result<Value> {
    peer.call(json!({"type": "mesh_info"}), "mesh_info_result").await
}

broker_suite! {
    async fn everything_is_counted_and_only_the_first_names_are_told(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let mut peer = broker.join(&alice).await?;
        let empty = info(&mut peer).await?;
        for count in ["stateCount", "memoryCount", "contextCount", "streamCount", "skillCount", "vaultCount", "mcpServerCount", "schedules"] {
            assert_eq!(empty[count], 0, "{count}");
        }
        for number in 0..503 {
            confirmed(&mut peer, json!({"type": "set_state", "key": format!("k{number:03}"), "value": number})).await?;
        }
        confirmed(&mut peer, json!({"type": "delete_state", "key": "k502"})).await?;
        // One member makes 500 at most.
        let mut bob = broker.join(&mesh.member("bob")?).await?;
        bob.call(json!({"type": "create_stream", "name": "t"}), "stream_created").await?;
        for number in 0..500 {
            peer.call(json!({"type": "create_stream", "name": format!("s{number:03}")}), "stream_created").await?;
        }
        for number in 0..3 {
            let remember = json!({"type": "remember", "content": format!("fact {number}")});
            let id = peer.call(remember, "memory_stored").await?["id"].clone();
            if number == 0 {
                peer.call(json!({"type": "forget", "memoryId": id}), "ack").await?;
            }
        }
        for summary in ["first", "second"] {
            peer.call(json!({"type": "share_context", "summary": summary}), "context_shared").await?;
        }
        let mut other = broker.connect(&alice.session("other")).await?;
        other.call(json!({"type": "share_context", "summary": "third"}), "context_shared").await?;
        for title in ["a", "b", "c"] {
            let id = peer.call(json!({"type": "create_task", "title": title}), "task_created").await?["id"].clone();
            if title == "a" {
                confirmed(&mut peer, json!({"type": "claim_task", "taskId": id})).await?;
            }
        }
        for name in ["one", "two"] {
            let server = json!({"type": "mcp_register", "serverName": name, "description": "", "tools": [], "persistent": true});
            peer.call(server, "mcp_register_ack").await?;
        }
        peer.call(json!({"type": "set_clock", "speed": 2.5}), "clock_status").await?;
        let skill = json!({"type": "share_skill", "name": "deploy", "description": "d", "instructions": "i"});
        peer.call(skill, "skill_ack").await?;
        peer.call(json!({"type": "schedule", "to": "alice", "message": "m", "deliverAt": 4_000_000_000_000_i64}), "scheduled_ack").await?;
        for (member, count) in [(&mut peer, 2), (&mut bob, 1)] {
            for number in 0..count {
                let sealed = json!({"ciphertext": "A".repeat(32), "nonce": "A".repeat(32), "sealed_key": format!("{}A=", "A".repeat(106))});
                let entry = json!({"type": "vault_set", "key": format!("K{number}"), "entry_type": "env"});
                member.call(merged(entry, sealed), "vault_ack").await?;
            }
        }
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
            }
            let mut reader = broker.connect(&alice.session("reader")).await?;
            let found = info(&mut reader).await?;
            let names = |field: &str| found[field].as_array().map_or(0, Vec::len);
            assert_eq!((&found["stateCount"], names("stateKeys")), (&json!(502), 500), "restarted: {restarted}");
            assert_eq!((&found["streamCount"], names("streams")), (&json!(501), 500));
            assert_eq!((&found["memoryCount"], &found["contextCount"]), (&json!(2), &json!(2)), "one for each session");
            assert_eq!((&found["skillCount"], &found["schedules"]), (&json!(1), &json!(1)));
            assert_eq!(found["vaultCount"], 2, "the own ones");
            assert_eq!(found["mcpServerCount"], 2);
            assert_eq!(found["tasks"], json!({"open": 2, "claimed": 1, "done": 0}));
            assert_eq!(found["clock"]["speed"], 2.5);
        }
        Ok(())
    }

    async fn a_member_that_may_not_read_shared_things_learns_nothing_of_them(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut owner, mut bob) =
            (broker.connect(&mesh.creator.session("owner")).await?, broker.join(&mesh.member("bob")?).await?);
        confirmed(&mut bob, json!({"type": "set_state", "key": "secret plan", "value": 1})).await?;
        bob.call(json!({"type": "create_stream", "name": "moves"}), "stream_created").await?;
        bob.call(json!({"type": "create_task", "title": "hide"}), "task_created").await?;
        bob.call(json!({"type": "mesh_execute", "sql": "CREATE TABLE moves (id INTEGER)"}), "mesh_query_result").await?;
        owner.call(json!({"type": "set_clock", "speed": 2.5}), "clock_status").await?;
        let seen = info(&mut bob).await?;
        assert_eq!((&seen["stateKeys"], &seen["streams"]), (&json!(["secret plan"]), &json!(["moves"])), "{seen}");
        assert_eq!((&seen["tables"], &seen["tasks"]["open"]), (&json!(["moves"]), &json!(1)), "{seen}");
        let denied = json!({"canReadShared": false, "canRunSql": false});
        let frame = json!({"type": "set_permissions", "member": "bob", "permissions": denied});
        owner.call(frame, "permissions_result").await?;
        let seen = info(&mut bob).await?;
        for name in ["stateKeys", "streams", "tables"] {
            assert_eq!(seen[name], json!([]), "{name}: {seen}");
        }
        assert_eq!((&seen["stateCount"], &seen["streamCount"], &seen["tasks"]["open"]), (&json!(0), &json!(0), &json!(0)));
        assert!(seen["clock"].is_null() && seen["peers"] == 2, "{seen}");
        Ok(())
    }
}
