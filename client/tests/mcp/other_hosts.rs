//! Hosts without channels and hooks: messages are announced on tool results and pulled, and nothing is claimed before.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use claudemesh::config::ConfigStore;
use claudemesh::mcp::{Surface, serve};
use claudemesh::paths::Env;
use claudemesh::session::Session;
use rmcp::model::{CallToolRequestParams, ClientConfig, CustomNotification, Implementation, JsonObject};
use rmcp::service::{NotificationContext, RoleClient, RunningService};
use rmcp::{ClientHandler, ServiceExt};
use serde_json::{Value, json};

use super::team::Team;

/// A host that introduces itself by this name and writes down what it is told.
#[derive(Clone)]
struct Host {
    name: &'static str,
    heard: Arc<Mutex<Vec<String>>>,
}

impl ClientHandler for Host {
    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        info.client_info = Implementation::new(self.name, "1.0.0");
        info
    }

    async fn on_custom_notification(&self, note: CustomNotification, _: NotificationContext<RoleClient>) {
        self.heard.lock().unwrap().push(note.params.unwrap_or_default().to_string());
    }
}

async fn call(client: &RunningService<RoleClient, Host>, name: &'static str, arguments: Value) -> Result<String> {
    let arguments: JsonObject = serde_json::from_value(arguments)?;
    let result = client.call_tool(CallToolRequestParams::new(name).with_arguments(arguments)).await?;
    assert_ne!(result.is_error, Some(true), "{name}: {:?}", result.content);
    Ok(result.content.iter().filter_map(|block| block.as_text()).map(|text| text.text.as_str()).collect())
}

#[tokio::test]
async fn a_host_without_channels_is_told_by_its_tools_and_pulls() -> Result<()> {
    for name in ["codex-mcp-client", "gemini-cli-mcp-client", "opencode"] {
        let team = Team::start().await?;
        let project = team.bob.project().to_string_lossy().into_owned();
        let env = Env::of(&[("CLAUDEMESH_DISPLAY_NAME", "BobS"), ("CLAUDE_MESH_PROJECT_PATH", &project)]);
        let session = Session::new(env, ConfigStore::at(team.bob.config_dir()), None, None);
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (input, output) = tokio::io::split(theirs);
        tokio::spawn(serve(Arc::clone(&session), Surface::Full, input, output));
        let heard = Arc::new(Mutex::new(vec![]));
        let host = Host { name, heard: Arc::clone(&heard) };
        let client = host.serve(tokio::io::split(ours)).await?;
        for bound in session.select(None).await.map_err(anyhow::Error::msg)? {
            bound.connection.ready(Duration::from_secs(10)).await?;
        }
        let sent = team.ann.json(&["send", "BobS", "use the old parser", "--json"])?;
        let id = sent["id"].as_str().or(sent["messageId"].as_str()).unwrap_or_default().to_owned();
        let stage = || team.ann.json(&["msg-status", &id, "--json"]).map(|status| status["stage"].clone());
        // The answer of any tool says what waits; the text comes only when it is asked for.
        let mut peers = String::new();
        for _ in 0..200 {
            peers = call(&client, "list_peers", json!({})).await?;
            if peers.contains("waits") {
                break;
            }
        }
        assert!(peers.contains("1 mesh message waits: check_messages reads it"), "{name}: {peers}");
        let before = stage()?;
        assert!(before == "stored" || before == "received", "{name}: no one has shown it yet: {before}");
        let read = call(&client, "check_messages", json!({})).await?;
        assert!(read.contains("use the old parser") && read.contains("Ann"), "{name}: {read}");
        // The next call shows that the model had its turn.
        call(&client, "list_peers", json!({})).await?;
        let mut after = stage()?;
        for _ in 0..200 {
            if after == "seen" {
                break;
            }
            after = stage()?;
        }
        assert_eq!(after, "seen", "{name}");
        let heard = heard.lock().unwrap().join("\n");
        assert!(!heard.contains("use the old parser"), "{name}: {heard}");
    }
    Ok(())
}
