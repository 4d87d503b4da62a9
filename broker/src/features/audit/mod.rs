//! The audit log for clients: reading it, verifying it, and its signed end. Writing it is the journal's.

#[cfg(test)]
mod tests;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::audit::{
    AuditEntry, AuditExport, AuditHeads, AuditHeadsResult, AuditPage, AuditQuery, AuditResult, AuditRow, AuditVerify,
    AuditVerifyResult, Request, SignedHead,
};
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::session::HelloAck;
use claudemesh_protocol::time::iso;
use serde_json::Value;

use crate::audit::{self, Filter, Head, MAX_PAGE};
use crate::db::members::Role;
use crate::db::{DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::PeerHandle;
use crate::refusal::Refusal;

/// Entries of a page, unless another number is asked for.
const USUAL_PAGE: u32 = 50;
/// Entries that one piece of work verifies: a second's worth.
const VERIFIED_IN_ONE_PIECE: i64 = 20_000;
/// Entries that may be skipped: storage walks over them.
const MAX_OFFSET: u32 = 10_000;

/// What is known of the chain.
#[derive(Default)]
pub struct AuditMemory {
    /// Its end when the mesh was loaded.
    loaded: Option<Head>,
}

/// The feature.
pub struct AuditLog;

impl Feature for AuditLog {
    const NAME: &'static str = "audit";
    type Request = Request;
    type Memory = AuditMemory;

    async fn load(storage: &MeshDb) -> Result<AuditMemory, DbError> {
        Ok(AuditMemory { loaded: Some(audit::head(storage).await?) })
    }

    fn handle(_: &mut AuditMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::AuditQuery(request) => Self::answer::<AuditQuery>(query(cx, request)),
            Request::AuditVerify(_) => {
                Self::answer::<AuditVerify>(Ok(verify(cx, Head::genesis(), VERIFIED_IN_ONE_PIECE)))
            }
            Request::AuditHeads(request) => Self::answer::<AuditHeads>(heads(cx, &request)),
            Request::AuditExport(request) => Self::answer::<AuditExport>(export(cx, &request)),
        }
    }

    fn greet(memory: &AuditMemory, cx: &MeshContext<'_>, _: PeerHandle, ack: &mut HelloAck) {
        let Some(head) = cx.audit_head().or_else(|| memory.loaded.clone()) else { return };
        // A struct of texts and numbers is always written.
        if let Ok(told) = serde_json::to_value(signed(cx, head, None)) {
            ack.features.insert(Self::NAME.to_owned(), told);
        }
    }
}

fn signed(cx: &MeshContext<'_>, head: Head, hash_at: Option<String>) -> AuditHeadsResult {
    let signed = cx.sign_head(head);
    let head =
        SignedHead { seq: signed.head.seq, hash: signed.head.hash, at: signed.at_ms, signature: signed.signature };
    AuditHeadsResult { key: cx.audit_key(), head, hash_at }
}

/// The caller, when it may not see what others did.
fn only(cx: &MeshContext<'_>) -> Result<Option<MemberId>, Refusal> {
    let own = cx.member()?;
    Ok((own.role < Role::Admin).then(|| own.id.clone()))
}

/// One reading of a member at a time: the log is long, and no one gets to read more of it at once than others.
fn lane(cx: &MeshContext<'_>) -> Result<String, Refusal> {
    Ok(format!("read {}", cx.member()?.id))
}

fn query(cx: &MeshContext<'_>, request: AuditQuery) -> Result<Outcome<AuditResult>, Refusal> {
    let skip = request.offset.unwrap_or(0);
    if skip > MAX_OFFSET {
        let message = format!("`offset`: expected at most {MAX_OFFSET}; `before` goes further back");
        return Err(Refusal::new(ErrorCode::InvalidArgs, message));
    }
    let limit = request.limit.unwrap_or(USUAL_PAGE).clamp(1, MAX_PAGE);
    let filter = Filter { event: request.event_type, actor: only(cx)?, before_seq: request.before, skip };
    let storage = cx.storage();
    let slow = async move {
        Ok::<_, DbError>((audit::query(&storage, &filter, limit).await?, audit::count(&storage, &filter).await?))
    };
    Ok(AuditLog::work(lane(cx)?, slow, |_, cx, (rows, total)| {
        let row = |row: audit::AuditEntry| AuditRow {
            id: row.seq,
            event_type: row.event_type,
            actor: row
                .actor_member_id
                .map(|id| cx.roster().member(&id).map_or_else(|| id.to_string(), |member| member.display_name.clone())),
            payload: serde_json::from_str(&row.payload).unwrap_or(Value::String(row.payload)),
            hash: row.hash,
            created_at: iso(row.created_at_ms),
        };
        Ok(Outcome::Answer(AuditResult { entries: rows.into_iter().map(row).collect(), total }))
    }))
}

/// One at a time in a mesh: it reads the whole chain, piece by piece, because one piece of work has a deadline.
fn verify(cx: &MeshContext<'_>, from: Head, piece: i64) -> Outcome<AuditVerifyResult> {
    let (storage, before) = (cx.storage(), from.seq);
    let slow = async move { audit::verify_on(&storage, from, piece).await };
    AuditLog::work("verify", slow, move |_, cx, found| {
        if found.broken_at.is_none() && found.head.seq - before >= piece {
            return Ok(verify(cx, found.head, piece));
        }
        let valid = found.broken_at.is_none();
        Ok(Outcome::Answer(AuditVerifyResult { valid, entries: found.entries, broken_at: found.broken_at }))
    })
}

fn heads(cx: &MeshContext<'_>, request: &AuditHeads) -> Result<Outcome<AuditHeadsResult>, Refusal> {
    let (storage, at) = (cx.storage(), request.at);
    let slow = async move {
        let hash_at = match at {
            Some(at) => audit::hash_at(&storage, at).await?,
            None => None,
        };
        Ok::<_, DbError>((audit::head(&storage).await?, hash_at))
    };
    Ok(AuditLog::work(lane(cx)?, slow, |_, cx, (head, hash_at)| Ok(Outcome::Answer(signed(cx, head, hash_at)))))
}

fn export(cx: &MeshContext<'_>, request: &AuditExport) -> Result<Outcome<AuditPage>, Refusal> {
    if only(cx)?.is_some() {
        return Err(Refusal::new(ErrorCode::Forbidden, "expected the role `admin` or above"));
    }
    let (after, limit) = (request.after.unwrap_or(0), request.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE));
    let storage = cx.storage();
    let slow = async move { audit::page(&storage, after, limit).await };
    Ok(AuditLog::work(lane(cx)?, slow, move |_, _, rows| {
        let full = rows.len() == limit as usize;
        let next = rows.last().filter(|_| full).map(|row| row.seq);
        let entry = |row: audit::AuditEntry| AuditEntry {
            seq: row.seq,
            prev_hash: row.prev_hash,
            hash: row.hash,
            event_type: row.event_type,
            actor: row.actor_member_id,
            payload: row.payload,
            created_at_ms: row.created_at_ms,
        };
        Ok(Outcome::Answer(AuditPage { entries: rows.into_iter().map(entry).collect(), next }))
    }))
}
