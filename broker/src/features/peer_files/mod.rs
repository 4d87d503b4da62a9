//! Peers' folders: relays requests and answers, and keeps neither.
//!
//! An answer counts once, and only from the very socket that was asked. Every file and list that is given has an entry in the audit
//! log before the one who asked gets it.

pub mod limits;
mod pending;
#[cfg(test)]
mod tests;

use bytestring::ByteString;
use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::members::Grant;
use claudemesh_protocol::features::peer_files::{
    Asker, PeerDirRequest, PeerDirRequestForward, PeerDirResponse, PeerDirResponseForward, PeerFileRequest,
    PeerFileRequestForward, PeerFileResponse, PeerFileResponseForward, Request, Sealed, ShareFolder, limits as wire,
};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::message::ServerMessage;
use serde_json::json;

use self::pending::{Kind, Named, PeerFilesMemory, Pending, Socket};
use crate::audit::{self, Audit};
use crate::mesh::context::{MeshContext, send_text};
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::{Lane, Outcome};
use crate::mesh::peers::{Peer, PeerHandle};
use crate::quota::Quota;
use crate::refusal::Refusal;

/// The feature.
pub struct PeerFiles;

impl Feature for PeerFiles {
    const NAME: &'static str = "peer_files";
    const QUOTAS: &'static [&'static Quota] =
        &[&limits::REQUESTS_PER_MINUTE, &limits::OPEN_PER_PEER, &limits::OPEN_PER_FOLDER, &limits::OPEN_PER_MESH];
    type Request = Request;
    type Memory = PeerFilesMemory;

    fn handle(memory: &mut PeerFilesMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::ShareFolder(request) => Self::answer::<ShareFolder>(share(memory, cx, request)),
            Request::PeerFileRequest(request) => {
                Self::answer::<PeerFileRequest>(ask(memory, cx, Wanted::of_file(request)).map(|()| Outcome::Silent))
            }
            Request::PeerDirRequest(request) => {
                Self::answer::<PeerDirRequest>(ask(memory, cx, Wanted::of_dir(request)).map(|()| Outcome::Silent))
            }
            Request::PeerFileResponse(response) => {
                Self::answer::<PeerFileResponse>(respond(memory, cx, Given::of_file(response)))
            }
            Request::PeerDirResponse(response) => {
                Self::answer::<PeerDirResponse>(respond(memory, cx, Given::of_dir(response)))
            }
        }
    }

    fn on_event(memory: &mut PeerFilesMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        if let MeshEvent::Detached { peer }
        | MeshEvent::Ended { peer, .. }
        | MeshEvent::Attached { peer, reattached: true, .. } = event
        {
            memory.gone(cx, *peer);
        }
    }

    fn on_wake(memory: &mut PeerFilesMemory, cx: &mut MeshContext<'_>, _: &str) {
        memory.expire(cx);
    }

    fn describe(memory: &PeerFilesMemory, cx: &MeshContext<'_>, info: &mut MeshInfoResult) {
        let own = cx.asker().map_or(PeerHandle::NONE, |peer| peer.handle);
        let quotas = &cx.limits().quotas;
        info.limits.push(quotas.bound(&limits::OPEN_PER_PEER, memory.open_of(own) as u64));
        info.limits.push(quotas.bound(&limits::OPEN_PER_MESH, memory.open() as u64));
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidArgs, message)
}

fn share(
    memory: &mut PeerFilesMemory,
    cx: &MeshContext<'_>,
    request: ShareFolder,
) -> Result<Outcome<Nothing>, Refusal> {
    memory.share(Socket::of(cx.peer()?), request.shared);
    Ok(Outcome::Answer(Nothing {}))
}

/// A request of either kind.
struct Wanted {
    kind: Kind,
    target: String,
    path: String,
    pattern: Option<String>,
    sealed: Option<Sealed>,
    wait_ms: Option<u64>,
}

impl Wanted {
    fn of_file(request: PeerFileRequest) -> Self {
        let PeerFileRequest { target_pubkey, file_path, sealed, wait_ms } = request;
        Self { kind: Kind::File, target: target_pubkey, path: file_path, pattern: None, sealed, wait_ms }
    }

    fn of_dir(request: PeerDirRequest) -> Self {
        let PeerDirRequest { target_pubkey, dir_path, pattern, sealed, wait_ms } = request;
        Self { kind: Kind::List, target: target_pubkey, path: dir_path, pattern, sealed, wait_ms }
    }

