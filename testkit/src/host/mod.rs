//! Claude Code's side of the MCP and channel contract, enforced to the letter.
//!
//! The real host drops what breaks a rule without a word, so a test against it cannot tell a lost message from a late
//! one. This one writes every breach down, and a test that did not look at them fails when the host is dropped.
//!
//! Here is its life: start, greeting, end. `rules` holds what it enforces, `link` the pipe to the server, `calls` the tools,
//! `notes` what the server says unasked.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

mod calls;
mod link;
mod notes;
mod rules;

pub use calls::{Call, ToolAnswer};
use link::Link;
pub use notes::ChannelNote;

/// How long an answer may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

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
    /// Notes that came while another one was waited for.
    passed: Vec<ChannelNote>,
    decisions: mpsc::UnboundedReceiver<(String, String)>,
    stderr: Option<tokio::task::JoinHandle<String>>,
    reader: Option<tokio::task::JoinHandle<()>>,
    next_id: u64,
    /// Result of `initialize`.
    pub initialized: Value,
}

impl Host {
    /// Starts the server, completes the handshake and lists the tools.
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
        if !host.initialized["capabilities"]["tools"].is_null() {
            // As the host does: from now on it knows what each tool may answer.
            host.tools().await?;
        }
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
            passed: Vec::new(),
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
        self.link.state().initialized(protocol, &result);
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
