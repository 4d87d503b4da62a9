//! Who the session will be: flags first, then what is known, then questions on a terminal.

use std::io::IsTerminal;

use claudemesh_protocol::features::groups::Group;
use inquire::{InquireError, Select, Text};

use super::LaunchArgs;
use crate::config::last_used::LastUsed;
use crate::config::project_file::{NameSources, ProjectFile};
use crate::config::{Config, MeshEntry, MessageMode};
use crate::context::Context;
use crate::context::confirm::yes_or_no;
use crate::error::CliError;
use crate::features::enrolment::chosen_name;
use crate::paths;
use crate::values::parse_groups;

/// Longest display name that is sent.
const MAX_NAME_CHARS: usize = 64;

/// The choices of a launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Choices {
    /// The mesh.
    pub mesh: MeshEntry,
    /// Display name.
    pub name: String,
    /// Role.
    pub role: Option<String>,
    /// Groups.
    pub groups: Vec<Group>,
    /// How messages arrive.
    pub mode: MessageMode,
    /// What the user answered, to be kept; `None` when nothing was asked.
    pub answers: Option<LastUsed>,
}

/// Whether a person can be asked.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Settles the choices: flags, the environment, the project's file, the last answers, the config. Asks on a terminal only, the
/// first time or with `--ask`, what no flag answers; never with `--yes` or `--quiet`.
///
/// # Errors
/// As [`Config::choose`]; exit 3 for bad values, exit 1 when the user leaves a question.
pub fn settle(cx: &Context, args: &LaunchArgs, config: &Config, wished: Option<&str>) -> Result<Choices, CliError> {
    let project = paths::project_dir(&cx.env);
    let file = ProjectFile::read(&project)?;
    let last = cx.store.last_used();
    let quiet = args.yes || cx.out.is_quiet() || cx.out.is_json();
    let may_ask = can_ask() && !quiet;
    let ask = may_ask && (args.ask || last.timestamp.is_empty());
    // The mesh of the last time may be left meanwhile.
    let ask_mesh = ask || may_ask && config.by_slug(&last.mesh_slug).is_none();
    let mut answers = last.clone();
    let mesh = choose_mesh(config, wished.or(file.mesh.as_deref()), &last, ask_mesh)?;
    if wished.is_none() {
        answers.mesh_slug.clone_from(&mesh.slug);
    }

    let chosen = args.name.as_deref().map(chosen_name).transpose()?;
    let known_name = chosen.or_else(|| cx.env.text(paths::DISPLAY_NAME).map(str::to_owned));
    let default_name =
        NameSources { config: config.display_name.clone(), file: file.name.clone(), ..NameSources::default() }
            .name(&project);
    let name = match known_name {
        Some(name) => name,
        None if ask => {
            let offered = if last.display_name.is_empty() { &default_name } else { &last.display_name };
            let text = Text::new("Your name in the mesh:").with_default(offered).with_validator(|text: &str| {
                Ok(match chosen_name(text) {
                    Ok(_) => inquire::validator::Validation::Valid,
                    Err(reason) => inquire::validator::Validation::Invalid(reason.message.into()),
                })
            });
            let name = answer(text.prompt())?;
            // The name of the folder is not kept: another folder has another one.
            answers.display_name = if name == default_name { String::new() } else { name.clone() };
            name
        }
        None if file.name.is_none() && !last.display_name.is_empty() => last.display_name.clone(),
        None => default_name,
    };
    let known_role = args.role.clone().or_else(|| cx.env.text(paths::ROLE).map(str::to_owned));
    let default_role = config.role.clone().or(file.role.clone());
    let role = match known_role {
        Some(role) => Some(role),
        None if ask => {
            let offered = last.role.clone().or(default_role).unwrap_or_default();
            let question = Text::new("Your title: what you do, in a few words (may be empty):");
            let question = if offered.is_empty() { question } else { question.with_default(&offered) };
            answers.role = Some(answer(question.prompt())?);
            answers.role.clone()
        }
        None if file.role.is_none() => last.role.clone().or(default_role),
        None => default_role,
    };
    let default_groups = config.groups.clone().or(file.groups.clone());
    let groups = match &args.groups {
        Some(groups) => groups.0.clone(),
        None if ask => {
            let offered = groups_text(if last.groups.is_empty() {
                default_groups.as_deref().unwrap_or_default()
            } else {
                &last.groups
            });
            let text = Text::new("Groups (frontend:lead,qa; may be empty):").with_validator(|text: &str| {
                Ok(match parse_groups(text) {
                    Ok(_) => inquire::validator::Validation::Valid,
                    Err(reason) => inquire::validator::Validation::Invalid(reason.into()),
                })
            });
            let text = if offered.is_empty() { text } else { text.with_default(&offered) };
            answers.groups = parse_groups(&answer(text.prompt())?).map_err(CliError::invalid_args)?.0;
            answers.groups.clone()
        }
        None if file.groups.is_none() && !last.groups.is_empty() => last.groups.clone(),
        None => default_groups.unwrap_or_default(),
    };
    let default_mode = config.message_mode.unwrap_or_default();
    let mode = match args.message_mode {
        Some(mode) => mode,
        None if ask => {
            let mode = ask_mode(last.message_mode.unwrap_or(default_mode))?;
            answers.message_mode = Some(mode);
            mode
        }
        None => last.message_mode.unwrap_or(default_mode),
    };
    let clean = |text: String| {
        let text = crate::output::clean(text.trim()).chars().take(MAX_NAME_CHARS).collect::<String>();
        Some(text).filter(|text| !text.is_empty())
    };
    let name = clean(name).ok_or_else(|| CliError::invalid_args("The name is empty."))?;
    let answers = (ask || answers.mesh_slug != last.mesh_slug && ask_mesh).then_some(answers);
    Ok(Choices { mesh, name, role: role.and_then(clean), groups, mode, answers })
}

