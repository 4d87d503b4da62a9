//! The command line: the tree of verbs, what they share, and which function runs each.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::context::GlobalArgs;

pub mod args;
pub mod fields;
pub mod meshes;
pub mod no_verb;
mod parse;
pub mod shell_files;
pub mod skill;
pub mod wire;

pub use parse::{parse, printed};

/// Lets Claude Code sessions work as one team: encrypted messages between sessions on one machine or many.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "claudemesh",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:\n  claudemesh up                          start a mesh on this machine\n  \
                  claudemesh join http://host:7900/i/K7QX2MPA   join one\n  \
                  claudemesh launch --name Ann           start Claude Code in it\n  \
                  claudemesh send Bob \"tests are green\"  write to a peer\n\n\
                  Exit codes: 0 ok, 1 cancelled, 2 refused key, 3 bad arguments, 4 network, 5 not found, 6 exists,\n\
                  7 not allowed or declined, 8 internal, 9 no Claude Code, 10 files."
)]
pub struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The verb.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// The verbs.
#[derive(Subcommand, Clone, Debug)]
pub enum Verb {
    /// Start a mesh on this machine: broker, mesh `local` and an invite, nothing else needed.
    #[command(
        after_help = "Examples:\n  claudemesh up\n  claudemesh up --demo\n  claudemesh up --listen 0.0.0.0:7900   \
                            let other machines join"
    )]
    Up(args::UpArgs),
    /// Make a new mesh on a broker. The owner's key stays on this machine.
    #[command(after_help = "Examples:\n  claudemesh create team --broker ws://127.0.0.1:7900/ws --name Ann\n  \
                            claudemesh create team --broker wss://mesh.example.org/ws --operator-token \"$TOKEN\"")]
    Create(args::CreateArgs),
    /// Make, list or revoke invite links. Needs the owner's key of the mesh.
    #[command(after_help = "Examples:\n  claudemesh invite\n  claudemesh invite --uses 5 --expires 24h --json\n  \
                            claudemesh invite --list\n  claudemesh invite --revoke K7QX2MPA")]
    Invite(args::InviteArgs),
    /// Join a mesh with an invite link.
    #[command(after_help = "Examples:\n  claudemesh join http://127.0.0.1:7900/i/K7QX2MPA --name Bob\n  \
                            claudemesh join ic://join/eyJ2Ijox...   (links of older versions work too)")]
    Join(args::JoinArgs),
    /// List the meshes joined on this machine.
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  claudemesh list\n  claudemesh list --json=slug,brokerUrl"
    )]
    List(args::ListArgs),
    /// Forget a mesh on this machine.
    #[command(after_help = "Example:\n  claudemesh leave team")]
    Leave(args::LeaveArgs),
    /// Show who is in the mesh.
    #[command(after_help = "Examples:\n  claudemesh peers\n  claudemesh peers --all --json=displayName,status")]
    Peers(args::PeersArgs),
    /// Send a message to peers, groups or everyone. Direct messages are end-to-end encrypted.
    #[command(
        after_help = "Examples:\n  claudemesh send Bob \"tests are green\"\n  claudemesh send Bob,@qa \"freeze at 5\"\n  \
                            git diff | claudemesh send Bob --file -\n  claudemesh send '*' \"broker restarts\" --priority now\n  \
                            claudemesh send --to 'Smith, Ann' hello"
    )]
    Send(args::SendArgs),
    /// Ask a peer a question and wait for the answer.
    #[command(after_help = "Examples:\n  claudemesh ask Bob \"which port does the test server use?\"\n  \
                            claudemesh ask Bob \"may I merge?\" --timeout 60 --json\n  \
                            claudemesh ask Bob \"what did the audit say?\" --wait-offline")]
    Ask(args::AskArgs),
    /// Answer a question that a peer asked, or decline it.
    #[command(after_help = "Examples:\n  claudemesh reply 8fK2mQ7d \"port 7900\"\n  \
                            claudemesh reply 8fK2mQ7d --decline \"ask Cid, who wrote it\"\n\n\
                            `claudemesh inbox --questions` lists the open questions with their ids.")]
    Reply(args::ReplyArgs),
    /// Show new messages. They are kept and shown once.
    #[command(
        after_help = "Examples:\n  claudemesh inbox\n  claudemesh inbox --wait 30 --json\n  claudemesh inbox --all --limit 20\n  \
                            claudemesh inbox --questions"
    )]
    Inbox(args::InboxArgs),
    /// Show or set which messages reach your sessions: accepted, held for your release, or refused.
    #[command(after_help = "Examples:\n  claudemesh inbound\n  claudemesh inbound set hold --from 1a2b3c4d5e6f\n  \
                            claudemesh inbound bypass accept")]
    Inbound(crate::inbound::cli::InboundArgs),
    /// List, release or drop messages that the rule for incoming messages holds back.
    #[command(
        after_help = "Examples:\n  claudemesh held\n  claudemesh held release 8fK2mQ7d\n  claudemesh held drop --all"
    )]
    Held(crate::inbound::cli::HeldArgs),
    /// Show or choose who may decide over permission questions of your sessions. Nobody, until you name somebody.
    #[command(after_help = "Examples:\n  claudemesh approvers\n  claudemesh approvers add 1a2b3c4d5e6f7a8b\n  \
                            claudemesh approvers --quorum 2 --expires 5m\n  claudemesh approvers remove 1a2b3c4d5e6f7a8b\n\n\
                            Then `claudemesh install --permission-relay`. See docs/permissions.md for who can do what.")]
    Approvers(crate::features::permissions::cli::ApproversArgs),
    /// List what other people's sessions ask your permission for, or allow or deny it.
    #[command(after_help = "Examples:\n  claudemesh permit\n  claudemesh permit qwert allow\n  \
                            claudemesh permit qwert deny --reason \"not on a Friday\"")]
    Permit(crate::features::permissions::cli::PermitArgs),
    /// Show the log of permission questions and answers, or check that nobody has changed it.
    #[command(after_help = "Examples:\n  claudemesh audit\n  claudemesh audit --verify --json")]
    Audit(crate::features::permissions::cli::AuditArgs),
    /// Show how far a message got: stored, received, handed to the session, seen, answered.
    #[command(after_help = "Example:\n  claudemesh msg-status 8fK2mQ7d")]
    MsgStatus(args::MsgStatusArgs),
    /// Test the connection of every mesh, or set your status with `status set`.
    #[command(after_help = "Examples:\n  claudemesh status\n  claudemesh status set dnd")]
    Status(args::StatusArgs),
    /// Say what your session works on.
    #[command(after_help = "Example:\n  claudemesh summary \"refactoring the parser\"")]
    Summary(args::SummaryArgs),
    /// Show or hide your session in lists and group messages.
    #[command(after_help = "Example:\n  claudemesh visible false")]
    Visible(args::VisibleArgs),
    /// Show or edit your profile.
    #[command(
        after_help = "Examples:\n  claudemesh profile\n  claudemesh profile --title \"QA\" --capabilities review,tests"
    )]
    Profile(args::ProfileArgs),
    /// Join, leave or list groups.
    #[command(
        after_help = "Examples:\n  claudemesh group join @frontend --role lead\n  claudemesh group leave @frontend\n  \
                            claudemesh group list"
    )]
    Group(args::GroupArgs),
    /// Show facts about a mesh.
    #[command(after_help = "Example:\n  claudemesh info --json")]
    Info(args::InfoArgs),
    /// Show what each peer has sent, received and called.
    #[command(after_help = "Examples:\n  claudemesh stats\n  claudemesh stats --json")]
    Stats(args::StatsArgs),
    /// Measure the way to the broker and back.
    #[command(after_help = "Example:\n  claudemesh ping")]
    Ping(args::PingArgs),
    /// Close connections; the peers stay away until they are started again. For admins.
    #[command(after_help = "Examples:\n  claudemesh kick Bob\n  claudemesh kick --stale 30m")]
    Kick(args::SelectionArgs),
    /// Close connections; the peers connect again by themselves. For admins.
    #[command(after_help = "Examples:\n  claudemesh disconnect Bob\n  claudemesh disconnect --all")]
    Disconnect(args::SelectionArgs),
    /// Ban a member for good. For admins.
    #[command(after_help = "Example:\n  claudemesh ban Bob --reason \"left the company\"")]
    Ban(args::BanArgs),
    /// Lift a ban. For admins.
    #[command(after_help = "Example:\n  claudemesh unban Bob")]
    Unban(args::UnbanArgs),
    /// List banned members. For admins.
    #[command(after_help = "Example:\n  claudemesh bans")]
    Bans(args::BansArgs),
    /// Tell Claude Code about claudemesh: MCP server, permission and hooks.
    #[command(
        after_help = "Examples:\n  claudemesh install\n  claudemesh install --no-hooks\n  claudemesh install --mesh team \
                            --mesh home   one MCP server per mesh\n  claudemesh install --print\n  \
                            claudemesh install --plugin-dir ./claudemesh-plugin\n\n\
                            Edits ~/.claude.json and ~/.claude/settings.json (or the same in $CLAUDE_CONFIG_DIR), keeps a copy\n\
                            in ~/.claude/backups, and changes nothing but its own keys. `claudemesh uninstall` undoes it."
    )]
    Install(InstallArgs),
    /// Remove what `install` added, and nothing else.
    #[command(after_help = "Example:\n  claudemesh uninstall\n\nKeys and joined meshes stay; see `claudemesh leave`.")]
    Uninstall(UninstallArgs),
    /// Bring messages into a session and report its status. Called by Claude Code's hooks.
    #[command(
        after_help = "Reads the hook's JSON from standard input, prints what Claude Code shall show to the model, and exits 0;\n\
                            `wait` exits 2 to wake the session. Set CLAUDEMESH_HOOK_DEBUG=1 to see on standard error what it does.\n\nExample:\n  \
                            echo '{\"session_id\":\"...\"}' | claudemesh hook idle"
    )]
    Hook(HookArgs),
    /// Print a row about the mesh for Claude Code's status line. Set up by `install --status-line`.
    #[command(
        after_help = "Reads local files only, takes a few milliseconds and always exits 0. The numbers come from the session's\n\
                            MCP server and are at most a minute old; older ones say so.\n\nExamples:\n  claudemesh status-line\n  \
                            claudemesh status-line --wrap '~/.claude/my-line.sh'"
    )]
    StatusLine(StatusLineArgs),
    /// Show or set how you are told, outside of Claude Code, that a question waits. Off by default.
    #[command(
        after_help = "Examples:\n  claudemesh notify desktop --test\n  claudemesh notify 'tmux display-message \"$1: $2\"'\n  \
                            claudemesh notify off\n\nAt most one in 30 seconds; names who asks, never what. Running sessions take it up\n\
                            at their next start. CLAUDEMESH_NOTIFY decides instead of the setting."
    )]
    Notify(crate::notify::cli::NotifyArgs),
    /// Start Claude Code in a mesh. Flags that claudemesh does not know go to `claude`.
    #[command(
        visible_alias = "connect",
        after_help = "Examples:\n  claudemesh launch\n  \
                            claudemesh launch --name Ann --groups frontend:lead,qa --model opus\n  \
                            claudemesh launch --join http://host:7900/i/K7QX2MPA -y -- -p \"say hello to everyone\""
    )]
    Launch(crate::launch::LaunchArgs),
    /// Check the installation and every joined mesh; each failure comes with the command that mends it.
    #[command(after_help = "Examples:\n  claudemesh doctor\n  claudemesh doctor --no-loopback --json")]
    Doctor(DoctorArgs),
    /// Run the MCP server on standard input and output. Started by Claude Code.
    #[command(
        after_help = "Examples:\n  claudemesh mcp\n  claudemesh mcp --mesh team\n  claudemesh mcp --surface lean"
    )]
    Mcp(args::McpArgs),
    /// Print completions for a shell.
    #[command(
        visible_alias = "completion",
        after_help = "Examples:\n  claudemesh completions bash > ~/.local/share/bash-completion/completions/claudemesh\n  \
                            claudemesh completions zsh > ~/.zfunc/_claudemesh\n  claudemesh completions fish | source"
    )]
    Completions(CompletionsArgs),
    /// Print what an agent has to know to use this program, for hosts without the plug-in.
    #[command(
        after_help = "Examples:\n  claudemesh skill > ~/.claude/skills/claudemesh/SKILL.md\n  claudemesh skill >> AGENTS.md"
    )]
    Skill(SkillArgs),
    /// Print manual pages, or write one per verb into a folder.
    #[command(after_help = "Examples:\n  claudemesh man | man -l -\n  claudemesh man --dir ~/.local/share/man/man1")]
    Man(ManArgs),
}

