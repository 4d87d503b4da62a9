//! Samples of every message of peers' folders.

use super::{
    Asker, PeerDirRequest, PeerDirRequestForward, PeerDirResponse, PeerDirResponseForward, PeerFileRequest,
    PeerFileRequestForward, PeerFileResponse, PeerFileResponseForward, Request, Response, Sealed, ShareFolder,
};
use crate::testing::{member_key, session_key};

/// No field is written as `null`.
pub(crate) const NULLS: &[(&str, &str)] = &[];

const ID: &str = "0b1c2d3e4f5061728394a5b6c7d8e9f0";

fn sealed() -> Option<Sealed> {
    Some(Sealed { nonce: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX".into(), ciphertext: "c2VhbGVkIGFuZCB0YWdnZWQ=".into() })
}

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let (target_pubkey, requester_pubkey) = (session_key().to_hex(), session_key().to_hex());
    let file = PeerFileRequest { target_pubkey: target_pubkey.clone(), ..PeerFileRequest::default() };
    let dir = PeerDirRequest { target_pubkey, ..PeerDirRequest::default() };
    let given = PeerFileResponse { requester_pubkey: requester_pubkey.clone(), ..PeerFileResponse::default() };
    let listed = PeerDirResponse { requester_pubkey, ..PeerDirResponse::default() };
    let (why, code) = (Some("file not found".to_owned()), Some("not_found".to_owned()));
    let plain = PeerDirRequest { dir_path: "docs".into(), pattern: Some("*.md".into()), ..dir.clone() };
    let content = PeerFileResponse { file_path: "x.txt".into(), content: Some("aGk=".into()), ..given.clone() };
    let entries = Some(vec!["a/".to_owned(), "a/x.txt".to_owned()]);
    vec![
        ("", ShareFolder { shared: true }.into()),
        ("", PeerFileRequest { file_path: "x.txt".into(), ..file.clone() }.into()),
        ("sealed", PeerFileRequest { sealed: sealed(), wait_ms: Some(60_000), ..file }.into()),
        ("", PeerDirRequest { dir_path: ".".into(), ..dir.clone() }.into()),
        ("pattern", plain.into()),
        ("sealed", PeerDirRequest { sealed: sealed(), wait_ms: Some(60_000), ..dir }.into()),
        ("", content.into()),
        (
            "error",
            PeerFileResponse { file_path: "x.txt".into(), error: why.clone(), code: code.clone(), ..given.clone() }
                .into(),
        ),
        ("sealed", PeerFileResponse { request_id: Some(ID.into()), sealed: sealed(), refused: true, ..given }.into()),
        ("", PeerDirResponse { dir_path: ".".into(), entries, ..listed.clone() }.into()),
        ("error", PeerDirResponse { dir_path: ".".into(), error: why, code, ..listed.clone() }.into()),
        ("sealed", PeerDirResponse { request_id: Some(ID.into()), sealed: sealed(), refused: true, ..listed }.into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let requester_pubkey = session_key().to_hex();
    let (why, code) = (Some("file not found".to_owned()), Some("not_found".to_owned()));
    let asker = Some(Asker { member_pubkey: member_key(), name: "api".into(), member_name: "Alice".into() });
    let file = PeerFileResponseForward { file_path: "x.txt".into(), ..PeerFileResponseForward::default() };
    let dir = PeerDirResponseForward { dir_path: ".".into(), ..PeerDirResponseForward::default() };
    let ask_file =
        PeerFileRequestForward { requester_pubkey: requester_pubkey.clone(), ..PeerFileRequestForward::default() };
    let ask_dir = PeerDirRequestForward { requester_pubkey, ..PeerDirRequestForward::default() };
    let id = || Some(ID.to_owned());
    vec![
        ("", PeerFileResponseForward { content: Some("aGk=".into()), ..file.clone() }.into()),
        ("error", PeerFileResponseForward { error: why.clone(), code: code.clone(), ..file }.into()),
        ("sealed", PeerFileResponseForward { sealed: sealed(), ..PeerFileResponseForward::default() }.into()),
        ("", PeerDirResponseForward { entries: Some(vec!["a/".into()]), ..dir.clone() }.into()),
        ("error", PeerDirResponseForward { error: why, code, ..dir }.into()),
        ("sealed", PeerDirResponseForward { sealed: sealed(), ..PeerDirResponseForward::default() }.into()),
        ("", PeerFileRequestForward { file_path: "x.txt".into(), ..ask_file.clone() }.into()),
        (
            "sealed",
            PeerFileRequestForward {
                request_id: id(),
                sealed: sealed(),
                asker: asker.clone(),
                wait_ms: Some(60_000),
                ..ask_file
            }
            .into(),
        ),
        ("", PeerDirRequestForward { dir_path: ".".into(), pattern: Some("*.md".into()), ..ask_dir.clone() }.into()),
        (
            "sealed",
            PeerDirRequestForward { request_id: id(), sealed: sealed(), asker, wait_ms: Some(60_000), ..ask_dir }
                .into(),
        ),
    ]
}
