//! `invites`, and the one transaction that turns an invite into a member.
//!
//! The token of a v1 link is never stored, only its SHA-256: the database cannot give a link away.

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::crypto::{keys, signed};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::enrolment::InvitePreset;
use claudemesh_protocol::id::{InviteId, MemberId, MeshId, PublicKey};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::schema::invites;
use crate::audit::{Audit, By};
use crate::db::columns::{OptionalJson, Text};
use crate::db::distinct_names::{distinct, names_of_others};
use crate::db::members::{Member, Role, by_key};
use crate::db::meshes::{self, MeshRecord};
use crate::db::rights;
use crate::db::schema::members;
use crate::db::{Db, DbError, MeshDb, convert};
use crate::journal::{Journal, MeshStore, WriteError};
use crate::refusal::Refusal;
use crate::{tx_write, with_conn};

/// An invite as stored.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = invites, treat_none_as_default_value = false)]
pub struct Invite {
    /// Row id, part of the v2 signature.
    #[diesel(serialize_as = Text<InviteId>, deserialize_as = Text<InviteId>)]
    pub id: InviteId,
    /// Mesh.
    #[diesel(serialize_as = Text<MeshId>, deserialize_as = Text<MeshId>)]
    pub mesh_id: MeshId,
    /// 2 when it has a code, else 1.
    pub version: i32,
    /// Code of the v2 link.
    pub code: Option<String>,
    /// SHA-256 (lower-case hex) of the v1 token.
    pub token_hash: Option<String>,
    /// `admin` or `member`.
    #[diesel(serialize_as = Text<Role>, deserialize_as = Text<Role>)]
    pub role: Role,
    /// Uses allowed.
    pub max_uses: i32,
    /// Uses so far.
    pub used_count: i32,
    /// Unix milliseconds, whole seconds.
    pub expires_at_ms: i64,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Key that signed it: the mesh's owner key, or that of a member that may invite.
    #[diesel(serialize_as = Text<PublicKey>, deserialize_as = Text<PublicKey>)]
    pub created_by_key: PublicKey,
    /// Unix milliseconds.
    pub revoked_at_ms: Option<i64>,
    /// The signed string.
    pub canonical: String,
    /// The signature of `created_by_key`.
    pub signature: String,
    /// Defaults of the new member.
    #[diesel(serialize_as = OptionalJson<InvitePreset>, deserialize_as = OptionalJson<InvitePreset>)]
    pub preset: Option<InvitePreset>,
}

/// Someone who wants to become a member.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Id for the new row; unused when the key is a member already.
    pub member_id: MemberId,
    /// The key to enrol.
    pub pubkey: PublicKey,
    /// Name; the invite's preset wins, and a name that a living member has gets a number.
    pub display_name: String,
}

/// Who was enrolled, and through what.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The mesh.
    pub mesh: MeshRecord,
    /// The member, as it is now.
    pub member: Member,
    /// The invite.
    pub invite: Invite,
    /// The key was a member before; no use was consumed.
    pub already_member: bool,
}

/// Stores an invite.
///
/// # Errors
/// [`DbError::Conflict`] when id, code or token are taken.
pub async fn create_invite(store: &MeshStore, invite: &Invite, by: &By) -> Result<(), DbError> {
    let (invite, by) = (Invite { mesh_id: store.mesh().clone(), ..invite.clone() }, by.clone());
    Ok(tx_write!(store, (invite, by), |conn, _mesh| {
        diesel::insert_into(invites::table).values(invite.clone()).execute(conn).await?;
        let (id, role) = (&invite.id, invite.role.as_str());
        let payload =
            json!({"invite": id, "role": role, "maxUses": invite.max_uses, "expiresAt": invite.expires_at_ms});
        Ok(((), by.entry("invite_created", payload)))
    })?)
}

/// Invites of a mesh, newest first.
///
/// # Errors
/// Storage fails.
pub async fn list_invites(db: &MeshDb, limit: u32) -> Result<Vec<Invite>, DbError> {
    Ok(with_conn!(db.db(), |conn| invites::table
        .filter(invites::mesh_id.eq(db.mesh().as_str()))
        .order((invites::created_at_ms.desc(), invites::id))
        .limit(i64::from(limit))
        .select(Invite::as_select())
        .load(conn)
        .await?))
}

/// How many invites of a mesh can still be used.
///
/// # Errors
/// Storage fails.
pub async fn count_usable(db: &MeshDb, now_ms: i64) -> Result<u32, DbError> {
    let count: i64 = with_conn!(db.db(), |conn| invites::table
        .filter(invites::mesh_id.eq(db.mesh().as_str()))
        .filter(invites::revoked_at_ms.is_null())
        .filter(invites::expires_at_ms.gt(now_ms))
        .filter(invites::used_count.lt(invites::max_uses))
        .count()
        .get_result(conn)
        .await?);
    Ok(convert::count(count))
}

/// One invite by the code of its link, usable or not.
///
/// # Errors
/// Storage fails.
pub async fn invite_by_code(db: &Db, code: &str) -> Result<Option<Invite>, DbError> {
    Ok(with_conn!(db, |conn| invites::table
        .filter(invites::code.eq(code))
        .select(Invite::as_select())
        .first(conn)
        .await
        .optional()?))
}