    /// How long the caller waits, in milliseconds.
    ///
    /// # Errors
    /// `invalid_args`
    fn check(&self) -> Result<u64, Refusal> {
        let plain = !self.path.is_empty() || self.pattern.is_some();
        if plain == self.sealed.is_some() {
            return Err(invalid("expected either a path or `sealed`"));
        }
        // Below the folder or not is for its owner to say; what no system knows is not passed on.
        if self.path.len() > wire::MAX_PATH_BYTES || self.path.contains('\0') {
            return Err(invalid(format!("expected a path of at most {} bytes without NUL", wire::MAX_PATH_BYTES)));
        }
        if self.pattern.as_ref().is_some_and(|pattern| pattern.chars().count() > wire::MAX_PATTERN_CHARS) {
            return Err(invalid(format!("`pattern`: expected at most {} characters", wire::MAX_PATTERN_CHARS)));
        }
        let wait_ms = self.wait_ms.unwrap_or(wire::USUAL_WAIT_MS);
        if !(wire::MIN_WAIT_MS..=wire::MAX_WAIT_MS).contains(&wait_ms) {
            return Err(invalid(format!("`wait_ms`: expected {} to {}", wire::MIN_WAIT_MS, wire::MAX_WAIT_MS)));
        }
        Ok(wait_ms)
    }

    /// The frame for the one who is asked.
    fn forward(self, host: &Peer, asker_key: &str, asker: Asker, id: &str, wait_ms: u64) -> String {
        let Self { kind, path, pattern, sealed, .. } = self;
        let requester_pubkey = asker_key.to_owned();
        let newer = !host.older;
        let (request_id, asker) = (newer.then(|| id.to_owned()), newer.then_some(asker));
        let wait_ms = newer.then_some(wait_ms);
        let event: ServerMessage = match kind {
            Kind::File => {
                PeerFileRequestForward { requester_pubkey, file_path: path, request_id, sealed, asker, wait_ms }.into()
            }
            Kind::List => {
                PeerDirRequestForward { requester_pubkey, dir_path: path, pattern, request_id, sealed, asker, wait_ms }
                    .into()
            }
        };
        event.write((!newer).then_some(id))
    }
}

/// Passes a request on. It is answered when the peer answers, when it goes away, or when the time is over.
fn ask(memory: &mut PeerFilesMemory, cx: &mut MeshContext<'_>, wanted: Wanted) -> Result<(), Refusal> {
    let wait_ms = wanted.check()?;
    let asking = cx.peer()?;
    let (asker, member, asker_key) = (asking.handle, asking.member.clone(), asking.key().to_hex());
    let name = asking.name.clone();
    cx.count_write(&limits::REQUESTS_PER_MINUTE, Some(&member))?;
    cx.within(&limits::OPEN_PER_PEER, memory.open_of(asker), 1)?;
    cx.within(&limits::OPEN_PER_MESH, memory.open(), 1)?;
    let host = host(memory, cx, &wanted.target)?;
    cx.within(&limits::OPEN_PER_FOLDER, memory.open_at(host.handle), 1)?;
    if wanted.sealed.is_some() && host.older {
        return Err(ErrorCode::PlainOnly.into());
    }
    let own = cx.member()?;
    granted(cx, host, own.pubkey, cx.peer()?.key())?;
    let by = Asker { member_pubkey: own.pubkey, name, member_name: own.display_name.clone() };
    let reply = cx.reply_to().ok_or_else(|| Refusal::new(ErrorCode::Invalid, "no one waits for the answer"))?;
    let id = uuid::Uuid::new_v4().simple().to_string();
    let one = Pending {
        kind: wanted.kind,
        asker,
        member,
        asker_key: asker_key.clone(),
        host: Socket::of(host),
        host_member: host.member.clone(),
        host_name: host.name.clone(),
        path: wanted.path.clone(),
        sealed: wanted.sealed.is_some(),
        reply,
        due_mono_ms: cx.mono_ms().saturating_add(i64::try_from(wait_ms).unwrap_or(i64::MAX)),
    };
    let frame = wanted.forward(host, &asker_key, by, &id, wait_ms);
    if !send_text(host, ByteString::from(frame)) {
        return Err(Refusal::new(ErrorCode::Busy, "the peer does not read; try again"));
    }
    memory.add(cx, id, one);
    Ok(())
}

/// The connection that is asked: of several the first that shares a folder, as all older ones do.
fn host<'a>(memory: &PeerFilesMemory, cx: &'a MeshContext<'_>, target: &str) -> Result<&'a Peer, Refusal> {
    let key = PublicKey::parse(target).ok_or_else(|| invalid("`targetPubkey`: expected 64 lower-case hex digits"))?;
    let (own, roster) = (cx.peer()?.handle, cx.roster());
    let of_member = roster.member_by_key(&key).map_or(&[][..], |member| roster.of_member(&member.id));
    let mut found: Vec<PeerHandle> = roster.with_key(&key).iter().chain(of_member).copied().collect();
    found.sort_unstable();
    let there: Vec<&Peer> = found.into_iter().filter_map(|at| roster.get(at)).collect();
    let mut there = there.into_iter().filter(|peer| peer.online() && !peer.ephemeral && peer.handle != own).peekable();
    if there.peek().is_none() {
        return Err(Refusal::new(ErrorCode::PeerNotFound, "target peer not connected"));
    }
    there.find(|peer| peer.older || memory.shares(peer)).ok_or_else(|| ErrorCode::NotShared.into())
}

