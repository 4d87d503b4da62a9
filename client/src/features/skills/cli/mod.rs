//! `skill share`, `list`, `get`, `remove`, `install`. `skill` alone, which prints the skill of this program, is in `cli`.

mod install;

use std::path::{Path, PathBuf};

use clap::Args;
use claudemesh_protocol::features::skills::limits::MAX_SKILL_BYTES;
use claudemesh_protocol::features::skills::{ShareSkill, SignatureState, Skill, SkillEntry, SkillList};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::shown;
use crate::config::MeshEntry;
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::ask;
use crate::error::CliError;
use crate::features::skills::Manifest;
use crate::features::skills::frame::{RULE, proof};
use crate::features::skills::skill_file::{FILE, SkillFile};
use crate::files;
use crate::output::{Output, Style, clean};
use crate::session::notes::harmless_value;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields, verbs};

verbs! {
    /// What to do with skills.
    pub enum SkillAction {
        Share => ShareArgs,
        List => ListArgs,
        Get => GetArgs,
        Remove => RemoveArgs,
        Install => install::InstallArgs,
    }
}

/// Share a skill: a SKILL.md, its folder, or any text. It is signed with your member's key.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh skill share .claude/skills/deploy\n  \
                        claudemesh skill share notes.md --name deploy --description \"How we deploy\" --tags ops,ci\n\n\
                        Name, description, tags and the like come from the front matter; flags go before it.\n\
                        A changed text of the same name is a new version; former ones are kept.")]
pub struct ShareArgs {
    /// A file, or a folder with a SKILL.md.
    path: PathBuf,
    /// Its name [default: of the front matter, else of the folder or file].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What it does and when to use it [default: of the front matter].
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Words to find it by, with commas between them.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    tags: Vec<String>,
}

/// A skill that was shared, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct SharedSkill {
    name: String,
    version: u32,
    /// The newest version had this text already.
    unchanged: bool,
}

impl ShareArgs {
    fn read(&self, out: &Output) -> Result<ShareSkill, CliError> {
        let folder = self.path.is_dir();
        let path = if folder { self.path.join(FILE) } else { self.path.clone() };
        // The front matter may be as long again.
        let bytes = files::read_limited(&path, 2 * MAX_SKILL_BYTES as u64)
            .map_err(|error| CliError::io(format!("{}: {error}.", path.display())))?
            .ok_or_else(|| CliError::not_found(format!("There is no {}.", path.display())))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| CliError::invalid_args(format!("{} is no text in UTF-8.", path.display())))?;
        let file =
            SkillFile::parse(&text).map_err(|error| CliError::invalid_args(format!("{}: {error}.", path.display())))?;
        if folder {
            warn_of_others(&self.path, out);
        }
        if !file.ignored.is_empty() {
            out.warn(&format!("not shared are the fields {}.", clean(&file.ignored.join(", "))));
        }
        let named = || {
            let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
            let of = if whole.ends_with(FILE) { whole.parent().unwrap_or(&whole) } else { &whole };
            of.file_stem().map(|stem| stem.to_string_lossy().into_owned())
        };
        let name = self.name.clone().or(file.name).or_else(named);
        let description = self.description.clone().or(file.description).ok_or_else(|| {
            CliError::invalid_args("The skill has no description.")
                .hint("Give one with --description, or as `description:` in its front matter.")
        })?;
        Ok(ShareSkill {
            name: name.ok_or_else(|| CliError::invalid_args("The skill has no name; give one with --name."))?,
            description,
            instructions: file.instructions,
            tags: if self.tags.is_empty() { file.tags } else { self.tags.clone() },
            manifest: file.manifest.to_wire(),
            ..ShareSkill::default()
        })
    }
}

/// Scripts and references beside the text stay here.
fn warn_of_others(folder: &Path, out: &Output) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut others: Vec<String> = names.filter(|name| name != FILE && !name.starts_with('.')).collect();
    others.sort();
    if !others.is_empty() {
        out.warn(&format!("only {FILE} is shared, not {}.", clean(&others.join(", "))));
    }
}

impl Verb for ShareArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<SharedSkill>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<SharedSkill>>()]
    }

    /// Exit 7 when another member has shared it, or a bound is hit.
    fn run(self, cx: &Context) -> Ran {
        let (entry, skill) = (cx.mesh_entry()?, self.read(&cx.out)?);
        let share = |connection: Connection| async move { Ok(connection.share_skill(skill).await?) };
        let ack = ask(cx, &entry, share)?;
        let (version, unchanged) = (ack.version.unwrap_or(1), ack.unchanged);
        let shared = SharedSkill { name: ack.name, version, unchanged };
        cx.out
            .answer(&InMesh::new(&entry.slug, &shared), |out| {
                let what = if unchanged { "already shared, unchanged:" } else { "shared" };
                format!("{} {what} {}, version {version}\n", out.tick(), clean(&shared.name))
            })
            .map(done)
    }
}

/// List the skills of the mesh, or find them by words of name, description and tags.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh skill list\n  claudemesh skill list \"deploy* -staging\" --tag ops --json=name"
)]
pub struct ListArgs {
    /// Words that all must be there [default: all skills].
    #[arg(allow_hyphen_values = true)]
    query: Option<String>,
    /// Only with this tag; several times: with all of them.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<SkillEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<SkillEntry>>()]
    }

    /// Exit 0 also when nothing is found.
    fn run(self, cx: &Context) -> Ran {
        let (entry, query, tags) = (cx.mesh_entry()?, self.query.as_deref(), self.tag.as_slice());
        let most = self.limit as usize;
        let list = |connection: Connection| async move { Ok(connection.skills(query, tags, most, None).await?) };
        let SkillList { skills, next } = ask(cx, &entry, list)?;
        cx.out
            .answer(&InMesh::all(&entry.slug, &skills), |out| {
                let mut text = match (skills.is_empty(), query.is_some() || !tags.is_empty()) {
                    (true, true) => "no skill fits\n".to_owned(),
                    (true, false) => "no skills; `claudemesh skill share <file>` shares one\n".to_owned(),
                    (false, _) => out.preamble(),
                };
                text.extend(skills.iter().map(|skill| row(skill, out)));
                if next.is_some() {
                    text += &format!("(there are more; --limit {} shows them)\n", self.limit.saturating_mul(2));
                }
                text
            })
            .map(done)
    }
}

