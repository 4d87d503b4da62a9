//! Making meshes, inviting, joining. What changes a mesh is signed by a member or the mesh's owner key; who joins
//! signs with the key that becomes a member.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_protocol::crypto::invite::{InviteV1, root_key};
use claudemesh_protocol::crypto::{envelope, keys, signed};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::enrolment::{
    Claim, Claimed, CreateMesh, InviteList, InviteView, Join, Joined, MeshCreated,
};
use claudemesh_protocol::id::{InviteId, MemberId, MeshId, PublicKey};
use claudemesh_protocol::time::iso;

use super::store::{self, Candidate, Enrolled, Invite};
use super::{pages, rules};
use crate::db::DbError;
use crate::db::members::{self as members, Member, Role};
use crate::db::meshes::{self, MeshRecord};
use crate::http::auth::{Body, Signed, client_address, require_operator};
use crate::http::caller::Caller;
use crate::http::{AppState, State, fields, reached_at, to_the_end};
use crate::refusal::Refusal;

type Answer = Result<HttpResponse, Refusal>;

/// Invites in one list.
const MAX_LISTED: u32 = 1_000;

crate::routes! {
    post "/mesh" => create_mesh, open;
    post "/mesh/{id}/invites" => create_invite, needs CanInvite;
    get "/mesh/{id}/invites" => list_invites, needs CanInvite;
    post "/mesh/{id}/invites/{invite}/revoke" => revoke_invite, needs CanInvite;
    post "/join" => join, open;
    get "/invites/{code}" => preview, open;
    post "/invites/{code}/claim" => claim, open;
    get "/i/{code}" => pages::code, open;
    get "/join/{token}" => pages::token, open;
}

/// None of these routes is for API keys.
pub const OPERATIONS: &[crate::http::openapi::Operation] = &[];

async fn create_mesh(request: HttpRequest, state: State, signed: Signed) -> Answer {
    count_attempt(&state, &request)?;
    if !state.config.loopback_only() {
        require_operator(&state.db, &request).await?;
    } else if request.headers().contains_key("origin") {
        // Anyone on this machine may create a mesh, but not any web page that a browser on it has open.
        return Err(Refusal::new(ErrorCode::Forbidden, "expected a request that does not come from a web page"));
    }
    let asked: CreateMesh = signed.json()?;
    if asked.owner_pubkey != signed.key {
        return Err(Refusal::new(ErrorCode::Forbidden, "expected the request to be signed by `owner_pubkey`"));
    }
    let slug = fields::slug(&asked.slug)?;
    let name = asked.name.as_deref().map(fields::display_name).transpose()?.unwrap_or_else(|| slug.clone());
    let display_name = fields::member_name(&asked.display_name)?;
    state.auth.accept(&signed)?;
    let now_ms = state.clock.now_ms();
    let mut rng = rand::rngs::OsRng;
    let mesh = MeshRecord { name, ..MeshRecord::new(MeshId::random(&mut rng), &slug, asked.owner_pubkey, now_ms) };
    let creator =
        Member::new(MemberId::random(&mut rng), &mesh.id, asked.member_pubkey, &display_name, Role::Owner, now_ms);
    match meshes::create(&state.storage(&mesh.id), &mesh, &creator).await {
        Err(DbError::Conflict(_)) => {
            if let Some(made) = made_before(&state, &mesh, &creator).await? {
                // The answer to an earlier request of the same owner was lost.
                return Ok(created(&state, &request, made));
            }
            let message = format!("the slug `{}` is taken on this broker; choose another", mesh.slug);
            return Err(Refusal::new(ErrorCode::AlreadyExists, message));
        }
        other => other?,
    }
    tracing::info!(mesh.id = %mesh.id, "mesh created");
    Ok(created(&state, &request, (mesh, creator.id)))
}

/// The mesh of this slug, when this very owner and creator made it. The request is signed by the owner's key.
async fn made_before(
    state: &State,
    wanted: &MeshRecord,
    creator: &Member,
) -> Result<Option<(MeshRecord, MemberId)>, DbError> {
    let Some(mesh) = meshes::by_slug(&state.db, &wanted.slug).await? else { return Ok(None) };
    if mesh.owner_pubkey != wanted.owner_pubkey || mesh.archived_at_ms.is_some() {
        return Ok(None);
    }
    let member = members::by_key(&state.storage(&mesh.id), &creator.pubkey).await?;
    Ok(member.filter(|member| member.revoked_at_ms.is_none()).map(|member| (mesh, member.id)))
}

fn created(state: &State, request: &HttpRequest, (mesh, member_id): (MeshRecord, MemberId)) -> HttpResponse {
    HttpResponse::Created().json(MeshCreated {
        mesh_id: mesh.id,
        slug: mesh.slug,
        name: mesh.name,
        member_id,
        broker_url: Links::of(state, request).websocket(),
    })
}

