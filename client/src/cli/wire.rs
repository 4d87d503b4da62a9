//! Which function runs each verb that talks to a broker.

use super::{Verb, meshes};
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::features::{enrolment, groups, info, messaging, moderation, permissions, presence, questions};

/// Runs a verb.
///
/// # Errors
/// What the verb says.
pub fn run(cx: &Context, verb: Verb) -> Result<ExitCode, CliError> {
    match verb {
        Verb::List(_) => meshes::list(cx),
        Verb::Leave(args) => meshes::leave(cx, &args),
        Verb::Create(args) => enrolment::cli::create(cx, &args),
        Verb::Invite(args) => enrolment::cli::invite(cx, &args),
        Verb::Join(args) => enrolment::cli::join(cx, &args),
        Verb::Peers(args) => presence::cli::peers(cx, &args),
        Verb::Send(args) => return messaging::cli::send(cx, &args),
        Verb::Ask(args) => return questions::cli::ask(cx, &args),
        Verb::Reply(args) => questions::cli::reply(cx, &args),
        Verb::Inbox(args) => return messaging::cli::inbox(cx, &args),
        Verb::Inbound(args) => crate::inbound::cli::inbound(cx, &args),
        Verb::Held(args) => crate::inbound::cli::held(cx, &args),
        Verb::Approvers(args) => permissions::cli::approvers(cx, &args),
        Verb::Permit(args) => permissions::cli::permit(cx, &args),
        Verb::Audit(args) => return permissions::cli::audit(cx, &args),
        Verb::MsgStatus(args) => messaging::cli::msg_status(cx, &args),
        Verb::Status(args) => return presence::cli::status(cx, &args),
        Verb::Summary(args) => presence::cli::summary(cx, &args),
        Verb::Visible(args) => presence::cli::visible(cx, &args),
        Verb::Profile(args) => presence::cli::profile(cx, &args),
        Verb::Group(args) => groups::cli::run(cx, &args),
        Verb::Info(_) => info::cli::info(cx),
        Verb::Stats(_) => presence::cli::stats(cx),
        Verb::Ping(_) => presence::cli::ping(cx),
        Verb::Kick(args) => moderation::cli::kick(cx, &args),
        Verb::Disconnect(args) => moderation::cli::disconnect(cx, &args),
        Verb::Ban(args) => moderation::cli::ban(cx, &args),
        Verb::Unban(args) => moderation::cli::unban(cx, &args),
        Verb::Bans(_) => moderation::cli::bans(cx),
        Verb::Mcp(args) => return crate::mcp::run(cx, &args),
        Verb::Up(args) => return crate::local::up(cx, &args),
        // The others need no broker; `main` has run them.
        other => Err(CliError::internal(format!("{other:?} is not a verb of the wire."))),
    }
    .map(|()| ExitCode::Success)
}

/// Joins a mesh for `launch --join` and answers its local slug.
///
/// # Errors
/// What `join` says.
pub fn join_for_launch(cx: &Context, link: &str, name: Option<&str>) -> Result<String, CliError> {
    enrolment::cli::join_link(cx, link, name, None).map(|kept| kept.entry.slug)
}
