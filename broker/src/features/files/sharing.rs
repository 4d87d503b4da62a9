//! Uploads as frames: begin, look, finish, give up.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::files::limits::UPLOAD_URL_S;
use claudemesh_protocol::features::files::{
    CancelUpload, FinishUpload, SHARED, StartUpload, UploadCancelled, UploadFinished, UploadStarted, UploadStatus,
};
use claudemesh_protocol::id::{FileId, MemberId};
use claudemesh_protocol::time::iso;

use super::store::{self, Finished, Finishing, New, Opened, Refused, Removal, Row, Why};
use super::telling::{News, Telling};
use super::{Files, check, discard, entry, limits};
use crate::blobs::tickets::{Purpose, Subject};
use crate::journal::WriteError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::refusal::Refusal;

/// What the URL of an upload is made of; the answer is made after storage was asked.
struct Place {
    base: String,
    ticket_until_ms: i64,
    member: MemberId,
}

impl Place {
    fn of(cx: &MeshContext<'_>) -> Result<Self, Refusal> {
        let asker = cx.asker()?;
        let base = cx.blobs().base_url(asker.reached_at.as_deref());
        let ticket_until_ms = cx.now_ms().saturating_add(UPLOAD_URL_S as i64 * 1_000);
        Ok(Self { base, ticket_until_ms, member: asker.member.clone() })
    }

    fn started(&self, cx: &MeshContext<'_>, row: &Row) -> UploadStarted {
        let (mesh, file_id) = (cx.mesh_id(), FileId::from(row.id.as_str()));
        let about = Subject { purpose: Purpose::Upload, mesh, file: &file_id };
        let ticket = cx.blobs().tickets.issue(about, &self.member, self.ticket_until_ms);
        UploadStarted {
            offset: row.received(),
            size: row.size(),
            url: format!("{}/upload/{file_id}?mesh={mesh}&ticket={ticket}", self.base),
            url_expires_at: iso(self.ticket_until_ms),
            finished: row.ready_at_ms.is_some(),
            file_id,
        }
    }
}

pub(super) fn start(
    memory: &mut Telling,
    cx: &mut MeshContext<'_>,
    request: StartUpload,
) -> Result<Outcome<UploadStarted>, Refusal> {
    let quotas = cx.limits().quotas.clone();
    quotas.fits(&limits::BYTES_PER_FILE, usize::try_from(request.size).unwrap_or(usize::MAX))?;
    let id = FileId::random(&mut rand::rngs::OsRng).to_string();
    let checked = check::upload(cx, request, id)?;
    let place = Place::of(cx)?;
    cx.count_write(&limits::SHARES_PER_MINUTE, Some(&place.member))?;
    // An upload that no one goes on with ends by itself.
    let given_up_ms = cx.believed_ms().saturating_add(store::UPLOAD_IDLE_MS);
    memory.ends_by(cx, given_up_ms);
    let new = New { row: checked.row, readers: checked.audience.readers, keys: checked.keys, quotas };
    let (storage, lane) = (cx.storage(), cx.own_lane::<Files>());
    let slow = async move { store::start(&storage, new).await };
    Ok(Files::work_in(lane, slow, move |_, cx, row| Ok(Outcome::Answer(place.started(cx, &row)))))
}

pub(super) fn status(cx: &mut MeshContext<'_>, request: UploadStatus) -> Result<Outcome<UploadStarted>, Refusal> {
    let place = Place::of(cx)?;
    let (storage, lane, member) = (cx.storage(), cx.own_lane::<Files>(), place.member.clone());
    let slow = async move {
        let found = store::upload(&storage, &request.file_id, &member).await?;
        found.ok_or(WriteError::Refused(Refused::Missing))
    };
    Ok(Files::work_in(lane, slow, move |_, cx, row| Ok(Outcome::Answer(place.started(cx, &row)))))
}

pub(super) fn finish(cx: &mut MeshContext<'_>, request: FinishUpload) -> Result<Outcome<UploadFinished>, Refusal> {
    let sha256 = request.sha256.to_ascii_lowercase();
    if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(check::invalid("`sha256`: expected 64 hex digits"));
    }
    let member = cx.asker()?.member.clone();
    let by = cx.member()?.display_name.clone();
    let finishing = Finishing { file: request.file_id, member, sha256, now_ms: cx.now_ms() };
    let (storage, blobs, lane) = (cx.storage(), cx.blobs(), cx.own_lane::<Files>());
    let slow = async move {
        match store::finish(&storage, finishing).await? {
            Finished::Ready(row, before) => Ok((row, before)),
            Finished::OtherHash(objects) => {
                discard(&blobs, objects).await;
                let message = "the bytes that arrived have another hash; the upload is gone";
                Err(Refusal::new(ErrorCode::HashMismatch, message))
            }
        }
    };
    Ok(Files::work_in::<_, Refusal, _>(lane, slow, move |memory, cx, (row, before)| {
        let file = entry(Opened { row: (*row).clone(), sealed: None });
        if !before {
            if let Some(ends) = row.expires_at_ms {
                memory.ends_by(cx, ends);
            }
            let news = News::of_file(cx, SHARED, &row, &by, Some(file.clone()));
            memory.tell(cx, news);
        }
        Ok(Outcome::Answer(UploadFinished { file }))
    }))
}

pub(super) fn cancel(cx: &mut MeshContext<'_>, request: CancelUpload) -> Result<Outcome<UploadCancelled>, Refusal> {
    let why = Why::Cancelled(cx.asker()?.member.clone());
    let (file_id, now_ms) = (request.file_id.clone(), cx.now_ms());
    let (storage, blobs, lane) = (cx.storage(), cx.blobs(), cx.own_lane::<Files>());
    let slow = async move {
        match store::remove(&storage, Removal { file: request.file_id, why, now_ms }).await {
            Ok(gone) => {
                discard(&blobs, gone.objects).await;
                Ok(true)
            }
            Err(WriteError::Refused(Refused::Missing)) => Ok(false),
            Err(error) => Err(error),
        }
    };
    Ok(Files::work_in(lane, slow, |_, _, found| Ok(Outcome::Answer(UploadCancelled { file_id, found }))))
}
