//! `file share`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use claudemesh_protocol::features::messaging::Priority;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::attach::{self, Attachment};
use super::super::names::size_words;
use super::super::upload::{Form, Lifetime, Share, Shared, Source, share};
use super::super::view::short;
use super::super::{progress, readers::Readers};
use super::transfer;
use crate::clock::shown;
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::hostname;
use crate::error::CliError;
use crate::features::messaging::Draft;
use crate::output::{Output, Style, clean, counted};
use crate::values::parse_duration;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Share a file. It is encrypted for its readers unless --plain is given.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh file share report.pdf --to Bob --message \"the numbers of June\"\n  \
                        tar c src | claudemesh file share - --name src.tar --to @docs --ephemeral\n  \
                        claudemesh file share build.log\n\n\
                        Without --to it is for everyone in the mesh. A member that joins a group or the mesh later gets the\n\
                        key from a session of yours. If the command is interrupted, run it again: it goes on where it was.")]
pub struct ShareArgs {
    /// The file; `-` is standard input.
    path: PathBuf,
    /// Who may read it: a name, `@group`, `*` or a key; repeat the option for more [default: everyone].
    #[arg(long, short = 't', value_name = "TO", action = ArgAction::Append)]
    to: Vec<String>,
    /// Its name for readers [default: of the file].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Words to find it by, with commas between them.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    tags: Vec<String>,
    /// Delete it after a day.
    #[arg(long)]
    ephemeral: bool,
    /// Delete it after this time, for example 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires: Option<Duration>,
    /// Do not encrypt it: the broker and everyone in the mesh who may read it can.
    #[arg(long)]
    plain: bool,
    /// Encrypt it in the form that older clients open, at most 50 MiB; its name is not encrypted then.
    #[arg(long, conflicts_with = "plain")]
    compatible: bool,
    /// Send this text with it to the readers.
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Send the path instead of a copy; for sessions on this machine only.
    #[arg(long, conflicts_with_all = ["plain", "compatible", "ephemeral", "expires", "tags", "name"])]
    by_path: bool,
}

/// A file that was shared, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SharedFile {
    /// Its id; absent with --by-path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: String,
    /// Bytes of the file.
    size: u64,
    /// SHA-256 of the file.
    sha256: String,
    encrypted: bool,
    /// Targets: keys of members, groups, `*`.
    targets: Vec<String>,
    /// Members that can read it now.
    readers: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Byte at which an interrupted upload went on.
    resumed_at: u64,
    /// The message that was sent with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    /// Its path, when every reader is a session on this machine and could read it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    local_path: Option<String>,
}

impl Verb for ShareArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<SharedFile>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<SharedFile>>()]
    }

    /// Exit 5 for a file or a reader that does not exist, 7 when a bound is hit, 10 when the file cannot be read.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let label = self.path.file_name().map_or_else(|| "stdin".into(), |name| name.to_string_lossy().into_owned());
        let bar = progress::of(&cx.out, &label);
        let row = transfer(cx, &entry, |connection| async move {
            if self.by_path {
                return self.send_path(&connection).await;
            }
            let shared = share(&connection, cx.store.dir(), self.wish(), bar).await?;
            let message_id = match &self.message {
                Some(text) => Some(self.send(&connection, text, &Attachment::of_file(&shared, false)).await?),
                None => None,
            };
            Ok(self.row(shared, message_id))
        })?;
        cx.out.answer(&InMesh::new(&entry.slug, &row), |out| told(&row, out)).map(done)
    }
}

impl ShareArgs {
    fn wish(&self) -> Share {
        let source = if self.path.as_os_str() == "-" { Source::Stdin } else { Source::Path(self.path.clone()) };
        Share {
            source,
            name: self.name.clone(),
            tags: self.tags.clone(),
            targets: self.to.clone(),
            form: match (self.plain, self.compatible) {
                (true, _) => Form::Plain,
                (false, true) => Form::Whole,
                (false, false) => Form::Sealed,
            },
            lifetime: match (self.expires, self.ephemeral) {
                (None, false) => Lifetime::Persistent,
                (time, _) => Lifetime::For(time),
            },
        }
    }