/// An entry among the grants of the one who is asked must name files. Without an entry its user is asked.
fn granted(cx: &MeshContext<'_>, host: &Peer, member: PublicKey, session: PublicKey) -> Result<(), Refusal> {
    let Some(owner) = cx.roster().member(&host.member) else { return Ok(()) };
    let entry = owner.grants.get(&member).or_else(|| owner.grants.get(&session));
    if entry.is_none_or(|list| list.contains(&Grant::FileRead)) {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::BlockedByGrants, "the peer's grants for you have no `file-read`"))
}

/// An answer of either kind.
struct Given {
    kind: Kind,
    asker_key: String,
    path: String,
    id: Option<String>,
    content: Option<String>,
    entries: Option<Vec<String>>,
    error: Option<String>,
    code: Option<String>,
    sealed: Option<Sealed>,
    refused: bool,
}

impl Given {
    fn of_file(response: PeerFileResponse) -> Self {
        let PeerFileResponse { requester_pubkey, file_path, content, error, code, request_id, sealed, refused } =
            response;
        let (kind, entries) = (Kind::File, None);
        Self {
            kind,
            asker_key: requester_pubkey,
            path: file_path,
            id: request_id,
            content,
            entries,
            error,
            code,
            sealed,
            refused,
        }
    }

    fn of_dir(response: PeerDirResponse) -> Self {
        let PeerDirResponse { requester_pubkey, dir_path, entries, error, code, request_id, sealed, refused } =
            response;
        let (kind, content) = (Kind::List, None);
        Self {
            kind,
            asker_key: requester_pubkey,
            path: dir_path,
            id: request_id,
            content,
            entries,
            error,
            code,
            sealed,
            refused,
        }
    }

    /// It has something to see in the clear.
    fn is_open(&self) -> bool {
        self.content.is_some() || self.entries.is_some()
    }

    /// Something was given, not refused.
    fn gives(&self) -> bool {
        self.is_open() || (self.sealed.is_some() && !self.refused)
    }

    /// For the one who asked, with the path as it was asked.
    fn forward(self, path: String) -> ServerMessage {
        let Self { content, entries, error, code, sealed, .. } = self;
        match self.kind {
            Kind::File => PeerFileResponseForward { file_path: path, content, error, code, sealed }.into(),
            Kind::List => PeerDirResponseForward { dir_path: path, entries, error, code, sealed }.into(),
        }
    }
}

/// Gives an answer to the one who asked, once its entry in the audit log is written.
fn respond(memory: &mut PeerFilesMemory, cx: &MeshContext<'_>, given: Given) -> Result<Outcome<Nothing>, Refusal> {
    let from = Socket::of(cx.peer()?);
    let req_id = cx.caller().and_then(|caller| caller.req_id.clone());
    let id = given.id.as_deref().or(req_id.as_deref());
    let named = Named { kind: given.kind, id, asker_key: &given.asker_key, path: &given.path };
    let Some(one) = memory.take(from, &named) else {
        return Err(Refusal::new(ErrorCode::NotFound, "no request waits for this answer of yours"));
    };
    // What was asked under seal is not answered in the clear; an error may be.
    let fits = if one.sealed { !given.is_open() } else { given.sealed.is_none() };
    let (storage, now) = (cx.storage(), cx.now_ms());
    let payload = json!({
        "of": one.host_member, "session": one.host_name, "kind": one.kind.as_str(), "sealed": one.sealed,
    });
    let entry = (given.gives() && fits).then(|| Audit::entry("folder_read", Some(&one.member), payload, now));
    let slow = async move {
        match entry {
            Some(entry) => audit::append(&storage, entry).await,
            None => Ok(()),
        }
    };
    Ok(PeerFiles::work_or_failure(Lane::of::<PeerFiles>(one.asker.0), slow, move |_, cx, done| {
        let done = done
            .and_then(|()| if fits { Ok(()) } else { Err(invalid("the answer has another form than the request")) });
        match done {
            Ok(()) => cx.reply(&one.reply, &given.forward(one.path)),
            Err(refusal) => {
                cx.refuse(&one.reply, refusal.clone());
                return Err(refusal);
            }
        }
        Ok(Outcome::Answer(Nothing {}))
    }))
}
