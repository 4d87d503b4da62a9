//! `mesh settings`: what a mesh allows.

use std::collections::BTreeMap;

use clap::Args;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::capabilities::{Changes, EditPermissions};
use claudemesh_protocol::features::meshes::{MeshSettings, PatchSelfEditable, PatchSettings};

use super::named_or_usual;
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::features::capabilities::cli::parse_capability;
use crate::features::meshes::Routes;
use crate::output::{Output, Style, clean};
use crate::verb::shape::{InMesh, in_mesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Show or change what a mesh allows: self-edits, what plain members start with, limits.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh mesh settings\n  claudemesh mesh settings team --self-edit groups=off\n  \
                        claudemesh mesh settings team --deny canWriteState --limit messages.trace_budget=20\n  \
                        claudemesh mesh settings team --limit messages.trace_budget=default"
)]
pub struct SettingsArgs {
    /// Short name of the mesh [default: the one that every command would take]
    pub slug: Option<String>,
    /// What members may edit of themselves: `name`, `role`, `groups` or `mode`, then `=on` or `=off`; may be given several times.
    #[arg(long, value_name = "FIELD=on|off", value_parser = parse_self_edit)]
    pub self_edit: Vec<(SelfEdit, bool)>,
    /// Let plain members start with a capability.
    #[arg(long, value_name = "CAP", value_parser = parse_capability)]
    pub allow: Vec<Capability>,
    /// Let plain members start without a capability.
    #[arg(long, value_name = "CAP", value_parser = parse_capability)]
    pub deny: Vec<Capability>,
    /// Let plain members start with what their role has.
    #[arg(long, value_name = "CAP", value_parser = parse_capability)]
    pub reset: Vec<Capability>,
    /// Lower a limit of this mesh, or go back to the operator's with `=default`.
    #[arg(long, value_name = "NAME=N", value_parser = parse_limit)]
    pub limit: Vec<(String, Option<u64>)>,
}

/// A field that members may edit of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfEdit {
    /// `displayName`
    Name,
    /// `roleTag`
    Role,
    /// `groups`
    Groups,
    /// `messageMode`
    Mode,
}

fn parse_self_edit(text: &str) -> Result<(SelfEdit, bool), String> {
    let wrong = || "expected name, role, groups or mode, then =on or =off".to_owned();
    let (field, value) = text.split_once('=').ok_or_else(wrong)?;
    let field = match field {
        "name" | "displayName" => SelfEdit::Name,
        "role" | "roleTag" => SelfEdit::Role,
        "groups" => SelfEdit::Groups,
        "mode" | "messageMode" => SelfEdit::Mode,
        _ => return Err(wrong()),
    };
    match value {
        "on" | "true" => Ok((field, true)),
        "off" | "false" => Ok((field, false)),
        _ => Err(wrong()),
    }
}

fn parse_limit(text: &str) -> Result<(String, Option<u64>), String> {
    let (name, value) = text.split_once('=').ok_or("expected a limit and a number, for example topics.per_mesh=50")?;
    match value {
        "default" => Ok((name.to_owned(), None)),
        number => match number.parse() {
            Ok(number) => Ok((name.to_owned(), Some(number))),
            Err(_) => Err(format!("'{number}' is not a whole number; `=default` goes back to the operator's")),
        },
    }
}

impl SettingsArgs {
    fn patch(&self) -> PatchSettings {
        let mut edits = PatchSelfEditable::default();
        for (field, on) in &self.self_edit {
            let place = match field {
                SelfEdit::Name => &mut edits.display_name,
                SelfEdit::Role => &mut edits.role_tag,
                SelfEdit::Groups => &mut edits.groups,
                SelfEdit::Mode => &mut edits.message_mode,
            };
            *place = Some(*on);
        }
        let limits: BTreeMap<_, _> = self.limit.iter().cloned().collect();
        PatchSettings { self_editable: (!self.self_edit.is_empty()).then_some(edits), limits }
    }