    fn absolute(&self) -> Result<PathBuf, CliError> {
        self.path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                CliError::not_found(format!("There is no {}.", clean(&self.path.to_string_lossy())))
            }
            _ => CliError::io(format!("{}: {error}.", clean(&self.path.to_string_lossy()))),
        })
    }

    /// Tells the sender's targets; the file is not among it.
    async fn send(&self, connection: &Connection, text: &str, file: &Attachment) -> Result<String, CliError> {
        let everyone = ["*".to_owned()];
        let targets = if self.to.is_empty() { &everyone[..] } else { &self.to };
        let draft = Draft::new(attach::with(text, std::slice::from_ref(file)), Priority::Next);
        let mut outcomes = connection.send_to(targets, &draft, true).await.into_iter();
        let first = outcomes.next().ok_or_else(|| CliError::internal("No message was sent."))?;
        let failed = outcomes.find_map(|outcome| outcome.result.err());
        match (first.result, failed) {
            (Ok(ack), None) => Ok(ack.message_id),
            (Err(error), _) | (_, Some(error)) => {
                Err(CliError::from(error).hint("The file is shared, the message was not sent."))
            }
        }
    }

    /// Sessions on this machine can read the file where it is.
    async fn send_path(&self, connection: &Connection) -> Result<SharedFile, CliError> {
        let path = self.absolute()?;
        let readers = connection.readers_of(&self.to).await?;
        if !is_here(&readers) {
            return Err(CliError::invalid_args("Not every reader is a session on this machine.")
                .hint("Leave --by-path out: the file is uploaded then."));
        }
        let file = Attachment::of_path(&path)
            .map_err(|error| CliError::io(format!("{}: {error}.", clean(&path.to_string_lossy()))))?;
        let text = self.message.clone().unwrap_or_default();
        let message_id = self.send(connection, &text, &file).await?;
        Ok(SharedFile {
            id: None,
            name: file.name.clone(),
            size: file.size,
            sha256: file.sha256.clone(),
            encrypted: false,
            readers: readers.members.len(),
            targets: readers.targets,
            expires_at: None,
            resumed_at: 0,
            message_id: Some(message_id),
            local_path: Some(path.to_string_lossy().into_owned()),
        })
    }

    fn row(&self, shared: Shared, message_id: Option<String>) -> SharedFile {
        let here = is_here(&shared.readers) && self.path.as_os_str() != "-";
        SharedFile {
            id: Some(shared.file.id.to_string()),
            name: shared.name,
            size: shared.size,
            sha256: shared.sha256,
            encrypted: shared.file.encrypted,
            readers: shared.readers.members.len(),
            targets: shared.readers.targets,
            expires_at: shared.file.expires_at,
            resumed_at: shared.resumed_at,
            message_id,
            local_path: here.then(|| self.absolute().ok()).flatten().map(|path| path.to_string_lossy().into_owned()),
        }
    }
}

/// Whether every reader is a session on this machine.
fn is_here(readers: &Readers) -> bool {
    readers.one_host.is_some() && readers.one_host == hostname()
}

fn told(row: &SharedFile, out: &Output) -> String {
    let (name, size) = (clean(&row.name), size_words(row.size));
    let Some(id) = &row.id else {
        return format!("{} sent the path of {name} ({size}), without a copy\n", out.tick());
    };
    let how = if row.encrypted { "encrypted" } else { "not encrypted" };
    let readers = counted(row.readers, "reader");
    let mut text =
        format!("{} shared {name} ({size}, {how}, {readers}) → {}\n", out.tick(), out.paint(Style::Bold, &short(id)));
    if row.resumed_at > 0 {
        text += &format!("  went on at {}\n", size_words(row.resumed_at));
    }
    if let Some(at) = &row.expires_at {
        text += &format!("  kept until {}\n", shown(at));
    }
    if row.local_path.is_some() && !out.is_quiet() {
        text += "  Its readers run on this machine: --by-path sends the path instead of a copy.\n";
    }
    text
}
