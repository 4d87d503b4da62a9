//! The bytes of files over HTTP: uploads in parts, downloads with ranges, and the route of the existing system for a file in one
//! request. `docs/files.md` is the contract.

use std::ops::Range;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::files::signing::{CONTENT_HEADER, upload_digest};
use claudemesh_protocol::features::files::{CancelUpload, FinishUpload, GetFile, UploadProgress, Uploaded};
use claudemesh_protocol::id::{FileId, MemberId, MeshId};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use super::headers::{announced, asked, disposition, header, length, range};
use super::receiving::{Announced, Broken, Target, receive};
use super::store::{self, Part, Row};
use super::{check, limits};
use crate::blobs::tickets::{Purpose, Subject};
use crate::blobs::transfers::Counted;
use crate::db::members;
use crate::http::auth::Signed;
use crate::http::caller::{Caller, live};
use crate::http::{AppState, State, to_the_end};
use crate::refusal::Refusal;

const UPLOAD_OFFSET: &str = "upload-offset";
const UPLOAD_LENGTH: &str = "upload-length";
const UPLOAD_COMPLETE: &str = "upload-complete";

type Answer = Result<HttpResponse, Refusal>;

crate::routes! {
    post "/upload" => upload_at_once, open;
    head "/upload/{file}" => offset, open;
    patch "/upload/{file}" => append, open;
    get "/download/{file}" => download, open;
}

/// None of these routes is for API keys.
pub const OPERATIONS: &[crate::http::openapi::Operation] = &[];

/// What URLs of files carry.
#[derive(Deserialize)]
struct Query {
    #[serde(default)]
    mesh: String,
    ticket: Option<String>,
}

/// The live member that a ticket was issued to.
async fn bearer(
    state: &AppState,
    purpose: Purpose,
    query: &Query,
    file: &FileId,
) -> Result<(MeshId, MemberId), Refusal> {
    let mesh = MeshId::from(query.mesh.as_str());
    let refused = || Refusal::new(ErrorCode::Unauthorized, "the ticket of this URL is missing, wrong or too old");
    let about = Subject { purpose, mesh: &mesh, file };
    let ticket = query.ticket.as_deref().ok_or_else(refused)?;
    let member = state.blobs.tickets.check(about, ticket, state.clock.now_ms()).ok_or_else(refused)?;
    live(state, &mesh).await?;
    let found = members::load(&state.storage(&mesh), &member).await?.ok_or_else(refused)?;
    if found.revoked_at_ms.is_some() {
        return Err(ErrorCode::Revoked.into());
    }
    Ok((mesh, member))
}

/// Counts a transfer of a member.
fn counted(state: &AppState, mesh: &MeshId, member: &MemberId) -> Result<Counted, Refusal> {
    let quotas = state.config.effective_limits().quotas;
    let most = quotas.value(&limits::TRANSFERS_PER_MEMBER);
    let counted = state.blobs.transfers.count(mesh, member, most);
    counted.map_err(|used| quotas.bound(&limits::TRANSFERS_PER_MEMBER, used).into())
}

/// The upload of a member, and the right to write it.
async fn target(state: &AppState, mesh: &MeshId, member: &MemberId, file: &FileId) -> Result<Target, Refusal> {
    let storage = state.storage(mesh);
    let missing =
        || Refusal::new(ErrorCode::NotFound, "there is no such upload; it was finished, cancelled or given up");
    let unfinished = |row: &Row| row.ready_at_ms.is_none();
    // Before another transfer is stopped for it, and again after that: it has gone on meanwhile.
    store::upload(&storage, file, member).await?.filter(unfinished).ok_or_else(missing)?;
    let turn = state.blobs.transfers.take_over(file).await?;
    let row = store::upload(&storage, file, member).await?.filter(unfinished).ok_or_else(missing)?;
    Ok(Target { storage, blobs: state.blobs.clone(), clock: state.clock.clone(), row, turn })
}

fn number(value: u64) -> HeaderValue {
    HeaderValue::from(value)
}

fn flag(value: bool) -> HeaderValue {
    HeaderValue::from_static(if value { "?1" } else { "?0" })
}

