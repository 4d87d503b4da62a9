//! Moderation: owners and admins close connections and ban members.

use serde::{Deserialize, Serialize};

use crate::id::PublicKey;

/// Whose connections are meant. Precedence: `all`, then `stale`, then `target`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// Display name, key, or key prefix of at least 8 digits; several meanings are an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Connections silent for this many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<u64>,
    /// Everyone but the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// `disconnect`: closes with 1000; clients reconnect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Disconnect {
    /// Who.
    #[serde(flatten)]
    pub selection: Selection,
}

/// `kick`: closes with 4001; clients stay away until started again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kick {
    /// Who.
    #[serde(flatten)]
    pub selection: Selection,
}

/// `ban`: revokes a member; its key cannot enrol again until `unban`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ban {
    /// Display name, key, or key prefix of at least 8 digits.
    #[serde(default)]
    pub target: String,
    /// For the audit log, at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `unban`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unban {
    /// Exact name, key, or key prefix of at least 8 digits of a banned member.
    #[serde(default)]
    pub target: String,
}

/// `list_bans`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListBans {}

/// `disconnect_ack`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DisconnectAck {
    /// Names of the closed connections.
    pub kicked: Vec<String>,
    /// The same list, for older clients.
    pub affected: Vec<String>,
}

/// `kick_ack`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KickAck {
    /// Names of the closed connections.
    pub kicked: Vec<String>,
    /// The same list, for older clients.
    pub affected: Vec<String>,
    /// Connections of a member's control plane, which `kick` leaves alone.
    #[serde(default, rename = "skipped_control_plane", skip_serializing_if = "Option::is_none")]
    pub skipped_control_plane: Option<Vec<String>>,
}

/// `ban_ack`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BanAck {
    /// Name of the member.
    pub banned: String,
}

/// `unban_ack`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnbanAck {
    /// Name of the member.
    pub unbanned: String,
}

/// One ban.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BanEntry {
    /// Name of the member.
    pub name: String,
    /// Member key.
    pub pubkey: PublicKey,
    /// ISO time.
    pub revoked_at: String,
}

/// `list_bans_result`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListBansResult {
    /// Oldest first.
    pub bans: Vec<BanEntry>,
}

crate::wire_feature! {
    requests {
        /// Closes connections; clients come back.
        Disconnect = "disconnect" => answers DisconnectAck, needs CanModerate, once;
        /// Closes connections; clients stay away until they are started again.
        Kick = "kick" => answers KickAck, needs CanModerate, once;
        /// Revokes a member until `unban`.
        Ban = "ban" => answers BanAck, needs CanModerate, once;
        /// Lifts a ban.
        Unban = "unban" => answers UnbanAck, needs CanModerate, once;
        /// Banned members, oldest ban first.
        ListBans = "list_bans" => answers ListBansResult, needs CanModerate, repeatable;
    }
    answers {
        DisconnectAck = "disconnect_ack",
        KickAck = "kick_ack",
        BanAck = "ban_ack",
        UnbanAck = "unban_ack",
        ListBansResult = "list_bans_result",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
