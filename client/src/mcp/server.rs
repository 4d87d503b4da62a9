//! The MCP server: capabilities, instructions, and the tools of all features.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rmcp::ServerHandler;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, CustomNotification, ErrorData,
    ExperimentalCapabilities, GetPromptRequestParams, GetPromptResponse, Implementation, InitializeRequestParams,
    InitializeResult, JsonObject, ListPromptsResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{NotificationContext, RequestContext, RoleServer};
use serde_json::Value;

use super::surface::{Remarks, Surface};
use super::{instructions, params, tools};
use crate::features::permissions;
use crate::session::Session;

/// The capability without which the host drops every note.
const CHANNEL: &str = "claude/channel";
/// A host that negotiates a newer revision over stdio does not register channels.
const NEWEST: ProtocolVersion = ProtocolVersion::V_2025_11_25;

/// The tool whose answers come from another server and are passed on as they are.
const PASSED_ON: &str = "mesh_tool_call";

/// One session's server.
#[derive(Clone)]
pub struct MeshServer {
    pub(crate) session: Arc<Session>,
    tools: Arc<ToolRouter<Self>>,
    surface: Surface,
    remarks: Arc<Remarks>,
}

impl MeshServer {
    /// The server of a session, with these tools.
    pub fn new(session: Arc<Session>, surface: Surface) -> Self {
        Self { session, tools: Arc::new(tools::all()), surface, remarks: Arc::default() }
    }

    /// Every tool of every feature.
    pub fn all_tools() -> Vec<Tool> {
        tools::all().list_all()
    }

    /// Names of all tools, sorted.
    pub fn tool_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tools.list_all().iter().map(|tool| tool.name.to_string()).collect();
        names.sort_unstable();
        names
    }
}

impl ServerHandler for MeshServer {
    fn get_info(&self) -> ServerConfig {
        let mut experimental = ExperimentalCapabilities::new();
        experimental.insert(CHANNEL.into(), JsonObject::new());
        if permissions::channel::is_on(self.session.store()) {
            experimental.insert(permissions::channel::CAPABILITY.into(), JsonObject::new());
        }
        let capabilities = ServerCapabilities::builder()
            .enable_experimental_with(experimental)
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .build();
        let who = self.session.identity();
        let text = instructions::text(
            &who.name,
            who.role.as_deref(),
            &self.session.slugs(),
            self.session.mode(),
            self.surface,
        );
        InitializeResult::new(capabilities)
            .with_server_info(Implementation::new("claudemesh", env!("CARGO_PKG_VERSION")))
            .with_protocol_version(NEWEST)
            .with_instructions(text)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(ProtocolVersion::known_up_to(&NEWEST))
    }

    async fn initialize(
        &self,
        mut request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let result = self.negotiate_initialize(&request)?;
        // Later answers are shaped for the agreed revision, not for the one that was asked for.
        request.protocol_version = result.protocol_version.clone();
        context.peer.set_peer_info(request);
        Ok(result)
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let client = context.peer.peer_info().map(|info| info.client_info.clone());
        let (name, version) = client.map(|client| (client.name, client.version)).unwrap_or_default();
        self.session.greeted(&name, &version);
        self.session.gate.open(context.peer);
    }

    async fn on_custom_notification(&self, notification: CustomNotification, context: NotificationContext<RoleServer>) {
        if !permissions::channel::notified(&self.session, &notification, context.peer) {
            tracing::debug!(method = notification.method, "a notification that no one knows");
        }
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let surface = self.surface;
        let tools = self.tools.list_all().into_iter().filter_map(|tool| surface.list(tool)).collect();
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(self.prompts().await)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        self.prompt(&request).await.map(Into::into)
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(self.resources().await)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        self.resource(&request).await.map(Into::into)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let id = context.id.clone();
        Ok(self.session.answers.of_call(id, Box::pin(self.call(request, context))).await)
    }
}

impl MeshServer {
    async fn call(&self, mut request: CallToolRequestParams, context: RequestContext<RoleServer>) -> CallToolResponse {
        let counters = &self.session.counters;
        counters.tool_calls.fetch_add(1, Ordering::Relaxed);
        self.session.called().await;
        let name = request.name.clone();
        if !self.tools.has_route(&name) {
            counters.errors.fetch_add(1, Ordering::Relaxed);
            let text = format!("Unknown tool: {}", crate::output::clean(&name));
            return CallToolResult::error(vec![ContentBlock::text(text)]).into();
        }
        if !self.surface.offers(&name) {
            counters.errors.fetch_add(1, Ordering::Relaxed);
            let text = self.surface.refusal(&name);
            return CallToolResult::error(vec![ContentBlock::text(text)]).into();
        }
        self.remarks.called(&name);
        // Bad arguments are the model's to correct, so it must be able to read what is wrong with them.
        let schema = self.tools.get(&name).map(|tool| Arc::clone(&tool.input_schema)).unwrap_or_default();
        match params::read(&schema, request.arguments.take()) {
            Ok(arguments) => request.arguments = Some(arguments),
            Err(error) => {
                counters.errors.fetch_add(1, Ordering::Relaxed);
                return CallToolResult::error(vec![ContentBlock::text(format!("{name}: {error}"))]).into();
            }
        }
        let mut response = match self.tools.call(ToolCallContext::new(self, request, context)).await {
            Ok(response) => response,
            Err(error) => CallToolResult::error(vec![ContentBlock::text(error.message.into_owned())]).into(),
        };
        if let CallToolResponse::Complete(result) = &mut response
            && result.is_error == Some(true)
        {
            counters.errors.fetch_add(1, Ordering::Relaxed);
            // Tools say what is wrong; whose failure it is, is said here.
            if name != PASSED_ON
                && let Some(ContentBlock::Text(text)) = result.content.first_mut()
            {
                text.text.insert_str(0, &format!("{name}: "));
            }
        }
        if name != "check_messages"
            && name != PASSED_ON
            && let CallToolResponse::Complete(result) = &mut response
            && let Some(notice) = self.session.notice().await
        {
            // Hosts show the data in place of the text when there is some.
            if let Some(Value::Object(data)) = &mut result.structured_content {
                data.insert("notice".into(), notice.clone().into());
            }
            result.content.push(ContentBlock::text(format!("({notice})")));
        }
        response
    }
}