async fn offset(state: State, path: web::Path<String>, query: web::Query<Query>) -> Answer {
    let file = FileId::from(path.into_inner());
    let (mesh, member) = bearer(&state, Purpose::Upload, &query, &file).await?;
    let row = target(&state, &mesh, &member, &file).await?.row;
    Ok(HttpResponse::Ok()
        .insert_header((UPLOAD_OFFSET, number(row.received())))
        .insert_header((UPLOAD_LENGTH, number(row.size())))
        .insert_header((UPLOAD_COMPLETE, flag(row.sha256.is_some())))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish())
}

async fn append(
    state: State,
    request: HttpRequest,
    path: web::Path<String>,
    query: web::Query<Query>,
    body: web::Payload,
) -> Answer {
    let file = FileId::from(path.into_inner());
    let (mesh, member) = bearer(&state, Purpose::Upload, &query, &file).await?;
    let announced = announced(request.headers())?;
    let counted = counted(&state, &mesh, &member)?;
    // What arrived is stored also when the client goes away.
    to_the_end(async move {
        let target = target(&state, &mesh, &member, &file).await?;
        let received = receive(target, body, announced).await;
        drop(counted);
        match received {
            Ok(progress) => Ok(HttpResponse::Ok()
                .insert_header((UPLOAD_OFFSET, number(progress.offset)))
                .insert_header((UPLOAD_COMPLETE, flag(progress.complete)))
                .json(progress)),
            Err(broken) => Ok(told(&mesh, &broken)),
        }
    })
    .await
}

/// A failure with the offset at which the upload goes on.
fn told(mesh: &MeshId, Broken { refusal, offset }: &Broken) -> HttpResponse {
    refusal.log(Some(mesh), "PATCH /upload/{file}");
    let mut response = refusal.error_response();
    if let Some(offset) = offset {
        response.headers_mut().insert(HeaderName::from_static(UPLOAD_OFFSET), number(*offset));
    }
    response
}

async fn upload_at_once(state: State, request: HttpRequest, body: web::Payload) -> Answer {
    let headers = request.headers();
    let content = header(headers, CONTENT_HEADER).unwrap_or_default().to_owned();
    // Who asks comes first: to someone without a signature nothing else is told.
    let signed = Signed::over_digest(&state, &request, &upload_digest(&content, |name| header(headers, name)))?;
    let missing = || check::invalid("X-Mesh-Id, X-Member-Id, and X-File-Name headers required");
    let mesh = MeshId::from(header(headers, "x-mesh-id").ok_or_else(missing)?);
    let claimed = header(headers, "x-member-id").ok_or_else(missing)?.to_owned();
    header(headers, "x-file-name").ok_or_else(missing)?;
    if content.len() != 64 {
        return Err(check::invalid("`X-Claudemesh-Content-Sha256`: expected the SHA-256 of the body, 64 hex digits"));
    }
    let caller = Caller::signed(&state, &mesh, signed, Capability::CanWriteState).await?;
    if claimed != caller.member.id.as_str() && claimed != caller.mesh.slug {
        return Err(Refusal::new(ErrorCode::MemberIdMismatch, "`X-Member-Id` is not the member that signed"));
    }
    let start = asked(headers, length(headers)?)?;
    let counted = counted(&state, &mesh, &caller.member.id)?;
    to_the_end(async move {
        let member = caller.member.id.clone();
        let started = state.directory.request(&mesh, caller.principal(), start).await?;
        let file = started.file_id;
        let target = target(&state, &mesh, &member, &file).await?;
        let received = receive(target, body, Announced { offset: 0, complete: true }).await;
        drop(counted);
        if let Err(refusal) = whole(received) {
            // No one can go on with it.
            let _ = state.directory.request(&mesh, caller.principal(), CancelUpload { file_id: file }).await;
            return Err(refusal);
        }
        let finish = FinishUpload { file_id: file.clone(), sha256: content };
        state.directory.request(&mesh, caller.principal(), finish).await?;
        Ok(HttpResponse::Ok().json(Uploaded { ok: true, file_id: file }))
    })
    .await
}

