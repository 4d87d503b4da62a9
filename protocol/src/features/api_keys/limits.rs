//! Bounds of API keys on the wire, each with its reason.

/// Characters of a label.
pub const MAX_LABEL_CHARS: usize = 64;
/// Topics that a key can be confined to.
pub const MAX_SCOPES: usize = 64;
/// What every secret begins with, so that people and scanners know one when they see it.
pub const SECRET_START: &str = "cm_";
/// Characters of a secret that are shown in lists: `cm_` and 8 more.
pub const PREFIX_CHARS: usize = 11;
/// Fewest characters by which a key is named.
pub const MIN_ID_CHARS: usize = 4;
