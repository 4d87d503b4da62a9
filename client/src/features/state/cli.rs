//! `state get`, `set`, `list`, `delete`, `watch`.

use std::time::Duration;

use clap::Args;
use claudemesh_protocol::features::state::{
    DeleteState, GetState, SetState, StateChange, StateEntry, StateMissed, StateResult, StateWritten,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{greeted, shown};
use crate::clock::shown as time;
use crate::connection::{Connection, ConnectionError, Heard};
use crate::context::Context;
use crate::context::connect::{Purpose, block_on, connect, in_mesh};
use crate::error::{CliError, ExitCode};
use crate::features::messaging::cli::follow::stop_signal;
use crate::output::{Output, Style, clean, word};
use crate::values::parse_duration;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, verbs};

/// Characters of one value where a model reads it: hosts cut what a command prints at 30,000.
const MODEL_CHARS: usize = 20_000;

verbs! {
    /// Read and write shared values: one JSON value per key.
    #[command(
        after_help = "Examples:\n  claudemesh state set build green\n  claudemesh state get build\n  \
                            claudemesh state watch deploy/"
    )]
    pub struct StateArgs: enum StateAction {
        Get => GetArgs,
        Set => SetArgs,
        List => ListArgs,
        Delete => DeleteArgs,
        Watch => WatchArgs,
    }
}

/// Show the value of a key, who wrote it and when.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh state get build\n  claudemesh state get build --json=value,version")]
pub struct GetArgs {
    /// The key.
    key: String,
}

impl Verb for GetArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<StateResult>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<StateResult>>()]
    }

    /// Exit 5 for a key that is not set; with `--json` its row is printed all the same, with version 0.
    fn run(self, cx: &Context) -> Ran {
        let query = GetState { key: self.key };
        let (mesh, found) = in_mesh(cx, |connection| async move { connection.request(query).await })?;
        let is_set = !found.updated_at.is_empty();
        cx.out
            .answer(&InMesh::new(&mesh, &found), |out| {
                if !is_set {
                    return format!("{} is not set\n", word(&found.key, out));
                }
                let who = format!("  {} · {}", word(&found.updated_by, out), time(&found.updated_at));
                let ends = found.expires_at.as_deref().map(|at| format!(" · until {}", time(at))).unwrap_or_default();
                format!("{}\n{}\n", raw(&found.value, out), out.paint(Style::Dim, &format!("{who}{ends}")))
            })
            .map(|()| ExitCode::into(if is_set { ExitCode::Success } else { ExitCode::NotFound }))
    }
}

/// Set a key; the others are told.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh state set build green\n  claudemesh state set limits '{\"cpu\": 2}'\n  \
                        claudemesh state set lock Ann --if-version 0 --ttl 10m"
)]
pub struct SetArgs {
    /// The key.
    key: String,
    /// The value. Valid JSON is stored as JSON, everything else as a string.
    #[arg(allow_hyphen_values = true)]
    value: String,
    /// Only if the key has this version now; 0: only if it is not set.
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Delete it after this time, for example 30m or 7d [default: never].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
}

/// A key that was written, for scripts. Without `version` the broker could not say it.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Written {
    key: String,
    value: Value,
    version: Option<u64>,
    revision: Option<u64>,
}

impl Written {
    fn new(key: String, value: Value, done: Option<StateWritten>) -> Self {
        Self { key, value, version: done.map(|done| done.version), revision: done.map(|done| done.revision) }
    }
}

impl Verb for SetArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Written>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Written>>()]
    }

    /// Exit 6 when another version is there, 7 when a bound is hit.
    fn run(self, cx: &Context) -> Ran {
        let value = serde_json::from_str(&self.value).unwrap_or(Value::String(self.value));
        let ttl_s = self.ttl.map(|ttl| ttl.as_secs());
        let set = SetState { key: self.key, value, expected_version: self.if_version, ttl_s };
        let write = set.clone();
        let (mesh, stored) = in_mesh(cx, |connection| async move { connection.write(write).await })?;
        let written = Written::new(set.key, set.value, stored);
        cx.out
            .answer(&InMesh::new(&mesh, &written), |out| {
                format!("{} {} = {}\n", out.tick(), word(&written.key, out), json_text(&written.value, out))
            })
            .map(done)
    }
}

/// List the keys with their values.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh state list\n  claudemesh state list deploy/ --json=key,value")]
pub struct ListArgs {
    /// Only keys that begin so.
    prefix: Option<String>,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<StateEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<StateEntry>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let prefix = self.prefix.as_deref();
        let read = |connection: Connection| async move { connection.list_state(prefix, None, usize::MAX).await };
        let (mesh, listed) = in_mesh(cx, read)?;
        cx.out
            .answer(&InMesh::all(&mesh, &listed.entries), |out| {
                if listed.entries.is_empty() {
                    return "there are no shared keys; `claudemesh state set <key> <value>` makes one\n".into();
                }
                let line = |entry: &StateEntry| {
                    let who = format!("{} · {}", word(&entry.updated_by, out), time(&entry.updated_at));
                    let key = word(&entry.key, out);
                    let value = json_text(&entry.value, out);
                    format!("{}: {value}  {}\n", out.paint(Style::Cyan, &key), out.paint(Style::Dim, &who))
                };
                listed.entries.iter().map(line).collect()
            })
            .map(done)
    }
}

