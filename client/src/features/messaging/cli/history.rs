//! `sent`, `history` and `export`: what was written and received on this machine, in one order. No broker is needed for it, except to
//! find out who a name means that has not been here.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use claudemesh_protocol::time::iso;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::beginning;
use crate::clock::shown;
use crate::config::MeshEntry;
use crate::context::Context;
use crate::context::connect;
use crate::error::{CliError, ExitCode};
use crate::features::messaging::outbox::{Outbox, Parcel};
use crate::files;
use crate::inbox::listed::{Sort, short_id};
use crate::inbox::questions::REPLY;
use crate::inbox::sent::{Known, Letter, Wanted, With};
use crate::inbox::{MAX_LIST, Mailbox};
use crate::ipc::attach;
use crate::output::{Output, Style, clean, clean_lines, counted};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields};

/// Characters of one answer where a model reads it: hosts cut what a command prints at 30,000.
const MODEL_CHARS: usize = 20_000;
/// Letters that an export reads at a time.
const PAGE: i64 = 500;

/// Show what you sent from this machine, newest last.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh sent\n  claudemesh sent --limit 100 --json=messageId,peer,plaintext\n\n\
                        `claudemesh msg-status <id>` says how far a message got."
)]
pub struct SentArgs {
    /// Which part.
    #[command(flatten)]
    page: PageArgs,
}

/// Show the conversation with a peer, a group or a topic: both directions, newest last.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh history Bob\n  claudemesh history @qa --limit 20\n  \
                        claudemesh history Bob --before 8f31c0aa")]
pub struct HistoryArgs {
    /// A name, a key or at least 8 digits of one, `@group`, `#topic`, or `*`.
    peer: String,
    /// Which part.
    #[command(flatten)]
    page: PageArgs,
}

/// Which part of a list.
#[derive(Args, Clone, Debug)]
pub struct PageArgs {
    /// At most this many, the newest.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Only what is older than this message: its ID, or at least 8 characters of it.
    #[arg(long, value_name = "ID")]
    before: Option<String>,
}

/// Write all messages of this machine to a file or to the terminal, oldest first.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh export > messages.jsonl\n  claudemesh export --with Bob --format markdown --out bob.md\n\n\
                        The file is readable by you only. Messages are kept for 30 days."
)]
pub struct ExportArgs {
    /// Only the conversation with this peer, group or topic.
    #[arg(long, value_name = "PEER")]
    with: Option<String>,
    /// `jsonl` is one JSON object per line, `markdown` is for people.
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// File to write to instead of the terminal.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Form of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object per line.
    #[default]
    Jsonl,
    /// For people.
    Markdown,
}

/// A letter, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct LetterRow {
    mesh: String,
    /// `in` or `out`.
    direction: String,
    message_id: String,
    /// What it is.
    #[serde(rename = "type")]
    sort: Sort,
    /// The sender, or who it was sent to.
    peer: String,
    /// Key of the one peer; `null` of a message to several.
    peer_pubkey: Option<String>,
    /// What was addressed.
    target: Option<String>,
    priority: String,
    /// ISO time of its arrival or sending.
    at: String,
    reply_to_id: Option<String>,
    /// `null` when it cannot be opened.
    plaintext: Option<String>,
    /// It waits on this machine for the broker; its ID is that of `outbox list`.
    queued: bool,
}

/// What `export --out` wrote, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Exported {
    messages: usize,
    meshes: Vec<String>,
    saved_to: String,
}

impl Verb for SentArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<LetterRow>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<LetterRow>()]
    }

    /// Exit 5 when `--before` names no message.
    fn run(self, cx: &Context) -> Ran {
        list(cx, None, true, &self.page).map(done)
    }
}

impl Verb for HistoryArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<LetterRow>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<LetterRow>()]
    }

    /// Exit 5 for a peer that no one knows, 3 for a name that several have.
    fn run(self, cx: &Context) -> Ran {
        list(cx, Some(&self.peer), false, &self.page).map(done)
    }
}

