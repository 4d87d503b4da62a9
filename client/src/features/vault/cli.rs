//! `vault set`, `list`, `get`, `delete`.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use claudemesh_protocol::features::vault::limits::MAX_VALUE_BYTES;
use claudemesh_protocol::features::vault::{EntryType, SealState, VaultEntry};
use inquire::{InquireError, Password, PasswordDisplayMode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Opened, Secret, cannot_open, kind_words};
use crate::clock::shown;
use crate::context::Context;
use crate::context::connect::{ask, in_mesh};
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Style, clean, word};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, verbs};

verbs! {
    /// Keep secrets that this machine seals with your key. The broker cannot read them.
    #[command(
        after_help = "Examples:\n  claudemesh vault set GITHUB_TOKEN                  asks for the value and does not show it\n  \
                      gh auth token | claudemesh vault set GITHUB_TOKEN -\n  \
                      claudemesh vault set tls.key --file key.pem --mount /etc/tls/key.pem\n  claudemesh vault list\n\n\
                      Entries are your member's alone: no other member can list or read them."
    )]
    pub struct VaultArgs: enum VaultAction {
        Set => SetArgs,
        List => ListArgs,
        Get => GetArgs,
        Delete => DeleteArgs,
    }
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// The value of an environment variable.
    Env,
    /// The content of a file.
    File,
}

/// Seal a value with your key and keep it: from the standard input, a file, or a question that does not show it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh vault set GITHUB_TOKEN\n  \
                        gh auth token | claudemesh vault set GITHUB_TOKEN - --description \"reads repositories\"\n  \
                        claudemesh vault set tls.key --file key.pem --mount /etc/tls/key.pem\n\n\
                        The value is never an argument: every user of this machine sees the arguments of programs.")]
pub struct SetArgs {
    /// Its name: letters, digits and _ . -
    key: String,
    /// `-` reads the value from the standard input, without the line end that `echo` adds.
    #[arg(value_name = "-", allow_hyphen_values = true)]
    from: Option<String>,
    /// Read the value from this file, as it is.
    #[arg(long, value_name = "PATH", conflicts_with = "from")]
    file: Option<PathBuf>,
    /// What it is for [default: file with --file or --mount, else env]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// Path at which a service finds the file.
    #[arg(long, value_name = "PATH")]
    mount: Option<String>,
    /// What it is, for people. The broker can read it.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// An entry that was stored, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Stored {
    key: String,
    stored: bool,
    #[serde(rename = "type")]
    kind: EntryType,
}

impl Verb for SetArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Stored>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Stored>>()]
    }

    /// Exit 3 for a bad name or a value on the command line, 7 when a bound is hit, 10 when the value cannot be read.
    fn run(self, cx: &Context) -> Ran {
        let value = self.value(cx)?;
        let entry_type = match self.kind {
            Some(Kind::File) => EntryType::File,
            Some(Kind::Env) => EntryType::Env,
            None if self.file.is_some() || self.mount.is_some() => EntryType::File,
            None => EntryType::Env,
        };
        let Self { key, mount: mount_path, description, .. } = self;
        let stored = Stored { key: key.clone(), stored: true, kind: entry_type };
        let secret = Secret { key, value, entry_type, mount_path, description };
        let (mesh, ()) = in_mesh(cx, |connection| async move { connection.vault_set(secret).await })?;
        let text = |out: &Output| {
            format!("{} {} is in your vault, sealed with your key\n", out.tick(), word(&stored.key, out))
        };
        cx.out.answer(&InMesh::new(&mesh, &stored), text).map(done)
    }
}

impl SetArgs {
    fn value(&self, cx: &Context) -> Result<Zeroizing<Vec<u8>>, CliError> {
        match (&self.file, self.from.as_deref()) {
            (Some(path), _) => from_file(path),
            (None, Some("-")) => from_stdin(),
            (None, Some(_)) => Err(CliError::invalid_args(
                "A value on the command line is seen by every user of this machine.",
            )
            .hint("Write `-` in its place and the value on the standard input, or leave it out to be asked for it.")),
            (None, None) if std::io::stdin().is_terminal() => asked_for(cx, &self.key),
            (None, None) => from_stdin(),
        }
    }
}