fn row(skill: &SkillEntry, out: &Output) -> String {
    let who = format!("{} · version {} · {}", word(&skill.author, out), skill.version, shown(&skill.updated_at));
    let name = word(&skill.name, out);
    let head =
        format!("{}{}  {}\n", out.paint(Style::Cyan, &name), tags(&skill.tags, out), out.paint(Style::Dim, &who));
    head + &out.block(&skill.description)
}

fn tags(tags: &[String], out: &Output) -> String {
    let tags: Vec<String> = tags.iter().map(|tag| word(tag, out)).collect();
    if tags.is_empty() { String::new() } else { format!(" [{}]", tags.join(", ")) }
}

/// What a peer wrote, within a line.
fn word(text: &str, out: &Output) -> String {
    if out.is_for_model() { harmless_value(text) } else { clean(text).into_owned() }
}

/// Show a skill: its text, whose it is, and whether its signature fits.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh skill get deploy\n  claudemesh skill get deploy --version 2 --json")]
pub struct GetArgs {
    /// Its name.
    name: String,
    /// A former version [default: the newest].
    #[arg(long = "version", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    wanted_version: Option<u32>,
}

/// A skill with what was found about its signature, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Got {
    #[serde(flatten)]
    skill: Skill,
    /// Whether the text is what its author signed.
    signature_state: SignatureState,
}

impl Verb for GetArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::joined([shape::in_mesh::<Skill>(), vec!["signatureState"]])
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Got>>()]
    }

    /// Exit 5 when there is no such skill or version.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let (skill, signature_state) = read(cx, &entry, &self.name, self.wanted_version)?;
        let got = Got { skill, signature_state };
        cx.out.answer(&InMesh::new(&entry.slug, &got), |out| told(&got.skill, got.signature_state, out)).map(done)
    }
}

/// Reads a skill and checks its signature.
fn read(
    cx: &Context,
    entry: &MeshEntry,
    name: &str,
    version: Option<u32>,
) -> Result<(Skill, SignatureState), CliError> {
    let get = |connection: Connection| async move { Ok(connection.skill(name, version).await?) };
    let skill = ask(cx, entry, get)?.ok_or_else(|| {
        let version = version.map(|version| format!(" version {version} of the")).unwrap_or_default();
        CliError::not_found(format!("There is no{version} skill '{}'.", clean(name)))
            .field("name", name)
            .hint("`claudemesh skill list` shows what there is.")
    })?;
    let state = skill.signature_state(&entry.mesh_id);
    Ok((skill, state))
}

fn told(skill: &Skill, state: SignatureState, out: &Output) -> String {
    let who = format!(
        "{} · version {} of {} · {}",
        word(&skill.author, out),
        skill.version,
        skill.latest,
        shown(&skill.updated_at)
    );
    let name = word(&skill.name, out);
    let mut text =
        format!("{}{}  {}\n", out.paint(Style::Bold, &name), tags(&skill.tags, out), out.paint(Style::Dim, &who));
    let style = if state == SignatureState::Verified { Style::Green } else { Style::Red };
    text += &format!("{}\n", out.paint(style, &proof(skill, state)));
    if out.is_for_model() {
        text += &format!("{RULE}\n");
    }
    text += &out.block(&skill.description);
    let manifest = Manifest::of(skill.manifest.as_ref());
    let tools = manifest.allowed_tools.join(", ");
    for (label, value) in [("when to use", manifest.when_to_use.as_deref()), ("tools", Some(tools.as_str()))] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text += &format!("{label}: {}\n", word(value, out));
        }
    }
    text.push('\n');
    text += &out.block(&skill.instructions);
    if skill.versions.len() > 1 {
        let one = |version: &claudemesh_protocol::features::skills::SkillVersion| {
            format!("{} by {} {}", version.version, word(&version.author, out), shown(&version.at))
        };
        let all: Vec<String> = skill.versions.iter().map(one).collect();
        text += &format!("\nversions: {}\n", out.paint(Style::Dim, &all.join("; ")));
    }
    text
}

/// Remove a skill with all its versions. Those of other members are for who may moderate.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh skill remove deploy")]
pub struct RemoveArgs {
    /// Its name.
    name: String,
}

/// A skill that was removed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Removed {
    name: String,
    removed: bool,
}

impl Verb for RemoveArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Removed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Removed>>()]
    }

    /// Exit 5 when there is no such skill, 7 when another member has shared it.
    fn run(self, cx: &Context) -> Ran {
        let (entry, name) = (cx.mesh_entry()?, self.name.as_str());
        let remove = |connection: Connection| async move { Ok(connection.remove_skill(name).await?) };
        if !ask(cx, &entry, remove)? {
            let error = CliError::not_found(format!("There is no skill '{}'.", clean(name))).field("name", name);
            return Err(error.hint("`claudemesh skill list` shows what there is."));
        }
        let removed = Removed { name: self.name, removed: true };
        let text = |out: &Output| format!("{} removed {}\n", out.tick(), clean(&removed.name));
        cx.out.answer(&InMesh::new(&entry.slug, &removed), text).map(done)
    }
}
