//! Making meshes, inviting, joining: signed HTTP requests to a broker, and the checks of what comes back.
//!
//! Blocking, without a runtime: one request and a few file writes.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claudemesh_protocol::crypto::invite::{self, InviteError, InviteLink, InviteV1};
use claudemesh_protocol::crypto::keys::{self, SecretKey};
use claudemesh_protocol::crypto::{envelope, http as signed_http, signed};
use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::enrolment::{
    Claim, Claimed, CreateInvite, CreateMesh, HttpError, InviteList, InvitePreset, InviteView, Join, Joined,
    MeshCreated,
};
use claudemesh_protocol::features::members::{MemberList, MemberView};
use claudemesh_protocol::id::{InviteId, MemberId, MeshId, PublicKey, random_code};
use rand::rngs::OsRng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::owners::OwnerEntry;
use crate::config::{Config, MeshEntry, StoredSecret, broker_http};
use crate::error::{CliError, ExitCode};
use crate::http;
use crate::local::store::outside_url;

pub mod cli;

/// Longest exchange with a broker.
const LIMIT: Duration = Duration::from_secs(15);
/// Invites that one second may see before it is told to the user.
const MAX_INVITE_ATTEMPTS: u32 = 20;
/// Where `up` serves when nothing else is said.
pub const DEFAULT_BROKER: &str = "ws://127.0.0.1:7900/ws";

impl From<InviteError> for CliError {
    fn from(error: InviteError) -> Self {
        let message = crate::error::sentence(&error.to_string());
        let exit = if matches!(error, InviteError::BadSignature) { ExitCode::Auth } else { ExitCode::InvalidArgs };
        Self::new(exit, error.code().as_str(), message)
            .hint("Copy the whole link again, or ask for a fresh one: `claudemesh invite`.")
    }
}

/// A request to a broker's HTTP routes.
struct Call<'a> {
    /// `http(s)://host:port`, no slash at the end.
    base: &'a str,
    /// From the slash on.
    path: &'a str,
    /// Signs the request.
    key: Option<&'a SecretKey>,
    /// The operator's token.
    bearer: Option<&'a str>,
}

impl Call<'_> {
    fn get<T: DeserializeOwned>(&self) -> Result<T, CliError> {
        let mut request = http::agent(self.base, LIMIT).get(self.url());
        for (name, value) in self.headers("GET", b"") {
            request = request.header(name, value);
        }
        self.read(request.call())
    }

    fn post<T: DeserializeOwned>(&self, body: &impl Serialize) -> Result<T, CliError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| CliError::internal(format!("The request cannot be written: {error}.")))?;
        let mut request = http::agent(self.base, LIMIT).post(self.url()).header("content-type", "application/json");
        for (name, value) in self.headers("POST", &body) {
            request = request.header(name, value);
        }
        self.read(request.send(&body[..]))
    }

    fn url(&self) -> String {
        format!("{}{}", self.base, self.path)
    }

    fn headers(&self, method: &str, body: &[u8]) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        if let Some(key) = self.key {
            headers.extend(signed_http::headers(key, method, self.path, body, crate::clock::now_ms()));
        }
        if let Some(token) = self.bearer {
            headers.push(("authorization", format!("Bearer {token}")));
        }
        headers
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, CliError> {
        let mut answer = answer.map_err(|error| {
            CliError::network(format!("The broker at {} cannot be reached: {error}.", self.base))
                .hint("Check the address and that the broker runs.")
        })?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(4 << 20).read_to_vec();
        let body =
            body.map_err(|error| CliError::network(format!("The answer of {} broke off: {error}.", self.base)))?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&body).map_err(|error| {
                let message = format!("{} does not answer like a claudemesh broker: {error}.", self.base);
                CliError::new(ExitCode::Network, "unexpected_answer", message)
            });
        }
        Err(self.refusal(status, &body))
    }

    fn refusal(&self, status: u16, body: &[u8]) -> CliError {
        let Ok(error) = serde_json::from_slice::<HttpError>(body) else {
            let message = format!("{} answered HTTP {status} to {}.", self.base, self.path);
            return CliError::new(ExitCode::Network, "unexpected_answer", message)
                .hint("Is it a claudemesh broker, and is the address right?");
        };
        let code = ErrorCode::parse(&error.error);
        let message = error.message.or_else(|| code.map(|code| code.doc().to_owned()));
        let message = message.unwrap_or_else(|| format!("The broker answered {}", error.error));
        let mut frame = ErrorFrame::new(code.unwrap_or(ErrorCode::Invalid), message);
        frame.code = error.error;
        frame.retry_after_ms = error.retry_after_ms;
        let cli = CliError::from(frame);
        match code {
            Some(ErrorCode::AlreadyExists) => cli.hint("Choose another short name."),
            Some(ErrorCode::InviteExpired | ErrorCode::Expired | ErrorCode::Exhausted | ErrorCode::InviteExhausted) => {
                cli.hint("Ask for a fresh invite: `claudemesh invite`.")
            }
            Some(ErrorCode::InviteNotFound) => cli.hint("Check the link, or ask for a fresh one."),
            _ => cli,
        }
    }
}

