//! Changing who may read a file, and deleting it.

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::features::files::limits::MAX_SEALED_KEY_CHARS;
use claudemesh_protocol::features::files::{
    DELETED, DeleteFile, FileAccessRevoked, GRANTED, GrantFileAccess, GrantFileAccessOk, REVOKED, RevokeFileAccess,
};
use claudemesh_protocol::features::messaging::Ack;

use super::store::{self, Grant, Granted, Opened, Removal, Revocation, Why};
use super::telling::News;
use super::{Files, check, discard, entry, limits, viewer, viewer_of};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::refusal::Refusal;

pub(super) fn delete(cx: &mut MeshContext<'_>, request: DeleteFile) -> Result<Outcome<Nothing>, Refusal> {
    let viewer = viewer(cx)?;
    let (member, by) = (cx.asker()?.member.clone(), cx.member()?.display_name.clone());
    cx.count_write(&limits::CHANGES_PER_MINUTE, Some(&member))?;
    let removal = Removal { file: request.file_id, why: Why::Deleted(member, viewer.manages), now_ms: cx.now_ms() };
    // Clients of before read the acknowledgement of a message in answer.
    let older = cx.reply_to().filter(|_| !cx.wants_confirmation());
    let (storage, blobs, lane) = (cx.storage(), cx.blobs(), cx.own_lane::<Files>());
    let slow = async move {
        let mut gone = store::remove(&storage, removal).await?;
        discard(&blobs, std::mem::take(&mut gone.objects)).await;
        Ok(gone)
    };
    Ok(Files::work_in::<_, Refusal, _>(lane, slow, move |memory, cx, gone| {
        let news = News::of_readers(cx, DELETED, &gone.row, gone.readers, &by);
        memory.tell(cx, news);
        if let Some(to) = older {
            let id = to.id.as_deref().unwrap_or(&gone.row.id).to_owned();
            let ack = Ack { id, message_id: gone.row.id.clone(), ..Ack::default() };
            cx.reply(&to, &ack.into());
            return Ok(Outcome::Silent);
        }
        Ok(Outcome::Answer(Nothing {}))
    }))
}

pub(super) fn grant(cx: &mut MeshContext<'_>, request: GrantFileAccess) -> Result<Outcome<GrantFileAccessOk>, Refusal> {
    let (viewer, own, by) = (viewer(cx)?, cx.asker()?.member.clone(), cx.member()?.display_name.clone());
    if let Some(sealed) = &request.sealed_key {
        check::check_sealed("sealedKey", sealed, MAX_SEALED_KEY_CHARS)?;
    }
    let (member, pubkey) = check::key_of(cx, &request.peer_pubkey)?;
    cx.count_write(&limits::CHANGES_PER_MINUTE, Some(&own))?;
    let grant = Grant {
        file: request.file_id.clone(),
        by: viewer,
        member: member.clone(),
        pubkey,
        sealed_key: request.sealed_key,
        now_ms: cx.now_ms(),
    };
    let (storage, lane) = (cx.storage(), cx.own_lane::<Files>());
    let slow = async move { store::grant(&storage, grant).await };
    Ok(Files::work_in(lane, slow, move |memory, cx, Granted { row, changed }| {
        memory.has_key(&row.id, &member);
        if changed {
            let file = entry(Opened { row: row.clone(), sealed: None });
            let news = News::of_member(cx, GRANTED, &row, member, &by, Some(file));
            memory.tell(cx, news);
        }
        Ok(Outcome::Answer(GrantFileAccessOk { file_id: request.file_id, peer_pubkey: request.peer_pubkey }))
    }))
}

pub(super) fn revoke(
    cx: &mut MeshContext<'_>,
    request: RevokeFileAccess,
) -> Result<Outcome<FileAccessRevoked>, Refusal> {
    let (viewer, own, by) = (viewer(cx)?, cx.asker()?.member.clone(), cx.member()?.display_name.clone());
    let (member, _) = check::key_of(cx, &request.peer_pubkey)?;
    cx.count_write(&limits::CHANGES_PER_MINUTE, Some(&own))?;
    let revocation =
        Revocation { file: request.file_id.clone(), by: viewer, from: viewer_of(cx, &member), now_ms: cx.now_ms() };
    let (storage, lane) = (cx.storage(), cx.own_lane::<Files>());
    let slow = async move { store::revoke(&storage, revocation).await };
    Ok(Files::work_in(lane, slow, move |memory, cx, (row, could_read)| {
        memory.has_key(&row.id, &member);
        if could_read {
            let news = News::of_member(cx, REVOKED, &row, member, &by, None);
            memory.tell(cx, news);
        }
        let (file_id, peer_pubkey) = (request.file_id, request.peer_pubkey);
        Ok(Outcome::Answer(FileAccessRevoked { file_id, peer_pubkey, could_read }))
    }))
}
