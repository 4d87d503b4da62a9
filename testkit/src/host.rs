//! Claude Code's side of the MCP and channel contract, enforced to the letter.
//!
//! The real host drops what breaks a rule without a word, so a test against it cannot tell a lost message from a late
//! one. This one writes every breach down, and a test that did not look at them fails when the host is dropped.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot, watch};

/// How long an answer may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The host cuts instructions and tool descriptions here.
const MAX_DESCRIPTION: usize = 2048;
/// The host drops a tool whose full name is longer.
const MAX_TOOL_NAME: usize = 128;
/// One line of stdout.
const MAX_LINE: usize = 4 << 20;

/// What to start and how to greet it.
pub struct Options {
    /// The server's program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment beyond ours.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Whether `server/discover` is asked first, as 2.1.329 does.
    pub discover: bool,
    /// What `initialize` asks for.
    pub protocol: String,
}

impl Options {
    /// `<program> mcp`, greeted as the newest host does.
    pub fn new(program: impl Into<PathBuf>, cwd: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: vec!["mcp".into()],
            env: Vec::new(),
            cwd: cwd.into(),
            discover: true,
            protocol: "2025-11-25".into(),
        }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// A message as the session would see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelNote {
    /// Body.
    pub content: String,
    /// Attributes.
    pub meta: HashMap<String, String>,
}

/// What a tool said.
#[derive(Clone, Debug)]
pub struct ToolAnswer {
    /// All text blocks, joined.
    pub text: String,
    /// `isError`
    pub is_error: bool,
    /// `structuredContent`, or `null`.
    pub structured: Value,
}

/// A tool call that is under way.
#[derive(Debug)]
pub struct Call {
    name: String,
    id: u64,
    answer: oneshot::Receiver<Value>,
}

/// How the server ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// Everything it wrote to stderr.
    pub stderr: String,
}

/// A running server and the session around it.
pub struct Host {
    child: Child,
    link: Arc<Link>,
    notes: mpsc::UnboundedReceiver<ChannelNote>,
    decisions: mpsc::UnboundedReceiver<(String, String)>,
    stderr: Option<tokio::task::JoinHandle<String>>,
    reader: Option<tokio::task::JoinHandle<()>>,
    next_id: u64,
    /// Result of `initialize`.
    pub initialized: Value,
}

struct Link {
    stdin: tokio::sync::Mutex<Option<ChildStdin>>,
    state: Mutex<State>,
    notes: mpsc::UnboundedSender<ChannelNote>,
    decisions: mpsc::UnboundedSender<(String, String)>,
    /// How many signs of life each call gave.
    heard: watch::Sender<HashMap<u64, usize>>,
    cwd: PathBuf,
}

#[derive(Default)]
struct State {
    pending: HashMap<u64, oneshot::Sender<Value>>,
    /// Calls that the host gave up: an answer to them may still come.
    cancelled: HashSet<u64>,
    /// Last sign of life of each call.
    progress: HashMap<u64, f64>,
    violations: Vec<String>,
    greeted: bool,
    channel: bool,
    /// The server relays permission questions.
    relays: bool,
    /// Ids of questions that are open in the dialog.
    asked: HashSet<String>,
    lists_changed: u32,
}

impl Host {
    /// Starts the server and completes the handshake.
    ///
    /// # Errors
    /// It cannot be started, does not answer, or its handshake breaks a rule.
    pub async fn start(options: Options) -> Result<Self> {
        let mut host = Self::spawn(&options)?;
        if options.discover {
            // A server that does not speak the newer protocol must say so at once; silence costs every start 3 s.
            let answer = host
                .request(
                    "server/discover",
                    json!({"_meta": {
                        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                        "io.modelcontextprotocol/clientInfo": {"name": "claude-code", "version": "2.1.329"},
                        "io.modelcontextprotocol/clientCapabilities": {"roots": {"listChanged": true}},
                    }}),
                )
                .await?;
            if answer["error"]["code"] != -32601 {
                bail!("server/discover must be answered with -32601, got {answer}");
            }
        }
        host.initialize(&options.protocol).await?;
        Ok(host)
    }