/// Revokes an invite of a mesh; `None` when the mesh has no such invite. Revoking twice keeps the first time.
///
/// # Errors
/// Storage fails.
pub async fn revoke_invite(store: &MeshStore, invite: &InviteId, by: &By) -> Result<Option<Invite>, DbError> {
    let (invite, by) = (invite.clone(), by.clone());
    Ok(tx_write!(store, (invite, by), |conn, mesh| {
        let row = invites::table.find(invite.as_str()).filter(invites::mesh_id.eq(mesh.as_str()));
        let changed = diesel::update(row.filter(invites::revoked_at_ms.is_null()))
            .set(invites::revoked_at_ms.eq(by.at_ms))
            .execute(conn)
            .await?
            == 1;
        let found = row.select(Invite::as_select()).first(conn).await.optional()?;
        Ok((found, Audit::when(changed, || by.entry("invite_revoked", json!({"invite": invite})))))
    })?)
}

/// Enrols through a v1 token, whose payload the caller has read from the token and verified.
///
/// Checks in this order: mesh live (`mesh_not_found`), same owner (`invite_owner_mismatch`), invite known
/// (`invite_not_found`) and of that mesh (`invite_mesh_mismatch`), `invite_revoked`, `invite_expired`, key banned (`revoked`),
/// key enrolled before (success, no use consumed), `invite_exhausted`.
///
/// # Errors
/// The refusal with those codes.
pub async fn claim_v1(
    db: &Db,
    journal: &Journal,
    token_hash: &str,
    mesh: &MeshId,
    owner: &PublicKey,
    candidate: &Candidate,
    now_ms: i64,
) -> Result<Enrolled, Refusal> {
    let found = meshes::load(db, mesh).await?.filter(|mesh| mesh.archived_at_ms.is_none());
    let mesh = found.ok_or(Refusal::from(ErrorCode::MeshNotFound))?;
    if mesh.owner_pubkey != *owner {
        return Err(Refusal::from(ErrorCode::InviteOwnerMismatch));
    }
    let row = with_conn!(db, |conn| invites::table
        .filter(invites::token_hash.eq(token_hash))
        .select(Invite::as_select())
        .first(conn)
        .await
        .optional()
        .map_err(DbError::from)?);
    let invite: Invite = row.ok_or(Refusal::from(ErrorCode::InviteNotFound))?;
    if invite.mesh_id != mesh.id {
        return Err(Refusal::from(ErrorCode::InviteMeshMismatch));
    }
    let codes = Codes {
        revoked: ErrorCode::InviteRevoked,
        expired: ErrorCode::InviteExpired,
        exhausted: ErrorCode::InviteExhausted,
    };
    let store = MeshStore::new(db.clone(), mesh.id.clone(), journal.clone());
    enrol(&store, mesh, invite, candidate, now_ms, codes).await
}

/// Whether a member of this role may make others of that role: only the owner makes admins.
pub fn may_give(own: Role, given: Role) -> bool {
    own == Role::Owner || given == Role::Member
}

/// Whether the member of this key may invite, now: an invite is worth no more than the member that made it.
///
/// # Errors
/// Storage fails.
pub async fn may_invite(db: &MeshDb, key: &PublicKey, role: Role) -> Result<bool, DbError> {
    let Some(member) = by_key(db, key).await?.filter(|member| member.revoked_at_ms.is_none()) else { return Ok(false) };
    let rights = rights::load(db).await?;
    Ok(may_give(member.role, role) && rights.allows(&member.id, member.role, Capability::CanInvite))
}

/// Enrols through the code of a v2 link.
///
/// Checks in this order: code known (`not_found`), `revoked`, `expired`, mesh live (`mesh_not_found`), the signer is the owner or
/// a member that may still invite (`revoked`), its signature over the invite as it is stored (`bad_signature`), key banned
/// (`revoked`), key enrolled before (success, no use consumed, so that a repeated claim is answered alike), `exhausted`.
///
/// # Errors
/// The refusal with those codes.
pub async fn claim_v2(
    db: &Db,
    journal: &Journal,
    code: &str,
    candidate: &Candidate,
    now_ms: i64,
) -> Result<Enrolled, Refusal> {
    let invite = invite_by_code(db, code).await?.ok_or(Refusal::from(ErrorCode::NotFound))?;
    let codes = Codes { revoked: ErrorCode::Revoked, expired: ErrorCode::Expired, exhausted: ErrorCode::Exhausted };
    codes.check_window(&invite, now_ms)?;
    let found = meshes::load(db, &invite.mesh_id).await?.filter(|mesh| mesh.archived_at_ms.is_none());
    let mesh = found.ok_or(Refusal::from(ErrorCode::MeshNotFound))?;
    let signer = &invite.created_by_key;
    let reader = MeshDb::new(db.clone(), mesh.id.clone());
    // Of a member that may invite no more, or of a former owner: it no longer lets anyone in.
    if *signer != mesh.owner_pubkey && !may_invite(&reader, signer, invite.role).await? {
        return Err(Refusal::from(codes.revoked));
    }
    let canonical = signed::invite_v2(
        &mesh.id,
        &invite.id,
        invite.expires_at_ms.div_euclid(1_000),
        invite.role.as_str(),
        &mesh.owner_pubkey,
    );
    if canonical != invite.canonical || keys::verify(signer, canonical.as_bytes(), &invite.signature).is_err() {
        return Err(Refusal::from(ErrorCode::BadSignature));
    }
    let store = MeshStore::new(db.clone(), mesh.id.clone(), journal.clone());
    enrol(&store, mesh, invite, candidate, now_ms, codes).await
}

