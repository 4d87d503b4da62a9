//! `inbound` (the rule for incoming messages) and `held` (the messages it holds).

use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Rule, Rules};
use crate::config::MeshEntry;
use crate::context::Context;
use crate::error::CliError;
use crate::inbox::{Inbox, Message, MessageObject, Verdict};
use crate::output::{Output, clean};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Show or set which messages reach your sessions: accepted, held for your release, or refused.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh inbound\n  claudemesh inbound set hold --from 1a2b3c4d5e6f\n  \
                        claudemesh inbound auto accept")]
pub struct InboundArgs {
    /// What to do; without it the rule is shown.
    #[command(subcommand)]
    pub action: Option<InboundAction>,
}

impl Verb for InboundArgs {
    fn effect(&self) -> Effect {
        if self.action.is_none() { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        ["", "set", "bypass", "auto", "reset"].map(|word| Shape::one::<Rules>().of(word)).to_vec()
    }

    fn run(self, cx: &Context) -> Ran {
        inbound(cx, &self).map(done)
    }
}

/// What `inbound` does.
#[derive(Subcommand, Clone, Debug)]
pub enum InboundAction {
    /// Accept, hold or refuse what a sender, or everyone, writes. With --mesh only in that mesh.
    #[command(
        after_help = "Examples:\n  claudemesh inbound set hold\n  claudemesh inbound set refuse --from 1a2b3c4d5e6f\n  \
                            claudemesh inbound set accept --from 1a2b3c4d5e6f --mesh team"
    )]
    Set {
        /// What happens.
        #[arg(value_enum)]
        verdict: Verdict,
        /// At least 8 digits of the sender's key, see `claudemesh peers`; without it everyone.
        #[arg(long, value_name = "KEY")]
        from: Option<String>,
    },
    /// What happens with other people's messages while a session runs without permission prompts.
    #[command(after_help = "Example:\n  claudemesh inbound bypass accept")]
    Bypass {
        /// What happens.
        #[arg(value_enum)]
        verdict: Verdict,
    },
    /// What happens with other people's messages while a session is in auto mode, which acts without asking.
    #[command(after_help = "Example:\n  claudemesh inbound auto accept")]
    Auto {
        /// What happens.
        #[arg(value_enum)]
        verdict: Verdict,
    },
    /// Back to the default.
    #[command(after_help = "Example:\n  claudemesh inbound reset")]
    Reset,
}

/// List, release or drop messages held by your inbound rule.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh held\n  claudemesh held release 312b1423\n  claudemesh held drop --all"
)]
pub struct HeldArgs {
    /// What to do; without it the held messages are listed.
    #[command(subcommand)]
    pub action: Option<HeldAction>,
}

impl Verb for HeldArgs {
    fn effect(&self) -> Effect {
        if self.action.is_none() { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        match self.action {
            None => crate::verb::json_fields::of::<crate::inbox::MessageObject>(),
            Some(HeldAction::Release { .. }) => crate::verb::json_fields::of::<Released>(),
            Some(HeldAction::Drop { .. }) => crate::verb::json_fields::of::<Dropped>(),
        }
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<MessageObject>(), Shape::one::<Released>().of("release"), Shape::one::<Dropped>().of("drop")]
    }

    fn run(self, cx: &Context) -> Ran {
        held(cx, &self).map(done)
    }
}

