//! Samples of every message of files.

use super::{
    CancelUpload, DELETED, DeleteFile, FileAccess, FileAccessRevoked, FileChange, FileEntry, FileKey, FileKeyWanted,
    FileList, FileReader, FileReaders, FileReadersResult, FileStatus, FileStatusResult, FileUrl, FinishUpload, GetFile,
    GrantFileAccess, GrantFileAccessOk, ListFiles, Request, Response, RevokeFileAccess, SHARED, STREAM, StartUpload,
    UploadCancelled, UploadFinished, UploadProgress, UploadStarted, UploadStatus, Uploaded,
};
use crate::target::TargetField;
use crate::testing::{AT, MEMBER, member_key};

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] = &[];

const ID: &str = "Fi1eGh2iJk3LmNoPqRsTuVwXyZaBcD45";
const UPLOAD_URL: &str = "http://mesh.example.org/upload/Fi1eGh2iJk3LmNoPqRsTuVwXyZaBcD45?mesh=kq3J7vY0sD2mWn8RbXcZ5pTgHfLa1uEo&ticket=9f86d081";
const DOWNLOAD_URL: &str = "http://mesh.example.org/download/Fi1eGh2iJk3LmNoPqRsTuVwXyZaBcD45?mesh=kq3J7vY0sD2mWn8RbXcZ5pTgHfLa1uEo&ticket=9f86d081";

fn sealed() -> String {
    "c2VhbGVk".into()
}

fn sha256() -> String {
    "d7".repeat(32)
}

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let file_id = || ID.into();
    let peer_pubkey = || member_key().to_hex();
    let start = StartUpload {
        client_upload_id: "up-1".into(),
        name: Some("plan.pdf".into()),
        size: 12,
        ..StartUpload::default()
    };
    let full = StartUpload {
        name: None,
        at_most: true,
        tags: vec!["plan".into()],
        target_spec: Some(TargetField::Many(vec!["Bob".into(), "@docs".into()])),
        persistent: true,
        ttl_s: Some(3_600),
        content_type: Some("application/pdf".into()),
        encryption: Some(STREAM.into()),
        sealed_meta: Some(sealed()),
        keys: vec![FileKey { peer_pubkey: peer_pubkey(), sealed_key: sealed() }],
        regrant: true,
        ..start.clone()
    };
    let list = ListFiles {
        query: Some("PLAN".into()),
        from: Some(MEMBER.into()),
        tag: Some("plan".into()),
        all: true,
        limit: Some(20),
        cursor: Some("1775641983000-Fi1eGh2iJk3LmNoPqRsTuVwXyZaBcD45".into()),
    };
    let grant = GrantFileAccess { file_id: file_id(), peer_pubkey: peer_pubkey(), sealed_key: None };
    vec![
        ("", start.into()),
        ("full", full.into()),
        ("", UploadStatus { file_id: file_id() }.into()),
        ("", FinishUpload { file_id: file_id(), sha256: sha256() }.into()),
        ("", CancelUpload { file_id: file_id() }.into()),
        ("", GetFile { file_id: file_id() }.into()),
        ("", ListFiles::default().into()),
        ("full", list.into()),
        ("", FileStatus { file_id: file_id() }.into()),
        ("", DeleteFile { file_id: file_id() }.into()),
        ("", grant.clone().into()),
        ("full", GrantFileAccess { sealed_key: Some(sealed()), ..grant }.into()),
        ("", RevokeFileAccess { file_id: file_id(), peer_pubkey: peer_pubkey() }.into()),
        ("", FileReaders { file_id: file_id(), cursor: None }.into()),
        ("full", FileReaders { file_id: file_id(), cursor: Some(MEMBER.into()) }.into()),
    ]
}

