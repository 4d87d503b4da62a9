//! Files: bytes that members share, usually sealed for their readers. Frames say what is shared and for whom; the bytes travel
//! over HTTP (`docs/files.md`).

use serde::{Deserialize, Serialize};

use crate::call::Nothing;
use crate::id::{FileId, MemberId, PublicKey};
use crate::target::TargetField;

pub mod limits;
mod names;
pub mod signing;

pub use names::{FileNameError, check_name};

/// `encryption` of the existing system: 24 bytes of nonce, then `crypto_secretbox_easy` of the whole file.
pub const SECRETBOX: &str = "secretbox";
/// `encryption` of this system: chunks that are sealed one by one (`docs/files.md`).
pub const STREAM: &str = "stream";

/// `what` of a change: a file can be read.
pub const SHARED: &str = "shared";
/// `what` of a change: the reader that is told was given access, or a key.
pub const GRANTED: &str = "granted";
/// `what` of a change: the reader that is told can no longer read the file.
pub const REVOKED: &str = "revoked";
/// `what` of a change: the file is gone.
pub const DELETED: &str = "deleted";

/// The key of a file, sealed for one reader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FileKey {
    /// Key of a member, or of a session of one; the member is the reader.
    pub peer_pubkey: String,
    /// `crypto_box_seal` of the 32-byte key for that key, in base64.
    pub sealed_key: String,
}

/// `start_upload`: reserves room for a file and says where its bytes go. No one sees the file before `finish_upload`.
///
/// Shape: `{"type":"start_upload","client_upload_id":"…","name":"a.txt","size":12,"targetSpec":"@docs"}`. The same
/// `client_upload_id` of the same member is the same upload: the answer says how far it is.
/// Errors: `invalid_name`, `invalid_args`, `unknown_target`, `ambiguous_target`, `forbidden`, `limit` with `bound`, `rate_limited`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StartUpload {
    /// Chosen by the client, 1 to [`crate::limits::MAX_ID_CHARS`] characters.
    pub client_upload_id: String,
    /// See [`check_name`]. Absent only with `sealed_meta`: then lists of older clients show a name that says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes that will be uploaded, those of nonces and tags included.
    pub size: u64,
    /// `size` is the most that may come, because the client does not know the end yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_most: bool,
    /// At most [`limits::MAX_TAGS`], each of at most [`limits::MAX_TAG_CHARS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Who may read it: names, keys, `@group`, `*`; everyone when absent. A session stands for its member.
    #[serde(default, rename = "targetSpec", skip_serializing_if = "Option::is_none")]
    pub target_spec: Option<TargetField>,
    /// Kept until it is deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub persistent: bool,
    /// Seconds from `finish_upload` until it is deleted, [`limits::MIN_TTL_S`] to [`limits::MAX_TTL_S`];
    /// [`limits::DEFAULT_TTL_S`] when absent. Not with `persistent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// For `Content-Type` of downloads; visible ASCII.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// How the bytes are sealed: [`STREAM`], [`SECRETBOX`] or another word of lower-case letters, digits and `-`. Absent: not at
    /// all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Name, tags and what else only readers should know, sealed with the file's key; base64. Only with `encryption`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_meta: Option<String>,
    /// The file's key for each reader, at most [`limits::MAX_KEYS`]. Only with `encryption`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<FileKey>,
    /// Tell the owner's sessions with [`FileKeyWanted`] when someone the file is for has no key, for example because it joined
    /// later. Only with `encryption`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regrant: bool,
}

/// `upload_status`: how far an upload is, with a new URL. Only the member that began it may ask.
///
/// Errors: `not_found` when there is no such upload, because it was finished, cancelled or given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadStatus {
    /// From `start_upload`.
    #[serde(rename = "fileId")]
    pub file_id: FileId,
}

/// `finish_upload`: makes a file visible whose bytes are all there. The same request again gives the same answer.
///
/// Errors: `upload_incomplete`, `hash_mismatch` (the upload is gone then), `not_found`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishUpload {
    /// From `start_upload`.
    #[serde(rename = "fileId")]
    pub file_id: FileId,
    /// SHA-256 of all bytes that were uploaded, in lower-case hex.
    pub sha256: String,
}

/// `cancel_upload`: gives up an upload; its bytes and its reservation go at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelUpload {
    /// From `start_upload`.
    #[serde(rename = "fileId")]
    pub file_id: FileId,
}

/// `get_file`: where a file can be read from. Adds a row to its access log.
///
/// Errors: `not_found`; `forbidden` when the file is not for the caller; `no_file_key` when it is sealed and no key is sealed for the
/// caller (`forbidden` for older clients).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetFile {
    /// Which file.
    #[serde(rename = "fileId")]
    pub file_id: FileId,
}

