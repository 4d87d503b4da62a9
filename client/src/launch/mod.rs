//! `claudemesh launch`: starts Claude Code as a session of a mesh and cleans up after it.

use std::ffi::OsString;
use std::process::Command;

use clap::Args;

use crate::config::last_used::LastUsed;
use crate::config::session_dir::SessionInfo;
use crate::config::{Config, MessageMode};
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::install::cli::InstallArgs;
use crate::install::{self, Installed};
use crate::output::{Output, Style, clean};
use crate::paths::{self, ClaudeFiles};
use crate::session::routes::permission_mode::SKIP_PERMISSIONS;
use crate::values::{Groups, parse_groups};
use crate::verb::{Audience, Effect, Ran, Verb};

pub mod argv;
pub mod choices;
pub mod claude;
pub mod local;
pub mod process;
pub mod release;
mod safety;

use choices::Choices;
use claude::{Conversation, Start};
use release::Found;

/// Start Claude Code in a mesh. Flags that claudemesh does not know go to `claude`.
#[derive(Args, Clone, Debug, Default)]
#[command(
    visible_alias = "connect",
    after_help = "Examples:\n  claudemesh launch\n  \
                        claudemesh launch --name Ann --groups frontend:lead,qa --model opus\n  \
                        claudemesh launch --join http://host:7900/i/K7QX2MPA -y -- -p \"say hello to everyone\"\n\n\
                        Without a joined mesh, the session works in the mesh `local` of this machine. Of several\n\
                        meshes it takes the one that you name, else the one of the last launch, else the one of\n\
                        `claudemesh use`."
)]
pub struct LaunchArgs {
    /// Mesh to work in; the same as `--mesh`.
    #[arg(value_name = "MESH")]
    pub mesh_slug: Option<String>,
    /// Join this mesh first, then work in it.
    #[arg(long, value_name = "LINK")]
    pub join: Option<String>,
    /// Name of this session [default: the last answer, or the name of the folder].
    #[arg(long)]
    pub name: Option<String>,
    /// What you do, in a few words: shown to the others as your title.
    #[arg(long = "title", alias = "role", value_name = "TEXT")]
    pub role: Option<String>,
    /// Groups that the session joins, with a word for what you are there: `frontend:lead,qa`.
    #[arg(long, value_name = "GROUP[:AS],…", value_parser = parse_groups)]
    pub groups: Option<Groups>,
    /// How messages reach the session [default: the last answer, or push].
    #[arg(long, value_enum)]
    pub message_mode: Option<MessageMode>,
    /// Which tools Claude gets: all of them (full, the default), only those that no shell command replaces (lean), or none.
    #[arg(long, value_name = "full|lean|none", value_parser = ["full", "lean", "none"])]
    pub surface: Option<String>,
    /// Show this folder, read-only, to peers who ask; you are asked for each of them. Not even your project is shown without it.
    #[arg(long, value_name = "DIR")]
    pub share_dir: Option<std::path::PathBuf>,
    /// System prompt for Claude Code.
    #[arg(long, value_name = "TEXT")]
    pub system_prompt: Option<String>,
    /// Answer claudemesh's own questions with their defaults. Permission prompts of Claude Code stay.
    #[arg(long, short)]
    pub yes: bool,
    /// Ask for name, title, groups and message mode again, although they were chosen before.
    #[arg(long)]
    pub ask: bool,
    /// Let Claude Code act without any permission prompt (its --dangerously-skip-permissions).
    #[arg(long)]
    pub skip_permissions: bool,
    /// Resume this conversation; without an id Claude Code lets you pick one.
    #[arg(long, short, value_name = "ID", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["continue", "session_id"])]
    pub resume: Option<String>,
    /// Continue the newest conversation of this folder.
    #[arg(long = "continue", short, conflicts_with = "session_id")]
    pub r#continue: bool,
    /// Id of the new conversation, a UUID.
    #[arg(long, value_name = "UUID")]
    pub session_id: Option<String>,
    /// Arguments for `claude`.
    #[arg(last = true, value_name = "CLAUDE ARGS")]
    pub claude_args: Vec<OsString>,
}

impl Verb for LaunchArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn run(self, cx: &Context) -> Ran {
        run(cx, &self, &join_link).map(Into::into)
    }
}