    /// Starts the server without greeting it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(options: &Options) -> Result<Self> {
        let mut command = Command::new(&options.program);
        command.args(&options.args).envs(options.env.iter().cloned()).current_dir(&options.cwd);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting {}", options.program.display()))?;
        let (notes_in, notes) = mpsc::unbounded_channel();
        let (decisions_in, decisions) = mpsc::unbounded_channel();
        let link = Arc::new(Link {
            stdin: tokio::sync::Mutex::new(child.stdin.take()),
            state: Mutex::default(),
            notes: notes_in,
            decisions: decisions_in,
            heard: watch::Sender::default(),
            cwd: options.cwd.clone(),
        });
        let stdout = BufReader::new(child.stdout.take().context("stdout was piped")?);
        let mut errors = child.stderr.take().context("stderr was piped")?;
        let stderr = tokio::spawn(async move {
            let mut text = Vec::new();
            errors.read_to_end(&mut text).await.ok();
            String::from_utf8_lossy(&text).into_owned()
        });
        let reader = tokio::spawn(link.clone().read(stdout));
        Ok(Self {
            child,
            link,
            notes,
            decisions,
            stderr: Some(stderr),
            reader: Some(reader),
            next_id: 0,
            initialized: Value::Null,
        })
    }

    /// `initialize` and `notifications/initialized`.
    ///
    /// # Errors
    /// No answer, or one that breaks a rule.
    pub async fn initialize(&mut self, protocol: &str) -> Result<()> {
        let answer = self
            .request(
                "initialize",
                json!({
                    "protocolVersion": protocol,
                    "capabilities": {"roots": {"listChanged": true}, "elicitation": {"form": {}, "url": {}}},
                    "clientInfo": {"name": "claude-code", "title": "Claude Code", "version": "2.1.329"},
                }),
            )
            .await?;
        let result = answer.get("result").with_context(|| format!("initialize failed: {answer}"))?.clone();
        {
            let mut state = self.link.state();
            let version = result["protocolVersion"].as_str().unwrap_or_default().to_owned();
            if version.is_empty() || version.as_str() > protocol {
                state.breach(format!("initialize answered with revision `{version}`, asked for {protocol}"));
            }
            if result["serverInfo"]["name"].as_str().is_none_or(str::is_empty) {
                state.breach("serverInfo.name is missing".into());
            }
            if result["instructions"].as_str().is_some_and(|text| text.len() > MAX_DESCRIPTION) {
                state.breach(format!("instructions over {MAX_DESCRIPTION} bytes are cut by the host"));
            }
            state.channel = result["capabilities"]["experimental"]["claude/channel"].is_object();
            state.relays = match &result["capabilities"]["experimental"]["claude/channel/permission"] {
                Value::Null => false,
                Value::Object(_) => true,
                other => {
                    state.breach(format!("older hosts take `{other}` for a declared permission relay"));
                    false
                }
            };
            // From the moment the notification is written, the server may speak.
            state.greeted = true;
        }
        self.initialized = result;
        self.notify("notifications/initialized", Value::Null).await
    }

    /// Asks and returns the whole answer (`result` or `error`).
    ///
    /// # Errors
    /// No answer.
    pub async fn request(&mut self, method: &str, params: Value) -> Result<Value> {
        let (_, receiver) = self.start_request(method, params).await?;
        self.answered(method, receiver).await
    }

    async fn start_request(&mut self, method: &str, params: Value) -> Result<(u64, oneshot::Receiver<Value>)> {
        let id = self.next_id;
        self.next_id += 1;
        let (sender, receiver) = oneshot::channel();
        self.link.state().pending.insert(id, sender);
        let mut frame = json!({"jsonrpc": "2.0", "id": id, "method": method});
        if !params.is_null() {
            frame["params"] = params;
        }
        self.link.write(&frame).await?;
        Ok((id, receiver))
    }

    async fn answered(&self, what: &str, answer: oneshot::Receiver<Value>) -> Result<Value> {
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => bail!("the server ended before it answered {what}"),
            Err(_) => bail!("no answer to {what} in {PATIENCE:?}; breaches so far: {:?}", self.violations()),
        }
    }

    /// Tells.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn notify(&mut self, method: &str, params: Value) -> Result<()> {
        let mut frame = json!({"jsonrpc": "2.0", "method": method});
        if !params.is_null() {
            frame["params"] = params;
        }
        self.link.write(&frame).await
    }

    /// Writes any line.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn raw_line(&mut self, line: &str) -> Result<()> {
        self.link.write_line(line).await
    }

    /// The list of tools, with the host's rules checked.
    ///
    /// # Errors
    /// No answer.
    pub async fn tools(&mut self) -> Result<Vec<Value>> {
        let answer = self.request("tools/list", Value::Null).await?;
        let tools = answer["result"]["tools"].as_array().with_context(|| format!("no tools: {answer}"))?.clone();
        let mut state = self.link.state();
        for tool in &tools {
            let name = tool["name"].as_str().unwrap_or_default();
            if name.is_empty() || !name.chars().all(|symbol| symbol.is_ascii_alphanumeric() || "_-".contains(symbol)) {
                state.breach(format!("tool name `{name}`: the host replaces everything but letters, digits, _ and -"));
            }
            if name.len() + "mcp__plugin_claudemesh_claudemesh__".len() > MAX_TOOL_NAME {
                state.breach(format!("tool name `{name}` is too long with the host's prefix"));
            }
            if tool["description"].as_str().is_none_or(|text| text.is_empty() || text.len() > MAX_DESCRIPTION) {
                state.breach(format!("tool `{name}`: expected a description of 1 to {MAX_DESCRIPTION} bytes"));
            }
            if tool["inputSchema"]["type"] != "object" {
                state.breach(format!("tool `{name}`: inputSchema must be of type object"));
            }
        }
        drop(state);
        Ok(tools)
    }

    /// Calls a tool as the host does, with its `_meta`.
    ///
    /// # Errors
    /// No answer, or a protocol error.
    pub async fn tool(&mut self, name: &str, arguments: Value) -> Result<ToolAnswer> {
        let call = self.start_tool(name, arguments).await?;
        self.finish(call).await
    }

    /// Calls a tool and goes on; [`Self::finish`] takes the answer.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn start_tool(&mut self, name: &str, arguments: Value) -> Result<Call> {
        let meta = json!({"claudecode/toolUseId": format!("toolu_{}", self.next_id), "progressToken": self.next_id});
        let params = json!({"name": name, "arguments": arguments, "_meta": meta});
        let (id, answer) = self.start_request("tools/call", params).await?;
        Ok(Call { name: name.to_owned(), id, answer })
    }

    /// Gives a call up, as the host does when its user interrupts.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn cancel(&mut self, call: Call) -> Result<()> {
        {
            let mut state = self.link.state();
            state.pending.remove(&call.id);
            state.cancelled.insert(call.id);
        }
        self.notify("notifications/cancelled", json!({"requestId": call.id, "reason": "the user interrupted"})).await
    }

    /// Waits until the server told how a call gets on, at least so many times.
    ///
    /// # Errors
    /// It does not.
    pub async fn progressed(&mut self, call: &Call, times: usize) -> Result<()> {
        let mut heard = self.link.heard.subscribe();
        let id = call.id;
        let enough = heard.wait_for(|heard| heard.get(&id).is_some_and(|count| *count >= times));
        tokio::time::timeout(PATIENCE, enough).await.context("no sign of life of the call")??;
        Ok(())
    }

    /// The answer to a call.
    ///
    /// # Errors
    /// No answer, or a protocol error.
    pub async fn finish(&mut self, call: Call) -> Result<ToolAnswer> {
        let Call { name, answer, .. } = call;
        let answer = self.answered(&name, answer).await?;
        let result = answer.get("result").with_context(|| format!("{name} failed: {answer}"))?;
        let blocks = result["content"].as_array().with_context(|| format!("{name}: no content: {answer}"))?;
        let text = blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n");
        let is_error = result["isError"].as_bool().unwrap_or(false);
        Ok(ToolAnswer { text, is_error, structured: result["structuredContent"].clone() })
    }

    /// The next message that reached the session.
    ///
    /// # Errors
    /// None comes.
    pub async fn channel(&mut self) -> Result<ChannelNote> {
        match tokio::time::timeout(PATIENCE, self.notes.recv()).await {
            Ok(Some(note)) => Ok(note),
            Ok(None) => bail!("the server ended"),
            Err(_) => bail!("no channel message in {PATIENCE:?}; breaches so far: {:?}", self.violations()),
        }
    }

    /// The first message (others before it are dropped) whose body holds the text.
    ///
    /// # Errors
    /// None comes.
    pub async fn channel_with(&mut self, text: &str) -> Result<ChannelNote> {
        loop {
            let note = self.channel().await.with_context(|| format!("waiting for `{text}`"))?;
            if note.content.contains(text) {
                return Ok(note);
            }
        }
    }

    /// Whether the server takes permission questions: the host sends them to no other.
    pub fn relays_permissions(&self) -> bool {
        self.link.state().relays
    }

    /// Opens a permission dialog and tells the server of it.
    ///
    /// # Errors
    /// The server is gone, or takes no such questions.
    pub async fn ask_permission(&mut self, id: &str, tool: &str, preview: &str) -> Result<()> {
        anyhow::ensure!(self.relays_permissions(), "the server has not declared that it relays permissions");
        self.link.state().asked.insert(id.to_owned());
        let params = json!({
            "request_id": id, "tool_name": tool, "description": "What it does", "input_preview": preview,
        });
        self.notify("notifications/claude/channel/permission_request", params).await
    }

    /// The next decision that counts in a dialog: id and behaviour.
    ///
    /// # Errors
    /// None comes.
    pub async fn permission(&mut self) -> Result<(String, String)> {
        match tokio::time::timeout(PATIENCE, self.decisions.recv()).await {
            Ok(Some(decision)) => Ok(decision),
            _ => bail!("no permission decision within {PATIENCE:?}; breaches so far: {:?}", self.violations()),
        }
    }

    /// Messages that came and were not taken.
    pub fn untaken(&mut self) -> Vec<ChannelNote> {
        std::iter::from_fn(|| self.notes.try_recv().ok()).collect()
    }

    /// How often the server said that its tools changed.
    pub fn lists_changed(&self) -> u32 {
        self.link.state().lists_changed
    }

    /// Every broken rule so far.
    pub fn violations(&self) -> Vec<String> {
        self.link.state().violations.clone()
    }

    /// Process id of the server.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends the session as the host does: SIGINT.
    ///
    /// # Errors
    /// The server does not end within a few seconds, or broke a rule.
    #[expect(unsafe_code, reason = "kill(2) has no safe form in std; the pid is that of our own unreaped child")]
    pub async fn end(mut self) -> Result<Ended> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            unsafe {
                libc::kill(pid, libc::SIGINT);
            }
        }
        self.wait().await
    }

    /// Ends the session as a killed host does: stdin closes.
    ///
    /// # Errors
    /// As [`Self::end`].
    pub async fn hang_up(mut self) -> Result<Ended> {
        self.link.stdin.lock().await.take();
        self.wait().await
    }

    async fn wait(&mut self) -> Result<Ended> {
        let status = tokio::time::timeout(Duration::from_secs(5), self.child.wait())
            .await
            .context("the server did not end within 5 s")??;
        if let Some(reader) = self.reader.take() {
            reader.await?;
        }
        let stderr = match self.stderr.take() {
            Some(task) => task.await?,
            None => String::new(),
        };
        let broken = std::mem::take(&mut self.link.state().violations);
        if !broken.is_empty() {
            bail!("the server broke the contract: {broken:#?}\nstderr:\n{stderr}");
        }
        Ok(Ended { status, stderr })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let broken = self.violations();
        if !broken.is_empty() && !std::thread::panicking() {
            panic!("the server broke the contract: {broken:#?}");
        }
    }
}

