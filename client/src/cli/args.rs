//! Arguments of the verbs that talk to a broker or to the joined meshes. The doc comments are the help texts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use crate::config::MessageMode;
use crate::values::{Groups, parse_duration, parse_groups, parse_seconds, parse_wait};

/// `claudemesh up`
#[derive(Args, Clone, Debug, Default)]
pub struct UpArgs {
    /// Address to listen on. Other machines can join only when it is not a loopback address.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Show the mesh at work: two scripted peers exchange an encrypted direct message, a group message and a reply.
    #[arg(long)]
    pub demo: bool,
    /// Where the broker keeps its data [default: `broker` in the config folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Your name in the mesh.
    #[arg(long)]
    pub name: Option<String>,
}

/// `claudemesh create`
#[derive(Args, Clone, Debug, Default)]
pub struct CreateArgs {
    /// Short name: lower-case letters, digits and hyphens, 2 to 32 characters.
    pub slug: String,
    /// Broker to make it on [default: the broker of `up`]
    #[arg(long, value_name = "URL", env = "CLAUDEMESH_BROKER_URL")]
    pub broker: Option<String>,
    /// Your name in the mesh.
    #[arg(long)]
    pub name: Option<String>,
    /// Name of the mesh shown to people [default: the slug]
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Token of the broker's operator; needed unless the broker listens on this machine only.
    #[arg(long, value_name = "TOKEN", env = "CLAUDEMESH_OPERATOR_TOKEN", hide_env_values = true)]
    pub operator_token: Option<String>,
}

/// `claudemesh invite`
#[derive(Args, Clone, Debug, Default)]
pub struct InviteArgs {
    /// Role of those who join: `member` or `admin`.
    #[arg(long, default_value = "member", value_parser = ["member", "admin"])]
    pub role: String,
    /// How many may join with the link, 1 to 10000.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub uses: u32,
    /// How long the link works: a number and `m`, `h` or `d`.
    #[arg(long, default_value = "7d", value_parser = parse_duration, value_name = "TIME")]
    pub expires: Duration,
    /// List the invites of the mesh.
    #[arg(long, conflicts_with = "revoke")]
    pub list: bool,
    /// Revoke an invite by its code or id.
    #[arg(long, value_name = "CODE")]
    pub revoke: Option<String>,
    /// Name that the new member gets.
    #[arg(long, value_name = "NAME")]
    pub for_name: Option<String>,
    /// Groups that the new member joins: `name:role,name2`.
    #[arg(long, value_name = "LIST", value_parser = parse_groups)]
    pub groups: Option<Groups>,
}

/// `claudemesh join`
#[derive(Args, Clone, Debug, Default)]
pub struct JoinArgs {
    /// Invite link or code.
    pub link: String,
    /// Your name in the mesh (default: `<host>-<user>`)
    #[arg(long)]
    pub name: Option<String>,
    /// Local short name of the mesh [default: the mesh's own]
    #[arg(long, value_name = "SLUG")]
    pub slug: Option<String>,
}

/// `claudemesh leave`
#[derive(Args, Clone, Debug, Default)]
pub struct LeaveArgs {
    /// Mesh to leave.
    pub slug: String,
}

/// `claudemesh list`
#[derive(Args, Clone, Debug, Default)]
pub struct ListArgs {}

/// `claudemesh peers`
#[derive(Args, Clone, Debug, Default)]
pub struct PeersArgs {
    /// Also who is away, with the time when they were last seen.
    #[arg(long, short)]
    pub all: bool,
}

/// `claudemesh send`
#[derive(Args, Clone, Debug, Default)]
#[command(override_usage = "claudemesh send [OPTIONS] <TO>[,<TO>...] <MESSAGE>\n       \
                            claudemesh send [OPTIONS] <TO>[,<TO>...] --file <PATH>\n       \
                            claudemesh send [OPTIONS] --to <TO> [--to <TO>]... <MESSAGE>")]
