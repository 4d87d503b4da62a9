//! `members`: who belongs to a mesh. A banned member keeps its row (`revoked_at_ms`), so that its key cannot enrol again.
//!
//! Every update names mesh and member: an id of another mesh changes nothing.

use std::collections::BTreeMap;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::members::{Grant, Grants};
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use claudemesh_protocol::name::folded;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::distinct_names::{distinct, names_of_others, taken};
use super::former_names::{Subject, insert_former};
use super::schema::members;
use crate::audit::{Audit, By};
use crate::db::columns::{self, Json, Text, TextColumn};
use crate::db::{DbError, MeshDb, convert};
use crate::journal::{MeshStore, WriteError};
use crate::refusal::Refusal;
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

    /// What a member of this role may do: the owner everything, admins all but end the mesh, members what does not concern
    /// what belongs to others.
    pub const fn allows(self, capability: Capability) -> bool {
        match self {
            Self::Owner => true,
            Self::Admin => !matches!(capability, Capability::CanDeleteMesh),
            Self::Member => matches!(
                capability,
                Capability::CanSend
                    | Capability::CanUseTools
                    | Capability::CanWriteState
                    | Capability::CanReadShared
                    | Capability::CanSchedule
                    | Capability::CanRunSql
                    | Capability::CanRunGraph
                    | Capability::CanDeployMcp
            ),
        }
    }

    /// Reads the wire text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Member, Self::Admin, Self::Owner].into_iter().find(|role| role.as_str() == text)
    }
}

impl TextColumn for Role {
    fn text(&self) -> String {
        self.as_str().to_owned()
    }

    fn read(text: String) -> Option<Self> {
        Self::parse(&text)
    }
}

columns::fields! {
    Text => Role;
}

/// A member as stored.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = members, treat_none_as_default_value = false)]
pub struct Member {
    /// Row id.
    #[diesel(serialize_as = Text<MemberId>, deserialize_as = Text<MemberId>)]
    pub id: MemberId,
    /// Mesh.
    #[diesel(serialize_as = Text<MeshId>, deserialize_as = Text<MeshId>)]
    pub mesh_id: MeshId,
    /// ed25519 key, unique in the mesh.
    #[diesel(serialize_as = Text<PublicKey>, deserialize_as = Text<PublicKey>)]
    pub pubkey: PublicKey,
    /// Name. No other living member of the mesh has it, but for members of before that rule.
    pub display_name: String,
    /// Role.
    #[diesel(serialize_as = Text<Role>, deserialize_as = Text<Role>)]
    pub role: Role,
    /// Free role text.
    pub role_tag: Option<String>,
    /// Groups of sessions that name none.
    #[diesel(serialize_as = Json<Vec<Group>>, deserialize_as = Json<Vec<Group>>)]
    pub default_groups: Vec<Group>,
    /// `push`, `inbox` or `off`.
    pub message_mode: String,
    /// What others may do to this member, by their key.
    #[diesel(serialize_as = Json<Grants>, deserialize_as = Json<Grants>)]
    pub grants: Grants,
    /// Unix milliseconds.
    pub joined_at_ms: i64,
    /// Unix milliseconds.
    pub last_seen_at_ms: Option<i64>,
    /// Unix milliseconds; set while banned or removed.
    pub revoked_at_ms: Option<i64>,
    /// Unix milliseconds; it was removed or has left, and its key may join again.
    pub removed_at_ms: Option<i64>,
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
            removed_at_ms: None,
        }
    }

    /// Banned: its key cannot join again.
    pub fn banned_at_ms(&self) -> Option<i64> {
        self.revoked_at_ms.filter(|_| self.removed_at_ms.is_none())
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
    Ok(with_conn!(db.db(), |conn| members::table
        .filter(members::mesh_id.eq(db.mesh().as_str()))
        .order((members::joined_at_ms, members::id))
        .select(Member::as_select())
        .load(conn)
        .await?))
}

/// One member, banned or not.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &MeshDb, member: &MemberId) -> Result<Option<Member>, DbError> {
    Ok(with_conn!(db.db(), |conn| members::table
        .find(member.as_str())
        .filter(members::mesh_id.eq(db.mesh().as_str()))
        .select(Member::as_select())
        .first(conn)
        .await
        .optional()?))
}

