//! `members`: who belongs to a mesh. A banned member keeps its row (`revoked_at_ms`), so that its key cannot enrol again.
//!
//! Every update names mesh and member: an id of another mesh changes nothing.

use std::collections::BTreeMap;

use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::members::{Grant, Grants};
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::schema::members;
use crate::audit::{Audit, By};
use crate::db::{DbError, MeshDb, convert};
use crate::journal::{MeshStore, WriteError};
use crate::{tx_write, with_conn};

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Sends, receives, edits itself.
    Member,
    /// Also moderates and edits members.
    Admin,
    /// The creator; cannot be banned.
    Owner,
}

impl Role {
    /// The wire text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// Reads the wire text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Member, Self::Admin, Self::Owner].into_iter().find(|role| role.as_str() == text)
    }
}

/// A member as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Row id.
    pub id: MemberId,
    /// Mesh.
    pub mesh_id: MeshId,
    /// ed25519 key, unique in the mesh.
    pub pubkey: PublicKey,
    /// Name, not unique.
    pub display_name: String,
    /// Role.
    pub role: Role,
    /// Free role text.
    pub role_tag: Option<String>,
    /// Groups of sessions that name none.
    pub default_groups: Vec<Group>,
    /// `push`, `inbox` or `off`.
    pub message_mode: String,
    /// What others may do to this member, by their key.
    pub grants: Grants,
    /// Unix milliseconds.
    pub joined_at_ms: i64,
    /// Unix milliseconds.
    pub last_seen_at_ms: Option<i64>,
    /// Unix milliseconds; set while banned.
    pub revoked_at_ms: Option<i64>,
}

impl Member {
    /// A member without any settings of its own.
    pub fn new(id: MemberId, mesh: &MeshId, pubkey: PublicKey, name: &str, role: Role, joined_at_ms: i64) -> Self {
        Self {
            id,
            mesh_id: mesh.clone(),
            pubkey,
            display_name: name.into(),
            role,
            role_tag: None,
            default_groups: vec![],
            message_mode: "push".into(),
            grants: Grants::default(),
            joined_at_ms,
            last_seen_at_ms: None,
            revoked_at_ms: None,
        }
    }
}

#[derive(Insertable)]
#[diesel(table_name = members, treat_none_as_default_value = false)]
pub(crate) struct NewMemberRow {
    id: String,
    mesh_id: String,
    pubkey: String,
    display_name: String,
    role: &'static str,
    role_tag: Option<String>,
    default_groups: String,
    message_mode: String,
    grants: String,
    joined_at_ms: i64,
    last_seen_at_ms: Option<i64>,
    revoked_at_ms: Option<i64>,
}

impl From<&Member> for NewMemberRow {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id.to_string(),
            mesh_id: member.mesh_id.to_string(),
            pubkey: member.pubkey.to_hex(),
            display_name: member.display_name.clone(),
            role: member.role.as_str(),
            role_tag: member.role_tag.clone(),
            default_groups: convert::to_json(&member.default_groups),
            message_mode: member.message_mode.clone(),
            grants: convert::to_json(&member.grants),
            joined_at_ms: member.joined_at_ms,
            last_seen_at_ms: member.last_seen_at_ms,
            revoked_at_ms: member.revoked_at_ms,
        }
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = members)]
pub(crate) struct MemberRow {
    id: String,
    mesh_id: String,
    pubkey: String,
    display_name: String,
    role: String,
    role_tag: Option<String>,
    default_groups: String,
    message_mode: String,
    grants: String,
    joined_at_ms: i64,
    last_seen_at_ms: Option<i64>,
    revoked_at_ms: Option<i64>,
}

impl TryFrom<MemberRow> for Member {
    type Error = DbError;

    fn try_from(row: MemberRow) -> Result<Self, DbError> {
        Ok(Self {
            pubkey: convert::key("members.pubkey", &row.pubkey)?,
            role: Role::parse(&row.role).ok_or_else(|| DbError::corrupt("members.role"))?,
            default_groups: convert::from_json("members.default_groups", &row.default_groups)?,
            grants: convert::from_json("members.grants", &row.grants)?,
            id: row.id.into(),
            mesh_id: row.mesh_id.into(),
            display_name: row.display_name,
            role_tag: row.role_tag,
            message_mode: row.message_mode,
            joined_at_ms: row.joined_at_ms,
            last_seen_at_ms: row.last_seen_at_ms,
            revoked_at_ms: row.revoked_at_ms,
        })
    }
}

