//! `file list`.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::names::size_words;
use super::super::view::{FileView, short};
use super::super::{Found, Wanted};
use crate::clock::shown;
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::ask;
use crate::output::{Output, Style, clean};
use crate::session::notes::harmless_value;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// List files that you may read or have shared, the newest first.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh file list\n  claudemesh file list report --from Bob --tag q3")]
pub struct ListArgs {
    /// A part of the name.
    query: Option<String>,
    /// Only files of this member: name, key or id.
    #[arg(long, value_name = "WHO")]
    from: Option<String>,
    /// Only files with this tag.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Also files of others that are not for you; needs `canManageFiles`.
    #[arg(long, short)]
    all: bool,
    /// At most N files.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    limit: u32,
}

/// A file, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileRow {
    id: String,
    /// Its name. Of a file that you cannot open it says nothing.
    name: String,
    /// Bytes of the file.
    size: u64,
    tags: Vec<String>,
    /// Name of the member that shared it.
    from: String,
    /// Id of that member.
    uploaded_by: String,
    uploaded_at: String,
    persistent: bool,
    encrypted: bool,
    /// You can open it: it is not encrypted, or its key is sealed for you.
    readable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// SHA-256 of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl FileRow {
    pub(super) fn new(file: &FileView) -> Self {
        let entry = &file.entry;
        Self {
            id: entry.id.to_string(),
            name: file.name().to_owned(),
            size: file.size(),
            tags: file.tags().to_vec(),
            from: entry.uploader.clone(),
            uploaded_by: entry.uploaded_by.to_string(),
            uploaded_at: entry.uploaded_at.clone(),
            persistent: entry.persistent,
            encrypted: entry.encrypted,
            readable: !entry.encrypted || entry.sealed_key.is_some(),
            expires_at: entry.expires_at.clone(),
            sha256: file.sha256().map(str::to_owned),
        }
    }
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<FileRow>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<FileRow>>()]
    }

    /// Exit 7 when you may not see what --all asks for.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let limit = self.limit;
        let wanted = Wanted {
            query: self.query,
            from: self.from,
            tag: self.tag,
            all: self.all,
            most: limit as usize,
            cursor: None,
        };
        let list = |connection: Connection| async move { Ok(connection.files(&wanted).await?) };
        let found: Found = ask(cx, &entry, list)?;
        let rows = InMesh::all(&entry.slug, found.files.iter().map(FileRow::new));
        let text = |out: &Output| {
            if rows.is_empty() {
                return "no files\n".to_owned();
            }
            let mut text: String = rows.iter().map(|row| line(&row.row, out)).collect();
            if found.next.is_some() {
                text += &format!("(there are more; --limit {} shows them)\n", limit.saturating_mul(2));
            }
            text
        };
        cx.out.answer(&rows, text).map(done)
    }
}

fn line(row: &FileRow, out: &Output) -> String {
    let value = |text: &str| if out.is_for_model() { harmless_value(text) } else { clean(text).into_owned() };
    let tags = if row.tags.is_empty() { String::new() } else { format!(" [{}]", value(&row.tags.join(", "))) };
    let mut details = format!("{} · {} · {}", size_words(row.size), value(&row.from), shown(&row.uploaded_at));
    details += match (row.encrypted, row.readable) {
        (false, _) => " · not encrypted",
        (true, false) => " · no key for you",
        (true, true) => "",
    };
    if let Some(at) = &row.expires_at {
        details += &format!(" · until {}", shown(at));
    }
    let name = out.paint(Style::Bold, &value(&row.name)).into_owned();
    format!("{}  {name}{tags}  {}\n", clean(&short(&row.id)), out.paint(Style::Dim, &details))
}
