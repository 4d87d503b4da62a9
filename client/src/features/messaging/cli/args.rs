//! Arguments of `send`, `inbox` and `msg-status`.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::context::Context;
use crate::inbox::listed::Marks;
use crate::inbox::{ListedObject, MessageObject};
use crate::output::clean;
use crate::values::parse_seconds;
use crate::verb::shape::InMesh;
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields};

/// Send a message to peers, groups or everyone. Direct messages are end-to-end encrypted.
#[derive(Args, Clone, Debug, Default)]
#[command(override_usage = "claudemesh send [OPTIONS] <TO>[,<TO>...] <MESSAGE>\n       \
                            claudemesh send [OPTIONS] <TO>[,<TO>...] --file <PATH>\n       \
                            claudemesh send [OPTIONS] --to <TO> [--to <TO>]... <MESSAGE>")]
#[command(
    after_help = "Examples:\n  claudemesh send Bob \"tests are green\"\n  claudemesh send Bob,@qa \"freeze at 5\"\n  \
                        git diff | claudemesh send Bob --file -\n  claudemesh send Bob \"the plan\" --attach plan.pdf\n  claudemesh send '*' \"broker restarts\" --priority now\n  \
                        claudemesh send --to 'Smith, Ann' hello\n\n\
                        It prints the id of the message; `claudemesh msg-status ID` says how far it got. `*` reaches\n\
                        everyone who is connected; peers who are away do not get it. If the broker cannot be reached, the\n\
                        message is queued on this machine and sent later (`claudemesh outbox`)."
)]
pub struct SendArgs {
    /// Recipients, then the text. A recipient is a name, `@group`, `@group/sub`, `*`, `#topic`, a key or at least the first 8 digits of one.
    #[arg(value_name = "TO MESSAGE", num_args = 0..)]
    pub words: Vec<String>,
    /// Add one recipient; repeat the option for more. The value is not split at commas, so it fits an old name with a comma.
    #[arg(long, short = 't', value_name = "TO", action = ArgAction::Append)]
    pub to: Vec<String>,
    /// Read the text from a file; `-` is standard input.
    #[arg(long, short, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Attach a file; repeat the option for more. Up to 64 KiB it travels inside a direct message, else as an encrypted file that is
    /// kept for 7 days.
    #[arg(long, short = 'a', value_name = "FILE", action = ArgAction::Append)]
    pub attach: Vec<PathBuf>,
    /// When a session gets it. At a shell, the next `claudemesh inbox` shows it, whatever its priority.
    #[arg(long, short, default_value_t = Priority::Next, value_enum)]
    pub priority: Priority,
    /// Allow a message to your own member: it goes to your other sessions.
    #[arg(long = "self")]
    pub to_self: bool,
    /// Id of the message that you answer.
    #[arg(long, value_name = "ID")]
    pub reply_to: Option<String>,
    /// Fail when the broker cannot be reached, instead of queueing the message on this machine.
    #[arg(long)]
    pub no_queue: bool,
}

impl Verb for SendArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<super::send::Sent>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<super::send::Sent>(), Shape::list::<super::send::SentOrNot>().of("TO,TO")]
    }

    fn run(self, cx: &Context) -> Ran {
        super::send::send(cx, &self).map(Into::into)
    }
}

impl SendArgs {
    /// Recipients and text: the positional recipient is split at commas, `--to` is not. The text is `None` with `--file`.
    ///
    /// # Errors
    /// Exit 3 when the recipient or the text is missing, or there is a word too many.
    pub fn recipients_and_text(&self) -> Result<(Vec<String>, Option<String>), crate::error::CliError> {
        let wrong = |message: &str| {
            crate::error::CliError::invalid_args(message)
                .hint("claudemesh send <to> <message>, claudemesh send <to> --file -, or claudemesh send --help.")
        };
        if let [first, rest @ ..] = self.words.as_slice()
            && self.to.is_empty()
            && self.file.is_none()
            && rest.len() > 1
        {
            let text = rest.join(" ");
            return Err(crate::error::CliError::invalid_args("The text is more than one word.").hint(format!(
                "Quote it: claudemesh send {} \"{}\"",
                clean(first),
                clean(&text)
            )));
        }
        if self.words.len() > 2 {
            return Err(wrong("There are too many words."));
        }
        let mut words = self.words.clone();
        // With a file the text may be left out; a single word is the recipient then.
        let only_files =
            !self.attach.is_empty() && self.file.is_none() && self.words.len() == usize::from(self.to.is_empty());
        let text = match () {
            () if only_files => Some(String::new()),
            () if self.file.is_some() => None,
            () => words.pop(),
        };
        let mut recipients: Vec<String> = self.to.clone();
        for word in words {
            recipients.extend(word.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned));
        }
        match (&text, self.to.is_empty(), self.words.len()) {
            _ if only_files => {}
            (None, false, 1..) | (Some(_), false, 2..) if self.file.is_none() || self.words.len() > 1 => {
                return Err(wrong("The text is there twice."));
            }
            (None, _, 2..) => return Err(wrong("The message was given twice: as an argument and with --file.")),
            (None, _, _) if self.file.is_none() => return Err(wrong("The message is missing.")),
            (Some(text), _, _) if text.is_empty() => return Err(wrong("The message is empty.")),
            _ => {}
        }
        if recipients.is_empty() {
            return Err(wrong(if self.words.len() == 1 && self.file.is_none() {
                "The recipient or the message is missing."
            } else {
                "The recipient is missing."
            }));
        }
        Ok((recipients, text))
    }
}