async fn create_invite(request: HttpRequest, state: State, caller: Caller) -> Answer {
    let (mesh, now_ms) = (&caller.mesh, state.clock.now_ms());
    let invite = rules::invite(&mesh.id, &mesh.owner_pubkey, caller.key(), caller.json()?, now_ms)?;
    if !store::may_give(caller.member.role, invite.role) {
        return Err(Refusal::new(ErrorCode::Forbidden, "only the owner invites admins"));
    }
    if store::count_usable(&state.storage(&mesh.id), now_ms).await? >= rules::MAX_USABLE_INVITES {
        let message = format!("expected at most {} open invites; revoke some", rules::MAX_USABLE_INVITES);
        return Err(Refusal::new(ErrorCode::Limit, message));
    }
    match store::create_invite(&state.storage(&mesh.id), &invite, &caller.by(now_ms)).await {
        Err(DbError::Conflict(_)) => {
            Err(Refusal::new(ErrorCode::AlreadyExists, "that invite id, code or token is in use; make a new one"))
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(HttpResponse::Created().json(view(invite, &Links::of(&state, &request)))),
    }
}

async fn list_invites(request: HttpRequest, state: State, caller: Caller) -> Answer {
    let links = Links::of(&state, &request);
    let invites = store::list_invites(&state.storage(&caller.mesh.id), MAX_LISTED).await?;
    let invites = invites.into_iter().map(|invite| view(invite, &links)).collect();
    Ok(HttpResponse::Ok().json(InviteList { invites }))
}

async fn revoke_invite(
    request: HttpRequest,
    state: State,
    path: web::Path<(String, String)>,
    caller: Caller,
) -> Answer {
    let (_, invite) = path.into_inner();
    let by = caller.by(state.clock.now_ms());
    let revoked = store::revoke_invite(&state.storage(&caller.mesh.id), &InviteId::from(invite), &by).await?;
    let revoked = revoked.ok_or(ErrorCode::InviteNotFound)?;
    Ok(HttpResponse::Ok().json(view(revoked, &Links::of(&state, &request))))
}

/// v1: the payload is read from the token itself, whose hash must be registered; `invite_payload` is not trusted.
async fn join(request: HttpRequest, state: State, body: Body) -> Answer {
    count_attempt(&state, &request)?;
    let asked: Join = body.json()?;
    let invite = InviteV1::read(&asked.invite_token).map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    let pubkey = PublicKey::parse(&asked.peer_pubkey)
        .ok_or_else(|| Refusal::new(ErrorCode::Malformed, "expected `peer_pubkey` of 64 lower-case hex digits"))?;
    let name = joining_name(&state, Some(&invite.mesh_id), &pubkey, &asked.display_name).await?;
    let candidate = candidate(pubkey, name);
    // The hash is over the text as the owner made it, so another spelling of the same payload is another token.
    let hash = sha256_hex(asked.invite_token.trim_end_matches('=').as_bytes());
    to_the_end(async move {
        let now_ms = state.clock.now_ms();
        let enrolled = store::claim_v1(
            &state.db,
            &state.journal,
            &hash,
            &invite.mesh_id,
            &invite.owner_pubkey,
            &candidate,
            now_ms,
        )
        .await?;
        announce(&state, &enrolled).await;
        Ok(HttpResponse::Ok().json(Joined {
            ok: true,
            member_id: Some(enrolled.member.id),
            already_member: enrolled.already_member.then_some(true),
            error: None,
            message: None,
        }))
    })
    .await
}

/// Which mesh a code is for, so that a client that is a member there already claims with the key it has. Tells what a claim
/// would tell, and counts like one.
async fn preview(request: HttpRequest, state: State, path: web::Path<String>) -> Answer {
    count_attempt(&state, &request)?;
    let code = path.into_inner().to_ascii_uppercase();
    let invite = store::invite_by_code(&state.db, &code).await?.ok_or(ErrorCode::NotFound)?;
    let revoked = invite.revoked_at_ms.is_some() || is_withdrawn(&state, &invite).await?;
    Ok(HttpResponse::Ok().json(serde_json::json!({"mesh_id": invite.mesh_id, "revoked": revoked})))
}

/// Whether an invite lets no one in any more because the member that made it may not invite now.
async fn is_withdrawn(state: &AppState, invite: &Invite) -> Result<bool, DbError> {
    let Some(mesh) = meshes::load(&state.db, &invite.mesh_id).await? else { return Ok(false) };
    let (storage, signer) = (state.storage(&mesh.id), &invite.created_by_key);
    Ok(*signer != mesh.owner_pubkey && !store::may_invite(&storage, signer, invite.role).await?)
}

/// v2: the new member proves its ed25519 key, which is what the mesh enrols; the x25519 key only receives the root key.
async fn claim(request: HttpRequest, state: State, path: web::Path<String>, body: Body) -> Answer {
    count_attempt(&state, &request)?;
    let code = path.into_inner();
    let asked: Claim = body.json()?;
    let recipient = URL_SAFE_NO_PAD
        .decode(&asked.recipient_x25519_pubkey)
        .ok()
        .and_then(|bytes| crypto_box::PublicKey::from_slice(&bytes).ok())
        .ok_or_else(|| {
            let message = "expected `recipient_x25519_pubkey`: 32 bytes in base64url without padding";
            Refusal::new(ErrorCode::Malformed, message)
        })?;
    let canonical = signed::claim(&code, &asked.peer_pubkey, &asked.recipient_x25519_pubkey);
    keys::verify(&asked.peer_pubkey, canonical.as_bytes(), &asked.signature)
        .map_err(|_| Refusal::new(ErrorCode::BadSignature, "`signature` is not by `peer_pubkey` over this claim"))?;
    let name = match &asked.display_name {
        Some(name) => {
            let invite = store::invite_by_code(&state.db, &code.to_ascii_uppercase()).await?;
            joining_name(&state, invite.as_ref().map(|invite| &invite.mesh_id), &asked.peer_pubkey, name).await?
        }
        None => format!("peer-{}", &asked.peer_pubkey.short()[..6]),
    };
    let candidate = candidate(asked.peer_pubkey, name);
    let broker_url = Links::of(&state, &request).websocket();
    to_the_end(async move {
        let code = code.to_ascii_uppercase();
        let enrolled = store::claim_v2(&state.db, &state.journal, &code, &candidate, state.clock.now_ms()).await?;
        announce(&state, &enrolled).await;
        let Enrolled { mesh, member, invite, already_member } = enrolled;
        let sealed = envelope::seal_anonymous(&root_key(&mesh.id), &recipient, &mut rand::rngs::OsRng)
            .map_err(|_| Refusal::from(ErrorCode::Malformed))?;
        Ok(HttpResponse::Ok().json(Claimed {
            sealed_root_key: URL_SAFE_NO_PAD.encode(sealed),
            mesh_id: mesh.id,
            member_id: member.id,
            owner_pubkey: mesh.owner_pubkey,
            canonical_v2: invite.canonical,
            signature_v2: Some(invite.signature),
            signed_by: Some(invite.created_by_key).filter(|signer| *signer != mesh.owner_pubkey),
            mesh_slug: Some(mesh.slug),
            broker_url: Some(broker_url),
            role: Some(member.role.as_str().into()),
            already_member,
        }))
    })
    .await
}

/// The name of someone who joins. A member of before keeps the name it has, so what it asks for need not be one to be
/// reached by.
async fn joining_name(
    state: &AppState,
    mesh: Option<&MeshId>,
    key: &PublicKey,
    asked: &str,
) -> Result<String, Refusal> {
    let refused = match fields::member_name(asked) {
        Ok(name) => return Ok(name),
        Err(error) => error,
    };
    let known = match mesh {
        Some(mesh) => members::by_key(&state.storage(mesh), key).await?,
        None => None,
    };
    if known.is_some() { Ok(fields::display_name(asked)?) } else { Err(refused) }
}

fn candidate(pubkey: PublicKey, display_name: String) -> Candidate {
    Candidate { member_id: MemberId::random(&mut rand::rngs::OsRng), pubkey, display_name }
}

async fn announce(state: &AppState, enrolled: &Enrolled) {
    if !enrolled.already_member {
        state.directory.reload_members(&enrolled.mesh.id).await;
        tracing::info!(mesh.id = %enrolled.mesh.id, member.id = %enrolled.member.id, "member enrolled");
    }
}

fn count_attempt(state: &AppState, request: &HttpRequest) -> Result<(), Refusal> {
    let rate = state.config.effective_limits().enrol_per_minute;
    let address = client_address(request);
    // Anyone who sits at this machine owns the database anyway; scripts that enrol hundreds of peers run there.
    if address.is_loopback() {
        return Ok(());
    }
    state.auth.count_attempt(address, rate, state.clock.mono_ms())
}

fn view(invite: Invite, links: &Links) -> InviteView {
    let code = invite.code.unwrap_or_default();
    InviteView {
        invite_id: invite.id,
        url: links.invite(&code),
        code,
        role: invite.role.as_str().into(),
        max_uses: u32::try_from(invite.max_uses).unwrap_or(0),
        used_count: u32::try_from(invite.used_count).unwrap_or(0),
        expires_at: iso(invite.expires_at_ms),
        revoked_at: invite.revoked_at_ms.map(iso),
    }
}

/// How the outside reaches this broker: as configured, else as this request did.
pub(super) struct Links {
    /// `http(s)://host[/path]`
    base: String,
}

impl Links {
    pub(super) fn of(state: &AppState, request: &HttpRequest) -> Self {
        Self { base: state.blobs.base_url(reached_at(request).as_deref()) }
    }

    /// `ws(s)://host/ws`
    pub(super) fn websocket(&self) -> String {
        format!("ws{}/ws", self.base.strip_prefix("http").unwrap_or(&self.base))
    }

    /// Link of a code.
    pub(super) fn invite(&self, code: &str) -> String {
        format!("{}/i/{code}", self.base)
    }

    /// Link of a token.
    pub(super) fn token(&self, token: &str) -> String {
        format!("{}/join/{token}", self.base)
    }
}

/// An answer without a body type of its own.
pub(super) fn html(status: StatusCode, text: String) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header(("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'"))
        .insert_header(("referrer-policy", "no-referrer"))
        .insert_header(("x-content-type-options", "nosniff"))
        .insert_header(("cache-control", "no-store"))
        .body(text)
}
