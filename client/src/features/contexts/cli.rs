//! `context share`, `get`, `list`.

use clap::Args;
use claudemesh_protocol::features::contexts::{Context as Shared, ContextEntry, ShareContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::owner;
use crate::clock::shown;
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::in_mesh;
use crate::output::{Output, Style, word};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, verbs};

verbs! {
    /// Share what a session works on and has found out, and look up what others share.
    #[command(
        after_help = "Examples:\n  claudemesh context share \"Refactoring the login\" --files src/auth.ts --findings \"tokens live 15 minutes\"\n  \
                            claudemesh context get login\n  claudemesh context list"
    )]
    pub struct ContextArgs: enum ContextAction {
        Share => ShareArgs,
        Get => GetArgs,
        List => ListArgs,
    }
}

/// Share what this session knows, in place of what it shared before.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  claudemesh context share \"Refactoring the login\" --files src/auth.ts,src/db.ts --tags auth"
)]
pub struct ShareArgs {
    /// What it is about.
    #[arg(allow_hyphen_values = true)]
    summary: String,
    /// Files that were read, with commas between them.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    files: Vec<String>,
    /// Something that was found out; several times for several things.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    findings: Vec<String>,
    /// Words to find it by, with commas between them.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    tags: Vec<String>,
}

/// A context that was shared, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Told {
    id: String,
    summary: String,
}

impl Verb for ShareArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Told>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Told>>()]
    }

    /// Exit 7 when a bound is hit.
    fn run(self, cx: &Context) -> Ran {
        let summary = self.summary.clone();
        let context = ShareContext {
            summary: self.summary,
            files_read: self.files,
            key_findings: self.findings,
            tags: self.tags,
        };
        let (mesh, shared) = in_mesh(cx, |connection| async move { connection.share_context(context).await })?;
        let told = Told { id: shared.id, summary };
        let text = |out: &Output| format!("{} shared: {}\n", out.tick(), word(&told.summary, out));
        cx.out.answer(&InMesh::new(&mesh, &told), text).map(done)
    }
}

/// Find contexts by words: all of them must be in summary, files, findings or tags.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh context get login\n  claudemesh context get '\"blue green\" deploy*' --limit 5"
)]
pub struct GetArgs {
    /// The words; an empty text shows all.
    #[arg(allow_hyphen_values = true)]
    query: String,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
}

impl Verb for GetArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Shared>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<Shared>>()]
    }

    /// Exit 0 also when nothing is found.
    fn run(self, cx: &Context) -> Ran {
        let (query, limit) = (self.query.as_str(), self.limit);
        let get = |connection: Connection| async move { connection.get_context(query, limit, None).await };
        let (mesh, found) = in_mesh(cx, get)?;
        cx.out
            .answer(&InMesh::all(&mesh, &found.contexts), |out| {
                if found.contexts.is_empty() {
                    let words: Vec<String> = found.unmatched.iter().map(|one| word(one, out)).collect();
                    let nothing = "no context has all of these words";
                    return if words.is_empty() {
                        format!("{nothing}\n")
                    } else {
                        format!("{nothing}; found nowhere: {}\n", words.join(", "))
                    };
                }
                let more = if found.next.is_some() { "(there are more; --limit shows up to 100)\n" } else { "" };
                out.preamble() + &found.contexts.iter().map(|one| whole(one, out)).collect::<String>() + more
            })
            .map(done)
    }
}

/// List all contexts, the newest first.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh context list\n  claudemesh context list --json=peerName,summary,gone")]
pub struct ListArgs {
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ContextEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<ContextEntry>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let limit = self.limit;
        let (mesh, found) = in_mesh(cx, |connection| async move { connection.list_contexts(limit, None).await })?;
        cx.out
            .answer(&InMesh::all(&mesh, &found.contexts), |out| {
                if found.contexts.is_empty() {
                    return "no one shares a context; `claudemesh context share <summary>` does\n".to_owned();
                }
                let line = |one: &ContextEntry| {
                    let head = head(&one.peer_name, &one.session_name, one.gone, &one.tags, &one.updated_at, out);
                    format!("{head}{}", out.block(&one.summary))
                };
                let more = if found.next.is_some() { "(there are more; --limit shows up to 100)\n" } else { "" };
                out.preamble() + &found.contexts.iter().map(line).collect::<String>() + more
            })
            .map(done)
    }
}

fn head(peer: &str, session: &str, gone: bool, tags: &[String], at: &str, out: &Output) -> String {
    let tags: Vec<String> = tags.iter().map(|tag| word(tag, out)).collect();
    let tags = if tags.is_empty() { String::new() } else { format!(" [{}]", tags.join(", ")) };
    let who = word(&owner(peer, session, gone), out);
    format!("{}{tags}  {}\n", out.paint(Style::Cyan, &who), out.paint(Style::Dim, &shown(at)))
}

fn whole(one: &Shared, out: &Output) -> String {
    let mut text = head(&one.peer_name, &one.session_name, one.gone, &one.tags, &one.updated_at, out);
    text += &out.block(&one.summary);
    if !one.files_read.is_empty() {
        text += &out.block(&format!("files: {}", one.files_read.join(", ")));
    }
    for finding in &one.key_findings {
        text += &out.block(&format!("- {finding}"));
    }
    text
}
