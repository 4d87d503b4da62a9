//! Our hooks: one table, and the edits of a `hooks` object that follow from it.
//!
//! `install`, the plug-in, the manual way and the doctor all read [`HOOKS`]; a hook is added or changed here and nowhere
//! else. Edits are functions from text to text.

use serde_json::{Map, Value, json};

use super::edits::{Change, is_our_program, quote, split_words};
use super::json_edit::{Document, EditError};
use super::json_scan::{self, Kind, Span};

/// One hook handler of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Claude Code's event.
    pub event: &'static str,
    /// The word of `claudemesh hook <word>`.
    pub word: &'static str,
    /// Which tools it is for, on tool events.
    pub matcher: Option<&'static str>,
    /// Seconds that Claude Code waits for it, where its default does not fit.
    pub timeout_s: Option<u32>,
    /// Runs beside the session and wakes it by exit code 2.
    pub rewakes: bool,
    /// Installed only when it was asked for.
    pub optional: bool,
}

const PLAIN: Hook = Hook { event: "", word: "", matcher: None, timeout_s: None, rewakes: false, optional: false };
/// A waiter lives as long as a session may sit idle; the next turn arms a new one.
const WAIT: Hook = Hook { word: "wait", timeout_s: Some(86_400), rewakes: true, ..PLAIN };

/// Every hook, in the order of a session's life.
///
/// The end of a session gets 1.5 s for all hooks together unless a settings file says more.
pub const HOOKS: [Hook; 8] = [
    Hook { event: "SessionStart", word: "session-start", ..PLAIN },
    Hook { event: "SessionStart", ..WAIT },
    Hook { event: "UserPromptSubmit", word: "prompt", ..PLAIN },
    Hook { event: "PermissionRequest", word: "permission", timeout_s: Some(600), optional: true, ..PLAIN },
    Hook { event: "PostToolUse", word: "post-tool", matcher: Some("*"), ..PLAIN },
    Hook { event: "Stop", word: "stop", ..PLAIN },
    Hook { event: "Stop", ..WAIT },
    Hook { event: "SessionEnd", word: "session-end", timeout_s: Some(5), ..PLAIN },
];

impl Hook {
    /// The shell line.
    pub fn command(&self, program: &str) -> String {
        format!("{} hook {}", quote(program), self.word)
    }

    /// The handler: what an older one has beside our fields stays, and so does a time limit that someone chose.
    fn handler(&self, program: &str, old: Map<String, Value>) -> Value {
        let mut handler = old;
        handler.insert("type".into(), "command".into());
        handler.insert("command".into(), self.command(program).into());
        if let Some(timeout_s) = self.timeout_s {
            handler.entry("timeout").or_insert(timeout_s.into());
        }
        if self.rewakes {
            handler.insert("asyncRewake".into(), true.into());
        }
        handler.into()
    }

    /// A matcher group with this handler only.
    pub fn group(&self, program: &str) -> Value {
        let handlers = json!([self.handler(program, Map::new())]);
        match self.matcher {
            Some(matcher) => json!({"matcher": matcher, "hooks": handlers}),
            None => json!({"hooks": handlers}),
        }
    }
}

/// The events of the table, each once.
pub fn events() -> Vec<&'static str> {
    let mut events: Vec<&str> = HOOKS.iter().map(|hook| hook.event).collect();
    events.dedup();
    events
}

/// The whole `hooks` object, for the plug-in and the manual way.
pub fn all(program: &str, with_optional: bool) -> Value {
    let mut events = Map::new();
    for hook in HOOKS.iter().filter(|hook| with_optional || !hook.optional) {
        let groups = events.entry(hook.event).or_insert_with(|| json!([]));
        if let Some(groups) = groups.as_array_mut() {
            groups.push(hook.group(program));
        }
    }
    events.into()
}

/// A handler of ours that is in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Under which event.
    pub event: String,
    /// The word of its command.
    pub word: String,
    /// The whole handler.
    pub handler: Value,
    group: usize,
    index: usize,
    span: Span,
}

impl Found {
    /// The shell line.
    pub fn command(&self) -> &str {
        self.handler["command"].as_str().unwrap_or_default()
    }

    /// The program of the shell line.
    pub fn program(&self) -> String {
        split_words(self.command()).and_then(|words| words.into_iter().next()).unwrap_or_default()
    }
}

/// Adds the hooks. Handlers of ours that an older version wrote, or that start a moved program, are brought up to date in
/// their place; what the table no longer has goes. An optional hook is added with `optional` and kept when it is there.
///
/// # Errors
/// [`EditError`]
pub fn add_hooks(doc: &mut Document, program: &str, optional: bool) -> Result<Change, EditError> {
    doc.receipt.programs.insert(program.to_owned());
    note_ours(doc);
    let mut change = Change::Unchanged;
    for event in events() {
        let there = found(doc, event);
        let wanted: Vec<&Hook> = HOOKS
            .iter()
            .filter(|hook| hook.event == event)
            .filter(|hook| !hook.optional || optional || there.iter().any(|found| found.word == hook.word))
            .collect();
        match add_event(doc, program, event, &wanted)? {
            Change::Unchanged => {}
            Change::Updated if change == Change::Added => {}
            other => change = other,
        }
    }
    Ok(change)
}