fn too_long() -> CliError {
    let message = format!("The value is too long: at most {MAX_VALUE_BYTES} bytes can be kept.");
    CliError::new(ExitCode::InvalidArgs, "payload_too_large", message)
}

fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let unreadable = |error: std::io::Error| CliError::io(format!("{} cannot be read: {error}.", path.display()));
    let mut value = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_VALUE_BYTES as u64 + 1).read_to_end(&mut value).map_err(unreadable)?;
    if value.len() > MAX_VALUE_BYTES { Err(too_long()) } else { Ok(value) }
}

fn from_stdin() -> Result<Zeroizing<Vec<u8>>, CliError> {
    let mut value = Zeroizing::new(Vec::new());
    // One line end more than a value may have.
    std::io::stdin()
        .lock()
        .take(MAX_VALUE_BYTES as u64 + 3)
        .read_to_end(&mut value)
        .map_err(|error| CliError::io(format!("The standard input cannot be read: {error}.")))?;
    if value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
    if value.is_empty() {
        return Err(CliError::invalid_args("The value is empty.").hint("`claudemesh vault delete` deletes an entry."));
    }
    if value.len() > MAX_VALUE_BYTES { Err(too_long()) } else { Ok(value) }
}

fn asked_for(cx: &Context, key: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    if cx.out.is_json() || !crate::context::confirm::can_ask() {
        let error = CliError::invalid_args("The value is missing.");
        return Err(error.hint("Write it on the standard input, or name a file with --file."));
    }
    let question = format!("Value of {}:", clean(key));
    let prompt = Password::new(&question).without_confirmation().with_display_mode(PasswordDisplayMode::Hidden);
    match prompt.prompt() {
        Ok(text) if text.is_empty() => Err(CliError::cancelled("Cancelled; nothing was changed.")),
        Ok(text) => Ok(Zeroizing::new(text.into_bytes())),
        Err(InquireError::OperationCanceled | InquireError::OperationInterrupted) => {
            Err(CliError::cancelled("Cancelled; nothing was changed."))
        }
        Err(error) => Err(CliError::io(format!("The terminal cannot be used for questions: {error}."))),
    }
}

/// List the names in your vault. Values are never in the list.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh vault list\n  claudemesh vault list --everyone --json=key,by")]
pub struct ListArgs {
    /// The names of all members. Needs `canManageVault`; values stay closed.
    #[arg(long)]
    everyone: bool,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<VaultEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<VaultEntry>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let (mesh, rows) = in_mesh(cx, |connection| async move { connection.vault_list(self.everyone).await })?;
        cx.out
            .answer(&InMesh::all(&mesh, &rows), |out| match rows.is_empty() {
                true => "nothing is in the vault; `claudemesh vault set NAME` keeps a secret\n".to_owned(),
                false => rows.iter().map(|row| line(row, out)).collect(),
            })
            .map(done)
    }
}

fn line(row: &VaultEntry, out: &Output) -> String {
    let mut facts = vec![kind_words(row.entry_type, row.mount_path.as_deref())];
    facts.extend(row.by.as_ref().map(|by| format!("of {by}")));
    facts.push(shown(&row.updated_at).into_owned());
    let about = row.description.as_deref().map(|text| format!("  {}", word(text, out))).unwrap_or_default();
    let key = word(&row.key, out);
    let facts = word(&facts.join(" · "), out);
    format!("{}  {}{about}\n", out.paint(Style::Cyan, &key), out.paint(Style::Dim, &facts))
}