/// The two invite versions name the same refusals differently.
#[derive(Clone, Copy)]
struct Codes {
    revoked: ErrorCode,
    expired: ErrorCode,
    exhausted: ErrorCode,
}

impl Codes {
    fn check_window(self, invite: &Invite, now_ms: i64) -> Result<(), Refusal> {
        if invite.revoked_at_ms.is_some() {
            return Err(Refusal::new(self.revoked, "this invite was revoked"));
        }
        if invite.expires_at_ms <= now_ms {
            return Err(Refusal::new(self.expired, "this invite has expired"));
        }
        Ok(())
    }
}

async fn enrol(
    store: &MeshStore,
    mesh: MeshRecord,
    invite: Invite,
    candidate: &Candidate,
    now_ms: i64,
    codes: Codes,
) -> Result<Enrolled, Refusal> {
    codes.check_window(&invite, now_ms)?;
    let member = new_member(&mesh, &invite, candidate, now_ms);
    let mut repeated = false;
    loop {
        match try_enrol(store, &invite, &member, now_ms, codes).await {
            // The same key enrolled at the same moment: look again and find it as a member.
            Err(WriteError::Db(DbError::Conflict(_))) if !repeated => repeated = true,
            Err(error) => return Err(error.into()),
            Ok((member, already_member)) => return Ok(Enrolled { mesh, member, invite, already_member }),
        }
    }
}

/// One write: looks for the key, consumes a use by compare-and-set, inserts the member. A refusal writes nothing.
async fn try_enrol(
    store: &MeshStore,
    invite: &Invite,
    member: &Member,
    now_ms: i64,
    codes: Codes,
) -> Result<(Member, bool), WriteError<ErrorCode>> {
    let (pubkey, invite, member) = (member.pubkey.to_hex(), invite.id.clone(), member.clone());
    tx_write!(store, (pubkey, invite, member, now_ms, codes), |conn, mesh| {
        let known = members::table
            .filter(members::mesh_id.eq(mesh.as_str()))
            .filter(members::pubkey.eq(pubkey))
            .select(Member::as_select())
            .first(conn)
            .await
            .optional()?;
        let mut before = None;
        if let Some(known) = known {
            if known.banned_at_ms().is_some() {
                return Err(WriteError::Refused(ErrorCode::Revoked));
            }
            if known.revoked_at_ms.is_none() {
                return Ok(((known, true), Audit::Unaudited("the key is a member already")));
            }
            before = Some(known);
        }
        let usable = invites::table
            .find(invite.as_str())
            .filter(invites::mesh_id.eq(mesh.as_str()))
            .filter(invites::used_count.lt(invites::max_uses))
            .filter(invites::revoked_at_ms.is_null())
            .filter(invites::expires_at_ms.gt(*now_ms));
        let used = diesel::update(usable).set(invites::used_count.eq(invites::used_count + 1)).execute(conn).await?;
        if used == 0 {
            return Err(WriteError::Refused(codes.exhausted));
        }
        let member = match before {
            // A member that was removed, or left, joins as a new one, but keeps its id: what it wrote is still its.
            Some(before) => {
                let row = members::table.find(before.id.as_str()).filter(members::mesh_id.eq(mesh.as_str()));
                diesel::delete(row).execute(conn).await?;
                Member { id: before.id, ..member.clone() }
            }
            None => member.clone(),
        };
        let name = distinct(&member.display_name, &names_of_others!(conn, mesh, member.id));
        let member = Member { display_name: name, ..member };
        diesel::insert_into(members::table).values(member.clone()).execute(conn).await?;
        let payload = json!({"member": member.id, "invite": invite, "role": member.role.as_str()});
        let audit = Audit::entry("member_joined", Some(&member.id), payload, *now_ms);
        Ok(((member, false), audit))
    })
}

fn new_member(mesh: &MeshRecord, invite: &Invite, candidate: &Candidate, now_ms: i64) -> Member {
    let preset = invite.preset.clone().unwrap_or_default();
    let name = preset.display_name.as_deref().unwrap_or(&candidate.display_name);
    let fresh = Member::new(candidate.member_id.clone(), &mesh.id, candidate.pubkey, name, invite.role, now_ms);
    Member {
        role_tag: preset.role_tag,
        default_groups: preset.groups,
        message_mode: preset.message_mode.unwrap_or(fresh.message_mode),
        ..fresh
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
