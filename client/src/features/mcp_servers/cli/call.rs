//! `call`, and `mesh-mcp list`, `schema`, `call`.

use std::time::Duration;

use clap::Args;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{Raw, ToolDef, limits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{McpListArgs, word};
use crate::context::Context;
use crate::context::connect::{Purpose, ask, block_on, connect};
use crate::error::{CliError, ExitCode};
use crate::features::mcp_servers::call::ToolCall;
use crate::features::messaging::cli::follow::stop_signal;
use crate::output::{Output, Style, clean_lines, one_line};
use crate::session::notes::harmless;
use crate::values::parse_duration;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, verbs};

/// Call a tool of an MCP server of the mesh.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh call everything echo '{\"message\": \"hi\"}'\n  \
                  claudemesh call search find '{\"text\": \"mesh\"}' --timeout 2m --json")]
pub struct CallArgs {
    /// The server.
    server: String,
    /// The tool.
    tool: String,
    /// Its arguments, as a JSON object [default: none].
    #[arg(value_name = "JSON")]
    args: Option<String>,
    /// How long it may take, at most 30m.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
}

/// What a tool answered, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Called {
    /// The tool did not say that it failed.
    ok: bool,
    /// What it answered, unchanged.
    result: Raw,
}

impl Verb for CallArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Called>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Called>>()]
    }

    /// Exit 1 when the tool says that it failed, 5 when there is no such server, 4 when its host is away or the call took too long.
    fn run(self, cx: &Context) -> Ran {
        let args: Map<String, Value> = match &self.args {
            None => Map::new(),
            Some(text) => serde_json::from_str(text).map_err(|error| {
                CliError::invalid_args(format!("The arguments are no JSON object: {error}."))
                    .hint("For example '{\"text\": \"hi\"}'.")
            })?,
        };
        let most = Duration::from_millis(limits::MAX_TIMEOUT_MS);
        if self.timeout.is_zero() || self.timeout > most {
            return Err(CliError::invalid_args("--timeout: expected at most 30m."));
        }
        // As it was written; it was read to see that it is an object.
        let args = match self.args {
            Some(text) => Raw::parse(text).unwrap_or_else(|_| Raw::of(&Value::Object(args))),
            None => Raw::of(&json!({})),
        };
        let entry = cx.mesh_entry()?;
        let call = ToolCall { server: self.server, tool: self.tool, args, timeout: self.timeout };
        let result = block_on(async {
            // A connection of its own, so that the call ends when this command does.
            let connection = connect(cx, &entry, Purpose::Watch).await?;
            let told = |notice: claudemesh_protocol::features::mcp_servers::McpCallProgress| {
                let total = notice.total.map(|total| format!(" of {total}")).unwrap_or_default();
                let message = notice.message.map(|text| format!(": {}", one_line(&text))).unwrap_or_default();
                cx.out.remark(&format!("{}{total}{message}", notice.progress));
            };
            let stop = stop_signal()?;
            let unwanted = async {
                let _ = stop.await;
            };
            let ended = connection.call_tool(call, told, unwanted).await;
            connection.close().await;
            Ok(ended?)
        })?;
        let result = result.map_err(|failed| {
            let code = failed.code.unwrap_or_else(|| ErrorCode::ToolFailed.as_str().to_owned());
            let exit = ErrorCode::parse(&code).map_or(ExitCode::Cancelled, ExitCode::of);
            let error = CliError::new(exit, code, crate::error::sentence(&clean_lines(&failed.message)));
            match failed.rpc_error {
                Some(raw) => error.field("rpcError", raw.value()),
                None => error,
            }
        })?;
        let value = result.value();
        let called = Called { ok: value["isError"] != true, result };
        cx.out.answer(&InMesh::new(&entry.slug, &called), |out| shown(&value, out))?;
        Ok(if called.ok { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::from(1) })
    }
}

/// A result for people: its texts, what else it has in a word, or JSON.
fn shown(result: &Value, out: &Output) -> String {
    let text = |text: &str| {
        let text = clean_lines(text);
        if out.is_for_model() { harmless(&text) } else { text.into_owned() }
    };
    let line = |one: &Value| {
        let of = |name: &str| one[name].as_str().unwrap_or_default();
        let size = |name: &str| of(name).len() / 4 * 3;
        match of("type") {
            "text" => text(of("text")),
            kind @ ("image" | "audio") => format!("[{kind} {}, {} bytes]", word(of("mimeType"), out), size("data")),
            "resource_link" => format!("[resource {}]", word(of("uri"), out)),
            "resource" => match one["resource"]["text"].as_str() {
                Some(content) => text(content),
                None => format!("[resource {}]", word(one["resource"]["uri"].as_str().unwrap_or_default(), out)),
            },
            _ => text(&one.to_string()),
        }
    };
    let lines: Vec<String> = match (&result["content"], result) {
        (Value::Array(content), _) if !content.is_empty() => content.iter().map(line).collect(),
        (_, Value::String(plain)) => vec![text(plain)],
        (_, other) => vec![text(&serde_json::to_string_pretty(other).unwrap_or_default())],
    };
    format!("{}\n", lines.join("\n"))
}

verbs! {
    /// List and call the MCP servers of the mesh, and show what their tools take.
    #[command(
        after_help = "Examples:\n  claudemesh mesh-mcp list\n  claudemesh mesh-mcp schema everything echo\n  \
                      claudemesh mesh-mcp call everything echo '{\"message\": \"hi\"}' --json"
    )]
    pub struct MeshMcpArgs: enum MeshMcpAction {
        List => McpListArgs,
        Schema => SchemaArgs,
        Call => CallArgs,
    }
}

/// Show what the tools of a server take.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh mesh-mcp schema everything\n  claudemesh mesh-mcp schema everything echo --json"
)]
pub struct SchemaArgs {
    /// The server.
    server: String,
    /// Only this tool.
    tool: Option<String>,
}

impl Verb for SchemaArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        vec!["mesh", "name", "description", "inputSchema"]
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<ToolDef>>()]
    }

    /// Exit 5 when there is no such server or tool.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let Self { server, tool } = self;
        let tools =
            ask(cx, &entry, |connection| async move { Ok(connection.mcp_schema(&server, tool.as_deref()).await?) })?;
        cx.out
            .answer(&InMesh::all(&entry.slug, &tools), |out| {
                let shown = |tool: &ToolDef| {
                    let about = tool.description.as_deref().map(clean_lines).unwrap_or_default();
                    let about = if out.is_for_model() { harmless(&about) } else { about.into_owned() };
                    let schema = tool.input_schema.clone().unwrap_or_default();
                    let schema = serde_json::to_string_pretty(&schema).unwrap_or_default();
                    let schema = clean_lines(&schema);
                    format!("{}\n{about}\n{schema}\n", out.paint(Style::Cyan, &word(&tool.name, out)))
                };
                tools.iter().map(shown).collect()
            })
            .map(done)
    }
}
