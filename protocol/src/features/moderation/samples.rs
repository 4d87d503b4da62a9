//! Samples of every message of moderation.

use super::{
    Ban, BanAck, BanEntry, Disconnect, DisconnectAck, Kick, KickAck, ListBans, ListBansResult, Request, Response,
    Selection, Unban, UnbanAck,
};
use crate::testing::{AT, member_key};

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] = &[];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let one = || Selection { target: Some("mallory".into()), ..Selection::default() };
    let stale = || Selection { stale: Some(600_000), ..Selection::default() };
    let all = || Selection { all: Some(true), ..Selection::default() };
    vec![
        ("", Disconnect { selection: one() }.into()),
        ("stale", Disconnect { selection: stale() }.into()),
        ("all", Disconnect { selection: all() }.into()),
        ("", Kick { selection: one() }.into()),
        ("stale", Kick { selection: stale() }.into()),
        ("all", Kick { selection: all() }.into()),
        ("", Ban { target: "mallory".into(), reason: None }.into()),
        ("full", Ban { target: "mallory".into(), reason: Some("spam".into()) }.into()),
        ("", Unban { target: "mallory".into() }.into()),
        ("", ListBans {}.into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let names = || vec!["mallory".to_owned()];
    let ban = BanEntry { name: "mallory".into(), pubkey: member_key(), revoked_at: AT.into() };
    vec![
        ("", DisconnectAck { kicked: names(), affected: names() }.into()),
        ("", KickAck { kicked: names(), affected: names(), skipped_control_plane: None }.into()),
        ("full", KickAck { kicked: vec![], affected: vec![], skipped_control_plane: Some(names()) }.into()),
        ("", BanAck { banned: "mallory".into() }.into()),
        ("", UnbanAck { unbanned: "mallory".into() }.into()),
        ("", ListBansResult { bans: vec![ban] }.into()),
    ]
}
