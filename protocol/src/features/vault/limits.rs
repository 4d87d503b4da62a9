//! Bounds of the vault on the wire, each with its reason.

/// Characters of a name: letters, digits and `_`, `.`, `-`, as in names of environment variables and files.
pub const MAX_KEY_CHARS: usize = 128;
/// Bytes of the path at which a service will find a file.
pub const MAX_MOUNT_BYTES: usize = 512;
/// Characters of a description.
pub const MAX_DESCRIPTION_CHARS: usize = 500;
/// Bytes of a value: a certificate chain or a service account, not a file of data.
pub const MAX_VALUE_BYTES: usize = 49_152;
/// Bytes of a sealed value: 16 more than the value has.
pub const MAX_SEALED_BYTES: usize = MAX_VALUE_BYTES + 16;
/// Entries that are asked for at once.
pub const MAX_KEYS: usize = 100;
/// Bytes of the values of one answer, so that it stays far below the largest frame.
pub const MAX_PAGE_BYTES: usize = 786_432;
/// Rows of one page of a list, and of a list when no number is asked for.
pub const MAX_PAGE: u32 = 200;
