//! Bounds of hosted services on the wire, each with its reason.

/// Variables of one service: far more than any server reads.
pub const MAX_ENV: usize = 64;
/// Characters of a variable's name, as systems take them.
pub const MAX_ENV_NAME_CHARS: usize = 128;
/// Bytes of a plain value; larger things are files.
pub const MAX_ENV_BYTES: usize = 32_768;
/// Entries of an allow-list of the network.
pub const MAX_ALLOW: usize = 64;
/// Characters of one entry: the longest name of a host, a colon and a port.
pub const MAX_ALLOW_CHARS: usize = 260;
/// Arguments of one service.
pub const MAX_ARGS: usize = 64;
/// Bytes of an address of a git repository, a name of a package, an argument.
pub const MAX_TEXT_BYTES: usize = 2_048;
/// Members, or groups, that one scope names.
pub const MAX_SCOPE_NAMES: usize = 100;
/// Lines of a log in one answer, as in the contract.
pub const MAX_LOG_LINES: u32 = 1_000;
/// Lines of a log when nothing is said, as in the contract.
pub const USUAL_LOG_LINES: u32 = 50;
/// Memory of a service in MiB when nothing is said, as in the contract.
pub const USUAL_MEMORY_MB: u32 = 256;
/// Memory of a service in MiB at least: less starts no runtime.
pub const MIN_MEMORY_MB: u32 = 16;
/// Memory of a service in MiB at most; the operator's quota is the one that counts.
pub const MAX_MEMORY_MB: u32 = 65_536;
/// How long a call may take when neither it nor its service says so, in milliseconds: as in the contract.
pub const USUAL_TIMEOUT_MS: u64 = 25_000;
/// Bytes of all services in one `hello_ack`: what does not fit is read with `mcp_catalog` and `mcp_schema`.
pub const MAX_HELLO_BYTES: usize = 524_288;
/// Characters of the error of a deploy: the last lines of an installer.
pub const MAX_ERROR_CHARS: usize = 4_096;