/// A mesh that was just made.
pub struct NewMesh {
    /// The broker's answer.
    pub created: MeshCreated,
    /// To keep in `owners.json`.
    pub owner: OwnerEntry,
    /// To keep in `config.json`.
    pub entry: MeshEntry,
}

/// What a new mesh is made of.
pub struct MeshWish<'a> {
    /// WebSocket URL of the broker.
    pub broker_url: &'a str,
    /// Short name.
    pub slug: &'a str,
    /// Name for people.
    pub title: Option<&'a str>,
    /// The creator's name.
    pub display_name: &'a str,
    /// Needed unless the broker listens on loopback only.
    pub operator_token: Option<&'a str>,
}

/// Makes a mesh with new keys. Nothing is written here; the caller keeps both entries.
///
/// # Errors
/// Exit 3 for a bad slug or URL, 6 when the slug is taken, 2 without the operator's token, 4 for the network.
pub fn create_mesh(wish: &MeshWish<'_>) -> Result<NewMesh, CliError> {
    check_slug(wish.slug)?;
    check_broker_url(wish.broker_url)?;
    let (owner, member) = (SecretKey::random(&mut OsRng), SecretKey::random(&mut OsRng));
    let base = broker_http(wish.broker_url);
    let body = CreateMesh {
        slug: wish.slug.to_owned(),
        name: wish.title.map(str::to_owned),
        owner_pubkey: owner.public(),
        member_pubkey: member.public(),
        display_name: wish.display_name.to_owned(),
    };
    let call = Call { base: &base, path: "/mesh", key: Some(&owner), bearer: wish.operator_token };
    let created: MeshCreated = call.post(&body).map_err(|error| match error.code.as_str() {
        "unauthorized" if wish.operator_token.is_none() => {
            error.hint("This broker wants its operator's token: --operator-token, or CLAUDEMESH_OPERATOR_TOKEN.")
        }
        _ => error,
    })?;
    // The address that reached it is the one that works from here; the broker may know itself by another name.
    let owner_entry = OwnerEntry::new(created.mesh_id.clone(), wish.slug, &owner, wish.broker_url);
    let entry = MeshEntry {
        mesh_id: created.mesh_id.clone(),
        member_id: created.member_id.clone(),
        slug: wish.slug.to_owned(),
        name: created.name.clone(),
        pubkey: member.public().to_hex(),
        secret_key: (&member).into(),
        broker_url: wish.broker_url.to_owned(),
        joined_at: crate::clock::now_iso(),
        root_key: None,
        invite_version: None,
        extra: serde_json::Map::new(),
    };
    Ok(NewMesh { created, owner: owner_entry, entry })
}