/// Delete a key; the others are told.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh state delete build")]
pub struct DeleteArgs {
    /// The key.
    key: String,
    /// Only if the key has this version now.
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

impl Verb for DeleteArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Written>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Written>>()]
    }

    /// Exit 5 when there is no such key, 6 when another version is there.
    fn run(self, cx: &Context) -> Ran {
        let delete = DeleteState { key: self.key.clone(), expected_version: self.if_version };
        let deleted = in_mesh(cx, |connection| async move { connection.write(delete).await });
        let (mesh, stored) = deleted.map_err(|error| match error.exit {
            ExitCode::NotFound if error.hint.is_none() => error.hint("`claudemesh state list` shows the keys."),
            _ => error,
        })?;
        let written = Written::new(self.key, Value::Null, stored);
        let text = |out: &Output| format!("{} deleted {}\n", out.tick(), word(&written.key, out));
        cx.out.answer(&InMesh::new(&mesh, &written), text).map(done)
    }
}

/// Print every change until Ctrl-C: with `--json` one object per line.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh state watch\n  claudemesh state watch deploy/ --json=key,value\n\n\
                        After a lost connection it goes on with what changed meanwhile; of a key that changed\n\
                        several times in between, the last value.")]
pub struct WatchArgs {
    /// Only keys that begin so.
    prefix: Option<String>,
}

impl Verb for WatchArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<StateChange>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::lines::<InMesh<StateChange>>()]
    }

    /// Exit 4 when the connection cannot be opened again.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        block_on(async {
            let connection = connect(cx, &entry, Purpose::Watch).await?;
            let stop = stop_signal()?;
            let watched =
                Watch { cx, mesh: entry.slug.clone(), prefix: self.prefix.unwrap_or_default(), seen: 0, open: true };
            let ended = tokio::select! {
                ended = watched.run(&connection) => ended,
                stopped = stop => stopped,
            };
            connection.close().await;
            ended
        })
        .map(done)
    }
}

struct Watch<'a> {
    cx: &'a Context,
    mesh: String,
    prefix: String,
    /// Everything up to this revision was printed.
    seen: u64,
    /// Whether someone still reads what is printed.
    open: bool,
}

impl Watch<'_> {
    async fn run(mut self, connection: &Connection) -> Result<(), CliError> {
        let (mut changes, mut missed) = (connection.events::<StateChange>(), connection.events::<StateMissed>());
        let unknown = || CliError::from(ConnectionError::NotConnected("this broker has no shared state".into()));
        self.seen = greeted(&*connection.hello_ack()?).ok_or_else(unknown)?;
        self.cx.out.remark("Watching; Ctrl-C ends it.");
        while self.open {
            tokio::select! {
                heard = changes.next() => match heard {
                    Some(Heard::Event(change)) => self.show(&change)?,
                    Some(Heard::Lagged(_)) => self.catch_up(connection).await?,
                    Some(Heard::Away) => {
                        // Storage that was put back to an older state begins anew.
                        let now = connection.hello_ack().ok().and_then(|ack| greeted(&ack));
                        self.seen = self.seen.min(now.unwrap_or(self.seen));
                        self.catch_up(connection).await?;
                    }
                    None => break,
                },
                heard = missed.next() => match heard {
                    Some(Heard::Event(_) | Heard::Lagged(_)) => self.catch_up(connection).await?,
                    // Both types are told of it.
                    Some(Heard::Away) => {}
                    None => break,
                },
            }
        }
        // The connection says why it ended; a reader that went away is no failure.
        if self.open { connection.hello_ack().map(drop).map_err(CliError::from) } else { Ok(()) }
    }

    /// Prints what changed after what was printed.
    async fn catch_up(&mut self, connection: &Connection) -> Result<(), CliError> {
        let listed = match connection.list_state(Some(&self.prefix), Some(self.seen), usize::MAX).await {
            Ok(listed) => listed,
            // Lost again: the next time it is back it is asked for.
            Err(error) if connection.hello_ack().is_err() => {
                tracing::debug!(%error, "lost while catching up");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if listed.incomplete {
            self.cx.out.warn("Some deletions are so old that the broker has forgotten them.");
        }
        for entry in listed.entries {
            self.show(&StateChange {
                key: entry.key,
                value: entry.value,
                updated_by: entry.updated_by,
                version: entry.version,
                revision: entry.revision,
                deleted: entry.deleted,
            })?;
        }
        self.seen = self.seen.max(listed.revision);
        Ok(())
    }

    fn show(&mut self, change: &StateChange) -> Result<(), CliError> {
        if change.revision <= self.seen {
            return Ok(());
        }
        self.seen = change.revision;
        if !change.key.starts_with(&self.prefix) {
            return Ok(());
        }
        let text = self.cx.out.render_line(&InMesh::new(&self.mesh, change), |out| {
            let (key, who) = (word(&change.key, out), word(&change.updated_by, out));
            let now = if change.deleted { "deleted".into() } else { format!("= {}", json_text(&change.value, out)) };
            format!("{} {now}  {}\n", out.paint(Style::Cyan, &key), out.paint(Style::Dim, &who))
        })?;
        self.open = self.cx.out.print(&text)?;
        Ok(())
    }
}

/// A value as JSON, in one line.
fn json_text(value: &Value, out: &Output) -> String {
    if out.is_for_model() { shown(value, MODEL_CHARS) } else { clean(&value.to_string()).into_owned() }
}

/// A text as it is, everything else as JSON.
fn raw(value: &Value, out: &Output) -> String {
    match value {
        Value::String(text) if out.is_for_model() => out.block(text).trim_end().to_owned(),
        Value::String(text) => crate::output::clean_lines(text).into_owned(),
        other => json_text(other, out),
    }
}
