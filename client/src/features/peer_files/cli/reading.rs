//! `folder list` and `folder read`: what a peer's folder has.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::peer_files::limits::MAX_READ_BYTES;
use claudemesh_protocol::features::peer_files::sealed::Entry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connection::ConnectionError;
use crate::context::Context;
use crate::context::connect::ask;
use crate::error::CliError;
use crate::features::messaging::cli::mesh_that_knows;
use crate::features::peer_files::{PeerFile, PeerFolder};
use crate::output::{Output, Style, clean};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// List what is in the folder that a peer shares. Its user decides.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh folder list Ann/api\n  claudemesh folder list Ann/api docs --pattern '*.md'"
)]
pub struct ListArgs {
    /// The peer: name, key, or the beginning of a key.
    peer: String,
    /// A folder below it.
    #[arg(default_value = ".")]
    path: String,
    /// Only names that fit this glob; with a / in it, only paths.
    #[arg(long, value_name = "GLOB")]
    pattern: Option<String>,
}

/// What is in a folder of a peer, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Listed {
    peer: String,
    path: String,
    entries: Vec<Entry>,
    more: bool,
    /// Whether it came sealed from that member.
    encrypted: bool,
    /// Where it is, when the peer is on this machine.
    local_path: Option<String>,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Listed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Listed>>()]
    }

    /// Exit 5 for an unknown peer or path, or a peer that shares nothing; 7 when its user has not allowed it.
    fn run(self, cx: &Context) -> Ran {
        let entry = mesh_that_knows(cx, std::slice::from_ref(&self.peer))?;
        let (peer, path, pattern) = (&self.peer, &self.path, self.pattern.as_deref());
        let got: PeerFolder = ask(cx, &entry, |connection| async move {
            let peer = connection.resolve_target(peer).await?;
            connection.list_peer_files(&peer, path, pattern).await.map_err(advised)
        })?;
        let PeerFolder { peer, entries, more, sealed: encrypted, local_path } = got;
        let listed = Listed { peer: peer.address(), path: self.path, entries, more, encrypted, local_path };
        cx.out.answer(&InMesh::new(&entry.slug, &listed), |out| listed_text(&listed, out)).map(done)
    }
}

/// Read a file of the folder that a peer shares. Its user decides.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh folder read Ann/api docs/notes.md\n  \
                        claudemesh folder read Ann/api build.log --offset 1048576 --length 65536\n  \
                        claudemesh folder read Ann/api logo.png --out logo.png")]
pub struct ReadArgs {
    /// The peer: name, key, or the beginning of a key.
    peer: String,
    /// The file, below the folder.
    path: String,
    /// First byte.
    #[arg(long, value_name = "BYTE", default_value_t = 0)]
    offset: u64,
    /// At most this many bytes; more is read from --offset on.
    #[arg(long, value_name = "BYTES", default_value_t = MAX_READ_BYTES, value_parser = clap::value_parser!(u64).range(1..=MAX_READ_BYTES))]
    length: u64,
    /// Write it into this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A file of a peer, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Read {
    peer: String,
    path: String,
    /// The text; `null` for what is no text, and with --out.
    content: Option<String>,
    /// The bytes in base64, when they are no text.
    content_base64: Option<String>,
    offset: u64,
    bytes: u64,
    /// Bytes of the whole file.
    size: u64,
    /// Byte from which the rest is read; `null` at the end.
    next: Option<u64>,
    /// Whether it came sealed from that member.
    encrypted: bool,
    /// Where it is, when the peer is on this machine.
    local_path: Option<String>,
    saved_to: Option<PathBuf>,
}

