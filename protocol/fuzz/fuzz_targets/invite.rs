//! Pasted invites: links of every form, tokens, broker URLs.
#![no_main]

use claudemesh_protocol::crypto::invite::{self, InviteLink, InviteV1};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(InviteLink::V1 { token }) = InviteLink::parse(text) {
        let _ = InviteV1::read(&token);
    }
    let _ = InviteV1::read(text);
    if let Ok(invite) = serde_json::from_str::<InviteV1>(text) {
        let _ = invite.check();
        let token = invite.token();
        assert!(!token.is_empty());
    }
    if let Some(base) = invite::http_base(text) {
        assert!(base.starts_with("http"));
    }
});