fn choose_mesh(config: &Config, wished: Option<&str>, last: &LastUsed, ask: bool) -> Result<MeshEntry, CliError> {
    let known = config.by_slug(&last.mesh_slug).filter(|_| wished.is_none() && !ask);
    if let Some(known) = known {
        return Ok(known.clone());
    }
    if wished.is_none() && config.meshes.len() > 1 && ask {
        let start = config.meshes.iter().position(|mesh| mesh.slug == last.mesh_slug).unwrap_or(0);
        let slug = answer(Select::new("Which mesh?", config.slugs()).with_starting_cursor(start).prompt())?;
        return config.choose(Some(slug)).cloned();
    }
    config.choose(wished).cloned()
}

fn ask_mode(start: MessageMode) -> Result<MessageMode, CliError> {
    let modes = [MessageMode::Push, MessageMode::Inbox, MessageMode::Off];
    let texts = [
        "push   messages reach the session at once",
        "inbox  they wait until the session asks",
        "off    none are shown",
    ];
    let cursor = modes.iter().position(|mode| *mode == start).unwrap_or(0);
    let chosen =
        answer(Select::new("How should messages arrive?", texts.to_vec()).with_starting_cursor(cursor).raw_prompt())?;
    Ok(modes[chosen.index])
}

/// Asks for a yes; Enter means yes.
///
/// # Errors
/// Exit 1 when the user leaves the question.
pub fn confirm(question: &str) -> Result<bool, CliError> {
    answer(yes_or_no(question, true))
}

fn answer<T>(result: Result<T, InquireError>) -> Result<T, CliError> {
    result.map_err(|error| match error {
        InquireError::OperationCanceled | InquireError::OperationInterrupted => CliError::cancelled("Cancelled."),
        error => CliError::io(format!("The terminal cannot be used for questions: {error}."))
            .hint("Give the answers as flags; see `claudemesh launch --help`."),
    })
}

/// `name:role,name2`
pub fn groups_text(groups: &[Group]) -> String {
    let one = |group: &Group| match &group.role {
        Some(role) => format!("{}:{role}", group.name),
        None => group.name.clone(),
    };
    groups.iter().map(one).collect::<Vec<_>>().join(",")
}
