//! Looking at files: one, many, who read them, who may.

use std::time::Duration;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::files::limits as wire;
use claudemesh_protocol::features::files::{
    FileAccess, FileList, FileReader, FileReaders, FileReadersResult, FileStatus, FileStatusResult, FileUrl, GetFile,
    ListFiles,
};
use claudemesh_protocol::id::{FileId, MemberId};
use claudemesh_protocol::name::folded;
use claudemesh_protocol::time::iso;

use super::store::{self, Listing, Opened, Readers, Refused, member_reader, revoked_reader};
use super::{Files, check, entry, limits, viewer, viewer_of};
use crate::blobs::Blobs;
use crate::blobs::tickets::{Purpose, Subject};
use crate::journal::WriteError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::refusal::Refusal;

/// A URL of the bucket itself, when the operator wants such and the file is one object there.
async fn presigned(blobs: &Blobs, storage: &crate::db::MeshDb, opened: &Opened) -> Result<Option<String>, Refusal> {
    if !blobs.presigns() {
        return Ok(None);
    }
    let parts = store::parts(storage, &opened.row.id).await?;
    match parts.as_slice() {
        [one] => Ok(blobs.presigned(&one.object, Duration::from_secs(wire::DOWNLOAD_URL_S)).await?),
        _ => Ok(None),
    }
}

pub(super) fn get(cx: &mut MeshContext<'_>, request: GetFile) -> Result<Outcome<FileUrl>, Refusal> {
    let viewer = viewer(cx)?;
    let asker = cx.asker()?;
    let (member, name, older) = (asker.member.clone(), asker.name.clone(), asker.older);
    let base = cx.blobs().base_url(asker.reached_at.as_deref());
    cx.count_write(&limits::READS_PER_MINUTE, Some(&member))?;
    let until_ms = cx.now_ms().saturating_add(wire::DOWNLOAD_URL_S as i64 * 1_000);
    let about = Subject { purpose: Purpose::Download, mesh: cx.mesh_id(), file: &request.file_id };
    let ticket = cx.blobs().tickets.issue(about, &member, until_ms);
    let own = format!("{base}/download/{}?mesh={}&ticket={ticket}", request.file_id, cx.mesh_id());
    let (storage, blobs, lane, now_ms) = (cx.storage(), cx.blobs(), cx.own_lane::<Files>(), cx.now_ms());
    let file_id = request.file_id;
    let file = file_id.clone();
    let slow = async move {
        match store::open(&storage, file, viewer, name, now_ms).await {
            Ok(opened) => {
                let presigned = presigned(&blobs, &storage, &opened).await?;
                Ok(Ok((opened, presigned)))
            }
            Err(WriteError::Refused(Refused::NoKey(row))) => Ok(Err(row)),
            Err(error) => Err(Refusal::from(error)),
        }
    };
    Ok(Files::work_in::<_, Refusal, _>(lane, slow, move |memory, cx, found| {
        let (opened, presigned) = match found {
            Ok(found) => found,
            Err(row) => {
                if row.regrant {
                    memory.wants_key(cx, &row, &member);
                }
                let refusal = Refusal::from(Refused::NoKey(row));
                let code = if older { ErrorCode::Forbidden } else { refusal.code };
                return Err(Refusal { code, ..refusal });
            }
        };
        let file = entry(opened);
        Ok(Outcome::Answer(FileUrl {
            file_id,
            presigned: presigned.is_some(),
            url: presigned.unwrap_or(own),
            name: file.name.clone(),
            encrypted: file.encrypted,
            sealed_key: file.sealed_key.clone(),
            url_expires_at: (!older).then(|| iso(until_ms)),
            file: (!older).then_some(file),
        }))
    }))
}

/// Time and id of the last row of a page.
fn behind(cursor: &str) -> Option<(i64, String)> {
    let (at, id) = cursor.split_once('-')?;
    let fine = !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fine.then_some(())?;
    Some((at.parse().ok()?, id.to_owned()))
}

/// The members that `from` of a list may mean: by id, name or key. One that is gone is meant by its id.
fn sharers(cx: &MeshContext<'_>, text: &str) -> Vec<String> {
    let name = folded(text);
    let named = cx.roster().members().filter(|member| folded(&member.display_name) == name);
    let mut found: Vec<String> = named.map(|member| member.id.to_string()).collect();
    if let Ok((member, _)) = check::member_called(cx, text) {
        found.push(member.to_string());
    }
    found.push(text.to_owned());
    found
}

