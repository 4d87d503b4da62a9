//! Ann and Bob in one mesh, each with a config folder of their own.

use std::process::Output;
use std::sync::Arc;

use anyhow::{Context, Result};
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_testkit::broker::{Builder, Config, Database, TestBroker};
use claudemesh_testkit::cli::CommandLine;
use claudemesh_testkit::enrol;
use claudemesh_testkit::host::{Host, Options, PATIENCE};
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::wait;
use serde_json::Value;

pub(crate) struct Team {
    pub(crate) broker: TestBroker,
    pub(crate) ann: CommandLine,
    pub(crate) bob: CommandLine,
}

impl Team {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(|_| {}).await
    }

    /// With another configuration of the broker.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Result<Self> {
        let broker = Builder::new(Database::Sqlite).config(change).start().await?;
        let (ann, bob) = (program()?, program()?);
        ann.json(&["create", "team", "--broker", &broker.url(), "--name", "Ann", "--json"])?;
        let invite = ann.json(&["invite", "--uses", "5", "--json"])?;
        let url = invite["url"].as_str().context("an invite has a link")?;
        bob.json(&["join", url, "--name", "Bob", "--json"])?;
        Ok(Self { broker, ann, bob })
    }

    /// One more member, that speaks frames.
    pub(crate) async fn outsider(&self, name: &str) -> Result<TestPeer> {
        let code = self.ann.json(&["invite", "--json"])?["code"].as_str().context("the invite has a code")?.to_owned();
        let key = SecretKey::random(&mut rand::thread_rng());
        let member = Arc::new(enrol::claim(&self.broker.base(), &code, key, name)?);
        self.broker.join(&member).await
    }
}

pub(crate) fn program() -> Result<CommandLine> {
    CommandLine::new(env!("CARGO_BIN_EXE_claudemesh"))
}

/// How a session of this person starts its server.
pub(crate) fn options(person: &CommandLine, session_id: &str, name: &str) -> Options {
    let mut options = Options::new(&person.binary, person.project())
        .env("CLAUDE_CODE_SESSION_ID", session_id)
        .env("CLAUDEMESH_DISPLAY_NAME", name);
    options.env.extend(person.environment());
    options
}

/// A session whose mesh is connected: the welcome was shown.
pub(crate) async fn session(person: &CommandLine, session_id: &str, name: &str) -> Result<Host> {
    let mut host = Host::start(options(person, session_id, name)).await?;
    welcomed(&mut host).await?;
    Ok(host)
}

pub(crate) async fn welcomed(host: &mut Host) -> Result<()> {
    let note = host.channel_with("Connected to mesh").await?;
    assert_eq!(note.meta["kind"], "welcome");
    Ok(())
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|message| message["plaintext"].as_str()).collect()
}

/// Asks until the answer fits: the state of another process changes when it changes.
pub(crate) async fn until<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait::until(what, PATIENCE, async || ask()).await
}