/// `list_files`: the files that are for the caller or its own, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListFiles {
    /// A part of the name, whatever its case. Sealed names are not searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Id, name or key of the member that shared it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Files that have this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Those of others, too, that are not for the caller. Needs `canManageFiles`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// 1 to [`limits::MAX_PAGE`], which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `file_status`: who got a file, and when. For those who may read it.
///
/// Errors: `not_found`, `forbidden`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileStatus {
    /// Which file.
    #[serde(rename = "fileId")]
    pub file_id: FileId,
}

/// `delete_file`: deletes a file and its bytes; one of another member only with `canManageFiles`.
///
/// Errors: `not_found`, `forbidden`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteFile {
    /// Which file.
    #[serde(rename = "fileId")]
    pub file_id: FileId,
}

/// `grant_file_access`: lets one more member read a file, and keeps the file's key for it. For the owner and for those with
/// `canManageFiles`.
///
/// Errors: `not_found`, `forbidden`, `unknown_target`, `invalid_args`, `limit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantFileAccess {
    /// Which file.
    pub file_id: FileId,
    /// Key of a member, or of a session of one.
    pub peer_pubkey: String,
    /// The file's key, sealed for `peerPubkey`. Absent for a file that is not sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_key: Option<String>,
}

/// `revoke_file_access`: one member can no longer get a file, also when the file is for a group that it is in. What it has got
/// already it keeps. For the owner and for those with `canManageFiles`.
///
/// Errors: `not_found`, `forbidden`, `unknown_target`; `invalid` for the owner itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokeFileAccess {
    /// Which file.
    pub file_id: FileId,
    /// Key of a member, or of a session of one.
    pub peer_pubkey: String,
}

/// `file_readers`: who may read a file, and who has a key. For the owner and for those with `canManageFiles`.
///
/// Errors: `not_found`, `forbidden`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileReaders {
    /// Which file.
    #[serde(rename = "fileId")]
    pub file_id: FileId,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `upload_started`: of `start_upload` and `upload_status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadStarted {
    /// Id of the upload, and of the file that becomes of it.
    pub file_id: FileId,
    /// Bytes that are there: go on from here.
    pub offset: u64,
    /// `size` of `start_upload`.
    pub size: u64,
    /// Where the bytes go. A client may put its own address of the broker in front of path and query.
    pub url: String,
    /// Until when the URL is good; ISO time.
    pub url_expires_at: String,
    /// The file was finished before: there is nothing to upload.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

/// A file as lists show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// Its id.
    pub id: FileId,
    /// Its name. Of a file whose name is sealed it says nothing.
    pub name: String,
    /// Bytes that are stored: of a sealed file more than it has.
    pub size: u64,
    /// As they were given.
    pub tags: Vec<String>,
    /// Id of the member that shared it.
    pub uploaded_by: MemberId,
    /// When it could be read first; ISO time.
    pub uploaded_at: String,
    /// Kept until it is deleted.
    pub persistent: bool,
    /// Its bytes are sealed.
    pub encrypted: bool,
    /// Name of the member that shared it, at that time.
    #[serde(default)]
    pub uploader: String,
    /// When it is deleted; ISO time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// SHA-256 of the stored bytes, in lower-case hex.
    #[serde(default)]
    pub sha256: String,
    /// As it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// As it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// As it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_meta: Option<String>,
    /// The file's key, sealed for the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_key: Option<String>,
    /// The key that it is sealed for: of the caller's member, or of its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_for: Option<PublicKey>,
}

/// `upload_finished`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadFinished {
    /// The file as its owner sees it.
    pub file: FileEntry,
}

/// `upload_cancelled`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadCancelled {
    /// Its id.
    pub file_id: FileId,
    /// There was such an upload.
    pub found: bool,
}

/// `file_url`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileUrl {
    /// Its id.
    pub file_id: FileId,
    /// Where its bytes can be read, with `Range` when wanted. A client may put its own address of the broker in front of path and
    /// query, unless `presigned`.
    pub url: String,
    /// As in [`FileEntry`].
    pub name: String,
    /// As in [`FileEntry`].
    pub encrypted: bool,
    /// The file's key, sealed for the caller. The owner of a file may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_key: Option<String>,
    /// The URL leads to the operator's store and not to the broker.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub presigned: bool,
    /// Until when the URL is good; ISO time. Brokers of before do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_expires_at: Option<String>,
    /// The file as lists show it. Not told to older clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileEntry>,
}

/// `file_list`: the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FileList {
    /// The rows of this page.
    pub files: Vec<FileEntry>,
    /// There is more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One row of an access log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FileAccess {
    /// Name of the session or member that asked for the file, at that time.
    pub peer_name: String,
    /// ISO time.
    pub accessed_at: String,
    /// Id of the member.
    #[serde(default)]
    pub member_id: String,
}

/// `file_status_result`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStatusResult {
    /// Its id.
    pub file_id: FileId,
    /// Who asked for it, the newest first; at most [`limits::MAX_ACCESSES`].
    pub accesses: Vec<FileAccess>,
}

/// `grant_file_access_ok`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantFileAccessOk {
    /// Its id.
    pub file_id: FileId,
    /// As it was given.
    pub peer_pubkey: String,
}

/// `file_access_revoked`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileAccessRevoked {
    /// Its id.
    pub file_id: FileId,
    /// As it was given.
    pub peer_pubkey: String,
    /// The member could read it until now.
    pub could_read: bool,
}

/// A member that may read a file, or could until its access was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FileReader {
    /// Its id.
    pub member_id: MemberId,
    /// Its name.
    pub name: String,
    /// Its key: what the file's key is sealed for.
    pub pubkey: PublicKey,
    /// A key of the file is sealed for its member key. Of a file that is not sealed it says nothing.
    pub has_key: bool,
    /// Its access was revoked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// `file_readers_result`: members by id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileReadersResult {
    /// Its id.
    pub file_id: FileId,
    /// Whom the file is for: `*`, `@group`, keys of members. Those with a grant are among them.
    pub targets: Vec<String>,
    /// The members of this page.
    pub readers: Vec<FileReader>,
    /// There is more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `file_change`: a file can be read, or no longer, told to those it is for. Not sent to clients that say nothing of themselves in
/// their hello.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileChange {
    /// [`SHARED`], [`GRANTED`], [`REVOKED`] or [`DELETED`].
    pub what: String,
    /// Its id.
    pub file_id: FileId,
    /// Name of the member that did it; the empty text when the file's time was over.
    pub by: String,
    /// Of [`SHARED`] and [`GRANTED`]: the file. Without the caller's sealed key, which `get_file` gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileEntry>,
}

/// `file_key_wanted`: someone whom a file is for asked for it and has no key. Told to the sessions of the owner, which seal the file's
/// key with `grant_file_access`. Only of files with `regrant`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileKeyWanted {
    /// Which file.
    pub file_id: FileId,
    /// Id of the member.
    pub member_id: MemberId,
    /// Its name.
    pub name: String,
    /// Its key: seal for this one.
    pub pubkey: PublicKey,
}

/// The answer of `PATCH /upload/{fileId}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadProgress {
    /// Always `true`.
    pub ok: bool,
    /// Bytes that are on stable storage.
    pub offset: u64,
    /// All bytes are there.
    pub complete: bool,
    /// When complete: SHA-256 of all bytes as the broker got them, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// The answer of `POST /upload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Uploaded {
    /// Always `true`.
    pub ok: bool,
    /// Id of the file.
    pub file_id: FileId,
}

