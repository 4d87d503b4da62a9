//! `capabilities`: what was allowed or denied to single members, and what plain members start with.
//!
//! The rules of an edit are checked in the transaction that writes it, on the rows as they are there: two edits that cross
//! cannot give what neither editor has.

use std::collections::{BTreeMap, HashMap};

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::capabilities::{Changes, Overrides};
use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::members::Role;
use super::schema::{capabilities, members};
use crate::audit::{Audit, By};
use crate::db::{DbError, MeshDb};
use crate::journal::{MeshStore, WriteError};
use crate::refusal::Refusal;
use crate::{tx_write, with_conn};

/// Whose capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One member's.
    Member(MemberId),
    /// What plain members start with.
    Start,
}

impl Subject {
    /// As it is stored: no member has an empty id.
    fn column(&self) -> &str {
        match self {
            Self::Member(member) => member.as_str(),
            Self::Start => "",
        }
    }
}

/// Who may do what in one mesh, beside what roles have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rights {
    start: Overrides,
    members: HashMap<MemberId, Overrides>,
}

impl Rights {
    fn read(rows: Vec<(String, String, bool)>) -> Self {
        let mut rights = Self::default();
        for (member, capability, allowed) in rows {
            // A capability that a later broker knew is kept in storage and means nothing here.
            let Some(capability) = Capability::parse(&capability) else { continue };
            let of =
                if member.is_empty() { &mut rights.start } else { rights.members.entry(member.into()).or_default() };
            of.insert(capability, allowed);
        }
        rights
    }

    /// Whether a member may do it: the owner always; then its own word; then, for plain members, the mesh's; then the role's.
    pub fn allows(&self, member: &MemberId, role: Role, capability: Capability) -> bool {
        if role == Role::Owner {
            return true;
        }
        let own = self.members.get(member).and_then(|own| own.get(&capability));
        let start = || self.start.get(&capability).filter(|_| role == Role::Member);
        own.or_else(start).copied().unwrap_or_else(|| role.allows(capability))
    }

    /// What is allowed and denied to a subject alone.
    pub fn of(&self, subject: &Subject) -> Overrides {
        match subject {
            Subject::Member(member) => self.members.get(member).cloned().unwrap_or_default(),
            Subject::Start => self.start.clone(),
        }
    }

    /// Takes over what a subject has now.
    pub fn put(&mut self, subject: &Subject, overrides: Overrides) {
        match subject {
            Subject::Start => self.start = overrides,
            Subject::Member(member) if overrides.is_empty() => drop(self.members.remove(member)),
            Subject::Member(member) => drop(self.members.insert(member.clone(), overrides)),
        }
    }

    /// Every capability of a member.
    pub fn all(&self, member: &MemberId, role: Role) -> Overrides {
        Capability::ALL.iter().map(|&one| (one, self.allows(member, role, one))).collect()
    }

    /// What the rights of a subject are after a change.
    fn after(&self, subject: &Subject, changes: &Changes) -> Self {
        let mut overrides = self.of(subject);
        for (&capability, change) in changes {
            match change {
                Some(allowed) => drop(overrides.insert(capability, *allowed)),
                None => drop(overrides.remove(&capability)),
            }
        }
        let mut after = self.clone();
        after.put(subject, overrides);
        after
    }
}

/// A live member as the rules see it.
#[derive(Clone, Debug, PartialEq)]
struct Person {
    id: MemberId,
    role: Role,
}

/// Why an edit is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EditError {
    /// Neither owner, nor an admin who may edit capabilities.
    #[error("expected the owner, or an admin with the capability canManagePermissions")]
    NotAnEditor,
    /// The owner has everything, always.
    #[error("the owner's capabilities cannot be changed")]
    Owner,
    /// Admins do not edit each other.
    #[error("only the owner changes what another admin may do")]
    OtherAdmin,
    /// The editor does not have it.
    #[error("you cannot give {}, which you do not have", .0.as_str())]
    NotYours(Capability),
    /// No such live member.
    #[error("no such member in this mesh")]
    NoMember,
    /// Nothing to change.
    #[error("expected at least one capability in `permissions`")]
    Nothing,
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        let code = match error {
            EditError::NotAnEditor | EditError::Owner | EditError::OtherAdmin | EditError::NotYours(_) => {
                ErrorCode::Forbidden
            }
            EditError::NoMember => ErrorCode::NotFound,
            EditError::Nothing => ErrorCode::InvalidArgs,
        };
        Self::new(code, error.to_string())
    }
}

