//! MCP servers of sessions over real sockets: who may register what, what the others hear, servers that are kept, calls that are
//! answered, given up and read in parts.

use anyhow::{Context, Result, ensure};
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

fn register(name: &str) -> Value {
    json!({
        "type": "mcp_register", "serverName": name, "description": "d",
        "tools": [{"name": "add", "description": "adds", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}}],
    })
}

fn kept(name: &str) -> Value {
    merged(register(name), json!({"persistent": true}))
}

fn call(name: &str, extra: Value) -> Value {
    merged(json!({"type": "mcp_call", "serverName": name, "toolName": "add", "args": {"x": 1}}), extra)
}

async fn servers(peer: &mut TestPeer) -> Result<Vec<Value>> {
    let listed = peer.call(json!({"type": "mcp_list"}), "mcp_list_result").await?;
    Ok(listed["servers"].as_array().context("servers")?.clone())
}

/// Asks, lets the host answer, and gives the result.
async fn round(caller: &mut TestPeer, host: &mut TestPeer, answer: Value) -> Result<Value> {
    caller.send(&call("srv", json!({"_reqId": "round"}))).await?;
    let forward = host.expect("mcp_call_forward").await?;
    host.send(&merged(json!({"type": "mcp_call_response", "callId": forward["callId"]}), answer)).await?;
    caller.find("the result", |frame| frame["_reqId"] == "round").await
}