/// What an invite allows.
pub struct InviteWish<'a> {
    /// `member` or `admin`.
    pub role: &'a str,
    /// 1 to 10,000.
    pub uses: u32,
    /// How long it works.
    pub lifetime: Duration,
    /// Defaults of the new member.
    pub preset: Option<InvitePreset>,
}

/// A new invite and its link for older clients.
pub struct NewInvite {
    /// As the broker registered it.
    pub view: InviteView,
    /// `…/join/<token>`
    pub v1_url: String,
}

/// Signs an invite with the owner's key and registers it.
///
/// # Errors
/// Exit 10 for a damaged owner key, 4 for the network, or what the broker says.
pub fn create_invite(owner: &OwnerEntry, entry: &MeshEntry, wish: &InviteWish<'_>) -> Result<NewInvite, CliError> {
    let key = owner_key(owner)?;
    let lifetime = i64::try_from(wish.lifetime.as_secs()).unwrap_or(i64::MAX);
    let mut expires_at = (crate::clock::now_ms() / 1_000).saturating_add(lifetime);
    let mut attempts = 0;
    loop {
        match register_invite(owner, &key, entry, wish, expires_at) {
            // A v1 token holds nothing random: two invites of the same second are one token. A second later they are two.
            Err(error) if error.code == ErrorCode::AlreadyExists.as_str() && attempts < MAX_INVITE_ATTEMPTS => {
                expires_at = expires_at.saturating_add(1);
                attempts += 1;
            }
            other => return other,
        }
    }
}

fn register_invite(
    owner: &OwnerEntry,
    key: &SecretKey,
    entry: &MeshEntry,
    wish: &InviteWish<'_>,
    expires_at: i64,
) -> Result<NewInvite, CliError> {
    let invite_id = InviteId::random(&mut OsRng);
    let text = signed::invite_v2(&owner.mesh_id, &invite_id, expires_at, wish.role, &key.public());
    let v1 = InviteV1 {
        v: 1,
        mesh_id: owner.mesh_id.clone(),
        mesh_slug: owner.slug.clone(),
        broker_url: outside_url(entry).to_owned(),
        expires_at,
        mesh_root_key: invite::root_key_text(&owner.mesh_id),
        role: wish.role.to_owned(),
        owner_pubkey: key.public(),
        signature: String::new(),
    };
    let token = v1.signed(key).token();
    let body = CreateInvite {
        invite_id,
        code: random_code(&mut OsRng),
        role: wish.role.to_owned(),
        max_uses: wish.uses,
        expires_at,
        signature_v2: key.sign(text.as_bytes()),
        v1_token_hash: Some(signed_http::sha256_hex(token.as_bytes())),
        preset: wish.preset.clone(),
    };
    let base = entry.broker_http();
    let path = format!("/mesh/{}/invites", owner.mesh_id);
    let mut view: InviteView = Call { base: &base, path: &path, key: Some(key), bearer: None }.post(&body)?;
    view.url = match view.url.as_str() {
        "" => format!("{base}/i/{}", view.code),
        url => keep_secure(&base, url),
    };
    Ok(NewInvite { view, v1_url: format!("{}/join/{token}", broker_http(outside_url(entry))) })
}

/// The invites of a mesh, newest first.
///
/// # Errors
/// As [`create_invite`].
pub fn list_invites(owner: &OwnerEntry, entry: &MeshEntry) -> Result<Vec<InviteView>, CliError> {
    let key = owner_key(owner)?;
    let path = format!("/mesh/{}/invites", owner.mesh_id);
    let list: InviteList = Call { base: &entry.broker_http(), path: &path, key: Some(&key), bearer: None }.get()?;
    Ok(list.invites)
}