impl Verb for ExportArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::lines::<LetterRow>(), Shape::one::<Exported>().of("--out")]
    }

    /// Exit 10 when the file cannot be written.
    fn run(self, cx: &Context) -> Ran {
        export(cx, &self).map(done)
    }
}

/// The inbox of one mesh, and whose letters may be read here.
struct Shelf {
    entry: MeshEntry,
    mailbox: Mailbox,
    /// The session whose shell this is: it reads what the session got and sent, nothing else.
    reader: Option<String>,
}

impl Shelf {
    async fn open(cx: &Context, entry: MeshEntry) -> Result<Self, CliError> {
        let mailbox = Mailbox::open(cx.store.dir(), &entry.mesh_id).await?;
        let mut reader = None;
        if let Some(connection) = attach::attach(cx, &entry).await {
            reader = Some(connection.identity().reader());
            connection.close().await;
        }
        Ok(Self { entry, mailbox, reader })
    }

    async fn letters(&self, wanted: &Wanted) -> Result<Vec<Letter>, CliError> {
        let wanted = Wanted { reader: self.reader.clone(), ..wanted.clone() };
        Ok(self.mailbox.run(move |inbox| inbox.letters(&wanted)).await?)
    }

    /// What waits here for the broker, for `who` alone when it is given. A session's shell sees what the session sent only.
    fn queued(&self, cx: &Context, who: Option<&str>) -> Vec<LetterRow> {
        if self.reader.is_some() {
            return vec![];
        }
        let meant = |target: &str| who.is_none_or(|who| target.to_lowercase() == who.trim().to_lowercase());
        let parcels = Outbox::of(cx.store.dir(), &self.entry.mesh_id).parcels().into_iter();
        let parcels = parcels.filter(|parcel| parcel.failure().is_none() && parcel.targets().into_iter().any(meant));
        let row = |parcel: Parcel| LetterRow {
            mesh: self.entry.slug.clone(),
            direction: "out".into(),
            sort: Sort::of(parcel.is_reply.then_some(REPLY), None),
            peer: short_target(&parcel.targets().join(",")),
            peer_pubkey: None,
            target: Some(parcel.targets().join(",")),
            priority: parcel.priority.as_str().to_owned(),
            at: iso(parcel.queued_at_ms),
            reply_to_id: parcel.reply_to.clone(),
            plaintext: Some(parcel.text.clone()),
            message_id: parcel.id,
            queued: true,
        };
        parcels.map(row).collect()
    }

    /// Who a word means in this mesh; `None` when no one of that name has been here and the broker knows no one either.
    async fn with(&self, cx: &Context, who: &str) -> Result<Option<With>, CliError> {
        let who = who.trim();
        if who == "*" || who.starts_with(['@', '#']) {
            return Ok(Some(With::Audience(who.to_owned())));
        }
        let known = self.mailbox.run(|inbox| inbox.known_peers()).await?;
        if let Some(keys) = keys_of(&known, who, &self.entry.pubkey)? {
            return Ok(Some(With::Keys(keys)));
        }
        // Someone who has never been here has no letters; the broker tells who that is, when it can.
        let found = async {
            let connection = connect::connect(cx, &self.entry, connect::Purpose::Ask).await.ok()?;
            let found = connection.resolve_target(who).await.ok();
            connection.close().await;
            found
        };
        let own = &self.entry.pubkey;
        Ok(found.await.map(|found| {
            let mut keys = vec![found.pubkey.to_hex()];
            keys.extend(Some(found.member_pubkey.to_hex()).filter(|key| key != own));
            With::Keys(keys)
        }))
    }
}

