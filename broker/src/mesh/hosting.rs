//! Services that the mesh hosts, as its features share them: which there are, who may use them, and the door to the host that runs them.
//!
//! The feature `services` keeps the book; the one that calls tools reads it. The host is outside: it is told what to do, and what
//! becomes of that comes back as [`Report`], an event of the mesh.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::mcp_servers::{Raw, ToolDef};
use claudemesh_protocol::features::services::Scope;
use claudemesh_protocol::id::{MemberId, MeshId};
use claudemesh_protocol::runner::ServiceSpec;
use claudemesh_protocol::target::group_covers;
use tokio::sync::oneshot;

use crate::refusal::Refusal;

/// Who looks at services.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// The member.
    pub member: MemberId,
    /// Groups of the session and of the member.
    pub groups: Vec<Group>,
}

/// A service, as far as others than its own feature need to know it.
#[derive(Clone, Debug)]
pub struct Hosted {
    /// Whose it is.
    pub owner: MemberId,
    /// Who may use it.
    pub scope: Scope,
    /// The members that the scope names.
    pub audience: Vec<MemberId>,
    /// Its tools.
    pub tools: Arc<[ToolDef]>,
    /// The version that answers calls; `None`: none does now, for this reason.
    pub route: Result<Route, String>,
}

/// Where calls of a service go.
#[derive(Clone, Debug)]
pub struct Route {
    /// Id of the version at its host.
    pub instance: String,
    /// How long a call may take that says nothing else, in milliseconds.
    pub timeout_ms: u64,
}

impl Hosted {
    /// Whether it is for someone.
    pub fn is_for(&self, viewer: &Viewer) -> bool {
        if viewer.member == self.owner {
            return true;
        }
        let is_in = |audience: &String| viewer.groups.iter().any(|group| group_covers(audience, &group.name));
        match &self.scope {
            Scope::Peer => false,
            Scope::Mesh => true,
            Scope::Peers(_) => self.audience.contains(&viewer.member),
            Scope::Group(name) => is_in(name),
            Scope::Groups(names) => names.iter().any(is_in),
            Scope::Role(role) => viewer.groups.iter().any(|group| group.role.as_ref() == Some(role)),
        }
    }
}

/// The services of a mesh by name, and the names that servers of sessions have: one name is one thing.
#[derive(Debug, Default)]
pub struct ServiceBook {
    hosted: BTreeMap<String, Hosted>,
    /// Names that sessions use, or are about to, with their members.
    of_sessions: BTreeMap<String, MemberId>,
}

impl ServiceBook {
    /// A service.
    pub fn get(&self, name: &str) -> Option<&Hosted> {
        self.hosted.get(name)
    }

    /// Puts a service in place of the one of that name.
    pub fn put(&mut self, name: &str, service: Hosted) {
        self.hosted.insert(name.to_owned(), service);
    }

    /// Takes a service out.
    pub fn remove(&mut self, name: &str) {
        self.hosted.remove(name);
    }

    /// Says whose server of a session has a name; `None`: no one's.
    pub fn note_session(&mut self, name: &str, member: Option<&MemberId>) {
        match member {
            Some(member) => self.of_sessions.insert(name.to_owned(), member.clone()),
            None => self.of_sessions.remove(name),
        };
    }

    /// Whether a member of the mesh other than this one has the name, for a service or for a server of a session.
    pub fn is_of_another(&self, name: &str, member: &MemberId) -> bool {
        let owners = [self.hosted.get(name).map(|service| &service.owner), self.of_sessions.get(name)];
        owners.into_iter().flatten().any(|owner| owner != member)
    }
}

/// A version of a service for the host.
#[derive(Clone, Debug)]
pub struct Instance {
    /// For the runner; its `id` is the instance's.
    pub spec: ServiceSpec,
    /// `host:port` that it may reach.
    pub allow: Vec<String>,
    /// Find out first at which commit this branch is (the default one when empty).
    pub branch: Option<String>,
}

