//! What a command that fails tells the shell: an exit code, a stable word, a sentence, a hint.

use std::fmt;

use claudemesh_protocol::error::{ErrorClass, ErrorCode, ErrorFrame};
use claudemesh_protocol::features::messaging::Candidate;
use serde_json::{Map, Value, json};

/// Exit codes of every command. Scripts may rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// It worked.
    Success = 0,
    /// The user said no, or a failure that fits nowhere else.
    Cancelled = 1,
    /// A key, token or signature was refused.
    Auth = 2,
    /// A bad or missing argument.
    InvalidArgs = 3,
    /// The broker cannot be reached or does not answer.
    Network = 4,
    /// No such peer, mesh, message …
    NotFound = 5,
    /// It exists already.
    AlreadyExists = 6,
    /// A role, grant or policy forbids it.
    PermissionDenied = 7,
    /// Our own fault.
    Internal = 8,
    /// Claude Code is not installed.
    ClaudeMissing = 9,
    /// A file cannot be read or written.
    Io = 10,
}

impl ExitCode {
    /// The exit code that a process of ours ended with.
    pub fn of_code(code: i32) -> Self {
        use ExitCode::*;
        let all = [Auth, InvalidArgs, Network, NotFound, AlreadyExists, PermissionDenied, Internal, ClaudeMissing, Io];
        all.into_iter().find(|exit| *exit as i32 == code).unwrap_or(Cancelled)
    }

    /// The exit code for an error code of the wire.
    pub fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Forbidden
            | ErrorCode::BlockedByGrants
            | ErrorCode::Revoked
            | ErrorCode::MemberRemoved
            | ErrorCode::ConsentDenied
            | ErrorCode::ConsentTimeout
            | ErrorCode::NoFileKey
            | ErrorCode::PathRefused => return Self::PermissionDenied,
            ErrorCode::AlreadyExists | ErrorCode::AlreadyAnswered => return Self::AlreadyExists,
            ErrorCode::PeerNotFound | ErrorCode::UnknownTarget => return Self::NotFound,
            // What a tool says, or its caller, fits nowhere else.
            ErrorCode::ToolFailed | ErrorCode::Cancelled => return Self::Cancelled,
            // Too long is a fault of the text, no matter which of the two sides finds it.
            ErrorCode::AmbiguousTarget | ErrorCode::AmbiguousPrefix | ErrorCode::PayloadTooLarge => {
                return Self::InvalidArgs;
            }
            _ => {}
        }
        match code.class() {
            ErrorClass::BadRequest => Self::InvalidArgs,
            ErrorClass::Auth => Self::Auth,
            ErrorClass::NotFound => Self::NotFound,
            ErrorClass::Conflict => Self::AlreadyExists,
            ErrorClass::Limit => Self::PermissionDenied,
            ErrorClass::Unavailable => Self::Network,
            ErrorClass::Internal => Self::Internal,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// What to do about a text that is too long to be sent.
pub const TOO_LARGE: &str = "Split it, or put it into a file that the others can read and send its path.";

/// What to do when the mesh knows the member no more.
pub const NEW_INVITE: &str = "A new invite lets you in again: `claudemesh join <link>`.";

/// The failure of a command.
///
/// Printed as `Error: <message>` and `Hint: <hint>` on stderr; with `--json` as
/// `{"ok":false,"error":<code>,"message":…,"hint"?:…, …fields}` on stdout.
#[derive(Clone, Debug, PartialEq)]
pub struct CliError {
    /// What the process exits with.
    pub exit: ExitCode,
    /// Stable word for scripts, in the style of the wire's error codes.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Further fields of the JSON form.
    pub fields: Box<Map<String, Value>>,
}

/// The exit code of a verb that reads from several meshes and could not ask some of them.
pub fn exit_of<'a>(troubles: impl Iterator<Item = &'a CliError>) -> ExitCode {
    troubles.fold(ExitCode::Success, |exit, error| match exit {
        // A mesh that was not reached may still have something; a refusal is final.
        ExitCode::Success => error.exit,
        _ if error.exit == ExitCode::Network => error.exit,
        exit => exit,
    })
}

impl CliError {
    /// An error without a hint.
    pub fn new(exit: ExitCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { exit, code: code.into(), message: message.into(), hint: None, fields: Box::default() }
    }

    /// A bad or missing argument (exit 3).
    pub fn invalid_args(message: impl Into<String>) -> Self {
        Self::new(ExitCode::InvalidArgs, "invalid_args", message)
    }