/// `claudemesh install`
#[derive(Args, Clone, Debug, Default)]
pub struct InstallArgs {
    /// Add one MCP server `claudemesh-<slug>` for this mesh, instead of one for all. May be repeated.
    #[arg(long = "mesh", id = "mesh", value_name = "SLUG")]
    pub meshes: Vec<String>,
    /// Leave the hooks out; messages then cannot wait for a pause, and nothing wakes an idle session.
    #[arg(long)]
    pub no_hooks: bool,
    /// Show the mesh in Claude Code's status line; a line that is there already stays, ours comes below it.
    #[arg(long)]
    pub status_line: bool,
    /// Add the hook that lets a named member of the mesh answer permission questions.
    #[arg(long, conflicts_with = "no_hooks")]
    pub permission_relay: bool,
    /// Change nothing; print the commands and the JSON of the manual way.
    #[arg(long)]
    pub print: bool,
    /// Change nothing; write the Claude Code plug-in into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "print")]
    pub plugin_dir: Option<PathBuf>,
    /// Replace an MCP server 'claudemesh' that starts another program.
    #[arg(long)]
    pub force: bool,
}

/// `claudemesh uninstall`
#[derive(Args, Clone, Debug, Default)]
pub struct UninstallArgs {}

/// `claudemesh hook`
#[derive(Args, Clone, Debug, Default)]
pub struct HookArgs {
    /// `session-start`, `prompt`, `post-tool`, `stop`, `session-end`, `permission`, `wait`, `monitor`; or a status: `idle`, `working`, `dnd`.
    pub event: Option<String>,
}