/// The keys of the one who a name, a key or the beginning of one means. Sessions of one's own member share its key, so of these
/// only the session's counts.
fn keys_of(known: &[Known], who: &str, own: &str) -> Result<Option<Vec<String>>, CliError> {
    let prefix = who.to_ascii_lowercase();
    let is_prefix = prefix.len() >= 8 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    let session_name = who.rsplit_once('/').map(|(_, session)| session.to_lowercase());
    let fits = |one: &Known| {
        let name = one.name.to_lowercase();
        let by_key = is_prefix
            && (one.pubkey.starts_with(&prefix) || one.member.as_deref().is_some_and(|key| key.starts_with(&prefix)));
        name == who.to_lowercase() || session_name.as_ref() == Some(&name) || by_key
    };
    let (mut keys, mut members): (Vec<String>, Vec<String>) = (vec![], vec![]);
    let add = |list: &mut Vec<String>, key: &String| {
        if !list.contains(key) {
            list.push(key.clone());
        }
    };
    for one in known.iter().filter(|one| fits(one)) {
        add(&mut keys, &one.pubkey);
        if let Some(member) = one.member.as_ref().filter(|member| *member != own) {
            add(&mut keys, member);
            add(&mut members, member);
        }
    }
    if members.len() > 1 && !is_prefix {
        let message = format!("`{}` may mean {} members; use a key.", clean(who), members.len());
        return Err(CliError::new(ExitCode::InvalidArgs, "ambiguous_target", message)
            .hint(format!("Their keys are {}.", members.join(", "))));
    }
    Ok(Some(keys).filter(|keys| !keys.is_empty()))
}

/// Runs `sent` and `history`.
fn list(cx: &Context, who: Option<&str>, sent_only: bool, page: &PageArgs) -> Result<(), CliError> {
    let entries = cx.mesh_entries()?;
    let found = connect::block_on(async {
        let (mut found, mut queued, mut known) = (vec![], vec![], who.is_none());
        for entry in entries {
            let shelf = Shelf::open(cx, entry).await?;
            let waiting = if page.before.is_none() { shelf.queued(cx, who) } else { vec![] };
            known |= !waiting.is_empty();
            queued.extend(waiting);
            let with = match who {
                Some(who) => match shelf.with(cx, who).await? {
                    Some(with) => Some(with),
                    None => continue,
                },
                None => None,
            };
            known = true;
            let before = page.before.clone();
            let wanted = Wanted { with, sent_only, before, limit: i64::from(page.limit), ..Wanted::default() };
            let letters = shelf.letters(&wanted).await?;
            found.extend(letters.into_iter().map(|letter| (shelf.entry.slug.clone(), letter)));
        }
        if !known {
            let message = format!("No one here is called `{}`.", clean(who.unwrap_or_default()));
            return Err(CliError::not_found(message).hint("`claudemesh peers --all` lists the members."));
        }
        Ok((found, queued))
    })?;
    let (mut found, queued): (Vec<(String, Letter)>, Vec<LetterRow>) = found;
    found.sort_by_key(|(_, letter)| letter.at_ms());
    let mut rows: Vec<LetterRow> = found.iter().map(|(slug, letter)| row(slug, letter)).collect();
    // Not sent yet, so the newest.
    rows.extend(queued);
    let rows = rows.split_off(rows.len().saturating_sub(page.limit as usize));
    if rows.is_empty()
        && let Some(id) = &page.before
    {
        let message = format!("No message {} is here, or none is older.", clean(id));
        return Err(CliError::not_found(message).hint("`claudemesh history <peer>` and `claudemesh sent` show IDs."));
    }
    cx.out.answer(&rows, |out| {
        if rows.is_empty() {
            return if out.is_quiet() { String::new() } else { "no messages\n".into() };
        }
        let text = out.preamble();
        let blocks: Vec<String> = rows.iter().map(|row| row_text(row, out)).collect();
        text + &newest_that_fit(&blocks, &rows, out)
    })
}

/// All blocks for a person; for a model the newest that it is shown whole.
fn newest_that_fit(blocks: &[String], rows: &[LetterRow], out: &Output) -> String {
    if !out.is_for_model() {
        return blocks.concat();
    }
    let (mut from, mut chars) = (blocks.len(), 0);
    while from > 0 && chars + blocks[from - 1].chars().count() <= MODEL_CHARS {
        from -= 1;
        chars += blocks[from].chars().count();
    }
    // One that is too long alone is shown from its beginning.
    if from == blocks.len() {
        return blocks.last().map(|block| block.chars().take(MODEL_CHARS).collect()).unwrap_or_default();
    }
    let older = match from {
        0 => String::new(),
        count => {
            format!("({count} older ones did not fit; --before {} reads them)\n", short_id(&rows[from].message_id))
        }
    };
    older + &blocks[from..].concat()
}