/// A call for the host.
#[derive(Debug)]
pub struct HostCall {
    /// The broker's name for it.
    pub call_id: String,
    /// The version.
    pub instance: String,
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub args: Raw,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
    /// Tell of its progress.
    pub progress: bool,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Counted from 1 since the version was installed.
    pub number: u64,
    /// The line.
    pub line: String,
}

/// What a host is told.
pub enum Command {
    /// These are all versions that are to run: what else runs is removed.
    Keep(Vec<Instance>),
    /// Install and start one; [`Report::Installing`] and [`Report::Running`] or [`Report::Failed`] follow.
    Start(Box<Instance>),
    /// End one; its log stays until it is removed.
    Stop(String),
    /// End one and remove its files.
    Remove(String),
    /// Call a tool; [`Report::Answered`] follows.
    Call(HostCall),
    /// No one waits for a call any more.
    Cancel {
        /// The broker's name for it.
        call_id: String,
        /// Why, for the server.
        reason: String,
    },
    /// The last lines of a log.
    Logs {
        /// The version.
        instance: String,
        /// How many.
        lines: u32,
        /// They go here.
        answer: oneshot::Sender<Result<Vec<LogLine>, Refusal>>,
    },
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq)]
pub struct CallError {
    /// A stable code.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The error object of the MCP server, as it wrote it.
    pub rpc_error: Option<Raw>,
}

/// What a host tells.
#[derive(Clone, Debug)]
pub enum Report {
    /// A line of the installer.
    Installing {
        /// The version.
        instance: String,
        /// The line.
        line: String,
    },
    /// A version is at this commit from now on.
    Pinned {
        /// The version.
        instance: String,
        /// 40 or 64 hex digits.
        commit: String,
    },
    /// A version is installed.
    Installed {
        /// The version.
        instance: String,
        /// What it runs with.
        runtime: String,
    },
    /// A version answers.
    Running {
        /// The version.
        instance: String,
        /// Its tools.
        tools: Arc<[ToolDef]>,
        /// Restarts after crashes so far.
        restarts: u32,
    },
    /// The tools of a version are others now.
    Tools {
        /// The version.
        instance: String,
        /// All of them.
        tools: Arc<[ToolDef]>,
    },
    /// A version could not be installed or started.
    Failed {
        /// The version.
        instance: String,
        /// A stable code.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// A version ended by itself.
    Crashed {
        /// The version.
        instance: String,
        /// For people.
        message: String,
        /// Restarts so far.
        restarts: u32,
        /// It is started again.
        again: bool,
    },
    /// A call is answered; the text of the result is as the server wrote it.
    Answered {
        /// The broker's name for it.
        call_id: String,
        /// What it is answered with.
        answer: Result<Arc<str>, CallError>,
    },
    /// How far a call is.
    Progress {
        /// The broker's name for it.
        call_id: String,
        /// Grows with each notice.
        progress: f64,
        /// What it grows to.
        total: Option<f64>,
        /// For people.
        message: Option<String>,
    },
}

/// The door to the host of services.
pub trait Hosting: Send + Sync {
    /// Refuses when the operator has set no host.
    ///
    /// # Errors
    /// `services_off`, with what to do.
    fn ready(&self) -> Result<(), Refusal>;

    /// Tells the host of a mesh something. It is begun when there is none yet.
    ///
    /// # Errors
    /// As [`Hosting::ready`]; `busy` when it takes no more now.
    fn tell(&self, mesh: &MeshId, command: Command) -> Result<(), Refusal>;

    /// The operator's registries and bounds of one version.
    fn complete(&self, spec: &mut ServiceSpec);
}

/// No host: everything else works.
#[derive(Debug, Default)]
pub struct NoHost;

impl Hosting for NoHost {
    fn ready(&self) -> Result<(), Refusal> {
        Err(ErrorCode::ServicesOff.into())
    }

    fn tell(&self, _: &MeshId, _: Command) -> Result<(), Refusal> {
        self.ready()
    }

    fn complete(&self, _: &mut ServiceSpec) {}
}

impl fmt::Debug for dyn Hosting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Hosting")
    }
}
