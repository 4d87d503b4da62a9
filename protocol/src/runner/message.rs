//! Messages, and the heads of streams. JSON objects with `type`; unknown fields are ignored.

use serde::{Deserialize, Serialize};

use super::{Failure, ServiceSpec};

/// What the broker says to the runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToRunner {
    /// First of an attachment, in a frame without session. The runner answers [`FromRunner::Hello`].
    Attach {
        /// [`super::VERSION`] of the broker.
        version: u32,
        /// 32 hex digits, see [`super::frame::Session`].
        session: String,
    },
    /// Are you there? Answered with `pong`.
    Ping {
        /// Comes back.
        n: u64,
    },
    /// A notification for an MCP server; body: its `params` as JSON, or nothing. To a service that does not run it is lost.
    Notify {
        /// The service.
        id: String,
        /// For example `notifications/roots/list_changed`.
        method: String,
    },
    /// What this runner does not know.
    #[serde(other)]
    Unknown,
}

/// What the runner says to the broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromRunner {
    /// Answer to `attach`. [`Event::Running`] follows for each service that runs.
    Hello(Hello),
    /// Answer to `ping`.
    Pong {
        /// As in `ping`.
        n: u64,
    },
    /// Something happened to a service; body: see [`Event`].
    Event {
        /// The service.
        id: String,
        /// What.
        event: Event,
    },
    /// A notification of an MCP server; body: its `params` as JSON, or nothing. Progress is a [`Note`] instead.
    Notification {
        /// The service.
        id: String,
        /// For example `notifications/message`.
        method: String,
    },
    /// What this broker does not know.
    #[serde(other)]
    Unknown,
}

/// Who the runner is, and what it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// [`super::VERSION`] of the runner. With another one than its own the broker reads no further.
    pub version: u32,
    /// As in `attach`.
    pub session: String,
    /// Version of the program.
    pub build: String,
    /// ed25519, 64 hex digits. Secrets are sealed to its x25519 form; a runner that was made anew has another one.
    pub public_key: String,
    /// Signature over `claudemesh-runner:<public_key>:<session>` by that key, 128 hex digits.
    pub proof: String,
    /// Another one for each start of the program.
    pub boot: String,
    /// Services have users of their own.
    pub users: bool,
    /// Services have control groups of their own.
    pub cgroups: bool,
    /// Which programs the image has, for example `node`, `python3`, `uv`, `git`, `bun`.
    pub programs: Vec<String>,
    /// What is installed, by id.
    pub services: Vec<ServiceState>,
}

impl Hello {
    /// What [`Hello::proof`] is a signature of.
    pub fn proof_text(public_key: &str, session: &str) -> String {
        format!("claudemesh-runner:{public_key}:{session}")
    }
}

/// The word of the contract for what a service does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is being installed.
    Installing,
    /// It is installed, or was stopped, and can be started.
    #[default]
    Stopped,
    /// Its process is there and has not answered yet.
    Starting,
    /// It answers.
    Running,
    /// It crashed, and is started again after a while.
    Restarting,
    /// It crashed too often.
    Crashed,
    /// It could not be installed or started.
    Failed,
}

/// A service, as the runner sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceState {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it does.
    pub status: Status,
    /// Restarts after crashes, since it was started by the broker.
    pub restarts: u32,
    /// Requests that it has not answered.
    pub calls: u32,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// What a service uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Who, and what it does.
    pub service: ServiceState,
    /// Memory of all its processes, in bytes.
    pub memory_bytes: u64,
    /// Time of processors of those that are there, in milliseconds.
    pub cpu_ms: u64,
    /// Its processes.
    pub processes: u32,
    /// Bytes of its folder.
    pub disk_bytes: u64,
    /// Lines of its log since it was installed.
    pub log_lines: u64,
    /// Connections that it asked for, and how many were refused.
    pub egress: u64,
    /// See `egress`.
    pub egress_refused: u64,
}

/// What happened to a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Event {
    /// A line of the installer. When there are many some are left out; the log has them.
    Installing {
        /// Without line end.
        line: String,
    },
    /// It is installed.
    Installed {
        /// `node`, `python`, `bun` or `command`.
        runtime: String,
        /// What was installed, for example `server-time 1.2.3`, as the installer tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    /// Its server has answered. Body: `{"initialize":<result>,"tools":[…]}` as the server wrote them.
    Running {
        /// Its process.
        pid: u32,
        /// Restarts after crashes so far.
        restarts: u32,
    },
    /// A list has changed. Body for tools: `{"tools":[…]}`; else nothing.
    ListChanged {
        /// Which.
        list: Change,
    },
    /// Its process ended by itself, or no longer answered. It is started again when there is a time for it.
    Crashed {
        /// Code that it ended with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<i32>,
        /// Signal that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// Why, for people.
        message: String,
        /// Restarts so far.
        restarts: u32,
        /// When it is started again, in milliseconds from now; not at all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_in_ms: Option<u64>,
    },
    /// It was stopped, because the broker asked for it, or for what `message` says.
    Stopped {
        /// For people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// What this broker does not know.
    #[serde(other)]
    Unknown,
}

/// A list of an MCP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Tools.
    Tools,
    /// Resources, and their templates.
    Resources,
    /// Prompts.
    Prompts,
}

