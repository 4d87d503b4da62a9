//! API keys: programs that are no sessions come in with one. A key acts for one member and never may more than that member, whatever
//! it was given; what it was given is looked at for each request, in the mesh ([`crate::mesh::keys`]).

pub mod http;
pub mod limits;
pub mod schema;
pub mod store;
#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::api_keys::limits as wire;
use claudemesh_protocol::features::api_keys::{
    ApikeyCreate, ApikeyCreated, ApikeyEntry, ApikeyList, ApikeyListResponse, ApikeyRevoke, ApikeyRevokeResponse,
    KeyCapability, Request,
};
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::id::{MemberId, MeshId, random_id};
use claudemesh_protocol::time::{iso, parse_iso};
use rand::RngCore;
use sha2::{Digest, Sha256};

use crate::audit::By;
use crate::db::{Db, DbError, MeshDb};
use crate::features::Features;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::keys::{KeyState, capability_of};
use crate::mesh::outcome::{Lane, Outcome};
use crate::mesh::peers::{Member, Role};
use crate::mesh::resolve::resolve_name;
use crate::quota::Quota;
use crate::refusal::{Refusal, invalid};
use limits::{MADE_PER_MINUTE, PER_MEMBER, PER_MESH};
use store::Row;

/// How often the last uses of keys are written down, in monotonic milliseconds.
const NOTE_MS: i64 = 60_000;

/// What the feature remembers beside the mesh's book of keys.
#[derive(Default)]
pub struct ApiKeysMemory {
    /// Keys as storage has them, until they are in the mesh's book.
    loaded: Vec<KeyState>,
    noted_mono_ms: Option<i64>,
}

/// The feature.
pub struct ApiKeys;

impl Feature for ApiKeys {
    const NAME: &'static str = "api_keys";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = ApiKeysMemory;

    async fn load(storage: &MeshDb) -> Result<ApiKeysMemory, DbError> {
        let rows = store::list(storage, None).await?;
        let live = rows.iter().filter(|row| row.revoked_at_ms.is_none());
        Ok(ApiKeysMemory { loaded: live.map(Row::state).collect(), noted_mono_ms: None })
    }

    fn started(memory: &mut ApiKeysMemory, cx: &mut MeshContext<'_>) {
        for key in std::mem::take(&mut memory.loaded) {
            cx.keys_mut().put(key);
        }
    }

    fn handle(memory: &mut ApiKeysMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        if cx.key().is_some() {
            return Err(Refusal::new(ErrorCode::Forbidden, "an API key neither makes nor revokes keys"));
        }
        match request {
            Request::ApikeyCreate(request) => Self::answer::<ApikeyCreate>(create(cx, request)),
            Request::ApikeyList(_) => Self::answer::<ApikeyList>(list(cx)),
            Request::ApikeyRevoke(request) => {
                // When it was used last is what one looks at then.
                note_uses(memory, cx, true);
                Self::answer::<ApikeyRevoke>(revoke(cx, request))
            }
        }
    }

    fn on_event(memory: &mut ApiKeysMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        match event {
            MeshEvent::MemberGone { member } => {
                note_uses(memory, cx, true);
                end_all(cx, member);
            }
            MeshEvent::Tick => note_uses(memory, cx, false),
            MeshEvent::Stopping => note_uses(memory, cx, true),
            MeshEvent::Attached { .. }
            | MeshEvent::Detached { .. }
            | MeshEvent::Ended { .. }
            | MeshEvent::BecameIdle { .. }
            | MeshEvent::Answered { .. }
            | MeshEvent::TopicPosted { .. }
            | MeshEvent::TopicStored { .. }
            | MeshEvent::KeyEnded { .. }
            | MeshEvent::Letter(_)
            | MeshEvent::SimulatedTime { .. }
            | MeshEvent::Host(_) => {}
        }
    }

