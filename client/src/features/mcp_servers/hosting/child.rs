//! A server as a child process that speaks over its standard input and output.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::sdk::{Answers, MAX_MESSAGE_BYTES};

/// Variables of our environment that a server gets. Everything else stays here: a session's environment holds keys that are none of
/// the server's business. Certificates and proxies are needed where a company has its own.
const PASSED_ON: &[&str] = &[
    "HOME",
    "LOGNAME",
    "USER",
    "PATH",
    "SHELL",
    "TERM",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SYSTEMROOT",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "PATHEXT",
];
/// How long a server may take to end by itself once its input is closed, and then once it was asked to.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Lines of standard error that are kept, and the longest.
const MAX_ERROR_LINES: usize = 20;
const MAX_ERROR_LINE_BYTES: u64 = 1_000;
/// Bytes of the beginning and of the end of a message that is too long.
const ENDS_BYTES: usize = 4_096;

/// How long the last lines of a server that ended may take to be read.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(500);

/// The last lines that a server wrote to its standard error.
#[derive(Clone, Default)]
pub(super) struct LastWords {
    lines: Arc<Mutex<VecDeque<String>>>,
    /// All is read.
    read: Arc<watch::Sender<bool>>,
}

impl LastWords {
    /// The lines, once the server has ended.
    pub(super) async fn text(&self) -> String {
        let mut read = self.read.subscribe();
        // What it has started may hold the pipe open.
        let _ = tokio::time::timeout(LAST_WORDS_PATIENCE, read.wait_for(|read| *read)).await;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    async fn follow(self, stderr: ChildStderr) {
        let mut stderr = BufReader::new(stderr);
        loop {
            let mut line = Vec::new();
            match (&mut stderr).take(MAX_ERROR_LINE_BYTES).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => {
                    self.read.send_replace(true);
                    return;
                }
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == MAX_ERROR_LINES {
                lines.pop_front();
            }
            lines.push_back(text);
        }
    }
}

/// What is to be written, and who waits for it.
type Line = (Vec<u8>, oneshot::Sender<io::Result<()>>);

/// A running server.
pub(super) struct ChildServer {
    child: Child,
    /// Of the process group.
    pid: Option<u32>,
    lines: Option<mpsc::Sender<Line>>,
    output: BufReader<ChildStdout>,
    /// The line that is being read; the reading may be given up and begun again at any place.
    line: Vec<u8>,
    /// Of a line that is too long: its end, and how long it is by now.
    too_long: Option<(Vec<u8>, usize)>,
    answers: Answers,
}

impl ChildServer {
    /// Starts it, in a process group of its own and with an environment that holds nothing of the session.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(
        command: &str,
        args: &[String],
        env: impl IntoIterator<Item = (String, String)>,
        cwd: Option<&Path>,
        answers: Answers,
        last_words: LastWords,
    ) -> io::Result<Self> {
        let passed_on = std::env::vars_os()
            .filter(|(name, _)| name.to_str().is_some_and(|name| PASSED_ON.contains(&name) || name.starts_with("LC_")));
        let mut start = Command::new(command);
        start
            .args(args)
            .env_clear()
            .envs(passed_on)
            .envs(env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        start.process_group(0);
        if let Some(cwd) = cwd {
            start.current_dir(cwd);
        }
        let mut child = start.spawn()?;
        let missing = || io::Error::other("the process has no pipes");
        let (stdin, stdout) = (child.stdin.take().ok_or_else(missing)?, child.stdout.take().ok_or_else(missing)?);
        tokio::spawn(last_words.follow(child.stderr.take().ok_or_else(missing)?));
        let (lines, written) = mpsc::channel(16);
        tokio::spawn(write(stdin, written));
        Ok(Self {
            pid: child.id(),
            child,
            lines: Some(lines),
            output: BufReader::new(stdout),
            line: vec![],
            too_long: None,
            answers,
        })
    }

    /// Reads on to the end of a line. Safe to give up and call again.
    async fn next_line(&mut self) -> Option<()> {
        loop {
            let chunk = self.output.fill_buf().await.ok().filter(|chunk| !chunk.is_empty())?;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let piece = &chunk[..end.unwrap_or(chunk.len())];
            match &mut self.too_long {
                Some((tail, bytes)) => {
                    *bytes += piece.len();
                    tail.extend_from_slice(piece);
                    let surplus = tail.len().saturating_sub(ENDS_BYTES);
                    tail.drain(..surplus);
                }
                None if self.line.len() + piece.len() > MAX_MESSAGE_BYTES => {
                    let tail = piece[piece.len().saturating_sub(ENDS_BYTES)..].to_vec();
                    self.too_long = Some((tail, self.line.len() + piece.len()));
                    self.line.truncate(ENDS_BYTES);
                    self.line.shrink_to_fit();
                }
                None => self.line.extend_from_slice(piece),
            }
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.output.consume(taken);
            if end.is_some() {
                return Some(());
            }
        }
    }

    async fn end(&mut self) {
        // Its input is closed: a server of good manners ends now.
        self.lines = None;
        if tokio::time::timeout(END_PATIENCE, self.child.wait()).await.is_err() {
            self.end_group(true);
            if tokio::time::timeout(END_PATIENCE, self.child.wait()).await.is_err() {
                let _ = self.child.kill().await;
            }
        }
        self.end_group(false);
        self.pid = None;
    }

    /// Ends what the server has started itself: asked, or at once.
    #[cfg(unix)]
    fn end_group(&self, asked: bool) {
        use rustix::process::{Pid, Signal, kill_process_group};
        // The leader may have been waited for; its group may live on.
        if let Some(pid) = self.pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process_group(pid, if asked { Signal::TERM } else { Signal::KILL });
        }
    }

    #[cfg(not(unix))]
    fn end_group(&self, _asked: bool) {}
}

/// What it has started is not left behind when it is given up without a word.
impl Drop for ChildServer {
    fn drop(&mut self) {
        self.end_group(false);
    }
}

async fn write(mut stdin: ChildStdin, mut lines: mpsc::Receiver<Line>) {
    while let Some((line, done)) = lines.recv().await {
        let written = async {
            stdin.write_all(&line).await?;
            stdin.flush().await
        };
        let _ = done.send(written.await);
    }
}

impl Transport<RoleClient> for ChildServer {
    type Error = io::Error;

    fn send(&mut self, item: TxJsonRpcMessage<RoleClient>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.answers.note(&item);
        let line = serde_json::to_vec(&item).map_err(io::Error::other).map(|mut line| {
            line.push(b'\n');
            line
        });
        let lines = self.lines.clone();
        async move {
            let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
            let (done, written) = oneshot::channel();
            lines.ok_or_else(closed)?.send((line?, done)).await.map_err(|_| closed())?;
            written.await.map_err(|_| closed())?
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            self.next_line().await?;
            let line = std::mem::take(&mut self.line);
            let message = match self.too_long.take() {
                Some((tail, bytes)) => self.answers.too_long(&line, &tail, bytes),
                None if line.trim_ascii().is_empty() => None,
                None => self.answers.read(&String::from_utf8_lossy(&line)),
            };
            if message.is_some() {
                return message;
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.end().await;
        Ok(())
    }
}