crate::wire_feature! {
    requests {
        /// Reserves room for a file and says where its bytes go.
        StartUpload = "start_upload" => answers UploadStarted, needs CanWriteState, repeatable;
        /// How far an upload is, with a new URL.
        UploadStatus = "upload_status" => answers UploadStarted, needs CanWriteState, repeatable;
        /// Makes a file visible whose bytes are all there.
        FinishUpload = "finish_upload" => answers UploadFinished, needs CanWriteState, repeatable;
        /// Gives up an upload; its bytes and its reservation go at once.
        CancelUpload = "cancel_upload" => answers UploadCancelled, needs CanWriteState, repeatable;
        /// Where a file can be read from, and its key sealed for the caller.
        GetFile = "get_file" => answers FileUrl, needs CanReadShared, repeatable;
        /// The files that are for the caller or its own, the newest first, in pages.
        ListFiles = "list_files" => answers FileList, needs CanReadShared, repeatable;
        /// Who got a file, and when.
        FileStatus = "file_status" => answers FileStatusResult, needs CanReadShared, repeatable;
        /// Deletes a file and its bytes; one of another member only for those who may manage files.
        DeleteFile = "delete_file" => silent Nothing, needs CanWriteState, once;
        /// Lets one more member read a file, with the file's key sealed for it.
        GrantFileAccess = "grant_file_access" => answers GrantFileAccessOk, needs CanWriteState, repeatable;
        /// Takes a file away from one member, also when the file is for a group that it is in.
        RevokeFileAccess = "revoke_file_access" => answers FileAccessRevoked, needs CanWriteState, repeatable;
        /// Who may read a file, and who has a key; for its owner and those who may manage files.
        FileReaders = "file_readers" => answers FileReadersResult, needs CanReadShared, repeatable;
    }
    answers {
        UploadStarted = "upload_started",
        UploadFinished = "upload_finished",
        UploadCancelled = "upload_cancelled",
        FileUrl = "file_url",
        FileList = "file_list",
        FileStatusResult = "file_status_result",
        GrantFileAccessOk = "grant_file_access_ok",
        FileAccessRevoked = "file_access_revoked",
        FileReadersResult = "file_readers_result",
    }
    events {
        FileChange = "file_change",
        FileKeyWanted = "file_key_wanted",
    }
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