    fn describe(_: &ApiKeysMemory, cx: &MeshContext<'_>, info: &mut MeshInfoResult) {
        if let Ok(own) = cx.asker() {
            let of_member = cx.keys().iter().filter(|key| key.member == own.member).count() as u64;
            let quotas = &cx.limits().quotas;
            info.limits.push(quotas.bound(&PER_MESH, cx.keys().iter().count() as u64));
            info.limits.push(quotas.bound(&PER_MEMBER, of_member));
        }
    }
}

/// What the HTTP side of the broker wants to know of keys.
impl Features {
    /// Requests that one key may make in a minute.
    pub const KEY_REQUESTS_PER_MINUTE: &'static Quota = &limits::REQUESTS_PER_MINUTE;

    /// The mesh and the id of the key with this secret; `None` for an unknown or a revoked one.
    ///
    /// # Errors
    /// Storage fails.
    pub async fn key_with(db: &Db, secret: &str) -> Result<Option<(MeshId, String)>, DbError> {
        store::by_hash(db, &hash_of(secret)).await
    }
}

/// The hash by which a secret is known.
fn hash_of(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

fn new_secret() -> String {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    format!("{}{}", wire::SECRET_START, URL_SAFE_NO_PAD.encode(bytes))
}

/// The member that a new key acts for.
fn holder(cx: &MeshContext<'_>, named: Option<&str>) -> Result<Member, Refusal> {
    let own = cx.member()?.clone();
    let Some(text) = named else { return Ok(own) };
    let unknown = || Refusal::new(ErrorCode::NotFound, "no such member in this mesh");
    let by_id = cx.roster().live_member(&MemberId::from(text)).cloned();
    let member = match by_id {
        Some(member) => member,
        None => match resolve_name(cx.roster(), text, None) {
            Ok(found) => {
                let id = found.member(cx.roster());
                id.and_then(|id| cx.roster().live_member(id)).cloned().ok_or_else(unknown)?
            }
            Err(refusal) if refusal.code == ErrorCode::UnknownTarget => return Err(unknown()),
            Err(refusal) => return Err(refusal),
        },
    };
    cx.require_own(&member.id, Capability::CanManageKeys)?;
    if member.role > own.role {
        return Err(Refusal::new(ErrorCode::Forbidden, "your role does not allow to make keys for this member"));
    }
    Ok(member)
}

/// The capabilities that a request names, each once: no more than its member may, and than who makes it.
fn capabilities(cx: &MeshContext<'_>, asked: &[String], holder: &Member) -> Result<Vec<KeyCapability>, Refusal> {
    let mut found = Vec::new();
    for name in asked {
        let one = KeyCapability::parse(name)
            .ok_or_else(|| invalid("`capabilities`: expected `send`, `read`, `state_write` or `admin`"))?;
        if !found.contains(&one) {
            found.push(one);
        }
    }
    if found.is_empty() {
        return Err(invalid("`capabilities`: expected at least one"));
    }
    for one in &found {
        match capability_of(*one) {
            Some(needed) => {
                cx.require(needed)?;
                if !cx.rights().allows(&holder.id, holder.role, needed) {
                    return Err(Refusal::lacks(needed));
                }
            }
            None if holder.role >= Role::Admin => {}
            None => {
                return Err(Refusal::new(
                    ErrorCode::Forbidden,
                    "only keys of the owner and of admins may have `admin`",
                ));
            }
        }
    }
    Ok(found)
}

/// The names of the topics that a request names; each is there and its member may see it.
fn scopes(cx: &MeshContext<'_>, asked: Option<&[String]>, holder: &Member) -> Result<Option<Vec<String>>, Refusal> {
    let Some(asked) = asked else { return Ok(None) };
    if asked.is_empty() || asked.len() > wire::MAX_SCOPES {
        return Err(invalid("`topicScopes`: expected 1 to 64 names of topics, or none at all"));
    }
    let name = |text: &String| {
        let found = cx.topics().find(text).filter(|topic| topic.visible_to(&holder.id));
        found.map(|topic| topic.name.clone()).ok_or_else(|| Refusal::from(ErrorCode::TopicNotFound))
    };
    asked.iter().map(name).collect::<Result<_, _>>().map(Some)
}

fn create(cx: &mut MeshContext<'_>, request: ApikeyCreate) -> Result<Outcome<ApikeyCreated>, Refusal> {
    let label = request.label.trim().to_owned();
    if label.is_empty() || label.chars().count() > wire::MAX_LABEL_CHARS || label.chars().any(char::is_control) {
        return Err(invalid("`label`: expected 1 to 64 characters of one line"));
    }
    let now = cx.now_ms();
    let expires_at_ms = match request.expires_at.as_deref() {
        Some(text) => {
            let at = parse_iso(text).filter(|at| *at > now);
            Some(at.ok_or_else(|| invalid("`expiresAt`: expected an ISO time that is to come"))?)
        }
        None => None,
    };
    let (own, holder) = (cx.member()?.id.clone(), holder(cx, request.member.as_deref())?);
    let capabilities = capabilities(cx, &request.capabilities, &holder)?;
    let scopes = scopes(cx, request.topic_scopes.as_deref(), &holder)?;
    let of_member = cx.keys().iter().filter(|key| key.member == holder.id).count();
    cx.within(&PER_MESH, cx.keys().iter().count(), 1)?;
    cx.within(&PER_MEMBER, of_member, 1)?;
    cx.count_write(&MADE_PER_MINUTE, Some(&own))?;
    let secret = new_secret();
    let names: Vec<String> = capabilities.iter().map(|one| one.as_str().to_owned()).collect();
    let row = Row {
        mesh_id: cx.mesh_id().to_string(),
        id: random_id(&mut rand::rngs::OsRng),
        member_id: holder.id.to_string(),
        label: label.clone(),
        prefix: secret.chars().take(wire::PREFIX_CHARS).collect(),
        secret_hash: hash_of(&secret),
        capabilities: serde_json::to_string(&names).unwrap_or_default(),
        topic_scopes: scopes.as_ref().and_then(|scopes| serde_json::to_string(scopes).ok()),
        created_at_ms: now,
        expires_at_ms,
        last_used_at_ms: None,
        revoked_at_ms: None,
    };
    let (storage, by) = (cx.storage(), By::member(&own, now));
    let slow = async move { store::create(&storage, &row, &by).await.map(|()| row) };
    Ok(ApiKeys::work_in(Lane::of::<ApiKeys>("keys"), slow, move |_, cx, row| {
        cx.keys_mut().put(row.state());
        Ok(Outcome::Answer(ApikeyCreated {
            secret,
            label,
            capabilities: names,
            topic_scopes: scopes,
            created_at: iso(row.created_at_ms),
            id: row.id,
            prefix: row.prefix,
        }))
    }))
}

/// The member whose keys the caller sees; `None`: everyone's.
fn seen_of(cx: &MeshContext<'_>) -> Result<Option<MemberId>, Refusal> {
    let own = cx.member()?.id.clone();
    Ok((!cx.may(Capability::CanManageKeys)?).then_some(own))
}

fn list(cx: &MeshContext<'_>) -> Result<Outcome<ApikeyListResponse>, Refusal> {
    let (storage, of) = (cx.storage(), seen_of(cx)?);
    let slow = async move { store::list(&storage, of.as_ref()).await };
    Ok(ApiKeys::work_in(Lane::of::<ApiKeys>("keys"), slow, |_, cx, rows| {
        let keys = rows.into_iter().map(|row| entry(cx, row)).collect();
        Ok(Outcome::Answer(ApikeyListResponse { keys }))
    }))
}

fn entry(cx: &MeshContext<'_>, row: Row) -> ApikeyEntry {
    let live = cx.keys().iter().find(|key| key.id == row.id);
    let used = live.and_then(|key| key.used_at_ms).or(row.last_used_at_ms);
    let holder = cx.roster().member(&MemberId::from(row.member_id.as_str()));
    ApikeyEntry {
        capabilities: row.capabilities().iter().map(|one| one.as_str().to_owned()).collect(),
        topic_scopes: row.scopes(),
        created_at: iso(row.created_at_ms),
        last_used_at: used.map(iso),
        revoked_at: row.revoked_at_ms.map(iso),
        expires_at: row.expires_at_ms.map(iso),
        member_name: holder.map(|member| member.display_name.clone()),
        id: row.id,
        label: row.label,
        prefix: row.prefix,
    }
}

fn revoke(cx: &MeshContext<'_>, request: ApikeyRevoke) -> Result<Outcome<ApikeyRevokeResponse>, Refusal> {
    if request.id.len() < wire::MIN_ID_CHARS {
        return Err(invalid("`id`: expected an id, or at least the first 4 characters of an id or of a prefix"));
    }
    let (storage, of, by) = (cx.storage(), seen_of(cx)?, By::member(&cx.member()?.id, cx.now_ms()));
    let slow = async move {
        let rows = store::list(&storage, of.as_ref()).await?;
        let meant = |row: &&Row| row.id.starts_with(&request.id) || row.prefix.starts_with(&request.id);
        let found: Vec<&Row> = match rows.iter().find(|row| row.id == request.id) {
            Some(row) => vec![row],
            None => rows.iter().filter(meant).collect(),
        };
        let answer = |status: &str| ApikeyRevokeResponse { status: status.into(), ..ApikeyRevokeResponse::default() };
        Ok::<_, DbError>(match found.as_slice() {
            [] => answer("not_found"),
            [row] => {
                store::revoke(&storage, &row.id, &by).await?;
                ApikeyRevokeResponse { id: Some(row.id.clone()), ..answer("revoked") }
            }
            several => ApikeyRevokeResponse { matches: u32::try_from(several.len()).ok(), ..answer("not_unique") },
        })
    };
    Ok(ApiKeys::work_in(Lane::of::<ApiKeys>("keys"), slow, |_, cx, answer| {
        if let Some(id) = &answer.id {
            cx.keys_mut().remove(id);
            cx.emit(MeshEvent::KeyEnded { id: id.clone() });
        }
        Ok(Outcome::Answer(answer))
    }))
}

/// Ends the keys of a member who is gone, for good: who comes back makes new ones.
fn end_all(cx: &mut MeshContext<'_>, member: &MemberId) {
    let ids: Vec<String> = cx.keys().iter().filter(|key| key.member == *member).map(|key| key.id.clone()).collect();
    if ids.is_empty() {
        return;
    }
    for id in ids {
        cx.keys_mut().remove(&id);
        cx.emit(MeshEvent::KeyEnded { id });
    }
    let (storage, member, by) = (cx.storage(), member.clone(), By::nobody(cx.now_ms()));
    let slow = async move { store::revoke_all(&storage, &member, &by).await };
    let then = |_: &mut ApiKeysMemory, _: &mut MeshContext<'_>, _: usize| Ok(Outcome::<Nothing>::Silent);
    if let Outcome::Work(work) = ApiKeys::work_in(Lane::of::<ApiKeys>("keys"), slow, then) {
        cx.spawn(work);
    }
}

/// Writes down when keys were used last, once a minute and when the mesh stops.
fn note_uses(memory: &mut ApiKeysMemory, cx: &mut MeshContext<'_>, stops: bool) {
    let mono = cx.mono_ms();
    let due = stops || memory.noted_mono_ms.is_none_or(|noted| mono - noted >= NOTE_MS);
    if !due {
        return;
    }
    memory.noted_mono_ms = Some(mono);
    let uses: Vec<(String, i64)> =
        cx.keys_mut().iter_mut().filter_map(|key| Some((key.id.clone(), key.used_at_ms.take()?))).collect();
    if uses.is_empty() {
        return;
    }
    let storage = cx.storage();
    let slow = async move { store::note_uses(&storage, uses).await };
    let then = |_: &mut ApiKeysMemory, _: &mut MeshContext<'_>, (): ()| Ok(Outcome::<Nothing>::Silent);
    if let Outcome::Work(work) = ApiKeys::work_in(Lane::of::<ApiKeys>("keys"), slow, then) {
        cx.spawn(work);
    }
}