    fn defaults(&self) -> Changes {
        let allow = self.allow.iter().map(|one| (*one, Some(true)));
        let deny = self.deny.iter().map(|one| (*one, Some(false)));
        allow.chain(deny).chain(self.reset.iter().map(|one| (*one, None))).collect()
    }
}

impl Verb for SettingsArgs {
    fn effect(&self) -> Effect {
        let reads = self.patch() == PatchSettings::default() && self.defaults().is_empty();
        if reads { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        in_mesh::<MeshSettings>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<MeshSettings>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        settings(cx, &self).map(done)
    }
}

/// Runs `mesh settings`.
///
/// # Errors
/// Exit 3 for what is not a setting, 7 without the capability, 4 for the network.
fn settings(cx: &Context, args: &SettingsArgs) -> Result<(), CliError> {
    let entry = named_or_usual(cx, args.slug.as_deref())?;
    let routes = Routes::of(&cx.store, &entry)?;
    let may = |error: CliError| match error.exit {
        ExitCode::PermissionDenied => error.hint(
            "Members with canManageMesh change settings, those with canManagePermissions what members start with.",
        ),
        _ => error,
    };
    let (patch, defaults) = (args.patch(), args.defaults());
    if patch != PatchSettings::default() {
        routes.change_settings(&patch).map_err(may)?;
    }
    if !defaults.is_empty() {
        change_defaults(&routes, defaults).map_err(may)?;
    }
    let settings = routes.settings()?;
    let answer = InMesh::new(&entry.slug, settings);
    cx.out.answer(&answer, |out| shown(&entry.slug, &answer.row, out))
}

/// What plain members start with is a permission; its route goes by the slug that the mesh has on the broker.
fn change_defaults(routes: &Routes, permissions: Changes) -> Result<(), CliError> {
    let slug = routes.show()?.slug;
    let edit = EditPermissions { member_id: None, default: true, permissions };
    routes.permissions(&slug, &edit).map(drop)
}

fn shown(slug: &str, settings: &MeshSettings, out: &Output) -> String {
    let word = |on: bool| if on { "on" } else { "off" };
    let own = settings.self_editable;
    let mut text = format!(
        "{}\n  members edit their own   name {}, role {}, groups {}, mode {}\n",
        out.paint(Style::Bold, &clean(slug)),
        word(own.display_name),
        word(own.role_tag),
        word(own.groups),
        word(own.message_mode),
    );
    let defaults: Vec<String> = settings
        .defaults
        .iter()
        .map(|(capability, allowed)| format!("{}{}", if *allowed { "+" } else { "-" }, capability.as_str()))
        .collect();
    let defaults = if defaults.is_empty() { "what their role has".into() } else { defaults.join(" ") };
    text += &format!("  plain members start with {defaults}\n  limits\n");
    let width = settings.limits.iter().map(|limit| limit.name.len()).max().unwrap_or(0);
    for limit in &settings.limits {
        let number = |value: u64| if value == 0 { "none".to_owned() } else { value.to_string() };
        let own = limit.own.map(|_| format!("  (operator: {})", number(limit.operator))).unwrap_or_default();
        text += &format!("    {:<width$}  {}{own}\n", clean(&limit.name), number(limit.value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_settings_are_read_or_refused_with_what_is_expected() {
        assert_eq!(parse_self_edit("groups=off"), Ok((SelfEdit::Groups, false)));
        assert_eq!(parse_self_edit("displayName=on"), Ok((SelfEdit::Name, true)));
        for bad in ["groups", "groups=maybe", "colour=on", "=on"] {
            assert!(parse_self_edit(bad).unwrap_err().contains("name, role, groups or mode"), "{bad}");
        }
        assert_eq!(parse_limit("topics.per_mesh=5"), Ok(("topics.per_mesh".into(), Some(5))));
        assert_eq!(parse_limit("topics.per_mesh=default"), Ok(("topics.per_mesh".into(), None)));
        for bad in ["topics.per_mesh", "topics.per_mesh=-1", "topics.per_mesh=many"] {
            assert!(parse_limit(bad).is_err(), "{bad}");
        }
    }
}
