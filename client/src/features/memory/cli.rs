//! `remember`, `recall`, `forget`, and `memory` with the same and `list`.

use clap::Args;
use claudemesh_protocol::features::memory::{Conditions, Memory};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Read, nothing_found, short};
use crate::clock::shown;
use crate::context::Context;
use crate::context::connect::in_mesh;
use crate::error::CliError;
use crate::output::{Output, Style, clean, word};
use crate::values::parse_moment;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, verbs};

/// Characters of one memory that a list shows; `--full` shows all of it.
const LISTED_CHARS: usize = 1_000;

verbs! {
    /// Keep what the mesh should know for later, and find it again by words.
    #[command(
        after_help = "Examples:\n  claudemesh memory remember \"Deploys run on Fridays\" --tags ops\n  \
                            claudemesh memory recall \"deploy -staging\"\n  claudemesh memory list --tag ops"
    )]
    pub struct MemoryArgs: enum MemoryAction {
        Remember => RememberArgs,
        Recall => RecallArgs,
        List => ListArgs,
        Forget => ForgetArgs,
    }
}

/// Keep a text for everyone in the mesh.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh remember \"Deploys run on Fridays at noon\" --tags ops,calendar")]
pub struct RememberArgs {
    /// The text.
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Labels to find it by, with commas between them.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    tags: Vec<String>,
}

/// A memory that was stored, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Remembered {
    id: String,
    content: String,
    tags: Vec<String>,
    /// You had stored the same before; this is its id.
    duplicate: bool,
}

impl Verb for RememberArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Remembered>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Remembered>>()]
    }

    /// Exit 7 when a bound is hit.
    fn run(self, cx: &Context) -> Ran {
        let (text, tags) = (self.text.as_str(), self.tags.as_slice());
        let (mesh, stored) = in_mesh(cx, |connection| async move { connection.remember(text, tags).await })?;
        let (id, duplicate) = (stored.id, stored.duplicate);
        let remembered = Remembered { id, content: self.text.clone(), tags: self.tags.clone(), duplicate };
        cx.out
            .answer(&InMesh::new(&mesh, &remembered), |out| {
                let before = if duplicate { " (it was there before)" } else { "" };
                format!("{} {}{before}\n", out.tick(), clean(&short(&remembered.id)))
            })
            .map(done)
    }
}

/// Which memories are meant.
#[derive(Args, Clone, Debug, Default)]
pub struct Which {
    /// Only with this tag; several times: with all of them.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Only what this member stored: a name or a key.
    #[arg(long, value_name = "MEMBER")]
    by: Option<String>,
    /// Only what was stored since: 7d for the last seven days, or a date as 2026-11-28.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<i64>,
    /// Only what was stored before: a time as with --since.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<i64>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Show long texts whole.
    #[arg(long)]
    full: bool,
}

impl Which {
    fn conditions(&self) -> Conditions {
        Conditions { tags: self.tag.clone(), author: self.by.clone(), since_ms: self.since, until_ms: self.until }
    }
}

/// Find memories by words: all of them must be in the text or its tags.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh recall deploy\n  claudemesh recall '\"blue green\" deploy* -staging'\n  \
                        claudemesh recall tokens --by Ann --since 7d --json=id,content\n\n\
                        deploy finds deploying and deploys; deploy* every word that begins so; \"blue green\"\n\
                        words side by side; -word what must not be there. Case and accents do not matter."
)]
pub struct RecallArgs {
    /// The words.
    #[arg(allow_hyphen_values = true)]
    query: String,
    #[command(flatten)]
    which: Which,
}

impl Verb for RecallArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Memory>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<Memory>>()]
    }

    /// Exit 0 also when nothing is found.
    fn run(self, cx: &Context) -> Ran {
        let (query, only, most) = (self.query.as_str(), self.which.conditions(), self.which.limit as usize);
        let only = &only;
        let (mesh, read) = in_mesh(cx, |connection| async move { connection.recall(query, only, most, None).await })?;
        let empty = |out: &Output| format!("{}\n", nothing_found(&read.unmatched, |one| word(one, out)));
        cx.out.answer(&InMesh::all(&mesh, &read.memories), |out| listed(&read, &self.which, out, empty)).map(done)
    }
}

/// List memories, the newest first.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh memory list\n  claudemesh memory list --tag ops --by Ann --json=id,content"
)]
pub struct ListArgs {
    #[command(flatten)]
    which: Which,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Memory>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<Memory>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let (only, most) = (self.which.conditions(), self.which.limit as usize);
        let only = &only;
        let (mesh, read) = in_mesh(cx, |connection| async move { connection.list_memories(only, most, None).await })?;
        let empty = |_: &Output| "nothing is remembered; `claudemesh remember <text>` keeps something\n".to_owned();
        cx.out.answer(&InMesh::all(&mesh, &read.memories), |out| listed(&read, &self.which, out, empty)).map(done)
    }
}

/// Delete a memory for good. Deleting another member's memory needs `canModerate`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh forget 8fK2mQ7d")]
pub struct ForgetArgs {
    /// Its id, or at least the first 8 characters of it.
    id: String,
}

/// A memory that was deleted, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Forgotten {
    id: String,
    forgotten: bool,
}

impl Verb for ForgetArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Forgotten>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Forgotten>>()]
    }

    /// Exit 5 when there is no such memory, 7 when another member stored it.
    fn run(self, cx: &Context) -> Ran {
        let id = self.id.as_str();
        let (mesh, found) = in_mesh(cx, |connection| async move { connection.forget(id).await })?;
        let missing = || {
            let error = CliError::not_found("There is no such memory.").field("id", id);
            error.hint("`claudemesh memory list` shows the ids; 8 characters are enough.")
        };
        let forgotten = Forgotten { id: found.ok_or_else(missing)?, forgotten: true };
        let text = |out: &Output| format!("{} forgot {}\n", out.tick(), clean(&short(&forgotten.id)));
        cx.out.answer(&InMesh::new(&mesh, &forgotten), text).map(done)
    }
}

fn listed(read: &Read, which: &Which, out: &Output, empty: impl Fn(&Output) -> String) -> String {
    if read.memories.is_empty() {
        return empty(out);
    }
    let mut text = out.preamble();
    for memory in &read.memories {
        let tags: Vec<String> = memory.tags.iter().map(|tag| word(tag, out)).collect();
        let tags = if tags.is_empty() { String::new() } else { format!(" [{}]", tags.join(", ")) };
        let who = format!("{} · {}", word(&memory.remembered_by, out), shown(&memory.remembered_at));
        let id = clean(&short(&memory.id)).into_owned();
        text += &format!("{}{tags}  {}\n", out.paint(Style::Cyan, &id), out.paint(Style::Dim, &who));
        let chars = memory.content.chars().count();
        if which.full || chars <= LISTED_CHARS {
            text += &out.block(&memory.content);
        } else {
            let part: String = match &memory.snippet {
                Some(snippet) => snippet.clone(),
                None => memory.content.chars().take(LISTED_CHARS / 4).chain(['…']).collect(),
            };
            text += &out.block(&part);
            text += &format!("  ({chars} characters; --full shows all)\n");
        }
    }
    if read.next.is_some() {
        text += &format!("(there are more; --limit {} shows them)\n", which.limit.saturating_mul(2));
    }
    text
}