/// Revokes an invite by its code or id; answers it.
///
/// # Errors
/// Exit 5 when there is none; otherwise as [`create_invite`].
pub fn revoke_invite(owner: &OwnerEntry, entry: &MeshEntry, wanted: &str) -> Result<InviteView, CliError> {
    let key = owner_key(owner)?;
    let invites = list_invites(owner, entry)?;
    let found = invites
        .into_iter()
        .find(|invite| invite.code.eq_ignore_ascii_case(wanted) || invite.invite_id.as_str() == wanted)
        .ok_or_else(|| CliError::not_found("The mesh has no such invite.").hint("`claudemesh invite --list`"))?;
    let path = format!("/mesh/{}/invites/{}/revoke", owner.mesh_id, found.invite_id);
    let _: serde_json::Value =
        Call { base: &entry.broker_http(), path: &path, key: Some(&key), bearer: None }.post(&serde_json::json!({}))?;
    Ok(found)
}

/// The members of a mesh, in joining order; signed by our member.
///
/// # Errors
/// Exit 4 for the network, or what the broker says.
pub fn members(entry: &MeshEntry) -> Result<Vec<MemberView>, CliError> {
    let key = member_key(entry)?;
    let path = format!("/mesh/{}/members", entry.mesh_id);
    let list: MemberList = Call { base: &entry.broker_http(), path: &path, key: Some(&key), bearer: None }.get()?;
    Ok(list.members)
}

/// A mesh that was just joined.
#[derive(Debug)]
pub struct JoinedMesh {
    /// To keep in `config.json`.
    pub entry: MeshEntry,
    /// The key was a member before.
    pub already_member: bool,
    /// `member` or `admin`, when the invite says.
    pub role: Option<String>,
}

/// Joins with any form of invite. An existing key of ours for the same mesh is used again, so that joining twice does
/// not leave a dead member behind; `used_link` answers the link that a mesh was joined with. Nothing is written here.
///
/// # Errors
/// Exit 3 for a damaged link, 2 for a signature that does not verify or an expired invite, 4 for the network.
pub fn join(
    config: &Config,
    link: &str,
    name: &str,
    default_broker: Option<&str>,
    used_link: impl Fn(&MeshEntry) -> Option<String>,
) -> Result<JoinedMesh, CliError> {
    match InviteLink::parse(link)? {
        InviteLink::V1 { token } => join_v1(config, &token, name),
        InviteLink::V2 { code, base } => {
            let base = base.unwrap_or_else(|| broker_http(default_broker.unwrap_or(DEFAULT_BROKER)));
            let used_before = |code: &str| {
                config.meshes.iter().find(|entry| {
                    let link = used_link(entry).and_then(|link| InviteLink::parse(&link).ok());
                    matches!(link, Some(InviteLink::V2 { code: used, .. }) if used.eq_ignore_ascii_case(code))
                })
            };
            join_v2(config, &code, &base, name, used_before)
        }
    }
}

fn join_v1(config: &Config, token: &str, name: &str) -> Result<JoinedMesh, CliError> {
    let invite = InviteV1::read(token)?;
    if invite.expires_at * 1_000 <= crate::clock::now_ms() {
        return Err(CliError::new(ExitCode::Auth, "invite_expired", "The invite has expired.")
            .hint("Ask for a fresh one: `claudemesh invite`."));
    }
    check_broker_url(&invite.broker_url)?;
    let known = config.by_id(&invite.mesh_id);
    let member = known.map_or_else(|| Ok(SecretKey::random(&mut OsRng)), member_key)?;
    let base = broker_http(&invite.broker_url);
    let body = Join {
        invite_token: token.to_owned(),
        invite_payload: serde_json::to_value(&invite)
            .map_err(|error| CliError::internal(format!("The request cannot be written: {error}.")))?,
        peer_pubkey: member.public().to_hex(),
        display_name: name.to_owned(),
    };
    let joined: Joined = Call { base: &base, path: "/join", key: None, bearer: None }.post(&body)?;
    let Some(member_id) = joined.member_id.filter(|_| joined.ok) else {
        let message = joined.message.or(joined.error).unwrap_or_else(|| "no reason given".into());
        return Err(CliError::new(ExitCode::Auth, "join_refused", format!("The broker refused: {message}.")));
    };
    let already_member = joined.already_member.unwrap_or(false);
    let entry = Membership {
        mesh_id: invite.mesh_id,
        member_id,
        slug: Some(invite.mesh_slug),
        broker_url: invite.broker_url,
        root_key: Some(invite.mesh_root_key),
        version: 1,
    };
    Ok(JoinedMesh { entry: entry.into_config(&member), already_member, role: Some(invite.role) })
}