fn entry() -> FileEntry {
    FileEntry {
        id: ID.into(),
        name: "plan.pdf".into(),
        size: 12,
        tags: vec![],
        uploaded_by: MEMBER.into(),
        uploaded_at: AT.into(),
        persistent: true,
        encrypted: false,
        uploader: "Alice".into(),
        expires_at: None,
        sha256: sha256(),
        content_type: None,
        encryption: None,
        sealed_meta: None,
        sealed_key: None,
        sealed_for: None,
    }
}

fn sealed_entry() -> FileEntry {
    FileEntry {
        name: "sealed-Fi1eGh2i".into(),
        tags: vec!["plan".into()],
        persistent: false,
        encrypted: true,
        expires_at: Some(AT.into()),
        content_type: Some("application/pdf".into()),
        encryption: Some(STREAM.into()),
        sealed_meta: Some(sealed()),
        sealed_key: Some(sealed()),
        sealed_for: Some(member_key()),
        ..entry()
    }
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let file_id = || ID.into();
    let started = UploadStarted {
        file_id: file_id(),
        offset: 4,
        size: 12,
        url: UPLOAD_URL.into(),
        url_expires_at: AT.into(),
        finished: false,
    };
    let url = FileUrl {
        file_id: file_id(),
        url: DOWNLOAD_URL.into(),
        name: "plan.pdf".into(),
        encrypted: false,
        sealed_key: None,
        presigned: false,
        url_expires_at: None,
        file: None,
    };
    let full_url = FileUrl {
        encrypted: true,
        sealed_key: Some(sealed()),
        presigned: true,
        url_expires_at: Some(AT.into()),
        file: Some(sealed_entry()),
        ..url.clone()
    };
    let access = FileAccess { peer_name: "Bob".into(), accessed_at: AT.into(), member_id: MEMBER.into() };
    let reader = FileReader {
        member_id: MEMBER.into(),
        name: "Bob".into(),
        pubkey: member_key(),
        has_key: true,
        revoked: false,
    };
    let readers =
        FileReadersResult { file_id: file_id(), targets: vec!["*".into()], readers: vec![reader.clone()], next: None };
    let full_readers = FileReadersResult {
        readers: vec![FileReader { revoked: true, ..reader }],
        next: Some(MEMBER.into()),
        ..readers.clone()
    };
    let gone = FileChange { what: DELETED.into(), file_id: file_id(), by: "Alice".into(), file: None };
    let shared = FileChange { what: SHARED.into(), file: Some(entry()), ..gone.clone() };
    let wanted =
        FileKeyWanted { file_id: file_id(), member_id: MEMBER.into(), name: "Bob".into(), pubkey: member_key() };
    vec![
        ("", started.clone().into()),
        ("full", UploadStarted { finished: true, ..started }.into()),
        ("", UploadFinished { file: entry() }.into()),
        ("", UploadCancelled { file_id: file_id(), found: true }.into()),
        ("", url.into()),
        ("full", full_url.into()),
        ("", FileList { files: vec![entry()], next: None }.into()),
        ("full", FileList { files: vec![sealed_entry()], next: Some(format!("1775641983000-{ID}")) }.into()),
        ("", FileStatusResult { file_id: file_id(), accesses: vec![access] }.into()),
        ("", GrantFileAccessOk { file_id: file_id(), peer_pubkey: member_key().to_hex() }.into()),
        ("", FileAccessRevoked { file_id: file_id(), peer_pubkey: member_key().to_hex(), could_read: true }.into()),
        ("", readers.into()),
        ("full", full_readers.into()),
        ("", gone.into()),
        ("full", shared.into()),
        ("", wanted.into()),
    ]
}

/// The answer of `PATCH /upload/{fileId}`.
pub(crate) fn progress() -> UploadProgress {
    UploadProgress { ok: true, offset: 12, complete: true, sha256: Some(sha256()) }
}

/// The answer of `POST /upload`.
pub(crate) fn uploaded() -> Uploaded {
    Uploaded { ok: true, file_id: ID.into() }
}