/// What an edit changes; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemberPatch {
    /// Name.
    pub display_name: Option<String>,
    /// Free role text; `Some(None)` clears it.
    pub role_tag: Option<Option<String>>,
    /// Default groups.
    pub default_groups: Option<Vec<Group>>,
    /// `push`, `inbox` or `off`.
    pub message_mode: Option<String>,
    /// Role.
    pub role: Option<Role>,
}

impl MemberPatch {
    /// Names of the fields it changes, for the audit log.
    fn fields(&self) -> Vec<&'static str> {
        let fields = [
            ("display_name", self.display_name.is_some()),
            ("role_tag", self.role_tag.is_some()),
            ("default_groups", self.default_groups.is_some()),
            ("message_mode", self.message_mode.is_some()),
            ("role", self.role.is_some()),
        ];
        fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }
}

#[derive(AsChangeset)]
#[diesel(table_name = members)]
struct MemberChanges<'a> {
    display_name: Option<&'a str>,
    role_tag: Option<Option<&'a str>>,
    default_groups: Option<String>,
    message_mode: Option<&'a str>,
    role: Option<&'static str>,
}

/// All members of a mesh, banned ones included, in joining order.
///
/// # Errors
/// Storage fails.
pub async fn load_all(db: &MeshDb) -> Result<Vec<Member>, DbError> {
    let rows = with_conn!(db.db(), |conn| members::table
        .filter(members::mesh_id.eq(db.mesh().as_str()))
        .order((members::joined_at_ms, members::id))
        .select(MemberRow::as_select())
        .load(conn)
        .await?);
    rows.into_iter().map(TryInto::try_into).collect()
}

/// One member, banned or not.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &MeshDb, member: &MemberId) -> Result<Option<Member>, DbError> {
    let row = with_conn!(db.db(), |conn| members::table
        .find(member.as_str())
        .filter(members::mesh_id.eq(db.mesh().as_str()))
        .select(MemberRow::as_select())
        .first(conn)
        .await
        .optional()?);
    row.map(TryInto::try_into).transpose()
}

/// One member by its key, banned or not.
///
/// # Errors
/// Storage fails.
pub async fn by_key(db: &MeshDb, key: &PublicKey) -> Result<Option<Member>, DbError> {
    let key = key.to_hex();
    let row = with_conn!(db.db(), |conn| members::table
        .filter(members::mesh_id.eq(db.mesh().as_str()))
        .filter(members::pubkey.eq(&key))
        .select(MemberRow::as_select())
        .first(conn)
        .await
        .optional()?);
    row.map(TryInto::try_into).transpose()
}

/// Adds a member.
///
/// # Errors
/// [`DbError::Conflict`] when its key has a row in the mesh, banned or not.
pub async fn insert(store: &MeshStore, member: &Member) -> Result<(), DbError> {
    let row = NewMemberRow { mesh_id: store.mesh().to_string(), ..NewMemberRow::from(member) };
    Ok(tx_write!(store, (row), |conn, _mesh| {
        diesel::insert_into(members::table).values(row).execute(conn).await?;
        let payload = json!({"member": row.id, "role": row.role});
        Ok(((), Audit::entry("member_joined", Some(&row.id.as_str().into()), payload, row.joined_at_ms)))
    })?)
}

/// The row of a member of a mesh who is not banned. A macro, because the type of the expression has no short name.
macro_rules! live {
    ($mesh:expr, $member:expr) => {
        members::table
            .find($member.as_str())
            .filter(members::mesh_id.eq($mesh.as_str()))
            .filter(members::revoked_at_ms.is_null())
    };
}

