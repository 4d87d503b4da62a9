//! Bounds of the wire between broker and runner, each with its reason.

/// Bytes of the head and the body of one frame. A message fits into one frame, among them the tools of a server (half a MiB at most).
pub const MAX_FRAME_BYTES: usize = 1_572_864;
/// Bytes of the body of a data frame: other streams wait no longer than it takes to write that much.
pub const MAX_DATA_BYTES: usize = 65_536;
/// Bytes of a stream that may be under way, in each direction, before the receiver has taken some: fast for large results, and little
/// memory for many streams.
pub const WINDOW_BYTES: u32 = 524_288;
/// Streams that are open at once, of both sides together; a call and each connection of a service is one.
pub const MAX_STREAMS: usize = 4_096;
/// Characters of the id of a service.
pub const MAX_ID_CHARS: usize = 64;
/// Services of one runner.
pub const MAX_SERVICES: usize = 256;
/// Bytes of a result, and of one line of an MCP server: the 50 MB of the contract with what JSON adds around them.
pub const MAX_RESULT_BYTES: usize = 52_428_800;
/// Bytes of the tools of one server, as the registry has it.
pub const MAX_TOOLS_BYTES: usize = 524_288;
/// Bytes of a zip bundle.
pub const MAX_BUNDLE_BYTES: u64 = 67_108_864;
/// Bytes of what a bundle unpacks to.
pub const MAX_UNPACKED_BYTES: u64 = 536_870_912;
/// Files and folders of a bundle.
pub const MAX_BUNDLE_ENTRIES: usize = 20_000;
/// Arguments of a service.
pub const MAX_ARGS: usize = 256;
/// Bytes of one argument or of one value of the environment.
pub const MAX_VALUE_BYTES: usize = 65_536;
/// Variables of a service, and files with secrets.
pub const MAX_ENV: usize = 256;
/// Bytes of a path of a file with a secret.
pub const MAX_PATH_BYTES: usize = 512;
/// Bytes of one line of a log; the rest of a longer one is cut off.
pub const MAX_LOG_LINE_BYTES: usize = 8_192;
