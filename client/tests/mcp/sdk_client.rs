//! The server in this process, through the SDK's own client over a pipe.

use anyhow::{Context, Result};
use claudemesh::mcp::instructions;
use claudemesh_testkit::host::PATIENCE;
use claudemesh_testkit::wait;
use rmcp::model::CallToolRequestParams;
use serde_json::json;

use super::in_process::Session;
use super::services;
use super::team::Team;

#[tokio::test]
async fn every_listed_tool_works() -> Result<()> {
    let team = Team::start_with(services::hosted).await?;
    let (ann, bob) = (Session::start(&team.ann, "AnnS").await?, Session::start(&team.bob, "BobS").await?);
    std::fs::write(team.bob.project().join("notes.md"), "# Notes")?;
    let folder = team.bob.project().to_string_lossy().into_owned();
    let _files = Session::start_with(&team.bob, "BobF", &[("CLAUDEMESH_SHARE_DIR", &folder)]).await?;
    let info = ann.client.peer_info().context("the server introduced itself")?;
    assert!(info.capabilities.experimental.as_ref().is_some_and(|all| all.contains_key("claude/channel")));
    assert!(info.instructions.as_ref().is_some_and(|text| text.len() <= instructions::MAX_BYTES));
    assert_eq!(info.protocol_version.as_str(), "2025-11-25");

    let sent = ann.call("send_message", json!({"to": "BobS", "message": "hello"})).await?.text;
    let id = sent.split(" → ").nth(1).and_then(|rest| rest.split(' ').next()).context("an id")?.to_owned();
    ann.call("set_state", json!({"key": "old", "value": null})).await?;
    let mut tasks = Vec::new();
    for title in ["first", "second", "third"] {
        let made = bob.call("create_task", json!({"title": title})).await?.text;
        tasks.push(made.split(' ').nth(2).context("an id")?.trim_end_matches(':').to_owned());
    }
    let (first, second, third) = (&tasks[0], &tasks[1], &tasks[2]);
    bob.call("claim_task", json!({"id": third})).await?;
    ann.call("mesh_set_clock", json!({"speed": 1})).await?;
    let kept = bob.call("remember", json!({"content": "to be forgotten"})).await?.text;
    let kept = kept.split(' ').nth(1).context("an id")?.to_owned();
    let planned = bob.call("schedule_reminder", json!({"message": "to be cancelled", "cron": "@yearly"})).await?;
    let planned = planned.structured["scheduledId"].as_str().context("an id")?.to_owned();
    bob.call("share_skill", json!({"name": "deploy", "description": "How to deploy", "instructions": "run it"}))
        .await?;
    bob.call("vault_set", json!({"key": "KEPT", "value": "until it is deleted"})).await?;
    let service =
        |name: &str| json!({"server_name": name, "command": "/usr/bin/python3", "args": ["-c", services::SERVER]});
    bob.call("mesh_mcp_deploy", service("standing")).await?;
    // A call of Bob's own server waits, and a peer answers every call of its own.
    let mut host = team.outsider("host").await?;
    let echo = json!({"type": "mcp_register", "serverName": "echo", "description": "", "tools": [{"name": "echo"}]});
    host.call(echo, "mcp_register_ack").await?;
    tokio::spawn(async move {
        while let Ok(forward) = host.expect("mcp_call_forward").await {
            let answer = json!({"type": "mcp_call_response", "callId": forward["callId"], "result": forward["args"]});
            if host.send(&answer).await.is_err() {
                return;
            }
        }
    });
    let own = json!({
        "server_name": "own", "description": "Bob's", "tools": [{"name": "t", "description": "d", "inputSchema": {}}],
    });
    bob.call("mesh_mcp_register", own.clone()).await?;
    let caller = ann.client.peer().clone();
    let waits = serde_json::from_value(json!({"server_name": "own", "tool_name": "t", "timeout_seconds": 60}))?;
    tokio::spawn(
        async move { caller.call_tool(CallToolRequestParams::new("mesh_tool_call").with_arguments(waits)).await },
    );
    let waiting = wait::until("the call is there", PATIENCE, async || {
        let listed = bob.call("mesh_mcp_list", json!({})).await?.structured;
        Ok(listed["waiting"][0]["call_id"].as_str().map(str::to_owned))
    })
    .await?;
    std::fs::write(team.bob.project().join("a.txt"), "hello")?;
    let mut files = Vec::new();
    for _ in 0..2 {
        let shared = bob.call("share_file", json!({"path": "a.txt"})).await?;
        files.push(shared.structured["id"].as_str().context("an id")?.to_owned());
    }
    let calls = [
        ("ask_peer", json!({"to": "AnnS", "question": "anybody there?", "timeout_seconds": 1})),
        ("cancel_scheduled", json!({"id": planned})),
        ("check_messages", json!({})),
        ("claim_task", json!({"id": first})),
        ("complete_task", json!({"id": first, "result": "green"})),
        ("create_stream", json!({"name": "builds"})),
        ("create_task", json!({"title": "fourth", "tags": ["ci"]})),
        ("delete_file", json!({"id": files[0]})),
        ("delete_state", json!({"key": "old"})),
        ("delete_task", json!({"id": second})),
        ("file_status", json!({"id": files[1]})),
        ("forget", json!({"id": kept})),
        ("get_context", json!({"query": "tests"})),
        ("get_file", json!({"id": files[1], "save_to": "b.txt"})),
        ("get_skill", json!({"name": "deploy"})),
        ("get_state", json!({"key": "old"})),
        ("get_task", json!({"id": first})),
        ("grant_file_access", json!({"fileId": files[1], "to": "Ann"})),
        ("join_group", json!({"name": "@qa", "role": "lead"})),
        ("leave_group", json!({"name": "qa"})),
        ("list_contexts", json!({})),
        ("list_files", json!({"query": "a.t"})),
        ("list_memories", json!({})),
        ("list_peer_files", json!({"peer": "BobF"})),
        ("list_peers", json!({"mesh_slug": "team"})),
        ("list_scheduled", json!({})),
        ("list_skills", json!({"query": "deploy"})),
        ("list_state", json!({})),
        ("list_streams", json!({})),
        ("list_tasks", json!({"status": "completed"})),
        ("mesh_clock", json!({})),
        (
            "mesh_execute",
            json!({"sql": "CREATE TABLE runs (id INTEGER)", "then": [{"sql": "INSERT INTO runs VALUES (?)", "params": [1]}]}),
        ),
        ("mesh_info", json!({})),
        ("mesh_mcp_answer", json!({"call_id": waiting, "result": {"sum": 3}})),
        ("mesh_mcp_catalog", json!({})),
        ("mesh_mcp_deploy", service("svc")),
        ("mesh_mcp_list", json!({})),
        ("mesh_mcp_logs", json!({"server_name": "standing", "lines": 5})),
        ("mesh_mcp_register", own),
        ("mesh_mcp_remove", json!({"server_name": "own"})),
        ("mesh_mcp_schema", json!({"server_name": "echo", "tool_name": "echo"})),
        ("mesh_mcp_scope", json!({"server_name": "standing"})),
        ("mesh_mcp_undeploy", json!({"server_name": "svc"})),
        ("mesh_mcp_update", json!({"server_name": "standing"})),
        ("mesh_pause_clock", json!({})),
        ("mesh_query", json!({"sql": "SELECT * FROM runs WHERE id = ?", "params": [1]})),
        ("mesh_resume_clock", json!({})),
        ("mesh_schema", json!({})),
        ("mesh_set_clock", json!({"speed": 10, "sim_time": "2030-01-01T09:00:00Z"})),
        ("mesh_stats", json!({})),
        ("mesh_tool_call", json!({"server_name": "echo", "tool_name": "echo", "args": {"x": 1}})),
        ("message_status", json!({"id": id})),
        ("next_task", json!({})),
        ("ping_mesh", json!({})),
        ("poll_inbox", json!({})),
        ("publish", json!({"stream": "builds", "data": {"green": true}})),
        ("read_peer_file", json!({"peer": "BobF", "path": "notes.md"})),
        ("read_stream", json!({"stream": "builds"})),
        ("recall", json!({"query": "ports"})),
        ("register", json!({"name": "BobS"})),
        ("remember", json!({"content": "ports above 1024 are free", "tags": ["net"]})),
        ("remove_skill", json!({"name": "deploy"})),
        ("reopen_task", json!({"id": first})),
        ("reply_to_peer", json!({"message_id": id, "answer": "hello yourself"})),
        ("revoke_file_access", json!({"fileId": files[1], "to": "Ann"})),
        ("schedule_reminder", json!({"message": "look at the build", "in_seconds": 7200})),
        ("send_message", json!({"to": ["AnnS", "*"], "message": "to all", "priority": "low"})),
        ("set_profile", json!({"title": "QA", "capabilities": ["tests"]})),
        ("set_state", json!({"key": "build", "value": {"green": true}})),
        ("set_status", json!({"status": "working"})),
        ("set_summary", json!({"summary": "writing tests"})),
        ("set_visible", json!({"visible": true})),
        (
            "share_context",
            json!({"summary": "writing tests", "files_read": ["a.rs"], "key_findings": ["b"], "tags": ["c"]}),
        ),
        ("share_file", json!({"path": "a.txt", "to": ["Ann"], "tags": ["t"]})),
        ("share_skill", json!({"name": "release", "description": "How to release", "instructions": "tag it"})),
        ("shared_folder", json!({})),
        ("subscribe", json!({"stream": "builds", "from": "start"})),
        ("topic_create", json!({"name": "plans"})),
        ("topic_history", json!({"topic": "plans"})),
        ("topic_join", json!({"topic": "plans"})),
        ("topic_leave", json!({"topic": "plans"})),
        ("topic_list", json!({})),
        ("topic_mark_read", json!({"topic": "plans"})),
        ("topic_members", json!({"topic": "plans"})),
        ("topic_post", json!({"topic": "plans", "message": "freeze at 5"})),
        ("unclaim_task", json!({"id": third})),
        ("unsubscribe", json!({"stream": "builds"})),
        ("update_task", json!({"id": third, "priority": "low"})),
        ("vault_delete", json!({"key": "KEPT"})),
        ("vault_list", json!({})),
        ("vault_set", json!({"key": "TOKEN", "value": "s3cret", "description": "for tests"})),
    ];
    let mut listed: Vec<String> =
        bob.client.list_all_tools().await?.into_iter().map(|tool| tool.name.into_owned()).collect();
    listed.sort_unstable();
    // One tool is a person's: a host that is not known to ask its user cannot use it.
    listed.retain(|name| name != "answer_permission");
    let refused = bob.call("answer_permission", json!({"request_id": "abcde", "behavior": "allow"})).await?;
    assert!(refused.is_error && refused.text.contains("does not ask its user"), "{}", refused.text);
    assert_eq!(listed, calls.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    for (name, arguments) in calls {
        let answer = bob.call(name, arguments).await?;
        assert!(!answer.is_error && !answer.text.is_empty(), "{name}: {}", answer.text);
    }
    // What was set is what others see.
    let peers = ann.call("list_peers", json!({"all": true})).await?.text;
    for word in ["BobS", "working", "(QA)", "writing tests"] {
        assert!(peers.contains(word), "{word}: {peers}");
    }
    Ok(())
}

#[tokio::test]
async fn bad_arguments_and_unknown_tools_are_readable_errors() -> Result<()> {
    let team = Team::start().await?;
    let bob = Session::start(&team.bob, "BobS").await?;
    for (name, arguments, words) in [
        ("set_status", json!({"status": "asleep"}), "idle"),
        ("send_message", json!({"to": "x"}), "message"),
        ("send_message", json!({"to": [], "message": "x"}), "no one"),
        ("send_message", json!({"to": "nobody-here", "message": "x"}), "nobody"),
        ("send_message", json!({"to": "@empty", "message": "x"}), "@empty"),
        ("list_peers", json!({"mesh_slug": "other"}), "team"),
        ("message_status", json!({"id": "!"}), "message_status"),
    ] {
        let answer = bob.call(name, arguments).await?;
        let (text, is_error) = (answer.text, answer.is_error);
        assert!(is_error && text.starts_with(&format!("{name}: ")) && text.contains(words), "{name}: {text}");
    }
    let answer = bob.call("no_such_tool", json!({})).await?;
    assert!(answer.is_error && answer.text == "Unknown tool: no_such_tool", "{}", answer.text);
    let unknown = bob.call("message_status", json!({"id": "abcdefgh"})).await?;
    assert!(!unknown.is_error && unknown.structured["note"] == unknown.text, "{}", unknown.text);
    Ok(())
}
