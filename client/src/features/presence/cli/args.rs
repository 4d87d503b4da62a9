//! Arguments of `peers`, `status`, `summary`, `visible`, `profile`, `stats` and `ping`.

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use claudemesh_protocol::features::presence::{Peer, Profile};

use super::{
    Connections, Counted, OwnProfile, PeerPlace, PeerRow, Pinged, StatusSet, SummarySet, VisibleSet, Written, peers,
    ping, profile, stats, status, summary, visible, written,
};
use crate::context::Context;
use crate::verb::{Effect, Ran, Shape, Verb, json_fields};

/// Show who is in the mesh.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh peers\n  claudemesh peers --all --json=displayName,status")]
pub struct PeersArgs {
    /// Also who is away, with the time when they were last seen.
    #[arg(long, short)]
    pub all: bool,
}

impl Verb for PeersArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::joined([json_fields::of::<Peer>(), json_fields::of::<PeerPlace>()])
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<PeerRow>()]
    }

    fn run(self, cx: &Context) -> Ran {
        peers(cx, &self).map(Into::into)
    }
}

/// Test the connection of every mesh, or set your status with `status set`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh status\n  claudemesh status set dnd")]
pub struct StatusArgs {
    /// What to do; without it the connection of every joined mesh is tested.
    #[command(subcommand)]
    pub action: Option<StatusAction>,
}

impl Verb for StatusArgs {
    fn effect(&self) -> Effect {
        if self.action.is_some() { Effect::Changes } else { Effect::Reads }
    }

    fn fields(&self) -> Vec<&'static str> {
        if self.action.is_some() { written::<StatusSet>() } else { json_fields::of::<Connections>() }
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Connections>(), Shape::one::<Written<StatusSet>>().of("set")]
    }

    fn run(self, cx: &Context) -> Ran {
        status(cx, &self).map(Into::into)
    }
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

/// Say what your session works on.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh summary \"refactoring the parser\"")]
pub struct SummaryArgs {
    /// What the session works on; empty clears it.
    pub text: String,
    /// Which session.
    #[command(flatten)]
    pub session: SessionArg,
}

impl Verb for SummaryArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        written::<SummarySet>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Written<SummarySet>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        summary(cx, &self).map(Into::into)
    }
}

/// Show your session in lists and group messages (`on`), or hide it (`off`).
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh visible off")]
pub struct VisibleArgs {
    /// `on` or `off`; also `true` or `false`.
    #[arg(action = ArgAction::Set, value_name = "on|off", value_parser = clap::builder::BoolishValueParser::new())]
    pub visible: bool,
    /// Which session.
    #[command(flatten)]
    pub session: SessionArg,
}

impl Verb for VisibleArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        written::<VisibleSet>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Written<VisibleSet>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        visible(cx, &self).map(Into::into)
    }
}

/// Show or edit your profile.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh profile\n  claudemesh profile --title \"QA\" --capabilities review,tests"
)]
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
    /// Abilities that others see, in any words: `a,b,c`. What it may do is `claudemesh permissions`.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub capabilities: Option<Vec<String>>,
    /// Which session.
    #[command(flatten)]
    pub session: SessionArg,
}

impl Verb for ProfileArgs {
    fn effect(&self) -> Effect {
        if self.is_show() { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        if self.is_show() { json_fields::of::<OwnProfile>() } else { written::<Profile>() }
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<OwnProfile>(), Shape::one::<Written<Profile>>().of("--title")]
    }

    fn run(self, cx: &Context) -> Ran {
        profile(cx, &self).map(Into::into)
    }
}

impl ProfileArgs {
    /// Whether nothing is to be changed: then the profile is shown.
    pub fn is_show(&self) -> bool {
        self.avatar.is_none() && self.title.is_none() && self.bio.is_none() && self.capabilities.is_none()
    }
}

/// Show for each peer how many messages it sent and received, and how many tools it called.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh stats\n  claudemesh stats --json")]
pub struct StatsArgs {}

impl Verb for StatsArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Counted>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<Counted>()]
    }

    fn run(self, cx: &Context) -> Ran {
        stats(cx).map(Into::into)
    }
}

/// Measure the round trip to the broker.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh ping")]
pub struct PingArgs {}

impl Verb for PingArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Pinged>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<Pinged>()]
    }

    fn run(self, cx: &Context) -> Ran {
        ping(cx).map(Into::into)
    }
}
