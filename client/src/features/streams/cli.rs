//! `stream create`, `list`, `publish`, `read`, `tail`, `delete`.

use std::time::Duration;

use clap::Args;
use claudemesh_protocol::features::streams::{
    CreateStream, DeleteStream, ListStreams, PageEntry, Position, Publish, ReadStream, StreamCreated, StreamEntry,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parse_place;
use super::tail::TailArgs;
use crate::clock::shown as time;
use crate::context::Context;
use crate::context::connect::in_mesh;
use crate::features::state::shown;
use crate::output::{Output, Style, clean, word};
use crate::values::parse_duration;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, verbs};

/// Characters of one entry where a model reads it.
const MODEL_CHARS: usize = 4_000;

verbs! {
    /// Publish and read streams: logs of JSON entries that are kept and pushed.
    #[command(
        after_help = "Examples:\n  claudemesh stream publish builds '{\"status\": \"green\"}'\n  \
                            claudemesh stream read builds --from start\n  claudemesh stream tail builds"
    )]
    pub struct StreamArgs: enum StreamAction {
        Create => CreateArgs,
        List => ListArgs,
        Publish => PublishArgs,
        Read => ReadArgs,
        Tail => TailArgs,
        Delete => DeleteArgs,
    }
}

/// Make a stream and say how much of it is kept. One that exists stays as it is.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh stream create builds\n  \
                        claudemesh stream create builds --keep-entries 1000 --keep-for 1d")]
pub struct CreateArgs {
    /// Its name.
    name: String,
    /// Keep at most this many entries; older ones go [default: the broker's bound].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    keep_entries: Option<u64>,
    /// Keep at most this many bytes, at least 65536; older entries go [default: the broker's bound].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(65_536..))]
    keep_bytes: Option<u64>,
    /// Keep entries this long, for example 12h or 30d [default: 7d].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    keep_for: Option<Duration>,
}

impl Verb for CreateArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<StreamCreated>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<StreamCreated>>()]
    }

    /// Exit 3 for a malformed name, 7 when a bound is hit.
    fn run(self, cx: &Context) -> Ran {
        let new = CreateStream {
            name: self.name,
            keep_entries: self.keep_entries,
            keep_bytes: self.keep_bytes,
            keep_s: self.keep_for.map(|time| time.as_secs()),
        };
        let (mesh, made) = in_mesh(cx, |connection| async move { connection.request(new).await })?;
        cx.out
            .answer(&InMesh::new(&mesh, &made), |out| {
                let words = if made.created { "created" } else { "there is already" };
                format!("{} {words} {}\n", out.tick(), word(&made.name, out))
            })
            .map(done)
    }
}

/// List the streams.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh stream list\n  claudemesh stream list --json=name,next")]
pub struct ListArgs {}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<StreamEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<StreamEntry>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let (mesh, listed) = in_mesh(cx, |connection| async move { connection.request(ListStreams {}).await })?;
        cx.out
            .answer(&InMesh::all(&mesh, &listed.streams), |out| {
                if listed.streams.is_empty() {
                    return "there are no streams; `claudemesh stream publish <name> <data>` makes one\n".into();
                }
                let line = |row: &StreamEntry| {
                    let kept = match row.entries {
                        0 => "no entries".to_owned(),
                        count => format!("{count} entries from {} on", row.first),
                    };
                    let facts =
                        format!("{kept} · {} subscribers · {}", row.subscriber_count, word(&row.created_by, out));
                    let name = word(&row.name, out);
                    format!("{}  {}\n", out.paint(Style::Cyan, &name), out.paint(Style::Dim, &facts))
                };
                listed.streams.iter().map(line).collect()
            })
            .map(done)
    }
}

/// Append one entry; subscribers get it at once. What is not JSON is a text.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh stream publish builds green\n  \
                        claudemesh stream publish builds '{\"status\": \"green\", \"took\": 41}'")]