fn join_v2<'a>(
    config: &'a Config,
    code: &str,
    base: &str,
    name: &str,
    used_before: impl FnOnce(&str) -> Option<&'a MeshEntry>,
) -> Result<JoinedMesh, CliError> {
    // Which mesh a code is for is known after the claim; a broker that tells before spares us a second member there.
    let preview = Call { base, path: &format!("/invites/{code}"), key: None, bearer: None }.get::<Preview>().ok();
    let known = preview.and_then(|preview| config.by_id(&preview.mesh_id));
    let known = known.or_else(|| used_before(code));
    let member = known.map_or_else(|| Ok(SecretKey::random(&mut OsRng)), member_key)?;
    // A key for this one answer: the root key is sealed to it.
    let receiver = SecretKey::random(&mut OsRng).to_x25519();
    let recipient = URL_SAFE_NO_PAD.encode(receiver.public_key().as_bytes());
    let body = Claim {
        signature: member.sign(signed::claim(code, &member.public(), &recipient).as_bytes()),
        recipient_x25519_pubkey: recipient,
        peer_pubkey: member.public(),
        display_name: Some(name.to_owned()),
    };
    let path = format!("/invites/{code}/claim");
    let claimed: Claimed = Call { base, path: &path, key: None, bearer: None }.post(&body)?;
    let role = check_claim(&claimed)?;
    let wrong = || unsound("the root key in its answer cannot be opened");
    let sealed = URL_SAFE_NO_PAD.decode(claimed.sealed_root_key.trim_end_matches('=')).map_err(|_| wrong())?;
    let root = envelope::open_anonymous(&sealed, &receiver).map_err(|_| wrong())?;
    if root.len() != 32 {
        return Err(wrong());
    }
    let broker_url = claimed.broker_url.map_or_else(|| broker_ws(base), |url| keep_secure(base, &url));
    check_broker_url(&broker_url)?;
    let entry = Membership {
        mesh_id: claimed.mesh_id,
        member_id: claimed.member_id,
        slug: claimed.mesh_slug,
        broker_url,
        root_key: Some(URL_SAFE_NO_PAD.encode(root)),
        version: 2,
    };
    Ok(JoinedMesh {
        entry: entry.into_config(&member),
        already_member: claimed.already_member,
        role: claimed.role.or(role),
    })
}

/// What a code is for, told by brokers that can before it is claimed.
#[derive(serde::Deserialize)]
struct Preview {
    mesh_id: MeshId,
}

/// Checks that the owner's words in the answer belong together; answers the role in them.
fn check_claim(claimed: &Claimed) -> Result<Option<String>, CliError> {
    let parts: Vec<&str> = claimed.canonical_v2.split('|').collect();
    let ["v=2", mesh, _invite, expires, role, owner] = parts.as_slice() else {
        return Err(unsound("its answer does not quote the invite"));
    };
    if *mesh != claimed.mesh_id.as_str() || PublicKey::parse(owner) != Some(claimed.owner_pubkey) {
        return Err(unsound("its answer is about another mesh than the invite"));
    }
    if expires.parse::<i64>().is_ok_and(|at| at * 1_000 <= crate::clock::now_ms()) {
        return Err(CliError::new(ExitCode::Auth, "expired", "The invite has expired.").hint("Ask for a fresh one."));
    }
    if let Some(signature) = &claimed.signature_v2
        && keys::verify(&claimed.owner_pubkey, claimed.canonical_v2.as_bytes(), signature).is_err()
    {
        return Err(InviteError::BadSignature.into());
    }
    Ok(Some((*role).to_owned()))
}