impl State {
    fn breach(&mut self, what: String) {
        self.violations.push(what);
    }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, frame: &Value) -> Result<()> {
        self.write_line(&frame.to_string()).await
    }

    async fn write_line(&self, line: &str) -> Result<()> {
        let mut stdin = self.stdin.lock().await;
        let stdin = stdin.as_mut().context("stdin is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    async fn read(self: Arc<Self>, mut stdout: impl tokio::io::AsyncBufRead + Unpin) {
        let mut line = Vec::new();
        loop {
            line.clear();
            match stdout.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            if line.pop() != Some(b'\n') {
                self.state().breach(format!("the last line has no end: {}", String::from_utf8_lossy(&line)));
                break;
            }
            if line.len() > MAX_LINE {
                self.state().breach(format!("a line of {} bytes", line.len()));
            }
            match serde_json::from_slice::<Value>(&line) {
                Ok(frame) if frame.is_object() => self.frame(frame).await,
                _ => self.state().breach(format!("not one JSON object per line: {}", String::from_utf8_lossy(&line))),
            }
        }
        // Whoever still waits learns that nothing will come.
        self.state().pending.clear();
    }

    async fn frame(&self, frame: Value) {
        if frame["jsonrpc"] != "2.0" {
            self.state().breach(format!("no JSON-RPC 2.0 frame: {frame}"));
        }
        match (frame.get("method").and_then(Value::as_str), frame.get("id")) {
            (None, Some(id)) => {
                let waiting = id.as_u64().and_then(|id| self.state().pending.remove(&id));
                if id.as_u64().is_some_and(|id| self.state().cancelled.remove(&id)) {
                    return;
                }
                if frame.get("result").is_some() == frame.get("error").is_some() {
                    self.state().breach(format!("an answer needs either result or error: {frame}"));
                }
                match waiting {
                    Some(waiting) => drop(waiting.send(frame)),
                    None => self.state().breach(format!("an answer nobody asked for: {frame}")),
                }
            }
            (Some(method), id) => {
                if !self.state().greeted {
                    self.state().breach(format!("`{method}` before notifications/initialized is lost"));
                }
                match id.cloned() {
                    Some(id) => self.answer(method, id).await,
                    None => self.notified(method, &frame),
                }
            }
            (None, None) => self.state().breach(format!("neither request nor answer: {frame}")),
        }
    }

    async fn answer(&self, method: &str, id: Value) {
        let result = match method {
            "ping" => Some(json!({})),
            "roots/list" => Some(json!({"roots": [{"uri": format!("file://{}", self.cwd.display())}]})),
            "elicitation/create" => Some(json!({"action": "cancel"})),
            _ => None,
        };
        let frame = match result {
            Some(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            None => json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}}),
        };
        // A server that has ended meanwhile needs no answer.
        self.write(&frame).await.ok();
    }

    fn notified(&self, method: &str, frame: &Value) {
        let params = &frame["params"];
        match method {
            "notifications/claude/channel" => self.note(params),
            "notifications/claude/channel/permission" => self.decided(params),
            "notifications/tools/list_changed" => self.state().lists_changed += 1,
            "notifications/prompts/list_changed" | "notifications/resources/list_changed" => {}
            "notifications/resources/updated" | "notifications/message" => {}
            "notifications/progress" => self.progress(params),
            "notifications/cancelled" => {}
            other => self.state().breach(format!("the host does not know `{other}`")),
        }
    }

    fn decided(&self, params: &Value) {
        let mut state = self.state();
        if !state.relays {
            state.breach("a permission without the capability experimental[\"claude/channel/permission\"]".into());
        }
        let (Some(id), Some(behavior), Some(2)) =
            (params["request_id"].as_str(), params["behavior"].as_str(), params.as_object().map(serde_json::Map::len))
        else {
            return state.breach(format!("a permission has request_id and behavior, both strings: {params}"));
        };
        if !matches!(behavior, "allow" | "deny") {
            state.breach(format!("behavior is allow or deny: {params}"));
        }
        // The host ignores an id that it does not wait for; a server that sends one has lost count.
        if !state.asked.remove(id) {
            state.breach(format!("a permission nobody asked for: {params}"));
        }
        drop(state);
        self.decisions.send((id.to_owned(), behavior.to_owned())).ok();
    }

    fn progress(&self, params: &Value) {
        let mut state = self.state();
        let (Some(id), Some(value)) = (params["progressToken"].as_u64(), params["progress"].as_f64()) else {
            return state.breach(format!("progress needs the token of its call and a number: {params}"));
        };
        if !state.pending.contains_key(&id) && !state.cancelled.contains(&id) {
            return state.breach(format!("progress of a call that is not under way: {params}"));
        }
        if state.progress.insert(id, value).is_some_and(|before| value <= before) {
            state.breach(format!("progress must grow: {params}"));
        }
        drop(state);
        self.heard.send_modify(|heard| *heard.entry(id).or_default() += 1);
    }

    fn note(&self, params: &Value) {
        let mut state = self.state();
        if !state.channel {
            state.breach("a channel message without the capability experimental[\"claude/channel\"]".into());
        }
        let Some(content) = params["content"].as_str() else {
            return state.breach(format!("channel content must be a string: {params}"));
        };
        if let Some(other) =
            params.as_object().and_then(|map| map.keys().find(|key| !matches!(key.as_str(), "content" | "meta")))
        {
            state.breach(format!("the channel has content and meta, not `{other}`"));
        }
        if content.to_ascii_lowercase().contains("</channel") {
            state.breach(format!("a body that can end its element: {content}"));
        }
        let mut meta = HashMap::new();
        match &params["meta"] {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map {
                    if key.is_empty() || !key.chars().all(|symbol| symbol.is_ascii_alphanumeric() || symbol == '_') {
                        state.breach(format!("meta key `{key}`: the host drops it"));
                    }
                    match value.as_str() {
                        Some(text) => {
                            if text.contains(['"', '<', '>', '\n', '\r']) {
                                state.breach(format!("meta `{key}` can end its attribute: {text}"));
                            }
                            meta.insert(key.clone(), text.to_owned());
                        }
                        None => state.breach(format!("meta `{key}` is no string: the host loses the whole message")),
                    }
                }
            }
            other => state.breach(format!("meta must be a map of strings: {other}")),
        }
        self.notes.send(ChannelNote { content: content.to_owned(), meta }).ok();
    }
}