fn row(slug: &str, letter: &Letter) -> LetterRow {
    let mesh = slug.to_owned();
    match letter {
        Letter::In(message) => LetterRow {
            mesh,
            direction: "in".into(),
            message_id: message.message_id.clone(),
            sort: Sort::of(message.subtype.as_deref(), message.event.as_deref()),
            peer: message.from_name(),
            peer_pubkey: Some(message.sender_pubkey.clone()),
            target: message.target_spec.clone(),
            priority: message.priority.clone(),
            at: iso(letter.at_ms()),
            reply_to_id: message.reply_to_id.clone(),
            plaintext: message.body.as_ref().map(|_| message.text()),
            queued: false,
        },
        Letter::Out(sent) => LetterRow {
            mesh,
            direction: "out".into(),
            message_id: sent.message_id.clone(),
            sort: Sort::of(sent.subtype.as_deref(), None),
            peer: sent.to_name.clone().unwrap_or_else(|| short_target(&sent.target)),
            peer_pubkey: sent.to_pubkey.clone(),
            target: Some(sent.target.clone()),
            priority: sent.priority.clone(),
            at: iso(letter.at_ms()),
            reply_to_id: sent.reply_to_id.clone(),
            plaintext: Some(sent.body.clone()),
            queued: false,
        },
    }
}

/// Keys are shown by their beginning, audiences by their names.
fn short_target(target: &str) -> String {
    let part = |part: &str| match claudemesh_protocol::id::PublicKey::parse(part) {
        Some(key) => key.short(),
        None => part.to_owned(),
    };
    target.split(',').map(part).collect::<Vec<_>>().join(", ")
}

fn row_text(row: &LetterRow, out: &Output) -> String {
    let word = |text: &str| beginning(text, out);
    let arrow = if row.direction == "out" { "to " } else { "" };
    let what = match row.sort {
        Sort::Message => String::new(),
        sort => format!("{} · ", sort.as_str()),
    };
    let answers =
        row.reply_to_id.as_deref().map(|id| format!(" · answers {}", word(&short_id(id)))).unwrap_or_default();
    let waits = if row.queued { " · queued here, waits for the broker" } else { "" };
    // Beside direct talk stands what the same peer wrote to a group.
    let wider = row.target.as_deref().filter(|target| target.starts_with(['@', '#', '*']) && *target != row.peer);
    let to = wider.map(|target| format!("to {} · ", word(target))).unwrap_or_default();
    let details = format!("{what}{to}{} · {}{answers}{waits}", shown(&row.at), word(&short_id(&row.message_id)));
    let name = out.paint(Style::Cyan, &format!("{arrow}{}", word(&row.peer))).into_owned();
    let text = row.plaintext.as_deref().unwrap_or("(a sealed message that the keys of this member cannot open)");
    format!("{name}  {}\n{}", out.paint(Style::Dim, &details), out.block(text))
}