/// Priority of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Priority {
    /// At once, also while the session works.
    Now,
    /// At the end of the session's turn.
    #[default]
    Next,
    /// When the session asks for it.
    Low,
}

impl Priority {
    /// The word of the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Next => "next",
            Self::Low => "low",
        }
    }
}

/// Show unread messages and mark them as read. `--all` shows older ones, too.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh inbox\n  claudemesh inbox --wait 30 --json\n  claudemesh inbox --all --limit 20\n  \
                        claudemesh inbox --questions\n  claudemesh inbox --follow\n\n\
                        A message is marked as read once it is printed. A held message stays unread until it is released\n\
                        or dropped (`claudemesh held`)."
)]
pub struct InboxArgs {
    /// Wait up to this many seconds for messages when there are none.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = parse_seconds)]
    pub wait: f64,
    /// Also messages that were seen before.
    #[arg(long, short)]
    pub all: bool,
    /// Show at most N messages: the N oldest unread ones, or with --all the N newest. Held messages are listed in addition.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Leave the shown messages unread.
    #[arg(long)]
    pub peek: bool,
    /// List the questions that wait for your answer instead; with --all also those that are answered or expired.
    #[arg(long, conflicts_with_all = ["peek", "wait", "limit"])]
    pub questions: bool,
    /// Go on printing messages as they come, until Ctrl-C; with --json one object per line.
    #[arg(long, short, conflicts_with_all = ["peek", "wait", "limit", "all", "questions"])]
    pub follow: bool,
}

impl Verb for InboxArgs {
    fn effect(&self) -> Effect {
        if self.peek || self.questions { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::joined([json_fields::of::<MessageObject>(), json_fields::of::<Marks>()])
    }

    fn shapes() -> Vec<Shape> {
        vec![
            Shape::list::<ListedObject>(),
            Shape::list::<ListedObject>().of("--questions"),
            Shape::lines::<ListedObject>().of("--follow"),
        ]
    }

    fn run(self, cx: &Context) -> Ran {
        super::inbox::inbox(cx, &self).map(Into::into)
    }
}

/// Show how far a message got: stored, received, handed to the session, seen, answered.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh msg-status 312b1423")]
pub struct MsgStatusArgs {
    /// Message id, or at least the first 8 characters of it.
    pub id: String,
}

impl Verb for MsgStatusArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        super::status::fields()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<super::status::MsgStatus<'static>>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        super::status::msg_status(cx, &self).map(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(words: &[&str], to: &[&str], file: bool) -> Result<(Vec<String>, Option<String>), String> {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let args = SendArgs {
            words: strings(words),
            to: strings(to),
            file: file.then(|| PathBuf::from("-")),
            ..SendArgs::default()
        };
        args.recipients_and_text().map_err(|error| error.message)
    }

    #[test]
    fn send_understands_its_three_forms() {
        let ok = |names: &[&str], text: Option<&str>| {
            Ok((names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), text.map(str::to_owned)))
        };
        assert_eq!(send(&["ann", "hi"], &[], false), ok(&["ann"], Some("hi")));
        assert_eq!(send(&["ann, @qa", "hi, you"], &[], false), ok(&["ann", "@qa"], Some("hi, you")));
        assert_eq!(send(&["ann"], &[], true), ok(&["ann"], None));
        assert_eq!(send(&["hi"], &["a, b", "c"], false), ok(&["a, b", "c"], Some("hi")));
        assert_eq!(send(&[], &["a"], true), ok(&["a"], None));
        for (words, to, file) in [
            (&[][..], &[][..], false),
            (&["ann"], &[], false),
            (&["ann", "hi"], &[], true),
            (&["ann", "hi"], &["b"], false),
            (&["ann", ""], &[], false),
            (&[","], &[], true),
            (&[], &["b"], false),
        ] {
            assert!(send(words, to, file).is_err(), "{words:?} {to:?} {file}");
        }
        let attach = |words: &[&str], to: &[&str]| {
            let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            let args =
                SendArgs { words: strings(words), to: strings(to), attach: vec!["x".into()], ..SendArgs::default() };
            args.recipients_and_text().map_err(|error| error.message)
        };
        assert_eq!(attach(&["ann"], &[]), ok(&["ann"], Some("")));
        assert_eq!(attach(&[], &["ann"]), ok(&["ann"], Some("")));
        assert_eq!(attach(&["ann", "hi"], &[]), ok(&["ann"], Some("hi")));
        assert_eq!(attach(&["hi"], &["ann"]), ok(&["ann"], Some("hi")));
        assert!(attach(&["ann", "hi", "there"], &[]).is_err() && attach(&[], &[]).is_err());
        for (words, to) in [(&["ann", "hi", "there"][..], &[][..]), (&["ann", "hi", "there"], &["b"])] {
            assert!(send(words, to, false).is_err(), "{words:?} {to:?}");
        }
    }
}