/// `claudemesh status-line`
#[derive(Args, Clone, Debug, Default)]
pub struct StatusLineArgs {
    /// Run this shell line first, on the same input, and print its rows above ours.
    #[arg(long, value_name = "LINE")]
    pub wrap: Option<std::ffi::OsString>,
}

/// `claudemesh doctor`
#[derive(Args, Clone, Debug, Default)]
pub struct DoctorArgs {
    /// Leave out the messages that the doctor sends itself over every route of each mesh.
    #[arg(long)]
    pub no_loopback: bool,
}

/// `claudemesh completions`
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// Shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Shells with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash
    Bash,
    /// Elvish
    Elvish,
    /// Fish
    Fish,
    /// PowerShell
    Powershell,
    /// Zsh
    Zsh,
}

/// `claudemesh skill`
#[derive(Args, Clone, Debug, Default)]
pub struct SkillArgs {}

/// `claudemesh man`
#[derive(Args, Clone, Debug, Default)]
pub struct ManArgs {
    /// Write `claudemesh.1`, `claudemesh-send.1` … into this folder instead.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// The command tree, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn an_option_never_eats_the_next_word() {
        fn check(command: &clap::Command, path: &str) {
            for argument in command.get_arguments().filter(|argument| !argument.is_positional()) {
                let values = argument.get_num_args().unwrap_or_default();
                // `--resume [id]` is Claude Code's own, and `launch` takes no words that it could eat.
                let own = format!("{path} --{}", argument.get_id()) != "claudemesh launch --resume";
                let optional = argument.get_action().takes_values() && values.min_values() == 0 && own;
                assert!(!optional || argument.is_require_equals_set(), "{path} --{}", argument.get_id());
                assert!(values.max_values() <= 1, "{path} --{} takes several words", argument.get_id());
            }
            for verb in command.get_subcommands() {
                check(verb, &format!("{path} {}", verb.get_name()));
            }
        }
        let mut tree = command();
        tree.build();
        check(&tree, "claudemesh");
        let cli = Cli::try_parse_from(["claudemesh", "send", "--self", "Bob", "--json", "hello"]).unwrap();
        let Some(Verb::Send(args)) = cli.verb else { panic!("send") };
        assert_eq!((args.to_self, args.words), (true, vec!["Bob".to_owned(), "hello".to_owned()]));
    }

    #[test]
    fn every_verb_and_argument_is_explained() {
        fn check(command: &clap::Command, path: &str) {
            for argument in command.get_arguments() {
                let known = matches!(argument.get_id().as_str(), "help" | "version");
                assert!(known || argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
            for verb in command.get_subcommands() {
                let path = format!("{path} {}", verb.get_name());
                assert!(verb.get_about().is_some(), "{path} has no help");
                assert!(verb.get_after_help().is_some(), "{path} has no example");
                check(verb, &path);
            }
        }
        check(&command(), "claudemesh");
    }
}
