//! Joining with links of both versions, and the checks of what the broker answers.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claudemesh_protocol::crypto::invite::{InviteError, InviteLink, InviteV1};
use claudemesh_protocol::crypto::keys::{self, SecretKey};
use claudemesh_protocol::crypto::{envelope, signed};
use claudemesh_protocol::features::enrolment::{Claim, Claimed, Join, Joined};
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use rand::rngs::OsRng;

use super::address::{broker_ws, check_broker_url, check_slug, keep_secure};
use super::call::Call;
use super::unusable::Unusable;
use super::{DEFAULT_BROKER, member_key};
use crate::config::{Config, MeshEntry, StoredSecret, broker_http};
use crate::error::{CliError, ExitCode};

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
/// not leave a dead member behind; `used_link` answers the link that a mesh was joined with. `fresh` gives the key for a new
/// membership, by what it is for and in which mesh: it must be kept before it is returned. Nothing is written here.
///
/// # Errors
/// Exit 3 for a damaged link, 2 for a signature that does not verify or an expired invite, 4 for the network.
pub fn join(
    config: &Config,
    link: &str,
    name: &str,
    default_broker: Option<&str>,
    used_link: impl Fn(&MeshEntry) -> Option<String>,
    fresh: impl FnOnce(&str, Option<&MeshId>) -> Result<SecretKey, CliError>,
) -> Result<JoinedMesh, CliError> {
    // Pages and messengers put marks around a link that no one sees.
    match InviteLink::parse(crate::output::clean(link).trim())? {
        InviteLink::V1 { token } => join_v1(config, &token, name, fresh),
        InviteLink::V2 { code, base } => {
            let bare = base.is_none();
            let base = base.unwrap_or_else(|| broker_http(default_broker.unwrap_or(DEFAULT_BROKER)));
            let used_before = |code: &str| {
                config.meshes.iter().find(|entry| {
                    let link = used_link(entry).and_then(|link| InviteLink::parse(&link).ok());
                    matches!(link, Some(InviteLink::V2 { code: used, .. }) if used.eq_ignore_ascii_case(code))
                })
            };
            join_v2(config, &code, &base, name, used_before, fresh).map_err(|error| match error.exit {
                // Any word looks like a code.
                ExitCode::Network if bare => {
                    let message = format!(
                        "'{code}' was read as an invite code for the broker at {base}, which cannot be reached."
                    );
                    CliError { message, ..error }.hint("Paste the whole link, for example http://host:7900/i/K7QX2MPA.")
                }
                _ => error,
            })
        }
    }
}

fn join_v1(
    config: &Config,
    token: &str,
    name: &str,
    fresh: impl FnOnce(&str, Option<&MeshId>) -> Result<SecretKey, CliError>,
) -> Result<JoinedMesh, CliError> {
    let invite = InviteV1::read(token)?;
    if invite.expires_at * 1_000 <= crate::clock::now_ms() {
        return Err(Unusable::Expired.error());
    }
    check_broker_url(&invite.broker_url)?;
    let known = config.by_id(&invite.mesh_id);
    let member =
        known.map_or_else(|| fresh(&format!("join mesh {}", invite.mesh_id), Some(&invite.mesh_id)), member_key)?;
    let base = broker_http(&invite.broker_url);
    let body = Join {
        invite_token: token.to_owned(),
        invite_payload: serde_json::to_value(&invite)
            .map_err(|error| CliError::internal(format!("The request cannot be written: {error}.")))?,
        peer_pubkey: member.public().to_hex(),
        display_name: name.to_owned(),
    };
    let joined: Result<Joined, CliError> = Call { base: &base, path: "/join", key: None, bearer: None }.post(&body);
    // Its word for a revoked invite is another one, so `revoked` is the member.
    let joined = joined.map_err(|error| Unusable::of(&error.code, true).map_or(error, Unusable::error))?;
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
    fresh: impl FnOnce(&str, Option<&MeshId>) -> Result<SecretKey, CliError>,
) -> Result<JoinedMesh, CliError> {
    // Which mesh a code is for is known after the claim; a broker that tells before spares us a second member there.
    let preview = Call { base, path: &format!("/invites/{code}"), key: None, bearer: None }.get::<Preview>().ok();
    let known = preview.as_ref().and_then(|preview| config.by_id(&preview.mesh_id));
    let known = known.or_else(|| used_before(code));
    let purpose = match &preview {
        Some(preview) => format!("join mesh {}", preview.mesh_id),
        None => format!("join {base} {}", code.to_ascii_uppercase()),
    };
    let member = known.map_or_else(|| fresh(&purpose, preview.as_ref().map(|preview| &preview.mesh_id)), member_key)?;
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
    let claimed: Result<Claimed, CliError> = Call { base, path: &path, key: None, bearer: None }.post(&body);
    // `revoked` may be the invite or the member; who has a new key was never banned.
    let live = preview.as_ref().and_then(|preview| preview.revoked) == Some(false);
    let claimed = claimed.map_err(|error| {
        let is_banned = live || (known.is_some() && preview.as_ref().is_some_and(|preview| preview.revoked.is_none()));
        Unusable::of(&error.code, is_banned).map_or(error, Unusable::error)
    })?;
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
    /// The invite was revoked; brokers of before do not tell.
    revoked: Option<bool>,
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
        return Err(Unusable::Expired.error());
    }
    if let Some(signature) = &claimed.signature_v2
        && keys::verify(
            claimed.signed_by.as_ref().unwrap_or(&claimed.owner_pubkey),
            claimed.canonical_v2.as_bytes(),
            signature,
        )
        .is_err()
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

#[cfg(test)]
mod tests {
    use super::*;

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
            signed_by: None,
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
        assert_eq!(check_claim(&old).unwrap_err().code, "invite_expired");
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
