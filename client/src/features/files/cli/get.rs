//! `file get` and `file open`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::download::{Got, Target, Wish, get};
use super::super::names::size_words;
use super::super::progress;
use super::super::view::Proof;
use super::transfer;
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::files;
use crate::output::{Output, clean};
use crate::paths;
use crate::session::notes::harmless_value;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Read a file: download it, check it, and write it to disk or to standard output.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh file get 4uWv2xYz\n  claudemesh file get 4uWv2xYz --out reports/june.pdf\n  \
                        claudemesh file get 4uWv2xYz --out - | tar x\n\n\
                        The file appears under its name when it is whole and its hash is right. If the command is\n\
                        interrupted, run it again: it goes on where it was."
)]
pub struct GetArgs {
    /// Its id, or at least the first 8 characters.
    id: String,
    /// Where it goes: a path, a folder, or `-` for standard output [default: its name, in this folder].
    #[arg(long, short, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

/// A file that was read, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct GotFile {
    id: String,
    /// Its name, as the sharer wrote it.
    name: String,
    /// Where it is; `-` for standard output.
    saved_to: String,
    size_bytes: u64,
    /// SHA-256 of the file.
    sha256: String,
    /// It was encrypted on its way.
    encrypted: bool,
    /// Member that shared it.
    from: String,
    /// Whether that is proved by a signature.
    signature: Proof,
    /// Byte at which an interrupted download went on.
    resumed_at: u64,
}

impl GotFile {
    fn new(got: &Got) -> Self {
        let entry = &got.view.entry;
        Self {
            id: entry.id.to_string(),
            name: got.view.name().to_owned(),
            saved_to: got.path.as_ref().map_or_else(|| "-".to_owned(), |path| path.to_string_lossy().into_owned()),
            size_bytes: got.size,
            sha256: got.sha256.clone(),
            encrypted: entry.encrypted,
            from: entry.uploader.clone(),
            signature: got.proof,
            resumed_at: got.resumed_at,
        }
    }
}

impl Verb for GetArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<GotFile>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<GotFile>>()]
    }

    /// Exit 5 when there is no such file, 6 when something is there already, 7 when it is not for you.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let to_stdout = self.out.as_deref() == Some(Path::new("-"));
        if to_stdout && cx.out.is_json() {
            return Err(CliError::invalid_args("Standard output cannot hold both the file and JSON.")
                .hint("Give a path with --out, or leave --json out."));
        }
        let target = match self.out {
            _ if to_stdout => Target::Stdout,
            Some(path) => Target::Path(path),
            None => Target::Path(PathBuf::from(".")),
        };
        let bar = progress::of(&cx.out, &self.id);
        let got = transfer(cx, &entry, |connection| async move {
            let id = connection.file_id(&self.id).await?;
            get(&connection, cx.store.dir(), Wish { id, target, replace: self.force }, bar).await
        })?;
        if to_stdout {
            return Ok(done(()));
        }
        let row = GotFile::new(&got);
        cx.out.answer(&InMesh::new(&entry.slug, &row), |out| told(&row, out)).map(done)
    }
}

fn told(row: &GotFile, out: &Output) -> String {
    let value = |text: &str| if out.is_for_model() { harmless_value(text) } else { clean(text).into_owned() };
    let proof = match row.signature {
        Proof::Verified => ", signed",
        Proof::Unsigned | Proof::Unknown | Proof::Forged => "",
    };
    let mut text = format!(
        "{} {} ({}, from {}{proof}) → {}\n",
        out.tick(),
        value(&row.name),
        size_words(row.size_bytes),
        value(&row.from),
        value(&row.saved_to)
    );
    if row.resumed_at > 0 {
        text += &format!("  went on at {}\n", size_words(row.resumed_at));
    }
    text
}

/// Download a file into a private folder and open it with the program that this system uses for it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh file open 4uWv2xYz")]
pub struct OpenArgs {
    /// Its id, or at least the first 8 characters.
    id: String,
    /// Open it without a question. A file of another member can be harmful to the program that opens it.
    #[arg(long, short)]
    yes: bool,
}

/// A file that was opened, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct OpenedFile {
    id: String,
    name: String,
    saved_to: String,
    /// The program that was started.
    program: String,
}

impl Verb for OpenArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<OpenedFile>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<OpenedFile>>()]
    }

    /// Exit 1 when that was not confirmed, 5 when there is no such file or no program that opens files.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let name = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        let program = paths::find_program(&cx.env, name).ok_or_else(|| {
            CliError::not_found(format!("There is no `{name}` on this system."))
                .hint("Use `claudemesh file get` and open it yourself.")
        })?;
        let what = "A program of this system will open a file that another member shared.";
        cx.confirm(self.yes, what, "Open it?")?;
        let bar = progress::of(&cx.out, &self.id);
        let got = transfer(cx, &entry, |connection| async move {
            let id = connection.file_id(&self.id).await?;
            // One folder for each file, so that names cannot collide.
            let folder = cx.store.dir().join("opened").join(id.as_str());
            files::create_private_dir(&folder)
                .map_err(|error| CliError::io(format!("{}: {error}.", folder.display())))?;
            get(&connection, cx.store.dir(), Wish { id, target: Target::Path(folder), replace: true }, bar).await
        })?;
        let path = got.path.ok_or_else(|| CliError::internal("The file has no place."))?;
        let started =
            Command::new(&program).arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        match started {
            Ok(status) if status.success() => {}
            Ok(status) => {
                return Err(CliError::new(ExitCode::Io, "open_failed", format!("{name} ended with {status}."))
                    .hint(format!("The file is at {}.", path.display())));
            }
            Err(error) => return Err(CliError::io(format!("{} cannot be started: {error}.", program.display()))),
        }
        let row = OpenedFile {
            id: got.view.entry.id.to_string(),
            name: files::safe_name(got.view.name()),
            saved_to: path.to_string_lossy().into_owned(),
            program: program.to_string_lossy().into_owned(),
        };
        let text = |out: &Output| format!("{} opened {} ({})\n", out.tick(), clean(&row.name), clean(&row.saved_to));
        cx.out.answer(&InMesh::new(&entry.slug, &row), text).map(done)
    }
}