/// Runs `export`.
fn export(cx: &Context, args: &ExportArgs) -> Result<(), CliError> {
    let entries = cx.mesh_entries()?;
    let format = if cx.out.is_json() && args.out.is_none() { Format::Jsonl } else { args.format };
    let mut text = String::new();
    let (mut messages, mut meshes) = (0, vec![]);
    connect::block_on(async {
        for entry in entries {
            let shelf = Shelf::open(cx, entry).await?;
            let with = match &args.with {
                Some(who) => match shelf.with(cx, who).await? {
                    Some(with) => Some(with),
                    None => continue,
                },
                None => None,
            };
            let letters = all_letters(&shelf, with).await?;
            messages += letters.len();
            meshes.push(shelf.entry.slug.clone());
            if format == Format::Markdown && !letters.is_empty() {
                text += &format!("# {}\n\n", clean(&shelf.entry.slug));
            }
            for letter in &letters {
                text += &exported(&row(&shelf.entry.slug, letter), format, &cx.out)?;
            }
        }
        Ok(())
    })?;
    if let Some(who) = args.with.as_ref().filter(|_| meshes.is_empty()) {
        return Err(CliError::not_found(format!("No one here is called `{}`.", clean(who)))
            .hint("`claudemesh peers --all` lists the members."));
    }
    let Some(path) = &args.out else { return cx.out.write(&text) };
    write_private(path, text.as_bytes())
        .map_err(|error| CliError::io(format!("{} cannot be written: {error}.", path.display())))?;
    let value = Exported { messages, meshes, saved_to: path.display().to_string() };
    cx.out
        .answer(&value, |out| format!("{} {} in {}\n", out.tick(), counted(value.messages, "message"), value.saved_to))
}

/// Every letter, oldest first, page by page from the newest.
async fn all_letters(shelf: &Shelf, with: Option<With>) -> Result<Vec<Letter>, CliError> {
    let mut pages = vec![];
    let mut wanted = Wanted { with, limit: PAGE.min(MAX_LIST), ..Wanted::default() };
    loop {
        let page = shelf.letters(&wanted).await?;
        let Some(oldest) = page.first() else { break };
        wanted.before = Some(oldest.message_id().to_owned());
        pages.push(page);
    }
    pages.reverse();
    Ok(pages.concat())
}

fn exported(row: &LetterRow, format: Format, out: &Output) -> Result<String, CliError> {
    if format == Format::Jsonl {
        let line = serde_json::to_string(row);
        return line.map(|line| line + "\n").map_err(|error| CliError::internal(error.to_string()));
    }
    let peer = clean(&row.peer);
    let (from, to): (&str, &str) = if row.direction == "out" { ("You", &peer) } else { (&peer, "you") };
    let text = row.plaintext.as_deref().unwrap_or_default();
    // In a quotation no text can pass for a heading of ours.
    let quoted = match out.is_for_model() {
        true => out.block(text),
        false => clean_lines(text).lines().map(|line| format!("> {line}\n")).collect(),
    };
    Ok(format!("**{from}** to {to}, {} ({})\n\n{quoted}\n", shown(&row.at), short_id(&row.message_id)))
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, files::PRIVATE_FILE);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, pubkey: &str, member: Option<&str>) -> Known {
        Known { name: name.into(), pubkey: pubkey.into(), member: member.map(str::to_owned) }
    }

    #[test]
    fn a_name_means_all_sessions_of_its_member_and_of_ones_own_the_session() {
        let (bob, api, own) = ("b".repeat(64), "c".repeat(64), "a".repeat(64));
        let all = [
            known("Bob", &bob, Some(&bob)),
            known("BobS", &"d".repeat(64), Some(&bob)),
            known("api", &api, Some(&own)),
            known("Twin", &"e".repeat(64), Some(&"1".repeat(64))),
            known("Twin", &"f".repeat(64), Some(&"2".repeat(64))),
        ];
        let keys = |who: &str| keys_of(&all, who, &own);
        assert_eq!(keys("bob"), Ok(Some(vec![bob.clone()])));
        assert_eq!(keys("BobS"), Ok(Some(vec!["d".repeat(64), bob.clone()])));
        assert_eq!(keys("me/api"), Ok(Some(vec![api.clone()])), "not everything that this machine ever wrote");
        assert_eq!(keys(&bob[..8]), Ok(Some(vec![bob.clone(), "d".repeat(64)])));
        assert_eq!((keys("Nobody"), keys("bbb")), (Ok(None), Ok(None)));
        assert_eq!(keys("Twin").unwrap_err().code, "ambiguous_target");
    }

    #[test]
    fn keys_are_short_and_audiences_are_named() {
        assert_eq!(short_target("@qa,*"), "@qa, *");
        assert!(short_target(&"a".repeat(64)).len() < 32);
    }
}
