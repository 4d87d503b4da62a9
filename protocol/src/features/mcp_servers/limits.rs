//! Bounds of MCP servers on the wire, each with its reason.

/// Characters of a server's name: hosts put `mcp__claudemesh__svc__` before it and the tool's name behind it, 128 characters in all.
pub const MAX_NAME_CHARS: usize = 64;
/// Characters of a tool's name, as the hosts have it.
pub const MAX_TOOL_CHARS: usize = 128;
/// Bytes of a server's description: models read it of every server.
pub const MAX_DESCRIPTION_BYTES: usize = 2_048;
/// Tools of one server: more than any server that models can use.
pub const MAX_TOOLS: usize = 256;
/// Bytes of all tools of one server as JSON, so that one frame holds them, also as the list of one server.
pub const MAX_TOOLS_BYTES: usize = 524_288;
/// Bytes of the arguments of one call; more does not fit into a frame.
pub const MAX_ARGS_BYTES: usize = 1_048_576;
/// Bytes of a result that goes in one frame to a caller that can read parts. A larger one is read in parts, so that answers to many
/// calls at once fit into the queue of its socket.
pub const MAX_WHOLE_BYTES: usize = 262_144;
/// Bytes of a result for a caller that reads no parts: as much as fits into a frame.
pub const MAX_UNDIVIDED_BYTES: usize = 1_400_000;
/// Bytes of one part: in a frame each quote and backslash in it takes two bytes, and two more where a session passes it on.
pub const MAX_PART_BYTES: usize = 524_288;
/// Bytes of a result in parts: 50 MB, as in the contract.
pub const MAX_RESULT_BYTES: usize = 50_000_000;
/// Parts of a result.
pub const MAX_PARTS: u32 = (MAX_RESULT_BYTES / (MAX_PART_BYTES / 2)) as u32 + 1;
/// Characters of an error's text: a sentence, or the beginning of a stack trace.
pub const MAX_ERROR_CHARS: usize = 8_192;
/// Characters of the text of a progress notice.
pub const MAX_PROGRESS_CHARS: usize = 1_024;
/// How long a call may take when nothing is said, in milliseconds: as in the contract.
pub const USUAL_TIMEOUT_MS: u64 = 30_000;
/// How long a call may take at most, in milliseconds: half an hour, the idle limit of hosts for local servers.
pub const MAX_TIMEOUT_MS: u64 = 1_800_000;
/// How long the next part of a result may take to be asked for or to come, in milliseconds.
pub const PART_TIMEOUT_MS: u64 = 30_000;
