//! Messages in words, for people.

use super::args::InboxArgs;
use super::inbox::Fetched;
use crate::clock::shown;
use crate::inbox::listed::{Sort, short_id};
use crate::inbox::{Listed, Message};
use crate::output::{Output, Style, clean, counted};

/// Characters of a question that an answer repeats.
const ASKED_CHARS: usize = 60;

pub(super) fn nothing_text(one: &Fetched, args: &InboxArgs, out: &Output) -> String {
    let kind = if args.all { "" } else { "new " };
    let slug = clean(&one.slug);
    match (one.trouble.is_none(), args.all) {
        _ if out.is_quiet() => String::new(),
        (true, _) => format!("{slug}: no {kind}messages\n"),
        (false, true) => format!("{slug}: not reached; nothing is here from before\n"),
        (false, false) => format!("{slug}: not reached; nothing new is here from before\n"),
    }
}

pub(super) fn inbox_text(fetched: &[Fetched], args: &InboxArgs, out: &Output) -> String {
    let mut text = String::new();
    for one in fetched {
        if one.messages.is_empty() {
            text += &nothing_text(one, args, out);
            continue;
        }
        if !out.is_quiet() {
            let kind = if args.all { "message" } else { "new message" };
            let held = one.messages.iter().filter(|listed| listed.held).count();
            let count = if args.all { one.messages.len() } else { one.messages.len() - held };
            let mut header = clean(&one.slug).into_owned();
            header += if one.trouble.is_none() { ": " } else { ": not reached; " };
            header += &counted(count, kind);
            if held > 0 {
                header += &format!(", {held} held");
            }
            if one.trouble.is_some() {
                header += " from before";
            }
            text += &format!("{}\n", out.paint(Style::Bold, &header));
        }
        for listed in &one.messages {
            text += &listed_text(listed, out);
        }
    }
    text
}

/// One message: who, what it is, how urgent, when, its id; its text; the command that comes next where one is needed.
pub(super) fn listed_text(listed: &Listed, out: &Output) -> String {
    let message = &listed.message;
    let urgency = if message.priority == "now" {
        format!(" · {}", out.paint(Style::Red, "priority now"))
    } else {
        String::new()
    };
    let held = if listed.held { out.paint(Style::Yellow, "held ").into_owned() } else { String::new() };
    let what = what(listed, out);
    let place = message.place().map(|place| format!(" · {}", clean(&place))).unwrap_or_default();
    let (at, id) = (shown(&message.created_at), short_id(&message.message_id));
    let details = format!("{what}{urgency} · {at} · {}{place}", clean(&id));
    let name = out.paint(Style::Cyan, &clean(&message.from_name())).into_owned();
    let head = format!("{name}  {held}{}\n", out.paint(Style::Dim, &details));
    let mut text = head + &out.block(&message.text());
    let needed = listed.held || matches!(listed.sort, Sort::Question | Sort::PermissionRequest | Sort::Decline);
    if let Some(next) = listed.next().filter(|_| needed) {
        text += &format!("  {}\n", out.paint(Style::Bold, &format!("→ {}", clean(&next))));
    }
    text
}

fn what(listed: &Listed, out: &Output) -> String {
    let asked = || {
        let text = listed.asked.as_deref().map(|text| beginning(text, out));
        let id = listed.message.reply_to_id.as_deref().map(short_id).unwrap_or_default();
        match text {
            Some(text) => format!(" \"{text}\" ({})", clean(&id)),
            None => format!(" {}", clean(&id)),
        }
    };
    match listed.sort {
        Sort::Question => match listed.state {
            Some(state) if !state.is_open() => format!("question, {}", state.as_str()),
            _ => "question, waits for your answer".into(),
        },
        Sort::Answer => format!("answer to{}", asked()),
        Sort::Decline => format!("declined{}", asked()),
        Sort::PermissionRequest => "permission request".into(),
        Sort::Event | Sort::Message => how(&listed.message),
    }
}

/// How a message was addressed.
fn how(message: &Message) -> String {
    match (message.kind.as_str(), &message.target_spec) {
        ("broadcast" | "channel", Some(target)) => clean(target).into_owned(),
        (kind, _) => kind.to_owned(),
    }
}

/// The beginning of a text, on one line.
pub(super) fn beginning(text: &str, out: &Output) -> String {
    let line = if out.is_for_model() { crate::session::notes::harmless_value(text) } else { clean(text).into_owned() };
    let mut short: String = line.chars().take(ASKED_CHARS).collect();
    if line.chars().count() > ASKED_CHARS {
        short.push('…');
    }
    short
}