/// The owner of a mesh.
///
/// # Errors
/// Storage fails.
pub async fn owner(db: &MeshDb) -> Result<Option<Member>, DbError> {
    Ok(with_conn!(db.db(), |conn| members::table
        .filter(members::mesh_id.eq(db.mesh().as_str()))
        .filter(members::role.eq(Role::Owner.as_str()))
        .select(Member::as_select())
        .first(conn)
        .await
        .optional()?))
}

/// One member by its key, banned or not.
///
/// # Errors
/// Storage fails.
pub async fn by_key(db: &MeshDb, key: &PublicKey) -> Result<Option<Member>, DbError> {
    let key = key.to_hex();
    Ok(with_conn!(db.db(), |conn| members::table
        .filter(members::mesh_id.eq(db.mesh().as_str()))
        .filter(members::pubkey.eq(&key))
        .select(Member::as_select())
        .first(conn)
        .await
        .optional()?))
}

/// Adds a member.
///
/// # Errors
/// [`DbError::Conflict`] when its key has a row in the mesh, banned or not.
pub async fn insert(store: &MeshStore, member: &Member) -> Result<(), DbError> {
    let member = Member { mesh_id: store.mesh().clone(), ..member.clone() };
    Ok(tx_write!(store, (member), |conn, _mesh| {
        diesel::insert_into(members::table).values(member.clone()).execute(conn).await?;
        let payload = json!({"member": member.id, "role": member.role.as_str()});
        Ok(((), Audit::entry("member_joined", Some(&member.id), payload, member.joined_at_ms)))
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
/// `name_taken` when another living member has the new name; storage fails.
pub async fn update(
    store: &MeshStore,
    member: &MemberId,
    patch: &MemberPatch,
    by: &By,
) -> Result<Option<Member>, Refusal> {
    let (member, patch, by) = (member.clone(), patch.clone(), by.clone());
    let done: Result<Option<Member>, WriteError<Refusal>> = tx_write!(store, (member, patch, by), |conn, mesh| {
        let changes = MemberChanges {
            display_name: patch.display_name.as_deref(),
            role_tag: patch.role_tag.as_ref().map(Option::as_deref),
            default_groups: patch.default_groups.as_ref().map(convert::to_json),
            message_mode: patch.message_mode.as_deref(),
            role: patch.role.map(Role::as_str),
        };
        let before = live!(mesh, member).select(members::display_name).first::<String>(conn).await.optional()?;
        let renamed = before.filter(|before| patch.display_name.as_ref().is_some_and(|name| name != before));
        if let (Some(name), true) = (&patch.display_name, renamed.is_some())
            && names_of_others!(conn, mesh, member).contains(&folded(name))
        {
            return Err(WriteError::Refused(taken(name)));
        }
        // Diesel refuses an update that changes nothing.
        let changed = *patch != MemberPatch::default()
            && diesel::update(live!(mesh, member)).set(changes).execute(conn).await? == 1;
        let found = live!(mesh, member).select(Member::as_select()).first(conn).await.optional()?;
        if let Some(from) = &renamed {
            insert_former!(conn, mesh, Subject::Member(member.clone()), from, by.at_ms);
        }
        let mut payload = json!({"member": member, "fields": patch.fields(), "role": patch.role.map(Role::as_str)});
        if let Some(from) = renamed {
            payload["renamed"] = json!({"from": from, "to": patch.display_name});
        }
        Ok((found, Audit::when(changed, || by.entry("member_changed", payload))))
    });
    Ok(done?)
}

/// Bans a member; `false` when it is not there or banned already. The owner's row is never banned. The reason stands in the audit
/// log, where the owner and admins read it.
///
/// # Errors
/// Storage fails.
pub async fn revoke(store: &MeshStore, member: &MemberId, reason: Option<String>, by: &By) -> Result<bool, DbError> {
    let (member, by) = (member.clone(), by.clone());
    let told = match reason {
        Some(reason) => json!({"member": member, "reason": reason}),
        None => json!({"member": member}),
    };
    Ok(tx_write!(store, (member, by, told), |conn, mesh| {
        let row = live!(mesh, member).filter(members::role.ne(Role::Owner.as_str()));
        let changed = diesel::update(row).set(members::revoked_at_ms.eq(by.at_ms)).execute(conn).await? == 1;
        Ok((changed, Audit::when(changed, || by.entry("member_banned", told.clone()))))
    })?)
}

/// Lifts a ban and answers the name that the member has then; `None` when there was none. A name that another member took
/// meanwhile gets a number.
///
/// # Errors
/// Storage fails.
pub async fn unrevoke(store: &MeshStore, member: &MemberId, by: &By) -> Result<Option<String>, DbError> {
    let (member, by) = (member.clone(), by.clone());
    Ok(tx_write!(store, (member, by), |conn, mesh| {
        let banned = members::table
            .find(member.as_str())
            .filter(members::mesh_id.eq(mesh.as_str()))
            .filter(members::revoked_at_ms.is_not_null())
            .filter(members::removed_at_ms.is_null());
        let name = banned.select(members::display_name).first::<String>(conn).await.optional()?;
        let name = match name {
            Some(name) => Some(distinct(&name, &names_of_others!(conn, mesh, member))),
            None => None,
        };
        if let Some(name) = &name {
            let change = (members::revoked_at_ms.eq(None::<i64>), members::display_name.eq(name));
            diesel::update(banned).set(change).execute(conn).await?;
        }
        let changed = name.is_some();
        Ok((name, Audit::when(changed, || by.entry("member_unbanned", json!({"member": member})))))
    })?)
}

/// What became of the holder of the owner's key who came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejoined {
    /// The member, role `owner`.
    pub member: Member,
    /// The key was a member before.
    pub already_member: bool,
    /// Members that were `owner` until now and are plain members since.
    pub former: Vec<MemberId>,
}

/// Makes a key the owner's member: a new row, or the one that the key has. A mesh has one owner, so members that had the role
/// become plain ones; a lost key can be banned then. The caller has checked that the owner's key asks.
///
/// # Errors
/// Storage fails.
pub async fn rejoin(store: &MeshStore, member: &Member) -> Result<Rejoined, DbError> {
    let member = Member { mesh_id: store.mesh().clone(), role: Role::Owner, ..member.clone() };
    Ok(tx_write!(store, (member), |conn, mesh| {
        let known = members::table
            .filter(members::mesh_id.eq(mesh.as_str()))
            .filter(members::pubkey.eq(member.pubkey.to_hex()))
            .select(Member::as_select())
            .first(conn)
            .await
            .optional()?;
        let already_member = known.is_some();
        let before = known.clone();
        let now = match known {
            Some(known) => Member { role: Role::Owner, revoked_at_ms: None, removed_at_ms: None, ..known },
            None => member.clone(),
        };
        // A name of before may have another member by now.
        let is_new = before.as_ref().is_none_or(|before| before.revoked_at_ms.is_some());
        let name = if is_new {
            distinct(&now.display_name, &names_of_others!(conn, mesh, now.id))
        } else {
            now.display_name.clone()
        };
        let now = Member { display_name: name, ..now };
        if already_member {
            let row = members::table.find(now.id.as_str()).filter(members::mesh_id.eq(mesh.as_str()));
            let change = (
                members::role.eq(Role::Owner.as_str()),
                members::display_name.eq(&now.display_name),
                members::revoked_at_ms.eq(None::<i64>),
                members::removed_at_ms.eq(None::<i64>),
            );
            diesel::update(row).set(change).execute(conn).await?;
        } else {
            diesel::insert_into(members::table).values(now.clone()).execute(conn).await?;
        }
        let others = members::table
            .filter(members::mesh_id.eq(mesh.as_str()))
            .filter(members::role.eq(Role::Owner.as_str()))
            .filter(members::id.ne(now.id.as_str()));
        let former: Vec<String> = others.select(members::id).order(members::id).load(conn).await?;
        diesel::update(others).set(members::role.eq(Role::Member.as_str())).execute(conn).await?;
        let changed = before.as_ref() != Some(&now) || !former.is_empty();
        let payload = json!({"member": now.id, "former": former});
        let former = former.into_iter().map(MemberId::from).collect();
        let entry =
            Audit::when(changed, || Audit::entry("owner_rejoined", Some(&now.id), payload, member.joined_at_ms));
        Ok((Rejoined { member: now.clone(), already_member, former }, entry))
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