/// What `held` does.
#[derive(Subcommand, Clone, Debug)]
pub enum HeldAction {
    /// Let held messages through to the session.
    #[command(after_help = "Examples:\n  claudemesh held release 312b1423\n  claudemesh held release --all")]
    Release {
        /// Message id, or at least its first 8 characters.
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// All of them.
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
    /// Put held messages away unseen.
    #[command(after_help = "Example:\n  claudemesh held drop 312b1423")]
    Drop {
        /// Message id, or at least its first 8 characters.
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// All of them.
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

/// Runs `inbound`.
///
/// # Errors
/// Exit 3 for a key that is too short to mean one sender, 10 when the file cannot be used.
fn inbound(cx: &Context, args: &InboundArgs) -> Result<(), CliError> {
    // Reading needs no lock, which a folder that cannot be written has no place for.
    let _lock = args.action.is_some().then(|| cx.store.lock()).transpose()?;
    let mut rules = Rules::load(&cx.store)?;
    match &args.action {
        None => {}
        Some(InboundAction::Set { verdict, from }) => {
            let from = from.as_deref().map(sender_key).transpose()?;
            let mesh = cx.mesh.clone();
            rules.rules.retain(|rule| rule.from != from || rule.mesh != mesh);
            // A named sender comes before everyone.
            let at = if from.is_some() { 0 } else { rules.rules.len() };
            rules.rules.insert(at, Rule { from, mesh, verdict: *verdict });
            rules.save(&cx.store)?;
        }
        Some(InboundAction::Bypass { verdict }) => {
            rules.bypass = *verdict;
            rules.save(&cx.store)?;
        }
        Some(InboundAction::Auto { verdict }) => {
            rules.auto = *verdict;
            rules.save(&cx.store)?;
        }
        Some(InboundAction::Reset) => {
            rules = Rules::default();
            rules.save(&cx.store)?;
        }
    }
    let value = serde_json::to_value(&rules)
        .map_err(|error| CliError::internal(format!("The rules cannot be written: {error}.")))?;
    cx.out.answer(&value, |_| text(&rules))
}

fn sender_key(text: &str) -> Result<String, CliError> {
    let key = text.trim().to_ascii_lowercase();
    if !(8..=64).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(CliError::invalid_args(format!("'{}' is not the key of a sender.", clean(text)))
            .hint("Use 8 to 64 hex digits of a key that `claudemesh peers` lists; names are not unique."));
    }
    Ok(key)
}

fn text(rules: &Rules) -> String {
    let mut text = String::new();
    for rule in &rules.rules {
        let from = rule.from.as_ref().map_or("everyone".to_owned(), |from| format!("key {}", clean(from)));
        let mesh = rule.mesh.as_ref().map(|mesh| format!(" in {}", clean(mesh))).unwrap_or_default();
        text += &format!("{:<7} {from}{mesh}\n", rule.verdict.as_str());
    }
    let rest = if rules.rules.is_empty() { "everyone" } else { "everyone else" };
    text += &format!("{:<7} {rest}\n", Verdict::Accept.as_str());
    text += &format!("{:<7} other people, while a session runs without permission prompts\n", rules.bypass.as_str());
    text += &format!("{:<7} other people, while a session is in auto mode\n", rules.auto.as_str());
    text
}

/// The messages that were let through.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Released {
    ok: bool,
    released: Vec<String>,
}

/// The messages that were put away.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Dropped {
    ok: bool,
    dropped: Vec<String>,
}

/// Runs `held`.
///
/// # Errors
/// Exit 5 when no held message has that id, 10 when an inbox cannot be used.
fn held(cx: &Context, args: &HeldArgs) -> Result<(), CliError> {
    match &args.action {
        None => list(cx),
        Some(HeldAction::Release { id, all }) => settle(cx, id.as_deref(), *all, Verdict::Accept),
        Some(HeldAction::Drop { id, all }) => settle(cx, id.as_deref(), *all, Verdict::Refuse),
    }
}

fn all_held(cx: &Context) -> Result<Vec<(MeshEntry, Message)>, CliError> {
    let mut found: Vec<(MeshEntry, Message)> = vec![];
    for entry in cx.mesh_entries()? {
        let mut inbox = Inbox::open(cx.store.dir(), &entry.mesh_id)?;
        for (_, message) in inbox.held()? {
            // Two sessions of the member may hold the same message.
            if !found.iter().any(|(_, known)| known.message_id == message.message_id) {
                found.push((entry.clone(), message));
            }
        }
    }
    Ok(found)
}

fn list(cx: &Context) -> Result<(), CliError> {
    let found = all_held(cx)?;
    let value = Value::Array(found.iter().map(|(entry, message)| message.to_json(&entry.slug)).collect());
    cx.out.answer(&value, |out| {
        if found.is_empty() {
            return if out.is_quiet() { String::new() } else { "nothing is held\n".into() };
        }
        out.preamble() + &found.iter().map(|(entry, message)| held_text(entry, message, out)).collect::<String>()
    })
}

fn held_text(entry: &MeshEntry, message: &Message, out: &Output) -> String {
    let id = crate::inbox::listed::short_id(&message.message_id);
    let key: String = message.sender_member.chars().take(12).collect();
    let name = message.from_name();
    let head = format!("{}  {} ({key}) in {}\n", clean(&id), clean(&name), clean(&entry.slug));
    let head = out.paint(crate::output::Style::Bold, &head).into_owned();
    head + &out.block(&message.text())
}

fn settle(cx: &Context, id: Option<&str>, all: bool, verdict: Verdict) -> Result<(), CliError> {
    let wanted: Vec<(MeshEntry, Message)> = all_held(cx)?
        .into_iter()
        .filter(|(_, message)| all || id.is_some_and(|id| id.len() >= 8 && message.message_id.starts_with(id)))
        .collect();
    if wanted.is_empty() && !all {
        return Err(CliError::not_found("No held message has that id.").hint("`claudemesh held` lists them."));
    }
    let now = crate::clock::now_ms();
    for (entry, message) in &wanted {
        Inbox::open(cx.store.dir(), &entry.mesh_id)?.settle_held(&[message.seq], verdict, now)?;
    }
    let ids: Vec<String> = wanted.into_iter().map(|(_, message)| message.message_id).collect();
    let count = ids.len();
    // The session that holds them looks again within ten seconds, and at its next hook.
    match verdict {
        Verdict::Accept => {
            let value = Released { ok: true, released: ids };
            cx.out.answer(&value, |out| format!("{} {count} released\n", out.tick()))
        }
        _ => {
            let value = Dropped { ok: true, dropped: ids };
            cx.out.answer(&value, |out| format!("{} {count} dropped\n", out.tick()))
        }
    }
}