/// The folder to share, as Claude Code finds it from any place.
fn shared_folder(dir: &std::path::Path) -> Result<std::path::PathBuf, CliError> {
    let failed = |error: std::io::Error| {
        CliError::io(format!("The folder {} cannot be shared: {error}.", clean(&dir.to_string_lossy())))
            .hint("Name a folder that exists and that you may read.")
    };
    crate::features::peer_files::folder::SharedFolder::open(dir)
        .map(|folder| folder.path().to_path_buf())
        .map_err(failed)
}

/// Joins a mesh for `--join` and answers its local slug.
fn join_link(cx: &Context, link: &str, name: Option<&str>) -> Result<String, CliError> {
    crate::features::enrolment::cli::join_link(cx, link, name, None).map(|kept| kept.entry.slug)
}

/// Joins a mesh by its link and answers the slug; given to [`run`] so that `launch` need not know how joining works.
type Joiner<'a> = &'a dyn Fn(&Context, &str, Option<&str>) -> Result<String, CliError>;

/// Runs Claude Code. Answers its exit code, or 0 when the user declines.
///
/// # Errors
/// Exit 9 without Claude Code, 5 without a mesh, 3 for bad arguments, 10 for files.
fn run(cx: &Context, args: &LaunchArgs, join: Joiner<'_>) -> Result<u8, CliError> {
    let claude = release::Found::at(claude::find(&cx.env)?);
    let conversation = conversation(cx, args)?;
    let share_dir = args.share_dir.as_deref().map(shared_folder).transpose()?;
    let signals = process::SignalGuard::new()?;
    let joined = args.join.as_deref().map(|link| join(cx, link, args.name.as_deref())).transpose()?;
    if let (Some(word), Some(flag)) = (&args.mesh_slug, &cx.mesh)
        && word != flag
    {
        return Err(CliError::invalid_args(format!("Two meshes are named: {} and {}.", clean(word), clean(flag))));
    }
    let wished = joined.or_else(|| args.mesh_slug.clone()).or_else(|| cx.mesh.clone());
    let wished = match wished {
        None => local::create_if_nothing_is_joined(cx)?,
        wished => wished,
    };
    let config: Config = cx.meant(wished.as_deref())?;
    let choices = choices::settle(cx, args, &config, wished.as_deref())?;
    sweep(cx);
    let installed = crate::install::installed(&cx.env);
    let setup = Setup::of(cx, args, &choices, &claude, &installed);

    let safety = safety::text(cx, args, choices.mode);
    banner(&cx.out, &choices, &arrival(cx, &choices, &claude, &setup), &safety)?;
    if !gate(cx, args, &choices)? {
        return Ok(ExitCode::Success as u8);
    }
    remember(cx, &choices);
    let info = SessionInfo {
        mesh_slug: Some(choices.mesh.slug.clone()),
        display_name: Some(choices.name.clone()),
        role: choices.role.clone(),
        groups: choices.groups.clone(),
        message_mode: Some(choices.mode),
        mcp_surface: args.surface.clone(),
        share_dir,
        claude_session_id: conversation.session_id().map(str::to_owned),
        ..SessionInfo::default()
    };
    // The child may run in another folder: absolute paths only.
    let config_dir = std::path::absolute(cx.store.dir()).unwrap_or_else(|_| cx.store.dir().to_path_buf());
    let mut session_dir = crate::config::ConfigStore::at(&config_dir).create_session_dir(info)?;

    let mut variables: Vec<(&'static str, OsString)> = vec![
        (paths::CONFIG_DIR, config_dir.into_os_string()),
        (paths::SESSION_DIR, session_dir.path().as_os_str().to_owned()),
        (paths::DISPLAY_NAME, choices.name.clone().into()),
    ];
    variables.extend(choices.role.clone().map(|role| (paths::ROLE, role.into())));
    variables.extend(conversation.session_id().map(|id| (paths::SESSION_ID, id.into())));
    variables.extend(args.surface.clone().map(|surface| (paths::MCP_SURFACE, surface.into())));
    let start = Start {
        skip_permissions: args.skip_permissions,
        system_prompt: args.system_prompt.clone(),
        conversation,
        server_program: setup.server_program,
        settings: setup.settings,
        channel: setup.channel,
        forwarded: args.claude_args.clone(),
        variables,
    };
    warn_about(cx, args);
    if let Some(channel) = &start.channel {
        cx.out.remark(&format!(
            "Starting Claude Code with {} {channel}, the switch that allows channels which are not on its approved list.",
            claude::DEVELOPMENT_CHANNELS
        ));
    }
    let mut command = Command::new(&claude.program);
    command.args(start.arguments());
    let (set, remove) = start.environment(&cx.env);
    remove.iter().for_each(|name| {
        command.env_remove(name);
    });
    command.envs(set);
    let ended = process::run(command, signals, |pid| {
        if let Err(error) = session_dir.note_child(pid) {
            cx.out.warn(&format!("The session folder cannot be updated: {error}."));
        }
    });
    drop(session_dir);
    Ok(ended?.pass_on())
}