    /// Something that does not exist (exit 5).
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ExitCode::NotFound, "not_found", message)
    }

    /// A file that cannot be read or written (exit 10).
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Io, "io_error", message)
    }

    /// The broker cannot be reached (exit 4).
    pub fn network(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Network, "network_error", message)
    }

    /// The user said no (exit 1).
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Cancelled, "cancelled", message)
    }

    /// Our own fault (exit 8).
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Internal, "internal", message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a field to the JSON form.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// What to do about it: the own hint, else one that fits the exit code.
    pub fn advice(&self) -> Option<&str> {
        let general = match self.exit {
            ExitCode::Success | ExitCode::Cancelled => None,
            ExitCode::Auth if self.code == "timestamp_skew" => Some(
                "One of the two clocks is wrong: let this machine set its clock by the network, or tell the operator of the broker.",
            ),
            ExitCode::Auth => Some("The mesh may have forgotten this member: see `claudemesh doctor`, or join again."),
            ExitCode::InvalidArgs => Some("See `claudemesh help`."),
            ExitCode::Network => Some("See `claudemesh doctor` for what is unreachable."),
            ExitCode::NotFound => match self.code.as_str() {
                "peer_not_found" | "unknown_target" => {
                    Some("`claudemesh peers --all` lists the members and their sessions.")
                }
                _ => None,
            },
            ExitCode::AlreadyExists if self.code == "conflict" => {
                Some("It was changed meanwhile: read it again, then repeat with what is there now.")
            }
            ExitCode::AlreadyExists => Some("Choose another name, or use the one that exists."),
            ExitCode::PermissionDenied => Some("Ask an admin of the mesh."),
            ExitCode::Internal => Some("This is a fault of claudemesh; please report it with the command line."),
            ExitCode::ClaudeMissing => Some("Install Claude Code, or set CLAUDE_BIN to its path."),
            ExitCode::Io => Some("Check that the place exists, its owner and its rights."),
        };
        self.hint.as_deref().or(general)
    }

    /// Names the help of the command where there is nothing better to say.
    #[must_use]
    pub fn of_command(self, words: &str) -> Self {
        match (self.exit, &self.hint) {
            (ExitCode::InvalidArgs, None) => self.hint(format!("See `{words} --help`.")),
            _ => self,
        }
    }

    /// What an ambiguous target may mean.
    pub fn candidates(&self) -> Vec<Candidate> {
        let list = self.fields.get("candidates").cloned().unwrap_or_default();
        serde_json::from_value(list).unwrap_or_default()
    }

    /// The form for scripts.
    pub fn to_json(&self) -> Value {
        let mut object = json!({"ok": false, "error": self.code, "message": self.message});
        if let Some(map) = object.as_object_mut() {
            if let Some(hint) = self.advice() {
                map.insert("hint".into(), hint.into());
            }
            map.extend((*self.fields).clone());
        }
        object
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

impl From<ErrorFrame> for CliError {
    /// An error frame of the broker, with the exit code of its code and the fields a script may need.
    fn from(frame: ErrorFrame) -> Self {
        let exit = frame.known_code().map_or(ExitCode::Cancelled, ExitCode::of);
        let mut error = Self::new(exit, frame.code, sentence(&frame.message));
        if let Some(wait_ms) = frame.retry_after_ms {
            error = error.hint(format!("Try again in {} s.", wait_ms.div_ceil(1000))).field("retry_after_ms", wait_ms);
        }
        if error.code == ErrorCode::PayloadTooLarge.as_str() {
            error = error.hint(TOO_LARGE);
        }
        match ErrorCode::parse(&error.code) {
            Some(ErrorCode::MeshArchived) => {
                error = error.hint("Its owner can bring it back with `claudemesh mesh restore`.");
            }
            Some(ErrorCode::MemberRemoved) => error = error.hint(NEW_INVITE),
            Some(ErrorCode::MeshDeleted) => {
                error = error.hint("`claudemesh leave <mesh>` takes it off this machine.");
            }
            _ => {}
        }
        if !frame.candidates.is_empty() {
            error.fields.insert("candidates".into(), serde_json::to_value(&frame.candidates).unwrap_or_default());
        }
        if let Some(current) = frame.current {
            error.fields.insert("current".into(), current);
        }
        if let Some(bound) = frame.bound {
            error.fields.insert("bound".into(), serde_json::to_value(bound).unwrap_or_default());
        }
        error
    }
}

/// Makes a sentence of a message that starts lower-case and has no full stop.
pub fn sentence(message: &str) -> String {
    let mut chars = message.chars();
    let Some(first) = chars.next() else { return String::new() };
    let mut text: String = first.to_uppercase().chain(chars).collect();
    if !text.ends_with(['.', '!', '?']) {
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_code_has_an_exit_code_that_is_a_failure() {
        for code in ErrorCode::ALL {
            assert_ne!(ExitCode::of(*code), ExitCode::Success, "{}", code.as_str());
        }
        assert_eq!(ExitCode::of(ErrorCode::Forbidden), ExitCode::PermissionDenied);
        assert_eq!(ExitCode::of(ErrorCode::PeerNotFound), ExitCode::NotFound);
        assert_eq!(ExitCode::of(ErrorCode::Unavailable), ExitCode::Network);
        assert_eq!(ExitCode::of(ErrorCode::PayloadTooLarge), ExitCode::InvalidArgs);
    }

    #[test]
    fn a_conflict_is_not_about_names() {
        let advice = |code: ErrorCode| CliError::from(ErrorFrame::new(code, "x")).advice().map(str::to_owned);
        assert!(advice(ErrorCode::Conflict).is_some_and(|hint| hint.contains("read it again")));
        assert!(advice(ErrorCode::AlreadyExists).is_some_and(|hint| hint.contains("another name")));
    }

    #[test]
    fn json_form_has_the_stable_word_and_the_hint() {
        let error = CliError::not_found("No mesh is called x.").hint("Run `claudemesh list`.").field("slug", "x");
        let expected = serde_json::json!({
            "ok": false, "error": "not_found", "message": "No mesh is called x.", "hint": "Run `claudemesh list`.", "slug": "x"
        });
        assert_eq!(error.to_json(), expected);
    }
}