fn unsound(what: &str) -> CliError {
    CliError::new(ExitCode::Auth, "unsound_answer", format!("The broker cannot be trusted with this invite: {what}."))
}

struct Membership {
    mesh_id: MeshId,
    member_id: MemberId,
    slug: Option<String>,
    broker_url: String,
    root_key: Option<String>,
    version: u64,
}

impl Membership {
    fn into_config(self, member: &SecretKey) -> MeshEntry {
        let slug = self.slug.filter(|slug| check_slug(slug).is_ok());
        let slug = slug.unwrap_or_else(|| {
            let head: String = self.mesh_id.as_str().chars().filter(char::is_ascii_alphanumeric).take(8).collect();
            format!("mesh-{}", head.to_ascii_lowercase())
        });
        MeshEntry {
            mesh_id: self.mesh_id,
            member_id: self.member_id,
            name: slug.clone(),
            slug,
            pubkey: member.public().to_hex(),
            secret_key: member.into(),
            broker_url: self.broker_url,
            joined_at: crate::clock::now_iso(),
            root_key: self.root_key.map(StoredSecret::new),
            invite_version: Some(self.version),
            extra: serde_json::Map::new(),
        }
    }
}

/// An address that the broker gave of itself, with TLS when we reached the same host and port by TLS: behind a proxy it does
/// not know how it is reached, and a secure link must not become a plain connection.
fn keep_secure(base: &str, url: &str) -> String {
    let authority = |url: &str| -> Option<String> {
        let (_, rest) = url.split_once("://")?;
        Some(rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase())
    };
    if base.starts_with("https://") && authority(base) == authority(url) {
        for (plain, secure) in [("ws://", "wss://"), ("http://", "https://")] {
            if let Some(rest) = url.strip_prefix(plain) {
                return format!("{secure}{rest}");
            }
        }
    }
    url.to_owned()
}

/// The WebSocket URL of a broker given its HTTP address.
pub fn broker_ws(base: &str) -> String {
    match base.split_once("://") {
        Some(("https", rest)) => format!("wss://{rest}/ws"),
        Some((_, rest)) => format!("ws://{rest}/ws"),
        None => format!("ws://{base}/ws"),
    }
}

/// A local short name: lower-case letters, digits and hyphens, 2 to 32, not a hyphen first.
///
/// # Errors
/// Exit 3.
pub fn check_slug(slug: &str) -> Result<(), CliError> {
    let fine = (2..=32).contains(&slug.len())
        && !slug.starts_with('-')
        && slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fine {
        return Ok(());
    }
    Err(CliError::invalid_args(format!("'{}' is no short name for a mesh.", crate::output::clean(slug)))
        .hint("Lower-case letters, digits and hyphens, 2 to 32 characters, for example `dev-team`."))
}

/// Only WebSocket URLs without anything that a connection would not use.
fn check_broker_url(url: &str) -> Result<(), CliError> {
    let host = url.strip_prefix("ws://").or_else(|| url.strip_prefix("wss://"));
    let host = host.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    if host.is_some_and(|host| !host.is_empty() && !host.contains('@')) && !url.chars().any(char::is_control) {
        return Ok(());
    }
    Err(CliError::invalid_args(format!("'{}' is no broker address.", crate::output::clean(url)))
        .hint("Expected ws://HOST:PORT/ws or wss://HOST/ws."))
}

/// Whether keys and public messages would travel unprotected to another machine.
pub fn is_exposed(broker_url: &str) -> bool {
    broker_url.starts_with("ws://") && !http::is_loopback(broker_url)
}