/// What this session is given because Claude Code does not have it by itself.
struct Setup {
    server_program: Option<String>,
    settings: Option<serde_json::Value>,
    channel: Option<String>,
    has_hooks: bool,
}

impl Setup {
    fn of(cx: &Context, args: &LaunchArgs, choices: &Choices, claude: &Found, installed: &Installed) -> Self {
        // The entry for all meshes, else the one for this mesh, else the plug-in, else one that lives for this session.
        let entry = if installed.server.is_some() && !installed.server_foreign {
            Some(install::edits::SERVER.to_owned())
        } else {
            let of_mesh = installed.mesh_servers.iter().find(|(_, slug)| *slug == choices.mesh.slug);
            of_mesh.map(|(name, _)| name.clone())
        };
        let by_us = entry.is_none() && installed.plugin.is_none();
        let server_program = by_us.then(|| install::program_name(&cx.env));
        // Who installed without hooks wants none; who installed nothing gets them for this session. The user's own
        // `--settings` would be lost beside ours.
        let theirs = |word: &OsString| word == "--settings" || word.to_string_lossy().starts_with("--settings=");
        let bare = !installed.has_hooks() && !args.claude_args.iter().any(theirs);
        let settings = server_program
            .as_ref()
            .filter(|_| bare)
            .map(|program| install::manual::settings(program, &InstallArgs::default()));
        let channel = match (entry, &installed.plugin) {
            (Some(name), _) => format!("server:{name}"),
            (None, Some(plugin)) => format!("plugin:{plugin}"),
            (None, None) => format!("server:{}", install::edits::SERVER),
        };
        Self {
            has_hooks: (installed.has_hooks() || settings.is_some()) && installed.hooks_off.is_none(),
            server_program,
            settings,
            channel: claude.has(release::CHANNELS).then_some(channel),
        }
    }
}

/// Removes what killed launches left behind. What cannot be removed is told and no reason not to start.
fn sweep(cx: &Context) {
    cx.store.sweep_session_dirs();
    match install::native::sweep(&cx.env, cx.store.dir()) {
        Ok(names) if names.is_empty() => {}
        Ok(names) => {
            let _ = cx.out.note(&format!("Removed entries of sessions that died: {}", clean(&names.join(", "))));
        }
        Err(error) => cx.out.warn(&crate::error::sentence(&error.to_string())),
    }
}

/// Keeps what the user answered, so that it is asked once. A flag counts for its own start only.
fn remember(cx: &Context, choices: &Choices) {
    let Some(answers) = &choices.answers else { return };
    let last = LastUsed { timestamp: crate::clock::now_iso(), ..answers.clone() };
    if let Err(error) = cx.store.remember_last_used(&last) {
        cx.out.warn(&format!("The choices cannot be remembered: {error}."));
    }
}

/// Which conversation the flags mean, ours and forwarded ones.
fn conversation(cx: &Context, args: &LaunchArgs) -> Result<Conversation, CliError> {
    if let Some(id) = &args.session_id {
        let id = uuid::Uuid::parse_str(id).map_err(|_| CliError::invalid_args("--session-id is not a UUID."))?;
        return Ok(Conversation::Fresh(id.to_string()));
    }
    match args.resume.as_deref() {
        Some("") => return Ok(Conversation::Pick),
        Some(id) if args.claude_args.iter().any(|word| word == "--fork-session") => {
            return Ok(Conversation::Fork(id.to_owned()));
        }
        Some(id) => return Ok(Conversation::Resume(id.to_owned())),
        None => {}
    }
    if args.r#continue {
        let cwd = std::env::current_dir().unwrap_or_default();
        let forked = args.claude_args.iter().any(|word| word == "--fork-session");
        let newest = || claude::newest_conversation(&ClaudeFiles::locate(&cx.env), &cwd);
        return Ok(Conversation::Continue(if forked { None } else { newest() }));
    }
    let theirs = |word: &OsString| {
        let word = word.to_string_lossy();
        matches!(
            word.as_ref(),
            "-r" | "-c" | "--resume" | "--continue" | "--session-id" | "--fork-session" | "--from-pr" | "--teleport"
        ) || ["--resume=", "--session-id="].iter().any(|flag| word.starts_with(flag))
    };
    if args.claude_args.iter().any(theirs) {
        return Ok(Conversation::Forwarded);
    }
    Ok(Conversation::Fresh(uuid::Uuid::new_v4().to_string()))
}

