//! A session in this process, behind a pair of streams: the usual way to test a tool.
//!
//! ```text
//! let team = Team::start().await?;
//! let bob = Session::start(&team.bob, "BobS").await?;
//! let answer = bob.call("list_peers", json!({})).await?;
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use claudemesh::config::ConfigStore;
use claudemesh::mcp::{Surface, serve};
use claudemesh::paths::Env;
use claudemesh_testkit::cli::CommandLine;
use claudemesh_testkit::host::{PATIENCE, ToolAnswer};
use claudemesh_testkit::schema;
use rmcp::model::{CallToolRequestParams, JsonObject};
use rmcp::service::{NotificationContext, RoleClient, RunningService};
use rmcp::{ClientHandler, ServiceExt};
use serde_json::Value;
use tokio::sync::watch;

/// The host's side; it counts how often its lists were said to have changed.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) prompts_changed: Arc<watch::Sender<u32>>,
    pub(crate) resources_changed: Arc<watch::Sender<u32>>,
}

impl Default for Client {
    fn default() -> Self {
        let count = || Arc::new(watch::Sender::new(0));
        Self { prompts_changed: count(), resources_changed: count() }
    }
}

impl ClientHandler for Client {
    async fn on_prompt_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.prompts_changed.send_modify(|count| *count += 1);
    }

    async fn on_resource_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.resources_changed.send_modify(|count| *count += 1);
    }
}

pub(crate) struct Session {
    pub(crate) client: RunningService<RoleClient, Client>,
    /// Tool and its output schema.
    outputs: HashMap<String, Option<Value>>,
}

impl Session {
    /// A session of this person, connected to every mesh that it has joined.
    pub(crate) async fn start(person: &CommandLine, name: &str) -> Result<Self> {
        Self::start_with(person, name, &[]).await
    }

    /// The same with more variables in its environment.
    pub(crate) async fn start_with(person: &CommandLine, name: &str, more: &[(&str, &str)]) -> Result<Self> {
        let project = person.project().to_string_lossy().into_owned();
        let env = [&[("CLAUDE_PROJECT_DIR", project.as_str()), ("CLAUDEMESH_DISPLAY_NAME", name)], more].concat();
        let env = Env::of(&env);
        let session = claudemesh::session::Session::new(env, ConfigStore::at(person.config_dir()), None, None);
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (input, output) = tokio::io::split(theirs);
        tokio::spawn(serve(Arc::clone(&session), Surface::Full, input, output));
        let client = Client::default().serve(tokio::io::split(ours)).await?;
        for bound in session.select(None).await.map_err(anyhow::Error::msg)? {
            bound.connection.ready(PATIENCE).await?;
        }
        let tools = client.list_all_tools().await?.into_iter();
        let output = |tool: rmcp::model::Tool| {
            (tool.name.into_owned(), tool.output_schema.map(|schema| Value::Object((*schema).clone())))
        };
        Ok(Self { client, outputs: tools.map(output).collect() })
    }

    /// Calls a tool. What it answers must be what its schema says.
    pub(crate) async fn call(&self, name: &'static str, arguments: Value) -> Result<ToolAnswer> {
        let arguments: JsonObject = serde_json::from_value(arguments)?;
        let result = self.client.call_tool(CallToolRequestParams::new(name).with_arguments(arguments)).await?;
        let text = result.content.iter().filter_map(|block| block.as_text()).map(|text| text.text.as_str()).collect();
        let is_error = result.is_error == Some(true);
        match (self.outputs.get(name).and_then(Option::as_ref), &result.structured_content) {
            _ if is_error => {}
            (None, None) => {}
            (Some(schema), Some(data)) => {
                schema::fits(schema, data).map_err(|wrong| anyhow::anyhow!("{name}{wrong}"))?
            }
            (schema, data) => bail!("{name}: schema {schema:?}, data {data:?}"),
        }
        Ok(ToolAnswer { text, is_error, structured: result.structured_content.unwrap_or_default() })
    }
}