pub struct PublishArgs {
    /// The stream; one that does not exist is made.
    name: String,
    /// The entry: JSON, else a text.
    #[arg(allow_hyphen_values = true)]
    data: String,
}

/// An entry that was published, for scripts. Without `offset` the broker could not say it.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Done {
    published: bool,
    name: String,
    offset: Option<u64>,
}

impl Verb for PublishArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Done>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Done>>()]
    }

    /// Exit 7 when a bound is hit.
    fn run(self, cx: &Context) -> Ran {
        let data = serde_json::from_str(&self.data).unwrap_or(Value::String(self.data));
        let publish = Publish { stream: self.name.clone(), data };
        let (mesh, stored) = in_mesh(cx, |connection| async move { connection.write(publish).await })?;
        let published = Done { published: true, name: self.name, offset: stored.map(|stored| stored.offset) };
        cx.out
            .answer(&InMesh::new(&mesh, &published), |out| {
                let at = published.offset.map(|offset| format!(" at {offset}")).unwrap_or_default();
                format!("{} published to {}{at}\n", out.tick(), word(&published.name, out))
            })
            .map(done)
    }
}

/// Show entries, oldest first.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh stream read builds\n  claudemesh stream read builds --from 41 --limit 10 --json"
)]
pub struct ReadArgs {
    /// The stream.
    name: String,
    /// Where to begin: start, an offset, or a time such as 2026-04-08T09:53:03Z.
    #[arg(long, value_name = "PLACE", default_value = "start", value_parser = parse_place)]
    from: Position,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
}

impl Verb for ReadArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<PageEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<PageEntry>>()]
    }

    /// Exit 5 when there is no such stream.
    fn run(self, cx: &Context) -> Ran {
        let read = ReadStream { stream: self.name.clone(), from: Some(self.from), limit: Some(self.limit) };
        let (mesh, page) = in_mesh(cx, |connection| async move { connection.request(read).await })?;
        if let Some(gap) = page.gap {
            cx.out.warn(&format!("Entries {} to {} are not kept any more.", gap.from, gap.to));
        }
        cx.out
            .answer(&InMesh::all(&mesh, &page.entries), |out| {
                if page.entries.is_empty() {
                    return format!("no entries in {} from there on\n", word(&self.name, out));
                }
                let mut text: String = page.entries.iter().map(|entry| line(entry, out)).collect();
                if page.next < page.end {
                    text += &format!("({} more follow; --from {} reads them)\n", page.end - page.next, page.next);
                }
                text
            })
            .map(done)
    }
}

/// Delete a stream with all that it holds.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh stream delete builds")]
pub struct DeleteArgs {
    /// The stream.
    name: String,
}

/// A stream that was deleted, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Deleted {
    name: String,
    deleted: bool,
}

impl Verb for DeleteArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Deleted>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Deleted>>()]
    }

    /// Exit 5 when there is no such stream, 2 when another member made it.
    fn run(self, cx: &Context) -> Ran {
        let delete = DeleteStream { stream: self.name.clone() };
        let (mesh, _) = in_mesh(cx, |connection| async move { connection.write(delete).await })?;
        let deleted = Deleted { name: self.name, deleted: true };
        cx.out
            .answer(&InMesh::new(&mesh, &deleted), |out| {
                format!("{} deleted {}\n", out.tick(), word(&deleted.name, out))
            })
            .map(done)
    }
}

/// `41  {"status":"green"}  Ann · 12:03`
pub(super) fn line(entry: &PageEntry, out: &Output) -> String {
    let data = match &entry.data {
        data if out.is_for_model() => shown(data, MODEL_CHARS),
        data => clean(&data.to_string()).into_owned(),
    };
    let who = format!("{} · {}", word(&entry.published_by, out), time(&entry.at));
    let offset = entry.offset.to_string();
    format!("{}  {data}  {}\n", out.paint(Style::Cyan, &offset), out.paint(Style::Dim, &who))
}
