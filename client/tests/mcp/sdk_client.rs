//! The server in this process, through the SDK's own client over a pipe.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh::config::ConfigStore;
use claudemesh::mcp::{Hub, instructions, serve};
use claudemesh::paths::Env;
use rmcp::model::{CallToolRequestParams, JsonObject};
use rmcp::service::{RoleClient, RunningService};
use rmcp::{ClientHandler, ServiceExt};
use serde_json::{Value, json};

use super::team::Team;

#[derive(Clone, Default)]
struct Client;

impl ClientHandler for Client {}

struct Session {
    client: RunningService<RoleClient, Client>,
    hub: Arc<Hub>,
}

impl Session {
    async fn start(config: std::path::PathBuf, project: &std::path::Path, name: &str) -> Result<Self> {
        let project = project.to_string_lossy().into_owned();
        let env = Env::of(&[("CLAUDE_PROJECT_DIR", &project), ("CLAUDEMESH_DISPLAY_NAME", name)]);
        let hub = Hub::new(env, ConfigStore::at(config), None, None);
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (input, output) = tokio::io::split(theirs);
        tokio::spawn(serve(Arc::clone(&hub), input, output));
        let client = Client.serve(tokio::io::split(ours)).await?;
        Ok(Self { client, hub })
    }

    async fn call(&self, name: &'static str, arguments: Value) -> Result<(String, bool)> {
        let arguments: JsonObject = serde_json::from_value(arguments)?;
        let request = CallToolRequestParams::new(name).with_arguments(arguments);
        let result = self.client.call_tool(request).await?;
        let text = result.content.iter().filter_map(|block| block.as_text()).map(|text| text.text.as_str()).collect();
        Ok((text, result.is_error == Some(true)))
    }
}

#[tokio::test]
async fn every_listed_tool_works() -> Result<()> {
    let team = Team::start().await?;
    let ann = Session::start(team.ann.config_dir(), &team.ann.project(), "AnnS").await?;
    let bob = Session::start(team.bob.config_dir(), &team.bob.project(), "BobS").await?;
    for session in [&ann, &bob] {
        for bound in session.hub.select(None).await.map_err(anyhow::Error::msg)? {
            bound.connection.ready(Duration::from_secs(10)).await?;
        }
    }
    let info = ann.client.peer_info().context("the server introduced itself")?;
    assert!(info.capabilities.experimental.as_ref().is_some_and(|all| all.contains_key("claude/channel")));
    assert!(info.instructions.as_ref().is_some_and(|text| text.len() <= instructions::MAX_BYTES));
    assert_eq!(info.protocol_version.as_str(), "2025-11-25");

    let (sent, _) = ann.call("send_message", json!({"to": "BobS", "message": "hello"})).await?;
    let id = sent.split(" → ").nth(1).and_then(|rest| rest.split(' ').next()).context("an id")?.to_owned();
    let calls = [
        ("ask_peer", json!({"to": "AnnS", "question": "anybody there?", "timeout_seconds": 1})),
        ("check_messages", json!({})),
        ("join_group", json!({"name": "@qa", "role": "lead"})),
        ("leave_group", json!({"name": "qa"})),
        ("list_peers", json!({"mesh_slug": "team"})),
        ("mesh_info", json!({})),
        ("mesh_stats", json!({})),
        ("message_status", json!({"id": id})),
        ("ping_mesh", json!({})),
        ("poll_inbox", json!({})),
        ("register", json!({"name": "BobS"})),
        ("reply_to_peer", json!({"message_id": id, "answer": "hello yourself"})),
        ("send_message", json!({"to": ["AnnS", "*"], "message": "to all", "priority": "low"})),
        ("set_profile", json!({"title": "QA", "capabilities": ["tests"]})),
        ("set_status", json!({"status": "working"})),
        ("set_summary", json!({"summary": "writing tests"})),
        ("set_visible", json!({"visible": true})),
    ];
    let mut listed: Vec<String> =
        bob.client.list_all_tools().await?.into_iter().map(|tool| tool.name.into_owned()).collect();
    listed.sort_unstable();
    // One tool is a person's: a host that is not known to ask its user cannot use it.
    listed.retain(|name| name != "answer_permission");
    let (text, is_error) = bob.call("answer_permission", json!({"request_id": "abcde", "behavior": "allow"})).await?;
    assert!(is_error && text.contains("does not ask its user"), "{text}");
    assert_eq!(listed, calls.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    for (name, arguments) in calls {
        let (text, is_error) = bob.call(name, arguments).await?;
        assert!(!is_error && !text.is_empty(), "{name}: {text}");
    }
    // What was set is what others see.
    let (peers, _) = ann.call("list_peers", json!({})).await?;
    for word in ["BobS", "working", "(QA)", "writing tests"] {
        assert!(peers.contains(word), "{word}: {peers}");
    }
    Ok(())
}

#[tokio::test]
async fn bad_arguments_and_unknown_tools_are_readable_errors() -> Result<()> {
    let team = Team::start().await?;
    let bob = Session::start(team.bob.config_dir(), &team.bob.project(), "BobS").await?;
    for (name, arguments, words) in [
        ("set_status", json!({"status": "asleep"}), "idle"),
        ("send_message", json!({"to": "x"}), "message"),
        ("send_message", json!({"to": [], "message": "x"}), "nobody"),
        ("send_message", json!({"to": "nobody-here", "message": "x"}), "nobody"),
        ("send_message", json!({"to": "@empty", "message": "x"}), "@empty"),
        ("list_peers", json!({"mesh_slug": "other"}), "team"),
        ("message_status", json!({"id": "!"}), "message_status"),
    ] {
        let (text, is_error) = bob.call(name, arguments).await?;
        assert!(is_error && text.starts_with(&format!("{name}: ")) && text.contains(words), "{name}: {text}");
    }
    let (text, is_error) = bob.call("no_such_tool", json!({})).await?;
    assert!(is_error && text == "Unknown tool: no_such_tool", "{text}");
    Ok(())
}