broker_suite! {
    async fn a_server_is_registered_listed_called_and_removed(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let ack = ann.call(register("srv"), "mcp_register_ack").await?;
        assert_eq!((&ack["serverName"], &ack["toolCount"]), (&json!("srv"), &json!(1)));
        let told = ben.event("mcp_registered").await?;
        assert_eq!(told, json!({"serverName": "srv", "description": "d", "tools": ["add"], "hostedBy": "alice"}));
        let listed = servers(&mut ben).await?;
        assert_eq!((&listed[0]["tools"], &listed[0]["online"]), (&json!([{"name": "add", "description": "adds"}]), &json!(true)));
        let schema = ben.call(json!({"type": "mcp_schema", "server_name": "srv", "tool_name": "add"}), "mcp_schema_result").await?;
        assert_eq!(schema["tools"], register("srv")["tools"], "nothing of it is lost");
        // Whatever a tool answers is passed on as it is.
        for result in [
            json!({"sum": 3}), json!("text"), json!([1, null]), json!(1.5),
            json!({"content": [{"type": "text", "text": "3", "annotations": {"priority": 0.7}}], "isError": true, "_meta": {"a": 1}, "z": {"y": 1, "a": 2}}),
        ] {
            let answer = round(&mut ben, &mut ann, json!({"result": result})).await?;
            assert_eq!(answer, json!({"type": "mcp_call_result", "result": result, "_reqId": "round"}));
        }
        let failed = round(&mut ben, &mut ann, json!({"error": "no", "code": "made_up", "rpcError": {"code": -1, "message": "no"}})).await?;
        assert_eq!((&failed["error"], &failed["code"], &failed["rpcError"]["code"]), (&json!("no"), &json!("tool_failed"), &json!(-1)));
        let missing = ben.ask(call("none", json!({}))).await?;
        assert_eq!((&missing["type"], &missing["error"]), (&json!("mcp_call_result"), &json!("MCP server \"none\" not found in mesh")));
        // The name is Alice's, in every session of hers and of no one else.
        let code = ben.refused(register("srv")).await?;
        assert_eq!(code, "already_exists");
        assert_eq!(ben.refused(json!({"type": "mcp_unregister", "serverName": "srv"})).await?, "forbidden");
        for name in ["", "a b", "-a", "a.b"] {
            assert_eq!(ann.refused(register(name)).await?, "invalid_name", "{name}");
        }
        let twice = json!({"tools": [{"name": "a"}, {"name": "a"}]});
        for bad in [twice, json!({"tools": [{"name": ""}]}), json!({"tools": [{"name": "a", "inputSchema": 1}]}), json!({"description": "x".repeat(2_049)})] {
            assert_eq!(ann.refused(merged(register("srv"), bad.clone())).await?, "invalid_args", "{bad}");
        }
        let mut second = broker.connect(&alice.session("second")).await?;
        second.call(json!({"type": "mcp_unregister", "serverName": "srv", "confirm": true}), "done").await?;
        assert_eq!(ben.event("mcp_unregistered").await?, json!({"serverName": "srv", "hostedBy": "alice"}));
        assert_eq!(servers(&mut ben).await?, Vec::<Value>::new());
        ben.call(register("srv"), "mcp_register_ack").await?;
        Ok(())
    }

    async fn a_server_that_is_kept_is_there_after_a_restart_and_comes_back_with_its_session(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let session = alice.session("s");
        let mut ann = broker.connect(&session).await?;
        ann.call(kept("srv"), "mcp_register_ack").await?;
        ann.call(register("short"), "mcp_register_ack").await?;
        broker.restart().await?;
        let mut ben = broker.join(&bob).await?;
        let listed = servers(&mut ben).await?;
        assert_eq!((listed.len(), &listed[0]["name"], &listed[0]["online"]), (1, &json!("srv"), &json!(false)));
        ensure!(listed[0]["offlineSince"].is_string(), "since when: {}", listed[0]);
        assert_eq!(ben.ask(call("srv", json!({}))).await?["code"], "host_offline");
        assert_eq!(ben.refused(kept("srv")).await?, "already_exists", "a name is kept while its server is away");
        // Another session of the member does not run it.
        let mut other = broker.connect(&alice.session("other")).await?;
        other.settle().await?;
        assert_eq!(servers(&mut ben).await?[0]["online"], false);
        ann = broker.connect(&session).await?;
        assert_eq!(ben.event("mcp_restored").await?, json!({"serverName": "srv", "hostedBy": "alice"}));
        assert_eq!(round(&mut ben, &mut ann, json!({"result": 1})).await?["result"], 1);
        // Its end is told to those who know the word; it is offline since then.
        ann.call(json!({"type": "echo"}), "echo_result").await?;
        drop(ann);
        ben.settle().await?;
        broker.pass(std::time::Duration::from_secs(91), &mut ben).await?;
        assert_eq!(ben.event("mcp_offline").await?["serverName"], "srv");
        let since = servers(&mut ben).await?[0]["offlineSince"].clone();
        broker.restart().await?;
        ben = broker.join(&bob).await?;
        assert_eq!(servers(&mut ben).await?[0]["offlineSince"], since);
        // Another session of the member takes it over when it says so.
        let mut other = broker.connect(&alice.session("new")).await?;
        other.call(kept("srv"), "mcp_register_ack").await?;
        assert_eq!(ben.event("mcp_restored").await?["serverName"], "srv");
        assert_eq!(round(&mut ben, &mut other, json!({"result": 2})).await?["result"], 2);
        Ok(())
    }

    async fn a_connection_of_the_older_kind_runs_its_members_servers_again(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let older = |id: &str| alice.hello(id, json!({"protocolVersion": null, "capabilities": null}));
        let mut ann = TestPeer::hello(&broker.url(), older("1"), alice.key.clone()).await?;
        ann.call(kept("srv"), "mcp_register_ack").await?;
        broker.restart().await?;
        let mut ben = broker.join(&bob).await?;
        let mut ann = TestPeer::hello(&broker.url(), older("2"), alice.key.clone()).await?;
        assert_eq!(ben.event("mcp_restored").await?["serverName"], "srv");
        ben.send(&call("srv", json!({"_reqId": "r", "call": "c", "progress": true, "parts": true}))).await?;
        let forward = ann.expect("mcp_call_forward").await?;
        let fields: Vec<&String> = forward.as_object().context("an object")?.keys().collect();
        assert_eq!(fields, ["type", "callId", "serverName", "toolName", "args", "callerName"], "as it was before");
        ben.call(json!({"type": "mcp_cancel", "call": "c", "confirm": true}), "done").await?;
        assert_eq!(ben.expect("mcp_call_result").await?["code"], "cancelled");
        ann.settle().await?;
        ensure!(ann.kept().all(|frame| frame["type"] != "mcp_call_cancel"), "it knows no such word");
        Ok(())
    }

    async fn progress_cancellation_and_parts_reach_the_right_one(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut ann, mut ben) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        let mut eve = broker.join(&mesh.member("eve")?).await?;
        ann.call(register("srv"), "mcp_register_ack").await?;
        let named = |name: &str| call("srv", json!({"_reqId": name, "call": name, "progress": true, "parts": true, "timeout_ms": 60_000}));
        ben.send(&named("one")).await?;
        let forward = ann.expect("mcp_call_forward").await?;
        assert_eq!((&forward["progress"], &forward["parts"], &forward["timeoutMs"]), (&json!(true), &json!(true), &json!(60_000)));
        let id = forward["callId"].clone();
        let progress = json!({"type": "mcp_progress", "callId": id, "progress": 1, "total": 2, "message": "half"});
        ann.send(&progress).await?;
        let told = ben.expect("mcp_call_progress").await?;
        assert_eq!((&told["call"], &told["total"], &told["message"]), (&json!("one"), &json!(2.0), &json!("half")));
        // What others say of it is not heard.
        for frame in [progress, json!({"type": "mcp_call_response", "callId": id, "result": "forged"})] {
            eve.send(&frame).await?;
            assert_eq!(eve.refused(merged(frame, json!({"confirm": true}))).await?, "not_found");
        }
        eve.call(json!({"type": "mcp_cancel", "call": "one", "confirm": true}), "done").await?;
        assert_eq!(ben.ask(merged(named("one"), json!({"_reqId": null}))).await?["code"], "invalid_args", "the name is in use");
        let text = format!("\"{}\"", "é".repeat(300_000));
        let parts: Vec<&str> = vec![&text[..300_001], &text[300_001..]];
        ann.send(&json!({"type": "mcp_call_response", "callId": id, "parts": 2, "bytes": text.len()})).await?;
        let result = ben.find("the result", |frame| frame["_reqId"] == "one").await?;
        assert_eq!((&result["parts"], &result["bytes"]), (&json!(2), &json!(text.len())));
        assert_eq!(eve.refused(json!({"type": "mcp_part", "call": "one", "part": 0})).await?, "not_found");
        let mut read = String::new();
        for part in 0..2 {
            ben.send(&json!({"type": "mcp_part", "call": "one", "part": part, "_reqId": format!("p{part}")})).await?;
            let wanted = ann.expect("mcp_part_forward").await?;
            let data = parts[usize::try_from(wanted["part"].as_u64().context("a part")?)?];
            ann.send(&json!({"type": "mcp_part_response", "callId": id, "part": wanted["part"], "data": data})).await?;
            read += ben.expect("mcp_part_data").await?["data"].as_str().context("data")?;
        }
        assert!(read == text, "nothing is lost or doubled");
        assert_eq!(ben.refused(json!({"type": "mcp_part", "call": "one", "part": 0})).await?, "not_found", "it has ended");
        // A caller that goes away ends its call.
        ben.send(&named("two")).await?;
        let id = ann.expect("mcp_call_forward").await?["callId"].clone();
        drop(ben);
        assert_eq!(ann.expect("mcp_call_cancel").await?["callId"], id);
        // A host that goes away ends the calls that it was asked for.
        eve.send(&named("three")).await?;
        ann.expect("mcp_call_forward").await?;
        drop(ann);
        assert_eq!(eve.expect("mcp_call_result").await?["code"], "host_gone");
        Ok(())
    }

    async fn servers_are_for_those_who_may_use_tools_and_go_with_their_member(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let set = |member: &str, capability: &str, word: Value| {
            json!({"type": "set_permissions", "member": member, "permissions": {capability: word}})
        };
        owner.ask(set("bob", "canUseTools", json!(false))).await?;
        owner.ask(set("alice", "canDeployMcp", json!(false))).await?;
        assert_eq!(ann.refused(register("srv")).await?, "forbidden");
        owner.ask(set("alice", "canDeployMcp", Value::Null)).await?;
        ann.call(kept("srv"), "mcp_register_ack").await?;
        for frame in [json!({"type": "mcp_list"}), json!({"type": "mcp_schema", "server_name": "srv"}), call("srv", json!({}))] {
            assert_eq!(ben.refused(frame).await?, "forbidden");
        }
        ben.settle().await?;
        ensure!(ben.kept().all(|frame| frame["event"] != "mcp_registered"), "nor does he hear of it");
        owner.event("mcp_registered").await?;
        owner.call(json!({"type": "mcp_unregister", "serverName": "srv", "confirm": true}), "done").await?;
        assert_eq!(ann.event("mcp_unregistered").await?["serverName"], "srv");
        ann.call(kept("srv"), "mcp_register_ack").await?;
        owner.call(json!({"type": "ban", "target": alice.pubkey()}), "ban_ack").await?;
        assert_eq!(owner.event("mcp_unregistered").await?["serverName"], "srv");
        owner.call(kept("srv"), "mcp_register_ack").await?;
        Ok(())
    }

    async fn bounds_are_told_with_their_name_and_use(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut ann = broker.join(&mesh.member("alice")?).await?;
        for number in 0..100 {
            ann.call(register(&format!("s{number}")), "mcp_register_ack").await?;
        }
        let refused = ann.ask(register("one-too-many")).await?;
        assert_eq!((&refused["code"], &refused["bound"]["name"]), (&json!("limit"), &json!("mcp_servers.per_member")));
        ann.call(register("s0"), "mcp_register_ack").await?;
        let large = json!({"tools": [{"name": "a", "description": "x".repeat(524_288)}]});
        let refused = ann.ask(merged(register("s0"), large)).await?;
        assert_eq!(refused["bound"]["name"], "mcp_servers.bytes_per_server", "{refused}");
        let page = ann.call(json!({"type": "mcp_list", "cursor": "s98"}), "mcp_list_result").await?;
        assert_eq!((page["servers"].as_array().map(Vec::len), &page["servers"][0]["name"]), (Some(1), &json!("s99")));
        for number in 0..4 {
            let large = json!({"tools": [{"name": "a", "description": "x".repeat(300_000)}]});
            ann.call(merged(register(&format!("s{number}")), large), "mcp_register_ack").await?;
        }
        let (mut seen, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = ann.call(merged(json!({"type": "mcp_list"}), json!({"cursor": cursor})), "mcp_list_result").await?;
            seen.extend(page["servers"].as_array().context("servers")?.iter().map(|row| row["name"].to_string()));
            cursor = page["next"].clone();
            if cursor.is_null() {
                break;
            }
        }
        let sorted = { let mut sorted = seen.clone(); sorted.sort(); sorted.dedup(); sorted };
        assert_eq!((seen.len(), sorted), (100, seen));
        let info = ann.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
        assert_eq!(info["mcpServerCount"], 100);
        Ok(())
    }
}
