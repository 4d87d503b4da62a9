//! Files: bytes that members share. This feature knows what is shared and who may read it; the bytes come and go over HTTP (`http.rs`)
//! and lie in [`crate::blobs`]. A mesh in memory knows when the next file expires, who has still to be told of what, and who waits
//! for a key.

mod changing;
mod check;
mod headers;
pub mod http;
pub mod limits;
mod reading;
mod receiving;
pub mod schema;
mod sharing;
pub mod store;
mod sweep;
mod telling;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::files::{
    CancelUpload, DeleteFile, FileEntry, FileReaders, FileStatus, FinishUpload, GetFile, GrantFileAccess, ListFiles,
    Request, RevokeFileAccess, StartUpload, UploadStatus,
};
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use claudemesh_protocol::time::iso;

use self::store::{EVERYONE, Opened, Refused, Viewer, member_reader};
pub use self::telling::Telling;
use crate::blobs::{BlobError, Blobs};
use crate::db::{Db, DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::quota::{Quota, Quotas};
use crate::refusal::Refusal;

/// The feature.
pub struct Files;

impl Feature for Files {
    const NAME: &'static str = "files";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = Telling;

    async fn load(storage: &MeshDb) -> Result<Telling, DbError> {
        Ok(Telling::new(store::next_end(storage).await?))
    }

    fn started(memory: &mut Telling, cx: &mut MeshContext<'_>) {
        memory.arm(cx);
    }

    fn handle(memory: &mut Telling, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::StartUpload(request) => Self::answer::<StartUpload>(sharing::start(memory, cx, request)),
            Request::UploadStatus(request) => Self::answer::<UploadStatus>(sharing::status(cx, request)),
            Request::FinishUpload(request) => Self::answer::<FinishUpload>(sharing::finish(cx, request)),
            Request::CancelUpload(request) => Self::answer::<CancelUpload>(sharing::cancel(cx, request)),
            Request::GetFile(request) => Self::answer::<GetFile>(reading::get(cx, request)),
            Request::ListFiles(request) => Self::answer::<ListFiles>(reading::list(cx, request)),
            Request::FileStatus(request) => Self::answer::<FileStatus>(reading::status(cx, request)),
            Request::DeleteFile(request) => Self::answer::<DeleteFile>(changing::delete(cx, request)),
            Request::GrantFileAccess(request) => Self::answer::<GrantFileAccess>(changing::grant(cx, request)),
            Request::RevokeFileAccess(request) => Self::answer::<RevokeFileAccess>(changing::revoke(cx, request)),
            Request::FileReaders(request) => Self::answer::<FileReaders>(reading::readers(cx, request)),
        }
    }

    fn on_event(memory: &mut Telling, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        if let MeshEvent::Attached { peer, .. } = event {
            memory.owner_is_here(cx, *peer);
        }
    }

    fn on_wake(memory: &mut Telling, cx: &mut MeshContext<'_>, key: &str) {
        memory.woken(cx, key);
    }

    async fn describe_stored(
        storage: &MeshDb,
        member: &MemberId,
        quotas: &Quotas,
        info: &mut MeshInfoResult,
    ) -> Result<(), DbError> {
        let (mesh, own) = (store::usage(storage, None).await?, store::usage(storage, Some(member)).await?);
        info.file_count = u32::try_from(mesh.files - mesh.uploads).unwrap_or(0);
        let used = |number: i64| number.max(0).unsigned_abs();
        info.limits.extend([
            quotas.bound(&limits::PER_MESH, used(mesh.files)),
            quotas.bound(&limits::PER_MEMBER, used(own.files)),
            quotas.bound(&limits::BYTES_PER_MESH, used(mesh.bytes)),
            quotas.bound(&limits::BYTES_PER_MEMBER, used(own.bytes)),
            quotas.bound(&limits::UPLOADS_PER_MEMBER, used(own.uploads)),
        ]);
        Ok(())
    }

    async fn due(db: &Db, until_ms: i64) -> Result<Vec<MeshId>, DbError> {
        store::meshes_due(db, until_ms).await
    }

    async fn sweep(db: &Db, blobs: &Blobs) -> Result<usize, BlobError> {
        sweep::run(db, blobs).await
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Limit(bound) => bound.into(),
            Refused::Missing => Self::new(ErrorCode::NotFound, "file not found"),
            Refused::NotFor => Self::new(ErrorCode::Forbidden, "file not targeted at you"),
            Refused::NoKey(_) => Self::new(ErrorCode::NoFileKey, "no decryption key for this file"),
            Refused::Foreign => Self::new(
                ErrorCode::Forbidden,
                format!(
                    "only the file owner can do this; for files of others it needs the capability {}",
                    Capability::CanManageFiles.as_str()
                ),
            ),
            Refused::Incomplete => Self::new(ErrorCode::UploadIncomplete, "bytes of the upload are missing"),
            Refused::Offset(at) => Self::new(ErrorCode::OffsetMismatch, format!("the upload goes on at {at}")),
            Refused::OtherHash => Self::new(ErrorCode::HashMismatch, "the file was finished with another hash"),
            Refused::OfOwner => Self::new(ErrorCode::Invalid, "the owner of a file can always read it"),
            Refused::KeyWanted => check::invalid("`sealedKey`: expected the file's key, sealed for `peerPubkey`"),
            Refused::NotSealed => check::invalid("`sealedKey`: the file is not sealed, so it has no key"),
            Refused::TooMany(what) => Self::new(ErrorCode::Limit, format!("the file has too many {what}")),
        }
    }
}