fn owner_key(owner: &OwnerEntry) -> Result<SecretKey, CliError> {
    owner.secret_key.key().map_err(|error| {
        CliError::new(
            ExitCode::Io,
            "broken_config",
            format!("The owner key of {} cannot be used: {error}.", owner.slug),
        )
        .hint("Restore owners.json of the config folder from a copy.")
    })
}

fn member_key(entry: &MeshEntry) -> Result<SecretKey, CliError> {
    entry.secret_key.key().map_err(|error| {
        CliError::new(
            ExitCode::Io,
            "broken_config",
            format!("The member key of {} cannot be used: {error}.", entry.slug),
        )
        .hint("Leave the mesh and join it again.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_and_broker_urls_are_checked() {
        assert!(check_slug("dev-team").is_ok());
        for bad in ["", "a", "-ab", "Team", "a b", "a/b", &"x".repeat(33)] {
            assert!(check_slug(bad).is_err(), "{bad}");
        }
        assert!(check_broker_url("ws://h:1/ws").is_ok());
        assert!(check_broker_url("wss://h").is_ok());
        for bad in ["http://h/ws", "ws://", "ws:///ws", "ws://user@h/ws", "ws://h/\n", "javascript:x"] {
            assert!(check_broker_url(bad).is_err(), "{bad}");
        }
        assert!(is_exposed("ws://10.0.0.1/ws"));
        assert!(!is_exposed("ws://127.0.0.1:7900/ws"));
        assert!(!is_exposed("wss://10.0.0.1/ws"));
    }

    #[test]
    fn a_secure_link_does_not_become_a_plain_connection() {
        assert_eq!(keep_secure("https://h:1", "ws://h:1/ws"), "wss://h:1/ws");
        assert_eq!(keep_secure("https://h", "http://H/i/ABC"), "https://H/i/ABC");
        assert_eq!(keep_secure("http://h:1", "ws://h:1/ws"), "ws://h:1/ws");
        assert_eq!(keep_secure("https://h:1", "ws://other:1/ws"), "ws://other:1/ws");
        assert_eq!(keep_secure("https://h:1", "wss://h:1/ws"), "wss://h:1/ws");
    }

    #[test]
    fn a_claim_answer_must_be_about_the_owners_words() {
        let owner = SecretKey::from_seed([5; 32]);
        let text = signed::invite_v2(&"m1".into(), &"i1".into(), 4_000_000_000, "admin", &owner.public());
        let good = Claimed {
            sealed_root_key: String::new(),
            mesh_id: "m1".into(),
            member_id: "a".into(),
            owner_pubkey: owner.public(),
            signature_v2: Some(owner.sign(text.as_bytes())),
            canonical_v2: text,
            mesh_slug: None,
            broker_url: None,
            role: None,
            already_member: false,
        };
        assert_eq!(check_claim(&good).unwrap().as_deref(), Some("admin"));
        let other = Claimed { mesh_id: "m2".into(), ..good.clone() };
        assert!(check_claim(&other).is_err());
        let forged = Claimed { canonical_v2: good.canonical_v2.replace("admin", "member"), ..good.clone() };
        assert_eq!(check_claim(&forged).unwrap_err().code, "invite_bad_signature");
        let old = Claimed { canonical_v2: good.canonical_v2.replace("4000000000", "1"), ..good };
        assert_eq!(check_claim(&old).unwrap_err().code, "expired");
    }

    #[test]
    fn a_strange_slug_of_a_broker_becomes_one_of_ours() {
        let member = SecretKey::from_seed([6; 32]);
        let of = |slug: Option<&str>| {
            let membership = Membership {
                mesh_id: "AbCdEfGhIj".into(),
                member_id: "a".into(),
                slug: slug.map(Into::into),
                broker_url: "ws://h/ws".into(),
                root_key: None,
                version: 2,
            };
            membership.into_config(&member).slug
        };
        assert_eq!(of(Some("team")), "team");
        assert_eq!(of(Some("../x")), "mesh-abcdefgh");
        assert_eq!(of(None), "mesh-abcdefgh");
    }
}