/// Open a value of your vault.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh vault get GITHUB_TOKEN\n  claudemesh vault get tls.key --out key.pem")]
pub struct GetArgs {
    /// Its name.
    key: String,
    /// Write it to this file, which only you can read, and not to the terminal.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// A value that was opened, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Value {
    key: String,
    #[serde(rename = "type")]
    kind: EntryType,
    mount_path: Option<String>,
    /// The value, when it is text and not in a file.
    value: Option<String>,
    /// The same in base64, when it is no text.
    value_base64: Option<String>,
    /// Where it was written.
    saved_to: Option<String>,
    /// Whether your member's key has signed it.
    signature: SealState,
}

impl Verb for GetArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Value>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Value>>()]
    }

    /// Exit 2 when it is not what your member stored, 5 when there is no such entry, 10 when the file cannot be written.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let key = self.key.as_str();
        let opened = ask(cx, &entry, |connection| async move {
            connection.vault_get(key).await.map_err(|error| match cannot_open(&error) {
                Some(why) => {
                    CliError::new(ExitCode::Auth, "cannot_open", format!("`{}` cannot be opened.", clean(key)))
                        .hint(why)
                }
                None => CliError::from(error),
            })
        })?;
        let opened = opened.ok_or_else(|| missing(key))?;
        if opened.seal == SealState::Unsigned {
            cx.out.warn(
                "It was stored by a client that does not sign: the broker may have put another value in its place.",
            );
        }
        let told = self.told(&opened)?;
        cx.out
            .answer(&InMesh::new(&entry.slug, &told), |out| match (&told.saved_to, &told.value, &told.value_base64) {
                (Some(path), ..) => format!("{} {} is in {path}\n", out.tick(), word(&told.key, out)),
                (None, Some(text), _) => format!("{text}\n"),
                (None, None, coded) => {
                    format!(
                        "(no text; in base64, or --out FILE writes it as it is)\n{}\n",
                        coded.as_deref().unwrap_or_default()
                    )
                }
            })
            .map(done)
    }
}

impl GetArgs {
    fn told(&self, opened: &Opened) -> Result<Value, CliError> {
        let text = std::str::from_utf8(&opened.value).ok();
        let mut told = Value {
            key: opened.key.clone(),
            kind: opened.entry_type,
            mount_path: opened.mount_path.clone(),
            value: None,
            value_base64: None,
            saved_to: None,
            signature: opened.seal,
        };
        if let Some(path) = &self.out {
            let unwritable = |error| CliError::io(format!("{} cannot be written: {error}.", path.display()));
            crate::files::write_private(path, &opened.value).map_err(unwritable)?;
            told.saved_to = Some(path.display().to_string());
        } else if let Some(text) = text {
            told.value = Some(text.to_owned());
        } else {
            told.value_base64 = Some(STANDARD.encode(&*opened.value));
        }
        Ok(told)
    }
}

fn missing(key: &str) -> CliError {
    let error = CliError::not_found(format!("`{}` is not in your vault.", clean(key))).field("key", key);
    error.hint("`claudemesh vault list` shows the names.")
}

/// Delete an entry for good.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh vault delete GITHUB_TOKEN")]
pub struct DeleteArgs {
    /// Its name.
    key: String,
    /// An entry of another member, by the member's ID (`vault list --everyone --json=key,member_id`). Needs `canManageVault`.
    #[arg(long, value_name = "ID")]
    member: Option<String>,
}

/// An entry that was deleted, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Deleted {
    key: String,
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

    /// Exit 5 when there is no such entry, 7 when it is another member's.
    fn run(self, cx: &Context) -> Ran {
        let (key, member) = (self.key.as_str(), self.member.as_deref());
        let (mesh, gone) = in_mesh(cx, |connection| async move { connection.vault_delete(key, member).await })?;
        if !gone {
            return Err(missing(key));
        }
        let deleted = Deleted { key: self.key.clone(), deleted: true };
        let text = |out: &Output| format!("{} deleted {}\n", out.tick(), word(&deleted.key, out));
        cx.out.answer(&InMesh::new(&mesh, &deleted), text).map(done)
    }
}