/// Edits a live member and returns it as it is then; `None` when the mesh has no such live member.
///
/// # Errors
/// Storage fails.
pub async fn update(
    store: &MeshStore,
    member: &MemberId,
    patch: &MemberPatch,
    by: &By,
) -> Result<Option<Member>, DbError> {
    let (member, patch, by) = (member.clone(), patch.clone(), by.clone());
    let row = tx_write!(store, (member, patch, by), |conn, mesh| {
        let changes = MemberChanges {
            display_name: patch.display_name.as_deref(),
            role_tag: patch.role_tag.as_ref().map(Option::as_deref),
            default_groups: patch.default_groups.as_ref().map(convert::to_json),
            message_mode: patch.message_mode.as_deref(),
            role: patch.role.map(Role::as_str),
        };
        // Diesel refuses an update that changes nothing.
        let changed = *patch != MemberPatch::default()
            && diesel::update(live!(mesh, member)).set(changes).execute(conn).await? == 1;
        let found = live!(mesh, member).select(MemberRow::as_select()).first(conn).await.optional()?;
        let payload = json!({"member": member, "fields": patch.fields(), "role": patch.role.map(Role::as_str)});
        Ok((found, Audit::when(changed, || by.entry("member_changed", payload))))
    })?;
    row.map(TryInto::try_into).transpose()
}

/// Bans a member; `false` when it is not there or banned already. The owner's row is never banned.
///
/// # Errors
/// Storage fails.
pub async fn revoke(store: &MeshStore, member: &MemberId, by: &By) -> Result<bool, DbError> {
    let (member, by) = (member.clone(), by.clone());
    Ok(tx_write!(store, (member, by), |conn, mesh| {
        let row = live!(mesh, member).filter(members::role.ne(Role::Owner.as_str()));
        let changed = diesel::update(row).set(members::revoked_at_ms.eq(by.at_ms)).execute(conn).await? == 1;
        Ok((changed, Audit::when(changed, || by.entry("member_banned", json!({"member": member})))))
    })?)
}

/// Lifts a ban; `false` when there was none.
///
/// # Errors
/// Storage fails.
pub async fn unrevoke(store: &MeshStore, member: &MemberId, by: &By) -> Result<bool, DbError> {
    let (member, by) = (member.clone(), by.clone());
    Ok(tx_write!(store, (member, by), |conn, mesh| {
        let banned = members::table
            .find(member.as_str())
            .filter(members::mesh_id.eq(mesh.as_str()))
            .filter(members::revoked_at_ms.is_not_null());
        let changed = diesel::update(banned).set(members::revoked_at_ms.eq(None::<i64>)).execute(conn).await? == 1;
        Ok((changed, Audit::when(changed, || by.entry("member_unbanned", json!({"member": member})))))
    })?)
}

/// Grants one member may hold, so that a row stays small.
pub const MAX_GRANTS: usize = 1_000;

/// Changes a live member's grants: a list replaces, `None` removes. Returns the merged map, or `None` when the mesh has
/// no such live member.
///
/// # Errors
/// Storage fails. [`GrantsError::TooMany`] leaves them as they were.
pub async fn update_grants(
    store: &MeshStore,
    member: &MemberId,
    changes: &BTreeMap<PublicKey, Option<Vec<Grant>>>,
    by: &By,
) -> Result<Option<Grants>, GrantsError> {
    let (member, changes, by) = (member.clone(), changes.clone(), by.clone());
    Ok(tx_write!(store, (member, changes, by), |conn, mesh| {
        let found = live!(mesh, member).select(members::grants).first::<String>(conn).await.optional()?;
        let Some(text) = found else {
            return Ok((None, Audit::Unaudited("there is no such member")));
        };
        let mut grants: Grants = convert::from_json("members.grants", &text)?;
        for (key, change) in changes {
            match change {
                Some(list) => drop(grants.insert(*key, list.clone())),
                None => drop(grants.remove(key)),
            }
        }
        if grants.len() > MAX_GRANTS {
            return Err(WriteError::Refused(GrantsError::TooMany));
        }
        let text = convert::to_json(&grants);
        diesel::update(live!(mesh, member)).set(members::grants.eq(text)).execute(conn).await?;
        let payload = json!({"member": member, "changed": changes.len(), "grants": grants.len()});
        Ok((Some(grants), by.entry("grants_changed", payload)))
    })?)
}

/// Why grants were not changed.
#[derive(Debug, thiserror::Error)]
pub enum GrantsError {
    /// Over [`MAX_GRANTS`].
    #[error("expected at most {MAX_GRANTS} grants")]
    TooMany,
    /// Storage failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<WriteError<Self>> for GrantsError {
    fn from(error: WriteError<Self>) -> Self {
        match error {
            WriteError::Refused(refusal) => refusal,
            WriteError::Db(error) => Self::Db(error),
        }
    }
}