/// How messages will arrive with this version and set-up.
fn arrival(cx: &Context, choices: &Choices, claude: &Found, setup: &Setup) -> String {
    match choices.mode {
        MessageMode::Push => {}
        MessageMode::Inbox => return "Messages of peers wait until the session asks for them.".into(),
        MessageMode::Off => return "Messages of peers are not shown.".into(),
    }
    let channels = setup.channel.is_some() && channel_switches(&cx.env).is_empty();
    let title = claude.title();
    match (channels, setup.has_hooks) {
        (true, true) => format!(
            "Messages of peers reach the session at once: {title} shows them as channel notes where your account has\n\
             channels, else hooks bring them in."
        ),
        (true, false) => format!(
            "Messages of peers reach the session where your account has channels ({title}); without hooks they wait\n\
             otherwise. To have hooks: claudemesh install"
        ),
        (false, true) => format!("Messages of peers reach the session through hooks: {title} has no channels here."),
        (false, false) => format!(
            "Messages of peers wait until the session asks: {title} has no channels here, and there are no hooks.\n\
             To have hooks: claudemesh install"
        ),
    }
}

fn banner(out: &Output, choices: &Choices, arrival: &str, safety: &str) -> Result<(), CliError> {
    let mut text = format!(
        "{} {} as {}",
        out.paint(Style::Bold, "claudemesh"),
        out.paint(Style::Cyan, &clean(&choices.mesh.slug)),
        out.paint(Style::Bold, &choices.name)
    );
    if let Some(role) = &choices.role {
        text += &format!(" ({role})");
    }
    if !choices.groups.is_empty() {
        let groups: Vec<String> = choices.groups.iter().map(|group| format!("@{}", group.name)).collect();
        text += &format!(" in {}", groups.join(" "));
    }
    text += &format!("\n{arrival}\n{safety}\nPeers send text; they cannot run commands or read files here.\n");
    out.note(&text)
}

/// Asks before the start, on a terminal only: the first time, and before permission prompts are switched off. `false` when the
/// user declines.
fn gate(cx: &Context, args: &LaunchArgs, choices: &Choices) -> Result<bool, CliError> {
    let wanted = choices.answers.is_some() || args.skip_permissions;
    if !wanted || args.yes || cx.out.is_quiet() || cx.out.is_json() || !choices::can_ask() {
        return Ok(true);
    }
    if choices::confirm("Continue?")? {
        return Ok(true);
    }
    cx.out.note("Not started. To start Claude Code without the mesh: claude")?;
    Ok(false)
}

fn warn_about(cx: &Context, args: &LaunchArgs) {
    if args.claude_args.iter().any(|word| word == SKIP_PERMISSIONS) && !args.skip_permissions {
        cx.out.warn("--dangerously-skip-permissions was left out; --skip-permissions asks for it.");
    }
    #[cfg(unix)]
    if args.skip_permissions && rustix::process::geteuid().is_root() && cx.env.text("IS_SANDBOX") != Some("1") {
        cx.out.warn("Claude Code refuses to skip permission prompts for root unless IS_SANDBOX=1 is set.");
    }
    for name in channel_switches(&cx.env) {
        cx.out.warn(&format!("{name} is set: Claude Code then loads no channels, messages arrive later. Unset it."));
    }
}

/// Variables that keep channels from being loaded.
pub const CHANNEL_SWITCHES: [&str; 2] = ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_TELEMETRY"];

/// Those of them that are set.
pub fn channel_switches(env: &paths::Env) -> Vec<&'static str> {
    CHANNEL_SWITCHES.into_iter().filter(|name| env.flag(name)).collect()
}
