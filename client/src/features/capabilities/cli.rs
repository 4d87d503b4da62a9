//! `permissions`: who may do what.

use clap::Args;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::capabilities::{
    Changes, MemberPermissions, Overrides, PermissionsResult, SetPermissions,
};
use claudemesh_protocol::message::ClientMessage;

use crate::context::Context;
use crate::context::connect::ask;
use crate::error::CliError;
use crate::output::{Output, Style, clean};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields};

/// Show the capabilities of members: what each may do. The owner and admins allow and deny them.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh permissions\n  claudemesh permissions Bob --allow canInvite --deny canWriteState\n  \
                  claudemesh permissions Bob --reset canWriteState\n  claudemesh permissions --default --deny canWriteState\n\n\
                  docs/capabilities.md lists the capabilities. You can allow only capabilities that you have.\n\
                  Removing a denial counts as allowing. Permission requests of Claude Code are something else: see\n\
                  `claudemesh approvers`."
)]
pub struct PermissionsArgs {
    /// Name, key, or at least the first 8 digits of a key; without it everyone you may see.
    pub member: Option<String>,
    /// Allow a capability; may be given several times.
    #[arg(long, value_name = "CAP", value_parser = parse_capability)]
    pub allow: Vec<Capability>,
    /// Deny a capability.
    #[arg(long, value_name = "CAP", value_parser = parse_capability)]
    pub deny: Vec<Capability>,
    /// Go back to what the role has.
    #[arg(long, value_name = "CAP", value_parser = parse_capability)]
    pub reset: Vec<Capability>,
    /// Change what plain members start with, instead of one member.
    #[arg(long, conflicts_with = "member")]
    pub default: bool,
}

/// A capability by its name on the wire.
///
/// # Errors
/// Names the known ones.
pub fn parse_capability(text: &str) -> Result<Capability, String> {
    let known = || Capability::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ");
    Capability::parse(text).ok_or_else(|| format!("expected one of {}", known()))
}

impl PermissionsArgs {
    /// What changes.
    ///
    /// # Errors
    /// Exit 3 for a capability that is named twice, and for a change of no one.
    fn changes(&self) -> Result<Changes, CliError> {
        let allow = self.allow.iter().map(|one| (*one, Some(true)));
        let deny = self.deny.iter().map(|one| (*one, Some(false)));
        let mut changes = Changes::new();
        for (capability, change) in allow.chain(deny).chain(self.reset.iter().map(|one| (*one, None))) {
            if changes.insert(capability, change).is_some_and(|before| before != change) {
                let message = format!("{} is named for two different changes.", capability.as_str());
                return Err(CliError::invalid_args(message));
            }
        }
        if !changes.is_empty() && self.member.is_none() && !self.default {
            let hint =
                "`claudemesh permissions Bob --allow canInvite`, or --default for what plain members start with.";
            return Err(CliError::invalid_args("Whose capabilities are to be changed?").hint(hint));
        }
        Ok(changes)
    }
}

impl Verb for PermissionsArgs {
    fn effect(&self) -> Effect {
        if self.allow.is_empty() && self.deny.is_empty() && self.reset.is_empty() {
            Effect::Reads
        } else {
            Effect::Changes
        }
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<PermissionsResult>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<PermissionsResult>()]
    }

    fn run(self, cx: &Context) -> Ran {
        permissions(cx, &self).map(done)
    }
}

/// Runs `permissions`.
///
/// # Errors
/// Exit 7 without the right, 5 for an unknown member, 3 for a change that makes no sense, or of the connection.
fn permissions(cx: &Context, args: &PermissionsArgs) -> Result<(), CliError> {
    let changes = args.changes()?;
    let entry = cx.mesh_entry()?;
    let member = args.member.clone();
    let (default, reading) = (args.default, changes.is_empty());
    let found = ask(cx, &entry, |connection| async move {
        if reading {
            return Ok(connection.permissions(member.as_deref()).await?);
        }
        Ok(connection.set_permissions(SetPermissions { member, default, permissions: changes }).await?)
    })?;
    cx.out.answer(&found, |out| {
        let mut text = String::new();
        if args.default || (args.member.is_none() && !found.defaults.is_empty()) {
            text += &words(out, "Plain members start with", &found.defaults);
        }
        if !args.default {
            text += &found.members.iter().map(|one| member_text(out, one)).collect::<String>();
        }
        text
    })
}

/// One line for what was allowed and denied.
fn words(out: &Output, who: &str, overrides: &Overrides) -> String {
    let list = |wanted: bool| {
        let names = overrides.iter().filter(|(_, allowed)| **allowed == wanted).map(|(one, _)| one.as_str());
        names.collect::<Vec<_>>().join(" ")
    };
    let (allowed, denied) = (list(true), list(false));
    if allowed.is_empty() && denied.is_empty() {
        return format!("{who}: what the role has\n");
    }
    let mut text = format!("{who}:");
    for (word, names, style) in [("allowed", allowed, Style::Green), ("denied", denied, Style::Red)] {
        if !names.is_empty() {
            text += &format!("  {} {names}", out.paint(style, word));
        }
    }
    text + "\n"
}

/// Whether anything that this version does asks for the capability: a request, or a route. The others are reserved, and a list of
/// what a member may do would promise commands that there are not. `--json` has all.
fn is_used(capability: Capability) -> bool {
    const BY_ROUTE_OR_OWNERSHIP: [Capability; 6] = [
        Capability::CanInvite,
        Capability::CanModerate,
        Capability::CanManageMembers,
        Capability::CanManagePermissions,
        Capability::CanManageMesh,
        Capability::CanDeleteMesh,
    ];
    BY_ROUTE_OR_OWNERSHIP.contains(&capability)
        || ClientMessage::rows().iter().any(|(_, row)| row.needs == Some(capability))
}

fn member_text(out: &Output, one: &MemberPermissions) -> String {
    let name = clean(&one.display_name).into_owned();
    let mut text = format!("{} ({}) {}\n", out.paint(Style::Bold, &name), clean(&one.role), one.pubkey.short());
    if one.is_owner {
        return text + "  everything, always\n";
    }
    let may: Vec<&str> = one
        .permissions
        .iter()
        .filter(|(capability, allowed)| **allowed && is_used(**capability))
        .map(|(capability, _)| capability.as_str())
        .collect();
    text += &format!("  may {}\n", if may.is_empty() { "nothing".to_owned() } else { may.join(" ") });
    if !one.overrides.is_empty() {
        text += &words(out, "  for this member", &one.overrides);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_command_is_about_is_listed() {
        for used in [Capability::CanSend, Capability::CanWriteState, Capability::CanSchedule, Capability::CanDeleteMesh]
        {
            assert!(is_used(used), "{used:?}");
        }
        // Each request of a reserved capability makes it a used one by itself.
        let asked: Vec<Capability> = ClientMessage::rows().iter().filter_map(|(_, row)| row.needs).collect();
        for capability in [Capability::CanRunSql, Capability::CanRunGraph, Capability::CanDeployMcp] {
            assert_eq!(is_used(capability), asked.contains(&capability), "{capability:?}");
        }
    }
}