/// Fails unless all bytes are there.
fn whole(received: Result<UploadProgress, Broken>) -> Result<(), Refusal> {
    match received {
        Ok(progress) if progress.complete => Ok(()),
        Ok(_) => Err(Refusal::new(ErrorCode::UploadIncomplete, "the body ended early")),
        Err(broken) => Err(broken.refusal),
    }
}

/// Who reads: the bearer of a ticket, or a member that signed. What the member may read is decided as for `get_file`.
async fn reader(
    state: &AppState,
    request: &HttpRequest,
    query: &Query,
    file: &FileId,
) -> Result<(MeshId, MemberId), Refusal> {
    if query.ticket.is_some() || header(request.headers(), claudemesh_protocol::crypto::http::KEY_HEADER).is_none() {
        return bearer(state, Purpose::Download, query, file).await;
    }
    let signed = Signed::over_digest(state, request, &sha256_hex(b""))?;
    let mesh = MeshId::from(query.mesh.as_str());
    let caller = Caller::signed(state, &mesh, signed, Capability::CanReadShared).await?;
    state.directory.request(&mesh, caller.principal(), GetFile { file_id: file.clone() }).await?;
    Ok((mesh, caller.member.id))
}

async fn download(state: State, request: HttpRequest, path: web::Path<String>, query: web::Query<Query>) -> Answer {
    let file = FileId::from(path.into_inner());
    let (mesh, member) = reader(&state, &request, &query, &file).await?;
    let storage = state.storage(&mesh);
    let row = store::readable(&storage, &file, &member, state.clock.now_ms()).await?;
    let row = row.ok_or_else(|| Refusal::new(ErrorCode::NotFound, "file not found"))?;
    let etag = format!("\"{}\"", row.sha256.as_deref().unwrap_or_default());
    let asked = match range(request.headers(), row.size(), &etag) {
        Ok(asked) => asked,
        Err(refusal) => {
            let mut response = refusal.error_response();
            let whole = HeaderValue::from_str(&format!("bytes */{}", row.size()));
            response.headers_mut().insert(header::CONTENT_RANGE, whole.unwrap_or(number(0)));
            return Ok(response);
        }
    };
    let counted = counted(&state, &mesh, &member)?;
    let parts = store::parts(&storage, &row.id).await?;
    let mut response = HttpResponse::build(if asked.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK });
    if let Some(range) = &asked {
        let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, row.size());
        response.insert_header((header::CONTENT_RANGE, shown));
    }
    let wanted = asked.unwrap_or(0..row.size());
    response
        .insert_header((header::CONTENT_TYPE, row.content_type.as_deref().unwrap_or("application/octet-stream")))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::ETAG, etag))
        .insert_header((header::CONTENT_DISPOSITION, disposition(&row.name)))
        .insert_header((header::CACHE_CONTROL, "private, max-age=60"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    let body = bytes(&state, parts, wanted.clone(), counted);
    Ok(response.body(actix_web::body::SizedStream::new(wanted.end - wanted.start, body)))
}

/// The bytes of a range, part after part. The transfer counts until the last one is sent or the client is gone.
fn bytes(
    state: &AppState,
    parts: Vec<Part>,
    wanted: Range<u64>,
    counted: Counted,
) -> impl futures_util::Stream<Item = Result<bytes::Bytes, actix_web::Error>> + use<> {
    let blobs = state.blobs.clone();
    let pieces = parts.into_iter().filter_map(move |part| {
        let (start, size) = (part.start_at.max(0).unsigned_abs(), part.size_bytes.max(0).unsigned_abs());
        let (from, to) = (wanted.start.max(start), wanted.end.min(start + size));
        (from < to).then(|| (part.object, from - start..to - start))
    });
    let read = move |(object, range): (String, Range<u64>)| blobs.read(&object, range);
    let all = stream::iter(pieces).map(read).flatten();
    let all = all.inspect_err(|error| tracing::warn!(error = %error, "a download broke off"));
    // The guard lives as long as the stream.
    all.map(move |piece| {
        let _ = &counted;
        piece.map_err(|error| actix_web::Error::from(Refusal::from(error)))
    })
}