/// The rules of an edit; `None` edits as the owner's key. `target` is `None` for what plain members start with.
fn check(
    rights: &Rights,
    editor: Option<&Person>,
    target: Option<&Person>,
    changes: &Changes,
) -> Result<(), EditError> {
    if changes.is_empty() {
        return Err(EditError::Nothing);
    }
    if target.is_some_and(|target| target.role == Role::Owner) {
        return Err(EditError::Owner);
    }
    let Some(editor) = editor.filter(|editor| editor.role != Role::Owner) else { return Ok(()) };
    let has = |capability| rights.allows(&editor.id, editor.role, capability);
    if editor.role < Role::Admin || !has(Capability::CanManagePermissions) {
        return Err(EditError::NotAnEditor);
    }
    if target.is_some_and(|target| target.role == Role::Admin && target.id != editor.id) {
        return Err(EditError::OtherAdmin);
    }
    // To reset is to give when the role, or the start, has what was denied.
    let subject = target.map_or(Subject::Start, |target| Subject::Member(target.id.clone()));
    let after = rights.after(&subject, changes);
    let role = target.map_or(Role::Member, |target| target.role);
    let id = MemberId::from(subject.column());
    let gives = |capability| after.allows(&id, role, capability) && !rights.allows(&id, role, capability);
    match changes.iter().find(|(one, change)| (**change == Some(true) || gives(**one)) && !has(**one)) {
        Some((capability, _)) => Err(EditError::NotYours(*capability)),
        None => Ok(()),
    }
}

/// Who may do what, as it is stored.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &MeshDb) -> Result<Rights, DbError> {
    let rows = with_conn!(db.db(), |conn| capabilities::table
        .filter(capabilities::mesh_id.eq(db.mesh().as_str()))
        .select((capabilities::member_id, capabilities::capability, capabilities::allowed))
        .load(conn)
        .await?);
    Ok(Rights::read(rows))
}

/// Changes what a subject may do, if `by` may change that. Returns what it has of its own then.
///
/// # Errors
/// [`EditError`]: nothing was changed. Or storage fails.
pub async fn edit(
    store: &MeshStore,
    subject: &Subject,
    changes: &Changes,
    by: &By,
) -> Result<Overrides, WriteError<EditError>> {
    let (subject, changes, by) = (subject.clone(), changes.clone(), by.clone());
    let cost = changes.len();
    tx_write!(store, rows: cost, (subject, changes, by), |conn, mesh| {
        let ids: Vec<&str> = by.member.iter().map(MemberId::as_str).chain([subject.column()]).collect();
        let live: Vec<(String, String)> = members::table
            .filter(members::mesh_id.eq(mesh.as_str()))
            .filter(members::id.eq_any(ids))
            .filter(members::revoked_at_ms.is_null())
            .select((members::id, members::role))
            .load(conn)
            .await?;
        let people: BTreeMap<MemberId, Role> =
            live.into_iter().filter_map(|(id, role)| Some((id.into(), Role::parse(&role)?))).collect();
        let person = |id: &MemberId| people.get(id).map(|role| Person { id: id.clone(), role: *role });
        let editor = match &by.member {
            Some(id) => Some(person(id).ok_or(WriteError::Refused(EditError::NotAnEditor))?),
            None => None,
        };
        let target = match &subject {
            Subject::Member(id) => Some(person(id).ok_or(WriteError::Refused(EditError::NoMember))?),
            Subject::Start => None,
        };
        let rows = capabilities::table
            .filter(capabilities::mesh_id.eq(mesh.as_str()))
            .select((capabilities::member_id, capabilities::capability, capabilities::allowed))
            .load(conn)
            .await?;
        let rights = Rights::read(rows);
        check(&rights, editor.as_ref(), target.as_ref(), changes).map_err(WriteError::Refused)?;
        for (capability, change) in changes {
            let row = (
                capabilities::mesh_id.eq(mesh.as_str()),
                capabilities::member_id.eq(subject.column()),
                capabilities::capability.eq(capability.as_str()),
            );
            diesel::delete(capabilities::table.find((mesh.as_str(), subject.column(), capability.as_str())))
                .execute(conn)
                .await?;
            if let Some(allowed) = change {
                diesel::insert_into(capabilities::table)
                    .values((row, capabilities::allowed.eq(*allowed)))
                    .execute(conn)
                    .await?;
            }
        }
        let payload = match &subject {
            Subject::Member(member) => json!({"member": member, "permissions": changes}),
            Subject::Start => json!({"default": true, "permissions": changes}),
        };
        let after = rights.after(subject, changes);
        let entry = Audit::when(after != rights, || by.entry("permissions_changed", payload));
        Ok((after.of(subject), entry))
    })
}

#[cfg(test)]
#[path = "rights_tests.rs"]
mod tests;