pub(super) fn list(cx: &mut MeshContext<'_>, request: ListFiles) -> Result<Outcome<FileList>, Refusal> {
    let viewer = viewer(cx)?;
    if request.all {
        cx.require(Capability::CanManageFiles)?;
    }
    let query = request.query.filter(|query| !query.is_empty());
    if query.as_ref().is_some_and(|query| query.len() > wire::MAX_QUERY_BYTES) {
        return Err(check::invalid(format!("`query`: expected at most {} bytes", wire::MAX_QUERY_BYTES)));
    }
    check::check_tags(request.tag.as_slice())?;
    let wrong_cursor = || check::invalid("`cursor`: expected `next` of the page before");
    let behind = request.cursor.map(|cursor| behind(&cursor).ok_or_else(wrong_cursor)).transpose()?;
    let listing = Listing {
        query: query.map(|query| query.to_lowercase()),
        from: request.from.filter(|from| !from.is_empty()).map(|from| sharers(cx, &from)),
        tag: request.tag,
        all: request.all,
        behind,
        limit: request.limit.unwrap_or(wire::MAX_PAGE).clamp(1, wire::MAX_PAGE),
        now_ms: cx.now_ms(),
    };
    let (storage, lane) = (cx.storage(), cx.own_lane::<Files>());
    let slow = async move { store::list(&storage, &viewer, &listing).await };
    Ok(Files::work_in(lane, slow, |_, _, page| {
        let last = page.files.last().map(|last| (last.row.ready_at_ms.unwrap_or(0), last.row.id.clone()));
        let next = last.filter(|_| page.more).map(|(at, id)| format!("{at}-{id}"));
        Ok(Outcome::Answer(FileList { files: page.files.into_iter().map(entry).collect(), next }))
    }))
}

pub(super) fn status(cx: &mut MeshContext<'_>, request: FileStatus) -> Result<Outcome<FileStatusResult>, Refusal> {
    let viewer = viewer(cx)?;
    let (storage, lane, now_ms, file_id) = (cx.storage(), cx.own_lane::<Files>(), cx.now_ms(), request.file_id);
    let file = file_id.clone();
    let slow = async move { store::accesses(&storage, &file, &viewer, now_ms).await };
    Ok(Files::work_in(lane, slow, |_, _, found| {
        let access = |access: store::Access| FileAccess {
            peer_name: access.peer_name,
            accessed_at: iso(access.accessed_at_ms),
            member_id: access.member_id,
        };
        Ok(Outcome::Answer(FileStatusResult { file_id, accesses: found.into_iter().map(access).collect() }))
    }))
}

pub(super) fn readers(cx: &mut MeshContext<'_>, request: FileReaders) -> Result<Outcome<FileReadersResult>, Refusal> {
    let viewer = viewer(cx)?;
    let (storage, lane, now_ms) = (cx.storage(), cx.own_lane::<Files>(), cx.now_ms());
    let (file_id, cursor) = (request.file_id, request.cursor);
    let file = file_id.clone();
    let slow = async move { store::readers(&storage, &file, &viewer, now_ms).await };
    Ok(Files::work_in(lane, slow, move |_, cx, found| Ok(Outcome::Answer(page_of(cx, file_id, &found, cursor)))))
}

/// The members that a file is for, those of its groups included, by id behind one.
fn page_of(cx: &MeshContext<'_>, file_id: FileId, found: &Readers, cursor: Option<String>) -> FileReadersResult {
    let behind = cursor.unwrap_or_default();
    let mut meant: Vec<MemberId> = cx
        .roster()
        .members()
        .filter(|member| member.revoked_at_ms.is_none() && member.id.as_str() > behind.as_str())
        .filter(|member| {
            let named = found.readers.contains(&revoked_reader(&member.id)) || member.id.as_str() == found.row.owner_id;
            named || viewer_of(cx, &member.id).readers.iter().any(|reader| found.readers.contains(reader))
        })
        .map(|member| member.id.clone())
        .collect();
    meant.sort_unstable();
    let more = meant.len() > wire::MAX_READERS_PAGE as usize;
    meant.truncate(wire::MAX_READERS_PAGE as usize);
    let next = meant.last().filter(|_| more).map(MemberId::to_string);
    let reader = |id: MemberId| {
        let member = cx.roster().member(&id)?;
        let key = member.pubkey.to_hex();
        Some(FileReader {
            has_key: found.keys.iter().any(|(_, pubkey)| *pubkey == key),
            revoked: found.readers.contains(&revoked_reader(&id)),
            name: member.display_name.clone(),
            pubkey: member.pubkey,
            member_id: id,
        })
    };
    let shown = |reader: &String| {
        if reader.starts_with('!') {
            return None;
        }
        let member = cx.roster().members().find(|member| member_reader(&member.id) == *reader);
        match (reader.strip_prefix("m:"), member) {
            (None, _) => Some(reader.clone()),
            (Some(_), member) => member.map(|member| member.pubkey.to_hex()),
        }
    };
    FileReadersResult {
        file_id,
        targets: found.readers.iter().filter_map(shown).collect(),
        readers: meant.into_iter().filter_map(reader).collect(),
        next,
    }
}