pub struct SendArgs {
    /// Whom, then the text. Whom: a name, `@group`, `@group/sub`, `*`, `#topic`, a key or 8 and more digits of one.
    #[arg(value_name = "TO MESSAGE", num_args = 0..=2)]
    pub words: Vec<String>,
    /// A recipient; may be given several times. Nothing is split at commas here.
    #[arg(long, short = 't', value_name = "TO", action = ArgAction::Append)]
    pub to: Vec<String>,
    /// Read the text from a file; `-` is standard input.
    #[arg(long, short, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// `now` interrupts, `next` waits until the recipient is idle, `low` waits until it is asked for.
    #[arg(long, short, default_value_t = Priority::Next, value_enum)]
    pub priority: Priority,
    /// Allow a message to your own member: it goes to your other sessions.
    #[arg(long = "self")]
    pub to_self: bool,
    /// Id of the message this answers.
    #[arg(long, value_name = "ID")]
    pub reply_to: Option<String>,
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
        let mut words = self.words.clone();
        let text = if self.file.is_some() { None } else { words.pop() };
        let mut recipients: Vec<String> = self.to.clone();
        for word in words {
            recipients.extend(word.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned));
        }
        match (&text, self.to.is_empty(), self.words.len()) {
            (None, false, 1..) | (Some(_), false, 2..) if self.file.is_none() || self.words.len() > 1 => {
                return Err(wrong("The text is there twice."));
            }
            (None, _, 2..) => return Err(wrong("The text is there twice: as an argument and in a file.")),
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
    /// Interrupts.
    Now,
    /// Waits until the recipient is idle.
    #[default]
    Next,
    /// Waits until it is asked for.
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

/// `claudemesh ask`
#[derive(Args, Clone, Debug, Default)]
pub struct AskArgs {
    /// Whom: a name, a key or 8 and more digits of one. One peer.
    pub to: String,
    /// The question.
    #[arg(required = true)]
    pub question: Vec<String>,
    /// How many seconds to wait for the answer, at most 600.
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0, value_parser = parse_wait)]
    pub timeout: f64,
    /// Ask although the peer is away: the question waits for it for a day.
    #[arg(long)]
    pub wait_offline: bool,
}

/// `claudemesh reply`
#[derive(Args, Clone, Debug, Default)]
pub struct ReplyArgs {
    /// Id of the question, or 8 and more characters of it.
    pub id: String,
    /// The answer; with --decline the reason, which may be left out.
    #[arg(required_unless_present = "decline")]
    pub text: Vec<String>,
    /// Tell whoever asked that there will be no answer, so that nobody waits for it.
    #[arg(long)]
    pub decline: bool,
}

/// `claudemesh inbox`
#[derive(Args, Clone, Debug, Default)]
pub struct InboxArgs {
    /// Wait up to this many seconds for messages.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    pub wait: f64,
    /// Also messages that were seen before.
    #[arg(long, short)]
    pub all: bool,
    /// At most this many: the oldest unread, the newest of --all.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Leave the shown messages unread.
    #[arg(long)]
    pub peek: bool,
    /// List the questions that wait for an answer instead; with --all also those that do not any more.
    #[arg(long, conflicts_with_all = ["peek", "wait", "limit"])]
    pub questions: bool,
}

/// `claudemesh msg-status`
#[derive(Args, Clone, Debug, Default)]
pub struct MsgStatusArgs {
    /// Message id, or 8 and more characters of it.
    pub id: String,
}

/// `claudemesh status`
#[derive(Args, Clone, Debug, Default)]
pub struct StatusArgs {
    /// What to do; without it the connection of every joined mesh is tested.
    #[command(subcommand)]
    pub action: Option<StatusAction>,
}

/// What `status` does.
#[derive(Subcommand, Clone, Debug)]
pub enum StatusAction {
    /// Set the status of your session.
    #[command(after_help = "Examples:\n  claudemesh status set dnd\n  claudemesh status set idle --session '*'")]
    Set {
        /// `idle`, `working` or `dnd` (only urgent messages).
        #[arg(value_enum)]
        status: PeerStatus,
        /// Which session.
        #[command(flatten)]
        session: SessionArg,
    },
}

/// Status of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PeerStatus {
    /// Free.
    Idle,
    /// In a turn.
    Working,
    /// Only urgent messages.
    Dnd,
}

impl PeerStatus {
    /// The word of the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Dnd => "dnd",
        }
    }
}

/// Which running session a write is for.
#[derive(Args, Clone, Debug, Default)]
pub struct SessionArg {
    /// Session to change [default: the one this runs in, else all sessions of your member]; `*` means all.
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
}

