//! A session of Claude Code that stays open: prompts go in as JSON lines, its turns come out.

use std::process::Stdio;

use anyhow::{Context, Result};
use claudemesh_testkit::broker::TestBroker;
use claudemesh_testkit::host::PATIENCE;
use claudemesh_testkit::model::{Model, Turn};
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::wait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::lab::Lab;

/// Display name of the session.
pub(crate) const NAME: &str = "worker";

/// A lab with a mesh, an installed claudemesh and someone who watches.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    _broker: TestBroker,
    pub(crate) watcher: TestPeer,
}

impl Stage {
    pub(crate) async fn new() -> Result<Self> {
        Self::installed(&[]).await
    }

    /// With `claudemesh install <args>`.
    pub(crate) async fn installed(args: &[&str]) -> Result<Self> {
        let stage = Self::bare().await?;
        let mut install = stage.lab.program.command(&["install"]);
        install.args(args).env("CLAUDE_CONFIG_DIR", stage.lab.config()).stdout(Stdio::piped()).stderr(Stdio::piped());
        stage.lab.good(install).await?;
        Ok(stage)
    }

    /// With nothing installed.
    pub(crate) async fn bare() -> Result<Self> {
        let lab = Lab::new()?;
        let (broker, watcher) = lab.team().await?;
        Ok(Self { lab, _broker: broker, watcher })
    }

    /// Sessions of the mesh by the name of ours: `(key, status)`.
    pub(crate) async fn sessions(&mut self) -> Result<Vec<Value>> {
        let list = self.watcher.ask(json!({"type": "list_peers"})).await?;
        let peers = list["peers"].as_array().cloned().unwrap_or_default();
        Ok(peers.into_iter().filter(|peer| peer["displayName"] == NAME && peer["online"] != false).collect())
    }

    /// The key of our session, once it is there.
    pub(crate) async fn key(&mut self) -> Result<String> {
        // A session that comes back within its lease is no event.
        let peer = async || Ok(self.sessions().await?.first().cloned());
        let peer = wait::until("the session comes into the mesh", PATIENCE, peer).await?;
        Ok(peer["pubkey"].as_str().context("a key")?.to_owned())
    }

    /// Waits until our session has left the mesh.
    pub(crate) async fn gone(&mut self) -> Result<()> {
        let gone = async || Ok(self.sessions().await?.is_empty().then_some(()));
        wait::until("the session leaves the mesh", PATIENCE, gone).await
    }

    /// Processes of our program in this lab, by their command lines.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        self.lab.processes()
    }

    /// How the routes of the session stand, as its server says on the local socket.
    pub(crate) fn routes(&self) -> Result<Value> {
        use std::io::{BufRead, BufReader, Write};
        let store = claudemesh::config::ConfigStore::at(self.lab.program.config_dir());
        let server = store.servers().pop().context("the session has a server")?;
        let mut stream = std::os::unix::net::UnixStream::connect(&server.socket)?;
        stream.write_all(b"{\"op\":\"routes\"}\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Whether the session's inbox socket is used.
    pub(crate) fn inbox_socket(&self) -> Result<bool> {
        Ok(self.routes()?["inbox_socket"] == "open")
    }

    /// Waits until that many messages wait in the session's server for a way in.
    pub(crate) async fn arrived(&self, count: i64) -> Result<()> {
        let arrived = async || Ok((self.routes()?["unshown"].as_i64() >= Some(count)).then_some(()));
        let waited = wait::until("messages arrive at the session", PATIENCE, arrived).await;
        waited.with_context(|| format!("{:?}", self.routes()))
    }

    /// Waits until no process of our program is left.
    pub(crate) async fn quiet(&self) -> Result<()> {
        let quiet = async || Ok(self.processes().is_empty().then_some(()));
        let waited = wait::until("our processes end", 2 * PATIENCE, quiet).await;
        waited.with_context(|| format!("still there: {:?}", self.processes()))
    }
}

/// How long a session may take to end with its input, beside other work.
const QUICK_END: std::time::Duration = std::time::Duration::from_secs(15);

/// A running session.
pub(crate) struct Live {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    /// Claude's session id.
    pub(crate) id: String,
}

impl Live {
    /// Starts a session and plays one turn, so that everything is connected.
    pub(crate) async fn start(stage: &Stage, model: &Model, args: &[&str]) -> Result<Self> {
        let mut command = stage.lab.claude(&["-p", "--input-format", "stream-json", "--output-format", "stream-json"]);
        command.arg("--verbose").args(args).env("ANTHROPIC_BASE_URL", model.url());
        command.env("ANTHROPIC_API_KEY", "dummy-key-for-a-loopback-stand-in").env("CLAUDEMESH_DISPLAY_NAME", NAME);
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().context("starting claude")?;
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("stdout was piped")?).lines();
        let mut live = Self { child, stdin, lines, id: String::new() };
        live.say("say hi").await?;
        let result = live.result().await?;
        live.id = result["session_id"].as_str().context("a session id")?.to_owned();
        Ok(live)
    }

    pub(crate) async fn say(&mut self, text: &str) -> Result<()> {
        let line = json!({"type": "user", "message": {"role": "user", "content": text}});
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    /// The result of the next turn.
    pub(crate) async fn result(&mut self) -> Result<Value> {
        let reading = async {
            while let Some(line) = self.lines.next_line().await? {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if line["type"] == "result" {
                    return Ok(line);
                }
            }
            anyhow::bail!("claude ended before its turn did")
        };
        tokio::time::timeout(2 * PATIENCE, reading).await.context("the turn does not end")?
    }

    /// Ends the session as a user who closes it.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.stdin.take();
        // It gives hooks in the background half a minute: ours must not need it.
        let ended = tokio::time::timeout(QUICK_END, self.child.wait()).await.context("claude does not end")??;
        anyhow::ensure!(ended.success(), "{ended}");
        Ok(())
    }
}

/// A script that starts with the first turn of [`Live::start`].
pub(crate) async fn model(turns: Vec<Turn>) -> Result<Model> {
    let mut script = vec![Turn::text("Ready.").when("say hi")];
    script.extend(turns);
    Model::start(script).await
}
