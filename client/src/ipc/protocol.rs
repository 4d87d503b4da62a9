//! What is said over the socket of a session: requests and replies, one JSON object per line.
//!
//! Both ends are the same program, but not always the same version: unknown fields are ignored, and a request that is not
//! understood is answered with an error instead of silence.

use claudemesh_protocol::session::HelloAck;
use serde::{Deserialize, Serialize};

use crate::config::StoredSecret;
use crate::features::mcp_servers::kept::HostedServer;
use crate::features::peer_files::report::{Order, Report as FolderReport};
use crate::features::permissions::wire::Behavior;
use crate::features::questions::ask::{Outcome, Rejected};

/// Longest line: a message of the largest size, sealed and in base64, with room for its frame.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// What a process asks the session's server for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// A hook of the host fired. Answered by [`Reply::Hook`].
    Hook(Hook),
    /// Wait until something must wake the session. Answered by [`Reply::Wake`], or by [`Reply::End`] when this waiter is not
    /// needed any more. The waiter says [`Request::Printed`] when the text is written.
    Wait(Hook),
    /// Follow the session's messages line by line: [`Reply::Wake`] for each, confirmed with [`Request::Printed`].
    Monitor,
    /// The text of the last reply was written where the host reads it.
    Printed,
    /// Act as this session on one mesh. Answered by [`Reply::Attached`]; [`Request::Frame`] follows.
    Attach {
        /// Row id of the mesh.
        mesh_id: String,
    },
    /// A wire frame to send over the session's connection. Answered by [`Reply::Frame`] when it carries a request id.
    Frame {
        /// The frame's text.
        frame: String,
    },
    /// Pass on the broker's events of one type on the attached mesh: [`Reply::Event`] for each, [`Reply::Missed`] for those that
    /// did not get here. [`Reply::Silent`] when there are none of this type, or no more.
    Listen {
        /// `type` on the wire.
        tag: String,
    },
    /// Ask a peer as this session and wait. Answered by [`Reply::Taken`] at once, by [`Reply::Asked`] when the question is
    /// out, and by [`Reply::Outcome`] or [`Reply::Rejected`] in the end; [`Request::Printed`] confirms the outcome. Anyone who
    /// hangs up before leaves the answer to the session.
    Ask(Question),
    /// A person's word about the shared folder. Answered by [`Reply::Folder`].
    Folder(Order),
    /// Run an MCP server for a mesh. Answered by [`Reply::Hosted`] once it is registered.
    HostServer {
        /// Row id of the mesh.
        mesh_id: String,
        /// The server.
        server: Box<HostedServer>,
    },
    /// Stop an MCP server that runs for a mesh. Answered by [`Reply::Stopped`].
    StopServer {
        /// Row id of the mesh.
        mesh_id: String,
        /// Its name.
        name: String,
    },
    /// How the routes stand. Answered by [`Reply::Routes`].
    Routes,
    /// Sends this session a message of its own over one route, to see that it comes through. Answered by
    /// [`Reply::Routes`].
    Probe {
        /// A route's name.
        route: String,
    },
}

/// What a hook was told by the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Our word for the event: `session-start`, `prompt`, `post-tool`, `stop`, `session-end` …
    pub event: String,
    /// Claude's session id.
    pub session_id: Option<String>,
    /// The host's transcript of the session.
    pub transcript_path: Option<String>,
    /// Working folder.
    pub cwd: Option<String>,
    /// Why the session started: `startup`, `resume`, `clear`, `compact`, `fork`.
    pub source: Option<String>,
    /// Why the session ended: `clear`, `resume`, `logout`, `prompt_input_exit`, `other`.
    pub reason: Option<String>,
    /// The turn was continued by a stop hook already.
    pub stop_hook_active: bool,
    /// `default`, `plan`, `acceptEdits`, `auto`, `dontAsk`, `bypassPermissions`.
    pub permission_mode: Option<String>,
    /// Set in a subagent.
    pub agent_id: Option<String>,
    /// Tool of a tool event.
    pub tool_name: Option<String>,
    /// What the tool is asked to do, on permission requests only.
    pub tool_input: Option<serde_json::Value>,
}

/// A question of the session's shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Row id of the mesh.
    pub mesh_id: String,
    /// One peer.
    pub to: String,
    /// The text.
    pub text: String,
    /// Ask although the peer is away.
    pub wait_offline: bool,
    /// How long to wait.
    pub wait_ms: u64,
}

/// What the server answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// What a hook should print.
    Hook(HookReply),
    /// Text for the session.
    Wake {
        /// As the model will read it.
        text: String,
    },
    /// Nothing more will come.
    End,
    /// The session's identity on a mesh.
    Attached(Box<Attached>),
    /// The answer to a frame.
    Frame {
        /// The frame's text.
        frame: String,
    },
    /// An event that is listened to.
    Event {
        /// The frame's text.
        frame: String,
    },
    /// Events that are listened to were lost.
    Missed {
        /// `type` on the wire.
        tag: String,
        /// At least so many; `None` for all that came while the session had no connection.
        count: Option<u64>,
    },
    /// No events of this type will come.
    Silent {
        /// `type` on the wire.
        tag: String,
    },
    /// The question was read: from here on no one else may ask it.
    Taken,
    /// The question is out.
    Asked,
    /// How the wait for the answer ended.
    Outcome(Box<Outcome>),
    /// The question was not sent.
    Rejected(Rejected),
    /// How it stands with the shared folder.
    Folder(Box<FolderReport>),
    /// The server runs and is registered.
    Hosted {
        /// Number of its tools.
        tools: u32,
    },
    /// The server does not run any more.
    Stopped {
        /// It ran here.
        found: bool,
    },
    /// How the routes stand.
    Routes(Box<crate::session::routes::Report>),
    /// It cannot be done.
    Error {
        /// Stable code.
        code: String,
        /// Why.
        message: String,
    },
}

/// What a hook should print.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookReply {
    /// Context for the model.
    pub context: Option<String>,
    /// Why the model must not stop yet.
    pub block: Option<String>,
    /// One line for the user's terminal notification.
    pub notify: Option<String>,
    /// What approvers decided about a permission request.
    pub permission: Option<Permission>,
    /// A line for the user, where the host shows it.
    pub notice: Option<String>,
}

/// A decision about a permission request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// What.
    pub behavior: Behavior,
    /// Why, for the model; on denials.
    pub message: Option<String>,
}

/// A session on one mesh, for a process that acts as it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// Session id on the wire.
    pub session_id: String,
    /// The session's key. The socket is as private as the files that hold the member's key.
    pub session_key: Option<StoredSecret>,
    /// The broker's answer to the session's hello.
    pub hello_ack: HelloAck,
}