/// `claudemesh summary`
#[derive(Args, Clone, Debug, Default)]
pub struct SummaryArgs {
    /// What the session works on; empty clears it.
    pub text: String,
    /// Which session.
    #[command(flatten)]
    pub session: SessionArg,
}

/// `claudemesh visible`
#[derive(Args, Clone, Debug, Default)]
pub struct VisibleArgs {
    /// `true` or `false`.
    #[arg(action = ArgAction::Set)]
    pub visible: bool,
    /// Which session.
    #[command(flatten)]
    pub session: SessionArg,
}

/// `claudemesh profile`
#[derive(Args, Clone, Debug, Default)]
pub struct ProfileArgs {
    /// An emoji or a URL.
    #[arg(long)]
    pub avatar: Option<String>,
    /// One line.
    #[arg(long)]
    pub title: Option<String>,
    /// A few lines.
    #[arg(long)]
    pub bio: Option<String>,
    /// What it can do: `a,b,c`.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub capabilities: Option<Vec<String>>,
    /// Which session.
    #[command(flatten)]
    pub session: SessionArg,
}

impl ProfileArgs {
    /// Whether nothing is to be changed: then the profile is shown.
    pub fn is_show(&self) -> bool {
        self.avatar.is_none() && self.title.is_none() && self.bio.is_none() && self.capabilities.is_none()
    }
}

/// `claudemesh group`
#[derive(Args, Clone, Debug)]
pub struct GroupArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: GroupAction,
}

/// What `group` does.
#[derive(Subcommand, Clone, Debug)]
pub enum GroupAction {
    /// Join a group, or change your role in it.
    #[command(
        after_help = "Examples:\n  claudemesh group join @frontend\n  claudemesh group join @qa/load --role lead"
    )]
    Join {
        /// Group, with or without `@`; `/` makes levels.
        group: String,
        /// Your role in it [default: the one you have there]; an empty one clears it.
        #[arg(long)]
        role: Option<String>,
        /// Which session.
        #[command(flatten)]
        session: SessionArg,
    },
    /// Leave a group.
    #[command(after_help = "Example:\n  claudemesh group leave @frontend")]
    Leave {
        /// Group, with or without `@`.
        group: String,
        /// Which session.
        #[command(flatten)]
        session: SessionArg,
    },
    /// List the groups of the mesh with the sessions in them and their roles.
    #[command(after_help = "Examples:\n  claudemesh group list\n  claudemesh group list --json")]
    List {},
}

/// `claudemesh info`
#[derive(Args, Clone, Debug, Default)]
pub struct InfoArgs {}

/// `claudemesh stats`
#[derive(Args, Clone, Debug, Default)]
pub struct StatsArgs {}

/// `claudemesh ping`
#[derive(Args, Clone, Debug, Default)]
pub struct PingArgs {}

/// `claudemesh kick` and `claudemesh disconnect`
#[derive(Args, Clone, Debug, Default)]
#[group(required = true, multiple = false)]
pub struct SelectionArgs {
    /// Name, key, or 8 and more digits of a key.
    pub peer: Option<String>,
    /// Everyone who was silent for so long: a number and `s`, `m`, `h` or `d`.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub stale: Option<Duration>,
    /// Everyone but you.
    #[arg(long)]
    pub all: bool,
}

/// `claudemesh ban`
#[derive(Args, Clone, Debug, Default)]
pub struct BanArgs {
    /// Name, key, or 8 and more digits of a key.
    pub peer: String,
    /// Why; the broker writes it into its log.
    #[arg(long)]
    pub reason: Option<String>,
}

/// `claudemesh unban`
#[derive(Args, Clone, Debug, Default)]
pub struct UnbanArgs {
    /// Exact name, key, or 8 and more digits of the key of a banned member.
    pub peer: String,
}

/// `claudemesh bans`
#[derive(Args, Clone, Debug, Default)]
pub struct BansArgs {}

/// `claudemesh mcp`
#[derive(Args, Clone, Debug, Default)]
pub struct McpArgs {
    /// How messages reach the session.
    #[arg(long, value_enum)]
    pub message_mode: Option<MessageMode>,
    /// Which tools are offered [default: $CLAUDEMESH_MCP_SURFACE or full]
    #[arg(long, value_enum)]
    pub surface: Option<crate::mcp::surface::Surface>,
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
    }
}