/// What the broker asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Ask {
    /// Installs a service, without starting it. Body: the bundle, for a zip. What was installed under that id before is refused with
    /// [`FailCode::Exists`].
    Install {
        /// The service.
        spec: Box<ServiceSpec>,
    },
    /// Starts what is installed, and answers when its server does ([`Event::Running`] comes before). One that runs answers at once.
    /// Changed values (a rotated secret) come with it and count from then on.
    Start {
        /// The service.
        id: String,
        /// In place of `env`, `files`, `args` and `limits` of the spec; its source stays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<Box<ServiceSpec>>,
    },
    /// Ends all processes of a service. Its files stay.
    Stop {
        /// The service.
        id: String,
        /// How long it may take to end by itself, in milliseconds.
        #[serde(default)]
        grace_ms: u64,
    },
    /// Stops a service and removes its folder.
    Remove {
        /// The service.
        id: String,
    },
    /// A request to an MCP server. Body: `params`. A reset cancels it.
    Request {
        /// The service.
        id: String,
        /// For example `tools/call`.
        method: String,
        /// Tell of its progress, as [`Note::Progress`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        progress: bool,
        /// How long it may take, in milliseconds; 25 seconds when 0. Then it is cancelled.
        #[serde(default)]
        timeout_ms: u64,
    },
    /// The last lines of the log of a service. Answer: [`Answer::Logs`]; body: one JSON text per line, `{"n","at_ms","from","line"}`, with `from` one
    /// of `install`, `stderr`, `stdout` (what was no message of MCP), `runner`.
    Logs {
        /// The service.
        id: String,
        /// How many.
        lines: u32,
        /// Go on with what comes, until the stream is reset. Lines that come faster than they are taken are left out: `n` has a gap.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        follow: bool,
    },
    /// What services use.
    Stats {
        /// Only this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// What this runner does not know; it answers [`FailCode::Unsupported`].
    #[serde(other)]
    Unknown,
}

/// What the runner answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// The result of an MCP server; body: its text as the server wrote it.
    Result,
    /// The error of an MCP server; body: the error object as the server wrote it.
    Error,
    /// It is not done.
    Failed(Failure),
    /// Lines follow.
    Logs,
    /// By id.
    Stats {
        /// One for each service.
        services: Vec<Stats>,
    },
    /// What this broker does not know.
    #[serde(other)]
    Unknown,
}

/// Something about an exchange that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Note {
    /// How far a request is; body: `params` of `notifications/progress` as the server wrote it, with the runner's token.
    Progress,
    /// What this side does not know.
    #[serde(other)]
    Unknown,
}

/// For what a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Packages are fetched: only the operator's registries, and the host of the repository.
    Install,
    /// The service runs: its allow-list.
    Run,
}

/// What the runner asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunnerAsk {
    /// A request of an MCP server to its client (`sampling/createMessage`, `elicitation/create`, `roots/list`); body: `params`.
    Request {
        /// The service.
        id: String,
        /// The method.
        method: String,
        /// Streams of the requests that the service has not answered: one of them is what this is about. MCP does not say which.
        during: Vec<u64>,
    },
    /// A service wants a connection. Bodies are what it sends and gets; the last frame of a side closes that direction.
    Egress {
        /// The service.
        id: String,
        /// Name or address, as the service gave it.
        host: String,
        /// The port.
        port: u16,
        /// For what.
        phase: Phase,
    },
    /// What this broker does not know; it answers [`BrokerAnswer::Failed`].
    #[serde(other)]
    Unknown,
}

/// What the broker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BrokerAnswer {
    /// Result for the MCP server; body: its text.
    Result,
    /// Error for the MCP server; body: an error object.
    Error,
    /// The connection is there.
    Opened,
    /// The connection is not there.
    Refused {
        /// Why.
        why: RefusedWhy,
        /// For people: also which rule would allow it.
        message: String,
    },
    /// It cannot be asked.
    Failed(Failure),
    /// What this runner does not know.
    #[serde(other)]
    Unknown,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedWhy {
    /// No rule allows that host and port.
    NotAllowed,
    /// It has a private or local address.
    Private,
    /// Its name has no address.
    Unresolved,
    /// It does not answer.
    Unreachable,
    /// Too many connections of this service.
    Limit,
    /// A word of a newer version.
    #[default]
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