impl Verb for ReadArgs {
    fn effect(&self) -> Effect {
        if self.out.is_some() { Effect::Changes } else { Effect::Reads }
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Read>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Read>>()]
    }

    /// Exit 5 for an unknown peer or file, or a peer that shares nothing; 7 when its user has not allowed it; 10 when it cannot be
    /// written.
    fn run(self, cx: &Context) -> Ran {
        let entry = mesh_that_knows(cx, std::slice::from_ref(&self.peer))?;
        let (peer, path, offset, length) = (&self.peer, &self.path, self.offset, self.length);
        let got: PeerFile = ask(cx, &entry, |connection| async move {
            let peer = connection.resolve_target(peer).await?;
            connection.read_peer_file(&peer, path, offset, length).await.map_err(advised)
        })?;
        if let Some(out) = &self.out {
            save(out, &got.bytes)?;
        }
        let text = String::from_utf8(got.bytes.clone()).ok();
        let read = Read {
            peer: got.peer.address(),
            path: self.path,
            content_base64: (text.is_none() && self.out.is_none()).then(|| base64(&got.bytes)),
            content: text.filter(|_| self.out.is_none()),
            offset: got.offset,
            bytes: got.bytes.len() as u64,
            size: got.size,
            next: got.next(),
            encrypted: got.sealed,
            local_path: got.local_path,
            saved_to: self.out,
        };
        cx.out.answer(&InMesh::new(&entry.slug, &read), |out| read_text(&read, out)).map(done)
    }
}

fn base64(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

/// Writes a new file that only this user reads.
fn save(path: &std::path::Path, bytes: &[u8]) -> Result<(), CliError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, crate::files::PRIVATE_FILE);
    let written = options.open(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| CliError::io(format!("{} cannot be written: {error}.", clean(&path.to_string_lossy()))))
}

/// What to do about a refusal of the peer.
fn advised(error: ConnectionError) -> CliError {
    let code = error.code();
    let advised = CliError::from(error);
    match code {
        Some(ErrorCode::ConsentTimeout) => {
            advised.hint("Ask again later: the question stays open at the peer for ten minutes.")
        }
        Some(ErrorCode::ConsentDenied) => {
            advised.hint("Ask the peer with `claudemesh ask` whether it sends you the file.")
        }
        Some(ErrorCode::NotShared) => advised.hint("A session shares a folder when it is started with --share-dir."),
        Some(ErrorCode::PathRefused) => advised.hint("`claudemesh folder list` shows what can be read."),
        Some(ErrorCode::NotAFile) => advised.hint("`claudemesh folder list` shows what is in it."),
        _ => advised,
    }
}

fn listed_text(listed: &Listed, out: &Output) -> String {
    if listed.entries.is_empty() {
        return "nothing there that is shared\n".into();
    }
    let name = |entry: &Entry| if entry.is_dir { format!("{}/\n", entry.path) } else { format!("{}\n", entry.path) };
    let mut text = match out.is_for_model() {
        // Names are a peer's words, too.
        true => out.preamble() + &out.block(&listed.entries.iter().map(name).collect::<String>()),
        false => {
            listed.entries.iter().map(|entry| format!("{}\n", clean(name(entry).trim_end_matches('\n')))).collect()
        }
    };
    if listed.more {
        text += "(there is more; name a folder below it, or use --pattern)\n";
    }
    text + &remarks(listed.encrypted, listed.local_path.as_deref(), out)
}

fn read_text(read: &Read, out: &Output) -> String {
    let mut text = match (&read.saved_to, &read.content) {
        (Some(path), _) => format!("{} {} bytes saved to {}\n", out.tick(), read.bytes, clean(&path.to_string_lossy())),
        (None, Some(content)) if out.is_for_model() => out.preamble() + &out.block(content),
        (None, Some(content)) => {
            let content = crate::output::clean_lines(content);
            if content.ends_with('\n') || content.is_empty() { content.into_owned() } else { format!("{content}\n") }
        }
        (None, None) => format!("{} bytes that are no text; --out saves them\n", read.bytes),
    };
    if let Some(next) = read.next {
        text += &format!("({} of {} bytes; --offset {next} reads on)\n", read.bytes, read.size);
    }
    text + &remarks(read.encrypted, read.local_path.as_deref(), out)
}

fn remarks(encrypted: bool, local_path: Option<&str>, out: &Output) -> String {
    let mut text = String::new();
    if !encrypted {
        text += "(the peer's client is older: the broker could read this)\n";
    }
    if let Some(path) = local_path {
        text += &format!("(on this machine it is {})\n", clean(path));
    }
    if out.is_quiet() || text.is_empty() { String::new() } else { out.paint(Style::Dim, &text).into_owned() }
}