/// A member as it looks at files.
fn viewer_of(cx: &MeshContext<'_>, member: &MemberId) -> Viewer {
    let roster = cx.roster();
    let mut readers = vec![EVERYONE.to_owned(), member_reader(member)];
    let sessions = roster.of_member(member).iter().filter_map(|at| roster.get(*at));
    for group in roster.groups_of(member).iter().chain(sessions.flat_map(|peer| &peer.groups)) {
        // A group is meant by its own name and by those above it.
        let levels: Vec<&str> = group.name.split('/').collect();
        for count in 1..=levels.len() {
            let reader = format!("@{}", levels[..count].join("/"));
            if !readers.contains(&reader) {
                readers.push(reader);
            }
        }
    }
    let keys = roster.member(member).map(|member| member.pubkey.to_hex()).into_iter().collect();
    Viewer { member: member.to_string(), readers, keys, manages: false }
}

/// The caller as it looks at files.
fn viewer(cx: &MeshContext<'_>) -> Result<Viewer, Refusal> {
    let asker = cx.asker()?;
    let mut viewer = viewer_of(cx, &asker.member);
    // A command at the shell of a session acts for it, and has no key of its own.
    let session = asker.acts_for.and_then(|at| cx.roster().get(at)).unwrap_or(asker);
    if let Some(key) = session.session_key {
        viewer.keys.insert(0, key.to_hex());
    }
    viewer.manages = cx.may(Capability::CanManageFiles)?;
    Ok(viewer)
}

/// A file as the wire shows it.
fn entry(opened: Opened) -> FileEntry {
    let Opened { row, sealed } = opened;
    let (sealed_for, sealed_key) = sealed.map_or((None, None), |(key, sealed)| (PublicKey::parse(&key), Some(sealed)));
    FileEntry {
        size: row.size(),
        tags: row.tags(),
        encrypted: row.encryption.is_some(),
        uploaded_at: iso(row.ready_at_ms.unwrap_or(row.created_at_ms)),
        id: row.id.into(),
        name: row.name,
        uploaded_by: row.owner_id.into(),
        persistent: row.persistent,
        uploader: row.owner_name,
        expires_at: row.expires_at_ms.map(iso),
        sha256: row.sha256.unwrap_or_default(),
        content_type: row.content_type,
        encryption: row.encryption,
        sealed_meta: row.sealed_meta,
        sealed_key,
        sealed_for,
    }
}

/// Removes objects whose rows are gone. What cannot be removed now is removed by the sweep.
async fn discard(blobs: &Blobs, objects: Vec<String>) {
    let count = objects.len();
    if let Err(error) = blobs.remove(objects).await {
        tracing::warn!(count, error = %error, "bytes of a file could not be removed; the sweep does it");
    }
}