/// Lists that an older version made without a receipt: no one else has anything in them.
fn note_ours(doc: &mut Document) {
    let Some(hooks) = doc.find(&["hooks"]) else { return };
    let events: Vec<String> = doc.members(&hooks).into_iter().map(|member| member.key).collect();
    let only_ours = |event: &String| {
        let groups = doc.find(&["hooks", event]).map(|groups| doc.items(&groups)).unwrap_or_default();
        let handlers = |group: &Span| handlers_of(doc, group).map_or(0, |list| doc.items(&list).len().max(1));
        !groups.is_empty() && groups.iter().map(handlers).sum::<usize>() == found(doc, event).len()
    };
    let ours: Vec<String> = events.iter().filter(|event| only_ours(event)).cloned().collect();
    for event in &ours {
        doc.note_ours(&["hooks", event]);
    }
    // An event list that was there before, even an empty one, was in a container that was there before.
    let made = |event: &String| doc.is_ours(&["hooks", event]);
    if !ours.is_empty() && ours.len() == events.len() && ours.iter().all(made) {
        doc.note_ours(&["hooks"]);
    }
}

fn add_event(doc: &mut Document, program: &str, event: &str, wanted: &[&Hook]) -> Result<Change, EditError> {
    let known = |word: &str| wanted.iter().any(|hook| hook.word == word);
    let mut change = Change::Unchanged;
    for hook in wanted {
        let there = found(doc, event);
        let same = there.iter().find(|found| found.word == hook.word);
        // Older versions called the same thing by another word.
        let Some(old) = same.or_else(|| there.iter().find(|found| !known(&found.word))) else {
            doc.push(&["hooks", event], &hook.group(program))?;
            change = Change::Added;
            continue;
        };
        let handler = hook.handler(program, old.handler.as_object().cloned().unwrap_or_default());
        if handler != old.handler {
            doc.replace(&old.span, &handler);
            if change == Change::Unchanged {
                change = Change::Updated;
            }
        }
    }
    // Second copies and words that no longer exist would run beside the new ones.
    loop {
        let there = found(doc, event);
        let surplus = there
            .iter()
            .enumerate()
            .find(|(at, one)| !known(&one.word) || there[..*at].iter().any(|earlier| earlier.word == one.word));
        let Some((_, surplus)) = surplus else { return Ok(change) };
        let surplus = surplus.clone();
        remove_one(doc, &surplus);
        if change == Change::Unchanged {
            change = Change::Updated;
        }
    }
}

/// Removes our handlers from all events; a matcher group goes when nothing else is in it. Answers how many.
pub fn remove_hooks(doc: &mut Document) -> usize {
    let mut removed = 0;
    let Some(hooks) = doc.find(&["hooks"]) else { return 0 };
    let events: Vec<String> = doc.members(&hooks).into_iter().map(|member| member.key).collect();
    for event in events {
        while let Some(one) = found(doc, &event).into_iter().next() {
            if !remove_one(doc, &one) {
                break;
            }
            removed += 1;
        }
    }
    removed
}

fn remove_one(doc: &mut Document, one: &Found) -> bool {
    let path = ["hooks", one.event.as_str()];
    let Some(groups) = doc.find(&path) else { return false };
    let Some(list) = doc.items(&groups).get(one.group).and_then(|group| handlers_of(doc, group)) else { return false };
    if doc.items(&list).len() == 1 {
        doc.remove_item(&path, one.group);
    } else {
        doc.remove_item_at(&list, one.index);
    }
    true
}

/// Our handlers in a file, of every event.
pub fn installed_hooks(doc: &Document) -> Vec<Found> {
    let Some(hooks) = doc.find(&["hooks"]) else { return vec![] };
    doc.members(&hooks).iter().flat_map(|member| found(doc, &member.key)).collect()
}

/// Whether an install would change what is there: a handler of the table is missing, or one is not in it.
pub fn outdated(installed: &[Found]) -> bool {
    let same = |hook: &Hook, found: &Found| hook.event == found.event && hook.word == found.word;
    let missing = |hook: &Hook| !hook.optional && !installed.iter().any(|found| same(hook, found));
    let unknown = |found: &Found| {
        HOOKS.iter().any(|hook| hook.event == found.event) && !HOOKS.iter().any(|hook| same(hook, found))
    };
    HOOKS.iter().any(missing) || installed.iter().any(unknown)
}

/// Our handlers under one event, in file order.
fn found(doc: &Document, event: &str) -> Vec<Found> {
    let Some(groups) = doc.find(&["hooks", event]) else { return vec![] };
    let mut all = vec![];
    for (group_at, group) in doc.items(&groups).iter().enumerate() {
        let Some(list) = handlers_of(doc, group) else { continue };
        for (index, span) in doc.items(&list).into_iter().enumerate() {
            let handler = doc.value(&span);
            let word = handler["command"].as_str().and_then(|command| our_word(doc, command));
            if let Some(word) = word {
                all.push(Found { event: event.to_owned(), word, handler, group: group_at, index, span });
            }
        }
    }
    all
}

fn handlers_of(doc: &Document, group: &Span) -> Option<Span> {
    let member = doc.members(group).into_iter().rev().find(|member| member.key == "hooks")?;
    (json_scan::kind(doc.text(), &member.value) == Kind::Array).then_some(member.value)
}

/// The word of a hook command that is exactly a call of ours: `<path>claudemesh hook <word>`. A longer line that only
/// mentions us belongs to the user.
pub fn our_word(doc: &Document, command: &str) -> Option<String> {
    let [program, hook, word] = <[String; 3]>::try_from(split_words(command)?).ok()?;
    (is_our_program(doc, &program) && hook == "hook").then_some(word)
}

#[cfg(test)]
#[path = "hooks_tests.rs"]
mod tests;
