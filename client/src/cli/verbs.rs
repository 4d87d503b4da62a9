//! Every verb of the program, one line each: `Name => arguments`. The name in kebab-case is the word on the command line.
//! Help shows them in this order.

use crate::verb::verbs;

verbs! {
    /// The verbs.
    pub enum AnyVerb {
        Up => crate::local::cli::UpArgs,
        Create => crate::features::enrolment::cli::CreateArgs,
        Invite => crate::features::enrolment::cli::InviteArgs,
        Join => crate::features::enrolment::cli::JoinArgs,
        List => crate::features::meshes::cli::ListArgs,
        Leave => crate::features::meshes::cli::LeaveArgs,
        Peers => crate::features::presence::cli::args::PeersArgs,
        Send => crate::features::messaging::cli::args::SendArgs,
        Ask => crate::features::questions::cli::AskArgs,
        Reply => crate::features::questions::cli::ReplyArgs,
        Inbox => crate::features::messaging::cli::args::InboxArgs,
        Inbound => crate::inbound::cli::InboundArgs,
        Held => crate::inbound::cli::HeldArgs,
        Approvers => crate::features::permissions::cli::ApproversArgs,
        Permit => crate::features::permissions::cli::PermitArgs,
        PermissionLog => crate::features::permissions::cli::PermissionLogArgs,
        MsgStatus => crate::features::messaging::cli::args::MsgStatusArgs,
        Status => crate::features::presence::cli::args::StatusArgs,
        Summary => crate::features::presence::cli::args::SummaryArgs,
        Visible => crate::features::presence::cli::args::VisibleArgs,
        Profile => crate::features::presence::cli::args::ProfileArgs,
        Group => crate::features::groups::cli::GroupArgs,
        Topic => crate::features::topics::cli::TopicArgs,
        Info => crate::features::info::cli::InfoArgs,
        Stats => crate::features::presence::cli::args::StatsArgs,
        Ping => crate::features::presence::cli::args::PingArgs,
        Kick => crate::features::moderation::cli::KickArgs,
        Disconnect => crate::features::moderation::cli::DisconnectArgs,
        Ban => crate::features::moderation::cli::BanArgs,
        Unban => crate::features::moderation::cli::UnbanArgs,
        Bans => crate::features::moderation::cli::BansArgs,
        Permissions => crate::features::capabilities::cli::PermissionsArgs,
        Audit => crate::features::audit::cli::AuditArgs,
        Install => crate::install::cli::InstallArgs,
        Uninstall => crate::install::cli::UninstallArgs,
        Hook => crate::hook::cli::HookArgs,
        StatusLine => crate::status_line::cli::StatusLineArgs,
        Notify => crate::notify::cli::NotifyArgs,
        Launch => crate::launch::LaunchArgs,
        Doctor => crate::doctor::cli::DoctorArgs,
        Mcp => crate::mcp::cli::McpArgs,
        Completions => crate::cli::shell_files::CompletionsArgs,
        Skill => crate::cli::skill::SkillArgs,
        Man => crate::cli::shell_files::ManArgs,
    }
}
